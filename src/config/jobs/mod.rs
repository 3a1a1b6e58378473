//! Jobs with their steps: invocations of definitions, expanded until nothing is left to expand.

mod expander;

mod bind;
mod builtin;
mod containers;
mod environment;
mod executor;
mod job;
mod machine;
mod repeated;
mod steps;

pub(crate) use builtin::{default_title, default_when};
pub(crate) use environment::{environment, shell};
pub(crate) use expander::Expander;
pub(crate) use job::{Invocation, serial_group};
pub(crate) use machine::one_environment;
