//! JUnit XML, as test runners of all kinds write it, read as a stream: one test at a time.
//!
//! Test runners write what tests print, whatever that is, and are killed in the middle of it. What can be read counts:
//! an entity that XML does not know stays as it is, bytes that are no text are replaced, an element that is closed
//! wrongly ends where another proves that it is over. The last item says so.

mod decode;
mod summary;

use crate::server::store::status::TestResult;
use crate::server::store::tables::results::TestCase;
use decode::Decoded;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::borrow::Cow;
use std::fmt;
use std::io::{BufReader, Read, Seek};
use summary::Told;

/// Most elements in each other: each takes memory.
const DEEPEST: usize = 1000;

/// Why a file was not read, not to its end, or not as it is: a sentence for people, with a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

/// The tests of a file, in their order. What is wrong with the file is the last item.
///
/// It holds one tag or one stretch of text of the file at a time, and the names of the elements that are open.
pub struct Cases<R: Read> {
    reader: Reader<BufReader<Decoded<R>>>,
    buffer: Vec<u8>,
    /// A piece that was read before its turn.
    next: Option<Piece>,
    /// Elements that are open, outside test cases, with the file that each names.
    open: Vec<(String, Option<String>)>,
    has_root: bool,
    is_over: bool,
    /// Fault that ends the reading after the test that was given last.
    fatal: Option<Unreadable>,
    /// The first mistake that reading went on after, and its offset.
    mistake: Option<(String, u64)>,
    /// Texts with bytes that were replaced.
    replaced: u64,
}

/// One step through a file.
enum Piece {
    Open { name: String, attributes: Attributes, is_empty: bool },
    Close(String),
    Text(String),
    Other,
    End,
}

/// The attributes that count, wherever they stand.
#[derive(Default)]
struct Attributes {
    name: Option<String>,
    classname: Option<String>,
    file: Option<String>,
    time: Option<String>,
    message: Option<String>,
    kind: Option<String>,
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
            next: None,
            open: Vec::new(),
            has_root: false,
            is_over: false,
            fatal: None,
            mistake: None,
            replaced: 0,
        }
    }

    fn next_case(&mut self) -> Result<Option<TestCase>, Unreadable> {
        if let Some(why) = self.fatal.take() {
            return Err(why);
        }
        loop {
            match self.step(false)? {
                Piece::Open { name, attributes, is_empty } => {
                    if !self.has_root && !matches!(name.as_str(), "testsuites" | "testsuite") {
                        return Err(Unreadable(format!(
                            "not JUnit XML: the root is `{name}` (expected `testsuites` or `testsuite`)"
                        )));
                    }
                    self.has_root = true;
                    if name == "testcase" {
                        return self.case(attributes, is_empty).map(Some);
                    } else if !is_empty {
                        self.check_depth(self.open.len())?;
                        self.open.push((name, attributes.file));
                    }
                }
                Piece::Close(name) => self.close(&name),
                Piece::Text(_) | Piece::Other => {}
                Piece::End if !self.has_root => {
                    return Err(Unreadable("not valid XML: there is no element in it".to_owned()));
                }
                Piece::End if !self.open.is_empty() => return Err(self.ends_early()),
                Piece::End => return Ok(None),
            }
        }
    }

    /// Closes an element outside test cases, and those in it that were not closed.
    fn close(&mut self, name: &str) {
        match self.open.iter().rposition(|(open, _)| open == name) {
            Some(at) => {
                if at + 1 < self.open.len() {
                    self.note(format!("`{}` is not closed before `{name}` is", self.open[at + 1].0));
                }
                self.open.truncate(at);
            }
            None => self.note(format!("`{name}` is closed, and was not open")),
        }
    }

    /// Reads a test case up to its end.
    fn case(&mut self, own: Attributes, is_empty: bool) -> Result<TestCase, Unreadable> {
        let seconds = own.time.unwrap_or_default().replace(',', "");
        let seconds: f64 = seconds.trim().parse().unwrap_or(0.0);
        let mut case = TestCase {
            name: own.name.unwrap_or_default(),
            classname: own.classname.unwrap_or_default(),
            file: own.file.or_else(|| self.open.iter().rev().find_map(|(_, file)| file.clone())),
            run_time: if seconds.is_finite() && seconds >= 0.0 { seconds } else { 0.0 },
            result: TestResult::Success,
            message: String::new(),
        };
        if is_empty {
            return Ok(case);
        }
        // Elements below the test case, and the failure or the skip among them that is open.
        let (mut inside, mut told): (Vec<String>, Option<Told>) = (Vec::new(), None);
        loop {
            match self.step(told.is_some()) {
                Ok(Piece::Open { name, attributes, is_empty }) if name == "testcase" => {
                    self.note("a `testcase` is not closed before the next one begins".to_owned());
                    self.next = Some(Piece::Open { name, attributes, is_empty });
                    return Ok(with_message(case, told));
                }
                Ok(Piece::Open { name, attributes, is_empty }) => {
                    if inside.is_empty() && counts(case.result, result_of(&name)) {
                        case.result = result_of(&name);
                        let Attributes { message, kind, .. } = attributes;
                        let new = Told { text: String::new(), attribute: message, kind };
                        if is_empty {
                            case.message = new.message(&case.name);
                        } else {
                            told = Some(new);
                        }
                    }
                    if !is_empty {
                        self.check_depth(inside.len())?;
                        inside.push(name);
                    }
                }
                Ok(Piece::Close(name)) => {
                    if let Some(at) = inside.iter().rposition(|open| *open == name) {
                        if at + 1 < inside.len() {
                            self.note(format!("`{}` is not closed before `{name}` is", inside[at + 1]));
                        }
                        inside.truncate(at);
                        if at == 0 {
                            if let Some(told) = told.take() {
                                case.message = told.message(&case.name);
                            }
                        }
                    } else if name == "testcase" {
                        if let Some(open) = inside.first() {
                            self.note(format!("`{open}` is not closed before `testcase` is"));
                        }
                        return Ok(with_message(case, told));
                    } else if self.open.iter().any(|(open, _)| *open == name) {
                        self.note(format!("a `testcase` is not closed before `{name}` is"));
                        self.next = Some(Piece::Close(name));
                        return Ok(with_message(case, told));
                    } else {
                        self.note(format!("`{name}` is closed, and was not open"));
                    }
                }
                Ok(Piece::Text(text)) => {
                    if let Some(told) = told.as_mut() {
                        told.add(&text);
                    }
                }
                Ok(Piece::Other) => {}
                end @ (Ok(Piece::End) | Err(_)) => {
                    let why = end.err().unwrap_or_else(|| self.ends_early());
                    // A test that is cut off has a result only when its failure stands before the cut.
                    if case.result == TestResult::Success {
                        return Err(why);
                    }
                    self.fatal = Some(why);
                    return Ok(with_message(case, told));
                }
            }
        }
    }

    /// Remembers the first mistake.
    fn note(&mut self, what: String) {
        if self.mistake.is_none() {
            self.mistake = Some((what, self.reader.buffer_position()));
        }
    }

    fn check_depth(&self, depth: usize) -> Result<(), Unreadable> {
        if depth < DEEPEST {
            return Ok(());
        }
        Err(Unreadable(format!("read up to a place where more than {DEEPEST} elements are in each other")))
    }

    /// Reads on; text only where it is wanted.
    fn step(&mut self, wants_text: bool) -> Result<Piece, Unreadable> {
        if let Some(piece) = self.next.take() {
            return Ok(piece);
        }
        self.buffer.clear();
        let event = match self.reader.read_event_into(&mut self.buffer) {
            Ok(event) => event,
            Err(error) => return Err(self.mistake(&error)),
        };
        let replaced = &mut self.replaced;
        Ok(match event {
            Event::Start(tag) => open(&tag, false, replaced),
            Event::Empty(tag) => open(&tag, true, replaced),
            Event::End(tag) => Piece::Close(readable(tag.local_name().as_ref(), replaced)),
            Event::Text(text) if wants_text => Piece::Text(readable(&text, replaced)),
            Event::CData(text) if wants_text => Piece::Text(readable(&text, replaced)),
            Event::GeneralRef(name) if wants_text => {
                let name = readable(&name, replaced);
                Piece::Text(entity(&name).map_or_else(|| format!("&{name};"), String::from))
            }
            Event::Eof => Piece::End,
            // A document type too: what it declares is not looked at, and its entities stay as they are.
            _ => Piece::Other,
        })
    }

    fn mistake(&mut self, error: &quick_xml::Error) -> Unreadable {
        let offset = self.reader.error_position();
        let place = self.place(offset);
        Unreadable(format!("not valid XML at {place}: {error}"))
    }

    fn ends_early(&mut self) -> Unreadable {
        let offset = self.reader.buffer_position();
        let place = self.place(offset);
        Unreadable(format!("not valid XML at {place}: it ends before its last element does"))
    }

    /// The remark on a file that was read to its end, if there is one.
    fn remark(&mut self) -> Option<Unreadable> {
        if let Some((what, offset)) = self.mistake.take() {
            let place = self.place(offset);
            return Some(Unreadable(format!("read with mistakes: {what} (at {place})")));
        }
        let texts = match self.replaced {
            0 => return None,
            1 => "1 text".to_owned(),
            count => format!("{count} texts"),
        };
        Some(Unreadable(format!("read, but {texts} of it had bytes that are no UTF-8, which were replaced")))
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
        let next = self.next_case().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next.or_else(|| self.remark().map(Err))
    }
}

fn result_of(element: &str) -> TestResult {
    match element {
        "failure" | "error" => TestResult::Failure,
        "skipped" => TestResult::Skipped,
        _ => TestResult::Success,
    }
}

/// Whether a result counts beside the one that is known: the first of its kind, and a failure more than a skip.
fn counts(known: TestResult, result: TestResult) -> bool {
    match known {
        TestResult::Success => result != TestResult::Success,
        TestResult::Skipped => result == TestResult::Failure,
        TestResult::Failure => false,
    }
}

/// A test that ends before its failure is closed.
fn with_message(case: TestCase, told: Option<Told>) -> TestCase {
    match told {
        Some(told) => TestCase { message: told.message(&case.name), ..case },
        None => case,
    }
}

fn open(tag: &BytesStart<'_>, is_empty: bool, replaced: &mut u64) -> Piece {
    let mut attributes = Attributes::default();
    // One that is not well-formed is left out, and so is one that is there twice.
    for attribute in tag.attributes().with_checks(false).flatten() {
        let place = match attribute.key.as_ref() {
            b"name" => &mut attributes.name,
            b"classname" => &mut attributes.classname,
            b"file" => &mut attributes.file,
            b"time" => &mut attributes.time,
            b"message" => &mut attributes.message,
            b"type" => &mut attributes.kind,
            _ => continue,
        };
        if place.is_none() {
            *place = Some(unescape(&readable(&attribute.value, replaced)));
        }
    }
    Piece::Open { name: readable(tag.local_name().as_ref(), replaced), attributes, is_empty }
}

/// Bytes as text that every database can hold; counts those of which some had to be replaced.
fn readable(bytes: &[u8], replaced: &mut u64) -> String {
    let text = String::from_utf8_lossy(bytes);
    if matches!(text, Cow::Owned(_)) || text.contains('\0') {
        *replaced += 1;
    }
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text.into_owned() }
}

/// Replaces the entities that XML knows; others stay as they are.
fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('&') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let known = rest.split_once(';').and_then(|(name, after)| Some((entity(name)?, after)));
        match known {
            Some((character, after)) => {
                text.push(character);
                rest = after;
            }
            None => text.push('&'),
        }
    }
    text.push_str(rest);
    text
}

/// The character that an entity stands for, without `&` and `;`.
fn entity(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let digits = name.strip_prefix('#')?;
            let code = match digits.strip_prefix('x') {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => digits.parse().ok()?,
            };
            // Zero is a character that not every database can hold.
            char::from_u32(code).map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::summary::LONGEST_MESSAGE;
    use super::*;
    use std::io::Cursor;

    fn parse(xml: &[u8]) -> Result<Vec<TestCase>, String> {
        Cases::new(Cursor::new(xml)).map(|case| case.map_err(|e| e.to_string())).collect()
    }

    /// The tests that are read, and what is said of the file.
    fn read(xml: &[u8]) -> (Vec<TestCase>, String) {
        let (mut cases, mut remark) = (Vec::new(), String::new());
        for item in Cases::new(Cursor::new(xml)) {
            assert_eq!(remark, "", "nothing follows what is said of the file");
            match item {
                Ok(case) => cases.push(case),
                Err(why) => remark = why.to_string(),
            }
        }
        (cases, remark)
    }

    fn names(cases: &[TestCase]) -> Vec<&str> {
        cases.iter().map(|case| case.name.as_str()).collect()
    }

    #[test]
    fn cases_are_read_from_nested_suites() {
        let xml = br#"<testsuites><testsuite file="s.c"><testsuite>
            <testcase classname="k" name="a" time="1,234.5"/>
            <testcase name="b" file="t.c" time="x"><failure message="m">text</failure></testcase>
            <testcase name="c"><skipped message="later"/></testcase>
            <testcase><error message="boom"/></testcase>
        </testsuite></testsuite></testsuites>"#;
        let cases = parse(xml).expect("valid");
        let brief: Vec<_> = cases.iter().map(|c| (c.name.as_str(), c.result, c.message.as_str())).collect();
        assert_eq!(
            brief,
            [
                ("a", TestResult::Success, ""),
                ("b", TestResult::Failure, "m\n\ntext"),
                ("c", TestResult::Skipped, "later"),
                ("", TestResult::Failure, "boom"),
            ]
        );
        assert_eq!((cases[0].run_time, cases[0].file.as_deref()), (1234.5, Some("s.c")));
        assert_eq!((cases[1].run_time, cases[1].file.as_deref()), (0.0, Some("t.c")));
    }

    #[test]
    fn a_suite_names_the_file_of_its_own_tests_only() {
        let xml = br#"<testsuites><testsuite file="a.c"><testsuite file="b.c"><testcase/></testsuite><testcase/></testsuite>
            <testsuite><properties><property/></properties><testcase/></testsuite></testsuites>"#;
        let files: Vec<_> = parse(xml).expect("valid").into_iter().map(|case| case.file).collect();
        assert_eq!(files, [Some("b.c".to_owned()), Some("a.c".to_owned()), None]);
    }

    #[test]
    fn what_is_not_junit_is_explained() {
        assert!(parse(b"<html/>").is_err_and(|e| e.contains("`html`")));
        assert!(parse(b"").is_err() && parse(b"text").is_err());
        let deep = format!("<testsuite>{}", "<a>".repeat(DEEPEST));
        assert!(parse(deep.as_bytes()).is_err_and(|e| e.contains("in each other")));
    }

    #[test]
    fn what_a_document_type_declares_stands_for_nothing() {
        let xml = b"<!DOCTYPE x [<!ENTITY a 'aaaa'>]><testsuite><testcase name='&a;'/></testsuite>";
        assert_eq!(parse(xml).expect("read")[0].name, "&a;");
    }

    #[test]
    fn bytes_and_entities_that_xml_does_not_know_lose_nothing() {
        let xml = b"\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"UTF-8\"?><testsuite>
            <testcase name=\"a &lt;b&gt; &nbsp; &#27;[1m & c &#x41;&#0;\" classname=\"\x1b\xff\">
            <failure>\n \x1b[31mred\x00 &nbsp; & <![CDATA[<x>]]> &#65;&amp; \n</failure></testcase>
            <testcase name='b' name='c' broken/></testsuite>";
        let (cases, remark) = read(xml);
        assert_eq!(cases[0].name, "a <b> &nbsp; \u{1b}[1m & c A\u{fffd}");
        assert_eq!(cases[0].classname, "\u{1b}\u{fffd}");
        assert_eq!(cases[0].message, "\u{1b}[31mred\u{fffd} &nbsp; & <x> A&");
        assert_eq!(cases[1].name, "b");
        assert_eq!(remark, "read, but 2 texts of it had bytes that are no UTF-8, which were replaced");
    }

    #[test]
    fn the_tests_before_a_cut_count() {
        let (cases, why) = read(b"<testsuite>\n<testcase name='a'/>\n<testcase name='b'>");
        assert_eq!((names(&cases), why.contains("at 3:20: it ends")), (vec!["a"], true), "{why}");
        let (cases, why) =
            read(b"<testsuite><testcase name='a'/><testcase name='b'><failure message='no'>tra");
        assert_eq!((names(&cases), why.contains("it ends")), (vec!["a", "b"], true), "{why}");
        assert_eq!((cases[1].result, cases[1].message.as_str()), (TestResult::Failure, "no\n\ntra"));
        let (cases, why) =
            read(b"<testsuite><testcase name='b'><failure message='no'/></testcase><testcase na");
        assert_eq!((names(&cases), why.contains("not valid XML at 1:")), (vec!["b"], true), "{why}");
    }

    #[test]
    fn reading_goes_on_after_elements_that_are_closed_wrongly() {
        let xml = b"<testsuites><testsuite file='f'>\n<testcase name='a'><failure>got <foo> & <br> here</failure></testcase>
            <testcase name='b'><failure message='x'><testcase name='c'></testsuite><testcase name='d'/></testsuites>";
        let (cases, remark) = read(xml);
        assert_eq!(names(&cases), ["a", "b", "c", "d"]);
        assert_eq!(cases[0].message, "got  &  here");
        assert_eq!((cases[2].file.as_deref(), cases[3].file.as_deref()), (Some("f"), None));
        assert!(
            remark.starts_with("read with mistakes: `foo` is not closed before `failure` is (at 2:"),
            "{remark}"
        );
        let (cases, remark) = read(b"<testsuite><testcase name='a'/>\n</testsuites>");
        assert_eq!(names(&cases), ["a"]);
        assert!(remark.contains("2:14: it ends"), "{remark}");
    }

    #[test]
    fn the_summary_of_a_failure_is_what_its_attribute_says() {
        let xml = b"<testsuite><testcase><failure message='AssertionError: 3 != 4'>Traceback:
  File</failure></testcase><testcase><failure message='x'>x: more</failure></testcase>
  <testcase><error type='OSError'/></testcase><testcase><error type='OSError' message=' '>
  </error></testcase></testsuite>";
        let cases = parse(xml).expect("valid");
        assert_eq!(cases[0].message, "AssertionError: 3 != 4\n\nTraceback:\n  File");
        assert_eq!(cases[1].message, "x: more");
        // A failure that says nothing more has its type at least.
        assert_eq!([&*cases[2].message, &*cases[3].message], ["OSError", "OSError"]);
        let xml = b"<testsuite><testcase name='t'><failure message='Failed'>    x_test.go:7: no</failure></testcase>
  <testcase><failure message='Failed'>x</failure></testcase></testsuite>";
        let cases = parse(xml).expect("valid");
        assert_eq!(cases[0].message, "no\n\nx_test.go:7: no");
        assert_eq!(cases[1].message, "x");
    }

    #[test]
    fn the_first_failure_counts_and_long_messages_are_cut() {
        let long = "ö".repeat(LONGEST_MESSAGE);
        let xml = format!(
            "<testsuite><testcase><skipped>s</skipped><failure><p>{long}</p>more</failure><error>second</error></testcase></testsuite>"
        );
        let cases = parse(xml.as_bytes()).expect("valid");
        assert_eq!(cases[0].result, TestResult::Failure);
        assert_eq!(cases[0].message, "ö".repeat(LONGEST_MESSAGE / 2));
    }
}
