//! Results of jobs for people: artifacts, and the results of tests with the files that they were read from.
//!
//! Only SQLite: `INSERT OR IGNORE`, `INSERT OR REPLACE`; the order of results is that of their INTEGER PRIMARY KEY.

use crate::protocol::{ArtifactRecord, TaskId, TestResultsRecord};
use crate::server::ids::{ArtifactId, JobId, ProjectId};
use crate::server::store::status::TestResult;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, Row, params};

/// Result of one test of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct TestCase {
    /// The name of the test.
    pub name: String,
    /// The class that it is in, else empty.
    pub classname: String,
    /// The file that it is in.
    pub file: Option<String>,
    /// The seconds that it took.
    pub run_time: f64,
    /// How it ended.
    pub result: TestResult,
    /// Why it failed or was skipped, else empty.
    pub message: String,
    /// File and line of its failure, where a line is known.
    pub place: Option<String>,
}

/// A file of test results that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestFile {
    /// The number of tests that were found in it.
    pub tests: u64,
    /// Why it was not read, or not to its end.
    pub message: Option<String>,
}

/// A file that a task has named before, and whether it is the one of this record: named by the same step, or of the same
/// content.
pub fn test_file(
    view: &View,
    task: &TaskId,
    record: &TestResultsRecord,
) -> Result<Option<(bool, TestFile)>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT step, sha256, tests, message FROM test_files WHERE task_id = ?1 AND path = ?2",
    )?;
    let read = |row: &Row<'_>| {
        let is_it = row.get::<_, u32>(0)? == record.step || row.get::<_, String>(1)? == record.sha256;
        Ok((is_it, TestFile { tests: row.get(2)?, message: row.get(3)? }))
    };
    Ok(query.query_row(params![task, record.path], read).optional()?)
}

/// Stores that a file was read.
pub fn insert_test_file(
    tx: &Tx<'_>,
    task: &TaskId,
    job: &JobId,
    record: &TestResultsRecord,
    file: &TestFile,
) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "INSERT OR IGNORE INTO test_files (task_id, job_id, path, sha256, step, tests, message)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![task, job, record.path, record.sha256, record.step, file.tests, file.message])?;
    Ok(())
}

/// Stores tests that were read from a file.
pub fn insert_tests(
    tx: &Tx<'_>,
    task: &TaskId,
    job: &JobId,
    path: &str,
    cases: &[TestCase],
) -> Result<(), Error> {
    let mut insert = tx.sql().prepare_cached(
        "INSERT INTO test_results (job_id, task_id, path, name, classname, file, source, result, run_time, message, place)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?3, ?7, ?8, ?9, ?10)",
    )?;
    for case in cases {
        insert.execute(params![
            job,
            task,
            path,
            case.name,
            case.classname,
            case.file,
            case.result,
            case.run_time,
            case.message,
            case.place
        ])?;
    }
    Ok(())
}

/// Removes the tests of a file that was not read to its end: the control plane stopped meanwhile.
pub fn delete_tests(tx: &Tx<'_>, task: &TaskId, job: &JobId, path: &str) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("DELETE FROM test_results WHERE job_id = ?1 AND task_id = ?2 AND path = ?3")?
        .execute(params![job, task, path])?;
    Ok(())
}

/// The task that stores an artifact.
#[derive(Clone, Copy, Debug)]
pub struct ArtifactPlace<'a> {
    /// Job that stored the report.
    pub job: &'a JobId,
    /// The project of the job.
    pub project: &'a ProjectId,
    /// Attempt that stored the report.
    pub task: &'a TaskId,
    /// The node of the job that it is, from 0.
    pub node: u32,
}

/// Names a complete upload as an artifact; the last one of a path on a node counts.
pub fn insert_artifact(
    tx: &Tx<'_>,
    place: ArtifactPlace<'_>,
    record: &ArtifactRecord,
    now: Millis,
) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "INSERT OR REPLACE INTO artifacts (id, job_id, project_id, task_id, node_index, step, path, sha256, length, created_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            ArtifactId::fresh(),
            place.job,
            place.project,
            place.task,
            place.node,
            record.step,
            record.path,
            record.sha256,
            record.length as i64,
            now
        ])?;
    Ok(())
}
