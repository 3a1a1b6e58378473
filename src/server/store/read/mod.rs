//! What is stored, read for people's clients: typed rows, from which each version of the API renders.
//!
//! One query for each need; statuses stay words of the store, and `api` puts them into each version's
//! own. Nothing here decides or writes.

mod job;
mod output;
mod pipeline;
mod project;
mod workflow;

pub use job::{
    Artifact, Attempt, Job, StepRow, Test, artifacts, attempts, job, job_by_number, jobs_of, recent_jobs,
    tests,
};
pub use output::{EXTENT, Extent};
pub use pipeline::{Cursor, Filter, Listed, Pipeline, RunStatus, pipeline, pipeline_by_number, pipelines};
pub use project::{Project, project, project_by_slug, project_slug, projects_of, projects_of_some};
pub use workflow::{Workflow, workflow, workflows_of};

use rusqlite::Row;

/// The project that something belongs to.
#[derive(Clone, Debug)]
pub struct ProjectRef {
    /// UUID.
    pub id: String,
    /// UUID.
    pub organisation: String,
    /// Short name of the version control system.
    pub vcs: String,
    /// Organisation.
    pub org: String,
    /// Repository.
    pub repo: String,
    /// What git fetches from.
    pub repository_url: Option<String>,
}

/// Columns of [`ProjectRef`], of the table `projects` as `r`.
const PROJECT: &str = "r.id, r.organisation_id, r.vcs, r.org, r.repo, r.repository_url";

impl ProjectRef {
    fn from_row(row: &Row<'_>, at: usize) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(at)?,
            organisation: row.get(at + 1)?,
            vcs: row.get(at + 2)?,
            org: row.get(at + 3)?,
            repo: row.get(at + 4)?,
            repository_url: row.get(at + 5)?,
        })
    }

    /// `vcs/org/repo`.
    pub fn slug(&self) -> String {
        format!("{}/{}/{}", self.vcs, self.org, self.repo)
    }
}
