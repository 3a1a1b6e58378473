//! Variables of projects and of contexts. Values are sealed before they come here and opened after they left.
//!
//! Only SQLite: nothing.

use crate::server::ids::{ContextId, OrganisationId, ProjectId};
use crate::server::store::tables::{apps, tokens};
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, Row, params};

/// A variable as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownVariable {
    /// Name of the variable; unique in its project or context.
    pub name: String,
    /// `xxxx` and the end of the value.
    pub hint: String,
    /// Time of its making; of a project's variable the time of its last change.
    pub created_at: Millis,
    /// Time of its last change.
    pub updated_at: Millis,
}

/// A variable as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedVariable {
    /// Name of the variable, which is unique in its project or context.
    pub name: String,
    /// The value, which only the holder of the key can read.
    pub sealed: Vec<u8>,
}

/// The owner of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VariableOwner {
    /// A project: all of its jobs are given the variable.
    Project(ProjectId),
    /// A context: the jobs that use it are given the variable.
    Context(ContextId),
    /// The connection of a project to its forge: a secret of it, which no job is given.
    Forge(ProjectId),
    /// A project or an organisation, by its id: its GitHub App, which no job is given.
    App(String),
    /// An organisation, with the address that its token for a forge is shown to.
    Organisation(OrganisationId, String),
}

fn shown_row(row: &Row<'_>) -> rusqlite::Result<ShownVariable> {
    Ok(ShownVariable {
        name: row.get(0)?,
        hint: row.get(1)?,
        created_at: row.get(2)?,
        updated_at: row.get(3)?,
    })
}

fn sealed_row(row: &Row<'_>) -> rusqlite::Result<SealedVariable> {
    Ok(SealedVariable { name: row.get(0)?, sealed: row.get(1)? })
}

/// Counts the variables of a project, without the one of this name.
pub fn count_others_of_project(view: &View, project: &ProjectId, name: &str) -> Result<usize, Error> {
    let mut query = view
        .sql()
        .prepare_cached("SELECT count(*) FROM project_variables WHERE project_id = ?1 AND name <> ?2")?;
    Ok(query.query_row(params![project, name], |row| row.get(0))?)
}

/// Adds or replaces a variable of a project.
pub fn set_of_project(
    tx: &Tx<'_>,
    project: &ProjectId,
    variable: &SealedVariable,
    hint: &str,
    now: Millis,
) -> Result<ShownVariable, Error> {
    let mut query = tx.sql().prepare_cached(
        "INSERT INTO project_variables (project_id, name, sealed, hint, created_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (project_id, name) DO UPDATE SET sealed = ?3, hint = ?4, created_at_ms = ?5
         RETURNING name, hint, created_at_ms, created_at_ms",
    )?;
    Ok(query.query_row(params![project, variable.name, variable.sealed, hint, now], shown_row)?)
}

/// Reads the variables of a project, by name.
pub fn list_of_project(view: &View, project: &ProjectId) -> Result<Vec<ShownVariable>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT name, hint, created_at_ms, created_at_ms FROM project_variables WHERE project_id = ?1 ORDER BY name",
    )?;
    Ok(query.query_map([project], shown_row)?.collect::<Result<_, _>>()?)
}

/// Finds a variable of a project.
pub fn find_of_project(view: &View, project: &ProjectId, name: &str) -> Result<Option<ShownVariable>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT name, hint, created_at_ms, created_at_ms FROM project_variables WHERE project_id = ?1 AND name = ?2",
    )?;
    Ok(query.query_row(params![project, name], shown_row).optional()?)
}

/// Deletes a variable of a project. False when there is none.
pub fn delete_of_project(tx: &Tx<'_>, project: &ProjectId, name: &str) -> Result<bool, Error> {
    let mut query =
        tx.sql().prepare_cached("DELETE FROM project_variables WHERE project_id = ?1 AND name = ?2")?;
    Ok(query.execute(params![project, name])? > 0)
}

/// Reads the values of a project, by name.
pub fn list_sealed_of_project(view: &View, project: &ProjectId) -> Result<Vec<SealedVariable>, Error> {
    let mut query = view
        .sql()
        .prepare_cached("SELECT name, sealed FROM project_variables WHERE project_id = ?1 ORDER BY name")?;
    Ok(query.query_map([project], sealed_row)?.collect::<Result<_, _>>()?)
}

/// Counts the variables of a context, without the one of this name.
pub fn count_others_of_context(view: &View, context: &ContextId, name: &str) -> Result<usize, Error> {
    let mut query = view
        .sql()
        .prepare_cached("SELECT count(*) FROM context_variables WHERE context_id = ?1 AND name <> ?2")?;
    Ok(query.query_row(params![context, name], |row| row.get(0))?)
}

/// Adds or replaces a variable of a context.
pub fn set_of_context(
    tx: &Tx<'_>,
    context: &ContextId,
    variable: &SealedVariable,
    hint: &str,
    now: Millis,
) -> Result<ShownVariable, Error> {
    let mut query = tx.sql().prepare_cached(
        "INSERT INTO context_variables (context_id, name, sealed, hint, created_at_ms, updated_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5)
         ON CONFLICT (context_id, name) DO UPDATE SET sealed = ?3, hint = ?4, updated_at_ms = ?5
         RETURNING name, hint, created_at_ms, updated_at_ms",
    )?;
    Ok(query.query_row(params![context, variable.name, variable.sealed, hint, now], shown_row)?)
}

/// Reads the variables of a context, by name.
pub fn list_of_context(view: &View, context: &ContextId) -> Result<Vec<ShownVariable>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT name, hint, created_at_ms, updated_at_ms FROM context_variables WHERE context_id = ?1 ORDER BY name",
    )?;
    Ok(query.query_map([context], shown_row)?.collect::<Result<_, _>>()?)
}

/// Deletes a variable of a context. False when there is none.
pub fn delete_of_context(tx: &Tx<'_>, context: &ContextId, name: &str) -> Result<bool, Error> {
    let mut query =
        tx.sql().prepare_cached("DELETE FROM context_variables WHERE context_id = ?1 AND name = ?2")?;
    Ok(query.execute(params![context, name])? > 0)
}

/// Reads the values of a context, by name.
pub fn list_sealed_of_context(view: &View, context: &ContextId) -> Result<Vec<SealedVariable>, Error> {
    let mut query = view
        .sql()
        .prepare_cached("SELECT name, sealed FROM context_variables WHERE context_id = ?1 ORDER BY name")?;
    Ok(query.query_map([context], sealed_row)?.collect::<Result<_, _>>()?)
}

/// Reads every value that is kept.
pub fn list_all_sealed(view: &View) -> Result<Vec<(VariableOwner, SealedVariable)>, Error> {
    let mut all = Vec::new();
    let mut query = view.sql().prepare("SELECT name, sealed, project_id FROM project_variables")?;
    for row in query.query_map([], |row| Ok((VariableOwner::Project(row.get(2)?), sealed_row(row)?)))? {
        all.push(row?);
    }
    let mut query = view.sql().prepare("SELECT name, sealed, context_id FROM context_variables")?;
    for row in query.query_map([], |row| Ok((VariableOwner::Context(row.get(2)?), sealed_row(row)?)))? {
        all.push(row?);
    }
    let mut query = view.sql().prepare("SELECT name, sealed, project_id FROM forge_secrets")?;
    for row in query.query_map([], |row| Ok((VariableOwner::Forge(row.get(2)?), sealed_row(row)?)))? {
        all.push(row?);
    }
    for (owner, sealed) in apps::list_all(view)? {
        all.push((VariableOwner::App(owner), SealedVariable { name: "github-app".to_owned(), sealed }));
    }
    for token in tokens::list_all(view)? {
        let owner = VariableOwner::Organisation(token.organisation, token.api_url);
        all.push((owner, SealedVariable { name: "forge-token".to_owned(), sealed: token.sealed }));
    }
    Ok(all)
}
