//! Small outputs that are complete: whoever keeps rows keeps them there, since as files they would be one each, and a folder
//! of hundreds of thousands of files is where backups die.

use crate::protocol::TaskId;
use crate::server::blobs::disk::Error;
use std::fmt;
use std::fs::File;
use std::sync::Arc;

/// An output that is no longer, in bytes, is small.
pub(super) const SMALL_BYTES: u64 = 16 * 1024;

/// Reads an output that is a row: its bytes, or `None` where there is no such row.
type Read = dyn Fn(&TaskId, u32) -> Result<Option<Vec<u8>>, Error> + Send + Sync;

/// The rows of small outputs, as whoever has the database reads them. Cheap to clone.
#[derive(Clone)]
pub struct Rows(Arc<Read>);

impl Rows {
    /// Rows that a function reads.
    pub fn read_by(
        read: impl Fn(&TaskId, u32) -> Result<Option<Vec<u8>>, Error> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(read))
    }

    pub(super) fn read(&self, task: &TaskId, step: u32) -> Result<Option<Vec<u8>>, Error> {
        self.0(task, step)
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").finish_non_exhaustive()
    }
}

/// The place of an output.
#[derive(Debug)]
pub(super) enum OutputPlace {
    /// No output was written.
    Nowhere,
    /// A file, which may be growing.
    File(File),
    /// A row, with all of its bytes.
    Row(Vec<u8>),
}
