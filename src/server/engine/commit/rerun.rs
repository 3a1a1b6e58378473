//! Reruns: a new workflow of the same pipeline with the same jobs, some of which keep their results.

use crate::server::engine::commit::nodes;
use crate::server::engine::commit::ripple::Ripple;
use crate::server::engine::graph;
use crate::server::ids::{JobId, UserId, WorkflowId};
use crate::server::store::status::{JobStatus, JobType, WorkflowStatus};
use crate::server::store::tables::workflows::{self, NewRerun};
use crate::server::store::tables::{jobs, tasks};
use crate::server::store::{Error, Tx};
use crate::server::time::Millis;
use std::fmt;
use std::time::Duration;

/// Age of a pipeline after which nothing of it runs again, and of a workflow after which it is ended where no job runs:
/// 90 days.
pub(super) const OLDEST: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Reruns of one workflow, over all its generations.
const MOST_RERUNS: u64 = 100;

/// Choice of the jobs that run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RerunScope {
    /// Every job, from the beginning.
    All,
    /// Jobs that failed or were cancelled, and those that depend on them.
    Failed,
    /// These jobs (ids), and what depends on them.
    Jobs(Vec<JobId>),
}

/// Cause of a rerun.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cause<'a> {
    /// A person asked for it.
    Person {
        /// The person, where that is known.
        by: Option<&'a UserId>,
        /// Whether that person wants it whatever the jobs of the runs before may be doing.
        is_forced: bool,
    },
    /// The workflow failed, and its config wants that; the how manieth it is.
    Automatic(u32),
}

/// Why there is no rerun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RerunRefused {
    /// There is no such workflow.
    Unknown,
    /// The workflow still runs.
    NotEnded,
    /// The pipeline is older than 90 days.
    TooOld,
    /// The workflow was rerun 100 times.
    TooOften,
    /// No job failed.
    NothingFailed,
    /// A job that is not of the workflow.
    NoSuchJob(JobId),
    /// Runners of these jobs were not heard of for a while, or have them as a restored backup says: they may be at work.
    Unreachable(Vec<String>),
}

impl fmt::Display for RerunRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RerunRefused::Unknown => f.write_str("there is no such workflow"),
            RerunRefused::NotEnded => {
                f.write_str("the workflow has not ended: cancel it first, or rerun all of it from the start")
            }
            RerunRefused::TooOld => f.write_str("the workflow is older than 90 days: start a new pipeline"),
            RerunRefused::TooOften => {
                write!(f, "the workflow was rerun {MOST_RERUNS} times: start a new pipeline")
            }
            RerunRefused::NothingFailed => {
                f.write_str("no job of the workflow failed: there is nothing to rerun from")
            }
            RerunRefused::NoSuchJob(job) => write!(f, "the job `{job}` is not of this workflow"),
            RerunRefused::Unreachable(jobs) => write!(
                f,
                "the runner of `{}` cannot be reached, or has it as a restored backup says, and may still be at work: wait until the job has ended, or ask again with `\"force\": true`",
                jobs.join("`, `")
            ),
        }
    }
}

/// Reruns a workflow that has just failed, as often as its config allows.
pub(super) fn automatically(
    tx: &Tx<'_>,
    workflow: &WorkflowId,
    status: WorkflowStatus,
    ripple: &mut Ripple,
    now: Millis,
) -> Result<(), Error> {
    if status != WorkflowStatus::Failed {
        return Ok(());
    }
    let reruns = workflows::auto_reruns(tx, workflow)?;
    if !reruns.is_manual_rerun && !reruns.is_canceled && reruns.done < reruns.most {
        // Refused when it is too old: then it stays failed.
        let _ = create(tx, workflow, &RerunScope::Failed, Cause::Automatic(reruns.done + 1), ripple, now)?;
    }
    Ok(())
}

/// Makes a further run of a workflow, which begins when the ripple is settled. Returns its id.
pub(super) fn create(
    tx: &Tx<'_>,
    workflow: &WorkflowId,
    scope: &RerunScope,
    cause: Cause<'_>,
    ripple: &mut Ripple,
    now: Millis,
) -> Result<Result<WorkflowId, RerunRefused>, Error> {
    let Some(chain) = workflows::chain(tx, workflow)? else { return Ok(Err(RerunRefused::Unknown)) };
    if !chain.has_ended && *scope != RerunScope::All {
        return Ok(Err(RerunRefused::NotEnded));
    }
    if now.since(chain.pipeline_created_at) > OLDEST {
        return Ok(Err(RerunRefused::TooOld));
    }
    if chain.generations > MOST_RERUNS {
        return Ok(Err(RerunRefused::TooOften));
    }
    let (ids, nodes) = nodes::of_workflow(tx, workflow)?;
    let again = match scope {
        RerunScope::All => vec![true; nodes.len()],
        RerunScope::Failed => {
            // A job that never ran because of a failure depends on it, and so runs again as well.
            let again = graph::run_again(&nodes, |index| {
                let status = nodes[index].status;
                status.is_failure() || matches!(status, JobStatus::Canceled | JobStatus::Unauthorized)
            });
            if !again.contains(&true) {
                return Ok(Err(RerunRefused::NothingFailed));
            }
            again
        }
        RerunScope::Jobs(wanted) => {
            if let Some(stranger) = wanted.iter().find(|job| !ids.contains(job)) {
                return Ok(Err(RerunRefused::NoSuchJob(stranger.clone())));
            }
            graph::run_again(&nodes, |index| wanted.contains(&ids[index]))
        }
    };
    let (by, is_forced, automatic) = match cause {
        Cause::Person { by, is_forced } => (by, is_forced, None),
        Cause::Automatic(number) => (None, false, Some(number)),
    };
    if automatic.is_none() && !is_forced {
        // In this run, or in one before or after it that has not ended.
        let mut unreachable = tasks::unreachable_jobs(tx, workflow)?;
        unreachable.retain(|name| nodes.iter().zip(&again).any(|(node, again)| *again && node.name == *name));
        if !unreachable.is_empty() {
            return Ok(Err(RerunRefused::Unreachable(unreachable)));
        }
    }
    let id = workflows::insert_rerun(
        tx,
        &NewRerun {
            of: workflow,
            by,
            root: &chain.root,
            automatic,
            is_forced,
            status: WorkflowStatus::Running,
            created_at: now,
        },
    )?;
    for (index, job) in ids.iter().enumerate() {
        // A key is only held while its lock runs in this very workflow, so locks are never kept.
        let keeps = !again[index] && !matches!(nodes[index].kind, JobType::Lock | JobType::Unlock);
        if keeps {
            jobs::insert_kept(tx, job, &id, now)?;
        } else {
            jobs::insert_again(tx, job, &id, JobStatus::Blocked, now)?;
        }
    }
    ripple.touch(id.clone());
    Ok(Ok(id))
}
