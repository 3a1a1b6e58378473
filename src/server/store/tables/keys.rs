//! Keys that let a job continue its pipeline. Of a key only its hash is stored.
//!
//! SQLite only: nothing. `is_setup` is an integer there and a boolean here.

use crate::protocol::TaskId;
use crate::server::ids::PipelineId;
use crate::server::store::{Error, Tx, View};
use rusqlite::{OptionalExtension, params};

/// Finds the pipeline that a task may continue: that of its setup workflow, unless it was continued already.
pub fn pipeline_to_continue(view: &View, task: &TaskId) -> Result<Option<PipelineId>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT p.id FROM tasks t JOIN jobs j ON j.id = t.job_id JOIN workflows w ON w.id = j.workflow_id
         JOIN pipelines p ON p.id = t.pipeline_id
         WHERE t.id = ?1 AND w.is_setup = ?2 AND p.continued_at_ms IS NULL",
    )?;
    Ok(query.query_row(params![task, true], |row| row.get(0)).optional()?)
}

/// Adds a key of a pipeline by the SHA-256 of its text.
pub fn add_key(tx: &Tx<'_>, hash: &[u8], pipeline: &PipelineId) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("INSERT INTO continuation_keys (hash, pipeline_id) VALUES (?1, ?2)")?
        .execute(params![hash, pipeline])?;
    Ok(())
}
