//! Jobs of workflows: made, started, queued, ended.
//!
//! Only SQLite: `json_insert` adds a message to the list of a job, in which `instr` looks for it; flags are integers.

use crate::config::{OtherNames, Requirement, WorkflowJob};
use crate::protocol::{TaskId, TaskKind};
use crate::server::ids::{JobId, PipelineId, ProjectId, UserId, WorkflowId};
use crate::server::store::json::Json;
use crate::server::store::status::{JobStatus, JobType, Kind, MessageKind};
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, params};

/// A job that is about to be stored.
#[derive(Clone, Debug)]
pub struct NewJob<'a> {
    /// Workflow whose graph it is a node of.
    pub workflow: &'a WorkflowId,
    /// The pipeline of that workflow.
    pub pipeline: &'a PipelineId,
    /// The project of that pipeline.
    pub project: &'a ProjectId,
    /// Place of the job in the workflow, from 0.
    pub position: usize,
    /// The job as it was compiled.
    pub definition: &'a WorkflowJob,
    /// The key of the serial group that it takes, holds or gives back.
    pub serial_key: Option<&'a str>,
    /// The queue that its tasks go to.
    pub resource_class: Option<&'a str>,
    /// The kind of runner that its tasks are for.
    pub task_kind: TaskKind,
    /// Set for a job that no runner may take.
    pub cannot_run: Option<&'a CannotRun>,
    /// The number of its tasks.
    pub parallelism: u32,
    /// The status that it begins with.
    pub status: JobStatus,
    /// The time of its creation.
    pub created_at: Millis,
}

/// The end of a job that no runner may take, once its turn comes.
#[derive(Clone, Debug, PartialEq)]
pub struct CannotRun {
    /// Status of the job from then on.
    pub status: JobStatus,
    /// Why, for people.
    pub message: String,
}

/// Stores a job.
pub fn insert_job(tx: &Tx<'_>, new: &NewJob<'_>) -> Result<JobId, Error> {
    let id = JobId::fresh();
    tx.sql()
        .prepare_cached(
            "INSERT INTO jobs (id, workflow_id, pipeline_id, project_id, position, name, kind, definition, requires, serial_group,
                status, resource_class, parallelism, messages, waits_for_lock, created_at_ms, task_kind, cannot_run_status,
                cannot_run_message)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, '[]', 0, ?14, ?15, ?16, ?17)",
        )?
        .execute(params![
            id,
            new.workflow,
            new.pipeline,
            new.project,
            new.position as i64,
            new.definition.name,
            JobType::from(&new.definition.kind),
            serde_json::to_string(new.definition)?,
            serde_json::to_string(&new.definition.requires)?,
            new.serial_key,
            new.status,
            new.resource_class,
            new.parallelism,
            new.created_at,
            Kind(new.task_kind),
            new.cannot_run.map(|end| end.status),
            new.cannot_run.map(|end| &end.message)
        ])?;
    Ok(id)
}

/// Stores a job of a rerun that keeps the result of its original.
pub fn insert_kept(tx: &Tx<'_>, of: &JobId, workflow: &WorkflowId, now: Millis) -> Result<JobId, Error> {
    let id = JobId::fresh();
    tx.sql()
        .prepare_cached(
            "INSERT INTO jobs (id, workflow_id, pipeline_id, project_id, position, name, kind, definition, requires,
                serial_group, resource_class, parallelism, waits_for_lock, created_at_ms,
                number, status, messages, reused_from, queued_at_ms, started_at_ms, stopped_at_ms, approved_by)
             SELECT ?2, ?3, pipeline_id, project_id, position, name, kind, definition, requires,
                serial_group, resource_class, parallelism, 0, ?4,
                number, status, messages, coalesce(reused_from, id), queued_at_ms, started_at_ms, stopped_at_ms, approved_by
             FROM jobs WHERE id = ?1",
        )?
        .execute(params![of, id, workflow, now])?;
    Ok(id)
}

/// Stores a job of a rerun that begins anew, with a status.
pub fn insert_again(
    tx: &Tx<'_>,
    of: &JobId,
    workflow: &WorkflowId,
    status: JobStatus,
    now: Millis,
) -> Result<JobId, Error> {
    let id = JobId::fresh();
    tx.sql()
        .prepare_cached(
            "INSERT INTO jobs (id, workflow_id, pipeline_id, project_id, position, name, kind, definition, requires,
                serial_group, resource_class, task_kind, cannot_run_status, cannot_run_message, parallelism, waits_for_lock,
                created_at_ms, status, messages)
             SELECT ?2, ?3, pipeline_id, project_id, position, name, kind, definition, requires,
                serial_group, resource_class, task_kind, cannot_run_status, cannot_run_message, parallelism, 0,
                ?4, ?5, '[]' FROM jobs WHERE id = ?1",
        )?
        .execute(params![of, id, workflow, now, status])?;
    Ok(id)
}

/// A job as a node of its workflow.
#[derive(Clone, Debug)]
pub struct NodeRow {
    /// Id of the job.
    pub id: JobId,
    /// Name of the job in the workflow.
    pub name: String,
    /// The kind of its node.
    pub kind: JobType,
    /// Status of the job.
    pub status: JobStatus,
    /// The jobs that it waits for.
    pub requires: Vec<Requirement>,
    /// Whether it is queued only because another job holds its key.
    pub waits_for_key: bool,
}

/// The jobs of a workflow, in their order.
pub fn nodes(view: &View, workflow: &WorkflowId) -> Result<Vec<NodeRow>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT id, name, kind, status, requires, waits_for_lock FROM jobs WHERE workflow_id = ?1 ORDER BY position",
    )?;
    let mut rows = query.query([workflow])?;
    let mut nodes = Vec::new();
    while let Some(row) = rows.next()? {
        nodes.push(NodeRow {
            id: row.get(0)?,
            name: row.get(1)?,
            kind: row.get(2)?,
            status: row.get(3)?,
            requires: row.get::<_, Json<_>>(4)?.0,
            waits_for_key: row.get(5)?,
        });
    }
    Ok(nodes)
}

/// The jobs of a workflow that have not ended, in their order.
pub fn unfinished(view: &View, workflow: &WorkflowId) -> Result<Vec<JobId>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT id FROM jobs WHERE workflow_id = ?1 AND stopped_at_ms IS NULL ORDER BY position",
    )?;
    let found = query.query_map([workflow], |row| row.get(0))?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// The workflow of a job, and whether the job has ended.
pub fn workflow_of(view: &View, job: &JobId) -> Result<Option<(WorkflowId, bool)>, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT workflow_id, stopped_at_ms IS NOT NULL FROM jobs WHERE id = ?1")?;
    Ok(query.query_row([job], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

/// The key of the serial group of a job; an error when there is no such job.
pub fn serial_key(view: &View, job: &JobId) -> Result<Option<String>, Error> {
    let mut query = view.sql().prepare_cached("SELECT serial_group FROM jobs WHERE id = ?1")?;
    Ok(query.query_row([job], |row| row.get(0))?)
}

/// A job, as far as it matters for the queue.
#[derive(Clone, Debug)]
pub struct ToQueue {
    /// The queue that its tasks go to.
    pub resource_class: String,
    /// The number of its tasks.
    pub parallelism: u32,
    /// Pipeline of the workflow of the job.
    pub pipeline: PipelineId,
    /// Project of the job.
    pub project: ProjectId,
    /// Whether there is a resource class of that name.
    pub is_class_known: bool,
    /// Whether it comes from a fork and the class is not for what strangers wrote.
    pub is_too_strange: bool,
    /// The kind of runner that its tasks are for.
    pub task_kind: TaskKind,
    /// Set when no runner may take it.
    pub cannot_run: Option<CannotRun>,
}

/// Reads a job that has steps; an error when there is no such job.
pub fn to_queue(view: &View, job: &JobId) -> Result<ToQueue, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT resource_class, parallelism, pipeline_id, project_id,
            EXISTS (SELECT 1 FROM resource_classes c WHERE c.name = jobs.resource_class),
            task_kind, cannot_run_status, cannot_run_message,
            EXISTS (SELECT 1 FROM pipelines p WHERE p.id = jobs.pipeline_id AND p.is_untrusted = 1) AND NOT EXISTS (
                SELECT 1 FROM resource_classes c WHERE c.name = jobs.resource_class AND c.takes_untrusted = 1)
         FROM jobs WHERE id = ?1",
    )?;
    Ok(query.query_row([job], |row| {
        Ok(ToQueue {
            is_too_strange: row.get(8)?,
            resource_class: row.get(0)?,
            parallelism: row.get(1)?,
            pipeline: row.get(2)?,
            project: row.get(3)?,
            is_class_known: row.get(4)?,
            task_kind: row.get::<_, Kind>(5)?.0,
            cannot_run: match row.get(6)? {
                Some(status) => Some(CannotRun { status, message: row.get(7)? }),
                None => None,
            },
        })
    })?)
}

/// Takes the next number of a job in the project.
pub fn take_number(tx: &Tx<'_>, project: &ProjectId) -> Result<i64, Error> {
    let mut update = tx.sql().prepare_cached(
        "UPDATE projects SET next_job_number = next_job_number + 1 WHERE id = ?1 RETURNING next_job_number - 1",
    )?;
    Ok(update.query_row([project], |row| row.get(0))?)
}

/// Gives a job with steps that ends before it was queued a number, by which people find why; it has waited until now. One
/// that has a number keeps it.
pub fn give_number(tx: &Tx<'_>, job: &JobId, now: Millis) -> Result<(), Error> {
    let mut query = tx
        .sql()
        .prepare_cached("SELECT project_id FROM jobs WHERE id = ?1 AND kind = ?2 AND number IS NULL")?;
    let project: Option<ProjectId> =
        query.query_row(params![job, JobType::Build], |row| row.get(0)).optional()?;
    let Some(project) = project else { return Ok(()) };
    let number = take_number(tx, &project)?;
    tx.sql()
        .prepare_cached(
            "UPDATE jobs SET number = ?2, queued_at_ms = coalesce(queued_at_ms, ?3) WHERE id = ?1",
        )?
        .execute(params![job, number, now])?;
    Ok(())
}

/// Gives a job its number and the time since when it waits for a runner.
pub fn set_queued(
    tx: &Tx<'_>,
    job: &JobId,
    number: i64,
    status: JobStatus,
    now: Millis,
) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("UPDATE jobs SET status = ?2, number = ?3, queued_at_ms = ?4 WHERE id = ?1")?
        .execute(params![job, status, number, now])?;
    Ok(())
}

/// Notes that a job waits for the key of its serial group.
pub fn set_waiting(tx: &Tx<'_>, job: &JobId, status: JobStatus, now: Millis) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("UPDATE jobs SET status = ?2, waits_for_lock = 1, queued_at_ms = ?3 WHERE id = ?1")?
        .execute(params![job, status, now])?;
    Ok(())
}

/// Notes that a job waits for its key no longer. Returns the kind of its node.
pub fn end_wait(tx: &Tx<'_>, job: &JobId) -> Result<JobType, Error> {
    let mut update =
        tx.sql().prepare_cached("UPDATE jobs SET waits_for_lock = 0 WHERE id = ?1 RETURNING kind")?;
    Ok(update.query_row([job], |row| row.get(0))?)
}

/// Sets the status of a job that has not ended; one that has stays as it is.
pub fn set_status(tx: &Tx<'_>, job: &JobId, status: JobStatus) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("UPDATE jobs SET status = ?2 WHERE id = ?1 AND stopped_at_ms IS NULL")?
        .execute(params![job, status])?;
    Ok(())
}

/// Sets the status that a job ends with. False when it has ended: the first end stays.
pub fn close(tx: &Tx<'_>, job: &JobId, status: JobStatus, now: Millis) -> Result<bool, Error> {
    let closed = tx
        .sql()
        .prepare_cached(
            "UPDATE jobs SET status = ?2, waits_for_lock = 0, stopped_at_ms = ?3 WHERE id = ?1 AND stopped_at_ms IS NULL",
        )?
        .execute(params![job, status, now])?;
    Ok(closed > 0)
}

/// The status of a job; an error when there is no such job.
pub fn status(view: &View, job: &JobId) -> Result<JobStatus, Error> {
    let mut query = view.sql().prepare_cached("SELECT status FROM jobs WHERE id = ?1")?;
    Ok(query.query_row([job], |row| row.get(0))?)
}

/// Notes who approved a job of a workflow, if it has a status. False when there is no such job.
pub fn approve(
    tx: &Tx<'_>,
    workflow: &WorkflowId,
    job: &JobId,
    while_in: JobStatus,
    by: Option<&UserId>,
) -> Result<bool, Error> {
    let found = tx
        .sql()
        .prepare_cached(
            "UPDATE jobs SET approved_by = ?3 WHERE id = ?2 AND workflow_id = ?1 AND status = ?4",
        )?
        .execute(params![workflow, job, by, while_in])?;
    Ok(found > 0)
}

/// The kind and the status of a job of a workflow.
pub fn kind_and_status(
    view: &View,
    workflow: &WorkflowId,
    job: &JobId,
) -> Result<Option<(JobType, JobStatus)>, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT kind, status FROM jobs WHERE id = ?2 AND workflow_id = ?1")?;
    Ok(query.query_row(params![workflow, job], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

/// Notes who asked to cancel a job.
pub fn set_canceled_by(tx: &Tx<'_>, job: &JobId, by: Option<&UserId>) -> Result<(), Error> {
    tx.sql().prepare_cached("UPDATE jobs SET canceled_by = ?2 WHERE id = ?1")?.execute(params![job, by])?;
    Ok(())
}

/// Adds a message that people see with the job.
pub fn add_message(tx: &Tx<'_>, job: &JobId, kind: MessageKind, message: &str) -> Result<(), Error> {
    let entry = serde_json::json!({ "type": kind, "message": message }).to_string();
    tx.sql()
        .prepare_cached("UPDATE jobs SET messages = json_insert(messages, '$[#]', json(?2)) WHERE id = ?1")?
        .execute(params![job, entry])?;
    Ok(())
}

/// Adds a message that people see with the job, unless it is there already. False when it is.
pub fn add_message_once(tx: &Tx<'_>, job: &JobId, kind: MessageKind, message: &str) -> Result<bool, Error> {
    // The list has the message as a JSON string.
    let text = serde_json::to_string(message)?;
    let mut query =
        tx.sql().prepare_cached("SELECT 1 FROM jobs WHERE id = ?1 AND instr(messages, ?2) > 0")?;
    if query.exists(params![job, text])? {
        return Ok(false);
    }
    add_message(tx, job, kind, message).map(|()| true)
}

/// Reads the names of a job beside its own; none when there is no such job.
pub fn other_names(view: &View, job: &JobId) -> Result<OtherNames, Error> {
    let mut query = view.sql().prepare_cached("SELECT definition FROM jobs WHERE id = ?1")?;
    let names = query.query_row([job], |row| row.get::<_, Json<_>>(0)).optional()?;
    Ok(names.map(|Json(names)| names).unwrap_or_default())
}

/// The job of a task as it was compiled, and its project; an error when there is no such task.
pub fn definition_of_task(view: &View, task: &TaskId) -> Result<(ProjectId, WorkflowJob), Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT t.project_id, j.definition FROM tasks t JOIN jobs j ON j.id = t.job_id WHERE t.id = ?1",
    )?;
    Ok(query.query_row([task], |row| Ok((row.get(0)?, row.get::<_, Json<_>>(1)?.0)))?)
}
