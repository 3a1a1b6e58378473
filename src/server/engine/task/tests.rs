//! Random interleavings of runners, agents, people, restarts and clocks against a model that knows what really
//! happens on the hosts.
#![expect(clippy::panic, reason = "a test that cannot go on should fail loudly")]

use super::*;
use proptest::prelude::{Strategy, any};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

const LEASE: Duration = Duration::from_secs(60);
const BUDGET: Duration = Duration::from_secs(300);
const INTERLEAVINGS: u32 = 10_000;

/// A process on a host that got a task.
#[derive(Debug)]
struct Agent {
    /// Position of the attempt.
    attempt: usize,
    id: String,
    /// The last answer of the control plane, in real time.
    heard_at: u64,
    /// It got an answer to its begin and has not stopped its steps.
    works: bool,
    /// A dead process says nothing more.
    is_dead: bool,
}

impl Agent {
    /// Steps of it run at this time: an agent that hears nothing has stopped them when its budget is over.
    fn works_at(&self, real: u64) -> bool {
        self.works && !self.is_dead && real < self.heard_at + BUDGET.as_millis() as u64
    }
}

/// One attempt, and what the model knows of it.
#[derive(Debug)]
struct Attempt {
    task: Task,
    begun_by: Option<String>,
    /// Cancelled while it had not ended.
    is_canceled: bool,
    ended: Option<TaskState>,
    /// A person said that nothing of it runs.
    released_anyway: bool,
}

#[derive(Debug)]
struct World {
    /// Time as it passes on the hosts.
    real: u64,
    /// The clock of the control plane runs this much ahead.
    ahead: u64,
    /// The control plane has been away since its last pass, or its clock was set.
    was_deaf: bool,
    attempts: Vec<Attempt>,
    agents: Vec<Agent>,
    counts: Counts,
}

impl World {
    fn new(retries_unsafely: bool) -> Self {
        let task = Task { retries_unsafely, ..Task::fresh() };
        let mut world = Self {
            real: 10_000_000_000,
            ahead: 50_000_000,
            was_deaf: false,
            attempts: Vec::new(),
            agents: Vec::new(),
            counts: Counts::default(),
        };
        world.add(task);
        world
    }

    fn add(&mut self, task: Task) {
        let attempt =
            Attempt { task, begun_by: None, is_canceled: false, ended: None, released_anyway: false };
        self.attempts.push(attempt);
    }

    fn now(&self) -> Millis {
        Millis(self.real + self.ahead)
    }

    fn latest(&self) -> usize {
        self.attempts.len() - 1
    }

    /// Nothing of the attempts before this one works any more, as far as nobody overruled the fence.
    fn assert_alone(&self, attempt: usize) {
        for agent in &self.agents {
            let overruled = self.attempts[agent.attempt].released_anyway;
            assert!(
                overruled || agent.attempt == attempt || !agent.works_at(self.real),
                "{agent:?} works beside attempt {attempt}"
            );
        }
    }

    /// Carries out what follows from a change of an attempt, and checks it against the model.
    fn follow(&mut self, at: usize, then: Vec<Consequence>) {
        for consequence in then {
            match consequence {
                Consequence::Again(next) => {
                    assert_eq!(at, self.latest(), "only the newest attempt has a successor");
                    assert!(!self.attempts[at].is_canceled, "what was cancelled runs again");
                    assert_eq!(next.counts, self.counts, "counters");
                    let retries_unsafely = self.attempts[at].task.retries_unsafely;
                    self.add(Task {
                        counts: next.counts,
                        avoid: next.avoid,
                        not_before: next.not_before,
                        retries_unsafely,
                        ..Task::fresh()
                    });
                }
                Consequence::FenceGone if !self.attempts[at].released_anyway => {
                    for agent in self.agents.iter().filter(|agent| agent.attempt == at) {
                        assert!(!agent.works_at(self.real), "the fence is gone and {agent:?} works");
                    }
                }
                Consequence::Ended(_) => {
                    let State::Ended(end) = &self.attempts[at].task.state else { panic!("not ended") };
                    assert!(
                        !self.attempts[at].is_canceled || end.status == TaskState::Canceled,
                        "cancel is lost: {end:?}"
                    );
                    // What may take its place does so at once, or when the fence is gone.
                    if end.fence_until.is_none() && end.status != TaskState::Retried {
                        let working =
                            self.agents.iter().any(|agent| agent.attempt == at && agent.works_at(self.real));
                        assert!(!working || end.by == EndedBy::Finish, "ended without a fence: {end:?}");
                    }
                }
                _ => {}
            }
        }
        let attempt = &mut self.attempts[at];
        let ended = match &attempt.task.state {
            State::Ended(end) => Some(end.status),
            _ => None,
        };
        assert!(attempt.ended.is_none() || attempt.ended == ended, "an end has changed");
        attempt.ended = ended;
    }

    /// One event. The first byte chooses what happens, the others to whom.
    fn happen(&mut self, [what, who, how]: [u8; 3]) {
        let at = usize::from(who) % self.attempts.len();
        let agent = if self.agents.is_empty() { None } else { Some(usize::from(who) % self.agents.len()) };
        let before = lease(&self.attempts[at].task);
        let (mut touched, now) = (at, self.now());
        match what % 20 {
            0..=2 => self.pass(u64::from(how) * 1_000),
            3 => self.pass(u64::from(how) * 10_000),
            4 | 5 => self.claim(who, how),
            6..=8 => self.begin(agent, how),
            9..=11 => self.call(agent, how),
            12 => self.give_back(agent, how),
            13 => self.finish(agent, how),
            14 => self.die(agent, how),
            15 => {
                if !matches!(self.attempts[at].task.state, State::Ended(_)) {
                    self.attempts[at].is_canceled = true;
                }
                let then = self.attempts[at].task.cancel(now);
                self.follow(at, then);
            }
            16 => self.restart_host(how),
            17 => {
                // Down for a while, or the clock set: nobody looks at the clock before it was noticed.
                self.was_deaf = true;
                match how % 3 {
                    0 => self.real += u64::from(how) * 20_000,
                    1 => self.ahead += u64::from(how) * 60_000,
                    _ => self.ahead = self.ahead.saturating_sub(u64::from(how) * 60_000),
                }
            }
            18 => {
                touched = self.latest();
                self.administrate(touched, how);
            }
            _ => self.tick(),
        }
        if let (Some(before), Some(after)) = (before, lease(&self.attempts[at].task)) {
            assert!(after >= before, "a lease was shortened");
        }
        for at in [at, touched] {
            self.follow(at, Vec::new());
        }
    }

    /// Time passes, and the sweep looks often enough.
    fn pass(&mut self, ms: u64) {
        let end = self.real + ms;
        while self.real < end {
            self.real = end.min(self.real + 7_000);
            self.tick();
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        for at in 0..self.attempts.len() {
            if self.was_deaf {
                self.attempts[at].task.rebase(LEASE, now);
                continue;
            }
            let was_claimed = matches!(self.attempts[at].task.state, State::Claimed { .. });
            let was_begun = matches!(self.attempts[at].task.state, State::Unreachable { .. });
            let then = self.attempts[at].task.tick(LEASE, now);
            self.count(was_claimed, was_begun, GiveBackReason::Runner, &then);
            self.follow(at, then);
        }
        self.was_deaf = false;
    }

    /// Counts as the model does: every return before the begin, and every retry after it.
    fn count(&mut self, was_claimed: bool, was_begun: bool, reason: GiveBackReason, then: &[Consequence]) {
        let again = then.iter().any(|consequence| matches!(consequence, Consequence::Again(_)));
        if was_claimed && again {
            match reason {
                GiveBackReason::Runner => self.counts.by_runners += 1,
                GiveBackReason::Host => self.counts.by_hosts += 1,
            }
        } else if was_begun && again {
            self.counts.unsafe_retries += 1;
        }
        assert!(
            self.counts.by_runners <= MOST_GIVEN_BACK_BY_RUNNERS
                && self.counts.by_hosts <= MOST_GIVEN_BACK_BY_HOSTS
                && self.counts.unsafe_retries <= MOST_UNSAFE_RETRIES
        );
    }

    fn claim(&mut self, who: u8, how: u8) {
        let (at, now) = (self.latest(), self.now());
        let runner = format!("runner-{}", who % 3);
        let machine = (how & 1 == 0).then(|| Machine { id: runner.clone(), boot: "boot".into() });
        let allocation = format!("allocation-{}", self.agents.len());
        let claim = Claim { allocation, runner, machine, protocol: 2, budget: BUDGET };
        let task = &mut self.attempts[at].task;
        if task.claim(claim, how & 2 == 0, LEASE, now).is_ok() {
            assert_eq!(self.attempts[at].ended, None);
            self.agent(at);
            // The answer is lost now and then, and the same task is handed out again: two agents have it.
            if how & 4 == 0 {
                let again = self.attempts[at].task.claim_again("again", LEASE, now);
                assert_eq!(again, ClaimedAgain::Again);
                self.agent(at);
            }
        }
    }

    fn agent(&mut self, attempt: usize) {
        let id = format!("agent-{}", self.agents.len());
        let heard_at = self.real;
        self.agents.push(Agent { attempt, id, heard_at, works: false, is_dead: false });
    }

    /// An agent that may speak: what it belongs to.
    fn speaker(&self, agent: Option<usize>) -> Option<(usize, usize)> {
        agent.filter(|agent| !self.agents[*agent].is_dead).map(|agent| (agent, self.agents[agent].attempt))
    }

    fn begin(&mut self, agent: Option<usize>, how: u8) {
        let Some((agent, at)) = self.speaker(agent) else { return };
        // One that has stopped its steps does not begin again.
        if self.agents[agent].works && !self.agents[agent].works_at(self.real) {
            return;
        }
        let (id, now) = (self.agents[agent].id.clone(), self.now());
        match self.attempts[at].task.begin(&id, LEASE, now) {
            Ok(step) => {
                assert_eq!(at, self.latest(), "an attempt that was replaced has begun");
                let begun_by = self.attempts[at].begun_by.get_or_insert_with(|| id.clone());
                assert_eq!(*begun_by, id, "two agents have begun one attempt");
                self.assert_alone(at);
                self.follow(at, step.then);
                // Or the answer is lost, and it asks again.
                if how & 1 == 0 {
                    let agent = &mut self.agents[agent];
                    (agent.works, agent.heard_at) = (true, self.real);
                }
            }
            Err(_) => self.agents[agent].is_dead = true,
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
        match self.attempts[at].task.call(call, LEASE, now) {
            Ok(step) if step.answer.late => self.agents[agent].works = false,
            Ok(step) => {
                if self.attempts[at].is_canceled {
                    assert!(step.answer.cancel, "an agent does not hear of the cancel");
                }
                self.follow(at, step.then);
                if how & 32 == 0 && self.agents[agent].works_at(self.real) {
                    self.agents[agent].heard_at = self.real;
                }
            }
            Err(Refused::Ended { .. }) => self.agents[agent].works = false,
            Err(_) => {}
        }
    }

    fn give_back(&mut self, agent: Option<usize>, how: u8) {
        let Some((agent, at)) = self.speaker(agent) else { return };
        if self.agents[agent].works {
            return;
        }
        let reason = if how & 1 == 0 { GiveBackReason::Runner } else { GiveBackReason::Host };
        let returned = Returned { reason, message: "m", pause: Duration::from_secs(u64::from(how)) };
        let was_claimed = matches!(self.attempts[at].task.state, State::Claimed { .. });
        let now = self.now();
        if let Ok(step) = self.attempts[at].task.give_back(&returned, now) {
            assert!(self.attempts[at].begun_by.is_none(), "what has begun was given back");
            self.count(was_claimed, false, reason, &step.then);
            if step.answer == GivenBack::Failed && was_claimed {
                let most = match reason {
                    GiveBackReason::Runner => self.counts.by_runners == MOST_GIVEN_BACK_BY_RUNNERS,
                    GiveBackReason::Host => self.counts.by_hosts == MOST_GIVEN_BACK_BY_HOSTS,
                };
                assert!(most, "failed too early");
            }
            self.follow(at, step.then);
            self.agents[agent].is_dead = true;
        }
    }

    fn finish(&mut self, agent: Option<usize>, how: u8) {
        let Some((agent, at)) = self.speaker(agent) else { return };
        if !self.agents[agent].works {
            return;
        }
        // It has stopped its steps before it says so.
        self.agents[agent].works = false;
        let status = if how & 1 == 0 { TaskState::Success } else { TaskState::Failed };
        let now = self.now();
        let then = match self.attempts[at].task.finish(status, None, now) {
            Ok(step) => step.then,
            Err(refused) => {
                assert!(self.attempts[at].ended.is_some(), "{refused:?}");
                refused.then
            }
        };
        self.follow(at, then);
    }

    /// An agent dies; its runner may see that and say so.
    fn die(&mut self, agent: Option<usize>, how: u8) {
        let Some((agent, at)) = self.speaker(agent) else { return };
        self.agents[agent].is_dead = true;
        // Another agent of the same claim is another runner's business: it says nothing for it.
        let alone = !self.agents.iter().any(|other| other.attempt == at && other.works_at(self.real));
        if how & 1 == 0 && alone {
            let (was_claimed, was_begun) = standing(&self.attempts[at].task);
            let now = self.now();
            if let Ok(then) = self.attempts[at].task.lost(None, "gone", now) {
                self.count(was_claimed, was_begun, GiveBackReason::Runner, &then);
                self.follow(at, then);
            }
            assert_eq!(
                self.attempts[at].task.lost(Some("no such allocation"), "gone", now),
                Err(Refused::AnotherAllocation)
            );
        }
    }

    /// A host starts again: everything on it is gone, and its runner says so with its next claim.
    fn restart_host(&mut self, how: u8) {
        let machine = format!("runner-{}", how % 3);
        let now = self.now();
        for at in 0..self.attempts.len() {
            let claim = self.attempts[at].task.claim_of();
            if claim.and_then(|claim| claim.machine.as_ref()).is_none_or(|known| known.id != machine) {
                continue;
            }
            self.agents.iter_mut().filter(|agent| agent.attempt == at).for_each(|agent| agent.is_dead = true);
            let (was_claimed, was_begun) = standing(&self.attempts[at].task);
            let then = self.attempts[at].task.host_restarted(now);
            self.count(was_claimed, was_begun, GiveBackReason::Runner, &then);
            self.follow(at, then);
        }
    }

    fn administrate(&mut self, at: usize, how: u8) {
        let now = self.now();
        let task = &mut self.attempts[at].task;
        let then = match how % 8 {
            0 => {
                task.hold();
                Vec::new()
            }
            1..=3 => task.release(LEASE, now),
            4 => task.end_held(now),
            5 => task.class_deleted("a/b", now),
            6 => task.refuse(TaskState::Failed, "why", now),
            _ => {
                let then = task.confirm_stopped();
                self.attempts[at].released_anyway |= !then.is_empty();
                then
            }
        };
        self.follow(at, then);
    }

    /// In the end every attempt but the newest is replaced, and what waits can be claimed.
    fn assert_nothing_is_stuck(&mut self) {
        let now = self.now();
        let latest = self.latest();
        for (position, attempt) in self.attempts.iter_mut().enumerate() {
            let retried = attempt.ended == Some(TaskState::Retried);
            assert_eq!(retried, position < latest, "attempt {position}");
            if attempt.task.state == State::Queued {
                attempt.task.release(LEASE, now);
                let not_before = attempt.task.not_before.unwrap_or(now).max(now);
                assert_eq!(
                    attempt.task.claimable("runner-0", false, not_before),
                    Ok(()),
                    "alone in its class"
                );
                let later =
                    attempt.task.avoid.as_ref().map_or(not_before, |avoid| avoid.until.max(not_before));
                assert_eq!(attempt.task.claimable("runner-0", true, later), Ok(()), "when the pause is over");
            }
        }
    }
}

/// Whether it is claimed, and whether it has begun.
fn standing(task: &Task) -> (bool, bool) {
    let begun = matches!(task.state, State::Running(_) | State::Unreachable { .. });
    (matches!(task.state, State::Claimed { .. }), begun)
}

fn lease(task: &Task) -> Option<Millis> {
    match &task.state {
        State::Claimed { lease_until, .. } => Some(*lease_until),
        State::Running(work) | State::Unreachable { work, .. } => Some(work.lease_until),
        State::Queued | State::Ended(_) => None,
    }
}

/// The same random numbers again: `RUNLET_SEED=N`.
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
    let interleaving = proptest::collection::vec(any::<[u8; 3]>(), 0..80).prop_flat_map(|events| {
        any::<bool>().prop_map(move |retries_unsafely| (events.clone(), retries_unsafely))
    });
    let held = runner.run(&interleaving, |(events, retries_unsafely)| {
        let mut world = World::new(retries_unsafely);
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
