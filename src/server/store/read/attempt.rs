//! The newest attempts of a job's tasks, and their steps.
//!
//! Only SQLite: nothing.

use crate::protocol::{FIRST_BESIDE, TaskId};
use crate::server::ids::JobId;
use crate::server::store::status::{StepState, TaskState};
use crate::server::store::{Error, View};
use crate::server::time::Millis;
use rusqlite::{Row, params};

/// The newest attempt of one parallel node.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The task that it is.
    pub task: TaskId,
    /// Parallel node, from 0.
    pub node_index: u32,
    /// Status of the attempt.
    pub status: TaskState,
    /// Whether the output of its steps was too old and has been removed.
    pub is_output_gone: bool,
    /// Steps of the attempt, in order.
    pub steps: Vec<StepRow>,
}

/// A step record.
#[derive(Clone, Debug)]
pub struct StepRow {
    /// Number of the record.
    pub step: u32,
    /// Position in the job's steps.
    pub step_index: Option<u32>,
    /// Title of the step.
    pub name: String,
    /// `run`, `checkout`, ...
    pub kind: String,
    /// Command of a `run` step.
    pub command: Option<String>,
    /// Status of the step: running, or how it ended.
    pub status: StepState,
    /// Exit code of the command.
    pub exit_code: Option<i32>,
    /// Reason of its end.
    pub message: Option<String>,
    /// Length of its output, once its runner has told it.
    pub output_bytes: Option<u64>,
    /// Whether it runs beside later steps.
    pub background: bool,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Further attempts that the config allows.
    pub max_auto_reruns: u32,
    /// Time at which it began.
    pub started_at: Millis,
    /// Time at which it ended.
    pub ended_at: Option<Millis>,
}

fn step(row: &Row<'_>) -> rusqlite::Result<StepRow> {
    Ok(StepRow {
        step: row.get(0)?,
        step_index: row.get(1)?,
        name: row.get(2)?,
        kind: row.get(3)?,
        command: row.get(4)?,
        status: row.get(5)?,
        exit_code: row.get(6)?,
        message: row.get(7)?,
        output_bytes: row.get(8)?,
        background: row.get(9)?,
        attempt: row.get(10)?,
        max_auto_reruns: row.get(11)?,
        started_at: row.get(12)?,
        ended_at: row.get(13)?,
    })
}

/// Reads the newest attempts of the tasks of a job, by node. `ran_as` is that of [`Job`](super::Job).
pub fn attempts(view: &View, ran_as: &JobId) -> Result<Vec<Attempt>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT id, node_index, status, output_gone_at_ms IS NOT NULL FROM tasks
         WHERE job_id = ?1 AND status <> ?2 ORDER BY node_index",
    )?;
    let tasks = query.query_map(params![ran_as, TaskState::Retried], |row| {
        Ok(Attempt {
            task: row.get(0)?,
            node_index: row.get(1)?,
            status: row.get(2)?,
            is_output_gone: row.get(3)?,
            steps: Vec::new(),
        })
    })?;
    let mut attempts = tasks.collect::<Result<Vec<_>, _>>()?;
    let mut query = view.sql().prepare_cached(
        "SELECT step, step_index, name, kind, command, status, exit_code, message, output_bytes, background, attempt,
            max_auto_reruns, started_at_ms, ended_at_ms FROM steps WHERE task_id = ?1 ORDER BY step < ?2, step",
    )?;
    for attempt in &mut attempts {
        attempt.steps =
            query.query_map(params![attempt.task, FIRST_BESIDE], step)?.collect::<Result<_, _>>()?;
    }
    Ok(attempts)
}
