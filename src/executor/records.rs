//! The records of the steps of a task: their numbers, their logs, and what the control plane is told of each.

use super::end::StepEnd;
use super::output::log::StepLog;
use super::output::report::Reporter;
use super::output::secrets::Secrets;
use super::steps::names::StoredNames;
use crate::protocol::{EventKind, Step, StepAction, StepStatus};
use std::io;
use std::path::PathBuf;

/// The records of a task.
pub(super) struct Records {
    /// To the control plane.
    pub(super) reporter: Reporter,
    /// Values to mask.
    pub(super) secrets: Secrets,
    /// Folder of the output that is not sent yet.
    pub(super) spool: PathBuf,
    /// Names of stored files.
    pub(super) names: StoredNames,
    /// Most output of a record, in bytes.
    most_output: u64,
    /// The number of the record that is opened next.
    next: u32,
}

impl Records {
    /// Makes the records of a task, none of them opened yet.
    pub(super) fn new(reporter: Reporter, secrets: Secrets, spool: PathBuf, most_output: u64) -> Self {
        Self { reporter, secrets, spool, names: StoredNames::default(), most_output, next: 0 }
    }

    /// The number of the record that was opened last.
    pub(super) fn newest(&self) -> u32 {
        self.next.saturating_sub(1)
    }

    /// Opens the record of an attempt at a step.
    pub(super) fn open_attempt(&mut self, index: usize, step: &Step, attempt: u32) -> io::Result<StepLog> {
        match &step.action {
            StepAction::Run(run) => {
                let (command, reruns) = (Some(run.command.clone()), run.max_auto_reruns);
                self.open(Some(index), &step.name, "run", command, attempt, reruns, run.background)
            }
            action => self.open(Some(index), &step.name, action.kind(), None, attempt, 0, false),
        }
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
        let step = self.next;
        self.next += 1;
        let log = StepLog::open(&self.spool, step, self.most_output, &self.secrets, &self.reporter);
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

    /// Records a step that does not run. Start and end go together: nobody should see it running.
    pub(super) fn skip(&mut self, index: usize, step: &Step) {
        let record = self.next;
        self.next += 1;
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

    /// Ends a record.
    pub(super) fn finished(&self, step: u32, end: &StepEnd) {
        finished(&self.reporter, &self.secrets, step, end);
    }
}

/// Ends a record: its log is closed.
pub(super) fn finished(reporter: &Reporter, secrets: &Secrets, step: u32, end: &StepEnd) {
    reporter.event(EventKind::StepFinished {
        step,
        status: end.status,
        exit_code: end.ended.map(|ended| ended.code),
        signal: end.ended.and_then(|ended| ended.signal),
        message: end.message.as_deref().map(|message| secrets.mask(message)),
        output_bytes: reporter.output_bytes(step),
        output_times: reporter.output_times(step),
    });
}
