//! Small outputs that are complete, as rows: how they are found, and how they come to be rows.
//!
//! Rows are looked for before and after the file: an output becomes a row before its file goes, so that one of the looks
//! finds it at any time.

use crate::protocol::TaskId;
use crate::server::blobs::disk::{Error, io_error, read_piece};
use crate::server::blobs::outputs::Outputs;
use crate::server::blobs::rows::{OutputPlace, SMALL_BYTES};
use std::fs::{self, File};
use std::io;

impl Outputs {
    fn row(&self, task: &TaskId, step: u32) -> Result<Option<Vec<u8>>, Error> {
        match self.rows() {
            Some(rows) => rows.read(task, step),
            None => Ok(None),
        }
    }

    /// Finds an output.
    pub(super) fn place(&self, task: &TaskId, step: u32) -> Result<OutputPlace, Error> {
        if let Some(bytes) = self.row(task, step)? {
            return Ok(OutputPlace::Row(bytes));
        }
        let path = self.path(task, step);
        match File::open(&path) {
            Ok(file) => Ok(OutputPlace::File(file)),
            // The output may have become a row since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(self.row(task, step)?.map_or(OutputPlace::Nowhere, OutputPlace::Row))
            }
            Err(error) => Err(Error::Io(format!("failed to read `{}`: {error}", path.display()))),
        }
    }

    /// The outputs of a task that are files and small, whole: those of a task that sends nothing any more.
    pub fn small_files(&self, task: &TaskId) -> Result<Vec<(u32, Vec<u8>)>, Error> {
        let mut small = Vec::new();
        for (step, stored) in self.files(task)? {
            let Ok(step) = step.parse::<u32>() else { continue };
            if stored.length > SMALL_BYTES {
                continue;
            }
            let bytes = File::open(&stored.path).and_then(|file| read_piece(&file, 0, SMALL_BYTES as usize));
            small.push((step, bytes.map_err(io_error(&stored.path))?));
        }
        Ok(small)
    }

    /// Removes the files of outputs of a task that are rows by now.
    pub fn remove_files(&self, task: &TaskId, steps: impl IntoIterator<Item = u32>) {
        for step in steps {
            let _turn = self.turn(task, step);
            let path = self.path(task, step);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    log::warn!("failed to remove `{}`: {error}", path.display());
                }
                _ => {}
            }
        }
        // A folder with larger outputs stays.
        let _ = fs::remove_dir(self.folder().join(task.as_str()));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its folder should fail loudly")]
mod tests {
    use super::*;
    use crate::server::blobs::Blobs;
    use crate::server::blobs::outputs::Checked;
    use crate::server::blobs::rows::Rows;
    use std::sync::{Arc, Mutex};

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn an_output_is_found_while_it_becomes_a_row() {
        let dir = tempfile::tempdir().unwrap();
        // Each look takes the next answer: what the row is at that moment.
        let answers: Arc<Mutex<Vec<Option<Vec<u8>>>>> = Arc::default();
        let looks = Arc::clone(&answers);
        let rows = Rows::read_by(move |_, _| Ok(looks.lock().unwrap().pop().flatten()));
        let outputs = Blobs::open(dir.path(), true).unwrap().with_rows(rows).outputs;
        let task = TaskId::new("t").unwrap();
        outputs.append(&task, 1, 0, b"abc").unwrap();
        assert_eq!(outputs.check(&task, 1, 3, ABC).unwrap(), Checked::Small(b"abc".to_vec()));
        assert_eq!(outputs.small_files(&task).unwrap(), [(1, b"abc".to_vec())]);
        assert_eq!(outputs.read(&task, 1, 1, 9).unwrap(), b"bc", "a file, and no row");
        let row = || Some(b"abc".to_vec());
        answers.lock().unwrap().push(row());
        assert_eq!(outputs.read(&task, 1, 1, 1).unwrap(), b"b", "both");
        outputs.remove_files(&task, [1]);
        assert!(!dir.path().join("output/t").exists());
        // The row came after the first look, and the file went before it was opened.
        answers.lock().unwrap().extend([row(), None]);
        assert_eq!(outputs.open(&task, 1).unwrap().read(0, 9).unwrap(), b"abc");
        answers.lock().unwrap().push(row());
        assert_eq!(outputs.length(&task, 1), 3);
        assert_eq!(outputs.read(&task, 1, 0, 9).unwrap(), b"", "neither");
    }

    #[test]
    fn a_large_output_stays_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let outputs =
            Blobs::open(dir.path(), true).unwrap().with_rows(Rows::read_by(|_, _| Ok(None))).outputs;
        let task = TaskId::new("t").unwrap();
        let large = vec![b'a'; SMALL_BYTES as usize + 1];
        outputs.append(&task, 1, 0, &large).unwrap();
        outputs.append(&task, 2, 0, b"abc").unwrap();
        let sha256 = crate::system::hex(ring::digest::digest(&ring::digest::SHA256, &large).as_ref());
        assert_eq!(outputs.check(&task, 1, SMALL_BYTES + 1, &sha256).unwrap(), Checked::Whole);
        assert_eq!(outputs.small_files(&task).unwrap(), [(2, b"abc".to_vec())]);
        outputs.remove_files(&task, [2]);
        assert_eq!(outputs.length(&task, 1), SMALL_BYTES + 1);
    }
}
