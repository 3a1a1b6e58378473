//! Backups of a data folder, made while a control plane runs on it, and their way back.
//!
//! A backup is a folder of the form of a data folder, without the key of sealed values. The database is copied
//! first and files after it, so that what the copied rows name is in the copy; a backup into the folder of an
//! earlier one copies what has changed. A file says that it is a backup: a control plane that starts on it
//! holds what has not ended.

use crate::protocol::TaskId;
use crate::server::blobs::listing::StoredFile;
use crate::server::blobs::{Blobs, Error as BlobError, write_private};
use crate::server::data_folder::{DataFolder, FolderError};
use crate::server::store::tables::small_outputs::{self, SmallOutput};
use crate::server::store::{Error as StoreError, View, copy, inspect};
use crate::server::time::Millis;
use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file that makes a folder a backup.
pub(super) const MARK: &str = "backup.json";
/// Most copies of the database for one backup: the control plane forgot files while they were copied.
const MOST_ROUNDS: usize = 5;

/// The result of a backup or of a way back.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Files that were copied.
    pub(super) files: u64,
    /// Bytes of them.
    pub(super) bytes: u64,
    /// Files that were there already.
    pub(super) kept: u64,
    /// Uploads that rows name and that the source does not have.
    pub(super) missing: Vec<String>,
}

/// The reason why a backup was not made, or not brought back.
#[derive(Debug)]
pub(super) enum BackupError {
    /// The source folder holds no database to copy.
    NoSource(PathBuf),
    /// The target folder is neither empty nor a backup.
    NotABackup(PathBuf),
    /// The target folder holds a database already.
    NotEmpty(PathBuf),
    /// The folders lie one in the other.
    Nested(PathBuf, PathBuf),
    /// The folder cannot be used.
    Folder(FolderError),
    /// The database of this folder cannot be copied or read.
    Store(PathBuf, StoreError),
    /// Stored files cannot be listed.
    Blobs(BlobError),
    /// A file cannot be copied, moved or removed.
    File(PathBuf, io::Error),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::NoSource(path) => {
                write!(f, "failed to copy `{}`: there is no `runlet.db` in it", path.display())
            }
            BackupError::NotABackup(path) => write!(
                f,
                "failed to back up into `{}`: it is not empty and holds no earlier backup (name an empty or a new folder)",
                path.display()
            ),
            BackupError::NotEmpty(path) => write!(
                f,
                "failed to restore into `{}`: it is not empty (name a new folder, or move what is there away)",
                path.display()
            ),
            BackupError::Nested(a, b) => {
                write!(f, "failed to copy `{}` to `{}`: one lies in the other", a.display(), b.display())
            }
            BackupError::Folder(error) => error.fmt(f),
            BackupError::Store(path, error) => {
                write!(f, "failed to copy the database of `{}`: {error}", path.display())
            }
            BackupError::Blobs(error) => write!(f, "failed to copy the stored files: {error}"),
            BackupError::File(path, error) => write!(f, "failed to copy to `{}`: {error}", path.display()),
        }
    }
}

impl From<BlobError> for BackupError {
    fn from(error: BlobError) -> Self {
        BackupError::Blobs(error)
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> BackupError + '_ {
    move |error| BackupError::File(path.to_owned(), error)
}

/// Copies a data folder, on which a control plane may run, into a new folder or that of an earlier backup.
pub(super) fn back_up(data: &Path, target: &Path) -> Result<Copied, BackupError> {
    refuse_nested(data, target)?;
    if !target.join(MARK).exists() && has_entries(target, &["lock"]) {
        return Err(BackupError::NotABackup(target.to_owned()));
    }
    let target = DataFolder::open(target).map_err(BackupError::Folder)?;
    let copied = copy_all(data, &target.path)?;
    sync(&target.path)?;
    Ok(copied)
}

/// Copies a backup to where a control plane is to start on it.
pub(super) fn restore(backup: &Path, data: &Path) -> Result<Copied, BackupError> {
    refuse_nested(backup, data)?;
    // The key may have been put there first.
    if has_entries(data, &["lock", "secrets.key", "lost+found"]) {
        return Err(BackupError::NotEmpty(data.to_owned()));
    }
    let data = DataFolder::open(data).map_err(BackupError::Folder)?;
    let copied = copy_all(backup, &data.path)?;
    sync(&data.path)?;
    Ok(copied)
}

fn refuse_nested(from: &Path, to: &Path) -> Result<(), BackupError> {
    if !from.join("runlet.db").is_file() {
        return Err(BackupError::NoSource(from.to_owned()));
    }
    let real = |path: &Path| {
        let mut whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        // The folders that are there may be links.
        for above in path.ancestors() {
            if let (Ok(real), Ok(rest)) = (above.canonicalize(), path.strip_prefix(above)) {
                whole = real.join(rest);
                break;
            }
        }
        whole
    };
    let (a, b) = (real(from), real(to));
    if a.starts_with(&b) || b.starts_with(&a) {
        return Err(BackupError::Nested(from.to_owned(), to.to_owned()));
    }
    Ok(())
}

fn has_entries(path: &Path, but: &[&str]) -> bool {
    let Ok(entries) = fs::read_dir(path) else { return false };
    entries.flatten().any(|entry| !but.iter().any(|name| entry.file_name() == *name))
}

fn copy_all(from: &Path, to: &Path) -> Result<Copied, BackupError> {
    let (source, target) = (Blobs::existing(from, false), Blobs::open(to, false)?);
    let database = to.join("runlet.db");
    let fresh = to.join("runlet.db-unfinished-copy");
    let store = |error| BackupError::Store(from.to_owned(), error);
    let live = copy::open_read_only(&from.join("runlet.db")).map_err(store)?;
    let mut copied = Copied::default();
    for round in 1.. {
        remove(&fresh)?;
        let with_files = with_files(&source)?;
        copy::copy(&live, &fresh).map_err(store)?;
        let view = copy::open_read_only(&fresh).map_err(store)?;
        copied.kept = 0;
        copied.missing = copy_uploads(&source, &target, &view, &mut copied).map_err(|e| e.of(from))?;
        copy_outputs(&source, &target, &view, &mut copied).map_err(|e| e.of(from))?;
        copy_new_rows(&target, &view, &live, with_files, &mut copied).map_err(|e| e.of(from))?;
        // Removals after the database was copied, of bytes that it had forgotten, are not missed by a copy of now.
        if copied.missing.is_empty() || round == MOST_ROUNDS {
            break;
        }
        let named = copy::at_one_moment(&live, inspect::named).map_err(store)?;
        let named: HashSet<&str> = named.iter().map(|named| named.sha256.as_str()).collect();
        if copied.missing.iter().all(|sha256| named.contains(sha256.as_str())) {
            break;
        }
    }
    // From here on a start holds what has not ended, whenever this is cut short.
    let mark = serde_json::json!({ "made_at_ms": Millis::now().0, "version": env!("CARGO_PKG_VERSION") });
    let path = to.join(MARK);
    write_private(&path, &format!("{mark}\n")).map_err(at(&path))?;
    sync(to)?;
    // The files beside a database belong to that one only.
    for suffix in ["-wal", "-shm"] {
        remove(&to.join(format!("runlet.db{suffix}")))?;
    }
    fs::rename(&fresh, &database).map_err(at(&database))?;
    let view = copy::open_read_only(&database).map_err(store)?;
    prune(&target, &view).map_err(|e| e.of(to))?;
    Ok(copied)
}

/// Either room may fail in the middle of a copy.
enum Failed {
    Store(StoreError),
    Backup(BackupError),
}

impl Failed {
    fn of(self, folder: &Path) -> BackupError {
        match self {
            Failed::Store(error) => BackupError::Store(folder.to_owned(), error),
            Failed::Backup(error) => error,
        }
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Failed::Store(error)
    }
}

impl From<BlobError> for Failed {
    fn from(error: BlobError) -> Self {
        Failed::Backup(error.into())
    }
}

impl From<BackupError> for Failed {
    fn from(error: BackupError) -> Self {
        Failed::Backup(error)
    }
}

/// Copies what the copied rows name; returns what is not there. An upload never changes: one that is there with its
/// length is the same.
fn copy_uploads(
    source: &Blobs,
    target: &Blobs,
    view: &View,
    copied: &mut Copied,
) -> Result<Vec<String>, Failed> {
    let (mut missing, mut done) = (Vec::new(), HashSet::new());
    for named in inspect::named(view)? {
        if !done.insert(named.sha256.clone()) {
            continue;
        }
        let Some(from) = source.objects.find(&named.sha256)? else {
            missing.push(named.sha256);
            continue;
        };
        match target.objects.find(&named.sha256)? {
            Some(there) if there.length == from.length => copied.kept += 1,
            _ => match copy_file(&from, &target.objects.place(&named.sha256)?, copied) {
                Err(BackupError::File(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                    missing.push(named.sha256);
                }
                other => other?,
            },
        }
    }
    Ok(missing)
}

/// The tasks that have output in files.
fn with_files(source: &Blobs) -> Result<Vec<TaskId>, BlobError> {
    let mut tasks = Vec::new();
    source.outputs.each_task(|task, _| tasks.extend(TaskId::new(task).ok()))?;
    Ok(tasks)
}

/// Copies the output of the copied tasks. It only grows, and what grew while it was copied comes with the next backup.
fn copy_outputs(source: &Blobs, target: &Blobs, view: &View, copied: &mut Copied) -> Result<(), Failed> {
    let kept = inspect::tasks_with_output(view)?;
    // Most tasks have small outputs only, which are rows.
    let with_files = with_files(source)?.into_iter().filter(|task| kept.contains(task.as_str()));
    for task in with_files {
        for (step, from) in source.outputs.files(&task)? {
            let Ok(step) = step.parse::<u32>() else { continue };
            let to = target.outputs.path(&task, step);
            let there = fs::metadata(&to).and_then(|about| Ok((about.len(), about.modified()?)));
            if there.is_ok_and(|there| there == (from.length, from.modified)) {
                copied.kept += 1;
                continue;
            }
            match copy_file(&from, &to, copied) {
                // A project or an old task that has gone meanwhile takes its output with it.
                Err(BackupError::File(_, error)) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// Copies small outputs that became rows after the database was copied: the copy has neither these rows, nor the files
/// that they were before. They are of tasks that had not ended, or that had files `with_files` when it was about to be copied.
fn copy_new_rows(
    target: &Blobs,
    view: &View,
    live: &View,
    with_files: Vec<TaskId>,
    copied: &mut Copied,
) -> Result<(), Failed> {
    if !inspect::is_of_this_program(live)? {
        return Ok(());
    }
    for task in inspect::open_task_ids(view)?.into_iter().chain(with_files) {
        for SmallOutput { step, bytes } in small_outputs::of_task(live, &task)? {
            if small_outputs::find(view, &task, step)?.is_some() {
                continue;
            }
            let path = target.outputs.path(&task, step);
            if fs::metadata(&path).is_ok_and(|there| there.len() == bytes.len() as u64) {
                continue;
            }
            if let Some(folder) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at(folder))?;
            }
            let written = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
            written.and_then(|mut file| file.write_all(&bytes)).map_err(at(&path))?;
            copied.files += 1;
            copied.bytes += bytes.len() as u64;
        }
    }
    Ok(())
}

/// Copies a file to where a whole one is at any time: the one before, or the new one.
fn copy_file(from: &StoredFile, to: &Path, copied: &mut Copied) -> Result<(), BackupError> {
    let mut source = File::open(&from.path).map_err(at(to))?;
    if let Some(folder) = to.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at(folder))?;
    }
    let unfinished = to.with_extension("unfinished");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(at(to))?;
    let bytes = io::copy(&mut source, &mut file).map_err(at(to))?;
    // Compared by the next backup: a file that grew while it was copied has a later time, or another length.
    file.set_modified(from.modified).map_err(at(to))?;
    drop(file);
    fs::rename(&unfinished, to).map_err(at(to))?;
    copied.files += 1;
    copied.bytes += bytes;
    Ok(())
}

/// Removes files of an earlier backup that the rows do not name any more.
fn prune(target: &Blobs, view: &View) -> Result<(), Failed> {
    let named: HashSet<String> = inspect::named(view)?.into_iter().map(|named| named.sha256).collect();
    let mut strays = Vec::new();
    target.objects.each(|sha256, file| {
        if !named.contains(&sha256) {
            strays.push(file.path);
        }
    })?;
    for path in strays {
        remove(&path)?;
    }
    let tasks = inspect::tasks_with_output(view)?;
    let (mut strays, mut kept) = (Vec::new(), Vec::new());
    target.outputs.each_task(|task, _| {
        if tasks.contains(&task) {
            kept.extend(TaskId::new(task).ok());
        } else {
            strays.push(task);
        }
    })?;
    // An earlier backup may have as files what are rows by now.
    if inspect::is_of_this_program(view)? {
        for task in kept {
            let rows = small_outputs::of_task(view, &task)?;
            if !rows.is_empty() {
                target.outputs.remove_files(&task, rows.into_iter().map(|row| row.step));
            }
        }
    }
    for task in strays.into_iter().filter_map(|task| TaskId::new(task).ok()) {
        target.outputs.remove(&task);
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), BackupError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(BackupError::File(path.to_owned(), error))
        }
        _ => Ok(()),
    }
}

/// Waits for the disk once, for all files.
fn sync(folder: &Path) -> Result<(), BackupError> {
    let opened = File::open(folder).map_err(at(folder))?;
    rustix::fs::syncfs(&opened).map_err(|errno| BackupError::File(folder.to_owned(), errno.into()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its folder should fail loudly")]
mod tests {
    use super::*;
    use crate::server::store::tables::projects::ensure_project;
    use crate::server::store::{Store, Tx, scene};

    #[test]
    fn an_output_that_becomes_a_row_while_it_is_copied_is_in_the_copy() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        let [source, target] = [&from, &to].map(|folder| Blobs::open(folder, false).unwrap());
        let store = Store::open(&from.join("runlet.db"), false, |_| ()).unwrap();
        let ended = |tx: &Tx<'_>| {
            ensure_project(tx, "gh/acme/app", None, Millis(0))?;
            scene::insert_ended_task(tx)
        };
        let task = store.write_blocking(ended).unwrap();
        source.outputs.append(&task, 1, 0, b"abc").unwrap();
        source.outputs.append(&task, 2, 0, b"row before").unwrap();
        let row = |step: u32, bytes: &[u8]| {
            let (id, output) = (task.clone(), SmallOutput { step, bytes: bytes.to_vec() });
            store.write_blocking(move |tx| small_outputs::insert(tx, &id, &output)).unwrap();
            source.outputs.remove_files(&task, [step]);
        };
        row(2, b"row before");
        let with_files = with_files(&source).unwrap();
        let live = copy::open_read_only(&from.join("runlet.db")).unwrap();
        copy::copy(&live, &to.join("runlet.db")).unwrap();
        // The sweep, as long after the end of a task that was canceled.
        row(1, b"abc");
        let view = copy::open_read_only(&to.join("runlet.db")).unwrap();
        let mut copied = Copied::default();
        let done = copy_outputs(&source, &target, &view, &mut copied)
            .and_then(|()| copy_new_rows(&target, &view, &live, with_files, &mut copied));
        assert!(done.is_ok());
        assert_eq!(target.outputs.read(&task, 1, 0, 9).unwrap(), b"abc");
        assert_eq!((copied.files, copied.bytes), (1, 3), "what was a row is in the database");
    }
}
