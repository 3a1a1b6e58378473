//! The end of a task: said once everything is uploaded, and confirmed.

use serde::{Deserialize, Serialize};

/// Body of `POST /api/v3/runner/tasks/{id}/finish` (task token). Repeating it is harmless.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinishRequest {
    /// How the task ended.
    pub status: TaskStatus,
    /// Why, in one line, secrets masked; absent on success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Number of events sent in all.
    pub events: u64,
    /// Summaries of the step records, one for each.
    pub steps: Vec<StepSummary>,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// No step failed.
    Success,
    /// A step failed.
    Failed,
    /// Cancelled by a person or by a newer pipeline.
    Canceled,
    /// The time limit of the job passed.
    Timedout,
    /// The runner could not do its part.
    InfrastructureFail,
}

impl TaskStatus {
    /// Word of the status in JSON.
    pub fn word(self) -> &'static str {
        match self {
            TaskStatus::Success => "success",
            TaskStatus::Failed => "failed",
            TaskStatus::Canceled => "canceled",
            TaskStatus::Timedout => "timedout",
            TaskStatus::InfrastructureFail => "infrastructure_fail",
        }
    }
}

/// Length and checksum that one step's output should have at the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSummary {
    /// The step record.
    pub step: u32,
    /// Length of the output in bytes.
    pub length: u64,
    /// SHA-256 of the output, lower-case hex.
    /// Empty where the runner does not have all of it any more (it had been stored for good): what the control plane
    /// has is all there will be, and it marks how much is missing.
    pub sha256: String,
}

/// Answer to a finish request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case", try_from = "FinishForm")]
pub enum FinishAnswer {
    /// The task has ended, and no part is missing.
    Confirmed,
    /// A part is missing: send it and finish again.
    Incomplete {
        /// First event that is missing; equal to `events` when none is.
        next_event: u64,
        /// Steps whose output is short or differs, with the offset to send from (0 to start over).
        steps: Vec<(u32, u64)>,
    },
}

/// The answer as it is read: a reader of what has a tag would be in the runner for this alone.
#[derive(Deserialize)]
struct FinishForm {
    answer: FinishWord,
    next_event: Option<u64>,
    steps: Option<Vec<(u32, u64)>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum FinishWord {
    Confirmed,
    Incomplete,
}

impl TryFrom<FinishForm> for FinishAnswer {
    type Error = &'static str;

    fn try_from(form: FinishForm) -> Result<Self, &'static str> {
        Ok(match form.answer {
            FinishWord::Confirmed => Self::Confirmed,
            FinishWord::Incomplete => Self::Incomplete {
                next_event: form.next_event.ok_or("missing field `next_event`")?,
                steps: form.steps.ok_or("missing field `steps`")?,
            },
        })
    }
}
