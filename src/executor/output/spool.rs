//! Output of one step on disk: what the redactor lets through is appended here, and the uploader sends
//! it from here, so memory stays bounded whatever a job prints and however long the network is away.
//!
//! Nothing is synced. What a sync saves is what a crash of the host would lose, and nobody would come for it:
//! the number of every event and how far each spool was acknowledged are in the memory of the task agent,
//! which ends with the host, and the control plane then ends the task when its lease lapses. Against the
//! crash of a process, the runner's included, the system's cache is enough. On the slow disks of small
//! hosts a sync of each step would cost more than many a step takes.

use ring::digest::{Context, SHA256};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The writing side.
pub struct Spool {
    file: File,
    length: u64,
    limit: u64,
    dropped: u64,
    lost: u64,
    why_lost: String,
    digest: Context,
}

impl Spool {
    /// Creates the file. `limit` is the number of bytes of output that are kept.
    pub fn create(path: &Path, limit: u64) -> io::Result<Self> {
        let file = File::options().read(true).append(true).create_new(true).open(path)?;
        Ok(Self {
            file,
            length: 0,
            limit,
            dropped: 0,
            lost: 0,
            why_lost: String::new(),
            digest: Context::new(&SHA256),
        })
    }

    /// A handle for reading what was written, at any offset.
    pub fn reader(&self) -> io::Result<SpoolReader> {
        Ok(SpoolReader(self.file.try_clone()?))
    }

    /// Appends output; beyond the limit, and when the disk takes no more, bytes are counted instead.
    /// Returns the length of the spool.
    pub fn write(&mut self, bytes: &[u8]) -> u64 {
        let room = usize::try_from(self.limit.saturating_sub(self.length)).unwrap_or(usize::MAX);
        let (kept, dropped) = bytes.split_at(bytes.len().min(room));
        self.dropped += dropped.len() as u64;
        self.append(kept);
        self.length
    }

    /// A line of the agent's own, outside the limit.
    pub fn note(&mut self, text: &str) -> u64 {
        self.append(format!("{text}\n").as_bytes());
        self.length
    }

    /// The loss, for people, when the disk took no more; `None` when everything was.
    pub fn lost(&self) -> Option<String> {
        (self.lost > 0).then(|| {
            format!(
                "{} bytes of output were lost: the runner could not keep them on its disk: {} (free some space, or set TMPDIR to a larger place)",
                self.lost, self.why_lost
            )
        })
    }

    /// Ends the output: says what is missing. Returns length and SHA-256.
    pub fn finish(mut self) -> (u64, String) {
        if self.dropped > 0 {
            let (dropped, limit) = (self.dropped, self.limit);
            self.note(&format!(
                "\n[{dropped} bytes of output were dropped: only the first {limit} bytes of a step are kept]"
            ));
        }
        if self.lost > 0 {
            let (lost, why) = (self.lost, std::mem::take(&mut self.why_lost));
            self.note(&format!("\n[{lost} bytes of output were lost here: the spool on the runner could not be written: {why}]"));
        }
        (self.length, crate::system::hex(self.digest.finish().as_ref()))
    }

    fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(n) if n > 0 => {
                    self.digest.update(&bytes[..n]);
                    self.length += n as u64;
                    bytes = &bytes[n..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => {
                    if self.why_lost.is_empty() {
                        self.why_lost =
                            outcome.err().map_or_else(|| "no space".to_owned(), |e| e.to_string());
                    }
                    self.lost += bytes.len() as u64;
                    return;
                }
            }
        }
    }
}

/// The reading side.
pub struct SpoolReader(File);

impl SpoolReader {
    /// Reads up to `most` bytes at `offset`.
    pub fn read(&self, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; most];
        let mut filled = 0;
        while filled < most {
            match self.0.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set up its files should fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_summed() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(&folder.path().join("0"), 1000).unwrap();
        let reader = spool.reader().unwrap();
        assert_eq!(spool.write(b"ab"), 2);
        assert_eq!(spool.write(b"c"), 3);
        assert_eq!(reader.read(1, 10).unwrap(), b"bc");
        assert_eq!(reader.read(3, 10).unwrap(), b"");
        let (length, sum) = spool.finish();
        assert_eq!(length, 3);
        assert_eq!(sum, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn bytes_beyond_four_gigabytes_have_their_place() {
        let file = tempfile::tempfile().unwrap();
        // A hole: it takes no room on the disk.
        let far = (1 << 32) + 5;
        file.write_all_at(b"far", far).unwrap();
        file.write_all_at(b"near", 5).unwrap();
        let reader = SpoolReader(file);
        assert_eq!(reader.read(far, 10).unwrap(), b"far");
        assert_eq!(reader.read(5, 4).unwrap(), b"near");
    }

    #[test]
    fn output_beyond_the_limit_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(&folder.path().join("0"), 5).unwrap();
        let reader = spool.reader().unwrap();
        spool.write(b"1234567");
        spool.write(b"89");
        let (length, _) = spool.finish();
        let text = String::from_utf8(reader.read(0, 1000).unwrap()).unwrap();
        assert_eq!(
            text,
            "12345\n[4 bytes of output were dropped: only the first 5 bytes of a step are kept]\n"
        );
        assert_eq!(length, text.len() as u64);
    }

    #[test]
    fn a_full_disk_is_counted_and_not_fatal() {
        let full = File::options().read(true).write(true).open("/dev/full");
        let Ok(file) = full else { return };
        let mut spool = Spool {
            file,
            length: 0,
            limit: 100,
            dropped: 0,
            lost: 0,
            why_lost: String::new(),
            digest: Context::new(&SHA256),
        };
        assert_eq!(spool.write(b"abc"), 0);
        assert_eq!(spool.lost, 3);
        assert!(!spool.why_lost.is_empty());
    }
}
