//! Arguments -> one function per role -> exit code.
//!
//! Each role parses its own arguments with [`lexopt`] and returns an [`Outcome`]; the message of a
//! failure is printed once, here.

#[cfg(feature = "server")]
pub mod config;
pub mod exit;

use std::ffi::OsString;
use std::io::Write;

/// What a role returns: an exit code, or a failure to print.
pub type Outcome = Result<u8, Failure>;

/// A failure with its exit code.
#[derive(Debug)]
pub struct Failure {
    /// One of [`exit`].
    pub code: u8,
    /// What was attempted, on what, why it failed and what to do.
    pub message: String,
}

impl Failure {
    /// The ordinary failure.
    pub fn new(message: impl Into<String>) -> Self {
        Self { code: exit::FAILED, message: message.into() }
    }

    /// Wrong arguments.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: exit::USAGE, message: message.into() }
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Self::usage(error.to_string())
    }
}

/// Runs the program with the arguments of the process and returns its exit code.
pub fn main() -> u8 {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    match run(&program, args.collect()) {
        Ok(code) => code,
        Err(failure) => {
            // Nobody may be listening on stderr; there is nothing to do about that.
            let _ = writeln!(std::io::stderr(), "runlet: {}", failure.message);
            failure.code
        }
    }
}

fn run(program: &OsString, mut args: Vec<OsString>) -> Outcome {
    if crate::tool::is_called_as_tool(program) {
        return crate::tool::command(args);
    }
    let first = if args.is_empty() { OsString::from("--help") } else { args.remove(0) };
    match first.to_str().unwrap_or_default() {
        "machine" => crate::agent::command(args),
        "task" => crate::executor::command(args),
        "tool" => crate::tool::command(args),
        #[cfg(feature = "server")]
        "server" => crate::server::command(args),
        #[cfg(feature = "server")]
        "exec" => crate::exec::command(args),
        #[cfg(feature = "server")]
        "config" => config::command(args),
        #[cfg(feature = "server")]
        "admin" => crate::admin::command(args),
        "--version" | "-V" | "version" => print(&version()),
        "--help" | "-h" | "help" => print(HELP),
        other => {
            Err(Failure::usage(format!("unknown command `{other}`; `runlet --help` lists the commands")))
        }
    }
}

/// Prints to stdout; a reader that has gone away is no failure.
pub fn print(text: &str) -> Outcome {
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(exit::OK)
}

fn version() -> String {
    format!("runlet {} ({} {})\n", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH)
}

#[cfg(feature = "server")]
const HELP: &str = include_str!("help.txt");
#[cfg(not(feature = "server"))]
const HELP: &str = include_str!("help-runner.txt");
