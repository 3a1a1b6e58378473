//! The one error of the store.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// The reason why a read or write did not happen.
#[derive(Debug)]
pub enum Error {
    /// The database said no: a broken constraint, a damaged file.
    Sqlite(rusqlite::Error),
    /// The disk is full. Trying again later may help.
    NoSpace,
    /// A stored value cannot be read: it was written by a newer version, or is damaged.
    Corrupt(String),
    /// The transaction that this write was part of could not be committed.
    Commit(String),
    /// The database file cannot be opened or made.
    File(PathBuf, io::Error),
    /// The database could not be copied to this file before its schema was to be brought up to date.
    NotCopied(PathBuf, Box<Error>),
    /// The store has been closed.
    Closed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Sqlite(error) => write!(f, "the database refused: {error}"),
            Error::NoSpace => f.write_str("there is no space left for the database: the disk of the control plane's data folder is full"),
            Error::Corrupt(what) => write!(f, "the database holds what cannot be read: {what}"),
            Error::Commit(why) => write!(f, "failed to commit to the database: {why}"),
            Error::File(path, error) => {
                write!(f, "failed to open the database file `{}`: {error}", path.display())
            }
            Error::NotCopied(path, error) => write!(
                f,
                "failed to copy the database to `{}` before its schema is brought up to date: {error} (nothing was changed; make space as large as the database, or start the earlier program)",
                path.display()
            ),
            Error::Closed => f.write_str("the control plane is stopping"),
        }
    }
}

impl std::error::Error for Error {}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error() {
            Some(code) if code.code == rusqlite::ErrorCode::DiskFull => Error::NoSpace,
            // The index of the write-ahead log could not grow.
            Some(code) if code.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => Error::NoSpace,
            // A column that has no value of its type.
            None if matches!(
                error,
                rusqlite::Error::FromSqlConversionFailure(..)
                    | rusqlite::Error::InvalidColumnType(..)
                    | rusqlite::Error::IntegralValueOutOfRange(..)
            ) =>
            {
                Error::Corrupt(error.to_string())
            }
            _ => Error::Sqlite(error),
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Error::Corrupt(error.to_string())
    }
}
