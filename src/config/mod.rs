//! The 2.1 language: from the text of a config to workflows of concrete jobs. No IO.
//!
//! `server` calls [`compile`] for each pipeline; `runlet config` calls it by itself. The rules are
//! those of docs/config.md.
//!
//! ```text
//!  text -yaml-> Node with positions -package-> definitions of commands, executors, jobs (config, orbs)
//!    workflow -> entry (matrix, group) -> job -> steps (template, scope, expression) -> graph -> Workflow
//! ```

mod compile;
mod compiled;
mod diagnostic;
mod input;
mod limits;
mod process;

mod graph;
mod jobs;

mod definitions;
mod language;
mod session;

mod syntax;
mod values;
mod yaml;

#[doc(hidden)]
pub mod probe;

pub use compile::compile;
pub use compiled::{
    Compiled, DeclaredParameter, JobKind, RequiredStatus, Requirement, Schedule, Workflow, WorkflowJob,
};
pub use definitions::given::{DeclaredType, check_parameters, declared_types};
pub use definitions::orb_reference::{OrbReference, OrbVersion};
pub use diagnostic::{Diagnostic, Diagnostics, Note, Severity};
pub use input::{Input, NoOrbs, OrbSource};
pub use language::pipeline::stand_ins;
pub use language::{check_rule, rule_holds};
pub use limits::SOURCE_BYTES;
