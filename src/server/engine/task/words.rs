//! The words of the machine: a claim and its counters, what a call is answered, what follows from it.

use crate::protocol::GiveBackReason;
use crate::server::store::status::{EndedBy, TaskState};
use crate::server::time::Millis;
use std::fmt;
use std::time::Duration;

/// Added to lease and budget before anything takes the place of a silent task: clocks run apart, answers take time.
pub const FENCE_MARGIN: Duration = Duration::from_secs(30);

/// The hold of a runner on a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Identifies the claim.
    pub allocation: String,
    /// Name of the runner.
    pub runner: String,
    /// Host of the runner, where it says so.
    pub machine: Option<Machine>,
    /// Protocol version of the runner.
    pub protocol: u32,
    /// How long the task may be silent once it has begun.
    pub budget: Duration,
    /// Its class wants it to run again when the infrastructure fails after it began.
    pub retries_unsafely: bool,
}

impl Claim {
    /// From here on an agent has certainly stopped its steps whose last answer was not later than the lease tells, or
    /// than now.
    pub(super) fn fence(&self, lease_until: Millis, now: Millis) -> Millis {
        lease_until.max(now).plus(self.budget).plus(FENCE_MARGIN)
    }
}

/// One start of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Stays the same over restarts.
    pub id: String,
    /// Differs after each.
    pub boot: String,
}

/// Work of an agent that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// The claim that it began with.
    pub claim: Claim,
    /// Its random id; runners of protocol 1 have none.
    pub agent: Option<String>,
    /// Silence counts from here.
    pub lease_until: Millis,
}

impl Work {
    /// Time from which on its agent has certainly stopped its steps.
    pub(super) fn fence(&self) -> Millis {
        self.lease_until.plus(self.claim.budget).plus(FENCE_MARGIN)
    }
}

/// The end of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Status that it ended with.
    pub status: TaskState,
    /// The cause of the end.
    pub by: EndedBy,
    /// Time of the end.
    pub at: Millis,
    /// The last claim, if there was one.
    pub claim: Option<Claim>,
    /// Whether its steps may have run.
    pub had_begun: bool,
    /// Its agent has not confirmed that it stopped: nothing takes its place before.
    pub fence_until: Option<Millis>,
}

/// How often the work of a task was tried in vain, over all attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Given back by runners, lapsed or lost before it began.
    pub by_runners: u32,
    /// Given back because the host could not work.
    pub by_hosts: u32,
    /// Lost after it began, and queued again.
    pub unsafe_retries: u32,
}

/// A runner that should not get the task again at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avoid {
    /// Name of the runner.
    pub runner: String,
    /// Until this time; then it may get the task like any other.
    pub until: Millis,
}

/// Outcome for a task that was given back.
pub use crate::protocol::GivenBack;

/// A further attempt at the same node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextAttempt {
    /// Counters so far.
    pub counts: Counts,
    /// The runner that gave this one back.
    pub avoid: Option<Avoid>,
    /// An administrator decides about it as about this one.
    pub is_held: bool,
    /// Reason for people why this one never began, where it did not.
    pub why: Option<String>,
}

/// Consequence of a decision, to be carried out in the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// It runs from now on: so does its job.
    Begun,
    /// Parked calls of its agent must hear of the cancel.
    CancelAsked,
    /// It has ended: steps that run are closed, its job is looked at. For people, where there is something to say.
    Ended(Option<String>),
    /// A further attempt enters the queue.
    Again(NextAttempt),
    /// A message that people see with the job.
    Say(String),
    /// Its agent has certainly stopped: serial keys and nodes that waited for that are free.
    FenceGone,
    /// It can be claimed again.
    Released,
}

/// An answer, and what must follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<A> {
    /// The answer to the caller.
    pub answer: A,
    /// Consequences, in the order in which they are carried out.
    pub then: Vec<Consequence>,
}

impl<A> Step<A> {
    pub(super) fn of(answer: A) -> Self {
        Self { answer, then: Vec::new() }
    }

    pub(super) fn then(answer: A, then: impl Into<Vec<Consequence>>) -> Self {
        Self { answer, then: then.into() }
    }
}

/// Reason why a call was not accepted: what the task is, and why the call came too late or too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It waits in its queue: nobody has it.
    Queued,
    /// It has ended.
    Ended {
        /// Status that it ended with.
        status: TaskState,
        /// Cause of the end.
        by: EndedBy,
        /// Output and events are still taken.
        late: bool,
    },
    /// Another agent has begun with the same token.
    AnotherAgent,
    /// The call belongs behind `begin`.
    NotBegun,
    /// It has begun, so that it cannot be given back.
    Begun,
    /// It is claimed anew since.
    AnotherAllocation,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Queued => f.write_str("the task waits in its queue: nobody holds it"),
            Refused::Ended { status, by, late } => {
                write!(f, "the task has ended as `{status}`, {}", by.told())?;
                f.write_str(if *late {
                    ": stop; only output and events of its steps are still taken"
                } else {
                    ": stop, and send nothing more"
                })
            }
            Refused::AnotherAgent => {
                f.write_str("the task was begun by another task agent with the same token: stop this one")
            }
            Refused::NotBegun => {
                f.write_str("the task has not begun: `begin` comes before anything but its spin-up record")
            }
            Refused::Begun => {
                f.write_str("the task has begun: it cannot be given back any more, only finish")
            }
            Refused::AnotherAllocation => {
                f.write_str("the task is held under another allocation: this one is over")
            }
        }
    }
}

/// Reason why a task cannot be claimed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotClaimable {
    /// It is not in the queue.
    NotQueued,
    /// An administrator must release it first.
    Held,
    /// The task that it replaces may still be at work.
    Fenced,
    /// It may be claimed by this runner from this time on.
    Before(Millis),
}

/// A kind of call with a task token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Says only that the agent is there.
    Heartbeat,
    /// Output of a step record.
    Output {
        /// Whether it is output of the spin-up record, which may come before `begin`.
        is_spin_up: bool,
    },
    /// Events of step records.
    Events {
        /// Whether all of them are of the spin-up record, which may come before `begin`.
        is_spin_up: bool,
    },
    /// Uploads, artifacts, caches, workspaces, test results.
    Other,
}

/// The answer to a [`Call`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The task has ended, and the call was taken all the same.
    pub late: bool,
    /// A cancel is asked for.
    pub cancel: bool,
}

/// The answer to a claim with a nonce that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimedAgain {
    /// The answer was lost on the way: the same task again.
    Again,
    /// It has begun or ended since.
    Holds {
        /// Whether it has ended; otherwise it has begun.
        ended: bool,
    },
}

/// The answer to a finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// It has ended now.
    Now,
    /// It had ended by the same call before.
    Before,
}

/// Reason and pause of a runner that gives a task back.
#[derive(Clone, Debug)]
pub struct Returned<'a> {
    /// Which counter it goes to.
    pub reason: GiveBackReason,
    /// Reason for people.
    pub message: &'a str,
    /// How long its runner pauses.
    pub pause: Duration,
}

/// The end of a lease after a call. Never earlier than before; the same while more than two thirds are left, so that
/// most calls write nothing.
pub(super) fn renewed(lease_until: Millis, lease: Duration, now: Millis) -> Millis {
    if lease_until > now.plus(lease * 2 / 3) { lease_until } else { now.plus(lease) }
}
