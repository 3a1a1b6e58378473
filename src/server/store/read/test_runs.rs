//! Tests over the newest runs of a workflow.
//!
//! Only SQLite: nothing.

use crate::server::ids::WorkflowId;
use crate::server::store::read::Runs;
use crate::server::store::read::insight::recent;
use crate::server::store::status::TestResult;
use crate::server::store::{Error, View};
use rusqlite::params;
use std::collections::HashMap;

/// Runs whose tests are looked at, the newest first.
const MOST_RUNS: u32 = 10;

/// A run of a workflow in which test results were stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// Identifies the workflow.
    pub workflow_id: WorkflowId,
    /// Number of its pipeline.
    pub pipeline_number: i64,
    /// Tests that succeeded.
    pub successes: u64,
    /// Tests that failed.
    pub failures: u64,
    /// Tests that were skipped.
    pub skipped: u64,
}

/// A test over these runs.
#[derive(Clone, Debug, PartialEq)]
pub struct TestOverRuns {
    /// Name of the job.
    pub job_name: String,
    /// Name of the case.
    pub name: String,
    /// Class, or what stands for it.
    pub classname: String,
    /// Name of the suite or tool.
    pub source: String,
    /// Source file that the test is in, as the results name it.
    pub file: Option<String>,
    /// Runs of it that failed.
    pub failures: u64,
    /// Seconds that each run took that was not skipped, the shortest first.
    pub times: Vec<f64>,
}

/// Reads the newest runs of a workflow that stored test results, the newest first, and each test in them.
pub fn test_runs(view: &View, runs: &Runs, name: &str) -> Result<(Vec<TestRun>, Vec<TestOverRuns>), Error> {
    let (branch, or_none) = runs.branch();
    let mut query = view.sql().prepare_cached(&format!(
        "SELECT w.id, q.number FROM {} p JOIN pipelines q ON q.id = p.id JOIN workflows w ON w.pipeline_id = p.id
         WHERE w.created_at_ms >= ?4 AND w.created_at_ms < ?5 AND w.name = ?6
            AND EXISTS (SELECT 1 FROM jobs j JOIN test_results t ON t.job_id = j.id
                WHERE j.workflow_id = w.id AND j.reused_from IS NULL)
         ORDER BY w.created_at_ms DESC, w.id LIMIT {MOST_RUNS}",
        recent()
    ))?;
    let given = params![runs.project, branch, or_none, runs.from, runs.to, name];
    let found: Vec<(WorkflowId, i64)> =
        query.query_map(given, |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let mut query = view.sql().prepare_cached(
        "SELECT j.name, t.name, t.classname, t.source, t.file, t.result, t.run_time
         FROM jobs j JOIN test_results t ON t.job_id = j.id
         WHERE j.workflow_id = ?1 AND j.reused_from IS NULL ORDER BY t.id",
    )?;
    let (mut told, mut tests) = (Vec::new(), Vec::<TestOverRuns>::new());
    let mut places: HashMap<[String; 5], usize> = HashMap::new();
    for (workflow_id, pipeline_number) in found {
        let mut run = TestRun { workflow_id, pipeline_number, successes: 0, failures: 0, skipped: 0 };
        let mut rows = query.query([&run.workflow_id])?;
        while let Some(row) = rows.next()? {
            let (result, took): (TestResult, f64) = (row.get(5)?, row.get(6)?);
            let file: Option<String> = row.get(4)?;
            let [job_name, name, classname, source] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?];
            let key = [job_name, name, classname, source, file.clone().unwrap_or_default()];
            let place = *places.entry(key).or_insert_with_key(|[job_name, name, classname, source, _]| {
                let [job_name, name, classname, source] =
                    [job_name, name, classname, source].map(String::clone);
                let times = Vec::new();
                tests.push(TestOverRuns { job_name, name, classname, source, file, failures: 0, times });
                tests.len() - 1
            });
            match result {
                TestResult::Success => run.successes += 1,
                TestResult::Failure => {
                    run.failures += 1;
                    tests[place].failures += 1;
                }
                TestResult::Skipped => run.skipped += 1,
            }
            if result != TestResult::Skipped {
                tests[place].times.push(took);
            }
        }
        told.push(run);
    }
    for test in &mut tests {
        test.times.sort_by(f64::total_cmp);
    }
    Ok((told, tests))
}
