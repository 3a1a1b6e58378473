//! A data folder that has seen many tasks: the rows of those that have ended, again and again under other ids.

use crate::plane::Plane;
use rusqlite::{Connection, OptionalExtension};

/// Tables whose rows belong to tasks, those that others refer to first, and the columns that are not the same in each
/// copy. `?1` is the number of the copy, `?2` the number of pipelines, and of jobs, there are in one.
const TABLES: &[(&str, &[(&str, &str)])] = &[
    ("pipelines", &[("id", ID), ("number", "number + ?1 * ?2")]),
    ("pipeline_configs", &[("pipeline_id", ID)]),
    ("workflows", &[("id", ID), ("pipeline_id", ID), ("root", ID), ("workspace_id", ID)]),
    ("jobs", &[("id", ID), ("workflow_id", ID), ("pipeline_id", ID), ("number", "number + ?1 * ?2")]),
    (
        "tasks",
        &[
            ("seq", "NULL"),
            ("id", ID),
            ("job_id", ID),
            ("pipeline_id", ID),
            ("token_hash", "randomblob(32)"),
            ("allocation", ID),
            ("nonce", "nonce || '-' || ?1"),
        ],
    ),
    ("steps", &[("task_id", ID)]),
    ("small_outputs", &[("task_id", ID)]),
];
/// The id of a copy: as long, and as much by chance, as the one that it is made from.
const ID: &str = "printf('%08x', (?1 * 2654435761) & 4294967295) || substr(COLUMN, 9)";

/// Brings a control plane to at least so many tasks that have ended, and starts it again. Returns how many it has.
pub(crate) fn grow(plane: &mut Plane, tasks: u64) -> Result<u64, String> {
    plane.stop()?;
    let path = plane.database();
    let grown =
        multiply(&path, tasks).map_err(|error| format!("failed to grow `{}`: {error}", path.display()))?;
    plane.rise()?;
    Ok(grown)
}

fn multiply(path: &std::path::Path, wanted: u64) -> rusqlite::Result<u64> {
    let database = Connection::open(path)?;
    database
        .execute_batch("PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF; PRAGMA cache_size = -400000")?;
    let count = |table: &str| {
        database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u64>(0))
    };
    let (tasks, step) = (count("tasks")?, count("jobs")?.max(count("pipelines")?));
    let copies = wanted.saturating_sub(tasks).div_ceil(tasks.max(1));
    // Copies of before have these numbers.
    let first = database.query_row("SELECT coalesce(max(number), 0) / ?1 + 1 FROM jobs", [step], |row| {
        row.get::<_, u64>(0)
    })?;
    database.execute_batch("BEGIN")?;
    for (table, changed) in TABLES {
        let known = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        // A program of before knows fewer tables.
        if database.query_row(known, [table], |_| Ok(())).optional()?.is_none() {
            continue;
        }
        let mut query = database.prepare(&format!("SELECT name FROM pragma_table_info('{table}')"))?;
        let columns: Vec<String> = query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let values = columns.iter().map(|column| {
            let change = changed.iter().find(|(name, _)| name == column);
            change.map_or_else(|| column.clone(), |(_, how)| how.replace("COLUMN", column))
        });
        let values: Vec<String> = values.collect();
        database.execute_batch(&format!("CREATE TEMP TABLE copied AS SELECT * FROM {table}"))?;
        let sql = format!(
            "INSERT INTO {table} ({}) SELECT {} FROM copied WHERE ?1 > 0 AND ?2 > 0",
            columns.join(", "),
            values.join(", ")
        );
        let mut insert = database.prepare(&sql)?;
        for copy in first..first + copies {
            insert.execute([copy, step])?;
        }
        drop(insert);
        database.execute_batch("DROP TABLE copied")?;
    }
    database.execute_batch(
        "UPDATE projects SET next_pipeline_number = 1 + (SELECT coalesce(max(number), 0) FROM pipelines),
            next_job_number = 1 + (SELECT coalesce(max(number), 0) FROM jobs);
         COMMIT; PRAGMA wal_checkpoint(TRUNCATE)",
    )?;
    count("tasks")
}
