//! Readers of fields that the payloads of all forges have.

use crate::server::pipelines::forge::event::{Actor, Event, Push, is_zeros};
use serde_json::Value;

/// Longest text that is kept of a payload, in characters.
const MOST_CHARS: usize = 4000;

/// The repository that a delivery is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgeRepository {
    /// Id of the repository on the forge.
    pub id: String,
    /// Name of the repository on the forge: `owner/name`.
    pub full_name: String,
}

/// A delivery as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The repository; a few events have none.
    pub repository: Option<ForgeRepository>,
    /// Changes of the delivery; empty when it asks for nothing.
    pub changes: Vec<Event>,
    /// The reason why it asks for nothing.
    pub remark: String,
}

/// A text of a payload for messages.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

/// Follows keys with dots between them; null when there is nothing.
pub(super) fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(value, |value, key| &value[key])
}

/// The text at a path; empty when there is none.
pub(super) fn text(value: &Value, path: &str) -> String {
    at(value, path).as_str().unwrap_or_default().chars().take(MOST_CHARS).collect()
}

/// The text at a path, if it is there and not empty.
pub(super) fn maybe(value: &Value, path: &str) -> Option<String> {
    Some(text(value, path)).filter(|text| !text.is_empty())
}

/// The time of a change, if it is in a form whose later texts are greater: in UTC, or a number of milliseconds.
pub(super) fn updated(value: &Value, path: &str) -> Option<String> {
    let told = id(value, path).ok()?;
    let is_utc = ["Z", "UTC", "+00:00"].iter().any(|end| told.ends_with(end));
    (is_utc || told.bytes().all(|b| b.is_ascii_digit())).then_some(told)
}

/// The text at a path, which must be there.
pub(super) fn needed(value: &Value, path: &str) -> Result<String, String> {
    maybe(value, path).ok_or_else(|| format!("it has no `{path}`"))
}

/// An id, which is a number or a text.
pub(super) fn id(value: &Value, path: &str) -> Result<String, String> {
    match at(value, path) {
        Value::Number(number) => Ok(number.to_string()),
        Value::String(text) if !text.is_empty() => Ok(text.chars().take(200).collect()),
        _ => Err(format!("it has no `{path}`")),
    }
}

/// The number at a path, which must be there.
pub(super) fn number(value: &Value, path: &str) -> Result<u64, String> {
    at(value, path).as_u64().ok_or_else(|| format!("it has no number `{path}`"))
}

/// A delivery that asks for nothing, for this reason.
pub(super) fn nothing(repository: Option<ForgeRepository>, remark: impl Into<String>) -> Delivery {
    Delivery { repository, changes: Vec::new(), remark: remark.into() }
}

/// Whether pipelines are made of a ref; others, such as notes and those of reviews, never are.
pub(super) fn is_built(reference: &str) -> bool {
    reference.starts_with("refs/heads/") || reference.starts_with("refs/tags/")
}

/// Whether a branch was made without a commit of its own.
fn brings_nothing(before: &str, is_branch: bool, commits: &Value) -> bool {
    is_branch && is_zeros(before) && commits.as_array().is_some_and(Vec::is_empty)
}

/// A push, as GitHub and GitLab tell it. `commit` is what the ref stands at where that is told apart: of an annotated tag
/// `after` is the tag's own object.
pub(super) fn push(
    value: &Value,
    repository: ForgeRepository,
    commit: Option<String>,
    actor: Actor,
) -> Result<Delivery, String> {
    let reference = needed(value, "ref")?;
    if !is_built(&reference) {
        return Ok(nothing(Some(repository), format!("`{}` is no branch and no tag", shown(&reference))));
    }
    let (before, after) = (needed(value, "before")?, needed(value, "after")?);
    let commit = commit.unwrap_or_else(|| after.clone());
    let message = maybe(value, "head_commit.message").or_else(|| {
        let commits = value["commits"].as_array()?;
        maybe(commits.iter().find(|one| one["id"] == commit.as_str())?, "message")
    });
    let push = Push {
        brings_nothing: brings_nothing(&before, reference.starts_with("refs/heads/"), &value["commits"]),
        is_untold: false,
        is_test: before == after,
        reference,
        before,
        after,
        commit,
        message,
        actor,
        ..Push::default()
    };
    Ok(Delivery { repository: Some(repository), changes: vec![Event::Push(push)], remark: String::new() })
}
