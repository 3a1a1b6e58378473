//! `store_artifacts` and `store_test_results`.

use super::Upload;
use super::files::{self, Listing, UploadError};
use super::masked_xml;
use crate::executor::end::StepEnd;
use crate::executor::output::log::{StepLog, counted};
use crate::executor::task::TaskRun;
use crate::protocol::{ArtifactRecord, TestResultsRecord};
use crate::system::fault::is_full;
use crate::system::opening::open_regular;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::atomic::AtomicBool;

impl TaskRun {
    pub(super) fn store_artifacts(
        &mut self,
        record: u32,
        path: &str,
        destination: Option<&str>,
        log: &StepLog,
    ) -> StepEnd {
        self.try_store_artifacts(record, path, destination, log).unwrap_or_else(|end| end)
    }

    fn try_store_artifacts(
        &mut self,
        record: u32,
        path: &str,
        destination: Option<&str>,
        log: &StepLog,
    ) -> Result<StepEnd, StepEnd> {
        let target = self.places.of(path);
        let written = if path.starts_with('~') {
            self.places.named(path).to_string_lossy().into_owned()
        } else {
            path.to_owned()
        };
        let destination = destination.map(str::to_owned);
        let list = move |target: &Path| files::artifacts(target, &written, destination.as_deref());
        let Some(listing) = self.list(&target, log, list)? else { return Ok(StepEnd::success()) };
        let limit = self.input.task.max_artifact_bytes;
        let (mut count, mut total) = (0, 0);
        for file in listing.files {
            let name = self.names.of(&file.name, &self.secrets);
            match self.upload_file(&file.path, limit)? {
                Ok((length, sha256)) => {
                    let entry = ArtifactRecord { path: name.clone(), sha256, length, step: record };
                    let stored = self.post::<serde::de::IgnoredAny>("artifacts", &entry)?;
                    if let Err(why) = stored {
                        return Err(StepEnd::failed(format!("failed to store the artifact `{name}`: {why}")));
                    }
                    count += 1;
                    total += length;
                    log.note(&format!("stored `{name}` ({})", counted(length, "byte")));
                    if let Some(before) = self.names.replaced(&name, &entry.sha256, &file.path) {
                        log.note(&format!(
                            "warning: this `{name}`, of `{}`, has replaced the one of `{before}`: the last file of a name is kept (set another `destination`)",
                            file.path.display()
                        ));
                    }
                }
                Err(UploadError::Stopped) => return Err(self.stopped_end()),
                Err(UploadError::TooLarge(length)) => {
                    log.note(&format!(
                        "error: skipped `{name}`: {}, the limit is {}",
                        counted(length, "byte"),
                        counted(limit, "byte")
                    ));
                }
                Err(error @ UploadError::Read(_)) => log.note(&format!("error: skipped `{name}`: {error}")),
                Err(error) => {
                    return Err(StepEnd::failed(format!("failed to upload the artifact `{name}`: {error}")));
                }
            }
        }
        log.note(&format!("{}, {}", counted(count, "file"), counted(total, "byte")));
        Ok(StepEnd::success())
    }

    pub(super) fn store_test_results(&mut self, record: u32, path: &str, log: &StepLog) -> StepEnd {
        self.try_store_test_results(record, path, log).unwrap_or_else(|end| end)
    }

    fn try_store_test_results(&mut self, record: u32, path: &str, log: &StepLog) -> Result<StepEnd, StepEnd> {
        let target = self.places.of(path);
        let list = |target: &Path| {
            let is_hidden = target.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if is_hidden && target.is_dir() {
                let why = "it is a hidden folder: no test results are read from it";
                return Err(io::Error::other(why));
            }
            files::test_results(target)
        };
        let Some(listing) = self.list(&target, log, list)? else { return Ok(StepEnd::success()) };
        if listing.files.is_empty() {
            log.note(&format!("warning: there is no XML file in `{}`", target.display()));
        }
        for file in listing.files {
            let name = self.names.of(&file.name, &self.secrets);
            match self.upload_report(&file.path)? {
                Ok((length, sha256)) => {
                    let entry = TestResultsRecord { path: name.clone(), sha256, length, step: record };
                    match self.post::<StoredTests>("test-results", &entry)? {
                        Ok(StoredTests { message: Some(why), tests: 0 }) => {
                            log.note(&format!("warning: ignored `{name}`: {why}"));
                        }
                        Ok(stored) => {
                            log.note(&format!("stored `{name}` ({})", counted(stored.tests, "test")));
                            if let Some(why) = stored.message {
                                log.note(&format!("warning: `{name}`: {why}"));
                            }
                        }
                        Err(why) => return Err(StepEnd::failed(format!("failed to store `{name}`: {why}"))),
                    }
                }
                Err(UploadError::Stopped) => return Err(self.stopped_end()),
                Err(error @ UploadError::Read(_)) => log.note(&format!("error: skipped `{name}`: {error}")),
                Err(error) => return Err(StepEnd::failed(format!("failed to upload `{name}`: {error}"))),
            }
        }
        Ok(StepEnd::success())
    }

    /// The listing, with its notes in the log; `None` when there is nothing to store.
    fn list(
        &mut self,
        target: &Path,
        log: &StepLog,
        list: impl FnOnce(&Path) -> io::Result<Listing> + Send + 'static,
    ) -> Result<Option<Listing>, StepEnd> {
        let (places, path) = (self.places.clone(), target.to_owned());
        let listing = self.beside(move |_| match places.led_out(&path) {
            Some(place) => Err(io::Error::other(format!(
                "a link leads from there to `{}`, out of the job's folders (if that is meant, name it in the config)",
                place.display()
            ))),
            None => list(&path),
        })?;
        Ok(match listing {
            Ok(listing) => {
                listing.notes.iter().for_each(|note| log.note(note));
                Some(listing)
            }
            Err(error) => {
                log.note(&format!("nothing to store: cannot read `{}`: {error}", target.display()));
                None
            }
        })
    }

    /// Uploads a report of tests as it is stored: with its secrets masked.
    fn upload_report(&mut self, path: &Path) -> Result<Upload, StepEnd> {
        let limit = self.input.task.max_artifact_bytes;
        if self.secrets.are_none() {
            return self.upload_file(path, limit);
        }
        let (secrets, path, copy) = (self.secrets.clone(), path.to_owned(), self.scratch.join("report"));
        let to = copy.clone();
        let masked = self.beside(move |stop| masked_copy(&path, &to, limit, &secrets, stop))?;
        let uploaded = match masked {
            Ok(true) => self.upload_file(&copy, limit),
            Ok(false) => Ok(Err(UploadError::Stopped)),
            // A report is never full; its copy may be, and that is no fault of the job.
            Err(error) if is_full(&error) => Err(StepEnd::of_host(format!(
                "cannot write a copy of a report in the task's temporary folder: {error} (TMPDIR of the runner names a larger one)"
            ))),
            Err(error) => Ok(Err(UploadError::Read(error))),
        };
        // It may never have been made.
        let _ = std::fs::remove_file(&copy);
        uploaded
    }
}

fn masked_copy(
    path: &Path,
    to: &Path,
    limit: u64,
    secrets: &crate::executor::output::secrets::Secrets,
    stop: &AtomicBool,
) -> io::Result<bool> {
    // One byte more than may be stored, so that a longer one is seen to be too long.
    let mut report = io::Read::take(open_regular(path)?, limit.saturating_add(1));
    let out = BufWriter::new(File::create(to)?);
    masked_xml::copy(&mut report, out, secrets, stop)
}

/// Answer to a test results record.
#[derive(serde::Deserialize)]
struct StoredTests {
    tests: u64,
    #[serde(default)]
    message: Option<String>,
}
