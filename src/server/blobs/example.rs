//! A stored output, for tests of other rooms.

use super::{Blobs, Stretch};
use crate::protocol::TaskId;

/// An output of these bytes, opened, and the folder that it lasts as long as.
pub fn output(bytes: &[u8]) -> (tempfile::TempDir, Stretch) {
    let dir = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::open(dir.path(), false).expect("folders in it");
    let task = TaskId::new("t").expect("an id");
    blobs.outputs.append(&task, 0, 0, bytes).expect("room for it");
    let stretch = blobs.outputs.open(&task, 0).expect("what was stored");
    (dir, stretch)
}
