//! What the task tells the control plane: numbered events, output from the spools, and in the end that
//! everything was sent. One thread sends; whatever was not acknowledged is sent again.
//!
//! The first bytes go out at once; after that, output is gathered for at most a quarter of a second.

use super::spool::SpoolReader;
use crate::http::retry::{Backoff, random};
use crate::http::{Body, Client, Error, Request};
use crate::protocol::{
    Event, EventKind, EventsAnswer, FinishAnswer, FinishRequest, HeartbeatAnswer, OutputAnswer, RefusalCode,
    Secret, StepSummary, TaskId, TaskStatus,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long output is gathered before it is sent.
const GATHER: Duration = Duration::from_millis(250);
/// This much is sent without waiting.
const CHUNK: usize = 1024 * 1024;
/// How long the control plane may be away before the task is given up.
const BUDGET: Duration = Duration::from_secs(60 * 60);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// What the control plane wants of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Someone cancelled it.
    Cancel,
    /// It has ended there, or the control plane was away for too long: stop and send nothing more.
    Lost,
}

/// Shared by the threads of a task. Cheap to clone.
#[derive(Clone)]
pub struct Reporter(Arc<Inner>);

struct Inner {
    client: Client,
    id: TaskId,
    token: Secret,
    state: Mutex<State>,
    changed: Condvar,
    lost: AtomicBool,
    /// The end is on its way to the control plane.
    finishing: AtomicBool,
    wish: Box<dyn Fn(Wish) + Send + Sync>,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    acknowledged_events: usize,
    steps: BTreeMap<u32, Output>,
    first_unsent: Option<Instant>,
    last_sent: Option<Instant>,
    hurry: bool,
    told_cancel: bool,
    lost_output: Option<String>,
}

struct Output {
    reader: SpoolReader,
    length: u64,
    acknowledged: u64,
    finished: Option<String>,
}

impl State {
    fn pending_bytes(&self) -> u64 {
        self.steps.values().map(|output| output.length - output.acknowledged).sum()
    }

    fn all_sent(&self) -> bool {
        self.acknowledged_events >= self.events.len() && self.pending_bytes() == 0
    }
}

impl Reporter {
    /// Starts the sending thread and the heartbeat. `wish` is called from them.
    pub fn start(
        client: Client,
        id: TaskId,
        token: Secret,
        heartbeat_wait_seconds: u32,
        wish: impl Fn(Wish) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let heartbeats = client.sibling()?;
        let inner = Inner {
            client,
            id,
            token,
            state: Mutex::default(),
            changed: Condvar::new(),
            lost: AtomicBool::new(false),
            finishing: AtomicBool::new(false),
            wish: Box::new(wish),
        };
        let reporter = Self(Arc::new(inner));
        let sender = reporter.clone();
        let threads = |e: std::io::Error| Error::Setup(format!("failed to start a thread: {e}"));
        std::thread::Builder::new()
            .name("upload".into())
            .spawn(move || sender.send_loop())
            .map_err(threads)?;
        let beat = reporter.clone();
        std::thread::Builder::new()
            .name("heartbeat".into())
            .spawn(move || beat.heartbeat_loop(&heartbeats, heartbeat_wait_seconds))
            .map_err(threads)?;
        Ok(reporter)
    }

    /// Whether the task has ended at the control plane or was given up.
    pub fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Queues an event.
    pub fn event(&self, kind: EventKind) {
        self.events([kind]);
    }

    /// Queues events that belong together.
    pub fn events(&self, kinds: impl IntoIterator<Item = EventKind>) {
        let at_ms =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let mut state = self.lock();
        for kind in kinds {
            let number = state.events.len() as u64;
            state.events.push(Event { number, at_ms, kind });
        }
        state.hurry = true;
        self.0.changed.notify_all();
    }

    /// Registers the output of a step. Comes before the event that starts it.
    pub fn output_opened(&self, step: u32, reader: SpoolReader) {
        self.lock().steps.insert(step, Output { reader, length: 0, acknowledged: 0, finished: None });
    }

    /// The spool of a step has grown to `length`.
    pub fn output_grew(&self, step: u32, length: u64) {
        let mut state = self.lock();
        let Some(output) = state.steps.get_mut(&step) else { return };
        output.length = length;
        if state.first_unsent.is_none() {
            state.first_unsent = Some(Instant::now());
            self.0.changed.notify_all();
        } else if state.pending_bytes() >= CHUNK as u64 {
            self.0.changed.notify_all();
        }
    }

    /// The spool of a step is complete.
    pub fn output_finished(&self, step: u32, length: u64, sha256: String) {
        let mut state = self.lock();
        if let Some(output) = state.steps.get_mut(&step) {
            output.length = length;
            output.finished = Some(sha256);
            state.hurry = true;
            self.0.changed.notify_all();
        }
    }

    /// Output of a step is gone for good: the task cannot end as a success any more.
    pub fn output_lost(&self, why: String) {
        self.lock().lost_output.get_or_insert(why);
    }

    /// Bytes of output of a step so far.
    pub fn output_bytes(&self, step: u32) -> u64 {
        self.lock().steps.get(&step).map_or(0, |output| output.length)
    }

    /// Sends what is left and ends the task. True when the control plane has confirmed it.
    pub fn finish(&self, status: TaskStatus, message: Option<String>) -> bool {
        // A success whose log has holes is none.
        let (status, message) = match self.lock().lost_output.clone() {
            Some(why) if status == TaskStatus::Success => (TaskStatus::InfrastructureFail, Some(why)),
            _ => (status, message),
        };
        loop {
            let request = {
                let mut state = self.lock();
                state.hurry = true;
                self.0.changed.notify_all();
                while !state.all_sent() && !self.is_lost() {
                    state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                let steps = state.steps.iter().map(|(&step, output)| StepSummary {
                    step,
                    length: output.length,
                    sha256: output.finished.clone().unwrap_or_default(),
                });
                FinishRequest {
                    status,
                    message: message.clone(),
                    events: state.events.len() as u64,
                    steps: steps.collect(),
                }
            };
            if self.is_lost() {
                return false;
            }
            let body = serde_json::to_vec(&request).unwrap_or_default();
            self.0.finishing.store(true, Ordering::Relaxed);
            match self.call::<FinishAnswer>("POST", "finish", Body::Json(&body)) {
                Ok(FinishAnswer::Confirmed) => return true,
                Ok(FinishAnswer::Incomplete { next_event, steps }) => {
                    log::warn!(
                        "the control plane misses a part of the task: sending it again step_count={}",
                        steps.len()
                    );
                    self.0.finishing.store(false, Ordering::Relaxed);
                    let mut state = self.lock();
                    state.acknowledged_events = state.events.len().min(next_event as usize);
                    for (step, offset) in steps {
                        if let Some(output) = state.steps.get_mut(&step) {
                            output.acknowledged = offset.min(output.length);
                        }
                    }
                }
                Err(error) => {
                    log::error!("failed to finish the task: {error}");
                    return false;
                }
            }
        }
    }

    /// One call for this task, tried again until it is answered or the budget is spent. `path` follows
    /// `tasks/{id}/`.
    pub fn call<A: serde::de::DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        body: Body<'_>,
    ) -> Result<A, Error> {
        let mut backoff = Self::patience();
        loop {
            if let Some(answer) = self.attempt(method, path, body, &mut backoff)? {
                return Ok(answer);
            }
        }
    }

    /// For [`Reporter::attempt`]: lasts as long as the control plane may be away.
    pub(in crate::executor) fn patience() -> Backoff {
        Backoff::new(Duration::from_millis(200), Duration::from_secs(30), BUDGET)
    }

    /// One attempt at such a call. `None` after a failure that may pass, when its wait is over: the next
    /// attempt may carry something else.
    pub(in crate::executor) fn attempt<A: serde::de::DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        body: Body<'_>,
        backoff: &mut Backoff,
    ) -> Result<Option<A>, Error> {
        let path = self.path(path);
        let error = match self.0.client.json(&self.request(method, &path, body)) {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) => error,
        };
        self.wait_after(error, backoff).map(|()| None)
    }

    /// [`Reporter::attempt`] at getting raw bytes.
    pub(in crate::executor) fn attempt_bytes(
        &self,
        path: &str,
        backoff: &mut Backoff,
    ) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(path);
        let error = match self.0.client.bytes(&self.request("GET", &path, Body::Empty)) {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(error) => error,
        };
        self.wait_after(error, backoff).map(|()| None)
    }

    fn path(&self, path: &str) -> String {
        format!("/api/v3/runner/tasks/{}/{path}", self.0.id)
    }

    fn request<'r>(&'r self, method: &'static str, path: &'r str, body: Body<'r>) -> Request<'r> {
        Request { method, path, token: Some(&self.0.token), body, timeout: CALL_TIMEOUT }
    }

    /// Waits before the next attempt; an error when there should be none.
    fn wait_after(&self, error: Error, backoff: &mut Backoff) -> Result<(), Error> {
        if refusal_code(&error) == Some(RefusalCode::TaskEnded) {
            self.lose("the task has ended at the control plane");
            return Err(error);
        }
        match backoff.after(&error, Instant::now(), random()) {
            Some(wait) if !self.is_lost() => {
                log::warn!("{error}; trying again in {} ms", wait.as_millis());
                std::thread::sleep(wait);
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, why: &str) {
        if !self.0.lost.swap(true, Ordering::Relaxed) {
            // A parked heartbeat often hears of the end before its confirmation arrives here.
            let expected = self.0.finishing.load(Ordering::Relaxed);
            let level = if expected { log::Level::Debug } else { log::Level::Warn };
            log::log!(level, "giving the task up: {why}");
            (self.0.wish)(Wish::Lost);
        }
        self.0.changed.notify_all();
    }

    fn told(&self, cancel: bool) {
        if cancel && !std::mem::replace(&mut self.lock().told_cancel, true) {
            (self.0.wish)(Wish::Cancel);
        }
    }

    fn send_loop(&self) {
        while !self.is_lost() {
            self.wait_for_work();
            if self.is_lost() {
                return;
            }
            if let Err(error) = self.send_events().and_then(|()| self.send_output()) {
                if !self.is_lost() {
                    self.lose(&error.to_string());
                }
            }
            self.0.changed.notify_all();
        }
    }

    /// Returns when something should be sent now.
    fn wait_for_work(&self) {
        let mut state = self.lock();
        while !self.is_lost() {
            if state.all_sent() {
                state.first_unsent = None;
                state.hurry = false;
                state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let due = match (state.first_unsent, state.last_sent) {
                _ if state.hurry || state.pending_bytes() >= CHUNK as u64 => break,
                (Some(first), Some(last)) if last.elapsed() < GATHER => first + GATHER,
                _ => break,
            };
            let Some(wait) = due.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) else {
                break;
            };
            state = self.0.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.hurry = false;
        state.first_unsent = None;
    }

    fn send_events(&self) -> Result<(), Error> {
        loop {
            let (body, count) = {
                let state = self.lock();
                let unsent = &state.events[state.acknowledged_events..];
                let batch = &unsent[..unsent.len().min(100)];
                (serde_json::to_vec(batch).unwrap_or_default(), batch.len())
            };
            if count == 0 {
                return Ok(());
            }
            match self.call::<EventsAnswer>("POST", "events", Body::Json(&body)) {
                Ok(answer) => {
                    let mut state = self.lock();
                    state.acknowledged_events = state.events.len().min(answer.next as usize);
                    drop(state);
                    self.told(answer.cancel);
                }
                Err(error) => match gap(&error) {
                    Some(next) => {
                        let mut state = self.lock();
                        state.acknowledged_events = state.events.len().min(next as usize);
                    }
                    None => return Err(error),
                },
            }
        }
    }

    fn send_output(&self) -> Result<(), Error> {
        loop {
            let next = {
                let state = self.lock();
                let unsent = state.steps.iter().find(|(_, output)| output.acknowledged < output.length);
                unsent.map(|(&step, output)| {
                    let most =
                        usize::try_from(output.length - output.acknowledged).unwrap_or(CHUNK).min(CHUNK);
                    (step, output.acknowledged, output.reader.read(output.acknowledged, most))
                })
            };
            let Some((step, offset, bytes)) = next else {
                self.lock().last_sent = Some(Instant::now());
                return Ok(());
            };
            let bytes =
                bytes.map_err(|e| Error::Setup(format!("failed to read the spool of step {step}: {e}")))?;
            if bytes.is_empty() {
                return Err(Error::Setup(format!(
                    "the spool of step {step} is shorter than what was written to it"
                )));
            }
            let path = format!("steps/{step}/output?offset={offset}");
            let accepted = match self.call::<OutputAnswer>("PATCH", &path, Body::Bytes(&bytes)) {
                Ok(answer) => {
                    self.told(answer.cancel);
                    answer.offset
                }
                Err(error) => gap(&error).ok_or(error)?,
            };
            let mut state = self.lock();
            if let Some(output) = state.steps.get_mut(&step) {
                output.acknowledged = accepted.min(output.length);
            }
            // A step that began meanwhile is told before its output.
            if state.acknowledged_events < state.events.len() {
                drop(state);
                self.send_events()?;
            }
        }
    }

    fn heartbeat_loop(&self, client: &Client, wait_seconds: u32) {
        let path = format!("/api/v3/runner/tasks/{}/heartbeat?wait={wait_seconds}", self.0.id);
        let timeout = Duration::from_secs(u64::from(wait_seconds)) + CALL_TIMEOUT;
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15), BUDGET);
        while !self.is_lost() {
            let request = Request {
                method: "POST",
                path: &path,
                token: Some(&self.0.token),
                body: Body::Json(b"{}"),
                timeout,
            };
            let asked = Instant::now();
            match client.json::<HeartbeatAnswer>(&request) {
                Ok(answer) => {
                    backoff.succeeded();
                    self.told(answer.cancel);
                    // A control plane that answers at once must not be asked in a tight loop.
                    if asked.elapsed() < Duration::from_secs(1) {
                        std::thread::sleep(Duration::from_secs(u64::from(wait_seconds.clamp(1, 20))));
                    }
                }
                Err(error) if refusal_code(&error) == Some(RefusalCode::TaskEnded) => {
                    return self.lose("the task has ended at the control plane");
                }
                Err(error) => match backoff.after(&error, Instant::now(), random()) {
                    Some(wait) => std::thread::sleep(wait),
                    None => return self.lose(&error.to_string()),
                },
            }
        }
    }
}

fn refusal_code(error: &Error) -> Option<RefusalCode> {
    match error {
        Error::Refused { refusal: Some(refusal), .. } => refusal.code,
        _ => None,
    }
}

/// The offset to rewind to, when that is what the control plane asks for.
fn gap(error: &Error) -> Option<u64> {
    match error {
        Error::Refused { refusal: Some(refusal), .. } if refusal.code == Some(RefusalCode::Gap) => {
            refusal.offset
        }
        _ => None,
    }
}
