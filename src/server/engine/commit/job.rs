//! The status of a job: set, ended, explained.

use crate::server::engine::commit::ripple::Ripple;
use crate::server::engine::commit::serial;
use crate::server::ids::JobId;
use crate::server::store::status::{JobStatus, MessageKind};
use crate::server::store::tables::{instances, jobs};
use crate::server::store::{Effect, Error, Tx, View};
use crate::server::time::Millis;

/// Sets the status of a job that goes on.
pub(super) fn set_status(tx: &Tx<'_>, job: &JobId, status: JobStatus) -> Result<JobStatus, Error> {
    jobs::set_status(tx, job, status)?;
    Ok(status)
}

/// Ends a job: the keys that it held pass on. Returns the status that it has ended with.
pub(super) fn end_job(
    tx: &Tx<'_>,
    job: &JobId,
    status: JobStatus,
    ripple: &mut Ripple,
    now: Millis,
) -> Result<JobStatus, Error> {
    if close_job(tx, job, status, now)? {
        serial::leave(tx, job, ripple, now)?;
        return Ok(status);
    }
    jobs::status(tx, job)
}

/// Ends a job that keeps its key. False when it has ended: a job ends once, and whoever would end it again has overlooked
/// that. It is logged and not refused, since a sweep that ends one job ends others in the same transaction.
pub(super) fn close_job(tx: &Tx<'_>, job: &JobId, status: JobStatus, now: Millis) -> Result<bool, Error> {
    let is_closed = jobs::close(tx, job, status, now)?;
    if !is_closed {
        log::error!("the job `{job}` has ended and was to end again, as `{status}`: it stays as it is");
        debug_assert!(false, "the job `{job}` has ended and ends again, as `{status}`");
    }
    Ok(is_closed)
}

/// Adds a message that people see with the job.
pub(super) fn say(tx: &Tx<'_>, job: &JobId, kind: MessageKind, message: &str) -> Result<(), Error> {
    jobs::add_message(tx, job, kind, message)
}

/// Adds a message that people see with the job, unless it is there.
pub(super) fn tell(tx: &Tx<'_>, job: &JobId, kind: MessageKind, message: &str) -> Result<(), Error> {
    jobs::add_message_once(tx, job, kind, message).map(drop)
}

/// Says why a job ends that was never queued. One that people look for by its number has one, however it ends.
pub(super) fn give_up(
    tx: &Tx<'_>,
    job: &JobId,
    kind: MessageKind,
    why: &str,
    now: Millis,
) -> Result<(), Error> {
    jobs::give_number(tx, job, now)?;
    say(tx, job, kind, why)
}

/// Has a runner of the class look at its queue, where a task waits: each of them if the first that is woken may let the
/// task pass by.
pub(super) fn waking(view: &View, class: &str, now: Millis) -> Result<Effect, Error> {
    let (all, class) = (instances::do_differ(view, class, now)?, class.to_owned());
    Ok(if all { Effect::QueuedForOthers(class) } else { Effect::Queued(class) })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::protocol::TaskKind;
    use crate::server::store::tables::fleet;
    use crate::server::store::{Store, scene};

    #[test]
    fn all_runners_are_woken_where_the_first_may_let_the_task_pass_by() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), false, |_| ()).unwrap();
        let check = |tx: &Tx<'_>| {
            scene::insert_class(tx)?;
            let seen =
                |name: &str, takes: TaskKind, now: u64| scene::insert_runner(tx, name, takes, Millis(now));
            let woken = |now: u64| waking(tx, "a/b", Millis(now));
            let (one, all) = (Effect::Queued("a/b".to_owned()), Effect::QueuedForOthers("a/b".to_owned()));
            assert_eq!(woken(0)?, one, "nobody is there");
            seen("x", TaskKind::Machine, 1)?;
            seen("y", TaskKind::Machine, 1)?;
            assert_eq!(woken(2)?, one);
            fleet::pause_runner(tx, "a/b", "x", true)?;
            assert_eq!(woken(2)?, all, "one is paused");
            fleet::pause_runner(tx, "a/b", "x", false)?;
            seen("pods", TaskKind::Container, 200_000)?;
            assert_eq!(woken(200_000)?, one, "the others are long gone");
            seen("x", TaskKind::Machine, 200_000)?;
            assert_eq!(woken(200_000)?, all, "they take different kinds");
            Ok(())
        };
        store.write_blocking(check).unwrap();
    }
}
