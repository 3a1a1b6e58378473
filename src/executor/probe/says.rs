//! Programs that are asked for a word.

use crate::system::command;
use std::process::Command;
use std::time::Duration;

/// Longest wait for a tool to say its version.
pub(super) const SHORT: Duration = Duration::from_secs(3);

/// The exit code and the words of a program.
pub(super) fn says(words: &[&str]) -> Option<(Option<i32>, String)> {
    let said = command::run(Command::new(words[0]).args(&words[1..]), SHORT).ok()?;
    Some((said.code, format!("{} {}", said.out, said.err).trim().to_owned()))
}
