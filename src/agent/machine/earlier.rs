//! Remains of an earlier run of the runner: its record, and the task that it had.

use super::child::Agent;
use super::death::Death;
use super::orphans;
use super::state::{AgentProcess, RunningTask};
use super::tasks::Tasks;
use super::watched::Watched;
use crate::agent::board::Activity;
use crate::agent::service::Service;
use crate::logging::record;
use crate::protocol::{HeldTask, TaskId};
use crate::system::clock::since_boot;
use crate::system::os::{MetadataExt, getuid};
use std::fs;
use std::time::{Duration, Instant};

impl Tasks {
    /// A task agent of an earlier run that the record does not know of, as on a disk that took nothing, and its task.
    fn find_forgotten(&mut self) -> Option<(RunningTask, Agent)> {
        let (pid, id) = self.find_agent()?;
        let id = TaskId::new(id).ok()?;
        let process = Agent::now(pid);
        let agent = Agent::find(&process)?;
        record!(Warn, task_id = id, agent_pid = pid; "found a task agent that the record does not know of");
        let found = RunningTask { agent: Some(process), ..RunningTask::unknown(id) };
        self.record.change(|remembered| remembered.task = Some(found.clone()));
        Some((found, agent))
    }

    /// A task agent of this runner that is alive, and its task.
    fn find_agent(&self) -> Option<(i32, String)> {
        orphans::find_agent(
            self.agents.identity.as_deref()?,
            &self.users_of_agents(),
            self.agents.group.as_ref(),
        )
    }

    /// The living agent of a task. Costs a look at each process of the host.
    pub(super) fn agent_of(&self, task: &TaskId) -> Option<AgentProcess> {
        let (pid, _) = self.find_agent().filter(|(_, id)| id == task.as_str())?;
        Some(Agent::now(pid))
    }

    /// The users that task agents of this runner may be of: its own; behind a prefix, which may change the user by way of
    /// root, also root and whoever has the working directory, which is made by a task agent.
    fn users_of_agents(&self) -> Vec<u32> {
        let mut users = vec![getuid().as_raw()];
        if !self.settings.command_prefix.is_empty() {
            users.push(0);
            users.extend(fs::metadata(&self.settings.working_directory).map(|about| about.uid()));
        }
        users
    }

    /// The task of an earlier run, and its agent if that still runs. One that the record does not know of comes before
    /// one that has gone: a runner has one task at a time, so that the record is the older one.
    fn find_earlier(&mut self) -> Option<(RunningTask, Option<Agent>)> {
        let recorded = self.record.remembered.task.clone();
        let agent = recorded.as_ref().and_then(|task| Agent::find(task.agent.as_ref()?));
        if agent.is_some() {
            return recorded.map(|task| (task, agent));
        }
        match self.find_forgotten() {
            Some((task, agent)) => Some((task, Some(agent))),
            None => recorded.map(|task| (task, None)),
        }
    }

    /// Answers for a task that the control plane holds for this runner's and that neither runs nor is known here, as of a
    /// record that was lost: its agent may have left something all the same.
    pub(super) fn disown(&mut self, held: HeldTask) {
        record!(Warn, task_id = held.id;
            "the control plane knows a task of this runner that does not run here"
        );
        let now = Instant::now();
        self.claims.life.claimed(now, now);
        self.claims.board.begun(held.id.as_str(), "", Duration::ZERO);
        let task = RunningTask { allocation: Some(held.allocation), ..RunningTask::unknown(held.id) };
        let why = "the runner that had claimed the task does not know of it (any more)";
        self.mourn(task, None, Death::of_earlier_run(why), true);
    }

    /// Takes over the task of an earlier run. Without one what is in the group was left behind.
    pub(super) fn adopt(&mut self, service: &mut Service) {
        let Some((task, agent)) = self.find_earlier() else {
            let nobody = TaskId::new("unknown").ok();
            let is_left = self.agents.group.as_ref().is_some_and(|group| !group.members().is_empty());
            if let Some(nobody) = nobody.filter(|_| is_left) {
                self.clear(&RunningTask::unknown(nobody), false, false);
            }
            return;
        };
        self.claims.board.state(Activity::Running, &task.job_name);
        // The control plane may not be reached for long, and no start of a service may take that long.
        service.round(|| format!("answering for task {} of an earlier run", task.id));
        let now = Instant::now();
        // The process is of this start of the system, so the time since then can be compared.
        let age = agent
            .as_ref()
            .and(task.claimed_since_boot_ms)
            .map_or(Duration::ZERO, |claimed| since_boot().saturating_sub(Duration::from_millis(claimed)));
        self.claims.life.claimed(now.checked_sub(age).unwrap_or(now), now);
        self.claims.board.begun(task.id.as_str(), &task.job_name, age);
        match agent {
            Some(agent) => {
                record!(Info, task_id = task.id, agent_pid = agent.process().pid;
                    "found the running task of an earlier run, waiting for it"
                );
                self.watched = Some(Watched::of(agent, task, None));
            }
            None => {
                let message = "the task agent was gone when the runner started again, so the last output may be missing";
                record!(Warn, task_id = task.id; "{message}");
                self.mourn(task, None, Death::of_earlier_run(message), true);
            }
        }
    }
}
