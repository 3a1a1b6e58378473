//! One task: its steps in order, what each end means for the next, and the end of everything.
//!
//! One thread runs this; children, heartbeat and signals speak to it through one channel.

use super::child::{GRACE, Message, StepChild};
use super::cleanup::{self, Before};
use super::end::{ChildEnd, StepEnd, StopReason, exit_text};
use super::folder::FolderLock;
use super::life::Phase;
use super::output::log::StepLog;
use super::output::report::Reporter;
use super::output::secrets::Secrets;
use super::places::Places;
use super::process::{self, Ended};
use super::steps::names::Names;
use crate::protocol::task_input::TaskInput;
use crate::protocol::{Action, EventKind, Step, StepStatus, TaskStatus, When, duration};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};

/// Time between TERM and KILL for what is left behind by a job that ended by itself.
const LEFTOVER_GRACE: Duration = Duration::from_secs(2);
/// How long they may take in all: together with the grace of a step less than the runner waits for the
/// task agent to end.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(15);
/// How often the fence is looked at: the clock that waits are measured by stands still while the host sleeps.
const FENCE_LOOK: Duration = Duration::from_secs(10);

/// Everything a step needs.
pub struct TaskRun {
    /// The claim and the settings.
    pub input: TaskInput,
    /// To the control plane.
    pub reporter: Reporter,
    /// Values to mask.
    pub secrets: Secrets,
    /// Folder of the task agent that jobs do not name; removed with the task.
    pub scratch: PathBuf,
    /// The file that `$BASH_ENV` named when the last step began.
    pub(super) held_bash_env: Option<File>,
    /// Folder of the output that is not sent yet.
    pub spool: PathBuf,
    /// Places that the paths of the job lead to.
    pub places: Places,
    /// Environment of the steps.
    pub environment: BTreeMap<String, String>,
    messages: Receiver<Message>,
    pub(super) sender: Sender<Message>,
    background: Vec<StepChild>,
    /// A step asked that no further one begins.
    halted: bool,
    stop: Option<StopReason>,
    /// How long the control plane had not answered when the steps were stopped for it.
    silence: Duration,
    deadline: Option<Instant>,
    /// When the task began, by the clock that files are dated with.
    pub(super) began: SystemTime,
    records: u32,
    /// The record of the first step, opened before the task begins: its start goes along with the beginning.
    first: Option<io::Result<StepLog>>,
    /// Names of stored files.
    pub(super) names: Names,
    /// The lock of the working directory.
    pub(super) folder: Option<FolderLock>,
    /// The folder that is cleaned up after the job, as it was before.
    pub(super) before: Option<Before>,
    /// Why the job cannot work although the host can.
    pub(super) spoiled: Option<String>,
}

/// Whether a step runs, given what happened before it.
pub fn runs(when: When, failed: bool) -> bool {
    match when {
        When::OnSuccess => !failed,
        When::OnFail => failed,
        When::Always => true,
    }
}

impl TaskRun {
    /// Prepares a task; nothing has been reported yet.
    pub fn new(
        input: TaskInput,
        reporter: Reporter,
        secrets: Secrets,
        (scratch, spool): (PathBuf, PathBuf),
        home: PathBuf,
        channel: (Sender<Message>, Receiver<Message>),
    ) -> Self {
        let limit = input.max_run_time_ms;
        let base = input.working_directory.as_deref();
        let written = input.task.job.working_directory.clone();
        // The folder that a runner which confines its jobs works in is their home.
        let own = base.filter(|_| !input.confine);
        let written = written.or_else(|| own.map(|base| base.to_string_lossy().into_owned()));
        let written = written.unwrap_or_else(|| "~/project".to_owned());
        let places = Places::new(&written, base, home, input.confine);
        let deadline = (limit > 0).then(|| Instant::now() + Duration::from_millis(limit));
        Self {
            input,
            reporter,
            secrets,
            scratch,
            held_bash_env: None,
            spool,
            places,
            environment: BTreeMap::new(),
            messages: channel.1,
            sender: channel.0,
            background: Vec::new(),
            halted: false,
            stop: None,
            silence: Duration::ZERO,
            deadline,
            began: SystemTime::now(),
            records: 0,
            first: None,
            names: Names::default(),
            folder: None,
            before: None,
            spoiled: None,
        }
    }

    /// Runs the task to its end. Returns what to finish with.
    pub fn run(&mut self) -> (TaskStatus, Option<String>) {
        if let Some(why) = self.spoiled.take() {
            return (TaskStatus::InfrastructureFail, Some(self.secrets.mask(&why)));
        }
        let mut first_failure = None;
        let steps = self.input.task.job.steps.clone();
        for (index, step) in steps.iter().enumerate() {
            // Takes in, too, what background steps did meanwhile.
            let stopped = self.stopped().is_some();
            self.halted |= first_failure.is_none() && self.halt_is_asked();
            let halted = self.halted && first_failure.is_none();
            if halted || stopped || !self.wants(step, first_failure.is_some()) {
                self.skip(index, step);
                continue;
            }
            self.take_over(&steps[index..]);
            let end = self.attempts(index, step);
            if end.status != StepStatus::Success && first_failure.is_none() {
                let why = end.message.unwrap_or_else(|| "it failed".to_owned());
                let mut lines = step.name.lines();
                let mut title = lines.next().unwrap_or_default().to_owned();
                if lines.next().is_some() {
                    title.push_str(" ...");
                }
                let status = match end.status {
                    StepStatus::InfrastructureFail => TaskStatus::InfrastructureFail,
                    _ => TaskStatus::Failed,
                };
                first_failure = Some((status, self.secrets.mask(&format!("step `{title}`: {why}"))));
            }
        }
        // A stop after the last step changes nothing.
        let stop = self.stopped();
        self.end_background();
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
        let not_here =
            matches!(&step.action, Action::Run(run) if run.first_node_only) && self.input.task.node_index > 0;
        !not_here && runs(step.when, failed)
    }

    /// Opens the record of the first step, if that is sure to run once the task has begun.
    pub(super) fn open_first(&mut self) {
        let first = self.input.task.job.steps.first().cloned();
        if let Some(step) = first.filter(|step| self.spoiled.is_none() && self.wants(step, false)) {
            self.first = Some(self.open_attempt(0, &step, 1));
        }
    }

    /// Whether the step that has just ended asks for a halt, by the record of its last attempt, or a
    /// background step that runs.
    fn halt_is_asked(&self) -> bool {
        let newest = self.records.saturating_sub(1);
        let mut records = self.background.iter().map(|running| running.step).chain([newest]);
        records.any(|record| self.asks_for_halt(record))
    }

    fn asks_for_halt(&self, record: u32) -> bool {
        self.scratch.join(crate::tool::halt::file_name(&record.to_string())).exists()
    }

    fn time_limit_text(&self) -> String {
        let limit = duration::format(Duration::from_millis(self.input.max_run_time_ms));
        format!("the job ran longer than the {limit} that this runner allows (`runner.max_run_time`)")
    }

    fn silence_text(&self) -> String {
        let silence = Duration::from_secs(self.silence.as_secs());
        format!(
            "no answer from the control plane for {}: the steps were stopped, since it may have given the job to another runner (see to the network of the runner `{}`)",
            duration::format(silence),
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
            Action::Run(run) => (run.max_auto_reruns, Duration::from_millis(run.auto_rerun_delay_ms)),
            _ => (0, Duration::ZERO),
        };
        let mut attempt = 1;
        loop {
            let end = self.attempt(index, step, attempt);
            let again = matches!(end.status, StepStatus::Failed | StepStatus::Timedout) && attempt <= reruns;
            if !again || self.wait_or_stop(delay) {
                return end;
            }
            attempt += 1;
        }
    }

    fn open_attempt(&mut self, index: usize, step: &Step, attempt: u32) -> io::Result<StepLog> {
        match &step.action {
            Action::Run(run) => {
                let (command, reruns) = (Some(run.command.clone()), run.max_auto_reruns);
                self.open(Some(index), &step.name, "run", command, attempt, reruns, run.background)
            }
            action => self.open(Some(index), &step.name, action.kind(), None, attempt, 0, false),
        }
    }

    fn attempt(&mut self, index: usize, step: &Step, attempt: u32) -> StepEnd {
        let (record, opened) = match self.first.take() {
            Some(opened) => (self.records.saturating_sub(1), opened),
            None => (self.records, self.open_attempt(index, step, attempt)),
        };
        let log = match opened {
            Ok(log) => log,
            Err(error) => {
                let why =
                    format!("failed to open the log of the step in `{}`: {error}", self.spool.display());
                let end = StepEnd::of_host(why);
                self.finished(record, &end);
                return end;
            }
        };
        let ready = self.keep_private_folder(&log).and_then(|()| self.keep_folder());
        self.places.link_home();
        if matches!(&step.action, Action::Run(run) if run.background) && ready.is_ok() {
            return self.start_background(record, step, &log);
        }
        let end = ready.map_or_else(|end| end, |()| self.act(record, step, &log));
        if let Some(message) = &end.message {
            log.note(message);
        }
        log.close();
        self.finished(record, &end);
        end
    }

    fn start_background(&mut self, record: u32, step: &Step, log: &StepLog) -> StepEnd {
        let Action::Run(run) = &step.action else { return StepEnd::success() };
        let started = self.shell_command(run, record).and_then(|command| {
            StepChild::start(record, command, log, &self.sender).map_err(|e| self.explain_start(run, &e))
        });
        match started {
            Ok(running) => {
                self.background.push(running);
                StepEnd::success()
            }
            Err(end) => {
                end.message.iter().for_each(|why| log.note(why));
                log.close();
                self.finished(record, &end);
                end
            }
        }
    }

    /// Records a step that does not run. Start and end go together: nobody should see it running.
    fn skip(&mut self, index: usize, step: &Step) {
        if let Some(opened) = self.first.take() {
            let _ = opened.map(|log| log.close());
            let end = StepEnd { status: StepStatus::NotRun, ..StepEnd::success() };
            return self.finished(self.records.saturating_sub(1), &end);
        }
        let record = self.records;
        self.records += 1;
        self.reporter.events([
            EventKind::StepStarted {
                step: record,
                index: Some(index as u32),
                name: self.secrets.mask(&step.name),
                kind: step.action.kind().to_owned(),
                command: None,
                attempt: 1,
                max_auto_reruns: 0,
                background: false,
            },
            EventKind::StepFinished {
                step: record,
                status: StepStatus::NotRun,
                exit_code: None,
                signal: None,
                message: None,
                output_bytes: 0,
                output_times: Vec::new(),
            },
        ]);
    }

    /// The number of the record that is opened next.
    pub(super) fn next_record(&self) -> u32 {
        self.records
    }

    /// Opens the next record: its log, and the event that says so.
    #[expect(clippy::too_many_arguments, reason = "the fields of one event")]
    pub(super) fn open(
        &mut self,
        index: Option<usize>,
        name: &str,
        kind: &str,
        command: Option<String>,
        attempt: u32,
        reruns: u32,
        background: bool,
    ) -> io::Result<StepLog> {
        let step = self.records;
        self.records += 1;
        let limit = self.input.task.max_step_output_bytes;
        let log = StepLog::open(&self.spool, step, limit, &self.secrets, &self.reporter);
        self.reporter.event(EventKind::StepStarted {
            step,
            index: index.map(|index| index as u32),
            name: self.secrets.mask(name),
            kind: kind.to_owned(),
            command: command.map(|command| self.secrets.mask(&command)),
            attempt,
            max_auto_reruns: reruns,
            background,
        });
        log
    }

    pub(super) fn finished(&self, step: u32, end: &StepEnd) {
        self.reporter.event(EventKind::StepFinished {
            step,
            status: end.status,
            exit_code: end.ended.map(|ended| ended.code),
            signal: end.ended.and_then(|ended| ended.signal),
            message: end.message.as_deref().map(|message| self.secrets.mask(message)),
            output_bytes: self.reporter.output_bytes(step),
            output_times: self.reporter.output_times(step),
        });
    }

    /// Runs a child of a step to its end; `silence` is how long it may write nothing.
    pub fn child(
        &mut self,
        step: u32,
        log: &StepLog,
        command: Command,
        silence: Option<Duration>,
    ) -> ChildEnd {
        if let Some(stop) = self.stopped() {
            return ChildEnd::Stopped(stop);
        }
        let mut running = match StepChild::start(step, command, log, &self.sender) {
            Ok(running) => running,
            Err(error) => return ChildEnd::NotStarted(error),
        };
        let mut silent = None;
        loop {
            let now = Instant::now();
            self.note_deadline(now);
            if self.stop.is_some() {
                running.terminate(now);
                // Their grace begins now as well, or a stop would last as long as two of them.
                self.stop_background(now);
            } else if let Some(limit) = silence.filter(|limit| running.is_silent(*limit, now)) {
                silent = Some(limit);
                running.terminate(now);
            }
            running.escalate(now);
            if running.is_over(now) {
                break;
            }
            let wake = [running.next_deadline(silence, now), self.next_look(now)];
            if let Some(message) = self.receive(wake.into_iter().flatten().min()) {
                running.take(&message);
            }
        }
        running.let_go();
        match (self.stop, silent, running.ended) {
            (_, Some(limit), _) => ChildEnd::Silent(limit),
            (Some(stop), None, _) => ChildEnd::Stopped(stop),
            (None, None, ended) => ChildEnd::Ended(ended.unwrap_or(Ended { code: 1, signal: None })),
        }
    }

    /// Whether the task must stop, by what has arrived so far.
    pub fn stopped(&mut self) -> Option<StopReason> {
        while let Ok(message) = self.messages.try_recv() {
            self.note(&message);
        }
        self.note_deadline(Instant::now());
        self.stop
    }

    fn note_deadline(&mut self, now: Instant) {
        if self.stop.is_none() && self.deadline.is_some_and(|deadline| now >= deadline) {
            self.stop = Some(StopReason::TimeLimit);
        }
        if self.stop.is_none() && self.reporter.phase() == Phase::Fenced {
            if self.reporter.has_ended() {
                self.stop = Some(StopReason::Ended);
            } else {
                self.stop = Some(StopReason::Unreachable);
                self.silence = self.reporter.silence();
            }
        }
    }

    /// When to look whether the task has to stop although no message says so.
    pub(super) fn next_look(&self, now: Instant) -> Option<Instant> {
        if self.stop.is_some() {
            return None;
        }
        let fence = self.reporter.until_fence().map(|left| now + left.min(FENCE_LOOK));
        self.deadline.into_iter().chain(fence).min()
    }

    pub(super) fn receive(&mut self, wake: Option<Instant>) -> Option<Message> {
        let message = match wake {
            Some(at) => self.messages.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => self.messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let message = message.ok()?;
        self.note(&message);
        Some(message)
    }

    fn note(&mut self, message: &Message) {
        match message {
            // A person who cancels wants no other result, whatever became of the runner meanwhile.
            Message::Cancel if matches!(self.stop, None | Some(StopReason::Runner)) => {
                self.stop = Some(StopReason::Cancel);
            }
            Message::Cancel => {}
            Message::Terminate => self.stop = self.stop.or(Some(StopReason::Runner)),
            Message::Ended => self.stop = Some(StopReason::Ended),
            Message::Done => {}
            Message::Exited { .. } | Message::Closed { .. } => {
                for running in &mut self.background {
                    running.take(message);
                }
                while let Some(at) = self.background.iter().position(StepChild::is_complete) {
                    let running = self.background.remove(at);
                    self.close_background(&running);
                }
            }
        }
    }

    /// Waits; true when the task was stopped meanwhile.
    pub(super) fn wait_or_stop(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while Instant::now() < until && self.stopped().is_none() {
            let look = self.next_look(Instant::now());
            self.receive(Some(look.map_or(until, |look| look.min(until))));
        }
        self.stopped().is_some()
    }

    /// Stops the background steps that still run.
    fn end_background(&mut self) {
        self.stopped();
        loop {
            let now = Instant::now();
            self.stop_background(now);
            let wake = self
                .background
                .iter()
                .filter(|running| !running.is_over(now))
                .map(|running| running.next_deadline(None, now).unwrap_or(now + Duration::from_secs(1)))
                .min();
            let Some(wake) = wake else { break };
            self.receive(Some(wake));
        }
        for running in std::mem::take(&mut self.background) {
            self.close_background(&running);
        }
    }

    fn stop_background(&mut self, now: Instant) {
        for running in &mut self.background {
            running.terminate(now);
            running.escalate(now);
        }
    }

    /// Ends the record of a background step: one that was stopped is none that failed.
    fn close_background(&mut self, running: &StepChild) {
        // From here on it is no step that runs, and whatever it left behind has no say.
        self.halted |= self.asks_for_halt(running.step);
        let end = match running.ended {
            Some(ended) if !running.was_stopped() && ended.code != 0 => {
                StepEnd { ended: Some(ended), ..exit_text(ended) }
            }
            ended => StepEnd { ended: ended.filter(|_| !running.was_stopped()), ..StepEnd::success() },
        };
        if running.was_stopped() {
            running.log.note("[stopped: the job has ended]");
        }
        running.let_go();
        if let Some(message) = &end.message {
            running.log.note(message);
        }
        running.log.close();
        self.finished(running.step, &end);
    }

    /// Removes the working directory, where the runner says so and no other task has it.
    pub(super) fn clean_up(&mut self) {
        if self.input.cleanup_working_directory && self.holds_folder() {
            let cleaned = self.places.cleaned();
            let is_own = self.input.working_directory.as_deref() == Some(cleaned);
            cleanup::remove_working_directory(cleaned, self.before.as_ref(), is_own);
        }
    }

    /// Nothing survives a task.
    fn end_leftovers(&mut self) {
        if !process::has_descendants() {
            return;
        }
        // Processes left by a job that was stopped get the time to clean up; those of a job that ended by itself get
        // little.
        let grace = if self.stop.is_some() { GRACE } else { LEFTOVER_GRACE };
        let found = process::end_descendants(grace, LEFTOVER_PATIENCE);
        if found.is_empty() {
            return;
        }
        let step = self.records;
        if let Ok(log) = self.open(None, "Stop leftover processes", "cleanup", None, 1, 0, false) {
            for process in &found {
                log.note(&format!("stopped pid {}: `{}`", process.pid, process.command));
            }
            log.close();
        }
        self.finished(step, &StepEnd::success());
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
