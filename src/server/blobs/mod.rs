//! Bytes on disk: output of steps by offset ([`outputs`]), uploads by checksum ([`objects`]).
//!
//! Rows of the store name what is here. The functions wait for the disk: async code calls them on threads
//! where that is allowed.

mod disk;
#[cfg(test)]
pub mod example;
mod hole;
pub mod listing;
pub mod objects;
pub mod outputs;
mod rows;
mod small;
mod stretch;
mod turns;

use self::objects::Objects;
use self::outputs::Outputs;
use std::path::Path;

use self::disk::make_folder;
pub use self::disk::{Error, Space, write_private};
pub use self::rows::Rows;
pub use self::stretch::Stretch;

/// The bytes that the data folder holds besides the database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    /// Output of steps, by task and step.
    pub outputs: Outputs,
    /// Uploaded files by their checksum: artifacts, test results, caches, workspace layers.
    pub objects: Objects,
}

impl Blobs {
    /// Opens the folders, creating those that are missing. `durable` waits for the disk before bytes are
    /// confirmed.
    pub fn open(root: &Path, durable: bool) -> Result<Self, Error> {
        for name in ["output", "partial", "objects"] {
            make_folder(&root.join(name))?;
        }
        Ok(Self::existing(root, durable))
    }

    /// The store with small outputs kept as rows once they are complete.
    pub fn with_rows(self, rows: Rows) -> Self {
        Self { outputs: self.outputs.with_rows(rows), ..self }
    }

    /// How much of the disk is left.
    pub fn space(&self) -> Result<Space, Error> {
        Space::of(self.outputs.folder())
    }

    /// The folders as they are, for programs that look at them from outside.
    pub fn existing(root: &Path, durable: bool) -> Self {
        Self { outputs: Outputs::at(root, durable), objects: Objects::at(root, durable) }
    }
}
