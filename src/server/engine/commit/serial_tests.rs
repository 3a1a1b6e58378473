//! Serial groups that pass on while something else ends jobs: waits that are over, cancelled workflows.
#![expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]

use super::tests::{Bench, HOUR, LEASE, config};
use super::*;
use crate::server::engine::commit::job::give_up;
use crate::server::store::scene;
use crate::server::store::status::TaskState;
use crate::server::store::tables::jobs;

const TOO_LONG: Millis = Millis(5 * HOUR + 3);

/// A config with a job that takes the lock `two`, and a workflow.
fn with_lock(workflow: &str) -> String {
    config(workflow).replacen("jobs:\n", "jobs:\n  take: {type: lock, key: two}\n", 1)
}

#[test]
fn a_wait_that_another_end_of_the_same_pass_has_served_is_not_over() {
    let bench = Bench::new();
    bench.pipeline(1, "x", &config("    jobs:\n      - build: {serial-group: one}\n"), 0);
    // The workflow holds `two` until the wait of its second job is over: that ends it.
    let lock = with_lock("    jobs:\n      - take\n      - test: {requires: [take], serial-group: one}\n");
    let first = bench.pipeline(2, "x", &lock, 1).remove(0);
    let deploy = config("    jobs:\n      - deploy: {serial-group: two}\n");
    let second = bench.pipeline(3, "x", &deploy, 2).remove(0);
    let third = bench.pipeline(4, "x", &deploy, HOUR).remove(0);
    assert_eq!(bench.jobs(&first), "take=success test=queued");
    assert_eq!(bench.write(|tx| expire_waits_once(tx, TOO_LONG)), 1);
    assert_eq!(bench.jobs(&first), "take=success test=canceled");
    assert_eq!(
        (bench.jobs(&second), bench.status(&second)),
        ("deploy=queued".into(), WorkflowStatus::Running)
    );
    assert_eq!(bench.status(&third), WorkflowStatus::Queued, "one holder at a time");
    bench.end(&second, "deploy", TaskState::Success, 6 * HOUR);
    assert_eq!(
        (bench.status(&second), bench.status(&third)),
        (WorkflowStatus::Success, WorkflowStatus::Running)
    );
}

#[test]
fn a_key_that_a_cancelled_workflow_gives_back_is_not_for_its_own_jobs() {
    let bench = Bench::new();
    let text = with_lock(
        "    jobs:\n      - build: {serial-group: two}\n      - take\n      - test: {serial-group: two}\n",
    );
    let canceled = bench.pipeline(1, "x", &text, 0).remove(0);
    let next =
        bench.pipeline(2, "x", &config("    jobs:\n      - deploy: {serial-group: two}\n"), 1).remove(0);
    assert_eq!(bench.jobs(&canceled), "build=queued take=queued test=queued");
    let id = canceled.clone();
    bench.write(move |tx| cancel_workflow(tx, &id.into(), None, Millis(2)));
    assert_eq!(bench.jobs(&canceled), "build=canceled take=canceled test=canceled");
    assert_eq!(
        bench.messages(&canceled).matches("before it was queued").count(),
        2,
        "nothing was queued by the cancel"
    );
    assert_eq!(
        (bench.status(&canceled), bench.status(&next)),
        (WorkflowStatus::Canceled, WorkflowStatus::Running)
    );
}

/// In a rerun from failed the unlock may come before the lock, which is taken again.
#[test]
fn a_lock_that_waits_is_not_forgotten_by_an_unlock_that_comes_before_it() {
    let bench = Bench::new();
    let unlock = "    jobs:\n      - take\n      - deploy: {requires: [take]}\n      - give: {requires: [deploy]}\n      - test: {requires: [give]}\n";
    let text = with_lock(unlock).replacen("jobs:\n", "jobs:\n  give: {type: unlock, key: two}\n", 1);
    let first = bench.pipeline(2, "x", &text, 0).remove(0);
    bench.end(&first, "deploy", TaskState::Success, 1);
    let holder = with_lock("    jobs:\n      - take\n      - build: {requires: [take]}\n");
    let holder = bench.pipeline(1, "y", &holder, 1).remove(0);
    bench.end(&first, "test", TaskState::Failed, 2);
    let again = bench.rerun(&first, RerunScope::Failed).unwrap();
    assert_eq!(bench.jobs(&again), "take=queued deploy=success give=success test=queued");
    bench.end(&again, "test", TaskState::Success, HOUR);
    bench.end(&holder, "build", TaskState::Success, HOUR);
    assert_eq!(bench.jobs(&again), "take=success deploy=success give=success test=success");
    assert_eq!((bench.status(&again), bench.claims()), (WorkflowStatus::Success, 0));
}

/// How many waits for the key of a workflow that has a runner are over at a time.
fn over(bench: &Bench, now: u64) -> usize {
    bench.write(move |tx| expire_waits_once(tx, Millis(now)))
}

fn one_waits() -> Bench {
    let bench = Bench::new();
    let text = config("    jobs:\n      - build: {serial-group: one}\n");
    let holder = bench.pipeline(1, "x", &text, 0).remove(0);
    bench.pipeline(2, "x", &text, 0);
    bench.begin_build(&holder, 0);
    bench
}

#[test]
fn a_wait_for_a_key_does_not_count_time_in_which_nobody_could_be_heard() {
    let bench = one_waits();
    bench.write(|tx| clock::rebase_once(tx, LEASE, Millis(4 * HOUR)));
    assert_eq!((over(&bench, 9 * HOUR), over(&bench, 9 * HOUR + 1)), (0, 1));
}

#[test]
fn a_wait_for_a_key_does_not_count_time_in_which_its_holder_waits_for_an_administrator() {
    let bench = one_waits();
    bench.write(|tx| clock::hold_all(tx, Millis(1)));
    for hour in 1..=20 {
        assert_eq!(over(&bench, hour * HOUR), 0);
    }
    bench.write(|tx| {
        let id = tasks::open(tx)?.remove(0).id;
        clock::decide_held(tx, &id, clock::HeldVerdict::Release, LEASE, Millis(20 * HOUR))
    });
    assert_eq!((over(&bench, 25 * HOUR), over(&bench, 25 * HOUR + 1)), (0, 1));
}

#[test]
fn a_job_ends_once() {
    let bench = Bench::new();
    let workflow = bench.pipeline(1, "x", &config("    jobs: [build]\n"), 0).remove(0);
    bench.end(&workflow, "build", TaskState::Failed, 1);
    let ended = bench.write(|tx| {
        let job = scene::job(tx, "build")?;
        let closed = jobs::close(tx, &job, JobStatus::Success, Millis(2))?;
        jobs::set_status(tx, &job, JobStatus::Running)?;
        give_up(tx, &job, MessageKind::Error, "why", Millis(2))?;
        Ok(closed)
    });
    assert!(!ended);
    assert_eq!(bench.jobs(&workflow), "build=failed");
}
