//! Claiming a task, beginning it, keeping it, giving it back, giving up on it.

use super::{Secret, TaskEvent, TaskId};
use serde::{Deserialize, Serialize};

/// Body of `POST /api/v3/runner/claim?wait=SECONDS` (resource class token). 200 is a
/// [`Task`](super::Task), 204 says that nothing came up while waiting. 409 with
/// [`RefusalCode::HoldsTask`](super::RefusalCode) says that this nonce has got a task already, which has begun or
/// ended since.
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
    /// The machine, as 32 hexadecimal digits that stay the same over restarts and tell nothing else about it;
    /// `None` where the system has no such number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// Boot id of the machine. A machine that comes with another one has lost what it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Kinds of task that this runner takes.
    #[serde(default = "machine_tasks")]
    pub takes: Vec<TaskKind>,
    /// The class that the token is to be of, where the operator has said so: a token of another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_class: Option<String>,
}

/// A runner that does not say takes what machine runners take.
fn machine_tasks() -> Vec<TaskKind> {
    vec![TaskKind::Machine]
}

/// Environment that the steps of a task want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// The host of the runner.
    Machine,
    /// A container of an image.
    Container,
    /// Written by a newer runner.
    #[serde(other)]
    Unknown,
}

/// Body of `POST .../begin` (task token): nothing on the host can fail any more before the first step. No step runs
/// before it is answered. Repeating it is harmless.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BeginRequest {
    /// The task agent: 32 random hexadecimal digits, made at its start. A second agent with the same token is refused
    /// with [`RefusalCode::TaskEnded`](super::RefusalCode).
    pub agent: String,
    /// Events up to here, as in a batch: the spin-up record, and the start of the first step.
    #[serde(default)]
    pub events: Vec<TaskEvent>,
    /// The output of the spin-up record, if that is short text. A control plane that does not know of it is sent it
    /// like other output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spin_up: Option<String>,
}

/// Answer to [`BeginRequest`]: the steps may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginAnswer {
    /// The number of the event that is expected next.
    pub next: u64,
    /// How many bytes of the spin-up record's output are stored; absent when it was not sent along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spin_up_bytes: Option<u64>,
    /// Someone cancelled the task, as in [`HeartbeatAnswer`].
    #[serde(default)]
    pub cancel: bool,
    /// How long the claim holds from now.
    pub lease_seconds: u32,
}

/// Body of `POST .../heartbeat?wait=SECONDS` (task token).
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

/// Body of `POST /api/v3/runner/unclaim` (task token): gives a task back that has not begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiveBack {
    /// Identifies the task.
    pub task_id: TaskId,
    /// Token of the task once more, as the public API has it.
    pub task_token: Secret,
    /// Kind of obstacle: it decides which counter the give-back goes to.
    #[serde(default)]
    pub reason: GiveBackReason,
    /// The obstacle and what the operator can do about it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How long this runner will ask for nothing. The task is not offered to it for that long while another runner
    /// of the class is there.
    #[serde(default)]
    pub pause_seconds: u32,
}

/// Reason for giving a task back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GiveBackReason {
    /// The runner stops, or cannot take the task for reasons of its own. A task goes back so 3 times at most.
    #[default]
    Runner,
    /// The host cannot work: no directory, no space, a prefix that fails. A task goes back so 10 times at most.
    Host,
}

/// Answer to [`GiveBack`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiveBackAnswer {
    /// The outcome for the task.
    pub outcome: GivenBack,
}

/// Outcome for a task that was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GivenBack {
    /// The task waits for a runner again, as a further attempt.
    Queued,
    /// The task was given back too often and has failed.
    Failed,
    /// The task was cancelled meanwhile and has ended so.
    Canceled,
}

/// Answer to `POST .../rest` (resource class token, body as that of `lost`, with the allocation): the task agent is gone
/// and has left output that was not sent. The task ends by `lost` only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestAnswer {
    /// The token of the task from now on.
    pub token: Secret,
}

/// Body of `POST .../lost` (resource class token of the task's class): the runner found the task agent gone.
/// Harmless when the task has ended already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostTask {
    /// Identifies the task.
    pub id: TaskId,
    /// The allocation of the claim, so that nothing is said of another one. Runners of protocol 1 do not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<String>,
    /// The finding, for people.
    pub message: String,
}
