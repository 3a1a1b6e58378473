//! Use of the disk, by project and kind.
//!
//! Only SQLite: `page_count` and `page_size`.

use crate::server::store::words::Word;
use crate::server::store::words::words;
use crate::server::store::{Error, View};

words! {
    /// Kind of the things that take room, as people are told of it.
    StoredKind {
        /// Output of steps.
        Output = "output",
        /// Artifacts of jobs.
        Artifacts = "artifacts",
        /// Caches of the project.
        Caches = "caches",
        /// Layers of workspaces.
        Workspaces = "workspaces",
        /// Results of tests.
        Tests = "tests",
    }
}

/// The things of one kind that a project has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageUse {
    /// Slug of the project.
    pub project: String,
    /// Kind of them.
    pub kind: StoredKind,
    /// How many of them there are.
    pub count: u64,
    /// Bytes as they were uploaded or sent; those of two things that are the same are stored once. `None` for rows of the
    /// database.
    pub bytes: Option<u64>,
}

/// Sums up what the rows name, the largest first.
pub fn stored(view: &View) -> Result<Vec<StorageUse>, Error> {
    let output = StoredKind::Output.literal();
    let artifacts = StoredKind::Artifacts.literal();
    let caches = StoredKind::Caches.literal();
    let workspaces = StoredKind::Workspaces.literal();
    let tests = StoredKind::Tests.literal();
    let mut query = view.sql().prepare(&format!(
        "SELECT p.vcs || '/' || p.org || '/' || p.repo, u.kind, u.count, u.bytes FROM (
            SELECT t.project_id AS project, {output} AS kind, count(*) AS count, sum(s.output_bytes) AS bytes
                FROM tasks t JOIN steps s ON s.task_id = t.id
                WHERE s.output_bytes > 0 AND t.output_gone_at_ms IS NULL GROUP BY t.project_id
            UNION ALL SELECT project_id, {artifacts}, count(*), sum(length) FROM artifacts GROUP BY project_id
            UNION ALL SELECT project_id, {caches}, count(*), sum(length) FROM caches GROUP BY project_id
            UNION ALL SELECT j.project_id, {workspaces}, count(*), sum(l.length)
                FROM workspace_layers l JOIN jobs j ON j.id = l.job_id GROUP BY j.project_id
            UNION ALL SELECT j.project_id, {tests}, count(*), NULL
                FROM test_results r JOIN jobs j ON j.id = r.job_id GROUP BY j.project_id
         ) u JOIN projects p ON p.id = u.project ORDER BY u.bytes DESC, u.kind",
    ))?;
    let rows = query.query_map([], |row| {
        Ok(StorageUse { project: row.get(0)?, kind: row.get(1)?, count: row.get(2)?, bytes: row.get(3)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Size of the database in bytes.
pub fn database_bytes(view: &View) -> Result<u64, Error> {
    let pages: u64 = view.sql().pragma_query_value(None, "page_count", |row| row.get(0))?;
    let size: u64 = view.sql().pragma_query_value(None, "page_size", |row| row.get(0))?;
    Ok(pages * size)
}
