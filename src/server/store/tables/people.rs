//! People and their personal tokens. Of a token only its hash is stored.
//!
//! Only SQLite: nothing. `is_admin` is an integer there and a boolean here.

use crate::server::ids::{PersonalTokenId, UserId};
use crate::server::store::{Effect, Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, Row, params};

/// Person or program that has tokens of its own.
#[derive(Clone, Debug)]
pub struct User {
    /// Identifies them in URLs.
    pub id: UserId,
    /// The name that others call them by; unique.
    pub login: String,
    /// Their name in full, for people to read.
    pub name: String,
    /// Whether they may change what is set up.
    pub is_admin: bool,
    /// Time of their making.
    pub created_at: Millis,
}

/// A personal token, without its secret.
#[derive(Clone, Debug)]
pub struct PersonalTokenRow {
    /// Identifies it in URLs.
    pub id: PersonalTokenId,
    /// A note of its owner about its use.
    pub label: String,
    /// Time of its making.
    pub created_at: Millis,
}

/// The owner of a personal token.
#[derive(Clone, Debug)]
pub struct TokenOwner {
    /// Id of the person.
    pub user: UserId,
    /// Name that they are mentioned by.
    pub login: String,
    /// Whether they may change what is set up.
    pub is_admin: bool,
    /// Id of the token, which is never shown again itself.
    pub token: PersonalTokenId,
}

/// Whether there is any person at all.
pub fn is_anybody_there(view: &View) -> Result<bool, Error> {
    Ok(view.sql().prepare_cached("SELECT 1 FROM users LIMIT 1")?.exists([])?)
}

/// Adds a person. False when the login is taken.
pub fn add_user(tx: &Tx<'_>, user: &User) -> Result<bool, Error> {
    let added = tx
        .sql()
        .prepare_cached(
            "INSERT INTO users (id, login, name, is_admin, created_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (login) DO NOTHING",
        )?
        .execute(params![user.id, user.login, user.name, user.is_admin, user.created_at])?;
    Ok(added > 0)
}

const USER: &str = "SELECT id, login, name, is_admin, created_at_ms FROM users";

fn user_row(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: row.get(0)?,
        login: row.get(1)?,
        name: row.get(2)?,
        is_admin: row.get(3)?,
        created_at: row.get(4)?,
    })
}

/// Reads all people, by login.
pub fn list_users(view: &View) -> Result<Vec<User>, Error> {
    let mut query = view.sql().prepare_cached(&format!("{USER} ORDER BY login"))?;
    Ok(query.query_map([], user_row)?.collect::<Result<_, _>>()?)
}

/// Finds a person by id or login; of two that fit the one with the id.
pub fn find_user(view: &View, named: &str) -> Result<Option<User>, Error> {
    let mut query =
        view.sql().prepare_cached(&format!("{USER} WHERE id = ?1 OR login = ?1 ORDER BY id <> ?1"))?;
    Ok(query.query_row([named], user_row).optional()?)
}

/// Deletes a person and their tokens. Their login stays in what they triggered.
pub fn delete_user(tx: &Tx<'_>, user: &UserId) -> Result<(), Error> {
    tx.sql().prepare_cached("DELETE FROM users WHERE id = ?1")?.execute([user])?;
    tx.effect(Effect::Revoked);
    Ok(())
}

/// Whether an administrator other than this person has a token.
pub fn is_other_administrator(view: &View, user: &UserId) -> Result<bool, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT 1 FROM personal_tokens t JOIN users u ON u.id = t.user_id WHERE u.is_admin = ?2 AND u.id <> ?1",
    )?;
    Ok(query.exists(params![user, true])?)
}

/// Adds a token of a person by the SHA-256 of its secret.
pub fn add_token(tx: &Tx<'_>, user: &UserId, token: &PersonalTokenRow, hash: &[u8]) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "INSERT INTO personal_tokens (id, user_id, hash, label, created_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![token.id, user, hash, token.label, token.created_at])?;
    Ok(())
}

/// Reads the tokens of a person, oldest first.
pub fn list_tokens(view: &View, user: &UserId) -> Result<Vec<PersonalTokenRow>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT id, label, created_at_ms FROM personal_tokens WHERE user_id = ?1 ORDER BY created_at_ms, id",
    )?;
    let row =
        |row: &Row<'_>| Ok(PersonalTokenRow { id: row.get(0)?, label: row.get(1)?, created_at: row.get(2)? });
    Ok(query.query_map([user], row)?.collect::<Result<_, _>>()?)
}

const OWNER: &str =
    "SELECT u.id, u.login, u.is_admin, t.id FROM personal_tokens t JOIN users u ON u.id = t.user_id";

fn owner_row(row: &Row<'_>) -> rusqlite::Result<TokenOwner> {
    Ok(TokenOwner { user: row.get(0)?, login: row.get(1)?, is_admin: row.get(2)?, token: row.get(3)? })
}

/// Finds the owner of the token whose secret has this SHA-256.
pub fn person_of_token(view: &View, hash: &[u8]) -> Result<Option<TokenOwner>, Error> {
    let mut query = view.sql().prepare_cached(&format!("{OWNER} WHERE t.hash = ?1"))?;
    Ok(query.query_row([hash], owner_row).optional()?)
}

/// Finds the owner of a token by its id.
pub fn owner_of_token(view: &View, token: &PersonalTokenId) -> Result<Option<TokenOwner>, Error> {
    let mut query = view.sql().prepare_cached(&format!("{OWNER} WHERE t.id = ?1"))?;
    Ok(query.query_row([token], owner_row).optional()?)
}

/// Whether an administrator has a token other than this one.
pub fn is_other_administrator_token(view: &View, token: &PersonalTokenId) -> Result<bool, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT 1 FROM personal_tokens t JOIN users u ON u.id = t.user_id WHERE u.is_admin = ?2 AND t.id <> ?1",
    )?;
    Ok(query.exists(params![token, true])?)
}

/// Deletes a token.
pub fn delete_token(tx: &Tx<'_>, token: &PersonalTokenId) -> Result<(), Error> {
    tx.sql().prepare_cached("DELETE FROM personal_tokens WHERE id = ?1")?.execute([token])?;
    tx.effect(Effect::Revoked);
    Ok(())
}

/// Whether a token has not been deleted.
pub fn is_token(view: &View, token: &PersonalTokenId) -> Result<bool, Error> {
    Ok(view.sql().prepare_cached("SELECT 1 FROM personal_tokens WHERE id = ?1")?.exists([token])?)
}
