//! Artifacts and test results that jobs left.
//!
//! Only SQLite: nothing.

use crate::server::ids::{ArtifactId, JobId};
use crate::server::store::status::TestResult;
use crate::server::store::{Error, View};
use rusqlite::OptionalExtension;

/// File that a job left for people.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Identifies it in URLs.
    pub id: ArtifactId,
    /// Name that the job gave it.
    pub path: String,
    /// Parallel node that stored it, from 0.
    pub node_index: u32,
    /// Size in bytes.
    pub length: u64,
}

/// Reads the artifacts of a job. `ran_as` is that of [`Job`](super::Job).
pub fn artifacts(view: &View, ran_as: &JobId) -> Result<Vec<Artifact>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT id, path, node_index, length FROM artifacts WHERE job_id = ?1 ORDER BY node_index, path",
    )?;
    let rows = query.query_map([ran_as], |row| {
        Ok(Artifact { id: row.get(0)?, path: row.get(1)?, node_index: row.get(2)?, length: row.get(3)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The bytes of an artifact, by name.
#[derive(Clone, Debug)]
pub struct Content {
    /// SHA-256 in lower-case hex, which names the object.
    pub sha256: String,
    /// Size in bytes.
    pub length: u64,
    /// Name that the job gave it.
    pub path: String,
}

/// Finds the bytes of an artifact.
pub fn artifact_content(view: &View, id: &ArtifactId) -> Result<Option<Content>, Error> {
    let mut query = view.sql().prepare_cached("SELECT sha256, length, path FROM artifacts WHERE id = ?1")?;
    let row = query
        .query_row([id], |row| Ok(Content { sha256: row.get(0)?, length: row.get(1)?, path: row.get(2)? }));
    Ok(row.optional()?)
}

/// A test case of the results of a job.
#[derive(Clone, Debug)]
pub struct Test {
    /// Name of the case.
    pub name: String,
    /// Class, or what stands for it.
    pub classname: String,
    /// Source file that the test is in, as the results name it.
    pub file: Option<String>,
    /// Name of the suite or tool.
    pub source: String,
    /// Result of the test.
    pub result: TestResult,
    /// Time that the test took, in seconds.
    pub run_time: f64,
    /// Reason of a failure or a skip; else empty.
    pub message: String,
    /// File and line of a failure, where a line is known.
    pub place: Option<String>,
}

/// Reads the tests of a job. `ran_as` is that of [`Job`](super::Job).
pub fn tests(view: &View, ran_as: &JobId) -> Result<Vec<Test>, Error> {
    let mut tests = Vec::new();
    each_test(view, ran_as, |test| tests.push(test))?;
    Ok(tests)
}

/// Like [`tests`], one at a time.
pub fn each_test(view: &View, ran_as: &JobId, mut each: impl FnMut(Test)) -> Result<(), Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT name, classname, file, source, result, run_time, message, place FROM test_results WHERE job_id = ?1 ORDER BY id",
    )?;
    let rows = query.query_map([ran_as], |row| {
        Ok(Test {
            name: row.get(0)?,
            classname: row.get(1)?,
            file: row.get(2)?,
            source: row.get(3)?,
            result: row.get(4)?,
            run_time: row.get(5)?,
            message: row.get(6)?,
            place: row.get(7)?,
        })
    })?;
    for row in rows {
        each(row?);
    }
    Ok(())
}
