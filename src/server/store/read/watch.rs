//! A pipeline as its watchers see it at one moment.
//!
//! Only SQLite: `json_extract` for a job's last message; truth values are integers, with 0 where there is none.

use crate::protocol::TaskId;
use crate::server::ids::{JobId, PipelineId, WorkflowId};
use crate::server::store::read::output::{EXTENT, Extent};
use crate::server::store::status::{JobStatus, MessageKind, StepState, TaskState, WorkflowStatus};
use crate::server::store::{Error, View};
use crate::server::time::Millis;
use rusqlite::{Row, params};

/// A pipeline as a watcher is told of it, but for output.
#[derive(Clone, Debug)]
pub struct Present {
    /// Workflows in the order in which they were made.
    pub workflows: Vec<WatchedWorkflow>,
    /// Jobs in the order of their workflows and of the config.
    pub jobs: Vec<WatchedJob>,
    /// Steps of the newest attempts, by task and time: when a background step ended, when another began.
    pub steps: Vec<WatchedStep>,
}

/// Workflow of a watched pipeline.
#[derive(Clone, Debug)]
pub struct WatchedWorkflow {
    /// Id that events name the workflow by.
    pub id: WorkflowId,
    /// Name in the config.
    pub name: String,
    /// Status at the moment of the look.
    pub status: WorkflowStatus,
    /// Time at which it came to rest.
    pub stopped_at: Option<Millis>,
    /// The workflow that it runs again.
    pub rerun_of: Option<WorkflowId>,
}

/// Job of a watched workflow.
#[derive(Clone, Debug)]
pub struct WatchedJob {
    /// Id that events name the job by.
    pub id: JobId,
    /// The workflow that it is part of.
    pub workflow_id: WorkflowId,
    /// Name as expanded in its workflow.
    pub name: String,
    /// Status at the moment of the look.
    pub status: JobStatus,
    /// Number of parallel nodes.
    pub parallelism: u32,
    /// Time at which a runner began.
    pub started_at: Option<Millis>,
    /// Time at which it ended.
    pub stopped_at: Option<Millis>,
    /// The last sentence about how it went.
    pub message: Option<String>,
    /// How that sentence is meant.
    pub message_kind: Option<MessageKind>,
    /// Whether it was to be queued, and ended because no runner may take it.
    pub cannot_run: bool,
}

/// A step record.
#[derive(Clone, Debug)]
pub struct WatchedStep {
    /// The task that has it.
    pub task: TaskId,
    /// The job of the task.
    pub job_id: JobId,
    /// Parallel node, from 0.
    pub node_index: u32,
    /// Number of the record.
    pub step: u32,
    /// Title of the step.
    pub name: String,
    /// `run`, `checkout`, ...
    pub kind: String,
    /// Status at the moment of the look.
    pub status: StepState,
    /// Exit code of the command.
    pub exit_code: Option<i32>,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Whether it runs beside later steps.
    pub background: bool,
    /// Time at which it began.
    pub started_at: Millis,
    /// Time at which it ended.
    pub ended_at: Option<Millis>,
    /// Reason of its end.
    pub message: Option<String>,
    /// The amount of output that there will be.
    pub extent: Extent,
}

/// Reads what there is of a pipeline.
pub fn present(view: &View, pipeline: &PipelineId) -> Result<Present, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT id, name, status, stopped_at_ms, rerun_of FROM workflows WHERE pipeline_id = ?1 ORDER BY position",
    )?;
    let workflows = query.query_map([pipeline], workflow)?.collect::<Result<_, _>>()?;
    let mut query = view.sql().prepare_cached(
        "SELECT j.id, j.workflow_id, j.name, j.status, j.started_at_ms, j.stopped_at_ms,
            json_extract(j.messages, '$[#-1].message'), 
            coalesce(j.status = j.cannot_run_status AND json_extract(j.messages, '$[#-1].message') = j.cannot_run_message, 0),
            j.parallelism, json_extract(j.messages, '$[#-1].type')
         FROM jobs j JOIN workflows w ON w.id = j.workflow_id WHERE j.pipeline_id = ?1 ORDER BY w.position, j.position",
    )?;
    let jobs = query.query_map([pipeline], job)?.collect::<Result<_, _>>()?;
    let mut query = view.sql().prepare_cached(&format!(
        "SELECT t.id, t.job_id, t.node_index, s.step, s.name, s.kind, s.status, s.exit_code, s.attempt, s.background,
            s.started_at_ms, s.ended_at_ms, s.message, {EXTENT}
         FROM steps s JOIN tasks t ON t.id = s.task_id WHERE t.pipeline_id = ?1 AND t.status <> ?2
         ORDER BY t.seq, CASE WHEN s.background AND s.ended_at_ms IS NOT NULL THEN s.ended_at_ms ELSE s.started_at_ms END, s.step",
    ))?;
    let steps = query.query_map(params![pipeline, TaskState::Retried], step)?.collect::<Result<_, _>>()?;
    Ok(Present { workflows, jobs, steps })
}

fn workflow(row: &Row<'_>) -> rusqlite::Result<WatchedWorkflow> {
    Ok(WatchedWorkflow {
        id: row.get(0)?,
        name: row.get(1)?,
        status: row.get(2)?,
        stopped_at: row.get(3)?,
        rerun_of: row.get(4)?,
    })
}

fn job(row: &Row<'_>) -> rusqlite::Result<WatchedJob> {
    Ok(WatchedJob {
        id: row.get(0)?,
        workflow_id: row.get(1)?,
        name: row.get(2)?,
        status: row.get(3)?,
        started_at: row.get(4)?,
        stopped_at: row.get(5)?,
        message: row.get(6)?,
        cannot_run: row.get(7)?,
        parallelism: row.get(8)?,
        message_kind: row.get(9)?,
    })
}

fn step(row: &Row<'_>) -> rusqlite::Result<WatchedStep> {
    Ok(WatchedStep {
        task: row.get(0)?,
        job_id: row.get(1)?,
        node_index: row.get(2)?,
        step: row.get(3)?,
        name: row.get(4)?,
        kind: row.get(5)?,
        status: row.get(6)?,
        exit_code: row.get(7)?,
        attempt: row.get(8)?,
        background: row.get(9)?,
        started_at: row.get(10)?,
        ended_at: row.get(11)?,
        message: row.get(12)?,
        extent: Extent::from_row(row, 13)?,
    })
}
