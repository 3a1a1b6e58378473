//! `runlet config validate` and `runlet config process`.

use super::{Failure, Outcome};
use std::ffi::OsString;

/// Runs the command with the arguments after `config`.
pub fn command(_args: Vec<OsString>) -> Outcome {
    Err(Failure::new("`runlet config` is not built yet"))
}
