//! All stored files, one after the other: for the sweep, for checks and for backups.

use crate::protocol::TaskId;
use crate::server::blobs::disk::{Error, digest, io_error};
use crate::server::blobs::objects::Objects;
use crate::server::blobs::outputs::Outputs;
use crate::server::blobs::stretch::Stretch;
use crate::system::hex;
use ring::digest::{Context, SHA256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::SystemTime;

/// A file that is stored.
#[derive(Clone, Debug)]
pub struct StoredFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Size in bytes.
    pub length: u64,
    /// When it was written, or wanted, last.
    pub modified: SystemTime,
}

impl StoredFile {
    fn of(path: PathBuf) -> io::Result<Self> {
        let about = fs::metadata(&path)?;
        Ok(Self { path, length: about.len(), modified: about.modified()? })
    }
}

impl Objects {
    /// Calls `each` with every complete upload: its checksum, as its name says, and its file.
    pub fn each(&self, mut each: impl FnMut(String, StoredFile)) -> Result<(), Error> {
        let root = self.folder();
        for folder in fs::read_dir(&root).map_err(io_error(&root))?.flatten() {
            let Ok(files) = fs::read_dir(folder.path()) else { continue };
            for file in files.flatten() {
                let name =
                    [folder.file_name(), file.file_name()].map(|part| part.to_string_lossy().into_owned());
                // A file that was removed meanwhile is none.
                if let Ok(stored) = StoredFile::of(file.path()) {
                    each(name.concat(), stored);
                }
            }
        }
        Ok(())
    }

    /// The path of a complete upload, whether it is there or not.
    pub fn place(&self, sha256: &str) -> Result<PathBuf, Error> {
        self.path(sha256)
    }

    /// The file of a complete upload; `None` where there is none.
    pub fn find(&self, sha256: &str) -> Result<Option<StoredFile>, Error> {
        let path = self.path(sha256)?;
        match StoredFile::of(path.clone()) {
            Ok(stored) => Ok(Some(stored)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(&path)(error)),
        }
    }
}

impl Outputs {
    /// Calls `each` with the name of every folder of a task, and when something in it was made last.
    pub fn each_task(&self, mut each: impl FnMut(String, SystemTime)) -> Result<(), Error> {
        let root = self.folder();
        for folder in fs::read_dir(root).map_err(io_error(root))?.flatten() {
            if let Ok(modified) = folder.metadata().and_then(|about| about.modified()) {
                each(folder.file_name().to_string_lossy().into_owned(), modified);
            }
        }
        Ok(())
    }

    /// The outputs of a task, by the number of the step as the name of the file has it; none where nothing was sent.
    pub fn files(&self, task: &TaskId) -> Result<Vec<(String, StoredFile)>, Error> {
        let folder = self.folder().join(task.as_str());
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(io_error(&folder))?,
        };
        let named = entries.flatten().filter_map(|entry| {
            let stored = StoredFile::of(entry.path()).ok()?;
            Some((entry.file_name().to_string_lossy().into_owned(), stored))
        });
        Ok(named.collect())
    }
}

impl Stretch {
    /// SHA-256 in lower-case hex of the first `length` bytes.
    pub fn checksum(&self, length: u64) -> Result<String, Error> {
        let mut context = Context::new(&SHA256);
        let mut at = 0;
        while at < length {
            let most = usize::try_from(length - at).unwrap_or(usize::MAX).min(256 * 1024);
            let bytes = self.read(at, most)?;
            if bytes.is_empty() {
                break;
            }
            context.update(&bytes);
            at += bytes.len() as u64;
        }
        Ok(hex(context.finish().as_ref()))
    }
}

/// SHA-256 in lower-case hex of the first `length` bytes of a file.
pub fn checksum(path: &std::path::Path, length: u64) -> Result<String, Error> {
    let file = File::open(path).map_err(io_error(path))?;
    digest(&mut file.take(length)).map_err(io_error(path))
}
