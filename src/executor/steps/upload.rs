//! Calls of steps to the control plane, beside the thread that hears of stops.

use super::files::{self, UploadError};
use crate::executor::beside::beside;
use crate::executor::control::Control;
use crate::executor::end::StepEnd;
use crate::executor::output::report::Reporter;
use crate::http::Body;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// A file that was uploaded, its length in bytes and its SHA-256; or why it was not.
pub(super) type Upload = Result<(u64, String), UploadError>;

/// Uploads a file of at most `limit` bytes.
pub(super) fn file(
    control: &mut Control,
    reporter: &Reporter,
    path: &Path,
    limit: u64,
) -> Result<Upload, StepEnd> {
    let (reporter, path) = (reporter.clone(), path.to_owned());
    beside(control, move |stop| files::upload(&reporter, &path, limit, stop))
}

/// Makes a call of the task with a JSON body, which records an upload or asks for one. The inner error is a
/// sentence for the output of the step.
pub(super) fn post<A: DeserializeOwned + Send + 'static>(
    control: &mut Control,
    reporter: &Reporter,
    call: &'static str,
    body: &impl Serialize,
) -> Result<Result<A, String>, StepEnd> {
    let body = match serde_json::to_vec(body) {
        Ok(body) => body,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let reporter = reporter.clone();
    beside(control, move |_| reporter.call("POST", call, Body::Json(&body)).map_err(|e| e.to_string()))
}
