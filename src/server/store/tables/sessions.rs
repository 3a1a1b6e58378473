//! Logins of the web page. Of a cookie only its hash is stored.
//!
//! Only SQLite: nothing.

use crate::server::ids::PersonalTokenId;
use crate::server::store::tables::people::TokenOwner;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, params};

/// Logins that are older than this, or were used last before that, are over.
#[derive(Clone, Copy, Debug)]
pub struct Over {
    /// Latest time of the making of one that is over.
    pub created_before: Millis,
    /// Latest time of the last use of one that is over.
    pub used_before: Millis,
}

/// A login that is not over.
#[derive(Clone, Debug)]
pub struct Login {
    /// The person, and the token that they signed in with.
    pub owner: TokenOwner,
    /// Time of its last use, as far as it was written down.
    pub used_at: Millis,
}

/// Adds a login by the SHA-256 of its cookie's secret, and deletes those that are over.
pub fn add_login(
    tx: &Tx<'_>,
    hash: &[u8],
    token: &PersonalTokenId,
    now: Millis,
    over: Over,
) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("DELETE FROM web_sessions WHERE created_at_ms < ?1 OR used_at_ms < ?2")?
        .execute(params![over.created_before, over.used_before])?;
    tx.sql()
        .prepare_cached(
            "INSERT INTO web_sessions (hash, token_id, created_at_ms, used_at_ms) VALUES (?1, ?2, ?3, ?3)",
        )?
        .execute(params![hash, token, now])?;
    Ok(())
}

/// Finds a login by the SHA-256 of its cookie's secret.
pub fn find_login(view: &View, hash: &[u8], over: Over) -> Result<Option<Login>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT u.id, u.login, u.is_admin, t.id, s.used_at_ms FROM web_sessions s
         JOIN personal_tokens t ON t.id = s.token_id JOIN users u ON u.id = t.user_id
         WHERE s.hash = ?1 AND s.created_at_ms >= ?2 AND s.used_at_ms >= ?3",
    )?;
    let row = query.query_row(params![hash, over.created_before, over.used_before], |row| {
        let owner =
            TokenOwner { user: row.get(0)?, login: row.get(1)?, is_admin: row.get(2)?, token: row.get(3)? };
        Ok(Login { owner, used_at: row.get(4)? })
    });
    Ok(row.optional()?)
}

/// Writes down that a login was used.
pub fn use_login(tx: &Tx<'_>, hash: &[u8], now: Millis) -> Result<(), Error> {
    let sql = "UPDATE web_sessions SET used_at_ms = ?2 WHERE hash = ?1";
    tx.sql().prepare_cached(sql)?.execute(params![hash, now])?;
    Ok(())
}

/// Ends a login.
pub fn end_login(tx: &Tx<'_>, hash: &[u8]) -> Result<(), Error> {
    tx.sql().prepare_cached("DELETE FROM web_sessions WHERE hash = ?1")?.execute([hash])?;
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::server::ids::UserId;
    use crate::server::store::Store;
    use crate::server::store::tables::people::{self, PersonalTokenRow, User};

    #[test]
    fn a_login_ends_by_time_by_its_person_and_with_its_token() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), false, |_| ()).unwrap();
        let over = |created, used| Over { created_before: Millis(created), used_before: Millis(used) };
        let is_there = |hash: &[u8], over| {
            store.read_blocking(|view| Ok(find_login(view, hash, over)?.is_some())).unwrap()
        };
        let token = PersonalTokenId::fresh();
        let id = token.clone();
        store
            .write_blocking(move |tx| {
                let (user, at) = (UserId::fresh(), Millis(1));
                let login = "ada".to_owned();
                let person =
                    User { id: user.clone(), login, name: String::new(), is_admin: false, created_at: at };
                people::add_user(tx, &person)?;
                let token = PersonalTokenRow { id: id.clone(), label: String::new(), created_at: at };
                people::add_token(tx, &user, &token, b"token")?;
                add_login(tx, b"old", &id, Millis(5), over(0, 0))?;
                add_login(tx, b"one", &id, Millis(10), over(6, 0))?;
                add_login(tx, b"two", &id, Millis(10), over(6, 0))?;
                use_login(tx, b"one", Millis(20))
            })
            .unwrap();
        assert!(!is_there(b"old", over(0, 0)), "those that are over go with the next login");
        assert!(is_there(b"one", over(10, 20)) && !is_there(b"two", over(10, 20)));
        assert!(!is_there(b"one", over(11, 0)));
        store.write_blocking(|tx| end_login(tx, b"one")).unwrap();
        assert!(!is_there(b"one", over(0, 0)) && is_there(b"two", over(0, 0)));
        store.write_blocking(move |tx| people::delete_token(tx, &token)).unwrap();
        assert!(!is_there(b"two", over(0, 0)));
    }
}
