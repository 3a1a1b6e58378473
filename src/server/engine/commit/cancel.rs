//! What people (and newer pipelines) do to a workflow that runs: cancel it, cancel a job, approve one.

use crate::server::engine::commit::task;
use crate::server::engine::commit::{OLDEST_MS, Ripple, end_job};
use crate::server::store::status::JobStatus;
use crate::server::store::tables::tasks;
use crate::server::store::{Error, Tx};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, params};

/// Cancels a workflow: what has not begun ends now, what runs is told to stop. False when there is no
/// such workflow; nothing happens to one that has ended.
pub fn cancel_workflow(tx: &Tx<'_>, workflow: &str, by: Option<&str>, now: u64) -> Result<bool, Error> {
    let changed = tx
        .prepare_cached(
            "UPDATE workflows SET is_canceled = 1, canceled_by = ?2 WHERE id = ?1 AND stopped_at_ms IS NULL",
        )?
        .execute(params![workflow, by])?;
    if changed == 0 {
        return Ok(tx.prepare_cached("SELECT 1 FROM workflows WHERE id = ?1")?.exists([workflow])?);
    }
    let jobs: Vec<String> = tx
        .prepare_cached(
            "SELECT id FROM jobs WHERE workflow_id = ?1 AND stopped_at_ms IS NULL ORDER BY position",
        )?
        .query_map([workflow], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for job in jobs {
        stop_job(tx, &job, by, now)?;
    }
    let mut ripple = Ripple::default();
    ripple.touch(workflow.to_owned());
    ripple.settle(tx, now)?;
    Ok(true)
}

/// Cancels one job; the workflow goes on with what may follow. False when there is no such job.
pub fn cancel_job(tx: &Tx<'_>, job: &str, by: Option<&str>, now: u64) -> Result<bool, Error> {
    let found: Option<(String, bool)> = tx
        .prepare_cached("SELECT workflow_id, stopped_at_ms IS NOT NULL FROM jobs WHERE id = ?1")?
        .query_row([job], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((workflow, ended)) = found else { return Ok(false) };
    if !ended {
        stop_job(tx, job, by, now)?;
        let mut ripple = Ripple::default();
        ripple.touch(workflow);
        ripple.settle(tx, now)?;
    }
    Ok(true)
}

/// Stops one job that has not ended: at once when no runner has it, else through its runner.
fn stop_job(tx: &Tx<'_>, job: &str, by: Option<&str>, now: u64) -> Result<(), Error> {
    tx.prepare_cached("UPDATE jobs SET canceled_by = ?2 WHERE id = ?1")?.execute(params![job, by])?;
    let open = tasks::open_of_job(tx, &job.into())?;
    if open.is_empty() {
        let mut ripple = Ripple::default();
        end_job(tx, job, JobStatus::Canceled, &mut ripple, now)?;
        return ripple.settle(tx, now);
    }
    open.into_iter().try_for_each(|row| task::cancel(tx, row, Millis(now)))
}

/// Approves a job that waits. False when there is no such job waiting.
pub fn approve(tx: &Tx<'_>, workflow: &str, job: &str, by: Option<&str>, now: u64) -> Result<bool, Error> {
    let found = tx
        .prepare_cached(
            "UPDATE jobs SET approved_by = ?3 WHERE id = ?2 AND workflow_id = ?1 AND status = 'on_hold'",
        )?
        .execute(params![workflow, job, by])?;
    if found == 0 {
        return Ok(false);
    }
    let mut ripple = Ripple::default();
    end_job(tx, job, JobStatus::Success, &mut ripple, now)?;
    ripple.touch(workflow.to_owned());
    ripple.settle(tx, now)?;
    Ok(true)
}

/// A newer pipeline of the branch makes older ones pointless, where the project says so: cancels their
/// workflows, except scheduled ones and reruns. Never on the default branch. Returns how many.
pub fn cancel_redundant(tx: &Tx<'_>, pipeline: &str, now: u64) -> Result<usize, Error> {
    let older: Vec<String> = tx
        .prepare_cached(
            "SELECT w.id FROM pipelines mine
             JOIN projects r ON r.id = mine.project_id
             JOIN pipelines p ON p.project_id = r.id AND p.branch = mine.branch AND p.number < mine.number
             JOIN workflows w ON w.pipeline_id = p.id
             WHERE mine.id = ?1 AND mine.branch <> r.default_branch
                AND mine.trigger_type IN ('api', 'explicit', 'webhook')
                AND p.trigger_type IN ('api', 'explicit', 'webhook')
                AND r.settings ->> '$.enable_auto_cancel_redundant_workflows' = 1
                AND w.stopped_at_ms IS NULL AND w.rerun_of IS NULL",
        )?
        .query_map([pipeline], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for workflow in &older {
        cancel_workflow(tx, workflow, None, now)?;
    }
    Ok(older.len())
}

/// Cancels workflows that have not ended in 90 days: an approval that nobody gives, a class without runners.
/// Returns how many.
pub fn cancel_forgotten_once(tx: &Tx<'_>, now: u64) -> Result<usize, Error> {
    let forgotten: Vec<String> = tx
        .prepare_cached("SELECT id FROM workflows WHERE stopped_at_ms IS NULL AND created_at_ms < ?1")?
        .query_map([now.saturating_sub(OLDEST_MS) as i64], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for workflow in &forgotten {
        cancel_workflow(tx, workflow, None, now)?;
    }
    Ok(forgotten.len())
}
