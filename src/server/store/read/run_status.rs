//! The status of a pipeline's workflows together.
//!
//! Only SQLite: nothing.

use crate::server::store::status::{PipelineState, WorkflowStatus};

/// The status of a pipeline's workflows together; those that were rerun do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStatus {
    /// The config does not compile.
    Errored,
    /// There are none.
    Empty,
    /// The status that one workflow would have.
    As(WorkflowStatus),
}

impl RunStatus {
    /// All of [`RunStatus::word`].
    pub const WORDS: [&str; 10] = [
        "success",
        "failed",
        "running",
        "failing",
        "on_hold",
        "queued",
        "canceled",
        "unauthorized",
        "error",
        "not_run",
    ];

    /// The status of a pipeline in this state with workflows of these statuses.
    pub(super) fn of(state: PipelineState, all: &[WorkflowStatus]) -> Self {
        use WorkflowStatus as W;
        if state == PipelineState::Errored {
            return Self::Errored;
        }
        if all.is_empty() {
            return Self::Empty;
        }
        let has = |wanted: &[W]| all.iter().any(|status| wanted.contains(status));
        let failed = has(&[W::Failed, W::Error]);
        Self::As(if !all.iter().all(|status| status.is_terminal()) {
            match () {
                () if failed || has(&[W::Failing]) => W::Failing,
                () if has(&[W::Running]) => W::Running,
                () if has(&[W::OnHold]) => W::OnHold,
                () => W::Queued,
            }
        } else {
            match () {
                () if failed => W::Failed,
                () if has(&[W::Unauthorized]) => W::Unauthorized,
                () if has(&[W::Canceled]) => W::Canceled,
                () => W::Success,
            }
        })
    }

    /// The word of version 2 for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Errored => "error",
            Self::Empty => "not_run",
            Self::As(status) => status.as_str(),
        }
    }

    /// Reads a word of [`RunStatus::word`].
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "error" => Some(Self::Errored),
            "not_run" => Some(Self::Empty),
            word => WorkflowStatus::parse(word).map(Self::As),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::store::words::Word;

    #[test]
    fn words_are_those_that_are_read() {
        for status in WorkflowStatus::ALL {
            assert!(RunStatus::WORDS.contains(&RunStatus::As(*status).word()), "{status}");
        }
        for word in RunStatus::WORDS {
            assert_eq!(RunStatus::parse(word).map(RunStatus::word), Some(word));
        }
    }

    #[test]
    fn workflows_stand_together() {
        use WorkflowStatus as W;
        let of = |statuses: &[W]| RunStatus::of(PipelineState::Created, statuses).word();
        assert_eq!(RunStatus::of(PipelineState::Errored, &[]).word(), "error");
        assert_eq!(of(&[]), "not_run");
        assert_eq!(of(&[W::Success, W::Success]), "success");
        assert_eq!(of(&[W::Success, W::Failed]), "failed");
        assert_eq!(of(&[W::Failed, W::Running]), "failing");
        assert_eq!(of(&[W::OnHold, W::Success]), "on_hold");
        assert_eq!(of(&[W::Queued]), "queued");
        assert_eq!(of(&[W::Canceled, W::Success]), "canceled");
    }

    #[test]
    fn words_come_back() {
        use WorkflowStatus as W;
        for status in
            [RunStatus::Errored, RunStatus::Empty, RunStatus::As(W::Failed), RunStatus::As(W::OnHold)]
        {
            assert_eq!(RunStatus::parse(status.word()), Some(status));
        }
        assert_eq!(RunStatus::parse("well"), None);
    }
}
