//! Reading and writing files, and how that fails.

use crate::system::hex;
use ring::digest::{Context, SHA256};
use rustix::buffer::spare_capacity;
use rustix::io::{pread, retry_on_intr};
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

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
    /// Any other error of the disk.
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

pub(super) fn io_error(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace,
        _ => Error::Io(format!("failed to store in `{}`: {error}", path.display())),
    }
}

pub(super) fn read_piece(file: &File, from: u64, most: usize) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let most = usize::try_from(length.saturating_sub(from)).unwrap_or(most).min(most);
    // Room that is not made zero first: that would cost as much as the reading.
    let mut bytes = Vec::with_capacity(most);
    while bytes.len() < most {
        let at = from + bytes.len() as u64;
        if retry_on_intr(|| pread(file, spare_capacity(&mut bytes), at))? == 0 {
            break;
        }
    }
    bytes.truncate(most);
    Ok(bytes)
}

pub(super) fn digest(file: &mut impl Read) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(context.finish().as_ref())),
            n => context.update(&buffer[..n]),
        }
    }
}

/// The space of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// Bytes of the whole.
    pub total_bytes: u64,
    /// Files that may still be made; `u64::MAX` where they are not counted.
    pub free_files: u64,
}

impl Space {
    pub(super) fn of(path: &Path) -> Result<Self, Error> {
        let about = rustix::fs::statvfs(path).map_err(|errno| io_error(path)(errno.into()))?;
        Ok(Self {
            free_bytes: about.f_bavail.saturating_mul(about.f_frsize),
            total_bytes: about.f_blocks.saturating_mul(about.f_frsize),
            // Some file systems count no files.
            free_files: if about.f_files == 0 { u64::MAX } else { about.f_favail },
        })
    }

    /// Whether so little is left that output and uploads will soon fail: a hundredth, or 64 MiB of a large disk.
    pub fn is_low(&self) -> bool {
        self.free_bytes < (self.total_bytes / 100).min(64 * 1024 * 1024) || self.free_files < 16
    }
}

/// Makes a folder, and those above it, that only the owner can enter; one that is there is left as it is.
pub(super) fn make_folder(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error(path))
}

/// Opens a file to write to it, which only the owner can read where it is made by this.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Writes a file that only the owner can read.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
