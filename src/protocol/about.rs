//! Introduction of a runner: what it learns of its token and its control plane before it claims, and of its way there.

use serde::{Deserialize, Serialize};

/// Body of `POST /api/v3/runner/self` (resource class token). Nothing changes by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AboutRequest {
    /// Name of the runner, `runner.name`.
    pub name: String,
    /// Comes back: whether large calls arrive.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub padding: String,
}

/// Answer to [`AboutRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AboutAnswer {
    /// The class of the token: `namespace/name`.
    pub resource_class: String,
    /// The name that people gave the token; may be empty.
    #[serde(default)]
    pub token_nickname: String,
    /// Version of the control plane.
    pub version: String,
    /// Clock of the control plane, in milliseconds since 1970.
    pub time_ms: u64,
    /// The runner of this class and name that asked for work last; absent where none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<SeenRunner>,
    /// Padding of the request, unchanged.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub padding: String,
}

/// A runner as the control plane saw it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRunner {
    /// Name of its host.
    pub hostname: String,
    /// Time since it asked for work.
    pub seconds_ago: u64,
}
