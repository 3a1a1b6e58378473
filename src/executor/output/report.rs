//! Talk of a task with its control plane: the calls, what their answers mean for the task, and what is queued
//! for sending. `send` does the sending.
//!
//! No series of failures ends anything by itself: how long a task may be out of reach is decided in
//! [`crate::executor::life`].

use super::ledger::Ledger;
use super::spool::SpoolReader;
use crate::executor::life::{Life, LifeLimits, Phase};
use crate::http::retry::{Backoff, random};
use crate::http::{Body, Client, Error, Request, Response, TaskNews, decode};
use crate::protocol::{
    BeginAnswer, EventKind, FinishRequest, GiveBack, GiveBackAnswer, GiveBackReason, RefusalCode, Secret,
    Task, TaskId, TaskStatus,
};
use crate::system::clock::since_boot;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
#[cfg(feature = "server")]
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Longest that a call for the task may take.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of output that are sent without waiting for more; also the most in one call.
pub(super) const CHUNK: usize = 1024 * 1024;
/// Longest output of the spin-up record that goes along with the beginning, in bytes.
const MOST_SPIN_UP: usize = 64 * 1024;
/// How long a task is tried to be given back before the runner is asked to do it.
const GIVE_BACK_BUDGET: Duration = Duration::from_secs(15);

/// A wish of the control plane for the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Someone cancelled it.
    Cancel,
    /// The task has ended there: stop the steps.
    Ended,
}

/// Answer to the question whether the steps may run.
#[derive(Debug)]
pub enum Begin {
    /// The steps may run.
    Granted,
    /// Not yet: the call failed and may be made again after this wait.
    Again(Duration, Error),
    /// The control plane has refused it: the task has ended there, or another agent has begun it.
    Refused(Error),
}

/// Answer to giving the task back.
#[derive(Debug)]
pub enum GaveBack {
    /// The task is back, or has ended meanwhile: nothing is left to do.
    Done,
    /// The task has begun: the call for its beginning had arrived.
    Begun,
    /// No answer came, or not the expected one.
    Failed(Error),
}

/// Shared by the threads of a task. Cheap to clone.
#[derive(Clone)]
pub struct Reporter(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) client: Client,
    pub(super) id: TaskId,
    pub(super) token: Secret,
    agent: String,
    state: Mutex<ReporterState>,
    pub(super) changed: Condvar,
    pub(super) wish: Box<dyn Fn(Wish) + Send + Sync>,
}

pub(super) struct ReporterState {
    pub(super) life: Life,
    pub(super) ledger: Ledger,
    pub(super) readers: BTreeMap<u32, Arc<Mutex<SpoolReader>>>,
    /// The events on disk, for whoever comes after a task agent that dies.
    pub(super) journal: Option<File>,
    pub(super) first_unsent: Option<Instant>,
    pub(super) last_sent: Option<Instant>,
    pub(super) hurry: bool,
    pub(super) told: Option<Wish>,
    /// The agent was told to stop: calls of steps are not repeated.
    stops: bool,
    /// The end that is to be said when everything else has arrived.
    pub(super) end: Option<(TaskStatus, Option<String>)>,
    /// The end is on its way to the control plane.
    pub(super) finishing: bool,
    /// The control plane takes nothing more.
    pub(super) refused: bool,
    /// How it refuses calls for another reason than the end of the task, which it may still hold for running.
    pub(super) disowned: Option<String>,
    /// How calls fail since it has answered.
    failure: Option<String>,
    pub(super) lost_output: Option<String>,
    /// A step waits for room in the spool.
    pub(super) starved: bool,
    /// How often room was looked for in vain since the task was cancelled.
    pub(super) vain_looks: u32,
    /// How often the spool has given room back.
    pub(super) room_given: u64,
    /// Output that is stored for good gives its room back. Some file systems cannot.
    pub(super) frees: bool,
    /// Output that does not fit is dropped instead of waited for.
    pub(super) drops: bool,
    /// Folder in which the control plane keeps output that is written there, and whether it looks for it.
    #[cfg(feature = "server")]
    pub(super) shared: Option<(PathBuf, bool)>,
}

impl ReporterState {
    pub(super) fn steps_go_on(&mut self) -> bool {
        !self.stops && self.life.steps_may_run(since_boot())
    }

    fn delivery_goes_on(&mut self) -> bool {
        !self.life.is_over(since_boot())
    }

    pub(super) fn finish(&self, status: TaskStatus, message: Option<String>) -> FinishRequest {
        let sum =
            |reader: &Arc<Mutex<SpoolReader>>| reader.lock().unwrap_or_else(PoisonError::into_inner).sum();
        self.ledger.finish(status, message, |step| self.readers.get(&step).map(sum).unwrap_or_default())
    }
}

impl Reporter {
    /// A task that was just claimed. Nothing is sent until `send` starts its threads, and nothing of what is queued
    /// before the task has begun. `wish` is called from any thread.
    pub fn new(client: Client, task: &Task, wish: impl Fn(Wish) + Send + Sync + 'static) -> Self {
        let limits = LifeLimits {
            budget: Duration::from_secs(u64::from(task.budget_seconds)),
            begin: Duration::from_secs(u64::from(task.begin_seconds)),
        };
        let state = ReporterState {
            life: Life::new(limits, since_boot()),
            ledger: Ledger::default(),
            readers: BTreeMap::new(),
            journal: None,
            first_unsent: None,
            last_sent: None,
            hurry: false,
            told: None,
            stops: false,
            end: None,
            finishing: false,
            refused: false,
            disowned: None,
            failure: None,
            lost_output: None,
            starved: false,
            vain_looks: 0,
            room_given: 0,
            frees: true,
            drops: false,
            #[cfg(feature = "server")]
            shared: None,
        };
        let inner = Inner {
            client,
            id: task.id.clone(),
            token: task.token.clone(),
            agent: crate::system::random_id(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            wish: Box::new(wish),
        };
        Self(Arc::new(inner))
    }

    /// The phase of the task.
    pub fn phase(&self) -> Phase {
        self.lock().life.phase(since_boot())
    }

    /// Whether nothing more is to be said for the task.
    pub fn is_over(&self) -> bool {
        self.lock().life.is_over(since_boot())
    }

    /// How long until the steps have to be stopped unless an answer comes; `None` while there is no such time.
    pub fn until_fence(&self) -> Option<Duration> {
        let now = since_boot();
        let mut state = self.lock();
        match state.life.phase(now) {
            Phase::Running => state.life.next_change().map(|at| at.saturating_sub(now)),
            _ => None,
        }
    }

    /// How long the control plane has not answered, and how calls fail since then.
    pub fn silence(&self) -> (Duration, String) {
        let state = self.lock();
        (state.life.silence(since_boot()), state.failure.clone().unwrap_or_default())
    }

    /// Queues an event.
    pub fn event(&self, kind: EventKind) {
        self.events([kind]);
    }

    /// Queues events that belong together.
    pub fn events(&self, kinds: impl IntoIterator<Item = EventKind>) {
        let at_ms = unix_ms();
        let mut state = self.lock();
        let ReporterState { ledger, journal, .. } = &mut *state;
        let mut lines = Vec::new();
        for kind in kinds {
            lines.extend(ledger.event(at_ms, kind));
            lines.push(b'\n');
        }
        // On a full disk only a task agent that dies leaves less behind.
        let _ = journal.as_mut().map(|journal| journal.write_all(&lines));
        state.hurry = true;
        self.0.changed.notify_all();
    }

    /// Registers the output of a step. Comes before the event that starts it.
    pub fn output_opened(&self, step: u32, reader: SpoolReader) {
        let mut state = self.lock();
        state.ledger.opened(step);
        state.readers.insert(step, Arc::new(Mutex::new(reader)));
    }

    /// The spool of a step has grown to `length`.
    pub fn output_grew(&self, step: u32, length: u64) {
        let mut state = self.lock();
        state.ledger.came(step, length, unix_ms());
        if !state.ledger.grew(step, length) {
            return;
        }
        if state.first_unsent.is_none() {
            state.first_unsent = Some(Instant::now());
            self.0.changed.notify_all();
        } else if state.ledger.pending_bytes() >= CHUNK as u64 {
            self.0.changed.notify_all();
        }
    }

    /// The spool of a step is complete.
    pub fn output_finished(&self, step: u32, length: u64) {
        let mut state = self.lock();
        state.ledger.grew(step, length);
        state.hurry = true;
        self.0.changed.notify_all();
    }

    /// Bytes of output of a step so far.
    pub fn output_bytes(&self, step: u32) -> u64 {
        self.lock().ledger.output_bytes(step)
    }

    /// When the output of a step came: offsets and Unix milliseconds.
    pub fn output_times(&self, step: u32) -> Vec<(u64, u64)> {
        self.lock().ledger.output_times(step)
    }

    /// Asks once whether the steps may run, with all events up to here and the output of the spin-up record: what
    /// comes next is output of the first step.
    pub fn begin(&self, backoff: &mut Backoff) -> Begin {
        let (events, spin_up) = {
            let mut state = self.lock();
            state.life.ready();
            let length = usize::try_from(state.ledger.output_bytes(0)).unwrap_or(usize::MAX);
            let reader = state.readers.get(&0).filter(|_| length <= MOST_SPIN_UP).cloned();
            (state.ledger.next_events(), reader.map(|reader| (reader, length)))
        };
        let spin_up = spin_up
            .map(|(reader, length)| reader.lock().unwrap_or_else(PoisonError::into_inner).read(0, length));
        let spin_up = spin_up.and_then(|bytes| String::from_utf8(bytes).ok());
        let spin_up = serde_json::to_string(&spin_up).unwrap_or_else(|_| "null".to_owned());
        // A `BeginRequest`; the events are JSON already.
        let head = format!(r#"{{"agent":"{}","spin_up":{spin_up},"events":"#, self.0.agent);
        let body = [head.as_bytes(), &events, b"}"].concat();
        let path = self.path("begin");
        match self.ask::<BeginAnswer>(&self.request("POST", &path, Body::Json(&body))) {
            Ok(answer) => {
                let mut state = self.lock();
                state.life.begun();
                state.ledger.events_stored(answer.next);
                if let Some(bytes) = answer.spin_up_bytes {
                    state.ledger.output_stored(0, bytes);
                }
                state.hurry = true;
                self.0.changed.notify_all();
                drop(state);
                self.news(answer.cancel.then_some(TaskNews::Cancel));
                Begin::Granted
            }
            Err(error) => match backoff.after(&error, Instant::now(), random()) {
                Some(wait) => {
                    if error.may_be_heard() {
                        self.lock().life.may_have_begun();
                    }
                    Begin::Again(wait, error)
                }
                None => Begin::Refused(error),
            },
        }
    }

    /// Why to stop asking for the beginning, if there is a reason.
    pub fn begin_is_late(&self) -> Option<&'static str> {
        self.lock().life.begin_is_late(since_boot())
    }

    /// Gives the task back: it has not begun.
    pub fn give_back(&self, reason: GiveBackReason, message: &str, pause_seconds: u32) -> GaveBack {
        let body = GiveBack {
            task_id: self.0.id.clone(),
            task_token: self.0.token.clone(),
            reason,
            message: Some(message.to_owned()),
            pause_seconds,
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let request = self.request("POST", "/api/v3/runner/unclaim", Body::Json(&body));
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5), GIVE_BACK_BUDGET);
        let result = loop {
            let error = match self.ask::<GiveBackAnswer>(&request) {
                Ok(_) => break GaveBack::Done,
                Err(error) => error,
            };
            match error.code() {
                Some(RefusalCode::Begun) => return GaveBack::Begun,
                Some(RefusalCode::TaskEnded) => break GaveBack::Done,
                _ => {}
            }
            match backoff.after(&error, Instant::now(), random()) {
                Some(wait) => std::thread::sleep(wait),
                None => break GaveBack::Failed(error),
            }
        };
        self.over();
        result
    }

    /// The task has begun although no answer said so.
    pub fn begun_after_all(&self) {
        self.lock().life.begun();
        self.0.changed.notify_all();
    }

    /// Ends all reports of the task.
    pub fn over(&self) {
        self.lock().life.over();
        self.0.changed.notify_all();
    }

    /// The agent is told to stop.
    pub fn told_to_stop(&self) {
        let mut state = self.lock();
        state.stops = true;
        state.life.told_to_stop(since_boot());
        drop(state);
        self.0.changed.notify_all();
    }

    /// Makes a call of a step, again and again until it is answered or the steps are stopped. `path` follows
    /// `tasks/{id}/`.
    pub fn call<A: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        body: Body<'_>,
    ) -> Result<A, Error> {
        self.until_answered(method, path, body, ReporterState::steps_go_on)
    }

    /// Makes a call that outlives the steps, again and again until an answer or the end of the delivery.
    pub(super) fn deliver<A: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        body: Body<'_>,
    ) -> Result<A, Error> {
        self.until_answered(method, path, body, ReporterState::delivery_goes_on)
    }

    /// Tries a call that outlives the steps once. `None` after a failure that may pass, and its wait.
    pub(super) fn deliver_once<A: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        body: Body<'_>,
        backoff: &mut Backoff,
    ) -> Result<Option<A>, Error> {
        self.once(method, path, body, backoff, ReporterState::delivery_goes_on)
    }

    /// Returns the waits between attempts, for [`Reporter::attempt`].
    pub(in crate::executor) fn patience() -> Backoff {
        Backoff::new(Duration::from_millis(200), Duration::from_secs(30), Duration::MAX)
    }

    /// Tries a call of a step once. `None` after a failure that may pass, when its wait is over: the next
    /// attempt may carry something else.
    pub(in crate::executor) fn attempt<A: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        body: Body<'_>,
        backoff: &mut Backoff,
    ) -> Result<Option<A>, Error> {
        self.once(method, path, body, backoff, ReporterState::steps_go_on)
    }

    fn until_answered<A: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        body: Body<'_>,
        goes_on: fn(&mut ReporterState) -> bool,
    ) -> Result<A, Error> {
        let mut backoff = Self::patience();
        loop {
            if let Some(answer) = self.once(method, path, body, &mut backoff, goes_on)? {
                return Ok(answer);
            }
        }
    }

    fn once<A: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        body: Body<'_>,
        backoff: &mut Backoff,
        goes_on: fn(&mut ReporterState) -> bool,
    ) -> Result<Option<A>, Error> {
        let path = self.path(path);
        let answer = self.ask(&self.request(method, &path, body));
        self.answered_or_waited(answer, backoff, goes_on)
    }

    /// The answer, or `None` when the wait after a failure that may pass is over.
    fn answered_or_waited<A>(
        &self,
        answer: Result<A, Error>,
        backoff: &mut Backoff,
        goes_on: fn(&mut ReporterState) -> bool,
    ) -> Result<Option<A>, Error> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => self.wait_after(error, backoff, goes_on).map(|()| None),
        }
    }

    /// [`Reporter::attempt`] at getting raw bytes.
    pub(in crate::executor) fn attempt_bytes(
        &self,
        path: &str,
        backoff: &mut Backoff,
    ) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(path);
        let request = self.request("GET", &path, Body::Empty);
        let answer = self.answer(&self.0.client, &request).and_then(|r| r.raw(&request, self.0.client.url()));
        self.answered_or_waited(answer, backoff, ReporterState::steps_go_on)
    }

    pub(super) fn path(&self, path: &str) -> String {
        format!("/api/v3/runner/tasks/{}/{path}", self.0.id)
    }

    pub(super) fn request<'r>(&'r self, method: &'static str, path: &'r str, body: Body<'r>) -> Request<'r> {
        Request { method, path, token: Some(&self.0.token), body, timeout: CALL_TIMEOUT }
    }

    pub(super) fn ask<A: DeserializeOwned>(&self, request: &Request<'_>) -> Result<A, Error> {
        self.ask_by(&self.0.client, request)
    }

    /// Makes a call and decodes the answer. A task that has ended there ends here.
    pub(super) fn ask_by<A: DeserializeOwned>(
        &self,
        client: &Client,
        request: &Request<'_>,
    ) -> Result<A, Error> {
        decode(&self.body_by(client, request)?, request, client.url())
    }

    fn body_by(&self, client: &Client, request: &Request<'_>) -> Result<Vec<u8>, Error> {
        let body = self.answer(client, request)?.raw(request, client.url());
        if let Err(error) = &body {
            if error.code() == Some(RefusalCode::TaskEnded) {
                self.ended(error.refusal().is_some_and(|refusal| refusal.late));
            }
        }
        body
    }

    /// Makes a call. Any answer shows that the control plane is there, and may bring news.
    fn answer(&self, client: &Client, request: &Request<'_>) -> Result<Response, Error> {
        let sent = client.send(request);
        let mut state = self.lock();
        state.failure = sent.as_ref().err().map(Error::to_string);
        let response = sent?;
        state.life.answered(since_boot());
        drop(state);
        self.news(response.news);
        Ok(response)
    }

    /// Waits before the next attempt; an error when there should be none.
    fn wait_after(
        &self,
        error: Error,
        backoff: &mut Backoff,
        goes_on: fn(&mut ReporterState) -> bool,
    ) -> Result<(), Error> {
        let wait = backoff.after(&error, Instant::now(), random());
        let Some(wait) = wait.filter(|_| goes_on(&mut self.lock())) else { return Err(error) };
        log::warn!("{error}; trying again in {} ms", wait.as_millis());
        self.pause(wait);
        if goes_on(&mut self.lock()) { Ok(()) } else { Err(error) }
    }

    /// Waits, at most until the task changes its phase.
    pub(super) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut state = self.lock();
        let before = (state.life.phase(since_boot()), state.stops);
        loop {
            let now = since_boot();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || (state.life.phase(now), state.stops) != before {
                return;
            }
            let change = state.life.next_change().map_or(left, |at| at.saturating_sub(now));
            let (guard, _) = self
                .0
                .changed
                .wait_timeout(state, left.min(change).max(Duration::from_millis(1)))
                .unwrap_or_else(PoisonError::into_inner);
            state = guard;
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ReporterState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
