//! An output or an upload that was opened to be read piece by piece: its length is that of the moment at which it was opened,
//! and whoever reads it holds one piece at a time.

use crate::protocol::TaskId;
use crate::server::blobs::disk::{Error, io_error, read_piece};
use crate::server::blobs::objects::Objects;
use crate::server::blobs::outputs::Outputs;
use crate::server::blobs::rows::OutputPlace;
use std::fs::File;
use std::io;
use std::path::PathBuf;

/// Bytes of an output or an upload from its beginning to where it ended when it was opened.
#[derive(Debug)]
pub struct Stretch {
    /// Nowhere is a step that has written nothing.
    place: OutputPlace,
    path: PathBuf,
    length: u64,
}

impl Outputs {
    /// Opens a step's output; one that nobody has sent anything of is empty.
    pub fn open(&self, task: &TaskId, step: u32) -> Result<Stretch, Error> {
        let path = self.path(task, step);
        match self.place(task, step)? {
            OutputPlace::File(file) => Stretch::of(file, path),
            OutputPlace::Row(bytes) => {
                Ok(Stretch { length: bytes.len() as u64, place: OutputPlace::Row(bytes), path })
            }
            OutputPlace::Nowhere => Ok(Stretch { place: OutputPlace::Nowhere, path, length: 0 }),
        }
    }
}

impl Objects {
    /// Opens a complete upload.
    pub fn open(&self, sha256: &str) -> Result<Stretch, Error> {
        Stretch::of(self.file(sha256)?, self.path(sha256)?)
    }

    /// Opens a complete upload as a file, for parsers that ask for bytes themselves.
    pub fn file(&self, sha256: &str) -> Result<File, Error> {
        let path = self.path(sha256)?;
        File::open(&path).map_err(|error| read_error(&path, &error))
    }
}

impl Stretch {
    fn of(file: File, path: PathBuf) -> Result<Self, Error> {
        let length = file.metadata().map_err(|error| read_error(&path, &error))?.len();
        Ok(Self { place: OutputPlace::File(file), path, length })
    }

    /// Size in bytes, at the moment at which it was opened.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads up to `most` bytes at `from`, and none only at the end. A file that has become shorter since is an
    /// error: the rest was promised.
    pub fn read(&self, from: u64, most: usize) -> Result<Vec<u8>, Error> {
        let left = usize::try_from(self.length.saturating_sub(from)).unwrap_or(most);
        let file = match &self.place {
            OutputPlace::File(file) if left > 0 => file,
            OutputPlace::Row(bytes) if left > 0 => {
                // A row has all of the promised bytes.
                let from = bytes.len() - left;
                return Ok(bytes[from..][..most.min(left)].to_vec());
            }
            _ => return Ok(Vec::new()),
        };
        let bytes = read_piece(file, from, most.min(left)).map_err(io_error(&self.path))?;
        if bytes.is_empty() {
            let why = "it has become shorter while it was read";
            return Err(Error::Io(format!("failed to read `{}`: {why}", self.path.display())));
        }
        Ok(bytes)
    }

    /// The offset from which on there are at most `lines` lines and at most `bytes` bytes.
    pub fn tail(&self, lines: usize, bytes: u64) -> Result<u64, Error> {
        const BLOCK: u64 = 64 * 1024;
        let first = self.length.saturating_sub(bytes);
        let (mut end, mut found) = (self.length, 0);
        while end > first {
            let start = end.saturating_sub(BLOCK).max(first);
            let block = self.read(start, (end - start) as usize)?;
            for at in memchr::memrchr_iter(b'\n', &block) {
                let after = start + at as u64 + 1;
                // The end of the last line begins no other.
                if after < self.length {
                    found += 1;
                    if found == lines {
                        return Ok(after);
                    }
                }
            }
            end = start;
        }
        Ok(first)
    }
}

fn read_error(path: &std::path::Path, error: &io::Error) -> Error {
    Error::Io(format!("failed to read `{}`: {error}", path.display()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its folder should fail loudly")]
mod tests {
    use super::*;
    use crate::server::blobs::Blobs;

    fn stretch(bytes: &[u8]) -> (tempfile::TempDir, Blobs, Stretch) {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path(), false).unwrap();
        let task = TaskId::new("t").unwrap();
        blobs.outputs.append(&task, 0, 0, bytes).unwrap();
        let opened = blobs.outputs.open(&task, 0).unwrap();
        (dir, blobs, opened)
    }

    #[test]
    fn what_comes_later_is_not_read_and_what_is_cut_off_is_an_error() {
        let (dir, blobs, opened) = stretch(b"abc");
        let task = TaskId::new("t").unwrap();
        blobs.outputs.append(&task, 0, 3, b"def").unwrap();
        assert_eq!(opened.length(), 3);
        assert_eq!(opened.read(1, 100).unwrap(), b"bc");
        assert_eq!(opened.read(3, 100).unwrap(), b"");
        assert_eq!(opened.read(u64::MAX, 100).unwrap(), b"");
        // A damaged disk: the control plane itself never cuts output off.
        std::fs::write(dir.path().join("output/t/0"), b"").unwrap();
        assert!(opened.read(1, 100).is_err());
        assert_eq!(blobs.outputs.open(&task, 1).unwrap().length(), 0);
    }

    #[test]
    fn the_tail_begins_with_a_line() {
        let tail = |text: &[u8], lines, bytes| {
            let (_dir, _blobs, opened) = stretch(text);
            opened.read(opened.tail(lines, bytes).unwrap(), usize::MAX).unwrap()
        };
        assert_eq!(tail(b"a\nb\nc\n", 2, 100), b"b\nc\n");
        assert_eq!(tail(b"a\nb\nc", 2, 100), b"b\nc");
        assert_eq!(tail(b"a\n\n\n", 2, 100), b"\n\n");
        assert_eq!(tail(b"a\nb\n", 9, 100), b"a\nb\n");
        assert_eq!(tail(b"a\nbcdef", 2, 3), b"def");
        assert_eq!(tail(b"", 2, 3), b"");
        let long: Vec<u8> = (0..100_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        assert_eq!(tail(&long, 1, 1 << 20), b"line 99999\n");
        assert_eq!(tail(&long, 60_000, 1 << 20).iter().filter(|&&b| b == b'\n').count(), 60_000);
    }
}
