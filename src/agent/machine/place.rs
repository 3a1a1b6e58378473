//! The lock that keeps a second runner off a working directory. It is held for as long as the runner lives; the task
//! agent's own lock, on the folder itself, is held for a task.
//!
//! It is a file beside the working directory, since that may be removed after a task, and one in the state directory,
//! since what is beside may not be written to.

use crate::system::hex;
use crate::system::locks::{self, Lock};
use crate::system::opening::{self, open_regular};
use crate::system::os::OpenOptionsExt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Longest text of a lock file that is read, in bytes.
const LONGEST_TEXT: u64 = 8192;

/// Held by this process.
pub(super) struct PlaceLock {
    _locks: Vec<Lock>,
}

/// Takes the locks of a working directory. The error names who has it, or one around or inside it, for people.
pub(super) fn take(working_directory: &Path, state_directory: Option<&Path>) -> Result<PlaceLock, String> {
    let taken = |path: &Path| {
        let holder = holder(path).map_or_else(String::new, |pid| format!(" with pid {pid}"));
        format!(
            "the working directory `{}` is that of another runner{holder}, or around or inside it, and each would remove files of the other: give this one a `runner.working_directory` of its own (lock: `{}`)",
            working_directory.display(),
            path.display()
        )
    };
    let mut held = Vec::new();
    for path in files(working_directory, state_directory) {
        let Some(file) = open(&path) else { continue };
        let Ok(lock) = locks::take(file) else { return Err(taken(&path)) };
        // An older text, or none, only makes a message poorer.
        let text = format!("{}\n{}\n", std::process::id(), real(working_directory).display());
        let _ = lock.set_len(0).and_then(|()| (&*lock).write_all(text.as_bytes()));
        held.push(lock);
    }
    let own = std::process::id();
    let mut near = near(working_directory, state_directory).into_iter();
    // A runner that gets another working directory still has its old one.
    match near.find(|path| is_held(path) && holder(path) != Some(own)) {
        Some(path) => Err(taken(&path)),
        None => Ok(PlaceLock { _locks: held }),
    }
}

/// Finds another process that holds a working directory, or one around or inside it.
pub(in crate::agent) fn held_by(
    working_directory: &Path,
    state_directory: Option<&Path>,
    own: Option<u32>,
) -> Option<u32> {
    let mut all = files(working_directory, state_directory);
    all.extend(near(working_directory, state_directory));
    all.iter().filter(|path| is_held(path)).filter_map(|path| holder(path)).find(|pid| own != Some(*pid))
}

/// Whether a lock is taken. One that cannot be opened may be years old, and is passed over as in [`take`].
fn is_held(path: &Path) -> bool {
    open_regular(path).is_ok_and(|file| !locks::is_free(&file))
}

/// The process that a lock file names.
pub(in crate::agent) fn holder(path: &Path) -> Option<u32> {
    text(path).lines().next()?.trim().parse().ok()
}

fn text(path: &Path) -> String {
    let mut text = String::new();
    let _ = open_regular(path).and_then(|file| file.take(LONGEST_TEXT).read_to_string(&mut text));
    text
}

fn real(working_directory: &Path) -> PathBuf {
    fs::canonicalize(working_directory).unwrap_or_else(|_| working_directory.to_owned())
}

/// The lock files of working directories around and inside this one. Those inside are known by the state directory.
fn near(working_directory: &Path, state_directory: Option<&Path>) -> Vec<PathBuf> {
    let place = real(working_directory);
    let mut found: Vec<_> =
        place.ancestors().skip(1).flat_map(|around| files(around, state_directory)).collect();
    let known = state_directory.and_then(|state| fs::read_dir(state).ok()).into_iter().flatten().flatten();
    found.extend(known.map(|entry| entry.path()).filter(|path| {
        let is_place = path.extension().is_some_and(|end| end == "lock");
        is_place
            && text(path).lines().nth(1).is_some_and(|other| {
                let other = Path::new(other);
                other != place && other.starts_with(&place)
            })
    }));
    found
}

fn files(working_directory: &Path, state_directory: Option<&Path>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let parent = working_directory.parent().and_then(|parent| fs::canonicalize(parent).ok());
    if let (Some(parent), Some(name)) = (&parent, working_directory.file_name()) {
        files.push(parent.join(format!(".{}.runlet-lock", name.to_string_lossy())));
    }
    let place = real(working_directory);
    let digest = ring::digest::digest(&ring::digest::SHA256, place.as_os_str().as_encoded_bytes());
    files.extend(
        state_directory.map(|state| state.join(format!("place-{}.lock", hex(&digest.as_ref()[..8])))),
    );
    files
}

/// Opens or makes the file of a lock; `None` where the system refuses.
fn open(path: &Path) -> Option<File> {
    let mut open = OpenOptions::new();
    open.read(true).write(true).create(true).truncate(false).mode(0o644);
    // Another user's file cannot be written, but can be locked when it is opened for reading.
    opening::open(path, &mut open).or_else(|_| open_regular(path)).ok()
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
        assert_eq!(held_by(&work, Some(&state), None), Some(std::process::id()));
        assert_eq!(held_by(&work, Some(&state), Some(std::process::id())), None);
        drop(held);
        assert_eq!(held_by(&work, Some(&state), None), None);
        // No lock file can be written beside `/proc/self/work`: the state directory tells.
        let away = Path::new("/proc/self/work");
        let held = take(away, Some(&state)).unwrap();
        assert!(take(away, Some(&state)).is_err());
        assert!(take(away, None).is_ok());
        drop(held);
        assert!(take(away, Some(&state)).is_ok());
    }

    #[test]
    fn a_working_directory_is_neither_around_nor_inside_that_of_another_runner() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        fs::create_dir(&state).unwrap();
        let (outer, inner) = (directory.path().join("work"), directory.path().join("work/inner"));
        fs::create_dir_all(&inner).unwrap();
        for (first, second) in [(&outer, &inner), (&inner, &outer)] {
            let held = take(first, Some(&state)).unwrap();
            // Locks are taken as if by another process.
            for path in files(first, Some(&state)) {
                fs::write(path, format!("1\n{}\n", first.display())).unwrap();
            }
            let error = take(second, Some(&state)).err().unwrap();
            assert!(error.contains("with pid 1, or around or inside it"), "{error}");
            assert_eq!(held_by(second, Some(&state), None), Some(1));
            assert!(take(&directory.path().join("work-2"), Some(&state)).is_ok());
            drop(held);
            assert!(take(second, Some(&state)).is_ok());
        }
        // A socket cannot be opened, as a file of another user may not be.
        let lock = directory.path().join(".work.runlet-lock");
        fs::remove_file(&lock).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(&lock).unwrap();
        assert!(take(&inner, Some(&state)).is_ok());
    }
}
