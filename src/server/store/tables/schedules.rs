//! Schedules: those of the API, and those in configs, by branch.
//!
//! Only SQLite: `json_each` and `json_array` for the schedules that stay, `max` of two values. Timetables and parameters
//! are JSON in text columns.

use crate::server::ids::{ProjectId, ScheduleId, UserId};
use crate::server::store::json::Json;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The times of a schedule, in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Timetable {
    /// Runs in an hour.
    pub per_hour: u32,
    /// Hours of the day.
    pub hours_of_day: Vec<u32>,
    /// `MON` to `SUN`; excludes days of the month.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days_of_week: Vec<String>,
    /// Days of the month.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days_of_month: Vec<u32>,
    /// `JAN` to `DEC`; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub months: Vec<String>,
}

/// A scheduled pipeline of the API.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduledPipeline {
    /// Identifies it in URLs.
    pub id: ScheduleId,
    /// Project whose pipelines it makes.
    pub project: ProjectId,
    /// A name for people.
    pub name: String,
    /// A text for people.
    pub description: String,
    /// Times at which it is due.
    pub timetable: Timetable,
    /// Parameters of its pipelines, with `branch` or `tag`.
    pub parameters: BTreeMap<String, Value>,
    /// The person in whose name it runs; `None`: the system.
    pub actor: Option<UserId>,
    /// Login of the person in whose name it runs.
    pub actor_login: String,
    /// Time of its making.
    pub created_at: Millis,
    /// Time of its last change.
    pub updated_at: Millis,
    /// The last time that counted.
    pub last: Millis,
}

const SCHEDULE: &str =
    "SELECT id, project_id, name, description, timetable, parameters, actor_id, actor_login, created_at_ms,
    updated_at_ms, last_ms FROM schedules";

/// A schedule that nothing can be read of any more but what it is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Damaged {
    /// Identifies it in URLs.
    pub id: ScheduleId,
    /// Name of the schedule, for people; `None`: that is damaged as well.
    pub name: Option<String>,
}

fn schedule_row(row: &Row<'_>) -> rusqlite::Result<ScheduledPipeline> {
    Ok(ScheduledPipeline {
        id: row.get(0)?,
        project: row.get(1)?,
        name: row.get(2)?,
        description: row.get(3)?,
        timetable: row.get::<_, Json<_>>(4)?.0,
        parameters: row.get::<_, Json<_>>(5)?.0,
        actor: row.get(6)?,
        actor_login: row.get(7)?,
        created_at: row.get(8)?,
        updated_at: row.get(9)?,
        last: row.get(10)?,
    })
}

/// Reads a row, damaged or not: one that is damaged is in the way of no other.
fn any_row(row: &Row<'_>) -> rusqlite::Result<Result<ScheduledPipeline, Damaged>> {
    let id = row.get(0)?;
    Ok(schedule_row(row).map_err(|_| Damaged { id, name: row.get(2).ok() }))
}

/// Reads the schedules of a project, or of all, oldest first, and which of them are damaged.
pub fn list(
    view: &View,
    project: Option<&ProjectId>,
) -> Result<(Vec<ScheduledPipeline>, Vec<Damaged>), Error> {
    let sql = format!("{SCHEDULE} WHERE ?1 IS NULL OR project_id = ?1 ORDER BY created_at_ms, id");
    let mut query = view.sql().prepare_cached(&sql)?;
    let (mut readable, mut damaged) = (Vec::new(), Vec::new());
    for row in query.query_map([project], any_row)? {
        match row? {
            Ok(schedule) => readable.push(schedule),
            Err(one) => damaged.push(one),
        }
    }
    Ok((readable, damaged))
}

/// Counts the schedules of a project.
pub fn count(view: &View, project: &ProjectId) -> Result<usize, Error> {
    let mut query = view.sql().prepare_cached("SELECT count(*) FROM schedules WHERE project_id = ?1")?;
    Ok(query.query_row([project], |row| row.get(0))?)
}

/// Finds a schedule; the inner error is one that is damaged.
pub fn find(view: &View, id: &ScheduleId) -> Result<Option<Result<ScheduledPipeline, Damaged>>, Error> {
    let mut query = view.sql().prepare_cached(&format!("{SCHEDULE} WHERE id = ?1"))?;
    Ok(query.query_row([id], any_row).optional()?)
}

/// Adds a schedule, or changes it.
pub fn set(tx: &Tx<'_>, schedule: &ScheduledPipeline) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "INSERT INTO schedules (id, project_id, name, description, timetable, parameters, actor_id, actor_login,
                created_at_ms, updated_at_ms, last_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (id) DO UPDATE SET name = ?3, description = ?4, timetable = ?5, parameters = ?6, actor_id = ?7,
                actor_login = ?8, updated_at_ms = ?10, last_ms = ?11",
        )?
        .execute(params![
            schedule.id,
            schedule.project,
            schedule.name,
            schedule.description,
            serde_json::to_string(&schedule.timetable)?,
            serde_json::to_string(&schedule.parameters)?,
            schedule.actor,
            schedule.actor_login,
            schedule.created_at,
            schedule.updated_at,
            schedule.last
        ])?;
    Ok(())
}

/// Deletes a schedule. False when there is none.
pub fn delete(tx: &Tx<'_>, id: &ScheduleId) -> Result<bool, Error> {
    Ok(tx.sql().prepare_cached("DELETE FROM schedules WHERE id = ?1")?.execute([id])? > 0)
}

/// Notes that a time of a schedule counted. False when it did before.
pub fn set_last(tx: &Tx<'_>, id: &ScheduleId, at: Millis) -> Result<bool, Error> {
    let sql = "UPDATE schedules SET last_ms = ?2 WHERE id = ?1 AND last_ms < ?2";
    Ok(tx.sql().prepare_cached(sql)?.execute(params![id, at])? > 0)
}

/// A schedule in the config of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchSchedule {
    /// Project of the config that has it.
    pub project: ProjectId,
    /// Branch whose newest config has it.
    pub branch: String,
    /// The workflow that it runs.
    pub workflow: String,
    /// Times at which it is due, as the config writes them: five fields of cron.
    pub cron: String,
    /// The last time that counted.
    pub last: Millis,
}

/// Reads all schedules in configs. A last time that lies before all times counts for none: it is in the way of no schedule.
pub fn list_of_branches(view: &View) -> Result<Vec<BranchSchedule>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT project_id, branch, workflow, cron, max(last_ms, 0) FROM branch_schedules
         ORDER BY project_id, branch, workflow",
    )?;
    let rows = query.query_map([], |row| {
        Ok(BranchSchedule {
            project: row.get(0)?,
            branch: row.get(1)?,
            workflow: row.get(2)?,
            cron: row.get(3)?,
            last: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Replaces the schedules of a branch, each a workflow and its times; those that stay keep their last time.
pub fn set_of_branch(
    tx: &Tx<'_>,
    project: &ProjectId,
    branch: &str,
    wanted: &[(String, String)],
    now: Millis,
) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "DELETE FROM branch_schedules WHERE project_id = ?1 AND branch = ?2
             AND json_array(workflow, cron) NOT IN (SELECT value FROM json_each(?3))",
        )?
        .execute(params![
            project,
            branch,
            serde_json::to_string(
                &wanted
                    .iter()
                    .map(|one| serde_json::to_string(&[&one.0, &one.1]))
                    .collect::<Result<Vec<_>, _>>()?
            )?
        ])?;
    for (workflow, cron) in wanted {
        tx.sql()
            .prepare_cached(
                "INSERT INTO branch_schedules (project_id, branch, workflow, cron, last_ms) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![project, branch, workflow, cron, now])?;
    }
    Ok(())
}

/// Notes that a time of a schedule in a config counted. False when it did before.
pub fn set_last_of_branch(tx: &Tx<'_>, schedule: &BranchSchedule, at: Millis) -> Result<bool, Error> {
    let mut query = tx.sql().prepare_cached(
        "UPDATE branch_schedules SET last_ms = ?5
         WHERE project_id = ?1 AND branch = ?2 AND workflow = ?3 AND cron = ?4 AND last_ms < ?5",
    )?;
    let key = params![schedule.project, schedule.branch, schedule.workflow, schedule.cron, at];
    Ok(query.execute(key)? > 0)
}
