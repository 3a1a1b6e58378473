//! Small outputs of steps, whole, of tasks whose own agent has finished. They never change; larger ones, and those of tasks
//! that may still send, are files.
//!
//! Only SQLite: `INSERT OR REPLACE` and `INSERT OR IGNORE`.

use crate::protocol::TaskId;
use crate::server::store::{Error, Tx, View};
use rusqlite::{OptionalExtension, params};

/// An output that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmallOutput {
    /// Number of the step record.
    pub step: u32,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// Stores an output.
pub fn insert(tx: &Tx<'_>, task: &TaskId, output: &SmallOutput) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("INSERT OR REPLACE INTO small_outputs (task_id, step, bytes) VALUES (?1, ?2, ?3)")?
        .execute(params![task, output.step, output.bytes])?;
    Ok(())
}

/// Stores an output unless it is there.
pub fn insert_missing(tx: &Tx<'_>, task: &TaskId, output: &SmallOutput) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("INSERT OR IGNORE INTO small_outputs (task_id, step, bytes) VALUES (?1, ?2, ?3)")?
        .execute(params![task, output.step, output.bytes])?;
    Ok(())
}

/// The output of a step; `None` where it is no small one, or is not complete.
pub fn find(view: &View, task: &TaskId, step: u32) -> Result<Option<Vec<u8>>, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT bytes FROM small_outputs WHERE task_id = ?1 AND step = ?2")?;
    Ok(query.query_row(params![task, step], |row| row.get(0)).optional()?)
}

/// The small outputs of a task.
pub fn of_task(view: &View, task: &TaskId) -> Result<Vec<SmallOutput>, Error> {
    let mut query = view
        .sql()
        .prepare_cached("SELECT step, bytes FROM small_outputs WHERE task_id = ?1 ORDER BY step")?;
    let rows = query.query_map([task], |row| Ok(SmallOutput { step: row.get(0)?, bytes: row.get(1)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Removes the small outputs of a task.
pub fn delete_of_task(tx: &Tx<'_>, task: &TaskId) -> Result<(), Error> {
    tx.sql().prepare_cached("DELETE FROM small_outputs WHERE task_id = ?1")?.execute([task])?;
    Ok(())
}
