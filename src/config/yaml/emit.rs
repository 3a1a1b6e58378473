//! Values to text: block style, stable, and read back by the loader as exactly what went in.

use super::scalar::resolve;
use crate::config::values::ScalarKind;
use std::fmt::Write;

/// Writes a document entry by entry. Calls of `map`, `list` and `item` are closed by `end`.
#[derive(Default)]
pub(crate) struct Emitter {
    out: String,
    indent: usize,
    /// The next entry shares its line with the dash of its list item.
    dash: bool,
}

impl Emitter {
    pub(crate) fn finish(self) -> String {
        self.out
    }

    pub(crate) fn comment(&mut self, text: &str) {
        for line in text.lines() {
            self.out.push_str("# ");
            self.out.push_str(line);
            self.out.push('\n');
        }
    }

    /// `key:` with entries below it.
    pub(crate) fn map(&mut self, key: &str) {
        self.key(key);
        self.out.push('\n');
        self.indent += 2;
    }

    /// `key:` with items below it.
    pub(crate) fn list(&mut self, key: &str) {
        self.map(key);
    }

    /// `-` with entries beside and below it.
    pub(crate) fn item(&mut self) {
        self.start();
        self.out.push_str("- ");
        self.dash = true;
        self.indent += 2;
    }

    pub(crate) fn end(&mut self) {
        self.indent -= 2;
        self.dash = false;
    }

    /// `key: text`, quoted where it needs to be.
    pub(crate) fn string(&mut self, key: &str, text: &str) {
        self.key(key);
        self.out.push(' ');
        self.text(text);
        self.out.push('\n');
    }

    /// `key: value` for numbers and booleans.
    pub(crate) fn plain(&mut self, key: &str, value: impl std::fmt::Display) {
        self.key(key);
        let _ = writeln!(self.out, " {value}");
    }

    /// Writes an item of a list, `- text`.
    pub(crate) fn string_item(&mut self, text: &str) {
        self.start();
        self.out.push_str("- ");
        self.indent += 2;
        self.text(text);
        self.indent -= 2;
        self.out.push('\n');
    }

    fn start(&mut self) {
        if self.dash {
            self.dash = false;
        } else {
            self.blanks(self.indent);
        }
    }

    fn blanks(&mut self, count: usize) {
        const BLANKS: &str = "                                ";
        self.out.push_str(&BLANKS[..count.min(BLANKS.len())]);
    }

    fn key(&mut self, key: &str) {
        self.start();
        let before = self.out.len();
        if is_plain(key) {
            self.out.push_str(key)
        } else {
            self.quoted(key)
        }
        // A key on the line of its value has at most 1024 characters in YAML; a longer one is announced.
        if self.out.len() - before > 1000 {
            self.out.insert_str(before, "? ");
            self.out.push('\n');
            self.blanks(self.indent);
        }
        self.out.push(':');
    }

    fn text(&mut self, text: &str) {
        if is_plain(text) {
            self.out.push_str(text);
        } else if is_block(text) {
            self.block(text);
        } else {
            self.quoted(text);
        }
    }

    fn block(&mut self, text: &str) {
        let body = text.trim_end_matches('\n');
        self.out.push_str(match text.len() - body.len() {
            0 => "|-",
            1 => "|",
            _ => "|+",
        });
        // The last newline ends the line that the caller ends.
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            self.out.push('\n');
            if !line.is_empty() {
                self.blanks(self.indent + 2);
                self.out.push_str(line);
            }
        }
    }

    fn quoted(&mut self, text: &str) {
        self.out.push('"');
        let mut plain = 0;
        for (at, c) in text.char_indices() {
            if c != '"' && c != '\\' && !is_special(c) {
                continue;
            }
            self.out.push_str(&text[plain..at]);
            plain = at + c.len_utf8();
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\t' => self.out.push_str("\\t"),
                '\r' => self.out.push_str("\\r"),
                c => {
                    let code = u32::from(c);
                    let _ = if code > 0xffff {
                        write!(self.out, "\\U{code:08x}")
                    } else {
                        write!(self.out, "\\u{code:04x}")
                    };
                }
            }
        }
        self.out.push_str(&text[plain..]);
        self.out.push('"');
    }
}

/// Characters that only an escape carries safely.
fn is_special(c: char) -> bool {
    c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether a text of several lines has such characters.
fn has_special(text: &str) -> bool {
    if text.is_ascii() {
        return text.bytes().any(|b| b != b'\n' && b != b'\t' && b.is_ascii_control());
    }
    text.chars().any(|c| c != '\n' && c != '\t' && is_special(c))
}

/// Characters that mean nothing in YAML wherever they stand in a plain text.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b" _./~$@+=,:;()*?!%^-";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

/// Whether a text can stand without quotes and is read back as text. Stricter than YAML.
fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    let starts_well = first.is_ascii_alphanumeric() || b"/_.~$".contains(first);
    starts_well
        && !matches!(last, b' ' | b':')
        && bytes.iter().all(|byte| PLAIN[usize::from(*byte)])
        && !memchr::memchr_iter(b':', bytes).any(|at| bytes.get(at + 1) == Some(&b' '))
        && resolve(text) == ScalarKind::Str
        && !looks_like_number(text)
        && !matches!(text, "y" | "Y" | "n" | "N")
        && !text.starts_with("...")
}

/// Dates, times, versions and zero-padded numbers are text to this loader, but not to every other.
fn looks_like_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && text.chars().all(|c| c.is_ascii_digit() || "_.:eE+-".contains(c))
}

/// Whether a text of several lines survives a literal block.
fn is_block(text: &str) -> bool {
    let body = text.trim_end_matches('\n');
    text.contains('\n')
        && !body.is_empty()
        && !text.starts_with([' ', '\n', '\t'])
        && !has_special(text)
        // A last line of blanks, or a tab where the indentation ends, is read differently by different parsers.
        && !body.lines().any(|line| line.starts_with('\t') || (!line.is_empty() && line.trim().is_empty()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::load;
    use super::*;
    use proptest::prelude::*;

    fn round_trip(text: &str) -> String {
        let mut emitter = Emitter::default();
        emitter.map("a");
        emitter.string(text, text);
        emitter.list("list");
        emitter.item();
        emitter.string("c", text);
        emitter.plain("d", 1);
        emitter.end();
        emitter.string_item(text);
        emitter.end();
        emitter.end();
        let out = emitter.finish();
        let (node, problems) = load(&out, 0);
        assert_eq!(problems, [], "{out}");
        let root = node.unwrap();
        let a = root.as_map().unwrap().get("a").unwrap().as_map().unwrap().clone();
        assert_eq!(&*a.entries[0].key, text, "{out}");
        let b = a.get("list").unwrap().as_seq().unwrap().clone();
        let c = b.items[0].as_map().unwrap().get("c").unwrap().as_str().unwrap().to_string();
        assert_eq!(c, *b.items[1].as_str().unwrap().to_string(), "{out}");
        let first = a.entries[0].value.as_str().unwrap();
        assert_eq!(&**first, c.as_str(), "{out}");
        c
    }

    #[test]
    fn texts_that_mean_something_else_are_quoted() {
        for text in [
            "",
            "true",
            "10",
            "1.10",
            "~",
            "a: b",
            "x #y",
            "- z",
            "a\nb\n",
            "a\n\nb",
            " x\ny",
            "\n",
            "a\n\n",
            "*x",
            "tab\tin",
            "a\n \nb",
            "cr\r\nlf",
            "a:",
            "if\n\tx\nfi",
            "\u{1f600}\u{7}",
            "a\n  b\n c",
            "<<",
            "---",
            "y",
        ] {
            assert_eq!(round_trip(text), text);
        }
    }

    proptest! {
        #[test]
        fn every_text_is_read_back(text in "[a-c \\-:#\n\t\r'\"{}\\[\\]|>%@`!&*<?,.~0-9\\\\é\u{85}\u{2028}]{0,40}") {
            prop_assert_eq!(round_trip(&text), text);
        }

        #[test]
        fn every_character_is_read_back(text in any::<String>()) {
            prop_assert_eq!(round_trip(&text), text);
        }
    }
}
