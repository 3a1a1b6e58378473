//! `runlet admin`: resource classes, tokens, projects and variables over the API.

use crate::cli::{Failure, Outcome};
use std::ffi::OsString;

/// Runs `runlet admin` with the arguments after the command.
pub fn command(_args: Vec<OsString>) -> Outcome {
    Err(Failure::new("`runlet admin` is not built yet"))
}
