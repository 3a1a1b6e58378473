//! The 2.1 language: from the text of a config to workflows of concrete jobs. No IO.
//!
//! `server` calls [`compile()`] for each pipeline; `runlet config` calls it by itself. Orbs come from an
//! [`OrbSource`] that the caller passes in. The rules are those of docs/config.md.
//!
//! ```text
//!  text --yaml--> values --definitions--> Library of commands, executors, jobs (config and orbs)
//!    workflows --graph--> entries (matrix, group) --jobs--> Expander: jobs with steps --graph--> Workflow
//!                                        language: names, tags and conditions, wherever a value stands
//! ```
//!
//! Each of these has a type of its own, and stands on the one before: `Report` and `Budget`, `Language`,
//! `Library`, `Expander`, `Workflows`.

mod compile;
mod compiled;
mod diagnostic;
mod executor;
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

pub(crate) use graph::NamePattern;
pub(crate) use syntax::Pattern;

pub use compile::compile;
pub use compiled::{
    Compiled, DeclaredParameter, JobKind, LeftOut, OtherNames, RequiredStatus, Requirement, Schedule,
    Workflow, WorkflowJob,
};
pub use definitions::given::{
    DeclaredType, WrongParameter, check_parameters, declared_types, typed_parameters,
};
pub use definitions::orb_reference::{OrbReference, OrbVersion};
pub use diagnostic::{Diagnostic, Diagnostics, Note, Severity};
pub use executor::{Executor, ExecutorKind, Image};
pub use input::{Input, NoOrbs, OrbError, OrbSource};
pub use language::pipeline::stand_ins;
pub use language::{check_rule, rule_holds};
pub use limits::{
    CONTEXT_CHARS, GIVEN_PARAMETERS, PARAMETER_NAME_CHARS, PARAMETER_VALUE_CHARS, SOURCE_BYTES,
};
