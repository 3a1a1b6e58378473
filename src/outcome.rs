//! The end of a command: an exit code, or a failure that is printed once, by the program's entry.

use std::io::{self, ErrorKind, Write};

/// Exit code of a role, or the failure to print.
pub type Outcome = Result<u8, Failure>;

/// A failure with its exit code.
#[derive(Debug)]
pub struct Failure {
    /// Exit code of the process, from [`exit`].
    pub code: u8,
    /// The message: what was attempted, on what, why it failed and what to do.
    pub message: String,
}

impl Failure {
    /// The ordinary failure.
    pub fn new(message: impl Into<String>) -> Self {
        Self { code: exit::FAILED, message: message.into() }
    }

    /// The failure of a command whose standard output does not take what it prints.
    pub fn unwritten(error: &io::Error) -> Self {
        Self::new(format!("failed to write to standard output: {error}"))
    }

    /// A failure because of wrong arguments.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: exit::USAGE, message: message.into() }
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Self::usage(error.to_string())
    }
}

/// Prints to standard output. A reader that has gone away (`runlet ... | head`) is no failure; a full disk is.
pub fn print(text: &str) -> Outcome {
    print_bytes(text.as_bytes())
}

/// Prints bytes, as [`print()`] prints text.
pub fn print_bytes(bytes: &[u8]) -> Outcome {
    let mut output = io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::unwritten(&error)),
        _ => Ok(exit::OK),
    }
}

/// Exit codes of the program.
pub mod exit {
    /// The program did what it was asked to.
    pub const OK: u8 = 0;
    /// A job failed, or the program could not do what it was asked.
    pub const FAILED: u8 = 1;
    /// The arguments or settings are wrong.
    pub const USAGE: u8 = 2;
    /// The control plane does not accept the token.
    pub const AUTHENTICATION: u8 = 3;
    /// The control plane refused the request.
    pub const REFUSED: u8 = 4;
    /// The control plane has no such thing.
    pub const NOT_FOUND: u8 = 5;
    /// A config is not valid.
    pub const INVALID_CONFIG: u8 = 7;
    /// A part of what was asked for did not run, and the rest did not fail.
    pub const INCOMPLETE: u8 = 8;
    /// Interrupted by a person (128 + SIGINT).
    pub const INTERRUPTED: u8 = 130;
}
