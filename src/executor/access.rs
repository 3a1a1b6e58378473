//! Access to the project's repository: files of the task that git is told to read, which go with the task.

use super::scratch;
use crate::protocol::task_input::TaskInput;
use crate::system::git_files;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The folder of the files; `private` is the task's.
pub(super) fn folder(input: &TaskInput, private: &Path) -> PathBuf {
    match input.use_home_ssh_dir_for_checkout_keys {
        true => scratch::ssh_folder(&input.task.id),
        false => private.join("git"),
    }
}

/// Whether there is a file of this name.
pub(super) fn has_file(input: &TaskInput, name: &str) -> bool {
    input.task.git_files.iter().any(|file| file.name == name)
}

/// The config that git is told to read, when there is one.
pub(super) fn git_config(input: &TaskInput, private: &Path) -> Option<PathBuf> {
    has_file(input, "config").then(|| folder(input, private).join("config"))
}

/// Writes the files, for this user alone.
pub(super) fn write_files(input: &TaskInput, private: &Path) -> io::Result<()> {
    if input.task.git_files.is_empty() {
        return Ok(());
    }
    let files = input.task.git_files.iter();
    let folder = folder(input, private);
    git_files::write(&folder, files.map(|file| (file.name.as_str(), file.value.expose())))
}

/// Tells every git of the job of the config, besides what its environment tells it anyway.
pub(super) fn tell_git(input: &TaskInput, private: &Path, environment: &mut BTreeMap<String, String>) {
    let Some(config) = git_config(input, private) else { return };
    let known = environment.get("GIT_CONFIG_COUNT").and_then(|count| count.parse::<u32>().ok());
    let at = known.unwrap_or(0);
    let config = config.to_string_lossy().into_owned();
    for (name, value) in [
        (format!("GIT_CONFIG_KEY_{at}"), "include.path".to_owned()),
        (format!("GIT_CONFIG_VALUE_{at}"), config),
        ("GIT_CONFIG_COUNT".to_owned(), at.saturating_add(1).to_string()),
    ] {
        environment.insert(name, value);
    }
}
