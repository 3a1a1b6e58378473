//! Organisations and projects: their making, their repositories, their settings, their numbers.
//!
//! Only SQLite: nothing. `settings` is JSON in a text column.

use crate::protocol::TaskId;
use crate::server::ids::{OrganisationId, ProjectId};
use crate::server::store::json::Json;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

/// Branch that is built of a project that was made without naming one.
const DEFAULT_BRANCH: &str = "main";

/// Settings of a project, as they stand in its JSON column and in the API. Absent ones are as by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectSettings {
    /// Whether a new pipeline cancels the unfinished ones of its branch, unless that is the default branch.
    pub enable_auto_cancel_redundant_workflows: bool,
    /// Whether only branches with an open pull request are built, besides the default branch and tags.
    pub is_build_prs_only: bool,
    /// Regular expressions of branches that are built in spite of that.
    pub pr_only_branch_overrides: Vec<String>,
    /// Whether pull requests from forks are built, without secrets, on classes that take them.
    pub enable_building_fork_prs: bool,
    /// Whether they are given the secrets of the project nevertheless.
    pub can_pass_secrets_to_fork_pr_jobs: bool,
    /// Whether the forge is told how jobs go.
    pub can_set_github_status: bool,
    /// Begin of the names of those statuses; empty: `ci/circleci: `.
    pub status_prefix: String,
    /// Whether there is one status for each workflow, and not for each job.
    pub is_status_per_workflow: bool,
    /// Path of the config in the repository; empty: `.circleci/config.yml`.
    pub config_path: String,
    /// Branches that are built, `*` and `?` stand for others; empty: all.
    pub only_branches: Vec<String>,
    /// Branches that are not built.
    pub ignore_branches: Vec<String>,
    /// Files of which one must have changed, `*` and `?` stand for others; empty: any.
    pub only_paths: Vec<String>,
    /// Files of which a change alone starts nothing.
    pub ignore_paths: Vec<String>,
    /// Whether each commit of a push that is found by looking is built (at most 20), and not the last one only.
    pub is_each_commit_built: bool,
}

impl Default for ProjectSettings {
    fn default() -> Self {
        Self {
            enable_auto_cancel_redundant_workflows: false,
            is_build_prs_only: false,
            pr_only_branch_overrides: Vec::new(),
            enable_building_fork_prs: false,
            can_pass_secrets_to_fork_pr_jobs: false,
            can_set_github_status: true,
            status_prefix: String::new(),
            is_status_per_workflow: false,
            config_path: String::new(),
            only_branches: Vec::new(),
            ignore_branches: Vec::new(),
            only_paths: Vec::new(),
            ignore_paths: Vec::new(),
            is_each_commit_built: false,
        }
    }
}

/// A project and its owner.
#[derive(Clone, Debug)]
pub struct Ids {
    /// Id of the project.
    pub project: ProjectId,
    /// Organisation that owns the project.
    pub organisation: OrganisationId,
}

/// A number that was drawn for a pipeline.
#[derive(Clone, Debug)]
pub struct PipelineNumber {
    /// The project that it counts in.
    pub project: ProjectId,
    /// The number, from 1.
    pub number: i64,
}

/// The three parts of `vcs/org/repo`; the last one may contain slashes.
fn parts(slug: &str) -> [&str; 3] {
    let mut parts = slug.splitn(3, '/');
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// Adds an organisation. False when there is one of this name in this version control system.
pub fn add_organisation(
    tx: &Tx<'_>,
    organisation: &OrganisationId,
    vcs: &str,
    name: &str,
    now: Millis,
) -> Result<bool, Error> {
    let added = tx
        .sql()
        .prepare_cached(
            "INSERT INTO organisations (id, vcs, name, created_at_ms) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (vcs, name) DO NOTHING",
        )?
        .execute(params![organisation, vcs, name, now])?;
    Ok(added > 0)
}

/// Makes sure that a project and its organisation exist. `slug` is `vcs/org/repo`. A project that exists is
/// left as it is.
pub fn ensure_project(
    tx: &Tx<'_>,
    slug: &str,
    repository_url: Option<&str>,
    now: Millis,
) -> Result<Ids, Error> {
    let [vcs, org, repo] = parts(slug);
    add_organisation(tx, &OrganisationId::fresh(), vcs, org, now)?;
    tx.sql()
        .prepare_cached(
            "INSERT INTO projects (id, organisation_id, vcs, org, repo, repository_url, default_branch, settings,
                next_pipeline_number, next_job_number, created_at_ms)
             SELECT ?1, id, ?2, ?3, ?4, ?5, ?6, ?7, 1, 1, ?8 FROM organisations WHERE vcs = ?2 AND name = ?3
             ON CONFLICT (vcs, org, repo) DO NOTHING",
        )?
        .execute(params![
            ProjectId::fresh(),
            vcs,
            org,
            repo,
            repository_url,
            DEFAULT_BRANCH,
            serde_json::to_string(&ProjectSettings::default())?,
            now
        ])?;
    let mut query = tx.sql().prepare_cached(
        "SELECT id, organisation_id FROM projects WHERE vcs = ?1 AND org = ?2 AND repo = ?3",
    )?;
    let row = |row: &rusqlite::Row<'_>| Ok(Ids { project: row.get(0)?, organisation: row.get(1)? });
    Ok(query.query_row([vcs, org, repo], row)?)
}

/// Finds the organisation of a project.
pub fn organisation_of(view: &View, project: &ProjectId) -> Result<Option<OrganisationId>, Error> {
    let mut query = view.sql().prepare_cached("SELECT organisation_id FROM projects WHERE id = ?1")?;
    Ok(query.query_row([project], |row| row.get(0)).optional()?)
}

/// Sets where a project is read from.
pub fn set_repository(
    tx: &Tx<'_>,
    project: &ProjectId,
    repository_url: Option<&str>,
    default_branch: &str,
) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("UPDATE projects SET repository_url = ?2, default_branch = ?3 WHERE id = ?1")?
        .execute(params![project, repository_url, default_branch])?;
    Ok(())
}

/// Whether a project has workflows that have not ended.
pub fn has_unfinished_workflows(view: &View, project: &ProjectId) -> Result<bool, Error> {
    let mut query = view
        .sql()
        .prepare_cached("SELECT 1 FROM workflows WHERE project_id = ?1 AND stopped_at_ms IS NULL")?;
    Ok(query.exists([project])?)
}

/// Reads the tasks of a project, whose output is stored elsewhere.
pub fn list_tasks(view: &View, project: &ProjectId) -> Result<Vec<TaskId>, Error> {
    let mut query = view.sql().prepare_cached("SELECT id FROM tasks WHERE project_id = ?1")?;
    Ok(query.query_map([project], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// Deletes a project with its pipelines and variables.
pub fn delete_project(tx: &Tx<'_>, project: &ProjectId) -> Result<(), Error> {
    tx.sql().prepare_cached("DELETE FROM projects WHERE id = ?1")?.execute([project])?;
    Ok(())
}

/// Reads the settings of a project.
pub fn settings(view: &View, project: &ProjectId) -> Result<Option<ProjectSettings>, Error> {
    let mut query = view.sql().prepare_cached("SELECT settings FROM projects WHERE id = ?1")?;
    let stored = query.query_row([project], |row| row.get::<_, Json<_>>(0)).optional()?;
    Ok(stored.map(|settings| settings.0))
}

/// Replaces the settings of a project.
pub fn set_settings(tx: &Tx<'_>, project: &ProjectId, settings: &ProjectSettings) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("UPDATE projects SET settings = ?2 WHERE id = ?1")?
        .execute(params![project, serde_json::to_string(settings)?])?;
    Ok(())
}

/// Draws the next number for a pipeline of the project with this slug. A number that is not used is not
/// drawn again.
pub fn draw_pipeline_number(tx: &Tx<'_>, slug: &str) -> Result<Option<PipelineNumber>, Error> {
    let mut query = tx.sql().prepare_cached(
        "UPDATE projects SET next_pipeline_number = next_pipeline_number + 1
         WHERE vcs = ?1 AND org = ?2 AND repo = ?3 RETURNING id, next_pipeline_number - 1",
    )?;
    let row = |row: &rusqlite::Row<'_>| Ok(PipelineNumber { project: row.get(0)?, number: row.get(1)? });
    Ok(query.query_row(parts(slug), row).optional()?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::server::store::Store;

    #[test]
    fn projects_are_made_once_numbered_and_their_damaged_settings_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), false, |_| ()).unwrap();
        store
            .write_blocking(|tx| {
                let made = ensure_project(tx, "gh/acme/app", Some("https://git.example.com/app"), Millis(0))?;
                let again = ensure_project(tx, "gh/acme/app", None, Millis(1))?;
                assert_eq!((&made.project, &made.organisation), (&again.project, &again.organisation));
                let numbers =
                    [(); 2].map(|()| draw_pipeline_number(tx, "gh/acme/app").unwrap().unwrap().number);
                assert_eq!(numbers, [1, 2]);
                assert!(draw_pipeline_number(tx, "gh/acme/other")?.is_none());

                let project = made.project;
                assert_eq!(settings(tx, &project)?, Some(ProjectSettings::default()));
                let on = ProjectSettings {
                    enable_auto_cancel_redundant_workflows: true,
                    ..ProjectSettings::default()
                };
                set_settings(tx, &project, &on)?;
                assert_eq!(settings(tx, &project)?, Some(on));
                tx.sql().execute("UPDATE projects SET settings = '{'", [])?;
                assert!(matches!(settings(tx, &project), Err(Error::Corrupt(_))));
                Ok(())
            })
            .unwrap();
    }
}
