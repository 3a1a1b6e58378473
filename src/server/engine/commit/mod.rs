//! Commits what the engine decides: jobs start, tasks queue, ends spread, workflows come to rest.
//!
//! Everything here runs inside one transaction of the caller's, with the time passed in. What happens to
//! one workflow can reach others (a serial group's key passes on), so every change is collected as a
//! `Ripple` and settled at its end.

mod cancel;
pub mod clock;
mod rerun;
mod serial;
pub mod task;
#[cfg(test)]
mod tests;

pub use cancel::{approve, cancel_forgotten_once, cancel_job, cancel_redundant, cancel_workflow};
pub use rerun::{Refused, Scope, rerun};
pub use serial::expire_waits_once;

use crate::config::{JobKind, Workflow};
use crate::server::engine::graph::{self, Decision, Node};
use crate::server::engine::test_timings;
use crate::server::secrets::contexts;
use crate::server::store::status::{JobStatus, JobType, WorkflowStatus};
use crate::server::store::tables::tasks::{self, NewTask};
use crate::server::store::{Effect, Error, Tx, new_id};
use crate::server::time::Millis;
use rusqlite::params;
use std::collections::VecDeque;

/// Nothing older runs again, and what has not ended by then is ended: 90 days.
const OLDEST_MS: u64 = 90 * 24 * 60 * 60 * 1000;

/// Where the tasks of a job queue.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// Every task goes to this class, whatever its job names.
    pub route_all_to: Option<String>,
}

/// Workflows that must be looked at again because of what happened so far.
#[derive(Default)]
#[must_use = "a ripple that is not settled leaves workflows behind their jobs"]
struct Ripple {
    waiting: VecDeque<String>,
}

impl Ripple {
    /// Something about a job of this workflow changed.
    fn touch(&mut self, workflow: String) {
        if !self.waiting.contains(&workflow) {
            self.waiting.push_back(workflow);
        }
    }

    /// Brings every touched workflow up to date, and those that this reaches.
    fn settle(mut self, tx: &Tx<'_>, now: u64) -> Result<(), Error> {
        while let Some(workflow) = self.waiting.pop_front() {
            advance(tx, &workflow, &mut self, now)?;
        }
        Ok(())
    }
}

/// Stores a workflow and starts what can start. Returns its id.
pub fn create_workflow(
    tx: &Tx<'_>,
    pipeline: &str,
    project: &str,
    workflow: &Workflow,
    is_setup: bool,
    routing: &Routing,
    now: u64,
) -> Result<String, Error> {
    let id = new_id();
    let now_ms = now as i64;
    tx.prepare_cached(
        "INSERT INTO workflows (id, pipeline_id, project_id, name, position, status, is_setup, created_at_ms,
            is_canceled, max_auto_reruns, auto_rerun_number, root, is_manual_rerun, workspace_id)
         VALUES (?1, ?2, ?3, ?4, (SELECT count(*) FROM workflows WHERE pipeline_id = ?2), ?5, ?9, ?6, 0, ?7, 0, ?1, 0, ?8)",
    )?
    .execute(params![id, pipeline, project, workflow.name, WorkflowStatus::Running, now_ms, workflow.max_auto_reruns, new_id(), is_setup])?;
    for (position, job) in workflow.jobs.iter().enumerate() {
        let (class, parallelism) = match &job.kind {
            JobKind::Build { job } => (Some(job.resource_class.clone()), job.parallelism),
            _ => (None, 1),
        };
        let class = class.map(|class| routing.route_all_to.clone().unwrap_or(class));
        let key = match &job.kind {
            JobKind::Lock { key } | JobKind::Unlock { key } => Some(key),
            _ => job.serial_group.as_ref(),
        };
        tx.prepare_cached(
            "INSERT INTO jobs (id, workflow_id, pipeline_id, project_id, position, name, kind, definition, requires, serial_group,
                status, resource_class, parallelism, messages, waits_for_lock, created_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, '[]', 0, ?14)",
        )?
        .execute(params![
            new_id(),
            id,
            pipeline,
            project,
            position as i64,
            job.name,
            JobType::from(&job.kind),
            serde_json::to_string(job)?,
            serde_json::to_string(&job.requires)?,
            key,
            JobStatus::Blocked,
            class,
            parallelism,
            now_ms
        ])?;
    }
    let mut ripple = Ripple::default();
    ripple.touch(id.clone());
    ripple.settle(tx, now)?;
    Ok(id)
}

/// Starts what can start, gives up what cannot, and brings the workflow's status up to date.
fn advance(tx: &Tx<'_>, workflow: &str, ripple: &mut Ripple, now: u64) -> Result<(), Error> {
    let (pipeline, canceled, ended): (String, bool, bool) = tx
        .prepare_cached(
            "SELECT pipeline_id, is_canceled, stopped_at_ms IS NOT NULL FROM workflows WHERE id = ?1",
        )?
        .query_row([workflow], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    if ended {
        return Ok(());
    }
    let (ids, mut nodes) = nodes(tx, workflow)?;
    // A cancelled workflow starts nothing more.
    if !canceled {
        loop {
            let decisions = graph::advance(&nodes);
            for &(index, decision) in &decisions {
                let node = &mut nodes[index];
                node.status = match decision {
                    Decision::NotRun => end_job(tx, &ids[index], JobStatus::NotRun, ripple, now)?,
                    Decision::Start => start_job(tx, workflow, &ids[index], node.kind, ripple, now)?,
                };
            }
            // A job that could not be started has ended, which decides about others.
            if decisions.is_empty() {
                break;
            }
        }
    }
    // A job may have come to hold a key that was given back meanwhile.
    let (_, nodes) = self::nodes(tx, workflow)?;
    let status = graph::workflow_status(&nodes, canceled);
    let stopped = status.is_terminal().then_some(now as i64);
    tx.prepare_cached("UPDATE workflows SET status = ?2, stopped_at_ms = ?3 WHERE id = ?1")?
        .execute(params![workflow, status, stopped])?;
    tx.effect(Effect::Changed(pipeline));
    // What an agent that nobody hears may still be doing must not be done again beside it: see `task::fence_gone`.
    if status.is_terminal() && !tasks::is_workflow_fenced(tx, &workflow.into())? {
        serial::leave_all(tx, workflow, ripple, now)?;
        rerun::automatically(tx, workflow, status, ripple, now)?;
    }
    Ok(())
}

fn nodes(tx: &Tx<'_>, workflow: &str) -> Result<(Vec<String>, Vec<Node>), Error> {
    let mut query = tx.prepare_cached(
        "SELECT id, name, kind, status, requires, waits_for_lock FROM jobs WHERE workflow_id = ?1 ORDER BY position",
    )?;
    let mut rows = query.query([workflow])?;
    let (mut ids, mut nodes) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        ids.push(row.get(0)?);
        nodes.push(Node {
            name: row.get(1)?,
            kind: row.get(2)?,
            status: row.get(3)?,
            requires: serde_json::from_str(&row.get::<_, String>(4)?)?,
            waits_for_lock: row.get(5)?,
        });
    }
    Ok((ids, nodes))
}

/// The job's turn has come. Returns its status from now on.
fn start_job(
    tx: &Tx<'_>,
    workflow: &str,
    job: &str,
    kind: JobType,
    ripple: &mut Ripple,
    now: u64,
) -> Result<JobStatus, Error> {
    // An approval opens what is behind it: whoever may not use its context may not have it waiting either.
    if let (JobType::Build | JobType::Approval, Err(why)) = (kind, contexts::of_job(tx, job)?) {
        say(tx, job, "error", &why)?;
        return end_job(tx, job, JobStatus::Unauthorized, ripple, now);
    }
    let key: Option<String> = tx
        .prepare_cached("SELECT serial_group FROM jobs WHERE id = ?1")?
        .query_row([job], |row| row.get(0))?;
    if let Some(key) = key {
        if kind == JobType::Unlock {
            serial::unlock(tx, workflow, &key, ripple, now)?;
            return end_job(tx, job, JobStatus::Success, ripple, now);
        }
        match serial::arrive(tx, job, &key, now)? {
            serial::Turn::Taken => {}
            serial::Turn::TooLate => {
                let why = format!("skipped: a newer pipeline came first to the serial group `{key}`");
                say(tx, job, "warning", &why)?;
                return end_job(tx, job, JobStatus::NotRun, ripple, now);
            }
            serial::Turn::Waits => {
                tx.prepare_cached(
                    "UPDATE jobs SET status = ?2, waits_for_lock = 1, queued_at_ms = ?3 WHERE id = ?1",
                )?
                .execute(params![job, JobStatus::Queued, now as i64])?;
                return Ok(JobStatus::Queued);
            }
        }
    }
    begin_job(tx, job, kind, ripple, now)
}

/// A job that waited for its key has it now.
fn granted(tx: &Tx<'_>, job: &str, ripple: &mut Ripple, now: u64) -> Result<(), Error> {
    let kind = tx
        .prepare_cached("UPDATE jobs SET waits_for_lock = 0 WHERE id = ?1 RETURNING kind")?
        .query_row([job], |row| row.get(0))?;
    begin_job(tx, job, kind, ripple, now).map(drop)
}

fn begin_job(
    tx: &Tx<'_>,
    job: &str,
    kind: JobType,
    ripple: &mut Ripple,
    now: u64,
) -> Result<JobStatus, Error> {
    match kind {
        JobType::Approval => set_status(tx, job, JobStatus::OnHold),
        JobType::NoOp | JobType::Unlock => end_job(tx, job, JobStatus::Success, ripple, now),
        // It ends, but keeps its key.
        JobType::Lock => close_job(tx, job, JobStatus::Success, now),
        JobType::Build => queue_job(tx, job, ripple, now),
    }
}

fn queue_job(tx: &Tx<'_>, job: &str, ripple: &mut Ripple, now: u64) -> Result<JobStatus, Error> {
    let (class, parallelism, pipeline, project): (String, u32, String, String) = tx
        .prepare_cached(
            "SELECT resource_class, parallelism, pipeline_id, project_id FROM jobs WHERE id = ?1",
        )?
        .query_row([job], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let known = tx.prepare_cached("SELECT 1 FROM resource_classes WHERE name = ?1")?.exists([&class])?;
    if !known {
        let message = format!(
            "cannot run this job using the selected resource class `{class}`: there is no such class here (make it with `runlet admin resource-class create`)"
        );
        say(tx, job, "error", &message)?;
        return end_job(tx, job, JobStatus::Failed, ripple, now);
    }
    let number: i64 = tx
        .prepare_cached("UPDATE projects SET next_job_number = next_job_number + 1 WHERE id = ?1 RETURNING next_job_number - 1")?
        .query_row([&project], |row| row.get(0))?;
    tx.prepare_cached("UPDATE jobs SET status = ?2, number = ?3, queued_at_ms = ?4 WHERE id = ?1")?
        .execute(params![job, JobStatus::Queued, number, now as i64])?;
    if parallelism > 1 {
        test_timings::choose(tx, job)?;
    }
    for node in 0..parallelism {
        let (job, pipeline, project) = (&job.into(), &pipeline.as_str().into(), &project.as_str().into());
        let new = NewTask { job, pipeline, project, node_index: node, resource_class: &class };
        tasks::insert_first(tx, new, Millis(now))?;
        tx.effect(Effect::Queued(class.clone()));
    }
    Ok(JobStatus::Queued)
}

fn set_status(tx: &Tx<'_>, job: &str, status: JobStatus) -> Result<JobStatus, Error> {
    tx.prepare_cached("UPDATE jobs SET status = ?2 WHERE id = ?1")?.execute(params![job, status])?;
    Ok(status)
}

/// Ends a job: what it held passes on.
fn end_job(
    tx: &Tx<'_>,
    job: &str,
    status: JobStatus,
    ripple: &mut Ripple,
    now: u64,
) -> Result<JobStatus, Error> {
    close_job(tx, job, status, now)?;
    serial::leave(tx, job, ripple, now)?;
    Ok(status)
}

fn close_job(tx: &Tx<'_>, job: &str, status: JobStatus, now: u64) -> Result<JobStatus, Error> {
    tx.prepare_cached(
        "UPDATE jobs SET status = ?2, waits_for_lock = 0, stopped_at_ms = coalesce(stopped_at_ms, ?3) WHERE id = ?1",
    )?
    .execute(params![job, status, now as i64])?;
    Ok(status)
}

/// Adds a message that people see with the job.
pub fn say(tx: &Tx<'_>, job: &str, kind: &str, message: &str) -> Result<(), Error> {
    let entry = serde_json::json!({ "type": kind, "message": message }).to_string();
    tx.prepare_cached("UPDATE jobs SET messages = json_insert(messages, '$[#]', json(?2)) WHERE id = ?1")?
        .execute(params![job, entry])?;
    Ok(())
}
