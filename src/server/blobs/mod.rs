//! Bytes on disk: output of steps by offset, uploads by checksum. Synchronous; callers are on threads
//! where blocking is allowed.

use crate::protocol::TaskId;
use crate::system::hex;
use ring::digest::{Context, SHA256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

/// Why bytes were not stored or found.
#[derive(Debug)]
pub enum Error {
    /// The offset is beyond what is stored.
    Gap {
        /// Bytes stored so far.
        stored: u64,
    },
    /// The bytes do not have the stated checksum; they were discarded.
    Checksum,
    /// The disk is full.
    NoSpace,
    /// The request makes no sense.
    Invalid(String),
    /// Anything else the disk said.
    Io(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Gap { stored } => write!(f, "only {stored} bytes are stored so far"),
            Error::Checksum => f.write_str("the bytes do not have the stated SHA-256"),
            Error::NoSpace => f.write_str(
                "there is no space left to store it: the disk of the control plane's data folder is full",
            ),
            Error::Invalid(why) | Error::Io(why) => f.write_str(why),
        }
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace,
        _ => Error::Io(format!("failed to store in `{}`: {error}", path.display())),
    }
}

/// The folder of blobs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    root: PathBuf,
    durable: bool,
    /// Held while an object is looked for and marked as wanted; held alone while one is removed.
    removing: Arc<RwLock<()>>,
}

impl Blobs {
    /// Opens the folder, creating it when it is missing. `durable` waits for the disk before bytes are
    /// confirmed.
    pub fn open(root: &Path, durable: bool) -> Result<Self, Error> {
        for name in ["output", "partial", "objects"] {
            let folder = root.join(name);
            fs::create_dir_all(&folder).map_err(io_error(&folder))?;
        }
        Ok(Self { root: root.to_owned(), durable, removing: Arc::default() })
    }

    fn output_path(&self, task: &TaskId, step: u32) -> PathBuf {
        self.root.join("output").join(task.as_str()).join(step.to_string())
    }

    /// Stores output at an offset and returns the stored length. Bytes that are stored already are
    /// skipped; the file is the truth, so nothing else needs to be written per chunk. Calls for one step
    /// must not overlap.
    pub fn append_output(&self, task: &TaskId, step: u32, offset: u64, bytes: &[u8]) -> Result<u64, Error> {
        let path = self.output_path(task, step);
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
    pub fn output_length(&self, task: &TaskId, step: u32) -> u64 {
        fs::metadata(self.output_path(task, step)).map_or(0, |meta| meta.len())
    }

    /// Up to `most` bytes of a step's output at `from`.
    pub fn read_output(&self, task: &TaskId, step: u32, from: u64, most: usize) -> Result<Vec<u8>, Error> {
        let path = self.output_path(task, step);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(io_error(&path))?,
        };
        read_piece(&file, from, most).map_err(io_error(&path))
    }

    /// Removes the output of a task that is no more.
    pub fn remove_output(&self, task: &str) {
        let Ok(task) = TaskId::new(task) else { return };
        let folder = self.root.join("output").join(task.as_str());
        if let Err(error) = fs::remove_dir_all(&folder) {
            if error.kind() != io::ErrorKind::NotFound {
                log::warn!("failed to remove `{}`: {error}", folder.display());
            }
        }
    }

    /// Compares a step's output with what the runner wrote and makes it durable. The offset to send
    /// from when it differs.
    pub fn check_output(
        &self,
        task: &TaskId,
        step: u32,
        length: u64,
        sha256: &str,
    ) -> Result<Option<u64>, Error> {
        let path = self.output_path(task, step);
        let stored = self.output_length(task, step);
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

    fn partial_path(&self, task: &TaskId, sha256: &str) -> PathBuf {
        self.root.join("partial").join(format!("{task}-{sha256}"))
    }

    fn object_path(&self, sha256: &str) -> Result<PathBuf, Error> {
        let valid =
            sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !valid {
            return Err(Error::Invalid(format!("`{sha256}` is not a SHA-256 in lower-case hex")));
        }
        Ok(self.root.join("objects").join(&sha256[..2]).join(&sha256[2..]))
    }

    /// Where to continue an upload; `length` when it is complete.
    pub fn upload_offset(&self, task: &TaskId, sha256: &str, length: u64) -> Result<u64, Error> {
        if self.has_object(sha256, length)? {
            return Ok(length);
        }
        Ok(fs::metadata(self.partial_path(task, sha256)).map_or(0, |meta| meta.len()))
    }

    /// Stores a piece of an upload and returns the stored length. The last piece makes it an object:
    /// checked, durable, and named by its checksum.
    pub fn append_upload(
        &self,
        task: &TaskId,
        sha256: &str,
        length: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, Error> {
        let object = self.object_path(sha256)?;
        if fs::metadata(&object).is_ok_and(|meta| meta.len() == length) {
            return Ok(length);
        }
        let path = self.partial_path(task, sha256);
        let fail = io_error(&path);
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(&fail)?;
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
                fs::create_dir_all(folder).map_err(&fail)?;
                fs::rename(&path, &object).map_err(&fail)?;
                // The name must survive a power cut as well as the bytes.
                let _ = File::open(folder).and_then(|folder| folder.sync_all());
            }
        }
        Ok(total)
    }

    /// Opens a complete upload.
    pub fn open_object(&self, sha256: &str) -> Result<File, Error> {
        let path = self.object_path(sha256)?;
        File::open(&path).map_err(io_error(&path))
    }

    /// Whether an upload of this length is complete. One that is there stays for a day at least, for whoever
    /// asks to name it.
    pub fn has_object(&self, sha256: &str, length: u64) -> Result<bool, Error> {
        let path = self.object_path(sha256)?;
        let _wanted = self.removing.read().unwrap_or_else(PoisonError::into_inner);
        if !fs::metadata(&path).is_ok_and(|meta| meta.len() == length) {
            return Ok(false);
        }
        let fail = io_error(&path);
        File::open(&path).and_then(|file| file.set_modified(SystemTime::now())).map_err(fail)?;
        Ok(true)
    }

    /// Up to `most` bytes of a complete upload at `from`.
    pub fn read_object(&self, sha256: &str, from: u64, most: usize) -> Result<Vec<u8>, Error> {
        let path = self.object_path(sha256)?;
        let file = File::open(&path).map_err(io_error(&path))?;
        read_piece(&file, from, most).map_err(io_error(&path))
    }

    /// The uploads, complete or not, that nobody has asked for since a time; of the complete ones the
    /// checksums. Parts of uploads that were given up are removed on the way.
    pub fn unused_since(&self, since: SystemTime) -> Result<Vec<String>, Error> {
        let mut unused = Vec::new();
        let objects = self.root.join("objects");
        for folder in fs::read_dir(&objects).map_err(io_error(&objects))?.flatten() {
            let Ok(files) = fs::read_dir(folder.path()) else { continue };
            for file in files.flatten().filter(|file| is_older(&file.path(), since)) {
                let name =
                    [folder.file_name(), file.file_name()].map(|part| part.to_string_lossy().into_owned());
                unused.push(name.concat());
            }
        }
        let partial = self.root.join("partial");
        for file in fs::read_dir(&partial).map_err(io_error(&partial))?.flatten() {
            if is_older(&file.path(), since) {
                let _ = fs::remove_file(file.path());
            }
        }
        Ok(unused)
    }

    /// Removes a complete upload, unless somebody has asked for it since that time. True when it is gone.
    pub fn remove_object(&self, sha256: &str, since: SystemTime) -> Result<bool, Error> {
        let path = self.object_path(sha256)?;
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

fn read_piece(file: &File, from: u64, most: usize) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let most = usize::try_from(length.saturating_sub(from)).unwrap_or(most).min(most);
    let mut bytes = vec![0; most];
    let mut filled = 0;
    while filled < most {
        match file.read_at(&mut bytes[filled..], from + filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn digest(file: &mut File) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(context.finish().as_ref())),
            n => context.update(&buffer[..n]),
        }
    }
}

/// Writes a file that only the owner can read.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its folder should fail loudly")]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn blobs() -> (tempfile::TempDir, Blobs, TaskId) {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path(), true).unwrap();
        (dir, blobs, TaskId::new("t").unwrap())
    }

    #[test]
    fn output_is_placed_by_offset_whatever_is_sent_again() {
        let (_dir, blobs, task) = blobs();
        assert_eq!(blobs.append_output(&task, 0, 0, b"ab").unwrap(), 2);
        assert_eq!(blobs.append_output(&task, 0, 1, b"bc").unwrap(), 3);
        assert_eq!(blobs.append_output(&task, 0, 0, b"a").unwrap(), 3);
        assert!(matches!(blobs.append_output(&task, 0, 5, b"x"), Err(Error::Gap { stored: 3 })));
        assert_eq!(blobs.read_output(&task, 0, 1, 10).unwrap(), b"bc");
        assert_eq!(blobs.read_output(&task, 9, 0, 10).unwrap(), b"");
        assert_eq!(blobs.check_output(&task, 0, 3, ABC).unwrap(), None);
        assert_eq!(blobs.check_output(&task, 0, 4, ABC).unwrap(), Some(3));
        assert_eq!(blobs.check_output(&task, 0, 3, "other").unwrap(), Some(0));
        assert_eq!(blobs.output_length(&task, 0), 0);
    }

    #[test]
    fn uploads_resume_and_are_checked() {
        let (_dir, blobs, task) = blobs();
        assert_eq!(blobs.append_upload(&task, ABC, 3, 0, b"a").unwrap(), 1);
        assert_eq!(blobs.upload_offset(&task, ABC, 3).unwrap(), 1);
        assert!(matches!(blobs.append_upload(&task, ABC, 3, 2, b"c"), Err(Error::Gap { stored: 1 })));
        assert_eq!(blobs.append_upload(&task, ABC, 3, 0, b"abc").unwrap(), 3);
        assert!(blobs.has_object(ABC, 3).unwrap());
        let wrong = ABC.replace('b', "0");
        assert!(matches!(blobs.append_upload(&task, &wrong, 3, 0, b"abc"), Err(Error::Checksum)));
        assert_eq!(blobs.upload_offset(&task, &wrong, 3).unwrap(), 0);
        assert!(matches!(blobs.upload_offset(&task, "../../etc", 3), Err(Error::Invalid(_))));
        assert_eq!(blobs.read_object(ABC, 1, 10).unwrap(), b"bc");
        assert_eq!(blobs.read_object(ABC, 9, 10).unwrap(), b"");
    }

    #[test]
    fn uploads_go_when_nobody_has_asked_for_them() {
        let (dir, blobs, task) = blobs();
        blobs.append_upload(&task, ABC, 3, 0, b"abc").unwrap();
        let other = ABC.replace('b', "0");
        blobs.append_upload(&task, &other, 3, 0, b"a").unwrap();
        let partial = || fs::read_dir(dir.path().join("partial")).unwrap().count();
        let now = SystemTime::now();
        let before = now - std::time::Duration::from_secs(60);
        assert!(blobs.unused_since(before).unwrap().is_empty());
        assert_eq!(partial(), 1);
        let later = now + std::time::Duration::from_secs(60);
        assert_eq!(blobs.unused_since(later).unwrap(), [ABC]);
        assert_eq!(partial(), 0);
        assert!(!blobs.remove_object(ABC, before).unwrap());
        assert!(blobs.remove_object(ABC, later).unwrap());
        assert!(!blobs.has_object(ABC, 3).unwrap());
    }
}
