//! Changes that forges tell of, in words that are no forge's.

use crate::server::store::tables::deliveries::StoredEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Author of an event, as the forge knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Their login; empty when the forge told none.
    pub login: String,
    /// The address of their picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
}

/// Change of a repository, or a time that has come, for which pipelines are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A branch or tag was moved, made or deleted.
    Push(Push),
    /// Change of a pull request.
    Pull(Pull),
    /// A schedule is due.
    Scheduled(Scheduled),
}

/// A change as it is stored until it is worked off, and after.
pub type StoredChange = StoredEvent<Event>;

/// A schedule that is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// The time that it is for, in milliseconds since 1970.
    pub due_ms: u64,
    /// The id of the schedule; `None`: it stands in the config of the branch.
    pub schedule: Option<String>,
    /// Name of the schedule, where it has one.
    pub name: Option<String>,
    /// The branch to build; the default one unless a tag is named.
    pub branch: Option<String>,
    /// The tag to build.
    pub tag: Option<String>,
    /// The workflows that are due; `None`: those that have no schedule of their own.
    pub workflows: Option<Vec<String>>,
    /// Parameters of the pipeline.
    pub parameters: BTreeMap<String, Value>,
    /// The id of the person in whose name it runs.
    pub actor_id: Option<String>,
    /// Login of the person in whose name it runs.
    pub actor_login: String,
}

/// Teller of a push, or of what happened to a pull request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Teller {
    /// A webhook that its forge gives no id, or the hook of a plain git server.
    #[default]
    Unnamed,
    /// The webhook with this id on the forge.
    Hook(String),
    /// A look at the refs.
    Look,
}

/// How a change is known that was told of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Same {
    /// By another teller: this one tells of it for the first time.
    ByAnother,
    /// By this teller, or by a look that has found where it leads.
    Again,
}

/// The reason why nothing was built of a change that was worked off, where later ones are decided by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unbuilt {
    /// Others were ahead of it.
    Late,
    /// The ref had moved on or was gone when the commit was looked for.
    Gone,
}

/// A branch or tag that was moved, made or deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// `refs/heads/...` or `refs/tags/...`.
    pub reference: String,
    /// The object that it pointed to; zeros: there was none.
    pub before: String,
    /// The object that it points to: a commit, or the object of a tag; zeros: it was deleted.
    pub after: String,
    /// The commit to build; the object itself unless the forge says otherwise.
    pub commit: String,
    /// The branch was made at a commit that was there before.
    #[serde(default)]
    pub brings_nothing: bool,
    /// The teller does not know whether a new branch has commits of its own: git is asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_untold: bool,
    /// Only tries whether the hook works.
    #[serde(default)]
    pub is_test: bool,
    /// Message of the commit, where the forge tells it.
    #[serde(default)]
    pub message: Option<String>,
    /// The object that the ref was seen at, where this does not go on from it: it may have come late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_for: Option<String>,
    /// The teller of it.
    #[serde(default)]
    pub told_by: Teller,
    /// How this push was told of before; absent for news.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same: Option<Same>,
    /// The push was left out because no pull request from its branch was known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lacks_pull: bool,
    /// The reason why nothing was built of it, where that is of use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unbuilt: Option<Unbuilt>,
    /// Author of the push.
    pub actor: Actor,
}

impl Push {
    /// Whether the ref was deleted.
    pub fn is_deletion(&self) -> bool {
        is_zeros(&self.after)
    }

    /// The short name of the branch, if it is one.
    pub fn branch(&self) -> Option<&str> {
        self.reference.strip_prefix("refs/heads/")
    }

    /// The short name of the tag, if it is one.
    pub fn tag(&self) -> Option<&str> {
        self.reference.strip_prefix("refs/tags/")
    }
}

/// Kind of a change of a pull request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The pull request was made.
    Opened,
    /// The pull request has a new head.
    Synchronize,
    /// The pull request was opened again.
    Reopened,
    /// The pull request was closed, merged or not.
    Closed,
    /// The pull request left being a draft.
    ReadyForReview,
    /// A label was added or removed.
    Labeled,
    /// The text or the base was changed, or something else of no matter.
    #[default]
    Edited,
}

impl Action {
    /// The word of `pipeline.event.action`.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Opened => "opened",
            Action::Synchronize => "synchronize",
            Action::Reopened => "reopened",
            Action::Closed => "closed",
            Action::ReadyForReview => "ready_for_review",
            Action::Labeled => "labeled",
            Action::Edited => "edited",
        }
    }
}

/// A pull request, and what happened to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Kind of the change.
    pub action: Action,
    /// Number of the pull request in the repository.
    pub number: u64,
    /// Title of the pull request, as text.
    pub title: String,
    /// Address of its page at the forge.
    pub url: String,
    /// The branch that it comes from.
    pub head_branch: String,
    /// The commit that it is at; one forge tells the first 12 digits only.
    pub head: String,
    /// The commit that it was at before, where it has another head now and the forge tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The branch that it goes to.
    pub base_branch: String,
    /// The commit of that branch, where the forge tells it.
    pub base: String,
    /// The ref that its head is fetched from in the base repository; `None`: there is none.
    pub reference: Option<String>,
    /// Whether it comes from another repository, or from one that is gone.
    pub is_fork: bool,
    /// Owner of the fork.
    pub fork_owner: Option<String>,
    /// Short name of the fork.
    pub fork_name: Option<String>,
    /// Whether it is a draft.
    pub is_draft: bool,
    /// Whether it was merged.
    pub is_merged: bool,
    /// Whether it is closed, whatever else happened to it.
    #[serde(default)]
    pub is_closed: bool,
    /// The time of its last change as the forge writes it, where that is greater as a text the later it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<String>,
    /// The teller of it.
    #[serde(default)]
    pub told_by: Teller,
    /// How this change was told of before; absent for news.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same: Option<Same>,
    /// The pull request was not known to be open before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_news: bool,
    /// The change stands for a push that was left out as long as this pull request was not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answers_push: bool,
    /// The reason why nothing was built of it, where that is of use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unbuilt: Option<Unbuilt>,
    /// Login of its author.
    pub author: String,
    /// Author of the change.
    pub actor: Actor,
}

impl Pull {
    /// The branch that its pipelines are of.
    pub fn branch(&self) -> String {
        if self.is_fork { format!("pull/{}", self.number) } else { self.head_branch.clone() }
    }

    /// Whether this is what it was before something else that was told of it.
    pub fn is_older_than(&self, other: &Self) -> bool {
        self.updated.as_ref().zip(other.updated.as_ref()).is_some_and(|(this, other)| this < other)
    }

    /// Whether it is closed from now on.
    pub fn closes(&self) -> bool {
        self.is_closed || self.action == Action::Closed
    }
}

impl Event {
    /// Returns the change as one of which nothing was built, for a reason.
    pub fn unbuilt(mut self, why: Unbuilt) -> Self {
        match &mut self {
            Event::Push(push) => push.unbuilt = Some(why),
            Event::Pull(pull) => pull.unbuilt = Some(why),
            Event::Scheduled(_) => {}
        }
        self
    }

    /// Whether nothing was built of it because its ref had moved on or was gone.
    pub fn is_gone(&self) -> bool {
        let unbuilt = match self {
            Event::Push(push) => push.unbuilt,
            Event::Pull(pull) => pull.unbuilt,
            Event::Scheduled(_) => None,
        };
        unbuilt == Some(Unbuilt::Gone)
    }

    /// Makes a key: changes with the same one within minutes may be the same change.
    pub fn key(&self) -> String {
        match self {
            Event::Push(push) => format!("{} {} {}", push.reference, push.before, push.after),
            Event::Pull(pull) => format!("pull/{} {} {}", pull.number, pull.action.as_str(), pull.head),
            Event::Scheduled(due) => {
                format!(
                    "schedule {} {}",
                    due.schedule.as_deref().or(due.branch.as_deref()).unwrap_or_default(),
                    due.due_ms
                )
            }
        }
    }

    /// Branch and commit that it would build; tags are built by their pushes only.
    pub fn builds(&self) -> Option<String> {
        match self {
            Event::Push(push) => Some(format!("{} {}", push.branch()?, push.commit)),
            Event::Pull(pull) => Some(format!("{} {}", pull.branch(), pull.head)),
            Event::Scheduled(_) => None,
        }
    }
}

/// The id of no object, of the usual length.
pub const NO_OBJECT: &str = "0000000000000000000000000000000000000000";

/// Whether an id is the one of no object, of whatever length.
pub fn is_zeros(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|b| b == b'0')
}

/// Whether a text is a full id of an object: 40 or 64 hexadecimal digits.
pub fn is_object(id: &str) -> bool {
    matches!(id.len(), 40 | 64) && id.bytes().all(|b| b.is_ascii_hexdigit())
}
