//! Removal of rows that are old, or of projects with too many of them, a few at a time, so that no other write
//! waits long.
//!
//! Only SQLite: `rowid`.

use crate::protocol::TaskId;
use crate::server::ids::{ArtifactId, CacheId, JobId, PipelineId, ProjectId};
use crate::server::store::tables::small_outputs;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{ToSql, params};

/// Rows that name uploads and count against the quota of their project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaKind {
    /// Caches: beyond the quota those go first that were restored longest ago.
    Caches,
    /// Artifacts: beyond the quota those go first that were read longest ago.
    Artifacts,
}

impl QuotaKind {
    /// The table, which has the name that people know it by.
    pub fn table(self) -> &'static str {
        match self {
            Self::Caches => "caches",
            Self::Artifacts => "artifacts",
        }
    }
}

fn ids<T: rusqlite::types::FromSql>(view: &View, sql: &str, given: &[&dyn ToSql]) -> Result<Vec<T>, Error> {
    let mut query = view.sql().prepare_cached(sql)?;
    let rows = query.query_map(given, |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Forgets up to `most` artifacts that were made before a time. Returns how many.
pub fn delete_artifacts_before(tx: &Tx<'_>, before: Millis, most: u32) -> Result<usize, Error> {
    let sql = "DELETE FROM artifacts WHERE rowid IN (SELECT rowid FROM artifacts WHERE created_at_ms < ?1 LIMIT ?2)";
    Ok(tx.sql().prepare_cached(sql)?.execute(params![before, most])?)
}

/// Forgets up to `most` caches, and as many workspace layers, whose time is over. Returns how many.
pub fn delete_expired(tx: &Tx<'_>, now: Millis, most: u32) -> Result<usize, Error> {
    let mut deleted = 0;
    for table in ["caches", "workspace_layers"] {
        let sql = format!(
            "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE expires_at_ms <= ?1 LIMIT ?2)"
        );
        deleted += tx.sql().prepare_cached(&sql)?.execute(params![now, most])?;
    }
    Ok(deleted)
}

/// Notes that the output of up to `most` tasks that ended before a time is gone. Returns the tasks.
pub fn give_up_outputs(tx: &Tx<'_>, before: Millis, now: Millis, most: u32) -> Result<Vec<TaskId>, Error> {
    let old = "SELECT id FROM tasks WHERE stopped_at_ms < ?1 AND stopped_at_ms IS NOT NULL AND output_gone_at_ms IS NULL LIMIT ?2";
    let tasks: Vec<TaskId> = ids(tx, old, &[&before, &most])?;
    let mut gone = tx.sql().prepare_cached("UPDATE tasks SET output_gone_at_ms = ?2 WHERE id = ?1")?;
    for task in &tasks {
        gone.execute(params![task, now])?;
        small_outputs::delete_of_task(tx, task)?;
    }
    Ok(tasks)
}

/// Whether a task ended before a time and nothing of it may be at work.
pub fn is_silent_since(view: &View, task: &TaskId, before: Millis) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM tasks WHERE id = ?1 AND stopped_at_ms < ?2 AND fence_until_ms IS NULL";
    Ok(view.sql().prepare_cached(sql)?.exists(params![task, before])?)
}

/// Forgets up to `most` test results of a job that ended before a time, or the last that is left of them. Returns how many
/// rows went; 0 when there is no such job.
pub fn delete_tests_before(tx: &Tx<'_>, before: Millis, most: u32) -> Result<usize, Error> {
    let old = "SELECT w.job_id FROM jobs_with_tests w JOIN jobs j ON j.id = w.job_id
         WHERE j.stopped_at_ms < ?1 ORDER BY w.seq LIMIT 1";
    let Some(job) = ids::<JobId>(tx, old, &[&before])?.pop() else { return Ok(0) };
    Ok(1 + delete_tests_of(tx, &job, most)?)
}

/// Forgets test results of a job; the job has none once fewer than `most` went.
fn delete_tests_of(tx: &Tx<'_>, job: &JobId, most: u32) -> Result<usize, Error> {
    tx.sql().prepare_cached("DELETE FROM test_files WHERE job_id = ?1")?.execute([job])?;
    let sql = "DELETE FROM test_results WHERE id IN (SELECT id FROM test_results WHERE job_id = ?1 LIMIT ?2)";
    let deleted = tx.sql().prepare_cached(sql)?.execute(params![job, most])?;
    if deleted < most as usize {
        tx.sql().prepare_cached("DELETE FROM jobs_with_tests WHERE job_id = ?1")?.execute([job])?;
    }
    Ok(deleted)
}

/// The oldest pipelines that were made before a time and in which nothing runs or is waited for, up to `most`.
pub fn pipelines_before(view: &View, before: Millis, most: u32) -> Result<Vec<PipelineId>, Error> {
    let sql = "SELECT id FROM pipelines p WHERE created_at_ms < ?1
            AND NOT EXISTS (SELECT 1 FROM workflows w WHERE w.pipeline_id = p.id AND w.stopped_at_ms IS NULL)
            AND NOT EXISTS (SELECT 1 FROM jobs j JOIN tasks t ON t.job_id = j.id WHERE j.pipeline_id = p.id
                AND (t.stopped_at_ms IS NULL OR t.fence_until_ms IS NOT NULL))
         ORDER BY created_at_ms LIMIT ?2";
    ids(view, sql, &[&before, &most])
}

/// Some pipelines of a project.
pub fn pipelines_of(view: &View, project: &ProjectId, most: u32) -> Result<Vec<PipelineId>, Error> {
    ids(view, "SELECT id FROM pipelines WHERE project_id = ?1 LIMIT ?2", &[project, &most])
}

/// Forgets a part of a pipeline: test results first, then its jobs one by one, then itself. The first jobs of its workflows
/// go before the others, so that a workflow without some of its jobs can be told from a whole one. The tasks whose output nobody
/// names any more, and whether it is gone as a whole.
pub fn delete_part_of_pipeline(
    tx: &Tx<'_>,
    pipeline: &PipelineId,
    most: u32,
) -> Result<(Vec<TaskId>, bool), Error> {
    let Some(job) = ids::<JobId>(
        tx,
        "SELECT id FROM jobs WHERE pipeline_id = ?1 ORDER BY position LIMIT 1",
        &[pipeline],
    )?
    .pop() else {
        tx.sql().prepare_cached("DELETE FROM pipelines WHERE id = ?1")?.execute([pipeline])?;
        return Ok((Vec::new(), true));
    };
    if delete_tests_of(tx, &job, most)? >= most as usize {
        return Ok((Vec::new(), false));
    }
    let tasks = ids(tx, "SELECT id FROM tasks WHERE job_id = ?1", &[&job])?;
    tx.sql().prepare_cached("DELETE FROM jobs WHERE id = ?1")?.execute([&job])?;
    Ok((tasks, false))
}

/// Use of one kind by one project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Id of the project.
    pub project: ProjectId,
    /// Slug of the project, such as `gh/acme/app`.
    pub slug: String,
    /// Bytes that its rows name.
    pub bytes: u64,
}

/// Returns the use of each project that has something.
pub fn used_by_projects(view: &View, quota: QuotaKind) -> Result<Vec<Used>, Error> {
    let table = quota.table();
    let sql = format!(
        "SELECT p.id, p.vcs || '/' || p.org || '/' || p.repo, u.bytes
         FROM (SELECT project_id, sum(length) AS bytes FROM {table} GROUP BY project_id) u
         JOIN projects p ON p.id = u.project_id ORDER BY p.id"
    );
    let mut query = view.sql().prepare_cached(&sql)?;
    let rows = query
        .query_map([], |row| Ok(Used { project: row.get(0)?, slug: row.get(1)?, bytes: row.get(2)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Forgets rows of a project until these many bytes are named no more, those that were used longest ago first, up to `most`
/// rows. Returns the bytes.
pub fn evict(
    tx: &Tx<'_>,
    quota: QuotaKind,
    project: &ProjectId,
    bytes: u64,
    most: u32,
) -> Result<u64, Error> {
    let table = quota.table();
    let sql = format!(
        "DELETE FROM {table} WHERE rowid IN (
            SELECT id FROM (SELECT rowid AS id, sum(length) OVER w - length AS before FROM
                (SELECT rowid, length, coalesce(used_at_ms, created_at_ms) AS used FROM {table} WHERE project_id = ?1
                 ORDER BY coalesce(used_at_ms, created_at_ms) LIMIT ?3)
                WINDOW w AS (ORDER BY used, rowid ROWS UNBOUNDED PRECEDING))
            WHERE before < ?2) RETURNING length"
    );
    let mut query = tx.sql().prepare_cached(&sql)?;
    let lengths = query.query_map(params![project, bytes, most], |row| row.get::<_, u64>(0))?;
    let mut evicted = 0;
    for length in lengths {
        evicted += length?;
    }
    Ok(evicted)
}

/// A row that counts against a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counted {
    /// A cache, by its id.
    Cache(CacheId),
    /// An artifact, by its id.
    Artifact(ArtifactId),
}

impl Counted {
    fn place(&self) -> (&'static str, &str) {
        match self {
            Self::Cache(id) => (QuotaKind::Caches.table(), id.as_str()),
            Self::Artifact(id) => (QuotaKind::Artifacts.table(), id.as_str()),
        }
    }
}

/// Notes that a cache or an artifact was read.
pub fn set_used(tx: &Tx<'_>, row: &Counted, now: Millis) -> Result<(), Error> {
    let (table, id) = row.place();
    let sql = format!("UPDATE {table} SET used_at_ms = ?2 WHERE id = ?1");
    tx.sql().prepare_cached(&sql)?.execute(params![id, now])?;
    Ok(())
}

/// Whether it was not noted since a time that a cache or an artifact was read.
pub fn is_unused_since(view: &View, row: &Counted, since: Millis) -> Result<bool, Error> {
    let (table, id) = row.place();
    let sql = format!("SELECT 1 FROM {table} WHERE id = ?1 AND coalesce(used_at_ms, created_at_ms) < ?2");
    Ok(view.sql().prepare_cached(&sql)?.exists(params![id, since])?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::server::store::{Store, scene};

    /// Runs on an empty project with one pipeline, a job that has ended, and its task.
    fn with_rows(work: impl FnOnce(&Tx<'_>) -> Result<(), Error> + Send + 'static) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), false, |_| ()).unwrap();
        let done = store.write_blocking(move |tx| {
            crate::server::store::tables::projects::ensure_project(tx, "gh/acme/app", None, Millis(0))?;
            scene::insert_ended_task(tx)?;
            work(tx)
        });
        done.unwrap();
    }

    fn count(view: &View, table: &str) -> Result<u64, Error> {
        Ok(view.sql().query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?)
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_no_more_than_is_over() {
        with_rows(|tx| {
            let project = scene::project(tx)?;
            for (id, created, used) in [("a", 1, Some(9)), ("b", 2, None), ("c", 3, None), ("d", 4, None)] {
                tx.sql().execute(
                    "INSERT INTO caches VALUES (?1, ?2, 't', ?1, ?1, 10, ?3, 1000, ?4)",
                    params![id, project, created, used],
                )?;
            }
            let used = Used { project: project.clone(), slug: "gh/acme/app".to_owned(), bytes: 40 };
            assert_eq!(used_by_projects(tx, QuotaKind::Caches)?, [used]);
            assert_eq!(used_by_projects(tx, QuotaKind::Artifacts)?, []);
            let cache = Counted::Cache("c".into());
            assert!(is_unused_since(tx, &cache, Millis(5))?);
            set_used(tx, &cache, Millis(8))?;
            assert!(!is_unused_since(tx, &cache, Millis(5))?);
            // A step takes one row only; the next one goes on.
            assert_eq!(evict(tx, QuotaKind::Caches, &project, 15, 1)?, 10);
            assert_eq!(evict(tx, QuotaKind::Caches, &project, 5, 500)?, 10);
            assert_eq!(ids::<String>(tx, "SELECT id FROM caches ORDER BY id", &[])?, ["a", "c"]);
            Ok(())
        });
    }

    #[test]
    fn test_results_go_in_parts_and_their_job_is_forgotten_last() {
        with_rows(|tx| {
            for n in 0..5 {
                tx.sql().execute(
                    "INSERT INTO test_results VALUES (NULL, 'j', 't', 't.xml', ?1, '', NULL, '', 'success', 1, '', NULL)",
                    [n.to_string()],
                )?;
            }
            crate::server::store::tables::jobs_with_tests::insert_job(tx, &"j".into())?;
            assert_eq!(delete_tests_before(tx, Millis(9), 2)?, 0, "it ended later");
            for (deleted, left) in [(3, 3), (3, 1), (2, 0), (0, 0)] {
                assert_eq!(delete_tests_before(tx, Millis(10), 2)?, deleted);
                assert_eq!(count(tx, "test_results")?, left);
            }
            assert_eq!(count(tx, "jobs_with_tests")?, 0);
            Ok(())
        });
    }

    #[test]
    fn outputs_and_pipelines_go_by_age_unless_something_runs() {
        with_rows(|tx| {
            assert!(give_up_outputs(tx, Millis(9), Millis(99), 500)?.is_empty());
            assert_eq!(give_up_outputs(tx, Millis(10), Millis(99), 500)?.len(), 1);
            assert!(give_up_outputs(tx, Millis(10), Millis(99), 500)?.is_empty(), "once");
            let old = pipelines_before(tx, Millis(10), 500)?;
            for busy in ["UPDATE workflows SET stopped_at_ms = NULL", "UPDATE tasks SET fence_until_ms = 1"] {
                tx.sql().execute_batch(&format!("SAVEPOINT busy; {busy}"))?;
                assert!(pipelines_before(tx, Millis(10), 500)?.is_empty(), "{busy}");
                tx.sql().execute_batch("ROLLBACK TO busy; RELEASE busy")?;
            }
            assert_eq!(delete_part_of_pipeline(tx, &old[0], 500)?, (vec![TaskId::new("t").unwrap()], false));
            assert_eq!(delete_part_of_pipeline(tx, &old[0], 500)?, (Vec::new(), true));
            assert_eq!((count(tx, "pipelines")?, count(tx, "tasks")?, count(tx, "workflows")?), (0, 0, 0));
            Ok(())
        });
    }
}
