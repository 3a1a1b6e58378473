//! Resource classes, the tokens of their runners, the runners that were seen, and the length of their queues.
//!
//! Only SQLite: flags are integers. The counts of tasks are served by an index (`tasks_by_status`).

use crate::server::ids::{ClassTokenId, ResourceClassId};
use crate::server::store::status::TaskState;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, params};

/// A resource class.
#[derive(Clone, Debug)]
pub struct Class {
    /// Identifies it in URLs.
    pub id: ResourceClassId,
    /// Full name, `namespace/name`; unique.
    pub name: String,
    /// A note for people.
    pub description: String,
    /// How long a task that has begun may be silent, where it is not as usual, in milliseconds.
    pub budget_ms: Option<u64>,
    /// Tasks that the infrastructure ended after their begin run again.
    pub unsafe_retries: bool,
}

/// Terms on which a class gives its tasks to runners, copied into each task when it is claimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// How long a task that has begun may be silent, where it is not as usual, in milliseconds.
    pub budget_ms: Option<u64>,
    /// Tasks that the infrastructure ended after their begin run again.
    pub unsafe_retries: bool,
    /// How long a task may take from its claim to its begin, where it is not as usual, in milliseconds.
    pub begin_ms: Option<u64>,
}

/// A token of a resource class, without its secret.
#[derive(Clone, Debug)]
pub struct ClassTokenRow {
    /// Identifies it in URLs.
    pub id: ClassTokenId,
    /// A note for people about its use.
    pub nickname: String,
    /// Time of its making.
    pub created_at: Millis,
}

/// The class that a token opens.
#[derive(Clone, Debug)]
pub struct ClassOfToken {
    /// Id of the token.
    pub token: ClassTokenId,
    /// Class whose queue the token opens.
    pub class: ResourceClassId,
    /// Full name, `namespace/name`.
    pub name: String,
}

/// A runner as it was last seen.
#[derive(Clone, Debug)]
pub struct Instance {
    /// `namespace/name` of its class.
    pub class: String,
    /// Name of its host.
    pub hostname: String,
    /// Name of the runner; unique in the class.
    pub name: String,
    /// Time of its first call.
    pub first_connected: Millis,
    /// Time of its last call.
    pub last_connected: Millis,
    /// Time when it was last given a task.
    pub last_used: Option<Millis>,
    /// Address that it called from.
    pub ip: String,
    /// Version of `runlet` that the runner says it has.
    pub version: String,
}

/// The number of tasks of a class in one state.
#[derive(Clone, Debug)]
pub struct QueueLength {
    /// Full name of the class, `namespace/name`.
    pub class: String,
    /// State of the tasks that are counted.
    pub state: TaskState,
    /// Number of tasks in that state.
    pub count: u64,
}

/// Adds a class. False when there is one of this name.
pub fn add_class(tx: &Tx<'_>, class: &Class, now: Millis) -> Result<bool, Error> {
    let added = tx
        .sql()
        .prepare_cached(
            "INSERT INTO resource_classes (id, name, description, created_at_ms, budget_ms, unsafe_retries)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (name) DO NOTHING",
        )?
        .execute(params![
            class.id,
            class.name,
            class.description,
            now,
            class.budget_ms,
            class.unsafe_retries
        ])?;
    Ok(added > 0)
}

/// Reads all classes, by name.
pub fn list_classes(view: &View) -> Result<Vec<Class>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT id, name, description, budget_ms, unsafe_retries FROM resource_classes ORDER BY name",
    )?;
    let rows = query.query_map([], |row| {
        Ok(Class {
            id: row.get(0)?,
            name: row.get(1)?,
            description: row.get(2)?,
            budget_ms: row.get(3)?,
            unsafe_retries: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Deletes a class, which must have no tokens. Returns its name; nothing when there is none.
pub fn delete_class(tx: &Tx<'_>, class: &ResourceClassId) -> Result<Option<String>, Error> {
    let mut delete = tx.sql().prepare_cached("DELETE FROM resource_classes WHERE id = ?1 RETURNING name")?;
    Ok(delete.query_row([class], |row| row.get(0)).optional()?)
}

/// The terms of a class; `None` when there is no such class.
pub fn terms(view: &View, class: &ResourceClassId) -> Result<Option<Terms>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT budget_ms, unsafe_retries, begin_limit_ms FROM resource_classes WHERE id = ?1",
    )?;
    let found = query.query_row([class], |row| {
        Ok(Terms { budget_ms: row.get(0)?, unsafe_retries: row.get(1)?, begin_ms: row.get(2)? })
    });
    Ok(found.optional()?)
}

/// Sets the terms of later claims of a class.
pub fn set_terms(tx: &Tx<'_>, class: &ResourceClassId, terms: Terms) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "UPDATE resource_classes SET budget_ms = ?2, unsafe_retries = ?3, begin_limit_ms = ?4 WHERE id = ?1",
        )?
        .execute(params![class, terms.budget_ms, terms.unsafe_retries, terms.begin_ms])?;
    Ok(())
}

/// Marks a class as fit for what strangers wrote, or no longer. False when there is none.
pub fn set_takes_untrusted(tx: &Tx<'_>, class: &ResourceClassId, takes: bool) -> Result<bool, Error> {
    let sql = "UPDATE resource_classes SET takes_untrusted = ?2 WHERE id = ?1";
    Ok(tx.sql().prepare_cached(sql)?.execute(params![class, takes])? > 0)
}

/// The classes that are fit for what strangers wrote.
pub fn list_untrusted(view: &View) -> Result<Vec<ResourceClassId>, Error> {
    let sql = "SELECT id FROM resource_classes WHERE takes_untrusted = 1";
    Ok(view.sql().prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// The name of a class.
pub fn name(view: &View, class: &ResourceClassId) -> Result<Option<String>, Error> {
    let mut query = view.sql().prepare_cached("SELECT name FROM resource_classes WHERE id = ?1")?;
    Ok(query.query_row([class], |row| row.get(0)).optional()?)
}

/// Whether a class has tokens.
pub fn has_tokens(view: &View, class: &ResourceClassId) -> Result<bool, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT 1 FROM resource_class_tokens WHERE resource_class_id = ?1")?;
    Ok(query.exists([class])?)
}

/// Deletes all tokens of a class.
pub fn delete_tokens_of(tx: &Tx<'_>, class: &ResourceClassId) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("DELETE FROM resource_class_tokens WHERE resource_class_id = ?1")?
        .execute([class])?;
    Ok(())
}

/// Adds a token of the class with this name by the SHA-256 of its secret. False when there is no such class.
pub fn add_token(tx: &Tx<'_>, class: &str, token: &ClassTokenRow, hash: &[u8]) -> Result<bool, Error> {
    let added = tx
        .sql()
        .prepare_cached(
            "INSERT INTO resource_class_tokens (id, resource_class_id, nickname, hash, created_at_ms)
             SELECT ?1, id, ?3, ?4, ?5 FROM resource_classes WHERE name = ?2",
        )?
        .execute(params![token.id, class, token.nickname, hash, token.created_at])?;
    Ok(added > 0)
}

/// Reads the tokens of the class with this name, oldest first.
pub fn list_tokens(view: &View, class: &str) -> Result<Vec<ClassTokenRow>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT t.id, t.nickname, t.created_at_ms FROM resource_class_tokens t
         JOIN resource_classes r ON r.id = t.resource_class_id WHERE r.name = ?1 ORDER BY t.created_at_ms",
    )?;
    let rows = query.query_map([class], |row| {
        Ok(ClassTokenRow { id: row.get(0)?, nickname: row.get(1)?, created_at: row.get(2)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Deletes a token. False when there is none.
pub fn delete_token(tx: &Tx<'_>, token: &ClassTokenId) -> Result<bool, Error> {
    Ok(tx.sql().prepare_cached("DELETE FROM resource_class_tokens WHERE id = ?1")?.execute([token])? > 0)
}

/// Finds the class of the token whose secret has this SHA-256.
pub fn class_of_token(view: &View, hash: &[u8]) -> Result<Option<ClassOfToken>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT t.id, r.id, r.name FROM resource_class_tokens t
         JOIN resource_classes r ON r.id = t.resource_class_id WHERE t.hash = ?1",
    )?;
    let row = query.query_row([hash], |row| {
        Ok(ClassOfToken { token: row.get(0)?, class: row.get(1)?, name: row.get(2)? })
    });
    Ok(row.optional()?)
}

/// The name that people gave a token.
pub fn nickname(view: &View, token: &ClassTokenId) -> Result<Option<String>, Error> {
    let mut query = view.sql().prepare_cached("SELECT nickname FROM resource_class_tokens WHERE id = ?1")?;
    Ok(query.query_row([token], |row| row.get(0)).optional()?)
}

/// Whether a token has not been deleted.
pub fn is_token(view: &View, token: &ClassTokenId) -> Result<bool, Error> {
    Ok(view.sql().prepare_cached("SELECT 1 FROM resource_class_tokens WHERE id = ?1")?.exists([token])?)
}

/// Reads the runners that called after `since`, of one class or of one namespace where they are given.
pub fn list_instances(
    view: &View,
    class: Option<&str>,
    namespace: Option<&str>,
    since: Millis,
) -> Result<Vec<Instance>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT r.name, i.hostname, i.name, i.first_connected_ms, i.last_connected_ms, i.last_used_ms, i.ip, i.version
         FROM runner_instances i JOIN resource_classes r ON r.id = i.resource_class_id
         WHERE (?1 IS NULL OR r.name = ?1) AND (?2 IS NULL OR substr(r.name, 1, length(?2) + 1) = ?2 || '/')
            AND i.last_connected_ms > ?3
         ORDER BY r.name, i.name",
    )?;
    let rows = query.query_map(params![class, namespace, since], |row| {
        Ok(Instance {
            class: row.get(0)?,
            hostname: row.get(1)?,
            name: row.get(2)?,
            first_connected: row.get(3)?,
            last_connected: row.get(4)?,
            last_used: row.get(5)?,
            ip: row.get(6)?,
            version: row.get(7)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Counts the tasks of a class that are in one state.
pub fn count_tasks(view: &View, class: &str, state: TaskState) -> Result<u64, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT count(*) FROM tasks WHERE resource_class = ?1 AND status = ?2")?;
    Ok(query.query_row(params![class, state], |row| row.get(0))?)
}

/// Counts the tasks that wait and that run, by class.
pub fn list_queue_lengths(view: &View) -> Result<Vec<QueueLength>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT resource_class, status, count(*) FROM tasks WHERE status IN (?1, ?2, ?3, ?4) GROUP BY 1, 2",
    )?;
    let [claimed, running, unreachable] = TaskState::HELD_BY_A_RUNNER;
    let rows = query.query_map([TaskState::Queued, claimed, running, unreachable], |row| {
        Ok(QueueLength { class: row.get(0)?, state: row.get(1)?, count: row.get(2)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::server::store::Store;

    #[test]
    fn classes_are_unique_and_their_runners_are_found_by_the_whole_namespace() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), false, |_| ()).unwrap();
        store
            .write_blocking(|tx| {
                for name in ["a_b/linux", "axb/linux", "a_b2/linux"] {
                    let class =
                        Class { id: ResourceClassId::fresh(), name: name.to_owned(), description: String::new(), budget_ms: None, unsafe_retries: false };
                    assert!(add_class(tx, &class, Millis(0))?);
                    let again = Class { id: ResourceClassId::fresh(), ..class.clone() };
                    assert!(!add_class(tx, &again, Millis(0))?);
                    tx.sql().execute(
                        "INSERT INTO runner_instances (resource_class_id, name, hostname, ip, version, os, arch,
                            first_connected_ms, last_connected_ms) VALUES (?1, ?2, '', '', '', '', '', 1, 5)",
                        params![class.id, name],
                    )?;
                }
                let names = |class: Option<&str>, namespace: Option<&str>, since| {
                    let found = list_instances(tx, class, namespace, Millis(since)).unwrap();
                    found.into_iter().map(|instance| instance.name).collect::<Vec<_>>()
                };
                assert_eq!(names(None, Some("a_b"), 4), ["a_b/linux"]);
                assert_eq!(names(Some("axb/linux"), None, 4), ["axb/linux"]);
                assert_eq!(names(None, None, 5), [""; 0]);
                Ok(())
            })
            .unwrap();
    }
}
