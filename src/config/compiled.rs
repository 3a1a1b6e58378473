//! The product of the compiler: workflows whose jobs are concrete. The engine starts from here.

use crate::config::Executor;
use crate::protocol::Job;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A compiled config.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// `setup: true`: the one workflow may continue the pipeline with another config.
    pub setup: bool,
    /// Workflows that apply, in the order of the config; none is not an error.
    pub workflows: Vec<Workflow>,
    /// Declared pipeline parameters with the values in force.
    pub parameters: BTreeMap<String, serde_json::Value>,
    /// Declarations of the parameters, in which a continuation finds conflicts.
    pub declared: BTreeMap<String, DeclaredParameter>,
    /// Parts of the config that do not run for this pipeline, in its order.
    pub left_out: Vec<LeftOut>,
    /// Messages that stop nothing.
    pub warnings: Vec<crate::config::Diagnostic>,
    /// The compiled config as YAML, itself a valid config.
    pub processed: String,
}

/// A pipeline parameter of a config.
///
/// A continuation conflicts with its setup config when both declare a name, the continuation passes a
/// value for it, and the trigger had given the setup config something other than the default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeclaredParameter {
    /// `string`, `boolean`, `integer` or `enum`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The value that holds when the trigger gives none.
    pub default: serde_json::Value,
    /// Whether the trigger gave a value other than the default.
    pub given_other_than_default: bool,
}

/// A graph of jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// Name, unique within the pipeline.
    pub name: String,
    /// Jobs in the order of the config, after expansion; filtered-out jobs are gone.
    pub jobs: Vec<WorkflowJob>,
    /// Automatic reruns from failed, 0 to 5.
    pub max_auto_reruns: u32,
    /// Schedules of a workflow, which never runs on a push.
    pub schedules: Vec<Schedule>,
}

/// A workflow, or a job of one that applies, that does not run for a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Name of the workflow.
    pub workflow: String,
    /// Name of the job; `None` is the whole workflow, whose condition does not hold. A job goes by its filters.
    pub job: Option<String>,
    /// Other names that the config has for the job: that of its matrix, and that of the job that the entry is of. Of a
    /// whole workflow, the names of its jobs as they are written.
    pub other_names: Vec<String>,
}

/// A job of the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkflowJob {
    /// Name, unique within the workflow.
    pub name: String,
    /// Other names of the entry in the config: the one before numbers, and that of its matrix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<String>,
    /// Name of the job that the entry is of, where that is another; empty for the ends of job groups.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub job: String,
    /// The work of the job when its turn comes.
    pub kind: JobKind,
    /// Jobs of this workflow that it waits for.
    pub requires: Vec<Requirement>,
    /// Contexts in the order of the config.
    pub contexts: Vec<String>,
    /// Key of a serial group: at most one job of the organisation holds it at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_group: Option<String>,
}

/// Names that the config has for a job beside its own: the part of a stored [`WorkflowJob`] that tells them. The rest of it
/// can be megabytes long.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct OtherNames {
    /// Names before numbers, and of its matrix.
    #[serde(default)]
    pub written: Vec<String>,
    /// Name of the job that the entry is of; empty where that is its own.
    #[serde(default)]
    pub job: String,
}

/// The kind of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum JobKind {
    /// Runs steps on a runner.
    Build {
        /// Resource class, environment and steps.
        job: Box<Job>,
        /// Executor that they run in.
        #[serde(default)]
        executor: Executor,
    },
    /// Waits for a person.
    Approval,
    /// Succeeds when its turn comes. `release` jobs become this as well.
    NoOp,
    /// Takes the lock `key` (explicit `lock` jobs, job groups with a serial group).
    Lock {
        /// Serial group key.
        key: String,
    },
    /// Gives the lock back.
    Unlock {
        /// Serial group key.
        key: String,
    },
}

/// An entry of `requires`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Requirement {
    /// Name of a job of the same workflow.
    pub job: String,
    /// Statuses of that job, any of which satisfies the requirement; never empty.
    pub statuses: Vec<RequiredStatus>,
}

/// A final status that a requirement can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequiredStatus {
    /// Succeeded; the default.
    Success,
    /// Failed, for whatever reason.
    Failed,
    /// Cancelled, or an approval that was refused.
    Canceled,
    /// Refused, because a context was not allowed.
    Unauthorized,
    /// Not run, because a requirement was not met.
    NotRun,
}

/// A `schedule` trigger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Times in five fields of cron, in UTC.
    pub cron: String,
    /// `filters.branches.only`, as written.
    pub only: Vec<String>,
    /// `filters.branches.ignore`, as written.
    pub ignore: Vec<String>,
}
