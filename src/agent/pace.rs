//! Paces the claims of a runner: how long the next one asks to be parked, how long to wait before it, and what is worth
//! a line of the log. No IO: events and the time come in. Runners of every kind share it.

use crate::http::Error;
use crate::http::retry::Backoff;
use crate::protocol::{RefusalCode, duration};
use std::time::{Duration, Instant};

/// Longest that a claim asks to be parked.
pub(super) const CLAIM_WAIT: Duration = Duration::from_secs(50);
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
/// A refusal that only people can change is tried again this often at most.
pub(super) const REFUSED_WAIT: Duration = Duration::from_secs(60);

/// A notice for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The control plane cannot be used; said once for each kind of cause.
    Away(String),
    /// The control plane can be used again, after this long.
    Back(Duration),
    /// Parked calls are cut on the way; the wait is now this long.
    Shortened(Duration),
}

impl Notice {
    /// Writes it to the log. `whose` follows what is said of claims: nothing, or `` for `CLASS` ``.
    pub(crate) fn tell(self, whose: &str) {
        match self {
            Notice::Away(why) => log::error!("cannot claim tasks{whose}, trying on quietly: {why}"),
            Notice::Back(time) => {
                log::info!("claims{whose} are answered again after {}", duration::format(time));
            }
            Notice::Shortened(wait) => log::warn!(
                "something between here and the control plane cuts calls that wait; asking every {} from now on",
                duration::format(wait)
            ),
        }
    }
}

/// The pace of one row of claims.
#[derive(Debug)]
pub(crate) struct Pace {
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
}

impl Pace {
    /// Makes the pace of a runner that has not claimed yet; a claim asks to be parked at most this long.
    pub(crate) fn new(longest: Duration) -> Self {
        Self {
            not_before: None,
            backoff: Backoff::new(Duration::from_secs(1), MAX_BACKOFF, Duration::MAX),
            away_since: None,
            told: 0,
            answered: false,
            claim_wait: longest,
            asked: Duration::ZERO,
            cuts: 0,
        }
    }

    /// Pauses claims for this long.
    pub(super) fn pause(&mut self, now: Instant, time: Duration) {
        self.not_before = Some(now + time);
    }

    /// Ends a pause.
    pub(super) fn hurry(&mut self) {
        self.not_before = None;
    }

    /// The time that is left of a pause; none when a claim may be made.
    pub(crate) fn rest(&self, now: Instant) -> Duration {
        self.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    /// The longest that the next claim may ask to be parked.
    pub(crate) fn longest(&self) -> Duration {
        self.claim_wait
    }

    /// A claim is made, and asks to be parked this long.
    pub(crate) fn asks(&mut self, wait: Duration) {
        self.asked = wait;
    }

    /// The time for which the control plane has been away, once that was told.
    pub(super) fn away(&self, now: Instant) -> Option<Duration> {
        self.away_since.filter(|_| self.told != 0).map(|since| now.duration_since(since))
    }

    /// The control plane answered a claim, parked since `started`, with 204.
    pub(crate) fn nothing_came(&mut self, started: Instant, now: Instant, random: f64) -> Option<Notice> {
        self.cuts = 0;
        let notice = self.usable(now);
        let parked = now.duration_since(started);
        if parked < HASTY && parked < self.asked / 2 {
            self.pause(now, spread(HASTY_WAIT, random));
        }
        notice
    }

    /// The control plane answered a claim with a task.
    pub(crate) fn usable(&mut self, now: Instant) -> Option<Notice> {
        self.backoff.succeeded();
        self.hurry();
        self.answered = true;
        let away = self.away_since.take();
        (std::mem::take(&mut self.told) != 0).then(|| Notice::Back(now.duration_since(away.unwrap_or(now))))
    }

    /// A claim, parked since `started`, failed. The error says that no waiting changes this, and what people can do.
    pub(crate) fn failed(
        &mut self,
        error: &Error,
        started: Instant,
        now: Instant,
        random: f64,
    ) -> Result<Option<Notice>, String> {
        let parked = now.duration_since(started);
        if was_cut(error) && parked >= CUT_AFTER && self.answered {
            self.cuts += 1;
            if self.cuts == 1 {
                return Ok(None);
            }
            self.cuts = 0;
            self.claim_wait = (parked * 3 / 4).clamp(MIN_CLAIM_WAIT, self.claim_wait.max(MIN_CLAIM_WAIT));
            return Ok(Some(Notice::Shortened(self.claim_wait)));
        }
        if let Some(reason) = fatal(error) {
            self.pause(now, spread(REFUSED_WAIT, random));
            return Err(reason);
        }
        let first = self.away_since.is_none();
        self.away_since.get_or_insert(now);
        let wait = self.backoff.after(error, now, random).unwrap_or_else(|| spread(REFUSED_WAIT, random));
        self.pause(now, wait);
        // A connection that grew stale while a task ran fails once; that is no news.
        let stale = first && self.answered && matches!(error, Error::Transport(_) | Error::Unanswered(_));
        if stale {
            self.hurry();
        }
        if stale || self.told & kind(error) != 0 {
            return Ok(None);
        }
        self.told |= kind(error);
        Ok(Some(Notice::Away(advice(error))))
    }
}

/// Half of a time, and a random part of the other half: runners that were refused together do not come back together.
fn spread(time: Duration, random: f64) -> Duration {
    time.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
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
