//! Contexts, their restrictions, and what is known of a job that wants to use them.
//!
//! Only SQLite: nothing.

use crate::server::ids::{ContextId, JobId, OrganisationId, ProjectId, RestrictionId};
use crate::server::store::json::Json;
use crate::server::store::status::RestrictionKind;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, Row, params};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Context of an organisation: variables that jobs may be given.
#[derive(Clone, Debug)]
pub struct Context {
    /// Identifies it in URLs.
    pub id: ContextId,
    /// Organisation that owns the context.
    pub organisation: OrganisationId,
    /// Name of the context; unique in the organisation.
    pub name: String,
    /// Time of its making.
    pub created_at: Millis,
}

/// A condition on the use of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restriction {
    /// Identifies it in URLs.
    pub id: RestrictionId,
    /// The thing that it looks at.
    pub kind: RestrictionKind,
    /// Id of a project, a rule, or id of a group, by its kind.
    pub value: String,
}

/// The facts about a job that restrictions look at.
#[derive(Clone, Debug)]
pub struct RestrictionFacts {
    /// Project of the job.
    pub project: ProjectId,
    /// The owner of its project.
    pub organisation: OrganisationId,
    /// Organisation of its project, as `vcs/org`.
    pub owner_slug: String,
    /// `pipeline.*` values of its pipeline, by full name.
    pub values: Map<String, Value>,
    /// Parameters of its pipeline, by name.
    pub parameters: Map<String, Value>,
}

/// Counts the contexts of an organisation.
pub fn count_contexts(view: &View, organisation: &OrganisationId) -> Result<usize, Error> {
    let mut query = view.sql().prepare_cached("SELECT count(*) FROM contexts WHERE organisation_id = ?1")?;
    Ok(query.query_row([organisation], |row| row.get(0))?)
}

/// Adds a context. False when its organisation has one of this name.
pub fn add_context(tx: &Tx<'_>, context: &Context) -> Result<bool, Error> {
    let added = tx
        .sql()
        .prepare_cached(
            "INSERT INTO contexts (id, organisation_id, name, created_at_ms) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (organisation_id, name) DO NOTHING",
        )?
        .execute(params![context.id, context.organisation, context.name, context.created_at])?;
    Ok(added > 0)
}

const CONTEXT: &str = "SELECT id, organisation_id, name, created_at_ms FROM contexts";

fn context_row(row: &Row<'_>) -> rusqlite::Result<Context> {
    Ok(Context { id: row.get(0)?, organisation: row.get(1)?, name: row.get(2)?, created_at: row.get(3)? })
}

/// Reads the contexts of an organisation, by name.
pub fn list_contexts(view: &View, organisation: &OrganisationId) -> Result<Vec<Context>, Error> {
    let mut query =
        view.sql().prepare_cached(&format!("{CONTEXT} WHERE organisation_id = ?1 ORDER BY name"))?;
    Ok(query.query_map([organisation], context_row)?.collect::<Result<_, _>>()?)
}

/// Finds a context by its id.
pub fn find_context(view: &View, context: &ContextId) -> Result<Option<Context>, Error> {
    let mut query = view.sql().prepare_cached(&format!("{CONTEXT} WHERE id = ?1"))?;
    Ok(query.query_row([context], context_row).optional()?)
}

/// Finds a context of an organisation by its name.
pub fn find_context_by_name(
    view: &View,
    organisation: &OrganisationId,
    name: &str,
) -> Result<Option<Context>, Error> {
    let mut query =
        view.sql().prepare_cached(&format!("{CONTEXT} WHERE organisation_id = ?1 AND name = ?2"))?;
    Ok(query.query_row(params![organisation, name], context_row).optional()?)
}

/// Deletes a context with everything in it. False when there is none.
pub fn delete_context(tx: &Tx<'_>, context: &ContextId) -> Result<bool, Error> {
    Ok(tx.sql().prepare_cached("DELETE FROM contexts WHERE id = ?1")?.execute([context])? > 0)
}

/// Reads the restrictions of a context. One of a kind that is not known is an error: leaving it out would
/// open the context.
pub fn list_restrictions(view: &View, context: &ContextId) -> Result<Vec<Restriction>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT id, kind, value FROM context_restrictions WHERE context_id = ?1 ORDER BY kind, value",
    )?;
    let rows = query.query_map([context], |row| {
        Ok(Restriction { id: row.get(0)?, kind: row.get(1)?, value: row.get(2)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Adds a restriction of a context.
pub fn add_restriction(tx: &Tx<'_>, context: &ContextId, restriction: &Restriction) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "INSERT INTO context_restrictions (id, context_id, kind, value) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![restriction.id, context, restriction.kind, restriction.value])?;
    Ok(())
}

/// Deletes a restriction of a context. False when there is none.
pub fn delete_restriction(
    tx: &Tx<'_>,
    context: &ContextId,
    restriction: &RestrictionId,
) -> Result<bool, Error> {
    let mut query =
        tx.sql().prepare_cached("DELETE FROM context_restrictions WHERE context_id = ?1 AND id = ?2")?;
    Ok(query.execute(params![context, restriction])? > 0)
}

/// The one part of a job's definition that is needed here; the rest can be megabytes long.
#[derive(Deserialize)]
struct Uses {
    #[serde(default)]
    contexts: Vec<String>,
}

/// Reads the names of the contexts that a job uses, in their order.
pub fn list_names_of_job(view: &View, job: &JobId) -> Result<Vec<String>, Error> {
    let mut query = view.sql().prepare_cached("SELECT definition FROM jobs WHERE id = ?1")?;
    let mut rows = query.query([job])?;
    let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    Ok(row.get::<_, Json<Uses>>(0)?.0.contexts)
}

/// Reads the facts about a job that restrictions look at.
pub fn facts_of_job(view: &View, job: &JobId) -> Result<RestrictionFacts, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT r.id, r.organisation_id, r.vcs || '/' || r.org, p.pipeline_values, p.parameters
         FROM jobs j JOIN projects r ON r.id = j.project_id JOIN pipelines p ON p.id = j.pipeline_id WHERE j.id = ?1",
    )?;
    let mut rows = query.query([job])?;
    let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    Ok(RestrictionFacts {
        project: row.get(0)?,
        organisation: row.get(1)?,
        owner_slug: row.get(2)?,
        values: row.get::<_, Json<_>>(3)?.0,
        parameters: row.get::<_, Json<_>>(4)?.0,
    })
}

/// Finds the project of a job.
pub fn project_of_job(view: &View, job: &JobId) -> Result<ProjectId, Error> {
    let mut query = view.sql().prepare_cached("SELECT project_id FROM jobs WHERE id = ?1")?;
    Ok(query.query_row([job], |row| row.get(0))?)
}
