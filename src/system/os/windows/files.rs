//! Files: names as bytes, what Unix tells of a file, rights, room, locks of folders.

use super::Errno;
use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::ops::BitOr;
use std::os::windows::fs as system;
use std::os::windows::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// `FILE_FLAG_OPEN_REPARSE_POINT`: opens a link as such.
const OPENS_LINKS: u32 = 0x0020_0000;
/// Names as bytes: those of Rust, which are UTF-8 for all names that are text.
pub trait OsStrExt {
    /// The bytes of a name.
    fn as_bytes(&self) -> &[u8];
    /// The name of these bytes. One that is no text becomes one that Windows refuses, so that it takes no other's place.
    fn from_bytes(bytes: &[u8]) -> &OsStr;
}

impl OsStrExt for OsStr {
    fn as_bytes(&self) -> &[u8] {
        self.as_encoded_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> &OsStr {
        OsStr::new(std::str::from_utf8(bytes).unwrap_or("<not UTF-8>"))
    }
}

/// Owned names as bytes, as the trait of this name gives them on Unix.
pub trait OsStringExt {
    /// The name of these bytes, as [`OsStrExt::from_bytes`].
    fn from_vec(bytes: Vec<u8>) -> OsString;
    /// The bytes of a name.
    fn into_vec(self) -> Vec<u8>;
}

impl OsStringExt for OsString {
    fn from_vec(bytes: Vec<u8>) -> OsString {
        OsStr::from_bytes(&bytes).to_owned()
    }

    fn into_vec(self) -> Vec<u8> {
        self.into_encoded_bytes()
    }
}

/// Facts about a file that Unix tells.
pub trait MetadataExt {
    /// There are no devices without unsafe code: 0.
    fn dev(&self) -> u64;
    /// The time at which it was made, which tells a file from a later one of its name.
    fn ino(&self) -> u64;
    /// There is no owner without unsafe code: 0, as [`geteuid`].
    fn uid(&self) -> u32;
    /// Names of the file: one is as good as known.
    fn nlink(&self) -> u64;
    /// Permissions, as far as there are any: whether it may be written.
    fn mode(&self) -> u32;
    /// Seconds of its last change.
    fn mtime(&self) -> i64;
    /// Nanoseconds of that.
    fn mtime_nsec(&self) -> i64;
}

impl MetadataExt for Metadata {
    fn dev(&self) -> u64 {
        0
    }

    fn ino(&self) -> u64 {
        self.creation_time()
    }

    fn uid(&self) -> u32 {
        0
    }

    fn nlink(&self) -> u64 {
        1
    }

    fn mode(&self) -> u32 {
        match (self.is_dir(), self.permissions().readonly()) {
            (true, _) => 0o755,
            // Of a file nobody can tell whether it is a program for another system.
            (false, false) => 0o755,
            (false, true) => 0o555,
        }
    }

    fn mtime(&self) -> i64 {
        let since = self.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }

    fn mtime_nsec(&self) -> i64 {
        let since = self.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        since.map_or(0, |since| since.subsec_nanos().into())
    }
}

/// Reads and writes at a place. They move the place of the file itself, which nobody here asks for.
pub trait FileExt {
    /// Reads some bytes at `offset`.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some bytes at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Reads all of the bytes.
    fn read_exact_at(&self, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.read_at(bytes, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => (bytes, offset) = (&mut bytes[read..], offset + read as u64),
            }
        }
        Ok(())
    }

    /// Writes all of the bytes.
    fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => (bytes, offset) = (&bytes[written..], offset + written as u64),
            }
        }
        Ok(())
    }
}

impl FileExt for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.seek_read(bytes, offset) {
            // `ERROR_HANDLE_EOF`.
            Err(error) if error.raw_os_error() == Some(38) => Ok(0),
            read => read,
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.seek_write(bytes, offset)
    }
}

/// Permissions of a file that is made: those of its folder.
pub trait OpenOptionsExt {
    /// Ignores the mode.
    fn mode(&mut self, mode: u32) -> &mut Self;
}

impl OpenOptionsExt for OpenOptions {
    fn mode(&mut self, _: u32) -> &mut Self {
        self
    }
}

/// Permissions of a folder that is made: those of the one above.
pub trait DirBuilderExt {
    /// Ignores the mode.
    fn mode(&mut self, mode: u32) -> &mut Self;
}

impl DirBuilderExt for DirBuilder {
    fn mode(&mut self, _: u32) -> &mut Self {
        self
    }
}

/// Whether everybody on this host may read a file: its list of rights is not read.
pub fn is_for_all(_: &Metadata) -> bool {
    false
}

/// Gives a file its permissions, as far as there are any: whether it may be written.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let about = fs::metadata(path)?;
    if about.is_dir() {
        return Ok(());
    }
    let mut permissions = about.permissions();
    permissions.set_readonly(mode & 0o200 == 0);
    fs::set_permissions(path, permissions)
}

/// Removes a file, also one that may not be written to, as git keeps its objects.
pub fn remove_file(path: &Path) -> io::Result<()> {
    let is_file = || fs::symlink_metadata(path).is_ok_and(|about| about.is_file());
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && is_file() => {
            set_mode(path, 0o700)?;
            fs::remove_file(path)
        }
        removed => removed,
    }
}

/// Gives an opened file its permissions.
pub fn set_mode_of(file: &File, mode: u32) -> io::Result<()> {
    let mut permissions = file.metadata()?.permissions();
    permissions.set_readonly(mode & 0o200 == 0);
    file.set_permissions(permissions)
}

/// A wish to use a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileAccess(u32);

impl FileAccess {
    /// To read it.
    pub const READ_OK: Self = Self(4);
    /// To write to it.
    pub const WRITE_OK: Self = Self(2);
    /// To run it.
    pub const EXEC_OK: Self = Self(1);
}

impl BitOr for FileAccess {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Whether a file can be used, as far as its attributes tell; lists of rights are not read. A program may be named
/// without its `.exe`.
pub fn access(path: impl AsRef<Path>, wish: FileAccess) -> Result<(), Errno> {
    let path = path.as_ref();
    let about = match fs::metadata(path) {
        Err(_) if wish == FileAccess::EXEC_OK => fs::metadata(path.with_added_extension("exe")),
        found => found,
    };
    let about = about.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOENT))?;
    if wish.0 & FileAccess::WRITE_OK.0 != 0 && !about.is_dir() && about.permissions().readonly() {
        return Err(Errno::ACCESS);
    }
    Ok(())
}

/// A user, of whom nothing is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownUser;

impl UnknownUser {
    /// The number that every file has for its owner.
    pub fn as_raw(self) -> u32 {
        0
    }

    /// Whether it may do everything: not known.
    pub fn is_root(self) -> bool {
        false
    }
}

/// Always true: owners are not known here.
pub fn may_write(_: &Path) -> bool {
    true
}

/// The user of this process.
pub fn geteuid() -> UnknownUser {
    UnknownUser
}

/// The user of this process.
pub fn getuid() -> UnknownUser {
    UnknownUser
}

/// Room on a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatVfs {
    /// All bytes of the disk, counted in blocks.
    pub f_blocks: u64,
    /// Bytes that this user may still write.
    pub f_bavail: u64,
    /// Bytes of a block.
    pub f_frsize: u64,
    /// Files that fit: not counted.
    pub f_files: u64,
    /// Files that still fit: not counted.
    pub f_favail: u64,
}

/// The room of the disk of a folder.
pub fn statvfs(path: impl AsRef<Path>) -> Result<StatVfs, Errno> {
    let path = path.as_ref();
    // Only folders can be asked.
    let folder = if path.is_file() { path.parent().unwrap_or(path) } else { path };
    let (mut free, mut all) = (0, 0);
    winsafe::GetDiskFreeSpaceEx(folder.to_str(), Some(&mut free), Some(&mut all), None)
        .map_err(|error| Errno::from_io_error(&super::error_of(error)).unwrap_or(Errno::NOENT))?;
    Ok(StatVfs { f_blocks: all, f_bavail: free, f_frsize: 1, f_files: 0, f_favail: 0 })
}

/// A link to a file or folder, for which this user may need a right of its own.
pub fn symlink(target: impl AsRef<Path>, link: impl AsRef<Path>) -> io::Result<()> {
    let (target, link) = (target.as_ref(), link.as_ref());
    let meant = link.parent().map_or_else(|| target.to_owned(), |folder| folder.join(target));
    if meant.is_dir() { system::symlink_dir(target, link) } else { system::symlink_file(target, link) }
}

/// Whether a name of a program takes no room, and can be made anew: there it is a copy.
pub const HAS_LINKS: bool = false;

/// A name by which a program can be called: a copy. Links need a right, and a second name of a program that runs cannot be
/// removed.
pub fn link_to_program(program: impl AsRef<Path>, name: impl AsRef<Path>) -> io::Result<()> {
    fs::copy(program, name.as_ref().with_added_extension("exe")).map(drop)
}

/// Has a file opened without waiting for anybody: nothing in a folder is waited for there.
pub fn opens_at_once(options: &mut OpenOptions, follows_links: bool) -> &mut OpenOptions {
    if follows_links { options } else { options.custom_flags(OPENS_LINKS) }
}

/// Takes the lock of a file at once. [`Errno::WOULDBLOCK`] when somebody else has it, and keeps others from its bytes.
pub fn try_lock(file: &File, is_shared: bool) -> Result<(), Errno> {
    match if is_shared { file.try_lock_shared() } else { file.try_lock() } {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Errno::WOULDBLOCK),
        Err(TryLockError::Error(error)) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

/// Lets go of the lock of a file.
pub fn unlock(file: &File) {
    let _ = file.unlock();
}

/// A path as git, ssh and a shell read it: with slashes, which Windows knows as well.
pub fn written_for_git(path: &Path) -> Cow<'_, str> {
    path.to_string_lossy().replace('\\', "/").into()
}

/// The file that stands for a folder in locks, in one place for all users of this host: whoever works in a folder has it
/// open without a wish to share its removal, so that no lock can be of the folder itself.
fn lock_file(path: &Path) -> io::Result<PathBuf> {
    let place = fs::canonicalize(path)?.to_string_lossy().to_lowercase();
    let digest = ring::digest::digest(&ring::digest::SHA256, place.as_bytes());
    let base = std::env::var_os("ProgramData").map_or_else(std::env::temp_dir, PathBuf::from);
    Ok(base.join("runlet").join("locks").join(crate::system::hex(&digest.as_ref()[..16])))
}

/// Whether a folder may have a lock: whether somebody has locked it before.
pub fn has_lock(path: &Path) -> bool {
    lock_file(path).is_ok_and(|file| file.exists())
}

/// Opens the file that stands for a folder in locks.
pub fn open_folder(path: &Path) -> io::Result<File> {
    let file = lock_file(path)?;
    // The folder that is asked for is there: whatever is missing is no matter of it.
    let refused = |_: io::Error| io::Error::from(io::ErrorKind::PermissionDenied);
    fs::create_dir_all(file.parent().unwrap_or(&file)).map_err(refused)?;
    let made = File::options().read(true).write(true).create(true).truncate(false).open(&file);
    // The file of another user can be locked when it is opened for reading.
    made.or_else(|_| File::open(&file)).map_err(refused)
}

/// Facts about the folder that was opened by its path.
pub fn about_folder(_: &File, path: &Path) -> io::Result<Metadata> {
    fs::metadata(path)
}

/// Names in a folder are on the disk with the file: folders cannot be synced.
pub fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// No number: an opened file does not tell which file it is.
pub fn number_of<T>(_: &T) -> Option<(u64, u64)> {
    None
}
