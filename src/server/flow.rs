//! Commits what the engine decides: jobs start, tasks queue, ends spread, workflows come to rest.
//!
//! Everything here runs inside one transaction of the caller's, with the time passed in.

use super::engine::{self, Decision, Node};
use super::store::status::{JobStatus, JobType, TaskState, WorkflowStatus};
use super::store::{Effect, Error, Tx, new_id};
use crate::config::{JobKind, Workflow, WorkflowJob};
use crate::protocol::TaskId;
use rusqlite::{OptionalExtension, params};

/// Where the tasks of a job queue.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// Every task goes to this class, whatever its job names.
    pub route_all_to: Option<String>,
}

/// Stores a workflow and starts what can start. Returns its id.
pub fn create_workflow(
    tx: &Tx<'_>,
    pipeline: &str,
    project: &str,
    workflow: &Workflow,
    routing: &Routing,
    now: u64,
) -> Result<String, Error> {
    let id = new_id();
    let now_ms = now as i64;
    tx.prepare_cached(
        "INSERT INTO workflows (id, pipeline_id, project_id, name, position, status, is_setup, created_at_ms,
            is_canceled, max_auto_reruns, auto_rerun_number, root, is_manual_rerun, workspace_id)
         VALUES (?1, ?2, ?3, ?4, (SELECT count(*) FROM workflows WHERE pipeline_id = ?2), ?5, 0, ?6, 0, ?7, 0, ?1, 0, ?8)",
    )?
    .execute(params![id, pipeline, project, workflow.name, WorkflowStatus::Running, now_ms, workflow.max_auto_reruns, new_id()])?;
    for (position, job) in workflow.jobs.iter().enumerate() {
        let (class, parallelism) = match &job.kind {
            JobKind::Build { job } => (Some(job.resource_class.clone()), job.parallelism),
            _ => (None, 1),
        };
        let class = class.map(|class| routing.route_all_to.clone().unwrap_or(class));
        tx.prepare_cached(
            "INSERT INTO jobs (id, workflow_id, pipeline_id, project_id, position, name, kind, definition, status,
                resource_class, parallelism, messages, waits_for_lock, created_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, '[]', 0, ?12)",
        )?
        .execute(params![
            new_id(),
            id,
            pipeline,
            project,
            position as i64,
            job.name,
            JobType::from(&job.kind),
            serde_json::to_string(job)?,
            JobStatus::Blocked,
            class,
            parallelism,
            now_ms
        ])?;
    }
    advance(tx, &id, now)?;
    Ok(id)
}

/// Starts what can start, gives up what cannot, and brings the workflow's status up to date.
pub fn advance(tx: &Tx<'_>, workflow: &str, now: u64) -> Result<(), Error> {
    let (pipeline, canceled): (String, bool) = tx
        .prepare_cached("SELECT pipeline_id, is_canceled FROM workflows WHERE id = ?1")?
        .query_row([workflow], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (ids, mut nodes) = nodes(tx, workflow)?;
    // A cancelled workflow starts nothing more.
    if !canceled {
        loop {
            let decisions = engine::advance(&nodes);
            for &(index, decision) in &decisions {
                nodes[index].status = match decision {
                    Decision::NotRun => end_job(tx, &ids[index], JobStatus::NotRun, now)?,
                    Decision::Start => start_job(tx, &ids[index], nodes[index].kind, now)?,
                };
            }
            // A job that could not be started has ended, which decides about others.
            if decisions.is_empty() {
                break;
            }
        }
    }
    let statuses: Vec<_> = nodes.iter().map(|node| node.status).collect();
    let status = engine::workflow_status(&statuses, canceled);
    let stopped = status.is_terminal().then_some(now as i64);
    tx.prepare_cached(
        "UPDATE workflows SET status = ?2, stopped_at_ms = coalesce(stopped_at_ms, ?3) WHERE id = ?1",
    )?
    .execute(params![workflow, status, stopped])?;
    tx.effect(Effect::Changed(pipeline));
    Ok(())
}

fn nodes(tx: &Tx<'_>, workflow: &str) -> Result<(Vec<String>, Vec<Node>), Error> {
    let mut query = tx.prepare_cached(
        "SELECT id, name, kind, status, definition FROM jobs WHERE workflow_id = ?1 ORDER BY position",
    )?;
    let mut rows = query.query([workflow])?;
    let (mut ids, mut nodes) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let definition: WorkflowJob = serde_json::from_str(&row.get::<_, String>(4)?)?;
        ids.push(row.get(0)?);
        nodes.push(Node {
            name: row.get(1)?,
            kind: row.get(2)?,
            requires: definition.requires,
            status: row.get(3)?,
        });
    }
    Ok((ids, nodes))
}

/// The job's turn has come. Returns its status from now on.
fn start_job(tx: &Tx<'_>, job: &str, kind: JobType, now: u64) -> Result<JobStatus, Error> {
    match kind {
        JobType::Approval => set_status(tx, job, JobStatus::OnHold),
        JobType::NoOp | JobType::Lock | JobType::Unlock => end_job(tx, job, JobStatus::Success, now),
        JobType::Build => queue_job(tx, job, now),
    }
}

fn queue_job(tx: &Tx<'_>, job: &str, now: u64) -> Result<JobStatus, Error> {
    let (class, parallelism, pipeline, project): (String, u32, String, String) = tx
        .prepare_cached(
            "SELECT resource_class, parallelism, pipeline_id, project_id FROM jobs WHERE id = ?1",
        )?
        .query_row([job], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let known = tx.prepare_cached("SELECT 1 FROM resource_classes WHERE name = ?1")?.exists([&class])?;
    if !known {
        let message = format!(
            "cannot run this job using the selected resource class `{class}`: there is no such class here (make it with `POST /api/v3/runner/resource`)"
        );
        say(tx, job, "error", &message)?;
        return end_job(tx, job, JobStatus::Failed, now);
    }
    let number: i64 = tx
        .prepare_cached("UPDATE projects SET next_job_number = next_job_number + 1 WHERE id = ?1 RETURNING next_job_number - 1")?
        .query_row([&project], |row| row.get(0))?;
    tx.prepare_cached("UPDATE jobs SET status = ?2, number = ?3, queued_at_ms = ?4 WHERE id = ?1")?
        .execute(params![job, JobStatus::Queued, number, now as i64])?;
    for node in 0..parallelism {
        tx.prepare_cached(
            "INSERT INTO tasks (id, job_id, pipeline_id, project_id, node_index, attempt, resource_class, status,
                is_canceled, unclaims, next_event, is_finished, queued_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, 0, 0, 0, 0, ?8)",
        )?
        .execute(params![new_id(), job, pipeline, project, node, class, TaskState::Queued, now as i64])?;
        tx.effect(Effect::Queued(class.clone()));
    }
    Ok(JobStatus::Queued)
}

fn set_status(tx: &Tx<'_>, job: &str, status: JobStatus) -> Result<JobStatus, Error> {
    tx.prepare_cached("UPDATE jobs SET status = ?2 WHERE id = ?1")?.execute(params![job, status])?;
    Ok(status)
}

fn end_job(tx: &Tx<'_>, job: &str, status: JobStatus, now: u64) -> Result<JobStatus, Error> {
    tx.prepare_cached(
        "UPDATE jobs SET status = ?2, stopped_at_ms = coalesce(stopped_at_ms, ?3) WHERE id = ?1",
    )?
    .execute(params![job, status, now as i64])?;
    Ok(status)
}

/// Adds a message that people see with the job.
pub fn say(tx: &Tx<'_>, job: &str, kind: &str, message: &str) -> Result<(), Error> {
    let entry = serde_json::json!({ "type": kind, "message": message }).to_string();
    tx.prepare_cached("UPDATE jobs SET messages = json_insert(messages, '$[#]', json(?2)) WHERE id = ?1")?
        .execute(params![job, entry])?;
    Ok(())
}

/// A task has begun: so has its job.
pub fn task_started(tx: &Tx<'_>, task: &TaskId, now: u64) -> Result<(), Error> {
    tx.prepare_cached(
        "UPDATE jobs SET status = ?2, started_at_ms = coalesce(started_at_ms, ?3)
         WHERE id = (SELECT job_id FROM tasks WHERE id = ?1) AND stopped_at_ms IS NULL",
    )?
    .execute(params![task.as_str(), JobStatus::Running, now as i64])?;
    Ok(())
}

/// Ends a task and everything that follows from it. Harmless when it has ended already.
pub fn end_task(
    tx: &Tx<'_>,
    task: &TaskId,
    state: TaskState,
    message: Option<&str>,
    now: u64,
) -> Result<(), Error> {
    let changed = tx
        .prepare_cached(
            "UPDATE tasks SET status = ?2, message = coalesce(?3, message), stopped_at_ms = ?4, token_hash = token_hash
             WHERE id = ?1 AND stopped_at_ms IS NULL",
        )?
        .execute(params![task.as_str(), state, message, now as i64])?;
    if changed == 0 {
        return Ok(());
    }
    tx.effect(Effect::Ended(task.clone()));
    // A step that was running when the task was lost will not end by itself.
    tx.prepare_cached(
        "UPDATE steps SET status = ?2, ended_at_ms = ?3 WHERE task_id = ?1 AND status = 'running'",
    )?
    .execute(params![
        task.as_str(),
        if state == TaskState::Canceled { "canceled" } else { "infrastructure_fail" },
        now as i64
    ])?;
    let (job, workflow): (String, String) = tx
        .prepare_cached("SELECT jobs.id, jobs.workflow_id FROM tasks JOIN jobs ON jobs.id = tasks.job_id WHERE tasks.id = ?1")?
        .query_row([task.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if let Some(message) = message {
        say(tx, &job, "error", message)?;
    }
    let states: Vec<TaskState> = tx
        .prepare_cached("SELECT status FROM tasks WHERE job_id = ?1 AND status <> 'retried'")?
        .query_map([&job], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let status = engine::job_status(&states);
    if status.is_terminal() {
        end_job(tx, &job, status, now)?;
    } else {
        set_status(tx, &job, status)?;
    }
    advance(tx, &workflow, now)
}

/// Cancels a workflow: what has not begun ends now, what runs is told to stop.
pub fn cancel_workflow(tx: &Tx<'_>, workflow: &str, now: u64) -> Result<bool, Error> {
    let changed = tx
        .prepare_cached("UPDATE workflows SET is_canceled = 1 WHERE id = ?1 AND stopped_at_ms IS NULL")?
        .execute([workflow])?;
    if changed == 0 {
        return Ok(tx.prepare_cached("SELECT 1 FROM workflows WHERE id = ?1")?.exists([workflow])?);
    }
    tx.prepare_cached("UPDATE jobs SET status = 'canceled', stopped_at_ms = ?2 WHERE workflow_id = ?1 AND status IN ('blocked', 'on_hold')")?
        .execute(params![workflow, now as i64])?;
    let tasks: Vec<(String, TaskState)> = tx
        .prepare_cached(
            "SELECT tasks.id, tasks.status FROM tasks JOIN jobs ON jobs.id = tasks.job_id
             WHERE jobs.workflow_id = ?1 AND tasks.stopped_at_ms IS NULL",
        )?
        .query_map([workflow], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (id, state) in tasks {
        let Ok(task) = TaskId::new(id) else { continue };
        if state == TaskState::Queued {
            end_task(tx, &task, TaskState::Canceled, None, now)?;
        } else {
            tx.prepare_cached("UPDATE tasks SET is_canceled = 1 WHERE id = ?1")?.execute([task.as_str()])?;
            tx.effect(Effect::Cancel(task));
        }
    }
    advance(tx, workflow, now)?;
    Ok(true)
}

/// Approves a job that waits. False when there is no such job waiting.
pub fn approve(tx: &Tx<'_>, workflow: &str, job: &str, now: u64) -> Result<bool, Error> {
    let found: Option<i64> = tx
        .prepare_cached("UPDATE jobs SET status = 'success', stopped_at_ms = ?3 WHERE id = ?2 AND workflow_id = ?1 AND status = 'on_hold' RETURNING position")?
        .query_row(params![workflow, job, now as i64], |row| row.get(0))
        .optional()?;
    if found.is_some() {
        advance(tx, workflow, now)?;
    }
    Ok(found.is_some())
}

/// Ends tasks whose lease has lapsed: their runner is gone. Returns how many.
pub fn expire_leases_once(tx: &Tx<'_>, now: u64) -> Result<usize, Error> {
    let lapsed: Vec<(String, bool, bool)> = tx
        .prepare_cached(
            "SELECT id, started_at_ms IS NOT NULL, is_canceled FROM tasks WHERE status = 'running' AND lease_until_ms < ?1",
        )?
        .query_map([now as i64], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    for (id, started, canceled) in &lapsed {
        let Ok(task) = TaskId::new(id.clone()) else { continue };
        if *canceled {
            end_task(tx, &task, TaskState::Canceled, None, now)?;
        } else if *started || !requeue(tx, &task, now)? {
            let why = "the runner was not heard of any more while the task ran: it was stopped, or lost the network";
            end_task(tx, &task, TaskState::InfrastructureFail, Some(why), now)?;
        }
    }
    Ok(lapsed.len())
}

/// Times that a task may go back to its queue.
const MOST_UNCLAIMS: i64 = 3;

/// Puts a claimed task back into its queue, under a new id so that the old token is dead. False when it
/// went back too often.
pub fn requeue(tx: &Tx<'_>, task: &TaskId, now: u64) -> Result<bool, Error> {
    let row: Option<(String, i64)> = tx
        .prepare_cached("SELECT resource_class, unclaims FROM tasks WHERE id = ?1 AND stopped_at_ms IS NULL")?
        .query_row([task.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((class, unclaims)) = row else { return Ok(false) };
    if unclaims >= MOST_UNCLAIMS {
        return Ok(false);
    }
    tx.prepare_cached("UPDATE tasks SET status = 'retried', stopped_at_ms = ?2 WHERE id = ?1")?
        .execute(params![task.as_str(), now as i64])?;
    tx.prepare_cached(
        "INSERT INTO tasks (id, job_id, pipeline_id, project_id, node_index, attempt, resource_class, status,
            is_canceled, unclaims, next_event, is_finished, queued_at_ms)
         SELECT ?2, job_id, pipeline_id, project_id, node_index, attempt + 1, resource_class, 'queued', 0, unclaims + 1, 0, 0, ?3
         FROM tasks WHERE id = ?1",
    )?
    .execute(params![task.as_str(), new_id(), now as i64])?;
    tx.effect(Effect::Ended(task.clone()));
    tx.effect(Effect::Queued(class));
    Ok(true)
}
