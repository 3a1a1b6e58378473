//! Runners that were seen.
//!
//! Only SQLite: lists that are kept as JSON (`json_each`); flags are integers, of which the largest is taken; truth values are integers, with 0 where there is none.

use crate::protocol::{ClaimRequest, TaskKind};
use crate::server::ids::ResourceClassId;
use crate::server::store::status::Kind;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, params};
use std::time::Duration;

/// A runner asks again at least this often while it wants work.
pub const ONLINE: Duration = Duration::from_secs(90);

/// A runner asks for work, from this address. Other runners that were seen on its machine were started with it.
pub fn seen(
    tx: &Tx<'_>,
    class: &ResourceClassId,
    request: &ClaimRequest,
    ip: &str,
    now: Millis,
) -> Result<(), Error> {
    let takes = serde_json::to_string(&request.takes)?;
    tx.sql()
        .prepare_cached(
            "INSERT INTO runner_instances (resource_class_id, name, hostname, ip, version, os, arch, takes,
                first_connected_ms, last_connected_ms, machine_id, boot_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?10, ?11)
             ON CONFLICT (resource_class_id, name) DO UPDATE SET hostname = ?3, ip = ?4, version = ?5, os = ?6, arch = ?7,
                takes = ?8, last_connected_ms = ?9, machine_id = ?10, boot_id = ?11",
        )?
        .execute(params![
            class,
            request.name,
            request.hostname,
            ip,
            request.version,
            request.os,
            request.arch,
            takes,
            now,
            request.machine_id,
            request.boot_id
        ])?;
    tx.sql()
        .prepare_cached(
            "UPDATE runner_instances SET boot_id = ?3 WHERE resource_class_id = ?1 AND machine_id = ?2 AND boot_id <> ?3",
        )?
        .execute(params![class, request.machine_id, request.boot_id])?;
    Ok(())
}

/// Whether a runner of the class was seen on the machine last in another start of it than this one.
pub fn is_restarted(
    view: &View,
    class: &ResourceClassId,
    machine_id: &str,
    boot_id: &str,
) -> Result<bool, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT 1 FROM runner_instances WHERE resource_class_id = ?1 AND machine_id = ?2 AND boot_id <> ?3",
    )?;
    Ok(query.exists(params![class, machine_id, boot_id])?)
}

/// A runner got a task.
pub fn used(tx: &Tx<'_>, class: &ResourceClassId, name: &str, now: Millis) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "UPDATE runner_instances SET last_used_ms = ?3 WHERE resource_class_id = ?1 AND name = ?2",
        )?
        .execute(params![class, name, now])?;
    Ok(())
}

/// The host of a runner, and when it asked for work last.
pub fn find(view: &View, class: &ResourceClassId, name: &str) -> Result<Option<(String, Millis)>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT hostname, last_connected_ms FROM runner_instances WHERE resource_class_id = ?1 AND name = ?2",
    )?;
    Ok(query.query_row(params![class, name], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

/// Whether a runner of another name that takes tasks of a kind asked for work of the class lately.
pub fn has_others(
    view: &View,
    class: &ResourceClassId,
    name: &str,
    kind: TaskKind,
    now: Millis,
) -> Result<bool, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT 1 FROM runner_instances WHERE resource_class_id = ?1 AND name <> ?2 AND last_connected_ms > ?3
            AND NOT is_paused AND ?4 IN (SELECT value FROM json_each(takes))",
    )?;
    Ok(query.exists(params![class, name, now.minus(ONLINE), Kind(kind)])?)
}

/// Whether a runner of the class may let a task pass by that another one would take: it is paused, or they differ in the
/// kinds of tasks that they take.
pub fn do_differ(view: &View, class: &str, now: Millis) -> Result<bool, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT coalesce(max(i.is_paused) OR min(i.takes) <> max(i.takes), 0)
         FROM runner_instances i JOIN resource_classes c ON c.id = i.resource_class_id
         WHERE c.name = ?1 AND i.last_connected_ms > ?2",
    )?;
    Ok(query.query_row(params![class, now.minus(ONLINE)], |row| row.get(0))?)
}
