//! The private folder of a task in the hands of its steps: one that a step has removed, as by emptying `/tmp`, is made
//! anew for the next, with what `$BASH_ENV` held, the commands for jobs and the keys for git.

use super::end::StepEnd;
use super::output::log::StepLog;
use super::task::TaskRun;
use crate::system::opening::open_regular;
use crate::system::os::DirBuilderExt;
use std::fs::{DirBuilder, File};
use std::io::{self, Seek};
use std::path::PathBuf;

impl TaskRun {
    /// The file that bash reads before each command of a step.
    pub(super) fn bash_env(&self) -> PathBuf {
        self.scratch.join("bash_env")
    }

    /// Sees to it that the step that comes next has the folder. The end of the step when the host has no place for it.
    pub(super) fn keep_private_folder(&mut self, log: &StepLog) -> Result<(), StepEnd> {
        // Held open, what is in the file outlives its folder. A step that removes the file alone means it.
        let held = open_regular(&self.bash_env()).ok();
        if held.is_some() || self.scratch.is_dir() {
            self.held_bash_env = held;
            return Ok(());
        }
        let folder = self.scratch.display().to_string();
        self.make_private_folder().map_err(|error| {
            StepEnd::of_host(format!(
                "a step removed the private folder `{folder}` of the task, and it cannot be made anew: {error} (have steps leave it alone, or set TMPDIR of the runner to a place that they do not empty)"
            ))
        })?;
        log.note(&format!(
            "warning: a step removed the private folder `{folder}` of the task; it was made anew, with what was in `$BASH_ENV`"
        ));
        Ok(())
    }

    fn make_private_folder(&mut self) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(&self.scratch)?;
        let mut file = File::create(self.bash_env())?;
        if let Some(held) = &mut self.held_bash_env {
            held.rewind()?;
            io::copy(held, &mut file)?;
        }
        self.write_git_files()?;
        super::leave_endpoint(&self.input, &self.scratch);
        // The PATH of the job may name the one that was in there.
        self.tools();
        Ok(())
    }
}
