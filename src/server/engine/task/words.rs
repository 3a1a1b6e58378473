//! The words of the machine: a task and its states, a claim and its counters, what a call is answered, what follows from it.

use crate::protocol::GiveBackReason;
use crate::server::store::status::{EndedBy, TaskState};
use crate::server::time::Millis;
use std::fmt;
use std::time::Duration;

/// Times that runners may give a task back before it fails.
pub const MOST_GIVEN_BACK_BY_RUNNERS: u32 = 3;
/// Times that a task may come back because a host cannot work before it fails.
pub const MOST_GIVEN_BACK_BY_HOSTS: u32 = 10;
/// Times that what was lost after it began is queued again, where unsafe retries are wanted.
pub const MOST_UNSAFE_RETRIES: u32 = 3;
/// A task that has begun may be silent this long, unless its class says otherwise.
pub const DEFAULT_BUDGET: Duration = Duration::from_secs(15 * 60);
/// A claimed task that has not begun by then goes back to its queue, unless its class says otherwise.
pub const LONGEST_BEGIN: Duration = Duration::from_secs(10 * 60);
/// Output and events of a task that ended without its agent are taken this long.
pub const LATE: Duration = Duration::from_secs(24 * 60 * 60);

/// Added to the budget of a class for its tasks, so that a network that is away for no longer costs nothing. Agents count
/// from the last answer: that of a heartbeat, 20 s before the cut at most. When the network is back, a call that hangs is
/// given up 40 s after it was made, and the next one is made 15 s later at most. The last 30 s of what they are told are
/// for stopping the steps.
pub const BUDGET_MARGIN: Duration = Duration::from_secs(20 + 40 + 15 + 30);

/// Added to lease and budget before anything takes the place of a silent task: clocks run apart, answers take time.
pub const FENCE_MARGIN: Duration = Duration::from_secs(30);

/// An attempt at one node of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// State of the attempt.
    pub state: Stage,
    /// A person (or a newer pipeline) wants it to end, and its agent has not confirmed it yet.
    pub cancel_asked: bool,
    /// A restored backup: nothing happens by the clock, nobody claims it, until an administrator decides.
    pub is_held: bool,
    /// How often the work was tried in vain, over all attempts.
    pub counts: Counts,
    /// The runner that gave the attempt before back.
    pub avoid: Option<Avoid>,
    /// Estimated end of the fence of the task that this one replaces. While it is set nobody may claim this one; only
    /// `wait_for_fence` clears it, never the clock.
    pub not_before: Option<Millis>,
    /// Time from which on somebody could claim it without a break: when it entered the queue, its fence went, it was
    /// released, its class went on after a pause or was given a limit, or runners could be heard again.
    pub waits_since: Millis,
    /// The name of its resource class where that is deleted: nobody would take a further attempt from its queue.
    pub gone_class: Option<String>,
}

impl Task {
    /// A first attempt, which may have to wait for the fence of what it replaces.
    pub fn first(not_before: Option<Millis>, now: Millis) -> Self {
        Self {
            state: Stage::Queued,
            cancel_asked: false,
            is_held: false,
            counts: Counts::default(),
            avoid: None,
            not_before,
            waits_since: now,
            gone_class: None,
        }
    }

    /// A further attempt. It waits anew, since somebody took the one before in time.
    pub fn further(next: &NextAttempt, now: Millis) -> Self {
        Self {
            counts: next.counts,
            avoid: next.avoid.clone(),
            is_held: next.is_held,
            ..Self::first(None, now)
        }
    }

    /// Whether its agent has begun, and it has not ended.
    pub(super) fn has_begun(&self) -> bool {
        matches!(self.state, Stage::Running(_) | Stage::Unreachable { .. })
    }

    /// The answer to a call that came in time.
    pub(super) fn taken(&self) -> Passed {
        Passed { late: false, cancel: self.cancel_asked }
    }

    /// How long it may still take to begin; nothing of one that is not claimed.
    pub fn begin_left(&self, now: Millis) -> Duration {
        match &self.state {
            Stage::Claimed { begin_until, .. } => begin_until.since(now),
            _ => Duration::ZERO,
        }
    }

    /// The claim that holds it, or held it when it ended.
    pub fn claim_of(&self) -> Option<&Claim> {
        match &self.state {
            Stage::Queued => None,
            Stage::Claimed { claim, .. } => Some(claim),
            Stage::Running(work) | Stage::Unreachable { work, .. } => Some(&work.claim),
            Stage::Ended(end) => end.claim.as_ref(),
        }
    }
}

/// Stage that a task has come to, and what belongs to it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The task waits for a runner of its class.
    Queued,
    /// A runner has it and has not begun.
    Claimed {
        /// The claim of the runner that has it.
        claim: Claim,
        /// How long the task may take to begin, as its class had it at the claim.
        begin: Duration,
        /// Time after which the task goes back to the queue, unless its runner is heard of.
        lease_until: Millis,
        /// Time after which the task goes back to the queue, whatever is heard of its runner.
        begin_until: Millis,
    },
    /// The agent runs steps.
    Running(Work),
    /// The agent has begun and was not heard of for a lease.
    Unreachable {
        /// The work that it had begun.
        work: Work,
        /// Time about which it was heard of for the last time.
        since: Millis,
    },
    /// The task has ended: output and events may still come late, and its fence may go.
    Ended(TaskEnd),
}

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
    /// Whether its class wants the task to run again when the infrastructure fails after it began.
    pub retries_unsafely: bool,
}

/// A start of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Id of the host, the same over restarts.
    pub id: String,
    /// Id of the start, another one after each restart.
    pub boot: String,
}

/// Work of an agent that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// The claim that it began with.
    pub claim: Claim,
    /// Random id of the agent; runners of protocol 1 give none.
    pub agent: Option<String>,
    /// Time from which on silence counts.
    pub lease_until: Millis,
}

/// The end of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskEnd {
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
    /// Time before which nothing takes the place of the task, as long as its agent has not confirmed that it stopped.
    pub fence_until: Option<Millis>,
}

/// How often the work of a task was tried in vain, over all attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Times that it was given back by runners, lapsed or was lost before it began.
    pub by_runners: u32,
    /// Times that it was given back because the host could not work.
    pub by_hosts: u32,
    /// Times that it was lost after it began, and queued again.
    pub unsafe_retries: u32,
}

/// A runner that should not get the task again at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avoid {
    /// Name of the runner.
    pub runner: String,
    /// Time from which on the runner may get the task like any other.
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
    /// The task runs from now on: so does its job.
    Begun,
    /// Parked calls of its agent must hear of the cancel.
    CancelAsked,
    /// The task has ended: steps that run are closed, its job is looked at. The text is for people, where there is
    /// something to say.
    Ended(Option<String>),
    /// A further attempt enters the queue.
    Again(NextAttempt),
    /// A message that people see with the job.
    Say(String),
    /// The agent has certainly stopped: serial keys and nodes that waited for that are free.
    FenceGone,
    /// The task can be claimed again.
    Released,
}

/// An answer, and what must follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition<A> {
    /// The answer to the caller.
    pub answer: A,
    /// Consequences, in the order in which they are carried out.
    pub then: Vec<Consequence>,
}

impl<A> Transition<A> {
    pub(super) fn of(answer: A) -> Self {
        Self { answer, then: Vec::new() }
    }

    pub(super) fn then(answer: A, then: impl Into<Vec<Consequence>>) -> Self {
        Self { answer, then: then.into() }
    }
}

/// Reason why a call was not accepted: what the task is, and why the call came too late or too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The task waits in its queue: nobody has it.
    Queued,
    /// The task has ended.
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
    /// The task has begun, so that it cannot be given back.
    Begun,
    /// The task is claimed anew since.
    AnotherAllocation,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denied::Queued => f.write_str("the task waits in its queue: nobody holds it"),
            Denied::Ended { status, by, late } => {
                write!(f, "the task has ended as `{status}`, {}", by.told())?;
                f.write_str(if *late {
                    ": stop; only output and events of its steps are still taken"
                } else {
                    ": stop, and send nothing more"
                })
            }
            Denied::AnotherAgent => {
                f.write_str("the task was begun by another task agent with the same token: stop this one")
            }
            Denied::NotBegun => {
                f.write_str("the task has not begun: `begin` comes before anything but its spin-up record")
            }
            Denied::Begun => {
                f.write_str("the task has begun: it is neither handed out nor given back any more, and goes on to its end")
            }
            Denied::AnotherAllocation => {
                f.write_str("the task is held under another allocation: this one is over")
            }
        }
    }
}

/// The terms on which the tasks of a class wait for a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTerms<'a> {
    /// Name of the class.
    pub class: &'a str,
    /// How long a task may wait; for ever unless given.
    pub limit: Option<Duration>,
    /// Runners of the class get no tasks.
    pub is_paused: bool,
}

/// Reason why a task cannot be claimed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotClaimable {
    /// The task is not in the queue.
    NotQueued,
    /// An administrator must release it first.
    Held,
    /// The task that it replaces may still be at work.
    Fenced,
    /// The runner may claim the task from this time on.
    Before(Millis),
}

/// A kind of call with a task token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A call that says only that the agent is there.
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

/// The answer to a [`Call`] that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
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
    /// The task has begun or ended since.
    Holds {
        /// Whether it has ended; otherwise it has begun.
        ended: bool,
    },
}

/// The answer to a finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// The task has ended now.
    Now,
    /// The task had ended by the same call before.
    Before,
    /// A part of it has not arrived: it goes on.
    Incomplete,
}

/// A step that an agent has left out of its last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unaccounted<'a> {
    /// Number of its record.
    pub step: u32,
    /// Name that people see.
    pub name: &'a str,
    /// Bytes of output that its end told of and the last word does not; none where it has not ended.
    pub bytes: Option<u64>,
}

/// The last word of an agent about its task.
#[derive(Clone, Debug)]
pub struct FinishReport<'a> {
    /// Status that it gives the task.
    pub status: TaskState,
    /// A sentence for people.
    pub message: Option<&'a str>,
    /// All events and all output that it tells of are here.
    pub is_complete: bool,
    /// A step that it has not accounted for.
    pub overlooked: Option<Unaccounted<'a>>,
}

/// Reason and pause of a runner that gives a task back.
#[derive(Clone, Debug)]
pub struct GivingBack<'a> {
    /// Kind of the reason, which chooses the counter.
    pub reason: GiveBackReason,
    /// Reason for people.
    pub message: &'a str,
    /// How long its runner pauses.
    pub pause: Duration,
}
