//! The private folder of a task in the hands of its steps: one that a step has removed, as by emptying `/tmp`, is made
//! anew for the next, with what `$BASH_ENV` held, the commands for jobs and the keys for git.

use super::access;
use super::end::StepEnd;
use super::output::log::StepLog;
use crate::logging::record;
use crate::protocol::task_input::TaskInput;
use crate::system::opening::{self, open_regular};
use crate::system::os::{self, DirBuilderExt};
use std::fs::{DirBuilder, File};
use std::io::{self, Seek};
use std::path::{Path, PathBuf};

/// Folder of the task agent that jobs do not name; removed with the task.
pub(super) struct PrivateFolder {
    pub(super) path: PathBuf,
    /// The file that `$BASH_ENV` named when the last step began.
    held_bash_env: Option<File>,
}

impl PrivateFolder {
    /// The folder at `path`, which was made for the task.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, held_bash_env: None }
    }

    /// The file that bash reads before each command of a step.
    pub(super) fn bash_env(&self) -> PathBuf {
        self.path.join("bash_env")
    }

    /// Sees to it that the step that comes next has the folder. The end of the step when the host has no place for it.
    pub(super) fn keep(&mut self, input: &TaskInput, log: &StepLog) -> Result<(), StepEnd> {
        // Held open, what is in the file outlives its folder. A step that removes the file alone means it.
        let held = open_regular(&self.bash_env()).ok();
        if held.is_some() || self.path.is_dir() {
            self.held_bash_env = held;
            return Ok(());
        }
        let folder = self.path.display().to_string();
        self.make(input).map_err(|error| {
            StepEnd::of_host(format!(
                "a step removed the private folder `{folder}` of the task, and it cannot be made anew: {error} (have steps leave it alone, or set TMPDIR of the runner to a place that they do not empty)"
            ))
        })?;
        log.note(&format!(
            "warning: a step removed the private folder `{folder}` of the task; it was made anew, with what was in `$BASH_ENV`"
        ));
        Ok(())
    }

    fn make(&mut self, input: &TaskInput) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(&self.path)?;
        let mut file = opening::create(&self.bash_env())?;
        if let Some(held) = &mut self.held_bash_env {
            held.rewind()?;
            io::copy(held, &mut file)?;
        }
        access::write_files(input, &self.path)?;
        leave_endpoint(input, &self.path);
        // The PATH of the job may name the one that was in there.
        tools(input, &self.path);
        Ok(())
    }
}

/// Tells the commands that steps call where the control plane is, without any token.
pub(super) fn leave_endpoint(input: &TaskInput, private: &Path) {
    let file = crate::tool::continuation::endpoint_file(private);
    let written =
        serde_json::to_vec(&input.endpoint).map_err(Into::into).and_then(|text| opening::write(&file, &text));
    if let Err(error) = written {
        log::warn!("failed to write `{}`: {error}", file.display());
    }
}

/// The folder with `circleci-agent` for the PATH: the runner's, or links in the private folder where this user, who is
/// that of a prefix perhaps, cannot run what is in there.
pub(super) fn tools(input: &TaskInput, private: &Path) -> Option<PathBuf> {
    let runs = |folder: &Path| os::access(folder.join("circleci-agent"), os::Access::EXEC_OK).is_ok();
    let given = input.tool_directory.as_deref().filter(|folder| runs(folder));
    if let Some(given) = given {
        return Some(given.to_owned());
    }
    let (own, program) = (private.join("tools"), std::env::current_exe().ok()?);
    let link = |name: &str| os::link_to_program(&program, own.join(name));
    let made =
        std::fs::create_dir(&own).and_then(|()| link("circleci-agent")).and_then(|()| link("circleci"));
    made.inspect_err(|error| record!(Debug; "no in-job commands in `{}`: {error}", own.display())).ok()?;
    Some(own)
}
