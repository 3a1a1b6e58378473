//! Changes by the clock: leases, budgets and fences run out, waits end, old things go.

pub(super) mod retention;

use crate::logging::record;
use crate::server::engine::commit;
use crate::server::engine::commit::clock::{self, Listening, Moment};
use crate::server::state::Shared;
use crate::server::store::Error;
use crate::server::time::Millis;
use std::time::{Duration, Instant};

/// Pause between two passes over what runs.
const PASS: Duration = Duration::from_secs(5);
/// Pause between two passes over what is old.
const OLD_PASS: Duration = Duration::from_secs(60 * 60);

/// Lets time pass for what runs, whether anybody asks or not; but not because this control plane was away, stopped
/// or without a disk to write to.
pub(super) async fn run(state: Shared) {
    let mut stopping = state.stopping.subscribe();
    let started = Instant::now();
    let moment = || Moment { at: Millis::now(), steady: started.elapsed() };
    let mut listening = Listening::begin(state.store.failed_writes());
    let lease = state.settings.lease();
    loop {
        let (now, failed_writes) = (moment(), state.store.failed_writes());
        let mut leases_are_right = true;
        if !listening.is_unbroken(failed_writes, now) {
            let rebased = state.store.write(move |tx| clock::rebase_once(tx, lease, Millis::now())).await;
            leases_are_right = rebased.is_ok();
            told(rebased, "renew the leases of running tasks", |count| {
                record!(Info, task_count = count; "runners could not be heard for a while: leases begin anew");
            });
        }
        listening.pass(failed_writes, now, leases_are_right);
        tokio::select! {
            () = tokio::time::sleep(PASS) => {}
            _ = stopping.changed() => return,
        }
        let now = moment();
        if listening.is_unbroken(state.store.failed_writes(), now) {
            pass_once(&state, lease, now.at).await;
        }
    }
}

/// `now` is a time at which the clock was seen to be right.
async fn pass_once(state: &Shared, lease: Duration, now: Millis) {
    let waits = state.store.write(move |tx| commit::expire_waits_once(tx, now)).await;
    told(waits, "end waits for serial groups", |count| {
        record!(Warn, job_count = count; "jobs waited too long for their serial group");
    });
    let overdue = state.store.write(move |tx| commit::queue::waited_too_long(tx, now)).await;
    told(overdue, "end waits for runners", |count| {
        record!(Warn, task_count = count; "tasks waited too long for a runner");
    });
    let forgotten = state.store.write(move |tx| commit::cancel_forgotten_once(tx, now)).await;
    told(forgotten, "cancel workflows that had not ended for 90 days", |count| {
        record!(Warn, workflow_count = count; "workflows that had not ended for 90 days were canceled");
    });
    let silent = state.store.write(move |tx| clock::tick_once(tx, lease, now)).await;
    told(silent, "let leases run out", |count| {
        record!(Warn, task_count = count; "runners were not heard of in time");
    });
}

/// Logs what a sweep did to something, or that it failed.
fn told(swept: Result<usize, Error>, what: &str, log: impl FnOnce(usize)) {
    match swept {
        Ok(0) | Err(Error::Closed) => {}
        Ok(count) => log(count),
        Err(error) => log::error!("failed to {what}: {error}"),
    }
}

/// Removes what is too old, at the start and every hour.
pub(super) async fn run_old(state: Shared) {
    let mut stopping = state.stopping.subscribe();
    loop {
        retention::sweep_once(&state).await;
        tokio::select! {
            () = tokio::time::sleep(OLD_PASS) => {}
            _ = stopping.changed() => return,
        }
    }
}
