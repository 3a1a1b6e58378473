//! Pipelines of pull requests from forks: strangers wrote what they run.
//!
//! Only SQLite: flags are integers.

use crate::server::ids::{JobId, PipelineId};
use crate::server::store::json::Json;
use crate::server::store::tables::projects::ProjectSettings;
use crate::server::store::{Error, View};
use rusqlite::{OptionalExtension, Row};

/// A pipeline of a pull request from a fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The branch that it is shown as: `pull/12`.
    pub branch: String,
    /// Whether the project gives such pipelines its secrets nevertheless.
    pub gets_secrets: bool,
}

fn fork_row(row: &Row<'_>) -> rusqlite::Result<Fork> {
    let settings: ProjectSettings = row.get::<_, Json<_>>(1)?.0;
    // A pipeline of a tag has no branch.
    let branch = row.get::<_, Option<String>>(0)?.unwrap_or_default();
    Ok(Fork { branch, gets_secrets: settings.can_pass_secrets_to_fork_pr_jobs })
}

/// The fork that a pipeline is of; `None`: it is of none.
pub fn fork_of_pipeline(view: &View, pipeline: &PipelineId) -> Result<Option<Fork>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT p.branch, r.settings FROM pipelines p JOIN projects r ON r.id = p.project_id
         WHERE p.id = ?1 AND p.is_untrusted = 1",
    )?;
    Ok(query.query_row([pipeline], fork_row).optional()?)
}

/// The fork that a job is of; `None`: it is of none.
pub fn fork_of_job(view: &View, job: &JobId) -> Result<Option<Fork>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT p.branch, r.settings FROM jobs j JOIN pipelines p ON p.id = j.pipeline_id
         JOIN projects r ON r.id = p.project_id WHERE j.id = ?1 AND p.is_untrusted = 1",
    )?;
    Ok(query.query_row([job], fork_row).optional()?)
}
