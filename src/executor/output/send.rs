//! The threads that talk to the control plane beside the steps: one sends events and output, one keeps the task
//! alive. What was not acknowledged is sent again.
//!
//! The first bytes go out at once; after that, output is gathered for at most a quarter of a second.

use super::report::{CALL_TIMEOUT, CHUNK, Reporter};
use crate::executor::life::Phase;
use crate::http::retry::{Backoff, random};
use crate::http::{Body, Client, Error, Request, TaskNews};
use crate::protocol::{EventsAnswer, HeartbeatAnswer, OutputAnswer, RefusalCode, Task};
use crate::system::clock::since_boot;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How long output is gathered before it is sent.
const GATHER: Duration = Duration::from_millis(250);

/// Starts the thread of the heartbeats and the one that sends events and output.
pub(in crate::executor) fn start(reporter: &Reporter, task: &Task) -> Result<(), Error> {
    let heartbeats = reporter.0.client.sibling()?;
    let threads = |error: std::io::Error| Error::Setup(format!("failed to start a thread: {error}"));
    let sender = reporter.clone();
    let work = move || sender.send_loop();
    std::thread::Builder::new().name("upload".into()).spawn(work).map_err(threads)?;
    let (beat, wait, lease) = (reporter.clone(), task.heartbeat_wait_seconds, task.lease_seconds);
    let work = move || beat.heartbeat_loop(&heartbeats, wait, lease);
    std::thread::Builder::new().name("heartbeat".into()).spawn(work).map(drop).map_err(threads)
}

impl Reporter {
    fn send_loop(&self) {
        while self.wait_for_work() {
            if let Err(error) = self.send_all() {
                if !self.is_over() && !self.has_ended() {
                    log::error!("giving up sending what the task has said: {error}");
                    self.ended(false);
                }
                return self.over();
            }
            self.0.changed.notify_all();
        }
    }

    /// Returns true when something should be sent now, false when the task is over.
    fn wait_for_work(&self) -> bool {
        let mut state = self.lock();
        loop {
            let now = since_boot();
            let phase = state.life.phase(now);
            if phase == Phase::Over {
                return false;
            }
            // Before the beginning nothing is sent: the beginning carries it.
            let may_send = !matches!(phase, Phase::Preparing | Phase::Beginning);
            if !may_send || state.ledger.is_even() {
                state.first_unsent = None;
                state.hurry &= !may_send;
                // A delivery that is given up is noticed by the clock.
                let left = state.life.next_change().map_or(CALL_TIMEOUT, |at| at.saturating_sub(now));
                let wait = left.clamp(Duration::from_millis(1), CALL_TIMEOUT);
                state = self.0.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let due = match (state.first_unsent, state.last_sent) {
                _ if state.hurry || state.ledger.pending_bytes() >= CHUNK as u64 => break,
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
        true
    }

    /// Sends until nothing is left: events first, so that nobody sees output of a step that nobody was told of.
    fn send_all(&self) -> Result<(), Error> {
        // A control plane that answers without taking anything must not be asked in a tight loop.
        let mut idle = Backoff::new(Duration::from_millis(200), Duration::from_secs(30), Duration::MAX);
        loop {
            let events = self.lock().ledger.next_events();
            let progress = match events {
                Some(body) => self.send_events(&body)?,
                None => match self.send_piece()? {
                    Some(progress) => progress,
                    None => break,
                },
            };
            if progress {
                idle.succeeded();
            } else {
                self.pause(idle.again(random()));
                if self.is_over() {
                    break;
                }
            }
        }
        self.lock().last_sent = Some(Instant::now());
        Ok(())
    }

    /// Sends a batch of events. False when the control plane took none of them.
    fn send_events(&self, body: &[u8]) -> Result<bool, Error> {
        let next = match self.deliver::<EventsAnswer>("POST", "events", Body::Json(body)) {
            Ok(answer) => {
                self.news(answer.cancel.then_some(TaskNews::Cancel));
                answer.next
            }
            Err(error) => gap(&error).ok_or(error)?,
        };
        let mut state = self.lock();
        let before = state.ledger.stored_events();
        state.ledger.events_stored(next);
        Ok(state.ledger.stored_events() > before)
    }

    /// Sends a piece of output; `None` when there is none. False when the control plane took nothing of it.
    fn send_piece(&self) -> Result<Option<bool>, Error> {
        let (piece, bytes) = {
            let state = self.lock();
            let Some(piece) = state.ledger.next_piece(CHUNK) else { return Ok(None) };
            let Some(reader) = state.readers.get(&piece.step) else { return Ok(None) };
            (piece, reader.read(piece.offset, piece.length))
        };
        let step = piece.step;
        let bytes =
            bytes.map_err(|e| Error::Setup(format!("failed to read the spool of step {step}: {e}")))?;
        if bytes.is_empty() {
            return Err(Error::Setup(format!(
                "the spool of step {step} is shorter than what was written to it"
            )));
        }
        let path = format!("steps/{step}/output?offset={}", piece.offset);
        let stored = match self.deliver::<OutputAnswer>("PATCH", &path, Body::Bytes(&bytes)) {
            Ok(answer) => {
                self.news(answer.cancel.then_some(TaskNews::Cancel));
                answer.offset
            }
            Err(error) => gap(&error).ok_or(error)?,
        };
        self.lock().ledger.output_stored(step, stored);
        Ok(Some(stored > piece.offset))
    }

    fn heartbeat_loop(&self, client: &Client, wait_seconds: u32, lease_seconds: u32) {
        let path = format!("/api/v3/runner/tasks/{}/heartbeat?wait={wait_seconds}", self.0.id);
        // A heartbeat that hangs is given up while the claim still holds.
        let wait = Duration::from_secs(u64::from(wait_seconds));
        let lease = Duration::from_secs(u64::from(lease_seconds));
        let margin = (lease.saturating_sub(wait) / 2).clamp(Duration::from_secs(1), CALL_TIMEOUT);
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15), Duration::MAX);
        while !self.is_over() {
            let request = Request {
                method: "POST",
                path: &path,
                token: Some(&self.0.token),
                body: Body::Json(b"{}"),
                timeout: wait + margin,
            };
            let asked = Instant::now();
            match self.ask_by::<HeartbeatAnswer>(client, &request) {
                Ok(answer) => {
                    backoff.succeeded();
                    self.news(answer.cancel.then_some(TaskNews::Cancel));
                    // A control plane that answers at once must not be asked in a tight loop.
                    if asked.elapsed() < Duration::from_secs(1) {
                        self.pause(Duration::from_secs(u64::from(wait_seconds.clamp(1, 20))));
                    }
                }
                // The thread that delivers late sees by its own calls when to stop.
                Err(error) if error.code() == Some(RefusalCode::TaskEnded) => return,
                Err(error) => match backoff.after(&error, Instant::now(), random()) {
                    Some(wait) => self.pause(wait),
                    None => {
                        log::warn!("the control plane does not know the task any more: {error}");
                        return self.ended(false);
                    }
                },
            }
        }
    }
}

/// The offset to rewind to, when that is what the control plane asks for.
fn gap(error: &Error) -> Option<u64> {
    let refusal = error.refusal().filter(|refusal| refusal.code == Some(RefusalCode::Gap))?;
    refusal.offset
}
