//! Caches and workspaces: archives that outlive their job.
//!
//! An archive (`archive::pack`) is uploaded like every file and then named by a record. It is fetched in
//! pieces: `GET .../caches/{id}?offset=N&most=M` and `GET .../workspace/{id}?offset=N&most=M` answer with at
//! most `M` bytes from offset `N`.

use serde::{Deserialize, Serialize};

/// Body of `POST .../caches/find`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindCache {
    /// Keys, evaluated. The first that fits any cache decides.
    pub keys: Vec<String>,
    /// Only the very key fits, as before saving; otherwise every key that begins with it does, and of those
    /// the newest is taken.
    pub exact: bool,
}

/// Answer to [`FindCache`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundCache {
    /// Cache that was found; absent where no key fits.
    pub cache: Option<Cache>,
}

/// A cache of the project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// Part of the path it is fetched from.
    pub id: String,
    /// The whole key.
    pub key: String,
    /// Archive to unpack: tar in LZ4.
    pub archive: Archive,
    /// When it was saved, in Unix milliseconds.
    pub created_at_ms: u64,
}

/// The bytes of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// SHA-256 of the content, lower-case hex.
    pub sha256: String,
    /// Length of the archive as it is uploaded, compressed, in bytes.
    pub length: u64,
}

/// Body of `POST .../caches`: names a complete upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRecord {
    /// Evaluated, 1 to [`CACHE_KEY_CHARS`](crate::protocol::limits::CACHE_KEY_CHARS) characters.
    pub key: String,
    /// A complete upload of the task: tar in LZ4.
    pub archive: Archive,
}

/// Answer to [`CacheRecord`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheAnswer {
    /// False when somebody else has saved the key first: their cache stays.
    pub stored: bool,
}

/// Body of `POST .../workspace`: names a complete upload as a layer of the workflow's workspace. The last
/// record of a step counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// A complete upload of the task: tar in LZ4.
    pub archive: Archive,
    /// The step record that persists it.
    pub step: u32,
}

/// Answer to `GET .../workspace`: what the jobs that the task's job requires, directly or not, have persisted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    /// Jobs with layers, each after those it requires.
    pub jobs: Vec<LayerJob>,
    /// Layers in the order to apply them.
    pub layers: Vec<Layer>,
}

/// A job with layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerJob {
    /// Name of the job, for people.
    pub name: String,
    /// Positions of those of `jobs` that had ended when it began. Any two jobs of which neither is among the
    /// other's may have run at the same time: a file that is in layers of both has no right content.
    pub after: Vec<usize>,
}

/// The files that one step has persisted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Part of the path it is fetched from.
    pub id: String,
    /// Position in `jobs`.
    pub job: usize,
    /// Node of the job: nodes run at the same time, too.
    pub node_index: u32,
    /// Archive to unpack: tar in LZ4.
    pub archive: Archive,
}
