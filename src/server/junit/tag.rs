//! A tag of a report: its name, and the attributes that count.

use super::element::named;
use quick_xml::events::BytesStart;
use quick_xml::events::attributes::AttrError;
use std::borrow::Cow;

/// The attributes that count, wherever they stand.
#[derive(Default)]
pub(super) struct Attributes {
    pub(super) name: Option<String>,
    pub(super) classname: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<String>,
    pub(super) time: Option<String>,
    pub(super) message: Option<String>,
    /// `type`: the name of an exception, as a rule.
    pub(super) kind: Option<String>,
    /// `status` or `result` of a test says that it failed.
    pub(super) says_failed: Option<String>,
    /// Failures and errors that a suite counts.
    pub(super) counted: u64,
    /// The tag has other tags in it: a quotation mark or a `>` is missing, and what it swallowed is not read.
    pub(super) is_torn: bool,
    /// A failure is among the swallowed tags.
    pub(super) has_failure: bool,
}

/// A tag as it was read.
pub(super) struct Tag {
    pub(super) name: String,
    pub(super) attributes: Attributes,
    /// Sentences about what is wrong with it.
    pub(super) faults: Vec<String>,
}

/// Words by which some test runners say that a test failed, without an element that does.
const FAILED: [&str; 6] = ["fail", "failed", "failure", "error", "errored", "broken"];
/// Beginnings of tags that no attribute has in it.
const TAGS: [&[u8]; 8] =
    [b"testcase", b"/testcase", b"failure", b"/failure", b"error", b"/error", b"testsuite", b"/testsuite"];

/// Reads a tag. Attributes without quotation marks count as they would in HTML, and of two the first.
pub(super) fn read(tag: &BytesStart<'_>, replaced: &mut u64) -> Tag {
    let name = readable(tag.local_name().as_ref(), replaced);
    let (mut attributes, mut faults) = (Attributes::default(), Vec::new());
    let strict = tag.attributes().with_checks(false).find_map(Result::err);
    for attribute in tag.html_attributes().with_checks(false).flatten() {
        let key = attribute.key.as_ref();
        let place = match key {
            b"name" => &mut attributes.name,
            b"classname" => &mut attributes.classname,
            b"file" => &mut attributes.file,
            b"line" | b"lineno" => &mut attributes.line,
            b"time" => &mut attributes.time,
            b"message" => &mut attributes.message,
            b"type" => &mut attributes.kind,
            b"status" | b"result" => {
                let word = unescape(&readable(&attribute.value, replaced));
                if FAILED.contains(&word.to_ascii_lowercase().as_str()) {
                    attributes.says_failed = Some(word);
                }
                continue;
            }
            b"failures" | b"errors" => {
                let count =
                    std::str::from_utf8(&attribute.value).ok().and_then(|text| text.trim().parse().ok());
                attributes.counted = attributes.counted.saturating_add(count.unwrap_or(0));
                continue;
            }
            _ => continue,
        };
        match place {
            None => *place = Some(unescape(&readable(&attribute.value, replaced))),
            Some(_) => {
                let key = String::from_utf8_lossy(key);
                faults.push(format!("{} has the attribute `{key}` twice: the first counts", named(&name)));
            }
        }
    }
    // Runners that mask secrets write with entities what stands between two quotation marks, whichever are missing.
    let is_astray = strict.as_ref().is_some_and(|why| !matches!(why, AttrError::UnquotedValue(_)));
    let plain = is_astray.then(|| String::from_utf8_lossy(tag).replace("&#60;", "<").replace("&#62;", ">"));
    let whole = plain.as_deref().map_or(&**tag, str::as_bytes);
    (attributes.is_torn, attributes.has_failure) = swallowed(whole, strict.is_some());
    if attributes.is_torn {
        faults.push(format!(
            "the tag of {} does not end before the next one begins: what it swallows is not read",
            named(&name)
        ));
    }
    match strict {
        None => {}
        Some(AttrError::UnquotedValue(_)) => {
            faults.push(format!("{} has an attribute without quotation marks around its value", named(&name)));
        }
        Some(_) => faults.push(format!(
            "{} has a malformed attribute, such as one with quotation marks inside of its value: it counts as far as it can be read",
            named(&name)
        )),
    }
    Tag { name, attributes, faults }
}

/// Reads what a file has of a tag in which it ends; `None` when that shows no element that opens. A failure counts from its
/// name on.
pub(super) fn cut_off(raw: &[u8], replaced: &mut u64) -> Option<Tag> {
    let text = readable(raw, replaced);
    let text = text.strip_prefix('<')?;
    let mut text = text.strip_suffix('/').unwrap_or(text).to_owned();
    if !text.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        return None;
    }
    let open = text.chars().fold(None, |open, c| match open {
        None if matches!(c, '"' | '\'') => Some(c),
        Some(quote) if quote == c => None,
        open => open,
    });
    text.extend(open);
    let end = text.find([' ', '\t', '\r', '\n']).unwrap_or(text.len());
    let mut tag = read(&BytesStart::from_content(text, end), replaced);
    tag.attributes.is_torn = true;
    Some(tag)
}

/// Whether a tag has other tags in it, and whether one of these is a failure. In an attribute that is well-formed a name
/// such as `Result<error>` is none.
fn swallowed(tag: &[u8], is_malformed: bool) -> (bool, bool) {
    let (mut is_torn, mut has_failure) = (false, false);
    for at in memchr::memchr_iter(b'<', tag) {
        let inner = &tag[at + 1..];
        let Some(found) = TAGS.iter().find(|name| inner.starts_with(name)) else { continue };
        let after = inner.get(found.len()).copied().unwrap_or(b'>');
        let is_tag =
            after == b'>' || after == b'/' || after.is_ascii_whitespace() || found.ends_with(b"suite");
        let is_certain = is_malformed || matches!(inner, [b'/', ..]) || inner.starts_with(b"testcase");
        is_torn |= is_tag && is_certain;
        has_failure |= is_tag && is_malformed && matches!(*found, b"failure" | b"error");
    }
    (is_torn, has_failure)
}

/// Bytes as text; counts those of which some had to be replaced.
pub(super) fn readable(bytes: &[u8], replaced: &mut u64) -> String {
    let text = String::from_utf8_lossy(bytes);
    *replaced += u64::from(matches!(text, Cow::Owned(_)));
    text.into_owned()
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
pub(super) fn entity(name: &str) -> Option<char> {
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
            char::from_u32(code)
        }
    }
}

/// A name or a value in a sentence.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// The sentence about a test that is not stored.
pub(super) fn left_out(test: &str) -> String {
    format!("the test `{}` is left out, since its result is not known", shown(test))
}

/// A number of seconds, with points or commas as the place of the test runner writes them: what stands last in a number
/// with both, or once in one with one of them, begins the fraction. Nothing is 0; `None` when it is no such number.
pub(super) fn seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    if text.is_empty() {
        return Some(0.0);
    }
    let plain = match (text.rfind(','), text.rfind('.')) {
        (None, _) => text.to_owned(),
        (Some(comma), Some(point)) if comma > point => text.replace('.', "").replace(',', "."),
        (Some(_), None) if text.matches(',').count() == 1 => text.replace(',', "."),
        (Some(_), _) => text.replace(',', ""),
    };
    plain.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
}
