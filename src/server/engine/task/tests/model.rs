//! The table of docs/protocol.md, written down a second time and as plainly as possible, in milliseconds. It shares
//! nothing with the machine but its words, and takes from it only which lease a call has got, within bounds.

use crate::protocol::{GiveBackReason, GivenBack};
use crate::server::engine::task::{Call, Consequence, Denied, Finished, NotClaimable, Stage, Task};
use crate::server::store::status::{EndedBy, TaskState};
use crate::server::time::Millis;
use std::collections::BTreeMap;

pub(super) const LEASE: u64 = 60_000;
pub(super) const BUDGET: u64 = 300_000;
const MARGIN: u64 = 30_000;
const BEGIN: u64 = 600_000;
const LATE: u64 = 86_400_000;
/// Longest wait for a runner, where the class has one.
pub(super) const WAIT: u64 = 1_200_000;

/// The kind of a try in vain, and how often it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Try {
    Runner,
    Host,
    Unsafe,
}

impl Try {
    fn most(self) -> u32 {
        match self {
            Try::Runner | Try::Unsafe => 3,
            Try::Host => 10,
        }
    }
}

/// State of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Queued,
    Claimed,
    Running,
    Unreachable,
    Ended(TaskState, EndedBy),
}

/// Consequences by their kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    Begun,
    CancelAsked,
    /// An end, and whether people are told why.
    Ended(bool),
    Again,
    Said,
    FenceGone,
    Released,
}

impl From<&Consequence> for Follows {
    fn from(consequence: &Consequence) -> Self {
        match consequence {
            Consequence::Begun => Follows::Begun,
            Consequence::CancelAsked => Follows::CancelAsked,
            Consequence::Ended(message) => Follows::Ended(message.is_some()),
            Consequence::Again(_) => Follows::Again,
            Consequence::Say(_) => Follows::Said,
            Consequence::FenceGone => Follows::FenceGone,
            Consequence::Released => Follows::Released,
        }
    }
}

/// An attempt, as the table has it.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) phase: Phase,
    pub(super) tries: BTreeMap<Try, u32>,
    pub(super) is_canceled: bool,
    pub(super) is_held: bool,
    /// Whether its class is deleted.
    pub(super) is_class_gone: bool,
    /// The fence of a run before, as long as it stands.
    pub(super) waits_for: Option<u64>,
    /// The fence of this attempt, as long as it stands.
    pub(super) fence: Option<u64>,
    /// Consequences of the last event.
    pub(super) then: Vec<Follows>,
    /// The runner that has just given it back with a pause, and until when the next attempt is not for it.
    pause: Option<(String, u64)>,
    avoid: Option<(String, u64)>,
    runner: String,
    /// Allocation of its last claim; none before the first.
    allocation: Option<String>,
    begun_by: Option<String>,
    is_first_version: bool,
    retries: bool,
    since: u64,
    /// Time at which its wait for a runner began, for the last time.
    waits_from: u64,
    lease: u64,
    begin_limit: u64,
    ended_at: u64,
    /// The last event was a call that renews the lease, at this time.
    renews: Option<u64>,
}

impl Model {
    pub(super) fn new(tries: BTreeMap<Try, u32>, now: u64) -> Self {
        Self {
            phase: Phase::Queued,
            tries,
            is_canceled: false,
            is_held: false,
            is_class_gone: false,
            waits_for: None,
            fence: None,
            then: Vec::new(),
            pause: None,
            avoid: None,
            runner: String::new(),
            allocation: None,
            begun_by: None,
            is_first_version: false,
            retries: false,
            since: 0,
            waits_from: now,
            lease: 0,
            begin_limit: 0,
            ended_at: 0,
            renews: None,
        }
    }

    /// The attempt after this one.
    pub(super) fn next(&self, now: u64) -> Self {
        Self { avoid: self.pause.clone(), is_held: self.is_held, ..Self::new(self.tries.clone(), now) }
    }

    fn end(&mut self, status: TaskState, by: EndedBy, is_told: bool, now: u64) {
        // People who see such an end are told of it, whatever else happened.
        let is_told = is_told || matches!(status, TaskState::Canceled | TaskState::Timedout);
        (self.phase, self.ended_at) = (Phase::Ended(status, by), now);
        self.then.push(Follows::Ended(is_told));
    }

    fn fenced(&mut self, lease: u64) {
        self.fence = Some(lease + BUDGET + MARGIN);
    }

    fn unfenced(&mut self) {
        if self.fence.take().is_some() {
            self.then.push(Follows::FenceGone);
        }
    }

    /// Tries once more, unless that was done as often as it is done.
    fn try_again(&mut self, kind: Try, by: EndedBy, now: u64) -> bool {
        let so_often = self.tries.entry(kind).or_default();
        let again = *so_often < kind.most();
        if again {
            *so_often += 1;
            self.end(TaskState::Retried, by, false, now);
            if kind == Try::Unsafe {
                self.then.push(Follows::Said);
            }
            self.then.push(Follows::Again);
        }
        again
    }

    /// Comes back to its queue, if there is one, and not too often.
    fn back(&mut self, kind: Try, by: EndedBy, now: u64) -> bool {
        if self.is_class_gone {
            self.end(TaskState::Failed, EndedBy::ClassDeleted, true, now);
            self.is_held = false;
            return false;
        }
        let again = self.try_again(kind, by, now);
        if !again {
            self.end(TaskState::InfrastructureFail, by, true, now);
        }
        self.is_held &= again;
        again
    }

    /// The infrastructure ends what had begun.
    fn fail(&mut self, by: EndedBy, now: u64) {
        if self.is_canceled {
            self.end(TaskState::Canceled, by, false, now);
        } else if !(self.retries && !self.is_class_gone && self.try_again(Try::Unsafe, by, now)) {
            self.end(TaskState::InfrastructureFail, by, true, now);
        }
        self.is_held &= self.then.contains(&Follows::Again);
    }

    fn late(&self, now: u64) -> bool {
        let Phase::Ended(_, by) = &self.phase else { return false };
        let by_itself = matches!(
            by,
            EndedBy::Finish | EndedBy::GivenBack | EndedBy::Lapsed | EndedBy::HandOut | EndedBy::ClassDeleted
        );
        self.allocation.is_some() && !by_itself && now.saturating_sub(self.ended_at) < LATE
    }

    fn no(&self, now: u64) -> Denied {
        match self.phase {
            Phase::Queued => Denied::Queued,
            Phase::Claimed => Denied::NotBegun,
            Phase::Running | Phase::Unreachable => Denied::Begun,
            Phase::Ended(status, by) => Denied::Ended { status, by, late: self.late(now) },
        }
    }

    pub(super) fn may_claim(&self, runner: &str, others: bool, now: u64) -> Result<(), NotClaimable> {
        match &self.avoid {
            _ if self.phase != Phase::Queued => Err(NotClaimable::NotQueued),
            _ if self.is_held => Err(NotClaimable::Held),
            _ if self.waits_for.is_some() => Err(NotClaimable::Fenced),
            Some((name, until)) if others && name == runner && now < *until => {
                Err(NotClaimable::Before(Millis(*until)))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn claim(
        &mut self,
        runner: &str,
        allocation: &str,
        is_first_version: bool,
        retries: bool,
        now: u64,
    ) {
        (self.phase, self.is_first_version, self.retries) = (Phase::Claimed, is_first_version, retries);
        (self.begin_limit, self.lease) = (now + BEGIN, now + LEASE);
        (self.runner, self.allocation) = (runner.to_owned(), Some(allocation.to_owned()));
    }

    pub(super) fn claim_again(&mut self, now: u64) -> bool {
        if self.phase == Phase::Claimed {
            self.renews = Some(now);
        }
        self.phase == Phase::Claimed
    }

    fn starts(&mut self, agent: Option<&str>, now: u64) {
        (self.phase, self.begun_by, self.renews) =
            (Phase::Running, Some(agent.unwrap_or_default().to_owned()), Some(now));
        self.then.push(Follows::Begun);
    }

    /// A call of the agent that works: people are told when it was not heard of before.
    fn heard(&mut self, now: u64) {
        if self.phase == Phase::Unreachable {
            self.then.push(Follows::Said);
        }
        (self.phase, self.renews) = (Phase::Running, Some(now));
    }

    pub(super) fn begin(&mut self, agent: &str, now: u64) -> Result<(), Denied> {
        match self.phase {
            Phase::Claimed => self.starts(Some(agent), now),
            Phase::Running | Phase::Unreachable if self.begun_by.as_deref() == Some(agent) => self.heard(now),
            Phase::Running | Phase::Unreachable => return Err(Denied::AnotherAgent),
            Phase::Queued | Phase::Ended(..) => return Err(self.no(now)),
        }
        Ok(())
    }

    /// Whether the call came late, when it is taken.
    pub(super) fn call(&mut self, call: Call, now: u64) -> Result<bool, Denied> {
        match self.phase {
            Phase::Claimed => match call {
                Call::Events { .. } | Call::Output { .. } | Call::Other if self.is_first_version => {
                    self.starts(None, now);
                }
                Call::Output { is_spin_up: false } | Call::Events { is_spin_up: false } | Call::Other => {
                    return Err(Denied::NotBegun);
                }
                _ => self.renews = Some(now),
            },
            Phase::Running | Phase::Unreachable => self.heard(now),
            Phase::Ended(..)
                if matches!(call, Call::Output { .. } | Call::Events { .. }) && self.late(now) =>
            {
                return Ok(true);
            }
            Phase::Queued | Phase::Ended(..) => return Err(self.no(now)),
        }
        Ok(false)
    }

    /// A call that asks before it does anything: no more than its lease, and nothing where it is refused.
    pub(super) fn announce(&mut self, call: Call, now: u64) -> Result<bool, Denied> {
        let late = self.clone().call(call, now)?;
        match self.phase {
            Phase::Claimed => self.renews = Some(now),
            Phase::Running | Phase::Unreachable => self.heard(now),
            Phase::Queued | Phase::Ended(..) => {}
        }
        Ok(late)
    }

    pub(super) fn give_back(
        &mut self,
        reason: GiveBackReason,
        pause: u64,
        now: u64,
    ) -> Result<GivenBack, Denied> {
        match self.phase {
            Phase::Claimed => {
                let kind = match reason {
                    GiveBackReason::Runner => Try::Runner,
                    GiveBackReason::Host => Try::Host,
                };
                self.pause = (pause > 0).then(|| (self.runner.clone(), now + pause));
                Ok(if self.back(kind, EndedBy::GivenBack, now) {
                    GivenBack::Queued
                } else {
                    GivenBack::Failed
                })
            }
            Phase::Ended(status, EndedBy::GivenBack | EndedBy::Lapsed) => {
                Ok(if status == TaskState::Retried { GivenBack::Queued } else { GivenBack::Failed })
            }
            Phase::Ended(_, EndedBy::Cancel) if self.begun_by.is_none() => Ok(GivenBack::Canceled),
            // A claimed task came back to no class; one that had waited in it was never claimed, and so never given back.
            Phase::Ended(_, EndedBy::ClassDeleted) if self.allocation.is_some() => Ok(GivenBack::Failed),
            _ => Err(self.no(now)),
        }
    }

    pub(super) fn cancel(&mut self, now: u64) {
        match self.phase {
            // The begin may be newer than the backup.
            Phase::Claimed if self.is_held => {
                self.fenced(self.lease.max(now));
                self.end(TaskState::Canceled, EndedBy::Cancel, true, now);
            }
            Phase::Queued | Phase::Claimed => self.end(TaskState::Canceled, EndedBy::Cancel, false, now),
            Phase::Running if self.is_canceled => {}
            Phase::Running => self.then.push(Follows::CancelAsked),
            Phase::Unreachable => {
                self.fenced(self.lease);
                self.end(TaskState::Canceled, EndedBy::Cancel, true, now);
            }
            Phase::Ended(..) => return,
        }
        self.is_canceled = true;
        self.is_held &= !matches!(self.phase, Phase::Ended(..));
    }

    pub(super) fn finish(
        &mut self,
        status: TaskState,
        is_complete: bool,
        is_overlooked: bool,
        now: u64,
    ) -> Result<Finished, Denied> {
        let status = match status {
            TaskState::Success if is_overlooked => TaskState::InfrastructureFail,
            status => status,
        };
        let may_finish = match self.phase {
            Phase::Claimed => self.is_first_version && status != TaskState::Success,
            Phase::Running | Phase::Unreachable => true,
            Phase::Ended(_, EndedBy::Finish) => return Ok(Finished::Before),
            Phase::Queued | Phase::Ended(..) => false,
        };
        if !may_finish {
            self.unfenced();
            return Err(self.no(now));
        }
        if !is_complete {
            self.call(Call::Other, now)?;
            return Ok(Finished::Incomplete);
        }
        if status == TaskState::InfrastructureFail && self.phase != Phase::Claimed {
            self.fail(EndedBy::Finish, now);
        } else {
            let is_told = status == TaskState::InfrastructureFail && !self.is_canceled;
            let status = if self.is_canceled { TaskState::Canceled } else { status };
            self.end(status, EndedBy::Finish, is_told, now);
            self.is_held = false;
        }
        Ok(Finished::Now)
    }

    /// The steps have stopped. An attempt that was cancelled ends by that, and its rest is late.
    pub(super) fn stopped(&mut self, now: u64) -> Result<bool, Denied> {
        match self.phase {
            Phase::Running | Phase::Unreachable if self.is_canceled => {
                self.end(TaskState::Canceled, EndedBy::Cancel, true, now);
                self.is_held = false;
                Ok(false)
            }
            Phase::Ended(..) => {
                self.unfenced();
                Err(self.no(now))
            }
            _ => self.call(Call::Other, now),
        }
    }

    pub(super) fn lost(&mut self, by: EndedBy, now: u64) -> Result<(), Denied> {
        match self.phase {
            Phase::Queued => return Err(Denied::Queued),
            Phase::Claimed => {
                let by = if by == EndedBy::Lost { EndedBy::GivenBack } else { EndedBy::Lapsed };
                self.back(Try::Runner, by, now);
            }
            Phase::Running | Phase::Unreachable => self.fail(by, now),
            Phase::Ended(..) => self.unfenced(),
        }
        Ok(())
    }

    /// The runner does not run it, for good: nothing of it is tried again.
    pub(super) fn failed(&mut self, now: u64) -> Result<(), Denied> {
        match self.phase {
            Phase::Claimed | Phase::Running | Phase::Unreachable => {
                let canceled = self.is_canceled;
                let status = if canceled { TaskState::Canceled } else { TaskState::InfrastructureFail };
                self.end(status, EndedBy::Finish, true, now);
                self.is_held = false;
                Ok(())
            }
            Phase::Ended(_, EndedBy::Finish) => Ok(()),
            Phase::Queued | Phase::Ended(..) => Err(self.no(now)),
        }
    }

    /// Time has passed, and runners could be heard.
    pub(super) fn tick(&mut self, now: u64) {
        let fence = self.lease + BUDGET + MARGIN;
        match self.phase {
            Phase::Ended(..) if self.fence.is_some_and(|fence| now > fence) => self.unfenced(),
            Phase::Ended(..) => {}
            _ if self.is_held => {}
            Phase::Claimed if now > self.lease || now > self.begin_limit => {
                self.back(Try::Runner, EndedBy::Lapsed, now);
            }
            Phase::Running if now > self.lease && self.is_canceled => {
                self.fence = Some(fence);
                self.end(TaskState::Canceled, EndedBy::Cancel, true, now);
            }
            Phase::Running if now > self.lease => {
                (self.phase, self.since) = (Phase::Unreachable, self.lease.saturating_sub(LEASE));
                self.then.push(Follows::Said);
            }
            Phase::Unreachable if now > fence => self.fail(EndedBy::Silence, now),
            _ => {}
        }
    }

    /// Runners could not be heard: silence counts from now, whatever the clock was before.
    pub(super) fn rebase(&mut self, now: u64) {
        match self.phase {
            Phase::Queued => self.waits_from = now,
            Phase::Claimed => (self.lease, self.begin_limit) = (now + LEASE, now + BEGIN),
            Phase::Running | Phase::Unreachable => self.lease = now + LEASE,
            Phase::Ended(..) => self.fence = self.fence.map(|_| now + LEASE + BUDGET + MARGIN),
        }
    }

    pub(super) fn hold(&mut self) {
        self.is_held = !matches!(self.phase, Phase::Ended(..));
    }

    pub(super) fn release(&mut self, now: u64) {
        if std::mem::take(&mut self.is_held) {
            self.rebase(now);
            if self.phase == Phase::Queued {
                self.then.push(Follows::Released);
            }
        }
    }

    pub(super) fn end_held(&mut self, now: u64) {
        if !std::mem::take(&mut self.is_held) {
            return;
        }
        if self.phase != Phase::Queued {
            self.fenced(self.lease.max(now));
        }
        let status = if self.is_canceled { TaskState::Canceled } else { TaskState::InfrastructureFail };
        self.end(status, EndedBy::Administrator, true, now);
    }

    /// The attempt can be handed to nobody.
    pub(super) fn withhold(&mut self, by: EndedBy, now: u64) {
        if self.phase == Phase::Queued || self.phase == Phase::Claimed && by == EndedBy::HandOut {
            self.is_held = false;
            self.end(TaskState::Failed, by, true, now);
        }
    }

    /// The attempt waits in a class that has a limit to that, and may be taken by anybody since the wait began.
    pub(super) fn waits(&mut self, now: u64) {
        let is_kept = self.is_held || self.waits_for.is_some();
        if self.phase == Phase::Queued && !is_kept && now > self.waits_from + WAIT {
            self.end(TaskState::InfrastructureFail, EndedBy::HandOut, true, now);
        }
    }

    /// The class goes on after a pause, or has a limit now.
    pub(super) fn resume(&mut self, now: u64) {
        if self.phase == Phase::Queued {
            self.waits_from = now;
        }
    }

    /// The allocation that an agent is told what to run with.
    pub(super) fn awaited(&self, now: u64) -> Result<Option<String>, Denied> {
        if self.phase == Phase::Claimed { Ok(self.allocation.clone()) } else { Err(self.no(now)) }
    }

    /// The runner wants to send what is left of its output.
    pub(super) fn rest(&self, allocation: &str, now: u64) -> Result<(), Denied> {
        let is_taken = match self.phase {
            _ if self.allocation.as_deref() != Some(allocation) => return Err(Denied::AnotherAllocation),
            Phase::Claimed => self.is_first_version,
            Phase::Running | Phase::Unreachable => true,
            Phase::Queued => false,
            Phase::Ended(..) => self.late(now),
        };
        if is_taken { Ok(()) } else { Err(self.no(now)) }
    }

    /// A person, a rerun or its own runner says that nothing of it runs.
    pub(super) fn release_fence(&mut self) {
        self.unfenced();
    }

    /// The fence that it waits for was moved, or is gone.
    pub(super) fn wait_for(&mut self, fence: Option<u64>, now: u64) {
        if self.phase == Phase::Queued && self.waits_for.take().is_some() && fence.is_none() {
            self.waits_from = now;
            if !self.is_held {
                self.then.push(Follows::Released);
            }
        }
        self.waits_for = fence;
    }

    /// The machine must say the same after every event.
    pub(super) fn agree(&mut self, task: &Task) {
        let (phase, lease, begin_limit, fence) = match &task.state {
            Stage::Queued => (Phase::Queued, None, None, None),
            Stage::Claimed { lease_until, begin_until, .. } => {
                (Phase::Claimed, Some(lease_until.0), Some(begin_until.0), None)
            }
            Stage::Running(work) => (Phase::Running, Some(work.lease_until.0), None, None),
            Stage::Unreachable { work, .. } => (Phase::Unreachable, Some(work.lease_until.0), None, None),
            Stage::Ended(end) => {
                (Phase::Ended(end.status, end.by), None, None, end.fence_until.map(|time| time.0))
            }
        };
        assert_eq!(phase, self.phase, "the table says otherwise: {self:?}");
        let flags = (task.cancel_asked, task.is_held, task.not_before.map(|time| time.0), fence);
        assert_eq!(flags, (self.is_canceled, self.is_held, self.waits_for, self.fence), "{self:?}");
        assert_eq!(task.waits_since.0, self.waits_from, "{self:?}");
        let avoid = task.avoid.as_ref().map(|avoid| (avoid.runner.clone(), avoid.until.0));
        assert_eq!(avoid, self.avoid, "{self:?}");
        let claim = task.claim_of().map(|claim| (&claim.runner, &claim.allocation));
        assert_eq!(claim, self.allocation.as_ref().map(|allocation| (&self.runner, allocation)), "{self:?}");
        match &task.state {
            Stage::Unreachable { since, .. } => assert_eq!(since.0, self.since, "{self:?}"),
            Stage::Ended(end) => {
                assert_eq!((end.at.0, end.had_begun), (self.ended_at, self.begun_by.is_some()), "{self:?}");
            }
            Stage::Queued | Stage::Claimed { .. } | Stage::Running(_) => {}
        }
        if let Some(lease) = lease {
            let cap = begin_limit.unwrap_or(u64::MAX);
            let (least, most) = match self.renews.take() {
                // A lease of which much is left need not be renewed.
                Some(now) => ((now + LEASE * 2 / 3).min(cap), (now + LEASE).min(cap)),
                None => (self.lease, self.lease),
            };
            let (least, most) = (least.max(self.lease), most.max(self.lease));
            assert!(
                (least..=most).contains(&lease),
                "the lease {lease} is not in {least}..={most}: {self:?}"
            );
            self.lease = lease;
        }
        self.renews = None;
        if let Some(limit) = begin_limit {
            assert_eq!(limit, self.begin_limit, "{self:?}");
        }
    }
}
