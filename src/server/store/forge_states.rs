//! Forges, and the states of what they send and are told, as words.

use crate::server::store::status::{JobStatus, WorkflowStatus};
use crate::server::store::words::words;

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
