//! The status of a job: set, ended, explained.

use crate::server::engine::commit::ripple::Ripple;
use crate::server::engine::commit::serial;
use crate::server::ids::JobId;
use crate::server::store::status::{JobStatus, MessageKind};
use crate::server::store::tables::jobs;
use crate::server::store::{Error, Tx};
use crate::server::time::Millis;

/// Sets the status of a job that goes on.
pub(super) fn set_status(tx: &Tx<'_>, job: &JobId, status: JobStatus) -> Result<JobStatus, Error> {
    jobs::set_status(tx, job, status)?;
    Ok(status)
}

/// Ends a job: the keys that it held pass on.
pub(super) fn end_job(
    tx: &Tx<'_>,
    job: &JobId,
    status: JobStatus,
    ripple: &mut Ripple,
    now: Millis,
) -> Result<JobStatus, Error> {
    close_job(tx, job, status, now)?;
    serial::leave(tx, job, ripple, now)?;
    Ok(status)
}

/// Ends a job that keeps its key.
pub(super) fn close_job(
    tx: &Tx<'_>,
    job: &JobId,
    status: JobStatus,
    now: Millis,
) -> Result<JobStatus, Error> {
    jobs::close(tx, job, status, now)?;
    Ok(status)
}

/// Adds a message that people see with the job.
pub(super) fn say(tx: &Tx<'_>, job: &JobId, kind: MessageKind, message: &str) -> Result<(), Error> {
    jobs::add_message(tx, job, kind, message)
}
