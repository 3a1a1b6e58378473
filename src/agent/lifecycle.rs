//! Decides the next act of a machine runner. No IO: events and the time come in, a decision goes out.
//!
//! ```text
//!            nothing came, failed (wait)                      drain, idle timeout, mismatch
//!             +--------+                                     +-----------------> exit
//!             v        |                                     |
//!          [ Idle ] ---+---- claimed --> [ Running ] -- ended, continuous --> [ Idle ]
//!                                            |  \------ ended, single-task or drain --> exit
//!                                            | too long, drained too long, cancelled
//!                                            v
//!                                        [ Ending ]  TERM, grace, KILL, then as ended
//! ```
//!
//! [`super::machine`] carries the decisions out.

use super::pace::{CLAIM_WAIT, Notice, Pace};
use super::settings::Mode;
use super::stop::Level;
use crate::http::Error;
use std::time::{Duration, Instant};

/// First pause of a host on which a task could not begin; it doubles with each further one.
const HOST_PAUSE: Duration = Duration::from_secs(1);
/// Longest such pause.
const MAX_HOST_PAUSE: Duration = Duration::from_secs(300);
/// A host on which task agents die young is sick; other hosts should have the queue.
const SICK_WAIT: Duration = Duration::from_secs(60);
/// Age up to which a task agent counts as young.
const YOUNG: Duration = Duration::from_secs(10);
/// The times that settings decide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) mode: Mode,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) max_run_time: Duration,
}

impl Limits {
    /// The task agent stops a task that runs too long by itself and reports it; the runner only steps
    /// in when that has not happened after this long.
    fn overrun(&self) -> Duration {
        self.max_run_time.clamp(Duration::from_secs(1), Duration::from_secs(60))
    }

    /// Time from TERM to KILL. The task agent needs it to end the step, and to report.
    fn grace(&self) -> Duration {
        self.max_run_time.clamp(Duration::from_secs(1), Duration::from_secs(30))
    }
}

/// Why a runner ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The runner was asked to stop.
    Stopped,
    /// Mode `single-task`, and the task is over.
    SingleTask,
    /// `runner.idle_timeout` passed without a task.
    Idle,
    /// The runner was asked to leave a running task to the next runner.
    Left,
    /// The runner cannot go on; the text says what to do about it.
    Fatal(String),
}

/// Why a task is ended by the runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndReason {
    TooLong,
    DrainTooLong,
    Cancelled,
}

impl EndReason {
    pub(super) fn text(self) -> &'static str {
        match self {
            EndReason::TooLong => "the task runs longer than `runner.max_run_time`",
            EndReason::DrainTooLong => "draining lasts longer than `runner.max_run_time`",
            EndReason::Cancelled => "the runner was told to stop a second time",
        }
    }
}

/// The next act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask for a task, parked at most this long.
    Claim(Duration),
    /// Wait this long, or until the stop level changes.
    Sleep(Duration),
    /// Wait for the task agent, at most until then, or until the stop level changes.
    Watch(Option<Instant>),
    /// Ask the task agent to end.
    Term(EndReason),
    /// Kill the task agent, which did not end in time.
    Kill(EndReason),
    /// End the runner, for this reason.
    Exit(ExitReason),
}

#[derive(Clone, Debug)]
enum State {
    Idle,
    /// `since` is the claim; the limit of the run time counts until all steps have ended.
    Running {
        since: Instant,
        delivering: bool,
    },
    Ending {
        why: EndReason,
        since: Instant,
        killed: bool,
        claimed: Instant,
    },
    Over(ExitReason),
}

/// The state of one runner.
#[derive(Debug)]
pub(super) struct Lifecycle {
    limits: Limits,
    state: State,
    level: Level,
    drain_since: Option<Instant>,
    idle_since: Instant,
    pace: Pace,
    host_pause: Duration,
}

impl Lifecycle {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            state: State::Idle,
            level: Level::Run,
            drain_since: None,
            idle_since: now,
            pace: Pace::new(CLAIM_WAIT),
            host_pause: HOST_PAUSE,
        }
    }

    /// The stop level is (still) this.
    pub(super) fn stop(&mut self, level: Level, now: Instant) {
        self.level = self.level.max(level);
        if self.level >= Level::Drain {
            self.drain_since.get_or_insert(now);
        }
    }

    /// The runner is to end, and a running task agent to go on without it.
    pub(super) fn leave(&mut self) {
        if !matches!(self.state, State::Over(_)) {
            self.state = State::Over(ExitReason::Left);
        }
    }

    /// The settings have changed.
    pub(super) fn limit(&mut self, limits: Limits) {
        self.limits = limits;
        // A control plane that was away may have another address now.
        self.pace.hurry();
    }

    /// The time for which the control plane has been away, once that was told.
    pub(super) fn away(&self, now: Instant) -> Option<Duration> {
        self.pace.away(now)
    }

    /// Ends a task that was lost with its agent. True when the runner pauses, lest it take one task after the
    /// other only to lose it.
    pub(super) fn lost(&mut self, now: Instant) -> bool {
        let young = match self.state {
            State::Running { since, .. } => now.duration_since(since) < YOUNG,
            _ => false,
        };
        self.ended(now);
        let pauses = young && matches!(self.state, State::Idle);
        if pauses {
            self.pace.pause(now, SICK_WAIT);
        }
        pauses
    }

    /// The task has begun: this host can run tasks.
    pub(super) fn begun(&mut self) {
        self.host_pause = HOST_PAUSE;
    }

    /// All steps of the task have ended, and what they said is on its way. It takes as long as the network needs, also
    /// for a task that has run for too long.
    pub(super) fn delivers(&mut self) {
        match self.state {
            State::Running { since, .. } | State::Ending { why: EndReason::TooLong, claimed: since, .. } => {
                self.state = State::Running { since, delivering: true };
            }
            State::Idle | State::Ending { .. } | State::Over(_) => {}
        }
    }

    /// The pause that follows if the task cannot begin on this host.
    pub(super) fn host_pause(&self) -> Duration {
        self.host_pause
    }

    /// Ends a task that could not begin on this host. Returns the pause, in which other hosts have the queue;
    /// the next one is longer.
    pub(super) fn not_begun(&mut self, now: Instant) -> Duration {
        self.ended(now);
        let pause = self.host_pause;
        self.pace.pause(now, pause);
        self.host_pause = (pause * 2).min(MAX_HOST_PAUSE);
        pause
    }

    /// The control plane answered a claim, parked since `started`, with 204.
    pub(super) fn nothing_came(&mut self, started: Instant, now: Instant, random: f64) -> Option<Notice> {
        self.pace.nothing_came(started, now, random)
    }

    /// A task was claimed (or found running, then `since` lies in the past).
    pub(super) fn claimed(&mut self, since: Instant, now: Instant) -> Option<Notice> {
        self.state = State::Running { since, delivering: false };
        self.pace.usable(now)
    }

    /// The task is over and dealt with. One that was found running after a restart counts as the one of
    /// mode `single-task`: the promise is a fresh start after every task.
    pub(super) fn ended(&mut self, now: Instant) {
        self.idle_since = now;
        self.state = match self.limits.mode {
            _ if self.level >= Level::Drain => State::Over(ExitReason::Stopped),
            Mode::SingleTask => State::Over(ExitReason::SingleTask),
            Mode::Continuous => State::Idle,
        };
    }

    /// A claim, parked since `started`, failed.
    pub(super) fn claim_failed(
        &mut self,
        error: &Error,
        started: Instant,
        now: Instant,
        random: f64,
    ) -> Option<Notice> {
        if self.level >= Level::Drain {
            return None;
        }
        self.pace.failed(error, started, now, random).unwrap_or_else(|reason| {
            self.state = State::Over(ExitReason::Fatal(reason));
            None
        })
    }

    /// The next act. Asking does not change anything, except that a decision to signal is made once.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        match self.state.clone() {
            State::Over(reason) => Next::Exit(reason),
            State::Idle => self.next_idle(now),
            State::Running { since, delivering } => {
                let end = since.checked_add(self.limits.max_run_time.saturating_add(self.limits.overrun()));
                let end = end.filter(|_| !delivering);
                let drained = self.drain_since.and_then(|at| at.checked_add(self.limits.max_run_time));
                let why = if self.level == Level::Cancel {
                    Some(EndReason::Cancelled)
                } else if drained.is_some_and(|at| now >= at) {
                    Some(EndReason::DrainTooLong)
                } else if end.is_some_and(|at| now >= at) {
                    Some(EndReason::TooLong)
                } else {
                    None
                };
                match why {
                    Some(why) => {
                        self.state = State::Ending { why, since: now, killed: false, claimed: since };
                        Next::Term(why)
                    }
                    None => Next::Watch(earliest(end, drained)),
                }
            }
            State::Ending { why, since, killed: false, claimed } => {
                let end = since + self.limits.grace();
                if now < end {
                    return Next::Watch(Some(end));
                }
                self.state = State::Ending { why, since, killed: true, claimed };
                Next::Kill(why)
            }
            // A killed process cannot refuse, but may be stuck in the kernel.
            State::Ending { killed: true, .. } => Next::Watch(None),
        }
    }

    fn next_idle(&mut self, now: Instant) -> Next {
        if self.level >= Level::Drain {
            return Next::Exit(ExitReason::Stopped);
        }
        let mut wait = self.pace.longest();
        let mut left = Duration::MAX;
        if let Some(limit) = self.limits.idle_timeout {
            left = limit.saturating_sub(now.duration_since(self.idle_since));
            if left.is_zero() {
                return Next::Exit(ExitReason::Idle);
            }
            // Whole seconds are what the wire knows; rounded up, so that the last wait is not zero.
            let ceiling =
                Duration::from_secs(left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0)));
            wait = wait.min(ceiling);
        }
        let rest = self.pace.rest(now);
        if !rest.is_zero() {
            return Next::Sleep(rest.min(left));
        }
        self.pace.asks(wait);
        Next::Claim(wait)
    }
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests;
