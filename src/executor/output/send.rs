//! The threads that talk to the control plane beside the steps: one sends events and output, one keeps the task
//! alive. What was not acknowledged is sent again.
//!
//! The first bytes go out at once; after that, output is gathered for at most a quarter of a second.

use super::ledger::Piece;
use super::piece::PieceSize;
use super::report::{CALL_TIMEOUT, CHUNK, Reporter};
use crate::executor::life::Phase;
use crate::http::retry::{Backoff, random};
use crate::http::{Body, Client, Error, Request, TaskNews};
use crate::protocol::{EventsAnswer, HeartbeatAnswer, OutputAnswer, RefusalCode, Task};
use crate::system::clock::since_boot;
use crate::system::threads;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How long output is gathered before it is sent.
const GATHER: Duration = Duration::from_millis(250);
/// The first heartbeat comes so long after the start of the agent: many a task has ended by then.
const FIRST_HEARTBEAT: Duration = Duration::from_secs(1);
/// Bytes of the spool that are worth a call to give back their room while nobody waits for it.
const WORTH_FREEING: u64 = 64 * 1024;

/// Starts the thread of the heartbeats and the one that sends events and output.
pub(in crate::executor) fn start(reporter: &Reporter, task: &Task) -> Result<(), Error> {
    let heartbeats = reporter.0.client.sibling()?;
    let failure = |error: std::io::Error| Error::Setup(format!("failed to start a thread: {error}"));
    let sender = reporter.clone();
    let work = move || sender.send_loop();
    threads::start("upload", work).map_err(failure)?;
    let (beat, wait, lease) = (reporter.clone(), task.heartbeat_wait_seconds, task.lease_seconds);
    let work = move || beat.heartbeat_loop(&heartbeats, wait, lease);
    threads::start("heartbeat", work).map(drop).map_err(failure)
}

impl Reporter {
    fn send_loop(&self) {
        let mut size = PieceSize::small();
        while self.wait_for_work() {
            if let Err(error) = self.send_all(&mut size) {
                if !self.is_over() && !self.has_ended() {
                    self.disown(&error);
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
            if !may_send || state.ledger.is_even() && !state.starved && state.end.is_none() {
                state.first_unsent = None;
                state.hurry &= !may_send;
                // A delivery that is given up is noticed by the clock.
                let left = state.life.next_change().map_or(CALL_TIMEOUT, |at| at.saturating_sub(now));
                let wait = left.clamp(Duration::from_millis(1), CALL_TIMEOUT);
                state = self.0.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let due = match (state.first_unsent, state.last_sent) {
                _ if state.hurry || state.starved || state.ledger.pending_bytes() >= CHUNK as u64 => break,
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
    fn send_all(&self, size: &mut PieceSize) -> Result<(), Error> {
        // A control plane that answers without taking anything must not be asked in a tight loop.
        let mut idle = Backoff::new(Duration::from_millis(200), Duration::from_secs(30), Duration::MAX);
        let mut misses = Backoff::new(Duration::from_secs(1), Duration::from_secs(30), Duration::MAX);
        let mut broken = Self::patience();
        let mut bytes = Vec::new();
        loop {
            let (events, piece) = {
                let mut state = self.lock();
                if state.ledger.has_events() {
                    (Some(state.ledger.next_events()), None)
                } else {
                    let starved = std::mem::take(&mut state.starved);
                    let piece = state.ledger.next_piece(size.bytes().min(CHUNK));
                    (None, piece.or_else(|| starved.then(|| state.ledger.next_to_keep()).flatten()))
                }
            };
            let progress = match (events, piece) {
                (Some(body), _) => self.send_events(&body)?,
                (None, Some(piece)) => self.send_piece(piece, size, &mut broken, &mut bytes)?,
                (None, None) if self.send_end(&mut misses)? => break,
                (None, None) => true,
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

    /// Tries once to send a piece of output, by way of `bytes`. False when the control plane answered and took nothing
    /// of it.
    fn send_piece(
        &self,
        piece: Piece,
        size: &mut PieceSize,
        broken: &mut Backoff,
        bytes: &mut Vec<u8>,
    ) -> Result<bool, Error> {
        let step = piece.step;
        let reader = self.lock().readers.get(&step).cloned();
        let Some(reader) = reader else { return Ok(false) };
        let reader = || reader.lock().unwrap_or_else(PoisonError::into_inner);
        // The control plane is told where bytes end that it has. It answers how many more there are.
        let shared = self.shared();
        let is_there = shared.as_ref().is_some_and(|(_, looks)| *looks) && reader().is_on_disk();
        let mut offset = piece.offset;
        if is_there {
            bytes.clear();
            offset += piece.length as u64;
        } else {
            reader().read_into(bytes, piece.offset, piece.length);
        }
        if reader().is_damaged() {
            self.lost(format!("output of step {step} is gone: something on the host, such as a step, took it out of the runner's spool"));
        }
        let path = format!("steps/{step}/output?offset={offset}");
        let (stored, durable) = match self.deliver_once("PATCH", &path, Body::Bytes(bytes), broken) {
            Ok(Some(OutputAnswer { offset, durable_to, cancel })) => {
                broken.succeeded();
                if piece.length >= size.bytes() {
                    size.arrived();
                }
                self.news(cancel.then_some(TaskNews::Cancel));
                (offset, durable_to)
            }
            Ok(None) => {
                size.broke(piece.length);
                return Ok(true);
            }
            Err(Error::Refused { status: 413, .. }) if size.can_shrink(piece.length) => {
                size.broke(piece.length);
                return Ok(true);
            }
            Err(error) => {
                let stored = gap(&error).ok_or(error)?;
                // A control plane that does not find the output in the shared folder is sent it from then on.
                #[cfg(feature = "server")]
                self.send_shared();
                (stored, 0)
            }
        };
        let mut state = self.lock();
        state.ledger.output_stored(step, stored);
        let durable = state.ledger.output_durable(step, durable);
        let least = if state.starved { 1 } else { WORTH_FREEING };
        drop(state);
        let before = reader().freed();
        // The file may be that of the control plane.
        let gives_back = shared.is_some() || reader().free(durable, least);
        let freed = reader().freed();
        let mut state = self.lock();
        state.ledger.output_freed(step, freed);
        state.room_given += u64::from(freed > before);
        if !gives_back && std::mem::take(&mut state.frees) {
            log::warn!(
                "the file system of the spool cannot give back the room of what was sent: a full spool loses output"
            );
        }
        drop(state);
        self.0.changed.notify_all();
        Ok(stored > piece.offset || piece.length == 0)
    }

    fn heartbeat_loop(&self, client: &Client, wait_seconds: u32, lease_seconds: u32) {
        let path = format!("/api/v3/runner/tasks/{}/heartbeat?wait={wait_seconds}", self.0.id);
        // A heartbeat that hangs is given up while the claim still holds.
        let wait = Duration::from_secs(u64::from(wait_seconds));
        let lease = Duration::from_secs(u64::from(lease_seconds));
        let margin = (lease.saturating_sub(wait) / 2).clamp(Duration::from_secs(1), CALL_TIMEOUT);
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15), Duration::MAX);
        // The calls of a short task keep it alive too, and hear of a cancel.
        let first = Instant::now() + FIRST_HEARTBEAT.min(lease / 4);
        while !self.is_over() {
            let early = first.saturating_duration_since(Instant::now());
            if !early.is_zero() {
                self.pause(early);
                continue;
            }
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
                    None => return self.disown(&error),
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
