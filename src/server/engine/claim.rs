//! Handing out a task: one transaction that finds, marks and describes it.

use crate::config::{JobKind, WorkflowJob};
use crate::protocol::{ClaimRequest, Secret, Source, Task, TaskId, Variable};
use crate::server::api::ClassToken;
use crate::server::engine::commit;
use crate::server::pipelines::continuation;
use crate::server::secrets::variables::{self, Withheld};
use crate::server::state::{Settings, new_token, token_hash};
use crate::server::store::status::TaskState;
use crate::server::store::{Effect, Error, Tx, new_id};
use rusqlite::{OptionalExtension, params};
use std::collections::BTreeMap;

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
        let job: String = tx
            .prepare_cached("SELECT job_id FROM tasks WHERE id = ?1")?
            .query_row([&id], |row| row.get(0))?;
        let (end, why) = match variables::of_job(tx, &settings.sealer, &job)? {
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
    describe(tx, id, task_token, allocation, variables, settings).map(Some)
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

fn describe(
    tx: &Tx<'_>,
    id: String,
    token: String,
    allocation: String,
    variables: Vec<Variable>,
    settings: &Settings,
) -> Result<Task, Error> {
    let mut query = tx.prepare_cached(
        "SELECT t.node_index, t.pipeline_id, j.id, j.name, j.number, j.parallelism, j.definition, j.workflow_id,
            w.workspace_id, p.repository_url, p.revision, p.branch, p.tag, p.actor_login, p.reference,
            r.id, r.organisation_id, r.vcs, r.org, r.repo, j.timings_of IS NOT NULL
         FROM tasks t JOIN jobs j ON j.id = t.job_id JOIN workflows w ON w.id = j.workflow_id
            JOIN pipelines p ON p.id = t.pipeline_id JOIN projects r ON r.id = t.project_id WHERE t.id = ?1",
    )?;
    let task = query.query_row([&id], |row| {
        let text = |index: usize| row.get::<_, String>(index);
        let maybe = |index: usize| row.get::<_, Option<String>>(index);
        let number: i64 = row.get(4)?;
        let job_url = format!("{}/{}/{}/{}/{number}", settings.public_url, text(17)?, text(18)?, text(19)?);
        let mut built_in: BTreeMap<String, String> = BTreeMap::new();
        let mut set = |name: &str, value: String| built_in.insert(name.to_owned(), value);
        set("CI", "true".to_owned());
        set("CIRCLECI", "true".to_owned());
        set("CIRCLE_BUILD_NUM", number.to_string());
        set("CIRCLE_BUILD_URL", job_url.clone());
        set("CIRCLE_JOB", text(3)?);
        set("CIRCLE_PIPELINE_ID", text(1)?);
        set("CIRCLE_WORKFLOW_ID", text(7)?);
        set("CIRCLE_WORKFLOW_JOB_ID", text(2)?);
        set("CIRCLE_WORKFLOW_WORKSPACE_ID", text(8)?);
        set("CIRCLE_PROJECT_ID", text(15)?);
        set("CIRCLE_ORGANIZATION_ID", text(16)?);
        set("CIRCLE_PROJECT_USERNAME", text(18)?);
        set("CIRCLE_PROJECT_REPONAME", text(19)?);
        set("CIRCLE_USERNAME", text(13)?);
        for (name, column) in
            [("CIRCLE_REPOSITORY_URL", 9), ("CIRCLE_SHA1", 10), ("CIRCLE_BRANCH", 11), ("CIRCLE_TAG", 12)]
        {
            if let Some(value) = maybe(column)? {
                set(name, value);
            }
        }
        let source = match (maybe(9)?, maybe(10)?) {
            (Some(repository_url), Some(revision)) => Some(Source {
                repository_url,
                revision,
                branch: maybe(11)?,
                tag: maybe(12)?,
                reference: maybe(14)?,
            }),
            _ => None,
        };
        let has_test_timings: bool = row.get(20)?;
        let (node_index, node_total): (u32, u32) = (row.get(0)?, row.get(5)?);
        Ok((node_index, text(3)?, node_total, text(6)?, job_url, built_in, source, has_test_timings))
    })?;
    let (node_index, job_name, node_total, definition, job_url, mut built_in, source, has_test_timings) =
        task;
    let definition: WorkflowJob = serde_json::from_str(&definition)?;
    let mut mask = Vec::new();
    if let Some(key) = continuation::key_for_claim(tx, &id)? {
        mask.push(Secret::new(key.clone()));
        built_in.insert("CIRCLE_CONTINUATION_KEY".to_owned(), key);
    }
    let JobKind::Build { job } = definition.kind else {
        return Err(Error::Corrupt(format!("the task `{id}` is of a job without steps")));
    };
    tx.effect(Effect::Changed(built_in.get("CIRCLE_PIPELINE_ID").cloned().unwrap_or_default()));
    Ok(Task {
        id: TaskId::new(id).map_err(|e| Error::Corrupt(e.to_string()))?,
        token: Secret::new(token),
        allocation,
        job_name,
        job_url,
        job: *job,
        node_index,
        node_total,
        built_in,
        variables,
        mask,
        source,
        has_test_timings,
        lease_seconds: settings.lease_seconds,
        begin_seconds: 600,
        budget_seconds: 900,
        heartbeat_wait_seconds: settings.heartbeat_wait_seconds,
        max_step_output_bytes: settings.max_step_output_bytes,
        max_artifact_bytes: settings.max_artifact_bytes,
    })
}
