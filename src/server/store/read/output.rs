//! The output of a step: the task that has it, and whether all of it is here. A runner may tell the end of a step before
//! the last of its output has arrived, and whoever follows the output stops at the end: it is shown after
//! the last byte.
//!
//! Only SQLite: nothing.

use crate::protocol::TaskId;
use crate::server::ids::JobId;
use crate::server::store::json::Json;
use crate::server::store::{Error, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, Row, params};

/// The amount of output that a step has or will have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    ended: bool,
    awaited_bytes: u64,
}

/// Columns of [`Extent`], of the tables `steps` as `s` and `tasks` as `t`. Nothing comes after the end of
/// a task, whatever was announced: its runner may be gone.
pub(super) const EXTENT: &str = "s.ended_at_ms IS NOT NULL,
    CASE WHEN t.stopped_at_ms IS NULL THEN coalesce(s.output_bytes, 0) ELSE 0 END";

impl Extent {
    /// Reads a row that has the columns of [`EXTENT`] from `at`.
    pub(super) fn from_row(row: &Row<'_>, at: usize) -> rusqlite::Result<Self> {
        Ok(Self { ended: row.get(at)?, awaited_bytes: row.get(at + 1)? })
    }

    /// Whether the step has ended and these many bytes are all that it wrote.
    pub fn is_complete(self, bytes: u64) -> bool {
        self.ended && bytes >= self.awaited_bytes
    }
}

/// The output of one step of the newest attempt of a parallel node.
#[derive(Clone, Debug)]
pub struct StepOutput {
    /// The task that has the step.
    pub task: TaskId,
    /// Number of the step record.
    pub step: u32,
    /// The amount that there will be.
    pub extent: Extent,
    /// Whether the output was too old and has been removed.
    pub is_gone: bool,
}

/// Finds the output of a step of a job, by parallel node and number of the record.
pub fn step_output(
    view: &View,
    job: &JobId,
    node_index: u32,
    step: u32,
) -> Result<Option<StepOutput>, Error> {
    let mut query = view.sql().prepare_cached(&format!(
        "SELECT t.id, {EXTENT}, t.output_gone_at_ms IS NOT NULL FROM tasks t JOIN steps s ON s.task_id = t.id
         WHERE t.job_id = (SELECT coalesce(reused_from, id) FROM jobs WHERE id = ?1)
            AND t.node_index = ?2 AND s.step = ?3 ORDER BY t.attempt DESC LIMIT 1",
    ))?;
    let row = query.query_row(params![job, node_index, step], |row| {
        Ok(StepOutput { task: row.get(0)?, step, extent: Extent::from_row(row, 1)?, is_gone: row.get(3)? })
    });
    Ok(row.optional()?)
}

/// A step that has begun, and may have ended: as its output is found by its task.
#[derive(Clone, Copy, Debug)]
pub struct BegunStep {
    /// The time at which it began.
    pub at: Millis,
    /// Whether the output was too old and has been removed.
    pub is_gone: bool,
}

/// Finds a step of a task; also while it runs, when nobody has told the times of its output.
pub fn step_begun(view: &View, task: &TaskId, step: u32) -> Result<Option<BegunStep>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT s.started_at_ms, t.output_gone_at_ms IS NOT NULL FROM steps s JOIN tasks t ON t.id = s.task_id
         WHERE s.task_id = ?1 AND s.step = ?2",
    )?;
    let row =
        query.query_row(params![task, step], |row| Ok(BegunStep { at: row.get(0)?, is_gone: row.get(1)? }));
    Ok(row.optional()?)
}

/// When the output of a step came: offsets in bytes, and the time of what begins there. Empty before the end of the step, when its runner tells.
pub fn output_times(view: &View, task: &TaskId, step: u32) -> Result<Vec<(u64, Millis)>, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT output_times FROM steps WHERE task_id = ?1 AND step = ?2")?;
    let times = query.query_row(params![task, step], |row| row.get::<_, Option<Json<_>>>(0)).optional()?;
    Ok(times.flatten().map_or_else(Vec::new, |times| times.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_counts_with_the_last_byte() {
        let extent = |ended, awaited_bytes| Extent { ended, awaited_bytes };
        assert!(!extent(false, 0).is_complete(10), "it may write more");
        assert!(!extent(true, 10).is_complete(9));
        assert!(extent(true, 10).is_complete(10));
        assert!(extent(true, 0).is_complete(0), "a task that is over sends nothing more");
    }
}
