//! Serial groups: at most one job of an organisation holds a key at a time, in order of arrival.
//!
//! A job with a serial group takes its key when its turn comes and gives it back when it ends. A lock
//! job takes a key that the unlock job of the same workflow gives back, or the end of the workflow.

use crate::server::engine::commit::ripple::Ripple;
use crate::server::ids::{JobId, WorkflowId};
use crate::server::store::status::JobType;
use crate::server::store::tables::serial::{self, SerialKey};
use crate::server::store::{Error, Tx};
use crate::server::time::Millis;

/// Outcome for a job that comes for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SerialTurn {
    /// The key is its own.
    Taken,
    /// Another holds the key.
    Waits,
    /// A newer pipeline of its project came first: running now would undo what that one did.
    TooLate,
}

/// A job comes for its key.
pub(super) fn arrive(tx: &Tx<'_>, job: &JobId, key: String, now: Millis) -> Result<SerialTurn, Error> {
    let arrival = serial::arrival(tx, job)?;
    let key = SerialKey { organisation: arrival.organisation.clone(), name: key };
    if serial::has_newer(tx, &key, &arrival.project, arrival.pipeline_number)? {
        return Ok(SerialTurn::TooLate);
    }
    let is_free = serial::first_in_line(tx, &key)?.is_none();
    serial::insert(tx, &key, job, &arrival, is_free, now)?;
    Ok(if is_free { SerialTurn::Taken } else { SerialTurn::Waits })
}

/// Gives back what a job holds or waits for.
pub(super) fn leave(tx: &Tx<'_>, job: &JobId, ripple: &mut Ripple, now: Millis) -> Result<(), Error> {
    let keys = serial::delete_of_job(tx, job)?;
    pass_on(tx, &keys, ripple, now)
}

/// Gives back a key that a lock job of the workflow took.
pub(super) fn unlock(
    tx: &Tx<'_>,
    workflow: &WorkflowId,
    key: &str,
    ripple: &mut Ripple,
    now: Millis,
) -> Result<(), Error> {
    let keys = serial::delete_holders_of_kind(tx, workflow, key, JobType::Lock)?;
    pass_on(tx, &keys, ripple, now)
}

/// Gives back whatever the jobs of a workflow that has ended still hold.
pub(super) fn leave_all(
    tx: &Tx<'_>,
    workflow: &WorkflowId,
    ripple: &mut Ripple,
    now: Millis,
) -> Result<(), Error> {
    let keys = serial::delete_of_workflow(tx, workflow)?;
    pass_on(tx, &keys, ripple, now)
}

fn pass_on(tx: &Tx<'_>, keys: &[SerialKey], ripple: &mut Ripple, now: Millis) -> Result<(), Error> {
    for key in keys {
        let Some(next) = serial::first_in_line(tx, key)? else { continue };
        // A job that only waited has left: the holder stays.
        if !next.is_holder {
            serial::make_holder(tx, key, &next.job, now)?;
            ripple.grant(next.job, next.workflow);
        }
    }
    Ok(())
}
