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
pub mod settings;
mod stop;

pub use lifecycle::ExitReason;
pub use rules::Rules;
pub use stop::{Level, Stop};

use crate::logging;
use crate::outcome::{Failure, Outcome, exit};
use lexopt::Arg::{Long, Short};
use settings::Settings;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const HELP: &str = include_str!("help.txt");

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
        return check(&settings);
    }
    logging::init(&settings.logging).map_err(Failure::usage)?;
    for warning in &settings.warnings {
        log::warn!("{warning}");
    }
    settings.owns_process = true;
    if let Err(why) = writable(&settings.working_directory) {
        log::warn!(
            "tasks will not begin here: the working directory `{}` cannot be used: {why}",
            settings.working_directory.display()
        );
    }
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

/// `--check`: what was found, and whether the control plane agrees.
fn check(settings: &Settings) -> Outcome {
    let mut text = String::new();
    for warning in &settings.warnings {
        text += &format!("warning: {warning}\n");
    }
    text += &format!(
        "settings are readable: name `{}`, working directory `{}`\n",
        settings.name,
        settings.working_directory.display()
    );
    if let Err(why) = writable(&settings.working_directory) {
        text +=
            &format!("warning: `{}` cannot be used as it is: {why}\n", settings.working_directory.display());
    }
    crate::outcome::print(&text)?;
    passes_prefix(settings).map_err(Failure::new)?;
    claims::check(settings).map_err(Failure::new)?;
    crate::outcome::print(&format!("the control plane at `{}` accepts the token\n", settings.endpoint.url))
}

/// Whether the command prefix starts this program.
fn passes_prefix(settings: &settings::Settings) -> Result<(), String> {
    let Some((first, words)) = settings.command_prefix.split_first() else { return Ok(()) };
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut command = std::process::Command::new(first);
    command.args(words).arg(program).arg("--version").stdin(std::process::Stdio::null());
    let said = match command.output() {
        Ok(output)
            if output.status.success() && String::from_utf8_lossy(&output.stdout).contains("runlet ") =>
        {
            return Ok(());
        }
        Ok(output) => format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => error.to_string(),
    };
    Err(format!(
        "`runner.command_prefix` does not start this program as `{first} ... runlet --version`: {said}"
    ))
}

/// Whether the directory, or the nearest one above it that exists, lets this user write.
fn writable(directory: &Path) -> Result<(), String> {
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    rustix::fs::access(existing, rustix::fs::Access::WRITE_OK)
        .map_err(|error| format!("`{}`: {error}", existing.display()))
}

/// The first TERM or INT drains, the second cancels. A thread of its own waits for them.
fn stop_on_signals(stop: &Stop) -> Result<(), Failure> {
    let failure = |error: std::io::Error| Failure::new(format!("cannot listen for signals: {error}"));
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT]).map_err(failure)?;
    let stop = stop.clone();
    let thread = std::thread::Builder::new().name("signals".to_owned()).stack_size(64 * 1024);
    let listening = thread.spawn(move || {
        for _ in signals.forever() {
            stop.escalate();
        }
    });
    listening.map(drop).map_err(failure)
}
