//! The claim loops.
//!
//! `runlet machine` is here: its arguments, its log and its signals. [`machine::run`] is the runner
//! itself, which other roles may start in threads of their own. `agent` starts task agents as
//! processes and knows nothing of what they do, nor of the server.

mod board;
pub(crate) mod calls;
mod claims;
pub mod doctor;
mod gates;
mod identity;
mod lifecycle;
pub mod machine;
pub(crate) mod pace;
mod rules;
mod service;
pub mod settings;
pub mod status;
mod stop;

use board::Board;
pub use lifecycle::ExitReason;
pub use rules::Rules;
pub use stop::{Level, Stop};

use crate::logging;
use crate::outcome::{Failure, Outcome, exit};
use crate::system::signals::{Asks, OutsideRequest};
use crate::system::threads;
use lexopt::Arg::{Long, Short};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use status::Doors;
use std::ffi::OsString;
use std::path::PathBuf;

/// `runlet machine --help`.
pub const HELP: &str = include_str!("help.txt");

/// Runs `runlet machine` with the arguments after the command.
pub fn command(args: Vec<OsString>) -> Outcome {
    // The token is in its environment or in its memory, and tasks of the same user run beside it.
    crate::system::keep_memory_private();
    let mut file: Option<PathBuf> = None;
    let (mut only_check, mut listen) = (false, None);
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("config") | Short('c') => file = Some(parser.value()?.into()),
            Long("check") => only_check = true,
            Long("listen") => {
                let text = parser.value()?.to_string_lossy().into_owned();
                listen = Some(
                    settings::listen_address(&text)
                        .map_err(|why| Failure::usage(format!("`{text}`: {why}")))?,
                );
            }
            Long("help") | Short('h') => return crate::outcome::print(HELP),
            Long("version") | Short('V') => {
                return crate::outcome::print(concat!("runlet ", env!("CARGO_PKG_VERSION"), "\n"));
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if only_check {
        return doctor::check(file.as_deref());
    }
    let mut settings = settings::load(file.as_deref()).map_err(Failure::usage)?;
    settings.status.listen = listen.or(settings.status.listen);
    logging::init(&settings.logging).map_err(Failure::usage)?;
    for warning in &settings.warnings {
        log::warn!("{warning}");
    }
    settings.owns_process = true;
    let log_elsewhere = settings.logging.file.is_some();
    let stop = Stop::new();
    let board = Board::new(&settings.name, &settings.endpoint.url);
    let doors = Doors::open(&settings, &board);
    let socket = doors.path();
    listen_outside(&stop, doors)?;
    let ended = machine::run_shown(settings, &stop, board);
    if let Some(socket) = socket {
        let _ = std::fs::remove_file(socket);
    }
    match ended {
        Ok(ExitReason::Fatal(message)) => Err(fail(message, log_elsewhere)),
        Ok(_) => Ok(exit::OK),
        Err(machine::Error::Settings(message)) => {
            Err(Failure { code: exit::USAGE, ..fail(message, log_elsewhere) })
        }
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

/// Listens to signals (the first TERM or INT drains, the second cancels; USR2 leaves the task agent to the next runner,
/// HUP reads the settings again) and to those who ask what the runner does, in a thread of its own.
fn listen_outside(stop: &Stop, mut doors: Doors) -> Result<(), Failure> {
    let failure = |error: std::io::Error| Failure::new(format!("cannot listen for signals: {error}"));
    let mut asks = Asks::listen().map_err(failure)?;
    let stop = stop.clone();
    let listening = threads::start_small("signals", 256 * 1024, move || {
        loop {
            let waits = doors.waits();
            let mut all = vec![PollFd::new(&asks, PollFlags::IN)];
            all.extend(waits.iter().map(|door| PollFd::from_borrowed_fd(*door, PollFlags::IN)));
            let patience = doors.patience().and_then(|time| Timespec::try_from(time).ok());
            // An interrupted wait is a short one.
            let _ = poll(&mut all, patience.as_ref());
            for asked in asks.pending() {
                match asked {
                    OutsideRequest::Reload => stop.reload(),
                    OutsideRequest::Leave => stop.leave(),
                    OutsideRequest::Stop => stop.escalate(),
                }
            }
            doors.answer();
        }
    });
    listening.map(drop).map_err(failure)
}
