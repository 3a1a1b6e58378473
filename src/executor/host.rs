//! The host as a task has it: its folders, what the paths of the job lead to, and the environment of the steps.

use super::cleanup::{self, Before};
use super::end::StepEnd;
use super::folder::{self, FolderLock};
use super::places::{CAN_CONFINE, Places};
use super::private::PrivateFolder;
use crate::protocol::task_input::TaskInput;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

/// The place where the steps of a task run.
pub(super) struct TaskHost {
    pub(super) private: PrivateFolder,
    /// Places that the paths of the job lead to.
    pub(super) places: Places,
    /// Environment of the steps.
    pub(super) environment: BTreeMap<String, String>,
    /// The lock of the working directory.
    pub(super) lock: Option<FolderLock>,
    /// The folder that is cleaned up after the job, as it was before.
    pub(super) before: Option<Before>,
    /// When the task began, by the clock that files are dated with.
    pub(super) began: SystemTime,
}

impl TaskHost {
    /// The host before anything is made ready on it; `home` is that of the user.
    pub(super) fn new(input: &TaskInput, private: PathBuf, home: PathBuf) -> Self {
        let base = input.working_directory.as_deref();
        let written = input.task.job.working_directory.clone();
        // The folder that a runner which confines its jobs works in is their home.
        let own = base.filter(|_| !input.confine);
        let written = written.or_else(|| own.map(|base| base.to_string_lossy().into_owned()));
        let written = written.unwrap_or_else(|| "~/project".to_owned());
        Self {
            private: PrivateFolder::new(private),
            places: Places::new(&written, base, home, input.confine),
            environment: BTreeMap::new(),
            lock: None,
            before: None,
            began: SystemTime::now(),
        }
    }

    /// Sees to it that the step that comes next works in a folder that no other task has. The end of the step otherwise.
    pub(super) fn keep_folder(&mut self) -> Result<(), StepEnd> {
        if self.lock.is_none() || self.holds_folder() {
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
    fn holds_folder(&mut self) -> bool {
        let Some(lock) = &mut self.lock else { return false };
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

    /// Removes the working directory, where the runner says so and no other task has it.
    pub(super) fn clean_up(&mut self, input: &TaskInput) {
        if input.cleanup_working_directory && self.holds_folder() {
            let cleaned = self.places.cleaned();
            if CAN_CONFINE && input.confine && cleanup::put_aside(cleaned) {
                return;
            }
            let is_own = input.working_directory.as_deref() == Some(cleaned);
            cleanup::remove_working_directory(cleaned, self.before.as_ref(), is_own);
        }
    }
}
