//! `store_artifacts`.

use super::files::{self, UploadError};
use super::{listing, upload};
use crate::executor::control::Control;
use crate::executor::end::StepEnd;
use crate::executor::output::log::{StepLog, counted};
use crate::executor::places::Places;
use crate::executor::records::Records;
use crate::protocol::ArtifactRecord;
use std::path::Path;

/// `store_artifacts`: uploads what is at `path`, no file of more than `limit` bytes.
pub(super) fn store(
    places: &Places,
    control: &mut Control,
    records: &mut Records,
    limit: u64,
    path: &str,
    destination: Option<&str>,
    log: &StepLog,
) -> Result<StepEnd, StepEnd> {
    let target = places.of(path);
    let written = if path.starts_with('~') {
        places.named(path).to_string_lossy().into_owned()
    } else {
        path.to_owned()
    };
    let destination = destination.map(str::to_owned);
    let list = move |target: &Path| files::artifacts(target, &written, destination.as_deref());
    let Some(listing) = listing::of(places, control, &target, log, list)? else {
        return Ok(StepEnd::success());
    };
    let (mut count, mut total) = (0, 0);
    for file in listing.files {
        let name = records.names.of(&file.name, &records.secrets);
        match upload::file(control, &records.reporter, &file.path, limit)? {
            Ok((length, sha256)) => {
                let entry = ArtifactRecord { path: name.clone(), sha256, length, step: log.step() };
                let stored =
                    upload::post::<serde::de::IgnoredAny>(control, &records.reporter, "artifacts", &entry)?;
                if let Err(why) = stored {
                    return Err(StepEnd::failed(format!("failed to store the artifact `{name}`: {why}")));
                }
                count += 1;
                total += length;
                log.note(&format!("stored `{name}` ({})", counted(length, "byte")));
                if let Some(before) = records.names.replaced(&name, &entry.sha256, &file.path) {
                    log.note(&format!(
                        "warning: this `{name}`, of `{}`, has replaced the one of `{before}`: the last file of a name is kept (set another `destination`)",
                        file.path.display()
                    ));
                }
            }
            Err(UploadError::Stopped) => return Err(control.stopped_end()),
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
