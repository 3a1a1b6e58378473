//! The end of an overlong output: a file of a fixed size that is written round and round, so that it holds the last
//! bytes whatever comes.
//!
//! It begins with two numbers of eight bytes, which a runner needs that comes upon it later: its room, and how much
//! was written in all.

use crate::system::os::FileExt;
use crate::system::{opening, os};
use std::fs::File;
use std::io;
use std::path::Path;

/// Length of the numbers at the front.
const FRONT: u64 = 16;
/// Less room than this is not worth a file.
const LEAST: u64 = 4 * 1024;

/// The last bytes of an output.
pub(super) struct Tail {
    file: File,
    room: u64,
    written: u64,
    taken: u64,
}

impl Tail {
    /// A tail of so many bytes, or of as many as the disk has room for; `None` when that is next to nothing, or it is
    /// to hold none.
    pub(super) fn create(path: &Path, bytes: u64) -> Option<Self> {
        if bytes == 0 {
            return None;
        }
        let mut room = bytes;
        loop {
            let made = opening::create(path).and_then(|file| os::reserve(&file, FRONT + room).map(|()| file));
            match made {
                Ok(file) => return Some(Self { file, room, written: 0, taken: 0 }),
                Err(_) if room / 2 >= LEAST => room /= 2,
                Err(error) => {
                    log::warn!("no room for the end of an overlong output in `{}`: {error}", path.display());
                    let _ = std::fs::remove_file(path);
                    return None;
                }
            }
        }
    }

    /// Opens the end that another process has left behind.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = opening::open(path, File::options().read(true))?;
        let mut front = [0; FRONT as usize];
        file.read_exact_at(&mut front, 0)?;
        let number =
            |at: usize| front[at..at + 8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let (room, written) = (number(0), number(8));
        // A front that was not written to the end says that there is nothing.
        Ok(Self { file, room: room.max(1), written: if room == 0 { 0 } else { written }, taken: 0 })
    }

    /// Bytes that were written and are not here any more.
    pub(super) fn dropped(&self) -> u64 {
        self.written.saturating_sub(self.room)
    }

    /// Takes all bytes, or none of them for good.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut at = self.written;
        let mut left = bytes;
        while !left.is_empty() {
            let place = at % self.room;
            let most = usize::try_from(self.room - place).unwrap_or(usize::MAX);
            let (now, later) = left.split_at(left.len().min(most));
            self.file.write_all_at(now, FRONT + place)?;
            at += now.len() as u64;
            left = later;
        }
        self.file.write_all_at(&[self.room.to_le_bytes(), at.to_le_bytes()].concat(), 0)?;
        self.written = at;
        Ok(())
    }

    /// The next bytes from the oldest on, at most `most`; none when all were taken.
    pub(super) fn peek(&self, most: usize) -> io::Result<Vec<u8>> {
        let at = self.dropped() + self.taken;
        let place = at % self.room;
        let left = (self.written - at).min(self.room - place);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(most).min(most)];
        self.file.read_exact_at(&mut bytes, FRONT + place)?;
        Ok(bytes)
    }

    /// Notes that so many of them were taken.
    pub(super) fn took(&mut self, bytes: usize) {
        self.taken += bytes as u64;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(tail: &mut Tail) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let bytes = tail.peek(7).unwrap();
            if bytes.is_empty() {
                return all;
            }
            tail.took(bytes.len());
            all.extend(bytes);
        }
    }

    proptest! {
        #[test]
        fn the_last_bytes_are_there_in_order(pieces in proptest::collection::vec(0usize..40, 0..12), room in 1u64..50) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("0.tail");
            let mut tail = Tail::create(&path, room).unwrap();
            let mut wrote = Vec::new();
            for length in pieces {
                let piece: Vec<u8> = (0..length).map(|n| (wrote.len() + n) as u8).collect();
                tail.write(&piece).unwrap();
                wrote.extend(piece);
            }
            let kept = wrote.len().min(room as usize);
            prop_assert_eq!(tail.dropped() as usize, wrote.len() - kept);
            let mut found = if wrote.is_empty() { tail } else { Tail::open(&path).unwrap() };
            prop_assert_eq!(all(&mut found), &wrote[wrote.len() - kept..]);
        }
    }
}
