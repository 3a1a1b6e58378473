//! Step records of tasks.
//!
//! Only SQLite: `INSERT OR IGNORE`.

use crate::protocol::{Beside, EventKind, FIRST_BESIDE, StepSummary, TaskEvent, TaskId};
use crate::server::store::status::StepState;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::params;

/// Stores what an event says of a step. A record that is there already stays.
pub fn record(tx: &Tx<'_>, task: &TaskId, event: &TaskEvent) -> Result<(), Error> {
    let at = Millis(event.at_ms);
    match &event.kind {
        EventKind::StepStarted { step, index, name, kind, command, attempt, max_auto_reruns, background } => {
            let running = StepState::Running;
            tx.sql()
                .prepare_cached(
                    "INSERT OR IGNORE INTO steps (task_id, step, step_index, name, kind, command, attempt, max_auto_reruns,
                        background, status, started_at_ms)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                )?
                .execute(params![
                    task, step, index, name, kind, command, attempt, max_auto_reruns, background, running, at
                ])?;
        }
        EventKind::StepFinished { step, status, exit_code, signal, message, output_bytes, output_times } => {
            let (status, output_bytes) = (StepState::from(*status), stored(*output_bytes));
            let times =
                (!output_times.is_empty()).then(|| serde_json::to_string(output_times)).transpose()?;
            tx.sql()
                .prepare_cached(
                    "UPDATE steps SET status = ?3, exit_code = ?4, signal = ?5, message = ?6, ended_at_ms = ?7,
                        output_bytes = ?8, output_times = ?9 WHERE task_id = ?1 AND step = ?2",
                )?
                .execute(params![task, step, status, exit_code, signal, message, at, output_bytes, times])?;
        }
    }
    Ok(())
}

/// Stores what a runner says of a record of its own. `record` counts from [`FIRST_BESIDE`].
pub fn record_beside(tx: &Tx<'_>, task: &TaskId, record: u32, beside: &Beside) -> Result<(), Error> {
    let at_ms = beside.at_ms;
    let kind = EventKind::StepStarted {
        step: record,
        index: None,
        name: beside.name.clone(),
        kind: beside.kind.clone(),
        command: None,
        attempt: 1,
        max_auto_reruns: 0,
        background: true,
    };
    self::record(tx, task, &TaskEvent { number: 0, at_ms, kind })?;
    let Some(status) = beside.status else { return Ok(()) };
    let (message, output_bytes) = (beside.message.clone(), beside.output_bytes);
    let kind = EventKind::StepFinished {
        step: record,
        status,
        exit_code: None,
        signal: None,
        message,
        output_bytes,
        output_times: Vec::new(),
    };
    self::record(tx, task, &TaskEvent { number: 0, at_ms, kind })
}

/// Ends what a runner keeps beside a task that has ended well, as far as its runner has not ended it.
pub fn close_beside(tx: &Tx<'_>, task: &TaskId, now: Millis) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "UPDATE steps SET status = ?2, ended_at_ms = ?3 WHERE task_id = ?1 AND status = ?4 AND step >= ?5",
        )?
        .execute(params![task, StepState::Success, now, StepState::Running, FIRST_BESIDE])?;
    Ok(())
}

/// A length as an agent says it. The database's integers are signed, and no output is that long.
fn stored(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Ends the steps of a task that run: they will not end by themselves.
pub fn close_running(tx: &Tx<'_>, task: &TaskId, status: StepState, now: Millis) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("UPDATE steps SET status = ?2, ended_at_ms = ?3 WHERE task_id = ?1 AND status = ?4")?
        .execute(params![task, status, now, StepState::Running])?;
    Ok(())
}

/// A step record that its agent has left out of its last word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOutStep {
    /// Number of the record.
    pub step: u32,
    /// Name that people see.
    pub name: String,
    /// Bytes of output that its end told of and the last word does not; none where it has not ended.
    pub bytes: Option<u64>,
}

/// The steps of a task that have not ended, and those with output that is not among what its agent reports as whole.
pub fn unaccounted(view: &View, task: &TaskId, reported: &[StepSummary]) -> Result<Vec<LeftOutStep>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT step, name, status, coalesce(output_bytes, 0) FROM steps WHERE task_id = ?1 AND step < ?2 ORDER BY step",
    )?;
    let mut rows = query.query(params![task, FIRST_BESIDE])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (step, status, bytes): (u32, StepState, i64) = (row.get(0)?, row.get(2)?, row.get(3)?);
        let bytes = (status != StepState::Running).then_some(bytes.unsigned_abs());
        if bytes.is_none_or(|bytes| bytes > 0 && !reported.iter().any(|reported| reported.step == step)) {
            found.push(LeftOutStep { step, name: row.get(1)?, bytes });
        }
    }
    Ok(found)
}

/// When the last step of a task ended, as its agent says.
pub fn last_end(view: &View, task: &TaskId) -> Result<Option<Millis>, Error> {
    let last = "SELECT max(ended_at_ms) FROM steps WHERE task_id = ?1 AND step < ?2";
    Ok(view.sql().prepare_cached(last)?.query_row(params![task, FIRST_BESIDE], |row| row.get(0))?)
}

/// Stores how long the whole outputs are, and their checksums. Those in `kept` have that length, and no checksum of
/// their agent; nobody knows the length of those that are unaccounted for.
pub fn set_lengths(
    tx: &Tx<'_>,
    task: &TaskId,
    steps: &[StepSummary],
    kept: &[(u32, u64)],
    unaccounted: &[LeftOutStep],
) -> Result<(), Error> {
    let mut update = tx.sql().prepare_cached(
        "UPDATE steps SET output_bytes = ?3, output_sha256 = ?4 WHERE task_id = ?1 AND step = ?2",
    )?;
    for one in unaccounted {
        update.execute(params![task, one.step, None::<i64>, None::<&str>])?;
    }
    for step in steps {
        let kept = kept.iter().find(|(kept, _)| *kept == step.step);
        let (length, sha256) = kept.map_or((step.length, Some(&step.sha256)), |(_, length)| (*length, None));
        update.execute(params![task, step.step, stored(length), sha256])?;
    }
    Ok(())
}
