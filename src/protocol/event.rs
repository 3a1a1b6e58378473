//! Events of a task, numbered.

use super::limits::{EVENT_COMMAND_BYTES, EVENT_TEXT_BYTES, OUTPUT_TIMES};
use serde::{Deserialize, Serialize};

/// An event. Numbers start at 0 and have no holes; sending one again is harmless. Events go to
/// `POST /api/v3/runner/tasks/{id}/events` as a JSON list; the answer is an [`EventsAnswer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskEvent {
    /// Position in the task's events.
    pub number: u64,
    /// Unix time in milliseconds by the runner's clock.
    pub at_ms: u64,
    /// The event itself.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// The event itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A step began; its output goes to `steps/{step}/output`.
    StepStarted {
        /// Number of this record in the task, from 0 in order of start. Every attempt of a step that
        /// is rerun has its own. Record 0 is the spin-up record, which is no step of the config.
        step: u32,
        /// Position in `job.steps`; `None` for records of the agent's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<u32>,
        /// Title, secrets masked.
        name: String,
        /// `spinup_environment`, `run`, `checkout`, `store_artifacts`, ...
        kind: String,
        /// Command text of a `run` step, secrets masked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
        /// Number of the try of this step, from 1.
        attempt: u32,
        /// `max_auto_reruns` of the step.
        max_auto_reruns: u32,
        /// True for background steps.
        background: bool,
    },
    /// A step ended, or never began.
    StepFinished {
        /// Number of the record that ended, as its start gave it.
        step: u32,
        /// How it ended.
        status: StepStatus,
        /// Exit code of the command; 128 + signal when a signal ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        /// Signal that ended it, if one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
        /// Why, in one line, secrets masked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// Bytes of its output, which may still be on their way: watchers hear of the end after them.
        #[serde(default)]
        output_bytes: u64,
        /// When its output came: offsets in bytes, each with the Unix time in milliseconds, by the runner's clock, at
        /// which what begins there was read. Both grow; at most [`OUTPUT_TIMES`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        output_times: Vec<(u64, u64)>,
    },
}

impl EventKind {
    /// Cuts texts that are too long for an event, with a mark: runners before they send it, and control planes whatever
    /// they are sent.
    pub fn cut(&mut self) {
        match self {
            EventKind::StepStarted { name, kind, command, .. } => {
                cut(name, EVENT_TEXT_BYTES);
                cut(kind, EVENT_TEXT_BYTES);
                if let Some(command) = command {
                    cut(command, EVENT_COMMAND_BYTES);
                }
            }
            EventKind::StepFinished { message, output_times, .. } => {
                if let Some(message) = message {
                    cut(message, EVENT_TEXT_BYTES);
                }
                output_times.truncate(OUTPUT_TIMES);
            }
        }
    }
}

/// Cuts a text to `most` bytes; the end of what is left says how long it was.
pub fn cut(text: &mut String, most: usize) {
    if text.len() <= most {
        return;
    }
    let mark = format!(" [cut here: it has {} bytes]", text.len());
    let room = most.saturating_sub(mark.len());
    let at = (0..=room).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.truncate(at);
    text.push_str(&mark);
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Exit code 0.
    Success,
    /// Any other end of the user's command.
    Failed,
    /// Killed because the task was cancelled.
    Canceled,
    /// Killed because of silence or the time limit of the job.
    Timedout,
    /// The runner could not do its part.
    InfrastructureFail,
    /// Skipped: by `when`, after a halt.
    NotRun,
}

/// Answer to a batch of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsAnswer {
    /// The number that is expected next: everything below it is stored.
    pub next: u64,
    /// Someone cancelled the task, as in a heartbeat.
    #[serde(default)]
    pub cancel: bool,
}
