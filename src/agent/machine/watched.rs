//! The task agent that a runner waits for.

use super::child::Agent;
use super::death::Death;
use super::state::RunningTask;
use crate::protocol::{GiveBackReason, Secret};
use std::time::SystemTime;

/// A task agent that is waited for, and what it has said.
pub(super) struct Watched {
    pub(super) agent: Agent,
    pub(super) task: RunningTask,
    /// Token to give the task back with; unknown of the task of an earlier run.
    pub(super) token: Option<Secret>,
    /// A decision of the runner to end it, for the report.
    pub(super) ended_because: Option<&'static str>,
    /// The prefix of the agent has ended before the agent.
    pub(super) is_followed: bool,
    /// The task agent has said so.
    pub(super) begun: bool,
    /// The reason of the task agent for not beginning.
    pub(super) not_begun: Option<String>,
    /// Death of the agent whose unsent output this agent sends.
    pub(super) rest: Option<Death>,
    /// How it ended, in the words of the task agent.
    pub(super) outcome: Option<String>,
    pub(super) since: SystemTime,
}

impl Watched {
    pub(super) fn of(agent: Agent, task: RunningTask, token: Option<Secret>) -> Self {
        Self {
            agent,
            task,
            token,
            ended_because: None,
            is_followed: false,
            begun: false,
            not_begun: None,
            rest: None,
            outcome: None,
            since: SystemTime::now(),
        }
    }

    /// The counter of a task that comes back unbegun. Where its agent runs, but not as a prefix lets it, nothing mends
    /// itself: such a task goes round less often.
    pub(super) fn reason(&self, has_prefix: bool) -> GiveBackReason {
        match has_prefix && self.not_begun.is_some() {
            true => GiveBackReason::Runner,
            false => GiveBackReason::Host,
        }
    }
}
