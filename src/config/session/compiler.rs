//! The state of one compilation: files, messages, the trace of invocations, budgets.
//!
//! Functions that can fail report here and return `None`, so that what does not depend on the failure
//! goes on and several errors come out at once.

use crate::config::definitions::package::{Definition, Element, Package};
use crate::config::jobs::repeated::Repeated;

use crate::config::limits;
use crate::config::session::cost;
use crate::config::session::suggest::Hints;
use crate::config::syntax::template::{self, Template};
use crate::config::values::{Bindings, Data, Kind, Map, Node, Pos, Scalar, Style};
use crate::config::{Diagnostic, Diagnostics, Input, Note, Severity};
use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Display;
use std::rc::Rc;

pub(crate) struct Compiler<'a> {
    pub(crate) input: &'a Input<'a>,
    files: Vec<SourceFile>,
    diagnostics: Vec<Diagnostic>,
    /// How many of them are errors, and warnings.
    kept: [usize; 2],
    reported: HashSet<(Pos, String)>,
    pub(crate) hints: RefCell<Hints>,
    /// Tags with a pipeline value that does not exist, by place and offset in the text.
    pub(crate) unknown_values: HashSet<(Pos, usize)>,
    errors: usize,
    /// Invocations that led to what is compiled now, outermost first.
    trace: Vec<(Pos, String)>,
    /// Version 2.1: tags are rendered.
    pub(crate) tags: bool,
    /// The config first, then the orbs it uses.
    pub(crate) packages: Vec<Rc<Package>>,
    /// Commands and conditional steps that are being expanded.
    pub(crate) calls: Vec<(usize, Rc<str>)>,
    pub(crate) step_depth: usize,
    pub(crate) repeated: Repeated,
    steps_left: usize,
    bytes_left: usize,
    exhausted: bool,
    /// What is compiled for show only: errors in it are warnings.
    rehearsal: Option<String>,
    /// The errors before rehearsals began.
    errors_before: usize,
    /// Elements that were used, for what is said about the others.
    pub(crate) used: HashSet<(Element, usize, Rc<str>)>,
    pub(crate) used_groups: HashSet<Rc<str>>,
    /// Values in force.
    pub(crate) pipeline_parameters: Bindings,
    /// References of orbs as written and as resolved, for the processed config.
    pub(crate) resolved_orbs: BTreeMap<String, String>,
    pub(crate) url_orbs: usize,
    /// Exact references of the orbs that are being read, outermost first.
    pub(crate) importing: Vec<String>,
    pub(crate) known_contexts: BTreeSet<String>,
    pub(crate) jobs: usize,
    pub(crate) requirements_used: usize,
}

struct SourceFile {
    name: String,
    text: Rc<str>,
    /// Where lines begin; looked for with the first message.
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

impl<'a> Compiler<'a> {
    pub(crate) fn new(input: &'a Input<'a>) -> Self {
        Self {
            input,
            files: Vec::new(),
            diagnostics: Vec::new(),
            kept: [0; 2],
            hints: RefCell::default(),
            unknown_values: HashSet::new(),
            reported: HashSet::new(),
            errors: 0,
            trace: Vec::new(),
            tags: true,
            packages: Vec::new(),
            calls: Vec::new(),
            step_depth: 0,
            repeated: Repeated::default(),
            steps_left: limits::EXPANDED_STEPS,
            bytes_left: limits::EXPANDED_BYTES,
            exhausted: false,
            rehearsal: None,
            errors_before: 0,
            used: HashSet::new(),
            used_groups: HashSet::new(),
            pipeline_parameters: Bindings::new(),
            resolved_orbs: BTreeMap::new(),
            url_orbs: 0,
            importing: Vec::new(),
            known_contexts: BTreeSet::new(),
            jobs: 0,
            requirements_used: 0,
        }
    }

    /// Makes a text known; the number goes into positions.
    pub(crate) fn add_file(&mut self, name: &str, text: &str) -> u32 {
        self.files.push(SourceFile { name: name.to_owned(), text: text.into(), lines: OnceCell::new() });
        u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX)
    }

    /// Loads a text as YAML and reports what is wrong with it.
    pub(crate) fn load(&mut self, name: &str, text: &str) -> Option<Node> {
        let file = self.add_file(name, text);
        let (node, problems) = crate::config::yaml::load(text, file);
        for problem in problems {
            if problem.warning {
                self.warn(problem.pos, problem.message);
            } else {
                self.error(problem.pos, problem.message);
            }
        }
        node
    }

    pub(crate) fn error(&mut self, pos: Pos, message: impl Into<String>) {
        self.report(Severity::Error, pos, message.into());
    }

    pub(crate) fn warn(&mut self, pos: Pos, message: impl Into<String>) {
        self.report(Severity::Warning, pos, message.into());
    }

    fn report(&mut self, severity: Severity, pos: Pos, message: String) {
        // Counted even when it is not kept: nothing may pass as valid because the list was full.
        self.errors += usize::from(severity == Severity::Error);
        let (severity, message) = match (&self.rehearsal, severity) {
            (Some(label), Severity::Error) => {
                (Severity::Warning, format!("{label} is not used, but has a mistake: {message}"))
            }
            _ => (severity, message),
        };
        if self.is_full(severity) || !self.reported.insert((pos, message.clone())) {
            return;
        }
        self.kept[severity as usize] += 1;
        let place = |pos: Pos| {
            let file = self.files.get(pos.file as usize).map_or_else(String::new, |file| file.name.clone());
            (file, pos.line.max(1) as usize, pos.column.max(1) as usize)
        };
        let notes = self.trace.iter().rev().take(8).map(|(pos, what)| {
            let (file, line, column) = place(*pos);
            Note { file, line, column, message: format!("in {what}, used here") }
        });
        let notes = notes.collect();
        let (file, line, column) = place(pos);
        let excerpt = self.line(pos).chars().take(4096).collect();
        self.diagnostics.push(Diagnostic { severity, file, line, column, message, excerpt, notes });
    }

    /// As many messages as are shown were found: what else there is need not be put into words.
    pub(crate) fn is_full(&self, severity: Severity) -> bool {
        let severity = if self.is_rehearsal() { Severity::Warning } else { severity };
        self.kept[severity as usize] >= limits::DIAGNOSTICS
    }

    /// How many errors there were so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// Whether something is compiled for show only. Nothing counts as used then, and what is used is not
    /// looked at by the way.
    pub(crate) fn is_rehearsal(&self) -> bool {
        self.rehearsal.is_some()
    }

    /// Gives rehearsals a budget of their own; false when there is no point in them, because expansion
    /// was given up.
    pub(crate) fn begin_rehearsals(&mut self) -> bool {
        if self.exhausted {
            return false;
        }
        self.errors_before = std::mem::take(&mut self.errors);
        self.steps_left = limits::EXPANDED_STEPS;
        self.bytes_left = limits::EXPANDED_BYTES;
        self.jobs = 0;
        true
    }

    pub(crate) fn rehearse(&mut self, label: String, inside: impl FnOnce(&mut Self)) {
        if self.exhausted {
            return;
        }
        self.rehearsal = Some(label);
        inside(self);
        self.rehearsal = None;
    }

    pub(crate) fn end_rehearsals(&mut self) {
        self.errors = self.errors_before;
    }

    pub(crate) fn mark_used(&mut self, definition: &Definition) {
        if !self.is_rehearsal() {
            self.used.insert((definition.element, definition.package, definition.name.clone()));
        }
    }

    /// The warnings, or everything when there was an error; in the order of the text.
    pub(crate) fn finish(mut self) -> Result<Vec<Diagnostic>, Diagnostics> {
        let order: HashMap<String, usize> =
            self.files.iter().enumerate().rev().map(|(index, file)| (file.name.clone(), index)).collect();
        self.diagnostics.sort_by_key(|d| (d.severity, order.get(&d.file).copied(), d.line, d.column));
        if self.errors > 0 { Err(Diagnostics(self.diagnostics)) } else { Ok(self.diagnostics) }
    }

    /// The source line of a place.
    fn line(&self, pos: Pos) -> &str {
        self.files.get(pos.file as usize).map_or("", |file| file.line(pos.line))
    }

    /// The place of a byte of a scalar, as exactly as its style allows.
    pub(crate) fn place_in(&self, pos: Pos, scalar: &Scalar, offset: usize) -> Pos {
        if scalar.substituted {
            return pos;
        }
        let before = &scalar.text[..offset.min(scalar.text.len())];
        let breaks = before.matches('\n').count();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let content = scalar.text[line_start..].lines().next().unwrap_or_default();
        let candidates: &[usize] = match scalar.style {
            // The place of a block is its first line of text, or the line above.
            Style::Block => &[breaks, breaks + 1],
            Style::Plain | Style::Quoted if breaks == 0 => &[0],
            Style::Plain | Style::Quoted => &[],
        };
        for down in candidates {
            let line = pos.line + u32::try_from(*down).unwrap_or(0);
            let source = self.line(Pos { line, ..pos });
            let from = if scalar.style == Style::Block { 0 } else { (pos.column as usize).saturating_sub(1) };
            let skipped: usize = source.chars().take(from).map(char::len_utf8).sum();
            if let Some(found) = source[skipped..].find(content) {
                let chars = source[..skipped + found].chars().count() + before[line_start..].chars().count();
                return Pos { line, column: u32::try_from(chars + 1).unwrap_or(1), ..pos };
            }
        }
        pos
    }

    /// Runs `inside` with one more level in the trace of messages.
    pub(crate) fn within<T>(&mut self, pos: Pos, what: String, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.trace.push((pos, what));
        let result = inside(self);
        self.trace.pop();
        result
    }

    /// Steps and text that the budgets of expansion still have.
    pub(crate) fn left(&self) -> (usize, usize) {
        (self.steps_left, self.bytes_left)
    }

    /// How many messages there were so far, shown or not.
    pub(crate) fn messages(&self) -> (usize, usize) {
        (self.errors, self.reported.len())
    }

    /// Takes one step and some text from the budgets of expansion; false when they are used up.
    pub(crate) fn spend(&mut self, pos: Pos, steps: usize, bytes: usize) -> bool {
        self.exhausted |= self.errors >= limits::FOUND_ERRORS;
        if self.exhausted {
            return false;
        }
        let (Some(steps), Some(bytes)) =
            (self.steps_left.checked_sub(steps), self.bytes_left.checked_sub(bytes))
        else {
            self.exhausted = true;
            if self.is_rehearsal() {
                return false;
            }
            let message = format!(
                "the config expands to more than the limit of {} steps or {} MiB of text",
                limits::EXPANDED_STEPS,
                limits::EXPANDED_BYTES >> 20
            );
            self.error(pos, message);
            return false;
        };
        self.steps_left = steps;
        self.bytes_left = bytes;
        true
    }

    /// The parsed form of a text with tags, `None` for one without; mistakes are reported at each use.
    pub(crate) fn template(&mut self, pos: Pos, scalar: &Scalar) -> Option<Rc<Template>> {
        let known = scalar.template.as_ref()?;
        if let Some(parsed) = known.get() {
            return Some(parsed.clone());
        }
        // A parsed tag takes much more room than its text.
        if !self.spend(pos, 0, 4 * cost::VALUE * scalar.text.matches("<<").count()) {
            return None;
        }
        match template::parse(&scalar.text) {
            Ok(parsed) => Some(known.get_or_init(|| Rc::new(parsed)).clone()),
            Err(error) => {
                let pos = self.place_in(pos, scalar, error.offset);
                self.error(pos, error.message);
                None
            }
        }
    }

    // Reading maps. Optional keys that are null count as absent.

    /// Reports keys that are not known: `error` where the language says so, else a warning.
    pub(crate) fn check_keys(&mut self, map: &Map, what: &str, known: &[&str], error: bool) {
        let severity = if error { Severity::Error } else { Severity::Warning };
        for entry in map.entries.iter().filter(|entry| !known.contains(&&*entry.key)) {
            // Very many may be met very often, and none of them be shown.
            if !self.spend(entry.key_pos, 0, cost::VALUE) {
                return;
            }
            let (key, pos) = (&entry.key, entry.key_pos);
            if error {
                let choices = self.choices(severity, pos, "keys", key, known.iter().copied());
                self.error(pos, format!("unknown key `{key}` in {what}{choices}"));
            } else if !self.is_full(severity) {
                let choices = self.choices(severity, pos, "keys", key, known.iter().copied());
                self.warn(pos, format!("unknown key `{key}` in {what} is ignored{choices}"));
            }
        }
    }

    pub(crate) fn expect_map<'n>(&mut self, node: &'n Node, what: impl Display) -> Option<&'n Rc<Map>> {
        let map = node.as_map();
        if map.is_none() {
            self.error(node.pos, format!("{what} must be a map, not {}", node.describe()));
        }
        map
    }

    /// The text of a string; numbers and booleans count as they are written.
    pub(crate) fn expect_text(&mut self, node: &Node, what: impl Display) -> Option<Rc<str>> {
        match node.as_scalar() {
            Some(scalar) if scalar.kind != Kind::Null => Some(scalar.text.clone()),
            _ => {
                self.error(node.pos, format!("{what} must be a string, not {}", node.describe()));
                None
            }
        }
    }

    pub(crate) fn text(&mut self, map: &Map, key: &str, what: &str) -> Option<Option<Rc<str>>> {
        match present(map, key) {
            Some(node) => self.expect_text(node, format_args!("`{key}` of {what}")).map(Some),
            None => Some(None),
        }
    }

    pub(crate) fn required_text(&mut self, map: &Map, key: &str, what: &str, pos: Pos) -> Option<Rc<str>> {
        match self.text(map, key, what)? {
            Some(text) if !text.is_empty() => Some(text),
            Some(_) => {
                let pos = map.get(key).map_or(pos, |node| node.pos);
                self.error(pos, format!("`{key}` of {what} is empty"));
                None
            }
            None => {
                self.error(pos, format!("{what} has no `{key}`"));
                None
            }
        }
    }

    pub(crate) fn boolean(&mut self, map: &Map, key: &str, what: &str) -> Option<bool> {
        let Some(node) = present(map, key) else { return Some(false) };
        let value = node.as_bool();
        if value.is_none() {
            self.error(node.pos, format!("`{key}` of {what} must be a boolean, not {}", node.describe()));
        }
        value
    }

    /// An integer between two bounds, `None` inside when absent.
    pub(crate) fn integer(
        &mut self,
        map: &Map,
        key: &str,
        what: &str,
        (least, most): (i64, i64),
    ) -> Option<Option<i64>> {
        let Some(node) = present(map, key) else { return Some(None) };
        match node.as_int() {
            Some(value) if (least..=most).contains(&value) => Some(Some(value)),
            _ => {
                let range = if most == i64::MAX || most == i64::from(u32::MAX) {
                    format!("of at least {least}")
                } else {
                    format!("from {least} to {most}")
                };
                let found = node.describe();
                self.error(node.pos, format!("`{key}` of {what} must be an integer {range}, not {found}"));
                None
            }
        }
    }

    /// A string or a list of strings.
    pub(crate) fn text_list(&mut self, node: &Node, what: impl Display) -> Option<Vec<Rc<str>>> {
        match &node.data {
            Data::Seq(seq) => {
                let before = self.errors;
                let texts: Vec<_> = seq
                    .items
                    .iter()
                    .filter_map(|item| self.expect_text(item, format_args!("an item of {what}")))
                    .collect();
                (self.errors == before).then_some(texts)
            }
            _ => self.expect_text(node, what).map(|text| vec![text]),
        }
    }
}

/// The value of a key that is there and not null.
pub(crate) fn present<'m>(map: &'m Map, key: &str) -> Option<&'m Node> {
    map.get(key).filter(|node| !node.is_null())
}
