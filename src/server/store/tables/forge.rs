//! Projects and their forges: connections, sealed secrets, refs as they were last seen, open pull requests.
//!
//! Only SQLite: `IS` between values that may be absent (elsewhere IS NOT DISTINCT FROM); flags are integers,
//! which are set to what a comparison gives: truth values are integers.

use crate::server::ids::ProjectId;
use crate::server::store::forge_states::Forge;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, Row, params};
use std::collections::BTreeMap;

/// How a project is connected to its forge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Project that is connected.
    pub project: ProjectId,
    /// The kind of the forge.
    pub forge: Forge,
    /// The id of the repository there; `None` until the first delivery names it.
    pub repository: Option<String>,
    /// The name of the repository there, such as `acme/app`.
    pub full_name: Option<String>,
    /// Base of its API; `None`: nothing is reported.
    pub api_url: Option<String>,
    /// Time between two looks at its refs, in milliseconds; `None`: never.
    pub poll_ms: Option<u64>,
    /// Looks that failed in a row.
    pub poll_failures: u32,
    /// The reason why the last look failed.
    pub poll_message: Option<String>,
    /// Whether its refs were looked at before.
    pub is_listed: bool,
    /// The reason why its token is not used any more.
    pub token_message: Option<String>,
}

impl Connection {
    /// The name of the repository there; as long as that is not known, the one in the slug of the project.
    pub fn name_there<'n>(&'n self, slug: &'n str) -> Option<&'n str> {
        self.full_name.as_deref().or_else(|| Some(slug.split_once('/')?.1))
    }
}

const CONNECTION: &str =
    "SELECT project_id, forge, repository, full_name, api_url, poll_ms, poll_failures, poll_message,
    is_listed, token_message FROM forge_connections";

fn connection_row(row: &Row<'_>) -> rusqlite::Result<Connection> {
    Ok(Connection {
        project: row.get(0)?,
        forge: row.get(1)?,
        repository: row.get(2)?,
        full_name: row.get(3)?,
        api_url: row.get(4)?,
        poll_ms: row.get(5)?,
        poll_failures: row.get(6)?,
        poll_message: row.get(7)?,
        is_listed: row.get(8)?,
        token_message: row.get(9)?,
    })
}

/// Finds the connection of a project.
pub fn connection(view: &View, project: &ProjectId) -> Result<Option<Connection>, Error> {
    let mut query = view.sql().prepare_cached(&format!("{CONNECTION} WHERE project_id = ?1"))?;
    Ok(query.query_row([project], connection_row).optional()?)
}

/// The other connected projects of the repository that a project is of: one at the same address, or one that their forge
/// knows by the same id or name.
pub fn of_same_repository(view: &View, project: &ProjectId) -> Result<Vec<ProjectId>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT o.project_id FROM forge_connections c JOIN projects p ON p.id = c.project_id
         JOIN forge_connections o ON o.project_id <> c.project_id AND o.forge = c.forge AND o.api_url IS c.api_url
         JOIN projects q ON q.id = o.project_id
         WHERE c.project_id = ?1 AND (o.repository = c.repository OR lower(o.full_name) = lower(c.full_name)
            OR rtrim(q.repository_url, '/') = rtrim(p.repository_url, '/')) ORDER BY q.vcs, q.org, q.repo",
    )?;
    Ok(query.query_map([project], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// Connects a project, or changes how it is connected. Its polling begins at `now`, at the latest. A token that was
/// refused stays so, unless it is shown to another forge or for another repository.
pub fn connect(tx: &Tx<'_>, connection: &Connection, now: Millis) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "INSERT INTO forge_connections (project_id, forge, repository, full_name, api_url, created_at_ms, poll_ms,
                next_poll_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?6)
             ON CONFLICT (project_id) DO UPDATE SET forge = ?2, repository = ?3, full_name = ?4, api_url = ?5,
                poll_ms = ?7, next_poll_ms = ?6, poll_failures = 0, poll_message = NULL,
                token_message = CASE WHEN forge = ?2 AND api_url IS ?5 AND full_name IS ?4 THEN token_message END",
        )?
        .execute(params![
            connection.project,
            connection.forge,
            connection.repository,
            connection.full_name,
            connection.api_url,
            now,
            connection.poll_ms
        ])?;
    Ok(())
}

/// Ends a connection with all that belongs to it. False when there is none.
pub fn disconnect(tx: &Tx<'_>, project: &ProjectId) -> Result<bool, Error> {
    forget_refs(tx, project)?;
    let sql = "DELETE FROM forge_deliveries WHERE project_id = ?1";
    tx.sql().prepare_cached(sql)?.execute([project])?;
    for name in ["hook", "hook-before", "token"] {
        delete_secret(tx, project, name)?;
    }
    let sql = "DELETE FROM forge_connections WHERE project_id = ?1";
    Ok(tx.sql().prepare_cached(sql)?.execute([project])? > 0)
}

/// Notes which repository a project is of, as its first delivery says.
pub fn pin(tx: &Tx<'_>, project: &ProjectId, repository: &str, full_name: &str) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "UPDATE forge_connections SET repository = ?2, full_name = coalesce(full_name, ?3)
             WHERE project_id = ?1 AND repository IS NULL",
        )?
        .execute(params![project, repository, full_name])?;
    Ok(())
}

/// Notes the name that the repository of a project has by now; a token that was refused by the name before is tried again.
/// False when it is the one that was known.
pub fn rename(tx: &Tx<'_>, project: &ProjectId, repository: &str, full_name: &str) -> Result<bool, Error> {
    let mut query = tx.sql().prepare_cached(
        "UPDATE forge_connections SET full_name = ?3, token_message = NULL
         WHERE project_id = ?1 AND repository = ?2 AND full_name IS NOT ?3",
    )?;
    Ok(query.execute(params![project, repository, full_name])? > 0)
}

/// Notes why the token of a project is not used any more; `None`: it is.
pub fn set_token_message(tx: &Tx<'_>, project: &ProjectId, message: Option<&str>) -> Result<(), Error> {
    let sql = "UPDATE forge_connections SET token_message = ?2 WHERE project_id = ?1";
    tx.sql().prepare_cached(sql)?.execute(params![project, message])?;
    Ok(())
}

/// The projects whose refs are to be looked at, the longest overdue first.
pub fn due_polls(view: &View, now: Millis, most: u32) -> Result<Vec<ProjectId>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT project_id FROM forge_connections WHERE poll_ms IS NOT NULL AND next_poll_ms <= ?1
         ORDER BY next_poll_ms LIMIT ?2",
    )?;
    Ok(query.query_map(params![now, most], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// The time of the next look at any project.
pub fn next_poll(view: &View) -> Result<Option<Millis>, Error> {
    let sql = "SELECT min(next_poll_ms) FROM forge_connections WHERE poll_ms IS NOT NULL";
    Ok(view.sql().prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// Has a project not looked at again before a time.
pub fn put_off_poll(tx: &Tx<'_>, project: &ProjectId, until: Millis) -> Result<(), Error> {
    let sql = "UPDATE forge_connections SET next_poll_ms = ?2 WHERE project_id = ?1";
    tx.sql().prepare_cached(sql)?.execute(params![project, until])?;
    Ok(())
}

/// Notes how a look at the refs of a project ended, and when the next one is due.
pub fn set_polled(
    tx: &Tx<'_>,
    project: &ProjectId,
    failure: Option<&str>,
    next: Millis,
) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "UPDATE forge_connections SET next_poll_ms = ?2, poll_message = ?3,
                poll_failures = CASE WHEN ?3 IS NULL THEN 0 ELSE poll_failures + 1 END,
                is_listed = is_listed OR ?3 IS NULL WHERE project_id = ?1",
        )?
        .execute(params![project, next, failure])?;
    Ok(())
}

/// Keeps a sealed secret of a project, in place of one of the same name.
pub fn set_secret(
    tx: &Tx<'_>,
    project: &ProjectId,
    name: &str,
    sealed: &[u8],
    now: Millis,
) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "INSERT INTO forge_secrets (project_id, name, sealed, created_at_ms) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (project_id, name) DO UPDATE SET sealed = ?3, created_at_ms = ?4",
        )?
        .execute(params![project, name, sealed, now])?;
    Ok(())
}

/// Reads a sealed secret of a project.
pub fn secret(view: &View, project: &ProjectId, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT sealed FROM forge_secrets WHERE project_id = ?1 AND name = ?2")?;
    Ok(query.query_row(params![project, name], |row| row.get(0)).optional()?)
}

/// Deletes a sealed secret of a project. False when there is none.
pub fn delete_secret(tx: &Tx<'_>, project: &ProjectId, name: &str) -> Result<bool, Error> {
    let mut query =
        tx.sql().prepare_cached("DELETE FROM forge_secrets WHERE project_id = ?1 AND name = ?2")?;
    Ok(query.execute(params![project, name])? > 0)
}

/// The refs of a project as they were last seen: full name to object.
pub fn refs(view: &View, project: &ProjectId) -> Result<BTreeMap<String, String>, Error> {
    let mut query = view.sql().prepare_cached("SELECT name, object FROM forge_refs WHERE project_id = ?1")?;
    Ok(query.query_map([project], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?)
}

/// A ref of a project as it was last seen.
pub fn seen_ref(view: &View, project: &ProjectId, name: &str) -> Result<Option<String>, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT object FROM forge_refs WHERE project_id = ?1 AND name = ?2")?;
    Ok(query.query_row(params![project, name], |row| row.get(0)).optional()?)
}

/// Notes where a ref was seen; `None`: that it is gone.
pub fn see_ref(tx: &Tx<'_>, project: &ProjectId, name: &str, object: Option<&str>) -> Result<(), Error> {
    match object {
        Some(object) => tx
            .sql()
            .prepare_cached(
                "INSERT INTO forge_refs (project_id, name, object) VALUES (?1, ?2, ?3)
                 ON CONFLICT (project_id, name) DO UPDATE SET object = ?3",
            )?
            .execute(params![project, name, object])?,
        None => tx
            .sql()
            .prepare_cached("DELETE FROM forge_refs WHERE project_id = ?1 AND name = ?2")?
            .execute(params![project, name])?,
    };
    Ok(())
}

/// Forgets where the refs of a project were seen: it is another repository from now on.
pub fn forget_refs(tx: &Tx<'_>, project: &ProjectId) -> Result<(), Error> {
    for sql in [
        "DELETE FROM forge_refs WHERE project_id = ?1",
        "DELETE FROM forge_pulls WHERE project_id = ?1",
        "UPDATE forge_connections SET is_listed = 0 WHERE project_id = ?1",
    ] {
        tx.sql().prepare_cached(sql)?.execute([project])?;
    }
    Ok(())
}

/// An open pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenPull {
    /// Number in the repository.
    pub number: u64,
    /// The branch that it comes from.
    pub branch: String,
    /// The commit that it is at.
    pub head: String,
    /// Address of its page at the forge.
    pub url: String,
    /// Whether it comes from another repository.
    pub is_fork: bool,
}

/// Notes an open pull request as it is now.
pub fn open_pull(tx: &Tx<'_>, project: &ProjectId, pull: &OpenPull) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "INSERT INTO forge_pulls (project_id, number, branch, head, url, is_fork) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (project_id, number) DO UPDATE SET branch = ?3, head = ?4, url = ?5, is_fork = ?6",
        )?
        .execute(params![project, pull.number, pull.branch, pull.head, pull.url, pull.is_fork])?;
    Ok(())
}

/// Forgets a pull request that was closed.
pub fn close_pull(tx: &Tx<'_>, project: &ProjectId, number: u64) -> Result<(), Error> {
    let sql = "DELETE FROM forge_pulls WHERE project_id = ?1 AND number = ?2";
    tx.sql().prepare_cached(sql)?.execute(params![project, number])?;
    Ok(())
}

/// The open pull requests from a branch of the repository itself, by number.
pub fn pulls_of_branch(view: &View, project: &ProjectId, branch: &str) -> Result<Vec<OpenPull>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT number, branch, head, url, is_fork FROM forge_pulls
         WHERE project_id = ?1 AND branch = ?2 AND is_fork = 0 ORDER BY number",
    )?;
    let rows = query.query_map(params![project, branch], |row| {
        Ok(OpenPull {
            number: row.get(0)?,
            branch: row.get(1)?,
            head: row.get(2)?,
            url: row.get(3)?,
            is_fork: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The head of an open pull request as it was last seen.
pub fn head_of_pull(view: &View, project: &ProjectId, number: u64) -> Result<Option<String>, Error> {
    let sql = "SELECT head FROM forge_pulls WHERE project_id = ?1 AND number = ?2";
    Ok(view.sql().prepare_cached(sql)?.query_row(params![project, number], |row| row.get(0)).optional()?)
}

/// Whether a pipeline of this branch and commit exists; the commit may be told by its first digits.
pub fn has_pipeline(view: &View, project: &ProjectId, branch: &str, revision: &str) -> Result<bool, Error> {
    let mut query = view
        .sql()
        .prepare_cached("SELECT 1 FROM pipelines WHERE project_id = ?1 AND branch = ?2 AND revision >= ?3 AND revision < ?3 || 'g'")?;
    Ok(query.exists(params![project, branch, revision])?)
}

/// The commit of the newest pipeline of a branch.
pub fn newest_revision(view: &View, project: &ProjectId, branch: &str) -> Result<Option<String>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT revision FROM pipelines WHERE project_id = ?1 AND branch = ?2 ORDER BY number DESC LIMIT 1",
    )?;
    Ok(query.query_row(params![project, branch], |row| row.get(0)).optional()?.flatten())
}
