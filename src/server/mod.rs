//! The control plane: compiles configs, queues tasks by resource class, keeps logs and results.

pub mod blobs;
pub mod engine;
pub mod junit;
pub mod store;

use crate::cli::{Failure, Outcome};
use std::ffi::OsString;

/// Runs `runlet server` with the arguments after the command.
pub fn command(_args: Vec<OsString>) -> Outcome {
    Err(Failure::new("`runlet server` is not built yet"))
}
