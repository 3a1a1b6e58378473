//! People and their personal tokens: who may call the API, and who may change what it serves.
//!
//! One administrator with a token always stays: without one nobody could let anybody in again.

use crate::protocol::Secret;
use crate::server::state::{new_token, token_hash};
use crate::server::store::View;
use crate::server::store::{Effect, Error, Tx, new_id};
use rusqlite::{OptionalExtension, Row, params};

/// Begins every personal token.
const PREFIX: &str = "rlp_";
/// Longest login, and longest name and label.
const MOST_LOGIN: usize = 100;
const MOST_TEXT: usize = 200;

/// Somebody.
#[derive(Clone, Debug)]
pub struct User {
    /// UUID.
    pub id: String,
    /// What others call them; unique.
    pub login: String,
    /// For people.
    pub name: String,
    /// May change what is set up.
    pub is_admin: bool,
    /// When they were made.
    pub created_at_ms: i64,
}

/// A personal token, without the secret: only its hash is stored.
#[derive(Clone, Debug)]
pub struct Token {
    /// UUID.
    pub id: String,
    /// What it is for.
    pub label: String,
    /// When it was made.
    pub created_at_ms: i64,
}

/// Why somebody or something was not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// There is no such thing.
    Unknown,
    /// No administrator with a token would be left.
    LastAdministrator,
}

/// A login becomes a variable of jobs and a part of command lines.
pub fn check_login(login: &str) -> Result<(), String> {
    let is_good = (1..=MOST_LOGIN).contains(&login.len())
        && login.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@+-".contains(&b))
        && !login.starts_with('-')
        && login != "me";
    if is_good {
        return Ok(());
    }
    let shown: String = login.chars().filter(|c| !c.is_control()).take(60).collect();
    Err(format!(
        "`{shown}` cannot be a login: it has 1 to {MOST_LOGIN} letters, digits, `.`, `_`, `@`, `+` and `-`, and is not `me`"
    ))
}

/// A name or a label.
pub fn check_text(what: &str, text: &str) -> Result<(), String> {
    if text.chars().count() <= MOST_TEXT && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(format!("`{what}` has at most {MOST_TEXT} characters, and no control characters"))
}

/// The first start makes the first administrator, whose token is returned; later ones change nothing.
pub fn first(tx: &Tx<'_>, now: u64) -> Result<Option<Secret>, Error> {
    if tx.prepare_cached("SELECT 1 FROM users LIMIT 1")?.exists([])? {
        return Ok(None);
    }
    let admin = create(tx, "admin", "Administrator", true, now)?;
    let Some(admin) = admin else { return Ok(None) };
    add_token(tx, &admin.id, "first start", now).map(|(_, secret)| Some(secret))
}

/// Makes somebody; `None` when the login is taken.
pub fn create(tx: &Tx<'_>, login: &str, name: &str, is_admin: bool, now: u64) -> Result<Option<User>, Error> {
    let (login, name) = (login.to_owned(), name.to_owned());
    let user = User { id: new_id(), login, name, is_admin, created_at_ms: now as i64 };
    let made = tx
        .prepare_cached("INSERT OR IGNORE INTO users VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![user.id, user.login, user.name, user.is_admin, user.created_at_ms])?;
    Ok((made > 0).then_some(user))
}

const USER: &str = "SELECT id, login, name, is_admin, created_at_ms FROM users";

fn user_row(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: row.get(0)?,
        login: row.get(1)?,
        name: row.get(2)?,
        is_admin: row.get(3)?,
        created_at_ms: row.get(4)?,
    })
}

/// Everybody, by login.
pub fn list(c: &View) -> Result<Vec<User>, Error> {
    let mut query = c.prepare_cached(&format!("{USER} ORDER BY login"))?;
    Ok(query.query_map([], user_row)?.collect::<Result<_, _>>()?)
}

/// Somebody by id or login.
pub fn find(c: &View, named: &str) -> Result<Option<User>, Error> {
    let mut query = c.prepare_cached(&format!("{USER} WHERE id = ?1 OR login = ?1 ORDER BY id <> ?1"))?;
    Ok(query.query_row([named], user_row).optional()?)
}

/// Removes somebody and their tokens. What they triggered keeps their login.
pub fn delete(tx: &Tx<'_>, named: &str) -> Result<Result<(), Kept>, Error> {
    let Some(user) = find(tx, named)? else { return Ok(Err(Kept::Unknown)) };
    let others =
        "SELECT 1 FROM personal_tokens JOIN users ON users.id = user_id WHERE is_admin AND users.id <> ?1";
    if user.is_admin && !tx.prepare_cached(others)?.exists([&user.id])? {
        return Ok(Err(Kept::LastAdministrator));
    }
    tx.prepare_cached("DELETE FROM users WHERE id = ?1")?.execute([&user.id])?;
    tx.effect(Effect::Revoked);
    Ok(Ok(()))
}

/// Makes a token of a user by id. The secret is nowhere else.
pub fn add_token(tx: &Tx<'_>, user: &str, label: &str, now: u64) -> Result<(Token, Secret), Error> {
    let secret = new_token(PREFIX)?;
    let token = Token { id: new_id(), label: label.to_owned(), created_at_ms: now as i64 };
    tx.prepare_cached("INSERT INTO personal_tokens VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        token.id,
        user,
        token_hash(&secret),
        token.label,
        token.created_at_ms
    ])?;
    Ok((token, Secret::new(secret)))
}

/// The tokens of a user by id, oldest first.
pub fn tokens(c: &View, user: &str) -> Result<Vec<Token>, Error> {
    let mut query = c.prepare_cached(
        "SELECT id, label, created_at_ms FROM personal_tokens WHERE user_id = ?1 ORDER BY created_at_ms, id",
    )?;
    let row = |row: &Row<'_>| Ok(Token { id: row.get(0)?, label: row.get(1)?, created_at_ms: row.get(2)? });
    Ok(query.query_map([user], row)?.collect::<Result<_, _>>()?)
}

/// Ends a token; one of `only`, if that is given.
pub fn delete_token(tx: &Tx<'_>, id: &str, only: Option<&str>) -> Result<Result<(), Kept>, Error> {
    let is_admin: Option<bool> = tx
        .prepare_cached(
            "SELECT is_admin FROM personal_tokens t JOIN users ON users.id = user_id
             WHERE t.id = ?1 AND (?2 IS NULL OR user_id = ?2)",
        )?
        .query_row(params![id, only], |row| row.get(0))
        .optional()?;
    let others =
        "SELECT 1 FROM personal_tokens t JOIN users ON users.id = user_id WHERE is_admin AND t.id <> ?1";
    match is_admin {
        None => return Ok(Err(Kept::Unknown)),
        Some(true) if !tx.prepare_cached(others)?.exists([id])? => return Ok(Err(Kept::LastAdministrator)),
        Some(_) => {}
    }
    tx.prepare_cached("DELETE FROM personal_tokens WHERE id = ?1")?.execute([id])?;
    tx.effect(Effect::Revoked);
    Ok(Ok(()))
}

/// Whether a token is still one.
pub fn is_token(c: &View, id: &str) -> Result<bool, Error> {
    Ok(c.prepare_cached("SELECT 1 FROM personal_tokens WHERE id = ?1")?.exists([id])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_words() {
        for login in ["ada", "ada@example.com", "A.b_c-d+e", &"x".repeat(100)] {
            assert_eq!(check_login(login), Ok(()), "{login}");
        }
        for login in ["", "me", "-x", "a b", "a/b", "größe", "a\n", &"x".repeat(101)] {
            assert!(check_login(login).is_err(), "{login}");
        }
        assert!(check_text("name", "Ada Lovelace").is_ok() && check_text("name", "a\u{1b}[2J").is_err());
    }
}
