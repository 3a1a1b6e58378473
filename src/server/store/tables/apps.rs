//! GitHub Apps of projects and of organisations, sealed.
//!
//! Only SQLite: nothing.

use crate::server::ids::{OrganisationId, ProjectId};
use crate::server::store::forge_states::Forge;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, params};

/// The owner of an App.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppOwner {
    /// A project, which goes by it and by no other.
    Project(ProjectId),
    /// An organisation, whose projects go by it where they have none of their own.
    Organisation(OrganisationId),
}

impl AppOwner {
    /// The id of either.
    pub fn id(&self) -> &str {
        match self {
            AppOwner::Project(id) => id.as_str(),
            AppOwner::Organisation(id) => id.as_str(),
        }
    }

    fn columns(&self) -> (Option<&ProjectId>, Option<&OrganisationId>) {
        match self {
            AppOwner::Project(id) => (Some(id), None),
            AppOwner::Organisation(id) => (None, Some(id)),
        }
    }
}

/// Keeps the sealed App of an owner, in place of what was there.
pub fn set(tx: &Tx<'_>, owner: &AppOwner, sealed: &[u8], now: Millis) -> Result<(), Error> {
    let (project, organisation) = owner.columns();
    tx.sql()
        .prepare_cached(
            "INSERT INTO forge_apps (owner_id, project_id, organisation_id, sealed, created_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (owner_id) DO UPDATE SET sealed = ?4, created_at_ms = ?5",
        )?
        .execute(params![owner.id(), project, organisation, sealed, now])?;
    Ok(())
}

/// Reads the sealed App of an owner itself.
pub fn sealed(view: &View, owner: &AppOwner) -> Result<Option<Vec<u8>>, Error> {
    let sql = "SELECT sealed FROM forge_apps WHERE owner_id = ?1";
    Ok(view.sql().prepare_cached(sql)?.query_row([owner.id()], |row| row.get(0)).optional()?)
}

/// Deletes the App of an owner. False when there is none.
pub fn delete(tx: &Tx<'_>, owner: &AppOwner) -> Result<bool, Error> {
    Ok(tx.sql().prepare_cached("DELETE FROM forge_apps WHERE owner_id = ?1")?.execute([owner.id()])? > 0)
}

/// Finds the owner of the App that a project goes by: the project, or its organisation, whose App is of no use to a project
/// at another forge.
pub fn owner_for(view: &View, project: &ProjectId) -> Result<Option<AppOwner>, Error> {
    let mut query = view.sql().prepare_cached("SELECT 1 FROM forge_apps WHERE project_id = ?1")?;
    if query.exists([project])? {
        return Ok(Some(AppOwner::Project(project.clone())));
    }
    let mut query = view.sql().prepare_cached(
        "SELECT a.organisation_id FROM projects p JOIN forge_apps a ON a.organisation_id = p.organisation_id
         WHERE p.id = ?1 AND NOT EXISTS (SELECT 1 FROM forge_connections c WHERE c.project_id = p.id AND c.forge <> ?2)",
    )?;
    Ok(query
        .query_row(params![project, Forge::GitHub], |row| row.get(0))
        .optional()?
        .map(AppOwner::Organisation))
}

/// Reads every App that is kept, with the id of its owner.
pub fn list_all(view: &View) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut query = view.sql().prepare_cached("SELECT owner_id, sealed FROM forge_apps ORDER BY owner_id")?;
    Ok(query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?)
}
