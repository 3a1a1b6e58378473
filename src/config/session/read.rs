//! Reading nodes as maps, texts and numbers. A node of another type is reported with its place.
//!
//! Optional keys that are null count as absent.

use super::budget::Budget;
use super::cost;
use super::report::Report;
use crate::config::diagnostic::Severity;
use crate::config::values::{Data, Map, Node, Pos, ScalarKind};
use crate::config::yaml;
use std::fmt::Display;
use std::rc::Rc;

/// Reads nodes, with the report and the budget that go with it.
#[derive(Clone, Copy)]
pub(crate) struct NodeReader<'c> {
    pub(crate) report: &'c Report,
    pub(crate) budget: &'c Budget<'c>,
}

impl NodeReader<'_> {
    /// Loads a text as YAML and reports its mistakes.
    pub(crate) fn load(&self, name: &str, text: &str) -> Option<Node> {
        let file = self.report.add_file(name, text);
        let (node, problems) = yaml::load(text, file);
        for problem in problems {
            if problem.warning {
                self.report.warn(problem.pos, problem.message);
            } else {
                self.report.error(problem.pos, problem.message);
            }
        }
        node
    }

    /// Reports keys that are not known: `error` where the language says so, else a warning.
    pub(crate) fn check_keys(&self, map: &Map, what: &str, known: &[&str], error: bool) {
        let severity = if error { Severity::Error } else { Severity::Warning };
        for entry in map.entries.iter().filter(|entry| !known.contains(&&*entry.key)) {
            // A config may have very many such keys, in maps that are read again and again.
            if !self.budget.spend(entry.key_pos, 0, cost::VALUE) {
                return;
            }
            let (key, pos) = (&entry.key, entry.key_pos);
            if error {
                let choices = self.report.choices(severity, pos, "keys", key, known.iter().copied());
                self.report.error(pos, format!("unknown key `{key}` in {what}{choices}"));
            } else if !self.report.is_full(severity) {
                let choices = self.report.choices(severity, pos, "keys", key, known.iter().copied());
                self.report.warn(pos, format!("unknown key `{key}` in {what} is ignored{choices}"));
            }
        }
    }

    pub(crate) fn expect_map<'n>(&self, node: &'n Node, what: impl Display) -> Option<&'n Rc<Map>> {
        let map = node.as_map();
        if map.is_none() {
            self.report.error(node.pos, format!("{what} must be a map, not {}", node.describe()));
        }
        map
    }

    /// The text of a string; numbers and booleans count as they are written.
    pub(crate) fn expect_text(&self, node: &Node, what: impl Display) -> Option<Rc<str>> {
        match node.as_scalar() {
            Some(scalar) if scalar.kind != ScalarKind::Null => Some(scalar.text.clone()),
            _ => {
                self.report.error(node.pos, format!("{what} must be a string, not {}", node.describe()));
                None
            }
        }
    }

    pub(crate) fn text(&self, map: &Map, key: &str, what: &str) -> Option<Option<Rc<str>>> {
        match present(map, key) {
            Some(node) => self.expect_text(node, format_args!("`{key}` of {what}")).map(Some),
            None => Some(None),
        }
    }

    pub(crate) fn required_text(&self, map: &Map, key: &str, what: &str, pos: Pos) -> Option<Rc<str>> {
        match self.text(map, key, what)? {
            Some(text) if !text.is_empty() => Some(text),
            Some(_) => {
                let pos = map.get(key).map_or(pos, |node| node.pos);
                self.report.error(pos, format!("`{key}` of {what} is empty"));
                None
            }
            None => {
                let written = map.get(key).and_then(Node::as_scalar).filter(|scalar| &*scalar.text == "~");
                let hint = written.map_or("", |_| " (a bare `~` is nothing in YAML: write `~/`)");
                self.report.error(pos, format!("{what} has no `{key}`{hint}"));
                None
            }
        }
    }

    pub(crate) fn boolean(&self, map: &Map, key: &str, what: &str) -> Option<bool> {
        let Some(node) = present(map, key) else { return Some(false) };
        let value = node.as_bool();
        if value.is_none() {
            self.report
                .error(node.pos, format!("`{key}` of {what} must be a boolean, not {}", node.describe()));
        }
        value
    }

    /// An integer between two bounds, `None` inside when absent.
    pub(crate) fn integer(
        &self,
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
                self.report
                    .error(node.pos, format!("`{key}` of {what} must be an integer {range}, not {found}"));
                None
            }
        }
    }

    /// A string or a list of strings.
    pub(crate) fn text_list(&self, node: &Node, what: impl Display) -> Option<Vec<Rc<str>>> {
        match &node.data {
            Data::Seq(seq) => {
                let before = self.report.errors();
                let texts: Vec<_> = seq
                    .items
                    .iter()
                    .filter_map(|item| self.expect_text(item, format_args!("an item of {what}")))
                    .collect();
                (self.report.errors() == before).then_some(texts)
            }
            _ => self.expect_text(node, what).map(|text| vec![text]),
        }
    }
}

/// The value of a key that is there and not null.
pub(crate) fn present<'m>(map: &'m Map, key: &str) -> Option<&'m Node> {
    map.get(key).filter(|node| !node.is_null())
}
