//! Jobs with their steps: invocations of definitions, expanded until nothing is left to expand.

pub(crate) mod builtin;
pub(crate) mod executor;
pub(crate) mod job;
pub(crate) mod repeated;
pub(crate) mod steps;

mod environment;
