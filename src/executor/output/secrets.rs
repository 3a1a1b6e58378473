//! The values of a task that are masked, which may become more while it runs: a step adds one by
//! `circleci-agent secret add`, which appends it to a file of the task's private folder.
//!
//! Output after that command has ended is masked: the file is looked at whenever output was read, so
//! after the value was added.

use super::automaton::Automaton;
use super::forms::Forms;
use super::patterns;
use crate::protocol::{Secret, Variable};
use crate::system::opening;
use crate::tool::secret::{MOST_BYTES, values};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Most white space, in bytes, that may stand where a secret has some, if the secret has not more itself: a newline and
/// a deep indentation. Without a limit the redactor would hold output back for ever.
const LONGEST_GAP: usize = 64;

/// The secrets to look for. Shared by the streams of a task.
#[derive(Clone)]
pub struct Secrets(Arc<Inner>);

struct Inner {
    forms: Forms,
    /// Holds those that are added.
    file: Option<PathBuf>,
    state: Mutex<State>,
}

struct State {
    patterns: BTreeSet<Vec<u8>>,
    now: Arc<Set>,
    /// Bytes of the file that were read: whole lines.
    read: u64,
    /// Bytes that it had then.
    seen: u64,
}

/// Secrets as they are looked for.
pub(super) struct Set {
    pub(super) automaton: Automaton,
    /// Longest gap within a form of any value, in bytes.
    pub(super) longest_gap: usize,
}

impl Default for Secrets {
    fn default() -> Self {
        Self::new(&[], &[])
    }
}

impl Secrets {
    /// Values of variables and further secrets; `patterns` says what of them is masked.
    pub fn new(variables: &[Variable], further: &[Secret]) -> Self {
        let values = variables.iter().map(|variable| &variable.value).chain(further);
        Self::of(values, Forms::default(), None)
    }

    /// Values, the forms in which they are looked for besides, and the file that more may come from.
    pub fn of<'s>(values: impl Iterator<Item = &'s Secret>, forms: Forms, file: Option<PathBuf>) -> Self {
        let empty = Set { automaton: Automaton::new(&[]), longest_gap: LONGEST_GAP };
        let mut state = State { patterns: BTreeSet::new(), now: Arc::new(empty), read: 0, seen: 0 };
        state.add(&mut values.map(Secret::expose), forms);
        Self(Arc::new(Inner { forms, file, state: Mutex::new(state) }))
    }

    /// The secrets as of now.
    pub(super) fn now(&self) -> Arc<Set> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &self.0.file {
            let length = std::fs::metadata(file).map_or(0, |about| about.len());
            if length < state.seen {
                // A step has removed it with its folder; what comes is in a new one.
                (state.read, state.seen) = (0, 0);
            }
            if length > state.seen && state.read < MOST_BYTES {
                state.seen = length;
                let opened = opening::open(file, File::options().read(true));
                if let Err(error) = opened.and_then(|file| state.read_more(file, self.0.forms)) {
                    log::warn!("cannot read the secrets that a step has added: {error}");
                }
            }
        }
        state.now.clone()
    }

    /// Whether there is nothing to mask.
    pub fn are_none(&self) -> bool {
        self.now().automaton.is_empty()
    }
}

impl State {
    fn read_more(&mut self, mut file: File, forms: Forms) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.read))?;
        file.take(MOST_BYTES - self.read).read_to_end(&mut bytes)?;
        let (values, length) = values(&bytes);
        self.read += length;
        self.add(&mut values.iter().map(String::as_str), forms);
        Ok(())
    }

    fn add(&mut self, values: &mut dyn Iterator<Item = &str>, forms: Forms) {
        let mut longest_gap = self.now.longest_gap;
        for value in values {
            longest_gap = longest_gap.max(patterns::longest_gap(value));
            self.patterns.extend(patterns::of(value, forms));
        }
        let all: Vec<Vec<u8>> = self.patterns.iter().cloned().collect();
        self.now = Arc::new(Set { automaton: Automaton::new(&all), longest_gap });
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::executor::output::redactor::Redactor;
    use proptest::prelude::*;
    use std::io::Write;

    #[test]
    fn what_is_added_is_masked_from_then_on_also_where_it_has_begun() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets");
        let first = [Secret::new("first-one"), Secret::new("abcdef one")];
        let secrets = Secrets::of(first.iter(), Forms::default(), Some(path.clone()));
        let mut redactor = Redactor::new(secrets.clone());
        let mut out = Vec::new();
        redactor.push(b"hunter22 abcdef ", &mut out);
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        writeln!(file, "{}", serde_json::to_string("hunter22").unwrap()).unwrap();
        // The end of what an earlier secret began, held back until now, and of what a later one did.
        redactor.push(b"one hunter22 first-", &mut out);
        assert_eq!(secrets.mask("hunter22"), "****");
        // A line that is being written is none yet.
        write!(file, "\"two ").unwrap();
        redactor.push(b"one two\nlines first", &mut out);
        writeln!(file, "\\nlines first\"").unwrap();
        redactor.push(b"-one two lines first\n", &mut out);
        redactor.finish(&mut out);
        let expected = "hunter22 **** **** **** two\nlines **** ****\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    fn count(text: &str, value: &str) -> usize {
        (0..text.len()).filter(|at| text[*at..].starts_with(value)).count()
    }

    proptest! {
        #[test]
        fn wherever_a_secret_is_added_what_begins_later_is_masked(
            first in proptest::collection::vec("[abc]{4,6}", 1..4),
            added in "[abc]{4,6}",
            before in proptest::collection::vec("[abcx]{0,9}", 0..6),
            after in proptest::collection::vec("[abcx]{0,9}", 0..6),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("secrets");
            let values: Vec<Secret> = first.iter().map(Secret::new).collect();
            let secrets = Secrets::of(values.iter(), Forms::default(), Some(path.clone()));
            let mut redactor = Redactor::new(secrets);
            let mut out = Vec::new();
            before.iter().for_each(|piece| redactor.push(piece.as_bytes(), &mut out));
            std::fs::write(&path, format!("\"{added}\"\n")).unwrap();
            after.iter().for_each(|piece| redactor.push(piece.as_bytes(), &mut out));
            redactor.finish(&mut out);
            let out = String::from_utf8(out).unwrap();
            for value in &first {
                prop_assert!(!out.contains(value.as_str()), "{value} in {out}");
            }
            let (before, after) = (before.concat(), after.concat());
            let text = before.clone() + &after;
            let begun = (0..before.len()).filter(|at| text[*at..].starts_with(&added)).count();
            prop_assert!(count(&out, &added) <= begun, "{text}: {out}");
        }
    }

    #[test]
    fn a_file_of_secrets_that_is_damaged_or_too_long_harms_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets");
        let secrets = Secrets::of([].iter(), Forms::default(), Some(path.clone()));
        std::fs::write(&path, b"\xff\n{}\n\"hunter22\"\n\"").unwrap();
        assert_eq!(secrets.mask("hunter22"), "****");
        std::fs::write(&path, vec![b'x'; MOST_BYTES as usize * 2]).unwrap();
        assert_eq!(secrets.mask("hunter22 x"), "**** x");
        std::fs::write(&path, "").unwrap();
        assert_eq!(secrets.mask("hunter22"), "****");
    }
}
