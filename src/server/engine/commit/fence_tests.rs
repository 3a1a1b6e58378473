//! The effects of time on tasks: leases, silence, fences, and what waits for them; classes that go, backups that are restored.
#![expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]

use super::tests::{BUDGET, Bench, CHAIN, HOUR, LEASE, config};
use super::*;
use crate::protocol::{GiveBack, GiveBackReason, GivenBack, LostTask, Secret, TaskId, TaskKind};
use crate::server::engine::commit::clock::HeldAnswer;
use crate::server::engine::commit::task::{self, InHand};
use crate::server::engine::task::{Call, Claim, ClaimedAgain, Denied, FENCE_MARGIN, LONGEST_BEGIN};
use crate::server::store::scene;
use crate::server::store::status::TaskState;
use crate::server::store::tables::tasks::{self, Asking};
use crate::server::store::tables::{classes, fleet};

const MINUTE: u64 = 60_000;

#[test]
fn leases_that_begin_anew_count_from_the_clock_as_it_is_now() {
    let bench = Bench::new();
    let workflow = bench.pipeline(1, "x", &config(CHAIN), 0).remove(0);
    let id = bench.begin_build(&workflow, 0);
    let lease = |bench: &Bench| {
        let id = id.clone();
        bench.write(move |tx| Ok(InHand::find(tx, &id)?.unwrap().row.lease_until))
    };
    let rebase = |now| bench.write(move |tx| clock::rebase_once(tx, LEASE, Millis(now)));
    assert_eq!(rebase(HOUR), 1);
    assert_eq!(lease(&bench), Some(Millis(HOUR + MINUTE)));
    assert_eq!(bench.tick(HOUR + MINUTE), 0);
    // The clock ran ten hours ahead, and was set back: the host of the task dies.
    rebase(11 * HOUR);
    rebase(HOUR);
    assert_eq!(lease(&bench), Some(Millis(HOUR + MINUTE)));
    assert_eq!((bench.tick(HOUR + MINUTE + 1), bench.state(&id)), (1, TaskState::Unreachable));
    let canceled = workflow.clone();
    bench.write(move |tx| cancel_workflow(tx, &canceled.into(), None, Millis(11 * HOUR)));
    rebase(2 * HOUR);
    let fence = || {
        let id = id.clone();
        bench.write(move |tx| Ok(InHand::find(tx, &id)?.unwrap().row.fence_until))
    };
    let whole = MINUTE + BUDGET.as_millis() as u64 + FENCE_MARGIN.as_millis() as u64;
    assert_eq!(fence(), Some(Millis(2 * HOUR + whole)));
}

/// Claims the only task in the store, for a runner named `one`.
fn claim_one(tx: &Tx<'_>, now: u64) -> Result<TaskId, Error> {
    let mut hand = InHand::of(tasks::open(tx)?.remove(0))?;
    let (allocation, runner) = ("allocation".to_owned(), "one".to_owned());
    let claim =
        Claim { allocation, runner, machine: None, protocol: 2, budget: BUDGET, retries_unsafely: false };
    hand.task.claim(claim, false, LEASE, LONGEST_BEGIN, Millis(now)).unwrap();
    let id = hand.row.id.clone();
    hand.write(tx, Millis(now))?;
    Ok(id)
}

#[test]
fn the_time_to_begin_counts_from_the_clock_as_it_is_now() {
    let bench = Bench::new();
    bench.pipeline(1, "x", &config("    jobs: [build]\n"), 0);
    let id = bench.write(|tx| claim_one(tx, 11 * HOUR));
    let begin_until = || {
        let id = id.clone();
        bench.write(move |tx| Ok(InHand::find(tx, &id)?.unwrap().row.begin_until))
    };
    let whole = LONGEST_BEGIN.as_millis() as u64;
    assert_eq!(begin_until(), Some(Millis(11 * HOUR + whole)));
    // A lease of which much is left stays, whatever call asks for it.
    let again = id.clone();
    let lease = bench.write(move |tx| {
        let mut hand = InHand::find(tx, &again)?.unwrap();
        let mut leases = Vec::new();
        for now in [11 * HOUR + 1, 11 * HOUR + MINUTE / 2] {
            assert_eq!(hand.task.claim_again(LEASE, Millis(now)), ClaimedAgain::Again);
            hand.task.write_to(&mut hand.row, Millis(now));
            leases.push(hand.row.lease_until.unwrap().0 - 11 * HOUR);
        }
        Ok(leases)
    });
    assert_eq!(lease, [MINUTE, MINUTE / 2 + MINUTE]);
    for now in [HOUR, 3 * HOUR, 2 * HOUR] {
        bench.write(move |tx| clock::rebase_once(tx, LEASE, Millis(now)));
        assert_eq!(begin_until(), Some(Millis(now + whole)), "{now}");
    }
    assert_eq!((bench.tick(2 * HOUR + MINUTE + 1), bench.state(&id)), (1, TaskState::Retried));
}

#[test]
fn the_cancel_of_what_a_backup_says_is_claimed_has_a_fence() {
    for is_held in [false, true] {
        let bench = Bench::new();
        let text = config("    jobs:\n      - build: {serial-group: production}\n");
        let [first, second] = [1, 2].map(|number| bench.pipeline(number, "x", &text, 0).remove(0));
        bench.write(move |tx| {
            claim_one(tx, 0)?;
            if is_held { clock::hold_all(tx, Millis(1)) } else { Ok(0) }
        });
        let canceled = first.clone();
        bench.write(move |tx| cancel_workflow(tx, &canceled.into(), None, Millis(HOUR)));
        assert_eq!(bench.status(&first), WorkflowStatus::Canceled);
        let next = if is_held { WorkflowStatus::Queued } else { WorkflowStatus::Running };
        assert_eq!(bench.status(&second), next, "{is_held}");
        assert_eq!(bench.messages(&first).contains("may be older than its begin"), is_held);
        let fence = HOUR + BUDGET.as_millis() as u64 + FENCE_MARGIN.as_millis() as u64;
        bench.tick(fence);
        assert_eq!(bench.status(&second), next, "{is_held}");
        bench.tick(fence + 1);
        assert_eq!(bench.status(&second), WorkflowStatus::Running);
    }
}

#[test]
fn only_a_claim_of_the_first_protocol_is_lost_without_its_allocation() {
    for (protocol, is_lost) in [(1, true), (2, false)] {
        let bench = Bench::new();
        let workflow = bench.pipeline(1, "x", &config("    jobs: [build]\n"), 0).remove(0);
        let id = bench.begin_build(&workflow, 0);
        let lost = id.clone();
        bench.write(move |tx| {
            let mut hand = InHand::find(tx, &lost)?.unwrap();
            hand.row.protocol = Some(protocol);
            tasks::update(tx, &hand.row)?;
            let request = LostTask { id: lost, allocation: None, message: "gone".to_owned() };
            let said = task::lost(tx, "a/b", &request, Millis(1))?;
            let refused = Err(task::NotLost::Refused(Denied::AnotherAllocation));
            assert_eq!(said, if is_lost { Ok(()) } else { refused });
            Ok(())
        });
        let state = if is_lost { TaskState::InfrastructureFail } else { TaskState::Running };
        assert_eq!(bench.state(&id), state, "{protocol}");
    }
}

#[test]
fn a_silent_task_is_unreachable_first_and_fails_when_its_budget_is_over() {
    let bench = Bench::new();
    let workflow = bench.pipeline(1, "x", &config(CHAIN), 0).remove(0);
    let id = bench.begin_build(&workflow, 0);
    assert_eq!((bench.tick(MINUTE), bench.tick(MINUTE + 1)), (0, 1));
    assert_eq!(bench.state(&id), TaskState::Unreachable);
    assert!(bench.jobs(&workflow).starts_with("build=running"), "{}", bench.jobs(&workflow));
    assert!(bench.messages(&workflow).contains("has not been heard of since 1970-01-01T00:00:00"));
    // The task is heard of again, once; then never more.
    let again = id.clone();
    let taken =
        bench.write(move |tx| task::call(tx, &again, Call::Heartbeat, LEASE, Millis(2 * MINUTE))).unwrap();
    assert_eq!((taken.late, bench.state(&id)), (false, TaskState::Running));
    assert_eq!(bench.messages(&workflow).matches("is heard of again").count(), 1);
    bench.tick(4 * MINUTE);
    let end = 3 * MINUTE + BUDGET.as_millis() as u64 + FENCE_MARGIN.as_millis() as u64;
    // The sweep looks at the task in every pass, and nothing changes.
    assert_eq!((bench.tick(end), bench.state(&id)), (0, TaskState::Unreachable));
    assert_eq!((bench.tick(end + 1), bench.state(&id)), (1, TaskState::InfrastructureFail));
    assert!(bench.jobs(&workflow).starts_with("build=infrastructure_fail"), "{}", bench.jobs(&workflow));
}

/// Two workflows of one serial group. Nobody hears of the task of the first one any more when it is cancelled, at two
/// minutes.
fn canceled_in_silence() -> (Bench, [String; 2], TaskId) {
    let bench = Bench::new();
    let text = config("    jobs:\n      - build: {serial-group: production}\n");
    let workflows = [1, 2].map(|number| bench.pipeline(number, "x", &text, 0).remove(0));
    let id = bench.begin_build(&workflows[0], 0);
    bench.tick(2 * MINUTE);
    let canceled = workflows[0].clone();
    bench.write(move |tx| cancel_workflow(tx, &canceled.into(), None, Millis(2 * MINUTE)));
    (bench, workflows, id)
}

#[test]
fn a_serial_group_waits_for_the_fence_of_what_nobody_hears() {
    let (bench, [first, second], id) = canceled_in_silence();
    // The status comes at once, the key does not.
    assert_eq!(
        (bench.status(&first), bench.status(&second)),
        (WorkflowStatus::Canceled, WorkflowStatus::Queued)
    );
    let fence = MINUTE + BUDGET.as_millis() as u64 + FENCE_MARGIN.as_millis() as u64;
    bench.tick(fence);
    assert_eq!(bench.status(&second), WorkflowStatus::Queued);
    bench.tick(fence + 1);
    assert_eq!(bench.status(&second), WorkflowStatus::Running);
    assert_eq!(bench.state(&id), TaskState::Canceled);
}

#[test]
fn whoever_knows_that_the_agent_has_stopped_takes_the_fence_away() {
    for person in [false, true] {
        let (bench, [_, second], id) = canceled_in_silence();
        assert_eq!(bench.status(&second), WorkflowStatus::Queued);
        let confirmed = bench.write(move |tx| {
            if person {
                let job = InHand::find(tx, &id)?.unwrap().row.job;
                return Ok(task::release_anyway(tx, &job, Millis(3 * MINUTE))? == 1);
            }
            let message = "gone".to_owned();
            let request = LostTask { id, allocation: Some("allocation".to_owned()), message };
            Ok(task::lost(tx, "a/b", &request, Millis(3 * MINUTE))?.is_ok())
        });
        assert!(confirmed);
        assert_eq!(bench.status(&second), WorkflowStatus::Running, "{person}");
    }
}

#[test]
fn a_rerun_waits_for_the_fence_of_what_it_replaces() {
    let text = config("    jobs: [build]\n");
    let fence = MINUTE + BUDGET.as_millis() as u64 + FENCE_MARGIN.as_millis() as u64;
    for (scope, way) in [
        (RerunScope::All, 0),
        (RerunScope::Failed, 1),
        (RerunScope::All, 2),
        (RerunScope::All, 3),
        (RerunScope::All, 4),
    ] {
        let bench = Bench::new();
        let workflow = bench.pipeline(1, "x", &text, 0).remove(0);
        let id = bench.begin_build(&workflow, 0);
        bench.tick(2 * MINUTE);
        let named = RerunRefused::Unreachable(vec!["build".to_owned()]);
        assert_eq!(bench.rerun(&workflow, RerunScope::All), Err(named), "it has not ended");
        let canceled = workflow.clone();
        bench.write(move |tx| cancel_workflow(tx, &canceled.into(), None, Millis(2 * MINUTE)));
        let again = bench.rerun(&workflow, scope).unwrap();
        let waits = |now| {
            let takes = &[TaskKind::Machine];
            let asking = Asking { class: "a/b", runner: "two", takes, now: Millis(now) };
            bench.write(move |tx| Ok(tasks::first_queued(tx, asking)?.is_none()))
        };
        assert!(waits(2 * MINUTE) && bench.messages(&again).contains("release-anyway"), "{way}");
        // The time alone says nothing: the clock may have been set.
        assert!(waits(HOUR), "{way}");
        match way {
            0 => {
                bench.tick(fence);
                assert!(waits(fence));
                bench.tick(fence + 1);
            }
            // The fence is moved when nobody could be heard.
            1 => {
                bench.write(|tx| clock::rebase_once(tx, LEASE, Millis(5 * MINUTE)));
                bench.tick(5 * MINUTE + fence);
                assert!(waits(5 * MINUTE + fence));
                bench.tick(5 * MINUTE + fence + 1);
            }
            2 => {
                let job = bench.write(move |tx| Ok(InHand::find(tx, &id)?.unwrap().row.job));
                assert_eq!(bench.write(move |tx| task::release_anyway(tx, &job, Millis(3 * MINUTE))), 1);
            }
            3 => {
                let forced = workflow.clone();
                let made = bench.write(move |tx| {
                    rerun_anyway(tx, &forced.into(), &RerunScope::All, None, Millis(3 * MINUTE))
                });
                assert!(made.is_ok());
            }
            _ => {
                // The host was started again, as its runner says with its first claim after that.
                bench.write(move |tx| {
                    let (machine, boot) = ("machine", "boot-2");
                    let mut hand = InHand::find(tx, &id)?.unwrap();
                    (hand.row.machine_id, hand.row.boot_id) =
                        (Some(machine.to_owned()), Some("boot-1".to_owned()));
                    tasks::update(tx, &hand.row)?;
                    task::host_restarted(tx, "a/b", machine, boot, "r", Millis(3 * MINUTE))
                });
            }
        }
        assert!(!waits(3 * MINUTE), "{way}");
    }
}

#[test]
fn tasks_of_a_deleted_class_end_with_the_reason() {
    let bench = Bench::new();
    let text = config("    jobs: [build, test]\n");
    let workflow = bench.pipeline(1, "x", &text, 0).remove(0);
    let id = bench.begin_build(&workflow, 0);
    assert_eq!(bench.write(|tx| queue::class_deleted(tx, "a/b", Millis(1))), 1);
    assert_eq!(bench.jobs(&workflow), "build=running test=failed");
    assert!(bench.messages(&workflow).contains("the resource class `a/b` was deleted"));
    assert_eq!(bench.state(&id), TaskState::Running);
}

#[test]
fn what_a_backup_says_waits_for_an_administrator() {
    let bench = Bench::new();
    let workflow = bench.pipeline(1, "x", &config("    jobs: [build, test]\n"), 0).remove(0);
    let id = bench.begin_build(&workflow, 0);
    assert_eq!(bench.write(|tx| clock::hold_all(tx, Millis(1))), 2);
    assert_eq!((bench.tick(HOUR), bench.state(&id)), (0, TaskState::Running));
    let asking = Asking { class: "a/b", runner: "two", takes: &[TaskKind::Machine], now: Millis(HOUR) };
    assert!(bench.write(move |tx| tasks::first_queued(tx, asking)).is_none());
    let held = bench.write(|tx| Ok(tasks::open(tx)?.into_iter().map(|row| row.id).collect::<Vec<_>>()));
    let decide = |id: &TaskId, verdict| {
        let id = id.clone();
        bench.write(move |tx| clock::decide_held(tx, &id, verdict, LEASE, Millis(HOUR)))
    };
    let waiting = held.iter().find(|held| **held != id).unwrap();
    assert_eq!(decide(waiting, clock::HeldVerdict::Release), HeldAnswer::Done);
    assert_eq!(decide(waiting, clock::HeldVerdict::End), HeldAnswer::NotHeld);
    assert!(bench.write(move |tx| tasks::first_queued(tx, asking)).is_some());
    assert_eq!(decide(&id, clock::HeldVerdict::End), HeldAnswer::Done);
    assert_eq!(decide(&id, clock::HeldVerdict::Release), HeldAnswer::HadEnded(TaskState::InfrastructureFail));
    assert_eq!(decide(&TaskId::new("no-task").unwrap(), clock::HeldVerdict::End), HeldAnswer::Unknown);
    assert_eq!(bench.jobs(&workflow), "build=infrastructure_fail test=queued");
}

#[test]
fn what_was_given_back_goes_to_another_runner_while_there_is_one() {
    let bench = Bench::new();
    let workflow = bench.pipeline(1, "x", &config("    jobs: [build]\n"), 0).remove(0);
    let next = |others| {
        let asking = Asking { class: "a/b", runner: "one", takes: &[TaskKind::Machine], now: Millis(MINUTE) };
        for (name, takes) in others {
            bench.write(move |tx| scene::insert_runner(tx, name, takes, Millis(MINUTE)));
        }
        bench.write(move |tx| Ok((tasks::first_queued(tx, asking)?, tasks::next_claimable_at(tx, asking)?)))
    };
    bench.write(|tx| {
        let request = GiveBack {
            task_id: claim_one(tx, 0)?,
            task_token: Secret::new("t"),
            reason: GiveBackReason::Host,
            message: Some("no space".to_owned()),
            pause_seconds: 300,
        };
        assert_eq!(task::give_back(tx, &request, Millis(0))?, Ok(GivenBack::Queued));
        assert_eq!(task::give_back(tx, &request, Millis(1))?, Ok(GivenBack::Queued), "the same answer again");
        Ok(())
    });
    // Nobody else is there but one that takes no such task: it goes to the same runner.
    let found = next([("one", TaskKind::Machine), ("pods", TaskKind::Container)]).0.unwrap();
    assert_eq!((found.attempt, found.given_back_by_hosts, found.given_back_by_runners), (2, 1, 0));
    let (found, again_at) = next([("one", TaskKind::Machine), ("two", TaskKind::Machine)]);
    assert!(found.is_none());
    assert_eq!(again_at, Some(Millis(5 * MINUTE)));
    assert_eq!(bench.jobs(&workflow), "build=queued");
}

/// Whether a runner gets something.
fn is_offered(bench: &Bench, now: u64) -> bool {
    let takes = &[TaskKind::Machine];
    let asking = Asking { class: "a/b", runner: "two", takes, now: Millis(now) };
    bench.write(move |tx| Ok(tasks::first_queued(tx, asking)?.is_some()))
}

/// A workflow whose job has begun, and a rerun of it beside that.
fn beside() -> (Bench, [String; 2]) {
    let bench = Bench::new();
    let first = bench.pipeline(1, "x", &config("    jobs: [build]\n"), 0).remove(0);
    bench.begin_build(&first, 0);
    let second = bench.rerun(&first, RerunScope::All).unwrap();
    assert!(is_offered(&bench, 0), "the runner of the first one is heard of");
    (bench, [first, second])
}

fn cancel_in_silence(bench: &Bench, workflow: &str) {
    let id = workflow.to_owned();
    bench.tick(2 * MINUTE);
    bench.write(move |tx| cancel_workflow(tx, &id.into(), None, Millis(2 * MINUTE)));
}

const FENCE: u64 = MINUTE + BUDGET.as_millis() as u64 + FENCE_MARGIN.as_millis() as u64;

#[test]
fn a_fence_keeps_what_was_queued_before_it_stood() {
    let (bench, [first, second]) = beside();
    cancel_in_silence(&bench, &first);
    assert!(!is_offered(&bench, 2 * MINUTE) && bench.messages(&second).contains("release-anyway"));
    bench.tick(FENCE);
    assert!(!is_offered(&bench, FENCE));
    bench.tick(FENCE + 1);
    assert!(is_offered(&bench, FENCE + 1));
}

#[test]
fn a_further_attempt_waits_for_a_fence_that_stands_by_then() {
    let (bench, [first, second]) = beside();
    let id = bench.write(move |tx| {
        let id = scene::task(tx, &second.into(), "build")?;
        let mut hand = InHand::find(tx, &id)?.unwrap();
        let (allocation, runner) = ("another".to_owned(), "two".to_owned());
        let claim =
            Claim { allocation, runner, machine: None, protocol: 2, budget: BUDGET, retries_unsafely: false };
        hand.task.claim(claim, false, LEASE, LONGEST_BEGIN, Millis(2 * MINUTE)).unwrap();
        hand.write(tx, Millis(2 * MINUTE))?;
        Ok(id)
    });
    cancel_in_silence(&bench, &first);
    let answer = bench.write(move |tx| {
        let (task_token, message) = (Secret::new("t"), None);
        let request =
            GiveBack { task_id: id, task_token, reason: GiveBackReason::Host, message, pause_seconds: 0 };
        task::give_back(tx, &request, Millis(2 * MINUTE))
    });
    assert_eq!(answer, Ok(GivenBack::Queued));
    assert!(!is_offered(&bench, 2 * MINUTE));
    bench.tick(FENCE + 1);
    assert!(is_offered(&bench, FENCE + 1));
}

#[test]
fn a_rerun_that_somebody_wants_whatever_runs_waits_for_no_fence_of_that() {
    let bench = Bench::new();
    let first = bench.pipeline(1, "x", &config("    jobs: [build]\n"), 0).remove(0);
    bench.begin_build(&first, 0);
    bench.tick(2 * MINUTE);
    let id = first.clone();
    let forced = bench
        .write(move |tx| rerun_anyway(tx, &id.into(), &RerunScope::All, None, Millis(2 * MINUTE)))
        .unwrap();
    cancel_in_silence(&bench, &first);
    assert!(is_offered(&bench, 2 * MINUTE));
    bench.end(forced.as_str(), "build", TaskState::Success, 2 * MINUTE);
    // Nobody said so of the next one.
    bench.rerun(forced.as_str(), RerunScope::All).unwrap();
    assert!(!is_offered(&bench, 2 * MINUTE));
}

#[test]
fn a_rerun_of_a_rerun_names_what_is_unreachable_in_the_first_run() {
    let (bench, [first, second]) = beside();
    bench.end(&second, "build", TaskState::Failed, 1);
    bench.tick(2 * MINUTE);
    let named = RerunRefused::Unreachable(vec!["build".to_owned()]);
    for scope in [RerunScope::All, RerunScope::Failed] {
        assert_eq!(bench.rerun(&second, scope), Err(named.clone()), "{first}");
    }
}

#[test]
fn the_wait_for_a_fence_that_begins_anew_is_as_long_as_the_fence() {
    let (bench, [first, second]) = beside();
    cancel_in_silence(&bench, &first);
    let [fence, wait] = bench.write(move |tx| {
        let class = classes::list_classes(tx)?.remove(0).id;
        fleet::set_wait_limit(tx, &class, Some(LEASE))?;
        clock::rebase_once(tx, LEASE, Millis(2 * HOUR))?;
        let fenced = InHand::find(tx, &scene::task(tx, &first.into(), "build")?)?.unwrap();
        let waits = InHand::find(tx, &scene::task(tx, &second.into(), "build")?)?.unwrap();
        Ok([fenced.row.fence_until, waits.row.not_before])
    });
    assert_eq!((fence, wait), (Some(Millis(2 * HOUR + FENCE)), fence));
}

#[test]
fn a_task_is_changed_as_it_is_by_then() {
    let bench = Bench::new();
    bench.pipeline(1, "x", &config("    jobs: [build]\n"), 0);
    let changed = bench.write(|tx| {
        let row = tasks::open(tx)?.remove(0);
        task::each(tx, [row.clone(), row], Millis(1), |task| task.cancel(Millis(1)))
    });
    assert_eq!(changed, 1, "it ends once");
}
