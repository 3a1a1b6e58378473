//! Jobs, the attempts and steps of their tasks, and what they left.
//!
//! A job of a rerun that keeps an earlier result has that job's number; its tasks, artifacts and tests
//! are those of [`Job::ran_as`].

use crate::server::store::Error;
use crate::server::store::View;
use crate::server::store::read::{PROJECT, ProjectRef};
use crate::server::store::status::{JobStatus, JobType, StepState, TaskState};
use rusqlite::{OptionalExtension, Row, params};

/// A job.
#[derive(Clone, Debug)]
pub struct Job {
    /// UUID.
    pub id: String,
    /// As expanded in its workflow.
    pub name: String,
    /// What it is.
    pub kind: JobType,
    /// Where it stands.
    pub status: JobStatus,
    /// Number in the project, once it was queued.
    pub number: Option<i64>,
    /// UUID.
    pub workflow_id: String,
    /// From the config.
    pub workflow_name: String,
    /// UUID.
    pub workspace_id: String,
    /// UUID.
    pub pipeline_id: String,
    /// Whose it is.
    pub project: ProjectRef,
    /// The queue of its tasks.
    pub resource_class: Option<String>,
    /// Number of tasks.
    pub parallelism: u32,
    /// JSON `[{"type","message"}]`.
    pub messages: String,
    /// JSON `[{"job","statuses"}]`.
    pub requires: String,
    /// JSON list of names.
    pub contexts: String,
    /// When its workflow was made.
    pub created_at_ms: i64,
    /// When it was queued.
    pub queued_at_ms: Option<i64>,
    /// When a runner began.
    pub started_at_ms: Option<i64>,
    /// When it ended.
    pub stopped_at_ms: Option<i64>,
    /// UUID.
    pub canceled_by: Option<String>,
    /// UUID.
    pub approved_by: Option<String>,
    /// The job whose tasks hold the result: itself, unless it was kept from an earlier workflow.
    pub ran_as: String,
    /// Whether a task of it ran out of time.
    pub ran_out_of_time: bool,
}

fn query(rest: &str) -> String {
    format!(
        "SELECT j.id, j.name, j.kind, j.status, j.number, j.workflow_id, w.name, w.workspace_id, j.pipeline_id,
            j.resource_class, j.parallelism, j.messages, j.requires, j.definition -> '$.contexts', j.created_at_ms,
            j.queued_at_ms, j.started_at_ms, j.stopped_at_ms, j.canceled_by, j.approved_by, coalesce(j.reused_from, j.id),
            EXISTS (SELECT 1 FROM tasks t WHERE t.job_id = coalesce(j.reused_from, j.id) AND t.status = 'timedout'),
            {PROJECT}
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
        messages: row.get(11)?,
        requires: row.get(12)?,
        contexts: row.get::<_, Option<String>>(13)?.unwrap_or_else(|| "[]".to_owned()),
        created_at_ms: row.get(14)?,
        queued_at_ms: row.get(15)?,
        started_at_ms: row.get(16)?,
        stopped_at_ms: row.get(17)?,
        canceled_by: row.get(18)?,
        approved_by: row.get(19)?,
        ran_as: row.get(20)?,
        ran_out_of_time: row.get(21)?,
        project: ProjectRef::from_row(row, 22)?,
    })
}

/// A job by its id.
pub fn job(c: &View, id: &str) -> Result<Option<Job>, Error> {
    Ok(c.prepare_cached(&query("WHERE j.id = ?1"))?.query_row([id], from_row).optional()?)
}

/// The job that ran under a number of a project.
pub fn job_by_number(c: &View, project: &str, number: i64) -> Result<Option<Job>, Error> {
    let sql = query("WHERE j.project_id = ?1 AND j.number = ?2 AND j.reused_from IS NULL");
    Ok(c.prepare_cached(&sql)?.query_row(params![project, number], from_row).optional()?)
}

/// The jobs of a workflow, in the order of the config.
pub fn jobs_of(c: &View, workflow: &str) -> Result<Vec<Job>, Error> {
    let mut query = c.prepare_cached(&query("WHERE j.workflow_id = ?1 ORDER BY j.position"))?;
    Ok(query.query_map([workflow], from_row)?.collect::<Result<_, _>>()?)
}

/// Jobs that were queued, newest first; of one project, and of one branch, where those are given.
pub fn recent_jobs(
    c: &View,
    project: Option<&str>,
    branch: Option<&str>,
    offset: u32,
    limit: u32,
) -> Result<Vec<Job>, Error> {
    let sql = query(
        "JOIN pipelines p ON p.id = j.pipeline_id
         WHERE j.number IS NOT NULL AND j.reused_from IS NULL AND (?1 IS NULL OR j.project_id = ?1)
            AND (?2 IS NULL OR p.branch = ?2)
         ORDER BY j.queued_at_ms DESC, j.number DESC LIMIT ?3 OFFSET ?4",
    );
    let mut query = c.prepare_cached(&sql)?;
    Ok(query.query_map(params![project, branch, limit, offset], from_row)?.collect::<Result<_, _>>()?)
}

/// The newest attempt of one parallel node.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// UUID of the task.
    pub task: String,
    /// Parallel node, from 0.
    pub node_index: u32,
    /// Where it stands.
    pub status: TaskState,
    /// Its steps, in order.
    pub steps: Vec<StepRow>,
}

/// One step record.
#[derive(Clone, Debug)]
pub struct StepRow {
    /// Number of the record.
    pub step: u32,
    /// Position in the job's steps.
    pub step_index: Option<u32>,
    /// Title.
    pub name: String,
    /// `run`, `checkout`, ...
    pub kind: String,
    /// Of `run`.
    pub command: Option<String>,
    /// Where it stands.
    pub status: StepState,
    /// Of the command.
    pub exit_code: Option<i32>,
    /// Why it ended so.
    pub message: Option<String>,
    /// Runs beside later steps.
    pub background: bool,
    /// From 1.
    pub attempt: u32,
    /// Further attempts that the config allows.
    pub max_auto_reruns: u32,
    /// When it began.
    pub started_at_ms: i64,
    /// When it ended.
    pub ended_at_ms: Option<i64>,
}

/// The newest attempts of the tasks of a job, by node. `ran_as` is [`Job::ran_as`].
pub fn attempts(c: &View, ran_as: &str) -> Result<Vec<Attempt>, Error> {
    let mut query = c.prepare_cached(
        "SELECT id, node_index, status FROM tasks WHERE job_id = ?1 AND status <> 'retried' ORDER BY node_index",
    )?;
    let tasks = query.query_map([ran_as], |row| {
        Ok(Attempt { task: row.get(0)?, node_index: row.get(1)?, status: row.get(2)?, steps: Vec::new() })
    })?;
    let mut attempts = tasks.collect::<Result<Vec<_>, _>>()?;
    let mut query = c.prepare_cached(
        "SELECT step, step_index, name, kind, command, status, exit_code, message, background, attempt,
            max_auto_reruns, started_at_ms, ended_at_ms FROM steps WHERE task_id = ?1 ORDER BY step",
    )?;
    for attempt in &mut attempts {
        let steps = query.query_map([&attempt.task], |row| {
            Ok(StepRow {
                step: row.get(0)?,
                step_index: row.get(1)?,
                name: row.get(2)?,
                kind: row.get(3)?,
                command: row.get(4)?,
                status: row.get(5)?,
                exit_code: row.get(6)?,
                message: row.get(7)?,
                background: row.get(8)?,
                attempt: row.get(9)?,
                max_auto_reruns: row.get(10)?,
                started_at_ms: row.get(11)?,
                ended_at_ms: row.get(12)?,
            })
        })?;
        attempt.steps = steps.collect::<Result<_, _>>()?;
    }
    Ok(attempts)
}

/// An artifact.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// UUID.
    pub id: String,
    /// Name that the job gave it.
    pub path: String,
    /// Parallel node.
    pub node_index: u32,
    /// Bytes.
    pub length: u64,
}

/// The artifacts of a job. `ran_as` is [`Job::ran_as`].
pub fn artifacts(c: &View, ran_as: &str) -> Result<Vec<Artifact>, Error> {
    let mut query = c.prepare_cached(
        "SELECT id, path, node_index, length FROM artifacts WHERE job_id = ?1 ORDER BY node_index, path",
    )?;
    let rows = query.query_map([ran_as], |row| {
        Ok(Artifact { id: row.get(0)?, path: row.get(1)?, node_index: row.get(2)?, length: row.get(3)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// One test.
#[derive(Clone, Debug)]
pub struct Test {
    /// Name.
    pub name: String,
    /// Class, or what stands for it.
    pub classname: String,
    /// Source file.
    pub file: Option<String>,
    /// Name of the suite or tool.
    pub source: String,
    /// `success`, `failure`, `skipped`.
    pub result: String,
    /// Seconds.
    pub run_time: f64,
    /// Why it failed.
    pub message: String,
}

/// The tests of a job. `ran_as` is [`Job::ran_as`].
pub fn tests(c: &View, ran_as: &str) -> Result<Vec<Test>, Error> {
    let mut query = c.prepare_cached(
        "SELECT name, classname, file, source, result, run_time, message FROM test_results WHERE job_id = ?1 ORDER BY id",
    )?;
    let rows = query.query_map([ran_as], |row| {
        Ok(Test {
            name: row.get(0)?,
            classname: row.get(1)?,
            file: row.get(2)?,
            source: row.get(3)?,
            result: row.get(4)?,
            run_time: row.get(5)?,
            message: row.get(6)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
