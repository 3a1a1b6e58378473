//! `run`: a command in its shell, with its environment, in its directory.

use crate::executor::control::Control;
use crate::executor::end::{ChildEnd, StepEnd, end_of};
use crate::executor::environment;
use crate::executor::host::TaskHost;
use crate::executor::output::log::StepLog;
use crate::protocol::{Job, Run};
use crate::system::os::{Access, access};
use crate::system::shell;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Runs the command to its end.
pub(super) fn run(job: &Job, host: &TaskHost, control: &mut Control, run: &Run, log: &StepLog) -> StepEnd {
    let command = match shell_command(job, host, run, log.step()) {
        Ok(command) => command,
        Err(end) => return end,
    };
    let silence = Duration::from_millis(run.no_output_timeout_ms);
    match control.child(log, command, (!silence.is_zero()).then_some(silence)) {
        ChildEnd::Ended(ended) if ended.code == 0 => StepEnd { ended: Some(ended), ..StepEnd::success() },
        ChildEnd::NotStarted(error) => explain_start(job, run, &error),
        other => end_of(other),
    }
}

/// The shell of a step, as one command line.
pub(in crate::executor) fn shell_of(job: &Job, run: Option<&Run>) -> String {
    let named = run.and_then(|run| run.shell.clone()).or_else(|| job.shell.clone());
    named.unwrap_or_else(|| shell::default_shell().to_owned())
}

/// The command that runs a `run` step.
pub(in crate::executor) fn shell_command(
    job: &Job,
    host: &TaskHost,
    run: &Run,
    record: u32,
) -> Result<Command, StepEnd> {
    let words = environment::words(&shell_of(job, Some(run))).map_err(StepEnd::failed)?;
    let directory = run.working_directory.as_deref().unwrap_or(".");
    let directory = host.places.of(directory);
    // Or the system would blame the shell.
    if let Err(why) = may_enter(&directory) {
        let why = format!("the working directory `{}` {why}", directory.display());
        return Err(StepEnd::failed(why));
    }
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(directory).env_clear();
    let mut environment = environment::of_step(&host.environment, run);
    environment.insert(crate::tool::halt::STEP.to_owned(), record.to_string());
    // A name or value that the system cannot pass on would fail the spawn without saying which.
    if let Some((name, _)) = environment
        .iter()
        .find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))
    {
        let why = format!("the environment variable `{name}` cannot be passed to a process");
        return Err(StepEnd::failed(why));
    }
    command.envs(environment);
    if run.command.contains('\0') {
        return Err(StepEnd::failed("the command contains a NUL character"));
    }
    let script = host.private.path.join(format!("command-{record}"));
    shell::give(&mut command, &run.command, &script).map_err(|error| {
        StepEnd::by_error(&format!("failed to write the command to `{}`", script.display()), &error)
    })?;
    Ok(command)
}

/// Why a shell did not start.
pub(in crate::executor) fn explain_start(job: &Job, run: &Run, error: &io::Error) -> StepEnd {
    let shell = shell_of(job, Some(run));
    let program = shell.split_whitespace().next().unwrap_or_default();
    let what = format!("cannot start the shell `{program}`");
    match error.kind() {
        io::ErrorKind::NotFound => StepEnd::failed(format!(
            "{what}: it is not installed on this runner (set `shell` to one that is)"
        )),
        io::ErrorKind::ArgumentListTooLong => {
            StepEnd::failed(format!("{what}: the environment of the step is larger than the system allows"))
        }
        _ => StepEnd::by_error(&what, error),
    }
}

/// Whether a command can be started in the folder; otherwise the rest of a sentence that begins with it.
fn may_enter(folder: &Path) -> Result<(), String> {
    match std::fs::metadata(folder) {
        Ok(about) if !about.is_dir() => Err("is a file, not a folder".to_owned()),
        Ok(_) => access(folder, Access::EXEC_OK)
            .map_err(|e| format!("may not be entered by the user of the job: {}", io::Error::from(e))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err("does not exist (make it in an earlier step)".to_owned())
        }
        Err(e) => Err(format!("cannot be used: {e}")),
    }
}
