//! The world of the tests: what the control plane stores, what runs on hosts, and what may happen to both.

use super::model::{BUDGET, Follows, LEASE, Model, Phase, Try, WAIT};
use crate::server::engine::commit::clock::{Moment, was_listening};
use crate::server::engine::task::{Consequence, Stage, Task, WaitTerms};
use crate::server::store::status::{EndedBy, TaskState};
use crate::server::time::Millis;
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) const LEASE_TIME: Duration = Duration::from_millis(LEASE);

/// A process on a host that got a task.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    /// Position of the attempt.
    pub(super) attempt: usize,
    pub(super) id: String,
    pub(super) allocation: String,
    /// The last answer of the control plane, in real time.
    pub(super) heard_at: u64,
    /// Whether it got an answer to its begin and has not stopped its steps.
    pub(super) works: bool,
    /// Whether the process is dead: it says nothing more.
    pub(super) is_dead: bool,
    /// Whether its runner is one of protocol 1, which knows of no budget.
    pub(super) is_first_version: bool,
    /// Whether a backup was restored that does not know of its work.
    pub(super) is_overruled: bool,
}

impl Agent {
    /// Steps of it run at this time: an agent that hears nothing has stopped them when its budget is over.
    pub(super) fn works_at(&self, real: u64) -> bool {
        self.works && !self.is_dead && !self.is_first_version && real < self.heard_at + BUDGET
    }
}

/// An attempt of a run.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// Number of the run, which is what a person started, or started again.
    pub(super) run: usize,
    pub(super) task: Task,
    pub(super) model: Model,
    /// The agent whose begin was answered.
    pub(super) begun_by: Option<String>,
    /// Whether a person said that nothing of it runs.
    pub(super) is_released: bool,
    /// Whether it was restored: what happened to it since the backup is forgotten.
    pub(super) is_restored: bool,
}

/// The database of the control plane.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    pub(super) attempts: Vec<Attempt>,
    /// Whether a run may run beside those before, by its number: somebody insisted.
    pub(super) forced: Vec<bool>,
    /// The class of all attempts.
    pub(super) class: WorldClass,
}

/// The name of the class.
const CLASS: &str = "a/b";

/// The class that all attempts wait in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WorldClass {
    /// Whether the class is deleted.
    pub(super) is_gone: bool,
    /// Whether its runners get no tasks.
    pub(super) is_paused: bool,
    /// Whether tasks wait in it for a limited time.
    pub(super) is_limited: bool,
}

pub(super) struct World {
    /// Time as it passes on the hosts.
    pub(super) real: u64,
    /// Time by which the clock of the control plane runs ahead.
    pub(super) ahead: u64,
    pub(super) passed: Option<Moment>,
    pub(super) stored: Stored,
    pub(super) backup: Option<Stored>,
    pub(super) agents: Vec<Agent>,
}

impl World {
    pub(super) fn new() -> Self {
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

    pub(super) fn now(&self) -> Millis {
        Millis(self.real + self.ahead)
    }

    /// An attempt as it is loaded: whether its class is there is looked up each time.
    pub(super) fn task(&mut self, at: usize) -> &mut Task {
        let task = &mut self.stored.attempts[at].task;
        task.gone_class = self.stored.class.is_gone.then(|| CLASS.to_owned());
        task
    }

    pub(super) fn model(&mut self, at: usize) -> &mut Model {
        let model = &mut self.stored.attempts[at].model;
        model.is_class_gone = self.stored.class.is_gone;
        model
    }

    /// The newest attempt of the newest run.
    pub(super) fn latest(&self) -> usize {
        let newest = self.stored.forced.len() - 1;
        self.stored.attempts.iter().rposition(|attempt| attempt.run == newest).unwrap_or(0)
    }

    /// The last fence that stands of the runs before.
    pub(super) fn fence_before(&self, run: usize) -> Option<u64> {
        let before = self.stored.attempts.iter().filter(|attempt| attempt.run != run);
        before.filter_map(|attempt| attempt.model.fence).max()
    }

    /// A run, which waits for the fences of those before.
    pub(super) fn run(&mut self, forced: bool) {
        let run = self.stored.forced.len();
        self.stored.forced.push(forced);
        let (fence, now) = (self.fence_before(run), self.now());
        let (task, mut model) = (Task::first(fence.map(Millis), now), Model::new(BTreeMap::new(), now.0));
        model.waits_for = fence;
        self.add(run, task, model);
    }

    pub(super) fn add(&mut self, run: usize, task: Task, model: Model) {
        let (begun_by, is_released, is_restored) = (None, false, false);
        self.stored.attempts.push(Attempt { run, task, model, begun_by, is_released, is_restored });
    }

    /// A person runs it again: when it has ended, or insisting.
    pub(super) fn rerun(&mut self, how: u8) {
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

    pub(super) fn release(&mut self, at: usize) {
        let then = self.task(at).confirm_stopped();
        self.stored.attempts[at].is_released |= !then.is_empty();
        self.model(at).release_fence();
        self.follow(at, then);
    }

    /// No agent works beside this attempt, unless somebody overruled that.
    pub(super) fn assert_alone(&self, attempt: usize) {
        let all = &self.stored.attempts;
        for agent in self.agents.iter().filter(|agent| agent.works_at(self.real) && !agent.is_overruled) {
            let Some(other) = all.get(agent.attempt) else { continue };
            let (first, last) = (other.run.min(all[attempt].run), other.run.max(all[attempt].run));
            let forced = self.stored.forced[first + 1..=last].contains(&true);
            let fine = agent.attempt == attempt || other.is_released || forced;
            assert!(fine, "{agent:?} works beside attempt {attempt} of {all:?}");
        }
    }

    /// No agent works on an attempt that has ended without a fence, unless somebody overruled that.
    pub(super) fn assert_stopped(&self, at: usize) {
        let Attempt { model, is_released, .. } = &self.stored.attempts[at];
        if *is_released || model.fence.is_some() || !matches!(model.phase, Phase::Ended(..)) {
            return;
        }
        let works = |agent: &&Agent| agent.attempt == at && agent.works_at(self.real) && !agent.is_overruled;
        assert!(!self.agents.iter().any(|agent| works(&agent)), "works on: {:?}", self.stored.attempts[at]);
    }

    /// Every end that is not that of the job's own commands comes with a sentence, and says so where somebody cancelled.
    fn assert_told(&self, at: usize, then: &[Consequence]) {
        let Stage::Ended(end) = &self.stored.attempts[at].task.state else { return };
        let Some(told) = then.iter().find_map(|consequence| match consequence {
            Consequence::Ended(message) => Some(message.as_deref().unwrap_or_default()),
            _ => None,
        }) else {
            return;
        };
        let says = |consequence: &Consequence| match consequence {
            Consequence::Say(_) => true,
            Consequence::Again(next) => next.why.is_some(),
            _ => false,
        };
        let is_fine = match end.status {
            TaskState::Success => true,
            TaskState::Failed if end.by == EndedBy::Finish => true,
            TaskState::Retried => then.iter().any(says),
            // An agent that has heard of the cancel has words of its own.
            TaskState::Canceled if end.by == EndedBy::Finish => !told.is_empty(),
            TaskState::Canceled if end.by != EndedBy::Administrator => told.contains("cancel"),
            _ => !told.is_empty(),
        };
        assert!(is_fine, "{end:?} with {then:?}");
    }

    /// Carries out what follows from a change of an attempt, and compares it with the table.
    pub(super) fn follow(&mut self, at: usize, then: Vec<Consequence>) {
        let follows: Vec<Follows> = then.iter().map(Follows::from).collect();
        assert_eq!(follows, std::mem::take(&mut self.model(at).then), "{:?}", self.stored.attempts[at]);
        self.assert_told(at, &then);
        for consequence in then {
            let Consequence::Again(next) = consequence else { continue };
            let now = self.now();
            let model = self.model(at).next(now.0);
            let tries = |kind| model.tries.get(&kind).copied().unwrap_or(0);
            assert_eq!(
                (next.counts.by_runners, next.counts.by_hosts, next.counts.unsafe_retries),
                (tries(Try::Runner), tries(Try::Host), tries(Try::Unsafe))
            );
            // The attempt that ended is held no more, whatever its successor is.
            self.model(at).is_held = false;
            let run = self.stored.attempts[at].run;
            self.add(run, Task::further(&next, now), model);
            self.agree(self.stored.attempts.len() - 1);
        }
        self.agree(at);
        self.assert_stopped(at);
        // Fences move and go: those that wait for them are told.
        for at in 0..self.stored.attempts.len() {
            let Attempt { run, model, .. } = &self.stored.attempts[at];
            if model.phase == Phase::Queued && model.waits_for.is_some() {
                let (fence, now) = (self.fence_before(*run), self.now());
                let then = self.task(at).wait_for_fence(fence.map(Millis), now);
                let then: Vec<Follows> = then.iter().map(Follows::from).collect();
                self.model(at).wait_for(fence, now.0);
                assert_eq!(then, std::mem::take(&mut self.model(at).then));
                self.agree(at);
            }
        }
    }

    pub(super) fn agree(&mut self, at: usize) {
        let Attempt { task, model, .. } = &mut self.stored.attempts[at];
        model.agree(task);
    }

    /// Lets an event happen. The first byte chooses which, the others to whom.
    pub(super) fn happen(&mut self, [what, who, how]: [u8; 3]) {
        let at = usize::from(who) % self.stored.attempts.len();
        let agent = if self.agents.is_empty() { None } else { Some(usize::from(who) % self.agents.len()) };
        match what % 39 {
            0..=2 => self.pass(u64::from(how) * 1_000),
            3 => self.pass(u64::from(how) * 4_000),
            4..=6 => self.claim(usize::from(how) % self.stored.attempts.len(), who, how),
            7..=9 => self.begin(agent, how),
            10..=12 => self.call(agent, how),
            13 => self.give_back(agent, how),
            14 if how >= 160 => self.stopped(agent),
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
            23 => self.claim_again(at),
            24 => self.refuse(agent),
            25..=32 => self.go_on(who, how),
            33 => {
                self.backup = Some(self.stored.clone());
                self.restore();
                self.administrate(self.latest(), how);
            }
            34 => self.meet_bad_hosts(how),
            35 => self.change_class(how),
            36 => self.ask_what_to_run(agent),
            37 => self.send_the_rest(agent, how),
            _ => self.tick(),
        }
    }

    /// Down for a while, or the clock set: the sweep has to notice.
    pub(super) fn lose_time(&mut self, how: u8) {
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
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.real + ms;
        while self.real < end {
            self.real = end.min(self.real + 18_000);
            self.tick();
        }
    }

    /// Lets the sweep look once.
    pub(super) fn tick(&mut self) {
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
            if listened && self.stored.class.is_limited {
                let WorldClass { is_paused, .. } = self.stored.class;
                let terms = WaitTerms { class: CLASS, limit: Some(Duration::from_millis(WAIT)), is_paused };
                let then = self.task(at).waited_too_long(&terms, now);
                if !is_paused {
                    self.model(at).waits(now.0);
                }
                self.follow(at, then);
            }
        }
    }

    /// An administrator deletes the class or makes it again, pauses it or lets it go on, limits waits or does not.
    pub(super) fn change_class(&mut self, how: u8) {
        let WorldClass { is_gone, is_paused, is_limited } = self.stored.class;
        let now = self.now();
        match how % 4 {
            _ if is_gone => self.stored.class = WorldClass::default(),
            0 => {
                self.stored.class = WorldClass { is_gone: true, ..WorldClass::default() };
                for at in 0..self.stored.attempts.len() {
                    let then = self.task(at).class_deleted(CLASS, now);
                    self.model(at).withhold(EndedBy::ClassDeleted, now.0);
                    self.follow(at, then);
                }
            }
            1 | 2 if is_paused => {
                self.stored.class.is_paused = false;
                for at in 0..self.stored.attempts.len() {
                    self.task(at).waits_anew(now);
                    self.model(at).resume(now.0);
                    self.follow(at, Vec::new());
                }
            }
            1 => self.stored.class.is_paused = true,
            _ if is_limited => self.stored.class.is_limited = false,
            _ => {
                self.stored.class.is_limited = true;
                for at in 0..self.stored.attempts.len() {
                    self.task(at).waits_anew(now);
                    self.model(at).resume(now.0);
                    self.follow(at, Vec::new());
                }
            }
        }
    }

    /// The database of the last backup takes the place of this one, and the control plane starts with it.
    pub(super) fn restore(&mut self) {
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
            // Agents of a task that waits, has ended or is not there are forgotten: administrators answer for it.
            let phase = known.map(|attempt| &attempt.model.phase);
            agent.is_overruled |=
                !matches!(phase, Some(Phase::Claimed | Phase::Running | Phase::Unreachable));
        }
        self.tick();
    }

    pub(super) fn administrate(&mut self, at: usize, how: u8) {
        let now = self.now();
        // A claimed attempt of a backup that is released or withheld ends without a fence.
        if matches!(how % 8, 0..=2 | 5) {
            self.overrule_claimed(at, None);
        }
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
                self.task(at).class_deleted(CLASS, now)
            }
            5 => {
                self.model(at).withhold(EndedBy::HandOut, now.0);
                self.task(at).refuse(TaskState::Failed, "why", now)
            }
            _ => return self.release(at),
        };
        self.follow(at, then);
    }

    /// Somebody decides about an attempt that has not begun, as a backup says. Agents of it that work are forgotten, but this
    /// one.
    pub(super) fn overrule_claimed(&mut self, at: usize, but: Option<usize>) {
        let attempt = &self.stored.attempts[at];
        if !attempt.is_restored || attempt.model.phase != Phase::Claimed {
            return;
        }
        for (number, agent) in self.agents.iter_mut().enumerate() {
            agent.is_overruled |= agent.attempt == at && Some(number) != but;
        }
    }

    /// In the end every attempt is replaced or the newest of its run, and what waits can be claimed.
    pub(super) fn assert_nothing_is_stuck(&mut self) {
        self.stored.class = WorldClass::default();
        for at in 0..self.stored.attempts.len() {
            self.overrule_claimed(at, None);
            let now = self.now();
            let then = self.task(at).release(LEASE_TIME, now);
            self.model(at).release(now.0);
            self.follow(at, then);
        }
        // Long enough for every lease, budget and fence, wherever the clock stood when they were given.
        self.tick();
        self.pass(600_000);
        let now = self.now();
        let attempts = self.stored.attempts.clone();
        for (at, attempt) in attempts.iter().enumerate() {
            let followed = attempts[at + 1..].iter().any(|later| later.run == attempt.run);
            let retried = matches!(attempt.model.phase, Phase::Ended(TaskState::Retried, _));
            assert_eq!(retried, followed, "attempt {at} of {attempts:?}");
            if attempt.task.state == Stage::Queued {
                assert_eq!(attempt.task.claimable("runner-0", false, now), Ok(()), "alone in its class");
                let later = attempt.task.avoid.as_ref().map_or(now, |avoid| avoid.until);
                assert_eq!(attempt.task.claimable("runner-0", true, later), Ok(()), "when the pause is over");
            }
        }
    }
}
