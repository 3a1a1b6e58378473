//! The task agent is gone without having reported: what it has left is sent, and the task is reported lost.

use super::child::End;
use super::state::RunningTask;
use super::{Runner, Watched};
use crate::agent::stop::Level;
use crate::executor::scratch;
use crate::logging::record;
use crate::protocol::task_input::task_exit;
use crate::protocol::{Secret, Task};
use std::time::{Duration, Instant};

/// How often the sending of what a task agent has left is begun, should it be killed as well.
const MOST_RESTS: u32 = 5;
/// Between two of these: a host that is short of memory has time to recover.
const REST_PAUSE: Duration = Duration::from_secs(1);

/// The end of a task agent that had not reported.
#[derive(Debug)]
pub(super) struct Death {
    message: String,
    /// The next task might well meet the same end.
    is_hosts_fault: bool,
    /// It had tried to send what is left.
    spool_stays: bool,
    /// Agents that were started to send what is left.
    rests: u32,
}

impl Death {
    /// Nobody knows how it ended.
    pub(super) fn of_earlier_run(message: &str) -> Self {
        Self { message: message.to_owned(), is_hosts_fault: false, spool_stays: false, rests: 0 }
    }
}

impl Runner {
    /// Answers for a task whose agent ended without having reported.
    pub(super) fn bury(&mut self, watched: Watched, end: End, not_reported: bool) {
        let id = &watched.task.id;
        let mut message = match not_reported {
            true => "the task agent could not report the outcome".to_owned(),
            false => format!("the task agent died ({})", end.text()),
        };
        if let Some(why) = watched.ended_because {
            message = format!("{message} after being told to end: {why}");
        }
        match end {
            End::Gone => record!(Info, task_id = id; "the task agent of an earlier run has ended"),
            End::Exited(_) => record!(Warn, task_id = id; "{message}"),
        }
        let is_hosts_fault = !not_reported && end != End::Gone;
        let death = Death { message, is_hosts_fault, spool_stays: not_reported, rests: 0 };
        // Of one that has not begun there is nothing to send, and one that could not report has tried for long.
        let has_rest = (watched.begun || watched.token.is_none()) && !not_reported;
        self.mourn(watched.task, watched.token, death, has_rest);
    }

    /// Sees to it that what the agent of a task has left is sent before the task is reported lost.
    pub(super) fn mourn(
        &mut self,
        task: RunningTask,
        token: Option<Secret>,
        mut death: Death,
        has_rest: bool,
    ) {
        self.sweep(&task, true);
        let wanted = has_rest && self.claims.stop.level() < Level::Cancel;
        let token = match token {
            _ if !wanted => Ok(None),
            Some(token) => Ok(Some(token)),
            None => self.claims.rest(&task.id, task.allocation.as_deref(), &death.message),
        };
        let is_worthless = !death.spool_stays && (!has_rest || wanted && token == Ok(None));
        scratch::remove_left_behind(&task.id, &self.settings.working_directory, is_worthless);
        if let Ok(Some(token)) = token {
            let id = task.id.clone();
            let rest = Task::without_steps(id.clone(), token.clone(), task.job_name.clone());
            match self.start(rest, task.clone(), true) {
                Ok((agent, task)) => {
                    record!(Info, task_id = id; "sending what the task agent has left");
                    self.claims.life.delivers();
                    death.rests += 1;
                    self.watched =
                        Some(Watched { rest: Some(death), ..Watched::of(agent, task, Some(token)) });
                    return;
                }
                Err(why) => record!(Error, task_id = id; "cannot send what the task agent has left: {why}"),
            }
        }
        self.answer_for(&task, &death);
    }

    /// An agent that sends what another one has left may be killed like any other: then the next one goes on.
    pub(super) fn rest_ended(&mut self, watched: Watched, end: End, death: Death) {
        if matches!(end.code(), Some(task_exit::REPORTED | task_exit::NOT_REPORTED)) {
            return self.answer_for(&watched.task, &death);
        }
        let id = &watched.task.id;
        let why = format!("the agent that sends what the task agent has left died ({})", end.text());
        if death.rests >= MOST_RESTS || self.claims.stop.level() == Level::Cancel {
            record!(Error, task_id = id;
                "{why}: what the task has said is not complete, and the rest stays in a folder `runlet-output-{id}`"
            );
            return self.answer_for(&watched.task, &death);
        }
        record!(Warn, task_id = id; "{why}, trying again");
        self.claims.stop.pause(REST_PAUSE);
        self.mourn(watched.task, watched.token, death, true);
    }

    /// Reports a task whose agent is gone, and does what the agent would have done.
    fn answer_for(&mut self, task: &RunningTask, death: &Death) {
        self.sweep(task, false);
        self.claims.lost(&task.id, task.allocation.as_deref(), &death.message);
        if self.settings.cleanup_working_directory {
            scratch::remove_working_directory(&self.settings.working_directory);
        }
        self.forget();
        if !death.is_hosts_fault {
            self.claims.life.ended(Instant::now());
        } else if self.claims.life.lost(Instant::now()) {
            log::warn!("pausing for a minute, since the task agent died at once on this host");
        }
    }
}
