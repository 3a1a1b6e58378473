//! Output of steps: one file a step, written at offsets; what is small becomes a row once it is complete (`small`).

use crate::protocol::TaskId;
use crate::protocol::times::Times;
use crate::server::blobs::disk::{Error, digest, io_error, make_folder, open_private, read_piece};
use crate::server::blobs::rows::{OutputPlace, Rows, SMALL_BYTES};
use crate::server::blobs::turns::{Turn, Turns};
use crate::system::hex;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of an output that may be lost to a power cut before the disk is waited for.
const MOST_UNSYNCED_BYTES: u64 = 8 * 1024 * 1024;

/// Outputs that memory knows of at most; those of tasks that were lost are never taken out by themselves.
const MOST_WRITTEN: usize = 20_000;

/// The folder of output. Cheap to clone.
///
/// Every function waits for the disk, apart from [`Outputs::lengths`] and [`Outputs::times`].
#[derive(Clone, Debug)]
pub struct Outputs {
    root: PathBuf,
    durable: bool,
    /// Outputs that are being written, by task and step.
    written: Arc<Mutex<HashMap<(TaskId, u32), Written>>>,
    /// A runner that gave a call up repeats it while the disk may still be busy with the first.
    turns: Turns<(TaskId, u32)>,
    /// Rows of small outputs that are complete; `None` where all are files.
    rows: Option<Rows>,
}

/// State in memory of an output that is being written. It may be forgotten at any time.
#[derive(Clone, Debug, Default)]
struct Written {
    /// Bytes below would survive a power cut.
    durable_to: u64,
    /// The bytes on the disk are not those of the runner: it sends them again, and they are written over from here.
    again_from: Option<u64>,
    /// When it arrived.
    times: Times,
}

/// An output, compared with what its runner wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// The output is all there, in its file, and durable.
    Whole,
    /// The output is all there, and these bytes are to be kept as a row; the file is not waited for.
    Small(Vec<u8>),
    /// The output is to be sent again from this offset on.
    From(u64),
}

/// How far an output is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredOutput {
    /// Bytes below this are stored.
    pub offset: u64,
    /// Bytes below this would survive a power cut.
    pub durable_to: u64,
}

impl Outputs {
    pub(super) fn at(root: &Path, durable: bool) -> Self {
        Self {
            root: root.join("output"),
            durable,
            written: Arc::default(),
            turns: Turns::default(),
            rows: None,
        }
    }

    /// The outputs with small ones kept as rows once they are complete.
    pub(super) fn with_rows(self, rows: Rows) -> Self {
        Self { rows: Some(rows), ..self }
    }

    pub(super) fn rows(&self) -> Option<&Rows> {
        self.rows.as_ref()
    }

    /// The folder of all outputs.
    pub fn folder(&self) -> &Path {
        &self.root
    }

    /// The file of an output, whether it is there or not.
    pub fn path(&self, task: &TaskId, step: u32) -> PathBuf {
        self.root.join(task.as_str()).join(step.to_string())
    }

    fn written(&self) -> MutexGuard<'_, HashMap<(TaskId, u32), Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing else writes the output of a step.
    pub(super) fn turn(&self, task: &TaskId, step: u32) -> Turn<'_, (TaskId, u32)> {
        self.turns.take((task.clone(), step))
    }

    /// Opens an output to be written to, and tells how long it is. The turn of the caller has been taken.
    pub(super) fn open_to_write(&self, task: &TaskId, step: u32) -> Result<(PathBuf, File, u64), Error> {
        let path = self.path(task, step);
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        let file = open_private(&path).map_err(io_error(&path))?;
        let length = file.metadata().map_err(io_error(&path))?.len();
        Ok((path, file, length))
    }

    /// Stores output at an offset. Bytes that are stored already are skipped; the file is the truth, so nothing else
    /// needs to be written per chunk. No bytes at all ask for the disk to be waited for.
    pub fn append(&self, task: &TaskId, step: u32, offset: u64, bytes: &[u8]) -> Result<StoredOutput, Error> {
        self.append_at(task, step, offset, bytes, None)
    }

    /// Stores output as [`Outputs::append`] does. `at_ms`: Unix time of its arrival, for [`Outputs::times`].
    pub fn append_at(
        &self,
        task: &TaskId,
        step: u32,
        offset: u64,
        bytes: &[u8],
        at_ms: Option<u64>,
    ) -> Result<StoredOutput, Error> {
        let _turn = self.turn(task, step);
        let (path, file, length) = self.open_to_write(task, step)?;
        let fail = io_error(&path);
        let key = (task.clone(), step);
        let known = self.written().get(&key).map(|known| (known.durable_to, known.again_from));
        let (mut durable_to, again_from) = known.unwrap_or_default();
        let stored = again_from.unwrap_or(length);
        if offset > stored {
            return Err(Error::Gap { stored });
        }
        let skip = usize::try_from(stored - offset).unwrap_or(usize::MAX).min(bytes.len());
        let new = &bytes[skip..];
        file.write_all_at(new, stored).map_err(|error| {
            if again_from.is_none() {
                // A half-written tail would be taken for the real bytes later.
                let _ = file.set_len(length);
            }
            fail(error)
        })?;
        let end = stored + new.len() as u64;
        let again_from = again_from.and(Some(end)).filter(|end| *end < length);
        if !self.durable {
            // Nobody waits for a disk here; to keep more would fill the other side's for nothing.
            durable_to = end;
        } else if bytes.is_empty() || end - durable_to.min(end) >= MOST_UNSYNCED_BYTES {
            file.sync_data().map_err(&fail)?;
            durable_to = end;
        }
        let mut all = self.written();
        if all.len() >= MOST_WRITTEN {
            all.clear();
        }
        let written = all.entry(key).or_default();
        (written.durable_to, written.again_from) = (durable_to, again_from);
        if let Some(at_ms) = at_ms.filter(|_| !new.is_empty()) {
            written.times.came(stored, at_ms);
        }
        Ok(StoredOutput { offset: end, durable_to })
    }

    /// When the output of a step that runs has arrived: offsets in bytes, each with the Unix time in milliseconds of
    /// what begins there. What came before this process began has none.
    pub fn times(&self, task: &TaskId, step: u32) -> Vec<(u64, u64)> {
        let all = self.written();
        all.get(&(task.clone(), step)).map(|written| written.times.marks().to_vec()).unwrap_or_default()
    }

    /// Length of a step's output; 0 when there is none.
    pub fn length(&self, task: &TaskId, step: u32) -> u64 {
        match self.place(task, step) {
            Ok(OutputPlace::Row(bytes)) => bytes.len() as u64,
            Ok(OutputPlace::File(file)) => file.metadata().map_or(0, |meta| meta.len()),
            Ok(OutputPlace::Nowhere) | Err(_) => 0,
        }
    }

    /// Up to `most` bytes of a step's output at `from`.
    pub fn read(&self, task: &TaskId, step: u32, from: u64, most: usize) -> Result<Vec<u8>, Error> {
        match self.place(task, step)? {
            OutputPlace::Nowhere => Ok(Vec::new()),
            OutputPlace::File(file) => {
                read_piece(&file, from, most).map_err(io_error(&self.path(task, step)))
            }
            OutputPlace::Row(bytes) => {
                let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes[from..].iter().copied().take(most).collect())
            }
        }
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

    /// Compares a step's output with what the runner wrote and makes it durable, unless it is to become a row. Where it
    /// differs the bytes that are here stay until others take their place. Where nothing is durable, only its length is
    /// compared.
    pub fn check(&self, task: &TaskId, step: u32, length: u64, sha256: &str) -> Result<Checked, Error> {
        let _turn = self.turn(task, step);
        let path = self.path(task, step);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && length == 0 => {
                return Ok(Checked::Whole);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Checked::From(0)),
            Err(error) => return Err(io_error(&path)(error)),
        };
        let stored = file.metadata().map_err(io_error(&path))?.len();
        if stored < length {
            return Ok(Checked::From(stored));
        }
        let key = (task.clone(), step);
        if !self.durable {
            // The file was written by this process a moment ago: reading it again would find the same.
            self.written().remove(&key);
            return Ok(Checked::Whole);
        }
        // More than the runner wrote: what lies beyond is nobody's.
        if self.rows.is_some() && length <= SMALL_BYTES {
            let bytes = read_piece(&file, 0, length as usize).map_err(io_error(&path))?;
            if hex(ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref()) == sha256 {
                self.written().remove(&key);
                return Ok(Checked::Small(bytes));
            }
        } else {
            file.sync_data().map_err(io_error(&path))?;
            if digest(&mut (&file).take(length)).map_err(io_error(&path))? == sha256 {
                self.written().remove(&key);
                return Ok(Checked::Whole);
            }
        }
        self.written().insert(key, Written { again_from: Some(0), ..Written::default() });
        Ok(Checked::From(0))
    }

    /// An output is complete: it is made durable, and memory forgets it.
    pub(super) fn settle(&self, task: &TaskId, step: u32, file: &File) -> Result<(), Error> {
        if self.durable {
            file.sync_data().map_err(io_error(&self.path(task, step)))?;
        }
        self.written().remove(&(task.clone(), step));
        Ok(())
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
        let append = |offset, bytes| output.append(&task, 0, offset, bytes).map(|stored| stored.offset);
        assert_eq!(append(0, b"ab").unwrap(), 2);
        assert_eq!(append(1, b"bc").unwrap(), 3);
        assert_eq!(append(0, b"a").unwrap(), 3);
        assert!(matches!(append(5, b"x"), Err(Error::Gap { stored: 3 })));
        assert_eq!(output.read(&task, 0, 1, 10).unwrap(), b"bc");
        assert_eq!(output.read(&task, 9, 0, 10).unwrap(), b"");
        assert_eq!(output.check(&task, 0, 3, ABC).unwrap(), Checked::Whole);
        assert_eq!(output.check(&task, 0, 4, ABC).unwrap(), Checked::From(3));
    }

    #[test]
    fn a_runner_that_needs_room_has_the_disk_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let output = Blobs::open(dir.path(), true).unwrap().outputs;
        let task = TaskId::new("t").unwrap();
        assert_eq!(output.append(&task, 0, 0, b"abc").unwrap(), StoredOutput { offset: 3, durable_to: 0 });
        assert_eq!(output.append(&task, 0, 3, b"").unwrap(), StoredOutput { offset: 3, durable_to: 3 });
    }

    #[test]
    fn times_are_known_while_an_output_grows() {
        let dir = tempfile::tempdir().unwrap();
        let output = Blobs::open(dir.path(), true).unwrap().outputs;
        let task = TaskId::new("t").unwrap();
        let append = |offset, bytes, at_ms| output.append_at(&task, 0, offset, bytes, Some(at_ms)).unwrap();
        append(0, b"abc", 1_000);
        append(0, b"abcd", 2_000);
        append(0, b"abcd", 3_000);
        assert_eq!(output.times(&task, 0), [(0, 1_000), (3, 2_000)], "what is sent again has come before");
        assert_eq!(output.times(&task, 1), []);
        let abcd = "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589";
        output.check(&task, 0, 4, abcd).unwrap();
        assert_eq!(output.times(&task, 0), [], "memory forgets what is complete");
    }

    #[test]
    fn output_that_differs_stays_until_it_was_sent_again() {
        let dir = tempfile::tempdir().unwrap();
        let output = Blobs::open(dir.path(), true).unwrap().outputs;
        let task = TaskId::new("t").unwrap();
        output.append(&task, 0, 0, b"axyz").unwrap();
        assert_eq!(output.check(&task, 0, 3, ABC).unwrap(), Checked::From(0));
        assert_eq!(output.read(&task, 0, 0, 10).unwrap(), b"axyz");
        assert!(matches!(output.append(&task, 0, 1, b"b"), Err(Error::Gap { stored: 0 })));
        assert_eq!(output.append(&task, 0, 0, b"ab").unwrap().offset, 2);
        assert_eq!(output.read(&task, 0, 0, 10).unwrap(), b"abyz");
        assert_eq!(output.append(&task, 0, 1, b"bc").unwrap().offset, 3);
        assert_eq!(output.check(&task, 0, 3, ABC).unwrap(), Checked::Whole);
    }

    #[test]
    fn the_disk_is_waited_for_when_much_would_be_lost_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let task = TaskId::new("t").unwrap();
        let half = vec![0; MOST_UNSYNCED_BYTES as usize / 2];
        for (durable, expected) in [(true, [0, 2, 2]), (false, [1, 2, 3])] {
            let root = dir.path().join(durable.to_string());
            let output = Blobs::open(&root, durable).unwrap().outputs;
            let halves = (0..3).map(|n| {
                let stored = output.append(&task, 1, n * half.len() as u64, &half).unwrap();
                stored.durable_to / half.len() as u64
            });
            assert_eq!(halves.collect::<Vec<_>>(), expected);
        }
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
