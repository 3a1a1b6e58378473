//! Room in memory for output while the disk takes nothing: so little that no host feels it, and enough for a job that has
//! filled the disk itself to say so and to end. Without it such a job would wait for room that only its end can make.

use crate::system::fault::is_full;
use crate::system::os;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Most bytes of a step that are held in memory.
const MOST: u64 = 256 * 1024;

/// A file without a disk, in which bytes have the same places as in the spool.
#[derive(Clone, Debug)]
pub(super) struct Spare {
    file: Arc<File>,
    /// Place of the first byte in here.
    pub(super) start: u64,
    /// Length of the file on the disk, which has the bytes before.
    pub(super) on_disk: u64,
}

impl Spare {
    /// One for what comes at `start`; `error` is that of the disk, and the answer where there is no memory either.
    pub(super) fn instead(error: io::Error, start: u64, on_disk: u64) -> io::Result<Self> {
        match is_full(&error).then(|| os::file_in_memory("runlet-output")).flatten() {
            Some(file) => Ok(Self { file: Arc::new(file), start, on_disk }),
            None => Err(error),
        }
    }

    /// Writes some of the bytes at `at`, where all before is in here; what lies below `freed` is not wanted any more.
    pub(super) fn write(&self, bytes: &[u8], at: u64, freed: u64) -> io::Result<usize> {
        let held = at - self.start.max(freed).min(at);
        match usize::try_from(MOST.saturating_sub(held)).unwrap_or(usize::MAX) {
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
