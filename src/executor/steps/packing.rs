//! Packing, as `save_cache` and `persist_to_workspace` share it: files are packed into the task's private folder
//! and uploaded from there.

use super::files::UploadError;
use super::upload;
use crate::archive::lz4;
use crate::archive::pack::{self, Packer, cannot_write};
use crate::executor::beside::beside;
use crate::executor::control::Control;
use crate::executor::end::StepEnd;
use crate::executor::output::log::{StepLog, counted};
use crate::executor::output::report::Reporter;
use crate::protocol::Archive;
use crate::system::opening::create;
use std::fs::{File, remove_file};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// An archive that is uploaded and has no name yet.
pub(super) struct Uploaded {
    pub(super) archive: Archive,
    /// Content of the archive, for people.
    pub(super) summary: String,
}

/// Function that adds the files of an archive.
type Add = dyn FnOnce(&mut Packer<'_, lz4::Writer<File>>) -> Result<(), pack::Error> + Send;

/// Why there is none.
pub(super) enum Error {
    /// The step has ended meanwhile.
    Ended(StepEnd),
    /// The task was stopped.
    Stopped,
    /// A file could not be read; a sentence for people.
    Unread(String),
    /// The control plane did not take it; a sentence for people.
    Upload(String),
}

impl From<pack::Error> for Error {
    fn from(error: pack::Error) -> Self {
        match error {
            pack::Error::Stopped => Self::Stopped,
            pack::Error::Unread(why) => Self::Unread(why),
            // The host has no room for it: the job is not to blame.
            pack::Error::Unwritten(why) => Self::Ended(StepEnd::of_host(why)),
        }
    }
}

/// Uploads what `add` packs in the private folder of the task; nothing when it adds nothing.
pub(super) fn upload(
    private: &Path,
    control: &mut Control,
    reporter: &Reporter,
    log: &StepLog,
    add: impl FnOnce(&mut Packer<'_, lz4::Writer<File>>) -> Result<(), pack::Error> + Send + 'static,
) -> Result<Option<Uploaded>, Error> {
    let file = private.join("archive");
    let result = upload_from(&file, private, control, reporter, log, Box::new(add));
    // The file may never have been made.
    let _ = remove_file(&file);
    result
}

fn upload_from(
    file: &Path,
    private: &Path,
    control: &mut Control,
    reporter: &Reporter,
    log: &StepLog,
    add: Box<Add>,
) -> Result<Option<Uploaded>, Error> {
    let (path, scratch, log) = (file.to_owned(), private.to_owned(), log.clone());
    let pack = move |stop: &AtomicBool| {
        let out = create(&path).and_then(lz4::Writer::new).map_err(cannot_write)?;
        let mut stopped = || stop.load(Ordering::Relaxed);
        let mut packer = Packer::new(out, scratch, &mut stopped);
        let added = add(&mut packer);
        packer.notes.iter().for_each(|note| log.note(note));
        added?;
        let (files, bytes, anything) = (packer.files, packer.bytes, packer.entries > 0);
        packer.finish().and_then(lz4::Writer::finish).map_err(cannot_write)?;
        Ok::<_, pack::Error>(anything.then_some((files, bytes)))
    };
    let packed = beside(control, pack).map_err(Error::Ended)??;
    let Some((files, bytes)) = packed else { return Ok(None) };
    let uploaded = upload::file(control, reporter, file, u64::MAX).map_err(Error::Ended)?;
    let (length, sha256) = uploaded.map_err(|error| match error {
        UploadError::Stopped => Error::Stopped,
        error => Error::Upload(error.to_string()),
    })?;
    let summary = format!(
        "{} with {}, {} compressed",
        counted(files, "file"),
        counted(bytes, "byte"),
        counted(length, "byte")
    );
    Ok(Some(Uploaded { archive: Archive { sha256, length }, summary }))
}
