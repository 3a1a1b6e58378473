//! The end of a task agent: what it has left is ended and sent, and the task is reported or given back.

use super::child::End;
use super::death::Death;
use super::orphans::{self, Sweep};
use super::state::{AgentProcess, RunningTask};
use super::tasks::Tasks;
use super::watched::Watched;
use crate::agent::claims::{GivenBackTask, Returned};
use crate::agent::stop::Level;
use crate::executor::{cleanup, scratch};
use crate::http;
use crate::logging::record;
use crate::protocol::task_input::task_exit;
use crate::protocol::{GiveBackReason, Secret, Task, TaskId, duration};
use crate::system::os::{self, ENDS_WELL_BY_ITSELF};
use crate::system::proc;
use std::time::{Duration, Instant};

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

/// The end of a task whose agent has ended, as far as there is something to do about it.
enum Ending {
    /// The task is reported, and nothing is left to do.
    Done,
    /// The task is back in the queue, since it cannot begin on this host.
    GivenBack(String),
    /// The task has to be given back with this token, for this reason.
    NotBegun(String, Secret),
    /// To send what the agent has left, and to report it lost.
    Lost(Death),
}

impl Tasks {
    /// Deals with the task of an agent that has ended.
    pub(super) fn ended(&mut self, mut watched: Watched, end: End) {
        if self.follow(&mut watched, end) {
            self.watched = Some(watched);
            return;
        }
        if let Some(death) = watched.rest.take() {
            return self.rest_ended(watched, end, death);
        }
        let ending = self.ending(&mut watched, end);
        let id = &watched.task.id;
        match ending {
            Ending::Done => {
                let outcome = watched.outcome.as_deref().unwrap_or("not known");
                let took = duration::format(watched.since.elapsed().unwrap_or_default());
                record!(Info, task_id = id, outcome = outcome, job = watched.task.job_name, took = took; "task done");
                self.claims.board.ended(outcome);
                self.clear(&watched.task, false, false);
                self.forget();
                self.claims.life.ended(Instant::now());
            }
            Ending::GivenBack(why) => {
                record!(Error, task_id = id; "the task was given back, since it cannot begin on this host: {why}");
                self.clear(&watched.task, watched.not_begun.is_none(), true);
                self.pause(&why);
            }
            Ending::NotBegun(why, token) => {
                self.clear(&watched.task, true, true);
                if watched.not_begun.is_none() {
                    self.clean_up();
                }
                let allocation = watched.task.allocation.as_deref();
                let reason = watched.reason(!self.settings.command_prefix.is_empty());
                self.give_back(&GivenBackTask { id, token: &token, allocation }, reason, &why);
            }
            Ending::Lost(death) => {
                // A task that has not begun has nothing to send, and an agent that could not report has already tried.
                let has_rest = (watched.begun || watched.token.is_none()) && !death.spool_stays;
                self.mourn(watched.task, watched.token, death, has_rest);
            }
        }
    }

    /// Whether a task agent goes on behind a prefix that has not waited for it: then it is waited for.
    fn follow(&mut self, watched: &mut Watched, end: End) -> bool {
        if !self.is_unsure(watched, end) {
            return false;
        }
        let Some(process) = self.agent_behind(&watched.task.id) else { return false };
        record!(Warn, task_id = watched.task.id, agent_pid = process.pid;
            "`runner.command_prefix` has not waited for the task agent, which goes on: waiting for it"
        );
        watched.is_followed = true;
        watched.task.agent = Some(process.clone());
        watched.agent.follow(process);
        self.record.change(|remembered| remembered.task = Some(watched.task.clone()));
        true
    }

    /// The agent of a task behind a prefix that has ended. While the prefix has left a process, that may still become
    /// the agent: a shell in the background starts its program later than the shell before it ends.
    fn agent_behind(&self, task: &TaskId) -> Option<AgentProcess> {
        let may_come = || match self.agents.adopts {
            true => os::has_children(),
            false => !proc::descendants(std::process::id() as i32).is_empty(),
        };
        let until = Instant::now() + orphans::PATIENCE;
        loop {
            // The order matters: what comes between two looks is found by the second.
            let may_come = may_come();
            let found = self.agent_of(task);
            if found.is_some() || !may_come || Instant::now() >= until {
                return found;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the end of a prefix says nothing of the task agent behind it.
    fn is_unsure(&self, watched: &Watched, end: End) -> bool {
        let is_heard = watched.outcome.is_some() || watched.not_begun.is_some();
        let is_well = end.code() == Some(task_exit::REPORTED) && !self.settings.command_prefix.is_empty();
        watched.is_followed || is_well && !is_heard
    }

    /// The meaning of an end for the task.
    fn ending(&mut self, watched: &mut Watched, end: End) -> Ending {
        let code = end.code();
        let is_told = ENDS_WELL_BY_ITSELF || watched.outcome.is_some() || watched.not_begun.is_some();
        let is_reported = code == Some(task_exit::REPORTED) && is_told;
        let not_begun = watched.not_begun.as_deref().filter(|_| !watched.begun);
        let not_begun = match not_begun {
            Some(why) => Some(self.explain_not_begun(why)),
            None => self.explain_prefix(watched, code, end),
        };
        match (not_begun, watched.token.clone()) {
            // The agent has given the task back.
            (Some(why), _) if is_reported => return Ending::GivenBack(why),
            (Some(why), Some(token)) => return Ending::NotBegun(why, token),
            _ if self.is_unsure(watched, end) => {}
            _ if is_reported => return Ending::Done,
            _ => {
                let words = watched.agent.last_words.as_deref();
                let not_reported = code == Some(task_exit::NOT_REPORTED);
                let death = Death::of(end, not_reported, watched.ended_because, words);
                match end {
                    End::Gone => {
                        record!(Info, task_id = watched.task.id; "the task agent of an earlier run has ended")
                    }
                    End::Exited(_) => record!(Warn, task_id = watched.task.id; "{}", death.message),
                }
                return Ending::Lost(death);
            }
        }
        self.ask_about(watched, end)
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

    /// Sees to it that what the agent of a task has left is sent before the task is reported lost.
    pub(super) fn mourn(
        &mut self,
        task: RunningTask,
        token: Option<Secret>,
        mut death: Death,
        has_rest: bool,
    ) {
        self.clear(&task, true, false);
        let wanted = has_rest && self.claims.stop.level() < Level::Cancel;
        let token = match token {
            _ if !wanted => Ok(None),
            Some(token) => Ok(Some(token)),
            None => self.claims.rest(&task.id, task.allocation.as_deref(), &death.message),
        };
        death.spool_goes = !death.spool_stays && (!has_rest || wanted && token == Ok(None));
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
        // How one ends that its prefix has not waited for is not known.
        let is_over = matches!(end.code(), Some(task_exit::REPORTED | task_exit::NOT_REPORTED));
        if is_over || watched.is_followed {
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
        self.clear(task, true, death.spool_goes);
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

    /// Behind a prefix that ended well no task agent may ever have run, or one that has not reported is gone. The control
    /// plane knows: the task is given back, if there is something to give back.
    fn ask_about(&mut self, watched: &mut Watched, end: End) -> Ending {
        let (Some(prefix), Some(token)) = (self.settings.command_prefix.first(), &watched.token) else {
            return Ending::Done;
        };
        let why = format!(
            "`{prefix}` ended with exit code 0 before the task agent had reported: check that `runner.command_prefix` starts the command behind it, waits for its end, and leaves it its standard input and output"
        );
        let back = GivenBackTask { id: &watched.task.id, token, allocation: None };
        let pause = self.claims.life.host_pause();
        match self.claims.try_give_back(&back, GiveBackReason::Host, &why, pause) {
            Returned::Back => Ending::GivenBack(why),
            Returned::Begun => {
                watched.begun = true;
                record!(Warn, task_id = watched.task.id; "{why}");
                Ending::Lost(Death { message: why, ..Death::of(end, false, None, None) })
            }
            Returned::Over | Returned::Unheard => Ending::Done,
        }
    }

    /// The end of every task on this host: what it has left behind is ended, and its private folder removed, unless the
    /// task agent is alive all the same. `died`: it could not do so itself. `spool_too`: nobody wants its output.
    pub(super) fn clear(&self, task: &RunningTask, died: bool, spool_too: bool) {
        self.sweep(task, died);
        if !died || self.agent_of(&task.id).is_none() {
            scratch::remove_left_behind(&task.id, Some(&self.settings.working_directory), spool_too);
        }
    }

    /// Ends what the task has left behind. `died`: its agent could not.
    fn sweep(&self, task: &RunningTask, died: bool) {
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
