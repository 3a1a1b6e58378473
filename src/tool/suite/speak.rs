//! Words of `tests` for people, on standard error: names go to standard output.

use std::io::Write;

/// A line for people on standard error. Nobody may be listening; there is nothing to do about that.
pub(super) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
