//! Steps that run beside those that follow them, to the end of the job at most.

use super::child::{StepChild, TaskMessage};
use super::end::{StepEnd, exit_text};
use super::output::report::Reporter;
use super::output::secrets::Secrets;
use super::records;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The background steps of a task.
pub(super) struct Background {
    running: Vec<StepChild>,
    /// A step asked that no further one begins.
    pub(super) halted: bool,
    /// Private folder of the task, where steps ask for a halt.
    scratch: PathBuf,
    reporter: Reporter,
    secrets: Secrets,
}

impl Background {
    /// Makes the list of background steps, empty as yet.
    pub(super) fn new(scratch: PathBuf, reporter: Reporter, secrets: Secrets) -> Self {
        Self { running: Vec::new(), halted: false, scratch, reporter, secrets }
    }

    /// Adds one that was started.
    pub(super) fn push(&mut self, running: StepChild) {
        self.running.push(running);
    }

    /// Takes notice of what happened to one of them.
    pub(super) fn take(&mut self, message: &TaskMessage) {
        for running in &mut self.running {
            running.take(message);
        }
        while let Some(at) = self.running.iter().position(StepChild::is_complete) {
            let running = self.running.remove(at);
            self.close(&running);
        }
    }

    /// Whether the step that has just ended asks for a halt, by the record of its last attempt, or a background step that
    /// runs.
    pub(super) fn halt_is_asked(&self, newest: u32) -> bool {
        let mut records = self.running.iter().map(|running| running.step).chain([newest]);
        records.any(|record| self.asks_for_halt(record))
    }

    fn asks_for_halt(&self, record: u32) -> bool {
        self.scratch.join(crate::tool::halt::file_name(&record.to_string())).exists()
    }

    /// Tells those that still run to end, and kills those that had their grace.
    pub(super) fn stop(&mut self, now: Instant) {
        for running in &mut self.running {
            running.terminate(now);
            running.escalate(now);
        }
    }

    /// When to look at those that still run; `None` when they are over.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.running
            .iter()
            .filter(|running| !running.is_over(now))
            .map(|running| running.next_deadline(None, now).unwrap_or(now + Duration::from_secs(1)))
            .min()
    }

    /// Ends the records of those that are left.
    pub(super) fn close_all(&mut self) {
        for running in std::mem::take(&mut self.running) {
            self.close(&running);
        }
    }

    /// Ends the record of a background step: one that was stopped is none that failed.
    fn close(&mut self, running: &StepChild) {
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
        records::finished(&self.reporter, &self.secrets, running.step, &end);
    }
}
