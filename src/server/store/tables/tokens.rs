//! Tokens, by the SHA-256 of their text.
//!
//! SQLite only: nothing.

use crate::server::ids::{ClassTokenId, PersonalTokenId, ResourceClassId, UserId};
use crate::server::store::{Error, View};
use rusqlite::OptionalExtension;

/// A personal token and its person.
#[derive(Clone, Debug)]
pub struct PersonRow {
    /// The person.
    pub user: UserId,
    /// Login.
    pub login: String,
    /// May change what is set up.
    pub is_admin: bool,
    /// The token.
    pub token: PersonalTokenId,
}

/// The person of a personal token.
pub fn person(view: &View, hash: &[u8]) -> Result<Option<PersonRow>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT u.id, u.login, u.is_admin, t.id FROM personal_tokens t JOIN users u ON u.id = t.user_id WHERE t.hash = ?1",
    )?;
    let person = query.query_row([hash], |row| {
        Ok(PersonRow { user: row.get(0)?, login: row.get(1)?, is_admin: row.get(2)?, token: row.get(3)? })
    });
    Ok(person.optional()?)
}

/// A resource class token and its class.
#[derive(Clone, Debug)]
pub struct ClassRow {
    /// The token.
    pub token: ClassTokenId,
    /// The class.
    pub class: ResourceClassId,
    /// `namespace/name`.
    pub name: String,
}

/// The class of a resource class token.
pub fn class(view: &View, hash: &[u8]) -> Result<Option<ClassRow>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT t.id, r.id, r.name FROM resource_class_tokens t JOIN resource_classes r ON r.id = t.resource_class_id
         WHERE t.hash = ?1",
    )?;
    let token = query
        .query_row([hash], |row| Ok(ClassRow { token: row.get(0)?, class: row.get(1)?, name: row.get(2)? }));
    Ok(token.optional()?)
}

/// Whether a resource class token is there.
pub fn is_class_token(view: &View, token: &ClassTokenId) -> Result<bool, Error> {
    Ok(view.sql().prepare_cached("SELECT 1 FROM resource_class_tokens WHERE id = ?1")?.exists([token])?)
}
