//! Rules about the rows that hold whatever happened to the process that wrote them, and what rows say of files.
//!
//! Only SQLite: `integrity_check`, `foreign_key_check`, `total`, `group_concat`, and `IS` between values that may be absent
//! (elsewhere IS NOT DISTINCT FROM); flags are integers.

use crate::protocol::TaskId;
use crate::server::store::status::{EndedBy, JobStatus, JobType, StepState, TaskState, WorkflowStatus};
use crate::server::store::tables::small_outputs;
use crate::server::store::words::{Word, literals};
use crate::server::store::{Error, View, schema};
use rusqlite::OptionalExtension;
use std::collections::HashSet;
use std::sync::LazyLock;

/// A broken promise of the data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// A word that programs tell faults of its kind by.
    pub kind: &'static str,
    /// A sentence that names the thing.
    pub what: String,
}

/// Most faults of one kind that are told one by one.
const MOST_OF_A_KIND: usize = 50;

/// A list of states in a rule, and the states in it, as SQL has them.
fn lists() -> [(&'static str, String); 8] {
    let waits = [TaskState::Queued, TaskState::Claimed];
    let begun = [TaskState::Running, TaskState::Unreachable];
    let at_work = [JobStatus::Queued, JobStatus::Running];
    [
        ("{open_tasks}", literals(|state: TaskState| !state.is_terminal())),
        ("{waiting_tasks}", literals(|state| waits.contains(&state))),
        ("{begun_tasks}", literals(|state| begun.contains(&state))),
        ("{open_jobs}", literals(|status: JobStatus| !status.is_terminal())),
        ("{open_workflows}", literals(|status: WorkflowStatus| !status.is_terminal())),
        ("{at_work_jobs}", literals(|status| at_work.contains(&status))),
        ("{build_job}", JobType::Build.literal().to_owned()),
        ("{running_step}", StepState::Running.literal().to_owned()),
    ]
}

/// Statements that find what must not be; each row is the sentence about one fault. Names in braces are those of
/// [`lists`].
const RULES: &[(&str, &str)] = &[
    (
        "task-twice",
        "SELECT 'node ' || node_index || ' of job ' || job_id || ' has ' || count(*) || ' tasks that have not ended'
         FROM tasks WHERE stopped_at_ms IS NULL GROUP BY job_id, node_index HAVING count(*) > 1",
    ),
    // A task that had begun is not begun again, unless its class asked for that.
    (
        "task-twice",
        "SELECT 'node ' || node_index || ' of job ' || job_id || ' has begun ' || count(started_at_ms) || ' times'
         FROM tasks GROUP BY job_id, node_index HAVING count(started_at_ms) > 1 + max(unsafe_retries)",
    ),
    (
        "task-twice",
        "SELECT 'tasks ' || group_concat(id, ', ') || ' have one allocation'
         FROM tasks WHERE allocation IS NOT NULL GROUP BY allocation HAVING count(*) > 1",
    ),
    (
        "task-twice",
        "SELECT 'node ' || node_index || ' of job ' || job_id || ' has ' || count(*) || ' attempts, of which the last has the number ' || max(attempt)
         FROM tasks GROUP BY job_id, node_index HAVING min(attempt) <> 1 OR max(attempt) <> count(*)",
    ),
    (
        "status-back",
        "SELECT 'task ' || id || ' is ' || status || CASE WHEN stopped_at_ms IS NULL THEN ' and has no time of its end' ELSE ' and has a time of its end' END
         FROM tasks WHERE (status IN ({open_tasks})) <> (stopped_at_ms IS NULL)",
    ),
    (
        "status-back",
        "SELECT 'task ' || id || ' is running and has not begun' FROM tasks
         WHERE status IN ({begun_tasks}) AND started_at_ms IS NULL",
    ),
    (
        "status-back",
        "SELECT 'task ' || id || ' waits in its queue and has begun' FROM tasks
         WHERE status IN ({waiting_tasks}) AND started_at_ms IS NOT NULL",
    ),
    (
        "status-back",
        "SELECT 'job ' || id || ' is ' || status || CASE WHEN stopped_at_ms IS NULL THEN ' and has no time of its end' ELSE ' and has a time of its end' END
         FROM jobs WHERE (status IN ({open_jobs})) <> (stopped_at_ms IS NULL)",
    ),
    (
        "status-back",
        "SELECT 'workflow ' || id || ' is ' || status || CASE WHEN stopped_at_ms IS NULL THEN ' and has no time of its end' ELSE ' and has a time of its end' END
         FROM workflows WHERE (status IN ({open_workflows})) <> (stopped_at_ms IS NULL)",
    ),
    (
        "status-back",
        "SELECT 'job ' || j.id || ' runs in workflow ' || w.id || ', which has ended' FROM jobs j JOIN workflows w ON w.id = j.workflow_id
         WHERE j.stopped_at_ms IS NULL AND w.stopped_at_ms IS NOT NULL",
    ),
    (
        "status-back",
        "SELECT 'task ' || t.id || ' has not ended, and its job ' || j.id || ' has' FROM tasks t JOIN jobs j ON j.id = t.job_id
         WHERE t.stopped_at_ms IS NULL AND j.stopped_at_ms IS NOT NULL",
    ),
    (
        "status-back",
        "SELECT 'job ' || j.id || ' is ' || j.status || ' and has neither a task nor a key that it waits for' FROM jobs j
         WHERE j.status IN ({at_work_jobs}) AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.job_id = j.id AND t.stopped_at_ms IS NULL)
            AND NOT EXISTS (SELECT 1 FROM serial_claims s WHERE s.job_id = j.id AND NOT s.is_holder)",
    ),
    (
        "status-back",
        "SELECT 'step ' || s.step || ' of task ' || t.id || ' runs, and the task has ended' FROM steps s JOIN tasks t ON t.id = s.task_id
         WHERE s.status = {running_step} AND t.stopped_at_ms IS NOT NULL AND t.fence_until_ms IS NULL",
    ),
    (
        "status-back",
        "SELECT 'step ' || step || ' of task ' || task_id || ' is ' || status || ' and has a time of its end' FROM steps
         WHERE status = {running_step} AND ended_at_ms IS NOT NULL",
    ),
    (
        "counter",
        "SELECT 'project ' || p.id || ' gives the number ' || p.next_pipeline_number || ' to its next pipeline, and has a pipeline ' || max(i.number)
         FROM projects p JOIN pipelines i ON i.project_id = p.id GROUP BY p.id HAVING max(i.number) >= p.next_pipeline_number",
    ),
    (
        "counter",
        "SELECT 'project ' || p.id || ' gives the number ' || p.next_job_number || ' to its next job, and has a job ' || max(j.number)
         FROM projects p JOIN jobs j ON j.project_id = p.id GROUP BY p.id HAVING max(j.number) >= p.next_job_number",
    ),
    (
        "counter",
        "SELECT 'jobs ' || group_concat(id, ', ') || ' of project ' || project_id || ' have one number' FROM jobs
         WHERE number IS NOT NULL GROUP BY project_id, number HAVING count(DISTINCT coalesce(reused_from, id)) > 1",
    ),
    // A job that a rerun took over is the same job once more, and so has its number.
    (
        "counter",
        "SELECT 'job ' || j.id || ' keeps the result of job ' || o.id || ' and has another number' FROM jobs j
         JOIN jobs o ON o.id = j.reused_from WHERE j.number IS NOT o.number",
    ),
    (
        "counter",
        "SELECT 'the key `' || key || '` is held ' || total(is_holder) || ' times' FROM serial_claims
         GROUP BY organisation_id, key HAVING total(is_holder) > 1",
    ),
    (
        "counter",
        "SELECT 'job ' || j.id || ' has a task and does not hold the key `' || j.serial_group || '`' FROM jobs j
         WHERE j.kind = {build_job} AND j.serial_group IS NOT NULL AND EXISTS (
                SELECT 1 FROM tasks t WHERE t.job_id = j.id AND (t.stopped_at_ms IS NULL OR t.fence_until_ms IS NOT NULL))
            AND NOT EXISTS (SELECT 1 FROM serial_claims s WHERE s.job_id = j.id AND s.is_holder)",
    ),
    (
        "counter",
        "SELECT 'the test results in `' || f.path || '` of task ' || f.task_id || ' are ' || f.tests || ', and '
            || (SELECT count(*) FROM test_results r WHERE r.job_id = f.job_id AND r.task_id = f.task_id AND r.path = f.path) || ' are stored'
         FROM test_files f
         WHERE f.tests <> (SELECT count(*) FROM test_results r WHERE r.job_id = f.job_id AND r.task_id = f.task_id AND r.path = f.path)",
    ),
];

/// The rules as SQL.
static STATEMENTS: LazyLock<Vec<(&str, String)>> = LazyLock::new(|| {
    let lists = lists();
    let sql = |rule: &str| lists.iter().fold(rule.to_owned(), |sql, (name, list)| sql.replace(name, list));
    RULES.iter().map(|(kind, rule)| (*kind, sql(rule))).collect()
});

/// Finds what is wrong with the rows by themselves. An earlier schema is no fault, but the rules are not its own: it
/// gets no further than its version.
pub fn faults(view: &View) -> Result<Vec<Fault>, Error> {
    let mut faults = Vec::new();
    let connection = view.sql();
    let mut query = connection.prepare("PRAGMA integrity_check(20)")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let what: String = row.get(0)?;
        if what != "ok" {
            faults.push(Fault { kind: "database", what });
        }
    }
    let version = schema::version(connection)?;
    if version != schema::newest() {
        let newest = schema::newest();
        let what = format!(
            "the schema has version {version}, and this program checks version {newest}: start it once, or use the program that wrote the data"
        );
        faults.push(Fault { kind: "schema", what });
        return Ok(faults);
    }
    let mut query = connection.prepare("PRAGMA foreign_key_check")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        let what = format!("a row of `{table}` names one of `{parent}` that is not there");
        if !push(&mut faults, "reference", what) {
            break;
        }
    }
    broken_rules(view, &mut faults)?;
    Ok(faults)
}

/// Adds the broken promises of the rows about each other.
pub fn broken_rules(view: &View, faults: &mut Vec<Fault>) -> Result<(), Error> {
    for (kind, sql) in STATEMENTS.iter() {
        let mut query = view.sql().prepare_cached(sql)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            if !push(faults, kind, row.get(0)?) {
                break;
            }
        }
    }
    Ok(())
}

/// Adds a fault unless there are many of its kind; false then.
pub fn push(faults: &mut Vec<Fault>, kind: &'static str, what: String) -> bool {
    let fits = faults.iter().filter(|fault| fault.kind == kind).count() < MOST_OF_A_KIND;
    if fits {
        faults.push(Fault { kind, what });
    }
    fits
}

/// Whether the schema is the one that this program works with.
pub fn is_of_this_program(view: &View) -> Result<bool, Error> {
    Ok(schema::version(view.sql())? == schema::newest())
}

/// An upload that rows name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedUpload {
    /// SHA-256 in lower-case hex.
    pub sha256: String,
    /// Size in bytes, where the row has it.
    pub length: Option<u64>,
    /// The row, for people.
    pub by: String,
}

/// Reads every upload that a row names, one for each checksum and length.
pub fn named(view: &View) -> Result<Vec<NamedUpload>, Error> {
    let mut query = view.sql().prepare(
        "SELECT sha256, length, min('artifact ' || id) FROM artifacts GROUP BY sha256, length
         UNION ALL SELECT sha256, NULL, min('test results ' || path || ' of task ' || task_id) FROM test_files GROUP BY sha256
         UNION ALL SELECT sha256, length, min('cache ' || id) FROM caches GROUP BY sha256, length
         UNION ALL SELECT sha256, length, min('workspace layer ' || id) FROM workspace_layers GROUP BY sha256, length",
    )?;
    let rows = query
        .query_map([], |row| Ok(NamedUpload { sha256: row.get(0)?, length: row.get(1)?, by: row.get(2)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// An output that its own agent has reported as complete.
#[derive(Clone, Debug)]
pub struct Complete {
    /// Task that wrote the output.
    pub task: TaskId,
    /// Number of the step record.
    pub step: u32,
    /// Size in bytes.
    pub length: u64,
    /// SHA-256 in lower-case hex, unless it ended under an earlier version.
    pub sha256: Option<String>,
}

/// Calls `each` with every output that must be there to the last byte: those of tasks whose agent finished them.
pub fn each_complete_output(view: &View, mut each: impl FnMut(Complete)) -> Result<(), Error> {
    let mut query = view.sql().prepare(
        "SELECT s.task_id, s.step, s.output_bytes, s.output_sha256 FROM steps s JOIN tasks t ON t.id = s.task_id
         WHERE t.ended_by = ?1 AND s.output_bytes > 0 AND t.output_gone_at_ms IS NULL",
    )?;
    let mut rows = query.query([EndedBy::Finish])?;
    while let Some(row) = rows.next()? {
        each(Complete { task: row.get(0)?, step: row.get(1)?, length: row.get(2)?, sha256: row.get(3)? });
    }
    Ok(())
}

/// The tasks whose output is kept.
pub fn tasks_with_output(view: &View) -> Result<HashSet<String>, Error> {
    let mut query = view.sql().prepare("SELECT id FROM tasks WHERE output_gone_at_ms IS NULL")?;
    let rows = query.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether the output of a task is kept.
pub fn has_output(view: &View, task: &TaskId) -> Result<bool, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT 1 FROM tasks WHERE id = ?1 AND output_gone_at_ms IS NULL")?;
    Ok(query.exists([task])?)
}

/// The output of a step that is a row; `None` where it is none, and in a database whose schema has no such rows.
pub fn small_output(view: &View, task: &TaskId, step: u32) -> Result<Option<Vec<u8>>, Error> {
    if !is_of_this_program(view)? {
        return Ok(None);
    }
    small_outputs::find(view, task, step)
}

/// The tasks that have not ended.
pub fn open_task_ids(view: &View) -> Result<Vec<TaskId>, Error> {
    let mut query = view.sql().prepare("SELECT id FROM tasks WHERE stopped_at_ms IS NULL")?;
    let rows = query.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// How many tasks have not ended.
pub fn open_tasks(view: &View) -> Result<u64, Error> {
    let sql = "SELECT count(*) FROM tasks WHERE stopped_at_ms IS NULL";
    Ok(view.sql().query_row(sql, [], |row| row.get(0)).optional()?.unwrap_or(0))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::server::store::file::connect;
    use crate::server::store::{Store, scene};
    use crate::server::time::Millis;

    /// A workflow with a job whose only node had one attempt given back and one that has ended, and a job that runs; two
    /// reruns that took the first one over.
    const ROWS: &str = "
        INSERT INTO workflows SELECT 'w', id, project_id, 'w', 0, 'running', 0, 0, NULL, NULL, 0, NULL, NULL, 0, 0, NULL, 'w', 0, 'w', 0 FROM pipelines;
        INSERT INTO jobs (id, workflow_id, pipeline_id, project_id, position, name, kind, definition, requires, number,
                status, parallelism, messages, waits_for_lock, created_at_ms, stopped_at_ms)
            SELECT v.column1, 'w', id, project_id, v.column2, v.column1, 'build', '{}', '[]', v.column2, v.column3, 1, '[]', 0, 0, v.column4
            FROM pipelines, (VALUES ('done', 1, 'success', 9), ('runs', 2, 'running', NULL)) v;
        INSERT INTO workflows SELECT v.column1, id, project_id, 'w', 0, 'success', 0, 0, 9, NULL, 0, NULL, NULL, 0, 0, NULL, v.column1, 0, v.column1, 0
            FROM pipelines, (VALUES ('again'), ('thrice')) v;
        INSERT INTO jobs (id, workflow_id, pipeline_id, project_id, position, name, kind, definition, requires, number,
                status, parallelism, messages, waits_for_lock, created_at_ms, stopped_at_ms, reused_from)
            SELECT 'kept-' || w.id, w.id, j.pipeline_id, j.project_id, length(w.id), 'done', 'build', '{}', '[]', 1, 'success', 1, '[]', 0, 0, 9, 'done'
            FROM jobs j JOIN workflows w ON w.id IN ('again', 'thrice') WHERE j.id = 'done';
        INSERT INTO tasks (id, job_id, pipeline_id, project_id, node_index, attempt, resource_class, status, allocation,
                is_canceled, unclaims, next_event, queued_at_ms, started_at_ms, stopped_at_ms, ended_by)
            SELECT v.column1, v.column2, pipeline_id, project_id, 0, v.column3, 'a/b', v.column4, v.column1, 0, 0, 0, 0, v.column5, v.column6, v.column7
            FROM jobs JOIN (VALUES ('back', 'done', 1, 'retried', NULL, 5, 'given_back'), ('done', 'done', 2, 'success', 6, 9, 'finish'),
                ('runs', 'runs', 1, 'running', 6, NULL, NULL)) v ON jobs.id = v.column2;
        INSERT INTO steps (task_id, step, name, kind, attempt, max_auto_reruns, background, status, started_at_ms, ended_at_ms, output_bytes)
            VALUES ('done', 0, 's', 'run', 1, 0, 0, 'success', 6, 7, 3);
        INSERT INTO test_files VALUES ('done', 'done', 't.xml', 'sum', 0, 1, NULL);
        INSERT INTO test_results VALUES (NULL, 'done', 'done', 't.xml', 'n', '', NULL, '', 'success', 1, '', NULL);
        UPDATE projects SET next_pipeline_number = 2, next_job_number = 3;";

    /// Statements that break a promise each, and the word for it.
    const DAMAGES: &[(&str, &str)] = &[
        (
            "task-twice",
            "UPDATE tasks SET status = 'queued', stopped_at_ms = NULL, started_at_ms = NULL WHERE job_id = 'done'",
        ),
        ("task-twice", "UPDATE tasks SET started_at_ms = 1 WHERE id = 'back'"),
        ("task-twice", "UPDATE tasks SET allocation = 'one'"),
        ("task-twice", "UPDATE tasks SET attempt = 3 WHERE id = 'done'"),
        ("status-back", "UPDATE tasks SET status = 'running' WHERE id = 'done'"),
        ("status-back", "UPDATE tasks SET stopped_at_ms = 9 WHERE id = 'runs'"),
        ("status-back", "UPDATE tasks SET started_at_ms = NULL WHERE id = 'runs'"),
        ("status-back", "UPDATE tasks SET status = 'queued' WHERE id = 'runs'"),
        ("status-back", "UPDATE jobs SET status = 'running' WHERE id = 'done'"),
        ("status-back", "UPDATE jobs SET status = 'success', stopped_at_ms = 9 WHERE id = 'runs'"),
        ("status-back", "DELETE FROM tasks WHERE id = 'runs'"),
        ("counter", "UPDATE jobs SET serial_group = 'k' WHERE id = 'runs'"),
        ("status-back", "UPDATE workflows SET status = 'success'"),
        ("status-back", "UPDATE workflows SET status = 'success', stopped_at_ms = 9"),
        ("status-back", "UPDATE steps SET status = 'running', ended_at_ms = NULL"),
        ("status-back", "UPDATE steps SET status = 'running'"),
        ("counter", "UPDATE projects SET next_pipeline_number = 1"),
        ("counter", "UPDATE projects SET next_job_number = 2"),
        ("counter", "UPDATE jobs SET number = 1"),
        ("counter", "UPDATE jobs SET reused_from = NULL"),
        ("counter", "UPDATE jobs SET number = 2 WHERE id = 'kept-again'"),
        ("counter", "UPDATE jobs SET number = NULL WHERE id = 'kept-again'"),
        (
            "counter",
            "INSERT INTO serial_claims SELECT position, 'o', 'k', id, 'w', project_id, 1, 1, 0 FROM jobs",
        ),
        ("counter", "DELETE FROM test_results"),
        ("reference", "DELETE FROM tasks WHERE id = 'done'"),
        ("schema", "PRAGMA user_version = 1"),
        // An index that does not know of a row.
        (
            "database",
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'WHERE nonce', 'WHERE status') WHERE name = 'tasks_by_nonce'",
        ),
    ];

    #[test]
    fn every_planted_fault_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let store = Store::open(&path, false, |_| ()).unwrap();
        let made = store.write_blocking(|tx| {
            crate::server::store::tables::projects::ensure_project(tx, "gh/acme/app", None, Millis(0))?;
            scene::insert_pipeline(tx, 1, "main", Millis(0))?;
            Ok(tx.sql().execute_batch(ROWS)?)
        });
        made.unwrap();
        store.close();
        let kinds = |path: &std::path::Path| {
            let view = View::new(connect(path, true).unwrap());
            let mut kinds: Vec<&str> = faults(&view).unwrap().iter().map(|fault| fault.kind).collect();
            kinds.dedup();
            kinds
        };
        assert_eq!(kinds(&path), [""; 0]);
        for (number, (kind, damage)) in DAMAGES.iter().enumerate() {
            let damaged = dir.path().join(format!("damaged{number}"));
            std::fs::copy(&path, &damaged).unwrap();
            let connection = connect(&damaged, true).unwrap();
            connection.pragma_update(None, "foreign_keys", false).unwrap();
            connection.execute_batch(damage).unwrap();
            drop(connection);
            assert!(kinds(&damaged).contains(kind), "{damage}: {:?}", kinds(&damaged));
        }
    }
}
