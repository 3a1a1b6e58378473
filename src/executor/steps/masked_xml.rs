//! A report of tests with its secrets masked: in the values of its attributes and in its text, as they read without
//! entities and colours. Its markup stays, whatever a secret looks like, and so does what is no XML; a section of CDATA
//! becomes text like any other; comments, instructions and document types, which nobody reads, go.
//!
//! What the control plane reads in the copy is what was looked through here, also where a report is damaged: its reader
//! finds a value where one is found here (with quotation marks or without), and the end of a tag where it is here. Quotation marks
//! that stand elsewhere in a tag, and escapes that begin no colour, would mean something else there: they are replaced.
//!
//! Readers join the text around comments, instructions and elements: so does the search for secrets. Markup within what
//! may be a secret waits until that is decided, and stands behind the mask if it is one.
//!
//! Readers decode as well, so that is done before: the copy of a report in another encoding is UTF-8.

use crate::executor::output::redactor::{Redactor, end_colour};
use crate::executor::output::secrets::Secrets;
use crate::system::codepages::{CodePage, declared};
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Longest entity that is one, in bytes.
const LONGEST_ENTITY: usize = 12;
/// Text is masked in pieces of about this many bytes, and that much markup waits.
const PIECE: usize = 16 * 1024;
const CDATA: &[u8] = b"<![CDATA[";
const COMMENT: &[u8] = b"<!--";
const DOCTYPE: &[u8] = b"<!DOCTYPE";
const INSTRUCTION: &[u8] = b"<?";

/// Part of the document that the next byte is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Text,
    Cdata,
    /// A tag, or the beginning of other markup.
    Tag,
    Comment,
    /// A processing instruction, or the declaration of XML.
    Instruction,
    /// A document type.
    Doctype,
    /// The value of an attribute; its quotation mark, or [`BARE`].
    Value(u8),
}

/// The quotation mark of a value that has none.
const BARE: u8 = b' ';
/// The byte that stands in the place of a quotation mark where text is looked through.
const TEXT: u8 = b'<';

/// Place in a tag. In a document type: within its declarations, as it is in a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Name,
    Before,
    /// The name of an attribute, or what is behind it.
    Key,
    /// Before the value.
    Equals,
}

struct Masked<W> {
    out: W,
    part: Part,
    place: Place,
    /// Redactor of all text.
    redactor: Redactor,
    /// Redactor of one value of an attribute at a time.
    values: Redactor,
    /// Text without entities, to be masked.
    plain: Vec<u8>,
    /// Plain text of a value.
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
        place: Place::Name,
        redactor: Redactor::new(secrets.clone()),
        values: Redactor::new(secrets.clone()),
        plain: Vec::new(),
        value: Vec::new(),
        marks: Vec::new(),
        last: Vec::new(),
    };
    let mut buffer = vec![0; 64 * 1024];
    let mut foreign: Option<Foreign> = None;
    let (mut text, mut is_begun) = (String::new(), false);
    loop {
        let n = match input.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if n == 0 {
            for byte in foreign.map(Foreign::rest).unwrap_or_default().bytes() {
                masked.byte(byte)?;
            }
            // The beginning of markup was written, or goes.
            if !matches!(masked.part, Part::Text | Part::Cdata | Part::Value(_)) {
                masked.last.clear();
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
            foreign = Foreign::of(&buffer[..n]);
        }
        for &byte in &buffer[..n] {
            match &mut foreign {
                Some(foreign) => {
                    text.clear();
                    foreign.byte(byte, &mut text);
                    for byte in text.bytes() {
                        masked.byte(byte)?;
                    }
                }
                None => masked.byte(byte)?,
            }
        }
    }
}

/// Another encoding, read as UTF-8: neither a secret nor, in one of two bytes, markup is found in it as it is.
struct Foreign {
    kind: Kind,
    /// Bytes of a character that is not whole.
    open: Vec<u8>,
}

enum Kind {
    /// UTF-16.
    Wide { is_big_endian: bool },
    /// A byte for each character. Many files are declared so and hold UTF-8: what is that stays.
    Narrow(CodePage),
}

impl Foreign {
    /// A reader for a file that begins so, if that is in another encoding.
    fn of(beginning: &[u8]) -> Option<Self> {
        let kind = match beginning {
            [0xfe, 0xff, ..] | [0, b'<', ..] => Kind::Wide { is_big_endian: true },
            [0xff, 0xfe, ..] | [b'<', 0, ..] => Kind::Wide { is_big_endian: false },
            _ => Kind::Narrow(declared(beginning)?),
        };
        Some(Self { kind, open: Vec::new() })
    }

    /// Adds the characters that end with this byte.
    fn byte(&mut self, byte: u8, text: &mut String) {
        self.open.push(byte);
        match self.kind {
            Kind::Wide { is_big_endian } => {
                let unit = |pair: &[u8]| match (pair, is_big_endian) {
                    (&[first, second], true) => u16::from_be_bytes([first, second]),
                    (&[first, second], false) => u16::from_le_bytes([first, second]),
                    _ => 0,
                };
                let (before, last) = self.open.split_at(self.open.len() / 3 * 2);
                let last = unit(last);
                // A pair of surrogates is one character.
                match self.open.len() {
                    2 if !matches!(last, 0xd800..=0xdbff) => {
                        text.push_str(&String::from_utf16_lossy(&[last]))
                    }
                    4 => text.push_str(&String::from_utf16_lossy(&[unit(before), last])),
                    _ => return,
                }
                self.open.clear();
            }
            Kind::Narrow(character) => loop {
                let wrong = match std::str::from_utf8(&self.open) {
                    Ok(whole) => {
                        text.push_str(whole);
                        return self.open.clear();
                    }
                    Err(error) => error.error_len(),
                };
                for _ in 0..wrong.unwrap_or_default() {
                    text.push(character(self.open.remove(0)));
                }
                if wrong.is_none() {
                    return;
                }
            },
        }
    }

    /// The rest at the end of the file. Half of a character is none.
    fn rest(self) -> String {
        match self.kind {
            Kind::Wide { .. } if self.open.len() > 1 => "\u{fffd}".to_owned(),
            Kind::Wide { .. } => String::new(),
            Kind::Narrow(character) => {
                let mut text = String::new();
                for byte in self.open {
                    text.push(character(byte));
                }
                text
            }
        }
    }
}

impl<W: Write> Masked<W> {
    fn byte(&mut self, byte: u8) -> io::Result<()> {
        let is_space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let is_quote = matches!(byte, b'"' | b'\'');
        match (self.part, byte) {
            (Part::Text, b'<') => {
                self.pass_last()?;
                self.decide(false)?;
                self.begin_mark();
                self.place = Place::Name;
                self.markup(Part::Tag, byte)
            }
            (Part::Value(quote), _) if byte == quote || quote == BARE && (is_space || byte == b'>') => {
                self.pass_last()?;
                self.mask_value(true)?;
                self.markup(if byte == b'>' { Part::Text } else { Part::Tag }, byte)
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
            (Part::Doctype, byte) => {
                match byte {
                    b'>' if self.place == Place::Name => self.begin(Part::Text),
                    b'[' => self.place = Place::Key,
                    b']' => self.place = Place::Name,
                    _ => {}
                }
                Ok(())
            }
            (Part::Tag, b'>') => self.markup(Part::Text, byte),
            (Part::Tag, _) if self.place == Place::Equals && !is_space => {
                self.place = Place::Before;
                if is_quote {
                    return self.markup(Part::Value(byte), byte);
                }
                self.begin(Part::Value(BARE));
                self.text(byte)
            }
            (Part::Tag, _) => {
                match self.place {
                    Place::Key if byte == b'=' => self.place = Place::Equals,
                    Place::Name | Place::Before if is_space => self.place = Place::Before,
                    Place::Before => self.place = Place::Key,
                    _ => {}
                }
                self.markup(Part::Tag, if is_quote { b'`' } else { byte })?;
                let part = match &self.last[..] {
                    COMMENT => Part::Comment,
                    CDATA => Part::Cdata,
                    last if last.eq_ignore_ascii_case(DOCTYPE) => Part::Doctype,
                    INSTRUCTION => Part::Instruction,
                    _ => return Ok(()),
                };
                // The mark was not written yet: that much markup always waits.
                if let Some((_, mark)) = self.marks.last_mut() {
                    mark.truncate(mark.len().saturating_sub(self.last.len()));
                }
                self.begin(part);
                Ok(())
            }
            (part, byte) => {
                let end: &[u8] = if part == Part::Comment { b"--" } else { b"?" };
                if byte == b'>' && self.last.ends_with(end) {
                    self.begin(Part::Text);
                    return Ok(());
                }
                if self.last.len() > 1 {
                    self.last.remove(0);
                }
                self.last.push(byte);
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
        // The markup may be no tag, by its first bytes.
        if self.part == Part::Tag && self.last.len() < CDATA.len() {
            self.last.push(byte);
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
        // The markup may be the beginning of what goes.
        let is_known =
            self.part != Part::Tag || self.last.get(1).is_some_and(|byte| !matches!(byte, b'!' | b'?'));
        if is_known && self.marks.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > PIECE {
            // Text is not joined over so much markup.
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
        // A colour is no part of the text, wherever it stands: it goes with its last byte.
        end_colour(text);
        // No colour is open behind a letter.
        let is_short = text.len() < PIECE || bytes.last() < Some(&b'a') && text.len() < 2 * PIECE;
        match self.part {
            _ if is_short => Ok(()),
            Part::Value(_) => self.mask_value(false),
            _ => self.decide(false),
        }
    }

    fn mask_value(&mut self, is_end: bool) -> io::Result<()> {
        let mut clean = Vec::new();
        self.values.push(&self.value, &mut clean);
        self.value.clear();
        if is_end {
            self.values.finish(&mut clean);
        }
        let Part::Value(quote) = self.part else { return Ok(()) };
        let mut clean = escaped(&clean, quote);
        if is_end && quote == BARE && clean.is_empty() {
            // The next word would be the value.
            clean.extend_from_slice(b"''");
        }
        self.mark(&clean)
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
            self.out.write_all(&escaped(&clean[written..to], TEXT))?;
            self.out.write_all(&mark)?;
            written = to;
        }
        for (at, _) in &mut self.marks {
            *at -= decided;
        }
        self.out.write_all(&escaped(&clean[written..], TEXT))
    }
}

/// Text with entities, for the value of an attribute that has this quotation mark, or beside tags.
fn escaped(text: &[u8], quote: u8) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(text.len());
    for &byte in text {
        let is_special = match byte {
            b'&' | b'<' | b'>' | b'\r' => true,
            b'"' | b'\'' | b'\n' | b'\t' => quote != TEXT,
            b' ' => quote == BARE,
            _ => false,
        };
        match byte {
            _ if is_special => {
                escaped.extend_from_slice(&[b'&', b'#', b'0' + byte / 10, b'0' + byte % 10, b';']);
            }
            // An escape would make colours of what is behind markup; the byte written here is replaced by whoever reads it.
            0x1b => escaped.push(0x1a),
            _ => escaped.push(byte),
        }
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
mod tests;
