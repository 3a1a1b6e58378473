//! Claims of a runner: asking for tasks, what refusals mean for the next claim, and reports about tasks that have
//! no agent. Runners of every kind share it; what they do with a task is their own affair.

use super::board::Board;
use super::calls::{self, Answered};
use super::identity;
use super::lifecycle::{Lifecycle, Limits};
use super::pace::Notice;
use super::settings::Settings;
use super::stop::{Level, Stop, StopListener};
use crate::http::{self, Client, retry};
use crate::logging::record;
use crate::protocol::{ClaimRequest, GiveBackReason, HeldTask, RefusalCode, Secret, Task, TaskId, TaskKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the control plane may be away before a report is left to the lease of its task.
const REPORT_BUDGET: Duration = Duration::from_secs(600);

/// How long the start waits for the class of its token.
const CLASS_PATIENCE: Duration = Duration::from_secs(5);

/// Result of a claim.
#[derive(Debug)]
pub(super) enum ClaimOutcome {
    /// A task, which is now this runner's.
    Task(Box<Task>),
    /// No task; the same claim may be made again.
    Nothing,
    /// No task, and never one by this nonce: the next claim has another.
    NonceSpent,
    /// A task that the nonce has got before. No agent runs it here: only a runner without a task claims.
    Held(Box<HeldTask>),
}

/// The claims of one runner.
pub(super) struct Claims {
    pub(super) life: Lifecycle,
    pub(super) stop: StopListener,
    level: Level,
    token: Secret,
    /// The claim but for its nonce.
    request: ClaimRequest,
    /// Client for reports; claims have a sibling of their own, which a stop request closes and `stop` keeps.
    pub(super) client: Client,
    /// Shows others what comes of claims.
    pub(super) board: Board,
    /// The reason of a pause.
    pub(super) trouble: String,
    /// The connection of the last claim is open until then, for the one that follows a short task.
    pub(super) kept_until: Option<Instant>,
}

impl Claims {
    /// A runner that takes tasks of this kind.
    pub(super) fn new(settings: &Settings, stop: &Stop, takes: TaskKind) -> Result<Self, http::Error> {
        let client = Client::of_runner(&settings.endpoint)?;
        let stop = stop
            .listen()
            .map_err(|error| http::Error::Setup(format!("cannot make a socket pair: {error}")))?;
        let limits = limits(settings);
        let request = ClaimRequest {
            name: settings.name.clone(),
            hostname: crate::system::os::host_name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            nonce: String::new(),
            machine_id: identity::machine_id(),
            boot_id: crate::system::proc::boot_id(),
            takes: vec![takes],
            resource_class: settings.resource_class.clone(),
        };
        let life = Lifecycle::new(limits, Instant::now());
        let token = settings.token.clone();
        let board = Board::new(&settings.name, &settings.endpoint.url);
        let trouble = String::new();
        Ok(Self { life, stop, level: Level::Run, token, request, client, board, trouble, kept_until: None })
    }

    /// The class of the token, as the control plane says it; `None` when it cannot be asked now.
    pub(super) fn class(&self) -> Option<String> {
        // A connection of its own, closed at once: a parked runner keeps one.
        let client = self.client.sibling().ok()?;
        let answer = calls::about(&client, &self.token, &self.request.name, 0, CLASS_PATIENCE);
        answer
            .inspect_err(|error| record!(Debug; "cannot ask for the class of the token: {error}"))
            .ok()
            .map(|answer| answer.resource_class)
    }

    /// Takes other settings, for the same name.
    pub(super) fn reset(&mut self, settings: &Settings) -> Result<(), http::Error> {
        self.client = Client::of_runner(&settings.endpoint)?;
        self.kept_until = None;
        self.stop.release();
        self.token = settings.token.clone();
        self.life.limit(limits(settings));
        Ok(())
    }

    /// The stop level that was taken notice of.
    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// Whether the runner is to end without hearing an answer that is waited for until a request to stop of this level.
    fn gives_up(&self, until: Level) -> bool {
        self.stop.level() >= until || self.stop.leaves()
    }

    /// Takes notice of the stop level; returns it when it has changed.
    pub(super) fn hear(&mut self) -> Option<Level> {
        let level = self.stop.level();
        if level == self.level {
            return None;
        }
        self.level = level;
        self.life.stop(level, Instant::now());
        Some(level)
    }

    /// Asks once for a task, parked at most for `wait`.
    pub(super) fn claim(&mut self, nonce: &str, wait: Duration) -> ClaimOutcome {
        let claims = match self.claims_client() {
            Ok(claims) => claims,
            Err(error) => return self.failed(&error, Instant::now()),
        };
        self.request.nonce = nonce.to_owned();
        let (started, reloads) = (Instant::now(), self.stop.reloads());
        match calls::claim(&claims, &self.token, &self.request, wait) {
            Ok(Answered::Nothing) => {
                let notice = self.life.nothing_came(started, Instant::now(), retry::random());
                tell(notice);
                self.board.answered();
                self.board.claimed("nothing");
                self.trouble.clear();
                ClaimOutcome::Nothing
            }
            Ok(Answered::Task(task)) => {
                let now = Instant::now();
                self.kept_until = Some(now + http::MAX_IDLE);
                let notice = self.life.claimed(now, now);
                tell(notice);
                record!(Info, task_id = task.id, job = task.job_name; "claimed a task");
                self.board.answered();
                self.board.claimed("task");
                self.board.class(&task.job.resource_class);
                self.board.begun(task.id.as_str(), &task.job_name, Duration::ZERO);
                self.trouble.clear();
                ClaimOutcome::Task(task)
            }
            Ok(Answered::Unreadable { task, token, why }) => {
                let now = Instant::now();
                let notice = self.life.claimed(now, now);
                tell(notice);
                record!(Error, task_id = task.id; "the task cannot begin on this host: {why}");
                let back = GivenBackTask { id: &task.id, token: &token, allocation: Some(&task.allocation) };
                self.give_back(&back, GiveBackReason::Host, &why, self.life.host_pause());
                self.life.not_begun(Instant::now());
                ClaimOutcome::NonceSpent
            }
            Err(error) => {
                record!(Debug; "a claim failed: {error}");
                if self.hear().is_some() || self.stop.leaves() || self.stop.reloads() != reloads {
                    // Cut by a request to this runner.
                    return ClaimOutcome::Nothing;
                }
                self.failed(&error, started)
            }
        }
    }

    /// Closes the connection of the last claim once it is too old for another one.
    pub(super) fn close_idle(&mut self) {
        if self.kept_until.is_some_and(|until| Instant::now() >= until) {
            self.kept_until = None;
            self.stop.release();
        }
    }

    /// The client of the last claim, or a new one if a request has closed it.
    fn claims_client(&self) -> Result<Arc<Client>, http::Error> {
        if let Some(claims) = self.stop.guarded() {
            return Ok(claims);
        }
        let claims = Arc::new(self.client.sibling()?);
        self.stop.guard(claims.clone());
        Ok(claims)
    }

    fn failed(&mut self, error: &http::Error, started: Instant) -> ClaimOutcome {
        if error.code() == Some(RefusalCode::HoldsTask) {
            let held = error.refusal().and_then(|refusal| refusal.task.clone());
            return match held.filter(|held| !held.ended) {
                Some(held) => ClaimOutcome::Held(held),
                None => {
                    log::info!("the task of this claim has ended meanwhile; claiming anew");
                    ClaimOutcome::NonceSpent
                }
            };
        }
        let notice = self.life.claim_failed(error, started, Instant::now(), retry::random());
        tell(notice);
        self.board.claimed("failed");
        self.trouble = error.to_string();
        // A claim with the same nonce would get the same answer again.
        let http::Error::TooLong { claimed, .. } = error else { return ClaimOutcome::Nothing };
        if let Some((task, allocation)) = claimed.as_deref().and_then(calls::claimed) {
            self.lost(&task, Some(allocation), &self.trouble.clone());
        }
        ClaimOutcome::NonceSpent
    }

    /// Reports a task whose agent is gone, until that is heard.
    pub(super) fn lost(&mut self, id: &TaskId, allocation: Option<&str>, message: &str) {
        let token = self.token.clone();
        let heard = self.until_heard("report the lost task", id, Level::Cancel, |client| {
            match calls::lost(client, &token, id, allocation, message) {
                // The task is not this runner's any more.
                Err(http::Error::Refused { status: 404 | 409, refusal: Some(refusal), .. }) => {
                    record!(Info, task_id = id; "the lost task is known to be gone: {}", refusal.message);
                    Ok(())
                }
                result => result,
            }
        });
        if heard {
            record!(Info, task_id = id; "told the control plane that the task agent is gone");
        }
    }

    /// A token for sending what the agent of a task has left, asked for until that is answered: `Ok(None)` when nobody
    /// takes it. The error says that nobody answered.
    pub(super) fn rest(
        &mut self,
        task: &TaskId,
        allocation: Option<&str>,
        why: &str,
    ) -> Result<Option<Secret>, ()> {
        let token = self.token.clone();
        let mut rest = None;
        let heard = self.until_heard("ask for the rest of the task", task, Level::Cancel, |client| {
            match calls::rest(client, &token, task, allocation, why) {
                // The task has not begun, has ended by itself, or this is an older control plane.
                Err(http::Error::Refused { status: 404 | 409, .. }) => Ok(()),
                answer => answer.map(|token| rest = Some(token)),
            }
        });
        if heard { Ok(rest) } else { Err(()) }
    }

    /// Gives a task back that has not begun, until that is heard. One that has begun after all, or whose token is not
    /// taken, is reported lost.
    pub(super) fn give_back(
        &mut self,
        task: &GivenBackTask<'_>,
        reason: GiveBackReason,
        message: &str,
        pause: Duration,
    ) {
        match self.try_give_back(task, reason, message, pause) {
            Returned::Begun => self.lost(task.id, task.allocation, message),
            Returned::Back | Returned::Over => record!(Info, task_id = task.id; "gave the task back"),
            Returned::Unheard => {}
        }
    }

    /// Gives a task back and returns the outcome. A task that has begun is left alone.
    pub(super) fn try_give_back(
        &mut self,
        task: &GivenBackTask<'_>,
        reason: GiveBackReason,
        message: &str,
        pause: Duration,
    ) -> Returned {
        let mut returned = Returned::Over;
        // Giving up is harmless: a task that has not begun is queued again when its lease lapses.
        let heard = self.until_heard("give the task back", task.id, Level::Drain, |client| {
            match calls::give_back(client, task.id, task.token, reason, message, pause) {
                Err(error) if error.code() == Some(RefusalCode::Begun) => returned = Returned::Begun,
                Err(http::Error::Refused { status: 401, .. }) => returned = Returned::Begun,
                Err(error) => return Err(error),
                Ok(true) => returned = Returned::Back,
                Ok(false) => {}
            }
            Ok(())
        });
        if heard { returned } else { Returned::Unheard }
    }

    /// Ends a task that this runner does not run, whoever asks it to, until that is heard.
    pub(super) fn refuse(&mut self, task: &GivenBackTask<'_>, message: &str) {
        let allocation = task.allocation.unwrap_or_default();
        self.until_heard("end the task", task.id, Level::Drain, |client| {
            calls::fail(client, task.token, allocation, message)
        });
    }

    /// Makes a call until it is answered, for as long as that is worth while: until a request to stop of this level at
    /// most.
    fn until_heard(
        &mut self,
        what: &str,
        id: &TaskId,
        until: Level,
        mut call: impl FnMut(&Client) -> Result<(), http::Error>,
    ) -> bool {
        let mut backoff = retry::Backoff::new(Duration::from_secs(1), Duration::from_secs(30), REPORT_BUDGET);
        let mut told = false;
        loop {
            let Err(error) = call(&self.client) else { return true };
            let wait = backoff.after(&error, Instant::now(), retry::random());
            let (Some(wait), false) = (wait, self.gives_up(until)) else {
                record!(Error, task_id = id; "cannot {what}, its lease will lapse: {error}");
                return false;
            };
            if !std::mem::replace(&mut told, true) {
                record!(Warn, task_id = id; "cannot {what} yet, trying on: {error}");
            }
            self.stop.pause(wait);
        }
    }
}

fn limits(settings: &Settings) -> Limits {
    Limits { mode: settings.mode, idle_timeout: settings.idle_timeout, max_run_time: settings.max_run_time }
}

/// Outcome of giving a task back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returned {
    /// The task had not begun, and may be another runner's now.
    Back,
    /// The task had ended before.
    Over,
    /// The task has begun, or its token is not taken.
    Begun,
    /// No answer came; the lease of the task will lapse.
    Unheard,
}

/// A task that is to be given back.
#[derive(Clone, Copy, Debug)]
pub(super) struct GivenBackTask<'a> {
    pub(super) id: &'a TaskId,
    pub(super) token: &'a Secret,
    pub(super) allocation: Option<&'a str>,
}

fn tell(notice: Option<Notice>) {
    if let Some(notice) = notice {
        notice.tell("");
    }
}
