//! Workflows, as the API and the pages show them.
//!
//! Only SQLite: nothing.

use crate::server::ids::{JobId, PipelineId, UserId, WorkflowId};
use crate::server::store::read::project::{PROJECT, ProjectRef};
use crate::server::store::status::WorkflowStatus;
use crate::server::store::{Error, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, Row, params};

/// Workflow of a pipeline, as the API and the pages show it.
#[derive(Clone, Debug)]
pub struct Workflow {
    /// Identifies it in URLs.
    pub id: WorkflowId,
    /// Name in the config.
    pub name: String,
    /// Status as every API shows it.
    pub status: WorkflowStatus,
    /// The pipeline that it is part of.
    pub pipeline_id: PipelineId,
    /// Number of the pipeline.
    pub pipeline_number: i64,
    /// The project that it belongs to.
    pub project: ProjectRef,
    /// Time at which it was made.
    pub created_at: Millis,
    /// Time at which it came to rest.
    pub stopped_at: Option<Millis>,
    /// The person who started it: the rerun, else the pipeline.
    pub started_by: Option<UserId>,
    /// The person who cancelled it.
    pub canceled_by: Option<UserId>,
    /// Whether it is of a setup config.
    pub is_setup: bool,
    /// Automatic reruns that the config allows.
    pub max_auto_reruns: u32,
    /// Which of them this is; 0 for the original and manual reruns.
    pub auto_rerun_number: u32,
}

fn query(rest: &str) -> String {
    format!(
        "SELECT w.id, w.name, w.status, w.pipeline_id, p.number, w.created_at_ms, w.stopped_at_ms,
            coalesce(w.started_by, p.actor_id), w.canceled_by, w.is_setup, w.max_auto_reruns, w.auto_rerun_number, {PROJECT}
         FROM workflows w JOIN pipelines p ON p.id = w.pipeline_id JOIN projects r ON r.id = w.project_id {rest}"
    )
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Workflow> {
    Ok(Workflow {
        id: row.get(0)?,
        name: row.get(1)?,
        status: row.get(2)?,
        pipeline_id: row.get(3)?,
        pipeline_number: row.get(4)?,
        created_at: row.get(5)?,
        stopped_at: row.get(6)?,
        started_by: row.get(7)?,
        canceled_by: row.get(8)?,
        is_setup: row.get(9)?,
        max_auto_reruns: row.get(10)?,
        auto_rerun_number: row.get(11)?,
        project: ProjectRef::from_row(row, 12)?,
    })
}

/// Finds a workflow by its id.
pub fn workflow(view: &View, id: &WorkflowId) -> Result<Option<Workflow>, Error> {
    let mut query = view.sql().prepare_cached(&query("WHERE w.id = ?1"))?;
    Ok(query.query_row([id], from_row).optional()?)
}

/// Whether there is a workflow with this id.
pub fn is_workflow(view: &View, id: &WorkflowId) -> Result<bool, Error> {
    Ok(view.sql().prepare_cached("SELECT 1 FROM workflows WHERE id = ?1")?.exists([id])?)
}

/// Reads the workflows of a pipeline, in the order in which they were made.
pub fn workflows_of(view: &View, pipeline: &PipelineId) -> Result<Vec<Workflow>, Error> {
    let mut query = view.sql().prepare_cached(&query("WHERE w.pipeline_id = ?1 ORDER BY w.position"))?;
    Ok(query.query_map([pipeline], from_row)?.collect::<Result<_, _>>()?)
}

/// The last workflow that has a job: that of its making, or a later one that keeps its result. `ran_as` is that of
/// [`Job`](super::Job).
pub fn latest_workflow_with(
    view: &View,
    pipeline: &PipelineId,
    ran_as: &JobId,
) -> Result<Option<(WorkflowId, String)>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT w.id, w.name FROM jobs j JOIN workflows w ON w.id = j.workflow_id
         WHERE j.pipeline_id = ?1 AND coalesce(j.reused_from, j.id) = ?2 ORDER BY w.position DESC LIMIT 1",
    )?;
    Ok(query.query_row(params![pipeline, ran_as], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}
