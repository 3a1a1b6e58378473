//! A report of tests with its secrets masked: in the values of its attributes and in its text, as they read without
//! entities. Its markup stays, whatever a secret looks like, and so does what is no XML; a section of CDATA becomes text
//! like any other.
//!
//! Readers join the text around comments, instructions and elements: so does the search for secrets. Markup within what
//! may be a secret waits until that is decided, and stands behind the mask if it is one.

use crate::executor::output::redactor::Redactor;
use crate::executor::output::secrets::Secrets;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Longest entity that is one, in bytes.
const LONGEST_ENTITY: usize = 12;
/// Text is masked in pieces of about this many bytes, and that much markup waits.
const PIECE: usize = 16 * 1024;
const CDATA: &[u8] = b"<![CDATA[";
const COMMENT: &[u8] = b"<!--";
const DOCTYPE: &[u8] = b"<!DOCTYPE";

/// Part of the document that the next byte is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Text,
    Cdata,
    /// A tag, a comment or a declaration.
    Tag,
    Comment,
    /// The value of an attribute; its quotation mark.
    Value(u8),
}

struct Masked<W> {
    out: W,
    part: Part,
    /// Declarations that are open, of a document type and inside of it.
    declarations: u32,
    /// Redactor of all text.
    redactor: Redactor,
    /// Redactor of one value of an attribute at a time.
    values: Redactor,
    /// Text without entities, to be masked.
    plain: Vec<u8>,
    /// The same of a value.
    value: Vec<u8>,
    /// Markup that waits: how many bytes of text before it are not decided yet.
    marks: Vec<(usize, Vec<u8>)>,
    /// The last bytes of markup, or an entity up to here.
    last: Vec<u8>,
}

/// Copies a report. False when it was told to stop.
pub(super) fn copy(
    input: &mut dyn Read,
    out: impl Write,
    secrets: &Secrets,
    stop: &AtomicBool,
) -> io::Result<bool> {
    let mut masked = Masked {
        out,
        part: Part::Text,
        declarations: 0,
        redactor: Redactor::new(secrets.clone()),
        values: Redactor::new(secrets.clone()),
        plain: Vec::new(),
        value: Vec::new(),
        marks: Vec::new(),
        last: Vec::new(),
    };
    let mut buffer = vec![0; 64 * 1024];
    let mut wide: Option<Wide> = None;
    let mut is_begun = false;
    loop {
        let n = match input.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if n == 0 {
            if let Some(wide) = wide {
                wide.end(|byte| masked.byte(byte))?;
            }
            masked.pass_last()?;
            masked.mask_value(true)?;
            masked.decide(true)?;
            masked.out.flush()?;
            return Ok(true);
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        if !is_begun {
            is_begun = true;
            wide = Wide::of(&buffer[..n]);
        }
        for &byte in &buffer[..n] {
            match &mut wide {
                Some(wide) => wide.byte(byte, |byte| masked.byte(byte))?,
                None => masked.byte(byte)?,
            }
        }
    }
}

/// UTF-16, read as UTF-8: neither a secret nor markup is found in it as it is.
struct Wide {
    is_big_endian: bool,
    half: Option<u8>,
    /// The first of a pair of surrogates.
    first: Option<u16>,
}

impl Wide {
    /// A reader for a file that begins so, if that is UTF-16.
    fn of(beginning: &[u8]) -> Option<Self> {
        let is_big_endian = match beginning {
            [0xfe, 0xff, ..] | [0, b'<', ..] => true,
            [0xff, 0xfe, ..] | [b'<', 0, ..] => false,
            _ => return None,
        };
        Some(Self { is_big_endian, half: None, first: None })
    }

    fn byte(&mut self, byte: u8, write: impl FnMut(u8) -> io::Result<()>) -> io::Result<()> {
        let Some(half) = self.half.take() else {
            self.half = Some(byte);
            return Ok(());
        };
        let unit = if self.is_big_endian {
            u16::from_be_bytes([half, byte])
        } else {
            u16::from_le_bytes([half, byte])
        };
        match (self.first.take(), unit) {
            (before, 0xd800..=0xdbff) => {
                self.first = Some(unit);
                Self::chars(before.into_iter(), write)
            }
            (before, unit) => Self::chars(before.into_iter().chain([unit]), write),
        }
    }

    fn end(self, write: impl FnMut(u8) -> io::Result<()>) -> io::Result<()> {
        Self::chars(self.first.into_iter(), write)
    }

    fn chars(
        units: impl Iterator<Item = u16>,
        mut write: impl FnMut(u8) -> io::Result<()>,
    ) -> io::Result<()> {
        for c in char::decode_utf16(units) {
            let c = c.unwrap_or(char::REPLACEMENT_CHARACTER);
            c.encode_utf8(&mut [0; 4]).bytes().try_for_each(&mut write)?;
        }
        Ok(())
    }
}

impl<W: Write> Masked<W> {
    fn byte(&mut self, byte: u8) -> io::Result<()> {
        match (self.part, byte) {
            (Part::Text, b'<') => {
                self.pass_last()?;
                self.decide(false)?;
                self.begin_mark();
                self.markup(Part::Tag, byte)
            }
            (Part::Value(quote), byte) if byte == quote => {
                self.pass_last()?;
                self.mask_value(true)?;
                self.markup(Part::Tag, byte)
            }
            (Part::Text | Part::Value(_), byte) => self.text(byte),
            // Brackets wait, since they may be its end: that is no part of a secret.
            (Part::Cdata, b']') if self.last.len() < 2 => {
                self.last.push(byte);
                Ok(())
            }
            (Part::Cdata, b']') => self.pass(&[byte]),
            (Part::Cdata, b'>') if self.last.len() == 2 => {
                self.begin(Part::Text);
                Ok(())
            }
            (Part::Cdata, byte) => {
                self.pass_last()?;
                self.pass(&[byte])
            }
            (Part::Tag, b'<') if self.declarations > 0 => {
                self.declarations += 1;
                self.markup(Part::Tag, byte)
            }
            (Part::Tag, b'>') => {
                self.declarations = self.declarations.saturating_sub(1);
                self.markup(if self.declarations > 0 { Part::Tag } else { Part::Text }, byte)
            }
            (Part::Tag, quote @ (b'"' | b'\'')) => self.markup(Part::Value(quote), byte),
            (Part::Comment, b'>') if self.last.ends_with(b"--") => self.markup(Part::Text, byte),
            (part, byte) => {
                self.markup(part, byte)?;
                match &self.last[..] {
                    CDATA => {
                        // Nothing of it was written: that much markup always waits.
                        if let Some((_, mark)) = self.marks.last_mut() {
                            mark.truncate(mark.len() - CDATA.len());
                        }
                        self.begin(Part::Cdata);
                    }
                    COMMENT => self.begin(Part::Comment),
                    DOCTYPE if self.declarations == 0 => self.declarations = 1,
                    _ => {}
                }
                Ok(())
            }
        }
    }

    fn begin(&mut self, part: Part) {
        self.part = part;
        self.last.clear();
    }

    /// A byte that stays as it is.
    fn markup(&mut self, part: Part, byte: u8) -> io::Result<()> {
        if self.part != part {
            self.begin(part);
        }
        // The beginning of a tag, or the end of a comment.
        match self.part {
            Part::Tag if self.last.len() < CDATA.len() => self.last.push(byte),
            Part::Comment => {
                if self.last.len() > 1 {
                    self.last.remove(0);
                }
                self.last.push(byte);
            }
            _ => {}
        }
        if matches!(part, Part::Text | Part::Value(_)) {
            self.last.clear();
        }
        self.mark(&[byte])
    }

    /// Markup begins behind the text up to here.
    fn begin_mark(&mut self) {
        let at = self.redactor.held().len();
        if self.marks.last().is_none_or(|(last, _)| *last != at) {
            self.marks.push((at, Vec::new()));
        }
    }

    fn mark(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some((_, mark)) = self.marks.last_mut() {
            mark.extend_from_slice(bytes);
        }
        // Shorter, it may be the beginning of a section of CDATA.
        let is_known = self.part != Part::Tag || self.last.len() == CDATA.len() && self.last != CDATA;
        if is_known && self.marks.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > PIECE {
            // Nothing is joined over so much markup.
            self.decide(true)?;
            self.begin_mark();
        }
        Ok(())
    }

    fn text(&mut self, byte: u8) -> io::Result<()> {
        let is_open = !self.last.is_empty();
        if byte == b'&' || is_open && self.last.len() == LONGEST_ENTITY {
            self.pass_last()?;
        }
        if byte == b'&' || !self.last.is_empty() {
            self.last.push(byte);
            if byte == b';' {
                if let Some(c) = meaning(&self.last[1..self.last.len() - 1]) {
                    self.last.clear();
                    return self.pass(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                self.pass_last()?;
            }
            return Ok(());
        }
        self.pass(&[byte])
    }

    fn pass_last(&mut self) -> io::Result<()> {
        let last = std::mem::take(&mut self.last);
        self.pass(&last)
    }

    fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        let is_value = matches!(self.part, Part::Value(_));
        let text = if is_value { &mut self.value } else { &mut self.plain };
        text.extend_from_slice(bytes);
        match is_value {
            _ if text.len() < PIECE => Ok(()),
            true => self.mask_value(false),
            false => self.decide(false),
        }
    }

    fn mask_value(&mut self, is_end: bool) -> io::Result<()> {
        let mut clean = Vec::new();
        self.values.push(&self.value, &mut clean);
        self.value.clear();
        if is_end {
            self.values.finish(&mut clean);
        }
        self.mark(&escaped(&clean, true))
    }

    /// Masks what was read, and writes what is decided then: text and markup in their order. All of it, at an end.
    fn decide(&mut self, is_end: bool) -> io::Result<()> {
        let plain = std::mem::take(&mut self.plain);
        let mut rest = &plain[..];
        // Byte by byte behind markup that waits, so that it comes right behind a mask.
        while self.marks.last().is_some_and(|(at, _)| *at > 0) && !rest.is_empty() {
            let (byte, after) = rest.split_at(1);
            self.push(byte, false)?;
            rest = after;
        }
        self.push(rest, is_end)
    }

    fn push(&mut self, plain: &[u8], is_end: bool) -> io::Result<()> {
        // Text that waits behind a mask, since it may begin another secret, is in that mask unless more comes of it.
        let masked = self.redactor.masked();
        let before = [self.redactor.held(), plain].concat();
        let mut clean = Vec::new();
        self.redactor.push(plain, &mut clean);
        if is_end {
            self.redactor.finish(&mut clean);
        }
        let decided = before.len() - self.redactor.held().len();
        let mut written = 0;
        while self.marks.first().is_some_and(|(at, _)| *at <= decided) {
            let (at, mark) = self.marks.remove(0);
            // Up to the first mask both have the same bytes; behind it their places are not known.
            let shown = &before[masked.min(at)..at];
            let to = if clean.starts_with(shown) { shown.len() } else { clean.len() };
            self.out.write_all(&escaped(&clean[written..to], false))?;
            self.out.write_all(&mark)?;
            written = to;
        }
        for (at, _) in &mut self.marks {
            *at -= decided;
        }
        self.out.write_all(&escaped(&clean[written..], false))
    }
}

/// Text with entities, for the value of an attribute or beside tags.
fn escaped(text: &[u8], is_value: bool) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(text.len());
    for byte in text {
        let entity: &[u8] = match byte {
            b'&' => b"&amp;",
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            b'\r' => b"&#13;",
            b'"' if is_value => b"&quot;",
            b'\'' if is_value => b"&apos;",
            b'\n' if is_value => b"&#10;",
            b'\t' if is_value => b"&#9;",
            _ => std::slice::from_ref(byte),
        };
        escaped.extend_from_slice(entity);
    }
    escaped
}

/// The character of an entity, by what stands between `&` and `;`.
fn meaning(name: &[u8]) -> Option<char> {
    let name = std::str::from_utf8(name).ok()?;
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::Secret;

    fn masked(text: &str, secrets: &[&str]) -> String {
        masked_bytes(text.as_bytes(), secrets)
    }

    fn masked_bytes(mut text: &[u8], secrets: &[&str]) -> String {
        let secrets: Vec<_> = secrets.iter().map(|value| Secret::new(*value)).collect();
        let mut out = Vec::new();
        let secrets = Secrets::new(&[], &secrets);
        assert!(copy(&mut text, &mut out, &secrets, &AtomicBool::new(false)).unwrap());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_and_text_are_masked_and_markup_stays() {
        let secrets = ["testcase", "a<b>\"c\"&'d'", "two\nlines", "12345", "]]x]]"];
        for (text, expected) in [
            (r#"<testcase name="x testcase y" time='12345'/>"#, r#"<testcase name="x **** y" time='****'/>"#),
            (r#"<f m="a&lt;b&gt;&quot;c&#34;&amp;&apos;d&#x27;.">"#, r#"<f m="****.">"#),
            (r#"<f m='a&lt;b>"c"&amp;&apos;d&apos;'>"#, "<f m='****'>"),
            ("<f m=\"two&#10;lines\">a &amp; two\nlines</f>", "<f m=\"****\">a &amp; ****</f>"),
            ("<o><![CDATA[a<b>\"c\"&'d']]]]></o>", "<o>****]]</o>"),
            ("<o><![CDATA[]]x]]]]><![CDATA[]]></o>", "<o>****</o>"),
            ("<!-- testcase \"testcase --><a/>testcase", "<!-- testcase \"testcase --><a/>****"),
            ("<!-- -- > testcase ->--><a b=\"testcase\"/>", "<!-- -- > testcase ->--><a b=\"****\"/>"),
            (
                "<?xml version=\"1.0\"?>\n<a>&foo; &#xZ; & b</a>",
                "<?xml version=\"1.0\"?>\n<a>&amp;foo; &amp;#xZ; &amp; b</a>",
            ),
            (
                "<!DOCTYPE a [<!ENTITY b \"testcase\"> <!ELEMENT c (d)>]><a>testcase</a>",
                "<!DOCTYPE a [<!ENTITY b \"****\"> <!ELEMENT c (d)>]><a>****</a>",
            ),
            ("no XML: testcase", "no XML: ****"),
        ] {
            assert_eq!(masked(text, &secrets), expected);
        }
    }

    #[test]
    fn without_secrets_in_it_a_report_means_the_same() {
        let text = "<a b=\"1 &lt; 2\n\" c='x \"y\"'>t &gt; u<![CDATA[<&>]]><!-- c --></a>";
        let expected = "<a b=\"1 &lt; 2&#10;\" c='x &quot;y&quot;'>t &gt; u&lt;&amp;&gt;<!-- c --></a>";
        assert_eq!(masked(text, &["hunter22"]), expected);
    }

    #[test]
    fn a_secret_that_ends_as_it_begins_takes_nothing_of_the_next_text() {
        let text = "<a>42 != q7wertyuq</a><b>57 != q7wertyuq</b><c>of q7wertyuq</c><d>Pass</d>";
        let expected = "<a>42 != ****</a><b>57 != ****</b><c>of ****</c><d>Pass</d>";
        assert_eq!(masked(text, &["q7wertyuq"]), expected);
        assert_eq!(masked("<a>x q7wertyuq</a>7wertyuq y", &["q7wertyuq"]), "<a>x ****</a> y");
    }

    #[test]
    fn a_secret_is_found_in_text_as_readers_join_it() {
        for (text, expected) in [
            ("<f>token XY12-<![CDATA[more]]> refused</f>", "<f>token **** refused</f>"),
            ("<f><![CDATA[XY12]]><![CDATA[-more]]></f>", "<f>****</f>"),
            ("<f>XY12<!-- XY --><!-- 12 -->-more.</f>", "<f>****<!-- XY --><!-- 12 -->.</f>"),
            ("<f>a XY1<?pi x?>2-more</f>", "<f>a ****<?pi x?></f>"),
            ("<f>a XY<b c=\"XY12\">12-</b>more.</f>", "<f>a ****<b c=\"XY12\"></b>.</f>"),
            ("<f>XY<b/>12-<i/>mor.</f>XY12<g/>", "<f>XY<b/>12-<i/>mor.</f>XY12<g/>"),
            ("<f>XY&#49;<b/>2</f>-more", "<f>****<b/></f>"),
            ("<f>XY12-more XY<b/>12</f><f m='XY12-more'/>XY12", "<f>**** XY<b/>12</f><f m='****'/>XY12"),
        ] {
            assert_eq!(masked(text, &["XY12-more"]), expected);
        }
        for length in 0..5 {
            let (text, more) = (".".repeat(length), "]".repeat(length));
            let cdata = format!("<a><![CDATA[{text}]]><b/><![CDATA[{more}]]></a>XY12-more");
            assert_eq!(masked(&cdata, &["XY12-more"]), format!("<a>{text}<b/>{more}</a>****"));
        }
        let many = format!("<f>XY12{}-more</f>", "<b c=''/>".repeat(10_000));
        assert_eq!(masked(&many, &["XY12-more"]), many, "all of it comes, and nothing waits for ever");
    }

    #[test]
    fn utf_16_is_masked_and_read_as_utf_8() {
        // Units of these have the bytes of `&`, `<` and `>`.
        let text = "<a b=\"\u{126} \u{3e26} \u{4e3c} \u{1f600} hunter22\">hunter22</a>";
        let expected = "<a b=\"\u{126} \u{3e26} \u{4e3c} \u{1f600} ****\">****</a>";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let marked: Vec<u8> =
            std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
        assert_eq!(masked_bytes(&little, &["hunter22"]), expected);
        assert_eq!(masked_bytes(&marked, &["hunter22"]), format!("\u{feff}{expected}"));
        let half = [little, vec![0x00, 0xd8, 0x3c]].concat();
        assert_eq!(masked_bytes(&half, &["hunter22"]), format!("{expected}\u{fffd}"));
    }
}
