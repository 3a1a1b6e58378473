//! How long tests took: the jobs that stored results, the one that another job goes by, and sums.
//!
//! Only SQLite: `INSERT OR IGNORE`; the order of jobs is that of their INTEGER PRIMARY KEY; `HAVING` names a
//! column of the result.

use crate::server::ids::JobId;
use crate::server::store::{Error, Tx, View};
use rusqlite::{OptionalExtension, params};

/// A property of tests that files of tests are split by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The file that the test is in.
    File,
    /// The class of the test.
    Classname,
    /// The name of the test.
    Name,
}

/// Notes that a job has stored test results; once is enough.
pub fn insert_job(tx: &Tx<'_>, job: &JobId) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "INSERT OR IGNORE INTO jobs_with_tests (project_id, name, job_id) SELECT project_id, name, id FROM jobs WHERE id = ?1",
        )?
        .execute([job])?;
    Ok(())
}

/// The latest job of the same project and name that has stored test results and has ended.
pub fn latest(view: &View, job: &JobId) -> Result<Option<JobId>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT w.job_id FROM jobs own
         JOIN jobs_with_tests w ON w.project_id = own.project_id AND w.name = own.name
         JOIN jobs j ON j.id = w.job_id
         WHERE own.id = ?1 AND j.stopped_at_ms IS NOT NULL ORDER BY w.seq DESC LIMIT 1",
    )?;
    Ok(query.query_row([job], |row| row.get(0)).optional()?)
}

/// Sets the job whose timings another goes by.
pub fn set_chosen(tx: &Tx<'_>, job: &JobId, chosen: Option<&JobId>) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("UPDATE jobs SET timings_of = ?2 WHERE id = ?1")?
        .execute(params![job, chosen])?;
    Ok(())
}

/// The job whose timings a job goes by.
pub fn chosen(view: &View, job: &JobId) -> Result<Option<JobId>, Error> {
    let mut query = view.sql().prepare_cached("SELECT timings_of FROM jobs WHERE id = ?1")?;
    let found: Option<Option<JobId>> = query.query_row([job], |row| row.get(0)).optional()?;
    Ok(found.flatten())
}

/// Seconds of the tests of a job added up by a property, the longest first, as long as `take` says that it
/// wants more.
pub fn each_sum(
    view: &View,
    job: &JobId,
    by: By,
    mut take: impl FnMut(String, f64) -> bool,
) -> Result<(), Error> {
    let column = match by {
        By::File => "file",
        By::Classname => "classname",
        By::Name => "name",
    };
    let mut query = view.sql().prepare_cached(&format!(
        "SELECT {column}, sum(run_time) AS seconds FROM test_results WHERE job_id = ?1 AND {column} <> ''
         GROUP BY {column} HAVING seconds > 0 ORDER BY seconds DESC, {column}"
    ))?;
    let mut rows = query.query([job])?;
    while let Some(row) = rows.next()? {
        if !take(row.get(0)?, row.get(1)?) {
            break;
        }
    }
    Ok(())
}
