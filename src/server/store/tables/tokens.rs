//! Tokens of organisations for the forge that their projects are at, sealed.
//!
//! Only SQLite: nothing.

use crate::server::ids::{OrganisationId, ProjectId};
use crate::server::store::forge_states::Forge;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, Row, params};

/// A token of an organisation, sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedToken {
    /// Organisation whose projects go by it.
    pub organisation: OrganisationId,
    /// The forge that it is for.
    pub forge: Forge,
    /// Base of the API that it is shown to.
    pub api_url: String,
    /// The name that goes with it where git asks for one.
    pub username: String,
    /// Whether jobs get it for checkout.
    pub is_for_jobs: bool,
    /// The token, sealed.
    pub sealed: Vec<u8>,
    /// Time of its setting.
    pub updated_at: Millis,
}

const TOKEN: &str =
    "SELECT t.organisation_id, t.forge, t.api_url, t.username, t.is_for_jobs, t.sealed, t.updated_at_ms
    FROM forge_tokens t";

fn token_row(row: &Row<'_>) -> rusqlite::Result<SealedToken> {
    Ok(SealedToken {
        organisation: row.get(0)?,
        forge: row.get(1)?,
        api_url: row.get(2)?,
        username: row.get(3)?,
        is_for_jobs: row.get(4)?,
        sealed: row.get(5)?,
        updated_at: row.get(6)?,
    })
}

/// Keeps the token of an organisation, in place of what was there.
pub fn set(tx: &Tx<'_>, token: &SealedToken) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "INSERT INTO forge_tokens (organisation_id, forge, api_url, username, is_for_jobs, sealed, updated_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (organisation_id) DO UPDATE SET forge = ?2, api_url = ?3, username = ?4, is_for_jobs = ?5,
                sealed = ?6, updated_at_ms = ?7",
        )?
        .execute(params![
            token.organisation,
            token.forge,
            token.api_url,
            token.username,
            token.is_for_jobs,
            token.sealed,
            token.updated_at
        ])?;
    Ok(())
}

/// Finds the token of an organisation.
pub fn of_organisation(view: &View, organisation: &OrganisationId) -> Result<Option<SealedToken>, Error> {
    let mut query = view.sql().prepare_cached(&format!("{TOKEN} WHERE t.organisation_id = ?1"))?;
    Ok(query.query_row([organisation], token_row).optional()?)
}

/// Finds the token of a project's organisation, if it is for the forge that the project is connected to.
pub fn of_project(view: &View, project: &ProjectId) -> Result<Option<SealedToken>, Error> {
    let mut query = view.sql().prepare_cached(&format!(
        "{TOKEN} JOIN projects p ON p.organisation_id = t.organisation_id
         JOIN forge_connections c ON c.project_id = p.id AND c.forge = t.forge AND c.api_url = t.api_url WHERE p.id = ?1"
    ))?;
    Ok(query.query_row([project], token_row).optional()?)
}

/// Deletes the token of an organisation. False when there is none.
pub fn delete(tx: &Tx<'_>, organisation: &OrganisationId) -> Result<bool, Error> {
    let sql = "DELETE FROM forge_tokens WHERE organisation_id = ?1";
    Ok(tx.sql().prepare_cached(sql)?.execute([organisation])? > 0)
}

/// Reads every token that is kept, by organisation.
pub fn list_all(view: &View) -> Result<Vec<SealedToken>, Error> {
    let mut query = view.sql().prepare_cached(&format!("{TOKEN} ORDER BY t.organisation_id"))?;
    Ok(query.query_map([], token_row)?.collect::<Result<_, _>>()?)
}

/// Forgets for the projects of an organisation that have no token of their own why theirs was not used any more: theirs is
/// another one from now on.
pub fn forget_messages(tx: &Tx<'_>, organisation: &OrganisationId) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "UPDATE forge_connections SET token_message = NULL
             WHERE project_id IN (SELECT id FROM projects WHERE organisation_id = ?1)
                AND NOT EXISTS (SELECT 1 FROM forge_secrets s
                    WHERE s.project_id = forge_connections.project_id AND s.name = 'token')",
        )?
        .execute([organisation])?;
    Ok(())
}
