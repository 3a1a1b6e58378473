//! Pipeline values: which names exist, and what they are for this pipeline.

use super::value::{Data, Kind, Scalar};
use serde_json::Value as Json;

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
            None => {
                Data::Scalar(Scalar::of(Kind::Float(number.as_f64().unwrap_or(f64::NAN)), number.to_string()))
            }
        },
        Json::String(text) => Data::string(text.as_str()),
        Json::Null => Data::null(),
        // No pipeline value or parameter is a list or a map; as text it can at least be seen.
        Json::Array(_) | Json::Object(_) => Data::string(value.to_string()),
    }
}

/// A value in force, for the result of the compilation.
pub(crate) fn to_json(data: &Data) -> Json {
    match data {
        Data::Scalar(scalar) => match scalar.kind {
            Kind::Null => Json::Null,
            Kind::Bool(value) => value.into(),
            Kind::Int(value) => value.into(),
            Kind::Float(value) => value.into(),
            Kind::Str => Json::from(&*scalar.text),
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
}
