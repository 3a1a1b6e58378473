//! `runlet exec`: the embedded default.

mod options;
mod render;
mod snapshot;

use crate::cli::{Failure, Outcome};
use std::ffi::OsString;

/// Runs `runlet exec` with the arguments after the command.
pub fn command(_args: Vec<OsString>) -> Outcome {
    Err(Failure::new("`runlet exec` is not built yet"))
}
