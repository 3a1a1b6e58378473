//! The working directory of a task, held by one task at a time: a lock on the opened folder itself, so that it
//! leaves nothing behind and ends with the task agent, however that ends.

use crate::system::proc;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A folder that this process holds.
#[derive(Debug)]
pub(super) struct FolderLock(#[expect(dead_code, reason = "the lock ends with the file")] Option<File>);

/// Makes the folder, with those above it, and takes its lock. `None` when another process has it.
pub(super) fn lock(path: &Path) -> io::Result<Option<FolderLock>> {
    loop {
        fs::create_dir_all(path)?;
        let folder = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // One that may be entered and written to, but not listed, cannot be opened, and steps can work there.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Ok(Some(FolderLock(None)));
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
                return Ok(Some(FolderLock(None)));
            }
        }
        // The process that held it may have removed it meanwhile: then the lock is on a folder that nobody can reach.
        let (held, named) = (folder.metadata()?, fs::metadata(path));
        match named {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => {
                return Ok(Some(FolderLock(Some(folder))));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

/// The process that holds the lock of a folder, for people.
pub(super) fn holder(path: &Path) -> String {
    let real = fs::canonicalize(path).ok();
    let pid = real.and_then(|real| proc::lock_holder(&real, fs::metadata(&real).ok()?.ino()));
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
        assert!(lock(&folder.path().join("a")).unwrap().is_some(), "a folder above is another one");
        fs::remove_dir(&path).unwrap();
        let again = lock(&path).unwrap();
        assert!(again.is_some(), "the lock of a folder that is gone holds nobody up");
        drop(held);
        assert!(lock(&path).unwrap().is_none());
    }
}
