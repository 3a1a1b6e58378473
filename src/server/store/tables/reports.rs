//! Statuses of commits on their way to forges: what has changed, what is wanted, what was told.
//!
//! Only SQLite: the triggers of `reports.sql`, `json_each` for the list of busy projects, `max` of two values
//! (elsewhere `greatest`); flags are integers, which are set to what a comparison gives:
//! truth values are integers.

use crate::server::ids::{JobId, PipelineId, ProjectId};
use crate::server::store::forge_states::ReportState;
use crate::server::store::json::{DamagedColumn, Message, json_or_why};
use crate::server::store::status::{JobStatus, JobType, StepState, WorkflowStatus};
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, Row, params};

/// Kind of a change that is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The status of a job.
    Job(JobId),
    /// A pipeline was made that has errors.
    Pipeline(PipelineId),
}

/// Whether there is anything that has changed.
pub fn has_changed(view: &View) -> Result<bool, Error> {
    Ok(view.sql().prepare_cached("SELECT 1 FROM forge_changed LIMIT 1")?.exists([])?)
}

/// Takes what has changed, at most so much.
pub fn take_changed(tx: &Tx<'_>, most: u32) -> Result<Vec<Changed>, Error> {
    let mut query = tx.sql().prepare_cached(
        "DELETE FROM forge_changed WHERE (kind, id) IN (SELECT kind, id FROM forge_changed LIMIT ?1) RETURNING kind, id",
    )?;
    let rows = query.query_map([most], |row| {
        let (kind, id): (String, String) = (row.get(0)?, row.get(1)?);
        Ok(if kind == "job" { Changed::Job(id.into()) } else { Changed::Pipeline(id.into()) })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A job, as far as a forge is told of it.
#[derive(Clone, Debug)]
pub struct JobFacts {
    /// Project whose forge is told.
    pub project: ProjectId,
    /// Name of the job.
    pub name: String,
    /// Name of its workflow.
    pub workflow: String,
    /// Status of its workflow.
    pub workflow_status: WorkflowStatus,
    /// Kind of the job, as its workflow has it.
    pub kind: JobType,
    /// Status at the moment of the look.
    pub status: JobStatus,
    /// Number in the project, which its page has.
    pub number: Option<i64>,
    /// Name of the step that failed or took too long.
    pub failed_step: Option<String>,
    /// Login of who cancelled it.
    pub canceled_by: Option<String>,
    /// Time of its beginning.
    pub started_at: Option<Millis>,
    /// Time of its end.
    pub stopped_at: Option<Millis>,
    /// Full id of the commit, where it is of one.
    pub revision: Option<String>,
    /// The branch or the tag.
    pub reference: String,
    /// Full name of the branch or the tag.
    pub full_reference: String,
}

/// Reads what a forge is told of a job; `None`: it is gone.
pub fn job_facts(view: &View, job: &JobId) -> Result<Option<JobFacts>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT j.project_id, j.name, w.name, w.status, j.kind, j.status, j.number,
            (SELECT s.name FROM tasks t JOIN steps s ON s.task_id = t.id
             WHERE t.job_id = j.id AND s.status IN (?2, ?3) ORDER BY t.seq DESC, s.step LIMIT 1),
            (SELECT u.login FROM users u WHERE u.id = j.canceled_by), j.started_at_ms, j.stopped_at_ms,
            p.revision, coalesce(p.branch, p.tag, ''), coalesce(p.reference, 'refs/heads/' || p.branch, 'refs/tags/' || p.tag, '')
         FROM jobs j JOIN workflows w ON w.id = j.workflow_id JOIN pipelines p ON p.id = j.pipeline_id WHERE j.id = ?1",
    )?;
    let row = query.query_row(params![job, StepState::Failed, StepState::Timedout], |row| {
        Ok(JobFacts {
            project: row.get(0)?,
            name: row.get(1)?,
            workflow: row.get(2)?,
            workflow_status: row.get(3)?,
            kind: row.get(4)?,
            status: row.get(5)?,
            number: row.get(6)?,
            failed_step: row.get(7)?,
            canceled_by: row.get(8)?,
            started_at: row.get(9)?,
            stopped_at: row.get(10)?,
            revision: row.get(11)?,
            reference: row.get(12)?,
            full_reference: row.get(13)?,
        })
    });
    Ok(row.optional()?)
}

/// A pipeline that has errors, as far as a forge is told of it.
#[derive(Clone, Debug)]
pub struct PipelineFacts {
    /// Project whose forge is told.
    pub project: ProjectId,
    /// Number in the project.
    pub number: i64,
    /// Sentences about why it has no workflows. Damage in them is in the way of no other status.
    pub errors: Result<Vec<Message>, DamagedColumn>,
    /// Full id of the commit, where it is of one.
    pub revision: Option<String>,
    /// The branch or the tag.
    pub reference: String,
    /// Full name of the branch or the tag.
    pub full_reference: String,
}

/// Reads what a forge is told of a pipeline that has errors; `None`: it is gone.
pub fn pipeline_facts(view: &View, pipeline: &PipelineId) -> Result<Option<PipelineFacts>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT project_id, number, errors, revision, coalesce(branch, tag, ''),
            coalesce(reference, 'refs/heads/' || branch, 'refs/tags/' || tag, '') FROM pipelines WHERE id = ?1",
    )?;
    let row = query.query_row([pipeline], |row| {
        Ok(PipelineFacts {
            project: row.get(0)?,
            number: row.get(1)?,
            errors: json_or_why(row, 2)?,
            revision: row.get(3)?,
            reference: row.get(4)?,
            full_reference: row.get(5)?,
        })
    });
    Ok(row.optional()?)
}

/// A status of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitStatus {
    /// Project whose forge is told.
    pub project: ProjectId,
    /// Full id of the commit that the status is of.
    pub revision: String,
    /// The name of the status.
    pub context: String,
    /// The branch or the tag.
    pub reference: String,
    /// The wanted state.
    pub state: ReportState,
    /// A text for people.
    pub description: String,
    /// Address of the page that people are sent to.
    pub url: String,
    /// The forge's word that it was told last.
    pub sent_word: Option<String>,
    /// The text that it was told last.
    pub sent_text: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// Time since when it is to be told.
    pub since: Millis,
}

const REPORT: &str = "SELECT project_id, revision, context, reference, state, description, url, sent_word, sent_text, attempts,
    since_ms FROM forge_reports";

fn report_row(row: &Row<'_>) -> rusqlite::Result<CommitStatus> {
    Ok(CommitStatus {
        project: row.get(0)?,
        revision: row.get(1)?,
        context: row.get(2)?,
        reference: row.get(3)?,
        state: row.get(4)?,
        description: row.get(5)?,
        url: row.get(6)?,
        sent_word: row.get(7)?,
        sent_text: row.get(8)?,
        attempts: row.get(9)?,
        since: row.get(10)?,
    })
}

/// Notes what a forge is to be told, in place of what it was to be told before.
pub fn want(tx: &Tx<'_>, report: &CommitStatus, now: Millis) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "INSERT INTO forge_reports (project_id, revision, context, reference, state, description, url, is_due, since_ms,
                not_before_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, ?8)
             ON CONFLICT (project_id, revision, context) DO UPDATE SET reference = ?4, state = ?5, description = ?6, url = ?7,
                since_ms = CASE WHEN is_due THEN since_ms ELSE ?8 END,
                not_before_ms = CASE WHEN is_due THEN not_before_ms ELSE ?8 END,
                attempts = CASE WHEN is_due THEN attempts ELSE 0 END, is_due = 1",
        )?
        .execute(params![
            report.project,
            report.revision,
            report.context,
            report.reference,
            report.state,
            report.description,
            report.url,
            now
        ])?;
    Ok(())
}

/// Whether a forge was told of this status of a commit, or is about to be.
pub fn is_known(view: &View, project: &ProjectId, revision: &str, context: &str) -> Result<bool, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT 1 FROM forge_reports WHERE project_id = ?1 AND revision = ?2 AND context = ?3",
    )?;
    Ok(query.exists(params![project, revision, context])?)
}

/// The statuses that forges are to be told of and whose time has come; none of the busy projects.
pub fn due(view: &View, busy: &[ProjectId], now: Millis, most: u32) -> Result<Vec<CommitStatus>, Error> {
    let mut query = view.sql().prepare_cached(&format!(
        "{REPORT} WHERE is_due = 1 AND not_before_ms <= ?1 AND project_id NOT IN (SELECT value FROM json_each(?2))
         ORDER BY since_ms LIMIT ?3"
    ))?;
    let busy = serde_json::to_string(busy)?;
    Ok(query.query_map(params![now, busy, most], report_row)?.collect::<Result<_, _>>()?)
}

/// Reads a status again; `None`: the forge is not to be told of it any more.
pub fn again(view: &View, report: &CommitStatus) -> Result<Option<CommitStatus>, Error> {
    let mut query = view.sql().prepare_cached(&format!(
        "{REPORT} WHERE project_id = ?1 AND revision = ?2 AND context = ?3 AND is_due = 1"
    ))?;
    let key = params![report.project, report.revision, report.context];
    Ok(query.query_row(key, report_row).optional()?)
}

/// The time at which the next status is to be told.
pub fn next(view: &View) -> Result<Option<Millis>, Error> {
    let sql = "SELECT min(not_before_ms) FROM forge_reports WHERE is_due = 1";
    Ok(view.sql().prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// Notes what a forge was told, or that nothing is to be told. One that is wanted otherwise by now stays due.
pub fn set_sent(
    tx: &Tx<'_>,
    report: &CommitStatus,
    word: Option<&str>,
    message: Option<&str>,
) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "UPDATE forge_reports SET sent_word = coalesce(?4, sent_word), message = ?5, attempts = 0,
                sent_text = CASE WHEN ?4 IS NULL THEN sent_text ELSE ?7 END,
                is_due = state <> ?6 OR description <> ?7
             WHERE project_id = ?1 AND revision = ?2 AND context = ?3",
        )?
        .execute(params![
            report.project,
            report.revision,
            report.context,
            word,
            message,
            report.state,
            report.description
        ])?;
    Ok(())
}

/// A status as people see it on its way.
#[derive(Clone, Debug)]
pub struct ShownReport {
    /// The status that the forge is told.
    pub report: CommitStatus,
    /// Whether the forge is still to be told of it.
    pub is_due: bool,
    /// Time of the next try.
    pub not_before: Millis,
    /// The reason why it was not told, the last time.
    pub message: Option<String>,
}

/// The statuses of a project, those that were wanted last first.
pub fn list(view: &View, project: &ProjectId, most: u32) -> Result<Vec<ShownReport>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT project_id, revision, context, reference, state, description, url, sent_word, sent_text, attempts, since_ms,
            is_due, not_before_ms, message
         FROM forge_reports WHERE project_id = ?1 ORDER BY since_ms DESC, revision, context LIMIT ?2",
    )?;
    let rows = query.query_map(params![project, most], |row| {
        Ok(ShownReport {
            report: report_row(row)?,
            is_due: row.get(11)?,
            not_before: row.get(12)?,
            message: row.get(13)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Has a status told later.
pub fn postpone(tx: &Tx<'_>, report: &CommitStatus, message: &str, until: Millis) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "UPDATE forge_reports SET attempts = attempts + 1, message = ?4, not_before_ms = ?5
             WHERE project_id = ?1 AND revision = ?2 AND context = ?3",
        )?
        .execute(params![report.project, report.revision, report.context, message, until])?;
    Ok(())
}

/// Has all statuses of a project told later, for one reason.
pub fn postpone_all(tx: &Tx<'_>, project: &ProjectId, message: &str, until: Millis) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "UPDATE forge_reports SET not_before_ms = max(not_before_ms, ?3), message = ?2
             WHERE project_id = ?1 AND is_due = 1",
        )?
        .execute(params![project, message, until])?;
    Ok(())
}

/// Has all statuses of a project that wait told at once: there may be a way to its forge now.
pub fn hurry(tx: &Tx<'_>, project: &ProjectId, now: Millis) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "UPDATE forge_reports SET not_before_ms = ?2, attempts = 0 WHERE project_id = ?1 AND is_due = 1",
        )?
        .execute(params![project, now])?;
    Ok(())
}

/// Forgets statuses that are older than a time.
pub fn delete_before(tx: &Tx<'_>, before: Millis) -> Result<(), Error> {
    tx.sql().prepare_cached("DELETE FROM forge_reports WHERE since_ms < ?1")?.execute([before])?;
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::server::store::tables::projects::ensure_project;
    use crate::server::store::{Store, scene};

    #[test]
    fn errors_that_cannot_be_read_are_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), false, |_| ()).unwrap();
        let told = store.write_blocking(|tx| {
            ensure_project(tx, "gh/acme/app", None, Millis(0))?;
            let pipeline = scene::insert_pipeline(tx, 1, "main", Millis(0))?;
            let mut told = Vec::new();
            for errors in [r#"[{"type":"config","message":"no such job"}]"#, "[]", "[{", "{}"] {
                tx.sql().execute("UPDATE pipelines SET errors = ?1", [errors])?;
                let errors = pipeline_facts(tx, &pipeline)?.unwrap().errors;
                told.push(errors.map(|all| all.len()).map_err(|why| why.to_string().contains("damaged")));
            }
            Ok(told)
        });
        assert_eq!(told.unwrap(), [Ok(1), Ok(0), Err(true), Err(true)]);
    }
}
