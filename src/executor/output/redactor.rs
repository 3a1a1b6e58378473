//! Masks secret values in a stream of bytes, however the stream is cut into pieces.
//!
//! Every occurrence of every secret is found, overlapping ones too; each stretch of overlapping
//! occurrences becomes one `****`. White space may have changed in an occurrence, as shells change it.
//! Only what could still become a secret is held back, so at most one byte less than the longest occurrence
//! waits here.

use super::automaton::{Automaton, FILTERED, NodeIndex, ROOT, Search, folded};
pub(in crate::executor) use super::patterns::end_colour;
pub use super::secrets::Secrets;
use super::secrets::Set;
use std::collections::VecDeque;
use std::sync::Arc;

/// Mask in place of a secret.
pub(in crate::executor) const MASK: &str = "****";

impl Secrets {
    /// Masks a complete text.
    pub fn mask(&self, text: &str) -> String {
        let mut redactor = Redactor::new(self.clone());
        let mut out = Vec::new();
        redactor.push(text.as_bytes(), &mut out);
        redactor.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Redactor of one stream.
pub struct Redactor {
    pub(super) secrets: Secrets,
    /// Patterns that are looked for.
    set: Arc<Set>,
    /// Bytes that are not decided yet: the first may begin a secret.
    held: Vec<u8>,
    /// How much of `held` is known to be a prefix of a secret, of at least [`FILTERED`] folded bytes; or
    /// the root when that is to be found out.
    prefix: NodeIndex,
    /// Occurrences in `held`, as indices: by their beginnings and by their ends, none in another.
    found: VecDeque<(usize, usize)>,
    /// The first bytes of `held` that belong to a stretch whose mask was written.
    masked: usize,
}

impl Redactor {
    /// Starts a stream.
    pub fn new(secrets: Secrets) -> Self {
        let set = secrets.now();
        Self { secrets, set, held: Vec::new(), prefix: ROOT, found: VecDeque::new(), masked: 0 }
    }

    /// Takes the next piece and appends what is decided to `out`.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let set = self.secrets.now();
        if !Arc::ptr_eq(&self.set, &set) {
            // Bytes that are held back are looked at anew, for the old ones as well.
            (self.set, self.prefix) = (set, ROOT);
            self.found.clear();
        }
        if self.set.automaton.is_empty() {
            out.extend_from_slice(piece);
            return;
        }
        let mut text = std::mem::take(&mut self.held);
        let known = if self.prefix == ROOT { 0 } else { text.len() };
        text.extend_from_slice(piece);
        let mut pass = Pass { text: &text, stream: self, out, decided: 0 };
        pass.search(known);
        let decided = pass.decided;
        self.keep(text, decided);
    }

    /// Bytes that are not decided yet.
    pub(in crate::executor) fn held(&self) -> &[u8] {
        &self.held
    }

    /// How many of these belong to a mask that was written.
    pub(in crate::executor) fn masked(&self) -> usize {
        self.masked
    }

    /// The stream has ended: appends the rest.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let text = std::mem::take(&mut self.held);
        self.prefix = ROOT;
        Pass { text: &text, stream: self, out, decided: 0 }.decide(text.len());
        self.masked = 0;
    }

    /// Holds back what is not decided.
    fn keep(&mut self, mut text: Vec<u8>, decided: usize) {
        text.drain(..decided);
        self.held = text;
        self.masked = self.masked.saturating_sub(decided);
        for (start, end) in &mut self.found {
            *start -= decided;
            *end -= decided;
        }
    }
}

/// A piece on its way through a stream, behind what was held back.
struct Pass<'a> {
    text: &'a [u8],
    stream: &'a mut Redactor,
    out: &'a mut Vec<u8>,
    /// Place in `text` where the prefix begins that is followed; all before it was written, masked or not.
    decided: usize,
}

impl Pass<'_> {
    /// Reads all, from where the stream's prefix ends.
    fn search(&mut self, mut at: usize) {
        let set = Arc::clone(&self.stream.set);
        let automaton = &set.automaton;
        loop {
            if self.stream.prefix != ROOT {
                self.follow(automaton, at);
                if self.stream.prefix != ROOT {
                    return;
                }
            }
            let Some((start, end, node)) = self.next(automaton) else {
                return self.decide(self.open_end(automaton));
            };
            self.decide(start);
            self.stream.prefix = node;
            self.note(automaton, end);
            at = end;
        }
    }

    /// The next first bytes of a secret, as many as are filtered: beginning, end and node.
    fn next(&self, automaton: &Automaton) -> Option<(usize, usize, NodeIndex)> {
        let mut search = Search::from(self.decided);
        while automaton.filter(self.text, &mut search) {
            let node = search.first.iter().try_fold(ROOT, |node, &byte| automaton.child(node, byte));
            let Some(node) = node else { continue };
            if let Some(start) = self.back(search.end, FILTERED) {
                return Some((start, search.end, node));
            }
        }
        None
    }

    /// Follows the prefix until the text ends or it is no longer one; then the stream's is the root.
    fn follow(&mut self, automaton: &Automaton, from: usize) {
        let longest_gap = self.stream.set.longest_gap;
        let mut gap = self.text[..from].iter().rev().take_while(|&&byte| folded(byte) == b' ').count();
        for at in from..self.text.len() {
            let byte = folded(self.text[at]);
            let is_gap = byte == b' ';
            gap = if is_gap { gap + 1 } else { 0 };
            if gap > longest_gap {
                self.stream.prefix = ROOT;
                return self.decide(at);
            }
            if gap > 1 {
                continue;
            }
            loop {
                if let Some(child) = automaton.child(self.stream.prefix, byte) {
                    self.stream.prefix = child;
                    break;
                }
                if !self.fall_back(automaton) {
                    return;
                }
            }
            self.note(automaton, at + 1);
        }
        // A secret that is complete and can be no longer one waits for nothing.
        while automaton.is_leaf(self.stream.prefix) && self.fall_back(automaton) {}
    }

    /// Makes the prefix a shorter one that begins later. `false` when there is none.
    fn fall_back(&mut self, automaton: &Automaton) -> bool {
        let (long, short) = (self.stream.prefix, automaton.fallback(self.stream.prefix));
        let length = automaton.length(short);
        self.decide(self.forth(automaton.length(long) - length));
        self.stream.prefix = if length < FILTERED { ROOT } else { short };
        self.stream.prefix != ROOT
    }

    /// Remembers the secret that ends here with the prefix, if one does.
    fn note(&mut self, automaton: &Automaton, end: usize) {
        let length = automaton.found(self.stream.prefix);
        if length == 0 {
            return;
        }
        let before = automaton.length(self.stream.prefix) - length;
        // The shorter way.
        let start = if before < length { Some(self.forth(before)) } else { self.back(end, length) };
        let Some(start) = start else { return };
        let found = &mut self.stream.found;
        found.truncate(found.partition_point(|&(other, _)| other < start));
        found.push_back((start, end));
    }

    /// The index that many folded bytes after the first undecided one.
    fn forth(&self, count: usize) -> usize {
        let mut at = self.decided;
        for _ in 0..count {
            at += 1;
            if folded(self.text[at - 1]) == b' ' {
                at += self.text[at..].iter().take_while(|&&byte| folded(byte) == b' ').count();
            }
        }
        at
    }

    /// The index that many folded bytes before `end`, if nothing is decided there and no gap too long.
    fn back(&self, end: usize, count: usize) -> Option<usize> {
        let mut at = end;
        for _ in 0..count {
            let rest = &self.text[self.decided..at];
            let gap = rest.iter().rev().take_while(|&&byte| folded(byte) == b' ').count();
            if rest.is_empty() || gap > self.stream.set.longest_gap {
                return None;
            }
            at -= gap.max(1);
        }
        Some(at)
    }

    /// The index from where all may be the first bytes of a secret, fewer than are filtered.
    fn open_end(&self, automaton: &Automaton) -> usize {
        let end = self.text.len();
        let may_begin = |start: &usize| {
            let mut last = 0;
            let mut node = Some(ROOT);
            for byte in self.text[*start..].iter().map(|&byte| folded(byte)) {
                if byte != b' ' || last != byte {
                    node = node.and_then(|node| automaton.child(node, byte));
                }
                last = byte;
            }
            node.is_some()
        };
        let mut starts = (1..FILTERED).rev().filter_map(|count| self.back(end, count));
        starts.find(may_begin).unwrap_or(end)
    }

    /// Writes everything before this index.
    fn decide(&mut self, to: usize) {
        while let Some(&(start, end)) = self.stream.found.front().filter(|(start, _)| *start < to) {
            self.write(start);
            if start >= self.stream.masked {
                self.out.extend_from_slice(MASK.as_bytes());
            }
            self.stream.masked = self.stream.masked.max(end);
            self.stream.found.pop_front();
        }
        self.write(to);
    }

    /// Writes what is plain before this index.
    fn write(&mut self, to: usize) {
        let from = self.decided.max(self.stream.masked);
        if from < to {
            self.out.extend_from_slice(&self.text[from..to]);
        }
        self.decided = self.decided.max(to);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::Secret;
    use proptest::prelude::*;

    fn secrets(values: &[&str]) -> Secrets {
        let further: Vec<_> = values.iter().map(|value| Secret::new(*value)).collect();
        Secrets::new(&[], &further)
    }

    /// The words of each pattern of values that hold no backslash, no boolean and no line of one and the
    /// same punctuation mark: a line needs four characters beside `},`.
    fn words<'a>(values: &[&'a str]) -> Vec<Vec<&'a str>> {
        let split = |text: &'a str| text.split_ascii_whitespace().collect::<Vec<_>>();
        let length = |words: &[&str]| words.concat().chars().count() + words.len().saturating_sub(1);
        let wholes = values.iter().map(|value| split(value)).filter(|words| length(words) >= 4);
        let lines = values.iter().flat_map(|value| value.lines()).map(split);
        let lines = lines.filter(|words| words.concat().replace(['}', ','], "").chars().count() >= 4);
        wholes.chain(lines).collect()
    }

    /// The end of the words that the text begins with, white space of up to 64 bytes between them.
    fn end_of(words: &[&str], text: &[u8]) -> Option<usize> {
        let (word, others) = words.split_first()?;
        let rest = text.strip_prefix(word.as_bytes())?;
        if others.is_empty() {
            return Some(word.len());
        }
        let gap = rest.iter().position(|byte| !byte.is_ascii_whitespace())?;
        let end = end_of(others, &rest[gap..])?;
        (1..=64).contains(&gap).then_some(word.len() + gap + end)
    }

    /// All occurrences looked for at each byte, then each stretch of overlapping ones replaced.
    fn oracle(values: &[&str], text: &[u8]) -> Vec<u8> {
        masked(&words(values), text)
    }

    /// A text as it is shown that comes in pieces of these lengths, and the rest.
    fn in_pieces(secrets: Secrets, text: &str, cuts: &[usize]) -> Vec<u8> {
        let mut redactor = Redactor::new(secrets);
        let mut out = Vec::new();
        let mut rest = text.as_bytes();
        for cut in cuts {
            let (piece, tail) = rest.split_at((*cut).min(rest.len()));
            redactor.push(piece, &mut out);
            rest = tail;
        }
        redactor.push(rest, &mut out);
        redactor.finish(&mut out);
        out
    }

    fn masked(patterns: &[Vec<&str>], text: &[u8]) -> Vec<u8> {
        let mut stretches: Vec<(usize, usize)> = Vec::new();
        for start in 0..text.len() {
            let ends = patterns.iter().filter_map(|words| end_of(words, &text[start..]));
            let Some(end) = ends.max().map(|length| start + length) else { continue };
            match stretches.last_mut() {
                Some(last) if start < last.1 => last.1 = last.1.max(end),
                _ => stretches.push((start, end)),
            }
        }
        let mut out = Vec::new();
        let mut at = 0;
        for (start, end) in stretches {
            out.extend_from_slice(&text[at..start]);
            out.extend_from_slice(MASK.as_bytes());
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
            prop_assert_eq!(out, oracle(&values, text.as_bytes()));
        }

        #[test]
        fn white_space_may_change_and_pieces_may_end_anywhere(
            values in proptest::collection::vec("[ab},]{0,4}[ab \n]{0,3}[ab}, \n\t]{0,9}", 1..6),
            parts in proptest::collection::vec(
                (any::<prop::sample::Index>(), "[ \n\r\t]{1,3}|[ ]{64,65}", 0usize..20, "[ab}, \n]{0,6}"),
                0..8,
            ),
            cuts in proptest::collection::vec(0usize..12, 0..60),
        ) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            // Values from some byte on, with other white space, between other text.
            let text: String = parts.iter().map(|(index, gap, from, noise)| {
                let value = index.get(&values);
                let words: Vec<&str> = value[*from % (value.len() + 1)..].split_ascii_whitespace().collect();
                words.join(gap) + noise
            }).collect();
            let out = in_pieces(secrets(&values), &text, &cuts);
            let expected = oracle(&values, text.as_bytes());
            prop_assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected));
        }
    }

    /// A string of JSON as an encoder writes it that escapes these characters too, or all that are not ASCII.
    fn json(text: &str, also: &str, is_ascii: bool, upper: bool) -> String {
        let mut written = String::new();
        for c in text.chars() {
            if c == '/' && also.contains(c) {
                written += "\\/";
            } else if also.contains(c) || is_ascii && !c.is_ascii() {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let (low, high) = (format!("\\u{unit:04x}"), format!("\\u{unit:04X}"));
                    written += if upper { &high } else { &low };
                }
            } else {
                let quoted = serde_json::to_string(&c).unwrap();
                written += &quoted[1..quoted.len() - 1];
            }
        }
        format!("\"{written}\"")
    }

    proptest! {
        #[test]
        fn a_document_shows_no_secret_however_it_is_written_again(
            password in "[a-z0-9<>&=/'\"\\\\ öß€😀\t]{6,30}",
            key in proptest::collection::vec("[A-Za-z0-9+/=ö]{8,20}", 2..5),
            (kind, count) in ("[a-z_]{4,12}", 0u32..99),
            (first, then) in (0usize..7, 0usize..7),
            (layout, cuts) in (0usize..3, proptest::collection::vec(1usize..40, 0..30)),
        ) {
            let password = password.trim();
            prop_assume!(password.chars().filter(|c| !c.is_whitespace()).count() >= 6);
            let key = key.join("\n") + "\n";
            let encoders: [&dyn Fn(&str) -> String; 7] = [
                &|text| json(text, "", false, false),
                &|text| json(text, "", true, false),
                &|text| json(text, "<>&", false, false),
                &|text| json(text, "/", false, false),
                &|text| json(text, "/", true, false),
                &|text| json(text, "<>&='", false, false),
                &|text| json(text, "<>&'+`\"", true, true),
            ];
            let write = |encoder: usize, layout: usize| {
                let (line, colon) = [("", ":"), (" ", ": "), ("\n    ", ": ")][layout];
                let string = encoders[encoder];
                format!(
                    "{{\"type\"{colon}{},{line}\"of\"{colon}[{count},{line}{{\"password\"{colon}{},{line}\"private\"{colon}{}}}]}}",
                    string(&kind), string(password), string(&key),
                )
            };
            let document = write(first, (layout + 1) % 3);
            let secrets = secrets(&[&document]);
            // Tools print all of it, or the strings, with and without escapes.
            let text = [write(then, layout), password.to_owned(), key.clone(), encoders[then](password)].join("\n");
            let out = in_pieces(secrets.clone(), &text, &cuts);
            let patterns = super::super::patterns::of(&document, super::super::forms::Forms::default());
            let patterns: Vec<Vec<&str>> =
                patterns.iter().filter_map(|text| Some(std::str::from_utf8(text).ok()?.split(' ').collect())).collect();
            let (out, whole) = (String::from_utf8(out).unwrap(), masked(&patterns, text.as_bytes()));
            prop_assert_eq!(&out, &String::from_utf8(whole).unwrap());
            let written = encoders[then](password);
            for secret in [password, written.trim_matches('"').trim()].into_iter().chain(key.lines()) {
                prop_assert!(!out.contains(secret), "{} of {} in {}", secret, document, out);
            }
            // The kind of a key is in many texts.
            prop_assume!(![password, &key].iter().any(|secret| secret.contains(&kind)));
            prop_assert_eq!(secrets.mask(&format!(". {kind} .")), format!(". {kind} ."));
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

    #[test]
    fn a_shell_changes_white_space_and_the_secret_stays_masked() {
        let key =
            "{\n  \"type\": \"account\",\n  \"key\": \"-----BEGIN-----\\nc2VjcmV0\\n-----END-----\\n\"\n}\n";
        let secrets = secrets(&[key]);
        assert_eq!(secrets.mask(key), "****\n");
        let words: Vec<&str> = key.split_whitespace().collect();
        for gap in [" ", "\n", "\r\n\t", &" ".repeat(64)] {
            assert_eq!(secrets.mask(&words.join(gap)), "****");
        }
        // Only the lines by themselves, as the gaps are none of the secret's.
        assert!(!secrets.mask(&words.join(&" ".repeat(65))).contains("c2VjcmV0"));
        assert_eq!(secrets.mask(&key.replace("\\n", "\n")), "****\n");
        assert_eq!(secrets.mask("x c2VjcmV0\n"), "x ****\n");
        assert_eq!(secrets.mask("fn main() {\n  },\n}\n"), "fn main() {\n  },\n}\n");
    }

    #[test]
    fn as_much_white_space_as_a_secret_has_is_masked() {
        let value = format!("left{}right", " ".repeat(100));
        assert_eq!(secrets(&[&value]).mask(&value), "****");
        assert_eq!(secrets(&[&value]).mask("left right"), "****");
        let longer = value.replace(' ', "  ");
        assert_eq!(secrets(&[&value]).mask(&longer), longer);
    }

    #[test]
    fn what_is_complete_is_written_at_once() {
        let mut redactor = Redactor::new(secrets(&["hunter22", "line one\nline two"]));
        let mut out = Vec::new();
        redactor.push(b"hunter22", &mut out);
        assert_eq!(out, b"****");
        redactor.push(b" line one   ", &mut out);
        assert_eq!(out, b"**** ");
        redactor.push(b"line 2\n", &mut out);
        assert_eq!(out, b"**** ****   line 2\n");
    }
}
