//! State of the control plane in SQLite.
//!
//! Writes go through one thread (`writer`) that puts what is queued into one transaction; reads run on
//! connections of their own and see the last commit. A [`Tx`] is a [`View`], too, so a query serves reads and
//! writes. Decisions are the engine's; nothing here knows HTTP.
//!
//! [`Tx::effect`] tells others of a change after its commit; effects of a write that fails are dropped with it.
//!
//! Only SQLite understands, and another database has to have in its own words:
//!
//! - the pragmas and transactions of this file, of `writer` and of `scene`, and `user_version` in `schema`;
//! - in the schema: `STRICT` tables whose booleans are integers, `WITHOUT ROWID`, `AUTOINCREMENT` and `INTEGER PRIMARY
//!   KEY`, whose order is the order in which rows came;
//! - the triggers of the schema, which have states and events in their words, as its indexes on some of the rows do: both
//!   are fixed with the version of the schema that has them, and tests find out when they and `status` part;
//! - lists that are given as JSON (`json_each`), other functions on JSON, `INSERT OR ...`, `rowid` and `last_insert_rowid`,
//!   `LIMIT -1`, `INDEXED BY`, `group_concat`, `instr`, `IS` between values, `max` of two values;
//! - flags that a statement negates or compares, as they are integers, and truth values that are added up or stored as such;
//! - a column beside `max` or `min`, which is that of the row that has it, and `HAVING` with a name of the result.
//!
//! The header of each file names those of that file behind "Only SQLite"; a test (`house`) compares the two. `RETURNING`
//! and `ON CONFLICT` are PostgreSQL's, too.

pub mod copy;
mod error;
mod file;
pub mod forge_states;
#[cfg(test)]
mod house;
pub mod inspect;
mod json;
#[cfg(test)]
mod plans;
pub mod read;
#[cfg(test)]
pub mod scene;
mod schema;
pub mod status;
pub mod tables;
mod values;
mod view;
mod words;
mod writer;

pub use crate::server::ids::fresh_uuid as new_id;
pub use error::Error;
use file::{connect, make_private};
pub use view::View;
pub use writer::{Effect, EndedTask, Tx};

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most reads that run at once, and most connections that are open for them; further ones wait.
const MAX_READERS: usize = 8;

/// Most reads and connections of a database that is to be thrown away: to open a connection, which reads the schema, and
/// to compile its statements costs more than most of its reads do.
const FEW_READERS: usize = 2;

/// Most memory of the pages that the writer keeps, in KiB.
const WRITER_CACHE_KIB: i64 = 32 * 1024;

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    writer: writer::WriterThread,
    readers: Arc<Readers>,
}

struct Readers {
    path: PathBuf,
    is_kept: bool,
    idle: Mutex<Vec<View>>,
    permits: Arc<Semaphore>,
}

impl Store {
    /// Opens or creates the database file and brings its schema up to date. `durable` makes a commit wait
    /// for the disk; without it nothing ever does, a file that a power cut has met is to be thrown away, and all is done
    /// as is cheapest for one that is soon.
    /// `on_commit` is called by the writer thread after each commit and must be quick.
    pub fn open(
        path: &Path,
        durable: bool,
        on_commit: impl Fn(Vec<Effect>) + Send + 'static,
    ) -> Result<Self, Error> {
        make_private(path)?;
        let connection = connect(path, durable)?;
        // Before the change of the journal, which would wait as well.
        connection.pragma_update(None, "synchronous", if durable { "FULL" } else { "OFF" })?;
        if !durable && schema::version(&connection)? == 0 {
            // A new file, which is there in full or not at all, is written once, not twice.
            connection.pragma_update(None, "journal_mode", "OFF")?;
            schema::migrate(&connection)?;
        }
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // Rows have ids by chance: what a million tasks have of pages would be read again and again.
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        copy::before_migration(&connection, path)?;
        schema::migrate(&connection)?;
        let writer = writer::WriterThread::start(View::new(connection), on_commit)
            .map_err(|e| Error::Corrupt(format!("cannot start the writer thread: {e}")))?;
        let readers = Readers {
            path: path.to_owned(),
            is_kept: durable,
            idle: Mutex::new(Vec::new()),
            permits: Arc::new(Semaphore::new(if durable { MAX_READERS } else { FEW_READERS })),
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

    /// Whether the last write was lost to a full disk.
    pub fn is_full(&self) -> bool {
        self.writer.is_full()
    }

    /// Runs `work` on a read-only connection in a thread where blocking is allowed. It runs to its end when the
    /// caller goes away, and counts as a reader until then.
    pub async fn read<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&View) -> Result<T, Error> + Send + 'static,
    {
        let readers = Arc::clone(&self.readers);
        let permit = readers.permit().await?;
        let reading = tokio::task::spawn_blocking(move || {
            // Held by the thread, not by the caller, who may be gone before the connection is free again.
            let _permit = permit;
            readers.run(work)
        });
        reading.await.map_err(|_| Error::Closed)?
    }

    /// Runs a query of a single statement that an index answers with one row, such as who holds a token. That takes less than
    /// handing it to another thread does, so it is run on this one, where an open connection is free; else as
    /// [`Store::read`] does. It is the only call that an async thread waits in: for a few pages, which every call of the
    /// same token needs and the system has in its memory, and for no lock, since readers of a write-ahead log wait for no
    /// writer.
    pub async fn look_up<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&View) -> Result<T, Error> + Send + 'static,
    {
        let permit = self.readers.permits.try_acquire();
        // A connection that has to be opened first would keep the thread waiting for the disk.
        match permit.ok().and_then(|permit| Some((permit, self.readers.idle()?))) {
            Some((_permit, connection)) => self.readers.run_one(connection, work),
            None => self.read(work).await,
        }
    }

    /// Whether the database can be read; the error says why not.
    pub async fn check(&self) -> Result<(), Error> {
        self.read(|view| Ok(view.sql().query_row("SELECT 1", [], |_| Ok(()))?)).await
    }

    /// [`Store::read`] for threads where blocking is allowed: they wait in the same line. Not to be called by the work of
    /// a read, which would wait for itself when all others do the same.
    pub fn read_blocking<T>(&self, work: impl FnOnce(&View) -> Result<T, Error>) -> Result<T, Error> {
        let _permit = wait_for(self.readers.permit())?;
        self.readers.run(work)
    }

    /// Finishes what is queued and closes the database; later writes are refused.
    pub fn close(&self) {
        self.readers.permits.close();
        self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.writer.close();
    }
}

/// Waits for a future on a thread where blocking is allowed, whether a runtime is there or not.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

impl Readers {
    /// The right to one of the connections. It is held until the connection is given back.
    async fn permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.permits).acquire_owned().await.map_err(|_| Error::Closed)
    }

    /// An open connection that nobody uses.
    fn idle(&self) -> Option<View> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn take(&self) -> Result<View, Error> {
        if let Some(connection) = self.idle() {
            return Ok(connection);
        }
        let connection = connect(&self.path, self.is_kept)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(View::new(connection))
    }

    fn give_back(&self, connection: View) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    fn run<T>(&self, work: impl FnOnce(&View) -> Result<T, Error>) -> Result<T, Error> {
        let connection = self.take()?;
        // A transaction makes several queries of one read see the same state.
        connection.run("BEGIN")?;
        let result = work(&connection);
        if connection.run("COMMIT").is_ok() {
            self.give_back(connection);
        }
        result
    }

    /// Each statement sees a state of its own.
    fn run_one<T>(&self, connection: View, work: impl FnOnce(&View) -> Result<T, Error>) -> Result<T, Error> {
        let result = work(&connection);
        self.give_back(connection);
        result
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    fn add(tx: &Tx<'_>, login: &str) -> Result<(), Error> {
        tx.sql().execute("INSERT INTO users VALUES (?1, ?1, ?1, 0, 0)", [login])?;
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
        assert!(matches!(bad, Err(Error::Sqlite(_))));
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
        connect(&path, true).unwrap().pragma_update(None, "user_version", 9999).unwrap();
        let error = Store::open(&path, false, |_| ()).err().unwrap();
        assert!(error.to_string().contains("newer"), "{error}");
    }

    #[test]
    fn readers_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), false, |_| ()).unwrap();
        assert!(store.read_blocking(|c| Ok(c.sql().execute("DELETE FROM users", [])?)).is_err());
    }

    #[test]
    fn others_cannot_read_the_database() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let modes = || {
            ["db", "db-wal", "db-shm"]
                .map(|name| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777)
        };
        let store = Store::open(&path, false, |_| ()).unwrap();
        store.write_blocking(|tx| add(tx, "ada")).unwrap();
        assert_eq!(modes(), [0o600; 3]);
        store.close();
        drop(store);
        // A database of an earlier version may have this mode.
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let store = Store::open(&path, false, |_| ()).unwrap();
        store.write_blocking(|tx| add(tx, "bob")).unwrap();
        assert_eq!(modes(), [0o600; 3]);
    }

    #[tokio::test]
    async fn a_read_counts_until_it_ends_also_when_its_caller_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), true, |_| ()).unwrap();
        let (began, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let (go_on, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..MAX_READERS {
            let (store, began, held) = (store.clone(), began.clone(), Arc::clone(&held));
            let caller = tokio::spawn(async move {
                let work = move |_: &View| {
                    began.send(()).unwrap();
                    // Ends when the sender is dropped.
                    let _ = held.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    Ok(())
                };
                store.read(work).await
            });
            begun.recv().await.unwrap();
            caller.abort();
            assert!(caller.await.unwrap_err().is_cancelled());
        }
        assert_eq!(store.readers.permits.available_permits(), 0, "eight connections are in use");
        drop(go_on);
        store.read(|_| Ok(())).await.unwrap();
        assert!(store.readers.idle.lock().unwrap().len() <= MAX_READERS);
    }

    #[tokio::test]
    async fn reads_of_blocking_threads_count_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), true, |_| ()).unwrap();
        let (began, begun) = std::sync::mpsc::channel();
        let (go_on, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let read = || {
            let (store, began, held) = (store.clone(), began.clone(), Arc::clone(&held));
            thread::spawn(move || {
                store.read_blocking(|_| {
                    began.send(()).unwrap();
                    let _ = held.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    Ok(())
                })
            })
        };
        // Twice as many as may read at once: half of them wait.
        let readers: Vec<_> = (0..2 * MAX_READERS).map(|_| read()).collect();
        for _ in 0..MAX_READERS {
            begun.recv().unwrap();
        }
        assert_eq!(store.readers.permits.available_permits(), 0, "eight connections are in use");
        assert!(begun.try_recv().is_err());
        let looked = store.look_up(|_| Ok(()));
        drop(go_on);
        for reader in readers {
            reader.join().unwrap().unwrap();
        }
        looked.await.unwrap();
        assert!(store.readers.idle.lock().unwrap().len() <= MAX_READERS);
        store.close();
        assert!(matches!(store.read_blocking(|_| Ok(())), Err(Error::Closed)));
    }

    #[test]
    fn a_database_that_is_thrown_away_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let log = || std::fs::metadata(dir.path().join("db-wal")).unwrap().len();
        let store = Store::open(&path, false, |_| ()).unwrap();
        assert_eq!(log(), 0, "the schema is in the file");
        assert_eq!(store.readers.permits.available_permits(), FEW_READERS);
        store.write_blocking(|tx| add(tx, "ada")).unwrap();
        store.close();
        assert!(log() > 0, "what was written stays where it is");
        let store = Store::open(&path, false, |_| ()).unwrap();
        assert_eq!(count(&store), 1);
        store.close();
        let store = Store::open(&path, true, |_| ()).unwrap();
        assert_eq!(count(&store), 1);
        store.close();
        assert!(!dir.path().join("db-wal").exists(), "one that is kept is one file when it is closed");
    }

    #[tokio::test]
    async fn no_connection_is_opened_on_an_async_thread() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), false, |_| ()).unwrap();
        let here = || store.look_up(|_| Ok(thread::current().id()));
        assert_ne!(here().await.unwrap(), thread::current().id());
        assert_eq!(here().await.unwrap(), thread::current().id(), "one is open by now");
    }
}
