//! The working directory of a task, held by one task at a time: a lock on the opened folder itself, so that it
//! leaves nothing behind and ends with the task agent, however that ends; and its names, since a job may make the folder
//! anew, and its steps may outlive an agent that was killed.
//!
//! The folders above it are held as well, shared with other tasks, so that no task works around or inside the folder of
//! another one: its cleanup would remove what is in there.

use super::folder_names::{self, FolderNames};
use super::mounts::{self, Mount, ways};
use super::places::real;
use crate::system::locks::{self, Lock, Share};
use crate::system::os::{Errno, MetadataExt, about_folder, has_lock, open_folder};
use std::fs::{self, Metadata};
use std::io;
use std::iter::once;
use std::path::{Path, PathBuf};

/// A folder that this process holds, with those above it.
#[derive(Debug)]
pub(super) struct FolderLock {
    locks: Locks,
    names: FolderNames,
}

#[derive(Debug, Default)]
struct Locks {
    all: Vec<Lock>,
    /// Device and number of the folder; `None` where it cannot be locked.
    folder: Option<(u64, u64)>,
}

/// Answer to an attempt at the locks of a folder.
enum Attempt {
    Held(Locks),
    /// Another process has the folder, or one around or inside it.
    Busy,
    /// The folder is not there any more.
    Gone,
}

impl FolderLock {
    /// Has whatever this process starts from now on hold the folder as well. The end of this value lets go of it, and
    /// with a process that is killed it is held until all that it has started has ended, too.
    pub(super) fn hand_on(&mut self) {
        self.names.hand_on();
    }

    /// Sees to it that the lock is on what is at `path` now: a step may have made the folder anew. False when another
    /// process has that. Nothing changes while there is nothing.
    pub(super) fn renew(&mut self, path: &Path) -> io::Result<bool> {
        let Some(folder) = self.locks.folder else { return Ok(true) };
        if fs::metadata(path).is_ok_and(|now| number(&now) == folder) {
            return Ok(true);
        }
        // First, since the new folder may be one of those that are held as folders above.
        self.locks = Locks { all: Vec::new(), folder: Some(folder) };
        match attempt(path, &mounts::all())? {
            Attempt::Held(locks) => self.locks = locks,
            Attempt::Busy => return Ok(false),
            Attempt::Gone => {}
        }
        Ok(true)
    }
}

/// Makes the folder, with those above it, and takes its lock. `None` when another process has it, or one around or
/// inside it; then nothing was made.
pub(super) fn lock(path: &Path) -> io::Result<Option<FolderLock>> {
    loop {
        let (meant, mut above) = (real(path), Locks::default());
        // A mount that is made meanwhile is made too late for whoever has the lock, too.
        let mounts = mounts::all();
        let ways = ways(&meant, &mounts);
        let Some(mut names) = FolderNames::take(&ways) else { return Ok(None) };
        // The first way has its links no more, which may lead elsewhere in a moment.
        let mut ways = once(path).chain(ways.iter().skip(1).map(PathBuf::as_path));
        if !share(&mut ways, &mut above.all) {
            return Ok(None);
        }
        let is_new = !meant.parent().is_some_and(Path::exists);
        fs::create_dir_all(path)?;
        // With `..` at its end, the folder itself is among those that its text has above it.
        drop(above);
        // A folder whose parent was not there yet had no names.
        let made = path.canonicalize().unwrap_or_else(|_| meant.clone());
        if is_new || made != meant {
            drop(names);
            match FolderNames::take(&mounts::ways(&made, &mounts)) {
                Some(taken) => names = taken,
                None => return Ok(None),
            }
        }
        match attempt(path, &mounts)? {
            Attempt::Held(locks) => return Ok(Some(FolderLock { locks, names })),
            Attempt::Busy => return Ok(None),
            Attempt::Gone => {}
        }
    }
}

/// Takes the locks of a folder that is there, and of those above it.
fn attempt(path: &Path, mounts: &[Mount]) -> io::Result<Attempt> {
    let mut held = Locks::default();
    // The way to it may have changed, and lead through links.
    if !share(&mut ways(&real(path), mounts).iter().map(PathBuf::as_path), &mut held.all) {
        return Ok(Attempt::Busy);
    }
    let folder = match open_folder(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Attempt::Gone),
        // A folder that may be entered, but not listed, cannot be opened, and steps can work there.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(Attempt::Held(held)),
        opened => opened?,
    };
    let folder = match locks::try_take(folder, Share::Alone) {
        Ok(folder) => folder,
        Err(Errno::WOULDBLOCK) => return Ok(Attempt::Busy),
        Err(error) => {
            // Some network file systems lock no folders; hosts that work alone there are not to suffer.
            log::warn!("cannot lock `{}`: {error}; another task could work there, too", path.display());
            return Ok(Attempt::Held(held));
        }
    };
    // The process that held it may have removed it meanwhile: then the lock is on a folder that nobody can reach.
    let own = number(&about_folder(&folder, path)?);
    match fs::metadata(path) {
        Ok(named) if number(&named) == own => {
            held.all.push(folder);
            held.folder = Some(own);
            Ok(Attempt::Held(held))
        }
        Ok(_) => Ok(Attempt::Gone),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Attempt::Gone),
        Err(error) => Err(error),
    }
}

fn number(about: &Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

/// Takes the shared locks of the folders above one, on all ways to it. False when a task works in one of them. Those that
/// cannot be opened or locked are passed over.
fn share(ways: &mut dyn Iterator<Item = &Path>, held: &mut Vec<Lock>) -> bool {
    ways.filter_map(Path::parent).all(|folder| {
        real(folder).ancestors().all(|folder| {
            let taken = take_shared(folder);
            let is_free = !matches!(taken, Some(Err(Errno::WOULDBLOCK)));
            held.extend(taken.into_iter().flatten());
            is_free
        })
    })
}

/// The shared lock of a folder; `None` of one that cannot be opened.
fn take_shared(folder: &Path) -> Option<Result<Lock, Errno>> {
    Some(locks::try_take(open_folder(folder).ok()?, Share::WithOthers))
}

/// Whether another process works in a folder, as far as its lock tells.
pub(super) fn is_held(folder: &Path) -> bool {
    has_lock(folder) && matches!(take_shared(folder), Some(Err(Errno::WOULDBLOCK)))
}

/// Names the tasks that hold a folder, or one around or inside it, for people.
pub(super) fn holder(path: &Path) -> String {
    folder_names::holder(&ways(&real(path), &mounts::all()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::folder_names::soon;
    use super::*;
    use std::fs::File;

    /// Takes a folder that nobody holds, if need be in a moment.
    fn take(path: &Path) -> FolderLock {
        soon(|| lock(path).unwrap()).unwrap()
    }

    fn is_free(path: &Path) -> bool {
        soon(|| lock(path).unwrap()).is_some()
    }

    #[test]
    fn a_folder_is_held_by_one_and_its_holder_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let held = take(&path);
        assert!(lock(&path).unwrap().is_none());
        #[cfg(target_os = "linux")]
        {
            // Arguments of the task agent may hold secrets of its task.
            let own = crate::system::proc::stat(std::process::id() as i32).unwrap();
            assert_eq!(holder(&path), format!("pid {} (`{}`)", own.pid, own.name));
        }
        drop(held);
        assert!(is_free(&path));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_bind_mount_of_a_folder_inside_is_held_with_those_around_what_it_shows() {
        let test = "executor::folder::tests::a_bind_mount_of_a_folder_inside_is_held_with_those_around_what_it_shows";
        let Some(place) = mounts::in_namespace(test, "mkdir -p x/wd/inner b; mount --bind x/wd/inner b")
        else {
            return;
        };
        for (first, second) in [("x/wd", "b"), ("b", "x/wd"), ("x/wd", "b/w"), ("b/w", "x/wd"), ("b", "x")] {
            let (first, second) = (place.join(first), place.join(second));
            let mut held = take(&first);
            assert!(lock(&second).unwrap().is_none(), "{} beside {}", second.display(), first.display());
            assert!(holder(&second).starts_with(&format!("pid {} (`", std::process::id())));
            // Names alone are left, as after the end of an agent that was killed.
            held.locks.all.clear();
            assert!(lock(&second).unwrap().is_none(), "{} after {}", second.display(), first.display());
            assert!(is_free(&place.join("y")));
            drop(held);
            assert!(is_free(&second), "{}", second.display());
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_folder_that_was_made_anew_is_still_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let mut held = take(&path);
        for gone in [path.clone(), folder.path().join("a")] {
            fs::remove_dir_all(&gone).unwrap();
            assert!(lock(&path).unwrap().is_none() && lock(&folder.path().join("a")).unwrap().is_none());
            assert!(!gone.exists(), "nothing is made in the place of another task");
            assert!(held.renew(&path).unwrap(), "there is nothing");
            fs::create_dir_all(&path).unwrap();
            assert!(lock(&path).unwrap().is_none() && lock(&path.join("c")).unwrap().is_none());
            assert!(held.renew(&path).unwrap());
        }
        drop(held);
        assert!(is_free(&path));
    }

    #[test]
    fn the_lock_of_a_folder_goes_over_to_what_is_in_its_place_unless_another_process_has_that() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w");
        let exclusive = |path: &Path| {
            let folder = File::open(path).unwrap();
            locks::try_take(folder, Share::Alone)
        };
        let mut held = take(&path);
        assert!(exclusive(&path).is_err());
        // A lock of another container, for which there are no names of this one.
        fs::rename(&path, folder.path().join("old")).unwrap();
        fs::create_dir(&path).unwrap();
        let other = exclusive(&path).unwrap();
        assert!(!held.renew(&path).unwrap() && !held.renew(&path).unwrap());
        drop(other);
        assert!(held.renew(&path).unwrap());
        assert!(exclusive(&path).is_err());
    }

    #[test]
    fn a_fifo_in_the_place_of_the_folder_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w");
        let mut held = take(&path);
        fs::remove_dir(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let _ = held.renew(&path);
    }

    #[test]
    fn no_task_works_around_or_inside_the_folder_of_another() {
        let place = tempfile::tempdir().unwrap();
        let (outer, inner) = (place.path().join("proj"), place.path().join("proj/backend"));
        std::os::unix::fs::symlink(&outer, place.path().join("link")).unwrap();
        let own = format!("pid {} (`", std::process::id());
        for (first, others) in [(&outer, ["proj/backend", "link/backend"]), (&inner, ["proj", "link"])] {
            let held = take(first);
            for other in others {
                let other = place.path().join(other);
                assert!(lock(&other).unwrap().is_none(), "{}", other.display());
                #[cfg(target_os = "linux")]
                assert!(holder(&other).starts_with(&own), "{}", holder(&other));
            }
            assert!(first == &inner || !inner.exists(), "nothing is made in the folder of another task");
            assert!(is_free(&place.path().join("proj-2")));
            drop(held);
        }
        assert!(is_free(&inner.join("..")), "it is not above itself");
        let around = place.path().join("new/..");
        assert!(is_free(&around), "{}", holder(&around));
        let held = take(&inner);
        assert!(is_free(&outer.join("frontend")), "beside each other");
        drop(held);
        assert!(is_free(&outer));
    }
}
