//! The thread that runs the steps while it waits: for a child, for work beside it, for time to pass. Meanwhile it
//! hears of whatever stops the task, and of the ends of background steps.

use super::background::Background;
use super::child::{StepChild, TaskMessage};
use super::end::{ChildEnd, StepEnd, StopReason, end_of};
use super::life::Phase;
use super::output::log::StepLog;
use super::output::report::Reporter;
use super::process::Ended;
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// How often the fence is looked at: the clock that waits are measured by stands still while the host sleeps.
const FENCE_LOOK: Duration = Duration::from_secs(10);

/// The waits of a task, and whatever stops it.
pub(super) struct Control {
    messages: Receiver<TaskMessage>,
    /// For the threads that the task starts.
    pub(super) sender: Sender<TaskMessage>,
    /// Reporter of the task, which knows of the fence.
    reporter: Reporter,
    deadline: Option<Instant>,
    stop: Option<StopReason>,
    /// How long the control plane had not answered when the steps were stopped for it, and why the last call failed.
    pub(super) silence: (Duration, String),
    pub(super) background: Background,
}

impl Control {
    /// Makes the control of a task that nothing has stopped yet. A time limit of zero is none.
    pub(super) fn new(
        (sender, messages): (Sender<TaskMessage>, Receiver<TaskMessage>),
        reporter: Reporter,
        limit: Duration,
        background: Background,
    ) -> Self {
        let deadline = (!limit.is_zero()).then(|| Instant::now() + limit);
        Self { messages, sender, reporter, deadline, stop: None, silence: Default::default(), background }
    }

    /// Runs a child of a step to its end; `silence` is how long it may write nothing.
    pub(super) fn child(&mut self, log: &StepLog, command: Command, silence: Option<Duration>) -> ChildEnd {
        if let Some(stop) = self.stopped() {
            return ChildEnd::Stopped(stop);
        }
        let mut running = match StepChild::start(command, log, &self.sender) {
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
                self.background.stop(now);
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
    pub(super) fn stopped(&mut self) -> Option<StopReason> {
        while let Ok(message) = self.messages.try_recv() {
            self.note(&message);
        }
        self.note_deadline(Instant::now());
        self.stop
    }

    /// The end of a step that was stopped.
    pub(super) fn stopped_end(&mut self) -> StepEnd {
        end_of(ChildEnd::Stopped(self.stopped().unwrap_or(StopReason::Cancel)))
    }

    /// Whether the task was stopped, by what was heard so far.
    pub(super) fn was_stopped(&self) -> bool {
        self.stop.is_some()
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

    /// The next message, when there is one before it is time to wake.
    pub(super) fn receive(&mut self, wake: Option<Instant>) -> Option<TaskMessage> {
        let message = match wake {
            Some(at) => self.messages.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => self.messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let message = message.ok()?;
        self.note(&message);
        Some(message)
    }

    fn note(&mut self, message: &TaskMessage) {
        match message {
            // A person who cancels wants no other result, whatever became of the runner meanwhile.
            TaskMessage::Cancel if matches!(self.stop, None | Some(StopReason::Runner)) => {
                self.stop = Some(StopReason::Cancel);
            }
            TaskMessage::Cancel => {}
            TaskMessage::Terminate => self.stop = self.stop.or(Some(StopReason::Runner)),
            TaskMessage::Ended => self.stop = Some(StopReason::Ended),
            TaskMessage::Done => {}
            TaskMessage::Exited { .. } | TaskMessage::Closed { .. } => self.background.take(message),
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
    pub(super) fn end_background(&mut self) {
        self.stopped();
        loop {
            let now = Instant::now();
            self.background.stop(now);
            let Some(wake) = self.background.next_deadline(now) else { break };
            self.receive(Some(wake));
        }
        self.background.close_all();
    }
}
