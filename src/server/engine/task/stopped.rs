//! The word that the steps of a task have stopped.

use super::{Call, Refused, State, Step, Taken, Task, told};
use crate::server::engine::task::Consequence;
use crate::server::store::status::{EndedBy, TaskState};
use crate::server::time::Millis;
use std::time::Duration;

impl Task {
    /// Its agent says that the steps have stopped, while what they have said is still on its way. One that was cancelled
    /// ends by that, without a fence, and takes the rest late. Of any other the call says no more than that its agent is
    /// there.
    pub fn stopped(&mut self, lease: Duration, now: Millis) -> Result<Step<Taken>, Step<Refused>> {
        match &self.state {
            State::Running(work) | State::Unreachable { work, .. } if self.cancel_asked => {
                let message = told::stopped(&work.claim.runner, now);
                let then = self.end(TaskState::Canceled, EndedBy::Cancel, Some(message), now);
                Ok(Step::then(Taken { late: false, cancel: true }, then))
            }
            State::Ended(_) => {
                let then = self.confirm_stopped();
                Err(Step::then(self.refusal(now), then))
            }
            State::Running(_) | State::Unreachable { .. } | State::Queued | State::Claimed { .. } => {
                self.call(Call::Other, lease, now).map_err(Step::of)
            }
        }
    }

    /// Its agent has stopped: it says so itself or its runner does, its fence has passed, or a person knows it.
    pub fn confirm_stopped(&mut self) -> Vec<Consequence> {
        let State::Ended(end) = &mut self.state else { return Vec::new() };
        if end.fence_until.take().is_some() { vec![Consequence::FenceGone] } else { Vec::new() }
    }
}
