//! News of the task beside the answers to calls: that somebody wants it to end, that it has
//! ended there, or that its calls are refused.

use super::report::{Reporter, Wish};
use crate::http::{Error, TaskNews};
use crate::system::clock::since_boot;

impl Reporter {
    /// Whether the control plane has said that the task has ended there.
    pub fn has_ended(&self) -> bool {
        let state = self.lock();
        state.told == Some(Wish::Ended) && state.disowned.is_none()
    }

    /// How the control plane refuses calls, if for another reason than the end of the task. The runner has to say that it
    /// is lost.
    pub fn disowned(&self) -> Option<String> {
        self.lock().disowned.clone()
    }

    /// The control plane refuses calls, and not since the task has ended: the steps stop.
    pub(super) fn disown(&self, error: &Error) {
        let first = self.lock().disowned.replace(error.to_string()).is_none();
        if first {
            log::error!("the control plane takes nothing more of the task, whose steps are stopped: {error}");
        }
        self.ended(false);
    }

    /// The control plane has ended the task. `late`: it still takes what the steps have said.
    pub(super) fn ended(&self, late: bool) {
        let mut state = self.lock();
        state.life.ended_there(late, since_boot());
        state.refused |= !late;
        let first = state.told != Some(Wish::Ended);
        state.told = Some(Wish::Ended);
        // A parked heartbeat often hears of the end before its confirmation arrives here.
        let expected = state.finishing;
        let disowned = state.disowned.is_some();
        drop(state);
        self.0.changed.notify_all();
        if first {
            if !expected && !disowned {
                log::warn!("the task has ended at the control plane");
            }
            (self.0.wish)(Wish::Ended);
        }
    }

    pub(super) fn news(&self, news: Option<TaskNews>) {
        match news {
            None => {}
            Some(TaskNews::Ended) => self.ended(true),
            Some(TaskNews::Cancel) => {
                let mut state = self.lock();
                let first = state.told.is_none();
                state.told.get_or_insert(Wish::Cancel);
                drop(state);
                if first {
                    // The wait for the output to arrive is shorter now.
                    self.0.changed.notify_all();
                    (self.0.wish)(Wish::Cancel);
                }
            }
        }
    }
}
