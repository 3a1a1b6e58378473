//! The claim loops.
//!
//! `runlet machine` is here: its arguments, its log and its signals. [`machine::run`] is the runner
//! itself, which other roles may start in threads of their own. `agent` starts task agents as
//! processes and knows nothing of what they do, nor of the server.

mod calls;
mod claims;
mod identity;
mod lifecycle;
pub mod machine;
mod rules;
mod service;
pub mod settings;
mod stop;

pub use lifecycle::ExitReason;
pub use rules::Rules;
pub use stop::{Level, Stop};

use crate::logging;
use crate::outcome::{Failure, Outcome, exit};
use lexopt::Arg::{Long, Short};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use std::ffi::OsString;
use std::path::PathBuf;

/// `runlet machine --help`.
pub const HELP: &str = include_str!("help.txt");

/// Runs `runlet machine` with the arguments after the command.
pub fn command(args: Vec<OsString>) -> Outcome {
    // The token is in its environment or in its memory, and tasks of the same user run beside it.
    crate::system::keep_memory_private();
    let mut file: Option<PathBuf> = None;
    let mut only_check = false;
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("config") | Short('c') => file = Some(parser.value()?.into()),
            Long("check") => only_check = true,
            Long("help") | Short('h') => return crate::outcome::print(HELP),
            Long("version") | Short('V') => {
                return crate::outcome::print(concat!("runlet ", env!("CARGO_PKG_VERSION"), "\n"));
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let mut settings = settings::load(file.as_deref()).map_err(Failure::usage)?;
    if only_check {
        return machine::check::command(&settings);
    }
    logging::init(&settings.logging).map_err(Failure::usage)?;
    for warning in &settings.warnings {
        log::warn!("{warning}");
    }
    settings.owns_process = true;
    machine::check::at_start(&settings);
    let log_elsewhere = settings.logging.file.is_some();
    let stop = Stop::new();
    stop_on_signals(&stop)?;
    match machine::run(settings, &stop) {
        Ok(ExitReason::Fatal(message)) => Err(fail(message, log_elsewhere)),
        Ok(_) => Ok(exit::OK),
        Err(error) => Err(fail(error.to_string(), log_elsewhere)),
    }
}

/// The failure stands on standard error, and in the log when that is somewhere else.
fn fail(message: String, log_elsewhere: bool) -> Failure {
    if log_elsewhere {
        log::error!("{message}");
    }
    Failure::new(message)
}

/// The first TERM or INT drains, the second cancels; USR2 leaves the task agent to the next runner, HUP reads the settings
/// again. A thread of its own waits for them.
fn stop_on_signals(stop: &Stop) -> Result<(), Failure> {
    let failure = |error: std::io::Error| Failure::new(format!("cannot listen for signals: {error}"));
    let mut signals =
        signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR2]).map_err(failure)?;
    let stop = stop.clone();
    let thread = std::thread::Builder::new().name("signals".to_owned()).stack_size(64 * 1024);
    let listening = thread.spawn(move || {
        for signal in signals.forever() {
            match signal {
                SIGHUP => stop.reload(),
                SIGUSR2 => stop.leave(),
                _ => stop.escalate(),
            }
        }
    });
    listening.map(drop).map_err(failure)
}
