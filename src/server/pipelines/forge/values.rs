//! The `pipeline.*` values of a change, and what jobs are told of pull requests. No IO.

use crate::server::pipelines::forge::event::{Event, is_zeros};
use crate::server::pipelines::types::Revision;
use crate::server::store::forge_states::Forge;
use crate::server::store::tables::pipelines::PullFacts;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `pipeline.trigger.type` of what a forge tells of.
pub(super) fn trigger_type(forge: Forge) -> &'static str {
    match forge {
        Forge::GitHub => "github_app",
        Forge::BitbucketCloud => "bitbucket_cloud",
        Forge::BitbucketDc => "bitbucket_dc",
        Forge::GitLab => "gitlab",
        Forge::Gitea => "gitea",
        Forge::Forgejo => "forgejo",
        Forge::Git => "git",
    }
}

/// The values of a change, without `pipeline.` before their names. `before` is the commit of the pipeline before on the
/// branch.
pub(super) fn of_event(event: &Event, before: Option<&str>) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    let mut set = |name: &str, value: Value| {
        values.insert(name.to_owned(), value);
    };
    if let Some(before) = before.filter(|before| !is_zeros(before)) {
        set("git.base_revision", json!(before));
    }
    let actor = match event {
        Event::Push(push) => {
            set("event.github.ref", json!(push.reference));
            set("event.github.after", json!(push.after));
            &push.actor
        }
        Event::Pull(pull) => {
            for (name, value) in [
                ("number", json!(pull.number)),
                ("title", json!(pull.title)),
                ("url", json!(pull.url)),
                ("draft", json!(pull.is_draft)),
                ("merged", json!(pull.is_merged)),
                ("head.ref", json!(pull.head_branch)),
                ("head.sha", json!(pull.head)),
                ("base.ref", json!(pull.base_branch)),
                ("base.sha", json!(pull.base)),
                ("user.login", json!(pull.author)),
            ] {
                set(&format!("event.github.pull_request.{name}"), value);
            }
            set("event.context.github.pr_url", json!(pull.url));
            &pull.actor
        }
        Event::Scheduled(due) => {
            for (name, value) in [("schedule.name", &due.name), ("schedule.id", &due.schedule)] {
                if let Some(value) = value {
                    set(name, json!(value));
                }
            }
            return values;
        }
    };
    if !actor.login.is_empty() {
        set("event.github.sender.login", json!(actor.login));
    }
    if let Some(avatar) = &actor.avatar_url {
        set("event.github.sender.avatar_url", json!(avatar));
    }
    values
}

/// Puts the full id where a forge told the beginning of it only.
pub(super) fn of_revision(values: &mut BTreeMap<String, Value>, revision: &Revision) {
    if let Some(head) = values.get_mut("event.github.pull_request.head.sha") {
        *head = json!(revision.revision);
    }
}

/// Gathers the facts about pull requests for jobs; `urls` are those of the open ones from the branch.
pub(super) fn pull_facts(event: &Event, urls: &[String]) -> Option<PullFacts> {
    let facts = match event {
        Event::Pull(pull) if pull.is_fork => PullFacts {
            urls: vec![pull.url.clone()],
            number: Some(pull.number),
            fork_owner: pull.fork_owner.clone(),
            fork_name: pull.fork_name.clone(),
        },
        _ => PullFacts { urls: urls.to_vec(), ..PullFacts::default() },
    };
    (!facts.urls.is_empty()).then_some(facts)
}
