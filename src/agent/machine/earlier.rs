//! Remains of an earlier run of the runner: its record, and the task that it had.

use super::Runner;
use super::child::Agent;
use super::death::Death;
use super::orphans::{self, Markers};
use super::state::RunningTask;
use super::watched::Watched;
use crate::agent::board::State;
use crate::logging::record;
use crate::protocol::TaskId;
use crate::system::clock::since_boot;
use std::time::{Duration, Instant};

impl Runner {
    /// The task of an earlier run that the record does not know of, as on a disk that took nothing. Without one what
    /// is in the group was left behind.
    fn find_forgotten(&mut self) -> Option<RunningTask> {
        let found = orphans::find_agent(self.identity.as_deref()?);
        let found = found.and_then(|(pid, task)| Some((pid, TaskId::new(task).ok()?)));
        let task = |id: TaskId, agent| RunningTask {
            markers: Markers { task: id.as_str().to_owned(), ..Markers::default() },
            id,
            job_name: String::new(),
            resource_class: String::new(),
            allocation: None,
            claimed_since_boot_ms: None,
            agent,
        };
        if let Some((pid, id)) = found {
            record!(Warn, task_id = id, agent_pid = pid; "found a task agent that the record does not know of");
            let found = task(id, Some(Agent::now(pid)));
            self.record.change(|remembered| remembered.task = Some(found.clone()));
            return Some(found);
        }
        if self.group.as_ref().is_some_and(|group| !group.members().is_empty()) {
            let nobody = TaskId::new("unknown").ok()?;
            self.sweep(&task(nobody, None), false);
        }
        None
    }

    /// Takes over the task of an earlier run.
    pub(super) fn adopt(&mut self) {
        let found = self.record.remembered.task.clone().or_else(|| self.find_forgotten());
        let Some(task) = found else { return };
        self.claims.board.state(State::Running, &task.job_name);
        // It may take until the control plane can be reached, and no start of a service may take that long.
        self.service.round(|| format!("answering for task {} of an earlier run", task.id));
        let now = Instant::now();
        let agent = task.agent.as_ref().and_then(Agent::find);
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
                let message = "the task agent was gone when the runner started again";
                record!(Warn, task_id = task.id; "{message}");
                self.mourn(task, None, Death::of_earlier_run(message), true);
            }
        }
    }
}
