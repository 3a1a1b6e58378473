//! Keys that let a job continue its pipeline. Of a key only its hash is stored.
//!
//! Only SQLite: nothing.

use crate::server::ids::PipelineId;
use crate::server::store::{Error, Tx};
use rusqlite::params;

/// Adds a key of a pipeline by the SHA-256 of its text.
pub fn add_key(tx: &Tx<'_>, hash: &[u8], pipeline: &PipelineId) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("INSERT INTO continuation_keys (hash, pipeline_id) VALUES (?1, ?2)")?
        .execute(params![hash, pipeline])?;
    Ok(())
}
