//! The machine of a task: what a task is, what may happen to it, and what follows.
//!
//! ```text
//!  queued --claim--> claimed --begin--> running --finish--> ended
//!    ^                  |                 |  ^ any call of its agent
//!    +--given back------+                 v  |
//!       lapsed                         unreachable --budget over--> ended (infrastructure_fail)
//! ```
//!
//! A [`Task`] is one attempt. Every call and every sweep that touches it is a method of this file, or of `queue` while nobody
//! has it; it changes the value, answers with a type, and names what must follow as [`Consequence`]s. Beside them are only the
//! types (`words`), the sentences for people (`told`) and the row that a task is read from and written to (`stored`). Nothing here reads a
//! clock or the store: `commit::task` loads a task, applies one of these, and writes what became of it in the same
//! transaction. docs/protocol.md tells the same for people who write runners.

mod queue;
mod stored;
#[cfg(test)]
mod tests;
mod told;
mod words;

pub use words::{
    Avoid, BUDGET_MARGIN, Call, Claim, ClaimedAgain, Consequence, Counts, DEFAULT_BUDGET, Denied,
    FENCE_MARGIN, FinishReport, Finished, GivenBack, GivingBack, LATE, LONGEST_BEGIN,
    MOST_GIVEN_BACK_BY_HOSTS, MOST_GIVEN_BACK_BY_RUNNERS, MOST_UNSAFE_RETRIES, Machine, NextAttempt,
    NotClaimable, Passed, Stage, Task, TaskEnd, Transition, Unaccounted, WaitTerms, Work,
};

use crate::protocol::GiveBackReason;
use crate::server::store::status::{EndedBy, TaskState};
use crate::server::time::Millis;
use std::time::Duration;

impl Task {
    /// A runner claims it, and may take as long as `begin` to begin it.
    pub fn claim(
        &mut self,
        claim: Claim,
        others: bool,
        lease: Duration,
        begin: Duration,
        now: Millis,
    ) -> Result<(), NotClaimable> {
        self.claimable(&claim.runner, others, now)?;
        let begin_until = now.plus(begin);
        self.state =
            Stage::Claimed { claim, begin, lease_until: now.plus(lease).min(begin_until), begin_until };
        Ok(())
    }

    /// The claim of a task that its agent is about to begin, for an agent that asks what to run.
    pub fn awaited(&self, now: Millis) -> Result<&Claim, Denied> {
        match &self.state {
            Stage::Claimed { claim, .. } => Ok(claim),
            _ => Err(self.refusal(now)),
        }
    }

    /// A claim with the nonce that this task was given to. Nothing is replaced: the same call may have arrived twice, and
    /// its runner may go by either answer.
    pub fn claim_again(&mut self, lease: Duration, now: Millis) -> ClaimedAgain {
        match &mut self.state {
            Stage::Claimed { lease_until, begin_until, .. } => {
                *lease_until = renewed_within(*begin_until, *lease_until, lease, now);
                ClaimedAgain::Again
            }
            state => ClaimedAgain::Holds { ended: matches!(state, Stage::Ended(_)) },
        }
    }

    /// The commit point: nothing on the host can fail any more before the first step.
    pub fn begin(&mut self, agent: &str, lease: Duration, now: Millis) -> Result<Transition<Passed>, Denied> {
        match &self.state {
            Stage::Claimed { .. } => Ok(self.start(Some(agent.to_owned()), lease, now)),
            Stage::Running(work) | Stage::Unreachable { work, .. }
                if work.agent.as_deref() != Some(agent) =>
            {
                Err(Denied::AnotherAgent)
            }
            // A call of that kind is never taken late.
            _ => self.call(Call::Heartbeat, lease, now),
        }
    }

    fn start(&mut self, agent: Option<String>, lease: Duration, now: Millis) -> Transition<Passed> {
        let Stage::Claimed { claim, lease_until, .. } = &self.state else {
            return Transition::of(self.taken());
        };
        let lease_until = renewed(*lease_until, lease, now);
        self.state = Stage::Running(Work { claim: claim.clone(), agent, lease_until });
        Transition::then(self.taken(), [Consequence::Begun])
    }

    /// A call of its agent: the lease is renewed, and an unreachable task runs again.
    pub fn call(&mut self, call: Call, lease: Duration, now: Millis) -> Result<Transition<Passed>, Denied> {
        match &mut self.state {
            Stage::Queued => Err(Denied::Queued),
            Stage::Claimed { claim, lease_until, begin_until, .. } => {
                let is_first_version = claim.protocol < 2;
                match call {
                    // In protocol 1 the first event, output or other call is the begin.
                    Call::Events { .. } | Call::Output { .. } | Call::Other if is_first_version => {
                        return Ok(self.start(None, lease, now));
                    }
                    Call::Output { is_spin_up: false } | Call::Events { is_spin_up: false } | Call::Other => {
                        return Err(Denied::NotBegun);
                    }
                    _ => {}
                }
                *lease_until = renewed_within(*begin_until, *lease_until, lease, now);
                Ok(Transition::of(self.taken()))
            }
            Stage::Running(work) => {
                work.lease_until = renewed(work.lease_until, lease, now);
                Ok(Transition::of(self.taken()))
            }
            Stage::Unreachable { work, since } => {
                let back = told::heard_again(&work.claim.runner, *since);
                let lease_until = renewed(work.lease_until, lease, now);
                self.state = Stage::Running(Work { lease_until, ..work.clone() });
                Ok(Transition::then(self.taken(), [Consequence::Say(back)]))
            }
            Stage::Ended(_) => match call {
                Call::Output { .. } | Call::Events { .. } if self.takes_late(now) => {
                    Ok(Transition::of(Passed { late: true, cancel: self.cancel_asked }))
                }
                _ => Err(self.refusal(now)),
            },
        }
    }

    /// A call whose bytes or rows are still to come, or that only reads: its lease is renewed where the call would be
    /// taken. It begins nothing, and one that is refused changes nothing.
    pub fn announce(
        &mut self,
        call: Call,
        lease: Duration,
        now: Millis,
    ) -> Result<Transition<Passed>, Denied> {
        let answer = self.clone().call(call, lease, now)?.answer;
        // Of a task that has ended, what is taken late renews nothing.
        let then = self.call(Call::Heartbeat, lease, now).map(|step| step.then).unwrap_or_default();
        Ok(Transition { answer, then })
    }

    /// Whether output and events come late, and are taken.
    fn takes_late(&self, now: Millis) -> bool {
        let Stage::Ended(end) = &self.state else { return false };
        end.by.is_without_agent() && end.claim.is_some() && now.since(end.at) < LATE
    }

    /// The refusal of a call that came at the wrong time.
    fn refusal(&self, now: Millis) -> Denied {
        match &self.state {
            Stage::Queued => Denied::Queued,
            Stage::Claimed { .. } => Denied::NotBegun,
            Stage::Running(_) | Stage::Unreachable { .. } => Denied::Begun,
            Stage::Ended(end) => Denied::Ended { status: end.status, by: end.by, late: self.takes_late(now) },
        }
    }

    /// The runner gives the task back before it has begun. The same call again gets the same answer.
    pub fn give_back(
        &mut self,
        returned: &GivingBack<'_>,
        now: Millis,
    ) -> Result<Transition<GivenBack>, Denied> {
        match &self.state {
            Stage::Claimed { claim, .. } => {
                let runner = claim.runner.clone();
                Ok(self.back_to_the_queue(&runner, returned, EndedBy::GivenBack, now))
            }
            Stage::Ended(end) if !end.had_begun && matches!(end.by, EndedBy::GivenBack | EndedBy::Lapsed) => {
                let is_retried = end.status == TaskState::Retried;
                Ok(Transition::of(if is_retried { GivenBack::Queued } else { GivenBack::Failed }))
            }
            Stage::Ended(TaskEnd { had_begun: false, by: EndedBy::Cancel, .. }) => {
                Ok(Transition::of(GivenBack::Canceled))
            }
            Stage::Ended(TaskEnd { by: EndedBy::ClassDeleted, claim: Some(_), .. }) => {
                Ok(Transition::of(GivenBack::Failed))
            }
            _ => Err(self.refusal(now)),
        }
    }

    fn back_to_the_queue(
        &mut self,
        runner: &str,
        returned: &GivingBack<'_>,
        by: EndedBy,
        now: Millis,
    ) -> Transition<GivenBack> {
        if self.cancel_asked {
            let then = self.end(TaskState::Canceled, EndedBy::Cancel, None, now);
            return Transition::then(GivenBack::Canceled, then);
        }
        if let Some(class) = &self.gone_class {
            let message = Some(told::back_to_no_class(runner, by, returned.message, class));
            let then = self.end(TaskState::Failed, EndedBy::ClassDeleted, message, now);
            return Transition::then(GivenBack::Failed, then);
        }
        let mut counts = self.counts;
        let too_often = match returned.reason {
            GiveBackReason::Runner => {
                counts.by_runners += 1;
                counts.by_runners > MOST_GIVEN_BACK_BY_RUNNERS
            }
            GiveBackReason::Host => {
                counts.by_hosts += 1;
                counts.by_hosts > MOST_GIVEN_BACK_BY_HOSTS
            }
        };
        if too_often {
            let message = told::never_begun(runner, by, returned.message);
            let then = self.end(TaskState::InfrastructureFail, by, Some(message), now);
            return Transition::then(GivenBack::Failed, then);
        }
        let avoid = (!returned.pause.is_zero())
            .then(|| Avoid { runner: runner.to_owned(), until: now.plus(returned.pause) });
        // A task that waits for an administrator goes on waiting.
        let is_held = self.is_held;
        let mut then = self.end(TaskState::Retried, by, None, now);
        let why = Some(told::back(runner, by, returned.message));
        then.push(Consequence::Again(NextAttempt { counts, avoid, is_held, why }));
        Transition::then(GivenBack::Queued, then)
    }

    /// A person wants it to end.
    pub fn cancel(&mut self, now: Millis) -> Vec<Consequence> {
        match &self.state {
            // The backup may be older than the begin.
            Stage::Claimed { claim, lease_until, .. } if self.is_held => {
                let fence = claim.fence(*lease_until, now);
                let message = told::canceled_held(&claim.runner, fence, now);
                self.cancel_asked = true;
                self.end_fenced(TaskState::Canceled, EndedBy::Cancel, Some(message), fence, now)
            }
            Stage::Queued | Stage::Claimed { .. } => {
                self.cancel_asked = true;
                self.end(TaskState::Canceled, EndedBy::Cancel, None, now)
            }
            Stage::Unreachable { work, .. } => {
                let fence = work.fence();
                let message = told::canceled_unheard(&work.claim.runner, fence, now);
                self.cancel_asked = true;
                self.end_fenced(TaskState::Canceled, EndedBy::Cancel, Some(message), fence, now)
            }
            Stage::Running(_) if !self.cancel_asked => {
                self.cancel_asked = true;
                vec![Consequence::CancelAsked]
            }
            Stage::Running(_) | Stage::Ended(_) => Vec::new(),
        }
    }

    /// The agent has reported everything. A cancel that was asked for before wins, and a success that leaves a step
    /// unaccounted for is an infrastructure failure.
    pub fn finish(
        &mut self,
        report: &FinishReport<'_>,
        lease: Duration,
        now: Millis,
    ) -> Result<Transition<Finished>, Transition<Denied>> {
        let counts = report.status == TaskState::Success && !self.cancel_asked;
        let overlooked = report.overlooked.filter(|_| counts).map(told::overlooked);
        let (status, message) = match &overlooked {
            Some(why) => (TaskState::InfrastructureFail, Some(why.as_str())),
            None => (report.status, report.message),
        };
        match &mut self.state {
            // An agent of protocol 1 may fail before its first event, which would be its begin.
            Stage::Claimed { claim, .. } if claim.protocol < 2 && status != TaskState::Success => {}
            Stage::Running(_) | Stage::Unreachable { .. } => {}
            Stage::Ended(end) if end.by == EndedBy::Finish => {
                return Ok(Transition::of(Finished::Before));
            }
            _ => {
                // The call says at least that the agent has stopped.
                let then = self.confirm_stopped();
                return Err(Transition::then(self.refusal(now), then));
            }
        }
        if !report.is_complete {
            let step = self.call(Call::Other, lease, now).map_err(Transition::of)?;
            return Ok(Transition::then(Finished::Incomplete, step.then));
        }
        let then = match status {
            _ if self.cancel_asked => {
                let message = told::canceled_meanwhile(status, message, now);
                self.end(TaskState::Canceled, EndedBy::Finish, message, now)
            }
            TaskState::InfrastructureFail => {
                self.fail(EndedBy::Finish, message.unwrap_or(told::NO_REASON), now)
            }
            status => self.end(status, EndedBy::Finish, message.map(str::to_owned), now),
        };
        Ok(Transition::then(Finished::Now, then))
    }

    /// The agent says that the steps have stopped, while what they have said is still on its way. A task that was
    /// cancelled ends by that, without a fence, and takes the rest late. Of any other task the call says no more than that
    /// its agent is there.
    pub fn stopped(
        &mut self,
        lease: Duration,
        now: Millis,
    ) -> Result<Transition<Passed>, Transition<Denied>> {
        match &self.state {
            Stage::Running(work) | Stage::Unreachable { work, .. } if self.cancel_asked => {
                let message = told::stopped(&work.claim.runner, now);
                let then = self.end(TaskState::Canceled, EndedBy::Cancel, Some(message), now);
                Ok(Transition::then(Passed { late: false, cancel: true }, then))
            }
            Stage::Ended(_) => {
                let then = self.confirm_stopped();
                Err(Transition::then(self.refusal(now), then))
            }
            Stage::Running(_) | Stage::Unreachable { .. } | Stage::Queued | Stage::Claimed { .. } => {
                self.call(Call::Other, lease, now).map_err(Transition::of)
            }
        }
    }

    /// The agent has stopped: it says so itself or its runner does, the fence has passed, or a person knows it.
    pub fn confirm_stopped(&mut self) -> Vec<Consequence> {
        let Stage::Ended(end) = &mut self.state else { return Vec::new() };
        if end.fence_until.take().is_some() { vec![Consequence::FenceGone] } else { Vec::new() }
    }

    /// The runner found the task agent gone. A task that has ended only loses its fence.
    pub fn lost(
        &mut self,
        allocation: Option<&str>,
        message: &str,
        now: Millis,
    ) -> Result<Vec<Consequence>, Denied> {
        // Runners of protocol 1 do not know it.
        if allocation.is_some() || self.claim_of().is_none_or(|claim| claim.protocol > 1) {
            self.check_allocation(allocation)?;
        }
        let runner = self.claim_of().map(|claim| claim.runner.clone()).unwrap_or_default();
        match &self.state {
            Stage::Queued => Err(Denied::Queued),
            Stage::Claimed { .. } => {
                let returned = GivingBack { reason: GiveBackReason::Runner, message, pause: Duration::ZERO };
                Ok(self.back_to_the_queue(&runner, &returned, EndedBy::GivenBack, now).then)
            }
            Stage::Running(_) | Stage::Unreachable { .. } => Ok(self.fail(EndedBy::Lost, message, now)),
            Stage::Ended(_) => Ok(self.confirm_stopped()),
        }
    }

    /// The runner wants to send what is left of the output of an agent that is gone: it may where output is taken, still
    /// or late.
    pub fn rest(&self, allocation: Option<&str>, now: Millis) -> Result<(), Denied> {
        self.check_allocation(allocation)?;
        self.clone().call(Call::Output { is_spin_up: false }, Duration::ZERO, now).map(drop)
    }

    fn check_allocation(&self, allocation: Option<&str>) -> Result<(), Denied> {
        let is_its_own = self.claim_of().is_some_and(|claim| Some(claim.allocation.as_str()) == allocation);
        if is_its_own { Ok(()) } else { Err(Denied::AnotherAllocation) }
    }

    /// The runner says that the task cannot be run, for good. A cancel wins.
    pub fn failed(
        &mut self,
        allocation: Option<&str>,
        message: &str,
        now: Millis,
    ) -> Result<Transition<()>, Denied> {
        self.check_allocation(allocation)?;
        match &self.state {
            Stage::Claimed { .. } | Stage::Running(_) | Stage::Unreachable { .. } => {
                let (status, told) = match self.cancel_asked {
                    true => (TaskState::Canceled, told::canceled(self.has_begun(), Some(message), now)),
                    false => (TaskState::InfrastructureFail, message.to_owned()),
                };
                Ok(Transition::then((), self.end(status, EndedBy::Finish, Some(told), now)))
            }
            Stage::Ended(end) if end.by == EndedBy::Finish => Ok(Transition::of(())),
            Stage::Queued | Stage::Ended(_) => Err(self.refusal(now)),
        }
    }

    /// The machine of its claim was started again, as the claim of a runner says: nothing that ran there runs any more.
    pub fn host_restarted(&mut self, told_by: &str, now: Millis) -> Vec<Consequence> {
        let runner = self.claim_of().map(|claim| claim.runner.clone()).unwrap_or_default();
        let message = &told::host_restarted(&runner, told_by);
        match &self.state {
            Stage::Claimed { .. } => {
                let returned = GivingBack { reason: GiveBackReason::Runner, message, pause: Duration::ZERO };
                self.back_to_the_queue(&runner, &returned, EndedBy::Lapsed, now).then
            }
            Stage::Running(_) | Stage::Unreachable { .. } => self.fail(EndedBy::HostRestart, message, now),
            Stage::Queued => Vec::new(),
            Stage::Ended(_) => self.confirm_stopped(),
        }
    }

    /// Lets time pass: leases, the begin limit, budgets and fences run out.
    pub fn tick(&mut self, lease: Duration, now: Millis) -> Vec<Consequence> {
        if self.is_held {
            return Vec::new();
        }
        match &self.state {
            Stage::Claimed { claim, lease_until, begin_until, .. } if now > *lease_until.min(begin_until) => {
                let message = told::lapsed(now > *begin_until);
                let runner = claim.runner.clone();
                let returned = GivingBack { reason: GiveBackReason::Runner, message, pause: Duration::ZERO };
                self.back_to_the_queue(&runner, &returned, EndedBy::Lapsed, now).then
            }
            Stage::Running(work) if now > work.lease_until => self.silent(work.clone(), lease, now),
            Stage::Unreachable { work, since } if now > work.fence() => {
                let message = told::silent(&work.claim.runner, *since);
                self.fail(EndedBy::Silence, &message, now)
            }
            Stage::Ended(TaskEnd { fence_until: Some(fence), .. }) if now > *fence => self.confirm_stopped(),
            _ => Vec::new(),
        }
    }

    fn silent(&mut self, work: Work, lease: Duration, now: Millis) -> Vec<Consequence> {
        if self.cancel_asked {
            let fence = work.fence();
            let message = told::canceled_unheard(&work.claim.runner, fence, now);
            return self.end_fenced(TaskState::Canceled, EndedBy::Cancel, Some(message), fence, now);
        }
        let since = work.lease_until.minus(lease);
        let message = told::unreachable(&work.claim.runner, since, work.claim.budget);
        self.state = Stage::Unreachable { work, since };
        vec![Consequence::Say(message)]
    }

    /// The control plane could not be heard for a while (it was down, or its clock was set): silence counts from now. No
    /// agent has heard a later answer, and what was counted from a clock that ran ahead ends too late by that.
    pub fn rebase(&mut self, lease: Duration, now: Millis) {
        match &mut self.state {
            // Nobody could claim it either.
            Stage::Queued => self.waits_since = now,
            Stage::Claimed { begin, lease_until, begin_until, .. } => {
                *begin_until = now.plus(*begin);
                *lease_until = now.plus(lease).min(*begin_until);
            }
            Stage::Running(work) | Stage::Unreachable { work, .. } => work.lease_until = now.plus(lease),
            Stage::Ended(TaskEnd { fence_until: Some(fence), claim: Some(claim), .. }) => {
                *fence = now.plus(lease).plus(claim.budget).plus(FENCE_MARGIN);
            }
            Stage::Ended(_) => {}
        }
    }

    /// A backup was restored: what it says of this task may be old.
    pub fn hold(&mut self) {
        self.is_held = !matches!(self.state, Stage::Ended(_));
    }

    /// An administrator says that it may go on.
    pub fn release(&mut self, lease: Duration, now: Millis) -> Vec<Consequence> {
        if !self.is_held {
            return Vec::new();
        }
        self.is_held = false;
        self.rebase(lease, now);
        if self.state == Stage::Queued { vec![Consequence::Released] } else { Vec::new() }
    }

    /// An administrator says that it shall not go on.
    pub fn end_held(&mut self, now: Millis) -> Vec<Consequence> {
        if !self.is_held {
            return Vec::new();
        }
        let message = Some("an administrator ended the task after a backup was restored".to_owned());
        // The backup may be older than the begin, and than the last call that was answered.
        let fence = match &self.state {
            Stage::Claimed { claim, lease_until, .. } => Some(claim.fence(*lease_until, now)),
            Stage::Running(work) | Stage::Unreachable { work, .. } => {
                Some(work.claim.fence(work.lease_until, now))
            }
            Stage::Queued | Stage::Ended(_) => None,
        };
        let status = if self.cancel_asked { TaskState::Canceled } else { TaskState::InfrastructureFail };
        match fence {
            Some(fence) => self.end_fenced(status, EndedBy::Administrator, message, fence, now),
            None => self.end(status, EndedBy::Administrator, message, now),
        }
    }

    /// The infrastructure failed under what had begun, and nothing of it runs any more: its fence has passed, or its
    /// agent or its runner says so. A cancel wins; where unsafe retries are wanted, it is queued again.
    fn fail(&mut self, by: EndedBy, message: &str, now: Millis) -> Vec<Consequence> {
        if self.cancel_asked {
            let told = Some(told::canceled(self.has_begun(), Some(message), now));
            return self.end(TaskState::Canceled, by, told, now);
        }
        let may_retry = self.has_begun() && self.gone_class.is_none();
        let is_one_left = may_retry && self.counts.unsafe_retries < MOST_UNSAFE_RETRIES;
        if let Some(claim) = self.claim_of().filter(|claim| is_one_left && claim.retries_unsafely) {
            let runner = claim.runner.clone();
            let counts = Counts { unsafe_retries: self.counts.unsafe_retries + 1, ..self.counts };
            let is_held = self.is_held;
            let mut then = self.end(TaskState::Retried, by, None, now);
            let times = (counts.unsafe_retries, MOST_UNSAFE_RETRIES);
            then.push(Consequence::Say(told::unsafe_retry(message, &runner, times, now)));
            then.push(Consequence::Again(NextAttempt { counts, avoid: None, is_held, why: None }));
            return then;
        }
        self.end(TaskState::InfrastructureFail, by, Some(message.to_owned()), now)
    }

    fn end_fenced(
        &mut self,
        status: TaskState,
        by: EndedBy,
        message: Option<String>,
        fence: Millis,
        now: Millis,
    ) -> Vec<Consequence> {
        let then = self.end(status, by, message, now);
        if let Stage::Ended(end) = &mut self.state {
            end.fence_until = Some(fence);
        }
        then
    }

    fn end(
        &mut self,
        status: TaskState,
        by: EndedBy,
        message: Option<String>,
        now: Millis,
    ) -> Vec<Consequence> {
        let had_begun = self.has_begun();
        let claim = self.claim_of().cloned();
        let runner = claim.as_ref().map(|claim| claim.runner.as_str());
        let message = message.or_else(|| told::without_reason(status, had_begun, now));
        let message = message.map(|message| told::end(&message, (by, status), runner, now));
        self.is_held = false;
        self.state = Stage::Ended(TaskEnd { status, by, at: now, claim, had_begun, fence_until: None });
        vec![Consequence::Ended(message)]
    }
}

impl Claim {
    /// From here on an agent has certainly stopped its steps whose last answer was not later than the lease tells, or
    /// than now.
    fn fence(&self, lease_until: Millis, now: Millis) -> Millis {
        lease_until.max(now).plus(self.budget).plus(FENCE_MARGIN)
    }
}

impl Work {
    /// Time from which on its agent has certainly stopped its steps.
    fn fence(&self) -> Millis {
        self.lease_until.plus(self.claim.budget).plus(FENCE_MARGIN)
    }
}

/// The end of a lease after a call. Never earlier than before; the same while more than two thirds are left, so that
/// most calls write nothing.
fn renewed(lease_until: Millis, lease: Duration, now: Millis) -> Millis {
    if lease_until > now.plus(lease * 2 / 3) { lease_until } else { now.plus(lease) }
}

/// The end of the lease of a task that has not begun: not later than the time by which it must have.
fn renewed_within(begin_until: Millis, lease_until: Millis, lease: Duration, now: Millis) -> Millis {
    lease_until.max(renewed(lease_until, lease, now).min(begin_until))
}
