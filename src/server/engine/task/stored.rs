//! A task as its row says, and the row as the task says.

use crate::server::engine::task::{Avoid, Claim, Counts, Machine, Stage, Task, TaskEnd, Work};
use crate::server::store::Error;
use crate::server::store::status::TaskState;
use crate::server::store::tables::tasks::{Start, TaskRow};
use crate::server::time::Millis;
use std::time::Duration;

impl Task {
    /// The task of a row. The error names a row that nothing here has written.
    pub fn of(row: &TaskRow) -> Result<Self, Error> {
        let corrupt =
            |what: &str| Error::Corrupt(format!("the task `{}` is `{}` without {what}", row.id, row.status));
        let claim = || claim_of(row).ok_or_else(|| corrupt("a claim"));
        let lease_until = || row.lease_until.ok_or_else(|| corrupt("a lease"));
        let work = || {
            Ok::<_, Error>(Work { claim: claim()?, agent: row.agent.clone(), lease_until: lease_until()? })
        };
        let state = match row.status {
            TaskState::Queued => Stage::Queued,
            TaskState::Claimed => Stage::Claimed {
                claim: claim()?,
                begin: Duration::from_millis(row.begin_ms.ok_or_else(|| corrupt("a limit to its begin"))?),
                lease_until: lease_until()?,
                begin_until: row.begin_until.ok_or_else(|| corrupt("a time to begin"))?,
            },
            TaskState::Running => Stage::Running(work()?),
            TaskState::Unreachable => Stage::Unreachable {
                work: work()?,
                since: row.unreachable_since.ok_or_else(|| corrupt("the time of its last call"))?,
            },
            status => Stage::Ended(TaskEnd {
                status,
                by: row.ended_by.ok_or_else(|| corrupt("the cause of its end"))?,
                at: row.stopped_at.ok_or_else(|| corrupt("the time of its end"))?,
                claim: claim_of(row),
                had_begun: row.started_at.is_some(),
                fence_until: row.fence_until,
            }),
        };
        let avoid = row.avoid_runner.clone().zip(row.avoid_until);
        Ok(Self {
            state,
            cancel_asked: row.is_canceled,
            is_held: row.is_held,
            counts: Counts {
                by_runners: row.given_back_by_runners,
                by_hosts: row.given_back_by_hosts,
                unsafe_retries: row.unsafe_retries,
            },
            avoid: avoid.map(|(runner, until)| Avoid { runner, until }),
            not_before: row.not_before,
            waits_since: row.waits_since,
            gone_class: row.is_class_gone.then(|| row.resource_class.clone()),
        })
    }

    /// The beginning of its row, for a task that nothing has happened to.
    pub fn initial(&self) -> Start {
        let (avoid_runner, avoid_until) =
            self.avoid.as_ref().map(|avoid| (avoid.runner.clone(), avoid.until)).unzip();
        Start {
            is_held: self.is_held,
            given_back_by_runners: self.counts.by_runners,
            given_back_by_hosts: self.counts.by_hosts,
            unsafe_retries: self.counts.unsafe_retries,
            avoid_runner,
            avoid_until,
            not_before: self.not_before,
            waits_since: self.waits_since,
        }
    }

    /// Writes into a row what changes in the life of a task.
    pub fn write_to(&self, row: &mut TaskRow, now: Millis) {
        row.is_canceled = self.cancel_asked;
        row.is_held = self.is_held;
        (row.not_before, row.waits_since) = (self.not_before, self.waits_since);
        if let Some(claim) = self.claim_of() {
            row.allocation = Some(claim.allocation.clone());
            row.runner_name = Some(claim.runner.clone());
            row.machine_id = claim.machine.as_ref().map(|machine| machine.id.clone());
            row.boot_id = claim.machine.as_ref().map(|machine| machine.boot.clone());
            row.protocol = Some(claim.protocol);
            row.budget_ms = Some(claim.budget.as_millis() as u64);
            row.retries_unsafely = claim.retries_unsafely;
            row.claimed_at.get_or_insert(now);
        }
        (row.begin_until, row.unreachable_since) = (None, None);
        match &self.state {
            Stage::Queued => row.status = TaskState::Queued,
            Stage::Claimed { begin, lease_until, begin_until, .. } => {
                row.status = TaskState::Claimed;
                row.begin_ms = Some(begin.as_millis() as u64);
                (row.lease_until, row.begin_until) = (Some(*lease_until), Some(*begin_until));
            }
            Stage::Running(work) => {
                row.status = TaskState::Running;
                begun(row, work, now);
            }
            Stage::Unreachable { work, since } => {
                row.status = TaskState::Unreachable;
                row.unreachable_since = Some(*since);
                begun(row, work, now);
            }
            Stage::Ended(end) => {
                row.status = end.status;
                row.ended_by = Some(end.by);
                row.stopped_at = Some(end.at);
                row.fence_until = end.fence_until;
            }
        }
    }

    /// Whether it differs from what it was by its lease alone.
    pub fn is_renewed(&self, was: &Self) -> bool {
        let mut renewed = was.clone();
        match (&mut renewed.state, &self.state) {
            (Stage::Claimed { lease_until, .. }, Stage::Claimed { lease_until: now, .. }) => {
                *lease_until = *now
            }
            (Stage::Running(work), Stage::Running(now)) => work.lease_until = now.lease_until,
            _ => return false,
        }
        renewed == *self
    }
}

fn begun(row: &mut TaskRow, work: &Work, now: Millis) {
    row.agent.clone_from(&work.agent);
    row.lease_until = Some(work.lease_until);
    row.started_at.get_or_insert(now);
}

fn claim_of(row: &TaskRow) -> Option<Claim> {
    let machine = row.machine_id.clone().zip(row.boot_id.clone());
    Some(Claim {
        allocation: row.allocation.clone()?,
        runner: row.runner_name.clone()?,
        machine: machine.map(|(id, boot)| Machine { id, boot }),
        protocol: row.protocol?,
        budget: Duration::from_millis(row.budget_ms?),
        retries_unsafely: row.retries_unsafely,
    })
}
