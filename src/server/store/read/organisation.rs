//! Organisations, which own projects and contexts.
//!
//! Only SQLite: nothing.

use crate::server::ids::OrganisationId;
use crate::server::store::{Error, View};
use rusqlite::{OptionalExtension, Row};

/// An owner of projects and contexts.
#[derive(Clone, Debug)]
pub struct Organisation {
    /// Identifies it in URLs.
    pub id: OrganisationId,
    /// Short name of the version control system, such as `gh`.
    pub vcs: String,
    /// Name of the organisation in that system.
    pub name: String,
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Organisation> {
    Ok(Organisation { id: row.get(0)?, vcs: row.get(1)?, name: row.get(2)? })
}

/// Finds an organisation by its id.
pub fn organisation(view: &View, id: &OrganisationId) -> Result<Option<Organisation>, Error> {
    let mut query = view.sql().prepare_cached("SELECT id, vcs, name FROM organisations WHERE id = ?1")?;
    Ok(query.query_row([id], from_row).optional()?)
}

/// Finds an organisation by the short name of its version control system and its own name.
pub fn organisation_by_name(view: &View, vcs: &str, name: &str) -> Result<Option<Organisation>, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT id, vcs, name FROM organisations WHERE vcs = ?1 AND name = ?2")?;
    Ok(query.query_row([vcs, name], from_row).optional()?)
}

/// Reads all organisations, by name.
pub fn organisations(view: &View) -> Result<Vec<Organisation>, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT id, vcs, name FROM organisations ORDER BY vcs, name")?;
    Ok(query.query_map([], from_row)?.collect::<Result<_, _>>()?)
}
