//! Errors of the system that are faults of the host: whatever was asked for, and whoever asked, is not to blame.

use super::os::{Errno, StatVfs, statvfs};
use std::io;
use std::path::Path;

/// Advice for the operator about an error that is the host's own; `None` for any other, such as a missing file.
pub fn advice(error: &io::Error) -> Option<&'static str> {
    match Errno::from_io_error(error)? {
        Errno::NOSPC | Errno::DQUOT => {
            Some("free some space on the host of the runner, or give the runner's user more of it")
        }
        Errno::IO => Some("its disk may be failing: see the kernel's log of the host"),
        Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE => Some(
            "the host has no processes, memory or open files left for it: raise the limits of the runner's service, or run less there",
        ),
        _ => None,
    }
}

/// Whether an error says that the disk takes no more for now.
pub fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

/// The error that a program means whose words are these, if it is one of the host's disk.
pub fn of_disk(words: &[u8]) -> Option<io::Error> {
    let says = |text: &&str| words.windows(text.len()).any(|part| part == text.as_bytes());
    let texts = ["No space left on device", "Disk quota exceeded", "Input/output error"];
    let errors = [Errno::NOSPC, Errno::DQUOT, Errno::IO];
    texts.iter().position(says).map(|at| errors[at].into())
}

/// The error of a disk that has no room or no files left, if the one of this path is such.
pub fn full_at(path: &Path) -> Option<io::Error> {
    // Some file systems count no files.
    let is_full = |disk: &StatVfs| disk.f_bavail == 0 || disk.f_files > 0 && disk.f_favail == 0;
    match statvfs(path) {
        Ok(disk) if is_full(&disk) => Some(Errno::NOSPC.into()),
        _ => None,
    }
}

/// The space that a disk has left, behind an error of it, for people: ` (0 bytes and 12 inodes are left)`. Empty where it cannot be
/// told.
pub fn left_at(path: &Path) -> String {
    let Ok(disk) = statvfs(path) else { return String::new() };
    let bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    // Some file systems count no files.
    let inodes = if disk.f_files > 0 { format!(" and {} inodes", disk.f_favail) } else { String::new() };
    format!(" ({bytes} bytes{inodes} are left)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_say_what_is_wrong_with_the_disk() {
        let kind = |words: &str| of_disk(words.as_bytes()).map(|error| error.raw_os_error());
        let full = Some(Errno::NOSPC.raw_os_error());
        assert_eq!(kind("fatal: write error: No space left on device\n").flatten(), full);
        assert!(kind("fatal: not a git repository").is_none() && kind("").is_none());
        assert!(full_at(Path::new("/nowhere/at/all")).is_none());
    }

    #[test]
    fn a_host_is_to_blame_for_what_it_lacks_and_not_for_what_is_asked_of_it() {
        for (errno, blamed, full) in [
            (Errno::NOSPC, true, true),
            (Errno::DQUOT, true, true),
            (Errno::IO, true, false),
            (Errno::MFILE, true, false),
            (Errno::ACCESS, false, false),
            (Errno::NOENT, false, false),
        ] {
            let error = io::Error::from(errno);
            assert_eq!((advice(&error).is_some(), is_full(&error)), (blamed, full), "{error}");
        }
        assert!(advice(&io::Error::other("words")).is_none());
    }
}
