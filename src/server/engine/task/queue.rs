//! A task in its queue: what it waits for, who may claim it, since when it waits, and what ends it there.

use super::told;
use super::words::{Consequence, NotClaimable, Stage, Task, WaitTerms};
use crate::server::store::status::{EndedBy, TaskState};
use crate::server::time::Millis;

impl Task {
    /// Sets, moves or clears the fence that this queued task waits for. Its wait for a runner begins when the fence is gone.
    pub fn wait_for_fence(&mut self, fence: Option<Millis>, now: Millis) -> Vec<Consequence> {
        if self.state != Stage::Queued || self.not_before == fence {
            return Vec::new();
        }
        self.not_before = fence;
        if fence.is_some() {
            return Vec::new();
        }
        self.waits_since = now;
        if self.is_held { Vec::new() } else { vec![Consequence::Released] }
    }

    /// Whether a runner of this name may claim it. `others` tells whether another runner of the class is there.
    pub fn claimable(&self, runner: &str, others: bool, now: Millis) -> Result<(), NotClaimable> {
        if self.state != Stage::Queued {
            return Err(NotClaimable::NotQueued);
        }
        if self.is_held {
            return Err(NotClaimable::Held);
        }
        if self.not_before.is_some() {
            return Err(NotClaimable::Fenced);
        }
        match &self.avoid {
            Some(avoid) if others && avoid.runner == runner && avoid.until > now => {
                Err(NotClaimable::Before(avoid.until))
            }
            _ => Ok(()),
        }
    }

    /// The class was paused, and goes on: nobody was allowed to claim the task until now. Or it has a limit to waits now:
    /// while it had none, nobody looked whether runners could be heard.
    pub fn waits_anew(&mut self, now: Millis) {
        if self.state == Stage::Queued {
            self.waits_since = now;
        }
    }

    /// Lets the time pass that its class lets it wait for a runner. Only time counts in which somebody could have claimed it:
    /// none under a fence, none while it is held, none while the class is paused. A runner that gave it back and is not to
    /// have it at once keeps it from nobody, since it may have it where it is alone: that time counts.
    pub fn waited_too_long(&mut self, terms: &WaitTerms<'_>, now: Millis) -> Vec<Consequence> {
        let is_offered = self.state == Stage::Queued && !self.is_held && self.not_before.is_none();
        match terms.limit {
            Some(limit) if is_offered && !terms.is_paused && now > self.waits_since.plus(limit) => {
                let message = told::waited_too_long(terms.class, limit);
                self.end(TaskState::InfrastructureFail, EndedBy::HandOut, Some(message), now)
            }
            _ => Vec::new(),
        }
    }

    /// The class is deleted: nobody will ever claim the task. What runs keeps its token.
    pub fn class_deleted(&mut self, class: &str, now: Millis) -> Vec<Consequence> {
        self.withhold(TaskState::Failed, EndedBy::ClassDeleted, told::class_deleted(class), now)
    }

    /// The task cannot be handed to anybody, and ends.
    pub fn refuse(&mut self, status: TaskState, why: &str, now: Millis) -> Vec<Consequence> {
        self.withhold(status, EndedBy::HandOut, why.to_owned(), now)
    }

    fn withhold(&mut self, status: TaskState, by: EndedBy, message: String, now: Millis) -> Vec<Consequence> {
        let is_claimed = matches!(self.state, Stage::Claimed { .. });
        let is_withheld = self.state == Stage::Queued || is_claimed && by == EndedBy::HandOut;
        if is_withheld { self.end(status, by, Some(message), now) } else { Vec::new() }
    }
}
