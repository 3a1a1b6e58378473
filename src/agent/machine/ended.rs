//! The end of a task agent: what it has left is ended and sent, and the task is reported or given back.

use super::child::End;
use super::death::Death;
use super::orphans::{self, Sweep};
use super::state::RunningTask;
use super::tasks::Tasks;
use super::watched::Watched;
use crate::agent::claims::{GivenBackTask, Returned};
use crate::agent::stop::Level;
use crate::executor::{cleanup, scratch};
use crate::http;
use crate::logging::record;
use crate::protocol::task_input::task_exit;
use crate::protocol::{GiveBackReason, Secret, Task, duration};
use std::time::Instant;

/// Variables that a task agent may need to reach the control plane, and that a prefix may take away.
const PREFIX_VARIABLES: [&str; 9] = [
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    http::ALLOW_PLAINTEXT,
];

impl Tasks {
    /// Deals with the task of an agent that has ended.
    pub(super) fn ended(&mut self, mut watched: Watched, end: End) {
        if let Some(death) = watched.rest.take() {
            return self.rest_ended(watched, end, death);
        }
        let id = &watched.task.id;
        let code = end.code();
        let not_begun = watched.not_begun.as_deref().filter(|_| !watched.begun);
        let not_begun = match not_begun {
            Some(why) => Some(self.explain_not_begun(why)),
            None => self.explain_prefix(&watched, code, end),
        };
        let is_back = self.return_unheard(&watched, code);
        match (code, not_begun.or(is_back), &watched.token) {
            (Some(task_exit::REPORTED), None, _) => {
                let outcome = watched.outcome.as_deref().unwrap_or("not known");
                let took = duration::format(watched.since.elapsed().unwrap_or_default());
                record!(Info, task_id = id, outcome = outcome, job = watched.task.job_name, took = took; "task done");
                self.claims.board.ended(outcome);
                self.sweep(&watched.task, false);
                self.forget();
                self.claims.life.ended(Instant::now());
            }
            // It was given back, by the task agent or just now.
            (Some(task_exit::REPORTED), Some(why), _) => {
                record!(Error, task_id = id; "the task was given back, since it cannot begin on this host: {why}");
                self.sweep(&watched.task, false);
                self.pause(&why);
            }
            (_, Some(why), Some(token)) => {
                self.sweep(&watched.task, true);
                scratch::remove_left_behind(id, Some(&self.settings.working_directory), true);
                if watched.not_begun.is_none() {
                    self.clean_up();
                }
                let allocation = watched.task.allocation.as_deref();
                let reason = watched.reason(!self.settings.command_prefix.is_empty());
                self.give_back(&GivenBackTask { id, token, allocation }, reason, &why);
            }
            _ => self.bury(watched, end, code == Some(task_exit::NOT_REPORTED)),
        }
    }

    /// The reason of a task agent that could not begin, with the setting that may be behind it.
    fn explain_not_begun(&self, why: &str) -> String {
        if self.settings.command_prefix.is_empty() {
            return why.to_owned();
        }
        let names =
            Vec::from_iter(PREFIX_VARIABLES.into_iter().filter(|name| std::env::var_os(name).is_some()));
        let lost = match names.is_empty() {
            true => "the prefix changes the user or the environment".to_owned(),
            false => format!("the prefix may drop variables that this runner has: {}", names.join(", ")),
        };
        format!("the task agent behind `runner.command_prefix` says: {why} ({lost})")
    }

    /// Answers for a task whose agent ended without having reported.
    fn bury(&mut self, watched: Watched, end: End, not_reported: bool) {
        let id = &watched.task.id;
        let death = Death::of(end, not_reported, watched.ended_because, watched.agent.last_words.as_deref());
        match end {
            End::Gone => record!(Info, task_id = id; "the task agent of an earlier run has ended"),
            End::Exited(_) => record!(Warn, task_id = id; "{}", death.message),
        }
        // A task that has not begun has nothing to send, and an agent that could not report has already tried.
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
        scratch::remove_left_behind(&task.id, Some(&self.settings.working_directory), is_worthless);
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
    fn rest_ended(&mut self, watched: Watched, end: End, mut death: Death) {
        let id = &watched.task.id;
        if matches!(end.code(), Some(task_exit::REPORTED | task_exit::NOT_REPORTED)) {
            return self.answer_for(&watched.task, &death);
        }
        let why = format!("the agent that sends what the task agent has left died ({})", end.text());
        if !death.may_try_again() || self.claims.stop.level() == Level::Cancel {
            let left = death.leaves(id);
            record!(Error, task_id = id; "{why}: {left}");
            return self.answer_for(&watched.task, &death);
        }
        record!(Warn, task_id = id; "{why}, trying again");
        self.claims.stop.pause(death.rest_pause());
        self.mourn(watched.task, watched.token, death, true);
    }

    /// Reports a task whose agent is gone, and does what the agent would have done.
    pub(super) fn answer_for(&mut self, task: &RunningTask, death: &Death) {
        self.sweep(task, false);
        self.claims.lost(&task.id, task.allocation.as_deref(), &death.message);
        self.clean_up();
        self.forget();
        if !death.is_hosts_fault {
            self.claims.life.ended(Instant::now());
        } else if self.claims.life.lost(Instant::now()) {
            log::warn!("pausing for a minute, since the task agent died at once on this host");
        }
    }

    /// Removes the working directory where the task agent should have done it, unless it is that of another runner now.
    fn clean_up(&self) {
        let is_own = self.place.is_some() || !self.settings.owns_process;
        if self.settings.cleanup_working_directory && is_own {
            cleanup::remove_left_working_directory(&self.settings.working_directory, self.before.as_ref());
        }
    }

    /// Why a prefix that ended before the task agent said anything is a fault of this host. Whether the task has begun
    /// all the same, unheard, the control plane knows.
    fn explain_prefix(&self, watched: &Watched, code: Option<u8>, end: End) -> Option<String> {
        let prefix = self.settings.command_prefix.first()?;
        let is_told = watched.begun || watched.ended_because.is_some();
        // A signal may have met the task agent as well as the prefix.
        let is_own = code.is_some_and(|code| code != task_exit::REPORTED && code != task_exit::NOT_REPORTED);
        if is_told || !is_own {
            return None;
        }
        let (end, words) = (end.text(), watched.agent.last_words.as_deref());
        let said = words.map_or_else(String::new, |words| format!(", saying `{words}`"));
        Some(format!(
            "`{prefix}` ended before the task began ({end}){said}: check `runner.command_prefix`, and what it says in the log of the runner"
        ))
    }

    /// Behind a prefix that ended well no task agent may ever have run. Where nothing was heard of one, the task is given
    /// back, and the control plane knows whether there was something to give back: then this is why.
    fn return_unheard(&mut self, watched: &Watched, code: Option<u8>) -> Option<String> {
        let prefix = self.settings.command_prefix.first()?;
        let token = watched.token.as_ref()?;
        let is_heard = watched.begun || watched.not_begun.is_some() || watched.ended_because.is_some();
        if is_heard || code != Some(task_exit::REPORTED) {
            return None;
        }
        let why = format!(
            "`{prefix}` ended with exit code 0, and no task agent was heard of: check that `runner.command_prefix` starts the command behind it, waits for its end, and leaves it its standard input and output"
        );
        let back = GivenBackTask { id: &watched.task.id, token, allocation: None };
        let pause = self.claims.life.host_pause();
        let returned = self.claims.try_give_back(&back, GiveBackReason::Host, &why, pause);
        (returned == Returned::Back).then_some(why)
    }

    /// Ends what the task has left behind. `died`: its agent could not.
    pub(super) fn sweep(&self, task: &RunningTask, died: bool) {
        let sweep = Sweep {
            markers: &task.markers,
            agent: task.agent.as_ref().filter(|agent| agent.is_of_this_boot()).map(|agent| agent.pid),
            owns_children: self.agents.adopts,
            group: self.agents.group.as_ref(),
            // Without adoption nothing else proves that the agent has found everything.
            everywhere: died || self.settings.owns_process && !self.agents.adopts,
        };
        for process in orphans::sweep(&sweep) {
            record!(Warn, task_id = task.id; "killed a process that the task left behind: {process}");
        }
    }

    /// The task is dealt with: the next claim is a new one.
    pub(super) fn forget(&mut self) {
        if self.claims.stop.leaves() {
            // Perhaps nobody has heard of its end: the next runner asks.
            return;
        }
        self.claims.board.ended("lost");
        self.record.change(|remembered| {
            remembered.task = None;
            remembered.nonce = crate::system::random_id();
        });
    }
}
