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

use super::settings::Mode;
use super::stop::Level;
use crate::http::Error;
use crate::http::retry::Backoff;
use crate::protocol::RefusalCode;
use std::time::{Duration, Instant};

/// Longest that a claim asks to be parked.
const CLAIM_WAIT: Duration = Duration::from_secs(50);
/// A parked claim that is cut after this long was cut by something that limits idle connections.
const CUT_AFTER: Duration = Duration::from_secs(10);
/// Shortest wait that the runner goes down to because of a proxy that cuts idle connections.
const MIN_CLAIM_WAIT: Duration = Duration::from_secs(5);
/// Attempts are at most this far apart while the control plane is away.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// A control plane that answers a parked claim sooner does not park it (any more).
const HASTY: Duration = Duration::from_secs(2);
/// Pause between claims of which none is parked.
const HASTY_WAIT: Duration = Duration::from_secs(5);
/// First pause of a host on which a task could not begin; it doubles with each further one.
const HOST_PAUSE: Duration = Duration::from_secs(1);
/// Longest such pause.
const MAX_HOST_PAUSE: Duration = Duration::from_secs(300);
/// A host on which task agents die young is sick; other hosts should have the queue.
const SICK_WAIT: Duration = Duration::from_secs(60);
/// Age up to which a task agent counts as young.
const YOUNG: Duration = Duration::from_secs(10);
/// A refusal that only people can change is tried again this often at most.
const REFUSED_WAIT: Duration = Duration::from_secs(60);

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
    /// It was asked to.
    Stopped,
    /// Mode `single-task`, and the task is over.
    SingleTask,
    /// `runner.idle_timeout` passed without a task.
    Idle,
    /// It was asked to leave a running task to the next runner.
    Left,
    /// It cannot go on; what to do about it.
    Fatal(String),
}

/// Why a task is ended by the runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    TooLong,
    DrainTooLong,
    Cancelled,
}

impl Why {
    pub(super) fn text(self) -> &'static str {
        match self {
            Why::TooLong => "the task runs longer than `runner.max_run_time`",
            Why::DrainTooLong => "draining lasts longer than `runner.max_run_time`",
            Why::Cancelled => "the runner was told to stop a second time",
        }
    }
}

/// The next act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask for a task, parked at most this long.
    Claim(Duration),
    /// Nothing for this long, unless the stop level changes.
    Sleep(Duration),
    /// Wait for the task agent, at most until then, or until the stop level changes.
    Watch(Option<Instant>),
    /// Ask the task agent to end.
    Term(Why),
    /// Kill the task agent, which did not end in time.
    Kill(Why),
    /// End the runner, for this reason.
    Exit(ExitReason),
}

/// A notice for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// The control plane cannot be used; said once for each kind of cause.
    Away(String),
    /// It can be used again, after this long.
    Back(Duration),
    /// Parked calls are cut on the way; the wait is now this long.
    Shortened(Duration),
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
        why: Why,
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
    not_before: Option<Instant>,
    backoff: Backoff,
    away_since: Option<Instant>,
    /// The kinds of cause that this absence was put down to, a bit each.
    told: u8,
    answered: bool,
    claim_wait: Duration,
    /// The wait that the last claim asked for.
    asked: Duration,
    cuts: u32,
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
            not_before: None,
            backoff: Backoff::new(Duration::from_secs(1), MAX_BACKOFF, Duration::MAX),
            away_since: None,
            told: 0,
            answered: false,
            claim_wait: CLAIM_WAIT,
            asked: Duration::ZERO,
            cuts: 0,
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
        self.not_before = None;
    }

    /// The time for which the control plane has been away, once that was told.
    pub(super) fn away(&self, now: Instant) -> Option<Duration> {
        self.away_since.filter(|_| self.told != 0).map(|since| now.duration_since(since))
    }

    /// As [`Lifecycle::ended`], of a task agent that was lost. True when the runner pauses, lest it take
    /// one task after the other only to lose it.
    pub(super) fn lost(&mut self, now: Instant) -> bool {
        let young = match self.state {
            State::Running { since, .. } => now.duration_since(since) < YOUNG,
            _ => false,
        };
        self.ended(now);
        let pauses = young && matches!(self.state, State::Idle);
        if pauses {
            self.not_before = Some(now + SICK_WAIT);
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
            State::Running { since, .. } | State::Ending { why: Why::TooLong, claimed: since, .. } => {
                self.state = State::Running { since, delivering: true };
            }
            State::Idle | State::Ending { .. } | State::Over(_) => {}
        }
    }

    /// The pause that follows if the task cannot begin on this host.
    pub(super) fn host_pause(&self) -> Duration {
        self.host_pause
    }

    /// As [`Lifecycle::ended`], of a task that could not begin on this host. Returns the pause, in which other hosts
    /// have the queue; the next one is longer.
    pub(super) fn not_begun(&mut self, now: Instant) -> Duration {
        self.ended(now);
        let pause = self.host_pause;
        self.not_before = Some(now + pause);
        self.host_pause = (pause * 2).min(MAX_HOST_PAUSE);
        pause
    }

    /// The control plane answered a claim, parked since `started`, with 204.
    pub(super) fn nothing_came(&mut self, started: Instant, now: Instant, random: f64) -> Option<Notice> {
        self.cuts = 0;
        let notice = self.usable(now);
        let parked = now.duration_since(started);
        if parked < HASTY && parked < self.asked / 2 {
            self.not_before = Some(now + HASTY_WAIT.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0));
        }
        notice
    }

    /// A task was claimed (or found running, then `since` lies in the past).
    pub(super) fn claimed(&mut self, since: Instant, now: Instant) -> Option<Notice> {
        self.state = State::Running { since, delivering: false };
        self.usable(now)
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

    fn usable(&mut self, now: Instant) -> Option<Notice> {
        self.backoff.succeeded();
        self.not_before = None;
        self.answered = true;
        let away = self.away_since.take();
        (std::mem::take(&mut self.told) != 0).then(|| Notice::Back(now.duration_since(away.unwrap_or(now))))
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
        let parked = now.duration_since(started);
        if was_cut(error) && parked >= CUT_AFTER && self.answered {
            self.cuts += 1;
            if self.cuts == 1 {
                return None;
            }
            self.cuts = 0;
            self.claim_wait = (parked * 3 / 4).clamp(MIN_CLAIM_WAIT, CLAIM_WAIT);
            return Some(Notice::Shortened(self.claim_wait));
        }
        if let Some(reason) = fatal(error) {
            self.state = State::Over(ExitReason::Fatal(reason));
            return None;
        }
        let first = self.away_since.is_none();
        self.away_since.get_or_insert(now);
        let wait = match self.backoff.after(error, now, random) {
            Some(wait) => wait,
            None => REFUSED_WAIT.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0),
        };
        self.not_before = Some(now + wait);
        // A connection that grew stale while a task ran fails once; that is no news.
        let stale = first && self.answered && matches!(error, Error::Transport(_) | Error::Unanswered(_));
        if stale {
            self.not_before = None;
        }
        if stale || self.told & kind(error) != 0 {
            return None;
        }
        self.told |= kind(error);
        Some(Notice::Away(advice(error)))
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
                    Some(Why::Cancelled)
                } else if drained.is_some_and(|at| now >= at) {
                    Some(Why::DrainTooLong)
                } else if end.is_some_and(|at| now >= at) {
                    Some(Why::TooLong)
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
        let mut wait = self.claim_wait;
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
        match self.not_before.map(|at| at.saturating_duration_since(now)) {
            Some(rest) if !rest.is_zero() => Next::Sleep(rest.min(left)),
            _ => {
                self.asked = wait;
                Next::Claim(wait)
            }
        }
    }
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn was_cut(error: &Error) -> bool {
    match error {
        Error::Transport(_) | Error::Unanswered(_) => true,
        Error::Refused { status, .. } => matches!(status, 408 | 502 | 504 | 524),
        _ => false,
    }
}

/// Kinds of error that people act on differently; a bit each.
fn kind(error: &Error) -> u8 {
    match error {
        Error::Setup(_) | Error::Transport(_) | Error::Unanswered(_) => 1,
        Error::Refused { .. } if error.is_retryable() => 2,
        Error::Refused { .. } => 4,
        Error::Undecodable(_) | Error::Foreign(_) => 8,
        Error::TooLong { .. } => 16,
    }
}

/// Refusals that no waiting changes.
fn fatal(error: &Error) -> Option<String> {
    match error {
        Error::Setup(message) => Some(message.clone()),
        Error::Refused { refusal: Some(refusal), .. }
            if refusal.code == Some(RefusalCode::ProtocolMismatch) =>
        {
            Some(refusal.message.clone())
        }
        _ => None,
    }
}

/// The error, and what to do when that is known.
pub(super) fn advice(error: &Error) -> String {
    let hint = match error {
        Error::Refused { status: 401, .. } => {
            "; the resource class token is not known there: check `api.auth_token` and `api.url`, or create a new token"
        }
        Error::Refused { status: 403, .. } => {
            "; the token may not claim tasks: `api.auth_token` must be a resource class token"
        }
        Error::TooLong { .. } => {
            "; its job or its variables are larger than a task may be: the task goes back to its queue, and other tasks are asked for"
        }
        Error::Refused { status: 404 | 405, refusal: None, .. } | Error::Undecodable(_) => {
            "; is `api.url` the address of a Runlet control plane?"
        }
        _ => "",
    };
    format!("{error}{hint}")
}

#[cfg(test)]
mod tests;
