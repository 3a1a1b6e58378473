//! Changes by the clock: leases, budgets and fences run out, waits end, old things go.

pub(super) mod retention;

use crate::logging::record;
use crate::server::engine::commit;
use crate::server::engine::commit::clock::{self, Moment};
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
    let (mut passed, mut failed_writes) = (None, state.store.failed_writes());
    let lease = state.settings.lease();
    loop {
        let (now, failed) = (moment(), state.store.failed_writes());
        if !clock::was_listening(passed, failed != failed_writes, now) {
            match state.store.write(move |tx| clock::rebase_once(tx, lease, Millis::now())).await {
                Ok(0) | Err(Error::Closed) => {}
                Ok(count) => {
                    record!(Info, task_count = count; "runners could not be heard for a while: leases begin anew")
                }
                Err(error) => log::error!("failed to renew the leases of running tasks: {error}"),
            }
        }
        // Writes that fail from here on, this one included, are for the next pass.
        failed_writes = failed;
        passed = Some(now);
        tokio::select! {
            () = tokio::time::sleep(PASS) => {}
            _ = stopping.changed() => return,
        }
        let now = moment();
        if state.store.failed_writes() == failed_writes && clock::was_listening(passed, false, now) {
            pass_once(&state, lease, now.at).await;
        }
    }
}

/// `now` is a time at which the clock was seen to be right.
async fn pass_once(state: &Shared, lease: Duration, now: Millis) {
    let waits = state.store.write(move |tx| commit::expire_waits_once(tx, now)).await;
    if let Ok(count @ 1..) = waits {
        record!(Warn, job_count = count; "jobs waited too long for their serial group");
    }
    let overdue = state.store.write(move |tx| commit::queue::waited_too_long(tx, now)).await;
    if let Ok(count @ 1..) = overdue {
        record!(Warn, task_count = count; "tasks waited too long for a runner");
    }
    let forgotten = state.store.write(move |tx| commit::cancel_forgotten_once(tx, now)).await;
    if let Ok(count @ 1..) = forgotten {
        record!(Warn, workflow_count = count; "workflows that had not ended for 90 days were canceled");
    }
    match state.store.write(move |tx| clock::tick_once(tx, lease, now)).await {
        Ok(0) | Err(Error::Closed) => {}
        Ok(count) => record!(Warn, task_count = count; "runners were not heard of in time"),
        Err(error) => log::error!("failed to let leases run out: {error}"),
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
