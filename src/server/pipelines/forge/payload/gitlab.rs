//! Payloads of GitLab: pushes, tags and merge requests.

use super::parts::{Delivery, ForgeRepository, at, id, maybe, nothing, number, push, shown, text, updated};
use crate::server::pipelines::forge::event::{Action, Actor, Event, Pull};
use serde_json::Value;

pub(super) fn read(value: &Value) -> Result<Delivery, String> {
    let kind = maybe(value, "object_kind").or_else(|| maybe(value, "event_name")).unwrap_or_default();
    let repository = id(value, "project.id").or_else(|_| id(value, "project_id")).ok();
    let repository =
        repository.map(|id| ForgeRepository { id, full_name: text(value, "project.path_with_namespace") });
    match kind.as_str() {
        "push" | "tag_push" => {
            let repository = repository.ok_or("it has no `project_id`")?;
            let actor =
                Actor { login: text(value, "user_username"), avatar_url: maybe(value, "user_avatar") };
            push(value, repository, maybe(value, "checkout_sha"), actor)
        }
        "merge_request" => merge_request(value, repository),
        other => Ok(nothing(repository, format!("events `{}` start nothing here", shown(other)))),
    }
}

fn merge_request(value: &Value, repository: Option<ForgeRepository>) -> Result<Delivery, String> {
    let repository = repository.ok_or("it has no `project.id`")?;
    let about = at(value, "object_attributes");
    let word = text(about, "action");
    let action = match word.as_str() {
        "open" => Action::Opened,
        "reopen" => Action::Reopened,
        "close" | "merge" => Action::Closed,
        "update" if maybe(about, "oldrev").is_some() => Action::Synchronize,
        "update" if at(value, "changes.draft.current") == false => Action::ReadyForReview,
        "update" if !at(value, "changes.labels").is_null() => Action::Labeled,
        "update" => Action::Edited,
        "" => {
            let remark = "an event of a merge request without an action starts nothing";
            return Ok(nothing(Some(repository), remark));
        }
        other => {
            let remark = format!("`{}` of a merge request starts nothing", shown(other));
            return Ok(nothing(Some(repository), remark));
        }
    };
    let iid = number(about, "iid")?;
    let is_fork = id(about, "source_project_id").ok() != id(about, "target_project_id").ok();
    let source = text(about, "source.path_with_namespace");
    let (owner, name) = source.rsplit_once('/').unwrap_or_default();
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let pull = Pull {
        action,
        number: iid,
        title: text(about, "title"),
        url: text(about, "url"),
        head_branch: text(about, "source_branch"),
        head: text(about, "last_commit.id"),
        before: maybe(about, "oldrev"),
        base_branch: text(about, "target_branch"),
        base: String::new(),
        reference: Some(format!("refs/merge-requests/{iid}/head")),
        is_fork,
        fork_owner: some(owner),
        fork_name: some(name),
        is_draft: at(about, "draft") == true || at(about, "work_in_progress") == true,
        is_merged: word == "merge",
        is_closed: matches!(text(about, "state").as_str(), "closed" | "merged"),
        updated: updated(about, "updated_at"),
        // GitLab sends the author's id only; the name is known when the author is the event's user.
        author: match id(about, "author_id").ok() == id(value, "user.id").ok() {
            true => text(value, "user.username"),
            false => String::new(),
        },
        actor: Actor { login: text(value, "user.username"), avatar_url: maybe(value, "user.avatar_url") },
        ..Pull::default()
    };
    Ok(Delivery { repository: Some(repository), changes: vec![Event::Pull(pull)], remark: String::new() })
}
