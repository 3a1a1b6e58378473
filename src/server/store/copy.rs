//! Copies of the database, made while others read and write it.
//!
//! Only SQLite: its backup call, which reads the source in one transaction.

use crate::server::store::file::{connect, make_private};
use crate::server::store::{Error, View, schema};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most tries for a source that is locked at the moment.
const TRIES: usize = 100;

/// Opens the database of a data folder to read it, whether a control plane runs on it or not. Nothing is made or
/// brought up to date.
pub fn open_read_only(path: &Path) -> Result<View, Error> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(View::new(connection))
}

/// Runs several queries that see the database as it was at one moment.
pub fn at_one_moment<T>(view: &View, work: impl FnOnce(&View) -> Result<T, Error>) -> Result<T, Error> {
    view.sql().execute_batch("BEGIN")?;
    let result = work(view);
    let ended = view.sql().execute_batch("COMMIT");
    result.and_then(|value| ended.map(|()| value).map_err(Error::from))
}

/// Copies the database as it is at one moment. `to` must not exist; it has all that was committed, whatever lies in
/// the write-ahead log.
pub fn copy(from: &View, to: &Path) -> Result<(), Error> {
    make_private(to)?;
    let mut target = Connection::open(to)?;
    {
        let backup = Backup::new(from.sql(), &mut target)?;
        let mut tries = 0;
        // All pages in one step: in several, every write in between would begin it anew.
        while !matches!(backup.step(-1)?, StepResult::Done) {
            tries += 1;
            if tries == TRIES {
                return Err(Error::Commit("the database stayed locked while it was copied".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    // A copy without a log beside it is one file, which can be moved; the next start of a control plane sets its own mode.
    target.pragma_update(None, "journal_mode", "DELETE")?;
    target.close().map_err(|(_, error)| error)?;
    sync(to)
}

fn sync(path: &Path) -> Result<(), Error> {
    let file = fs::File::open(path).and_then(|file| file.sync_all());
    file.map_err(|error| Error::File(path.to_owned(), error))
}

/// The copy of a database that was made before its schema was brought up to date from a version.
fn path_before(path: &Path, version: usize) -> PathBuf {
    with_suffix(path, &format!("-of-schema-{version}"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Copies a database of an earlier schema beside itself: an earlier program cannot read it any more afterwards.
pub(super) fn before_migration(connection: &Connection, path: &Path) -> Result<(), Error> {
    let version = schema::version(connection)?;
    if version == 0 || version >= schema::newest() {
        return Ok(());
    }
    let (copied, unfinished) = (path_before(path, version), with_suffix(path, "-unfinished-copy"));
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::File(unfinished, error)),
        _ => {}
    }
    let made = connect(path, true).and_then(|source| copy(&View::new(source), &unfinished));
    if let Err(error) = made {
        let _ = fs::remove_file(&unfinished);
        return Err(Error::NotCopied(copied, Box::new(error)));
    }
    fs::rename(&unfinished, &copied).map_err(|error| Error::File(copied.clone(), error))?;
    log::warn!(
        "the database has schema {version} and is brought up to {}; as it was it is in `{}`, which can be deleted once all is well",
        schema::newest(),
        copied.display()
    );
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::server::store::Store;
    use std::os::unix::fs::PermissionsExt;

    fn add(store: &Store, login: &'static str) {
        let insert = move |tx: &crate::server::store::Tx<'_>| {
            tx.sql().execute("INSERT INTO users VALUES (?1, ?1, ?1, 0, 0)", [login])?;
            Ok(())
        };
        store.write_blocking(insert).unwrap();
    }

    fn logins(path: &Path) -> i64 {
        let view = open_read_only(path).unwrap();
        view.sql().query_row("SELECT count(*) FROM users", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_copy_has_what_was_committed_and_nothing_later() {
        let dir = tempfile::tempdir().unwrap();
        let (path, target) = (dir.path().join("db"), dir.path().join("copy"));
        let store = Store::open(&path, false, |_| ()).unwrap();
        add(&store, "ada");
        copy(&open_read_only(&path).unwrap(), &target).unwrap();
        add(&store, "bob");
        assert_eq!((logins(&path), logins(&target)), (2, 1));
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_earlier_schema_is_copied_before_it_is_brought_up_to_date() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runlet.db");
        let version = schema::newest() - 1;
        let earlier = connect(&path, true).unwrap();
        schema::build(&earlier, version).unwrap();
        earlier.execute("INSERT INTO users VALUES ('ada', 'ada', 'ada', 0, 0)", []).unwrap();
        drop(earlier);
        Store::open(&path, false, |_| ()).unwrap();
        let before = path_before(&path, version);
        assert_eq!((logins(&before), logins(&path)), (1, 1));
        let version_of = |path: &Path| schema::version(open_read_only(path).unwrap().sql()).unwrap();
        assert_eq!((version_of(&before), version_of(&path)), (version, schema::newest()));
        assert!(!path_before(&path, schema::newest()).exists(), "nothing to bring up to date");
        assert!(!with_suffix(&path, "-unfinished-copy").exists());
    }
}
