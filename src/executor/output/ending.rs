//! The end of a task as its agent says it: when everything is sent, or, of one that was cancelled, when that takes too
//! long.

use super::report::{CALL_TIMEOUT, Reporter, State, Wish};
use crate::http::retry::{Backoff, random};
use crate::http::{Body, Request};
use crate::protocol::{FinishAnswer, HeartbeatAnswer, TaskStatus};
use crate::system::clock::since_boot;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How long the output of a cancelled task may be on its way before it is told that the steps have stopped; also the wait
/// after a call for that in vain, and half of what such a call may take.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

/// The end of the wait for everything to be sent.
pub(super) enum Settled<T> {
    Sent(T),
    /// It will not be sent any more.
    Over,
    /// The task was cancelled, and the patience is over.
    Cancelled,
}

impl Reporter {
    /// Sends what is left and ends the task. True when nothing is left to say: the control plane has confirmed
    /// the end, or has ended the task before.
    pub fn finish(&self, status: TaskStatus, message: Option<String>) -> bool {
        self.lock().life.steps_ended(since_boot());
        let mut misses = Backoff::new(Duration::from_secs(1), Duration::from_secs(30), Duration::MAX);
        let mut patience = Some(CANCEL_PATIENCE);
        loop {
            let settled = self.settled(patience, |state| match state.lost_output.clone() {
                // A success whose log has holes is none.
                Some(why) if status == TaskStatus::Success => {
                    state.finish(TaskStatus::InfrastructureFail, Some(why))
                }
                _ => state.finish(status, message.clone()),
            });
            let request = match settled {
                Settled::Sent(request) => request,
                Settled::Over => return self.has_ended(),
                Settled::Cancelled => {
                    patience = patience.filter(|_| self.stopped_is_to_be_said_again());
                    continue;
                }
            };
            let body = serde_json::to_vec(&request).unwrap_or_default();
            self.lock().finishing = true;
            match self.deliver::<FinishAnswer>("POST", "finish", Body::Json(&body)) {
                Ok(FinishAnswer::Confirmed) => {
                    self.over();
                    return true;
                }
                Ok(FinishAnswer::Incomplete { next_event, steps }) => {
                    let wait = misses.again(random());
                    log::warn!(
                        "the control plane misses a part of the task ({} of its steps): sending it again in {} ms",
                        steps.len(),
                        wait.as_millis()
                    );
                    let mut state = self.lock();
                    state.finishing = false;
                    state.ledger.events_stored(next_event);
                    for (step, offset) in steps {
                        state.ledger.output_stored(step, offset);
                    }
                    drop(state);
                    self.pause(wait);
                }
                Err(error) => {
                    if !self.has_ended() {
                        log::error!("failed to finish the task: {error}");
                    }
                    self.over();
                    return self.has_ended();
                }
            }
        }
    }

    /// Says once that the steps of a cancelled task have stopped: it ends at the control plane, and what the steps have
    /// said is taken late. Whether that was in vain and is worth another call.
    fn stopped_is_to_be_said_again(&self) -> bool {
        self.lock().finishing = true;
        let path = self.path("stopped");
        let request =
            Request { timeout: 2 * CANCEL_PATIENCE, ..self.request("POST", &path, Body::Json(b"{}")) };
        match self.ask::<HeartbeatAnswer>(&request) {
            Ok(answer) => {
                if answer.cancel {
                    log::info!("the cancelled task has ended; what is left of its output is still sent");
                    self.lock().life.cancelled_there(since_boot());
                    self.ended(true);
                }
                false
            }
            Err(error) => error.is_retryable(),
        }
    }

    /// Waits until everything is sent, of a task that is cancelled not longer than the patience says.
    pub(super) fn settled<T>(
        &self,
        patience: Option<Duration>,
        then: impl FnOnce(&State) -> T,
    ) -> Settled<T> {
        let mut state = self.lock();
        state.hurry = true;
        self.0.changed.notify_all();
        let mut patient_until = None;
        loop {
            let now = since_boot();
            if state.life.is_over(now) {
                return Settled::Over;
            }
            if state.ledger.is_even() {
                return Settled::Sent(then(&state));
            }
            let left = state.life.next_change().map_or(CALL_TIMEOUT, |at| at.saturating_sub(now));
            let mut wait = left.min(CALL_TIMEOUT);
            if let Some(patience) = patience.filter(|_| state.told == Some(Wish::Cancel)) {
                let until = *patient_until.get_or_insert_with(|| Instant::now() + patience);
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Settled::Cancelled;
                }
                wait = wait.min(left);
            }
            state = self.0.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
