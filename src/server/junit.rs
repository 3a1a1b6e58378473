//! JUnit XML, as test runners of all kinds write it, read as a stream: one test at a time.
//!
//! Test runners write what tests print, whatever that is: a character or an entity that XML does not know stays
//! as it is. Tests that were read before a mistake in the structure count.

use crate::server::store::status::TestResult;
use crate::server::store::tables::results::TestCase;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::fmt;
use std::io::{BufReader, Read, Seek, SeekFrom};

/// Longest message that is kept, in bytes.
const LONGEST_MESSAGE: usize = 64 * 1024;

/// Why a file was not read, or not to its end: a sentence for people, with a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

/// The tests of a file, in their order. An error is the last item.
///
/// It holds one tag or one stretch of text of the file at a time, and the `file` of the suites that are open.
pub struct Cases<R: Read> {
    reader: Reader<BufReader<R>>,
    buffer: Vec<u8>,
    /// Elements that are open, outside test cases.
    depth: usize,
    /// Files that open suites name, with their depth.
    files: Vec<(usize, String)>,
    has_root: bool,
    is_over: bool,
}

/// One step through a file.
enum Piece {
    Open { name: String, attributes: Attributes, is_empty: bool },
    Close,
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
}

impl<R: Read + Seek> Cases<R> {
    /// Reads from the beginning of a source.
    pub fn new(source: R) -> Self {
        let mut reader = Reader::from_reader(BufReader::with_capacity(64 * 1024, source));
        reader.config_mut().allow_dangling_amp = true;
        let buffer = Vec::new();
        Self { reader, buffer, depth: 0, files: Vec::new(), has_root: false, is_over: false }
    }

    fn next_case(&mut self) -> Result<Option<TestCase>, Unreadable> {
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
                    }
                    if is_empty {
                        continue;
                    }
                    self.depth += 1;
                    if let Some(file) = attributes.file {
                        self.files.push((self.depth, file));
                    }
                }
                Piece::Close => {
                    self.files.retain(|(depth, _)| *depth < self.depth);
                    self.depth = self.depth.saturating_sub(1);
                }
                Piece::Text(_) | Piece::Other => {}
                Piece::End if !self.has_root => {
                    return Err(Unreadable("not valid XML: there is no element in it".to_owned()));
                }
                Piece::End if self.depth > 0 => return Err(self.ends_early()),
                Piece::End => return Ok(None),
            }
        }
    }

    /// Reads a test case up to its end.
    fn case(&mut self, own: Attributes, is_empty: bool) -> Result<TestCase, Unreadable> {
        let seconds = own.time.unwrap_or_default().replace(',', "");
        let seconds: f64 = seconds.trim().parse().unwrap_or(0.0);
        let mut case = TestCase {
            name: own.name.unwrap_or_default(),
            classname: own.classname.unwrap_or_default(),
            file: own.file.or_else(|| self.files.last().map(|(_, file)| file.clone())),
            run_time: if seconds.is_finite() && seconds >= 0.0 { seconds } else { 0.0 },
            result: TestResult::Success,
            message: String::new(),
        };
        if is_empty {
            return Ok(case);
        }
        // What stands below the test case: how deep, and the text of the failure or the skip that is open.
        let (mut depth, mut told): (usize, Option<Told>) = (0, None);
        loop {
            match self.step(told.is_some() && depth == 1)? {
                Piece::Open { name, attributes, is_empty } => {
                    let result = match name.as_str() {
                        "failure" | "error" => TestResult::Failure,
                        "skipped" => TestResult::Skipped,
                        _ => TestResult::Success,
                    };
                    // The first of its kind counts, and a failure more than a skip.
                    let counts = match case.result {
                        TestResult::Success => result != TestResult::Success,
                        TestResult::Skipped => result == TestResult::Failure,
                        TestResult::Failure => false,
                    };
                    if depth == 0 && counts {
                        case.result = result;
                        let new = Told { text: String::new(), attribute: attributes.message };
                        if is_empty {
                            case.message = new.message();
                        } else {
                            told = Some(new);
                        }
                    }
                    depth += usize::from(!is_empty);
                }
                Piece::Close if depth == 0 => return Ok(case),
                Piece::Close => {
                    depth -= 1;
                    if depth == 0 {
                        if let Some(told) = told.take() {
                            case.message = told.message();
                        }
                    }
                }
                Piece::Text(text) => {
                    if let Some(told) = told.as_mut() {
                        told.add(&text);
                    }
                }
                Piece::Other => {}
                Piece::End => return Err(self.ends_early()),
            }
        }
    }

    /// Reads on; text only where it is wanted.
    fn step(&mut self, wants_text: bool) -> Result<Piece, Unreadable> {
        self.buffer.clear();
        let event = match self.reader.read_event_into(&mut self.buffer) {
            Ok(event) => event,
            Err(error) => return Err(self.mistake(&error)),
        };
        Ok(match event {
            Event::Start(tag) => open(&tag, false),
            Event::Empty(tag) => open(&tag, true),
            Event::End(_) => Piece::Close,
            Event::Text(text) if wants_text => Piece::Text(readable(&text)),
            Event::CData(text) if wants_text => Piece::Text(readable(&text)),
            Event::GeneralRef(name) if wants_text => {
                let name = readable(&name);
                Piece::Text(entity(&name).map_or_else(|| format!("&{name};"), String::from))
            }
            Event::DocType(_) => {
                return Err(Unreadable(
                    "not read: it declares a document type, which test results do not need".to_owned(),
                ));
            }
            Event::Eof => Piece::End,
            _ => Piece::Other,
        })
    }

    fn mistake(&mut self, error: &quick_xml::Error) -> Unreadable {
        let offset = self.reader.error_position();
        match self.place(offset) {
            Some((line, column)) => Unreadable(format!("not valid XML at {line}:{column}: {error}")),
            None => Unreadable(format!("not valid XML at byte {offset}: {error}")),
        }
    }

    fn ends_early(&mut self) -> Unreadable {
        let offset = self.reader.buffer_position();
        let (line, column) = self.place(offset).unwrap_or((1, offset + 1));
        Unreadable(format!("not valid XML at {line}:{column}: it ends before its last element does"))
    }

    /// Line and column of an offset, in bytes from 1. Reads the source again: mistakes are rare, and the last
    /// thing that is read.
    fn place(&mut self, offset: u64) -> Option<(u64, u64)> {
        let source = self.reader.get_mut().get_mut();
        source.seek(SeekFrom::Start(0)).ok()?;
        let (mut line, mut column) = (1, 1);
        let mut left = source.take(offset);
        let mut block = vec![0; 64 * 1024];
        loop {
            let read = left.read(&mut block).ok()?;
            if read == 0 {
                return Some((line, column));
            }
            for byte in &block[..read] {
                (line, column) = if *byte == b'\n' { (line + 1, 1) } else { (line, column + 1) };
            }
        }
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
        next
    }
}

/// Message of a failure or a skip.
struct Told {
    text: String,
    attribute: Option<String>,
}

impl Told {
    /// Adds text as long as it is short enough.
    fn add(&mut self, text: &str) {
        let text = if self.text.is_empty() { text.trim_start() } else { text };
        self.text.push_str(cut(text, LONGEST_MESSAGE - self.text.len()));
    }

    /// The text, else the attribute.
    fn message(self) -> String {
        let text = self.text.trim_end();
        match (text.is_empty(), self.attribute) {
            (false, _) => text.to_owned(),
            (true, attribute) => cut(&attribute.unwrap_or_default(), LONGEST_MESSAGE).to_owned(),
        }
    }
}

fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

fn open(tag: &BytesStart<'_>, is_empty: bool) -> Piece {
    let mut attributes = Attributes::default();
    // One that is not well-formed is left out, and so is one that is there twice.
    for attribute in tag.attributes().with_checks(false).flatten() {
        let place = match attribute.key.as_ref() {
            b"name" => &mut attributes.name,
            b"classname" => &mut attributes.classname,
            b"file" => &mut attributes.file,
            b"time" => &mut attributes.time,
            b"message" => &mut attributes.message,
            _ => continue,
        };
        if place.is_none() {
            *place = Some(unescape(&readable(&attribute.value)));
        }
    }
    Piece::Open { name: readable(tag.local_name().as_ref()), attributes, is_empty }
}

/// Bytes as text that every database can hold.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
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
    use super::*;
    use std::io::Cursor;

    fn parse(xml: &[u8]) -> Result<Vec<TestCase>, String> {
        Cases::new(Cursor::new(xml)).map(|case| case.map_err(|e| e.to_string())).collect()
    }

    /// The tests that are read before a mistake, and the mistake.
    fn until_mistake(xml: &str) -> (Vec<String>, String) {
        let mut cases = Cases::new(Cursor::new(xml));
        let read: Vec<_> = cases.by_ref().map_while(Result::ok).map(|case| case.name).collect();
        let mistake = Cases::new(Cursor::new(xml)).find_map(Result::err);
        assert!(cases.next().is_none(), "nothing follows a mistake");
        (read, mistake.map(|e| e.to_string()).unwrap_or_default())
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
                ("b", TestResult::Failure, "text"),
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
        let broken = parse(b"<testsuite><b></testsuite>");
        assert!(broken.is_err_and(|e| e.contains("not valid XML") && e.contains("1:15")));
        assert!(parse(b"<html/>").is_err_and(|e| e.contains("`html`")));
        assert!(parse(b"").is_err() && parse(b"text").is_err());
        let bomb = b"<!DOCTYPE x [<!ENTITY a 'aaaa'>]><testsuite>&a;</testsuite>";
        assert!(parse(bomb).is_err());
    }

    #[test]
    fn characters_and_entities_that_xml_does_not_know_lose_nothing() {
        let xml = b"\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"UTF-8\"?><testsuite>
            <testcase name=\"a &lt;b&gt; &nbsp; &#27;[1m & c &#x41;&#0;\" classname=\"\x1b\xff\">
            <failure>\n \x1b[31mred\x00 &nbsp; & <![CDATA[<x>]]> &#65;&amp; \n</failure></testcase>
            <testcase name='b' name='c' broken/></testsuite>";
        let cases = parse(xml).expect("read");
        assert_eq!(cases[0].name, "a <b> &nbsp; \u{1b}[1m & c A\u{fffd}");
        assert_eq!(cases[0].classname, "\u{1b}\u{fffd}");
        assert_eq!(cases[0].message, "\u{1b}[31mred\u{fffd} &nbsp; & <x> A&");
        assert_eq!(cases[1].name, "b");
    }

    #[test]
    fn the_tests_before_a_mistake_count() {
        let (read, mistake) = until_mistake("<testsuite>\n<testcase name='a'/>\n<testcase name='b'>");
        assert_eq!((read, mistake.contains("at 3:20: it ends")), (vec!["a".to_owned()], true), "{mistake}");
        let (read, mistake) = until_mistake("<testsuite><testcase name='a'/>\n</testsuites>");
        assert_eq!((read, mistake.contains("at 2:1: ")), (vec!["a".to_owned()], true), "{mistake}");
    }

    #[test]
    fn the_first_failure_counts_and_long_messages_are_cut() {
        let long = "ö".repeat(LONGEST_MESSAGE);
        let xml = format!(
            "<testsuite><testcase><skipped>s</skipped><failure><p>in</p>{long}</failure><error>second</error></testcase></testsuite>"
        );
        let cases = parse(xml.as_bytes()).expect("valid");
        assert_eq!(cases[0].result, TestResult::Failure);
        assert_eq!(cases[0].message, "ö".repeat(LONGEST_MESSAGE / 2));
    }
}
