//! `tests run`: a command that is given the share of this node on its standard input.

use super::options::SuiteOptions;
use super::speak::say;
use super::{names, split};
use crate::outcome::{Failure, Outcome, exit};
use crate::system::shell::{inner, inner_shell};
use crate::system::{os, threads};
use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::process::{ExitStatus, Stdio};

/// Runs the command; its exit code is the answer.
pub(super) fn run(options: &SuiteOptions, variable: &dyn Fn(&str) -> Option<OsString>) -> Outcome {
    let names = names::read(None, options.verbose).map_err(Failure::new)?;
    if names.is_empty() {
        say(split::NO_NAMES);
        return Ok(exit::OK);
    }
    let share = split::of_node(&names, options, variable).map_err(Failure::new)?;
    if share.is_empty() {
        say(&format!(
            "no test is left for node {} of {}: the command is not run",
            options.index, options.total
        ));
        return Ok(exit::OK);
    }
    feed(&options.command, share.join(" "), options.verbose).map_err(Failure::new)
}

/// Runs `command` with `input` on its standard input: one line without its end, so that a command which
/// separates at spaces (`xargs -d ' '`) finds no line feed in the last name.
fn feed(command: &str, input: String, verbose: bool) -> Result<u8, String> {
    let mut shell = inner(command);
    if verbose {
        say(&format!(
            "running `{command}` in `{}` with {} bytes on its standard input",
            inner_shell(),
            input.len()
        ));
    }
    let mut child = shell.stdin(Stdio::piped()).spawn().map_err(|e| {
        let program = shell.get_program().to_string_lossy();
        format!("failed to run the tests: cannot start `{program}`: {e}")
    })?;
    if let Some(mut pipe) = child.stdin.take() {
        // On a thread of its own and never waited for: a command may end without reading all of it, and what
        // it left running may hold the pipe open.
        let write = move || match pipe.write_all(input.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                say(&format!("failed to hand the names of tests to the command: {error}"));
            }
            _ => {}
        };
        threads::start("names", write).map_err(|e| format!("failed to start a thread: {e}"))?;
    }
    let status = child.wait().map_err(|e| format!("failed to wait for the command: {e}"))?;
    Ok(code_of(status))
}

/// Exit code as a shell gives it: after a signal, 128 and its number.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + os::signal_of(status).unwrap_or(0));
    u8::try_from(code).unwrap_or(exit::FAILED)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_command_gets_one_line_and_its_code_is_the_answer() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let command = format!("cat > '{}'; exit 7", out.display());
        assert_eq!(feed(&command, "a b c".to_owned(), false), Ok(7));
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "a b c");
        assert_eq!(feed("false; true", String::new(), false), Ok(1));
        assert_eq!(feed("kill -9 $$", "a".to_owned(), true), Ok(137));
    }

    #[test]
    fn a_command_need_not_read() {
        assert_eq!(feed("true", "x ".repeat(200_000), false), Ok(0));
    }
}
