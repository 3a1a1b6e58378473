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

/// Files and words for one use of a repository.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// The files that git reads; without any it goes by the rights of its user.
    pub files: Vec<Variable>,
    /// The sentence for people where the repository stays shut to them: what was to open it, and what to do.
    pub shut: String,
}

/// An opening that is being found.
pub(super) type OpeningFuture = Pin<Box<dyn Future<Output = Opening> + Send>>;

/// Finds what lets git in by the id of a project and the address of its repository.
type Find = Box<dyn Fn(String, String) -> OpeningFuture + Send + Sync>;

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

    /// Makes the files of a project below `folder`, if it has any. Also what is said where they open nothing.
    pub(super) async fn open(
        &self,
        folder: &Path,
        project: &str,
        url: &str,
    ) -> io::Result<(Option<Files>, String)> {
        let Some(find) = self.find.get() else { return Ok((None, String::new())) };
        let Opening { files, shut } = find(project.to_owned(), url.to_owned()).await;
        if files.is_empty() {
            return Ok((None, shut));
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let folder = Folder(folder.join(format!("{PREFIX}{number}")));
        let has_ssh = files.iter().any(|file| file.name == "ssh_config");
        let writing = tokio::task::spawn_blocking(move || {
            let files = files.iter().map(|file| (file.name.as_str(), file.value.expose()));
            git_files::write(&folder.0, files).map(|()| folder)
        });
        let folder = writing.await.map_err(io::Error::other)??;
        let setting = format!("include.path={}", folder.0.join("config").display());
        Ok((Some(Files { folder: Some(folder), setting, has_ssh }), shut))
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
    /// There until it is dropped.
    folder: Option<Folder>,
    setting: String,
    has_ssh: bool,
}

/// A folder that goes with its value.
#[derive(Debug)]
struct Folder(PathBuf);

impl Files {
    /// The setting that git is given.
    pub(super) fn setting(&self) -> String {
        self.setting.clone()
    }

    /// Whether they say how ssh is started.
    pub(super) fn has_ssh(&self) -> bool {
        self.has_ssh
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let folder = self.folder.take();
        // Async threads do not wait for the disk. A runtime that ends without running this drops it, which removes the
        // folder as well.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(folder));
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let Self(folder) = self;
        if let Err(error) = fs::remove_dir_all(&*folder) {
            if error.kind() != io::ErrorKind::NotFound {
                log::warn!("failed to remove `{}`: {error}", folder.display());
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its folder should fail loudly")]
mod tests {
    use super::*;
    use crate::protocol::Secret;

    #[test]
    fn files_are_there_until_they_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let opener = Opener::default();
        opener.set(Box::new(|_, _| {
            Box::pin(async {
                let file = |name: &str| Variable { name: name.to_owned(), value: Secret::new("text") };
                Opening { files: vec![file("config"), file("ssh_config")], shut: "shut".to_owned() }
            })
        }));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (files, shut) = runtime.block_on(opener.open(folder.path(), "project", "url")).unwrap();
        let files = files.unwrap();
        assert_eq!(shut, "shut");
        let made = folder.path().join("access-0");
        assert!(
            files.has_ssh()
                && files.setting().contains("access-0/config")
                && made.join("ssh_config").exists()
        );
        runtime.block_on(async { drop(files) });
        // The end of the runtime ends the removal that it was given, or drops it.
        drop(runtime);
        assert!(!made.exists());
    }
}
