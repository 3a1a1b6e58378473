//! The control plane: compiles configs, queues tasks by resource class, keeps logs and results.

pub mod api;
pub mod blobs;
pub mod claim;
pub mod engine;
pub mod flow;
pub mod hub;
pub mod junit;
pub mod pipelines;
pub mod state;
pub mod store;

use crate::cli::{Failure, Outcome};
use std::ffi::OsString;

/// Runs `runlet server` with the arguments after the command.
pub fn command(_args: Vec<OsString>) -> Outcome {
    Err(Failure::new("`runlet server` is not built yet"))
}
