//! Workflows driven by hand on a real database: tasks end when the test says so.
#![expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]

use super::*;
use crate::config;
use crate::protocol::TaskId;
use crate::server::engine::commit::task::InHand;
use crate::server::engine::results::wrong_results;
use crate::server::engine::task::{Claim, FinishReport, LONGEST_BEGIN};
use crate::server::ids::JobId;
use crate::server::store::status::TaskState;
use crate::server::store::tables::projects::ensure_project;
use crate::server::store::{Store, new_id, scene};
use std::time::Duration;

pub(super) const HOUR: u64 = 60 * 60 * 1000;
pub(super) const LEASE: Duration = Duration::from_secs(60);
pub(super) const BUDGET: Duration = Duration::from_secs(300);

pub(super) struct Bench {
    store: Store,
    _dir: tempfile::TempDir,
}

impl Bench {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), false, |_| ()).unwrap();
        let bench = Self { store, _dir: dir };
        bench.write(|tx| {
            ensure_project(tx, "gh/acme/app", None, Millis(0))?;
            scene::insert_class(tx)
        });
        bench
    }

    pub(super) fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> T {
        let done = self.store.write_blocking(work).unwrap();
        let wrong = self.store.read_blocking(|view| {
            let mut wrong = Vec::new();
            wrong_results(view, &mut wrong).map(|()| wrong)
        });
        assert_eq!(wrong.unwrap(), []);
        done
    }

    /// A pipeline of the workflows in the config. Returns the ids of the workflows.
    pub(super) fn pipeline(&self, number: i64, branch: &str, text: &str, now: u64) -> Vec<String> {
        let compiled = config::probe::compile_text(text).map_err(|errors| errors.to_string()).unwrap();
        let branch = branch.to_owned();
        self.write(move |tx| {
            let project = scene::project(tx)?;
            let pipeline = scene::insert_pipeline(tx, number, &branch, Millis(now))?;
            let mut ids = Vec::new();
            for workflow in &compiled.workflows {
                let made = create_workflow(
                    tx,
                    &pipeline,
                    &project,
                    workflow,
                    false,
                    &Routing::default(),
                    Millis(now),
                )?;
                ids.push(made.into());
            }
            cancel_redundant(tx, &pipeline, Millis(now))?;
            Ok(ids)
        })
    }

    /// `name=status` of each job, in order.
    pub(super) fn jobs(&self, workflow: &str) -> String {
        let workflow = workflow.to_owned();
        self.write(move |tx| {
            let jobs = crate::server::store::tables::jobs::nodes(tx, &workflow.into())?;
            let jobs: Vec<_> = jobs.iter().map(|job| format!("{}={}", job.name, job.status)).collect();
            Ok(jobs.join(" "))
        })
    }

    pub(super) fn status(&self, workflow: &str) -> WorkflowStatus {
        let workflow = workflow.to_owned();
        self.write(move |tx| scene::workflow_status(tx, &workflow.into()))
    }

    /// Ends the waiting tasks of a job.
    pub(super) fn end(&self, workflow: &str, job: &str, state: TaskState, now: u64) {
        let (workflow, job) = (workflow.to_owned(), job.to_owned());
        self.write(move |tx| {
            let tasks = scene::unfinished_tasks(tx, &workflow.into(), &job)?;
            assert!(!tasks.is_empty(), "the job `{job}` has no task that waits");
            for task in tasks {
                run(tx, &task, state, now)?;
            }
            Ok(())
        });
    }

    pub(super) fn rerun(&self, workflow: &str, scope: RerunScope) -> Result<String, RerunRefused> {
        let workflow = workflow.to_owned();
        self.write(move |tx| rerun(tx, &workflow.into(), &scope, None, Millis(HOUR))).map(String::from)
    }

    /// The newest workflow made from this one.
    pub(super) fn next(&self, workflow: &str) -> Option<String> {
        let workflow = workflow.to_owned();
        self.write(move |tx| scene::rerun_of(tx, &workflow.into())).map(String::from)
    }

    pub(super) fn claims(&self) -> u64 {
        self.write(|tx| scene::keys_in_use(tx))
    }

    /// The task of the job `build` has begun.
    pub(super) fn begin_build(&self, workflow: &str, now: u64) -> TaskId {
        let workflow = workflow.to_owned();
        self.write(move |tx| {
            let id = scene::task(tx, &workflow.as_str().into(), "build")?;
            begun(tx, &id, now)?;
            Ok(id)
        })
    }

    pub(super) fn state(&self, id: &TaskId) -> TaskState {
        let id = id.clone();
        self.write(move |tx| Ok(InHand::find(tx, &id)?.unwrap().row.status))
    }

    pub(super) fn tick(&self, now: u64) -> usize {
        self.write(move |tx| clock::tick_once(tx, LEASE, Millis(now)))
    }

    pub(super) fn messages(&self, workflow: &str) -> String {
        let workflow = workflow.to_owned();
        self.write(move |tx| scene::messages(tx, &workflow.as_str().into()))
    }
}

/// Claims, begins and finishes a task that waits.
fn run(tx: &Tx<'_>, id: &TaskId, state: TaskState, now: u64) -> Result<(), Error> {
    begun(tx, id, now)?;
    let mut hand = InHand::find(tx, id)?.unwrap();
    let report = FinishReport { status: state, message: None, is_complete: true, overlooked: None };
    let then = hand.task.finish(&report, LEASE, Millis(now)).unwrap().then;
    hand.keep(tx, then, Millis(now))
}

/// Claims and begins a task that waits.
fn begun(tx: &Tx<'_>, id: &TaskId, now: u64) -> Result<(), Error> {
    let mut hand = InHand::find(tx, id)?.unwrap();
    let (allocation, runner) = ("allocation".to_owned(), "one".to_owned());
    let claim =
        Claim { allocation, runner, machine: None, protocol: 2, budget: BUDGET, retries_unsafely: false };
    hand.task.claim(claim, false, LEASE, LONGEST_BEGIN, Millis(now)).unwrap();
    let then = hand.task.begin("agent", LEASE, Millis(now)).unwrap().then;
    hand.keep(tx, then, Millis(now))
}

pub(super) fn config(workflow: &str) -> String {
    let jobs = ["build", "test", "deploy", "alert"]
        .map(|name| format!("  {name}: {{machine: true, resource_class: a/b, steps: [checkout]}}\n"));
    format!("version: 2.1\njobs:\n{}workflows:\n  main:\n{workflow}", jobs.concat())
}

pub(super) const CHAIN: &str = "    jobs:
      - build
      - test: {requires: [build]}
      - deploy: {requires: [test]}
      - alert: {requires: [{test: failed}]}
";

#[test]
fn a_rerun_from_failed_keeps_what_succeeded_and_decides_about_the_rest_again() {
    let bench = Bench::new();
    let first = bench.pipeline(1, "x", &config(CHAIN), 0).remove(0);
    assert_eq!(bench.rerun(&first, RerunScope::Failed), Err(RerunRefused::NotEnded));
    bench.end(&first, "build", TaskState::Success, 1);
    bench.end(&first, "test", TaskState::Failed, 2);
    bench.end(&first, "alert", TaskState::Success, 3);
    assert_eq!(bench.status(&first), WorkflowStatus::Failed);

    let second = bench.rerun(&first, RerunScope::Failed).unwrap();
    assert_eq!(bench.jobs(&second), "build=success test=queued deploy=blocked alert=blocked");
    bench.end(&second, "test", TaskState::Success, 4);
    bench.end(&second, "deploy", TaskState::Success, 5);
    assert_eq!(bench.jobs(&second), "build=success test=success deploy=success alert=not_run");
    assert_eq!(bench.status(&second), WorkflowStatus::Success);
    assert_eq!(bench.status(&first), WorkflowStatus::Failed);

    // Not run because its condition did not hold: nothing of it failed.
    let third = bench.rerun(&second, RerunScope::All).unwrap();
    assert_eq!(bench.jobs(&third), "build=queued test=blocked deploy=blocked alert=blocked");
    assert_eq!(bench.rerun(&new_id(), RerunScope::All), Err(RerunRefused::Unknown));
}

#[test]
fn chosen_jobs_run_again_with_what_depends_on_them() {
    let bench = Bench::new();
    let first = bench.pipeline(1, "x", &config(CHAIN), 0).remove(0);
    for job in ["build", "test", "deploy"] {
        bench.end(&first, job, TaskState::Success, 1);
    }
    assert_eq!(bench.rerun(&first, RerunScope::Failed), Err(RerunRefused::NothingFailed));
    let job = bench.write(|tx| scene::job(tx, "test"));
    let second = bench.rerun(&first, RerunScope::Jobs(vec![job])).unwrap();
    assert_eq!(bench.jobs(&second), "build=success test=queued deploy=blocked alert=blocked");
    let stranger = new_id();
    assert_eq!(
        bench.rerun(&first, RerunScope::Jobs(vec![stranger.clone().into()])),
        Err(RerunRefused::NoSuchJob(stranger.into()))
    );
}

#[test]
fn a_workflow_reruns_by_itself_as_often_as_it_says() {
    let bench = Bench::new();
    let text = config("    max_auto_reruns: 2\n    jobs: [build, test]\n");
    let first = bench.pipeline(1, "x", &text, 0).remove(0);
    bench.end(&first, "build", TaskState::Success, 1);
    bench.end(&first, "test", TaskState::Failed, 1);
    let second = bench.next(&first).unwrap();
    assert_eq!(bench.jobs(&second), "build=success test=queued");
    bench.end(&second, "test", TaskState::Failed, 2);
    let third = bench.next(&second).unwrap();
    bench.end(&third, "test", TaskState::Failed, 3);
    assert_eq!(bench.next(&third), None);

    // A manual rerun does not rerun by itself, and neither does what was cancelled.
    let manual = bench.rerun(&third, RerunScope::Failed).unwrap();
    bench.end(&manual, "test", TaskState::Failed, 4);
    assert_eq!(bench.next(&manual), None);
    let other = bench.pipeline(2, "x", &text, 0).remove(0);
    bench.end(&other, "build", TaskState::Failed, 1);
    let canceled = other.clone();
    bench.write(move |tx| cancel_workflow(tx, &canceled.into(), None, Millis(5)));
    assert_eq!((bench.status(&other), bench.next(&other)), (WorkflowStatus::Failed, None));
}

#[test]
fn nothing_is_rerun_without_end() {
    let bench = Bench::new();
    let first = bench.pipeline(1, "x", &config("    jobs: [build]\n"), 0).remove(0);
    for _ in 0..100 {
        bench.rerun(&first, RerunScope::All).unwrap();
    }
    assert_eq!(bench.rerun(&first, RerunScope::All), Err(RerunRefused::TooOften));
    let other = bench.pipeline(2, "x", &config("    jobs: [build]\n"), 0).remove(0);
    let late =
        bench.write(move |tx| rerun(tx, &other.into(), &RerunScope::All, None, Millis(91 * 24 * HOUR)));
    assert_eq!(late, Err(RerunRefused::TooOld));
}

const SERIAL: &str = "    jobs:
      - build
      - deploy: {requires: [build], serial-group: production}
      - test: {requires: [deploy]}
";

#[test]
fn a_serial_group_passes_on_in_order_of_arrival() {
    let bench = Bench::new();
    let workflows: Vec<_> =
        (1..=3).map(|number| bench.pipeline(number, "x", &config(SERIAL), 0).remove(0)).collect();
    for workflow in &workflows {
        bench.end(workflow, "build", TaskState::Success, 1);
    }
    assert_eq!(bench.status(&workflows[0]), WorkflowStatus::Running);
    assert_eq!(bench.status(&workflows[1]), WorkflowStatus::Queued);
    bench.end(&workflows[0], "deploy", TaskState::Failed, 2);
    // The oldest that waits goes on, and no other.
    assert_eq!(bench.status(&workflows[1]), WorkflowStatus::Running);
    assert_eq!(bench.status(&workflows[2]), WorkflowStatus::Queued);
    // A workflow that waits can be cancelled; it never holds the key.
    let third = workflows[2].clone();
    bench.write(move |tx| cancel_workflow(tx, &third.into(), None, Millis(3)));
    assert_eq!(bench.status(&workflows[2]), WorkflowStatus::Canceled);
    bench.end(&workflows[1], "deploy", TaskState::Success, 4);
    assert_eq!(bench.jobs(&workflows[1]), "build=success deploy=success test=queued");
    assert_eq!(bench.claims(), 0);
}

#[test]
fn an_older_pipeline_is_skipped_and_a_long_wait_ends() {
    let bench = Bench::new();
    let old = bench.pipeline(1, "x", &config(SERIAL), 0).remove(0);
    let new = bench.pipeline(2, "x", &config(SERIAL), 0).remove(0);
    bench.end(&new, "build", TaskState::Success, 1);
    bench.end(&old, "build", TaskState::Success, 2);
    assert_eq!(bench.jobs(&old), "build=success deploy=not_run test=not_run");

    let third = bench.pipeline(3, "x", &config(SERIAL), 0).remove(0);
    bench.end(&third, "build", TaskState::Success, 1);
    assert_eq!(bench.write(|tx| expire_waits_once(tx, Millis(5 * HOUR))), 0);
    assert_eq!(bench.write(|tx| expire_waits_once(tx, Millis(5 * HOUR + 2))), 1);
    assert_eq!(bench.jobs(&third), "build=success deploy=canceled test=not_run");
    assert_eq!(bench.status(&third), WorkflowStatus::Canceled);
    bench.end(&new, "deploy", TaskState::Success, 3);
    assert_eq!(bench.claims(), 0);
}

#[test]
fn what_has_not_ended_in_90_days_is_canceled() {
    let bench = Bench::new();
    let text = config("    jobs:\n      - hold: {type: approval}\n      - build: {requires: [hold]}\n");
    let forgotten = bench.pipeline(1, "x", &text, 0).remove(0);
    let recent = bench.pipeline(2, "x", &text, 24 * HOUR).remove(0);
    assert_eq!(bench.write(|tx| cancel_forgotten_once(tx, Millis(90 * 24 * HOUR))), 0);
    assert_eq!(bench.write(|tx| cancel_forgotten_once(tx, Millis(90 * 24 * HOUR + 1))), 1);
    assert_eq!(bench.status(&forgotten), WorkflowStatus::Canceled);
    assert_eq!(bench.jobs(&recent), "hold=on_hold build=blocked");
    // A clock that is set right makes all old; what runs was made just now.
    let runs = bench.pipeline(3, "x", &config("    jobs: [build]\n"), 0).remove(0);
    let of = runs.clone();
    bench.write(move |tx| {
        let tasks = scene::unfinished_tasks(tx, &of.into(), "build")?;
        tasks.iter().try_for_each(|task| begun(tx, task, 1))
    });
    assert_eq!(bench.write(|tx| cancel_forgotten_once(tx, Millis(90 * 24 * HOUR + 1))), 0);
    assert_eq!(bench.status(&runs), WorkflowStatus::Running);
}

#[test]
fn a_lock_is_held_over_a_job_group_and_given_back_whatever_happens() {
    let bench = Bench::new();
    let text = config("    jobs:\n      - ship: {serial-group: production}\n")
        + "job-groups:\n  ship:\n    jobs:\n      - deploy\n      - test: {requires: [deploy]}\n";
    let (one, two) = (bench.pipeline(1, "x", &text, 0).remove(0), bench.pipeline(2, "x", &text, 0).remove(0));
    assert_eq!(bench.status(&two), WorkflowStatus::Queued);
    bench.end(&one, "ship-deploy", TaskState::Failed, 1);
    assert_eq!(bench.status(&one), WorkflowStatus::Failed);
    assert_eq!(bench.status(&two), WorkflowStatus::Running);
    let second = two.clone();
    bench.write(move |tx| cancel_workflow(tx, &second.into(), None, Millis(2)));
    assert_eq!((bench.status(&two), bench.claims()), (WorkflowStatus::Canceled, 0));
    // The lock is taken again by a rerun, though it had succeeded.
    let again = bench.rerun(&one, RerunScope::Failed).unwrap();
    assert_eq!((bench.status(&again), bench.claims()), (WorkflowStatus::Running, 1));
}

#[test]
fn a_newer_pipeline_cancels_older_ones_of_its_branch_where_the_project_wants_it() {
    let bench = Bench::new();
    let text = config("    jobs: [build]\n");
    let before = bench.pipeline(1, "x", &text, 0).remove(0);
    bench.pipeline(2, "x", &text, 0);
    assert_eq!(bench.status(&before), WorkflowStatus::Running, "the setting is off");
    bench.write(scene::set_cancels_redundant);
    let other = bench.pipeline(3, "y", &text, 0).remove(0);
    let main = bench.pipeline(4, "main", &text, 0).remove(0);
    let again = bench.rerun(&other, RerunScope::All).unwrap();
    bench.pipeline(5, "main", &text, 0);
    bench.pipeline(6, "y", &text, 0);
    assert_eq!(bench.status(&before), WorkflowStatus::Running);
    assert_eq!(bench.status(&main), WorkflowStatus::Running, "never on the default branch");
    assert_eq!(bench.status(&other), WorkflowStatus::Canceled);
    assert_eq!(bench.status(&again), WorkflowStatus::Running, "reruns are exempt");
}

#[test]
fn one_job_can_be_cancelled_and_an_approval_refused() {
    let bench = Bench::new();
    let text = config(
        "    jobs:\n      - gate: {type: approval}\n      - build\n      - test: {requires: [gate]}\n      - alert: {requires: [{gate: canceled}]}\n",
    );
    let workflow = bench.pipeline(1, "x", &text, 0).remove(0);
    let gate = bench.write(|tx| scene::job(tx, "gate"));
    let again = gate.clone();
    assert_eq!(bench.write(move |tx| cancel_job(tx, &gate, None, Millis(1))), Canceled::Now);
    assert_eq!(bench.write(move |tx| cancel_job(tx, &again, None, Millis(1))), Canceled::HadEnded);
    assert_eq!(bench.jobs(&workflow), "gate=canceled build=queued test=not_run alert=queued");
    let unknown = bench.write(|tx| cancel_job(tx, &"no such job".into(), None, Millis(1)));
    assert_eq!(unknown, Canceled::Unknown);
    let build = bench.write(|tx| scene::job(tx, "build"));
    bench.write(move |tx| cancel_job(tx, &build, None, Millis(2)));
    bench.end(&workflow, "alert", TaskState::Success, 3);
    assert_eq!(bench.status(&workflow), WorkflowStatus::Canceled);
}

#[test]
fn an_approval_says_in_which_state_it_found_its_job() {
    let bench = Bench::new();
    let text = config(
        "    jobs:\n      - gate: {type: approval}\n      - build\n      - later: {type: approval, requires: [build]}\n      - never: {type: approval, requires: [gate: canceled]}\n",
    );
    let workflow = bench.pipeline(1, "x", &text, 0).remove(0);
    let approve_as = |workflow: &str, job: JobId| {
        let workflow = workflow.into();
        bench.write(move |tx| approve(tx, &workflow, &job, None, Millis(1)))
    };
    let approved = |name: &'static str| approve_as(&workflow, bench.write(move |tx| scene::job(tx, name)));
    assert_eq!(approved("later"), Approved::NotYet(JobStatus::Blocked));
    assert_eq!(approved("build"), Approved::NoApproval);
    assert_eq!(approve_as(&workflow, "no such job".into()), Approved::Unknown);
    let gate = bench.write(|tx| scene::job(tx, "gate"));
    assert_eq!(approve_as("another", gate), Approved::Unknown);
    assert_eq!((approved("gate"), approved("gate")), (Approved::Now, Approved::Before));
    assert_eq!(approved("never"), Approved::HadEnded(JobStatus::NotRun));
}
