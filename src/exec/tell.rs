//! Remarks beside the output.

use crate::terminal::plain;
use std::io::Write;

/// Writes a line to standard error, also when whoever read it is gone; without control sequences, since it quotes others.
pub(super) fn tell(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{}", plain(&line.to_string()));
}
