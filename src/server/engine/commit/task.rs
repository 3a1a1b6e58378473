//! A claimed task: begins, ends, is lost, goes back to its queue.

use crate::protocol::TaskId;
use crate::server::engine::commit::advance::settle;
use crate::server::engine::commit::job::{end_job, say, set_status};
use crate::server::engine::commit::ripple::Ripple;
use crate::server::engine::graph;
use crate::server::ids::{JobId, WorkflowId};
use crate::server::store::status::{JobStatus, MessageKind, TaskState};
use crate::server::store::{Effect, Error, Tx, new_id};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, params};

/// A task has begun: so has its job.
pub fn task_started(tx: &Tx<'_>, task: &TaskId, now: u64) -> Result<(), Error> {
    tx.prepare_cached(
        "UPDATE jobs SET status = ?2, started_at_ms = coalesce(started_at_ms, ?3)
         WHERE id = (SELECT job_id FROM tasks WHERE id = ?1) AND stopped_at_ms IS NULL",
    )?
    .execute(params![task.as_str(), JobStatus::Running, now as i64])?;
    Ok(())
}

/// Ends a task and everything that follows from it. Harmless when it has ended already.
pub fn end_task(
    tx: &Tx<'_>,
    task: &TaskId,
    state: TaskState,
    message: Option<&str>,
    now: u64,
) -> Result<(), Error> {
    let changed = tx
        .prepare_cached(
            "UPDATE tasks SET status = ?2, message = coalesce(?3, message), stopped_at_ms = ?4
             WHERE id = ?1 AND stopped_at_ms IS NULL",
        )?
        .execute(params![task.as_str(), state, message, now as i64])?;
    if changed == 0 {
        return Ok(());
    }
    tx.effect(Effect::Ended(task.clone()));
    // A step that was running when the task was lost will not end by itself.
    tx.prepare_cached(
        "UPDATE steps SET status = ?2, ended_at_ms = ?3 WHERE task_id = ?1 AND status = 'running'",
    )?
    .execute(params![
        task.as_str(),
        if state == TaskState::Canceled { "canceled" } else { "infrastructure_fail" },
        now as i64
    ])?;
    let (job, workflow): (JobId, WorkflowId) = tx
        .prepare_cached("SELECT jobs.id, jobs.workflow_id FROM tasks JOIN jobs ON jobs.id = tasks.job_id WHERE tasks.id = ?1")?
        .query_row([task.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if let Some(message) = message {
        say(tx, &job, MessageKind::Error, message)?;
    }
    let states: Vec<TaskState> = tx
        .prepare_cached("SELECT status FROM tasks WHERE job_id = ?1 AND status <> 'retried'")?
        .query_map(params![job], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let status = graph::job_status(&states);
    let mut ripple = Ripple::default();
    if status.is_terminal() {
        end_job(tx, &job, status, &mut ripple, Millis(now))?;
    } else {
        set_status(tx, &job, status)?;
    }
    ripple.touch(workflow);
    settle(tx, ripple, Millis(now))
}

/// Ends tasks whose lease has lapsed: their runner is gone. Returns how many.
pub fn expire_leases_once(tx: &Tx<'_>, now: u64) -> Result<usize, Error> {
    let lapsed: Vec<(String, bool, bool)> = tx
        .prepare_cached(
            "SELECT id, started_at_ms IS NOT NULL, is_canceled FROM tasks WHERE status = 'running' AND lease_until_ms < ?1",
        )?
        .query_map([now as i64], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    for (id, started, canceled) in &lapsed {
        let Ok(task) = TaskId::new(id.clone()) else { continue };
        if *canceled {
            end_task(tx, &task, TaskState::Canceled, None, now)?;
        } else if *started || !requeue(tx, &task, now)? {
            let why = "the runner was not heard of any more while the task ran: it was stopped, or lost the network";
            end_task(tx, &task, TaskState::InfrastructureFail, Some(why), now)?;
        }
    }
    Ok(lapsed.len())
}

/// Whether the sweep knows that runners could be heard all the time since its last pass: only then does
/// their silence mean anything. `passed_at_ms` is that pass, `None` after a start; `writes_failed` tells
/// whether the store lost writes since then, heartbeats among them.
pub fn was_listening(passed_at_ms: Option<u64>, writes_failed: bool, now: u64) -> bool {
    // Far more than a pass takes: the process was stopped, the host suspended, or the clock set.
    const LONGEST_PASS_MS: u64 = 20_000;
    !writes_failed && passed_at_ms.is_some_and(|at| at <= now && now - at <= LONGEST_PASS_MS)
}

/// Gives every running task a whole lease from now, for runners that could not be heard. Returns how many.
pub fn renew_leases(tx: &Tx<'_>, lease_seconds: u32, now: u64) -> Result<usize, Error> {
    let until = now + u64::from(lease_seconds) * 1000;
    Ok(tx
        .prepare_cached(
            "UPDATE tasks SET lease_until_ms = ?1 WHERE status = 'running' AND lease_until_ms < ?1",
        )?
        .execute([until as i64])?)
}

/// Times that a task may go back to its queue.
const MOST_UNCLAIMS: i64 = 3;

/// Puts a claimed task back into its queue, under a new id so that the old token is dead. False when it
/// went back too often.
pub fn requeue(tx: &Tx<'_>, task: &TaskId, now: u64) -> Result<bool, Error> {
    let row: Option<(String, i64)> = tx
        .prepare_cached("SELECT resource_class, unclaims FROM tasks WHERE id = ?1 AND stopped_at_ms IS NULL")?
        .query_row([task.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((class, unclaims)) = row else { return Ok(false) };
    if unclaims >= MOST_UNCLAIMS {
        return Ok(false);
    }
    tx.prepare_cached("UPDATE tasks SET status = 'retried', stopped_at_ms = ?2 WHERE id = ?1")?
        .execute(params![task.as_str(), now as i64])?;
    tx.prepare_cached(
        "INSERT INTO tasks (id, job_id, pipeline_id, project_id, node_index, attempt, resource_class, status,
            is_canceled, unclaims, next_event, is_finished, queued_at_ms)
         SELECT ?2, job_id, pipeline_id, project_id, node_index, attempt + 1, resource_class, 'queued', 0, unclaims + 1, 0, 0, ?3
         FROM tasks WHERE id = ?1",
    )?
    .execute(params![task.as_str(), new_id(), now as i64])?;
    tx.effect(Effect::Ended(task.clone()));
    tx.effect(Effect::Queued(class));
    Ok(true)
}
