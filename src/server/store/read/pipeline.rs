//! Pipelines, one and many.
//!
//! Only SQLite: `group_concat`, and `json_each` and `json_array_length` for the list of projects (elsewhere
//! an array parameter); flags are integers.

use crate::server::ids::{OrganisationId, PipelineId, ProjectId, UserId};
use crate::server::store::json::{Json, Message};
use crate::server::store::read::project::{PROJECT, ProjectRef};
use crate::server::store::read::run_status::RunStatus;
use crate::server::store::status::{PipelineState, WorkflowStatus};
use crate::server::store::tables::pipelines::{CommitFacts, PullFacts};
use crate::server::store::{Error, View};
use crate::server::time::Millis;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{OptionalExtension, Row, params};
use serde_json::{Map, Value};

/// A pipeline. Version 3 calls it a run.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Identifies it in URLs.
    pub id: PipelineId,
    /// Number in the project.
    pub number: i64,
    /// The project that it belongs to.
    pub project: ProjectRef,
    /// State of its configs.
    pub state: PipelineState,
    /// Time of its trigger.
    pub created_at: Millis,
    /// Time of its last change.
    pub updated_at: Millis,
    /// `api`, `webhook`, ...
    pub trigger_type: String,
    /// The person who triggered it.
    pub actor_id: Option<UserId>,
    /// Login of who triggered it.
    pub actor_login: String,
    /// The address of their picture, where a forge told it.
    pub actor_avatar: Option<String>,
    /// URL that was checked out from.
    pub repository_url: Option<String>,
    /// Address of the repository that the commit comes from: that of the fork, of a pull request from one.
    pub origin_url: Option<String>,
    /// Commit, in full.
    pub revision: Option<String>,
    /// Branch; excludes a tag.
    pub branch: Option<String>,
    /// Tag; excludes a branch.
    pub tag: Option<String>,
    /// First line of the commit message.
    pub subject: Option<String>,
    /// Rest of the commit message.
    pub body: Option<String>,
    /// Author of the commit.
    pub author: Option<String>,
    /// Further facts about who made the commit, and when.
    pub made: Option<CommitFacts>,
    /// Full ref, where it is no branch and no tag.
    pub reference: Option<String>,
    /// Parameters as given by the trigger.
    pub trigger_parameters: Map<String, Value>,
    /// Errors that keep it from having workflows.
    pub errors: Vec<Message>,
    /// Status of its workflows together.
    pub status: RunStatus,
}

/// Which pipelines; what is absent does not matter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Their projects; empty is all.
    pub projects: Vec<ProjectId>,
    /// The owner of their projects.
    pub organisation: Option<OrganisationId>,
    /// Only pipelines of this branch.
    pub branch: Option<String>,
    /// Only pipelines of this branch, or of this tag.
    pub branch_or_tag: Option<String>,
    /// Commit, in full.
    pub revision: Option<String>,
    /// The person who triggered them.
    pub actor: Option<UserId>,
    /// Statuses of their workflows together, of which one is enough; empty: all pipelines.
    pub statuses: Vec<RunStatus>,
    /// Created at or after this.
    pub from: Option<Millis>,
    /// Created at or before this.
    pub to: Option<Millis>,
}

/// The last pipeline of the page before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    created_at: Millis,
    id: PipelineId,
}

impl Cursor {
    /// Writes it as clients see it.
    pub fn token(&self) -> String {
        format!("{:x}.{}", self.created_at.0, self.id)
    }

    /// Reads what [`Cursor::token`] wrote.
    pub fn parse(token: &str) -> Option<Self> {
        let (time, id) = token.split_once('.')?;
        let well_formed = id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        Some(Self {
            created_at: Millis(u64::from_str_radix(time, 16).ok()?),
            id: well_formed.then(|| id.into())?,
        })
    }
}

/// A page of pipelines, newest first.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Pipelines, at most as many as were asked for.
    pub items: Vec<Pipeline>,
    /// Beginning of the next page, if there is one.
    pub next: Option<Cursor>,
}

const SELECT: &str = "SELECT p.id, p.number, p.state, p.created_at_ms, p.updated_at_ms, p.trigger_type, p.actor_id,
    p.actor_login, p.repository_url, p.revision, p.branch, p.tag, p.commit_subject, p.commit_body, p.commit_author,
    p.trigger_parameters, p.errors,
    (SELECT group_concat(w.status) FROM workflows w WHERE w.pipeline_id = p.id AND NOT EXISTS (
        SELECT 1 FROM workflows again WHERE again.pipeline_id = p.id AND again.rerun_of = w.id)), p.actor_avatar,
    CASE WHEN p.is_untrusted = 1 THEN p.pull END, p.commit_facts, p.reference";

fn query(rest: &str) -> String {
    format!("{SELECT}, {PROJECT} FROM pipelines p JOIN projects r ON r.id = p.project_id {rest}")
}

const OWN_COLUMNS: usize = 22;

/// Statuses of workflows with commas between them; null is none.
struct Statuses(Vec<WorkflowStatus>);

impl FromSql for Statuses {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let Some(text) = value.as_str_or_null()? else { return Ok(Self(Vec::new())) };
        let read = |word| WorkflowStatus::parse(word).ok_or(FromSqlError::InvalidType);
        text.split(',').map(read).collect::<Result<_, _>>().map(Self)
    }
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Pipeline> {
    let state: PipelineState = row.get(2)?;
    let Statuses(statuses) = row.get(17)?;
    Ok(Pipeline {
        status: RunStatus::of(state, &statuses),
        id: row.get(0)?,
        number: row.get(1)?,
        project: ProjectRef::from_row(row, OWN_COLUMNS)?,
        state,
        created_at: row.get(3)?,
        updated_at: row.get(4)?,
        trigger_type: row.get(5)?,
        actor_id: row.get(6)?,
        actor_login: row.get(7)?,
        actor_avatar: row.get(18)?,
        origin_url: match (row.get::<_, Option<String>>(8)?, row.get::<_, Option<Json<PullFacts>>>(19)?) {
            (Some(url), Some(Json(pull))) => fork_url(&url, &pull),
            (url, _) => url,
        },
        repository_url: row.get(8)?,
        revision: row.get(9)?,
        branch: row.get(10)?,
        tag: row.get(11)?,
        subject: row.get(12)?,
        body: row.get(13)?,
        author: row.get(14)?,
        made: row.get::<_, Option<Json<_>>>(20)?.map(|Json(made)| made),
        reference: row.get(21)?,
        trigger_parameters: row.get::<_, Json<_>>(15)?.0,
        errors: row.get::<_, Json<_>>(16)?.0,
    })
}

/// The address of a fork: it is where the repository is, by its own owner and name. `None` where those are not known.
fn fork_url(url: &str, pull: &PullFacts) -> Option<String> {
    let (owner, name) = (pull.fork_owner.as_ref()?, pull.fork_name.as_ref()?);
    let end = if url.ends_with(".git") { ".git" } else { "" };
    let (before, _) = url.trim_end_matches('/').rsplit_once('/')?;
    let at = before.rfind(['/', ':'])?;
    Some(format!("{}{owner}/{name}{end}", &before[..=at]))
}

/// Finds a pipeline by its id.
pub fn pipeline(view: &View, id: &PipelineId) -> Result<Option<Pipeline>, Error> {
    let mut query = view.sql().prepare_cached(&query("WHERE p.id = ?1"))?;
    Ok(query.query_row([id], from_row).optional()?)
}

/// Whether there is a pipeline with this id.
pub fn is_pipeline(view: &View, id: &PipelineId) -> Result<bool, Error> {
    Ok(view.sql().prepare_cached("SELECT 1 FROM pipelines WHERE id = ?1")?.exists([id])?)
}

/// Finds a pipeline by its number in a project.
pub fn pipeline_by_number(view: &View, project: &ProjectId, number: i64) -> Result<Option<Pipeline>, Error> {
    let mut query = view.sql().prepare_cached(&query("WHERE p.project_id = ?1 AND p.number = ?2"))?;
    Ok(query.query_row(params![project, number], from_row).optional()?)
}

/// Reads pipelines, newest first, after `after`.
pub fn pipelines(
    view: &View,
    filter: &Filter,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<Listed, Error> {
    let sql = query(
        "WHERE (json_array_length(?1) = 0 OR p.project_id IN (SELECT value FROM json_each(?1)))
            AND (?2 IS NULL OR r.organisation_id = ?2) AND (?3 IS NULL OR p.branch = ?3)
            AND (?4 IS NULL OR p.revision = ?4) AND (?5 IS NULL OR p.actor_id = ?5)
            AND p.created_at_ms BETWEEN ?6 AND ?7 AND (p.created_at_ms, p.id) < (?8, ?9)
            AND (?10 IS NULL OR p.branch = ?10 OR p.tag = ?10)
         ORDER BY p.created_at_ms DESC, p.id DESC",
    );
    let mut query = view.sql().prepare_cached(&sql)?;
    let mut rows = query.query(params![
        serde_json::to_string(&filter.projects)?,
        filter.organisation,
        filter.branch,
        filter.revision,
        filter.actor,
        filter.from.unwrap_or(Millis(0)),
        filter.to.unwrap_or(Millis(u64::MAX)),
        after.map_or(Millis(u64::MAX), |cursor| cursor.created_at),
        after.map_or("", |cursor| cursor.id.as_str()),
        filter.branch_or_tag,
    ])?;
    let mut items: Vec<Pipeline> = Vec::new();
    let mut next = None;
    while let Some(row) = rows.next()? {
        let pipeline = from_row(row)?;
        if !filter.statuses.is_empty() && !filter.statuses.contains(&pipeline.status) {
            continue;
        }
        if items.len() == limit {
            next = items.last().map(|last| Cursor { created_at: last.created_at, id: last.id.clone() });
            break;
        }
        items.push(pipeline);
    }
    Ok(Listed { items, next })
}

/// The configs of a pipeline.
#[derive(Clone, Debug)]
pub struct Configs {
    /// The config as it was given.
    pub source: String,
    /// The config as it was compiled.
    pub processed: String,
    /// The config that continued to `source`, of a setup pipeline that was continued.
    pub setup_source: Option<String>,
    /// The config of `setup_source` as it was compiled.
    pub setup_processed: Option<String>,
}

/// Reads the configs of a pipeline.
pub fn configs(view: &View, pipeline: &PipelineId) -> Result<Option<Configs>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT source, processed, setup_source, setup_processed FROM pipeline_configs WHERE pipeline_id = ?1",
    )?;
    let row = query.query_row([pipeline], |row| {
        Ok(Configs {
            source: row.get(0)?,
            processed: row.get(1)?,
            setup_source: row.get(2)?,
            setup_processed: row.get(3)?,
        })
    });
    Ok(row.optional()?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::server::store::tables::projects::ensure_project;
    use crate::server::store::{Store, scene};

    #[test]
    fn cursors_come_back() {
        let cursor = Cursor { created_at: Millis(1_700_000_000_123), id: "0".repeat(36).into() };
        assert_eq!(Cursor::parse(&cursor.token()), Some(cursor));
        for bad in ["", "x", "1.", "zz.00000000-0000-0000-0000-000000000000", "1.'; DROP TABLE"] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_word_that_no_status_has_is_damage() {
        let read = |text: &str| Statuses::column_result(ValueRef::Text(text.as_bytes()));
        assert!(read("success,failed").is_ok_and(|statuses| statuses.0.len() == 2));
        assert!(read("success,wonderful").is_err());
    }

    #[test]
    fn a_fork_is_where_its_repository_is() {
        let named = |name: &str| Some(name.to_owned());
        let pull = PullFacts { fork_owner: named("eve"), fork_name: named("theirs"), ..PullFacts::default() };
        for (url, fork) in [
            ("https://forge.example/acme/app.git", "https://forge.example/eve/theirs.git"),
            ("git@forge.example:acme/app", "git@forge.example:eve/theirs"),
        ] {
            assert_eq!(fork_url(url, &pull).as_deref(), Some(fork));
            assert_eq!(fork_url(url, &PullFacts::default()), None, "a fork that is gone");
        }
    }

    #[test]
    fn damaged_facts_of_a_pull_request_are_an_error_and_not_a_fork_that_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), false, |_| ()).unwrap();
        for (pull, is_read) in
            [(r#"{"urls": [], "fork_owner": "eve", "fork_name": "app"}"#, true), ("{", false)]
        {
            let read = store.write_blocking(move |tx| {
                ensure_project(tx, "gh/acme/app", None, Millis(0))?;
                tx.sql().execute("DELETE FROM pipelines", [])?;
                let id = scene::insert_pipeline(tx, 1, "main", Millis(0))?;
                let sql = "UPDATE pipelines SET repository_url = 'https://f.example/a/b', is_untrusted = 1, pull = ?1";
                tx.sql().execute(sql, [pull])?;
                Ok(pipeline(tx, &id).map(|found| found.map(|found| found.origin_url)))
            });
            let read = read.unwrap();
            assert_eq!(read.is_ok(), is_read, "{read:?}");
        }
    }
}
