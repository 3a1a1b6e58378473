//! Runs of workflows and jobs over time, and tests that sometimes fail. What is looked at is bounded: the newest pipelines
//! of one project, and of tests the newest jobs that ran more than once on the same code.
//!
//! Only SQLite: a column beside `max` is that of the row that has it; truth values are integers, which are added up.

use crate::server::ids::{JobId, ProjectId, WorkflowId};
use crate::server::store::status::{JobStatus, JobType, TestResult, WorkflowStatus};
use crate::server::store::{Error, View};
use crate::server::time::Millis;
use rusqlite::{params, types::Null};
use std::collections::HashMap;

/// Pipelines that are looked at, the newest first.
const MOST_PIPELINES: u32 = 5000;
/// Jobs whose tests are compared.
const MOST_JOBS_WITH_TESTS: u32 = 100;

/// Branches whose pipelines are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Branches {
    /// All branches, and tags.
    All,
    /// The branch of this name.
    Only(String),
    /// The default branch, and pipelines of configs that were sent along without a branch or a tag.
    Default(String),
}

/// Which runs of a project.
#[derive(Clone, Debug)]
pub struct Runs {
    /// Project whose runs are looked at.
    pub project: ProjectId,
    /// Branches of their pipelines.
    pub branches: Branches,
    /// Their workflows were made at or after this.
    pub from: Millis,
    /// Their workflows were made before this.
    pub to: Millis,
}

impl Runs {
    /// The branch, and whether pipelines without a ref count as if they had it.
    pub(super) fn branch(&self) -> (Option<&str>, bool) {
        match &self.branches {
            Branches::All => (None, false),
            Branches::Only(branch) => (Some(branch), false),
            Branches::Default(branch) => (Some(branch), true),
        }
    }
}

/// A run of a workflow.
#[derive(Clone, Debug)]
pub struct WorkflowRun {
    /// Identifies the workflow.
    pub id: WorkflowId,
    /// Name in the config.
    pub name: String,
    /// Branch of its pipeline.
    pub branch: Option<String>,
    /// Status that the run ended with.
    pub status: WorkflowStatus,
    /// Time at which it was made.
    pub created_at: Millis,
    /// Time at which it came to rest.
    pub stopped_at: Option<Millis>,
}

/// A run of a job, which has begun.
#[derive(Clone, Debug)]
pub struct JobRun {
    /// Identifies the job.
    pub id: JobId,
    /// Name as expanded in its workflow.
    pub name: String,
    /// Status that the job ended with.
    pub status: JobStatus,
    /// Time at which a runner began.
    pub started_at: Millis,
    /// Time at which it ended.
    pub stopped_at: Option<Millis>,
}

/// The newest pipelines of the project ?1: of the branch ?2, where one is given, or without a ref, where ?3 says so.
pub(super) fn recent() -> String {
    format!(
        "(SELECT id, branch FROM
            (SELECT id, branch, tag FROM pipelines WHERE project_id = ?1 ORDER BY number DESC LIMIT {MOST_PIPELINES})
         WHERE ?2 IS NULL OR branch = ?2 OR (?3 AND branch IS NULL AND tag IS NULL))"
    )
}

/// Reads runs of workflows, newest first: of all, or of those of one name.
pub fn workflow_runs(view: &View, runs: &Runs, name: Option<&str>) -> Result<Vec<WorkflowRun>, Error> {
    let (branch, or_none) = runs.branch();
    let mut query = view.sql().prepare_cached(&format!(
        "SELECT w.id, w.name, p.branch, w.status, w.created_at_ms, w.stopped_at_ms
         FROM {} p JOIN workflows w ON w.pipeline_id = p.id
         WHERE w.created_at_ms >= ?4 AND w.created_at_ms < ?5 AND (?6 IS NULL OR w.name = ?6)
         ORDER BY w.created_at_ms DESC, w.id",
        recent()
    ))?;
    let rows = query.query_map(params![runs.project, branch, or_none, runs.from, runs.to, name], |row| {
        Ok(WorkflowRun {
            id: row.get(0)?,
            name: row.get(1)?,
            branch: row.get(2)?,
            status: row.get(3)?,
            created_at: row.get(4)?,
            stopped_at: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Names of the workflows of a project, or of the jobs with steps of one of them; the names that its newest pipelines have.
pub fn known_names(view: &View, project: &ProjectId, workflow: Option<&str>) -> Result<Vec<String>, Error> {
    let (name, more) = match workflow {
        None => ("w.name", "WHERE ?4 IS NULL AND ?5 IS NOT NULL"),
        Some(_) => ("j.name", "JOIN jobs j ON j.workflow_id = w.id WHERE w.name = ?4 AND j.kind = ?5"),
    };
    let mut query = view.sql().prepare_cached(&format!(
        "SELECT DISTINCT {name} FROM {} p JOIN workflows w ON w.pipeline_id = p.id {more} ORDER BY 1",
        recent()
    ))?;
    let names = query.query_map(params![project, Null, false, workflow, JobType::Build], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// Reads runs of the jobs of a workflow that have begun, newest first: of all, or of those of one name. A result that a
/// rerun keeps is no run.
pub fn job_runs(view: &View, runs: &Runs, workflow: &str, name: Option<&str>) -> Result<Vec<JobRun>, Error> {
    let (branch, or_none) = runs.branch();
    let mut query = view.sql().prepare_cached(&format!(
        "SELECT j.id, j.name, j.status, j.started_at_ms, j.stopped_at_ms
         FROM {} p JOIN workflows w ON w.pipeline_id = p.id JOIN jobs j ON j.workflow_id = w.id
         WHERE w.created_at_ms >= ?4 AND w.created_at_ms < ?5 AND w.name = ?6 AND (?7 IS NULL OR j.name = ?7)
            AND j.kind = ?8 AND j.reused_from IS NULL AND j.started_at_ms IS NOT NULL
         ORDER BY j.started_at_ms DESC, j.id",
        recent()
    ))?;
    let given = params![runs.project, branch, or_none, runs.from, runs.to, workflow, name, JobType::Build];
    let rows = query.query_map(given, |row| {
        Ok(JobRun {
            id: row.get(0)?,
            name: row.get(1)?,
            status: row.get(2)?,
            started_at: row.get(3)?,
            stopped_at: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Reads the names of the branches of the newest pipelines, by name; only those that ran a workflow, where one is named.
pub fn branches(view: &View, project: &ProjectId, workflow: Option<&str>) -> Result<Vec<String>, Error> {
    let sql = format!(
        "SELECT DISTINCT branch FROM {} p WHERE branch IS NOT NULL
            AND (?4 IS NULL OR EXISTS (SELECT 1 FROM workflows w WHERE w.pipeline_id = p.id AND w.name = ?4))
         ORDER BY branch",
        recent()
    );
    let mut query = view.sql().prepare_cached(&sql)?;
    let rows = query.query_map(params![project, Null, false, workflow], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A test that failed and succeeded in the same job on the same code.
#[derive(Clone, Debug)]
pub struct FlakyTest {
    /// Name of the workflow.
    pub workflow_name: String,
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
    /// Failures on a revision on which the test has passed as well.
    pub times_flaked: u64,
    /// Time that the failures took, in seconds.
    pub wasted: f64,
    /// The newest job in which it failed.
    pub job_number: i64,
    /// The workflow of that job.
    pub workflow_id: WorkflowId,
    /// Time at which that workflow was made.
    pub workflow_created_at: Millis,
    /// Number of the pipeline of that job.
    pub pipeline_number: i64,
}

impl FlakyTest {
    /// Tells one test from another.
    fn key(&self) -> [String; 6] {
        let file = self.file.clone().unwrap_or_default();
        let of = [&self.workflow_name, &self.job_name, &self.classname, &self.name, &self.source, &file];
        of.map(String::clone)
    }
}

/// Finds tests of pipelines since `from` that failed and succeeded on the same code: the same commit, or the same pipeline
/// where there is no commit. Those that failed last come first.
pub fn flaky_tests(view: &View, project: &ProjectId, from: Millis) -> Result<Vec<FlakyTest>, Error> {
    let mut query = view.sql().prepare_cached(&format!(
        "WITH recent AS (
            SELECT id, number, coalesce(revision, id) AS code, created_at_ms FROM pipelines
            WHERE project_id = ?1 ORDER BY number DESC LIMIT {MOST_PIPELINES}
        ), ran AS (
            SELECT j.id, j.name AS job, j.number, w.name AS workflow, w.id AS workflow_id, w.created_at_ms AS made,
                r.code, r.number AS pipeline, count(*) OVER (PARTITION BY r.code, w.name, j.name) AS times
            FROM recent r JOIN jobs j ON j.pipeline_id = r.id JOIN workflows w ON w.id = j.workflow_id
            WHERE r.created_at_ms >= ?2 AND j.reused_from IS NULL AND j.number IS NOT NULL
        ), compared AS (
            SELECT * FROM ran WHERE times > 1 ORDER BY number DESC LIMIT {MOST_JOBS_WITH_TESTS}
        )
        SELECT c.workflow, c.job, t.name, t.classname, t.source, t.file, sum(t.result = ?3),
            sum(CASE WHEN t.result = ?3 THEN t.run_time ELSE 0.0 END),
            max(CASE WHEN t.result = ?3 THEN c.number END) AS newest, c.workflow_id, c.made, c.pipeline
        FROM compared c JOIN test_results t ON t.job_id = c.id
        GROUP BY c.code, c.workflow, c.job, t.classname, t.name, t.source, t.file
        HAVING sum(t.result = ?3) > 0 AND sum(t.result = ?4) > 0
        ORDER BY newest DESC, t.classname, t.name",
    ))?;
    let rows = query.query_map(params![project, from, TestResult::Failure, TestResult::Success], |row| {
        Ok(FlakyTest {
            workflow_name: row.get(0)?,
            job_name: row.get(1)?,
            name: row.get(2)?,
            classname: row.get(3)?,
            source: row.get(4)?,
            file: row.get(5)?,
            times_flaked: row.get(6)?,
            wasted: row.get(7)?,
            job_number: row.get(8)?,
            workflow_id: row.get(9)?,
            workflow_created_at: row.get(10)?,
            pipeline_number: row.get(11)?,
        })
    })?;
    // A row is of one commit; the first of a test is that of its newest failure.
    let mut found: Vec<FlakyTest> = Vec::new();
    let mut places: HashMap<[String; 6], usize> = HashMap::new();
    for row in rows {
        let row = row?;
        let place = *places.entry(row.key()).or_insert(found.len());
        match found.get_mut(place) {
            Some(test) => {
                test.times_flaked += row.times_flaked;
                test.wasted += row.wasted;
            }
            None => found.push(row),
        }
    }
    Ok(found)
}
