//! The claim loops.

pub mod settings;

use crate::cli::{Failure, Outcome};
use std::ffi::OsString;

/// Runs `runlet machine` with the arguments after the command.
pub fn command(_args: Vec<OsString>) -> Outcome {
    Err(Failure::new("`runlet machine` is not built yet"))
}
