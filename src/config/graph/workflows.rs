//! The state that the workflows of one config share while they are compiled.

use crate::config::compiled::LeftOut;
use crate::config::jobs::Expander;
use crate::config::language::Language;
use crate::config::session::{Budget, NodeReader, Report};
use crate::config::values::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

/// Compiles workflows. The limits on jobs, requirements and contexts hold for all of them together.
pub(crate) struct Workflows<'c> {
    pub(super) expander: Expander<'c>,
    pub(super) language: &'c Language<'c>,
    pub(super) report: &'c Report,
    pub(super) budget: &'c Budget<'c>,
    pub(super) read: NodeReader<'c>,
    /// Job groups by name.
    pub(super) groups: &'c HashMap<Rc<str>, Entry>,
    pub(super) used_groups: HashSet<Rc<str>>,
    /// Workflows and jobs that do not apply.
    pub(crate) left_out: Vec<LeftOut>,
    pub(super) known_contexts: BTreeSet<String>,
    /// Jobs so far.
    pub(super) jobs: usize,
    /// `requires` between jobs so far.
    pub(super) requirements: usize,
}

impl<'c> Workflows<'c> {
    pub(crate) fn new(expander: Expander<'c>, groups: &'c HashMap<Rc<str>, Entry>) -> Self {
        Self {
            language: expander.language,
            report: expander.report,
            budget: expander.budget,
            read: expander.read,
            expander,
            groups,
            used_groups: HashSet::new(),
            left_out: Vec::new(),
            known_contexts: BTreeSet::new(),
            jobs: 0,
            requirements: 0,
        }
    }
}
