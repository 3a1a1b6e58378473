//! Locks that keep a second process off the same files: the machine runner's state, the control plane's
//! data, the folder of a task.

use super::os::{self, Errno};
use std::fs::File;
use std::ops::Deref;
use std::time::{Duration, Instant};

/// How long a lock may be held by someone who is about to let go of it: a process that was just forked
/// holds the files of its parent until it becomes the program that it was forked for, even when the
/// parent has ended meanwhile.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause between two tries.
const LOOK: Duration = Duration::from_millis(20);

/// A file whose lock this process has. It ends with this value, even while a process that was just forked still
/// holds the file.
#[derive(Debug)]
pub struct Lock(File);

impl Deref for Lock {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        os::unlock(&self.0);
    }
}

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Held by nobody else.
    Alone,
    /// Held by all who hold it with others.
    WithOthers,
}

/// Takes the lock of a file or folder at once. [`Errno::WOULDBLOCK`] when somebody else has it; other errors are of file
/// systems that lock nothing.
pub fn try_take(file: File, share: Share) -> Result<Lock, Errno> {
    try_lock(&file, share).map(|()| Lock(file))
}

fn try_lock(file: &File, share: Share) -> Result<(), Errno> {
    os::try_lock(file, share == Share::WithOthers)
}

/// Takes the lock of a file. The file comes back when somebody else has its lock and keeps it.
pub fn take(file: File) -> Result<Lock, File> {
    if take_within(&file, PATIENCE) { Ok(Lock(file)) } else { Err(file) }
}

/// Whether nobody has the lock of a file. It is not kept.
pub fn is_free(file: &File) -> bool {
    let is_free = try_lock(file, Share::WithOthers).is_ok();
    os::unlock(file);
    is_free
}

fn take_within(file: &File, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        match try_lock(file, Share::Alone) {
            Ok(()) => return true,
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(LOOK),
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_its_value_whoever_still_holds_the_file() {
        let file = tempfile::tempfile().unwrap();
        let forked = file.try_clone().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&forked));
        let other = File::open(path).unwrap();
        let lock = take(file).unwrap();
        assert!(!is_free(&other));
        drop(lock);
        assert!(is_free(&other));
    }

    #[test]
    fn a_lock_that_is_let_go_soon_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let open = || File::options().create(true).append(true).open(folder.path().join("lock")).unwrap();
        let (first, second, third) = (open(), open(), open());
        let lock = take(first).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| take_within(&second, Duration::from_secs(300)));
            std::thread::sleep(3 * LOOK);
            drop(lock);
            assert!(waiting.join().unwrap());
        });
        assert!(!take_within(&third, LOOK), "the other one keeps it");
    }
}
