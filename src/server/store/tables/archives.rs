//! Caches and workspace layers: rows that name uploads, found and forgotten.
//!
//! Only SQLite: `INSERT OR IGNORE` for caches and `INSERT OR REPLACE` for layers; `rowid` breaks ties of caches
//! of one millisecond.

use crate::config::Requirement;
use crate::protocol::{Archive, Cache, CacheRecord, LayerRecord, TaskId};
use crate::server::ids::{CacheId, JobId, LayerId, ProjectId};
use crate::server::store::json::Json;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, Row, params};

/// How much of a key must be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// All of it.
    Whole,
    /// Prefix: the newest cache whose key begins with the text, also where another has exactly that key.
    Beginning,
}

/// The newest cache of the project whose key fits and whose time is not over.
pub fn find_cache(
    view: &View,
    project: &ProjectId,
    key: &str,
    matching: Match,
    now: Millis,
) -> Result<Option<Cache>, Error> {
    let fits = match matching {
        Match::Whole => "key = ?2",
        Match::Beginning => "substr(key, 1, length(?2)) = ?2",
    };
    let mut query = view.sql().prepare_cached(&format!(
        "SELECT id, key, sha256, length, created_at_ms FROM caches
         WHERE project_id = ?1 AND {fits} AND expires_at_ms > ?3 ORDER BY created_at_ms DESC, rowid DESC LIMIT 1"
    ))?;
    let found = query.query_row(params![project, key, now], |row| {
        Ok(Cache { id: row.get(0)?, key: row.get(1)?, archive: archive(row, 2)?, created_at_ms: row.get(4)? })
    });
    Ok(found.optional()?)
}

fn archive(row: &Row<'_>, at: usize) -> rusqlite::Result<Archive> {
    Ok(Archive { sha256: row.get(at)?, length: row.get(at + 1)? })
}

/// Forgets a cache whose time is over, so that its key is free.
pub fn delete_expired_cache(tx: &Tx<'_>, project: &ProjectId, key: &str, now: Millis) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("DELETE FROM caches WHERE project_id = ?1 AND key = ?2 AND expires_at_ms <= ?3")?
        .execute(params![project, key, now])?;
    Ok(())
}

/// Names an upload as a cache. False when the project has one of that key.
pub fn insert_cache(
    tx: &Tx<'_>,
    project: &ProjectId,
    task: &TaskId,
    record: &CacheRecord,
    expires_at: Millis,
    now: Millis,
) -> Result<bool, Error> {
    let inserted = tx
        .sql()
        .prepare_cached(
            "INSERT OR IGNORE INTO caches (id, project_id, task_id, key, sha256, length, created_at_ms, expires_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            CacheId::fresh(),
            project,
            task,
            record.key,
            record.archive.sha256,
            record.archive.length,
            now,
            expires_at
        ])?;
    Ok(inserted > 0)
}

/// Whether the cache of a key is what a task saves now.
pub fn is_own_cache(
    view: &View,
    project: &ProjectId,
    task: &TaskId,
    record: &CacheRecord,
) -> Result<bool, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT 1 FROM caches WHERE project_id = ?1 AND key = ?2 AND task_id = ?3 AND sha256 = ?4",
    )?;
    Ok(query.exists(params![project, record.key, task, record.archive.sha256])?)
}

/// The caches of a project whose time is not over, the oldest first.
pub fn caches_of(view: &View, project: &ProjectId, now: Millis) -> Result<Vec<Cache>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT id, key, sha256, length, created_at_ms FROM caches
         WHERE project_id = ?1 AND expires_at_ms > ?2 ORDER BY created_at_ms, rowid",
    )?;
    let rows = query.query_map(params![project, now], |row| {
        Ok(Cache { id: row.get(0)?, key: row.get(1)?, archive: archive(row, 2)?, created_at_ms: row.get(4)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The archive of a cache of the project.
pub fn cache_archive(view: &View, cache: &CacheId, project: &ProjectId) -> Result<Option<Archive>, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT sha256, length FROM caches WHERE id = ?1 AND project_id = ?2")?;
    Ok(query.query_row(params![cache, project], |row| archive(row, 0)).optional()?)
}

/// Forgets all caches of a project. Returns how many.
pub fn delete_caches_of(tx: &Tx<'_>, project: &ProjectId) -> Result<usize, Error> {
    Ok(tx.sql().prepare_cached("DELETE FROM caches WHERE project_id = ?1")?.execute([project])?)
}

/// Names an upload as what a step of a task has persisted; the last record of a step counts.
pub fn insert_layer(
    tx: &Tx<'_>,
    task: &TaskId,
    record: &LayerRecord,
    expires_at: Millis,
    now: Millis,
) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "INSERT OR REPLACE INTO workspace_layers (id, job_id, task_id, step, sha256, length, created_at_ms, expires_at_ms)
             SELECT ?1, job_id, id, ?3, ?4, ?5, ?6, ?7 FROM tasks WHERE id = ?2",
        )?
        .execute(params![
            LayerId::fresh(),
            task,
            record.step,
            record.archive.sha256,
            record.archive.length,
            now,
            expires_at
        ])?;
    Ok(())
}

/// A job of a workflow, with the one whose layers it stands for.
#[derive(Clone, Debug)]
pub struct Persisting {
    /// Id of the job.
    pub id: JobId,
    /// Name of the job in the workflow.
    pub name: String,
    /// The job whose result it keeps, else itself.
    pub ran_as: JobId,
    /// The jobs that it waits for.
    pub requires: Vec<Requirement>,
}

/// The jobs of the workflow of a job, in their order.
pub fn jobs_around(view: &View, job: &JobId) -> Result<Vec<Persisting>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT id, name, coalesce(reused_from, id), requires FROM jobs
         WHERE workflow_id = (SELECT workflow_id FROM jobs WHERE id = ?1) ORDER BY position",
    )?;
    let mut rows = query.query([job])?;
    let mut jobs = Vec::new();
    while let Some(row) = rows.next()? {
        jobs.push(Persisting {
            id: row.get(0)?,
            name: row.get(1)?,
            ran_as: row.get(2)?,
            requires: row.get::<_, Json<_>>(3)?.0,
        });
    }
    Ok(jobs)
}

/// The archive that a step has persisted.
#[derive(Clone, Debug)]
pub struct LayerRow {
    /// Id of the layer, by which a runner fetches it.
    pub id: LayerId,
    /// The node that the step ran on.
    pub node_index: u32,
    /// Upload that the layer names.
    pub archive: Archive,
}

/// The layers of a job whose time is not over, in the order of nodes and steps. Of a node that ran more than
/// once the last attempt counts.
pub fn layers_of(view: &View, job: &JobId, now: Millis) -> Result<Vec<LayerRow>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT l.id, t.node_index, l.sha256, l.length FROM workspace_layers l JOIN tasks t ON t.id = l.task_id
         WHERE l.job_id = ?1 AND l.expires_at_ms > ?2
            AND t.attempt = (SELECT max(attempt) FROM tasks n WHERE n.job_id = t.job_id AND n.node_index = t.node_index)
         ORDER BY t.node_index, l.step",
    )?;
    let found = query.query_map(params![job, now], |row| {
        Ok(LayerRow { id: row.get(0)?, node_index: row.get(1)?, archive: archive(row, 2)? })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// The archive of a layer of the workspace that a job works with.
pub fn layer_archive(view: &View, layer: &LayerId, job: &JobId) -> Result<Option<Archive>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT l.sha256, l.length FROM workspace_layers l JOIN jobs j ON j.id = l.job_id
         JOIN workflows w ON w.id = j.workflow_id WHERE l.id = ?1 AND w.workspace_id =
         (SELECT o.workspace_id FROM workflows o JOIN jobs p ON p.workflow_id = o.id WHERE p.id = ?2)",
    )?;
    Ok(query.query_row(params![layer, job], |row| archive(row, 0)).optional()?)
}

/// Whether any row names an upload: an artifact, a file of test results, a cache or a layer.
pub fn names_upload(view: &View, sha256: &str) -> Result<bool, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM artifacts WHERE sha256 = ?1) OR EXISTS (SELECT 1 FROM test_files WHERE sha256 = ?1)
            OR EXISTS (SELECT 1 FROM caches WHERE sha256 = ?1) OR EXISTS (SELECT 1 FROM workspace_layers WHERE sha256 = ?1)",
    )?;
    Ok(query.query_row([sha256], |row| row.get(0))?)
}
