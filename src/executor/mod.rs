//! One task from start to finish.

pub mod child;
pub mod environment;
pub mod files;
pub mod log;
pub mod process;
pub mod redactor;
pub mod report;
pub mod spool;

use crate::cli::{Failure, Outcome};
use std::ffi::OsString;

/// Runs `runlet task` with the arguments after the command.
pub fn command(_args: Vec<OsString>) -> Outcome {
    Err(Failure::new("`runlet task` is not built yet"))
}
