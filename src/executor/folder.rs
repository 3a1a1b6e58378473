//! The working directory of a task, held by one task at a time: a lock on the opened folder itself, so that it
//! leaves nothing behind and ends with the task agent, however that ends.
//!
//! The folders above it are held as well, shared with other tasks, so that no task works around or inside the folder of
//! another one: its cleanup would remove what is in there.

use crate::system::proc;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A folder that this process holds, with those above it.
#[derive(Debug)]
pub(super) struct FolderLock(Vec<File>);

impl Drop for FolderLock {
    /// Lets go at once: a process that is being started has a copy of every file until it becomes another program.
    fn drop(&mut self) {
        for file in &self.0 {
            let _ = flock(file, FlockOperation::Unlock);
        }
    }
}

/// Makes the folder, with those above it, and takes its lock. `None` when another process has it, or one around or
/// inside it; then nothing was made.
pub(super) fn lock(path: &Path) -> io::Result<Option<FolderLock>> {
    loop {
        let mut held = FolderLock(Vec::new());
        if path.parent().is_some_and(|parent| !share(parent, &mut held.0)) {
            return Ok(None);
        }
        fs::create_dir_all(path)?;
        // With `..` at its end, the folder itself is among those that its text has above it.
        held = FolderLock(Vec::new());
        // The way to it may have changed, and lead through links.
        if real(path).and_then(|real| Some(share(real.parent()?, &mut held.0))) == Some(false) {
            return Ok(None);
        }
        let folder = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // One that may be entered and written to, but not listed, cannot be opened, and steps can work there.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Ok(Some(held));
            }
            opened => opened?,
        };
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(Errno::INTR) => continue,
            Err(error) => {
                // Some network file systems lock no folders; hosts that work alone there are not to suffer.
                log::warn!("cannot lock `{}`: {error}; another task could work there, too", path.display());
                return Ok(Some(held));
            }
        }
        // The process that held it may have removed it meanwhile: then the lock is on a folder that nobody can reach.
        let (own, named) = (folder.metadata()?, fs::metadata(path));
        match named {
            Ok(named) if (named.dev(), named.ino()) == (own.dev(), own.ino()) => {
                held.0.push(folder);
                return Ok(Some(held));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

/// The path without links of a folder, or of the next one above it that is there.
fn real(path: &Path) -> Option<PathBuf> {
    path.ancestors().find_map(|folder| folder.canonicalize().ok())
}

/// Takes the shared locks of a folder and of those above it. False when a task works in one of them. Those that cannot
/// be opened or locked are passed over.
fn share(folder: &Path, held: &mut Vec<File>) -> bool {
    let real = real(folder).unwrap_or_default();
    real.ancestors().all(|folder| {
        let Ok(folder) = File::open(folder) else { return true };
        let taken = flock(&folder, FlockOperation::NonBlockingLockShared);
        held.push(folder);
        taken != Err(Errno::WOULDBLOCK)
    })
}

/// The process that holds the lock of a folder, or of one around or inside it, for people.
pub(super) fn holder(path: &Path) -> String {
    let real = real(path).unwrap_or_default();
    let pid = real.ancestors().find_map(|folder| {
        // A shared lock says that a task works inside: that matters here, and not above.
        let kind = if folder == real && path.exists() { "" } else { "WRITE" };
        proc::lock_holder(folder, fs::metadata(folder).ok()?.ino(), kind)
    });
    match pid.and_then(proc::stat) {
        Some(process) => format!("pid {} (`{}`)", process.pid, proc::command_line(&process)),
        None => "another process".to_owned(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_by_one_and_its_holder_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let held = lock(&path).unwrap().unwrap();
        assert!(lock(&path).unwrap().is_none());
        #[cfg(target_os = "linux")]
        assert!(holder(&path).starts_with(&format!("pid {} (`", std::process::id())), "{}", holder(&path));
        fs::remove_dir(&path).unwrap();
        let again = lock(&path).unwrap();
        assert!(again.is_some(), "the lock of a folder that is gone holds nobody up");
        drop(held);
        assert!(lock(&path).unwrap().is_none());
    }

    #[test]
    fn no_task_works_around_or_inside_the_folder_of_another() {
        let place = tempfile::tempdir().unwrap();
        let (outer, inner) = (place.path().join("proj"), place.path().join("proj/backend"));
        std::os::unix::fs::symlink(&outer, place.path().join("link")).unwrap();
        let own = format!("pid {} (`", std::process::id());
        for (first, others) in [(&outer, ["proj/backend", "link/backend"]), (&inner, ["proj", "link"])] {
            let held = lock(first).unwrap().unwrap();
            for other in others {
                let other = place.path().join(other);
                assert!(lock(&other).unwrap().is_none(), "{}", other.display());
                #[cfg(target_os = "linux")]
                assert!(holder(&other).starts_with(&own), "{}", holder(&other));
            }
            assert!(first == &inner || !inner.exists(), "nothing is made in the folder of another task");
            assert!(lock(&place.path().join("proj-2")).unwrap().is_some());
            drop(held);
        }
        assert!(lock(&inner.join("..")).unwrap().is_some(), "it is not above itself");
        assert!(lock(&place.path().join("new/..")).unwrap().is_some());
        let held = lock(&inner).unwrap().unwrap();
        assert!(lock(&outer.join("frontend")).unwrap().is_some(), "beside each other");
        drop(held);
        assert!(lock(&outer).unwrap().is_some());
    }
}
