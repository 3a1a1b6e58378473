//! Caches and workspace layers in the store: found, named, and forgotten when their time is over. The bytes
//! are uploads like any other.

use crate::config::Requirement;
use crate::protocol::{
    Archive, Cache, CacheRecord, FindCache, Layer, LayerJob, LayerRecord, TaskId, Workspace,
};
use crate::server::store::View;
use crate::server::store::{Error, Tx, new_id};
use rusqlite::{OptionalExtension, Row, params};
use std::collections::HashMap;

/// How long caches and layers are kept; a job may ask for less (`retention.caches`).
pub const RETENTION_DAYS: u64 = 15;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The cache of the project that the first fitting key stands for.
pub fn find_cache(c: &View, project: &str, wanted: &FindCache, now: u64) -> Result<Option<Cache>, Error> {
    // Of those that begin with a text the newest, even where one of them is that very text.
    let fits = if wanted.exact { "key = ?2" } else { "substr(key, 1, length(?2)) = ?2" };
    let mut query = c.prepare_cached(&format!(
        "SELECT id, key, sha256, length, created_at_ms FROM caches
         WHERE project_id = ?1 AND {fits} AND expires_at_ms > ?3 ORDER BY created_at_ms DESC, rowid DESC LIMIT 1"
    ))?;
    for key in &wanted.keys {
        let row = |row: &Row<'_>| {
            Ok(Cache {
                id: row.get(0)?,
                key: row.get(1)?,
                archive: archive(row, 2)?,
                created_at_ms: row.get(4)?,
            })
        };
        if let Some(cache) = query.query_row(params![project, key, now as i64], row).optional()? {
            return Ok(Some(cache));
        }
    }
    Ok(None)
}

fn archive(row: &Row<'_>, at: usize) -> rusqlite::Result<Archive> {
    Ok(Archive { sha256: row.get(at)?, length: row.get(at + 1)? })
}

/// Names an upload as a cache of the project of the task. False when the key is taken by others; the same
/// record sent again is no second one.
pub fn save_cache(tx: &Tx<'_>, task: &TaskId, record: &CacheRecord, now: u64) -> Result<bool, Error> {
    let (project, definition): (String, String) = tx
        .prepare_cached(
            "SELECT t.project_id, j.definition FROM tasks t JOIN jobs j ON j.id = t.job_id WHERE t.id = ?1",
        )?
        .query_row([task.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let definition: crate::config::WorkflowJob = serde_json::from_str(&definition)?;
    let days = match &definition.kind {
        crate::config::JobKind::Build { job } => job.cache_retention_days.map_or(RETENTION_DAYS, u64::from),
        _ => RETENTION_DAYS,
    };
    let expires = now + days.min(RETENTION_DAYS) * DAY_MS;
    // One whose time is over makes room, whether it was swept yet or not.
    tx.prepare_cached("DELETE FROM caches WHERE project_id = ?1 AND key = ?2 AND expires_at_ms <= ?3")?
        .execute(params![project, record.key, now as i64])?;
    let stored = tx
        .prepare_cached(
            "INSERT OR IGNORE INTO caches (id, project_id, task_id, key, sha256, length, created_at_ms, expires_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            new_id(),
            project,
            task.as_str(),
            record.key,
            record.archive.sha256,
            record.archive.length as i64,
            now as i64,
            expires as i64
        ])?;
    if stored > 0 {
        return Ok(true);
    }
    let own = tx
        .prepare_cached(
            "SELECT 1 FROM caches WHERE project_id = ?1 AND key = ?2 AND task_id = ?3 AND sha256 = ?4",
        )?
        .exists(params![project, record.key, task.as_str(), record.archive.sha256])?;
    Ok(own)
}

/// Forgets all caches of a project; returns how many.
pub fn forget_caches(tx: &Tx<'_>, project: &str) -> Result<usize, Error> {
    Ok(tx.prepare_cached("DELETE FROM caches WHERE project_id = ?1")?.execute([project])?)
}

/// Names an upload as a layer of the workspace.
pub fn save_layer(tx: &Tx<'_>, task: &TaskId, record: &LayerRecord, now: u64) -> Result<(), Error> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO workspace_layers (id, job_id, task_id, step, sha256, length, created_at_ms, expires_at_ms)
         SELECT ?1, job_id, id, ?3, ?4, ?5, ?6, ?7 FROM tasks WHERE id = ?2",
    )?
    .execute(params![
        new_id(),
        task.as_str(),
        record.step,
        record.archive.sha256,
        record.archive.length as i64,
        now as i64,
        (now + RETENTION_DAYS * DAY_MS) as i64
    ])?;
    Ok(())
}

/// What the jobs upstream of `job` have persisted. A job that a rerun has not run again stands for the one
/// whose result it keeps; of a node that ran twice the last attempt counts.
pub fn workspace(c: &View, job: &str, now: u64) -> Result<Workspace, Error> {
    let jobs = jobs_around(c, job)?;
    let Some(own) = jobs.iter().position(|row| row.id == job) else { return Ok(Workspace::default()) };
    let upstream = upstream(&jobs);
    let mut order: Vec<usize> = upstream[own].clone();
    // Whoever has more jobs upstream than another is not among those upstream of it.
    order.sort_by_key(|at| (upstream[*at].len(), *at));
    let mut layers = c.prepare_cached(
        "SELECT l.id, t.node_index, l.sha256, l.length FROM workspace_layers l JOIN tasks t ON t.id = l.task_id
         WHERE l.job_id = ?1 AND l.expires_at_ms > ?2
            AND t.attempt = (SELECT max(attempt) FROM tasks n WHERE n.job_id = t.job_id AND n.node_index = t.node_index)
         ORDER BY t.node_index, l.step",
    )?;
    let mut found = Workspace::default();
    let mut places: HashMap<usize, usize> = HashMap::new();
    for at in order {
        let place = found.jobs.len();
        let rows = layers.query_map(params![jobs[at].ran_as, now as i64], |row| {
            Ok(Layer { id: row.get(0)?, job: place, node_index: row.get(1)?, archive: archive(row, 2)? })
        })?;
        let before = found.layers.len();
        for layer in rows {
            found.layers.push(layer?);
        }
        if found.layers.len() > before {
            places.insert(at, place);
            let after = upstream[at].iter().filter_map(|other| places.get(other).copied()).collect();
            found.jobs.push(LayerJob { name: jobs[at].name.clone(), after });
        }
    }
    Ok(found)
}

struct JobRow {
    id: String,
    name: String,
    ran_as: String,
    requires: Vec<Requirement>,
}

/// The jobs of the workflow of a job, in their order.
fn jobs_around(c: &View, job: &str) -> Result<Vec<JobRow>, Error> {
    let mut query = c.prepare_cached(
        "SELECT id, name, coalesce(reused_from, id), requires FROM jobs
         WHERE workflow_id = (SELECT workflow_id FROM jobs WHERE id = ?1) ORDER BY position",
    )?;
    let rows = query
        .query_map([job], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, String>(3)?)))?;
    rows.map(|row| {
        let (id, name, ran_as, requires) = row?;
        Ok(JobRow { id, name, ran_as, requires: serde_json::from_str(&requires)? })
    })
    .collect()
}

/// For each job the positions of all that it requires, directly or not.
fn upstream(jobs: &[JobRow]) -> Vec<Vec<usize>> {
    let by_name: HashMap<&str, usize> = jobs.iter().enumerate().map(|(at, job)| (&*job.name, at)).collect();
    let direct: Vec<Vec<usize>> = jobs
        .iter()
        .map(|job| job.requires.iter().filter_map(|wanted| by_name.get(&*wanted.job).copied()).collect())
        .collect();
    (0..jobs.len())
        .map(|start| {
            let mut seen = vec![false; jobs.len()];
            let mut waiting = direct[start].clone();
            while let Some(at) = waiting.pop() {
                if !std::mem::replace(&mut seen[at], true) {
                    waiting.extend(&direct[at]);
                }
            }
            (0..jobs.len()).filter(|at| seen[*at]).collect()
        })
        .collect()
}
