//! Runners and classes as their operators see them: what a runner is at, whether it or its class is kept from getting
//! tasks, and how long tasks may wait for one.
//!
//! Only SQLite: `INDEXED BY`, without which it looks at all that runs; flags are integers.

use crate::protocol::TaskId;
use crate::server::ids::{JobId, ResourceClassId};
use crate::server::store::status::TaskState;
use crate::server::store::tables::instances::ONLINE;
use crate::server::store::tables::tasks::{self, TaskRow};
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, params};
use std::time::Duration;

/// Most tasks of a class in one pass that have waited too long.
const MOST: usize = 500;

/// A class, as far as its operator decides and its queue goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Whether its runners get no tasks.
    pub is_paused: bool,
    /// Longest time that a task may wait, in milliseconds.
    pub wait_limit_ms: Option<u64>,
    /// How long a task may take from its claim to its begin, where it is not as usual, in milliseconds.
    pub begin_limit_ms: Option<u64>,
    /// Tasks that wait.
    pub waiting: u64,
    /// Time at which the oldest of them entered the queue.
    pub oldest: Option<Millis>,
    /// Runners that asked lately.
    pub online: u64,
}

/// A runner, as far as its operator decides and its task goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerAtWork {
    /// Whether the runner gets no tasks.
    pub is_paused: bool,
    /// The task that the runner has now.
    pub task: Option<TaskAtWork>,
}

/// A task that a runner has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskAtWork {
    /// Identifies the task.
    pub id: TaskId,
    /// Job that it is an attempt at.
    pub job: JobId,
    /// Name of the job.
    pub job_name: String,
}

/// Reads a class.
pub fn fleet(view: &View, id: &ResourceClassId, now: Millis) -> Result<Fleet, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT c.is_paused, c.wait_limit_ms,
            (SELECT count(*) FROM tasks t WHERE t.resource_class = c.name AND t.status = ?2),
            (SELECT min(t.queued_at_ms) FROM tasks t WHERE t.resource_class = c.name AND t.status = ?2),
            (SELECT count(*) FROM runner_instances i WHERE i.resource_class_id = c.id AND i.last_connected_ms > ?3),
            c.begin_limit_ms
         FROM resource_classes c WHERE c.id = ?1",
    )?;
    let found = query.query_row(params![id, TaskState::Queued, now.minus(ONLINE)], |row| {
        Ok(Fleet {
            is_paused: row.get(0)?,
            wait_limit_ms: row.get(1)?,
            waiting: row.get(2)?,
            oldest: row.get(3)?,
            online: row.get(4)?,
            begin_limit_ms: row.get(5)?,
        })
    });
    Ok(found.optional()?.unwrap_or_default())
}

/// Reads what a runner is at.
pub fn at_work(view: &View, class: &str, name: &str) -> Result<RunnerAtWork, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT i.is_paused FROM runner_instances i JOIN resource_classes c ON c.id = i.resource_class_id
         WHERE c.name = ?1 AND i.name = ?2",
    )?;
    let is_paused = query.query_row([class, name], |row| row.get(0)).optional()?.unwrap_or(false);
    let mut query = view.sql().prepare_cached(
        "SELECT t.id, t.job_id, j.name FROM tasks t INDEXED BY tasks_by_runner JOIN jobs j ON j.id = t.job_id
         WHERE t.resource_class = ?1 AND t.runner_name = ?2 AND t.status IN (?3, ?4, ?5) AND t.stopped_at_ms IS NULL
         LIMIT 1",
    )?;
    let [claimed, running, unreachable] = TaskState::HELD_BY_A_RUNNER;
    let task = query.query_row(params![class, name, claimed, running, unreachable], |row| {
        Ok(TaskAtWork { id: row.get(0)?, job: row.get(1)?, job_name: row.get(2)? })
    });
    Ok(RunnerAtWork { is_paused, task: task.optional()? })
}

/// Whether a runner gets no tasks now, of its own or with its class.
pub fn is_paused(view: &View, class: &ResourceClassId, name: &str) -> Result<bool, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT 1 FROM resource_classes WHERE id = ?1 AND is_paused
         UNION ALL SELECT 1 FROM runner_instances WHERE resource_class_id = ?1 AND name = ?2 AND is_paused",
    )?;
    Ok(query.exists(params![class, name])?)
}

/// Pauses a class or lets it go on. False where that changes nothing.
pub fn pause_class(tx: &Tx<'_>, id: &ResourceClassId, is_paused: bool) -> Result<bool, Error> {
    let changed = tx.sql().execute(
        "UPDATE resource_classes SET is_paused = ?2 WHERE id = ?1 AND is_paused <> ?2",
        params![id, is_paused],
    )?;
    Ok(changed > 0)
}

/// Pauses a runner or lets it go on. False when there is no such runner.
pub fn pause_runner(tx: &Tx<'_>, class: &str, name: &str, is_paused: bool) -> Result<bool, Error> {
    let changed = tx.sql().execute(
        "UPDATE runner_instances SET is_paused = ?3 WHERE name = ?2
            AND resource_class_id = (SELECT id FROM resource_classes WHERE name = ?1)",
        params![class, name, is_paused],
    )?;
    Ok(changed > 0)
}

/// Sets how long a task of a class may wait. True where it might wait for ever until now.
pub fn set_wait_limit(tx: &Tx<'_>, id: &ResourceClassId, limit: Option<Duration>) -> Result<bool, Error> {
    let limit = limit.map(|limit| limit.as_millis() as u64);
    let mut query =
        tx.sql().prepare_cached("SELECT 1 FROM resource_classes WHERE id = ?1 AND wait_limit_ms IS NULL")?;
    let had_none = query.exists([id])?;
    tx.sql().execute("UPDATE resource_classes SET wait_limit_ms = ?2 WHERE id = ?1", params![id, limit])?;
    Ok(had_none && limit.is_some())
}

/// A task that may have waited too long, and the limit of its class.
#[derive(Clone, Debug)]
pub struct WaitingTask {
    /// Row of the task.
    pub row: TaskRow,
    /// Longest time that a task of the class may wait.
    pub limit: Duration,
    /// Runners of the class get no tasks.
    pub is_class_paused: bool,
}

/// Tasks for which the limit of their class on waiting is over, oldest first; not all at once.
pub fn overdue(view: &View, now: Millis) -> Result<Vec<WaitingTask>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT name, wait_limit_ms, is_paused FROM resource_classes WHERE wait_limit_ms IS NOT NULL AND NOT is_paused",
    )?;
    let limits = query.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, Duration::from_millis(row.get(1)?), row.get::<_, bool>(2)?))
    })?;
    let mut found = Vec::new();
    for class in limits {
        let (class, limit, is_class_paused) = class?;
        let late = tasks::waiting_since_before(view, &class, now.minus(limit), MOST)?;
        found.extend(late.into_iter().map(|row| WaitingTask { row, limit, is_class_paused }));
    }
    Ok(found)
}
