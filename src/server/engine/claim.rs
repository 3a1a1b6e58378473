//! Handing out a task: one transaction that finds, marks and describes it.

use crate::protocol::{ClaimRequest, Task, TaskId};
use crate::server::api::ClassToken;
use crate::server::engine::commit;
use crate::server::engine::handout::{self, Handed, Withheld};
use crate::server::ids::JobId;
use crate::server::state::{Settings, new_token, token_hash};
use crate::server::store::status::TaskState;
use crate::server::store::{Error, Tx, new_id};
use rusqlite::{OptionalExtension, params};

/// The oldest task of the class that waits, or the one that this claim was given before when the answer
/// was lost on the way.
pub fn claim(
    tx: &Tx<'_>,
    token: &ClassToken,
    request: &ClaimRequest,
    ip: &str,
    settings: &Settings,
    now: u64,
) -> Result<Option<Task>, Error> {
    seen(tx, token, request, ip, now)?;
    let again: Option<String> = tx
        .prepare_cached(
            "SELECT id FROM tasks WHERE resource_class = ?1 AND status = 'running' AND nonce = ?2 AND claimed_with = ?3
                AND started_at_ms IS NULL AND lease_until_ms >= ?4",
        )?
        .query_row(params![token.class, request.nonce, token.id, now as i64], |row| row.get(0))
        .optional()?;
    let mut waiting = again;
    // A task whose variables may not or cannot be handed out ends here; the next one is looked at.
    let (id, variables) = loop {
        let next: Option<String> = match waiting.take() {
            Some(id) => Some(id),
            None => tx
                .prepare_cached(
                    "SELECT id FROM tasks WHERE resource_class = ?1 AND status = 'queued' ORDER BY seq LIMIT 1",
                )?
                .query_row([&token.class], |row| row.get(0))
                .optional()?,
        };
        let Some(id) = next else { return Ok(None) };
        let job: JobId = tx
            .prepare_cached("SELECT job_id FROM tasks WHERE id = ?1")?
            .query_row([&id], |row| row.get(0))?;
        let (end, why) = match handout::variables(tx, &settings.sealer, &job)? {
            Ok(variables) => break (id, variables),
            Err(Withheld::Unauthorized(why)) => (TaskState::Failed, format!("unauthorized: {why}")),
            Err(Withheld::Unusable(why)) => (TaskState::InfrastructureFail, why),
        };
        log::warn!("a task cannot be handed out: {why} task_id={id}");
        let id = TaskId::new(id).map_err(|e| Error::Corrupt(e.to_string()))?;
        commit::end_task(tx, &id, end, Some(&why), now)?;
    };
    let task_token = new_token("rlt_")?;
    let allocation = new_id();
    let lease = now + u64::from(settings.lease_seconds) * 1000;
    tx.prepare_cached(
        "UPDATE tasks SET status = ?2, token_hash = ?3, allocation = ?4, nonce = ?5, claimed_with = ?6, runner_name = ?7,
            lease_until_ms = ?8, claimed_at_ms = ?9 WHERE id = ?1",
    )?
    .execute(params![
        id,
        TaskState::Running,
        token_hash(&task_token),
        allocation,
        request.nonce,
        token.id,
        request.name,
        lease as i64,
        now as i64
    ])?;
    tx.prepare_cached(
        "UPDATE runner_instances SET last_used_ms = ?3 WHERE resource_class_id = ?1 AND name = ?2",
    )?
    .execute(params![token.class_id, request.name, now as i64])?;
    let id = TaskId::new(id).map_err(|e| Error::Corrupt(e.to_string()))?;
    let handed = Handed { id, token: task_token, allocation, variables };
    handout::describe(tx, handed, settings).map(Some)
}

/// Keeps the inventory.
fn seen(tx: &Tx<'_>, token: &ClassToken, request: &ClaimRequest, ip: &str, now: u64) -> Result<(), Error> {
    tx.prepare_cached(
        "INSERT INTO runner_instances (resource_class_id, name, hostname, ip, version, os, arch, first_connected_ms, last_connected_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)
         ON CONFLICT DO UPDATE SET hostname = ?3, ip = ?4, version = ?5, os = ?6, arch = ?7, last_connected_ms = ?8",
    )?
    .execute(params![token.class_id, request.name, request.hostname, ip, request.version, request.os, request.arch, now as i64])?;
    Ok(())
}
