//! Everything that a host needs for a task, looked at before the task begins: its folder, made and locked; a
//! shell; a spool that takes bytes. What is missing gives the task back, so that another host may have it.

use super::cleanup::Before;
use super::end::{StepEnd, StopReason};
use super::environment::{self, Own};
use super::folder;
use super::task::TaskRun;
use crate::logging::record;
use crate::protocol::{Action, StepStatus};
use crate::system::os::{Access, access, host_name, link_to_program, variable_name};
use crate::system::shell;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long another task may keep the working directory; half the run time of a task that may not take as long.
const FOLDER_PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two tries to lock it.
const FOLDER_LOOK: Duration = Duration::from_millis(200);

/// Why a task cannot begin here.
#[derive(Debug)]
pub(super) enum NotReady {
    /// This host lacks something; a sentence for people that says what to do.
    Host(String),
    /// The task was stopped meanwhile.
    Stopped(StopReason),
}

impl TaskRun {
    /// Makes the host ready, and writes the spin-up record, which says where the task runs.
    pub(super) fn prepare(&mut self) -> Result<(), NotReady> {
        let bash_env = self.bash_env();
        let tools = self.tools();
        let own = Own {
            task_data: &self.scratch,
            bash_env: &bash_env,
            working_directory: &self.places.told,
            tool_directory: tools.as_deref(),
            home: &self.places.home,
        };
        self.environment = environment::of_job(text_variables(), &self.input.task, &own);
        std::fs::write(&bash_env, "").map_err(|error| self.unwritable(&bash_env, &error))?;
        self.write_git_files().map_err(|error| self.unwritable(&self.access_folder(), &error))?;
        self.tell_git();
        self.spoiled = self.take_folder()?.err();
        self.places.link_home();
        // Go keeps what it has built by the place of the sources, which a link in a temporary folder would change.
        let go = self.places.home.join("go");
        if self.places.is_link_home(&go) {
            let real = self.places.of("~/go").to_string_lossy().into_owned();
            self.environment.entry("GOPATH".to_owned()).or_insert(real);
        }
        self.find_shell()?;
        let lines = [
            format!("runner: {} (version {})", self.input.runner_name, self.input.runner_version),
            format!("host: {}, {} {}", host_name(), std::env::consts::OS, std::env::consts::ARCH),
            format!("resource class: {}", self.input.task.job.resource_class),
            format!("working directory: {}", self.places.directory.display()),
            format!("shell: {}", self.shell_of(None)),
        ];
        let step = self.next_record();
        let log = self.open(None, "Spin up environment", "spinup_environment", None, 1, 0, false);
        let log = log.map_err(|error| self.unwritable(&self.spool, &error))?;
        let lines: Vec<&str> = lines.iter().chain(&self.spoiled).map(String::as_str).collect();
        log.note(&lines.join("\n"));
        if !log.is_on_disk() {
            return Err(self.unwritable(&self.spool, &"the disk is full"));
        }
        log.close();
        if let Some(why) = self.reporter.lost_output() {
            return Err(NotReady::Host(why));
        }
        let status =
            if self.spoiled.is_none() { StepStatus::Success } else { StepStatus::InfrastructureFail };
        self.finished(step, &StepEnd { status, ended: None, message: self.spoiled.clone() });
        Ok(())
    }

    /// The folder with `circleci-agent` for the PATH: the runner's, or links of our own where this user, who is that of a
    /// prefix perhaps, cannot run what is in there.
    pub(super) fn tools(&self) -> Option<PathBuf> {
        let runs = |folder: &Path| access(folder.join("circleci-agent"), Access::EXEC_OK).is_ok();
        let given = self.input.tool_directory.as_deref().filter(|folder| runs(folder));
        if let Some(given) = given {
            return Some(given.to_owned());
        }
        let (own, program) = (self.scratch.join("tools"), std::env::current_exe().ok()?);
        let link = |name: &str| link_to_program(&program, own.join(name));
        let made =
            std::fs::create_dir(&own).and_then(|()| link("circleci-agent")).and_then(|()| link("circleci"));
        made.inspect_err(|error| record!(Debug; "no in-job commands in `{}`: {error}", own.display()))
            .ok()?;
        Some(own)
    }

    fn unwritable(&self, path: &Path, error: &dyn Display) -> NotReady {
        NotReady::Host(format!(
            "failed to write in `{}`: {error} (free some space, or set TMPDIR to a larger place)",
            path.display()
        ))
    }

    /// Makes and locks the working directory. A folder that the config names and that cannot be had is a mistake
    /// of the config, which no other host would mend: the task begins, and fails with the inner error.
    fn take_folder(&mut self) -> Result<Result<(), String>, NotReady> {
        let path = self.places.directory.clone();
        let run_time = Duration::from_millis(self.input.max_run_time_ms);
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
            if self.wait_or_stop(FOLDER_LOOK) {
                return Err(NotReady::Stopped(self.stopped().unwrap_or(StopReason::Runner)));
            }
        };
        let usable = taken.and_then(|mut lock| {
            lock.hand_on();
            self.before = Some(Before::of(self.places.cleaned()));
            self.folder = Some(lock);
            access(&path, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| ("use", error.into()))
        });
        let Err((what, error)) = usable else { return Ok(Ok(())) };
        let why = format!(
            "failed to {what} the working directory `{}`: {error} (make it writable for the user of the job, or set another `working_directory`)",
            path.display()
        );
        match self.input.task.job.working_directory {
            Some(_) => Ok(Err(why)),
            None => Err(NotReady::Host(why)),
        }
    }

    /// Sees to it that the step that comes next works in a folder that no other task has. The end of the step otherwise.
    pub(super) fn keep_folder(&mut self) -> Result<(), StepEnd> {
        if self.folder.is_none() || self.holds_folder() {
            return Ok(());
        }
        let path = &self.places.directory;
        Err(StepEnd::of_host(format!(
            "the working directory `{}` was made anew, and the task of {} works there now: let runners of one host have a `runner.working_directory` each, or jobs a `working_directory` of their own",
            path.display(),
            folder::holder(path)
        )))
    }

    /// Whether the working directory, as it is now, is this task's and no other one's.
    pub(super) fn holds_folder(&mut self) -> bool {
        let Some(lock) = &mut self.folder else { return false };
        let path = &self.places.directory;
        let held = lock.renew(path);
        match &held {
            Ok(true) => {}
            Ok(false) => {
                log::warn!("another task has the working directory `{}`, which was made anew", path.display())
            }
            Err(error) => log::warn!("failed to lock the working directory `{}`: {error}", path.display()),
        }
        // A folder that cannot be locked is worked in, as at the beginning.
        !matches!(held, Ok(false))
    }

    /// A host without any shell cannot do what jobs take for granted. A shell that a job names is its own affair.
    fn find_shell(&self) -> Result<(), NotReady> {
        let job = &self.input.task.job;
        let wants = |action: &Action| matches!(action, Action::Run(run) if run.shell.is_none());
        if job.shell.is_some() || !job.steps.iter().any(|step| wants(&step.action)) {
            return Ok(());
        }
        let shell = self.shell_of(None);
        let program = shell.split_whitespace().next().unwrap_or_default();
        if shell::is_there(program) {
            return Ok(());
        }
        Err(NotReady::Host(format!(
            "there is no shell on this host: {} (install one, or set `shell` in the job)",
            shell::NO_SHELL
        )))
    }
}

/// Variables of this process that are text; others cannot be handed through JSON or to a shell safely.
fn text_variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        Some((variable_name(name.into_string().ok()?), value.into_string().ok()?))
    })
}
