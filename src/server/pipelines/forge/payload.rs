//! The payloads of forges: from their JSON to changes. No IO.
//!
//! Nothing of a payload is trusted beyond "look at this ref": texts are data, addresses in it are not fetched from.

mod bitbucket;
mod github;
mod gitlab;

use crate::server::pipelines::forge::event::{Actor, Event, Push, is_object, is_zeros};
use crate::server::pipelines::repository::address::check_ref;
use crate::server::store::status::Forge;
use serde_json::Value;

/// Longest text that is kept of a payload, in characters.
const MOST_CHARS: usize = 4000;
/// Most changes of one delivery.
const MOST_CHANGES: usize = 5000;

/// The repository that a delivery is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Its id on the forge.
    pub id: String,
    /// Its name there: `owner/name`.
    pub full_name: String,
}

/// A delivery as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The repository; a few events have none.
    pub repository: Option<Repository>,
    /// Its changes; empty when it asks for nothing.
    pub changes: Vec<Event>,
    /// The reason why it asks for nothing.
    pub remark: String,
}

/// Reads a delivery. The error says what is missing.
pub fn read(forge: Forge, event: &str, json: &[u8]) -> Result<Delivery, String> {
    let value: Value =
        serde_json::from_slice(json).map_err(|error| format!("the body is not JSON: {error}"))?;
    if !value.is_object() {
        return Err("the body is not a JSON object".to_owned());
    }
    let read = match forge {
        Forge::GitHub | Forge::Gitea | Forge::Forgejo => github::read(event, &value, forge),
        Forge::GitLab => gitlab::read(&value),
        Forge::BitbucketCloud => bitbucket::read_cloud(event, &value),
        Forge::BitbucketDc => bitbucket::read_dc(event, &value),
        Forge::Git => plain(&value),
    }?;
    if read.changes.len() > MOST_CHANGES {
        return Err(format!("it has {} changes, the limit is {MOST_CHANGES}", read.changes.len()));
    }
    for change in &read.changes {
        check(change)?;
    }
    Ok(read)
}

/// Checks the names and ids of a change, which git will be given.
fn check(change: &Event) -> Result<(), String> {
    match change {
        Event::Push(push) => {
            if let Some(name) = push.branch().or_else(|| push.tag()) {
                check_ref(name)?;
            }
            for id in [&push.before, &push.after, &push.commit] {
                if !is_object(id) {
                    return Err(format!("`{}` is not the id of a commit", shown(id)));
                }
            }
        }
        Event::Pull(pull) => {
            check_ref(&pull.head_branch)?;
            if !pull.base_branch.is_empty() {
                check_ref(&pull.base_branch)?;
            }
            let is_short = pull.head.len() == 12 && pull.head.bytes().all(|b| b.is_ascii_hexdigit());
            if !is_object(&pull.head) && !is_short {
                return Err(format!("`{}` is not the id of a commit", shown(&pull.head)));
            }
        }
    }
    Ok(())
}

/// A text of a payload for messages.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

/// Follows keys with dots between them; null when there is nothing.
fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(value, |value, key| &value[key])
}

/// The text at a path; empty when there is none.
fn text(value: &Value, path: &str) -> String {
    at(value, path).as_str().unwrap_or_default().chars().take(MOST_CHARS).collect()
}

/// The text at a path, if it is there and not empty.
fn maybe(value: &Value, path: &str) -> Option<String> {
    Some(text(value, path)).filter(|text| !text.is_empty())
}

fn needed(value: &Value, path: &str) -> Result<String, String> {
    maybe(value, path).ok_or_else(|| format!("it has no `{path}`"))
}

/// An id, which is a number or a text.
fn id(value: &Value, path: &str) -> Result<String, String> {
    match at(value, path) {
        Value::Number(number) => Ok(number.to_string()),
        Value::String(text) if !text.is_empty() => Ok(text.chars().take(200).collect()),
        _ => Err(format!("it has no `{path}`")),
    }
}

fn number(value: &Value, path: &str) -> Result<u64, String> {
    at(value, path).as_u64().ok_or_else(|| format!("it has no number `{path}`"))
}

fn nothing(repository: Option<Repository>, remark: impl Into<String>) -> Delivery {
    Delivery { repository, changes: Vec::new(), remark: remark.into() }
}

/// Whether pipelines are made of a ref; others, such as notes and those of reviews, never are.
fn is_built(reference: &str) -> bool {
    reference.starts_with("refs/heads/") || reference.starts_with("refs/tags/")
}

/// The event of the post-receive hook that we print.
fn plain(value: &Value) -> Result<Delivery, String> {
    let name = needed(value, "repository")?;
    let repository = Some(Repository { id: name.clone(), full_name: name });
    let changes = value["changes"].as_array().ok_or("it has no list `changes`")?;
    let actor = Actor { login: text(value, "pusher"), avatar_url: None };
    let mut pushes = Vec::new();
    for change in changes {
        let after = needed(change, "after")?;
        let push = Push {
            reference: needed(change, "ref")?,
            before: needed(change, "before")?,
            commit: after.clone(),
            after,
            actor: actor.clone(),
            ..Push::default()
        };
        if is_built(&push.reference) {
            pushes.push(Event::Push(push));
        }
    }
    let remark = if pushes.is_empty() { "no branch or tag was changed" } else { "" };
    Ok(Delivery { repository, changes: pushes, remark: remark.to_owned() })
}

/// Whether a branch was made without a commit of its own.
fn brings_nothing(before: &str, is_branch: bool, commits: &Value) -> bool {
    is_branch && is_zeros(before) && commits.as_array().is_some_and(Vec::is_empty)
}

#[cfg(test)]
mod tests;
