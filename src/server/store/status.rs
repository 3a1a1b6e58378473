//! The words of the API for states, as types that are stored as text.

use crate::protocol::TaskKind;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use std::fmt;

/// An enum that is stored as words. Statements bind it; where a bound value will not do (an index on some of the rows is
/// used by statements of the same text, `WHERE state = 'waiting'`), the word comes from here: no statement spells one.
pub(in crate::server::store) trait Word: Copy + 'static {
    /// All variants, in their order.
    const ALL: &'static [Self];

    /// The word as SQL has it, with its quotes.
    fn literal(self) -> &'static str;
}

/// The words of the variants that `is_one` holds of, as they stand inside `IN (...)`.
pub(in crate::server::store) fn literals<W: Word>(is_one: impl Fn(W) -> bool) -> String {
    W::ALL.iter().filter(|word| is_one(**word)).map(|word| word.literal()).collect::<Vec<_>>().join(", ")
}

/// Defines an enum whose variants are stored, printed and serialised as fixed words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// The word that the API and the database use.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Reads the word.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl Word for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn literal(self) -> &'static str {
                match self { $(Self::$variant => concat!("'", $word, "'"),)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::from(self.as_str()))
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
            }
        }
    };
}

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
    /// Kind of the things that take room, as people are told of it.
    StoredKind {
        /// Output of steps.
        Output = "output",
        /// Artifacts of jobs.
        Artifacts = "artifacts",
        /// Caches of the project.
        Caches = "caches",
        /// Layers of workspaces.
        Workspaces = "workspaces",
        /// Results of tests.
        Tests = "tests",
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
    /// A forge: where repositories are kept, and what tells of pushes to them.
    Forge {
        /// GitHub, in the cloud or Enterprise Server.
        GitHub = "github",
        /// GitLab, in the cloud or self-managed.
        GitLab = "gitlab",
        /// Gitea, self-hosted or not.
        Gitea = "gitea",
        /// Forgejo, whose API is that of Gitea.
        Forgejo = "forgejo",
        /// Bitbucket Cloud; Data Center has another API.
        BitbucketCloud = "bitbucket_cloud",
        /// Bitbucket Data Center.
        BitbucketDc = "bitbucket_dc",
        /// A plain git server, by a post-receive hook or by looking.
        Git = "git",
    }
}

impl Forge {
    /// All forges.
    pub const ALL: [Self; 7] = [
        Self::GitHub,
        Self::GitLab,
        Self::Gitea,
        Self::Forgejo,
        Self::BitbucketCloud,
        Self::BitbucketDc,
        Self::Git,
    ];
}

words! {
    /// The verdict on what a forge sent.
    Verdict {
        /// The delivery was taken, and its changes wait or are worked off.
        Accepted = "accepted",
        /// The delivery asks for nothing.
        Ignored = "ignored",
        /// The delivery was not believed or not understood.
        Refused = "refused",
    }
}

words! {
    /// The state of one change that a forge told of.
    EventState {
        /// The change waits to be worked off.
        Waiting = "waiting",
        /// A pipeline was made for it.
        Started = "started",
        /// The change needs no pipeline.
        Skipped = "skipped",
        /// The change could not be worked off.
        Failed = "failed",
    }
}

impl EventState {
    /// States of a change that started nothing: it can be asked for again.
    pub const STARTED_NOTHING: [Self; 2] = [Self::Skipped, Self::Failed];
}

words! {
    /// The state of one call of a webhook.
    CallState {
        /// The call waits for its first or its next try.
        Waiting = "waiting",
        /// The receiver has taken the call.
        Done = "done",
        /// The call was given up.
        Failed = "failed",
    }
}

words! {
    /// The state of a commit that a forge is told: that of a job, or of a workflow.
    ReportState {
        /// The job waits for others.
        Blocked = "blocked",
        /// The job or workflow waits for a runner or for a serial group.
        Queued = "queued",
        /// A runner has it.
        Running = "running",
        /// An approval waits for a person.
        OnHold = "on_hold",
        /// The job or workflow ended well.
        Success = "success",
        /// A step failed.
        Failed = "failed",
        /// The job or workflow was ended by a person or by a newer pipeline.
        Canceled = "canceled",
        /// The job or workflow will not run.
        NotRun = "not_run",
        /// A job may not use a context.
        Unauthorized = "unauthorized",
        /// The runner could not do its part.
        InfrastructureFail = "infrastructure_fail",
        /// The job ended for reasons that nobody knows.
        TerminatedUnknown = "terminated-unknown",
        /// The config has errors.
        Error = "error",
    }
}

impl ReportState {
    /// Whether it is an end.
    pub fn is_end(self) -> bool {
        !matches!(self, Self::Blocked | Self::Queued | Self::OnHold | Self::Running)
    }
}

impl From<JobStatus> for ReportState {
    fn from(status: JobStatus) -> Self {
        match status {
            JobStatus::Blocked => Self::Blocked,
            JobStatus::Queued => Self::Queued,
            JobStatus::Running => Self::Running,
            JobStatus::OnHold => Self::OnHold,
            JobStatus::Success => Self::Success,
            JobStatus::Failed => Self::Failed,
            JobStatus::Canceled => Self::Canceled,
            JobStatus::NotRun => Self::NotRun,
            JobStatus::Unauthorized => Self::Unauthorized,
            JobStatus::InfrastructureFail => Self::InfrastructureFail,
            JobStatus::TerminatedUnknown => Self::TerminatedUnknown,
        }
    }
}

impl From<WorkflowStatus> for ReportState {
    fn from(status: WorkflowStatus) -> Self {
        match status {
            WorkflowStatus::Running | WorkflowStatus::Failing => Self::Running,
            WorkflowStatus::Success => Self::Success,
            WorkflowStatus::NotRun => Self::NotRun,
            WorkflowStatus::Failed => Self::Failed,
            WorkflowStatus::Error => Self::InfrastructureFail,
            WorkflowStatus::OnHold => Self::OnHold,
            WorkflowStatus::Canceled => Self::Canceled,
            WorkflowStatus::Unauthorized => Self::Unauthorized,
            WorkflowStatus::Queued => Self::Queued,
        }
    }
}

words! {
    /// How a change was learned of.
    DeliverySource {
        /// The forge, or a hook of a git server, sent it.
        Webhook = "webhook",
        /// The control plane found it by looking at the refs.
        Poll = "poll",
        /// A schedule was due.
        Schedule = "schedule",
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
