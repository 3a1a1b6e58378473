//! JUnit XML, as test runners of all kinds write it, read as a stream: one test at a time.
//!
//! Test runners write what tests print, whatever that is, and are killed in the middle of it. What can be read counts:
//! an entity that XML does not know stays as it is, bytes that are no text and control characters are replaced, since
//! whoever opens a pull request writes tests and people read them on terminals; colours are taken out; an element that is closed
//! wrongly ends where another proves that it is over. The last item says so.
//!
//! A test counts as a success only where its whole element was read: what is cut off, torn or never closed could have been a
//! failure, and is left out unless it is one. Whatever was guessed or left out is said, with its place.

mod decode;
mod element;
mod place;
mod summary;
mod tag;
#[cfg(test)]
mod tests;

use crate::server::store::status::TestResult;
use crate::server::store::tables::results::TestCase;
use crate::terminal::{without_colours, without_controls};
use decode::Decoded;
use element::{MEANS_FAILURE, NO_RESULT, check_depth, counts, is_suite, named, result_of};
use place::Spot;
use quick_xml::events::Event;
use quick_xml::{Error, Reader};
use std::borrow::Cow;
use std::fmt;
use std::io::{BufReader, Read, Seek};
use summary::CaseMessage;
use tag::{Attributes, entity, left_out, readable, seconds, shown};

/// Mistakes that are told with their places; of others the number.
const MOST_TOLD: usize = 5;
/// Why a file was not read, not to its end, or not as it is: a sentence for people, with a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_controls(&self.0))
    }
}

impl std::error::Error for Unreadable {}

/// The tests of a file, in their order. What is wrong with the file is the last item.
///
/// It holds one tag or one stretch of text of the file at a time, and the names of the elements that are open.
pub struct Cases<R: Read> {
    reader: Reader<BufReader<Decoded<R>>>,
    buffer: Vec<u8>,
    /// Offset at which the piece that was read last begins.
    at: u64,
    /// A piece that was read before its turn.
    next: Option<Piece>,
    /// Elements that are open, outside test cases.
    open: Vec<Around>,
    has_root: bool,
    is_over: bool,
    /// Failing tests that were given.
    failing: u64,
    /// Fault that ends the reading after what was read last.
    fatal: Option<Unreadable>,
    /// The first mistakes that reading went on after, and their offsets.
    mistakes: Vec<(String, u64)>,
    /// How many there were beside those.
    more_mistakes: u64,
    /// Texts with bytes that were replaced.
    replaced: u64,
    /// Texts with control characters that were replaced.
    controlled: u64,
}

/// An element outside of test cases, as a rule a suite.
struct Around {
    name: String,
    /// Name that the report gives the element, for people.
    title: Option<String>,
    /// File that it names.
    file: Option<String>,
    /// Failures that it counts, and how many there were when it began.
    counted: u64,
    failing_before: u64,
}

/// A part of a file, as far as the reader looks at it.
enum Piece {
    Open { name: String, attributes: Box<Attributes>, is_empty: bool },
    Close(String),
    Text(String),
    Other,
    End,
}

impl<R: Read + Seek> Cases<R> {
    /// Reads from the beginning of a source.
    pub fn new(source: R) -> Self {
        let mut reader = Reader::from_reader(BufReader::with_capacity(64 * 1024, Decoded::new(source)));
        let config = reader.config_mut();
        config.allow_dangling_amp = true;
        // Names are compared here, where reading can go on.
        config.check_end_names = false;
        config.allow_unmatched_ends = true;
        Self {
            reader,
            buffer: Vec::new(),
            at: 0,
            next: None,
            open: Vec::new(),
            has_root: false,
            is_over: false,
            failing: 0,
            fatal: None,
            mistakes: Vec::new(),
            more_mistakes: 0,
            replaced: 0,
            controlled: 0,
        }
    }

    fn next_case(&mut self) -> Result<Option<TestCase>, Unreadable> {
        loop {
            // Text is none of a report here, unless it is that of another element, such as output.
            let is_stray = self.open.last().is_none_or(|around| is_suite(&around.name));
            match self.step(is_stray)? {
                Piece::Open { name, attributes, is_empty } => {
                    if !self.has_root && !is_suite(&name) {
                        return Err(Unreadable(format!(
                            "not JUnit XML: its root is {} (expected `testsuites` or `testsuite`)",
                            named(&name)
                        )));
                    }
                    if self.has_root && self.open.is_empty() {
                        self.note(format!("{} stands behind the end of the root", named(&name)));
                    }
                    self.has_root = true;
                    let result = result_of(&name);
                    let found = if name == "testcase" {
                        self.case(*attributes, is_empty)?
                    } else if result == TestResult::Failure && is_stray {
                        self.failure_of_suite(&name, *attributes, is_empty)?
                    } else {
                        self.enter(name, *attributes, is_empty)?;
                        None
                    };
                    if let Some(case) = found {
                        self.failing += u64::from(case.result == TestResult::Failure);
                        return Ok(Some(case));
                    }
                }
                Piece::Close(name) => self.close(&name),
                Piece::Text(text) => {
                    if !text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}').is_empty() {
                        let place = match self.open.last() {
                            Some(around) => format!("between the elements of {}", named(&around.name)),
                            None if self.has_root => "behind the end of the root".to_owned(),
                            None => "before the root".to_owned(),
                        };
                        self.note(format!("there is text {place}, which is left out"));
                    }
                }
                Piece::Other => {}
                Piece::End if !self.has_root => {
                    return Err(Unreadable("not valid XML: there is no element in it".to_owned()));
                }
                Piece::End if !self.open.is_empty() => return Err(self.ends_early()),
                Piece::End => return Ok(None),
            }
        }
    }

    /// Opens an element outside test cases.
    fn enter(&mut self, name: String, attributes: Attributes, is_empty: bool) -> Result<(), Unreadable> {
        check_depth(self.open.len()).map_err(Unreadable)?;
        let Attributes { name: title, file, counted, .. } = attributes;
        let counted = if is_suite(&name) { counted } else { 0 };
        let around = Around { name, title, file, counted, failing_before: self.failing };
        match is_empty {
            true => self.leave(&around),
            false => self.open.push(around),
        }
        Ok(())
    }

    /// Compares what an element outside test cases counts with what was found in it: a failure that cannot be seen was one
    /// all the same.
    fn leave(&mut self, around: &Around) {
        let found = self.failing - around.failing_before;
        if around.counted > found {
            let title = around.title.as_ref().map_or_else(String::new, |title| format!(" `{title}`"));
            self.note(format!(
                "{}{title} counts {} failures and errors, of which {found} are in it: the others are not stored",
                named(&around.name),
                around.counted
            ));
        }
    }

    /// Closes an element outside test cases, and those in it that were not closed.
    fn close(&mut self, name: &str) {
        match self.open.iter().rposition(|around| around.name == name) {
            Some(at) => {
                if at + 1 < self.open.len() {
                    let inner = named(&self.open[at + 1].name);
                    self.note(format!("{inner} is not closed before {} is", named(name)));
                }
                for around in self.open.split_off(at).iter().rev() {
                    self.leave(around);
                }
            }
            None => self.note(format!("{} is closed, and was not open", named(name))),
        }
    }

    /// A failure beside the tests of a suite: that of its setup, or of its whole program.
    fn failure_of_suite(
        &mut self,
        element: &str,
        attributes: Attributes,
        is_empty: bool,
    ) -> Result<Option<TestCase>, Unreadable> {
        self.note(format!("`{element}` stands outside of a `testcase`: it is stored as a failed test"));
        let suite = self.open.last().and_then(|around| around.title.clone()).unwrap_or_default();
        let whole =
            Attributes { name: Some(element.to_owned()), classname: Some(suite), ..Attributes::default() };
        self.next =
            Some(Piece::Open { name: element.to_owned(), attributes: Box::new(attributes), is_empty });
        self.read_case(whole, Some(element))
    }

    /// Reads a test case up to its end; `None` when it is left out, since its result is not known.
    fn case(&mut self, own: Attributes, is_empty: bool) -> Result<Option<TestCase>, Unreadable> {
        if !is_empty {
            return self.read_case(own, None);
        }
        let line = own.line.clone();
        let (case, is_torn) = self.begun(own);
        let spot = Spot { file: case.file.clone(), line };
        Ok(self.known(case, is_torn, &[spot, Spot::default()]))
    }

    /// The test, unless it could have failed where that was not read. `spots` are those of its tag and of its failure.
    fn known(&mut self, mut case: TestCase, is_torn: bool, spots: &[Spot; 2]) -> Option<TestCase> {
        if case.result == TestResult::Failure {
            case.place = place::of(&spots[0], &case.classname, &spots[1], &case.message);
        }
        if !is_torn || case.result == TestResult::Failure {
            return Some(case);
        }
        self.note(left_out(&case.name));
        None
    }

    /// A test as its tag has it, and whether the tag is torn.
    fn begun(&mut self, own: Attributes) -> (TestCase, bool) {
        let name = own.name.unwrap_or_default();
        let run_time = match seconds(own.time.as_deref().unwrap_or_default()) {
            Some(seconds) => seconds,
            None => {
                let time = own.time.unwrap_or_default();
                self.note(format!(
                    "the `time` of the test `{}` is `{}`, which is no number of seconds: it counts as 0",
                    shown(&name),
                    shown(&time)
                ));
                0.0
            }
        };
        let mut case = TestCase {
            name,
            classname: own.classname.unwrap_or_default(),
            file: own.file.or_else(|| self.open.iter().rev().find_map(|around| around.file.clone())),
            run_time,
            result: TestResult::Success,
            message: String::new(),
            place: None,
        };
        if own.has_failure {
            case.result = TestResult::Failure;
            case.message = own.message.unwrap_or_default();
        } else if let Some(word) = own.says_failed {
            case.result = TestResult::Failure;
            case.message = word;
        }
        (case, own.is_torn)
    }

    /// Reads what is in a test case, or in the one element `only` that stands for one.
    fn read_case(&mut self, own: Attributes, only: Option<&str>) -> Result<Option<TestCase>, Unreadable> {
        // The words of the tag count where no element says more.
        let line = own.line.clone();
        let (mut case, mut is_torn) = self.begun(own);
        let mut spots = [Spot { file: case.file.clone(), line }, Spot::default()];
        let mut is_told = false;
        // Elements below the test case, and the failure or the skip among them that is open, at a depth.
        let (mut inside, mut told, mut told_at): (Vec<String>, Option<CaseMessage>, usize) =
            (Vec::new(), None, 0);
        // A failure in an element that is no result, should that not be closed where it seems to be.
        let mut hidden = false;
        // Output of a test whose failure says nothing.
        let mut output: Option<CaseMessage> = None;
        loop {
            let is_output = inside.first().is_some_and(|name| name.starts_with("system-"));
            match self.step(told.is_some() || is_output && output.is_some()) {
                Ok(Piece::Open { name, attributes, is_empty }) if name == "testcase" => {
                    self.note("a `testcase` is not closed before the next one begins".to_owned());
                    self.next = Some(Piece::Open { name, attributes, is_empty });
                    is_torn = true;
                    break;
                }
                Ok(Piece::Open { name, attributes, is_empty }) => {
                    is_torn |= attributes.is_torn;
                    let result = result_of(&name);
                    let is_no_result = inside.iter().any(|name| NO_RESULT.contains(&name.as_str()));
                    hidden |= is_no_result && result == TestResult::Failure;
                    let counts_here = inside.is_empty() || (result == TestResult::Failure && told.is_none());
                    if counts_here
                        && !is_no_result
                        && (counts(case.result, result) || (!is_told && result == TestResult::Failure))
                    {
                        (case.result, is_told) = (result, true);
                        let Attributes { message, kind, file, line, .. } = *attributes;
                        spots[1] = Spot { file, line };
                        let new =
                            CaseMessage { text: String::new(), attribute: message, kind, is_cut: false };
                        if is_empty {
                            case.message = new.message(&case.name);
                        } else {
                            (told, told_at) = (Some(new), inside.len());
                        }
                    }
                    if !is_empty {
                        check_depth(inside.len()).map_err(Unreadable)?;
                        if inside.is_empty()
                            && name.starts_with("system-")
                            && case.result == TestResult::Failure
                        {
                            output = output.or_else(|| CaseMessage::beside(&case.message, &case.name));
                        }
                        inside.push(name);
                    } else if inside.is_empty() && only.is_some() {
                        break;
                    }
                }
                Ok(Piece::Close(name)) => {
                    if let Some(at) = inside.iter().rposition(|open| *open == name) {
                        if at + 1 < inside.len() {
                            let inner = named(&inside[at + 1]);
                            self.note(format!("{inner} is not closed before {} is", named(&name)));
                        }
                        inside.truncate(at);
                        if let Some(told) = told.take_if(|_| at <= told_at) {
                            case.message = told.message(&case.name);
                        }
                        if at == 0 && only.is_some() {
                            break;
                        }
                    } else if name == "testcase" && only.is_none() {
                        if let Some(open) = inside.first() {
                            self.note(format!("{} is not closed before `testcase` is", named(open)));
                            if hidden && case.result != TestResult::Failure {
                                case.result = TestResult::Failure;
                            }
                        }
                        break;
                    } else if self.open.iter().any(|around| around.name == name) {
                        self.note(format!("a `testcase` is not closed before {} is", named(&name)));
                        self.next = Some(Piece::Close(name));
                        is_torn = true;
                        break;
                    } else {
                        self.note(format!("{} is closed, and was not open", named(&name)));
                    }
                }
                Ok(Piece::Text(text)) => {
                    if let Some(told) = told.as_mut().or(output.as_mut()) {
                        told.add(&text);
                    }
                }
                Ok(Piece::Other) => {}
                end @ (Ok(Piece::End) | Err(_)) => {
                    let mut why = end.err().unwrap_or_else(|| self.ends_early());
                    // A test that is cut off has a result only when its failure begins before the cut.
                    if case.result != TestResult::Failure {
                        why.0 += &format!("; {}", left_out(&case.name));
                        return Err(why);
                    }
                    self.fatal = Some(why);
                    break;
                }
            }
        }
        // A test case that ends inside its failure has that failure's message.
        if let Some(told) = told {
            case.message = told.message(&case.name);
        } else if let Some(output) = output {
            case.message = output.message(&case.name);
        }
        Ok(self.known(case, is_torn, &spots))
    }

    /// Remembers a mistake, at the place of the piece that was read last.
    fn note(&mut self, what: String) {
        match self.mistakes.len() < MOST_TOLD {
            true => self.mistakes.push((what, self.at)),
            false => self.more_mistakes += 1,
        }
    }

    /// Reads on; text only where it is wanted.
    fn step(&mut self, wants_text: bool) -> Result<Piece, Unreadable> {
        if let Some(piece) = self.next.take() {
            return Ok(piece);
        }
        if let Some(why) = self.fatal.take() {
            return Err(why);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        self.at = self.reader.buffer_position();
        let piece = match self.reader.read_event_into(&mut buffer) {
            Ok(event) => Ok(self.piece(event, wants_text)),
            Err(error) => {
                let why = self.mistake(&error);
                let cut = Some(&buffer).filter(|_| matches!(error, Error::Syntax(_)));
                match cut.filter(|_| self.has_root).and_then(|tag| tag::cut_off(tag, &mut self.replaced)) {
                    Some(tag) => {
                        self.fatal = Some(why);
                        Ok(self.opened(tag, true))
                    }
                    None => Err(why),
                }
            }
        };
        self.buffer = buffer;
        piece
    }

    fn piece(&mut self, event: Event<'_>, wants_text: bool) -> Piece {
        let replaced = &mut self.replaced;
        match event {
            Event::Start(tag) => {
                let read = tag::read(&tag, replaced);
                self.opened(read, false)
            }
            Event::Empty(tag) => {
                let read = tag::read(&tag, replaced);
                self.opened(read, true)
            }
            Event::End(tag) => {
                let name = readable(tag.local_name().as_ref(), replaced);
                let small = name.to_ascii_lowercase();
                Piece::Close(match MEANS_FAILURE.contains(&small.as_str()) {
                    true => "failure".to_owned(),
                    false if result_of(&small) != TestResult::Success || small == "testcase" => small,
                    false => name,
                })
            }
            Event::Text(text) if wants_text => Piece::Text(readable(&text, replaced)),
            Event::CData(text) if wants_text => Piece::Text(readable(&text, replaced)),
            Event::GeneralRef(name) if wants_text => {
                let name = readable(&name, replaced);
                Piece::Text(entity(&name).map_or_else(|| format!("&{name};"), String::from))
            }
            Event::Eof => Piece::End,
            // A document type too: what it declares is not looked at, and its entities stay as they are.
            _ => Piece::Other,
        }
    }

    fn opened(&mut self, tag: tag::Tag, is_empty: bool) -> Piece {
        let tag::Tag { mut name, mut attributes, faults } = tag;
        faults.into_iter().for_each(|fault| self.note(fault));
        // Other spellings of a failure, and other words for one, must not hide it.
        let small = name.to_ascii_lowercase();
        let meant = if MEANS_FAILURE.contains(&small.as_str()) { "failure" } else { &small };
        if meant != name && (result_of(meant) != TestResult::Success || meant == "testcase") {
            self.note(format!("`{name}` is taken for `{meant}`"));
            name = meant.to_owned();
        }
        if !name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            self.note("a tag has no name".to_owned());
            attributes.is_torn = true;
        }
        Piece::Open { name, attributes: Box::new(attributes), is_empty }
    }

    fn mistake(&mut self, error: &Error) -> Unreadable {
        let offset = self.reader.error_position();
        let place = self.place(offset);
        Unreadable(format!("not valid XML at {place}: {error}"))
    }

    fn ends_early(&mut self) -> Unreadable {
        let offset = self.reader.buffer_position();
        let place = self.place(offset);
        Unreadable(format!("not valid XML at {place}: it ends before its last element does"))
    }

    /// The remark on what was read, if there is one.
    fn remark(&mut self) -> Option<String> {
        let mistakes = std::mem::take(&mut self.mistakes);
        let mut told: Vec<String> = mistakes
            .into_iter()
            .map(|(what, offset)| format!("{what} (at {})", self.place(offset)))
            .collect();
        if self.more_mistakes > 0 {
            told.push(format!("{} more", self.more_mistakes));
        }
        let mut remarks = Vec::new();
        if !told.is_empty() {
            remarks.push(format!("read with mistakes: {}", told.join("; ")));
        }
        let texts = |count: u64, what: &str| match count {
            0 => None,
            1 => Some(format!("1 text of it had {what}")),
            count => Some(format!("{count} texts of it had {what}")),
        };
        let found = [(self.replaced, "bytes that are no UTF-8"), (self.controlled, "control characters")];
        let found: Vec<String> = found.into_iter().filter_map(|(count, what)| texts(count, what)).collect();
        if !found.is_empty() {
            remarks.push(format!("read, but {}, which were replaced", found.join(" and ")));
        }
        (!remarks.is_empty()).then(|| remarks.join("; "))
    }

    /// Line and column of an offset, in bytes from 1. Reads the source again: mistakes are rare, and the last
    /// thing that is looked at.
    fn place(&mut self, offset: u64) -> String {
        let source = self.reader.get_mut().get_mut();
        let (mut line, mut column, mut left) = (1, 1, offset);
        let mut block = vec![0; 64 * 1024];
        if source.rewind().is_ok() {
            while let Ok(read @ 1..) = source.read(&mut block) {
                let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(read);
                for byte in &block[..wanted] {
                    (line, column) = if *byte == b'\n' { (line + 1, 1) } else { (line, column + 1) };
                }
                left -= wanted as u64;
                if left == 0 {
                    break;
                }
            }
        }
        format!("{line}:{column}")
    }
}

impl<R: Read + Seek> Iterator for Cases<R> {
    type Item = Result<TestCase, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let mut next = self.next_case().transpose();
        if let Some(Ok(case)) = &mut next {
            let texts = [&mut case.name, &mut case.classname, &mut case.message];
            for text in texts.into_iter().chain(&mut case.file) {
                self.controlled += u64::from(clean(text));
            }
            case.place.iter_mut().for_each(|place| {
                clean(place);
            });
        }
        self.is_over = !matches!(next, Some(Ok(_)));
        match next {
            None => self.remark().map(|why| Err(Unreadable(why))),
            // A file without a root had nothing that could be read.
            Some(Err(why)) if !self.has_root => Some(Err(why)),
            Some(Err(Unreadable(why))) => Some(Err(Unreadable(match self.remark() {
                Some(remark) => format!("{why}; what stands before was {remark}"),
                None => why,
            }))),
            case => case,
        }
    }
}

/// Leaves what every terminal and database can have; true when characters had to be replaced. The whole text is looked
/// at, since an entity may be the first character of a colour.
fn clean(text: &mut String) -> bool {
    if let Cow::Owned(plain) = without_colours(text) {
        *text = plain;
    }
    match without_controls(text) {
        Cow::Borrowed(_) => false,
        Cow::Owned(clean) => {
            *text = clean;
            true
        }
    }
}
