//! Room in memory for output while the disk takes nothing: so little that no host feels it, and enough for a job that has
//! filled the disk itself to say so and to end. Without it such a job would wait for room that only its end can make.

use crate::system::fault::is_full;
use crate::system::os::{self, Errno, FileExt};
use std::fs::File;
use std::io;
use std::sync::Arc;

/// Most bytes of a step that are held in memory.
pub(super) const MOST: u64 = 256 * 1024;

/// A file without a disk, in which bytes have the same places as in the spool.
#[derive(Clone, Debug)]
pub(super) struct Spare {
    pub(super) file: Arc<File>,
    /// Place of the first byte in here.
    pub(super) start: u64,
    /// Length of the file on the disk, which has the bytes before.
    pub(super) on_disk: u64,
    /// There is no file on the disk.
    pub(super) stays: bool,
}

impl Spare {
    /// Makes one for the bytes from `start` on; `error` is that of the disk, and is returned without memory.
    pub(super) fn instead(error: io::Error, start: u64, on_disk: u64) -> io::Result<Self> {
        match is_full(&error).then(|| os::file_in_memory("runlet-output")).flatten() {
            Some(file) => Ok(Self { file: Arc::new(file), start, on_disk, stays: false }),
            None => Err(error),
        }
    }

    /// Writes some of the bytes at `at`, where all before is in here, and `most` at once; what lies below `freed` is not
    /// wanted any more.
    pub(super) fn write(&self, bytes: &[u8], at: u64, freed: u64, most: u64) -> io::Result<usize> {
        let held = at - self.start.max(freed).min(at);
        match usize::try_from(most.saturating_sub(held)).unwrap_or(usize::MAX) {
            0 => Err(Errno::NOSPC.into()),
            room => self.file.write_at(&bytes[..bytes.len().min(room)], at),
        }
    }

    pub(super) fn read(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(bytes, at)
    }

    /// Gives back what lies below `offset`.
    pub(super) fn free(&self, offset: u64) {
        os::free_below(&self.file, offset);
    }
}

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::super::spool::Spool;
    use super::*;
    use std::path::Path;

    #[test]
    fn output_without_a_file_goes_through_a_little_memory() {
        let error = || io::Error::from(Errno::NOSPC);
        let mut spool = Spool::in_memory(error(), Path::new("/nowhere/x"), 1 << 30).unwrap();
        let mut reader = spool.reader().unwrap();
        let bytes: Vec<u8> = (0..600_000u32).map(|n| n as u8).collect();
        let (mut at, mut seen) = (0, 0);
        while at < bytes.len() {
            match spool.write(&bytes[at..]) {
                Ok(taken) => at += taken,
                Err(error) => {
                    assert!(is_full(&error) && at > seen, "{error}");
                    assert_eq!(reader.read(seen as u64, at - seen), &bytes[seen..at]);
                    seen = at;
                    reader.free(at as u64, 1);
                }
            }
        }
        assert!(seen > 0 && !spool.is_on_disk() && !reader.is_damaged());
        let other = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(Spool::in_memory(other, Path::new("x"), 1).is_err());
    }
}
