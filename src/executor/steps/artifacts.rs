//! `store_artifacts` and `store_test_results`.

use super::files::{self, Listing, UploadError};
use crate::executor::end::StepEnd;
use crate::executor::output::log::{StepLog, counted};
use crate::executor::task::TaskRun;
use crate::protocol::{ArtifactRecord, TestResultsRecord};
use serde::de::IgnoredAny;
use std::io;
use std::path::Path;

impl TaskRun {
    pub(super) fn store_artifacts(
        &mut self,
        record: u32,
        path: &str,
        destination: Option<&str>,
        log: &StepLog,
    ) -> StepEnd {
        let target = self.places.of(path);
        let written =
            if path.starts_with('~') { target.to_string_lossy().into_owned() } else { path.to_owned() };
        let Some(listing) = self.list(files::artifacts(&target, &written, destination), &target, log) else {
            return StepEnd::success();
        };
        let limit = self.input.task.max_artifact_bytes;
        let (mut count, mut total) = (0, 0);
        for file in listing.files {
            match self.upload_file(&file.path, limit) {
                Ok((length, sha256)) => {
                    let entry = ArtifactRecord { path: file.name.clone(), sha256, length, step: record };
                    if let Err(why) = self.post::<IgnoredAny>("artifacts", &entry) {
                        return StepEnd::failed(format!(
                            "failed to store the artifact `{}`: {why}",
                            file.name
                        ));
                    }
                    count += 1;
                    total += length;
                    log.note(&format!("stored `{}` ({})", file.name, counted(length, "byte")));
                }
                Err(UploadError::Stopped) => return self.stopped_end(),
                Err(UploadError::TooLarge(length)) => {
                    log.note(&format!(
                        "error: skipped `{}`: {}, the limit is {}",
                        file.name,
                        counted(length, "byte"),
                        counted(limit, "byte")
                    ));
                }
                Err(error) => {
                    return StepEnd::failed(format!(
                        "failed to upload the artifact `{}`: {error}",
                        file.name
                    ));
                }
            }
        }
        log.note(&format!("{}, {}", counted(count, "file"), counted(total, "byte")));
        StepEnd::success()
    }

    pub(super) fn store_test_results(&mut self, record: u32, path: &str, log: &StepLog) -> StepEnd {
        let target = self.places.of(path);
        if target.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) && target.is_dir() {
            log.note(&format!(
                "warning: `{}` is a hidden folder: no test results are read from it",
                target.display()
            ));
            return StepEnd::success();
        }
        let Some(listing) = self.list(files::test_results(&target), &target, log) else {
            return StepEnd::success();
        };
        if listing.files.is_empty() {
            log.note(&format!("warning: there is no XML file in `{}`", target.display()));
        }
        for file in listing.files {
            match self.upload_file(&file.path, self.input.task.max_artifact_bytes) {
                Ok((length, sha256)) => {
                    let entry = TestResultsRecord { path: file.name.clone(), sha256, length, step: record };
                    match self.post::<StoredTests>("test-results", &entry) {
                        Ok(StoredTests { message: Some(why), .. }) => {
                            log.note(&format!("warning: ignored `{}`: {why}", file.name));
                        }
                        Ok(stored) => {
                            log.note(&format!("stored `{}` ({})", file.name, counted(stored.tests, "test")));
                        }
                        Err(why) => {
                            return StepEnd::failed(format!("failed to store `{}`: {why}", file.name));
                        }
                    }
                }
                Err(UploadError::Stopped) => return self.stopped_end(),
                Err(error) => return StepEnd::failed(format!("failed to upload `{}`: {error}", file.name)),
            }
        }
        StepEnd::success()
    }

    /// The listing, with its notes in the log; `None` when there is nothing at the path.
    fn list(&self, listing: io::Result<Listing>, target: &Path, log: &StepLog) -> Option<Listing> {
        match listing {
            Ok(listing) => {
                listing.notes.iter().for_each(|note| log.note(note));
                Some(listing)
            }
            Err(error) => {
                log.note(&format!("nothing to store: cannot read `{}`: {error}", target.display()));
                None
            }
        }
    }
}

/// Answer to a test results record.
#[derive(serde::Deserialize)]
struct StoredTests {
    tests: u64,
    #[serde(default)]
    message: Option<String>,
}
