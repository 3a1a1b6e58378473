//! The 2.1 language: from the text of a config to workflows of concrete jobs. No IO.
//!
//! `server` calls [`compile`] for each pipeline; `runlet config` calls it by itself. The rules are
//! those of docs/config.md.

mod compiled;
mod diagnostic;

pub use compiled::{Compiled, JobKind, RequiredStatus, Requirement, Schedule, Workflow, WorkflowJob};
pub use diagnostic::{Diagnostic, Diagnostics, Severity};

use serde_json::Value;
use std::collections::BTreeMap;

/// What a config is compiled with.
pub struct Input<'a> {
    /// Text of the config.
    pub source: &'a str,
    /// Shown in errors, such as `.circleci/config.yml`.
    pub file_name: &'a str,
    /// Pipeline parameters given by the trigger.
    pub parameters: &'a BTreeMap<String, Value>,
    /// Pipeline values by full name (`pipeline.git.branch`); names that do not apply are absent.
    pub values: &'a BTreeMap<String, Value>,
    /// Where registry orbs come from.
    pub orbs: &'a dyn OrbSource,
    /// Resource class for `machine: true` jobs that name none; `None` makes them an error. Used by
    /// `runlet exec`, which runs everything here.
    pub default_resource_class: Option<&'a str>,
}

/// Finds the text of a registry orb.
pub trait OrbSource {
    /// Resolves `namespace/orb@version` to the exact reference and the text of the orb. The error is a
    /// sentence for people.
    fn resolve(&self, reference: &str) -> Result<(String, String), String>;
}

/// A source that has no orbs.
pub struct NoOrbs;

impl OrbSource for NoOrbs {
    fn resolve(&self, reference: &str) -> Result<(String, String), String> {
        Err(format!("unknown orb `{reference}`: no folder of orbs is configured (see `--orbs`)"))
    }
}

/// Compiles a config. Errors that do not depend on each other are reported together.
pub fn compile(_input: &Input<'_>) -> Result<Compiled, Diagnostics> {
    Err(Diagnostics(vec![]))
}
