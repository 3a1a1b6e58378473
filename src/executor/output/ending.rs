//! The end of a task as its agent says it: when everything is sent, or, of one that was cancelled, when that takes too
//! long.
//!
//! The thread of the steps waits here and is never in a call that may hang but the word that the steps have stopped: the
//! thread that sends the output says the end as well.

use super::report::{CALL_TIMEOUT, Reporter};
use crate::http::retry::{Backoff, random};
use crate::http::{Body, Error, Request};
use crate::protocol::{FinishAnswer, HeartbeatAnswer, RefusalCode, TaskStatus};
use crate::system::clock::since_boot;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How long output and end of a cancelled task may be on their way before it is told that the steps have stopped; also the
/// wait after a call for that in vain, and half of what such a call may take.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

impl Reporter {
    /// Sends what is left and ends the task. True when nothing is left to say: the control plane has confirmed
    /// the end, or has ended the task before.
    pub fn finish(&self, status: TaskStatus, message: Option<String>) -> bool {
        let mut state = self.lock();
        state.life.steps_ended(since_boot());
        state.end = Some((status, message));
        drop(state);
        self.settle();
        self.over();
        self.has_ended()
    }

    /// Waits until everything is said. Of a task that is cancelled or has ended, whose steps have stopped, that word goes
    /// ahead when the rest takes too long.
    pub(super) fn settle(&self) {
        let mut patience = Some(CANCEL_PATIENCE);
        while !self.settles(patience) {
            patience = patience.filter(|_| self.stopped_is_to_be_said_again());
        }
    }

    /// Says the end, once everything before it has arrived. True when there is none to be said any more.
    pub(super) fn send_end(&self, misses: &mut Backoff) -> Result<bool, Error> {
        let request = {
            let mut state = self.lock();
            let Some((status, message)) = state.end.clone() else { return Ok(true) };
            state.finishing = true;
            match state.lost_output.clone() {
                // A success whose log has holes is none.
                Some(why) if status == TaskStatus::Success => {
                    state.finish(TaskStatus::InfrastructureFail, Some(why))
                }
                _ => state.finish(status, message),
            }
        };
        let body = serde_json::to_vec(&request).unwrap_or_default();
        match self.deliver::<FinishAnswer>("POST", "finish", Body::Json(&body))? {
            FinishAnswer::Confirmed => {
                self.ended(false);
                Ok(true)
            }
            FinishAnswer::Incomplete { next_event, steps } => {
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
                Ok(false)
            }
        }
    }

    /// Says once that the steps have stopped, of a task that was cancelled or has ended: it ends at the control plane, and
    /// what the steps have said is taken late. Whether that was in vain and is worth another call.
    fn stopped_is_to_be_said_again(&self) -> bool {
        self.lock().finishing = true;
        let path = self.path("stopped");
        let request =
            Request { timeout: 2 * CANCEL_PATIENCE, ..self.request("POST", &path, Body::Json(b"{}")) };
        let (is_known, is_vain) = match self.ask::<HeartbeatAnswer>(&request) {
            Ok(answer) => {
                if answer.cancel {
                    log::info!("the cancelled task has ended; what is left of its output is still sent");
                    self.lock().life.cancelled_there(since_boot());
                    self.ended(true);
                }
                (answer.cancel, false)
            }
            Err(error) => (error.code() == Some(RefusalCode::TaskEnded), error.is_retryable()),
        };
        if is_known {
            // The end would say no more than this has.
            self.lock().end = None;
        }
        is_vain
    }

    /// Waits until everything is said, of a task that is cancelled or has ended not longer than the patience says: false
    /// when that is over.
    fn settles(&self, patience: Option<Duration>) -> bool {
        let mut state = self.lock();
        state.hurry = true;
        self.0.changed.notify_all();
        let mut patient_until = None;
        loop {
            let now = since_boot();
            if state.life.is_over(now) || state.ledger.is_even() && state.end.is_none() {
                return true;
            }
            let left = state.life.next_change().map_or(CALL_TIMEOUT, |at| at.saturating_sub(now));
            let mut wait = left.min(CALL_TIMEOUT);
            if let Some(patience) = patience.filter(|_| state.told.is_some()) {
                let until = *patient_until.get_or_insert_with(|| Instant::now() + patience);
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return false;
                }
                wait = wait.min(left);
            }
            state = self.0.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
