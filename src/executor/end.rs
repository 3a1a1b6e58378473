//! How steps and their children end, in values that every part of a task shares.

use super::process::Ended;
use crate::protocol::{StepStatus, duration};
use crate::system::fault;
use std::io;
use std::time::Duration;

/// Why no further step may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Cancelled at the control plane.
    Cancel,
    /// The runner is being stopped. That is nobody's wish for this job, so it counts as a failure of the
    /// infrastructure, and whatever reruns those may rerun it.
    Runner,
    /// Ended by the control plane: nothing that further steps do would count.
    Ended,
    /// The control plane has not answered for as long as it waits for this task.
    Unreachable,
    /// The time limit of the job passed.
    TimeLimit,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepEnd {
    /// Status that the step ends with.
    pub status: StepStatus,
    /// Exit code and signal, when a command ran.
    pub ended: Option<Ended>,
    /// Reason for people, where the status alone does not tell it.
    pub message: Option<String>,
}

impl StepEnd {
    /// A step that did what it should.
    pub fn success() -> Self {
        Self { status: StepStatus::Success, ended: None, message: None }
    }

    /// The runner's host could not do its part, for this reason.
    pub fn of_host(message: impl Into<String>) -> Self {
        Self { status: StepStatus::InfrastructureFail, ended: None, message: Some(message.into()) }
    }

    /// The system did not do `what`: the host's fault where the error is one of its own, else the job's.
    pub fn by_error(what: &str, error: &io::Error) -> Self {
        match fault::advice(error) {
            Some(advice) => Self::of_host(format!("{what}: {error} ({advice})")),
            None => Self::failed(format!("{what}: {error}")),
        }
    }

    /// A failure with its reason.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { status: StepStatus::Failed, ended: None, message: Some(message.into()) }
    }
}

/// How a child ended.
#[derive(Debug)]
pub enum ChildEnd {
    /// The child ended by itself.
    Ended(Ended),
    /// The child was silent for too long and was killed.
    Silent(Duration),
    /// The task was stopped and so was the child.
    Stopped(StopReason),
    /// The child never began.
    NotStarted(io::Error),
}

/// How an exit reads.
pub fn exit_text(ended: Ended) -> StepEnd {
    let message = match ended.signal {
        Some(signal) => format!("killed by signal {signal}"),
        None => format!("exited with code {}", ended.code),
    };
    StepEnd { status: StepStatus::Failed, ended: Some(ended), message: Some(message) }
}

/// The end of a step whose child ended like this.
pub(in crate::executor) fn end_of(child: ChildEnd) -> StepEnd {
    match child {
        ChildEnd::Ended(ended) => exit_text(ended),
        ChildEnd::NotStarted(error) => StepEnd::by_error("cannot start the command", &error),
        ChildEnd::Silent(limit) => StepEnd {
            status: StepStatus::Timedout,
            ended: None,
            message: Some(format!(
                "Too long with no output (exceeded {}): context deadline exceeded",
                duration::format(limit)
            )),
        },
        ChildEnd::Stopped(stop) => {
            let (status, why) = match stop {
                StopReason::Cancel => {
                    (StepStatus::Canceled, "the job was canceled through the control plane")
                }
                StopReason::Ended => (StepStatus::Canceled, "the control plane has given the job up"),
                StopReason::Unreachable => {
                    (StepStatus::InfrastructureFail, "the control plane does not answer")
                }
                StopReason::TimeLimit => (StepStatus::Timedout, "the time limit of the job has passed"),
                StopReason::Runner => (StepStatus::InfrastructureFail, "the runner was told to stop"),
            };
            StepEnd { status, ended: None, message: Some(format!("stopped: {why}")) }
        }
    }
}
