//! Bitbucket Cloud and Bitbucket Data Center, which share little but the name. One event may hold several refs.

use super::parts::{
    Delivery, ForgeRepository, at, id, is_built, maybe, needed, nothing, number, shown, text, updated,
};
use crate::server::pipelines::forge::event::{Action, Actor, Event, NO_OBJECT, Pull, Push};
use serde_json::Value;

fn done(repository: ForgeRepository, changes: Vec<Event>, remark: &str) -> Delivery {
    let remark = if changes.is_empty() { remark.to_owned() } else { String::new() };
    Delivery { repository: Some(repository), changes, remark }
}

/// Whether a pull request is in another state than the open one, where its state is told.
fn is_closed(about: &Value) -> bool {
    maybe(about, "state").is_some_and(|state| state != "OPEN")
}

pub(super) fn read_cloud(event: &str, value: &Value) -> Result<Delivery, String> {
    let repository = ForgeRepository {
        id: id(value, "repository.uuid")?,
        full_name: needed(value, "repository.full_name")?,
    };
    let login = maybe(value, "actor.nickname").or_else(|| maybe(value, "actor.display_name"));
    let actor =
        Actor { login: login.unwrap_or_default(), avatar_url: maybe(value, "actor.links.avatar.href") };
    let action = match event {
        "repo:push" => return cloud_push(value, repository, actor),
        "pullrequest:created" => Action::Opened,
        "pullrequest:updated" => Action::Synchronize,
        "pullrequest:rejected" | "pullrequest:fulfilled" => Action::Closed,
        other => {
            let remark = format!("events `{}` start nothing here", shown(other));
            return Ok(nothing(Some(repository), remark));
        }
    };
    let about = at(value, "pullrequest");
    let source = maybe(about, "source.repository.uuid");
    let (owner, name) = maybe(about, "source.repository.full_name")
        .and_then(|name| {
            let (owner, name) = name.split_once('/')?;
            Some((owner.to_owned(), name.to_owned()))
        })
        .unzip();
    let pull = Pull {
        action,
        number: number(about, "id")?,
        title: text(about, "title"),
        url: text(about, "links.html.href"),
        head_branch: text(about, "source.branch.name"),
        head: text(about, "source.commit.hash"),
        base_branch: text(about, "destination.branch.name"),
        base: text(about, "destination.commit.hash"),
        reference: None,
        is_fork: source.is_none_or(|source| source != repository.id),
        fork_owner: owner,
        fork_name: name,
        is_draft: at(about, "draft") == true,
        is_merged: event == "pullrequest:fulfilled",
        is_closed: is_closed(about),
        updated: updated(about, "updated_on"),
        author: text(about, "author.nickname"),
        actor,
        ..Pull::default()
    };
    Ok(done(repository, vec![Event::Pull(pull)], ""))
}

fn cloud_push(value: &Value, repository: ForgeRepository, actor: Actor) -> Result<Delivery, String> {
    let changes = at(value, "push.changes").as_array().ok_or("it has no list `push.changes`")?;
    let mut pushes = Vec::new();
    for change in changes {
        let (old, new) = (&change["old"], &change["new"]);
        let about = if new.is_null() { old } else { new };
        let folder = match text(about, "type").as_str() {
            "branch" | "named_branch" => "heads",
            "tag" | "annotated_tag" => "tags",
            _ => continue,
        };
        let before = maybe(old, "target.hash").unwrap_or_else(|| NO_OBJECT.to_owned());
        let after = maybe(new, "target.hash").unwrap_or_else(|| NO_OBJECT.to_owned());
        pushes.push(Event::Push(Push {
            reference: format!("refs/{folder}/{}", needed(about, "name")?),
            before,
            commit: after.clone(),
            after,
            is_untold: true,
            message: maybe(new, "target.message"),
            actor: actor.clone(),
            ..Push::default()
        }));
    }
    Ok(done(repository, pushes, "no branch or tag was changed"))
}

pub(super) fn read_dc(event: &str, value: &Value) -> Result<Delivery, String> {
    if event == "diagnostics:ping" {
        return Ok(nothing(None, "the forge tries the hook: it works"));
    }
    let login = maybe(value, "actor.name").or_else(|| maybe(value, "actor.slug"));
    let actor = Actor { login: login.unwrap_or_default(), avatar_url: None };
    let named = |about: &Value| -> Result<ForgeRepository, String> {
        let full_name = format!("{}/{}", needed(about, "project.key")?, needed(about, "slug")?);
        Ok(ForgeRepository { id: id(about, "id")?, full_name })
    };
    let action = match event {
        "repo:refs_changed" => return dc_push(value, named(at(value, "repository"))?, actor),
        "pr:opened" => Action::Opened,
        "pr:from_ref_updated" => Action::Synchronize,
        "pr:reopened" => Action::Reopened,
        "pr:declined" | "pr:merged" | "pr:deleted" => Action::Closed,
        "pr:modified" => Action::Edited,
        other => {
            let repository = named(at(value, "repository")).ok();
            return Ok(nothing(repository, format!("events `{}` start nothing here", shown(other))));
        }
    };
    let about = at(value, "pullRequest");
    let repository = named(at(about, "toRef.repository"))?;
    let source = at(about, "fromRef.repository");
    let number = number(about, "id")?;
    let pull = Pull {
        action,
        number,
        title: text(about, "title"),
        url: maybe(&about["links"]["self"][0], "href").unwrap_or_default(),
        head_branch: text(about, "fromRef.displayId"),
        head: text(about, "fromRef.latestCommit"),
        base_branch: text(about, "toRef.displayId"),
        base: text(about, "toRef.latestCommit"),
        reference: Some(format!("refs/pull-requests/{number}/from")),
        is_fork: id(source, "id").ok().is_none_or(|source| source != repository.id),
        fork_owner: maybe(source, "project.key"),
        fork_name: maybe(source, "slug"),
        is_draft: at(about, "draft") == true,
        is_merged: event == "pr:merged",
        is_closed: is_closed(about),
        updated: updated(about, "updatedDate"),
        author: text(about, "author.user.name"),
        actor,
        ..Pull::default()
    };
    Ok(done(repository, vec![Event::Pull(pull)], ""))
}

fn dc_push(value: &Value, repository: ForgeRepository, actor: Actor) -> Result<Delivery, String> {
    let changes = value["changes"].as_array().ok_or("it has no list `changes`")?;
    let mut pushes = Vec::new();
    for change in changes {
        let reference = needed(change, "ref.id")?;
        if !is_built(&reference) {
            continue;
        }
        let is_deletion = change["type"] == "DELETE";
        let after = if is_deletion { NO_OBJECT.to_owned() } else { needed(change, "toHash")? };
        pushes.push(Event::Push(Push {
            reference,
            before: needed(change, "fromHash")?,
            commit: after.clone(),
            after,
            is_untold: true,
            actor: actor.clone(),
            ..Push::default()
        }));
    }
    Ok(done(repository, pushes, "no branch or tag was changed"))
}
