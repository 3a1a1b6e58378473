//! People, as others see them.
//!
//! Only SQLite: nothing.

use crate::server::ids::UserId;
use crate::server::store::{Error, View};
use rusqlite::OptionalExtension;

/// Person, without their tokens.
#[derive(Clone, Debug)]
pub struct PersonRow {
    /// Identifies them in URLs.
    pub id: UserId,
    /// Name that others call them by; unique.
    pub login: String,
    /// Their name in full, for people to read.
    pub name: String,
}

/// Finds a person by their id.
pub fn person(view: &View, id: &UserId) -> Result<Option<PersonRow>, Error> {
    let mut query = view.sql().prepare_cached("SELECT id, login, name FROM users WHERE id = ?1")?;
    let row =
        query.query_row([id], |row| Ok(PersonRow { id: row.get(0)?, login: row.get(1)?, name: row.get(2)? }));
    Ok(row.optional()?)
}
