//! Text that others wrote, as a terminal may have it: whole lines, and no control sequences but colours.

use std::borrow::Cow;

/// A line that is still without its end is given on at this length, in bytes.
pub const LONGEST_LINE: usize = 64 * 1024;

/// Output that comes in pieces, given on in whole lines.
#[derive(Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes a piece. `each` is given whole lines with their ends, several at once where they came so; a line of more than
    /// [`LONGEST_LINE`] comes in parts.
    pub fn add(&mut self, piece: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = piece;
        if let Some(end) = memchr::memchr(b'\n', rest).filter(|_| !self.partial.is_empty()) {
            self.partial.extend_from_slice(&rest[..=end]);
            each(&self.partial);
            self.partial.clear();
            rest = &rest[end + 1..];
        }
        if let Some(last) = memchr::memrchr(b'\n', rest) {
            each(&rest[..=last]);
            rest = &rest[last + 1..];
        }
        self.partial.extend_from_slice(rest);
        let mut from = 0;
        while self.partial.len() - from > LONGEST_LINE {
            each(&[&self.partial[from..from + LONGEST_LINE], b"\n"].concat());
            from += LONGEST_LINE;
        }
        self.partial.drain(..from);
    }

    /// The last line, which has no end: without one. Empty when there is none.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }
}

/// Each of several whole lines, without its end.
pub fn each_line(mut lines: &[u8], mut each: impl FnMut(&[u8])) {
    while let Some(end) = memchr::memchr(b'\n', lines) {
        each(&lines[..end]);
        lines = &lines[end + 1..];
    }
}

/// A line of output as a terminal may have it: one that is redrawn ends as its last state, and control sequences other
/// than colours, which could move the cursor or ask the terminal things, are gone.
pub fn line(line: &[u8]) -> Vec<u8> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut rest = memchr::memrchr(b'\r', line).map_or(line, |at| &line[at + 1..]);
    let mut clean = Vec::with_capacity(rest.len());
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        // The control characters that begin sequences in one character, as UTF-8 has them.
        if let (0xc2, Some((0x80..=0x9f, after))) = (byte, tail.split_first()) {
            rest = after;
            continue;
        }
        if byte != 0x1b {
            if byte >= 0x20 && byte != 0x7f || byte == b'\t' {
                clean.push(byte);
            }
            continue;
        }
        let Some((&kind, sequence)) = tail.split_first() else { return clean };
        rest = match kind {
            b'[' => {
                let Some(end) = sequence.iter().position(|b| (0x40..=0x7e).contains(b)) else { return clean };
                if sequence[end] == b'm' {
                    clean.extend_from_slice(b"\x1b[");
                    clean.extend_from_slice(&sequence[..=end]);
                }
                &sequence[end + 1..]
            }
            kind if begins_string(kind.into()) => {
                let end = sequence.iter().take(LONGEST_STRING).position(|b| matches!(b, 0x07 | 0x1b));
                let end = end.unwrap_or(sequence.len().min(LONGEST_STRING));
                // A byte that ends no string begins the next sequence.
                match &sequence[end..] {
                    [0x07, after @ ..] | [0x1b, b'\\', after @ ..] => after,
                    after => after,
                }
            }
            // A character that selects a set follows.
            kind if selects_set(kind.into()) => sequence.get(1..).unwrap_or_default(),
            b' '..=b'~' => sequence,
            _ => tail,
        };
    }
    clean
}

/// Longest text of a string sequence that is dropped with it, as in a title or the address of a link.
pub const LONGEST_STRING: usize = 4096;

/// Whether an escape and this begin a string, which ends with a bell or an escape and a backslash: commands to the
/// operating system (OSC, `]`), device controls (DCS), and what terminals have no use for (SOS, PM, APC).
pub fn begins_string(kind: char) -> bool {
    matches!(kind, ']' | 'P' | 'X' | '^' | '_')
}

/// Whether an escape and this are followed by one character, which says which character set is meant.
pub fn selects_set(kind: char) -> bool {
    matches!(kind, ' ' | '#' | '%' | '(' | ')' | '*' | '+')
}

/// A text without colours and control characters, wherever it is shown.
pub fn plain(text: &str) -> String {
    without_controls(&without_colours(text)).into_owned()
}

/// Takes the colours of terminals out of a text.
pub fn without_colours(text: &str) -> Cow<'_, str> {
    let mut clean = String::new();
    let mut rest = text;
    let mut from = 0;
    while let Some(at) = rest[from..].find("\x1b[").map(|at| from + at) {
        let parameters = rest[at + 2..].bytes().take_while(|b| b.is_ascii_digit() || *b == b';').count();
        let end = at + 2 + parameters;
        if rest[end..].starts_with('m') {
            clean.push_str(&rest[..at]);
            rest = &rest[end + 1..];
            from = 0;
        } else {
            from = end;
        }
    }
    if rest.len() == text.len() {
        return Cow::Borrowed(text);
    }
    clean.push_str(rest);
    Cow::Owned(clean)
}

/// Replaces control characters other than tabs and the ends of lines; borrowed when there are none.
pub fn without_controls(text: &str) -> Cow<'_, str> {
    let is_bad = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
    if text.contains(is_bad) { Cow::Owned(text.replace(is_bad, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_long_ones_come_in_parts() {
        let (mut lines, mut given) = (Lines::default(), Vec::new());
        for piece in ["on", "e\ntwo\nth", "ree\n", "\n", "rest"] {
            lines.add(piece.as_bytes(), |whole| given.push(String::from_utf8_lossy(whole).into_owned()));
        }
        assert_eq!(given, ["one\n", "two\n", "three\n", "\n"]);
        assert_eq!((lines.rest(), lines.rest()), (b"rest".to_vec(), Vec::new()));
        let mut lengths = Vec::new();
        lines.add(&vec![b'x'; 2 * LONGEST_LINE + 1], |part| lengths.push(part.len()));
        assert_eq!((lengths, lines.rest().len()), (vec![LONGEST_LINE + 1; 2], 1));
    }

    #[test]
    fn foreign_text_has_no_control_sequences() {
        assert_eq!(line(b"10%\r\x1b[2J\x1b[31mred\x07\x1b]0;t\x07\r"), b"\x1b[31mred");
        for (written, shown) in [
            ("a\x1b]8;;https://x/\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
            ("a\x1bP1;2|zz\x1b\\b\x1b_x\x07c\x1b^y\x1b\\d\x1bXz\x07e", "abcde"),
            ("a\x1b(Bb\x1b=c\x1b7\u{e9}", "abc\u{e9}"),
            ("a\x1b]0;t\x1b[31mb", "a\x1b[31mb"),
            ("a\x1b]0;never ends", "a"),
            ("a\x1b", "a"),
            ("a\x1b\x1b[0mb\x1b\tc\x1b\u{e9}", "a\x1b[0mb\tc\u{e9}"),
        ] {
            assert_eq!(String::from_utf8_lossy(&line(written.as_bytes())), shown, "{written:?}");
        }
        let endless = format!("\x1b]0;{}", "z".repeat(5000));
        assert_eq!(line(endless.as_bytes()).len(), 5000 + "0;".len() - LONGEST_STRING);
        assert_eq!(
            line("\u{9b}2J\u{9d}0;t\u{9c} \u{a0}\u{db}é".as_bytes()),
            "2J0;t \u{a0}\u{db}é".as_bytes()
        );
        assert_eq!(
            plain("a\x1b[1;31mb\x1b[m \x1b[2J\x1b]0;t\x07\u{9b}\x7f\0\t\n"),
            "ab \u{fffd}[2J\u{fffd}]0;t\u{fffd}\u{fffd}\u{fffd}\u{fffd}\t\n"
        );
        assert!(matches!(without_colours("a \x1b[2J b"), Cow::Borrowed(_)));
        assert!(matches!(without_controls("a\tb\r\n"), Cow::Borrowed(_)));
    }
}
