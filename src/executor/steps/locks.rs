//! Locks that git makes in a repository, and leaves where it is killed.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

/// Removes the lock files of a repository that are older than the task, and tells of each. They are of a git
/// that was killed: nothing survives a task, and a git of this one has made its locks since.
pub(super) fn remove_locks(
    repository: &Path,
    began: SystemTime,
    tell: &mut dyn FnMut(&Path, io::Result<()>),
) {
    each_lock(repository, &mut |path, at| {
        if at < began {
            tell(path, fs::remove_file(path));
        }
    });
}

/// Whether a git may be at work in a repository: what it has there is its own until it ends.
pub(super) fn is_locked(repository: &Path) -> bool {
    let mut locked = false;
    each_lock(repository, &mut |_, _| locked = true);
    locked
}

/// Tells the path and the age of every lock file of a repository. A reference may not be called like one, so among
/// references only locks are.
fn each_lock(repository: &Path, see: &mut dyn FnMut(&Path, SystemTime)) {
    fn walk(folder: &Path, deep: bool, see: &mut dyn FnMut(&Path, SystemTime)) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(about) = entry.metadata() else { continue };
            if about.is_dir() && deep {
                walk(&path, deep, see);
            } else if path.extension().is_some_and(|e| e == "lock") && about.is_file() {
                see(&path, about.modified().unwrap_or_else(|_| SystemTime::now()));
            }
        }
    }
    walk(repository, false, see);
    walk(&repository.join("refs"), true, see);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set up its files should fail loudly")]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_locks_from_before_the_task_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("refs/heads/deep")).unwrap();
        let began = SystemTime::now();
        let make = |name: &str, age: u64| {
            let file = fs::File::create(folder.path().join(name)).unwrap();
            file.set_modified(began - Duration::from_secs(age)).unwrap();
        };
        let locks = ["HEAD.lock", "index.lock", "refs/heads/deep/main.lock"];
        locks.iter().for_each(|name| make(name, 60));
        make("shallow.lock", 0);
        make("index", 60);
        let mut removed = Vec::new();
        remove_locks(folder.path(), began, &mut |path, outcome| {
            outcome.unwrap();
            removed.push(path.strip_prefix(folder.path()).unwrap().display().to_string());
        });
        removed.sort();
        assert_eq!(removed, locks);
        assert!(folder.path().join("shallow.lock").exists() && folder.path().join("index").exists());
        assert!(is_locked(folder.path()));
        fs::remove_file(folder.path().join("shallow.lock")).unwrap();
        assert!(!is_locked(folder.path()));
    }
}
