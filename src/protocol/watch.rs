//! Events that a watching client is told: of `GET /api/v3/runs/{id}/events`.
//!
//! A server-sent event stream. A new watcher first gets the present state as the same kinds of event,
//! then changes as they happen, and at last [`WatchEvent::End`]. An event replaces what an earlier one
//! said of the same thing; output comes in order without holes for each step.

use serde::{Deserialize, Serialize};

/// An event, the `data` of a server-sent event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WatchEvent {
    /// A workflow appeared or changed.
    Workflow {
        /// Identifies it: a UUID.
        id: String,
        /// Name from the config.
        name: String,
        /// `running`, `success`, `failed`, `on_hold`, ... as in API v2.
        status: String,
        /// The workflow that this one runs again, whose result no longer counts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rerun_of: Option<String>,
    },
    /// A job appeared or changed.
    Job {
        /// Identifies it: a UUID.
        id: String,
        /// Id of the workflow.
        workflow_id: String,
        /// Name as expanded in its workflow.
        name: String,
        /// `blocked`, `queued`, `running`, `success`, `failed`, `on_hold`, ... as in API v2.
        status: String,
        /// Number of parallel nodes; 0 from a control plane that does not say.
        #[serde(default)]
        parallelism: u32,
        /// Unix time in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started_at_ms: Option<u64>,
        /// Unix time in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended_at_ms: Option<u64>,
        /// Why it ended this way, when there is something to say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// The job has ended because no runner may take it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        cannot_run: bool,
        /// The message says how it runs, and not why it ended.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_remark: bool,
    },
    /// A step record appeared or changed.
    Step {
        /// UUID of the job.
        job_id: String,
        /// Parallel node, from 0.
        execution: u32,
        /// Number of the step record.
        step: u32,
        /// Title of the step.
        name: String,
        /// `run`, `checkout`, `spinup_environment`, ...
        kind: String,
        /// `running`, `success`, `failed`, `canceled`, `timedout`, `infrastructure_fail`, `not_run`.
        status: String,
        /// Exit code of the command.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        /// Number of the try of this step, from 1.
        attempt: u32,
        /// True for background steps.
        background: bool,
        /// Unix time in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started_at_ms: Option<u64>,
        /// Unix time in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended_at_ms: Option<u64>,
        /// Why it ended this way.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// A piece of a step's output.
    Output {
        /// UUID of the job.
        job_id: String,
        /// Parallel node, from 0.
        execution: u32,
        /// Number of the step record.
        step: u32,
        /// Offset of the first byte.
        offset: u64,
        /// The bytes, base64: output need not be UTF-8.
        data: String,
    },
    /// Every workflow has ended and everything was told.
    End,
}
