//! Access to the project's repository: files of the task that git is told to read, which go with the task.

use super::scratch;
use super::task::TaskRun;
use crate::system::git_files;
use std::io;
use std::path::PathBuf;

impl TaskRun {
    /// The folder of the files.
    pub(super) fn access_folder(&self) -> PathBuf {
        match self.input.use_home_ssh_dir_for_checkout_keys {
            true => scratch::ssh_folder(&self.input.task.id),
            false => self.scratch.join("git"),
        }
    }

    /// Whether there is a file of this name.
    pub(super) fn has_git_file(&self, name: &str) -> bool {
        self.input.task.git_files.iter().any(|file| file.name == name)
    }

    /// The config that git is told to read, when there is one.
    pub(super) fn git_config(&self) -> Option<PathBuf> {
        self.has_git_file("config").then(|| self.access_folder().join("config"))
    }

    /// Writes the files, for this user alone.
    pub(super) fn write_git_files(&self) -> io::Result<()> {
        if self.input.task.git_files.is_empty() {
            return Ok(());
        }
        let folder = self.access_folder();
        let files = self.input.task.git_files.iter();
        git_files::write(&folder, files.map(|file| (file.name.as_str(), file.value.expose())))
    }

    /// Tells every git of the job of the config, besides what the environment tells it anyway.
    pub(super) fn tell_git(&mut self) {
        let Some(config) = self.git_config() else { return };
        let known = self.environment.get("GIT_CONFIG_COUNT").and_then(|count| count.parse::<u32>().ok());
        let at = known.unwrap_or(0);
        let config = config.to_string_lossy().into_owned();
        for (name, value) in [
            (format!("GIT_CONFIG_KEY_{at}"), "include.path".to_owned()),
            (format!("GIT_CONFIG_VALUE_{at}"), config),
            ("GIT_CONFIG_COUNT".to_owned(), at.saturating_add(1).to_string()),
        ] {
            self.environment.insert(name, value);
        }
    }
}
