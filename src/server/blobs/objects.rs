//! Uploads: whole files, named by the checksum of their bytes, and the parts of those that are still coming.

use crate::protocol::TaskId;
use crate::server::blobs::disk::{Error, digest, io_error, make_folder, open_private, read_piece};
use crate::server::blobs::turns::Turns;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

/// The folders of uploads, complete and partial. Cheap to clone. Every function waits for the disk.
#[derive(Clone, Debug)]
pub struct Objects {
    root: PathBuf,
    durable: bool,
    /// Held while an object is looked for and marked as wanted; held alone while one is removed.
    removing: Arc<RwLock<()>>,
    /// Turns at the part of an upload that has come.
    turns: Turns<PathBuf>,
}

impl Objects {
    pub(super) fn at(root: &Path, durable: bool) -> Self {
        Self { root: root.to_owned(), durable, removing: Arc::default(), turns: Turns::default() }
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.root.join("objects")
    }

    fn partial_path(&self, task: &TaskId, sha256: &str) -> PathBuf {
        self.root.join("partial").join(format!("{task}-{sha256}"))
    }

    /// The file of a complete upload.
    pub(in crate::server) fn path(&self, sha256: &str) -> Result<PathBuf, Error> {
        let valid =
            sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !valid {
            return Err(Error::Invalid(format!("`{sha256}` is not a SHA-256 in lower-case hex")));
        }
        Ok(self.root.join("objects").join(&sha256[..2]).join(&sha256[2..]))
    }

    /// Tells the offset to continue an upload from; `length` when it is complete.
    pub fn offset(&self, task: &TaskId, sha256: &str, length: u64) -> Result<u64, Error> {
        if self.has(sha256, length)? {
            return Ok(length);
        }
        Ok(fs::metadata(self.partial_path(task, sha256)).map_or(0, |meta| meta.len()))
    }

    /// Stores a piece of an upload and returns the stored length. The last piece makes it an object:
    /// checked, durable, and named by its checksum.
    pub fn append(
        &self,
        task: &TaskId,
        sha256: &str,
        length: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, Error> {
        let object = self.path(sha256)?;
        let path = self.partial_path(task, sha256);
        // Bytes of a call that comes late must not get into an object that was checked meanwhile.
        let _turn = self.turns.take(path.clone());
        if fs::metadata(&object).is_ok_and(|meta| meta.len() == length) {
            return Ok(length);
        }
        let fail = io_error(&path);
        let file = open_private(&path).map_err(&fail)?;
        let stored = file.metadata().map_err(&fail)?.len();
        if offset > stored {
            return Err(Error::Gap { stored });
        }
        let skip = usize::try_from(stored - offset).unwrap_or(usize::MAX).min(bytes.len());
        let new = &bytes[skip..];
        let total = stored + new.len() as u64;
        if total > length {
            return Err(Error::Invalid(format!("more bytes than the stated length of {length}")));
        }
        file.write_all_at(new, stored).map_err(|error| {
            let _ = file.set_len(stored);
            fail(error)
        })?;
        if total == length {
            let mut whole = File::open(&path).map_err(&fail)?;
            if digest(&mut whole).map_err(&fail)? != sha256 {
                let _ = fs::remove_file(&path);
                return Err(Error::Checksum);
            }
            if self.durable {
                whole.sync_all().map_err(&fail)?;
            }
            if let Some(folder) = object.parent() {
                make_folder(folder)?;
                fs::rename(&path, &object).map_err(&fail)?;
                // The name must survive a power cut as well as the bytes.
                let _ = File::open(folder).and_then(|folder| folder.sync_all());
            }
        }
        Ok(total)
    }

    /// Whether an upload of this length is complete. One that is there stays for a day at least, for whoever
    /// asks to name it.
    pub fn has(&self, sha256: &str, length: u64) -> Result<bool, Error> {
        let path = self.path(sha256)?;
        let _wanted = self.removing.read().unwrap_or_else(PoisonError::into_inner);
        if !fs::metadata(&path).is_ok_and(|meta| meta.len() == length) {
            return Ok(false);
        }
        let fail = io_error(&path);
        File::open(&path).and_then(|file| file.set_modified(SystemTime::now())).map_err(fail)?;
        Ok(true)
    }

    /// Takes in a file that stays where it is, as a complete upload of this checksum. Whoever reads it checks that.
    pub fn link(&self, sha256: &str, file: &Path) -> Result<(), Error> {
        let path = self.path(sha256)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(io_error(folder))?;
        }
        match std::os::unix::fs::symlink(file, &path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(io_error(&path)(error)),
            _ => Ok(()),
        }
    }

    /// Up to `most` bytes of a complete upload at `from`.
    pub fn read(&self, sha256: &str, from: u64, most: usize) -> Result<Vec<u8>, Error> {
        let path = self.path(sha256)?;
        let file = File::open(&path).map_err(io_error(&path))?;
        read_piece(&file, from, most).map_err(io_error(&path))
    }

    /// The uploads, complete or not, that nobody has asked for since a time; of the complete ones the
    /// checksums. Parts of uploads that were given up are removed on the way.
    pub fn unused_since(&self, since: SystemTime) -> Result<Vec<String>, Error> {
        let mut unused = Vec::new();
        self.each(|sha256, file| {
            if file.modified < since {
                unused.push(sha256);
            }
        })?;
        let partial = self.root.join("partial");
        for file in fs::read_dir(&partial).map_err(io_error(&partial))?.flatten() {
            if is_older(&file.path(), since) {
                let _ = fs::remove_file(file.path());
            }
        }
        Ok(unused)
    }

    /// Removes a complete upload, unless somebody has asked for it since that time. True when it is gone.
    pub fn remove(&self, sha256: &str, since: SystemTime) -> Result<bool, Error> {
        let path = self.path(sha256)?;
        let _alone = self.removing.write().unwrap_or_else(PoisonError::into_inner);
        if !is_older(&path, since) {
            return Ok(false);
        }
        fs::remove_file(&path).map_err(io_error(&path)).map(|()| true)
    }
}

fn is_older(path: &Path, since: SystemTime) -> bool {
    fs::metadata(path).and_then(|about| about.modified()).is_ok_and(|modified| modified < since)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its folder should fail loudly")]
mod tests {
    use super::*;
    use crate::server::blobs::Blobs;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn objects() -> (tempfile::TempDir, Objects, TaskId) {
        let dir = tempfile::tempdir().unwrap();
        let objects = Blobs::open(dir.path(), true).unwrap().objects;
        (dir, objects, TaskId::new("t").unwrap())
    }

    #[test]
    fn uploads_resume_and_are_checked() {
        let (_dir, objects, task) = objects();
        assert_eq!(objects.append(&task, ABC, 3, 0, b"a").unwrap(), 1);
        assert_eq!(objects.offset(&task, ABC, 3).unwrap(), 1);
        assert!(matches!(objects.append(&task, ABC, 3, 2, b"c"), Err(Error::Gap { stored: 1 })));
        assert_eq!(objects.append(&task, ABC, 3, 0, b"abc").unwrap(), 3);
        assert!(objects.has(ABC, 3).unwrap());
        let wrong = ABC.replace('b', "0");
        assert!(matches!(objects.append(&task, &wrong, 3, 0, b"abc"), Err(Error::Checksum)));
        assert_eq!(objects.offset(&task, &wrong, 3).unwrap(), 0);
        assert!(matches!(objects.offset(&task, "../../etc", 3), Err(Error::Invalid(_))));
        assert_eq!(objects.read(ABC, 1, 10).unwrap(), b"bc");
        assert_eq!(objects.read(ABC, 9, 10).unwrap(), b"");
    }

    #[test]
    fn uploads_go_when_nobody_has_asked_for_them() {
        let (dir, objects, task) = objects();
        objects.append(&task, ABC, 3, 0, b"abc").unwrap();
        let other = ABC.replace('b', "0");
        objects.append(&task, &other, 3, 0, b"a").unwrap();
        let partial = || fs::read_dir(dir.path().join("partial")).unwrap().count();
        let now = SystemTime::now();
        let before = now - std::time::Duration::from_secs(60);
        assert!(objects.unused_since(before).unwrap().is_empty());
        assert_eq!(partial(), 1);
        let later = now + std::time::Duration::from_secs(60);
        assert_eq!(objects.unused_since(later).unwrap(), [ABC]);
        assert_eq!(partial(), 0);
        assert!(!objects.remove(ABC, before).unwrap());
        assert!(objects.remove(ABC, later).unwrap());
        assert!(!objects.has(ABC, 3).unwrap());
    }
}
