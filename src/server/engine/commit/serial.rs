//! Serial groups: at most one job of an organisation holds a key at a time, in order of arrival.
//!
//! A job with a serial group takes its key when its turn comes and gives it back when it ends. A lock
//! job takes a key that the unlock job of the same workflow gives back, or the end of the workflow.

use crate::server::engine::commit::Ripple;
use crate::server::store::status::JobStatus;
use crate::server::store::{Error, Tx};
use rusqlite::{OptionalExtension, params};

/// A job waits for its key no longer than this: 5 hours.
const LONGEST_WAIT_MS: u64 = 5 * 60 * 60 * 1000;

/// What a job finds when it comes for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The key is its own.
    Taken,
    /// Another holds the key.
    Waits,
    /// A newer pipeline of its project came first: running now would undo what that one did.
    TooLate,
}

/// A job comes for its key.
pub(super) fn arrive(tx: &Tx<'_>, job: &str, key: &str, now: u64) -> Result<Turn, Error> {
    let (organisation, project, workflow, number): (String, String, String, i64) = tx
        .prepare_cached(
            "SELECT r.organisation_id, r.id, j.workflow_id, p.number FROM jobs j
             JOIN projects r ON r.id = j.project_id JOIN pipelines p ON p.id = j.pipeline_id WHERE j.id = ?1",
        )?
        .query_row([job], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let overtaken = tx
        .prepare_cached(
            "SELECT 1 FROM serial_claims WHERE organisation_id = ?1 AND key = ?2 AND project_id = ?3 AND pipeline_number > ?4",
        )?
        .exists(params![organisation, key, project, number])?;
    if overtaken {
        return Ok(Turn::TooLate);
    }
    let held = tx
        .prepare_cached("SELECT 1 FROM serial_claims WHERE organisation_id = ?1 AND key = ?2")?
        .exists([&organisation, key])?;
    tx.prepare_cached(
        "INSERT INTO serial_claims (organisation_id, key, job_id, workflow_id, project_id, pipeline_number, is_holder, since_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![organisation, key, job, workflow, project, number, !held, now as i64])?;
    Ok(if held { Turn::Waits } else { Turn::Taken })
}

/// Gives back what a job holds or waits for.
pub(super) fn leave(tx: &Tx<'_>, job: &str, ripple: &mut Ripple, now: u64) -> Result<(), Error> {
    release(
        tx,
        "DELETE FROM serial_claims WHERE job_id = ?1 RETURNING organisation_id, key",
        &[job],
        ripple,
        now,
    )
}

/// Gives back a key that a lock job of the workflow took.
pub(super) fn unlock(
    tx: &Tx<'_>,
    workflow: &str,
    key: &str,
    ripple: &mut Ripple,
    now: u64,
) -> Result<(), Error> {
    let delete = "DELETE FROM serial_claims WHERE workflow_id = ?1 AND key = ?2
        AND job_id IN (SELECT id FROM jobs WHERE workflow_id = ?1 AND kind = 'lock') RETURNING organisation_id, key";
    release(tx, delete, &[workflow, key], ripple, now)
}

/// Gives back whatever the jobs of a workflow that has ended still hold.
pub(super) fn leave_all(tx: &Tx<'_>, workflow: &str, ripple: &mut Ripple, now: u64) -> Result<(), Error> {
    let delete = "DELETE FROM serial_claims WHERE workflow_id = ?1 RETURNING organisation_id, key";
    release(tx, delete, &[workflow], ripple, now)
}

fn release(tx: &Tx<'_>, delete: &str, keys: &[&str], ripple: &mut Ripple, now: u64) -> Result<(), Error> {
    let freed: Vec<(String, String)> = tx
        .prepare_cached(delete)?
        .query_map(rusqlite::params_from_iter(keys), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (organisation, key) in freed {
        // Who only waited leaves the holder alone: then nobody is promoted.
        let next: Option<(String, String)> = tx
            .prepare_cached(
                "UPDATE serial_claims SET is_holder = 1, since_ms = ?3 WHERE seq = (
                    SELECT min(seq) FROM serial_claims WHERE organisation_id = ?1 AND key = ?2
                    HAVING max(is_holder) = 0) RETURNING job_id, workflow_id",
            )?
            .query_row(params![organisation, key, now as i64], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some((job, workflow)) = next {
            crate::server::engine::commit::granted(tx, &job, ripple, now)?;
            ripple.touch(workflow);
        }
    }
    Ok(())
}

/// Gives up jobs that have waited too long. Returns how many.
pub fn expire_waits_once(tx: &Tx<'_>, now: u64) -> Result<usize, Error> {
    let before = now.saturating_sub(LONGEST_WAIT_MS) as i64;
    let waiting: Vec<(String, String, String)> = tx
        .prepare_cached(
            "SELECT job_id, workflow_id, key FROM serial_claims WHERE is_holder = 0 AND since_ms < ?1",
        )?
        .query_map([before], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    for (job, workflow, key) in &waiting {
        let mut ripple = Ripple::default();
        let why = format!("cancelled: it waited longer than 5 hours for the serial group `{key}`");
        crate::server::engine::commit::say(tx, job, "error", &why)?;
        crate::server::engine::commit::end_job(tx, job, JobStatus::Canceled, &mut ripple, now)?;
        ripple.touch(workflow.clone());
        ripple.settle(tx, now)?;
    }
    Ok(waiting.len())
}
