//! Description of a task, over the tables that it comes from.
//!
//! Only SQLite: nothing.

use crate::config::WorkflowJob;
use crate::protocol::{TaskId, TaskKind};
use crate::server::ids::{JobId, OrganisationId, PipelineId, ProjectId, WorkflowId, WorkspaceId};
use crate::server::store::json::Json;
use crate::server::store::status::Kind;
use crate::server::store::tables::pipelines::PullFacts;
use crate::server::store::{Error, View};

/// A task with everything around it that its agent is told of.
#[derive(Clone, Debug)]
pub struct Described {
    /// The node of the job that it is, from 0.
    pub node_index: u32,
    /// The number of nodes.
    pub node_total: u32,
    /// The kind of runner that it is for.
    pub kind: TaskKind,
    /// Job that the task is an attempt at.
    pub job: JobId,
    /// The name of the job in its workflow.
    pub job_name: String,
    /// The number of the job in the project.
    pub job_number: i64,
    /// The job as it was compiled.
    pub definition: WorkflowJob,
    /// Whether another job was chosen whose timings it goes by.
    pub has_test_timings: bool,
    /// Workflow of the job.
    pub workflow: WorkflowId,
    /// The workspace of the workflow.
    pub workspace: WorkspaceId,
    /// Whether the workflow may continue its pipeline.
    pub is_setup: bool,
    /// Pipeline of the workflow.
    pub pipeline: PipelineId,
    /// Whether the pipeline has gone on already.
    pub is_continued: bool,
    /// The login of who started the pipeline.
    pub actor: String,
    /// Pull requests that its jobs are told of.
    pub pull: Option<PullFacts>,
    /// The revision to check out.
    pub revision: PipelineRevision,
    /// Project of the pipeline.
    pub project: ProjectId,
    /// The organisation of the project.
    pub organisation: OrganisationId,
    /// The first part of the slug of the project.
    pub vcs: String,
    /// The second part.
    pub org: String,
    /// The third part.
    pub repo: String,
}

/// The revision of a pipeline, as far as it is known.
#[derive(Clone, Debug)]
pub struct PipelineRevision {
    /// The address that git fetches from.
    pub repository_url: Option<String>,
    /// The full commit id.
    pub revision: Option<String>,
    /// The branch, unless a tag is built.
    pub branch: Option<String>,
    /// Tag that is built, without `refs/tags/`.
    pub tag: Option<String>,
    /// The full ref.
    pub reference: Option<String>,
    /// The default branch of the project.
    pub default_branch: String,
}

/// Reads what a task is described by; an error when there is no such task.
pub fn described(view: &View, task: &TaskId) -> Result<Described, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT t.node_index, j.parallelism, j.id, j.name, j.number, j.definition, j.timings_of IS NOT NULL,
            w.id, w.workspace_id, w.is_setup, p.id, p.continued_at_ms IS NOT NULL, p.actor_login,
            p.repository_url, p.revision, p.branch, p.tag, p.reference,
            r.id, r.organisation_id, r.vcs, r.org, r.repo, p.pull, r.default_branch, t.kind
         FROM tasks t JOIN jobs j ON j.id = t.job_id JOIN workflows w ON w.id = j.workflow_id
            JOIN pipelines p ON p.id = t.pipeline_id JOIN projects r ON r.id = t.project_id WHERE t.id = ?1",
    )?;
    let mut rows = query.query([task])?;
    let Some(row) = rows.next()? else {
        return Err(Error::Corrupt(format!("the task `{task}` is of no job")));
    };
    Ok(Described {
        node_index: row.get(0)?,
        node_total: row.get(1)?,
        kind: row.get::<_, Kind>(25)?.0,
        job: row.get(2)?,
        job_name: row.get(3)?,
        job_number: row.get(4)?,
        definition: row.get::<_, Json<_>>(5)?.0,
        has_test_timings: row.get(6)?,
        workflow: row.get(7)?,
        workspace: row.get(8)?,
        is_setup: row.get(9)?,
        pipeline: row.get(10)?,
        is_continued: row.get(11)?,
        actor: row.get(12)?,
        revision: PipelineRevision {
            repository_url: row.get(13)?,
            revision: row.get(14)?,
            branch: row.get(15)?,
            tag: row.get(16)?,
            reference: row.get(17)?,
            default_branch: row.get(24)?,
        },
        project: row.get(18)?,
        organisation: row.get(19)?,
        vcs: row.get(20)?,
        org: row.get(21)?,
        repo: row.get(22)?,
        pull: row.get::<_, Option<Json<_>>>(23)?.map(|pull| pull.0),
    })
}
