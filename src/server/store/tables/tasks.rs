//! Tasks: one row for each attempt at a node of a job. What a row may become is decided by `engine::task`; every
//! statement that changes one is here.
//!
//! Only SQLite: `INDEXED BY`, without which it looks at all that runs, or at all there is; `IS` between values that may be
//! null; lists that are kept as JSON (`json_each`); flags are integers.

use crate::protocol::{TaskId, TaskKind};
use crate::server::ids::{ClassTokenId, JobId, PipelineId, ProjectId, WorkflowId};
use crate::server::store::status::{EndedBy, Kind, TaskState};
use crate::server::store::tables::instances::ONLINE;
use crate::server::store::{Error, Tx, View, new_id};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, Row, params};

/// A row of `tasks`: one attempt at one parallel node of a job.
#[derive(Clone, Debug)]
pub struct TaskRow {
    /// Identifies the attempt.
    pub id: TaskId,
    /// Job that it is an attempt at.
    pub job: JobId,
    /// Pipeline of the job.
    pub pipeline: PipelineId,
    /// Project of the job.
    pub project: ProjectId,
    /// Parallel node, from 0.
    pub node_index: u32,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Resource class whose queue it is in.
    pub resource_class: String,
    /// The kind of runner that it is for.
    pub kind: TaskKind,
    /// Status of the task.
    pub status: TaskState,
    /// SHA-256 of the task token.
    pub token_hash: Option<Vec<u8>>,
    /// Identifies the claim.
    pub allocation: Option<String>,
    /// Nonce of the claim: the same one gets the same answer again.
    pub nonce: Option<String>,
    /// Token of the claimer.
    pub claimed_with: Option<ClassTokenId>,
    /// Name of the claimer.
    pub runner_name: Option<String>,
    /// Host of the claimer.
    pub machine_id: Option<String>,
    /// Start of the claimer's host that it was claimed in.
    pub boot_id: Option<String>,
    /// Protocol version of the claimer.
    pub protocol: Option<u32>,
    /// How long it may be silent, in milliseconds.
    pub budget_ms: Option<u64>,
    /// Whether it runs again when the infrastructure fails after it began.
    pub retries_unsafely: bool,
    /// Time from which on silence counts.
    pub lease_until: Option<Millis>,
    /// How long it may take from its claim to its begin, in milliseconds.
    pub begin_ms: Option<u64>,
    /// Time by which it must have begun.
    pub begin_until: Option<Millis>,
    /// The agent that has begun.
    pub agent: Option<String>,
    /// Time about which it was heard of, while it is unreachable.
    pub unreachable_since: Option<Millis>,
    /// Whether a cancel was asked for.
    pub is_canceled: bool,
    /// Whether it waits for an administrator, after a backup was restored.
    pub is_held: bool,
    /// Times given back by runners, over all attempts.
    pub given_back_by_runners: u32,
    /// Times given back by hosts, over all attempts.
    pub given_back_by_hosts: u32,
    /// Times queued again after it had begun, over all attempts.
    pub unsafe_retries: u32,
    /// The runner that gave the attempt before back.
    pub avoid_runner: Option<String>,
    /// Time until which that runner does not get this one.
    pub avoid_until: Option<Millis>,
    /// Time about until which the fence of what it replaces stands: nobody gets it before.
    pub not_before: Option<Millis>,
    /// Time from which on somebody could claim it without a break.
    pub waits_since: Millis,
    /// Number of the event that is expected next.
    pub next_event: u64,
    /// Time at which it entered the queue.
    pub queued_at: Millis,
    /// Time at which it was claimed.
    pub claimed_at: Option<Millis>,
    /// Time at which its agent began.
    pub started_at: Option<Millis>,
    /// Time at which it ended.
    pub stopped_at: Option<Millis>,
    /// Cause of its end.
    pub ended_by: Option<EndedBy>,
    /// Time before which nothing takes its place, as long as its agent has not confirmed that it stopped.
    pub fence_until: Option<Millis>,
    /// Reason of its end, for people.
    pub message: Option<String>,
    /// Whether its resource class is gone. No column: it is looked up when the row is read.
    pub is_class_gone: bool,
}

const COLUMNS: &str = "id, job_id, pipeline_id, project_id, node_index, attempt, resource_class, status, token_hash,
    allocation, nonce, claimed_with, runner_name, machine_id, boot_id, protocol, budget_ms, lease_until_ms,
    begin_until_ms, agent, unreachable_since_ms, is_canceled, is_held, unclaims, host_unclaims, unsafe_retries,
    avoid_runner, avoid_until_ms, not_before_ms, next_event, queued_at_ms, claimed_at_ms, started_at_ms,
    stopped_at_ms, ended_by, fence_until_ms, message, retries_unsafely, kind, waits_since_ms,
    begin_limit_ms,
    NOT EXISTS (SELECT 1 FROM resource_classes c WHERE c.name = tasks.resource_class)";

fn from_row(row: &Row<'_>) -> rusqlite::Result<TaskRow> {
    Ok(TaskRow {
        id: row.get(0)?,
        job: row.get(1)?,
        pipeline: row.get(2)?,
        project: row.get(3)?,
        node_index: row.get(4)?,
        attempt: row.get(5)?,
        resource_class: row.get(6)?,
        status: row.get(7)?,
        token_hash: row.get(8)?,
        allocation: row.get(9)?,
        nonce: row.get(10)?,
        claimed_with: row.get(11)?,
        runner_name: row.get(12)?,
        machine_id: row.get(13)?,
        boot_id: row.get(14)?,
        protocol: row.get(15)?,
        budget_ms: row.get(16)?,
        lease_until: row.get(17)?,
        begin_ms: row.get(40)?,
        begin_until: row.get(18)?,
        agent: row.get(19)?,
        unreachable_since: row.get(20)?,
        is_canceled: row.get(21)?,
        is_held: row.get(22)?,
        given_back_by_runners: row.get(23)?,
        given_back_by_hosts: row.get(24)?,
        unsafe_retries: row.get(25)?,
        avoid_runner: row.get(26)?,
        avoid_until: row.get(27)?,
        not_before: row.get(28)?,
        next_event: row.get(29)?,
        queued_at: row.get(30)?,
        claimed_at: row.get(31)?,
        started_at: row.get(32)?,
        stopped_at: row.get(33)?,
        ended_by: row.get(34)?,
        fence_until: row.get(35)?,
        message: row.get(36)?,
        retries_unsafely: row.get(37)?,
        kind: row.get::<_, Kind>(38)?.0,
        waits_since: row.get(39)?,
        is_class_gone: row.get(41)?,
    })
}

fn one(view: &View, rest: &str, values: impl rusqlite::Params) -> Result<Option<TaskRow>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM tasks {rest}");
    Ok(view.sql().prepare_cached(&sql)?.query_row(values, from_row).optional()?)
}

fn all(view: &View, rest: &str, values: impl rusqlite::Params) -> Result<Vec<TaskRow>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM tasks {rest}");
    let mut query = view.sql().prepare_cached(&sql)?;
    let rows = query.query_map(values, from_row)?.collect::<Result<_, _>>()?;
    Ok(rows)
}

/// The row of a task.
pub fn find(view: &View, task: &TaskId) -> Result<Option<TaskRow>, Error> {
    one(view, "WHERE id = ?1", [task])
}

/// The row of the task that a token is for, by the hash of the token.
pub fn find_by_token(view: &View, hash: &[u8]) -> Result<Option<TaskRow>, Error> {
    one(view, "WHERE token_hash = ?1", [hash])
}

/// The task that a nonce of a class token has got, the newest of them.
pub fn find_by_nonce(view: &View, token: &ClassTokenId, nonce: &str) -> Result<Option<TaskRow>, Error> {
    one(view, "WHERE nonce = ?2 AND claimed_with = ?1 ORDER BY seq DESC LIMIT 1", params![token, nonce])
}

/// Conditions on what waits in a queue; see [`first_queued`].
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// Resource class whose queue it is in.
    pub class: &'a str,
    /// Name of the runner that asks.
    pub runner: &'a str,
    /// Kinds of task that it takes.
    pub takes: &'a [TaskKind],
    /// Present time: an avoidance that is over by then counts no more.
    pub now: Millis,
}

/// The kinds of task that runners are told apart by.
const MACHINE: Kind = Kind(TaskKind::Machine);
const CONTAINER: Kind = Kind(TaskKind::Container);

/// Tasks in a queue that somebody asks for, of a kind that it takes: `?1`, `?2`, `?6` to `?9`.
const WAITING: &str = "status = ?1 AND resource_class = ?2 AND NOT is_held AND not_before_ms IS NULL
    AND (kind = ?6 AND ?7 OR kind = ?8 AND ?9)";
/// Tasks that another runner is to have first, one that is there and takes them: `?2` to `?5`.
const AVOIDED: &str =
    "avoid_runner IS ?5 AND avoid_until_ms > ?3 AND EXISTS (SELECT 1 FROM runner_instances i
    JOIN resource_classes c ON c.id = i.resource_class_id
    WHERE c.name = ?2 AND i.name <> ?5 AND i.last_connected_ms > ?4 AND NOT i.is_paused
        AND tasks.kind IN (SELECT value FROM json_each(i.takes)))";

impl Asking<'_> {
    /// The values of [`WAITING`] and [`AVOIDED`].
    fn values(&self) -> impl rusqlite::Params {
        (
            TaskState::Queued,
            self.class,
            self.now,
            self.now.minus(ONLINE),
            self.runner,
            MACHINE,
            self.takes.contains(&MACHINE.0),
            CONTAINER,
            self.takes.contains(&CONTAINER.0),
        )
    }
}

/// The oldest task of the queue that the runner may have now.
pub fn first_queued(view: &View, asking: Asking<'_>) -> Result<Option<TaskRow>, Error> {
    one(view, &format!("WHERE {WAITING} AND NOT ({AVOIDED}) ORDER BY seq LIMIT 1"), asking.values())
}

/// When the next task of the queue can be claimed that cannot be now.
pub fn next_claimable_at(view: &View, asking: Asking<'_>) -> Result<Option<Millis>, Error> {
    let sql = format!("SELECT min(avoid_until_ms) FROM tasks WHERE {WAITING} AND {AVOIDED}");
    Ok(view.sql().prepare_cached(&sql)?.query_row(asking.values(), |row| row.get(0))?)
}

/// Tasks that wait in the queue of a class, oldest first.
pub fn queued_of_class(view: &View, class: &str) -> Result<Vec<TaskRow>, Error> {
    all(view, "WHERE status = ?1 AND resource_class = ?2 ORDER BY seq", params![TaskState::Queued, class])
}

/// Tasks of a class that somebody could claim, and could since before a time, oldest first.
pub fn waiting_since_before(
    view: &View,
    class: &str,
    before: Millis,
    most: usize,
) -> Result<Vec<TaskRow>, Error> {
    all(
        view,
        "WHERE status = ?1 AND resource_class = ?2 AND waits_since_ms < ?3 AND NOT is_held AND not_before_ms IS NULL
         ORDER BY seq LIMIT ?4",
        params![TaskState::Queued, class, before, most],
    )
}

/// Tasks of a job that have not ended.
pub fn open_of_job(view: &View, job: &JobId) -> Result<Vec<TaskRow>, Error> {
    all(view, "WHERE job_id = ?1 AND stopped_at_ms IS NULL ORDER BY node_index", [job])
}

/// The states of the newest attempts of a job.
pub fn states_of_job(view: &View, job: &JobId) -> Result<Vec<TaskState>, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT status FROM tasks WHERE job_id = ?1 AND status <> ?2")?;
    let states = query.query_map(params![job, TaskState::Retried], |row| row.get(0))?;
    Ok(states.collect::<Result<_, _>>()?)
}

/// Tasks that runners of a class hold on a machine, claimed under another start of it, and those that have ended and
/// whose fence stands.
pub fn of_earlier_boots(
    view: &View,
    class: &str,
    machine_id: &str,
    boot_id: &str,
) -> Result<Vec<TaskRow>, Error> {
    let [claimed, running, unreachable] = TaskState::HELD_BY_A_RUNNER;
    let mut rows = all(
        view,
        "INDEXED BY tasks_by_machine WHERE status IN (?1, ?2, ?3) AND resource_class = ?4 AND machine_id = ?5
            AND boot_id <> ?6 AND stopped_at_ms IS NULL",
        params![claimed, running, unreachable, class, machine_id, boot_id],
    )?;
    rows.extend(all(
        view,
        "WHERE fence_until_ms IS NOT NULL AND resource_class = ?1 AND machine_id = ?2 AND boot_id <> ?3",
        params![class, machine_id, boot_id],
    )?);
    Ok(rows)
}

/// Tasks that have begun and that a runner of this name holds.
pub fn begun_of_runner(view: &View, class: &str, name: &str) -> Result<Vec<TaskRow>, Error> {
    all(
        view,
        "INDEXED BY tasks_by_runner WHERE status IN (?1, ?2) AND resource_class = ?3 AND runner_name = ?4
            AND stopped_at_ms IS NULL",
        params![TaskState::Running, TaskState::Unreachable, class, name],
    )
}

/// Tasks for which something happens by the clock: a lease is over, or the time to begin, or a fence.
pub fn due(view: &View, now: Millis) -> Result<Vec<TaskRow>, Error> {
    let [claimed, running, unreachable] = TaskState::HELD_BY_A_RUNNER;
    let mut due = all(
        view,
        "WHERE status IN (?1, ?2, ?3) AND NOT is_held AND (lease_until_ms < ?4 OR begin_until_ms < ?4) ORDER BY seq",
        params![claimed, running, unreachable, now],
    )?;
    due.extend(all(view, "WHERE fence_until_ms IS NOT NULL AND fence_until_ms < ?1 ORDER BY seq", [now])?);
    Ok(due)
}

/// Tasks that runners hold, those whose fence stands, and those that wait in a class with a limit to that.
pub fn timed(view: &View) -> Result<Vec<TaskRow>, Error> {
    let [claimed, running, unreachable] = TaskState::HELD_BY_A_RUNNER;
    let mut timed =
        all(view, "WHERE status IN (?1, ?2, ?3) ORDER BY seq", params![claimed, running, unreachable])?;
    timed.extend(all(view, "INDEXED BY tasks_fenced WHERE fence_until_ms IS NOT NULL ORDER BY seq", [])?);
    timed.extend(all(
        view,
        "WHERE status = ?1 AND resource_class IN (SELECT name FROM resource_classes WHERE wait_limit_ms IS NOT NULL)
         ORDER BY seq",
        [TaskState::Queued],
    )?);
    Ok(timed)
}

/// Tasks of a job whose fence stands.
pub fn fenced_of_job(view: &View, job: &JobId) -> Result<Vec<TaskRow>, Error> {
    all(view, "WHERE fence_until_ms IS NOT NULL AND job_id = ?1 ORDER BY seq", [job])
}

/// Tasks that have not ended, oldest first.
pub fn open(view: &View) -> Result<Vec<TaskRow>, Error> {
    let [claimed, running, unreachable] = TaskState::HELD_BY_A_RUNNER;
    let values = params![TaskState::Queued, claimed, running, unreachable];
    all(view, "WHERE status IN (?1, ?2, ?3, ?4) ORDER BY seq", values)
}

/// Whether the fence of a task of the job stands.
pub fn is_job_fenced(view: &View, job: &JobId) -> Result<bool, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT 1 FROM tasks WHERE fence_until_ms IS NOT NULL AND job_id = ?1")?;
    Ok(query.exists([job])?)
}

/// Whether the fence of a task of the workflow stands.
pub fn is_workflow_fenced(view: &View, workflow: &WorkflowId) -> Result<bool, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT 1 FROM tasks t JOIN jobs j ON j.id = t.job_id WHERE t.fence_until_ms IS NOT NULL AND j.workflow_id = ?1",
    )?;
    Ok(query.exists([workflow])?)
}

/// The jobs of the workflow, and of the runs of it before and after, of which the fence of a task stands.
pub fn fenced_jobs(view: &View, workflow: &WorkflowId) -> Result<Vec<JobId>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT DISTINCT t.job_id FROM tasks t JOIN jobs j ON j.id = t.job_id JOIN workflows x ON x.id = j.workflow_id
         JOIN workflows w ON w.pipeline_id = x.pipeline_id AND w.root = x.root
         WHERE t.fence_until_ms IS NOT NULL AND w.id = ?1",
    )?;
    let jobs = query.query_map([workflow], |row| row.get(0))?;
    Ok(jobs.collect::<Result<_, _>>()?)
}

/// Names of the jobs of the workflow, and of the runs of it before and after, of which a task is unreachable, or is held by
/// a runner as a restored backup says.
pub fn unreachable_jobs(view: &View, workflow: &WorkflowId) -> Result<Vec<String>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT DISTINCT j.name FROM workflows w JOIN workflows x ON x.pipeline_id = w.pipeline_id AND x.root = w.root
         JOIN jobs j ON j.workflow_id = x.id JOIN tasks t ON t.job_id = j.id
         WHERE w.id = ?1 AND (t.status = ?2 OR t.is_held AND t.status IN (?3, ?4)) ORDER BY j.position",
    )?;
    let [claimed, running, unreachable] = TaskState::HELD_BY_A_RUNNER;
    let names = query.query_map(params![workflow, unreachable, claimed, running], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// The fence that keeps a job from its runners.
#[derive(Clone, Debug)]
pub struct Fence {
    /// Time until which the fence stands.
    pub until: Millis,
    /// The job whose task has the fence.
    pub job: JobId,
}

/// The jobs of the same name in the same chain of reruns as a job (`?1`), without it.
const SAME_IN_CHAIN: &str = "SELECT o.id FROM jobs j JOIN workflows w ON w.id = j.workflow_id
    JOIN workflows x ON x.pipeline_id = w.pipeline_id AND x.root = w.root
    JOIN jobs o ON o.workflow_id = x.id AND o.name = j.name AND o.id <> j.id WHERE j.id = ?1";

/// The last fence of tasks that a job replaces: those of the same job in other runs, but for those before a rerun that
/// somebody asked for whatever they do.
pub fn fence_before(view: &View, job: &JobId) -> Result<Option<Fence>, Error> {
    let sql = format!(
        "SELECT fence_until_ms, job_id FROM tasks WHERE fence_until_ms IS NOT NULL AND job_id IN (
            {SAME_IN_CHAIN} AND NOT (w.is_forced AND x.position < w.position))
         ORDER BY fence_until_ms DESC LIMIT 1"
    );
    let found = view
        .sql()
        .prepare_cached(&sql)?
        .query_row([job], |row| Ok(Fence { until: row.get(0)?, job: row.get(1)? }));
    Ok(found.optional()?)
}

/// Tasks of the same job in other runs that wait in a queue.
pub fn queued_in_chain(view: &View, job: &JobId) -> Result<Vec<TaskRow>, Error> {
    let rest = format!("WHERE job_id IN ({SAME_IN_CHAIN}) AND status = ?2 ORDER BY seq");
    all(view, &rest, params![job, TaskState::Queued])
}

/// The node of a job that a new task is for.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Job that the task will be an attempt at.
    pub job: &'a JobId,
    /// Pipeline of the job.
    pub pipeline: &'a PipelineId,
    /// Project of the job.
    pub project: &'a ProjectId,
    /// Parallel node, from 0.
    pub node_index: u32,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Resource class whose queue it is in.
    pub resource_class: &'a str,
    /// The kind of runner that it is for.
    pub kind: TaskKind,
}

impl<'a> Place<'a> {
    /// The place of the attempt after the one of this row.
    pub fn after(row: &'a TaskRow) -> Self {
        Self {
            job: &row.job,
            pipeline: &row.pipeline,
            project: &row.project,
            node_index: row.node_index,
            attempt: row.attempt + 1,
            resource_class: &row.resource_class,
            kind: row.kind,
        }
    }
}

/// Columns that a task has from the start, before anything happens to it.
#[derive(Clone, Debug)]
pub struct Start {
    /// Whether it waits for an administrator, after a backup was restored.
    pub is_held: bool,
    /// Times given back by runners, over all attempts.
    pub given_back_by_runners: u32,
    /// Times given back by hosts, over all attempts.
    pub given_back_by_hosts: u32,
    /// Times queued again after it had begun, over all attempts.
    pub unsafe_retries: u32,
    /// The runner that gave the attempt before back.
    pub avoid_runner: Option<String>,
    /// Time until which that runner does not get this one.
    pub avoid_until: Option<Millis>,
    /// Time about until which the fence of what it replaces stands: nobody gets it before.
    pub not_before: Option<Millis>,
    /// Time from which on somebody could claim it.
    pub waits_since: Millis,
}

/// Adds an attempt at a node to the queue, under an id of its own.
pub fn insert(tx: &Tx<'_>, place: Place<'_>, start: &Start, now: Millis) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "INSERT INTO tasks (id, job_id, pipeline_id, project_id, node_index, attempt, resource_class, status,
                is_canceled, is_held, unclaims, host_unclaims, unsafe_retries, avoid_runner, avoid_until_ms,
                not_before_ms, next_event, queued_at_ms, kind, waits_since_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, ?10, ?11, ?12, ?13, ?14, ?15, 0, ?16, ?17, ?18)",
        )?
        .execute(params![
            new_id(),
            place.job,
            place.pipeline,
            place.project,
            place.node_index,
            place.attempt,
            place.resource_class,
            TaskState::Queued,
            start.is_held,
            start.given_back_by_runners,
            start.given_back_by_hosts,
            start.unsafe_retries,
            start.avoid_runner,
            start.avoid_until,
            start.not_before,
            now,
            Kind(place.kind),
            start.waits_since
        ])?;
    Ok(())
}

/// Writes everything of a row that changes in the life of its task after the claim. What the claim has written stays, and
/// with it the indexes of tokens, nonces and runners.
pub fn update_after_claim(tx: &Tx<'_>, row: &TaskRow) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "UPDATE tasks SET status = ?2, lease_until_ms = ?3, begin_until_ms = ?4, agent = ?5, unreachable_since_ms = ?6,
                is_canceled = ?7, is_held = ?8, next_event = ?9, started_at_ms = ?10, stopped_at_ms = ?11, ended_by = ?12,
                fence_until_ms = ?13, message = ?14, not_before_ms = ?15,
                waits_since_ms = ?16 WHERE id = ?1",
        )?
        .execute(params![
            row.id,
            row.status,
            row.lease_until,
            row.begin_until,
            row.agent,
            row.unreachable_since,
            row.is_canceled,
            row.is_held,
            row.next_event,
            row.started_at,
            row.stopped_at,
            row.ended_by,
            row.fence_until,
            row.message,
            row.not_before,
            row.waits_since
        ])?;
    Ok(())
}

/// Writes everything of a row that changes in the life of its task, its claim included.
pub fn update(tx: &Tx<'_>, row: &TaskRow) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "UPDATE tasks SET status = ?2, token_hash = ?3, allocation = ?4, nonce = ?5, claimed_with = ?6,
                runner_name = ?7, machine_id = ?8, boot_id = ?9, protocol = ?10, budget_ms = ?11, lease_until_ms = ?12,
                begin_until_ms = ?13, agent = ?14, unreachable_since_ms = ?15, is_canceled = ?16, is_held = ?17,
                next_event = ?18, claimed_at_ms = ?19, started_at_ms = ?20, stopped_at_ms = ?21, ended_by = ?22,
                fence_until_ms = ?23, message = ?24, not_before_ms = ?25, retries_unsafely = ?26,
                waits_since_ms = ?27, begin_limit_ms = ?28 WHERE id = ?1",
        )?
        .execute(params![
            row.id,
            row.status,
            row.token_hash,
            row.allocation,
            row.nonce,
            row.claimed_with,
            row.runner_name,
            row.machine_id,
            row.boot_id,
            row.protocol,
            row.budget_ms,
            row.lease_until,
            row.begin_until,
            row.agent,
            row.unreachable_since,
            row.is_canceled,
            row.is_held,
            row.next_event,
            row.claimed_at,
            row.started_at,
            row.stopped_at,
            row.ended_by,
            row.fence_until,
            row.message,
            row.not_before,
            row.retries_unsafely,
            row.waits_since,
            row.begin_ms
        ])?;
    Ok(())
}

/// Writes the lease of a row and the number of its next event, and nothing else.
pub fn renew(tx: &Tx<'_>, row: &TaskRow) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("UPDATE tasks SET lease_until_ms = ?2, next_event = ?3 WHERE id = ?1")?
        .execute(params![row.id, row.lease_until, row.next_event])?;
    Ok(())
}
