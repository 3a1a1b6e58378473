//! Fences: nothing takes the place of a task whose agent may still be at work, neither the same job of another run of its
//! workflow nor the next of its serial group.

use crate::server::engine::commit::job::tell;
use crate::server::ids::JobId;
use crate::server::store::status::MessageKind;
use crate::server::store::tables::tasks::{self, Fence};
use crate::server::store::{Error, Tx};
use crate::server::time::Millis;

/// Time until which a task of the job that enters its queue waits for the fence of another run: the job says so.
pub(super) fn before(tx: &Tx<'_>, job: &JobId) -> Result<Option<Millis>, Error> {
    let fence = tasks::fence_before(tx, job)?;
    if let Some(fence) = &fence {
        say(tx, job, fence)?;
    }
    Ok(fence.map(|fence| fence.until))
}

/// Tells people who look at a job that it waits for a fence.
pub(super) fn say(tx: &Tx<'_>, job: &JobId, fence: &Fence) -> Result<(), Error> {
    let message = format!(
        "this job waits until the runner of another run of it has certainly stopped, at {} unless that is heard of earlier; a person who knows that it has stopped may say so: `POST /api/v3/jobs/{}/release-anyway`",
        fence.until, fence.job
    );
    tell(tx, job, MessageKind::Warning, &message)
}
