//! Containers that a task wants, and the records that their runner keeps beside those of the task agent.

use super::{Secret, StepStatus};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A container of a claimed task, in `containers` of the answer to a claim beside the fields of a
/// [`Task`](super::Task). Steps run in the first one; the others are services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Reference of the image.
    pub image: String,
    /// Host name that the config wants for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Replaces the entry point of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Words>,
    /// Replaces the command of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Words>,
    /// User that its processes run as: a name, a number, or `user:group`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Variables with their literal values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Login of its registry, variables replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<RegistryLogin>,
}

/// Login of a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryLogin {
    /// Name of the user at the registry.
    pub username: String,
    /// The password, or a token.
    pub password: Secret,
}

/// A command line, or its words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Words {
    /// All words in one text.
    Line(String),
    /// Word by word.
    List(Vec<String>),
}

/// Number of the step record with which a runner's own begin: the first one is the *Task lifecycle*.
pub const FIRST_BESIDE: u32 = 1 << 30;

/// Body of `POST .../beside/{n}` (task token): a record that the runner keeps beside those of the task agent, before the
/// task begins and after. It binds nothing. Its output goes to `steps/{FIRST_BESIDE + n}/output`. Saying it again is
/// harmless.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// Title, secrets masked.
    pub name: String,
    /// Kind of the record: `task_lifecycle` or `service`.
    pub kind: String,
    /// Unix time in milliseconds by the runner's clock.
    pub at_ms: u64,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StepStatus>,
    /// Why, in one line, secrets masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Bytes of its output, once it has ended.
    #[serde(default)]
    pub output_bytes: u64,
}
