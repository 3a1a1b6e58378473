//! Messages of one compilation, with the texts they are about and the invocations that led there.
//!
//! Functions that can fail report here and return `None`, so that what does not depend on the failure goes
//! on and several errors come out at once. All parts of the compiler share one report, so it changes
//! behind a shared reference.

use super::suggest;
use crate::config::diagnostic::{Diagnostic, Diagnostics, Note, Severity};
use crate::config::limits;
use crate::config::values::{Notation, Pos, Scalar};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Texts, messages and the trace of invocations.
#[derive(Default)]
pub(crate) struct Report {
    files: RefCell<Vec<SourceFile>>,
    messages: RefCell<Messages>,
    /// Errors so far, also those that are not kept: nothing may pass as valid because the list was full.
    errors: Cell<usize>,
    hints: RefCell<Hints>,
    /// Invocations that led to the present place, outermost first.
    trace: RefCell<Vec<(Pos, String)>>,
    /// Name of the unused element that is compiled only to find its mistakes: they are warnings.
    rehearsal: RefCell<Option<String>>,
}

#[derive(Default)]
struct Messages {
    list: Vec<Diagnostic>,
    /// How many of the list are errors, and warnings.
    kept: [usize; 2],
    reported: HashSet<(Pos, String)>,
}

/// Choices that were listed, by place and name. Looking for them is by far the most that an error costs,
/// and the same error may be found thousands of times.
type Hints = HashMap<Pos, Vec<(Rc<str>, Rc<str>)>>;

struct SourceFile {
    name: String,
    text: Rc<str>,
    /// Offsets at which lines begin; found with the first message.
    lines: OnceCell<Vec<usize>>,
}

impl SourceFile {
    /// A line, from 1; empty when there is none.
    fn line(&self, number: u32) -> &str {
        let lines = self.lines.get_or_init(|| {
            std::iter::once(0).chain(self.text.match_indices('\n').map(|(at, _)| at + 1)).collect()
        });
        let start = number.max(1) as usize - 1;
        let rest = lines.get(start).map_or("", |start| &self.text[*start..]);
        rest.lines().next().unwrap_or_default()
    }
}

impl Report {
    /// Makes a text known; the number goes into positions.
    pub(crate) fn add_file(&self, name: &str, text: &str) -> u32 {
        let mut files = self.files.borrow_mut();
        files.push(SourceFile { name: name.to_owned(), text: text.into(), lines: OnceCell::new() });
        u32::try_from(files.len() - 1).unwrap_or(u32::MAX)
    }

    /// Reports an error: the config is not valid.
    pub(crate) fn error(&self, pos: Pos, message: impl Into<String>) {
        self.errors.set(self.errors.get() + 1);
        self.add(Severity::Error, pos, message.into(), false);
    }

    /// Reports an error that may be gone the next time, with the same config.
    pub(crate) fn passing_error(&self, pos: Pos, message: String) {
        self.errors.set(self.errors.get() + 1);
        self.add(Severity::Error, pos, message, true);
    }

    /// Reports a warning: the config can be used all the same.
    pub(crate) fn warn(&self, pos: Pos, message: impl Into<String>) {
        self.add(Severity::Warning, pos, message.into(), false);
    }

    fn add(&self, severity: Severity, pos: Pos, message: String, may_pass: bool) {
        let (severity, message) = match (&*self.rehearsal.borrow(), severity) {
            (Some(label), Severity::Error) => {
                (Severity::Warning, format!("{label} is not used, but has a mistake: {message}"))
            }
            _ => (severity, message),
        };
        let mut messages = self.messages.borrow_mut();
        let is_full = messages.kept[severity as usize] >= limits::DIAGNOSTICS;
        if is_full || !messages.reported.insert((pos, message.clone())) {
            return;
        }
        messages.kept[severity as usize] += 1;
        let files = self.files.borrow();
        let place = |pos: Pos| {
            let file = files.get(pos.file as usize).map_or_else(String::new, |file| file.name.clone());
            (file, pos.line.max(1) as usize, pos.column.max(1) as usize)
        };
        let trace = self.trace.borrow();
        let notes = trace.iter().rev().take(8).map(|(pos, what)| {
            let (file, line, column) = place(*pos);
            Note { file, line, column, message: format!("in {what}, used here") }
        });
        let notes = notes.collect();
        let (file, line, column) = place(pos);
        let text = files.get(pos.file as usize).map_or("", |file| file.line(pos.line));
        let excerpt = text.chars().take(4096).collect();
        messages.list.push(Diagnostic { severity, file, line, column, message, excerpt, notes, may_pass });
    }

    /// Whether as many messages of a severity were found as are shown: others need not be put into words.
    pub(crate) fn is_full(&self, severity: Severity) -> bool {
        let severity = if self.is_rehearsal() { Severity::Warning } else { severity };
        self.messages.borrow().kept[severity as usize] >= limits::DIAGNOSTICS
    }

    /// Errors so far. Rehearsals count theirs from 0.
    pub(crate) fn errors(&self) -> usize {
        self.errors.get()
    }

    /// Errors so far and different messages so far, to see whether there were more.
    pub(crate) fn messages(&self) -> (usize, usize) {
        (self.errors.get(), self.messages.borrow().reported.len())
    }

    /// The end of a message about an unknown name: [`suggest::choices`], looked for at most once for a
    /// name at a place of the text, since whatever leads there again finds the same. Empty when no more
    /// messages of this severity are shown.
    pub(crate) fn choices<'k>(
        &self,
        severity: Severity,
        pos: Pos,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'k str>,
    ) -> Rc<str> {
        if self.is_full(severity) {
            return "".into();
        }
        let mut hints = self.hints.borrow_mut();
        let here = hints.entry(pos).or_default();
        if let Some((_, hint)) = here.iter().find(|(of, _)| **of == *name) {
            return hint.clone();
        }
        let hint: Rc<str> = suggest::choices(what, name, known).into();
        here.push((name.into(), hint.clone()));
        hint
    }

    /// How often choices were looked for.
    #[cfg(test)]
    pub(crate) fn looked_for_choices(&self) -> usize {
        self.hints.borrow().values().map(Vec::len).sum()
    }

    /// Runs `inside` with one more invocation in the trace of its messages.
    pub(crate) fn within<T>(&self, pos: Pos, what: String, inside: impl FnOnce() -> T) -> T {
        self.trace.borrow_mut().push((pos, what));
        let result = inside();
        self.trace.borrow_mut().pop();
        result
    }

    /// Whether an element is compiled only to find its mistakes. Nothing counts as used then, and what it
    /// uses is not looked at.
    pub(crate) fn is_rehearsal(&self) -> bool {
        self.rehearsal.borrow().is_some()
    }

    /// Runs `inside` as the rehearsal of an unused element: its errors are warnings that name the element.
    pub(crate) fn rehearse(&self, label: String, inside: impl FnOnce()) {
        self.rehearsal.replace(Some(label));
        inside();
        self.rehearsal.replace(None);
    }

    /// Sets the number of errors and returns the one before: rehearsals count theirs from 0 and put it back.
    pub(crate) fn count_errors_from(&self, errors: usize) -> usize {
        self.errors.replace(errors)
    }

    /// The place of a byte of a scalar, as exactly as its style allows.
    pub(crate) fn place_in(&self, pos: Pos, scalar: &Scalar, offset: usize) -> Pos {
        if scalar.substituted {
            return pos;
        }
        let files = self.files.borrow();
        let before = &scalar.text[..offset.min(scalar.text.len())];
        let breaks = before.matches('\n').count();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let content = scalar.text[line_start..].lines().next().unwrap_or_default();
        let candidates: &[usize] = match scalar.style {
            // The place of a block is its first line of text, or the line above.
            Notation::Block => &[breaks, breaks + 1],
            Notation::Plain | Notation::Quoted if breaks == 0 => &[0],
            Notation::Plain | Notation::Quoted => &[],
        };
        for down in candidates {
            let line = pos.line + u32::try_from(*down).unwrap_or(0);
            let source = files.get(pos.file as usize).map_or("", |file| file.line(line));
            let from =
                if scalar.style == Notation::Block { 0 } else { (pos.column as usize).saturating_sub(1) };
            let skipped: usize = source.chars().take(from).map(char::len_utf8).sum();
            if let Some(found) = source[skipped..].find(content) {
                let chars = source[..skipped + found].chars().count() + before[line_start..].chars().count();
                return Pos { line, column: u32::try_from(chars + 1).unwrap_or(1), ..pos };
            }
        }
        pos
    }

    /// The warnings, or everything when there was an error; in the order of the text.
    pub(crate) fn finish(self) -> Result<Vec<Diagnostic>, Diagnostics> {
        let files = self.files.into_inner();
        let order: HashMap<String, usize> =
            files.into_iter().enumerate().rev().map(|(index, file)| (file.name, index)).collect();
        let mut list = self.messages.into_inner().list;
        list.sort_by_key(|d| (d.severity, order.get(&d.file).copied(), d.line, d.column));
        if self.errors.get() > 0 { Err(Diagnostics(list)) } else { Ok(list) }
    }
}
