//! Remarks beside the output.

use std::io::Write;

/// Writes a line to standard error, also when whoever read it is gone.
pub(super) fn tell(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
