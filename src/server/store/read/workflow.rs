//! Workflows.

use crate::server::store::Error;
use crate::server::store::View;
use crate::server::store::read::{PROJECT, ProjectRef};
use crate::server::store::status::WorkflowStatus;
use rusqlite::{OptionalExtension, Row};

/// A workflow.
#[derive(Clone, Debug)]
pub struct Workflow {
    /// UUID.
    pub id: String,
    /// From the config.
    pub name: String,
    /// Where it stands.
    pub status: WorkflowStatus,
    /// UUID.
    pub pipeline_id: String,
    /// Number of the pipeline.
    pub pipeline_number: i64,
    /// Whose it is.
    pub project: ProjectRef,
    /// When it was made.
    pub created_at_ms: i64,
    /// When it came to rest.
    pub stopped_at_ms: Option<i64>,
    /// UUID of who started it: of the rerun, else of the pipeline.
    pub started_by: Option<String>,
    /// UUID.
    pub canceled_by: Option<String>,
    /// Of a setup config.
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
        created_at_ms: row.get(5)?,
        stopped_at_ms: row.get(6)?,
        started_by: row.get(7)?,
        canceled_by: row.get(8)?,
        is_setup: row.get(9)?,
        max_auto_reruns: row.get(10)?,
        auto_rerun_number: row.get(11)?,
        project: ProjectRef::from_row(row, 12)?,
    })
}

/// A workflow by its id.
pub fn workflow(c: &View, id: &str) -> Result<Option<Workflow>, Error> {
    Ok(c.prepare_cached(&query("WHERE w.id = ?1"))?.query_row([id], from_row).optional()?)
}

/// The workflows of a pipeline, in the order in which they were made.
pub fn workflows_of(c: &View, pipeline: &str) -> Result<Vec<Workflow>, Error> {
    let mut query = c.prepare_cached(&query("WHERE w.pipeline_id = ?1 ORDER BY w.position"))?;
    Ok(query.query_map([pipeline], from_row)?.collect::<Result<_, _>>()?)
}
