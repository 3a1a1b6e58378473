//! GitHub, and Gitea and Forgejo, which took over its payloads.

use super::parts::{
    Delivery, ForgeRepository, at, id, maybe, needed, nothing, number, push, shown, text, updated,
};
use crate::server::pipelines::forge::event::{Action, Actor, Event, Pull};
use crate::server::store::forge_states::Forge;
use serde_json::Value;

pub(super) fn read(event: &str, value: &Value, forge: Forge) -> Result<Delivery, String> {
    let repository = match at(value, "repository") {
        Value::Object(_) => Some(ForgeRepository {
            id: id(value, "repository.id")?,
            full_name: needed(value, "repository.full_name")?,
        }),
        _ => None,
    };
    match event {
        "push" => {
            let repository = repository.ok_or("it has no `repository`")?;
            push(value, repository, maybe(value, "head_commit.id"), actor(value))
        }
        "pull_request" => pull(value, repository),
        "ping" => Ok(nothing(repository, "the forge tries the hook: it works")),
        // Besides these comes a push.
        "create" | "delete" if forge != Forge::GitHub => {
            Ok(nothing(repository, format!("`{event}` comes besides `push`, which counts")))
        }
        other => Ok(nothing(repository, format!("events `{}` start nothing here", shown(other)))),
    }
}

fn actor(value: &Value) -> Actor {
    let login = maybe(value, "sender.login").or_else(|| maybe(value, "pusher.name")).unwrap_or_default();
    Actor { login, avatar_url: maybe(value, "sender.avatar_url") }
}

fn pull(value: &Value, repository: Option<ForgeRepository>) -> Result<Delivery, String> {
    let repository = repository.ok_or("it has no `repository`")?;
    let word = needed(value, "action")?;
    let action = match word.as_str() {
        "opened" => Action::Opened,
        "synchronize" | "synchronized" => Action::Synchronize,
        "reopened" => Action::Reopened,
        "closed" => Action::Closed,
        "ready_for_review" => Action::ReadyForReview,
        "labeled" | "unlabeled" | "label_updated" | "label_cleared" => Action::Labeled,
        "edited" => Action::Edited,
        other => {
            let remark = format!("`{}` of a pull request starts nothing", shown(other));
            return Ok(nothing(Some(repository), remark));
        }
    };
    let of = |path: &str| format!("pull_request.{path}");
    let head_repository = at(value, "pull_request.head.repo");
    let base_id = maybe_id(value, &of("base.repo.id")).unwrap_or_else(|| repository.id.clone());
    let head_id = maybe_id(value, &of("head.repo.id"));
    let pull_number = number(value, "number").or_else(|_| number(value, &of("number")))?;
    let pull = Pull {
        action,
        number: pull_number,
        title: text(value, &of("title")),
        url: text(value, &of("html_url")),
        head_branch: text(value, &of("head.ref")),
        head: text(value, &of("head.sha")),
        before: maybe(value, "before").filter(|_| action == Action::Synchronize),
        base_branch: text(value, &of("base.ref")),
        base: text(value, &of("base.sha")),
        reference: Some(format!("refs/pull/{pull_number}/head")),
        // A fork that was deleted is one as well.
        is_fork: head_repository.is_null() || head_id.is_none_or(|head| head != base_id),
        fork_owner: maybe(head_repository, "owner.login")
            .or_else(|| Some(text(head_repository, "full_name").split_once('/')?.0.to_owned())),
        fork_name: maybe(head_repository, "name"),
        is_draft: at(value, &of("draft")) == true,
        is_merged: at(value, &of("merged")) == true,
        is_closed: at(value, &of("state")) == "closed",
        updated: updated(value, &of("updated_at")),
        author: text(value, &of("user.login")),
        actor: actor(value),
        ..Pull::default()
    };
    Ok(Delivery { repository: Some(repository), changes: vec![Event::Pull(pull)], remark: String::new() })
}

fn maybe_id(value: &Value, path: &str) -> Option<String> {
    id(value, path).ok()
}
