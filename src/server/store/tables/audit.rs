//! The audit log: acts of people that change what is set up. People and tokens in it may be gone.
//!
//! Only SQLite: `last_insert_rowid` for the number of an act (elsewhere RETURNING).

use crate::server::ids::{PersonalTokenId, UserId};
use crate::server::store::json::Json;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{Row, params};
use serde_json::{Map, Value};
use std::time::Duration;

/// Acts are kept this long.
const KEPT: Duration = Duration::from_secs(400 * 24 * 60 * 60);
/// Most acts that are kept.
pub const MOST: i64 = 100_000;

/// Act of a person, as the audit log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Time at which it was done.
    pub at: Millis,
    /// Person whose token was used, by id: they may be gone.
    pub user: UserId,
    /// Their login at that time.
    pub login: String,
    /// The token that they showed.
    pub token: PersonalTokenId,
    /// The address that the call came from, without port.
    pub address: String,
    /// HTTP method of the call, in capitals.
    pub method: String,
    /// Path, without a query.
    pub path: String,
    /// Wish of the caller; never a secret.
    pub detail: Map<String, Value>,
    /// HTTP status of the answer, once there is one.
    pub status: Option<u16>,
}

/// Adds an act, forgets those that are too old or too many, and returns its number.
pub fn add(tx: &Tx<'_>, act: &AuditEntry) -> Result<i64, Error> {
    tx.sql()
        .prepare_cached(
            "INSERT INTO audit_events (at_ms, user_id, login, token_id, address, method, path, detail, status)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            act.at, act.user, act.login, act.token, act.address, act.method, act.path,
            serde_json::to_string(&act.detail)?, act.status
        ])?;
    let seq = tx.sql().last_insert_rowid();
    tx.sql()
        .prepare_cached("DELETE FROM audit_events WHERE at_ms < ?1 OR seq <= ?2")?
        .execute(params![act.at.minus(KEPT), seq - MOST])?;
    Ok(seq)
}

/// Says how an act was answered, and what was made by it.
pub fn answered(tx: &Tx<'_>, seq: i64, status: u16, detail: &Map<String, Value>) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("UPDATE audit_events SET status = ?2, detail = ?3 WHERE seq = ?1")?
        .execute(params![seq, status, serde_json::to_string(detail)?])?;
    Ok(())
}

fn row(row: &Row<'_>) -> rusqlite::Result<(i64, AuditEntry)> {
    let act = AuditEntry {
        at: row.get(1)?,
        user: row.get(2)?,
        login: row.get(3)?,
        token: row.get(4)?,
        address: row.get(5)?,
        method: row.get(6)?,
        path: row.get(7)?,
        detail: row.get::<_, Json<_>>(8)?.0,
        status: row.get(9)?,
    };
    Ok((row.get(0)?, act))
}

/// Reads acts before the one of this number, of one login if that is given, newest first.
pub fn list(
    view: &View,
    before: i64,
    login: Option<&str>,
    most: u32,
) -> Result<Vec<(i64, AuditEntry)>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT seq, at_ms, user_id, login, token_id, address, method, path, detail, status FROM audit_events
         WHERE seq < ?1 AND (?2 IS NULL OR login = ?2) ORDER BY seq DESC LIMIT ?3",
    )?;
    Ok(query.query_map(params![before, login, most], row)?.collect::<Result<_, _>>()?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::server::store::Store;

    #[test]
    fn acts_are_kept_for_their_time_and_not_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), false, |_| ()).unwrap();
        let act = |day: u64, login: &str| AuditEntry {
            at: Millis(day * 24 * 60 * 60 * 1000),
            user: "u".into(),
            login: login.to_owned(),
            token: "t".into(),
            address: "::1".to_owned(),
            method: "POST".to_owned(),
            path: "/x".to_owned(),
            detail: Map::new(),
            status: None,
        };
        let check = move |tx: &Tx<'_>| {
            let all = |tx: &Tx<'_>, login| -> Vec<i64> {
                list(tx, i64::MAX, login, 10).unwrap().into_iter().map(|(seq, _)| seq).collect()
            };
            let first = add(tx, &act(0, "ada"))?;
            let second = add(tx, &act(400, "bob"))?;
            assert_eq!(all(tx, None), [second, first]);
            assert_eq!(all(tx, Some("ada")), [first]);
            let third = add(tx, &act(401, "ada"))?;
            assert_eq!(all(tx, None), [third, second]);
            assert_eq!(list(tx, third, None, 10)?.len(), 1);
            let detail = Map::from_iter([("a".to_owned(), Value::from(1))]);
            answered(tx, third, 403, &detail)?;
            let (_, stored) = &list(tx, i64::MAX, None, 1)?[0];
            assert_eq!((stored.status, &stored.detail), (Some(403), &detail));
            tx.sql()
                .execute("UPDATE audit_events SET seq = seq + ?1 WHERE seq = ?2", params![MOST, third])?;
            let last = add(tx, &act(402, "ada"))?;
            assert_eq!(all(tx, None), [last, third + MOST]);
            Ok(())
        };
        store.write_blocking(check).unwrap();
    }
}
