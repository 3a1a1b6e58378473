//! `store_test_results`.

use super::files::{self, UploadError};
use super::upload::{self, Upload};
use super::{listing, masked_xml};
use crate::executor::beside::beside;
use crate::executor::control::Control;
use crate::executor::end::StepEnd;
use crate::executor::host::TaskHost;
use crate::executor::output::log::{StepLog, counted};
use crate::executor::output::secrets::Secrets;
use crate::executor::records::Records;
use crate::protocol::TestResultsRecord;
use crate::system::fault::is_full;
use crate::system::opening::{create, open_regular};
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// `store_test_results`: uploads the reports at `path`, none of more than `limit` bytes.
pub(super) fn store(
    host: &TaskHost,
    control: &mut Control,
    records: &mut Records,
    limit: u64,
    path: &str,
    log: &StepLog,
) -> Result<StepEnd, StepEnd> {
    let target = host.places.of(path);
    let list = |target: &Path| {
        let is_hidden = target.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if is_hidden && target.is_dir() {
            let why = "it is a hidden folder: no test results are read from it";
            return Err(io::Error::other(why));
        }
        files::test_results(target)
    };
    let Some(listing) = listing::of(&host.places, control, &target, log, list)? else {
        return Ok(StepEnd::success());
    };
    if listing.files.is_empty() {
        log.note(&format!("warning: there is no XML file in `{}`", target.display()));
    }
    for file in listing.files {
        let name = records.names.of(&file.name, &records.secrets);
        match upload_report(&host.private.path, control, records, limit, &file.path)? {
            Ok((length, sha256)) => {
                let entry = TestResultsRecord { path: name.clone(), sha256, length, step: log.step() };
                match upload::post::<StoredTests>(control, &records.reporter, "test-results", &entry)? {
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
            Err(UploadError::Stopped) => return Err(control.stopped_end()),
            Err(error @ UploadError::Read(_)) => log.note(&format!("error: skipped `{name}`: {error}")),
            Err(error) => return Err(StepEnd::failed(format!("failed to upload `{name}`: {error}"))),
        }
    }
    Ok(StepEnd::success())
}

/// Uploads a report of tests as it is stored: with its secrets masked.
fn upload_report(
    private: &Path,
    control: &mut Control,
    records: &Records,
    limit: u64,
    path: &Path,
) -> Result<Upload, StepEnd> {
    if records.secrets.are_none() {
        return upload::file(control, &records.reporter, path, limit);
    }
    let (secrets, path, copy) = (records.secrets.clone(), path.to_owned(), private.join("report"));
    let to = copy.clone();
    let masked = beside(control, move |stop| masked_copy(&path, &to, limit, &secrets, stop))?;
    let uploaded = match masked {
        Ok(true) => upload::file(control, &records.reporter, &copy, limit),
        Ok(false) => Ok(Err(UploadError::Stopped)),
        // A report is never full; its copy may be, and that is no fault of the job.
        Err(error) if is_full(&error) => Err(StepEnd::of_host(format!(
            "cannot write a copy of a report in the task's temporary folder: {error} (TMPDIR of the runner names a larger one)"
        ))),
        Err(error) => Ok(Err(UploadError::Read(error))),
    };
    // The copy may never have been made.
    let _ = std::fs::remove_file(&copy);
    uploaded
}

fn masked_copy(path: &Path, to: &Path, limit: u64, secrets: &Secrets, stop: &AtomicBool) -> io::Result<bool> {
    // A byte more than may be stored, so that a longer report is seen to be too long.
    let mut report = io::Read::take(open_regular(path)?, limit.saturating_add(1));
    let out = BufWriter::new(create(to)?);
    masked_xml::copy(&mut report, out, secrets, stop)
}

/// Answer to a test results record.
#[derive(serde::Deserialize)]
struct StoredTests {
    tests: u64,
    #[serde(default)]
    message: Option<String>,
}

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::unwrap_used, reason = "a test without its folder should fail loudly")]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::fs::{self, File};

    #[test]
    fn a_copy_takes_the_place_of_what_a_step_has_put_there() {
        let folder = tempfile::tempdir().unwrap();
        let (report, copy) = (folder.path().join("report.xml"), folder.path().join("report"));
        fs::write(&report, "<testsuite/>").unwrap();
        mknodat(CWD, &copy, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        // Another end, or a wait for it would hold up the test.
        let _end = File::options().read(true).write(true).open(&copy).unwrap();
        let copied = masked_copy(&report, &copy, 100, &Secrets::default(), &AtomicBool::new(false));
        assert!(copied.unwrap());
        assert!(fs::symlink_metadata(&copy).unwrap().is_file());
    }
}
