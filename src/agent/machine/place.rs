//! The lock that keeps a second runner off a working directory. It is held for as long as the runner lives; the task
//! agent's own lock, on the folder itself, is held for a task.
//!
//! It is a file beside the working directory, since that may be removed after a task, and one in the state directory,
//! since what is beside may not be written to.

use crate::system::{hex, locks};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Held by this process.
pub(super) struct PlaceLock {
    _locks: Vec<File>,
}

/// Takes the locks of a working directory. The error names who has it, for people.
pub(super) fn take(working_directory: &Path, state_directory: Option<&Path>) -> Result<PlaceLock, String> {
    let mut held = Vec::new();
    for path in files(working_directory, state_directory) {
        let Some(mut file) = open(&path) else { continue };
        if !locks::take(&file) {
            let holder = holder(&path).map_or_else(String::new, |pid| format!(" with pid {pid}"));
            return Err(format!(
                "the working directory `{}` is that of another runner{holder}, and each would remove files of the other: give this one a `runner.working_directory` of its own (lock: `{}`)",
                working_directory.display(),
                path.display()
            ));
        }
        // An older number, or none, only makes a message poorer.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        held.push(file);
    }
    Ok(PlaceLock { _locks: held })
}

/// The process that holds a working directory, if any does.
pub(in crate::agent) fn held_by(working_directory: &Path, state_directory: Option<&Path>) -> Option<u32> {
    files(working_directory, state_directory).iter().find_map(|path| {
        let is_free = File::open(path).is_ok_and(|file| locks::is_free(&file));
        if is_free || !path.exists() { None } else { holder(path) }
    })
}

/// The process that a lock file names.
pub(in crate::agent) fn holder(path: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(path).ok()?.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn files(working_directory: &Path, state_directory: Option<&Path>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let parent = working_directory.parent().and_then(|parent| fs::canonicalize(parent).ok());
    if let (Some(parent), Some(name)) = (&parent, working_directory.file_name()) {
        files.push(parent.join(format!(".{}.runlet-lock", name.to_string_lossy())));
    }
    let place = fs::canonicalize(working_directory).unwrap_or_else(|_| working_directory.to_owned());
    let digest = ring::digest::digest(&ring::digest::SHA256, place.as_os_str().as_encoded_bytes());
    files.extend(
        state_directory.map(|state| state.join(format!("place-{}.lock", hex(&digest.as_ref()[..8])))),
    );
    files
}

/// `None` where no lock can be had.
fn open(path: &Path) -> Option<File> {
    let mut open = OpenOptions::new();
    open.read(true).write(true).create(true).truncate(false).mode(0o644);
    // That of another user can be locked all the same.
    open.open(path).or_else(|_| File::open(path)).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_working_directory_is_for_one_runner() {
        let directory = tempfile::tempdir().unwrap();
        let (work, state) = (directory.path().join("work"), directory.path().join("state"));
        fs::create_dir(&state).unwrap();
        let held = take(&work, Some(&state)).unwrap();
        let error = take(&work, None).err().unwrap();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        assert!(take(&directory.path().join("other"), Some(&state)).is_ok());
        assert_eq!(held_by(&work, Some(&state)), Some(std::process::id()));
        drop(held);
        assert_eq!(held_by(&work, Some(&state)), None);
        // Nothing can be written beside it: the state directory tells.
        let away = Path::new("/proc/self/work");
        let held = take(away, Some(&state)).unwrap();
        assert!(take(away, Some(&state)).is_err());
        assert!(take(away, None).is_ok());
        drop(held);
        assert!(take(away, Some(&state)).is_ok());
    }
}
