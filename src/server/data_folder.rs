//! The folder of everything that the control plane keeps: made, closed to others, and taken by one process.

use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Names of everything that a control plane makes in its folder; the database has further files whose names
/// begin with the first one. A file system of its own has the last one.
const OURS: [&str; 10] = [
    "runlet.db",
    "secrets.key",
    "secrets.key.new",
    "admin-token",
    "lock",
    "output",
    "objects",
    "partial",
    "mirrors",
    "lost+found",
];

/// The reason why a folder cannot be used.
#[derive(Debug)]
pub enum FolderError {
    /// The folder cannot be made or found.
    Unusable(PathBuf, io::Error),
    /// The lock file cannot be opened.
    Lock(PathBuf, io::Error),
    /// Another control plane uses the folder.
    Taken(PathBuf),
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FolderError::Unusable(path, error) => {
                write!(f, "failed to create the data folder `{}`: {error}", path.display())
            }
            FolderError::Lock(path, error) => write!(f, "failed to open `{}`: {error}", path.display()),
            FolderError::Taken(path) => write!(
                f,
                "another control plane uses the data folder `{}`: stop it, or use another `--data`",
                path.display()
            ),
        }
    }
}

impl std::error::Error for FolderError {}

/// A data folder that belongs to this process as long as this value lives.
#[derive(Debug)]
pub(super) struct DataFolder {
    /// Absolute path: git is started in folders of its own, where a relative one would lead elsewhere.
    pub(super) path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder where there is none, and takes it. It is closed to others; one that holds other things
    /// as well keeps its mode, and the log says so.
    pub(super) fn open(path: &Path) -> Result<Self, FolderError> {
        let unusable = |error| FolderError::Unusable(path.to_owned(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let path = std::path::absolute(path).map_err(unusable)?;
        // Two control planes on one data folder would destroy it.
        let name = path.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&name);
        let lock = lock.map_err(|error| FolderError::Lock(name, error))?;
        if !crate::system::locks::take(&lock) {
            return Err(FolderError::Taken(path));
        }
        close_to_others(&path);
        Ok(Self { path, _lock: lock })
    }
}

fn close_to_others(path: &Path) {
    let shown = path.display();
    let Ok(mode) = fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o7777) else { return };
    if mode & 0o077 == 0 {
        return;
    }
    // `--data /tmp` or `--data .` must not lock others out of their own files.
    if !holds_only_ours(path) {
        log::warn!(
            "others may enter the data folder `{shown}` (mode {mode:04o}), which also holds files that are not the control plane's: give it a folder of its own"
        );
        return;
    }
    match fs::set_permissions(path, Permissions::from_mode(0o700)) {
        Ok(()) => {
            log::warn!("others could enter the data folder `{shown}` (mode {mode:04o}): it has mode 0700 now")
        }
        Err(error) => log::warn!(
            "others may enter the data folder `{shown}` (mode {mode:04o}), and that cannot be changed: {error}"
        ),
    }
}

fn holds_only_ours(path: &Path) -> bool {
    let is_ours = |entry: io::Result<fs::DirEntry>| {
        let name = entry.map(|entry| entry.file_name()).unwrap_or_default();
        let name = name.to_string_lossy();
        OURS.contains(&&*name) || name.starts_with("runlet.db-")
    };
    fs::read_dir(path).is_ok_and(|mut entries| entries.all(is_ours))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its folder should fail loudly")]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_folder_is_made_private_and_made_private_again() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/data");
        let folder = DataFolder::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert!(matches!(DataFolder::open(&path), Err(FolderError::Taken(taken)) if taken == path));
        drop(folder);
        fs::write(path.join("runlet.db-wal"), "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        DataFolder::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_folder_with_other_things_keeps_its_mode() {
        let path = tempfile::tempdir().unwrap();
        fs::write(path.path().join("thesis.txt"), "").unwrap();
        fs::set_permissions(path.path(), Permissions::from_mode(0o755)).unwrap();
        DataFolder::open(path.path()).unwrap();
        assert_eq!(mode(path.path()), 0o755);
    }

    #[test]
    fn a_file_is_no_folder() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DataFolder::open(file.path()).unwrap_err();
        assert!(matches!(&error, FolderError::Unusable(path, _) if path == file.path()), "{error}");
    }
}
