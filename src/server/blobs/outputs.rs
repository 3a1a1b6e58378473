//! Output of steps: one file a step, written at offsets.

use crate::protocol::TaskId;
use crate::server::blobs::disk::{Error, digest, io_error, read_piece};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The folder of output. Cheap to clone.
///
/// Every function waits for the disk, apart from [`Outputs::lengths`].
#[derive(Clone, Debug)]
pub struct Outputs {
    root: PathBuf,
    durable: bool,
}

impl Outputs {
    pub(super) fn at(root: &Path, durable: bool) -> Result<Self, Error> {
        let root = root.join("output");
        fs::create_dir_all(&root).map_err(io_error(&root))?;
        Ok(Self { root, durable })
    }

    pub(super) fn path(&self, task: &TaskId, step: u32) -> PathBuf {
        self.root.join(task.as_str()).join(step.to_string())
    }

    /// Stores output at an offset and returns the stored length. Bytes that are stored already are
    /// skipped; the file is the truth, so nothing else needs to be written per chunk. Calls for one step
    /// must not overlap.
    pub fn append(&self, task: &TaskId, step: u32, offset: u64, bytes: &[u8]) -> Result<u64, Error> {
        let path = self.path(task, step);
        let fail = io_error(&path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(&fail)?;
        }
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(&fail)?;
        let stored = file.metadata().map_err(&fail)?.len();
        if offset > stored {
            return Err(Error::Gap { stored });
        }
        let skip = usize::try_from(stored - offset).unwrap_or(usize::MAX).min(bytes.len());
        let new = &bytes[skip..];
        file.write_all_at(new, stored).map_err(|error| {
            // A half-written tail would be taken for the real bytes later.
            let _ = file.set_len(stored);
            fail(error)
        })?;
        Ok(stored + new.len() as u64)
    }

    /// Length of a step's output; 0 when there is none.
    pub fn length(&self, task: &TaskId, step: u32) -> u64 {
        fs::metadata(self.path(task, step)).map_or(0, |meta| meta.len())
    }

    /// Up to `most` bytes of a step's output at `from`.
    pub fn read(&self, task: &TaskId, step: u32, from: u64, most: usize) -> Result<Vec<u8>, Error> {
        let path = self.path(task, step);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(io_error(&path))?,
        };
        read_piece(&file, from, most).map_err(io_error(&path))
    }

    /// Removes the output of a task that is no more.
    pub fn remove(&self, task: &TaskId) {
        let folder = self.root.join(task.as_str());
        if let Err(error) = fs::remove_dir_all(&folder) {
            if error.kind() != io::ErrorKind::NotFound {
                log::warn!("failed to remove `{}`: {error}", folder.display());
            }
        }
    }

    /// Compares a step's output with what the runner wrote and makes it durable. The offset to send
    /// from when it differs.
    pub fn check(&self, task: &TaskId, step: u32, length: u64, sha256: &str) -> Result<Option<u64>, Error> {
        let path = self.path(task, step);
        let stored = self.length(task, step);
        if stored < length {
            return Ok(Some(stored));
        }
        if length == 0 && stored == 0 {
            return Ok(None);
        }
        let mut file = File::open(&path).map_err(io_error(&path))?;
        if self.durable {
            file.sync_data().map_err(io_error(&path))?;
        }
        if stored == length && digest(&mut file).map_err(io_error(&path))? == sha256 {
            return Ok(None);
        }
        File::options().write(true).truncate(true).open(&path).map_err(io_error(&path))?;
        Ok(Some(0))
    }

    /// The lengths of many outputs in their order, for async code: the disk is asked in one go, on a thread where
    /// waiting for it is allowed.
    pub async fn lengths(&self, steps: Vec<(TaskId, u32)>) -> Result<Vec<u64>, Error> {
        let output = self.clone();
        let asked = tokio::task::spawn_blocking(move || {
            steps.iter().map(|(task, step)| output.length(task, *step)).collect()
        });
        asked
            .await
            .map_err(|_| Error::Io("failed to look for output: the control plane is stopping".to_owned()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its folder should fail loudly")]
mod tests {
    use super::*;
    use crate::server::blobs::Blobs;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn output_is_placed_by_offset_whatever_is_sent_again() {
        let dir = tempfile::tempdir().unwrap();
        let output = Blobs::open(dir.path(), true).unwrap().outputs;
        let task = TaskId::new("t").unwrap();
        assert_eq!(output.append(&task, 0, 0, b"ab").unwrap(), 2);
        assert_eq!(output.append(&task, 0, 1, b"bc").unwrap(), 3);
        assert_eq!(output.append(&task, 0, 0, b"a").unwrap(), 3);
        assert!(matches!(output.append(&task, 0, 5, b"x"), Err(Error::Gap { stored: 3 })));
        assert_eq!(output.read(&task, 0, 1, 10).unwrap(), b"bc");
        assert_eq!(output.read(&task, 9, 0, 10).unwrap(), b"");
        assert_eq!(output.check(&task, 0, 3, ABC).unwrap(), None);
        assert_eq!(output.check(&task, 0, 4, ABC).unwrap(), Some(3));
        assert_eq!(output.check(&task, 0, 3, "other").unwrap(), Some(0));
        assert_eq!(output.length(&task, 0), 0);
    }

    #[tokio::test]
    async fn lengths_are_told_in_the_order_in_which_they_were_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let output = Blobs::open(dir.path(), false).unwrap().outputs;
        let task = TaskId::new("t").unwrap();
        output.append(&task, 2, 0, b"abc").unwrap();
        let steps = vec![(task.clone(), 1), (task.clone(), 2), (TaskId::new("none").unwrap(), 2)];
        assert_eq!(output.lengths(steps).await.unwrap(), [0, 3, 0]);
    }
}
