//! Message to the first process of a pod: one JSON document in the variable [`VARIABLE`], out of a secret of the
//! cluster. It fetches the task itself, since a secret has a megabyte at most.

use super::{Secret, TaskId};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Variable of the first process; nothing that it starts sees it.
pub const VARIABLE: &str = "RUNLET_POD_TASK";
/// Folder of the pod that its containers share: the program, and what they tell each other.
pub const SHARED: &str = "/opt/circleci";

/// The task of a pod.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PodTask {
    /// Id of the task.
    pub id: TaskId,
    /// Token of the task, which nothing else may be asked with.
    pub token: Secret,
    /// The control plane.
    pub url: String,
    /// Further authorities to trust, as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Name of the runner.
    pub runner_name: String,
    /// Version of the runner, for the spin-up record.
    pub runner_version: String,
    /// The task is stopped after this long.
    pub max_run_time_ms: u64,
    /// Name of the user that steps run as; `None` is that of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Started before the task and beside it: the entry point that the config names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The task waits until all of them exist: other containers have started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wait_for: Vec<PathBuf>,
    /// Level of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// Forms in which secrets are masked besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mask_forms: Vec<String>,
}
