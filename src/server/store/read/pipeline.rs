//! Pipelines, one and many.

use crate::server::store::Error;
use crate::server::store::View;
use crate::server::store::read::{PROJECT, ProjectRef};
use crate::server::store::status::WorkflowStatus;
use rusqlite::{OptionalExtension, Row, params};

/// A pipeline. Version 3 calls it a run.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// UUID.
    pub id: String,
    /// Number in the project.
    pub number: i64,
    /// Whose it is.
    pub project: ProjectRef,
    /// A word of `PipelineState`.
    pub state: String,
    /// When it was triggered.
    pub created_at_ms: i64,
    /// When it last changed.
    pub updated_at_ms: i64,
    /// `api`, `webhook`, ...
    pub trigger_type: String,
    /// UUID of who triggered it.
    pub actor_id: Option<String>,
    /// Login of who triggered it.
    pub actor_login: String,
    /// What was checked out from.
    pub repository_url: Option<String>,
    /// Commit.
    pub revision: Option<String>,
    /// Branch; excludes a tag.
    pub branch: Option<String>,
    /// Tag.
    pub tag: Option<String>,
    /// Of the commit message.
    pub subject: Option<String>,
    /// Of the commit message.
    pub body: Option<String>,
    /// Of the commit.
    pub author: Option<String>,
    /// JSON object: as given by the trigger.
    pub trigger_parameters: String,
    /// JSON `[{"type","message"}]`.
    pub errors: String,
    /// Where its workflows stand together.
    pub status: RunStatus,
}

/// Where the workflows of a pipeline stand together; those that were rerun do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStatus {
    /// The config does not compile.
    Errored,
    /// There are none.
    Empty,
    /// As one workflow would stand.
    As(WorkflowStatus),
}

impl RunStatus {
    fn of(state: &str, statuses: Option<&str>) -> Self {
        use WorkflowStatus as W;
        if state == "errored" {
            return Self::Errored;
        }
        let all: Vec<W> = statuses.unwrap_or_default().split(',').filter_map(W::parse).collect();
        if all.is_empty() {
            return Self::Empty;
        }
        let has = |wanted: &[W]| all.iter().any(|status| wanted.contains(status));
        let failed = has(&[W::Failed, W::Error]);
        Self::As(if !all.iter().all(|status| status.is_terminal()) {
            match () {
                () if failed || has(&[W::Failing]) => W::Failing,
                () if has(&[W::Running]) => W::Running,
                () if has(&[W::OnHold]) => W::OnHold,
                () => W::Queued,
            }
        } else {
            match () {
                () if failed => W::Failed,
                () if has(&[W::Unauthorized]) => W::Unauthorized,
                () if has(&[W::Canceled]) => W::Canceled,
                () => W::Success,
            }
        })
    }

    /// The word of version 2 for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Errored => "error",
            Self::Empty => "not_run",
            Self::As(status) => status.as_str(),
        }
    }
}

/// Which pipelines; what is absent does not matter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Ids of projects; empty is all.
    pub projects: Vec<String>,
    /// Id of an organisation.
    pub organisation: Option<String>,
    /// Branch.
    pub branch: Option<String>,
    /// Commit.
    pub revision: Option<String>,
    /// Id of the person who triggered them.
    pub actor: Option<String>,
    /// A word of [`RunStatus::word`].
    pub status: Option<String>,
    /// Created at or after this.
    pub from_ms: Option<i64>,
    /// Created at or before this.
    pub to_ms: Option<i64>,
}

/// The last pipeline of the page before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    created_at_ms: i64,
    id: String,
}

impl Cursor {
    /// As clients see it.
    pub fn token(&self) -> String {
        format!("{:x}.{}", self.created_at_ms, self.id)
    }

    /// Reads what [`Cursor::token`] wrote.
    pub fn parse(token: &str) -> Option<Self> {
        let (time, id) = token.split_once('.')?;
        let well_formed = id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        Some(Self {
            created_at_ms: i64::from_str_radix(time, 16).ok()?,
            id: well_formed.then(|| id.to_owned())?,
        })
    }
}

/// One page, newest first.
#[derive(Clone, Debug)]
pub struct Listed {
    /// At most as many as were asked for.
    pub items: Vec<Pipeline>,
    /// Where the next page begins, if there is one.
    pub next: Option<Cursor>,
}

const SELECT: &str = "SELECT p.id, p.number, p.state, p.created_at_ms, p.updated_at_ms, p.trigger_type, p.actor_id,
    p.actor_login, p.repository_url, p.revision, p.branch, p.tag, p.commit_subject, p.commit_body, p.commit_author,
    p.trigger_parameters, p.errors,
    (SELECT group_concat(w.status) FROM workflows w WHERE w.pipeline_id = p.id AND NOT EXISTS (
        SELECT 1 FROM workflows again WHERE again.pipeline_id = p.id AND again.rerun_of = w.id))";

fn query(rest: &str) -> String {
    format!("{SELECT}, {PROJECT} FROM pipelines p JOIN projects r ON r.id = p.project_id {rest}")
}

const OWN_COLUMNS: usize = 18;

fn from_row(row: &Row<'_>) -> rusqlite::Result<Pipeline> {
    let state: String = row.get(2)?;
    let statuses: Option<String> = row.get(17)?;
    Ok(Pipeline {
        status: RunStatus::of(&state, statuses.as_deref()),
        id: row.get(0)?,
        number: row.get(1)?,
        project: ProjectRef::from_row(row, OWN_COLUMNS)?,
        state,
        created_at_ms: row.get(3)?,
        updated_at_ms: row.get(4)?,
        trigger_type: row.get(5)?,
        actor_id: row.get(6)?,
        actor_login: row.get(7)?,
        repository_url: row.get(8)?,
        revision: row.get(9)?,
        branch: row.get(10)?,
        tag: row.get(11)?,
        subject: row.get(12)?,
        body: row.get(13)?,
        author: row.get(14)?,
        trigger_parameters: row.get(15)?,
        errors: row.get(16)?,
    })
}

/// A pipeline by its id.
pub fn pipeline(c: &View, id: &str) -> Result<Option<Pipeline>, Error> {
    Ok(c.prepare_cached(&query("WHERE p.id = ?1"))?.query_row([id], from_row).optional()?)
}

/// A pipeline by its number in a project.
pub fn pipeline_by_number(c: &View, project: &str, number: i64) -> Result<Option<Pipeline>, Error> {
    let sql = query("WHERE p.project_id = ?1 AND p.number = ?2");
    Ok(c.prepare_cached(&sql)?.query_row(params![project, number], from_row).optional()?)
}

/// Pipelines, newest first, after `after`.
pub fn pipelines(c: &View, filter: &Filter, after: Option<&Cursor>, limit: usize) -> Result<Listed, Error> {
    let sql = query(
        "WHERE (json_array_length(?1) = 0 OR p.project_id IN (SELECT value FROM json_each(?1)))
            AND (?2 IS NULL OR r.organisation_id = ?2) AND (?3 IS NULL OR p.branch = ?3)
            AND (?4 IS NULL OR p.revision = ?4) AND (?5 IS NULL OR p.actor_id = ?5)
            AND p.created_at_ms BETWEEN ?6 AND ?7 AND (p.created_at_ms, p.id) < (?8, ?9)
         ORDER BY p.created_at_ms DESC, p.id DESC",
    );
    let mut query = c.prepare_cached(&sql)?;
    let mut rows = query.query(params![
        serde_json::to_string(&filter.projects)?,
        filter.organisation,
        filter.branch,
        filter.revision,
        filter.actor,
        filter.from_ms.unwrap_or(0),
        filter.to_ms.unwrap_or(i64::MAX),
        after.map_or(i64::MAX, |cursor| cursor.created_at_ms),
        after.map_or("", |cursor| cursor.id.as_str()),
    ])?;
    let mut items: Vec<Pipeline> = Vec::new();
    let mut next = None;
    while let Some(row) = rows.next()? {
        let pipeline = from_row(row)?;
        if filter.status.as_deref().is_some_and(|wanted| wanted != pipeline.status.word()) {
            continue;
        }
        if items.len() == limit {
            next = items.last().map(|last| Cursor { created_at_ms: last.created_at_ms, id: last.id.clone() });
            break;
        }
        items.push(pipeline);
    }
    Ok(Listed { items, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workflows_stand_together() {
        let of = |statuses| RunStatus::of("created", statuses).word();
        assert_eq!(RunStatus::of("errored", None).word(), "error");
        assert_eq!(of(None), "not_run");
        assert_eq!(of(Some("success,success")), "success");
        assert_eq!(of(Some("success,failed")), "failed");
        assert_eq!(of(Some("failed,running")), "failing");
        assert_eq!(of(Some("on_hold,success")), "on_hold");
        assert_eq!(of(Some("queued")), "queued");
        assert_eq!(of(Some("canceled,success")), "canceled");
    }

    #[test]
    fn cursors_come_back() {
        let cursor = Cursor { created_at_ms: 1_700_000_000_123, id: "0".repeat(36) };
        assert_eq!(Cursor::parse(&cursor.token()), Some(cursor));
        for bad in ["", "x", "1.", "zz.00000000-0000-0000-0000-000000000000", "1.'; DROP TABLE"] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }
}
