//! Errors of Windows by the names of Unix, as far as rooms tell them apart.

use std::io;

/// An error by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    /// `ERROR_DISK_FULL`.
    pub const NOSPC: Self = Self(112);
    /// `ERROR_DISK_QUOTA_EXCEEDED`.
    pub const DQUOT: Self = Self(1295);
    /// `ERROR_IO_DEVICE`.
    pub const IO: Self = Self(1117);
    /// `ERROR_NO_SYSTEM_RESOURCES`.
    pub const AGAIN: Self = Self(1450);
    /// `ERROR_NOT_ENOUGH_MEMORY`.
    pub const NOMEM: Self = Self(8);
    /// `ERROR_TOO_MANY_OPEN_FILES`.
    pub const MFILE: Self = Self(4);
    /// `ERROR_COMMITMENT_LIMIT`: the memory of all processes.
    pub const NFILE: Self = Self(1455);
    /// `ERROR_LOCK_VIOLATION`: somebody else has the lock.
    pub const WOULDBLOCK: Self = Self(33);
    /// `ERROR_ACCESS_DENIED`.
    pub const ACCESS: Self = Self(5);
    /// `ERROR_PRIVILEGE_NOT_HELD`.
    pub const PERM: Self = Self(1314);
    /// `ERROR_FILE_NOT_FOUND`.
    pub const NOENT: Self = Self(2);
    /// `ERROR_BAD_EXE_FORMAT`.
    pub const NOEXEC: Self = Self(193);
    /// `ERROR_SHARING_VIOLATION`: somebody has the file open.
    pub const TXTBSY: Self = Self(32);

    /// The error that this one is, one of several with the same meaning.
    pub fn from_io_error(error: &io::Error) -> Option<Self> {
        let code = error.raw_os_error()?;
        Some(match code {
            // `ERROR_HANDLE_DISK_FULL`.
            39 => Self::NOSPC,
            // `ERROR_CRC`, `ERROR_SEEK`.
            23 | 25 => Self::IO,
            // `ERROR_OUTOFMEMORY`.
            14 => Self::NOMEM,
            code => Self(code),
        })
    }

    /// Number of the error, as Windows counts.
    pub fn raw_os_error(self) -> i32 {
        self.0
    }
}

impl From<Errno> for io::Error {
    fn from(error: Errno) -> Self {
        Self::from_raw_os_error(error.0)
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        io::Error::from(*self).fmt(f)
    }
}
