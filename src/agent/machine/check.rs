//! Whether tasks can begin on this host: looked at by `--check`, and by the start, before there is a task that suffers.

use crate::agent::claims;
use crate::agent::settings::Settings;
use crate::executor::scratch;
use crate::outcome::{Failure, Outcome};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Room below which a spool is soon full.
const LEAST_ROOM_BYTES: u64 = 16 << 20;

/// `--check`: what was found, and whether the control plane agrees.
pub fn command(settings: &Settings) -> Outcome {
    let mut text = String::new();
    for warning in &settings.warnings {
        text += &format!("warning: {warning}\n");
    }
    text += &format!(
        "settings are readable: name `{}`, working directory `{}`\n",
        settings.name,
        settings.working_directory.display()
    );
    for problem in problems(settings) {
        text += &format!("warning: {problem}\n");
    }
    crate::outcome::print(&text)?;
    passes_prefix(settings).map_err(Failure::new)?;
    claims::check(settings).map_err(Failure::new)?;
    crate::outcome::print(&format!("the control plane at `{}` accepts the token\n", settings.endpoint.url))
}

/// The same for the log, as far as it takes no time: a prefix is not run, and the control plane not asked.
pub fn at_start(settings: &Settings) {
    for problem in problems(settings) {
        log::warn!("tasks may not begin here: {problem}");
    }
    if let Err(why) = finds_prefix(settings) {
        log::warn!("tasks will not begin here: {why}");
    }
}

/// What is wrong with the folders of tasks, for this user: a prefix may have another one.
fn problems(settings: &Settings) -> Vec<String> {
    let directory = &settings.working_directory;
    let mut problems = Vec::new();
    if let Err(why) = writable(directory) {
        problems.push(format!("the working directory `{}` cannot be used: {why}", directory.display()));
    }
    let places = scratch::spool_places(directory);
    match places.iter().find(|place| place.is_dir() && writable(place).is_ok()) {
        None => {
            problems.push("no folder for the output of tasks can be written to; set TMPDIR to one".to_owned())
        }
        Some(place) => problems.extend(little_room(place)),
    }
    problems
}

fn little_room(place: &Path) -> Option<String> {
    let about = rustix::fs::statvfs(place).ok()?;
    let room = about.f_bavail.saturating_mul(about.f_frsize);
    (room < LEAST_ROOM_BYTES).then(|| {
        format!(
            "the output of tasks goes to `{}`, which has {room} bytes of room: make some, or set TMPDIR to another folder",
            place.display()
        )
    })
}

/// Whether the command prefix starts this program.
fn passes_prefix(settings: &Settings) -> Result<(), String> {
    let Some((first, words)) = settings.command_prefix.split_first() else { return Ok(()) };
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut command = Command::new(first);
    command.args(words).arg(program).arg("--version").stdin(Stdio::null());
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

/// Whether the first word of the command prefix is a program. Nothing is run: a prefix may do more than one expects.
fn finds_prefix(settings: &Settings) -> Result<(), String> {
    let Some(first) = settings.command_prefix.first() else { return Ok(()) };
    let path = std::env::var_os("PATH").filter(|_| !first.contains('/')).unwrap_or_default();
    let is_there =
        |folder: PathBuf| rustix::fs::access(folder.join(first), rustix::fs::Access::EXEC_OK).is_ok();
    if first.contains('/') && is_there(PathBuf::new()) || std::env::split_paths(&path).any(is_there) {
        return Ok(());
    }
    Err(format!("`{first}` of `runner.command_prefix` is no program that can be run; is it installed?"))
}

/// Whether the directory, or the nearest one above it that exists, lets this user write.
fn writable(directory: &Path) -> Result<(), String> {
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    rustix::fs::access(existing, rustix::fs::Access::WRITE_OK)
        .map_err(|error| format!("`{}`: {error}", existing.display()))
}
