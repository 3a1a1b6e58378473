//! Masks secret values in a stream of bytes, however the stream is cut into pieces.
//!
//! Every occurrence of every secret is found, overlapping ones too; each stretch of overlapping
//! occurrences becomes one `****`. What could still become a secret is held back until it is decided, so
//! at most one byte less than the longest secret waits here.

use crate::protocol::{Secret, Variable};

/// Mask in place of a secret.
const MASK: &[u8] = b"****";

/// In characters. Shorter values would mask ordinary text everywhere.
const SHORTEST_SECRET: usize = 4;

/// A word of ones in every byte.
const ONES: u64 = 0x0101_0101_0101_0101;

/// The secrets to look for. Shared by the streams of a task.
#[derive(Clone, Default)]
pub struct Secrets {
    /// Longest first, no duplicates.
    patterns: Vec<Vec<u8>>,
}

impl Secrets {
    /// Values of variables and further secrets. Values shorter than four characters and the words of
    /// booleans are not secret; a value of several lines counts whole and line by line.
    pub fn new(variables: &[Variable], further: &[Secret]) -> Self {
        let mut patterns: Vec<Vec<u8>> = Vec::new();
        let values = variables.iter().map(|variable| &variable.value).chain(further);
        for value in values.map(Secret::expose) {
            if matches!(value, "true" | "True" | "false" | "False") {
                continue;
            }
            let lines = value.lines().map(|line| line.trim_end_matches('\r'));
            for text in std::iter::once(value).chain(lines) {
                if text.chars().count() >= SHORTEST_SECRET {
                    patterns.push(text.as_bytes().to_vec());
                }
            }
        }
        patterns.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        patterns.dedup();
        Self { patterns }
    }

    /// Masks a complete text.
    pub fn mask(&self, text: &str) -> String {
        let mut redactor = Redactor::new(self.clone());
        let mut out = Vec::new();
        redactor.push(text.as_bytes(), &mut out);
        redactor.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// One stream.
pub struct Redactor {
    secrets: Secrets,
    /// `true` for bytes that begin a secret.
    begins: [bool; 256],
    /// The same bytes, each repeated in a word, when they are few.
    few: Option<Vec<u64>>,
    /// Bytes that are not decided yet.
    held: Vec<u8>,
    /// The first bytes of `held` that belong to a stretch whose mask was written.
    masked: usize,
}

impl Redactor {
    /// Starts a stream.
    pub fn new(secrets: Secrets) -> Self {
        let mut begins = [false; 256];
        for pattern in &secrets.patterns {
            begins[usize::from(pattern[0])] = true;
        }
        let bytes = (0..=255u8).filter(|&byte| begins[usize::from(byte)]);
        let words: Vec<u64> = bytes.map(|byte| u64::from(byte) * ONES).collect();
        let few = (words.len() <= 4).then_some(words);
        Self { secrets, begins, few, held: Vec::new(), masked: 0 }
    }

    /// How many of the first bytes begin no secret.
    fn plain(&self, bytes: &[u8]) -> usize {
        let mut from = 0;
        if let Some(few) = &self.few {
            // Eight bytes at a time: a byte of `x` is zero where the byte looked for stands.
            let has_zero = |x: u64| x.wrapping_sub(ONES) & !x & (ONES << 7) != 0;
            for chunk in bytes.chunks_exact(8) {
                let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
                if few.iter().any(|byte| has_zero(word ^ byte)) {
                    break;
                }
                from += 8;
            }
        }
        let rest = bytes[from..].iter().position(|&byte| self.begins[usize::from(byte)]);
        rest.map_or(bytes.len(), |at| from + at)
    }

    /// Takes the next piece and appends what is decided to `out`.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        if self.secrets.patterns.is_empty() {
            out.extend_from_slice(piece);
            return;
        }
        self.held.extend_from_slice(piece);
        self.decide(false, out);
    }

    /// The stream has ended: appends the rest.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.decide(true, out);
    }

    fn decide(&mut self, ended: bool, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        let mut at = 0;
        let mut mask_end = self.masked;
        while at < held.len() {
            if at >= mask_end {
                // The common case: a run of bytes that begin no secret.
                let plain = self.plain(&held[at..]);
                if plain > 0 {
                    out.extend_from_slice(&held[at..at + plain]);
                    at += plain;
                    continue;
                }
            }
            let rest = &held[at..];
            let mut found = 0;
            let mut open = false;
            if self.begins[usize::from(rest[0])] {
                for pattern in &self.secrets.patterns {
                    if pattern.len() > rest.len() {
                        open |= !ended && pattern.starts_with(rest);
                    } else if rest.starts_with(pattern) {
                        found = pattern.len();
                        break;
                    }
                }
            }
            if open {
                break;
            }
            if found > 0 {
                if at >= mask_end {
                    out.extend_from_slice(MASK);
                }
                mask_end = mask_end.max(at + found);
            } else if at >= mask_end {
                out.push(rest[0]);
            }
            at += 1;
        }
        self.held = held[at..].to_vec();
        self.masked = mask_end.saturating_sub(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secrets(values: &[&str]) -> Secrets {
        let further: Vec<_> = values.iter().map(|value| Secret::new(*value)).collect();
        Secrets::new(&[], &further)
    }

    /// All occurrences marked byte by byte, then each stretch of overlapping ones replaced.
    fn naive(secrets: &Secrets, text: &[u8]) -> Vec<u8> {
        let mut stretches: Vec<(usize, usize)> = Vec::new();
        for start in 0..text.len() {
            let longest = secrets.patterns.iter().find(|pattern| text[start..].starts_with(pattern));
            let Some(end) = longest.map(|pattern| start + pattern.len()) else { continue };
            match stretches.last_mut() {
                Some(last) if start < last.1 => last.1 = last.1.max(end),
                _ => stretches.push((start, end)),
            }
        }
        let mut out = Vec::new();
        let mut at = 0;
        for (start, end) in stretches {
            out.extend_from_slice(&text[at..start]);
            out.extend_from_slice(MASK);
            at = end;
        }
        out.extend_from_slice(&text[at..]);
        out
    }

    proptest! {
        #[test]
        fn any_split_gives_what_the_whole_text_gives(
            values in proptest::collection::vec("[abcdef]?[ab]{4,6}", 1..6),
            text in "[abcdefx]{0,9}[abc]{0,60}[x]{0,20}[abcdefx]{0,30}",
            cuts in proptest::collection::vec(1usize..9, 0..30),
        ) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let secrets = secrets(&values);
            let mut redactor = Redactor::new(secrets.clone());
            let mut out = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                redactor.push(piece, &mut out);
                rest = tail;
                prop_assert!(redactor.held.len() < 7, "held back more than it must");
            }
            redactor.push(rest, &mut out);
            redactor.finish(&mut out);
            prop_assert_eq!(out, naive(&secrets, text.as_bytes()));
        }
    }

    #[test]
    fn short_values_and_booleans_are_not_secret() {
        let secrets = secrets(&["abc", "true", "False", "abcd"]);
        assert_eq!(secrets.mask("abc true False abcd"), "abc true False ****");
        // Characters are counted, as people who choose a value do.
        assert_eq!(self::secrets(&["öäü", "öäüß"]).mask("öäü öäüß"), "öäü ****");
    }

    #[test]
    fn lines_of_a_value_are_masked_by_themselves() {
        let secrets = secrets(&["line one\nline two\nend"]);
        assert_eq!(secrets.mask("line one\nline two\nend!"), "****!");
        assert_eq!(secrets.mask("x line two end"), "x **** end");
    }

    #[test]
    fn other_bytes_pass_unchanged() {
        let mut redactor = Redactor::new(secrets(&["hunter22"]));
        let mut out = Vec::new();
        redactor.push(b"\xff\x00hunter2", &mut out);
        redactor.push(b"1\n", &mut out);
        redactor.finish(&mut out);
        assert_eq!(out, b"\xff\x00hunter21\n");
    }
}
