//! Deeds of runners and their agents in the world, as far as the control plane hears of it.

use super::model::{BUDGET, Phase};
use super::world::{Agent, LEASE_TIME, World};
use crate::protocol::GiveBackReason;
use crate::server::engine::task::LONGEST_BEGIN;
use crate::server::engine::task::{
    Call, Claim, ClaimedAgain, Denied, FinishReport, GivingBack, Machine, Passed, Unaccounted,
};
use crate::server::store::status::{EndedBy, TaskState};
use std::time::Duration;

impl World {
    /// The newest attempt goes a step further, to a failure of the infrastructure under it and a further attempt.
    pub(super) fn go_on(&mut self, who: u8, how: u8) {
        let at = self.latest();
        let newest = self.agents.iter().rposition(|agent| agent.attempt == at && !agent.is_dead);
        match self.model(at).phase {
            Phase::Queued => self.claim(at, who & !4, how & !24),
            Phase::Claimed => self.begin(newest, how & !1),
            Phase::Running | Phase::Unreachable => self.finish(newest, 2),
            Phase::Ended(..) => self.rerun(how),
        }
    }

    pub(super) fn claim(&mut self, at: usize, who: u8, how: u8) {
        // Nobody has a token of a class that is gone, and runners of one that is paused are given nothing.
        if self.stored.class.is_gone || self.stored.class.is_paused {
            return;
        }
        let now = self.now();
        let runner = format!("runner-{}", who % 3);
        let (others, is_first_version, retries) = (how & 2 == 0, how & 24 == 24, who & 4 == 0);
        let machine = (how & 1 == 0).then(|| Machine { id: runner.clone(), boot: "boot".into() });
        let allocation = format!("allocation-{}", self.agents.len());
        let protocol = if is_first_version { 1 } else { 2 };
        let expected = self.model(at).may_claim(&runner, others, now.0);
        let claim = Claim {
            allocation: allocation.clone(),
            runner: runner.clone(),
            machine,
            protocol,
            budget: Duration::from_millis(BUDGET),
            retries_unsafely: retries,
        };
        assert_eq!(self.task(at).claim(claim, others, LEASE_TIME, LONGEST_BEGIN, now), expected);
        if expected.is_err() {
            return;
        }
        self.model(at).claim(&runner, &allocation, is_first_version, retries, now.0);
        self.agent(at, allocation.clone(), is_first_version);
        // Two agents have the same token now and then.
        if how & 4 == 0 {
            self.agent(at, allocation, is_first_version);
        }
        self.follow(at, Vec::new());
    }

    /// The answer to a claim was lost, and the runner asks with the same nonce, or one call arrives twice: the token is
    /// the same.
    pub(super) fn claim_again(&mut self, at: usize) {
        let Some(claim) = self.task(at).claim_of() else { return };
        let (is_first_version, allocation) = (claim.protocol < 2, claim.allocation.clone());
        let now = self.now();
        let ended = matches!(self.model(at).phase, Phase::Ended(..));
        let expected = match self.model(at).claim_again(now.0) {
            true => ClaimedAgain::Again,
            false => ClaimedAgain::Holds { ended },
        };
        assert_eq!(self.task(at).claim_again(LEASE_TIME, now), expected);
        if expected == ClaimedAgain::Again {
            self.agent(at, allocation, is_first_version);
        }
        self.follow(at, Vec::new());
    }

    pub(super) fn agent(&mut self, attempt: usize, allocation: String, is_first_version: bool) {
        let (id, heard_at) = (format!("agent-{}", self.agents.len()), self.real);
        let (works, is_dead, is_overruled) = (false, false, false);
        let agent =
            Agent { attempt, id, allocation, heard_at, works, is_dead, is_first_version, is_overruled };
        self.agents.push(agent);
    }

    /// An agent that may speak, and its attempt. The token of one whose claim was forgotten is known no more: it hears so,
    /// and stops.
    pub(super) fn speaker(&mut self, agent: Option<usize>) -> Option<(usize, usize)> {
        let (agent, attempt) = self.living(agent)?;
        let allocation = self.task(attempt).claim_of().map(|claim| claim.allocation.clone());
        self.agents[agent].is_dead |= allocation.as_ref() != Some(&self.agents[agent].allocation);
        (!self.agents[agent].is_dead).then_some((agent, attempt))
    }

    /// An agent that lives, and its attempt, where that is there.
    fn living(&mut self, agent: Option<usize>) -> Option<(usize, usize)> {
        let agent = agent.filter(|agent| !self.agents[*agent].is_dead)?;
        let attempt = self.agents[agent].attempt;
        self.agents[agent].is_dead |= attempt >= self.stored.attempts.len();
        (attempt < self.stored.attempts.len()).then_some((agent, attempt))
    }

    /// An answer arrives, sooner or later.
    pub(super) fn hears(&mut self, agent: usize, how: u8) {
        self.agents[agent].heard_at = self.real + u64::from(how) * 100;
    }

    pub(super) fn begin(&mut self, agent: Option<usize>, how: u8) {
        let Some((agent, at)) = self.speaker(agent) else { return };
        let Agent { works, is_first_version, id, .. } = self.agents[agent].clone();
        // An agent that has stopped its steps does not begin again.
        if is_first_version || works && !self.agents[agent].works_at(self.real) {
            return;
        }
        let now = self.now();
        self.overrule_claimed(at, Some(agent));
        let begun = self.task(at).begin(&id, LEASE_TIME, now);
        let expected = self.model(at).begin(&id, now.0);
        assert_eq!(begun.as_ref().map(|_| ()).map_err(|no| *no), expected);
        let Ok(step) = begun else {
            self.agents[agent].is_dead = true;
            return self.follow(at, Vec::new());
        };
        assert_eq!(step.answer, Passed { late: false, cancel: self.model(at).is_canceled });
        let attempt = &mut self.stored.attempts[at];
        let begun_by = attempt.begun_by.get_or_insert_with(|| id.clone());
        assert!(attempt.is_restored || *begun_by == id, "two agents have begun one attempt");
        self.follow(at, step.then);
        self.assert_alone(at);
        // The answer is lost otherwise, and the agent asks again.
        if how & 1 == 0 {
            self.agents[agent].works = true;
            self.hears(agent, how);
        }
    }

    pub(super) fn call(&mut self, agent: Option<usize>, how: u8) {
        let Some((agent, at)) = self.speaker(agent) else { return };
        let call = match how % 4 {
            0 => Call::Heartbeat,
            1 => Call::Output { is_spin_up: how & 16 == 0 },
            2 => Call::Events { is_spin_up: how & 16 == 0 },
            _ => Call::Other,
        };
        let now = self.now();
        // Most calls ask before their bytes or rows are there, and those that only read ask no more than that.
        if how & 64 == 0 {
            let announced = self.task(at).announce(call, LEASE_TIME, now);
            let expected = self.model(at).announce(call, now.0);
            assert_eq!(announced.as_ref().map(|step| step.answer.late).map_err(|no| *no), expected);
            self.follow(at, announced.map(|step| step.then).unwrap_or_default());
        }
        let called = self.task(at).call(call, LEASE_TIME, now);
        let expected = self.model(at).call(call, now.0);
        assert_eq!(called.as_ref().map(|step| step.answer.late).map_err(|no| *no), expected);
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

    /// An agent asks what it is to run. That changes nothing.
    pub(super) fn ask_what_to_run(&mut self, agent: Option<usize>) {
        let Some((_, at)) = self.speaker(agent) else { return };
        let now = self.now();
        let told = self.task(at).awaited(now).map(|claim| Some(claim.allocation.clone()));
        assert_eq!(told, self.model(at).awaited(now.0));
        self.follow(at, Vec::new());
    }

    /// A runner asks for a token to send what an agent has left, now and then of a claim that is long over. That changes
    /// nothing.
    pub(super) fn send_the_rest(&mut self, agent: Option<usize>, how: u8) {
        let Some(agent) = agent else { return };
        let Agent { attempt, allocation, .. } = self.agents[agent].clone();
        let of = if how & 3 == 0 { usize::from(how) % self.stored.attempts.len() } else { attempt };
        if of >= self.stored.attempts.len() {
            return;
        }
        let now = self.now();
        let answer = self.task(of).rest(Some(&allocation), now);
        assert_eq!(answer, self.model(of).rest(&allocation, now.0));
        self.follow(of, Vec::new());
    }

    pub(super) fn give_back(&mut self, agent: Option<usize>, how: u8) {
        let Some((agent, at)) = self.speaker(agent) else { return };
        if self.agents[agent].works {
            return;
        }
        let reason = if how & 1 == 0 { GiveBackReason::Runner } else { GiveBackReason::Host };
        let returned = GivingBack { reason, message: "m", pause: Duration::from_secs(u64::from(how)) };
        let now = self.now();
        self.overrule_claimed(at, None);
        let given = self.task(at).give_back(&returned, now);
        let expected = self.model(at).give_back(reason, u64::from(how) * 1_000, now.0);
        assert_eq!(given.as_ref().map(|step| step.answer).map_err(|no| *no), expected);
        self.agents[agent].is_dead |= given.is_ok();
        self.follow(at, given.map(|step| step.then).unwrap_or_default());
    }

    /// Hosts that cannot work give back what they get, one after the other.
    pub(super) fn meet_bad_hosts(&mut self, how: u8) {
        for _ in 0..how % 16 {
            let (at, known) = (self.latest(), self.agents.len());
            // An agent gets the task: nobody else is in the class whose turn it would be.
            self.claim(at, 0, 6);
            if self.agents.len() == known {
                return;
            }
            self.give_back(Some(known), 1);
        }
    }

    pub(super) fn finish(&mut self, agent: Option<usize>, how: u8) {
        let Some((agent, at)) = self.speaker(agent) else { return };
        if !self.agents[agent].works && !self.agents[agent].is_first_version {
            return;
        }
        // The agent has stopped its steps before it says so.
        self.agents[agent].works = false;
        let status = match how % 5 {
            0 => TaskState::Success,
            1 => TaskState::Failed,
            2 => TaskState::InfrastructureFail,
            3 => TaskState::Canceled,
            _ => TaskState::Timedout,
        };
        let now = self.now();
        let step = Unaccounted { step: 1, name: "test", bytes: None };
        let (is_complete, is_overlooked) = (how & 24 != 24, how & 48 == 48);
        let overlooked = is_overlooked.then_some(step);
        let report = FinishReport { status, message: None, is_complete, overlooked };
        let finished = self.task(at).finish(&report, LEASE_TIME, now);
        let expected = self.model(at).finish(status, is_complete, is_overlooked, now.0);
        assert_eq!(finished.as_ref().map(|step| step.answer).map_err(|no| no.answer), expected);
        self.follow(at, finished.map(|step| step.then).unwrap_or_else(|no| no.then));
    }

    /// The steps of an agent have stopped, and what they said is still on its way.
    pub(super) fn stopped(&mut self, agent: Option<usize>) {
        let Some((agent, at)) = self.speaker(agent) else { return };
        if !self.agents[agent].works && !self.agents[agent].is_first_version {
            return;
        }
        self.agents[agent].works = false;
        let now = self.now();
        let stopped = self.task(at).stopped(LEASE_TIME, now);
        let expected = self.model(at).stopped(now.0);
        assert_eq!(stopped.as_ref().map(|step| step.answer.late).map_err(|no| no.answer), expected);
        self.follow(at, stopped.map(|step| step.then).unwrap_or_else(|no| no.then));
    }

    /// An agent dies; its runner may see that and say so.
    pub(super) fn die(&mut self, agent: Option<usize>, how: u8) {
        let Some((agent, at)) = self.living(agent) else { return };
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
                (self.task(at).lost(Some(&allocation), "gone", now), Err(Denied::AnotherAllocation))
            };
            assert_eq!(lost.as_ref().map(|_| ()).map_err(|no| *no), expected);
            self.follow(at, lost.unwrap_or_default());
        }
    }

    /// A runner does not run what it got, such as by a rule, and says so when nothing of it runs.
    pub(super) fn refuse(&mut self, agent: Option<usize>) {
        let Some((agent, at)) = self.speaker(agent) else { return };
        self.agents[agent].works = false;
        if self.agents.iter().any(|other| other.attempt == at && other.works_at(self.real)) {
            return;
        }
        let now = self.now();
        let allocation = self.agents[agent].allocation.clone();
        if self.task(at).claim_of().is_none_or(|claim| claim.allocation != allocation) {
            let failed = self.task(at).failed(Some(&allocation), "no", now);
            assert_eq!(failed.map(|step| step.answer), Err(Denied::AnotherAllocation));
            return;
        }
        let failed = self.task(at).failed(Some(&allocation), "no", now);
        let expected = self.model(at).failed(now.0);
        assert_eq!(failed.as_ref().map(|step| step.answer).map_err(|no| *no), expected);
        self.follow(at, failed.map(|step| step.then).unwrap_or_default());
    }

    /// A host starts again: everything on it is gone, and its runner says so with its next claim.
    pub(super) fn restart_host(&mut self, how: u8) {
        let (machine, now) = (format!("runner-{}", how % 3), self.now());
        for at in 0..self.stored.attempts.len() {
            let claim = self.task(at).claim_of();
            if claim.and_then(|claim| claim.machine.as_ref()).is_none_or(|known| known.id != machine) {
                continue;
            }
            self.agents.iter_mut().filter(|agent| agent.attempt == at).for_each(|agent| agent.is_dead = true);
            let then = self.task(at).host_restarted(&machine, now);
            let _ = self.model(at).lost(EndedBy::HostRestart, now.0);
            self.follow(at, then);
        }
    }
}
