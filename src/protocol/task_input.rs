//! What a runner hands to the task agent (`runlet task`) on its standard input: one JSON document.
//!
//! `agent` builds it from its settings and a claim, `executor` reads it. It is not part of the wire
//! between hosts; both sides are the same program, so it has no version of its own. It carries the
//! task's token and secret variables and must never reach argv, the environment or a file.

use super::Task;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything the task agent needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskInput {
    /// Where to report.
    pub endpoint: TaskEndpoint,
    /// The runner's working directory, used when the job has none and as the base of a relative one.
    /// `None` is a directory of the task's own below the scratch directory.
    #[serde(default)]
    pub working_directory: Option<PathBuf>,
    /// Remove the working directory when the task has ended.
    #[serde(default)]
    pub cleanup_working_directory: bool,
    /// The working directory of the job is made below `working_directory`, wherever the job wants it, and
    /// `checkout` leaves what is outside alone.
    #[serde(default)]
    pub confine: bool,
    /// `checkout` keeps its keys in `~/.ssh` rather than in the scratch directory.
    #[serde(default)]
    pub use_home_ssh_dir_for_checkout_keys: bool,
    /// The task is stopped as timed out after this long; 0 is no limit.
    #[serde(default)]
    pub max_run_time_ms: u64,
    /// `runner.name`.
    pub runner_name: String,
    /// Version of the runner that claimed the task.
    pub runner_version: String,
    /// Appended to `PATH` of the steps; holds `circleci-agent` and `circleci`, links to this program.
    /// `None` makes a directory of that kind in the scratch directory.
    #[serde(default)]
    pub tool_directory: Option<PathBuf>,
    /// `error`, `warn`, `info`, `debug` or `trace`; `None` is `info`. The task agent's own log goes to
    /// standard error.
    #[serde(default)]
    pub log_level: Option<String>,
    /// `color`, `text`, `json` or `none`: how the task agent's own log is written; `None` is `text`.
    #[serde(default)]
    pub log_format: Option<String>,
    /// What was claimed.
    pub task: Task,
}

/// Where the control plane is and how to trust it: the serialisable form of
/// [`http::Endpoint`](crate::http::Endpoint).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskEndpoint {
    /// Base URL without a trailing slash.
    pub url: String,
    /// Further certificate authorities, PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Client certificate, PEM; used together with its key.
    #[serde(default)]
    pub client_certificate_file: Option<PathBuf>,
    /// Key of the client certificate, PEM.
    #[serde(default)]
    pub client_key_file: Option<PathBuf>,
}

/// Exit codes of `runlet task`.
pub mod task_exit {
    /// The outcome was reported and confirmed, whatever it was.
    pub const REPORTED: u8 = 0;
    /// The task ended but its outcome could not be reported (or the control plane had ended it).
    pub const NOT_REPORTED: u8 = 75;
}
