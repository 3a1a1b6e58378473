//! Agreement of the machine with the statements of the store: attempts as rows, tasks that are due, the answer to
//! a task that comes back, a finish of which nothing was looked at.
#![expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]

use crate::protocol::{
    FinishAnswer, FinishRequest, GiveBack, GiveBackReason, GivenBack, Secret, TaskId, TaskKind, TaskStatus,
};
use crate::server::engine::commit::task::{self, FoundOutputs, InHand};
use crate::server::engine::commit::{clock, queue};
use crate::server::engine::task::{Avoid, Claim, Counts, LONGEST_BEGIN, NextAttempt, Task, WaitTerms};
use crate::server::store::read;
use crate::server::store::status::{EndedBy, JobStatus, TaskState};
use crate::server::store::tables::projects::ensure_project;
use crate::server::store::tables::tasks::{self, Place, TaskRow};
use crate::server::store::tables::{classes, fleet, steps};
use crate::server::store::{Error, Store, Tx, scene};
use crate::server::time::Millis;
use proptest::prelude::*;
use std::cell::Cell;
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(60);

/// A store with one task, which has ended.
fn store() -> (tempfile::TempDir, Store, TaskId) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db"), false, |_| ()).unwrap();
    let id = store.write_blocking(|tx| {
        ensure_project(tx, "gh/acme/app", None, Millis(0))?;
        scene::insert_class(tx)?;
        scene::insert_ended_task(tx)
    });
    (folder, store, id.unwrap())
}

/// Adds a further attempt at the node of a task, as the machine says.
fn insert(tx: &Tx<'_>, of: &TaskRow, task: &Task) -> Result<TaskRow, Error> {
    let place = Place { kind: TaskKind::Container, ..Place::after(of) };
    scene::reopen_job(tx)?;
    tasks::insert(tx, place, &task.initial(), Millis(7))?;
    Ok(tasks::open(tx)?.remove(0))
}

/// A further attempt at the node of a task, claimed at 8 ms.
fn claimed(tx: &Tx<'_>, of: &TaskId) -> Result<TaskId, Error> {
    let row = insert(tx, &tasks::find(tx, of)?.unwrap(), &Task::first(None, Millis(7)))?;
    claim(tx, row)
}

/// Claims an attempt at 8 ms.
fn claim(tx: &Tx<'_>, row: TaskRow) -> Result<TaskId, Error> {
    let (id, mut hand) = (row.id.clone(), InHand::of(row)?);
    let claim = Claim {
        allocation: "allocation".to_owned(),
        runner: "r".to_owned(),
        machine: None,
        protocol: 2,
        budget: Duration::from_secs(300),
        retries_unsafely: false,
    };
    hand.task.claim(claim, false, LEASE, LONGEST_BEGIN, Millis(8)).unwrap();
    hand.write(tx, Millis(8))?;
    Ok(id)
}

/// The host of a task cannot work.
fn given_back(task_id: TaskId) -> GiveBack {
    let (task_token, reason) = (Secret::new("t"), GiveBackReason::Host);
    GiveBack { task_id, task_token, reason, message: None, pause_seconds: 0 }
}

#[test]
fn an_attempt_begins_as_the_machine_says() {
    let next = NextAttempt {
        counts: Counts { by_runners: 1, by_hosts: 2, unsafe_retries: 3 },
        avoid: Some(Avoid { runner: "r".to_owned(), until: Millis(9) }),
        is_held: true,
        why: None,
    };
    for task in [
        Task::first(None, Millis(6)),
        Task::first(Some(Millis(8)), Millis(7)),
        Task::further(&next, Millis(7)),
    ] {
        let (_folder, store, id) = store();
        let expected = task.clone();
        let row = store.write_blocking(move |tx| insert(tx, &tasks::find(tx, &id)?.unwrap(), &task)).unwrap();
        assert_eq!(Task::of(&row).unwrap(), expected);
        assert_eq!((row.attempt, row.kind, row.queued_at), (2, TaskKind::Container, Millis(7)));
    }
}

#[test]
fn people_read_of_a_fence_until_it_is_gone_whatever_the_clock_says() {
    let (_folder, store, id) = store();
    let told = store.write_blocking(move |tx| {
        let row = insert(tx, &tasks::find(tx, &id)?.unwrap(), &Task::first(Some(Millis(8)), Millis(7)))?;
        let mut job = read::job(tx, &row.job)?.unwrap();
        job.status = JobStatus::Queued;
        read::explain_waiting(tx, &mut job, Millis(1_000_000))?;
        Ok(job.messages)
    });
    let told = told.unwrap();
    let expected =
        "not before about 1970-01-01T00:00:00.008Z: the runner that had it before may still be at work";
    assert_eq!(told.last().map(|told| told.message.as_str()), Some(expected), "{told:?}");
}

#[test]
fn people_read_why_an_attempt_came_back_until_a_further_one_begins() {
    let (_folder, store, id) = store();
    let told = store.write_blocking(move |tx| {
        let told = |tx: &Tx<'_>, status: JobStatus| {
            let mut job = read::job(tx, &tasks::find(tx, &id)?.unwrap().job)?.unwrap();
            (job.status, job.messages) = (status, Vec::new());
            read::explain_waiting(tx, &mut job, Millis(20_000))?;
            Ok::<_, Error>(job.messages.iter().filter(|told| told.message.contains("held by pid 7")).count())
        };
        let first = claimed(tx, &id)?;
        let back = GiveBack { message: Some("held by pid 7".to_owned()), ..given_back(first) };
        assert!(task::give_back(tx, &back, Millis(9))?.is_ok());
        let queued = told(tx, JobStatus::Queued)?;
        let next = claim(tx, tasks::open(tx)?.remove(0))?;
        // The job runs where another node of it does.
        let taken = (told(tx, JobStatus::Queued)?, told(tx, JobStatus::Running)?);
        let mut hand = InHand::find(tx, &next)?.unwrap();
        let then = hand.task.begin("agent", LEASE, Millis(10)).unwrap().then;
        hand.keep(tx, then, Millis(10))?;
        Ok((queued, taken, told(tx, JobStatus::Running)?))
    });
    assert_eq!(told.unwrap(), (1, (1, 1), 0));
}

#[test]
fn a_row_that_has_ended_without_a_cause_or_a_time_is_damage() {
    let (_folder, store, id) = store();
    let row = store.read_blocking(|view| tasks::find(view, &id)).unwrap().unwrap();
    assert!(Task::of(&row).is_ok());
    assert!(Task::of(&TaskRow { ended_by: None, ..row.clone() }).is_err());
    assert!(Task::of(&TaskRow { stopped_at: None, ..row }).is_err());
}

#[test]
fn whatever_time_changes_is_due() {
    let (_folder, store, id) = store();
    let state = prop_oneof![
        Just(TaskState::Queued),
        Just(TaskState::Claimed),
        Just(TaskState::Running),
        Just(TaskState::Unreachable),
        Just(TaskState::Canceled),
    ];
    let time = || 0..400_u64;
    let times = (time(), time(), prop::option::of(time()), time());
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    proptest!(ProptestConfig::with_cases(500), |(state in state, (lease, begin, fence, now) in times, (is_held, is_canceled) in flags)| {
        let id = id.clone();
        let (is_due, says) = store.write_blocking(move |tx| {
            let mut row = tasks::find(tx, &id)?.unwrap();
            let has_ended = state == TaskState::Canceled;
            (row.status, row.is_held, row.is_canceled) = (state, is_held && !has_ended, is_canceled);
            (row.allocation, row.runner_name) = (Some("a".to_owned()), Some("r".to_owned()));
            (row.protocol, row.budget_ms) = (Some(2), Some(0));
            // Fences are half a minute and the budget after the lease.
            (row.lease_until, row.begin_until) = (Some(Millis(lease * 1000)), None);
            row.begin_ms = Some(0);
            if state == TaskState::Claimed {
                row.begin_until = Some(Millis(begin * 1000));
            }
            row.unreachable_since = Some(Millis(0));
            row.stopped_at = has_ended.then_some(Millis(0));
            row.ended_by = has_ended.then_some(EndedBy::Cancel);
            row.fence_until = fence.filter(|_| has_ended).map(|fence| Millis(fence * 1000));
            tasks::update(tx, &row)?;
            let now = Millis(now * 1000);
            let is_due = tasks::due(tx, now)?.iter().any(|due| due.id == row.id);
            Ok((is_due, !Task::of(&row)?.tick(LEASE, now).is_empty()))
        }).unwrap();
        // A task that stays unreachable is looked at in every pass.
        prop_assert!(is_due == says || is_due && state == TaskState::Unreachable, "{is_due} {says}");
    });
}

#[test]
fn whatever_has_waited_too_long_is_found() {
    let (_folder, store, id) = store();
    let state = prop_oneof![4 => Just(TaskState::Queued), 1 => Just(TaskState::Claimed), 1 => Just(TaskState::Canceled)];
    let times = (0..300_u64, prop::option::weighted(0.9, 0..200_u64), 0..600_u64);
    let flags = (prop::bool::weighted(0.1), prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    let seen = [Cell::new(0), Cell::new(0)];
    proptest!(ProptestConfig::with_cases(500), |(state in state, (since, limit, now) in times, (is_held, is_fenced, is_paused) in flags)| {
        let id = id.clone();
        let (is_found, says) = store.write_blocking(move |tx| {
            let mut row = tasks::find(tx, &id)?.unwrap();
            let has_ended = state == TaskState::Canceled;
            (row.status, row.is_held) = (state, is_held && !has_ended);
            (row.allocation, row.runner_name) = (Some("a".to_owned()), Some("r".to_owned()));
            (row.protocol, row.budget_ms) = (Some(2), Some(0));
            (row.lease_until, row.begin_until, row.begin_ms) = (Some(Millis(0)), Some(Millis(0)), Some(0));
            row.stopped_at = has_ended.then_some(Millis(0));
            row.ended_by = has_ended.then_some(EndedBy::Cancel);
            row.not_before = is_fenced.then_some(Millis(0));
            row.waits_since = Millis(since * 1000);
            tasks::update(tx, &row)?;
            let (now, limit) = (Millis(now * 1000), limit.map(Duration::from_secs));
            let class = classes::list_classes(tx)?.remove(0);
            fleet::set_wait_limit(tx, &class.id, limit)?;
            fleet::pause_class(tx, &class.id, is_paused)?;
            let is_found = fleet::overdue(tx, now)?.iter().any(|found| found.row.id == row.id);
            let terms = WaitTerms { class: &class.name, limit, is_paused };
            Ok((is_found, !Task::of(&row)?.waited_too_long(&terms, now).is_empty()))
        }).unwrap();
        prop_assert_eq!(is_found, says);
        seen[usize::from(says)].update(|count| count + 1);
    });
    assert!(seen.iter().all(|count| count.get() > 30), "{seen:?}");
}

/// The times at which something that was kept from runners could be claimed, and what its wait is counted from.
#[test]
fn a_wait_begins_anew_when_a_class_goes_on_and_when_runners_could_not_be_heard() {
    let (_folder, store, id) = store();
    let since = store.write_blocking(move |tx| {
        let task = insert(tx, &tasks::find(tx, &id)?.unwrap(), &Task::first(None, Millis(7)))?.id;
        let since = |tx: &Tx<'_>| Ok::<_, Error>(tasks::find(tx, &task)?.unwrap().waits_since.0);
        let class = classes::list_classes(tx)?.remove(0).id;
        let mut seen = vec![since(tx)?];
        clock::rebase_once(tx, LEASE, Millis(8))?;
        seen.push(since(tx)?);
        fleet::set_wait_limit(tx, &class, Some(LEASE))?;
        clock::rebase_once(tx, LEASE, Millis(9))?;
        seen.push(since(tx)?);
        queue::waits_anew(tx, "a/b", Millis(10))?;
        seen.push(since(tx)?);
        assert_eq!(
            (fleet::pause_class(tx, &class, false)?, fleet::pause_class(tx, &class, true)?),
            (false, true)
        );
        assert_eq!(
            (fleet::pause_class(tx, &class, true)?, fleet::pause_class(tx, &class, false)?),
            (false, true)
        );
        Ok(seen)
    });
    // Without a limit nobody asks for the time, and nothing is written.
    assert_eq!(since.unwrap(), [7, 7, 9, 10]);
}

#[test]
fn a_limit_that_is_given_after_an_outage_does_not_count_it() {
    let (_folder, store, id) = store();
    let since = store.write_blocking(move |tx| {
        let task = insert(tx, &tasks::find(tx, &id)?.unwrap(), &Task::first(None, Millis(7)))?.id;
        let class = classes::list_classes(tx)?.remove(0).id;
        clock::rebase_once(tx, LEASE, Millis(8))?;
        let mut seen = Vec::new();
        for (limit, now) in [(Some(LEASE), 9), (Some(2 * LEASE), 10), (None, 11), (Some(LEASE), 12)] {
            queue::limit_waits(tx, (&class, "a/b"), limit, Millis(now))?;
            seen.push(tasks::find(tx, &task)?.unwrap().waits_since.0);
        }
        Ok(seen)
    });
    assert_eq!(since.unwrap(), [9, 9, 9, 12]);
}

#[test]
fn what_comes_back_to_a_class_that_is_gone_has_failed_however_often_it_is_said() {
    let (_folder, store, id) = store();
    let answers = store.write_blocking(move |tx| {
        let id = claimed(tx, &id)?;
        let request = given_back(id.clone());
        let mut answers = Vec::new();
        scene::rename_class(tx, "a/gone")?;
        answers.push(task::give_back(tx, &request, Millis(9))?);
        // There is one of that name again: the answer stays.
        scene::rename_class(tx, "a/b")?;
        answers.push(task::give_back(tx, &request, Millis(10))?);
        assert_eq!(tasks::open(tx)?.len(), 0, "nothing waits for ever");
        assert_eq!(tasks::find(tx, &id)?.unwrap().status, TaskState::Failed);
        Ok(answers)
    });
    assert_eq!(answers.unwrap(), [Ok(GivenBack::Failed), Ok(GivenBack::Failed)]);
}

#[test]
fn the_answer_to_what_came_back_stays_when_its_class_goes() {
    let (_folder, store, id) = store();
    let answers = store.write_blocking(move |tx| {
        let request = given_back(claimed(tx, &id)?);
        let first = task::give_back(tx, &request, Millis(9))?;
        scene::rename_class(tx, "a/gone")?;
        Ok([first, task::give_back(tx, &request, Millis(10))?])
    });
    assert_eq!(answers.unwrap(), [Ok(GivenBack::Queued), Ok(GivenBack::Queued)]);
}

/// A task that was stopped since nobody answered it says so when somebody does.
#[test]
fn a_failure_that_is_told_late_says_when_the_steps_had_ended() {
    for (after, is_said) in [(59_000, false), (61_000, true)] {
        let (_folder, store, id) = store();
        let told = store.write_blocking(move |tx| {
            let id = claimed(tx, &id)?;
            let mut hand = InHand::find(tx, &id)?.unwrap();
            hand.task.begin("agent", LEASE, Millis(8)).unwrap();
            hand.write(tx, Millis(8))?;
            let started = r#"{"number":0,"at_ms":8,"event":"step_started","step":1,"name":"s","kind":"run","attempt":1,"max_auto_reruns":0,"background":false}"#;
            let ended = r#"{"number":1,"at_ms":9,"event":"step_finished","step":1,"status":"infrastructure_fail","output_bytes":0}"#;
            for event in [started, ended] {
                steps::record(tx, &id, &serde_json::from_str(event).unwrap())?;
            }
            let request = FinishRequest {
                status: TaskStatus::InfrastructureFail,
                message: Some("no answer".to_owned()),
                events: 0,
                steps: Vec::new(),
            };
            let found = Some(FoundOutputs::default());
            assert_eq!(task::finish(tx, &id, &request, found, LEASE, Millis(9 + after))?, Ok(FinishAnswer::Confirmed));
            Ok(InHand::find(tx, &id)?.unwrap().row.message)
        });
        let told = told.unwrap().unwrap();
        let said = "no answer; the last of its steps had ended at 1970-01-01T00:00:00.009Z; told at 1970-01-01T00:01:01.009Z";
        assert_eq!(told.contains(said), is_said, "{told}");
    }
}

#[test]
fn a_finish_that_met_a_begin_is_said_again_since_no_output_was_looked_at() {
    let (_folder, store, id) = store();
    let answers = store.write_blocking(move |tx| {
        let id = claimed(tx, &id)?;
        let mut hand = InHand::find(tx, &id)?.unwrap();
        hand.task.begin("agent", LEASE, Millis(8)).unwrap();
        hand.write(tx, Millis(8))?;
        let request =
            FinishRequest { status: TaskStatus::Success, message: None, events: 0, steps: Vec::new() };
        let unseen = task::finish(tx, &id, &request, None, LEASE, Millis(9))?;
        let seen = task::finish(tx, &id, &request, Some(FoundOutputs::default()), LEASE, Millis(9))?;
        Ok([unseen, seen])
    });
    let incomplete = FinishAnswer::Incomplete { next_event: 0, steps: Vec::new() };
    assert_eq!(answers.unwrap(), [Ok(incomplete), Ok(FinishAnswer::Confirmed)]);
}
