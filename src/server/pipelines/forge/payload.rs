//! The payloads of forges: from their JSON to changes. No IO.
//!
//! Nothing of a payload is trusted beyond "look at this ref": texts are data, addresses in it are not fetched from.

mod bitbucket;
mod github;
mod gitlab;
pub mod parts;

use crate::server::pipelines::forge::event::{Action, Actor, Event, Push, is_object};
use crate::server::pipelines::forge::payload::parts::{
    Delivery, ForgeRepository, is_built, needed, shown, text,
};
use crate::server::pipelines::repository::address::check_ref;
use crate::server::store::forge_states::Forge;
use serde_json::Value;

/// Most changes of one delivery.
const MOST_CHANGES: usize = 5000;

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
    without_wrong_ones(without_headless_ones(read))
}

/// Leaves pull requests out that are at no commit, as forges tell of one whose branch is gone: nothing is wrong with the
/// delivery, and there is nothing to build. One that was closed is forgotten by its number.
fn without_headless_ones(mut read: Delivery) -> Delivery {
    let mut remark = None;
    read.changes.retain(|change| match change {
        Event::Pull(pull) if pull.action != Action::Closed => {
            let lack = match (pull.head.is_empty(), pull.head_branch.is_empty()) {
                (true, _) => "commit",
                (false, true) => "branch",
                (false, false) => return true,
            };
            remark = Some(format!("pull request {} has no head {lack}: nothing is built of it", pull.number));
            false
        }
        _ => true,
    });
    match remark {
        Some(remark) => Delivery { remark, ..read },
        None => read,
    }
}

/// Leaves changes out that cannot be, so that others of the same delivery are built; an error when none is left.
fn without_wrong_ones(mut read: Delivery) -> Result<Delivery, String> {
    let mut wrong = None;
    read.changes.retain(|change| match check(change) {
        Ok(()) => true,
        Err(why) => {
            wrong.get_or_insert(why);
            false
        }
    });
    match wrong {
        Some(why) if read.changes.is_empty() => Err(why),
        Some(why) => Ok(Delivery { remark: why, ..read }),
        None => Ok(read),
    }
}

/// Checks the names and ids of a change, which git will be given.
fn check(change: &Event) -> Result<(), String> {
    match change {
        Event::Scheduled(_) => {}
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
        // A closed pull request is known by its number, and its branch may be gone.
        Event::Pull(pull) if pull.action == Action::Closed => {}
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

/// The event of the post-receive hook that we print.
fn plain(value: &Value) -> Result<Delivery, String> {
    let name = needed(value, "repository")?;
    let repository = Some(ForgeRepository { id: name.clone(), full_name: name });
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
            is_untold: true,
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

#[cfg(test)]
mod tests;
