//! The expander: invocations of jobs, commands and executors, until nothing is left to expand.
//!
//! Arguments may be lists of steps and executors, which are expanded where they are written, so binding,
//! steps and executors call each other: they are methods of one type, each in a file.

use super::repeated::Repeated;
use crate::config::definitions::Library;
use crate::config::language::Language;
use crate::config::session::{Budget, NodeReader, Report};
use std::rc::Rc;

/// Expands definitions of a library.
pub(crate) struct Expander<'c> {
    pub(crate) language: &'c Language<'c>,
    pub(crate) library: &'c Library<'c>,
    pub(crate) report: &'c Report,
    pub(crate) budget: &'c Budget<'c>,
    pub(crate) read: NodeReader<'c>,
    /// Commands that are being expanded, by package and name, outermost first.
    pub(super) calls: Vec<(usize, Rc<str>)>,
    /// Levels of lists of steps around the one that is being expanded.
    pub(super) step_depth: usize,
    /// Whether the list that is being expanded was given to a job or command (pre-steps, post-steps, arguments) and is
    /// not its own.
    pub(super) steps_are_given: bool,
    pub(super) repeated: Repeated,
}

impl<'c> Expander<'c> {
    pub(crate) fn new(language: &'c Language<'c>, library: &'c Library<'c>) -> Self {
        Self {
            language,
            library,
            report: language.report,
            budget: language.budget,
            read: language.read,
            calls: Vec::new(),
            step_depth: 0,
            steps_are_given: false,
            repeated: Repeated::default(),
        }
    }
}
