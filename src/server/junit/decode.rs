//! A file of test results as UTF-8, whatever it was written in.
//!
//! Test runners on Windows write UTF-16 and Windows-1252, others ISO 8859-15. Everything else is passed on as it is: the
//! reader of the XML replaces what is no UTF-8.

use crate::system::codepages::{CodePage, declared};
use std::io::{self, Read, Seek, SeekFrom};

/// Bytes that are looked at for the encoding: the XML declaration comes first.
const HEAD: usize = 256;
#[derive(Clone, Copy)]
enum Encoding {
    Utf8,
    Utf16 {
        big_endian: bool,
    },
    /// An encoding with one byte for each character.
    Narrow(CodePage),
}

/// Reads a source as UTF-8.
pub(super) struct Decoded<R> {
    source: R,
    /// Known once the beginning was read.
    encoding: Option<Encoding>,
    /// Bytes of the source that are not decoded yet.
    raw: Vec<u8>,
    /// Decoded bytes from `given` on are still to be given out.
    text: Vec<u8>,
    given: usize,
    has_ended: bool,
}

impl<R: Read> Decoded<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, encoding: None, raw: Vec::new(), text: Vec::new(), given: 0, has_ended: false }
    }

    /// Reads more of the source and decodes as much as makes whole characters.
    fn refill(&mut self) -> io::Result<()> {
        let old = self.raw.len();
        self.raw.resize(old + 32 * 1024, 0);
        let mut read = 0;
        // The encoding is seen in the first bytes, which need not come at once.
        loop {
            let more = self.source.read(&mut self.raw[old + read..])?;
            read += more;
            self.has_ended = more == 0;
            if more == 0 || self.encoding.is_some() || old + read >= HEAD {
                break;
            }
        }
        self.raw.truncate(old + read);
        let encoding = *self.encoding.get_or_insert_with(|| guess(&self.raw));
        self.text.clear();
        self.given = 0;
        match encoding {
            Encoding::Utf8 => std::mem::swap(&mut self.text, &mut self.raw),
            Encoding::Narrow(character) => {
                let mut text = String::with_capacity(self.raw.len() * 2);
                text.extend(self.raw.drain(..).map(character));
                self.text = text.into_bytes();
            }
            Encoding::Utf16 { big_endian } => {
                let whole = whole_units(&self.raw, big_endian, self.has_ended);
                let units = self.raw[..whole].chunks_exact(2).map(|pair| unit(pair, big_endian));
                let text: String = char::decode_utf16(units)
                    .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
                    .filter(|character| *character != '\u{feff}')
                    .collect();
                self.text = text.into_bytes();
                self.raw.drain(..if self.has_ended { self.raw.len() } else { whole });
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Decoded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.given == self.text.len() {
            if self.has_ended {
                return Ok(0);
            }
            self.refill()?;
        }
        let count = into.len().min(self.text.len() - self.given);
        into[..count].copy_from_slice(&self.text[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

impl<R: Read + Seek> Decoded<R> {
    /// Goes back to the beginning.
    pub(super) fn rewind(&mut self) -> io::Result<()> {
        self.source.seek(SeekFrom::Start(0))?;
        (self.encoding, self.given, self.has_ended) = (None, 0, false);
        self.raw.clear();
        self.text.clear();
        Ok(())
    }
}

fn unit(pair: &[u8], big_endian: bool) -> u16 {
    match (pair, big_endian) {
        ([a, b], true) => u16::from_be_bytes([*a, *b]),
        ([a, b], false) => u16::from_le_bytes([*a, *b]),
        _ => 0,
    }
}

/// The length of the whole characters: a pair of surrogates that is cut waits for its second half.
fn whole_units(raw: &[u8], big_endian: bool, has_ended: bool) -> usize {
    let whole = raw.len() / 2 * 2;
    let last = raw[..whole].chunks_exact(2).last().map(|pair| unit(pair, big_endian));
    match last {
        Some(0xd800..=0xdbff) if !has_ended => whole - 2,
        _ => whole,
    }
}

/// The encoding that the first bytes show or the declaration names. A file that names one and holds UTF-8 is UTF-8:
/// some test runners write the declaration without thinking.
fn guess(raw: &[u8]) -> Encoding {
    match raw {
        [0xff, 0xfe, ..] | [b'<', 0, ..] => return Encoding::Utf16 { big_endian: false },
        [0xfe, 0xff, ..] | [0, b'<', ..] => return Encoding::Utf16 { big_endian: true },
        _ => {}
    }
    let Some(named) = declared(raw) else { return Encoding::Utf8 };
    // The end of the piece may cut a character.
    let is_text = std::str::from_utf8(raw).map_or_else(|error| error.error_len().is_none(), |_| true);
    let is_ascii = raw.is_ascii();
    if is_ascii || !is_text { Encoding::Narrow(named) } else { Encoding::Utf8 }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot read should fail loudly")]
mod tests {
    use super::*;

    /// Gives out a few bytes at a time, as a slow pipe would, and cuts characters.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let (first, rest) = self.0.split_at(self.0.len().min(61));
            into[..first.len()].copy_from_slice(first);
            self.0 = rest;
            Ok(first.len())
        }
    }

    fn decoded(raw: &[u8]) -> String {
        let mut whole = String::new();
        Decoded::new(raw).read_to_string(&mut whole).unwrap();
        let mut slow = String::new();
        Decoded::new(Slow(raw)).read_to_string(&mut slow).unwrap();
        assert_eq!(whole, slow);
        whole
    }

    #[test]
    fn files_of_windows_are_read() {
        let text = format!("<a>häßlich 😀 {}</a>", "😀ö".repeat(12_000));
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(decoded(&little), text);
        assert_eq!(decoded(&[&[0xfe, 0xff], big.as_slice()].concat()), text);
        let cut = &little[..little.len() - 1];
        assert!(decoded(cut).ends_with("</a"));
        let latin = b"<?xml version='1.0' encoding='ISO-8859-1'?><a>h\xe4\xdflich \x80 \x81</a>";
        assert!(decoded(latin).ends_with("<a>häßlich € \u{fffd}</a>"));
        let latin =
            b"<?xml version='1.0' encoding='ISO-8859-15'?><a>\xa4 \xa6\xa8\xb4\xb8\xbc\xbd\xbe \xe4</a>";
        assert!(decoded(latin).ends_with("<a>€ ŠšŽžŒœŸ ä</a>"));
    }

    #[test]
    fn text_is_text_whatever_it_says_it_is() {
        let text = "<?xml version='1.0' encoding='latin1'?><a>häßlich</a>";
        assert_eq!(decoded(text.as_bytes()), text);
        assert_eq!(decoded("\u{feff}<a/>".as_bytes()), "\u{feff}<a/>");
        assert_eq!(decoded(b""), "");
    }
}
