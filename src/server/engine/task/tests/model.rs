//! The table of docs/protocol.md, written down a second time and as plainly as possible, in milliseconds. It shares
//! nothing with the machine but its words, and takes from it only which lease a call has got, within bounds.

use crate::protocol::{GiveBackReason, GivenBack};
use crate::server::engine::task::{Call, Finished, Refused, State, Task};
use crate::server::store::status::{EndedBy, TaskState};
use std::collections::BTreeMap;

pub(super) const LEASE: u64 = 60_000;
pub(super) const BUDGET: u64 = 300_000;
const MARGIN: u64 = 30_000;
const BEGIN: u64 = 600_000;
const LATE: u64 = 86_400_000;

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

/// Refusals by their kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum No {
    Queued,
    Ended { late: bool },
    AnotherAgent,
    NotBegun,
    Begun,
    AnotherAllocation,
}

impl From<Refused> for No {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Queued => No::Queued,
            Refused::Ended { late, .. } => No::Ended { late },
            Refused::AnotherAgent => No::AnotherAgent,
            Refused::NotBegun => No::NotBegun,
            Refused::Begun => No::Begun,
            Refused::AnotherAllocation => No::AnotherAllocation,
        }
    }
}

/// One attempt, as the table has it.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) phase: Phase,
    pub(super) tries: BTreeMap<Try, u32>,
    pub(super) is_canceled: bool,
    pub(super) is_held: bool,
    /// The fence of a run before, as long as it stands.
    pub(super) waits_for: Option<u64>,
    /// Its own fence, as long as it stands.
    pub(super) fence: Option<u64>,
    /// A further attempt has followed from the last event.
    pub(super) again: bool,
    avoid: Option<(String, u64)>,
    begun_by: Option<String>,
    is_first_version: bool,
    retries: bool,
    was_claimed: bool,
    lease: u64,
    begin_limit: u64,
    ended_at: u64,
    /// The last event was a call that renews the lease, at this time.
    renews: Option<u64>,
}

impl Model {
    pub(super) fn new(tries: BTreeMap<Try, u32>) -> Self {
        Self {
            phase: Phase::Queued,
            tries,
            is_canceled: false,
            is_held: false,
            waits_for: None,
            fence: None,
            again: false,
            avoid: None,
            begun_by: None,
            is_first_version: false,
            retries: false,
            was_claimed: false,
            lease: 0,
            begin_limit: 0,
            ended_at: 0,
            renews: None,
        }
    }

    /// The attempt after this one.
    pub(super) fn next(&self, avoid: Option<(String, u64)>) -> Self {
        Self { avoid, is_held: self.is_held, ..Self::new(self.tries.clone()) }
    }

    fn end(&mut self, status: TaskState, by: EndedBy, now: u64) {
        (self.phase, self.ended_at) = (Phase::Ended(status, by), now);
    }

    fn fenced(&mut self, lease: u64) {
        self.fence = Some(lease + BUDGET + MARGIN);
    }

    /// Tries once more, unless that was done as often as it is done.
    fn try_again(&mut self, kind: Try, by: EndedBy, now: u64) -> bool {
        let so_often = self.tries.entry(kind).or_default();
        self.again = *so_often < kind.most();
        if self.again {
            *so_often += 1;
            self.end(TaskState::Retried, by, now);
        }
        self.again
    }

    fn back(&mut self, kind: Try, by: EndedBy, now: u64) {
        if !self.try_again(kind, by, now) {
            self.end(TaskState::InfrastructureFail, by, now);
        }
        self.is_held &= self.again;
    }

    /// The infrastructure ends what had begun.
    fn fail(&mut self, by: EndedBy, now: u64) {
        if self.is_canceled {
            self.end(TaskState::Canceled, by, now);
        } else if !(self.retries && self.try_again(Try::Unsafe, by, now)) {
            self.end(TaskState::InfrastructureFail, by, now);
        }
        self.is_held &= self.again;
    }

    fn late(&self, now: u64) -> bool {
        let Phase::Ended(_, by) = &self.phase else { return false };
        let by_itself = matches!(
            by,
            EndedBy::Finish | EndedBy::GivenBack | EndedBy::Lapsed | EndedBy::HandOut | EndedBy::ClassDeleted
        );
        self.was_claimed && !by_itself && now.saturating_sub(self.ended_at) < LATE
    }

    fn no(&self, now: u64) -> No {
        match self.phase {
            Phase::Queued => No::Queued,
            Phase::Claimed => No::NotBegun,
            Phase::Running | Phase::Unreachable => No::Begun,
            Phase::Ended(..) => No::Ended { late: self.late(now) },
        }
    }

    pub(super) fn may_claim(&self, runner: &str, others: bool, now: u64) -> bool {
        let avoided =
            self.avoid.as_ref().is_some_and(|(name, until)| others && name == runner && now < *until);
        self.phase == Phase::Queued && !self.is_held && self.waits_for.is_none() && !avoided
    }

    pub(super) fn claim(&mut self, is_first_version: bool, retries: bool, now: u64) {
        (self.phase, self.is_first_version, self.retries) = (Phase::Claimed, is_first_version, retries);
        (self.was_claimed, self.begin_limit, self.lease) = (true, now + BEGIN, now + LEASE);
    }

    pub(super) fn claim_again(&mut self, now: u64) -> bool {
        if self.phase == Phase::Claimed {
            self.lease = self.lease.max((now + LEASE).min(self.begin_limit));
        }
        self.phase == Phase::Claimed
    }

    fn starts(&mut self, agent: Option<&str>, now: u64) {
        (self.phase, self.begun_by, self.renews) =
            (Phase::Running, Some(agent.unwrap_or_default().to_owned()), Some(now));
    }

    pub(super) fn begin(&mut self, agent: &str, now: u64) -> Result<(), No> {
        match self.phase {
            Phase::Claimed => self.starts(Some(agent), now),
            Phase::Running | Phase::Unreachable if self.begun_by.as_deref() == Some(agent) => {
                (self.phase, self.renews) = (Phase::Running, Some(now));
            }
            Phase::Running | Phase::Unreachable => return Err(No::AnotherAgent),
            Phase::Queued | Phase::Ended(..) => return Err(self.no(now)),
        }
        Ok(())
    }

    /// Whether the call came late, when it is taken.
    pub(super) fn call(&mut self, call: Call, now: u64) -> Result<bool, No> {
        match self.phase {
            Phase::Claimed => match call {
                Call::Events { .. } | Call::Output { .. } | Call::Other if self.is_first_version => {
                    self.starts(None, now);
                }
                Call::Output { is_spin_up: false } | Call::Events { is_spin_up: false } | Call::Other => {
                    return Err(No::NotBegun);
                }
                _ => self.renews = Some(now),
            },
            Phase::Running | Phase::Unreachable => {
                (self.phase, self.renews) = (Phase::Running, Some(now));
            }
            Phase::Ended(..)
                if matches!(call, Call::Output { .. } | Call::Events { .. }) && self.late(now) =>
            {
                return Ok(true);
            }
            Phase::Queued | Phase::Ended(..) => return Err(self.no(now)),
        }
        Ok(false)
    }

    pub(super) fn give_back(&mut self, reason: GiveBackReason, now: u64) -> Result<GivenBack, No> {
        match self.phase {
            Phase::Claimed => {
                let kind = match reason {
                    GiveBackReason::Runner => Try::Runner,
                    GiveBackReason::Host => Try::Host,
                };
                self.back(kind, EndedBy::GivenBack, now);
                Ok(if self.again { GivenBack::Queued } else { GivenBack::Failed })
            }
            Phase::Ended(status, EndedBy::GivenBack | EndedBy::Lapsed) => {
                Ok(if status == TaskState::Retried { GivenBack::Queued } else { GivenBack::Failed })
            }
            Phase::Ended(_, EndedBy::Cancel) if self.begun_by.is_none() => Ok(GivenBack::Canceled),
            _ => Err(self.no(now)),
        }
    }

    pub(super) fn cancel(&mut self, now: u64) {
        match self.phase {
            Phase::Queued | Phase::Claimed => self.end(TaskState::Canceled, EndedBy::Cancel, now),
            Phase::Running => {}
            Phase::Unreachable => {
                self.fenced(self.lease);
                self.end(TaskState::Canceled, EndedBy::Cancel, now);
            }
            Phase::Ended(..) => return,
        }
        self.is_canceled = true;
        self.is_held &= !matches!(self.phase, Phase::Ended(..));
    }

    pub(super) fn finish(&mut self, status: TaskState, now: u64) -> Result<Finished, No> {
        let may_finish = match self.phase {
            Phase::Claimed => self.is_first_version && status != TaskState::Success,
            Phase::Running | Phase::Unreachable => true,
            Phase::Ended(_, EndedBy::Finish) => return Ok(Finished::Before),
            Phase::Queued | Phase::Ended(..) => false,
        };
        if !may_finish {
            self.fence = None;
            return Err(self.no(now));
        }
        if status == TaskState::InfrastructureFail && self.phase != Phase::Claimed {
            self.fail(EndedBy::Finish, now);
        } else {
            let status = if self.is_canceled { TaskState::Canceled } else { status };
            self.end(status, EndedBy::Finish, now);
            self.is_held = false;
        }
        Ok(Finished::Now)
    }

    pub(super) fn lost(&mut self, by: EndedBy, now: u64) -> Result<(), No> {
        match self.phase {
            Phase::Queued => return Err(No::Queued),
            Phase::Claimed => {
                let by = if by == EndedBy::Lost { EndedBy::GivenBack } else { EndedBy::Lapsed };
                self.back(Try::Runner, by, now);
            }
            Phase::Running | Phase::Unreachable => self.fail(by, now),
            Phase::Ended(..) => self.fence = None,
        }
        Ok(())
    }

    /// Time has passed, and runners could be heard.
    pub(super) fn tick(&mut self, now: u64) {
        let fence = self.lease + BUDGET + MARGIN;
        match self.phase {
            Phase::Ended(..) => self.fence = self.fence.filter(|fence| now <= *fence),
            _ if self.is_held => {}
            Phase::Claimed if now > self.lease || now > self.begin_limit => {
                self.back(Try::Runner, EndedBy::Lapsed, now);
            }
            Phase::Running if now > self.lease && self.is_canceled => {
                self.fence = Some(fence);
                self.end(TaskState::Canceled, EndedBy::Cancel, now);
            }
            Phase::Running if now > self.lease => self.phase = Phase::Unreachable,
            Phase::Unreachable if now > fence => self.fail(EndedBy::Silence, now),
            _ => {}
        }
    }

    /// Runners could not be heard: silence counts from now.
    pub(super) fn rebase(&mut self, now: u64) {
        match self.phase {
            Phase::Queued => {}
            Phase::Claimed => {
                self.lease = self.lease.max(now + LEASE);
                self.begin_limit = self.begin_limit.max(self.lease);
            }
            Phase::Running | Phase::Unreachable => self.lease = self.lease.max(now + LEASE),
            Phase::Ended(..) => {
                self.fence = self.fence.map(|fence| fence.max(now + LEASE + BUDGET + MARGIN));
            }
        }
    }

    pub(super) fn hold(&mut self) {
        self.is_held = !matches!(self.phase, Phase::Ended(..));
    }

    pub(super) fn release(&mut self, now: u64) {
        if std::mem::take(&mut self.is_held) {
            self.rebase(now);
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
        self.end(status, EndedBy::Administrator, now);
    }

    /// Nobody can get it.
    pub(super) fn withhold(&mut self, by: EndedBy, now: u64) {
        if self.phase == Phase::Queued || self.phase == Phase::Claimed && by == EndedBy::HandOut {
            self.is_held = false;
            self.end(TaskState::Failed, by, now);
        }
    }

    /// The machine must say the same after every event.
    pub(super) fn agree(&mut self, task: &Task) {
        let (phase, lease, begin_limit, fence) = match &task.state {
            State::Queued => (Phase::Queued, None, None, None),
            State::Claimed { lease_until, begin_until, .. } => {
                (Phase::Claimed, Some(lease_until.0), Some(begin_until.0), None)
            }
            State::Running(work) => (Phase::Running, Some(work.lease_until.0), None, None),
            State::Unreachable { work, .. } => (Phase::Unreachable, Some(work.lease_until.0), None, None),
            State::Ended(end) => {
                (Phase::Ended(end.status, end.by), None, None, end.fence_until.map(|time| time.0))
            }
        };
        assert_eq!(phase, self.phase, "the table says otherwise: {self:?}");
        let flags = (task.cancel_asked, task.is_held, task.not_before.map(|time| time.0), fence);
        assert_eq!(flags, (self.is_canceled, self.is_held, self.waits_for, self.fence), "{self:?}");
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
