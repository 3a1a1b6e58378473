//! Every promise of a data folder, looked at from outside: the rows, the files that they name, and the files that
//! nothing names. It reads only, and works beside a running control plane.

use crate::protocol::TaskId;
use crate::server::blobs::listing::checksum;
use crate::server::blobs::{Blobs, Error as BlobError, Rows};
use crate::server::engine::results::wrong_results;
use crate::server::store::inspect::{self, Complete, Fault, NamedUpload, push};
use crate::server::store::{Error as StoreError, View, copy};
use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How long files stay that nothing names: a day for their rows to come, and the hours between two sweeps.
const GRACE: Duration = Duration::from_secs(30 * 60 * 60);

/// The result of a check.
#[derive(Debug, Default)]
pub(super) struct CheckReport {
    /// Faults; at most fifty of a kind.
    pub(super) faults: Vec<Fault>,
    /// Uploads that were looked at.
    pub(super) uploads: usize,
    /// Complete outputs that were looked at.
    pub(super) outputs: usize,
    /// Tasks that have not ended.
    pub(super) open_tasks: u64,
    /// Bytes whose checksum was computed.
    pub(super) read_bytes: u64,
}

/// The reason why a folder could not be checked.
#[derive(Debug)]
pub(super) enum CheckError {
    /// There is no database in it.
    NoDatabase(PathBuf),
    /// The database cannot be read.
    Store(PathBuf, StoreError),
    /// The files cannot be read.
    Blobs(BlobError),
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckError::NoDatabase(path) => write!(
                f,
                "failed to check `{}`: there is no `runlet.db` in it (name the data folder of a control plane, or a backup of one)",
                path.display()
            ),
            CheckError::Store(path, error) => {
                write!(f, "failed to read the database in `{}`: {error}", path.display())
            }
            CheckError::Blobs(error) => write!(f, "failed to check the stored files: {error}"),
        }
    }
}

impl From<BlobError> for CheckError {
    fn from(error: BlobError) -> Self {
        CheckError::Blobs(error)
    }
}

/// Contents of the rows at one moment.
struct Said {
    faults: Vec<Fault>,
    named: Vec<NamedUpload>,
    complete: Vec<Complete>,
    with_output: HashSet<String>,
    open_tasks: u64,
}

/// Checks a data folder. With `contents` every byte is read and compared with its checksum.
pub(super) fn check(data: &Path, contents: bool, now: SystemTime) -> Result<CheckReport, CheckError> {
    let path = data.join("runlet.db");
    if !path.is_file() {
        return Err(CheckError::NoDatabase(data.to_owned()));
    }
    let store = |error| CheckError::Store(data.to_owned(), error);
    let view = copy::open_read_only(&path).map_err(store)?;
    let rows = small_outputs(&path).map_err(store)?;
    let blobs = Blobs::existing(data, false).with_rows(rows);
    let Some(said) = copy::at_one_moment(&view, said).map_err(store)? else {
        let faults = copy::at_one_moment(&view, inspect::faults).map_err(store)?;
        return Ok(CheckReport { faults, ..CheckReport::default() });
    };
    let mut report =
        CheckReport { faults: said.faults, open_tasks: said.open_tasks, ..CheckReport::default() };
    let mut known = HashSet::new();
    for named in &said.named {
        report.uploads += usize::from(known.insert(named.sha256.as_str()));
        if let Some(fault) = wrong_upload(&blobs, named, contents, &mut report.read_bytes)? {
            // A control plane that runs beside this may have forgotten the row meanwhile, and then the file.
            let still = copy::at_one_moment(&view, inspect::named).map_err(store)?;
            if still.iter().any(|other| other.sha256 == named.sha256) {
                push(&mut report.faults, "upload", fault);
            }
        }
    }
    for output in &said.complete {
        report.outputs += 1;
        if let Some(fault) = wrong_output(&blobs, output, contents, &mut report.read_bytes)? {
            if inspect::has_output(&view, &output.task).map_err(store)? {
                push(&mut report.faults, "output", fault);
            }
        }
    }
    unnamed(&blobs, &view, &said.with_output, &known, now, &mut report).map_err(|error| match error {
        Unread::Blobs(error) => CheckError::Blobs(error),
        Unread::Store(error) => store(error),
    })?;
    Ok(report)
}

/// Small outputs that are rows, read on a connection of their own.
fn small_outputs(database: &Path) -> Result<Rows, StoreError> {
    let view = Mutex::new(copy::open_read_only(database)?);
    Ok(Rows::read_by(move |task, step| {
        let view = view.lock().unwrap_or_else(PoisonError::into_inner);
        inspect::small_output(&view, task, step)
            .map_err(|error| BlobError::Io(format!("failed to read output: {error}")))
    }))
}

fn said(view: &View) -> Result<Option<Said>, StoreError> {
    if !inspect::is_of_this_program(view)? {
        return Ok(None);
    }
    let mut complete = Vec::new();
    inspect::each_complete_output(view, |output| complete.push(output))?;
    let mut faults = inspect::faults(view)?;
    wrong_results(view, &mut faults)?;
    Ok(Some(Said {
        faults,
        named: inspect::named(view)?,
        complete,
        with_output: inspect::tasks_with_output(view)?,
        open_tasks: inspect::open_tasks(view)?,
    }))
}

/// Looks for a fault of an upload that a row names.
fn wrong_upload(
    blobs: &Blobs,
    named: &NamedUpload,
    contents: bool,
    read_bytes: &mut u64,
) -> Result<Option<String>, BlobError> {
    let NamedUpload { sha256, length, by } = named;
    let file = match blobs.objects.find(sha256) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(Some(format!("{by} names the upload {sha256}, which is not there"))),
        Err(BlobError::Invalid(why)) => return Ok(Some(format!("{by}: {why}"))),
        Err(error) => return Err(error),
    };
    if let Some(length) = length.filter(|length| *length != file.length) {
        let found = file.length;
        return Ok(Some(format!("the upload {sha256} of {by} has {found} bytes, and should have {length}")));
    }
    if contents {
        *read_bytes += file.length;
        if checksum(&file.path, file.length)? != *sha256 {
            return Ok(Some(format!("the bytes of the upload {sha256} of {by} do not have this checksum")));
        }
    }
    Ok(None)
}

/// Looks for a fault of an output that its agent reported as complete.
fn wrong_output(
    blobs: &Blobs,
    output: &Complete,
    contents: bool,
    read_bytes: &mut u64,
) -> Result<Option<String>, BlobError> {
    let Complete { task, step, length, sha256 } = output;
    let stored = blobs.outputs.length(task, *step);
    if stored < *length {
        return Ok(Some(format!(
            "the output of step {step} of task {task} has {stored} bytes, and should have {length}"
        )));
    }
    if let Some(expected) = sha256.as_ref().filter(|_| contents) {
        *read_bytes += length;
        if blobs.outputs.open(task, *step)?.checksum(*length)? != *expected {
            return Ok(Some(format!(
                "the output of step {step} of task {task} is not what its agent has sent: it has another checksum"
            )));
        }
    }
    Ok(None)
}

enum Unread {
    Blobs(BlobError),
    Store(StoreError),
}

/// Finds files that nothing names and that the sweep should have removed.
fn unnamed(
    blobs: &Blobs,
    view: &View,
    tasks: &HashSet<String>,
    uploads: &HashSet<&str>,
    now: SystemTime,
    report: &mut CheckReport,
) -> Result<(), Unread> {
    let is_old = |modified: SystemTime| now.duration_since(modified).is_ok_and(|age| age > GRACE);
    let mut left = Vec::new();
    blobs
        .objects
        .each(|sha256, file| {
            if is_old(file.modified) && !uploads.contains(sha256.as_str()) {
                left.push(sha256);
            }
        })
        .map_err(Unread::Blobs)?;
    if !left.is_empty() {
        // An upload may have been named since, by a control plane that runs beside this.
        let named = copy::at_one_moment(view, inspect::named).map_err(Unread::Store)?;
        let named: HashSet<String> = named.into_iter().map(|named| named.sha256).collect();
        for sha256 in left.iter().filter(|sha256| !named.contains(*sha256)) {
            let what = format!("nothing names the upload {sha256}, and it was not removed");
            push(&mut report.faults, "unnamed", what);
        }
    }
    let mut folders = Vec::new();
    blobs
        .outputs
        .each_task(|task, modified| {
            if is_old(modified) && !tasks.contains(&task) {
                folders.push(task);
            }
        })
        .map_err(Unread::Blobs)?;
    for task in folders {
        let is_kept = match TaskId::new(&task) {
            Ok(id) => inspect::has_output(view, &id).map_err(Unread::Store)?,
            Err(_) => false,
        };
        if !is_kept {
            let what = format!("there is output of `{task}`, which is no task whose output is kept");
            push(&mut report.faults, "unnamed", what);
        }
    }
    Ok(())
}
