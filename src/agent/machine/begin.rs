//! The beginning of a task on this host: from its claim to the task agent that has it, or back to the queue.

use super::child::{self, Agent};
use super::orphans::Markers;
use super::state::RunningTask;
use super::tasks::Tasks;
use super::watched::Watched;
use crate::agent::board::Activity;
use crate::agent::claims::GivenBackTask;
use crate::agent::stop::Level;
use crate::executor::cleanup::Before;
use crate::logging::record;
use crate::protocol::task_input::{TaskEndpoint, TaskInput};
use crate::protocol::{GiveBackReason, Task, duration};
use crate::system::clock::since_boot;
use std::time::{Duration, Instant};

impl Tasks {
    /// Starts the task agent of a claimed task.
    pub(super) fn begin(&mut self, task: Task) {
        let (id, token, allocation) = (task.id.clone(), task.token.clone(), task.allocation.clone());
        let back = GivenBackTask { id: &id, token: &token, allocation: Some(&allocation) };
        if self.claims.stop.level() == Level::Cancel {
            let why = format!("the runner `{}` stops", self.settings.name);
            self.claims.give_back(&back, GiveBackReason::Runner, &why, Duration::ZERO);
            self.forget();
            self.claims.life.ended(Instant::now());
            return;
        }
        if let Some(rule) = self.settings.rules.refuse(&task) {
            let why = format!("the runner `{}` does not run this job: {rule}", self.settings.name);
            record!(Warn, task_id = id; "ended a task by a rule: {rule}");
            self.claims.board.refused(id.as_str(), &rule);
            self.claims.board.ended("refused");
            self.claims.refuse(&back, &why);
            self.forget();
            self.claims.life.ended(Instant::now());
            return;
        }
        let running = RunningTask {
            id: id.clone(),
            job_name: task.job_name.clone(),
            resource_class: task.job.resource_class.clone(),
            markers: Markers::of(&task),
            allocation: Some(allocation.clone()),
            claimed_since_boot_ms: u64::try_from(since_boot().as_millis()).ok(),
            agent: None,
        };
        self.claims.board.state(Activity::Running, &task.job_name);
        match self.start(task, running, false) {
            Ok((agent, running)) => self.watched = Some(Watched::of(agent, running, Some(token))),
            Err(why) => self.give_back(&back, GiveBackReason::Host, &why),
        }
    }

    /// Starts a task agent, and remembers it.
    pub(super) fn start(
        &mut self,
        task: Task,
        mut running: RunningTask,
        rest: bool,
    ) -> Result<(Agent, RunningTask), String> {
        let input = self.input(task, rest)?;
        if !rest {
            let cleans = self.settings.cleanup_working_directory;
            self.before = cleans.then(|| Before::of(&self.settings.working_directory));
        }
        let mut agent = child::start(
            &self.settings,
            &self.agents.program,
            &running.id,
            self.agents.identity.as_deref(),
            self.agents.group.as_ref(),
        )?;
        let process = agent.process();
        record!(Info, task_id = running.id, agent_pid = process.pid; "task agent started");
        running.agent = Some(process);
        // Before it is given its task: whoever comes after this runner knows of it.
        self.record.change(|remembered| remembered.task = Some(running.clone()));
        agent.feed(input);
        self.record.sync();
        Ok((agent, running))
    }

    /// Gives a task back that cannot begin on this host, and pauses, so that other hosts have the queue.
    pub(super) fn give_back(&mut self, task: &GivenBackTask<'_>, reason: GiveBackReason, why: &str) {
        record!(Error, task_id = task.id; "the task cannot begin on this host: {why}");
        self.claims.give_back(task, reason, why, self.claims.life.host_pause());
        self.pause(why);
    }

    pub(super) fn pause(&mut self, why: &str) {
        self.claims.board.ended("given_back");
        self.claims.trouble = why.to_owned();
        self.forget();
        let pause = self.claims.life.not_begun(Instant::now());
        log::warn!(
            "pausing for {}, since a task could not begin on this host: {why}",
            duration::format(pause)
        );
    }

    /// The document for the task agent's standard input.
    fn input(&self, task: Task, rest: bool) -> Result<Vec<u8>, String> {
        let endpoint = &self.settings.endpoint;
        let (certificate, key) = endpoint.client_certificate.clone().unzip();
        let input = TaskInput {
            endpoint: TaskEndpoint {
                url: endpoint.url.clone(),
                ca_file: endpoint.ca_file.clone(),
                client_certificate_file: certificate,
                client_key_file: key,
            },
            working_directory: Some(self.settings.working_directory.clone()),
            cleanup_working_directory: self.settings.cleanup_working_directory,
            confine: self.settings.confine,
            local_source: self.settings.local_source.clone(),
            #[cfg(feature = "server")]
            output_directory: self.settings.output_directory.clone(),
            use_home_ssh_dir_for_checkout_keys: self.settings.use_home_ssh_dir_for_checkout_keys,
            max_run_time_ms: u64::try_from(self.settings.max_run_time.as_millis()).unwrap_or(u64::MAX),
            runner_name: self.settings.name.clone(),
            runner_version: env!("CARGO_PKG_VERSION").to_owned(),
            tool_directory: self.agents.tool_directory.clone(),
            log_level: Some(self.settings.logging.level.as_str().to_ascii_lowercase()),
            log_format: Some(self.settings.logging.settled().name().to_owned()),
            mask_forms: self.settings.mask_forms.clone(),
            pause_seconds: u32::try_from(self.claims.life.host_pause().as_secs()).unwrap_or(u32::MAX),
            drop_output: self.settings.drop_output_on_full_disk,
            rest,
            task,
        };
        serde_json::to_vec(&input).map_err(|error| format!("cannot write the task as JSON: {error}"))
    }
}
