//! The job and the workflow of a task, as far as the task decides about them.
//!
//! Only SQLite: nothing.

use crate::server::ids::{JobId, WorkflowId};
use crate::server::store::status::{JobStatus, WorkflowStatus};
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::params;

/// The first task of a job has begun: so has the job.
pub fn begin_job(tx: &Tx<'_>, job: &JobId, now: Millis) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "UPDATE jobs SET status = ?2, started_at_ms = coalesce(started_at_ms, ?3)
             WHERE id = ?1 AND stopped_at_ms IS NULL",
        )?
        .execute(params![job, JobStatus::Running, now])?;
    Ok(())
}

/// The workflow of a job.
pub fn workflow_of(view: &View, job: &JobId) -> Result<WorkflowId, Error> {
    let mut query = view.sql().prepare_cached("SELECT workflow_id FROM jobs WHERE id = ?1")?;
    Ok(query.query_row([job], |row| row.get(0))?)
}

/// Statuses of a job and its workflow.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The job has ended.
    pub job_ended: bool,
    /// Workflow of the job.
    pub workflow: WorkflowId,
    /// The workflow has ended.
    pub workflow_ended: bool,
    /// Status of the workflow.
    pub workflow_status: WorkflowStatus,
}

/// Statuses of a job and its workflow.
pub fn standing(view: &View, job: &JobId) -> Result<Standing, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT j.stopped_at_ms IS NOT NULL, w.id, w.stopped_at_ms IS NOT NULL, w.status
         FROM jobs j JOIN workflows w ON w.id = j.workflow_id WHERE j.id = ?1",
    )?;
    Ok(query.query_row([job], |row| {
        Ok(Standing {
            job_ended: row.get(0)?,
            workflow: row.get(1)?,
            workflow_ended: row.get(2)?,
            workflow_status: row.get(3)?,
        })
    })?)
}
