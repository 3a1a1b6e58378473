//! Rows as tests of other rooms need them, and what became of them.

use crate::protocol::{ClaimRequest, TaskId, TaskKind};
use crate::server::ids::{JobId, PipelineId, ProjectId, WorkflowId};
use crate::server::store::status::{Kind, TaskState, WorkflowStatus};
use crate::server::store::tables::instances;
use crate::server::store::tables::tasks::TaskRow;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::types::FromSql;
use rusqlite::{OptionalExtension, Params, params};
use std::collections::BTreeMap;

fn one<T: FromSql>(view: &View, sql: &str, given: impl Params) -> Result<T, Error> {
    Ok(view.sql().query_row(sql, given, |row| row.get(0))?)
}

/// Makes the resource class `a/b`.
pub fn insert_class(tx: &Tx<'_>) -> Result<(), Error> {
    tx.sql().execute(
        "INSERT INTO resource_classes (id, name, description, created_at_ms) VALUES ('c', 'a/b', '', 0)",
        [],
    )?;
    Ok(())
}

/// Gives the only resource class another name: to tasks it is gone.
pub fn rename_class(tx: &Tx<'_>, name: &str) -> Result<(), Error> {
    tx.sql().execute("UPDATE resource_classes SET name = ?1", [name])?;
    Ok(())
}

/// The only project.
pub fn project(view: &View) -> Result<ProjectId, Error> {
    one(view, "SELECT id FROM projects", [])
}

/// Makes a pipeline of the only project, triggered over the API.
pub fn insert_pipeline(tx: &Tx<'_>, number: i64, branch: &str, now: Millis) -> Result<PipelineId, Error> {
    let id = PipelineId::fresh();
    tx.sql().execute(
        "INSERT INTO pipelines (id, project_id, number, state, created_at_ms, updated_at_ms, trigger_type, actor_login,
            branch, trigger_parameters, parameters, pipeline_values, errors, warnings, declared)
         SELECT ?1, id, ?2, 'created', ?3, ?3, 'api', 'ada', ?4, '{}', '{}', '{}', '[]', '[]', '{}' FROM projects",
        params![id, number, now, branch],
    )?;
    Ok(id)
}

/// Has newer pipelines of a branch cancel older ones, in every project.
pub fn set_cancels_redundant(tx: &Tx<'_>) -> Result<(), Error> {
    let settings = r#"{"enable_auto_cancel_redundant_workflows": true}"#;
    tx.sql().execute("UPDATE projects SET settings = ?1", [settings])?;
    Ok(())
}

/// The status of a workflow.
pub fn workflow_status(view: &View, workflow: &WorkflowId) -> Result<WorkflowStatus, Error> {
    one(view, "SELECT status FROM workflows WHERE id = ?1", [workflow])
}

/// The workflow that was made from another.
pub fn rerun_of(view: &View, workflow: &WorkflowId) -> Result<Option<WorkflowId>, Error> {
    let sql = "SELECT id FROM workflows WHERE rerun_of = ?1";
    Ok(view.sql().query_row(sql, [workflow], |row| row.get(0)).optional()?)
}

/// A job by its name, of any workflow.
pub fn job(view: &View, name: &str) -> Result<JobId, Error> {
    one(view, "SELECT id FROM jobs WHERE name = ?1", [name])
}

/// The tasks of a job that have not ended.
pub fn unfinished_tasks(view: &View, workflow: &WorkflowId, job: &str) -> Result<Vec<TaskId>, Error> {
    let mut query = view.sql().prepare(
        "SELECT t.id FROM tasks t JOIN jobs j ON j.id = t.job_id
         WHERE j.workflow_id = ?1 AND j.name = ?2 AND t.stopped_at_ms IS NULL",
    )?;
    Ok(query.query_map(params![workflow, job], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// The only task of a job.
pub fn task(view: &View, workflow: &WorkflowId, job: &str) -> Result<TaskId, Error> {
    let sql =
        "SELECT t.id FROM tasks t JOIN jobs j ON j.id = t.job_id WHERE j.workflow_id = ?1 AND j.name = ?2";
    one(view, sql, params![workflow, job])
}

/// The messages of all jobs of a workflow, as they are stored.
pub fn messages(view: &View, workflow: &WorkflowId) -> Result<String, Error> {
    one(view, "SELECT group_concat(messages) FROM jobs WHERE workflow_id = ?1", [workflow])
}

/// Rows that never change again: jobs, tasks and workflows that have ended, and how and when they did.
pub fn ended(view: &View) -> Result<BTreeMap<String, String>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT 'job ' || id, status || ' at ' || stopped_at_ms FROM jobs WHERE stopped_at_ms IS NOT NULL
         UNION ALL SELECT 'task ' || id, status || ' at ' || stopped_at_ms || ' by ' || ended_by FROM tasks WHERE stopped_at_ms IS NOT NULL
         UNION ALL SELECT 'workflow ' || id, status || ' at ' || stopped_at_ms FROM workflows WHERE stopped_at_ms IS NOT NULL",
    )?;
    Ok(query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?)
}

/// A job of a run of a workflow.
#[derive(Clone, Debug)]
pub struct JobOfRun {
    /// Id of the job.
    pub job: JobId,
    /// The run that it is of.
    pub run: WorkflowId,
    /// The first of the runs.
    pub root: WorkflowId,
    /// Place of the run among those of its pipeline.
    pub position: u64,
    /// Name of the job, the same in all runs.
    pub name: String,
    /// Whether the fence of one of its tasks stands.
    pub is_fenced: bool,
    /// Whether one of its tasks waits for a runner, and for nothing else.
    pub is_offered: bool,
    /// Whether one of its tasks waits for a fence.
    pub waits_for_fence: bool,
}

/// All jobs, in the order in which they were made.
pub fn jobs_of_runs(view: &View) -> Result<Vec<JobOfRun>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT j.id, w.id, w.root, w.position, j.name,
            EXISTS (SELECT 1 FROM tasks t WHERE t.job_id = j.id AND t.fence_until_ms IS NOT NULL),
            EXISTS (SELECT 1 FROM tasks t WHERE t.job_id = j.id AND t.status = ?1 AND t.not_before_ms IS NULL),
            EXISTS (SELECT 1 FROM tasks t WHERE t.job_id = j.id AND t.status = ?1 AND t.not_before_ms IS NOT NULL)
         FROM jobs j JOIN workflows w ON w.id = j.workflow_id ORDER BY j.rowid",
    )?;
    let jobs = query.query_map([TaskState::Queued], |row| {
        Ok(JobOfRun {
            job: row.get(0)?,
            run: row.get(1)?,
            root: row.get(2)?,
            position: row.get(3)?,
            name: row.get(4)?,
            is_fenced: row.get(5)?,
            is_offered: row.get(6)?,
            waits_for_fence: row.get(7)?,
        })
    })?;
    Ok(jobs.collect::<Result<_, _>>()?)
}

/// The jobs that have not ended.
pub fn unfinished_jobs(view: &View) -> Result<Vec<JobId>, Error> {
    let mut query = view.sql().prepare_cached("SELECT id FROM jobs WHERE stopped_at_ms IS NULL")?;
    Ok(query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// The workflow of a job.
pub fn run_of(view: &View, job: &JobId) -> Result<WorkflowId, Error> {
    one(view, "SELECT workflow_id FROM jobs WHERE id = ?1", [job])
}

/// All tasks, in the order in which they were made.
pub fn tasks(view: &View) -> Result<Vec<TaskId>, Error> {
    let mut query = view.sql().prepare_cached("SELECT id FROM tasks ORDER BY seq")?;
    Ok(query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// Gives the only project the pipeline number after all there are.
pub fn count_pipelines(tx: &Tx<'_>) -> Result<(), Error> {
    let sql =
        "UPDATE projects SET next_pipeline_number = (SELECT coalesce(max(number), 0) + 1 FROM pipelines)";
    tx.sql().execute(sql, [])?;
    Ok(())
}

/// The number of jobs that hold or wait for keys.
pub fn keys_in_use(view: &View) -> Result<u64, Error> {
    one(view, "SELECT count(*) FROM serial_claims", [])
}

/// Makes a pipeline of the only project with a job `j` that has ended, and its task `t`.
pub fn insert_ended_task(tx: &Tx<'_>) -> Result<TaskId, Error> {
    insert_pipeline(tx, 1, "main", Millis(0))?;
    tx.sql().execute_batch(
        "INSERT INTO workflows SELECT 'w', id, project_id, 'w', 0, 'success', 0, 0, 9, NULL, 0, NULL, NULL, 0, 0, NULL, 'w', 0, 'w', 0 FROM pipelines;
         INSERT INTO jobs (id, workflow_id, pipeline_id, project_id, position, name, kind, definition, requires,
            status, parallelism, messages, waits_for_lock, created_at_ms, stopped_at_ms)
         SELECT 'j', 'w', id, project_id, 0, 'j', 'build', '{}', '[]', 'success', 1, '[]', 0, 0, 9 FROM pipelines;
         INSERT INTO tasks (id, job_id, pipeline_id, project_id, node_index, attempt, resource_class, status,
            is_canceled, unclaims, next_event, queued_at_ms, started_at_ms, stopped_at_ms, ended_by)
         SELECT 't', 'j', pipeline_id, project_id, 0, 1, 'a/b', 'success', 0, 0, 0, 0, 6, 9, 'finish' FROM jobs;",
    )?;
    one(tx, "SELECT id FROM tasks", [])
}

/// Has the only job and its workflow go on: further attempts at it may follow.
pub fn reopen_job(tx: &Tx<'_>) -> Result<(), Error> {
    tx.sql().execute_batch(
        "UPDATE jobs SET status = 'running', stopped_at_ms = NULL; UPDATE workflows SET status = 'running', stopped_at_ms = NULL;",
    )?;
    Ok(())
}

/// Has the only task wait in its queue again, as a row says that it does.
pub fn set_waiting(tx: &Tx<'_>, row: &TaskRow) -> Result<(), Error> {
    tx.sql().execute(
        "UPDATE tasks SET status = ?1, is_held = ?2, not_before_ms = ?3, avoid_runner = ?4, avoid_until_ms = ?5, kind = ?6",
        params![row.status, row.is_held, row.not_before, row.avoid_runner, row.avoid_until, Kind(row.kind)],
    )?;
    Ok(())
}

/// A runner of the only class asks for work.
pub fn insert_runner(tx: &Tx<'_>, name: &str, takes: TaskKind, now: Millis) -> Result<(), Error> {
    let class = tx.sql().query_row("SELECT id FROM resource_classes", [], |row| row.get(0))?;
    let request = ClaimRequest {
        name: name.to_owned(),
        hostname: String::new(),
        version: String::new(),
        os: String::new(),
        arch: String::new(),
        nonce: String::new(),
        machine_id: None,
        boot_id: None,
        takes: vec![takes],
        resource_class: None,
    };
    instances::seen(tx, &class, &request, "", now)
}

/// Forgets all runners.
pub fn remove_runners(tx: &Tx<'_>) -> Result<(), Error> {
    tx.sql().execute("DELETE FROM runner_instances", [])?;
    Ok(())
}

/// Makes an artifact of the only task, at the beginning of time.
pub fn insert_artifact(tx: &Tx<'_>, sha256: &str) -> Result<(), Error> {
    tx.sql().execute(
        "INSERT INTO artifacts (id, job_id, project_id, task_id, node_index, step, path, sha256, length, created_at_ms)
         SELECT 'a', job_id, project_id, id, 0, 1, 'x', ?1, 1, 0 FROM tasks",
        [sha256],
    )?;
    Ok(())
}

/// Makes a job of two nodes in a workflow that is not there: see [`without_references`].
pub fn insert_job(
    tx: &Tx<'_>,
    id: &str,
    name: &str,
    project: &str,
    stopped_at_ms: Option<u64>,
) -> Result<(), Error> {
    tx.sql().execute(
        "INSERT INTO jobs (id, workflow_id, pipeline_id, project_id, position, name, kind, definition, requires,
            status, parallelism, messages, waits_for_lock, created_at_ms, stopped_at_ms)
         VALUES (?1, 'w', 'p', ?3, (SELECT count(*) FROM jobs), ?2, 'build', '{}', '[]', 'success', 2, '[]', 0, 0, ?4)",
        params![id, name, project, stopped_at_ms],
    )?;
    Ok(())
}

/// Ends a job.
pub fn stop_job(tx: &Tx<'_>, id: &str) -> Result<(), Error> {
    tx.sql().execute("UPDATE jobs SET stopped_at_ms = 9 WHERE id = ?1", [id])?;
    Ok(())
}

/// Does work on jobs whose workflows are not there, and forgets them at its end.
pub fn without_references<T>(
    tx: &Tx<'_>,
    work: impl FnOnce(&Tx<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    tx.sql().execute_batch("PRAGMA defer_foreign_keys = ON")?;
    let result = work(tx);
    tx.sql().execute_batch("DELETE FROM test_results; DELETE FROM jobs_with_tests; DELETE FROM jobs;")?;
    result
}
