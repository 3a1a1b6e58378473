//! Jobs, as the API and the pages show them.
//!
//! A job of a rerun that keeps an earlier result has that job's number; its tasks, artifacts and tests
//! are those of [`Job::ran_as`].
//!
//! Only SQLite: `->` for the contexts and the executor inside a definition, `json_each` for the list of statuses (elsewhere an array parameter).

use crate::config::{ExecutorKind, Requirement};
use crate::server::ids::{JobId, PipelineId, ProjectId, UserId, WorkflowId, WorkspaceId};
use crate::server::store::json::{Json, Message};
use crate::server::store::read::project::{PROJECT, ProjectRef};
use crate::server::store::status::{JobStatus, JobType, TaskState};
use crate::server::store::{Error, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, Row, params};

/// Job of a workflow, as the API and the pages show it.
#[derive(Clone, Debug)]
pub struct Job {
    /// Identifies it in URLs.
    pub id: JobId,
    /// Name as expanded in its workflow.
    pub name: String,
    /// Whether it runs steps, waits for a person, ...
    pub kind: JobType,
    /// Status as every API shows it.
    pub status: JobStatus,
    /// Number in the project, once it was queued.
    pub number: Option<i64>,
    /// The workflow that it is part of.
    pub workflow_id: WorkflowId,
    /// Name of the workflow in the config.
    pub workflow_name: String,
    /// The workspace that it shares.
    pub workspace_id: WorkspaceId,
    /// The pipeline that it is part of.
    pub pipeline_id: PipelineId,
    /// The project that it belongs to.
    pub project: ProjectRef,
    /// Name of the class in whose queue its tasks wait.
    pub resource_class: Option<String>,
    /// Kind of what its steps run in; `None`: it has no steps.
    pub executor: Option<ExecutorKind>,
    /// Number of tasks.
    pub parallelism: u32,
    /// Sentences for people about how it went.
    pub messages: Vec<Message>,
    /// Jobs that it waits for.
    pub requires: Vec<Requirement>,
    /// Names of contexts in the order of the config.
    pub contexts: Vec<String>,
    /// Time at which its workflow was made.
    pub created_at: Millis,
    /// Time at which it was queued.
    pub queued_at: Option<Millis>,
    /// Time at which a runner began.
    pub started_at: Option<Millis>,
    /// Time at which it ended.
    pub stopped_at: Option<Millis>,
    /// The person who cancelled it.
    pub canceled_by: Option<UserId>,
    /// The person who approved it.
    pub approved_by: Option<UserId>,
    /// The job whose tasks hold the result: itself, unless it was kept from an earlier workflow.
    pub ran_as: JobId,
    /// Whether a task of it ran out of time.
    pub ran_out_of_time: bool,
}

/// A query of jobs; ?1 is the status of a task that ran out of time.
fn query(rest: &str) -> String {
    format!(
        "SELECT j.id, j.name, j.kind, j.status, j.number, j.workflow_id, w.name, w.workspace_id, j.pipeline_id,
            j.resource_class, j.parallelism, j.messages, j.requires, j.definition -> '$.contexts', j.created_at_ms,
            j.queued_at_ms, j.started_at_ms, j.stopped_at_ms, j.canceled_by, j.approved_by, coalesce(j.reused_from, j.id),
            EXISTS (SELECT 1 FROM tasks t WHERE t.job_id = coalesce(j.reused_from, j.id) AND t.status = ?1),
            j.definition -> '$.kind.executor.type', {PROJECT}
         FROM jobs j JOIN workflows w ON w.id = j.workflow_id JOIN projects r ON r.id = j.project_id {rest}"
    )
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Job> {
    Ok(Job {
        id: row.get(0)?,
        name: row.get(1)?,
        kind: row.get(2)?,
        status: row.get(3)?,
        number: row.get(4)?,
        workflow_id: row.get(5)?,
        workflow_name: row.get(6)?,
        workspace_id: row.get(7)?,
        pipeline_id: row.get(8)?,
        resource_class: row.get(9)?,
        parallelism: row.get(10)?,
        messages: row.get::<_, Json<_>>(11)?.0,
        requires: row.get::<_, Json<_>>(12)?.0,
        // A definition without them is of a job that has none.
        contexts: row.get::<_, Option<Json<_>>>(13)?.map_or_else(Vec::new, |contexts| contexts.0),
        created_at: row.get(14)?,
        queued_at: row.get(15)?,
        started_at: row.get(16)?,
        stopped_at: row.get(17)?,
        canceled_by: row.get(18)?,
        approved_by: row.get(19)?,
        ran_as: row.get(20)?,
        ran_out_of_time: row.get(21)?,
        executor: row.get::<_, Option<Json<_>>>(22)?.map(|kind| kind.0),
        project: ProjectRef::from_row(row, 23)?,
    })
}

/// Finds a job by its id.
pub fn job(view: &View, id: &JobId) -> Result<Option<Job>, Error> {
    let mut query = view.sql().prepare_cached(&query("WHERE j.id = ?2"))?;
    Ok(query.query_row(params![TaskState::Timedout, id], from_row).optional()?)
}

/// Finds the job that ran under a number of a project.
pub fn job_by_number(view: &View, project: &ProjectId, number: i64) -> Result<Option<Job>, Error> {
    let sql = query("WHERE j.project_id = ?2 AND j.number = ?3 AND j.reused_from IS NULL");
    let mut query = view.sql().prepare_cached(&sql)?;
    Ok(query.query_row(params![TaskState::Timedout, project, number], from_row).optional()?)
}

/// Reads the jobs of a workflow, in the order of the config.
pub fn jobs_of(view: &View, workflow: &WorkflowId) -> Result<Vec<Job>, Error> {
    let mut query = view.sql().prepare_cached(&query("WHERE j.workflow_id = ?2 ORDER BY j.position"))?;
    let rows = query.query_map(params![TaskState::Timedout, workflow], from_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Which jobs that were queued; what is absent does not matter.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    /// Only jobs of this project.
    pub project: Option<ProjectId>,
    /// Branch of their pipelines.
    pub branch: Option<String>,
    /// Only jobs with one of these statuses.
    pub statuses: Option<Vec<JobStatus>>,
    /// Whether only those count that left artifacts.
    pub with_artifacts: bool,
}

/// Reads jobs that were queued, newest first: at most `limit`, after the first `offset`.
pub fn recent_jobs(view: &View, wanted: &Recent, offset: u32, limit: u32) -> Result<Vec<Job>, Error> {
    // Numbers are given in the order of the queue, and those of a project have an index.
    let (of_project, order) = match wanted.project {
        Some(_) => ("j.project_id = ?2", "j.number DESC"),
        None => ("?2 IS NULL", "j.queued_at_ms DESC, j.number DESC"),
    };
    let sql = query(&format!(
        "JOIN pipelines p ON p.id = j.pipeline_id
         WHERE {of_project} AND j.number IS NOT NULL AND j.reused_from IS NULL AND (?3 IS NULL OR p.branch = ?3)
            AND (?6 IS NULL OR j.status IN (SELECT value FROM json_each(?6)))
            AND (NOT ?7 OR EXISTS (SELECT 1 FROM artifacts a WHERE a.job_id = j.id))
         ORDER BY {order} LIMIT ?4 OFFSET ?5",
    ));
    let statuses = wanted.statuses.as_ref().map(serde_json::to_string).transpose()?;
    let mut query = view.sql().prepare_cached(&sql)?;
    let given = params![
        TaskState::Timedout,
        wanted.project,
        wanted.branch,
        limit,
        offset,
        statuses,
        wanted.with_artifacts
    ];
    Ok(query.query_map(given, from_row)?.collect::<Result<_, _>>()?)
}
