//! Random stories of workflows on a database: pushes, reruns, cancels, approvals, runners, sweeps, restarts, restored backups,
//! classes that go. After each event the rows must agree with each other, nothing that has ended may have changed, and
//! nothing may be offered before the fence of what it replaces; in the end everything ends.
//!
//! The same random numbers again: `RUNLET_SEED=N`.
#![expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]

use super::tests::{BUDGET, HOUR, LEASE};
use super::*;
use crate::config;
use crate::protocol::{
    BeginRequest, FinishRequest, GiveBack, GiveBackReason, LostTask, Secret, TaskId, TaskKind, TaskStatus,
};
use crate::server::engine::commit::clock::HeldVerdict;
use crate::server::engine::commit::task::{FoundOutputs, InHand};
use crate::server::engine::results::wrong_results;
use crate::server::engine::task::{Call, Claim, LONGEST_BEGIN, Machine};
use crate::server::ids::JobId;
use crate::server::store::tables::projects::ensure_project;
use crate::server::store::tables::tasks::Asking;
use crate::server::store::tables::{classes, fleet};
use crate::server::store::{Store, inspect, new_id, scene};
use crate::system::seeded;
use proptest::prelude::any;
use proptest::test_runner::TestCaseError;
use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

const STORIES: u32 = 100;
const MINUTE: u64 = 60_000;

/// Workflows that meet at two keys: of jobs, of a lock that is given back, of one that the end of its workflow gives back.
const WORKFLOWS: [&str; 5] = [
    "      - build\n      - deploy: {requires: [build], serial-group: one}\n      - test: {requires: [deploy]}\n",
    "      - take\n      - deploy: {requires: [take], serial-group: one}\n      - give: {requires: [deploy]}\n      - test: {requires: [give]}\n",
    "      - take\n      - build: {requires: [take]}\n      - alert: {requires: [{build: [failed, canceled]}]}\n",
    "      - wide: {serial-group: two}\n      - gate: {type: approval, serial-group: one}\n      - test: {requires: [gate, wide]}\n",
    "      - build: {serial-group: two}\n      - deploy: {serial-group: two}\n      - wide: {requires: [deploy]}\n",
];

fn workflow(jobs: &str, max_auto_reruns: u32) -> Workflow {
    let names = ["build", "test", "deploy", "alert"]
        .map(|name| format!("  {name}: {{machine: true, resource_class: a/b, steps: [checkout]}}\n"));
    let reruns = match max_auto_reruns {
        0 => String::new(),
        most => format!("    max_auto_reruns: {most}\n"),
    };
    let text = format!(
        "version: 2.1\njobs:\n{}  wide: {{machine: true, resource_class: a/b, parallelism: 2, steps: [checkout]}}\n  take: {{type: lock, key: two}}\n  give: {{type: unlock, key: two}}\nworkflows:\n  main:\n{reruns}    jobs:\n{jobs}",
        names.concat()
    );
    let compiled = config::probe::compile_text(&text).map_err(|errors| errors.to_string()).unwrap();
    compiled.workflows.into_iter().next().unwrap()
}

/// A story as it is told: what there is so far, and what people know.
struct Story<'a> {
    tx: &'a Tx<'a>,
    workflows: &'a [Workflow],
    now: u64,
    pipelines: i64,
    boots: u32,
    /// Reruns that somebody wanted whatever the runs before were doing.
    forced: HashSet<WorkflowId>,
    ended: BTreeMap<String, String>,
}

impl Story<'_> {
    fn now(&self) -> Millis {
        Millis(self.now)
    }

    fn push(&mut self, how: u8) -> Result<(), Error> {
        self.pipelines += 1;
        let (tx, now) = (self.tx, self.now());
        let project = scene::project(tx)?;
        let branch = if how < 128 { "x" } else { "main" };
        let pipeline = scene::insert_pipeline(tx, self.pipelines, branch, now)?;
        scene::count_pipelines(tx)?;
        let workflow = &self.workflows[usize::from(how) % self.workflows.len()];
        create_workflow(tx, &pipeline, &project, workflow, false, &Routing::default(), now)?;
        cancel_redundant(tx, &pipeline, now)?;
        Ok(())
    }

    fn claim(&mut self, who: u8, how: u8) -> Result<(), Error> {
        let (tx, now) = (self.tx, self.now());
        let Some(class) = classes::list_classes(tx)?.into_iter().find(|class| class.name == "a/b") else {
            return Ok(());
        };
        let runner = format!("runner-{}", who % 3);
        if fleet::is_paused(tx, &class.id, &runner)? {
            return Ok(());
        }
        // Another runner is always there.
        scene::insert_runner(tx, "other", TaskKind::Machine, now)?;
        let asking = Asking { class: "a/b", runner: &runner, takes: &[TaskKind::Machine], now };
        let Some(row) = tasks::first_queued(tx, asking)? else { return Ok(()) };
        let mut hand = InHand::of(row)?;
        let machine = Machine { id: "machine".to_owned(), boot: format!("boot-{}", self.boots) };
        let claim = Claim {
            allocation: new_id(),
            runner,
            machine: (how < 128).then_some(machine),
            protocol: 2,
            budget: BUDGET,
            retries_unsafely: how % 4 == 0,
        };
        hand.task.claim(claim, true, LEASE, LONGEST_BEGIN, now).unwrap();
        hand.write(tx, now)
    }

    /// A runner or a task agent says something of a task, in time or not.
    fn tell(&mut self, id: TaskId, how: u8) -> Result<(), Error> {
        let (tx, now) = (self.tx, self.now());
        let Some(hand) = InHand::find(tx, &id)? else { return Ok(()) };
        let allocation = hand.row.allocation.clone();
        let finish = |status| {
            let request = FinishRequest { status, message: None, events: 0, steps: Vec::new() };
            task::finish(tx, &id, &request, Some(FoundOutputs::default()), LEASE, now).map(drop)
        };
        match how % 16 {
            // An agent is started by what has claimed the task.
            0..=4 if allocation.is_some() => {
                let agent = allocation.unwrap_or_default();
                let request = BeginRequest { agent, events: Vec::new(), spin_up: None };
                let _ = task::begin(tx, &id, &request, LEASE, now)?;
            }
            5 => drop(task::call(tx, &id, Call::Heartbeat, LEASE, now)?),
            6 | 7 => finish(TaskStatus::Success)?,
            8 => finish(TaskStatus::Failed)?,
            9 => finish(TaskStatus::InfrastructureFail)?,
            10 => drop(task::stopped(tx, &id, LEASE, now)?),
            11 | 12 if allocation.is_some() => {
                let reason = if how < 128 { GiveBackReason::Runner } else { GiveBackReason::Host };
                let (task_token, message) = (Secret::new("t"), None);
                let pause_seconds = u32::from(how % 3) * 100;
                let request = GiveBack { task_id: id, task_token, reason, message, pause_seconds };
                let _ = task::give_back(tx, &request, now)?;
            }
            13 if allocation.is_some() => {
                let message = "gone".to_owned();
                let _ = task::lost(tx, "a/b", &LostTask { id, allocation, message }, now)?;
            }
            14 => drop(task::fail(tx, &id, allocation.as_deref(), "why", now)?),
            _ => {}
        }
        Ok(())
    }

    fn rerun(&mut self, workflow: &WorkflowId, how: u8) -> Result<(), Error> {
        let (tx, now) = (self.tx, self.now());
        let job = jobs::nodes(tx, workflow)?.remove(0).id;
        let scope = [RerunScope::All, RerunScope::Failed, RerunScope::Jobs(vec![job])];
        let scope = &scope[usize::from(how) % 3];
        if how < 160 {
            drop(rerun(tx, workflow, scope, None, now)?);
        } else if let Ok(made) = rerun_anyway(tx, workflow, scope, None, now)? {
            self.forced.insert(made);
        }
        Ok(())
    }

    /// The sweep looks once, after whatever time has passed.
    fn sweep(&mut self) -> Result<(), Error> {
        let (tx, now) = (self.tx, self.now());
        expire_waits_once(tx, now)?;
        queue::waited_too_long(tx, now)?;
        cancel_forgotten_once(tx, now)?;
        clock::tick_once(tx, LEASE, now)?;
        Ok(())
    }

    fn change_class(&mut self, how: u8) -> Result<(), Error> {
        let (tx, now) = (self.tx, self.now());
        let class = classes::list_classes(tx)?.remove(0);
        match how % 5 {
            _ if class.name != "a/b" => scene::rename_class(tx, "a/b")?,
            0 => {
                scene::rename_class(tx, "a/gone")?;
                queue::class_deleted(tx, "a/b", now)?;
            }
            1 => drop(fleet::pause_class(tx, &class.id, true)?),
            2 => {
                if fleet::pause_class(tx, &class.id, false)? {
                    queue::waits_anew(tx, "a/b", now)?;
                }
            }
            _ => {
                let limit = (how % 2 == 0).then(|| Duration::from_millis(HOUR));
                queue::limit_waits(tx, (&class.id, &class.name), limit, now)?;
            }
        }
        Ok(())
    }

    /// Lets an event happen. The first byte chooses which, the others to whom and how.
    fn happen(&mut self, [what, who, how]: [u8; 3]) -> Result<(), Error> {
        let (tx, now) = (self.tx, self.now());
        let (jobs, all) = (scene::jobs_of_runs(tx)?, scene::tasks(tx)?);
        let task =
            (!all.is_empty()).then(|| all[all.len() - 1 - usize::from(who) % all.len().min(8)].clone());
        let job = (!jobs.is_empty()).then(|| jobs[jobs.len() - 1 - usize::from(who) % jobs.len()].clone());
        match (what % 32, task, job) {
            (0..=3, ..) => self.push(how)?,
            (4..=9, ..) => self.claim(who, how)?,
            (10..=17, Some(task), _) => self.tell(task, how)?,
            (18, _, Some(job)) => drop(cancel_workflow(tx, &job.run, None, now)?),
            (19, _, Some(job)) => drop(cancel_job(tx, &job.job, None, now)?),
            (20, _, Some(job)) => drop(approve(tx, &job.run, &job.job, None, now)?),
            (21 | 22, _, Some(job)) => self.rerun(&job.run, how)?,
            (23, _, Some(job)) => drop(task::release_anyway(tx, &job.job, now)?),
            (24, ..) => {
                self.boots += 1;
                let boot = format!("boot-{}", self.boots);
                task::host_restarted(tx, "a/b", "machine", &boot, "runner", now)?;
            }
            (25, ..) if how < 80 => drop(clock::hold_all(tx, now)?),
            (25 | 26, Some(task), _) => {
                let verdict = if how % 2 == 0 { HeldVerdict::Release } else { HeldVerdict::End };
                clock::decide_held(tx, &task, verdict, LEASE, now)?;
            }
            (27, ..) if how < 100 => self.change_class(who)?,
            (28, ..) => {
                self.now += u64::from(how) * 10 * MINUTE;
                clock::rebase_once(tx, LEASE, self.now())?;
            }
            (29, ..) => {
                self.now += u64::from(how) * 3 * MINUTE;
                self.sweep()?;
            }
            _ => {
                self.now += u64::from(how) * 1_000;
                self.sweep()?;
            }
        }
        self.check()
    }

    fn check(&mut self) -> Result<(), Error> {
        let mut faults = Vec::new();
        inspect::broken_rules(self.tx, &mut faults)?;
        wrong_results(self.tx, &mut faults)?;
        assert_eq!(faults, []);
        let ended = scene::ended(self.tx)?;
        for (row, end) in &self.ended {
            assert_eq!(ended.get(row), Some(end), "{row} changes after its end");
        }
        self.ended = ended;
        let jobs = scene::jobs_of_runs(self.tx)?;
        for job in &jobs {
            let same = jobs.iter().filter(|other| {
                other.job != job.job && other.root == job.root && other.name == job.name && other.is_fenced
            });
            let mut fences =
                same.filter(|other| !(self.forced.contains(&job.run) && other.position < job.position));
            let fence = fences.next();
            assert!(!job.is_offered || fence.is_none(), "{job:?} is offered before the fence of {fence:?}");
            assert!(!job.waits_for_fence || fence.is_some(), "{job:?} waits for no fence");
        }
        Ok(())
    }

    /// Lets everybody do what is to be done until nothing is left.
    fn assert_nothing_is_stuck(&mut self) -> Result<(), Error> {
        let tx = self.tx;
        let class = classes::list_classes(tx)?.remove(0);
        scene::rename_class(tx, "a/b")?;
        fleet::pause_class(tx, &class.id, false)?;
        for id in scene::tasks(tx)? {
            clock::decide_held(tx, &id, HeldVerdict::Release, LEASE, self.now())?;
        }
        for _ in 0..80 {
            if scene::unfinished_jobs(tx)?.is_empty() && scene::keys_in_use(tx)? == 0 {
                break;
            }
            for job in scene::unfinished_jobs(tx)? {
                let run = scene::run_of(tx, &job)?;
                let _ = approve(tx, &run, &job, None, self.now())?;
            }
            for runner in 0..9 {
                self.claim(runner, 1)?;
            }
            for row in tasks::open(tx)? {
                self.tell(row.id.clone(), 0)?;
                self.tell(row.id, 6)?;
            }
            self.now += 20 * MINUTE;
            self.sweep()?;
            self.check()?;
        }
        let unfinished: Vec<JobId> = scene::unfinished_jobs(tx)?;
        assert_eq!((unfinished, scene::keys_in_use(tx)?), (Vec::new(), 0), "what is left");
        Ok(())
    }
}

#[test]
fn whatever_happens_to_workflows_their_rows_agree_and_everything_ends() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db"), false, |_| ()).unwrap();
    store
        .write_blocking(|tx| {
            ensure_project(tx, "gh/acme/app", None, Millis(0))?;
            scene::insert_class(tx)?;
            scene::set_cancels_redundant(tx)
        })
        .unwrap();
    let numbered = WORKFLOWS.iter().zip([0, 2, 1, 0, 2]);
    let workflows: Arc<[Workflow]> = numbered.map(|(jobs, reruns)| workflow(jobs, reruns)).collect();
    let events = proptest::collection::vec(any::<[u8; 3]>(), 0..80);
    seeded::check_some(STORIES, &events, |events| {
        let workflows = Arc::clone(&workflows);
        // Each story is told in a transaction, of which nothing stays.
        let told = store.write_blocking(move |tx| {
            let mut story = Story {
                tx,
                workflows: &workflows,
                now: HOUR,
                pipelines: 0,
                boots: 0,
                forced: HashSet::new(),
                ended: BTreeMap::new(),
            };
            let told = catch_unwind(AssertUnwindSafe(|| {
                events.into_iter().try_for_each(|event| story.happen(event))?;
                story.assert_nothing_is_stuck()
            }));
            Err::<(), _>(match told {
                Ok(Ok(())) => Error::Closed,
                Ok(Err(error)) => error,
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                    Error::Corrupt(text.unwrap_or_default())
                }
            })
        });
        match told {
            Ok(()) | Err(Error::Closed) => Ok(()),
            Err(error) => Err(TestCaseError::fail(error.to_string())),
        }
    });
}
