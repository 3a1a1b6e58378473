//! The end of a task agent that had not reported: what is said of it, and how often somebody tries to send what it left.

use super::child::End;
use crate::protocol::TaskId;
use std::time::Duration;

/// How often the sending of what a task agent has left is begun, should it be killed as well: over three minutes and more.
const MOST_RESTS: u32 = 10;

/// The end of a task agent that had not reported.
#[derive(Debug)]
pub(super) struct Death {
    pub(super) message: String,
    /// The next task might well meet the same end.
    pub(super) is_hosts_fault: bool,
    /// The agent had tried to send its last output, so that its spool stays.
    pub(super) spool_stays: bool,
    /// The rest of its output is not wanted, so that its spool goes.
    pub(super) spool_goes: bool,
    /// Agents that were started to send what is left.
    pub(super) rests: u32,
}

impl Death {
    /// `not_reported`: it has tried to. `ended_because`: it was told to end. `words`: the last line of its standard error.
    pub(super) fn of(end: End, not_reported: bool, ended_because: Option<&str>, words: Option<&str>) -> Self {
        let mut message = match not_reported {
            true => "the task agent could not report the outcome".to_owned(),
            false => format!("the task agent died ({}), so the last output may be missing", end.text()),
        };
        if let Some(words) = words {
            message = format!("{message}, its last words were `{words}`");
        }
        if let Some(why) = ended_because {
            message = format!("{message} after being told to end: {why}");
        }
        let is_hosts_fault = !not_reported && end != End::Gone;
        Self { message, is_hosts_fault, spool_stays: not_reported, spool_goes: false, rests: 0 }
    }

    /// The death of an agent of an earlier run, whose exit status is not known.
    pub(super) fn of_earlier_run(message: &str) -> Self {
        Self {
            message: message.to_owned(),
            is_hosts_fault: false,
            spool_stays: false,
            spool_goes: false,
            rests: 0,
        }
    }

    /// Whether one more agent may be started to send what is left.
    pub(super) fn may_try_again(&self) -> bool {
        self.rests < MOST_RESTS
    }

    /// Gives up sending what is left: the message that the job shows gets the place of the spool.
    pub(super) fn leaves(&mut self, id: &TaskId) -> String {
        let left = format!("what it has not sent stays in a folder `runlet-output-{id}`");
        self.message = format!("{}; {left} of its host", self.message);
        left
    }

    /// Pause before the next one: a host that is short of memory has time to recover, longer each time.
    pub(super) fn rest_pause(&self) -> Duration {
        Duration::from_secs(1 << self.rests.saturating_sub(1).min(5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sending_of_what_is_left_is_given_minutes() {
        let mut death = Death::of_earlier_run("gone");
        let mut waited = Duration::ZERO;
        while death.may_try_again() {
            death.rests += 1;
            waited += death.rest_pause();
        }
        assert!((180..300).contains(&waited.as_secs()), "{waited:?}");
    }
}
