//! The task that a successful claim hands to a runner.

use super::{Job, Secret, TaskId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A task as claimed: everything the task agent needs, in one document (at most a few MB).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Part of every later path.
    pub id: TaskId,
    /// Bearer token of every later call for this task. Never in argv, environment or a file.
    pub token: Secret,
    /// Identifies this attempt in failure events.
    pub allocation: String,
    /// Name of the job, as expanded in its workflow.
    pub job_name: String,
    /// Address at which people look at the job.
    pub job_url: String,
    /// The job to run.
    pub job: Job,
    /// 0 to `node_total - 1`.
    pub node_index: u32,
    /// Number of tasks of the job.
    pub node_total: u32,
    /// `CIRCLE_*` and the like that the control plane knows. Lower precedence than `job.environment`.
    #[serde(default)]
    pub built_in: BTreeMap<String, String>,
    /// Project variables, then context variables: later ones win; all below `built_in`.
    #[serde(default)]
    pub variables: Vec<Variable>,
    /// Further values to mask in output (continuation key and the like).
    #[serde(default)]
    pub mask: Vec<Secret>,
    /// Files that let git into the repository, by their names in a folder of the task, which `@FOLDER@` in them stands
    /// for; `config` is one that git is told to read. They go with the task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub git_files: Vec<Variable>,
    /// The revision that `checkout` fetches; `None` when the project has no repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// `GET .../test-timings` has an answer: an earlier run of the job stored test results, and this one has
    /// several nodes to share them among.
    #[serde(default)]
    pub has_test_timings: bool,
    /// The claim lapses this long after the last call.
    pub lease_seconds: u32,
    /// The task goes back to its queue when it has not begun this long after the claim.
    #[serde(default = "ten_minutes")]
    pub begin_seconds: u32,
    /// How long a task that has begun may be out of reach before the control plane ends it. The task agent stops its
    /// steps this long after the last call that was answered, less the time that stopping takes.
    #[serde(default = "fifteen_minutes")]
    pub budget_seconds: u32,
    /// A heartbeat asks to be held this long; it is answered at once when there is news.
    pub heartbeat_wait_seconds: u32,
    /// Output of one step beyond this is counted and dropped, and the log says so.
    pub max_step_output_bytes: u64,
    /// An artifact larger than this is skipped with an error message in the log.
    pub max_artifact_bytes: u64,
}

impl Task {
    /// A task without anything to run, for an agent that sends what another one has left.
    pub fn without_steps(id: TaskId, token: Secret, job_name: String) -> Self {
        Self {
            id,
            token,
            allocation: String::new(),
            job_name,
            job_url: String::new(),
            job: Job::without_steps(String::new()),
            node_index: 0,
            node_total: 1,
            built_in: BTreeMap::new(),
            variables: Vec::new(),
            mask: Vec::new(),
            git_files: Vec::new(),
            source: None,
            has_test_timings: false,
            lease_seconds: 60,
            begin_seconds: ten_minutes(),
            budget_seconds: fifteen_minutes(),
            heartbeat_wait_seconds: 20,
            max_step_output_bytes: 0,
            max_artifact_bytes: 0,
        }
    }
}

fn ten_minutes() -> u32 {
    600
}

fn fifteen_minutes() -> u32 {
    900
}

/// A project or context variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Name, which matches `[A-Za-z_][A-Za-z0-9_]*`.
    pub name: String,
    /// Masked in output, subject to the rules of the executor's redactor.
    pub value: Secret,
}

/// The repository and revision of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The address that `git fetch` is given.
    pub repository_url: String,
    /// Full commit id.
    pub revision: String,
    /// Branch being built; excludes `tag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Tag being built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Full name of the ref that leads to `revision`, when it is known (`refs/heads/main`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The branch that a clone would call the default one, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_branch: Option<String>,
}
