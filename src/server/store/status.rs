//! States and kinds of pipelines, jobs, tasks and of what belongs to them, as words.

use crate::protocol::TaskKind;
use crate::server::store::words::words;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

words! {
    /// State of a pipeline.
    PipelineState {
        /// The workflows exist.
        Created = "created",
        /// The pipeline has no workflows because of an error.
        Errored = "errored",
        /// The setup workflow is about to be made.
        SetupPending = "setup-pending",
        /// The setup workflow exists and may continue the pipeline.
        Setup = "setup",
        /// The workflows are about to be made.
        Pending = "pending",
    }
}

words! {
    /// Status of a workflow.
    WorkflowStatus {
        /// All jobs ended well.
        Success = "success",
        /// A job runs or can run.
        Running = "running",
        /// The workflow ended without a run: it had nothing to do.
        NotRun = "not_run",
        /// The workflow ended with a failed job.
        Failed = "failed",
        /// A job could not be started because of an internal error.
        Error = "error",
        /// The workflow has not ended, and a job has failed.
        Failing = "failing",
        /// No job runs, and an approval waits.
        OnHold = "on_hold",
        /// The workflow ended because somebody cancelled it.
        Canceled = "canceled",
        /// The workflow ended with a job that may not use a context.
        Unauthorized = "unauthorized",
        /// The workflow only waits for a serial group. The v2 API has no such word, and shows `running`.
        Queued = "queued",
    }
}

impl WorkflowStatus {
    /// Whether nothing will happen any more.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Success | Self::NotRun | Self::Failed | Self::Error | Self::Canceled | Self::Unauthorized
        )
    }
}

words! {
    /// Status of a job.
    JobStatus {
        /// The job waits for what it requires.
        Blocked = "blocked",
        /// The job waits for a runner or for its serial group.
        Queued = "queued",
        /// A runner has one of its tasks.
        Running = "running",
        /// The job is an approval that waits for a person.
        OnHold = "on_hold",
        /// The job ended well, or was approved.
        Success = "success",
        /// A step failed, the job could not be started, or its time limit passed.
        Failed = "failed",
        /// The job was ended by a person or by a newer pipeline.
        Canceled = "canceled",
        /// The job can never run, or was skipped.
        NotRun = "not_run",
        /// The job may not use one of its contexts.
        Unauthorized = "unauthorized",
        /// The runner could not do its part.
        InfrastructureFail = "infrastructure_fail",
        /// The job ended for reasons that nobody knows.
        TerminatedUnknown = "terminated-unknown",
    }
}

impl JobStatus {
    /// Whether nothing will happen any more.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Blocked | Self::Queued | Self::Running | Self::OnHold)
    }

    /// Whether it counts as `failed` for `requires` and for the workflow.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::InfrastructureFail | Self::TerminatedUnknown)
    }
}

words! {
    /// Status of a task.
    TaskState {
        /// The task waits in the queue of its resource class.
        Queued = "queued",
        /// A runner has it and has not begun.
        Claimed = "claimed",
        /// The agent runs steps.
        Running = "running",
        /// The agent has begun and was not heard of for a lease.
        Unreachable = "unreachable",
        /// No step failed.
        Success = "success",
        /// A step failed.
        Failed = "failed",
        /// The task was ended by a person or by a newer pipeline, before it was through.
        Canceled = "canceled",
        /// The time limit passed.
        Timedout = "timedout",
        /// The runner could not do its part.
        InfrastructureFail = "infrastructure_fail",
        /// The task went back to the queue as a further attempt.
        Retried = "retried",
    }
}

impl TaskState {
    /// Whether nothing will happen any more to this attempt.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Claimed | Self::Running | Self::Unreachable)
    }

    /// States of a task that a runner holds. People see all of them as running.
    pub const HELD_BY_A_RUNNER: [Self; 3] = [Self::Claimed, Self::Running, Self::Unreachable];

    /// Whether a runner holds the task. People see that as running.
    pub fn is_with_a_runner(self) -> bool {
        Self::HELD_BY_A_RUNNER.contains(&self)
    }
}

words! {
    /// Cause of the end of a task.
    EndedBy {
        /// The agent, when everything was reported.
        Finish = "finish",
        /// The runner, which gave the task back before it had begun.
        GivenBack = "given_back",
        /// The claim, which ran out before the task had begun: silence, the begin limit, or a new start of the machine.
        Lapsed = "lapsed",
        /// The control plane, when its agent had been silent for too long.
        Silence = "silence",
        /// The runner, which found the agent gone.
        Lost = "lost",
        /// A person or a newer pipeline, before the agent confirmed it.
        Cancel = "cancel",
        /// A new start of its machine.
        HostRestart = "host_restart",
        /// The control plane, which could not hand it out.
        HandOut = "hand_out",
        /// The end of its resource class.
        ClassDeleted = "class_deleted",
        /// An administrator, after a backup was restored.
        Administrator = "administrator",
    }
}

impl EndedBy {
    /// Whether it came without a word of an agent that may have begun: what that has to say is taken late.
    pub fn is_without_agent(self) -> bool {
        match self {
            Self::Finish | Self::GivenBack | Self::Lapsed | Self::HandOut | Self::ClassDeleted => false,
            Self::Silence | Self::Lost | Self::Cancel | Self::HostRestart | Self::Administrator => true,
        }
    }

    /// The end in words, as part of a sentence.
    pub fn told(self) -> &'static str {
        match self {
            Self::Finish => "as its own agent reported",
            Self::GivenBack => "because its runner gave it back before it had begun",
            Self::Lapsed => {
                "because it had not begun when its runner was not heard of any more, its time to begin was over or its host was restarted"
            }
            Self::Silence => "because its agent was not heard of for too long",
            Self::Lost => "because its runner found the agent gone",
            Self::Cancel => "because it was cancelled",
            Self::HostRestart => "because its host was restarted",
            Self::HandOut => "because it could not be handed out",
            Self::ClassDeleted => "because its resource class was deleted",
            Self::Administrator => "by an administrator",
        }
    }
}

impl From<crate::protocol::TaskStatus> for TaskState {
    fn from(status: crate::protocol::TaskStatus) -> Self {
        use crate::protocol::TaskStatus;
        match status {
            TaskStatus::Success => Self::Success,
            TaskStatus::Failed => Self::Failed,
            TaskStatus::Canceled => Self::Canceled,
            TaskStatus::Timedout => Self::Timedout,
            TaskStatus::InfrastructureFail => Self::InfrastructureFail,
        }
    }
}

words! {
    /// Status of a step record.
    StepState {
        /// The step began and has not ended.
        Running = "running",
        /// The step ended with exit code 0.
        Success = "success",
        /// The user's command failed.
        Failed = "failed",
        /// The step was killed because the task was cancelled.
        Canceled = "canceled",
        /// The step was killed because of silence or a time limit.
        Timedout = "timedout",
        /// The runner could not do its part.
        InfrastructureFail = "infrastructure_fail",
        /// The step did not run: by `when`, after a failure or a halt.
        NotRun = "not_run",
    }
}

impl From<crate::protocol::StepStatus> for StepState {
    fn from(status: crate::protocol::StepStatus) -> Self {
        use crate::protocol::StepStatus;
        match status {
            StepStatus::Success => Self::Success,
            StepStatus::Failed => Self::Failed,
            StepStatus::Canceled => Self::Canceled,
            StepStatus::Timedout => Self::Timedout,
            StepStatus::InfrastructureFail => Self::InfrastructureFail,
            StepStatus::NotRun => Self::NotRun,
        }
    }
}

words! {
    /// Kind of a node of a workflow.
    JobType {
        /// A job with steps, which a runner runs.
        Build = "build",
        /// An approval, which waits for a person.
        Approval = "approval",
        /// A job without steps, which succeeds when its turn comes.
        NoOp = "no-op",
        /// A lock, which takes the key of a serial group.
        Lock = "lock",
        /// An unlock, which gives the key back.
        Unlock = "unlock",
    }
}

/// The kind of a task as a word of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub TaskKind);

impl Kind {
    /// The word that the database uses.
    pub(in crate::server::store) fn word(self) -> &'static str {
        match self.0 {
            TaskKind::Machine => "machine",
            TaskKind::Container => "container",
            TaskKind::Unknown => "unknown",
        }
    }
}

impl ToSql for Kind {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.word()))
    }
}

impl FromSql for Kind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(Self(match value.as_str()? {
            "machine" => TaskKind::Machine,
            "container" => TaskKind::Container,
            "unknown" => TaskKind::Unknown,
            _ => return Err(FromSqlError::InvalidType),
        }))
    }
}

impl From<&crate::config::JobKind> for JobType {
    fn from(kind: &crate::config::JobKind) -> Self {
        use crate::config::JobKind;
        match kind {
            JobKind::Build { .. } => Self::Build,
            JobKind::Approval => Self::Approval,
            JobKind::NoOp => Self::NoOp,
            JobKind::Lock { .. } => Self::Lock,
            JobKind::Unlock { .. } => Self::Unlock,
        }
    }
}

words! {
    /// Kind of the event that a pipeline was made for.
    TriggerType {
        /// A call of the API, or `runlet admin pipeline trigger`.
        Api = "api",
        /// An event of a forge.
        Webhook = "webhook",
        /// A schedule of the project.
        Scheduled = "scheduled_pipeline",
        /// A person at their own host: `runlet exec`.
        Explicit = "explicit",
    }
}

impl TriggerType {
    /// Whether a forge or a schedule asked, and no person by their own token.
    pub fn is_automatic(self) -> bool {
        matches!(self, Self::Webhook | Self::Scheduled)
    }
}

words! {
    /// Kind of a restriction of a context.
    RestrictionKind {
        /// A restriction by the project.
        Project = "project",
        /// A restriction by an expression over the values and parameters of the pipeline.
        Expression = "expression",
        /// A restriction by the person who triggered the pipeline.
        Group = "group",
    }
}

words! {
    /// How a message that people see with a job is shown.
    MessageKind {
        /// Why the job ended badly.
        Error = "error",
        /// Why the job ended otherwise than expected.
        Warning = "warning",
        /// How the job runs, which is no reason of its end.
        Remark = "remark",
    }
}

words! {
    /// Result of a test.
    TestResult {
        /// The test passed.
        Success = "success",
        /// The test failed or broke.
        Failure = "failure",
        /// The test was not run.
        Skipped = "skipped",
    }
}
