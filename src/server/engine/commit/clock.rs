//! Changes of tasks by the clock, and after the clock or the database was set back.

use crate::protocol::TaskId;
use crate::server::engine::commit::task::{self, InHand};
use crate::server::engine::task::Stage;
use crate::server::store::status::TaskState;
use crate::server::store::tables::{serial, tasks};
use crate::server::store::{Error, Tx};
use crate::server::time::Millis;
use std::time::Duration;

/// Far more than a pass of the sweep takes: beyond this the process was stopped, or the host suspended.
const LONGEST_PASS: Duration = Duration::from_secs(20);
/// Far more than a clock that is kept right runs apart from a steady one in a pass: beyond this it was set.
const CLOCK_WAS_SET: Duration = Duration::from_secs(1);

/// A moment by the clock, and by one that nobody sets.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Time by the clock.
    pub at: Millis,
    /// Time since the control plane was started.
    pub steady: Duration,
}

/// Whether the sweep knows that runners could be heard all the time since its last pass, by a clock that was not set:
/// only then does their silence mean anything. `passed` is that pass, `None` after a start; `writes_failed` tells
/// whether the store lost writes since then, heartbeats among them.
pub fn was_listening(passed: Option<Moment>, writes_failed: bool, now: Moment) -> bool {
    let Some(passed) = passed.filter(|passed| !writes_failed && passed.at <= now.at) else { return false };
    let (by_clock, steady) = (now.at.since(passed.at), now.steady.saturating_sub(passed.steady));
    steady <= LONGEST_PASS && by_clock.abs_diff(steady) <= CLOCK_WAS_SET
}

/// Knowledge of the sweep about the time in which runners could be heard.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    passed: Option<Moment>,
    failed_writes: u64,
}

impl Listening {
    /// Knowledge of a control plane that has just started, of which so many writes were lost: none.
    pub fn begin(failed_writes: u64) -> Self {
        Self { passed: None, failed_writes }
    }

    /// Whether runners could be heard all the time since the last pass: see [`was_listening`].
    pub fn is_unbroken(&self, failed_writes: u64, now: Moment) -> bool {
        was_listening(self.passed, failed_writes != self.failed_writes, now)
    }

    /// A pass. Writes that fail from here on are for the next one. Where leases had to begin anew and did not, they still
    /// have to: silence before the outage does not count by then either.
    pub fn pass(&mut self, failed_writes: u64, now: Moment, leases_are_right: bool) {
        *self = Self { passed: leases_are_right.then_some(now), failed_writes };
    }
}

/// Lets leases, budgets and fences run out. Returns how many tasks that changed.
pub fn tick_once(tx: &Tx<'_>, lease: Duration, now: Millis) -> Result<usize, Error> {
    // A task that stays unreachable is looked at in every pass.
    task::each(tx, tasks::due(tx, now)?, now, |task| task.tick(lease, now))
}

/// Gives whole leases, fences and waits from now, because runners could not be heard. Returns of how many tasks.
pub fn rebase_once(tx: &Tx<'_>, lease: Duration, now: Millis) -> Result<usize, Error> {
    let timed = tasks::timed(tx)?;
    let count = timed.len();
    let fenced: Vec<_> =
        timed.iter().filter(|row| row.fence_until.is_some()).map(|row| row.job.clone()).collect();
    task::each(tx, timed, now, |task| {
        task.rebase(lease, now);
        Vec::new()
    })?;
    for job in fenced {
        task::fence_moved(tx, &job, now)?;
    }
    serial::wait_anew(tx, now)?;
    Ok(count)
}

/// Holds everything that has not ended: the database is that of a backup. Returns how many tasks that are.
pub fn hold_all(tx: &Tx<'_>, now: Millis) -> Result<usize, Error> {
    let open = tasks::open(tx)?;
    let count = open.len();
    task::each(tx, open, now, |task| {
        task.hold();
        Vec::new()
    })?;
    Ok(count)
}

/// Decision of an administrator about a held task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldVerdict {
    /// The task goes on where it was: in its queue, or with the agent that runs it.
    Release,
    /// The task ends: as canceled where that was asked for, else as an infrastructure failure.
    End,
}

/// State in which an administrator's decision found the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldAnswer {
    /// The task was held: the decision is carried out.
    Done,
    /// The task is not held, or no longer: it goes on by itself.
    NotHeld,
    /// The task has ended, and stays as it is.
    HadEnded(TaskState),
    /// There is no such task.
    Unknown,
}

/// Carries out what an administrator says of a held task.
pub fn decide_held(
    tx: &Tx<'_>,
    id: &TaskId,
    verdict: HeldVerdict,
    lease: Duration,
    now: Millis,
) -> Result<HeldAnswer, Error> {
    let Some(mut hand) = InHand::find(tx, id)? else { return Ok(HeldAnswer::Unknown) };
    if let Stage::Ended(end) = &hand.task.state {
        return Ok(HeldAnswer::HadEnded(end.status));
    }
    if !hand.task.is_held {
        return Ok(HeldAnswer::NotHeld);
    }
    let then = match verdict {
        HeldVerdict::Release => hand.task.release(lease, now),
        HeldVerdict::End => hand.task.end_held(now),
    };
    hand.keep(tx, then, now)?;
    Ok(HeldAnswer::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_that_could_not_begin_anew_have_to_in_the_next_pass() {
        let moment = |at: u64| Moment { at: Millis(3_600_000 + at), steady: Duration::from_millis(at) };
        let mut listening = Listening::begin(0);
        assert!(!listening.is_unbroken(0, moment(0)));
        listening.pass(0, moment(0), false);
        assert!(!listening.is_unbroken(0, moment(5_000)));
        listening.pass(0, moment(5_000), true);
        assert!(listening.is_unbroken(0, moment(10_000)) && !listening.is_unbroken(1, moment(10_000)));
        listening.pass(1, moment(10_000), false);
        assert!(!listening.is_unbroken(1, moment(15_000)));
    }

    #[test]
    fn silence_counts_only_while_runners_could_be_heard() {
        // By the clock, and by one that nobody sets.
        let moment = |at: u64, steady: u64| Moment {
            at: Millis(3_600_000 + at),
            steady: Duration::from_millis(steady),
        };
        for (passed, writes_failed, now, heard) in [
            (None, false, moment(0, 0), false),
            (Some(moment(0, 0)), false, moment(5_000, 5_000), true),
            (Some(moment(0, 0)), true, moment(5_000, 5_000), false),
            (Some(moment(0, 0)), false, moment(60_000, 60_000), false),
            (Some(moment(0, 0)), false, moment(12_000, 5_000), false),
            (Some(moment(10_000, 0)), false, moment(8_000, 5_000), false),
            (Some(moment(10_000, 0)), false, moment(12_000, 5_000), false),
        ] {
            assert_eq!(was_listening(passed, writes_failed, now), heard, "{passed:?} {now:?}");
        }
    }
}
