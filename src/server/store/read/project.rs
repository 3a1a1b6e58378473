//! Projects, as their settings and their lists show them.
//!
//! Only SQLite: nothing.

use crate::server::ids::{OrganisationId, ProjectId};
use crate::server::store::{Error, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, Row, params};

/// A project as the settings need it.
#[derive(Clone, Debug)]
pub struct Project {
    /// Identifies it in URLs.
    pub id: ProjectId,
    /// Organisation that owns the project.
    pub organisation: OrganisationId,
    /// `vcs/org/repo`, with the short name of the version control system.
    pub slug: String,
    /// URL that git fetches from.
    pub repository_url: Option<String>,
    /// Branch that is built when a trigger names neither branch nor tag.
    pub default_branch: String,
    /// Time of its making.
    pub created_at: Millis,
}

/// Columns of [`Project`], of the table `projects` alone.
const SETTINGS: &str =
    "SELECT id, organisation_id, vcs || '/' || org || '/' || repo, repository_url, default_branch,
    created_at_ms FROM projects";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Project> {
    Ok(Project {
        id: row.get(0)?,
        organisation: row.get(1)?,
        slug: row.get(2)?,
        repository_url: row.get(3)?,
        default_branch: row.get(4)?,
        created_at: row.get(5)?,
    })
}

/// Finds a project by its id.
pub fn project(view: &View, id: &ProjectId) -> Result<Option<Project>, Error> {
    let mut query = view.sql().prepare_cached(&format!("{SETTINGS} WHERE id = ?1"))?;
    Ok(query.query_row([id], from_row).optional()?)
}

/// Finds a project by its slug with the short name of the version control system.
pub fn project_by_slug(view: &View, slug: &str) -> Result<Option<Project>, Error> {
    let mut parts = slug.splitn(3, '/');
    let key = [parts.next(), parts.next(), parts.next()];
    let mut query =
        view.sql().prepare_cached(&format!("{SETTINGS} WHERE vcs = ?1 AND org = ?2 AND repo = ?3"))?;
    Ok(query.query_row(key, from_row).optional()?)
}

/// Reads the slug of a project.
pub fn project_slug(view: &View, id: &ProjectId) -> Result<Option<String>, Error> {
    Ok(project(view, id)?.map(|project| project.slug))
}

/// Reads the projects of an organisation by name, or the one of them whose repository has this name.
pub fn projects_of(
    view: &View,
    organisation: &OrganisationId,
    repo: Option<&str>,
) -> Result<Vec<Project>, Error> {
    let mut query = view.sql().prepare_cached(&format!(
        "{SETTINGS} WHERE organisation_id = ?1 AND (?2 IS NULL OR repo = ?2) ORDER BY repo"
    ))?;
    Ok(query.query_map(params![organisation, repo], from_row)?.collect::<Result<_, _>>()?)
}

/// Reads the projects of one organisation, or of all, by slug.
pub fn projects_of_some(view: &View, organisation: Option<&OrganisationId>) -> Result<Vec<Project>, Error> {
    let mut query = view
        .sql()
        .prepare_cached(&format!("{SETTINGS} WHERE ?1 IS NULL OR organisation_id = ?1 ORDER BY 3"))?;
    Ok(query.query_map([organisation], from_row)?.collect::<Result<_, _>>()?)
}

/// The project that something belongs to.
#[derive(Clone, Debug)]
pub struct ProjectRef {
    /// Identifies it in URLs.
    pub id: ProjectId,
    /// Organisation that owns the project.
    pub organisation: OrganisationId,
    /// Short name of the version control system, such as `gh`.
    pub vcs: String,
    /// Name of the organisation.
    pub org: String,
    /// Name of the repository.
    pub repo: String,
    /// URL that git fetches from.
    pub repository_url: Option<String>,
    /// Branch that is built when a trigger names neither branch nor tag.
    pub default_branch: String,
}

/// Columns of [`ProjectRef`], of the table `projects` as `r`.
pub(super) const PROJECT: &str =
    "r.id, r.organisation_id, r.vcs, r.org, r.repo, r.repository_url, r.default_branch";

impl ProjectRef {
    /// Reads a row that has the columns of [`PROJECT`] from `at`.
    pub(super) fn from_row(row: &Row<'_>, at: usize) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(at)?,
            organisation: row.get(at + 1)?,
            vcs: row.get(at + 2)?,
            org: row.get(at + 3)?,
            repo: row.get(at + 4)?,
            repository_url: row.get(at + 5)?,
            default_branch: row.get(at + 6)?,
        })
    }

    /// Returns the slug, `vcs/org/repo`.
    pub fn slug(&self) -> String {
        format!("{}/{}/{}", self.vcs, self.org, self.repo)
    }
}

/// Reads all projects with the parts of their slugs, in their order.
pub fn project_refs(view: &View) -> Result<Vec<ProjectRef>, Error> {
    let sql = format!("SELECT {PROJECT} FROM projects r ORDER BY r.vcs, r.org, r.repo");
    let mut query = view.sql().prepare_cached(&sql)?;
    Ok(query.query_map([], |row| ProjectRef::from_row(row, 0))?.collect::<Result<_, _>>()?)
}
