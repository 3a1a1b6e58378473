//! Moving bytes: output of steps, and files.
//!
//! Output is addressed by step and offset. Files (artifacts, test results) are addressed by their
//! SHA-256: uploaded in chunks to `tasks/{id}/uploads/{sha256}`, resumable at any offset, and then
//! named by a record (`tasks/{id}/artifacts`, `tasks/{id}/test-results`).

use super::TaskId;
use serde::{Deserialize, Serialize};

/// Answer to `PATCH .../steps/{n}/output?offset=N` (raw bytes).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputAnswer {
    /// End of the stored bytes. Lower than what was sent if a part was sent before.
    pub offset: u64,
    /// End of the bytes that would survive a power cut: they need not be kept for sending again.
    #[serde(default)]
    pub durable_to: u64,
    /// Someone cancelled the task, as in a heartbeat.
    #[serde(default)]
    pub cancel: bool,
}

/// Answer to `GET .../uploads/{sha256}?length=L` and `PATCH .../uploads/{sha256}?length=L&offset=N`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadAnswer {
    /// Bytes stored so far; equal to the length when the file is complete and its checksum is right.
    pub offset: u64,
    /// Someone cancelled the task, as in a heartbeat.
    #[serde(default)]
    pub cancel: bool,
}

/// Body of `POST .../artifacts`: names a complete upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRecord {
    /// Relative, `/`-separated, no `.` or `..` parts. The last record of a path on a node wins.
    pub path: String,
    /// SHA-256 of the content, lower-case hex.
    pub sha256: String,
    /// Length of the whole artifact, in bytes.
    pub length: u64,
    /// The step record that stores it.
    pub step: u32,
}

/// Body of `POST .../test-results`: one JUnit file to parse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestResultsRecord {
    /// Path relative to what the step named, for messages.
    pub path: String,
    /// SHA-256 of the content, lower-case hex.
    pub sha256: String,
    /// Length of the whole report, in bytes.
    pub length: u64,
    /// The step record that stores it.
    pub step: u32,
}

/// Body of every error answer: `message` for people, `code` for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The refusal and its reason.
    pub message: String,
    /// The kind of refusal, by which the runner acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<RefusalCode>,
    /// With [`RefusalCode::Gap`]: send from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// With [`RefusalCode::TaskEnded`]: output and events of the task are still taken, so that its log is whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// With [`RefusalCode::HoldsTask`]: the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Box<HeldTask>>,
}

impl Refusal {
    /// A refusal for people.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: None, offset: None, late: false, task: None }
    }

    /// A refusal with a code for programs.
    pub fn coded(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code: Some(code), ..Self::new(message) }
    }
}

/// The task that a nonce has got before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldTask {
    /// Id of the task that this claim got.
    pub id: TaskId,
    /// Allocation that the claim made.
    pub allocation: String,
    /// The task has ended.
    #[serde(default)]
    pub ended: bool,
}

/// Machine-readable reason of a [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// 409: the offset or number is beyond what is stored.
    Gap,
    /// 409: the task has ended here (lease lapsed, cancelled and given up, finished). Stop uploading.
    TaskEnded,
    /// 409: this belongs behind `begin`, and the task has not begun.
    NotBegun,
    /// 409: the task has begun, so it cannot be given back.
    Begun,
    /// 409: this nonce has got a task before, which has begun or ended since.
    HoldsTask,
    /// 422: the bytes do not have the stated checksum; stored bytes were discarded.
    Checksum,
    /// 400: the sides do not speak the same protocol version.
    ProtocolMismatch,
    /// 413: larger than this control plane accepts.
    TooLarge,
    /// 507: no space to store it; worth trying again later.
    NoSpace,
    /// Written by a newer control plane.
    #[serde(other)]
    Unknown,
}
