//! Random interleavings of runners, agents, people, restarts, backups and clocks. After each event the machine must say
//! what the table says ([`model`]), and on the hosts nothing may run beside what it was replaced by.
//!
//! The same random numbers again: `RUNLET_SEED=N`.
#![expect(clippy::panic, reason = "a test that cannot go on should fail loudly")]

mod model;

use self::model::{BUDGET, LEASE, Model, No, Phase, Try};
use super::*;
use crate::server::engine::commit::clock::{Moment, was_listening};
use proptest::prelude::any;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeMap;

const INTERLEAVINGS: u32 = 10_000;
const LEASE_TIME: Duration = Duration::from_millis(LEASE);

/// A process on a host that got a task.
#[derive(Clone, Debug)]
struct Agent {
    /// Position of the attempt.
    attempt: usize,
    id: String,
    allocation: String,
    /// The last answer of the control plane, in real time.
    heard_at: u64,
    /// It got an answer to its begin and has not stopped its steps.
    works: bool,
    /// A dead process says nothing more.
    is_dead: bool,
    /// Runners of protocol 1 know of no budget.
    is_first_version: bool,
    /// A backup that does not know of its work was restored.
    is_overruled: bool,
}

impl Agent {
    /// Steps of it run at this time: an agent that hears nothing has stopped them when its budget is over.
    fn works_at(&self, real: u64) -> bool {
        self.works && !self.is_dead && !self.is_first_version && real < self.heard_at + BUDGET
    }
}

/// One attempt of one run.
#[derive(Clone, Debug)]
struct Attempt {
    /// A run is what a person started, or started again.
    run: usize,
    task: Task,
    model: Model,
    /// The agent whose begin was answered.
    begun_by: Option<String>,
    /// A person said that nothing of it runs.
    is_released: bool,
    /// It was restored, and what happened to it since the backup is forgotten.
    is_restored: bool,
}

/// Everything the control plane stores.
#[derive(Clone, Debug, Default)]
struct Stored {
    attempts: Vec<Attempt>,
    /// Runs beside those before: somebody insisted.
    forced: Vec<bool>,
}

struct World {
    /// Time as it passes on the hosts.
    real: u64,
    /// The clock of the control plane runs this much ahead.
    ahead: u64,
    passed: Option<Moment>,
    stored: Stored,
    backup: Option<Stored>,
    agents: Vec<Agent>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            real: 10_000_000_000,
            ahead: 1_000_000_000,
            passed: None,
            stored: Stored::default(),
            backup: None,
            agents: Vec::new(),
        };
        world.run(false);
        world
    }

    fn now(&self) -> Millis {
        Millis(self.real + self.ahead)
    }

    fn task(&mut self, at: usize) -> &mut Task {
        &mut self.stored.attempts[at].task
    }

    fn model(&mut self, at: usize) -> &mut Model {
        &mut self.stored.attempts[at].model
    }

    /// The newest attempt of the newest run.
    fn latest(&self) -> usize {
        let newest = self.stored.forced.len() - 1;
        self.stored.attempts.iter().rposition(|attempt| attempt.run == newest).unwrap_or(0)
    }

    /// The last fence that stands of the runs before.
    fn fence_before(&self, run: usize) -> Option<u64> {
        let before = self.stored.attempts.iter().filter(|attempt| attempt.run != run);
        before.filter_map(|attempt| attempt.model.fence).max()
    }

    /// A run, which waits for the fences of those before.
    fn run(&mut self, forced: bool) {
        let run = self.stored.forced.len();
        self.stored.forced.push(forced);
        let fence = self.fence_before(run);
        let (mut task, mut model) = (Task::fresh(), Model::new(BTreeMap::new()));
        assert_eq!(task.wait_for_fence(fence.map(Millis)), Vec::new());
        model.waits_for = fence;
        self.add(run, task, model);
    }

    fn add(&mut self, run: usize, task: Task, model: Model) {
        let (begun_by, is_released, is_restored) = (None, false, false);
        self.stored.attempts.push(Attempt { run, task, model, begun_by, is_released, is_restored });
    }

    /// A person runs it again: when it has ended, or insisting.
    fn rerun(&mut self, how: u8) {
        let latest = self.latest();
        let insists = how & 1 == 0;
        match self.model(latest).phase {
            Phase::Ended(..) => self.run(false),
            Phase::Unreachable if insists => self.run(true),
            _ => return,
        }
        if insists {
            for at in 0..self.stored.attempts.len() {
                self.release(at);
            }
        }
    }

    fn release(&mut self, at: usize) {
        let then = self.task(at).confirm_stopped();
        self.stored.attempts[at].is_released |= !then.is_empty();
        self.model(at).fence = None;
        self.follow(at, then);
    }

    /// Nothing works beside this attempt, as far as nobody overruled that.
    fn assert_alone(&self, attempt: usize) {
        let all = &self.stored.attempts;
        for agent in self.agents.iter().filter(|agent| agent.works_at(self.real) && !agent.is_overruled) {
            let Some(other) = all.get(agent.attempt) else { continue };
            let (first, last) = (other.run.min(all[attempt].run), other.run.max(all[attempt].run));
            let forced = self.stored.forced[first + 1..=last].contains(&true);
            let fine = agent.attempt == attempt || other.is_released || forced;
            assert!(fine, "{agent:?} works beside attempt {attempt} of {all:?}");
        }
    }

    /// Of an attempt that has ended without a fence nothing works, as far as nobody overruled that.
    fn assert_stopped(&self, at: usize) {
        let Attempt { model, is_released, .. } = &self.stored.attempts[at];
        if *is_released || model.fence.is_some() || !matches!(model.phase, Phase::Ended(..)) {
            return;
        }
        let works = |agent: &&Agent| agent.attempt == at && agent.works_at(self.real) && !agent.is_overruled;
        assert!(!self.agents.iter().any(|agent| works(&agent)), "works on: {:?}", self.stored.attempts[at]);
    }

    /// Carries out what follows from a change of an attempt, and compares it with the table.
    fn follow(&mut self, at: usize, then: Vec<Consequence>) {
        let again = std::mem::take(&mut self.model(at).again);
        let mut followed = false;
        for consequence in then {
            let Consequence::Again(next) = consequence else { continue };
            followed = true;
            let avoid = next.avoid.as_ref().map(|avoid| (avoid.runner.clone(), avoid.until.0));
            let model = self.model(at).next(avoid);
            let tries = |kind| model.tries.get(&kind).copied().unwrap_or(0);
            assert_eq!(
                (next.counts.by_runners, next.counts.by_hosts, next.counts.unsafe_retries),
                (tries(Try::Runner), tries(Try::Host), tries(Try::Unsafe))
            );
            // The attempt that ended is held no more, whatever its successor is.
            self.model(at).is_held = false;
            let (counts, is_held, avoid) = (next.counts, next.is_held, next.avoid);
            let run = self.stored.attempts[at].run;
            self.add(run, Task { counts, is_held, avoid, ..Task::fresh() }, model);
        }
        assert_eq!(followed, again, "a further attempt of {:?}", self.stored.attempts[at]);
        self.agree(at);
        self.assert_stopped(at);
        // Fences move and go: those that wait for them are told.
        for at in 0..self.stored.attempts.len() {
            let Attempt { run, model, .. } = &self.stored.attempts[at];
            if model.phase == Phase::Queued && model.waits_for.is_some() {
                let fence = self.fence_before(*run);
                let then = self.task(at).wait_for_fence(fence.map(Millis));
                assert!(then.len() <= 1 && !then.iter().any(|then| *then != Consequence::Released));
                self.model(at).waits_for = fence;
                self.agree(at);
            }
        }
    }

    fn agree(&mut self, at: usize) {
        let Attempt { task, model, .. } = &mut self.stored.attempts[at];
        model.agree(task);
    }

    /// One event. The first byte chooses what happens, the others to whom.
    fn happen(&mut self, [what, who, how]: [u8; 3]) {
        let at = usize::from(who) % self.stored.attempts.len();
        let agent = if self.agents.is_empty() { None } else { Some(usize::from(who) % self.agents.len()) };
        match what % 24 {
            0..=2 => self.pass(u64::from(how) * 1_000),
            3 => self.pass(u64::from(how) * 4_000),
            4..=6 => self.claim(who, how),
            7..=9 => self.begin(agent, how),
            10..=12 => self.call(agent, how),
            13 => self.give_back(agent, how),
            14 => self.finish(agent, how),
            15 => self.die(agent, how),
            16 => {
                let now = self.now();
                let then = self.task(at).cancel(now);
                self.model(at).cancel(now.0);
                self.follow(at, then);
            }
            17 => self.restart_host(how),
            18 => self.lose_time(how),
            19 => self.administrate(at, how),
            20 => self.administrate(self.latest(), how),
            21 => self.rerun(how),
            22 if how < 64 => self.backup = Some(self.stored.clone()),
            22 if how < 96 => self.restore(),
            _ => self.tick(),
        }
    }

    /// Down for a while, or the clock set: the sweep has to notice.
    fn lose_time(&mut self, how: u8) {
        let amount = u64::from(how) * 20_000;
        match how % 6 {
            0 => self.real += amount,
            1 => self.ahead += amount,
            2 => self.ahead = self.ahead.saturating_sub(amount),
            3 => {
                // Set again and again, each time by less than a pass of the sweep may take.
                for _ in 0..how % 16 {
                    self.real += 5_000;
                    self.ahead += 14_000;
                    self.tick();
                }
            }
            4 => self.ahead = self.ahead.saturating_sub(u64::from(how % 25) * 1_000),
            _ => self.real += 86_000_000 + amount,
        }
    }

    /// Time passes, and the sweep looks often enough.
    fn pass(&mut self, ms: u64) {
        let end = self.real + ms;
        while self.real < end {
            self.real = end.min(self.real + 18_000);
            self.tick();
        }
    }

    /// One turn of the sweep.
    fn tick(&mut self) {
        let now = self.now();
        let moment = Moment { at: now, steady: Duration::from_millis(self.real) };
        let listened = was_listening(self.passed, false, moment);
        self.passed = Some(moment);
        for at in 0..self.stored.attempts.len() {
            let then = if listened {
                self.model(at).tick(now.0);
                self.task(at).tick(LEASE_TIME, now)
            } else {
                self.model(at).rebase(now.0);
                self.task(at).rebase(LEASE_TIME, now);
                Vec::new()
            };
            self.follow(at, then);
        }
    }

    fn claim(&mut self, who: u8, how: u8) {
        let (at, now) = (usize::from(how) % self.stored.attempts.len(), self.now());
        let runner = format!("runner-{}", who % 3);
        let (others, is_first_version, retries) = (how & 2 == 0, how & 24 == 24, who & 4 == 0);
        let machine = (how & 1 == 0).then(|| Machine { id: runner.clone(), boot: "boot".into() });
        let allocation = format!("allocation-{}", self.agents.len());
        let protocol = if is_first_version { 1 } else { 2 };
        let expected = self.model(at).may_claim(&runner, others, now.0);
        let claim = Claim {
            allocation: allocation.clone(),
            runner,
            machine,
            protocol,
            budget: Duration::from_millis(BUDGET),
            retries_unsafely: retries,
        };
        assert_eq!(self.task(at).claim(claim, others, LEASE_TIME, LONGEST_BEGIN, now).is_ok(), expected);
        if !expected {
            return;
        }
        self.model(at).claim(is_first_version, retries, now.0);
        self.agent(at, allocation, is_first_version);
        // The answer is lost now and then, and the same task is handed out again: two agents have it.
        if how & 4 == 0 {
            let allocation = format!("allocation-{}", self.agents.len());
            assert_eq!(self.task(at).claim_again(&allocation, LEASE_TIME, now), ClaimedAgain::Again);
            assert!(self.model(at).claim_again(now.0));
            self.agent(at, allocation, is_first_version);
        }
        self.follow(at, Vec::new());
    }

    fn agent(&mut self, attempt: usize, allocation: String, is_first_version: bool) {
        let (id, heard_at) = (format!("agent-{}", self.agents.len()), self.real);
        let (works, is_dead, is_overruled) = (false, false, false);
        let agent =
            Agent { attempt, id, allocation, heard_at, works, is_dead, is_first_version, is_overruled };
        self.agents.push(agent);
    }

    /// An agent that may speak, and its attempt. One whose attempt was forgotten hears so, and stops.
    fn speaker(&mut self, agent: Option<usize>) -> Option<(usize, usize)> {
        let agent = agent.filter(|agent| !self.agents[*agent].is_dead)?;
        let attempt = self.agents[agent].attempt;
        self.agents[agent].is_dead |= attempt >= self.stored.attempts.len();
        (attempt < self.stored.attempts.len()).then_some((agent, attempt))
    }

    /// An answer arrives, sooner or later.
    fn hears(&mut self, agent: usize, how: u8) {
        self.agents[agent].heard_at = self.real + u64::from(how) * 100;
    }

    fn begin(&mut self, agent: Option<usize>, how: u8) {
        let Some((agent, at)) = self.speaker(agent) else { return };
        let Agent { works, is_first_version, id, .. } = self.agents[agent].clone();
        // One that has stopped its steps does not begin again.
        if is_first_version || works && !self.agents[agent].works_at(self.real) {
            return;
        }
        let now = self.now();
        let begun = self.task(at).begin(&id, LEASE_TIME, now);
        let expected = self.model(at).begin(&id, now.0);
        assert_eq!(begun.as_ref().map(|_| ()).map_err(|no| No::from(*no)), expected);
        let Ok(step) = begun else {
            self.agents[agent].is_dead = true;
            return self.follow(at, Vec::new());
        };
        assert_eq!(step.answer, Taken { late: false, cancel: self.model(at).is_canceled });
        let attempt = &mut self.stored.attempts[at];
        let begun_by = attempt.begun_by.get_or_insert_with(|| id.clone());
        assert!(attempt.is_restored || *begun_by == id, "two agents have begun one attempt");
        self.follow(at, step.then);
        self.assert_alone(at);
        // Or the answer is lost, and it asks again.
        if how & 1 == 0 {
            self.agents[agent].works = true;
            self.hears(agent, how);
        }
    }

    fn call(&mut self, agent: Option<usize>, how: u8) {
        let Some((agent, at)) = self.speaker(agent) else { return };
        let call = match how % 4 {
            0 => Call::Heartbeat,
            1 => Call::Output { is_spin_up: how & 16 == 0 },
            2 => Call::Events { is_spin_up: how & 16 == 0 },
            _ => Call::Other,
        };
        let now = self.now();
        let called = self.task(at).call(call, LEASE_TIME, now);
        let expected = self.model(at).call(call, now.0);
        assert_eq!(called.as_ref().map(|step| step.answer.late).map_err(|no| No::from(*no)), expected);
        match called {
            Ok(step) => {
                assert_eq!(step.answer.cancel, self.model(at).is_canceled, "whether it hears of the cancel");
                self.agents[agent].works &= !step.answer.late;
                self.follow(at, step.then);
                if how & 32 == 0 && self.agents[agent].works_at(self.real) {
                    self.hears(agent, how);
                }
            }
            Err(_) => {
                self.agents[agent].works = false;
                self.follow(at, Vec::new());
            }
        }
    }

    fn give_back(&mut self, agent: Option<usize>, how: u8) {
        let Some((agent, at)) = self.speaker(agent) else { return };
        if self.agents[agent].works {
            return;
        }
        let reason = if how & 1 == 0 { GiveBackReason::Runner } else { GiveBackReason::Host };
        let returned = Returned { reason, message: "m", pause: Duration::from_secs(u64::from(how)) };
        let now = self.now();
        let given = self.task(at).give_back(&returned, now);
        let expected = self.model(at).give_back(reason, now.0);
        assert_eq!(given.as_ref().map(|step| step.answer).map_err(|no| No::from(*no)), expected);
        self.agents[agent].is_dead |= given.is_ok();
        self.follow(at, given.map(|step| step.then).unwrap_or_default());
    }

    fn finish(&mut self, agent: Option<usize>, how: u8) {
        let Some((agent, at)) = self.speaker(agent) else { return };
        if !self.agents[agent].works && !self.agents[agent].is_first_version {
            return;
        }
        // It has stopped its steps before it says so.
        self.agents[agent].works = false;
        let status =
            [TaskState::Success, TaskState::Failed, TaskState::InfrastructureFail][usize::from(how % 3)];
        let now = self.now();
        let finished = self.task(at).finish(status, None, now);
        let expected = self.model(at).finish(status, now.0);
        assert_eq!(finished.as_ref().map(|step| step.answer).map_err(|no| No::from(no.answer)), expected);
        self.follow(at, finished.map(|step| step.then).unwrap_or_else(|no| no.then));
    }

    /// An agent dies; its runner may see that and say so.
    fn die(&mut self, agent: Option<usize>, how: u8) {
        let Some((agent, at)) = self.speaker(agent) else { return };
        self.agents[agent].is_dead = true;
        // Another agent of the same claim is another runner's business: it says nothing for it.
        let alone = !self.agents.iter().any(|other| other.attempt == at && other.works_at(self.real));
        if how & 1 == 0 && alone {
            let now = self.now();
            let claim = self.task(at).claim_of().map(|claim| claim.allocation.clone());
            let allocation = self.agents[agent].allocation.clone();
            let (lost, expected) = if claim.as_ref() == Some(&allocation) {
                (
                    self.task(at).lost(Some(&allocation), "gone", now),
                    self.model(at).lost(EndedBy::Lost, now.0),
                )
            } else {
                (self.task(at).lost(Some(&allocation), "gone", now), Err(No::AnotherAllocation))
            };
            assert_eq!(lost.as_ref().map(|_| ()).map_err(|no| No::from(*no)), expected);
            self.follow(at, lost.unwrap_or_default());
        }
    }

    /// A host starts again: everything on it is gone, and its runner says so with its next claim.
    fn restart_host(&mut self, how: u8) {
        let (machine, now) = (format!("runner-{}", how % 3), self.now());
        for at in 0..self.stored.attempts.len() {
            let claim = self.task(at).claim_of();
            if claim.and_then(|claim| claim.machine.as_ref()).is_none_or(|known| known.id != machine) {
                continue;
            }
            self.agents.iter_mut().filter(|agent| agent.attempt == at).for_each(|agent| agent.is_dead = true);
            let then = self.task(at).host_restarted(now);
            let _ = self.model(at).lost(EndedBy::HostRestart, now.0);
            self.follow(at, then);
        }
    }

    /// The database of the last backup takes the place of this one, and the control plane starts with it.
    fn restore(&mut self) {
        let Some(backup) = self.backup.clone() else { return };
        self.stored = backup;
        self.passed = None;
        for attempt in &mut self.stored.attempts {
            attempt.is_restored = true;
            attempt.task.hold();
            attempt.model.hold();
        }
        for agent in &mut self.agents {
            let known = self.stored.attempts.get(agent.attempt);
            // What runs for a task that had not begun, has ended or is not there is forgotten: administrators answer
            // for it.
            let phase = known.map(|attempt| &attempt.model.phase);
            agent.is_overruled |= !matches!(phase, Some(Phase::Running | Phase::Unreachable));
        }
        self.tick();
    }

    fn administrate(&mut self, at: usize, how: u8) {
        let now = self.now();
        let then = match how % 8 {
            0..=2 => {
                self.model(at).release(now.0);
                self.task(at).release(LEASE_TIME, now)
            }
            3 => {
                self.model(at).end_held(now.0);
                self.task(at).end_held(now)
            }
            4 => {
                self.model(at).withhold(EndedBy::ClassDeleted, now.0);
                self.task(at).class_deleted("a/b", now)
            }
            5 => {
                self.model(at).withhold(EndedBy::HandOut, now.0);
                self.task(at).refuse(TaskState::Failed, "why", now)
            }
            _ => return self.release(at),
        };
        self.follow(at, then);
    }

    /// In the end every attempt is replaced or the newest of its run, and what waits can be claimed.
    fn assert_nothing_is_stuck(&mut self) {
        for at in 0..self.stored.attempts.len() {
            let now = self.now();
            let then = self.task(at).release(LEASE_TIME, now);
            self.model(at).release(now.0);
            self.follow(at, then);
        }
        // Long enough for every lease, budget and fence, wherever the clock stood when they were given.
        self.ahead += 10_000_000;
        self.tick();
        self.pass(600_000);
        let now = self.now();
        let attempts = self.stored.attempts.clone();
        for (at, attempt) in attempts.iter().enumerate() {
            let followed = attempts[at + 1..].iter().any(|later| later.run == attempt.run);
            let retried = matches!(attempt.model.phase, Phase::Ended(TaskState::Retried, _));
            assert_eq!(retried, followed, "attempt {at} of {attempts:?}");
            if attempt.task.state == State::Queued {
                assert_eq!(attempt.task.claimable("runner-0", false, now), Ok(()), "alone in its class");
                let later = Millis(now.0 + 10_000_000);
                assert_eq!(attempt.task.claimable("runner-0", true, later), Ok(()), "when the pause is over");
            }
        }
    }
}

fn seed() -> u64 {
    let given = std::env::var("RUNLET_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| Millis::now().0)
}

#[test]
fn whatever_happens_in_whatever_order_the_table_holds() {
    let seed = seed();
    println!("RUNLET_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: INTERLEAVINGS, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let interleaving = proptest::collection::vec(any::<[u8; 3]>(), 0..80);
    let held = runner.run(&interleaving, |events| {
        let mut world = World::new();
        for event in events {
            world.happen(event);
        }
        world.assert_nothing_is_stuck();
        Ok(())
    });
    if let Err(error) = held {
        panic!("RUNLET_SEED={seed}: {error}");
    }
}
