//! State of the control plane in SQLite.
//!
//! Writes go through one thread (`writer`) that puts what is queued into one transaction; reads run on
//! connections of their own and see the last commit. [`Tx`] dereferences to a [`Connection`], so a query
//! serves reads and writes. Decisions are the engine's; nothing here knows HTTP.
//!
//! What others must hear of after a commit is said with [`Tx::effect`]; effects of a write that fails
//! are dropped with it.

pub mod read;
#[cfg(test)]
pub mod scene;
mod schema;
pub mod status;
pub mod tables;
mod values;
mod writer;

pub use crate::server::ids::fresh_uuid as new_id;
use rusqlite::Connection;
pub use writer::{Effect, Tx};

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Why a read or write did not happen.
#[derive(Debug)]
pub enum Error {
    /// The database said no: a broken constraint, a damaged file.
    Sqlite(rusqlite::Error),
    /// The disk is full. Trying again later may help.
    NoSpace,
    /// What is stored cannot be read: written by a newer version, or damaged.
    Corrupt(String),
    /// The transaction that this write was part of could not be committed.
    Commit(String),
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
            _ => Error::Sqlite(error),
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Error::Corrupt(error.to_string())
    }
}

impl Error {
    /// Whether a row that must be unique was there already.
    pub fn is_duplicate(&self) -> bool {
        matches!(self, Error::Sqlite(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation))
    }
}

/// Most reads that run at once; further ones wait.
const MAX_READERS: usize = 8;

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    writer: writer::Writer,
    readers: Arc<Readers>,
}

struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<View>>,
    permits: Semaphore,
}

impl Store {
    /// Opens or creates the database file and brings its schema up to date. `durable` makes a commit wait
    /// for the disk; without it a power cut may lose the last commits, but never damages the file.
    /// `on_commit` is called by the writer thread after each commit and must be quick.
    pub fn open(
        path: &Path,
        durable: bool,
        on_commit: impl Fn(Vec<Effect>) + Send + 'static,
    ) -> Result<Self, Error> {
        let connection = connect(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", if durable { "FULL" } else { "NORMAL" })?;
        schema::migrate(&connection)?;
        let writer = writer::Writer::start(View(connection), on_commit)
            .map_err(|e| Error::Corrupt(format!("cannot start the writer thread: {e}")))?;
        let readers = Readers {
            path: path.to_owned(),
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(MAX_READERS),
        };
        Ok(Self { writer, readers: Arc::new(readers) })
    }

    /// Runs `work` in a transaction; its effects are announced, and its result is returned, once the
    /// commit is done. An error undoes what this `work` did and nothing else.
    pub async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.writer.submit(work, move |result| {
            // Nobody waits when the caller went away; the write stands.
            let _ = sender.send(result);
        })?;
        receiver.await.map_err(|_| Error::Closed)?
    }

    /// [`Store::write`] for threads outside the runtime.
    pub fn write_blocking<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.writer.submit(work, move |result| {
            let _ = sender.send(result);
        })?;
        receiver.recv().map_err(|_| Error::Closed)?
    }

    /// How many writes were lost so far because the disk or the database did not take them. It tells
    /// whether others could reach the store lately.
    pub fn failed_writes(&self) -> u64 {
        self.writer.failed_writes()
    }

    /// Runs `work` on a read-only connection in a thread where blocking is allowed.
    pub async fn read<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&View) -> Result<T, Error> + Send + 'static,
    {
        let readers = Arc::clone(&self.readers);
        let _permit = self.readers.permits.acquire().await.map_err(|_| Error::Closed)?;
        tokio::task::spawn_blocking(move || readers.run(work)).await.map_err(|_| Error::Closed)?
    }

    /// [`Store::read`] for threads where blocking is allowed.
    pub fn read_blocking<T>(&self, work: impl FnOnce(&View) -> Result<T, Error>) -> Result<T, Error> {
        self.readers.run(work)
    }

    /// Finishes what is queued and closes the database; later writes are refused.
    pub fn close(&self) {
        self.readers.permits.close();
        self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.writer.close();
    }
}

impl Readers {
    fn run<T>(&self, work: impl FnOnce(&View) -> Result<T, Error>) -> Result<T, Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let connection = connect(&self.path)?;
                connection.pragma_update(None, "query_only", true)?;
                View(connection)
            }
        };
        // One transaction, so that several queries of one read see the same state.
        connection.sql().execute_batch("BEGIN")?;
        let result = work(&connection);
        let ended = connection.sql().execute_batch("COMMIT");
        if ended.is_ok() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        result
    }
}

fn connect(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

/// The database as it was at one moment: what a read sees, and what a transaction sees of itself.
///
/// Statements are written in this room only; nothing else can reach the connection. A [`Tx`] is a view, too.
pub struct View(Connection);

impl View {
    /// The connection, for the statements of this room.
    pub(in crate::server::store) fn sql(&self) -> &Connection {
        &self.0
    }
}

/// For statements that have not moved to this room yet.
impl std::ops::Deref for View {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.0
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;

    fn add(tx: &Connection, login: &str) -> Result<(), Error> {
        tx.execute("INSERT INTO users VALUES (?1, ?1, ?1, 0, 0)", [login])?;
        Ok(())
    }

    fn count(store: &Store) -> i64 {
        store
            .read_blocking(|c| Ok(c.sql().query_row("SELECT count(*) FROM users", [], |row| row.get(0))?))
            .unwrap()
    }

    #[test]
    fn a_failed_write_is_undone_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), false, |_| ()).unwrap();
        store.write_blocking(|tx| add(tx, "ada")).unwrap();
        let bad = store.write_blocking(|tx| add(tx, "bob").and_then(|()| add(tx, "ada")));
        assert!(bad.is_err_and(|error| error.is_duplicate()));
        assert_eq!(count(&store), 1);
    }

    #[test]
    fn a_database_is_opened_again_with_its_rows_and_refused_when_newer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let store = Store::open(&path, true, |_| ()).unwrap();
        store.write_blocking(|tx| add(tx, "ada")).unwrap();
        store.close();
        assert!(matches!(store.write_blocking(|_| Ok(())), Err(Error::Closed)));
        assert_eq!(count(&Store::open(&path, true, |_| ()).unwrap()), 1);
        connect(&path).unwrap().pragma_update(None, "user_version", 9999).unwrap();
        let error = Store::open(&path, false, |_| ()).err().unwrap();
        assert!(error.to_string().contains("newer"), "{error}");
    }

    #[test]
    fn readers_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), false, |_| ()).unwrap();
        assert!(store.read_blocking(|c| Ok(c.execute("DELETE FROM users", [])?)).is_err());
    }
}
