//! Output of `tests`: names on standard output, words for people on standard error.

use crate::outcome::{Failure, Outcome, exit};
use std::io::{ErrorKind, Write};

/// Prints names. A reader that has gone away is no failure; a full disk is, or tests would be left out.
pub(super) fn print(names: &str) -> Outcome {
    let mut out = std::io::stdout();
    match out.write_all(names.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("failed to print the names of tests: {error}")))
        }
        _ => Ok(exit::OK),
    }
}

/// A line for people on standard error. Nobody may be listening; there is nothing to do about that.
pub(super) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
