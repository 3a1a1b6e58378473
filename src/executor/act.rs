//! What each kind of step does, on top of a task that can run children and talk to the control plane.

use super::environment;
use super::files::{self, Listing, UploadError};
use super::log::StepLog;
use super::task::{ChildEnd, StepEnd, Stop, TaskRun, exit_text};
use crate::http::Body;
use crate::protocol::{Action, ArtifactRecord, Run, Step, StepStatus, TestResultsRecord, duration};
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Linux refuses a single argument beyond 128 KiB; longer commands go through a file.
const LONGEST_ARGUMENT: usize = 100 * 1024;

impl TaskRun {
    /// Does what `step` says; its output is in `log`, its end is the answer.
    pub(super) fn act(&mut self, record: u32, step: &Step, log: &StepLog) -> StepEnd {
        match &step.action {
            Action::Run(run) => self.run_step(record, run, log),
            Action::Checkout { path, method } => self.checkout(record, path, *method, log),
            Action::StoreArtifacts { path, destination } => {
                self.store_artifacts(record, path, destination.as_deref(), log)
            }
            Action::StoreTestResults { path } => self.store_test_results(record, path, log),
            Action::SetupRemoteDocker => {
                log.note("there is no remote Docker on a machine runner: use the Docker of this host, if it has one");
                StepEnd::success()
            }
            Action::SaveCache { key, paths } => self.save_cache(key, paths, log),
            Action::RestoreCache { keys } => self.restore_cache(keys, log),
            Action::PersistToWorkspace { root, paths } => self.persist_to_workspace(record, root, paths, log),
            Action::AttachWorkspace { at } => self.attach_workspace(at, log),
            Action::AddSshKeys { .. } => unsupported("project SSH keys"),
            Action::InstallSigningBundle => unsupported("signing bundles"),
        }
    }

    fn run_step(&mut self, record: u32, run: &Run, log: &StepLog) -> StepEnd {
        let command = match self.shell_command(run, record) {
            Ok(command) => command,
            Err(why) => return StepEnd::failed(why),
        };
        let silence = Duration::from_millis(run.no_output_timeout_ms);
        match self.child(record, log, command, (!silence.is_zero()).then_some(silence)) {
            ChildEnd::Ended(ended) if ended.code == 0 => StepEnd { ended: Some(ended), ..StepEnd::success() },
            ChildEnd::NotStarted(error) => StepEnd::failed(self.explain_start(run, &error)),
            other => end_of(other),
        }
    }

    /// The shell of a step, as one command line.
    pub(super) fn shell_of(&self, run: Option<&Run>) -> String {
        let named = run.and_then(|run| run.shell.clone()).or_else(|| self.input.task.job.shell.clone());
        named.unwrap_or_else(|| environment::default_shell(Path::new("/bin/bash").exists()).to_owned())
    }

    /// The command that runs a `run` step.
    pub(super) fn shell_command(&self, run: &Run, record: u32) -> Result<Command, String> {
        let words = environment::words(&self.shell_of(Some(run)))?;
        let directory = run.working_directory.as_deref().unwrap_or(".");
        let directory = self.places.of(directory);
        // Or the system would blame the shell.
        if let Err(why) = may_enter(&directory) {
            return Err(format!("the working directory `{}` {why}", directory.display()));
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(directory).env_clear();
        let mut environment = environment::of_step(&self.environment, run);
        environment.insert(crate::tool::halt::STEP.to_owned(), record.to_string());
        // A name or value that the system cannot pass on would fail the spawn without saying which.
        if let Some((name, _)) = environment
            .iter()
            .find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))
        {
            return Err(format!("the environment variable `{name}` cannot be passed to a process"));
        }
        command.envs(environment);
        if run.command.contains('\0') {
            return Err("the command contains a NUL character".to_owned());
        }
        if run.command.len() > LONGEST_ARGUMENT {
            let script = self.scratch.join(format!("command-{record}"));
            std::fs::write(&script, &run.command)
                .map_err(|e| format!("failed to write the command to `{}`: {e}", script.display()))?;
            command.arg(script);
        } else {
            command.arg("-c").arg(&run.command);
        }
        Ok(command)
    }

    /// Why a shell did not start.
    pub(super) fn explain_start(&self, run: &Run, error: &io::Error) -> String {
        let shell = self.shell_of(Some(run));
        let program = shell.split_whitespace().next().unwrap_or_default();
        match error.kind() {
            io::ErrorKind::NotFound => {
                format!(
                    "cannot start the shell `{program}`: it is not installed on this runner (set `shell` to one that is)"
                )
            }
            io::ErrorKind::ArgumentListTooLong => {
                format!(
                    "cannot start the shell `{program}`: the environment of the step is larger than the system allows"
                )
            }
            _ => format!("cannot start the shell `{program}`: {error}"),
        }
    }

    fn store_artifacts(
        &mut self,
        record: u32,
        path: &str,
        destination: Option<&str>,
        log: &StepLog,
    ) -> StepEnd {
        let target = self.places.of(path);
        let written =
            if path.starts_with('~') { target.to_string_lossy().into_owned() } else { path.to_owned() };
        let Some(listing) = self.list(files::artifacts(&target, &written, destination), &target, log) else {
            return StepEnd::success();
        };
        let limit = self.input.task.max_artifact_bytes;
        let (mut count, mut total) = (0, 0);
        for file in listing.files {
            match self.upload_file(&file.path, limit) {
                Ok((length, sha256)) => {
                    let entry = ArtifactRecord { path: file.name.clone(), sha256, length, step: record };
                    if let Err(why) = self.name_upload::<serde::de::IgnoredAny>("artifacts", &entry) {
                        return StepEnd::failed(format!(
                            "failed to store the artifact `{}`: {why}",
                            file.name
                        ));
                    }
                    count += 1;
                    total += length;
                    log.note(&format!("stored `{}` ({})", file.name, counted(length, "byte")));
                }
                Err(UploadError::Stopped) => return self.stopped_end(),
                Err(UploadError::TooLarge(length)) => {
                    log.note(&format!(
                        "error: skipped `{}`: {}, the limit is {}",
                        file.name,
                        counted(length, "byte"),
                        counted(limit, "byte")
                    ));
                }
                Err(error) => {
                    return StepEnd::failed(format!(
                        "failed to upload the artifact `{}`: {error}",
                        file.name
                    ));
                }
            }
        }
        log.note(&format!("{}, {}", counted(count, "file"), counted(total, "byte")));
        StepEnd::success()
    }

    fn store_test_results(&mut self, record: u32, path: &str, log: &StepLog) -> StepEnd {
        let target = self.places.of(path);
        if target.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) && target.is_dir() {
            log.note(&format!(
                "warning: `{}` is a hidden folder: no test results are read from it",
                target.display()
            ));
            return StepEnd::success();
        }
        let Some(listing) = self.list(files::test_results(&target), &target, log) else {
            return StepEnd::success();
        };
        if listing.files.is_empty() {
            log.note(&format!("warning: there is no XML file in `{}`", target.display()));
        }
        for file in listing.files {
            match self.upload_file(&file.path, self.input.task.max_artifact_bytes) {
                Ok((length, sha256)) => {
                    let entry = TestResultsRecord { path: file.name.clone(), sha256, length, step: record };
                    match self.name_upload::<StoredTests>("test-results", &entry) {
                        Ok(StoredTests { message: Some(why), .. }) => {
                            log.note(&format!("warning: ignored `{}`: {why}", file.name));
                        }
                        Ok(stored) => {
                            log.note(&format!("stored `{}` ({})", file.name, counted(stored.tests, "test")));
                        }
                        Err(why) => {
                            return StepEnd::failed(format!("failed to store `{}`: {why}", file.name));
                        }
                    }
                }
                Err(UploadError::Stopped) => return self.stopped_end(),
                Err(error) => return StepEnd::failed(format!("failed to upload `{}`: {error}", file.name)),
            }
        }
        StepEnd::success()
    }

    /// The listing, with its notes in the log; `None` when there is nothing at the path.
    fn list(&self, listing: io::Result<Listing>, target: &Path, log: &StepLog) -> Option<Listing> {
        match listing {
            Ok(listing) => {
                listing.notes.iter().for_each(|note| log.note(note));
                Some(listing)
            }
            Err(error) => {
                log.note(&format!("nothing to store: cannot read `{}`: {error}", target.display()));
                None
            }
        }
    }

    pub(super) fn upload_file(&mut self, path: &Path, limit: u64) -> Result<(u64, String), UploadError> {
        let reporter = self.reporter.clone();
        files::upload(&reporter, path, limit, &mut || self.stopped().is_some())
    }

    pub(super) fn name_upload<A: serde::de::DeserializeOwned>(
        &self,
        call: &str,
        entry: &impl serde::Serialize,
    ) -> Result<A, String> {
        let body = serde_json::to_vec(entry).map_err(|e| e.to_string())?;
        self.reporter.call("POST", call, Body::Json(&body)).map_err(|e| e.to_string())
    }

    pub(super) fn stopped_end(&mut self) -> StepEnd {
        end_of(ChildEnd::Stopped(self.stopped().unwrap_or(Stop::Cancel)))
    }
}

/// Answer to a test results record.
#[derive(serde::Deserialize)]
struct StoredTests {
    tests: u64,
    #[serde(default)]
    message: Option<String>,
}

/// `1 file`, `2 files`.
pub(super) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Whether a command can be started in the folder; otherwise the rest of a sentence that begins with it.
fn may_enter(folder: &Path) -> Result<(), String> {
    use rustix::fs::{Access, access};
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

fn unsupported(what: &str) -> StepEnd {
    StepEnd::failed(format!("this version of the runner does not do {what} yet"))
}

/// The end of a step whose child ended like this.
pub(super) fn end_of(child: ChildEnd) -> StepEnd {
    match child {
        ChildEnd::Ended(ended) => exit_text(ended),
        ChildEnd::NotStarted(error) => StepEnd::failed(format!("cannot start the command: {error}")),
        ChildEnd::Silent(limit) => StepEnd {
            status: StepStatus::Timedout,
            ended: None,
            message: Some(format!(
                "Too long with no output (exceeded {}): context deadline exceeded",
                duration::format(limit)
            )),
        },
        ChildEnd::Stopped(stop) => {
            let (status, why) = match stop {
                Stop::Cancel => (StepStatus::Canceled, "the job was canceled through the control plane"),
                Stop::Lost => (StepStatus::Canceled, "the control plane has given the job up"),
                Stop::TimeLimit => (StepStatus::Timedout, "the time limit of the job has passed"),
                Stop::Runner => (StepStatus::InfrastructureFail, "the runner was told to stop"),
            };
            StepEnd { status, ended: None, message: Some(format!("stopped: {why}")) }
        }
    }
}
