//! Pipeline definitions: which config a pipeline is made of, and what its jobs check out. A project has one, which has
//! the id of the project: `.circleci/config.yml` of its own repository.

use crate::server::api::shared::failure::ApiError;
use crate::server::api::shared::slug::provider;
use crate::server::store::read::Project;
use serde_json::{Value, json};

/// The name of the definition that every project has.
pub const NAME: &str = "config";

/// The file that the config is read from.
pub const FILE: &str = ".circleci/config.yml";

/// Whether a project has a definition with this id.
pub fn is_definition_of(id: &str, project: &Project) -> bool {
    id.eq_ignore_ascii_case(project.id.as_str())
}

/// The refusal of a definition that the project does not have.
pub fn unknown_definition(id: &str, project: &Project) -> ApiError {
    ApiError::not_found(format!(
        "the project `{}` has no pipeline definition `{id}`: its only one is `{}`",
        project.slug, project.id
    ))
}

/// The refusal of a definition or a trigger that somebody wants to make; `what` is named first.
pub fn one_only(what: &str) -> ApiError {
    super::failure::bad(format!(
        "{what} cannot be made here: a project has one pipeline definition, `{FILE}` of its repository, and pipelines are started with `POST /api/v2/project/SLUG/pipeline`"
    ))
}

/// Source of a definition: the provider, and the repository by its full name and what identifies it. Version 3
/// spells the repository out in flat fields.
pub struct DefinitionSource {
    /// `github`, `bitbucket` or `circleci`.
    pub provider: String,
    /// Full name of the repository: `org/repo`.
    pub full_name: String,
    /// The address that git fetches from; of a project without a repository its slug.
    pub external_id: String,
}

impl DefinitionSource {
    /// The source of a project's definition.
    pub fn of(project: &Project) -> Self {
        let (vcs, full_name) = project.slug.split_once('/').unwrap_or_default();
        Self {
            provider: provider(vcs).to_lowercase(),
            full_name: full_name.to_owned(),
            external_id: project.repository_url.clone().unwrap_or_else(|| project.slug.clone()),
        }
    }

    /// In the form of version 2, without a file.
    pub fn v2(&self) -> Value {
        let repo = json!({ "full_name": self.full_name, "external_id": self.external_id });
        json!({ "provider": self.provider, "repo": repo })
    }

    /// In the form of version 3.
    pub fn v3(&self) -> Value {
        json!({ "provider": self.provider, "repo_id": self.external_id, "repo_full_name": self.full_name })
    }
}
