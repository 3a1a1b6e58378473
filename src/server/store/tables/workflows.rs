//! Workflows: made, made again, cancelled, brought to rest.
//!
//! Only SQLite: flags are integers.

use crate::server::ids::{PipelineId, ProjectId, UserId, WorkflowId, WorkspaceId};
use crate::server::store::status::{JobStatus, TriggerType, WorkflowStatus};
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, params};

/// A workflow that is about to be stored, at the end of its pipeline.
#[derive(Clone, Debug)]
pub struct NewWorkflow<'a> {
    /// The pipeline that it is of.
    pub pipeline: &'a PipelineId,
    /// The project of that pipeline.
    pub project: &'a ProjectId,
    /// The name in the config.
    pub name: &'a str,
    /// Whether its jobs may continue the pipeline.
    pub is_setup: bool,
    /// How often it reruns by itself.
    pub max_auto_reruns: u32,
    /// The status that it begins with.
    pub status: WorkflowStatus,
    /// The time of its creation.
    pub created_at: Millis,
}

/// Stores a workflow, the first of its chain of reruns.
pub fn insert_workflow(tx: &Tx<'_>, new: &NewWorkflow<'_>) -> Result<WorkflowId, Error> {
    let id = WorkflowId::fresh();
    tx.sql()
        .prepare_cached(
            "INSERT INTO workflows (id, pipeline_id, project_id, name, position, status, is_setup, created_at_ms,
                is_canceled, max_auto_reruns, auto_rerun_number, root, is_manual_rerun, workspace_id)
             VALUES (?1, ?2, ?3, ?4, (SELECT count(*) FROM workflows WHERE pipeline_id = ?2), ?5, ?6, ?7, 0, ?8, 0, ?1, 0, ?9)",
        )?
        .execute(params![
            id,
            new.pipeline,
            new.project,
            new.name,
            new.status,
            new.is_setup,
            new.created_at,
            new.max_auto_reruns,
            WorkspaceId::fresh()
        ])?;
    Ok(id)
}

/// A further run of a workflow.
#[derive(Clone, Debug)]
pub struct NewRerun<'a> {
    /// The workflow that it is made from.
    pub of: &'a WorkflowId,
    /// The person who asked for it.
    pub by: Option<&'a UserId>,
    /// The first workflow of the chain.
    pub root: &'a WorkflowId,
    /// The how manieth automatic rerun it is; `None` when somebody asked for it.
    pub automatic: Option<u32>,
    /// Whether that person asked for it whatever the runs before may be doing.
    pub is_forced: bool,
    /// The status that it begins with.
    pub status: WorkflowStatus,
    /// The time of its creation.
    pub created_at: Millis,
}

/// Stores a rerun, at the end of the pipeline of its original, with the original's workspace.
pub fn insert_rerun(tx: &Tx<'_>, new: &NewRerun<'_>) -> Result<WorkflowId, Error> {
    let id = WorkflowId::fresh();
    tx.sql()
        .prepare_cached(
            "INSERT INTO workflows (id, pipeline_id, project_id, name, position, status, is_setup, created_at_ms, started_by,
                is_canceled, max_auto_reruns, auto_rerun_number, rerun_of, root, is_manual_rerun, workspace_id, is_forced)
             SELECT ?2, pipeline_id, project_id, name, (SELECT count(*) FROM workflows p WHERE p.pipeline_id = w.pipeline_id),
                ?3, is_setup, ?4, ?5, 0, max_auto_reruns, ?6, ?1, ?7, ?8, workspace_id, ?9 FROM workflows w WHERE id = ?1",
        )?
        .execute(params![
            new.of,
            id,
            new.status,
            new.created_at,
            new.by,
            new.automatic.unwrap_or(0),
            new.root,
            new.automatic.is_none(),
            new.is_forced
        ])?;
    Ok(id)
}

/// A workflow, as far as it matters for whether it goes on.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The pipeline that it is of.
    pub pipeline: PipelineId,
    /// Whether somebody asked to cancel it.
    pub is_canceled: bool,
    /// Whether nothing happens to it any more.
    pub has_ended: bool,
    /// Status of the workflow as a whole.
    pub status: WorkflowStatus,
}

/// Reads how far a workflow is; an error when there is none.
pub fn progress(view: &View, workflow: &WorkflowId) -> Result<Progress, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT pipeline_id, is_canceled, stopped_at_ms IS NOT NULL, status FROM workflows WHERE id = ?1",
    )?;
    Ok(query.query_row([workflow], |row| {
        Ok(Progress {
            pipeline: row.get(0)?,
            is_canceled: row.get(1)?,
            has_ended: row.get(2)?,
            status: row.get(3)?,
        })
    })?)
}

/// Sets the status, and the time of the end when that is one.
pub fn set_status(
    tx: &Tx<'_>,
    workflow: &WorkflowId,
    status: WorkflowStatus,
    stopped_at: Option<Millis>,
) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("UPDATE workflows SET status = ?2, stopped_at_ms = ?3 WHERE id = ?1")?
        .execute(params![workflow, status, stopped_at])?;
    Ok(())
}

/// Notes that somebody asked to cancel a workflow. False when it has ended or does not exist.
pub fn mark_canceled(tx: &Tx<'_>, workflow: &WorkflowId, by: Option<&UserId>) -> Result<bool, Error> {
    let marked = tx
        .sql()
        .prepare_cached(
            "UPDATE workflows SET is_canceled = 1, canceled_by = ?2 WHERE id = ?1 AND stopped_at_ms IS NULL",
        )?
        .execute(params![workflow, by])?;
    Ok(marked > 0)
}

/// Whether there is such a workflow.
pub fn exists(view: &View, workflow: &WorkflowId) -> Result<bool, Error> {
    Ok(view.sql().prepare_cached("SELECT 1 FROM workflows WHERE id = ?1")?.exists([workflow])?)
}

/// Whether a rerun was made of a workflow.
pub fn has_rerun(view: &View, workflow: &WorkflowId) -> Result<bool, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT 1 FROM workflows w JOIN workflows again ON again.pipeline_id = w.pipeline_id
         WHERE w.id = ?1 AND again.rerun_of = w.id",
    )?;
    Ok(query.exists([workflow])?)
}

/// A workflow, as far as it matters for whether it can run again.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The first workflow of its chain of reruns.
    pub root: WorkflowId,
    /// Whether nothing happens to it any more.
    pub has_ended: bool,
    /// The age of what it runs.
    pub pipeline_created_at: Millis,
    /// The number of workflows in the chain.
    pub generations: u64,
}

/// Reads what a workflow was made from.
pub fn chain(view: &View, workflow: &WorkflowId) -> Result<Option<Chain>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT w.root, w.stopped_at_ms IS NOT NULL, p.created_at_ms,
            (SELECT count(*) FROM workflows again WHERE again.pipeline_id = w.pipeline_id AND again.root = w.root)
         FROM workflows w JOIN pipelines p ON p.id = w.pipeline_id WHERE w.id = ?1",
    )?;
    let found = query.query_row([workflow], |row| {
        Ok(Chain {
            root: row.get(0)?,
            has_ended: row.get(1)?,
            pipeline_created_at: row.get(2)?,
            generations: row.get(3)?,
        })
    });
    Ok(found.optional()?)
}

/// A workflow, as far as it matters for whether it runs again by itself.
#[derive(Clone, Copy, Debug)]
pub struct AutoReruns {
    /// The number of automatic reruns that led to it.
    pub done: u32,
    /// The number that its config allows.
    pub most: u32,
    /// Whether somebody asked to cancel it.
    pub is_canceled: bool,
    /// Whether somebody asked for this very run.
    pub is_manual_rerun: bool,
}

/// Reads how often a workflow ran again by itself; an error when there is none.
pub fn auto_reruns(view: &View, workflow: &WorkflowId) -> Result<AutoReruns, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT auto_rerun_number, max_auto_reruns, is_canceled, is_manual_rerun FROM workflows WHERE id = ?1",
    )?;
    Ok(query.query_row([workflow], |row| {
        Ok(AutoReruns {
            done: row.get(0)?,
            most: row.get(1)?,
            is_canceled: row.get(2)?,
            is_manual_rerun: row.get(3)?,
        })
    })?)
}

/// The workflows that have not ended, were made before a time, and of which nothing runs.
pub fn unfinished_before(view: &View, before: Millis) -> Result<Vec<WorkflowId>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT id FROM workflows AS w WHERE stopped_at_ms IS NULL AND created_at_ms < ?1
                AND NOT EXISTS (SELECT 1 FROM jobs WHERE workflow_id = w.id AND status = ?2)",
    )?;
    let found = query.query_map(params![before, JobStatus::Running], |row| row.get(0))?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// A pipeline, as far as it matters for whether it makes older ones pointless.
#[derive(Clone, Debug)]
pub struct Newest {
    /// Project of the workflow.
    pub project: ProjectId,
    /// Number of the pipeline in the project.
    pub number: i64,
    /// Branch of the pipeline, unless it builds none.
    pub branch: Option<String>,
    /// The kind of its trigger.
    pub trigger_type: TriggerType,
    /// The default branch of the project.
    pub default_branch: String,
}

/// Reads a pipeline with the default branch of its project; an error when there is none.
pub fn newest(view: &View, pipeline: &PipelineId) -> Result<Newest, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT r.id, p.number, p.branch, p.trigger_type, r.default_branch
         FROM pipelines p JOIN projects r ON r.id = p.project_id WHERE p.id = ?1",
    )?;
    Ok(query.query_row([pipeline], |row| {
        Ok(Newest {
            project: row.get(0)?,
            number: row.get(1)?,
            branch: row.get(2)?,
            trigger_type: row.get(3)?,
            default_branch: row.get(4)?,
        })
    })?)
}

/// A workflow of an older pipeline.
#[derive(Clone, Debug)]
pub struct Older {
    /// Workflow that a newer pipeline may make superfluous.
    pub workflow: WorkflowId,
    /// The kind of the trigger of its pipeline.
    pub trigger_type: TriggerType,
    /// Whether it is a rerun.
    pub is_rerun: bool,
}

/// The workflows of a branch that have not ended, of pipelines before a number.
pub fn unfinished_of_branch(
    view: &View,
    project: &ProjectId,
    branch: &str,
    before: i64,
) -> Result<Vec<Older>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT w.id, p.trigger_type, w.rerun_of IS NOT NULL
         FROM pipelines p JOIN workflows w ON w.pipeline_id = p.id
         WHERE p.project_id = ?1 AND p.branch = ?2 AND p.number < ?3 AND w.stopped_at_ms IS NULL",
    )?;
    let found = query.query_map(params![project, branch, before], |row| {
        Ok(Older { workflow: row.get(0)?, trigger_type: row.get(1)?, is_rerun: row.get(2)? })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}
