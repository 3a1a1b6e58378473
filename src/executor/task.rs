//! A task: its steps in order, what each end means for the next, and the end of everything.
//!
//! One thread runs this; children, heartbeat and signals speak to it through one channel.

use super::child::{GRACE, StepChild};
use super::control::Control;
use super::end::{StepEnd, StopReason};
use super::host::TaskHost;
use super::output::log::StepLog;
use super::process;
use super::records::Records;
use super::steps::{self, run};
use crate::protocol::task_input::TaskInput;
use crate::protocol::{Step, StepAction, StepStatus, TaskStatus, When, duration};
use std::io;
use std::time::Duration;

/// Time between TERM and KILL for what is left behind by a job that ended by itself.
const LEFTOVER_GRACE: Duration = Duration::from_secs(2);
/// How long they may take in all: together with the grace of a step less than the runner waits for the
/// task agent to end.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(15);

/// A task that runs.
pub(super) struct TaskRun {
    /// The claim and the settings.
    pub(super) input: TaskInput,
    pub(super) host: TaskHost,
    pub(super) control: Control,
    pub(super) records: Records,
    /// The record of the first step, opened before the task begins: its start goes along with the beginning.
    first: Option<io::Result<StepLog>>,
    /// Why the job cannot work although the host can.
    spoiled: Option<String>,
}

/// Whether a step runs, given what happened before it.
fn runs(when: When, failed: bool) -> bool {
    match when {
        When::OnSuccess => !failed,
        When::OnFail => failed,
        When::Always => true,
    }
}

impl TaskRun {
    /// A task that nothing has been reported of yet.
    pub(super) fn new(input: TaskInput, host: TaskHost, control: Control, records: Records) -> Self {
        Self { input, host, control, records, first: None, spoiled: None }
    }

    /// Runs the task to its end. Returns what to finish with.
    pub(super) fn run(&mut self) -> (TaskStatus, Option<String>) {
        if let Some(why) = self.spoiled.take() {
            return (TaskStatus::InfrastructureFail, Some(self.records.secrets.mask(&why)));
        }
        let mut first_failure = None;
        let steps = self.input.task.job.steps.clone();
        for (index, step) in steps.iter().enumerate() {
            // Takes in, too, what background steps did meanwhile.
            let stopped = self.control.stopped().is_some();
            let background = &mut self.control.background;
            background.halted |= first_failure.is_none() && background.halt_is_asked(self.records.newest());
            let halted = background.halted && first_failure.is_none();
            if halted || stopped || !self.wants(step, first_failure.is_some()) {
                self.skip(index, step);
                continue;
            }
            steps::take_over(&self.input, &self.host, &steps[index..]);
            let end = self.attempts(index, step);
            if end.status != StepStatus::Success && first_failure.is_none() {
                let why = end.message.unwrap_or_else(|| "it failed".to_owned());
                let name = self.records.secrets.mask(&step.name);
                let mut lines = name.lines();
                let mut title = lines.next().unwrap_or_default().to_owned();
                if lines.next().is_some() {
                    title.push_str(" ...");
                }
                let status = match end.status {
                    StepStatus::InfrastructureFail => TaskStatus::InfrastructureFail,
                    _ => TaskStatus::Failed,
                };
                first_failure = Some((status, self.records.secrets.mask(&format!("step `{title}`: {why}"))));
            }
        }
        // A stop after the last step changes nothing.
        let stop = self.control.stopped();
        self.control.end_background();
        self.end_leftovers();
        match (stop, first_failure) {
            (Some(StopReason::Cancel | StopReason::Ended), _) => {
                let why = "the job was canceled through the control plane";
                (TaskStatus::Canceled, Some(why.to_owned()))
            }
            (Some(StopReason::Unreachable), _) => (TaskStatus::InfrastructureFail, Some(self.silence_text())),
            (Some(StopReason::Runner), _) => (TaskStatus::InfrastructureFail, Some(self.runner_stop_text())),
            (Some(StopReason::TimeLimit), _) => (TaskStatus::Timedout, Some(self.time_limit_text())),
            (None, Some((status, why))) => (status, Some(why)),
            (None, None) => (TaskStatus::Success, None),
        }
    }

    /// Whether a step runs on this node, given what happened before it.
    fn wants(&self, step: &Step, failed: bool) -> bool {
        let not_here = matches!(&step.action, StepAction::Run(run) if run.first_node_only)
            && self.input.task.node_index > 0;
        !not_here && runs(step.when, failed)
    }

    /// Opens the record of the first step, if that is sure to run once the task has begun. `spoiled` says why the job
    /// cannot work although the host can.
    pub(super) fn open_first(&mut self, spoiled: Option<String>) {
        self.spoiled = spoiled;
        let first = self.input.task.job.steps.first().cloned();
        if let Some(step) = first.filter(|step| self.spoiled.is_none() && self.wants(step, false)) {
            self.first = Some(self.records.open_attempt(0, &step, 1));
        }
    }

    fn time_limit_text(&self) -> String {
        let limit = duration::format(Duration::from_millis(self.input.max_run_time_ms));
        format!("the job ran longer than the {limit} that this runner allows (`runner.max_run_time`)")
    }

    fn silence_text(&self) -> String {
        let (silence, failure) = &self.control.silence;
        let failure = match failure.as_str() {
            "" => String::new(),
            failure => format!("; the last call failed: {failure}"),
        };
        format!(
            "no answer from the control plane for {}: the steps were stopped, since it may have given the job to another runner (see to the network of the runner `{}`{failure})",
            duration::format(Duration::from_secs(silence.as_secs())),
            self.input.runner_name
        )
    }

    fn runner_stop_text(&self) -> String {
        let name = &self.input.runner_name;
        format!(
            "the runner `{name}` was told to stop before the job had ended, by its operator or because its host goes down (run the job again; a runner that is told only once lets its job finish)"
        )
    }

    /// A step with its automatic reruns.
    fn attempts(&mut self, index: usize, step: &Step) -> StepEnd {
        let (reruns, delay) = match &step.action {
            StepAction::Run(run) => (run.max_auto_reruns, Duration::from_millis(run.auto_rerun_delay_ms)),
            _ => (0, Duration::ZERO),
        };
        let mut attempt = 1;
        loop {
            let end = self.attempt(index, step, attempt);
            let again = matches!(end.status, StepStatus::Failed | StepStatus::Timedout) && attempt <= reruns;
            if !again || self.control.wait_or_stop(delay) {
                return end;
            }
            attempt += 1;
        }
    }

    fn attempt(&mut self, index: usize, step: &Step, attempt: u32) -> StepEnd {
        let opened = match self.first.take() {
            Some(opened) => opened,
            None => self.records.open_attempt(index, step, attempt),
        };
        let record = self.records.newest();
        let log = match opened {
            Ok(log) => log,
            Err(error) => {
                let why = format!(
                    "failed to open the log of the step in `{}`: {error}",
                    self.records.spool.display()
                );
                let end = StepEnd::of_host(why);
                self.records.finished(record, &end);
                return end;
            }
        };
        let host = &mut self.host;
        let ready = host.private.keep(&self.input, &log).and_then(|()| host.keep_folder());
        host.places.lend_home();
        if matches!(&step.action, StepAction::Run(run) if run.background) && ready.is_ok() {
            return self.start_background(step, &log);
        }
        let act = |()| steps::act(&self.input, &self.host, &mut self.control, &mut self.records, step, &log);
        let end = ready.and_then(act).unwrap_or_else(|end| end);
        if let Some(message) = &end.message {
            log.note(message);
        }
        log.close();
        self.records.finished(record, &end);
        end
    }

    fn start_background(&mut self, step: &Step, log: &StepLog) -> StepEnd {
        let StepAction::Run(run) = &step.action else { return StepEnd::success() };
        let job = &self.input.task.job;
        let started = run::shell_command(job, &self.host, run, log.step()).and_then(|command| {
            StepChild::start(command, log, &self.control.sender).map_err(|e| run::explain_start(job, run, &e))
        });
        match started {
            Ok(running) => {
                self.control.background.push(running);
                StepEnd::success()
            }
            Err(end) => {
                end.message.iter().for_each(|why| log.note(why));
                log.close();
                self.records.finished(log.step(), &end);
                end
            }
        }
    }

    /// Records a step that does not run.
    fn skip(&mut self, index: usize, step: &Step) {
        let Some(opened) = self.first.take() else { return self.records.skip(index, step) };
        let _ = opened.map(|log| log.close());
        let end = StepEnd { status: StepStatus::NotRun, ..StepEnd::success() };
        self.records.finished(self.records.newest(), &end);
    }

    /// Ends the processes that steps have left behind: none survives a task.
    fn end_leftovers(&mut self) {
        if !process::has_descendants() {
            return;
        }
        // Processes left by a job that was stopped get the time to clean up; those of a job that ended by itself get
        // little.
        let grace = if self.control.was_stopped() { GRACE } else { LEFTOVER_GRACE };
        let found = process::end_descendants(grace, LEFTOVER_PATIENCE);
        if found.is_empty() {
            return;
        }
        let log = self.records.open(None, "Stop leftover processes", "cleanup", None, 1, 0, false);
        if let Ok(log) = log {
            for process in &found {
                log.note(&format!("stopped pid {}: `{}`", process.pid, log.shortened(&process.command)));
            }
            log.close();
        }
        self.records.finished(self.records.newest(), &StepEnd::success());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_run_by_when() {
        let table = [(When::OnSuccess, true, false), (When::OnFail, false, true), (When::Always, true, true)];
        for (when, ok, failed) in table {
            assert_eq!((runs(when, false), runs(when, true)), (ok, failed), "{when:?}");
        }
    }
}
