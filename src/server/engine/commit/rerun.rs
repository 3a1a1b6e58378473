//! Reruns: a new workflow of the same pipeline with the same jobs, some of which keep their results.

use crate::server::engine::commit::{OLDEST_MS, Ripple};
use crate::server::engine::graph;
use crate::server::store::status::{JobStatus, JobType, WorkflowStatus};
use crate::server::store::{Error, Tx, new_id};
use rusqlite::{OptionalExtension, params};
use std::fmt;

/// Reruns of one workflow, over all its generations.
const MOST_RERUNS: i64 = 100;

/// What runs again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    All,
    /// What failed or was cancelled, and what depends on it.
    Failed,
    /// These jobs (ids), and what depends on them.
    Jobs(Vec<String>),
}

/// Why there is no rerun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such workflow.
    Unknown,
    /// It still runs.
    NotEnded,
    /// It is older than 90 days.
    TooOld,
    /// It was rerun 100 times.
    TooOften,
    /// There is nothing that failed.
    NothingFailed,
    /// A job that is not of the workflow.
    NoSuchJob(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Unknown => f.write_str("there is no such workflow"),
            Refused::NotEnded => {
                f.write_str("the workflow has not ended: cancel it first, or rerun all of it from the start")
            }
            Refused::TooOld => f.write_str("the workflow is older than 90 days: start a new pipeline"),
            Refused::TooOften => {
                write!(f, "the workflow was rerun {MOST_RERUNS} times: start a new pipeline")
            }
            Refused::NothingFailed => {
                f.write_str("no job of the workflow failed: there is nothing to rerun from")
            }
            Refused::NoSuchJob(job) => write!(f, "the job `{job}` is not of this workflow"),
        }
    }
}

/// Runs a workflow again. Returns the id of the new one.
pub fn rerun(
    tx: &Tx<'_>,
    workflow: &str,
    scope: &Scope,
    by: Option<&str>,
    now: u64,
) -> Result<Result<String, Refused>, Error> {
    let mut ripple = Ripple::default();
    let made = create(tx, workflow, scope, by, None, &mut ripple, now)?;
    ripple.settle(tx, now)?;
    Ok(made)
}

/// Reruns a workflow that has just failed, as often as its config allows.
pub(super) fn automatically(
    tx: &Tx<'_>,
    workflow: &str,
    status: WorkflowStatus,
    ripple: &mut Ripple,
    now: u64,
) -> Result<(), Error> {
    if status != WorkflowStatus::Failed {
        return Ok(());
    }
    let left: Option<u32> = tx
        .prepare_cached(
            "SELECT auto_rerun_number + 1 FROM workflows
             WHERE id = ?1 AND NOT is_manual_rerun AND NOT is_canceled AND auto_rerun_number < max_auto_reruns",
        )?
        .query_row([workflow], |row| row.get(0))
        .optional()?;
    if let Some(number) = left {
        // Refused when it is too old: then it stays failed.
        let _ = create(tx, workflow, &Scope::Failed, None, Some(number), ripple, now)?;
    }
    Ok(())
}

fn create(
    tx: &Tx<'_>,
    workflow: &str,
    scope: &Scope,
    by: Option<&str>,
    automatic: Option<u32>,
    ripple: &mut Ripple,
    now: u64,
) -> Result<Result<String, Refused>, Error> {
    let found: Option<(String, bool, i64, i64)> = tx
        .prepare_cached(
            "SELECT w.root, w.stopped_at_ms IS NOT NULL, p.created_at_ms,
                (SELECT count(*) FROM workflows again WHERE again.pipeline_id = w.pipeline_id AND again.root = w.root)
             FROM workflows w JOIN pipelines p ON p.id = w.pipeline_id WHERE w.id = ?1",
        )?
        .query_row([workflow], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let Some((root, ended, created, generations)) = found else { return Ok(Err(Refused::Unknown)) };
    if !ended && *scope != Scope::All {
        return Ok(Err(Refused::NotEnded));
    }
    if now.saturating_sub(created as u64) > OLDEST_MS {
        return Ok(Err(Refused::TooOld));
    }
    if generations > MOST_RERUNS {
        return Ok(Err(Refused::TooOften));
    }
    let (ids, nodes) = crate::server::engine::commit::nodes(tx, workflow)?;
    let again = match scope {
        Scope::All => vec![true; nodes.len()],
        Scope::Failed => {
            // What never ran because of a failure depends on it, and so runs again as well.
            let again = graph::run_again(&nodes, |index| {
                let status = nodes[index].status;
                status.is_failure() || matches!(status, JobStatus::Canceled | JobStatus::Unauthorized)
            });
            if !again.contains(&true) {
                return Ok(Err(Refused::NothingFailed));
            }
            again
        }
        Scope::Jobs(wanted) => {
            if let Some(stranger) = wanted.iter().find(|job| !ids.contains(job)) {
                return Ok(Err(Refused::NoSuchJob(stranger.clone())));
            }
            graph::run_again(&nodes, |index| wanted.contains(&ids[index]))
        }
    };
    let id = new_id();
    tx.prepare_cached(
        "INSERT INTO workflows (id, pipeline_id, project_id, name, position, status, is_setup, created_at_ms, started_by,
            is_canceled, max_auto_reruns, auto_rerun_number, rerun_of, root, is_manual_rerun, workspace_id)
         SELECT ?2, pipeline_id, project_id, name, (SELECT count(*) FROM workflows p WHERE p.pipeline_id = w.pipeline_id),
            ?3, is_setup, ?4, ?5, 0, max_auto_reruns, ?6, ?1, ?7, ?8, workspace_id FROM workflows w WHERE id = ?1",
    )?
    .execute(params![
        workflow,
        id,
        WorkflowStatus::Running,
        now as i64,
        by,
        automatic.unwrap_or(0),
        root,
        automatic.is_none()
    ])?;
    for (index, job) in ids.iter().enumerate() {
        // A key is only held while its lock runs in this very workflow, so locks are never kept.
        let keeps = !again[index] && !matches!(nodes[index].kind, JobType::Lock | JobType::Unlock);
        copy_job(tx, job, &id, keeps, now)?;
    }
    ripple.touch(id.clone());
    Ok(Ok(id))
}

fn copy_job(tx: &Tx<'_>, job: &str, workflow: &str, keeps: bool, now: u64) -> Result<(), Error> {
    let results = if keeps {
        "number, status, messages, coalesce(reused_from, id), queued_at_ms, started_at_ms, stopped_at_ms, approved_by"
    } else {
        "NULL, 'blocked', '[]', NULL, NULL, NULL, NULL, NULL"
    };
    tx.prepare_cached(&format!(
        "INSERT INTO jobs (id, workflow_id, pipeline_id, project_id, position, name, kind, definition, requires,
            serial_group, resource_class, parallelism, waits_for_lock, created_at_ms,
            number, status, messages, reused_from, queued_at_ms, started_at_ms, stopped_at_ms, approved_by)
         SELECT ?2, ?3, pipeline_id, project_id, position, name, kind, definition, requires,
            serial_group, resource_class, parallelism, 0, ?4, {results} FROM jobs WHERE id = ?1"
    ))?
    .execute(params![job, new_id(), workflow, now as i64])?;
    Ok(())
}
