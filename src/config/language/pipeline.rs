//! Pipeline values: the names that exist, and values from JSON and back.

use crate::config::values::{Data, Scalar, ScalarKind};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Every documented name. Those that do not apply to a pipeline are undefined.
const NAMES: &[&str] = &[
    "pipeline.config.file_path",
    "pipeline.config.ref",
    "pipeline.config.repository.name",
    "pipeline.config.repository.url",
    "pipeline.config.sha",
    "pipeline.definition.id",
    "pipeline.deploy.component_name",
    "pipeline.deploy.current_version",
    "pipeline.deploy.environment_name",
    "pipeline.deploy.namespace",
    "pipeline.deploy.reason",
    "pipeline.deploy.target_version",
    "pipeline.event.action",
    "pipeline.event.context.github.pr_url",
    "pipeline.event.github.after",
    "pipeline.event.github.comment.body",
    "pipeline.event.github.head_commit.url",
    "pipeline.event.github.label.name",
    "pipeline.event.github.pull_request.base.ref",
    "pipeline.event.github.pull_request.base.sha",
    "pipeline.event.github.pull_request.draft",
    "pipeline.event.github.pull_request.head.ref",
    "pipeline.event.github.pull_request.head.sha",
    "pipeline.event.github.pull_request.merged",
    "pipeline.event.github.pull_request.number",
    "pipeline.event.github.pull_request.title",
    "pipeline.event.github.pull_request.url",
    "pipeline.event.github.ref",
    "pipeline.event.github.repository.name",
    "pipeline.event.github.repository.owner.login",
    "pipeline.event.github.repository.url",
    "pipeline.event.github.sender.avatar_url",
    "pipeline.event.github.sender.login",
    "pipeline.event.github.sender.type",
    "pipeline.event.name",
    "pipeline.git.base_revision",
    "pipeline.git.branch",
    "pipeline.git.branch.is_default",
    "pipeline.git.commit.author_login",
    "pipeline.git.commit.body",
    "pipeline.git.commit.subject",
    "pipeline.git.commit.url",
    "pipeline.git.repo_id",
    "pipeline.git.repo_name",
    "pipeline.git.repo_owner",
    "pipeline.git.repo_url",
    "pipeline.git.revision",
    "pipeline.git.tag",
    "pipeline.id",
    "pipeline.integration_source",
    "pipeline.name",
    "pipeline.number",
    "pipeline.project.git_url",
    "pipeline.project.slug",
    "pipeline.project.type",
    "pipeline.schedule.id",
    "pipeline.schedule.name",
    "pipeline.trigger.id",
    "pipeline.trigger.received_at",
    "pipeline.trigger.type",
    "pipeline.trigger_parameters.webhook.body",
    "pipeline.trigger_source",
];

/// Families of names that exist but are deprecated or private; they are undefined unless given.
const PREFIXES: &[&str] = &[
    "pipeline.trigger_parameters.circleci.",
    "pipeline.trigger_parameters.git.",
    "pipeline.trigger_parameters.github_app.",
    "pipeline.trigger_parameters.gitlab.",
    "pipeline.trigger_parameters.event.",
    "pipeline.vcs.",
];
const PRIVATE: &[&str] = &["pipeline.config_source", "pipeline.git.ssh_checkout_url"];

/// Whether a name is one that a pipeline can have.
pub(crate) fn is_known(name: &str) -> bool {
    NAMES.binary_search(&name).is_ok()
        || PRIVATE.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// All documented names, for suggestions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().copied()
}

/// A value that came with the trigger.
pub(crate) fn from_json(value: &Json) -> Data {
    match value {
        Json::Bool(value) => Data::bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(value) => Data::int(value),
            None => Data::Scalar(Scalar::of(
                ScalarKind::Float(number.as_f64().unwrap_or(f64::NAN)),
                number.to_string(),
            )),
        },
        Json::String(text) => Data::string(text.as_str()),
        Json::Null => Data::null(),
        // No pipeline value or parameter is a list or a map; as text it can at least be seen.
        Json::Array(_) | Json::Object(_) => Data::string(value.to_string()),
    }
}

/// Values such as a pipeline would have, for a config that is checked or shown without one: so that an
/// integer parameter can be given `pipeline.number`. `branch` is used unless `given` has a branch or a
/// tag; what is given stays out.
pub fn stand_ins(branch: Option<&str>, given: &BTreeMap<String, Json>) -> BTreeMap<String, Json> {
    const NIL: &str = "00000000-0000-0000-0000-000000000000";
    let text = |name: &str| given.get(name).and_then(Json::as_str).filter(|text| !text.is_empty());
    let branch = text("pipeline.git.branch").or(branch).unwrap_or("main");
    let mut values: BTreeMap<String, Json> = [
        ("id", Json::from(NIL)),
        ("number", 1.into()),
        ("definition.id", NIL.into()),
        ("project.type", "github".into()),
        ("project.slug", "github/example/project".into()),
        ("project.git_url", "https://github.com/example/project".into()),
        ("trigger.id", NIL.into()),
        ("trigger.type", "api".into()),
        ("trigger_source", "api".into()),
        ("event.name", "api".into()),
        ("event.action", "api".into()),
        ("git.repo_url", "https://github.com/example/project".into()),
        ("git.repo_owner", "example".into()),
        ("git.repo_name", "project".into()),
        ("git.revision", "0".repeat(40).into()),
        ("git.commit.subject", "".into()),
        ("git.commit.body", "".into()),
    ]
    .into_iter()
    .map(|(name, value)| (format!("pipeline.{name}"), value))
    .collect();
    if text("pipeline.git.tag").is_none() {
        values.insert("pipeline.git.branch".into(), branch.into());
        let is_default = matches!(branch, "main" | "master");
        values.insert("pipeline.git.branch.is_default".into(), is_default.into());
    }
    values.retain(|name, _| !given.contains_key(name));
    values
}

/// A value in force, for the result of the compilation.
pub(crate) fn to_json(data: &Data) -> Json {
    match data {
        Data::Scalar(scalar) => match scalar.kind {
            ScalarKind::Null => Json::Null,
            ScalarKind::Bool(value) => value.into(),
            ScalarKind::Int(value) => value.into(),
            ScalarKind::Float(value) => value.into(),
            ScalarKind::Str => Json::from(&*scalar.text),
        },
        _ => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_can_be_searched() {
        assert!(NAMES.is_sorted());
        assert!(is_known("pipeline.git.branch.is_default"));
        assert!(is_known("pipeline.trigger_parameters.gitlab.type"));
        assert!(!is_known("pipeline.git.brunch"));
    }

    #[test]
    fn stand_ins_give_way_to_what_is_given() {
        let stand_ins = |name: &str, value: &str| {
            super::stand_ins(Some("topic"), &BTreeMap::from([(name.to_owned(), Json::from(value))]))
        };
        let all = super::stand_ins(None, &BTreeMap::new());
        assert!(all.keys().all(|name| is_known(name)));
        assert_eq!(all["pipeline.git.branch"], "main");
        assert_eq!(all["pipeline.git.branch.is_default"], true);
        assert_eq!(stand_ins("pipeline.number", "7")["pipeline.git.branch"], "topic");
        assert!(!stand_ins("pipeline.number", "7").contains_key("pipeline.number"));
        assert_eq!(stand_ins("pipeline.git.branch", "dev")["pipeline.git.branch.is_default"], false);
        assert!(!stand_ins("pipeline.git.tag", "v1").contains_key("pipeline.git.branch"));
    }
}
