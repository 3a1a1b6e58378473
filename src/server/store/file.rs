//! The file of the database: closed to others, and opened.
//!
//! Only SQLite: the pragmas, and the files that it keeps beside the database.

use crate::server::store::Error;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Makes sure that only the owner can read the database. SQLite gives its other files the mode of this one.
pub(super) fn make_private(path: &Path) -> Result<(), Error> {
    let made = File::options().create(true).truncate(false).append(true).mode(0o600).open(path);
    let file = made.map_err(|error| {
        if error.kind() == io::ErrorKind::StorageFull {
            Error::NoSpace
        } else {
            Error::File(path.to_owned(), error)
        }
    })?;
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let name = PathBuf::from(name);
        let Ok(metadata) = std::fs::metadata(&name) else { continue };
        if metadata.permissions().mode() & 0o077 == 0 {
            continue;
        }
        if let Err(error) = std::fs::set_permissions(&name, Permissions::from_mode(0o600)) {
            log::warn!("others may read `{}`, and that cannot be changed: {error}", name.display());
        }
    }
    drop(file);
    Ok(())
}

/// Opens a connection that may write. That of a database which is to be thrown away does not bring the write-ahead log
/// into the file when it is closed as the last one.
pub(super) fn connect(path: &Path, is_kept: bool) -> Result<Connection, Error> {
    let connection = Connection::open(path)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !is_kept)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}
