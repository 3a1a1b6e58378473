//! Files in places where a step may have put something else: a pipe that waits for its other end, a link.

use super::os;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Opens a regular file and waits for nobody. Anything else is refused, links as well.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    open_with(path, options, false)
}

/// Opens a regular file for reading, where links may lead to it, and waits for nobody: neither for the other end of a
/// pipe, nor for what a file of `/proc` may say one day. Anything else is refused.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // To open a device may do something by itself.
    if !fs::metadata(path)?.is_file() {
        return Err(refused());
    }
    open_with(path, File::options().read(true), true)
}

fn open_with(path: &Path, options: &mut OpenOptions, follows_links: bool) -> io::Result<File> {
    let file = os::opens_at_once(options, follows_links).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(refused()) }
}

fn refused() -> io::Error {
    io::Error::other("not a regular file")
}

/// Creates a file for reading and writing in the place of what is there, unless that is a folder.
pub fn create(path: &Path) -> io::Result<File> {
    let _ = fs::remove_file(path);
    File::options().read(true).write(true).create_new(true).open(path)
}

/// Writes a file as [`create`] makes it.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = create(path)?;
    file.write_all(bytes)?;
    Ok(file)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_no_file_is_neither_waited_for_nor_followed() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let folder = tempfile::tempdir().unwrap();
        let (pipe, link, file) =
            (folder.path().join("pipe"), folder.path().join("link"), folder.path().join("file"));
        fs::write(&file, "text").unwrap();
        symlink(&file, &link).unwrap();
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for path in [&pipe, &link] {
            assert!(open(path, File::options().read(true)).is_err());
            assert!(open(path, File::options().write(true)).is_err());
            assert_eq!(open_regular(path).is_ok(), path == &link);
            assert!(write(path, b"other").unwrap().metadata().unwrap().is_file());
        }
        assert_eq!(fs::read(&file).unwrap(), b"text", "a link is replaced, not followed");
        assert!(open(&file, File::options().read(true)).is_ok());
        assert!(create(folder.path()).is_err());
    }
}
