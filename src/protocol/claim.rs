//! Claiming a task, keeping it, giving up on it.

use super::TaskId;
use serde::{Deserialize, Serialize};

/// Body of `POST /api/v3/runner/claim?wait=SECONDS` (resource class token). 200 is a
/// [`Task`](super::Task), 204 says that nothing came up while waiting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRequest {
    /// `runner.name`: identifies the instance in the inventory, together with the resource class.
    pub name: String,
    /// Host name as the system reports it.
    pub hostname: String,
    /// Version of the runner.
    pub version: String,
    /// `linux`, `macos`, `windows`.
    pub os: String,
    /// `x86_64`, `aarch64`, `s390x`, ...
    pub arch: String,
    /// Made afresh for each claim wanted and repeated on a retry of the same one: a claim whose answer
    /// was lost on the way is answered again with the same task instead of losing it.
    pub nonce: String,
}

/// Body of `POST /api/v3/runner/tasks/{id}/heartbeat?wait=SECONDS` (task token).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {}

/// Answer to a heartbeat. A finished or lost task is a [`Refusal`](super::Refusal) instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// Someone cancelled the task: kill the current step, run nothing more, finish as canceled.
    pub cancel: bool,
    /// How long the claim holds from now.
    pub lease_seconds: u32,
}

/// Body of `POST /api/v3/runner/tasks/{id}/lost` (resource class token of the task's class): the
/// machine runner found the task agent gone. Harmless when the task has ended already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostTask {
    /// The task.
    pub id: TaskId,
    /// What was found, for people.
    pub message: String,
}
