//! Serial groups: the jobs that hold or wait for a key, in the order in which they came.
//!
//! Only SQLite: the order is that of an AUTOINCREMENT column; CROSS JOIN keeps to the order that is written; flags are integers.

use crate::server::ids::{JobId, OrganisationId, ProjectId, WorkflowId};
use crate::server::store::status::JobType;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, Row, params};

/// A key: groups of the same name in different organisations are different ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerialKey {
    /// The organisation that it counts in.
    pub organisation: OrganisationId,
    /// Name as the config writes it, evaluated.
    pub name: String,
}

/// A job that comes for a key.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Organisation whose keys it comes for.
    pub organisation: OrganisationId,
    /// Project of the job.
    pub project: ProjectId,
    /// Workflow of the job, which keeps its place in the line.
    pub workflow: WorkflowId,
    /// The number of its pipeline in the project.
    pub pipeline_number: i64,
}

/// Reads a job that comes for a key; an error when there is no such job.
pub fn arrival(view: &View, job: &JobId) -> Result<Arrival, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT r.organisation_id, r.id, j.workflow_id, p.number FROM jobs j
         JOIN projects r ON r.id = j.project_id JOIN pipelines p ON p.id = j.pipeline_id WHERE j.id = ?1",
    )?;
    Ok(query.query_row([job], |row| {
        Ok(Arrival {
            organisation: row.get(0)?,
            project: row.get(1)?,
            workflow: row.get(2)?,
            pipeline_number: row.get(3)?,
        })
    })?)
}

/// Whether a pipeline of the project after a number holds or waits for the key.
pub fn has_newer(view: &View, key: &SerialKey, project: &ProjectId, number: i64) -> Result<bool, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT 1 FROM serial_claims WHERE organisation_id = ?1 AND key = ?2 AND project_id = ?3 AND pipeline_number > ?4",
    )?;
    Ok(query.exists(params![key.organisation, key.name, project, number])?)
}

/// A job in the line for a key.
#[derive(Clone, Debug)]
pub struct InLine {
    /// Job that holds the key, or waits for it.
    pub job: JobId,
    /// Workflow of that job.
    pub workflow: WorkflowId,
    /// Whether it holds the key.
    pub is_holder: bool,
}

/// The job that holds a key, else the one that has waited longest; `None` when nobody wants the key.
pub fn first_in_line(view: &View, key: &SerialKey) -> Result<Option<InLine>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT job_id, workflow_id, is_holder FROM serial_claims WHERE organisation_id = ?1 AND key = ?2
         ORDER BY is_holder DESC, seq LIMIT 1",
    )?;
    let found = query.query_row(params![key.organisation, key.name], |row| {
        Ok(InLine { job: row.get(0)?, workflow: row.get(1)?, is_holder: row.get(2)? })
    });
    Ok(found.optional()?)
}

/// Puts a job at the end of the line for a key.
pub fn insert(
    tx: &Tx<'_>,
    key: &SerialKey,
    job: &JobId,
    arrival: &Arrival,
    is_holder: bool,
    now: Millis,
) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "INSERT INTO serial_claims (organisation_id, key, job_id, workflow_id, project_id, pipeline_number, is_holder, since_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            key.organisation,
            key.name,
            job,
            arrival.workflow,
            arrival.project,
            arrival.pipeline_number,
            is_holder,
            now
        ])?;
    Ok(())
}

/// Makes a job that is in the line the holder of a key.
pub fn make_holder(tx: &Tx<'_>, key: &SerialKey, job: &JobId, now: Millis) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "UPDATE serial_claims SET is_holder = 1, since_ms = ?4 WHERE organisation_id = ?1 AND key = ?2 AND job_id = ?3",
        )?
        .execute(params![key.organisation, key.name, job, now])?;
    Ok(())
}

fn key(row: &Row<'_>) -> rusqlite::Result<SerialKey> {
    Ok(SerialKey { organisation: row.get(0)?, name: row.get(1)? })
}

/// Takes a job out of every line. Returns the keys.
pub fn delete_of_job(tx: &Tx<'_>, job: &JobId) -> Result<Vec<SerialKey>, Error> {
    let mut delete = tx
        .sql()
        .prepare_cached("DELETE FROM serial_claims WHERE job_id = ?1 RETURNING organisation_id, key")?;
    Ok(delete.query_map([job], key)?.collect::<Result<_, _>>()?)
}

/// Takes the keys of a name from the jobs of a workflow that are of a kind and hold them; one that waits goes on waiting.
/// Returns the keys.
pub fn delete_holders_of_kind(
    tx: &Tx<'_>,
    workflow: &WorkflowId,
    name: &str,
    kind: JobType,
) -> Result<Vec<SerialKey>, Error> {
    let mut delete = tx.sql().prepare_cached(
        "DELETE FROM serial_claims WHERE workflow_id = ?1 AND key = ?2 AND is_holder
            AND job_id IN (SELECT id FROM jobs WHERE workflow_id = ?1 AND kind = ?3) RETURNING organisation_id, key",
    )?;
    Ok(delete.query_map(params![workflow, name, kind], key)?.collect::<Result<_, _>>()?)
}

/// Takes the jobs of a workflow that only wait out of every line.
pub fn delete_waiting_of_workflow(tx: &Tx<'_>, workflow: &WorkflowId) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("DELETE FROM serial_claims WHERE workflow_id = ?1 AND NOT is_holder")?
        .execute([workflow])?;
    Ok(())
}

/// Takes the jobs of a workflow out of every line. Returns the keys.
pub fn delete_of_workflow(tx: &Tx<'_>, workflow: &WorkflowId) -> Result<Vec<SerialKey>, Error> {
    let mut delete = tx
        .sql()
        .prepare_cached("DELETE FROM serial_claims WHERE workflow_id = ?1 RETURNING organisation_id, key")?;
    Ok(delete.query_map([workflow], key)?.collect::<Result<_, _>>()?)
}

/// A job that waits for a key.
#[derive(Clone, Debug)]
pub struct WaitingJob {
    /// Job that waits.
    pub job: JobId,
    /// Workflow of that job.
    pub workflow: WorkflowId,
    /// The name of the key.
    pub key: String,
}

/// Has all waits for keys begin anew: nobody could be heard.
pub fn wait_anew(tx: &Tx<'_>, now: Millis) -> Result<(), Error> {
    tx.sql().prepare_cached("UPDATE serial_claims SET since_ms = ?1 WHERE NOT is_holder")?.execute([now])?;
    Ok(())
}

/// Has waits begin anew that are older than a time, for keys of a workflow with a task that waits for an administrator.
pub fn wait_anew_behind_held(tx: &Tx<'_>, before: Millis, now: Millis) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "UPDATE serial_claims SET since_ms = ?2 WHERE NOT is_holder AND since_ms < ?1 AND (organisation_id, key) IN (
                SELECT s.organisation_id, s.key FROM serial_claims s CROSS JOIN jobs j ON j.workflow_id = s.workflow_id
                CROSS JOIN tasks t ON t.job_id = j.id WHERE s.is_holder AND t.is_held)",
        )?
        .execute([before, now])?;
    Ok(())
}

/// Whether a job still waits for a key.
pub fn is_waiting(view: &View, job: &JobId) -> Result<bool, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT 1 FROM serial_claims WHERE NOT is_holder AND job_id = ?1")?;
    Ok(query.exists([job])?)
}

/// The jobs that have waited for a key since before a time, in the order in which they came.
pub fn waiting_since_before(view: &View, before: Millis) -> Result<Vec<WaitingJob>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT job_id, workflow_id, key FROM serial_claims WHERE NOT is_holder AND since_ms < ?1 ORDER BY seq",
    )?;
    let found = query.query_map([before], |row| {
        Ok(WaitingJob { job: row.get(0)?, workflow: row.get(1)?, key: row.get(2)? })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}
