//! Preparation of a task on its host before it begins: its folder, made and locked; a shell; a spool that
//! takes bytes. A host that lacks one of them gives the task back, so that another host may have it.

use super::cleanup::Before;
use super::control::Control;
use super::end::{StepEnd, StopReason};
use super::environment::{self, Own};
use super::host::TaskHost;
use super::records::Records;
use super::steps::run;
use super::{access, folder, private};
use crate::protocol::task_input::TaskInput;
use crate::protocol::{Job, StepAction, StepStatus};
use crate::system::opening;
use crate::system::os::{host_name, variable_name};
use crate::system::shell;
use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long another task may keep the working directory; half the run time of a task that may not take as long.
const FOLDER_PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two tries to lock it.
const FOLDER_LOOK: Duration = Duration::from_millis(200);

/// Why a task cannot begin here.
#[derive(Debug)]
pub(super) enum NotReady {
    /// The host lacks something; a sentence for people that says what to do.
    Host(String),
    /// The task was stopped meanwhile.
    Stopped(StopReason),
}

/// Makes the host ready, and writes the spin-up record, which says where the task runs. The answer is why the job cannot
/// work although the host can, if so.
pub(super) fn prepare(
    input: &TaskInput,
    host: &mut TaskHost,
    control: &mut Control,
    records: &mut Records,
) -> Result<Option<String>, NotReady> {
    let bash_env = host.private.bash_env();
    let private = &host.private.path;
    let tools = private::tools(input, private);
    let own = Own {
        task_data: private,
        bash_env: &bash_env,
        working_directory: &host.places.told,
        tool_directory: tools.as_deref(),
        home: &host.places.home,
    };
    host.environment = environment::of_job(text_variables(), &input.task, &own);
    opening::create(&bash_env).map_err(|error| unwritable(&bash_env, &error))?;
    access::write_files(input, private)
        .map_err(|error| unwritable(&access::folder(input, private), &error))?;
    access::tell_git(input, private, &mut host.environment);
    let spoiled = take_folder(input, host, control)?.err();
    host.places.lend_home();
    // Go keeps what it has built by the place of the sources, which a link in a temporary folder would change.
    let go = host.places.home.join("go");
    if host.places.is_lent(&go) {
        let real = host.places.of("~/go").to_string_lossy().into_owned();
        host.environment.entry("GOPATH".to_owned()).or_insert(real);
    }
    let job = &input.task.job;
    find_shell(job)?;
    let lines = [
        format!("runner: {} (version {})", input.runner_name, input.runner_version),
        format!("host: {}, {} {}", host_name(), std::env::consts::OS, std::env::consts::ARCH),
        format!("resource class: {}", job.resource_class),
        format!("working directory: {}", host.places.directory.display()),
        format!("shell: {}", run::shell_of(job, None)),
    ];
    let log = records.open(None, "Spin up environment", "spinup_environment", None, 1, 0, false);
    let log = log.map_err(|error| unwritable(&records.spool, &error))?;
    let lines: Vec<&str> = lines.iter().chain(&spoiled).map(String::as_str).collect();
    log.note(&lines.join("\n"));
    if !log.is_on_disk() {
        return Err(unwritable(&records.spool, &"the disk is full"));
    }
    log.close();
    if let Some(why) = records.reporter.lost_output() {
        return Err(NotReady::Host(why));
    }
    let status = if spoiled.is_none() { StepStatus::Success } else { StepStatus::InfrastructureFail };
    let end = StepEnd { status, ended: None, message: spoiled };
    records.finished(log.step(), &end);
    Ok(end.message)
}

fn unwritable(path: &Path, error: &dyn Display) -> NotReady {
    NotReady::Host(format!(
        "failed to write in `{}`: {error} (free some space, or set TMPDIR to a larger place)",
        path.display()
    ))
}

/// Makes and locks the working directory. A folder that the config names and that cannot be had is a mistake
/// of the config, which no other host would mend: the task begins, and fails with the inner error.
fn take_folder(
    input: &TaskInput,
    host: &mut TaskHost,
    control: &mut Control,
) -> Result<Result<(), String>, NotReady> {
    let path = host.places.directory.clone();
    let run_time = Duration::from_millis(input.max_run_time_ms);
    let patience = if run_time.is_zero() { FOLDER_PATIENCE } else { FOLDER_PATIENCE.min(run_time / 2) };
    let until = Instant::now() + patience;
    let mut told = false;
    let taken = loop {
        match folder::lock(&path) {
            Ok(Some(lock)) => break Ok(lock),
            Err(error) => break Err(("create", error)),
            Ok(None) if Instant::now() >= until => {
                return Err(NotReady::Host(format!(
                    "the working directory `{}`, or one around or inside it, is in use by the task of {}: let runners of one host have a `runner.working_directory` each, or jobs a `working_directory` of their own",
                    path.display(),
                    folder::holder(&path)
                )));
            }
            Ok(None) => {}
        }
        if !std::mem::replace(&mut told, true) {
            log::info!(
                "waiting for the working directory `{}`, which {} uses, or one around or inside it",
                path.display(),
                folder::holder(&path)
            );
        }
        if control.wait_or_stop(FOLDER_LOOK) {
            return Err(NotReady::Stopped(control.stopped().unwrap_or(StopReason::Runner)));
        }
    };
    let usable = taken.and_then(|mut lock| {
        use crate::system::os::{Access, access};
        lock.hand_on();
        host.before = input.cleanup_working_directory.then(|| Before::of(host.places.cleaned()));
        host.lock = Some(lock);
        access(&path, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| ("use", error.into()))
    });
    let Err((what, error)) = usable else { return Ok(Ok(())) };
    let why = format!(
        "failed to {what} the working directory `{}`: {error} (make it writable for the user of the job, or set another `working_directory`)",
        path.display()
    );
    match input.task.job.working_directory {
        Some(_) => Ok(Err(why)),
        None => Err(NotReady::Host(why)),
    }
}

/// A host without any shell cannot do what jobs take for granted. A shell that a job names is its own affair.
fn find_shell(job: &Job) -> Result<(), NotReady> {
    let wants = |action: &StepAction| matches!(action, StepAction::Run(run) if run.shell.is_none());
    if job.shell.is_some() || !job.steps.iter().any(|step| wants(&step.action)) {
        return Ok(());
    }
    let shell = run::shell_of(job, None);
    let program = shell.split_whitespace().next().unwrap_or_default();
    if shell::is_there(program) {
        return Ok(());
    }
    Err(NotReady::Host(format!(
        "there is no shell on this host: {} (install one, or set `shell` in the job)",
        shell::NO_SHELL
    )))
}

/// Variables of this process that are text; others cannot be handed through JSON or to a shell safely.
fn text_variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        Some((variable_name(name.into_string().ok()?), value.into_string().ok()?))
    })
}
