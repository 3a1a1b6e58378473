//! Access of the control plane's own git to repositories: files that are made for one use of a mirror.

use crate::protocol::Variable;
use crate::system::git_files;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The names of their folders begin so.
const PREFIX: &str = "access-";

/// The files of a project, as they are being found.
pub(super) type Finding = Pin<Box<dyn Future<Output = Vec<Variable>> + Send>>;

/// Finds the files of a project by its id and the address of its repository.
type Find = Box<dyn Fn(String, String) -> Finding + Send + Sync>;

/// Finds what lets git into repositories; nothing until it was told how.
#[derive(Default)]
pub(super) struct Opener {
    find: OnceLock<Find>,
    count: AtomicU64,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

impl Opener {
    pub(super) fn set(&self, find: Find) {
        // The first way that is told holds.
        let _ = self.find.set(find);
    }

    /// Makes the files of a project below `folder`, if it has any.
    pub(super) async fn open(&self, folder: &Path, project: &str, url: &str) -> io::Result<Option<Files>> {
        let Some(find) = self.find.get() else { return Ok(None) };
        let files = find(project.to_owned(), url.to_owned()).await;
        if files.is_empty() {
            return Ok(None);
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let made = Files { folder: folder.join(format!("{PREFIX}{number}")) };
        let files = files.iter().map(|file| (file.name.as_str(), file.value.expose()));
        git_files::write(&made.folder, files)?;
        Ok(Some(made))
    }
}

/// Removes what a control plane that was killed has left.
pub(super) fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Files that are there until this is dropped.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
}

impl Files {
    /// The setting that git is given.
    pub(super) fn setting(&self) -> String {
        format!("include.path={}", self.folder.join("config").display())
    }

    /// Whether they say how ssh is started.
    pub(super) fn has_ssh(&self) -> bool {
        self.folder.join("ssh_config").exists()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            if error.kind() != io::ErrorKind::NotFound {
                log::warn!("failed to remove `{}`: {error}", self.folder.display());
            }
        }
    }
}
