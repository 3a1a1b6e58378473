//! The folder of everything that the control plane keeps: made, closed to others, and taken by one process.

use crate::system::locks::{self, Lock};
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Name of the key that seals secrets.
const KEY: &str = "secrets.key";
/// Names of folders of ours, which are closed with everything in them.
const FOLDERS: [&str; 4] = ["output", "objects", "partial", "mirrors"];
/// Names of everything that a control plane makes in its folder; the database has further files whose names
/// begin with the first one. A file system of its own has the last one.
const OURS: [&str; 11] = [
    "backup.json",
    "runlet.db",
    KEY,
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
    /// The folder, or a file of ours in it, belongs to another user.
    Foreign {
        /// Path of the folder or file.
        path: PathBuf,
        /// The number of its owner.
        owner: u32,
        /// The number of the user of this process.
        user: u32,
    },
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
            FolderError::Foreign { path, owner, user } => write!(
                f,
                "refusing to use `{}`: it belongs to user {owner}, and this process runs as user {user} (start it as user {owner}, or give the whole folder to {user} with chown)",
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
    _lock: Lock,
}

impl DataFolder {
    /// Makes the folder where there is none, and takes it. It is closed to others, and so is everything of ours in
    /// it; one that holds other things as well keeps its own mode, and the log says so. What is another user's is
    /// refused: its owner could read it, whatever its mode.
    pub(super) fn open(path: &Path) -> Result<Self, FolderError> {
        let unusable = |error| FolderError::Unusable(path.to_owned(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let path = std::path::absolute(path).map_err(unusable)?;
        refuse_foreign(&path)?;
        // Two control planes on one data folder would destroy it.
        let name = path.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).mode(0o600).open(&name);
        let lock = lock.map_err(|error| FolderError::Lock(name, error))?;
        let Ok(lock) = locks::take(lock) else { return Err(FolderError::Taken(path)) };
        close_to_others(&path);
        Ok(Self { path, _lock: lock })
    }
}

fn is_ours(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    OURS.contains(&&*name) || name.starts_with("runlet.db-")
}

/// The entries of the folder that are ours, not following links.
fn ours(path: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let ours = entries.flatten().filter(|entry| is_ours(&entry.file_name()));
    ours.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?))).collect()
}

fn refuse_foreign(path: &Path) -> Result<(), FolderError> {
    let user = rustix::process::geteuid().as_raw();
    let folder = fs::metadata(path).map_err(|error| FolderError::Unusable(path.to_owned(), error))?;
    let mut all = vec![(path.to_owned(), folder)];
    // The file system made it, for root.
    all.extend(ours(path).into_iter().filter(|(path, _)| !path.ends_with("lost+found")));
    match all.into_iter().find(|(_, about)| about.uid() != user) {
        Some((path, about)) => Err(FolderError::Foreign { path, owner: about.uid(), user }),
        None => Ok(()),
    }
}

fn close_to_others(path: &Path) {
    let shown = path.display();
    let mut was_open = false;
    for (path, about) in ours(path) {
        // A key that others could read may be known: whoever opens it refuses it, and a person decides.
        if !path.ends_with(KEY) {
            was_open |= close(&path, &about);
        }
    }
    if was_open {
        // A stranger who was in a folder, or had linked a file elsewhere, keeps that way until the file is closed.
        for name in FOLDERS {
            close_all_in(&path.join(name));
        }
        log::warn!(
            "others could read files in the data folder `{shown}`: they have mode 0600 now, and folders 0700"
        );
    }
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

/// Takes all rights of others away; true when they had any. A link is left alone: what it leads to is not ours.
fn close(path: &Path, about: &fs::Metadata) -> bool {
    let mode = about.permissions().mode();
    if about.is_symlink() || mode & 0o077 == 0 || path.ends_with("lost+found") {
        return false;
    }
    let closed = if about.is_dir() { 0o700 } else { 0o600 };
    if let Err(error) = fs::set_permissions(path, Permissions::from_mode(closed)) {
        let (shown, mode) = (path.display(), mode & 0o7777);
        log::warn!("others may use `{shown}` (mode {mode:04o}), and that cannot be changed: {error}");
    }
    true
}

fn close_all_in(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(about) = entry.metadata() else { continue };
        // Git's own files may be programs; the folder around them is closed.
        if folder.ends_with("mirrors") && !about.is_dir() {
            continue;
        }
        close(&entry.path(), &about);
        if about.is_dir() && !folder.ends_with("mirrors") {
            close_all_in(&entry.path());
        }
    }
}

fn holds_only_ours(path: &Path) -> bool {
    let is_ours = |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| is_ours(&entry.file_name()));
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
    fn everything_in_it_is_closed_whatever_stood_there() {
        let path = tempfile::tempdir().unwrap();
        let path = path.path();
        fs::create_dir_all(path.join("output/t")).unwrap();
        let files = ["runlet.db", "runlet.db-wal", "admin-token", "output/t/1"].map(|name| path.join(name));
        for file in &files {
            fs::write(file, "").unwrap();
            fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
        }
        fs::write(path.join("thesis.txt"), "").unwrap();
        fs::set_permissions(path.join("thesis.txt"), Permissions::from_mode(0o644)).unwrap();
        for folder in ["output", "output/t"] {
            fs::set_permissions(path.join(folder), Permissions::from_mode(0o755)).unwrap();
        }
        DataFolder::open(path).unwrap();
        assert_eq!(files.map(|file| mode(&file)), [0o600; 4]);
        assert_eq!(["output", "output/t"].map(|folder| mode(&path.join(folder))), [0o700; 2]);
        assert_eq!(mode(&path.join("thesis.txt")), 0o644, "not ours");
        assert_eq!(mode(&path.join("lock")), 0o600);
    }

    #[test]
    fn what_belongs_to_another_user_is_refused() {
        // Every system has a folder of root, and a test of root one of nobody's.
        let own = tempfile::tempdir().unwrap();
        let foreign = if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(own.path(), Some(65534), None).unwrap();
            own.path()
        } else {
            Path::new("/usr")
        };
        let error = DataFolder::open(foreign).unwrap_err();
        assert!(matches!(&error, FolderError::Foreign { path, .. } if path == foreign), "{error}");
    }

    #[test]
    fn a_file_is_no_folder() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DataFolder::open(file.path()).unwrap_err();
        assert!(matches!(&error, FolderError::Unusable(path, _) if path == file.path()), "{error}");
    }
}
