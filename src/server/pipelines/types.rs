//! Triggers, and the pipelines that they make: the types that the files of this room share.

use crate::config;
use crate::server::ids::{PipelineId, UserId};
use crate::server::store::Error as StoreError;
use crate::server::store::status::{PipelineState, TriggerType};
use crate::server::store::tables::pipelines::{CommitFacts, PullFacts};
use crate::server::time::Millis;
use serde_json::Value;
use std::collections::BTreeMap;

/// The event that starts a pipeline, with the config to run.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// `vcs/org/repo` of the project.
    pub slug: String,
    /// The config; empty when there is a `fetch_error`.
    pub config: String,
    /// Name of the config in errors.
    pub file_name: String,
    /// Values of pipeline parameters that the trigger gives, by name.
    pub parameters: BTreeMap<String, Value>,
    /// The revision that `checkout` fetches, when there is a repository.
    pub revision: Option<Revision>,
    /// The origin of the config in the repository, unless it was sent along.
    pub config_origin: Option<ConfigOrigin>,
    /// Login of the person who asked.
    pub actor: String,
    /// The kind of the event.
    pub trigger_type: TriggerType,
    /// The config came with the trigger, not from a repository.
    pub is_sent_along: bool,
    /// Another try is made when orbs cannot be fetched, instead of an errored pipeline.
    pub waits_for_orbs: bool,
    /// The reason why there is no config: the pipeline is made errored.
    pub fetch_error: Option<String>,
    /// Contexts that do not exist are made, without variables.
    pub make_contexts: bool,
    /// The event that it is made for, unless somebody asked for it.
    pub happened: Option<Happened>,
}

/// An event that a pipeline is made for.
#[derive(Clone, Debug)]
pub struct Happened {
    /// The id that the pipeline gets.
    pub pipeline: PipelineId,
    /// The stored change that is done with it.
    pub change: Option<i64>,
    /// Value of `pipeline.trigger.type`.
    pub trigger: String,
    /// Value of `pipeline.event.name`.
    pub event: String,
    /// Value of `pipeline.event.action`.
    pub action: String,
    /// Further values, by full name.
    pub values: BTreeMap<String, Value>,
    /// Pull requests that jobs are told of.
    pub pull: Option<PullFacts>,
    /// The address of the picture of who did it.
    pub actor_avatar: Option<String>,
    /// The person in whose name it is made.
    pub actor_id: Option<UserId>,
    /// The commit comes from a fork of somebody else.
    pub is_untrusted: bool,
    /// The branch has gone on to what is built already.
    pub is_late: bool,
    /// The scheduled workflows to run, and no others.
    pub workflows: Option<Vec<String>>,
}

impl Trigger {
    /// Makes a trigger of the project `slug` (`vcs/org/repo`) without anything else; `file_name` is the name of its
    /// config in errors.
    pub fn new(slug: &str, file_name: &str, trigger_type: TriggerType) -> Self {
        Self {
            slug: slug.to_owned(),
            config: String::new(),
            file_name: file_name.to_owned(),
            parameters: BTreeMap::new(),
            revision: None,
            config_origin: None,
            actor: String::new(),
            trigger_type,
            is_sent_along: false,
            waits_for_orbs: false,
            fetch_error: None,
            make_contexts: false,
            happened: None,
        }
    }

    /// Makes a trigger by a person at their own host. Contexts that do not exist are made for it.
    pub fn explicit(slug: &str, file_name: &str) -> Self {
        Self { make_contexts: true, ..Self::new(slug, file_name, TriggerType::Explicit) }
    }
}

/// The revision of a repository that a pipeline is of.
#[derive(Clone, Debug, Default)]
pub struct Revision {
    /// URL that git fetches from.
    pub repository_url: String,
    /// Full commit id.
    pub revision: String,
    /// Branch, unless a tag is built.
    pub branch: Option<String>,
    /// Tag, unless a branch is built.
    pub tag: Option<String>,
    /// First line of the commit message.
    pub subject: String,
    /// The rest of the commit message.
    pub body: String,
    /// Name of the commit's author.
    pub author: String,
    /// Further facts about who made it, and when.
    pub made: CommitFacts,
    /// Whether the branch is the default one.
    pub is_default_branch: bool,
    /// Full ref to fetch, where it is no branch and no tag.
    pub reference: Option<String>,
}

/// The commit that a config was read from.
#[derive(Clone, Debug, Default)]
pub struct ConfigOrigin {
    /// Full ref: `refs/heads/main`.
    pub reference: String,
    /// Full commit id.
    pub revision: String,
}

/// A pipeline that was created.
#[derive(Clone, Debug)]
pub struct CreatedPipeline {
    /// Id of the pipeline that was made.
    pub id: PipelineId,
    /// Number in the project.
    pub number: i64,
    /// `created` or `setup`, or `errored` when the config does not compile.
    pub state: PipelineState,
    /// Time of its making.
    pub created_at: Millis,
    /// Mistakes in the config.
    pub errors: Option<config::Diagnostics>,
    /// Warnings about the config.
    pub warnings: Vec<config::Diagnostic>,
    /// Contexts that were made because of `make_contexts`.
    pub made_contexts: Vec<String>,
}

/// The reason why there is no pipeline.
#[derive(Debug)]
pub enum Error {
    /// There is no project with this slug.
    NoProject(String),
    /// The trigger asks for a workflow or job that the config does not have.
    NoSuch(String),
    /// Orbs of the config cannot be fetched now, and the trigger waits for them.
    NoOrbs(config::Diagnostics),
    /// The store said no.
    Store(StoreError),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::NoProject(slug) => write!(f, "there is no project `{slug}` here"),
            Error::NoSuch(why) => f.write_str(why),
            Error::NoOrbs(errors) => errors.fmt(f),
            Error::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Error::Store(error)
    }
}
