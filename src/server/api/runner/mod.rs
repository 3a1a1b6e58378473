//! What runners and task agents call: docs/protocol.md.

pub mod archives;
pub mod test_results;

use crate::protocol::{
    ArtifactRecord, ClaimRequest, Event, EventKind, EventsAnswer, FinishAnswer, FinishRequest,
    HeartbeatAnswer, LostTask, MAX_CHUNK_BYTES, OutputAnswer, RefusalCode, TaskId, UploadAnswer,
};
use crate::server::api::{Answer, ClassToken, Failure, bearer, blocking, check_protocol};
use crate::server::engine::commit;
use crate::server::listen::Peer;
use crate::server::state::{Shared, now_ms, token_hash};
use crate::server::store::status::{StepState, TaskState};
use crate::server::store::{Effect, Tx, new_id};
use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRequestParts, Path, Query, State};
use axum::http::{StatusCode, request::Parts};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};
use std::collections::HashMap;

use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest time that a claim or a heartbeat is held, in seconds.
const LONGEST_WAIT: u64 = 55;
/// Largest upload, in bytes: caches have no limit of their own, and the disk is smaller than this.
const LARGEST_UPLOAD: u64 = 1 << 40;

/// The paths.
pub fn router() -> Router<Shared> {
    let task = "/api/v3/runner/tasks/{id}";
    Router::new()
        .route("/api/v3/runner/claim", post(claim))
        .route(&format!("{task}/heartbeat"), post(heartbeat))
        .route(&format!("{task}/steps/{{step}}/output"), patch(output))
        .route(&format!("{task}/events"), post(events))
        .route(&format!("{task}/uploads/{{sha256}}"), get(upload_offset).patch(upload))
        .route(&format!("{task}/artifacts"), post(artifact))
        .route(&format!("{task}/finish"), post(finish))
        .route(&format!("{task}/lost"), post(lost))
        .route("/api/v3/runner/unclaim", post(unclaim))
        .route("/api/v2/task/event/fail", post(fail))
}

/// Query parameters by name.
pub(super) type Numbers = Query<HashMap<String, String>>;

pub(super) fn number(query: &Numbers, name: &str) -> Answer<u64> {
    let text = query.get(name).map(String::as_str).unwrap_or_default();
    text.parse()
        .map_err(|_| Failure::new(StatusCode::BAD_REQUEST, format!("`{name}={text}` is not a number")))
}

fn wait_of(query: &Numbers) -> Duration {
    Duration::from_secs(number(query, "wait").unwrap_or(0).min(LONGEST_WAIT))
}

/// Resolves when the control plane stops.
pub(super) async fn stopped(state: &Shared) {
    let mut stopping = state.stopping.subscribe();
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn claim(
    State(state): State<Shared>,
    token: ClassToken,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    query: Numbers,
    Json(request): Json<ClaimRequest>,
) -> Answer<Response> {
    let deadline = tokio::time::Instant::now() + wait_of(&query);
    let notify = state.hub.class(&token.class);
    loop {
        // Registered before looking, so that a task that arrives in between is not missed.
        let woken = notify.notified();
        let (request, token, settings) = (request.clone(), token.clone(), state.settings.clone());
        let ip = peer.ip().to_string();
        let claimed = state.store.write(move |tx| {
            // It may have been deleted while this claim was parked.
            if !token.is_there(tx)? {
                return Ok(None);
            }
            crate::server::engine::claim::claim(tx, &token, &request, &ip, &settings, now_ms()).map(Some)
        });
        match claimed.await? {
            Some(Some(task)) => return Ok(Json(task).into_response()),
            Some(None) => {}
            None => {
                // Whatever woke this claim is for another one.
                notify.notify_one();
                return Err(ClassToken::refusal());
            }
        }
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep_until(deadline) => return Ok(StatusCode::NO_CONTENT.into_response()),
            () = stopped(&state) => return Ok(StatusCode::NO_CONTENT.into_response()),
        }
    }
}

/// A task by its token. The task in the path must be the token's.
pub(super) struct Holder {
    pub(super) id: TaskId,
    pipeline: String,
    pub(super) job: String,
    pub(super) project: String,
    node: u32,
    allocation: String,
    canceled: bool,
    ended: bool,
    finished: bool,
}

impl FromRequestParts<Shared> for Holder {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, Failure> {
        check_protocol(parts)?;
        let hash = bearer(parts).map(token_hash);
        let found = state
            .store
            .read(move |c| {
                let Some(hash) = hash else { return Ok(None) };
                let mut query = c.prepare_cached(
                    "SELECT id, pipeline_id, job_id, project_id, node_index, allocation, is_canceled, stopped_at_ms IS NOT NULL, is_finished
                     FROM tasks WHERE token_hash = ?1",
                )?;
                let row = query.query_row([hash], |row| {
                    let id: String = row.get(0)?;
                    Ok((id, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?, row.get(8)?))
                });
                Ok(row.optional()?)
            })
            .await?;
        let Some((id, pipeline, job, project, node, allocation, canceled, ended, finished)) = found else {
            return Err(Failure::new(StatusCode::UNAUTHORIZED, "a valid task token is needed here"));
        };
        let id =
            TaskId::new(id).map_err(|e| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
        let path = parts.uri.path();
        if let Some(rest) = path.strip_prefix("/api/v3/runner/tasks/") {
            if rest.split('/').next() != Some(id.as_str()) {
                return Err(Failure::not_found("this token is for another task"));
            }
        }
        Ok(Self { id, pipeline, job, project, node, allocation, canceled, ended, finished })
    }
}

impl Holder {
    /// Refuses a task that has ended.
    pub(super) fn alive(self) -> Answer<Self> {
        if self.ended {
            return Err(Failure::coded(
                StatusCode::CONFLICT,
                RefusalCode::TaskEnded,
                "the task has ended here: stop, and send nothing more",
            ));
        }
        Ok(self)
    }
}

async fn heartbeat(
    State(state): State<Shared>,
    task: Holder,
    query: Numbers,
) -> Answer<Json<HeartbeatAnswer>> {
    let task = task.alive()?;
    let lease_seconds = state.settings.lease_seconds;
    let notify = state.hub.task(&task.id);
    let woken = notify.notified();
    tokio::pin!(woken);
    woken.as_mut().enable();
    let id = task.id.clone();
    let until = now_ms() + u64::from(lease_seconds) * 1000;
    let read = |id: TaskId| {
        state.store.write(move |tx| {
            Ok(tx
                .prepare_cached("UPDATE tasks SET lease_until_ms = ?2 WHERE id = ?1 AND stopped_at_ms IS NULL RETURNING is_canceled")?
                .query_row(params![id.as_str(), until as i64], |row| row.get::<_, bool>(0))
                .optional()?)
        })
    };
    let mut cancel = read(id.clone()).await?;
    if cancel == Some(false) {
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep(wait_of(&query)) => {}
            () = stopped(&state) => {}
        }
        cancel = read(id).await?;
    }
    match cancel {
        Some(cancel) => Ok(Json(HeartbeatAnswer { cancel, lease_seconds })),
        None => Err(Failure::coded(StatusCode::CONFLICT, RefusalCode::TaskEnded, "the task has ended here")),
    }
}

async fn output(
    State(state): State<Shared>,
    task: Holder,
    Path((_, step)): Path<(String, u32)>,
    query: Numbers,
    bytes: Bytes,
) -> Answer<Json<OutputAnswer>> {
    let task = task.alive()?;
    let offset = number(&query, "offset")?;
    // The runner keeps to the limit; its marker lines may come on top.
    if offset + bytes.len() as u64 > state.settings.max_step_output_bytes + 1024 * 1024 {
        return Err(Failure::coded(
            StatusCode::PAYLOAD_TOO_LARGE,
            RefusalCode::TooLarge,
            "the output of this step is too long",
        ));
    }
    state.output_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    let (blobs, id) = (state.blobs.clone(), task.id.clone());
    let offset = blocking(move || blobs.outputs.append(&id, step, offset, &bytes)).await?;
    state.hub.wrote(&task.pipeline);
    Ok(Json(OutputAnswer { offset, durable_to: 0, cancel: task.canceled }))
}

async fn events(
    State(state): State<Shared>,
    task: Holder,
    Json(events): Json<Vec<Event>>,
) -> Answer<Json<EventsAnswer>> {
    let task = task.alive()?;
    let cancel = task.canceled;
    let next = state.store.write(move |tx| store_events(tx, &task, &events, now_ms())).await?;
    match next {
        Ok(next) => Ok(Json(EventsAnswer { next, cancel })),
        Err(expected) => Err(Failure::gap(expected, format!("event {expected} is missing"))),
    }
}

/// Stores events in order; the error is the number that is expected.
fn store_events(
    tx: &Tx<'_>,
    task: &Holder,
    events: &[Event],
    now: u64,
) -> Result<Result<u64, u64>, crate::server::store::Error> {
    let id = task.id.as_str();
    let mut next: u64 =
        tx.prepare_cached("SELECT next_event FROM tasks WHERE id = ?1")?.query_row([id], |row| row.get(0))?;
    for event in events {
        if event.number < next {
            continue;
        }
        if event.number > next {
            return Ok(Err(next));
        }
        next += 1;
        match &event.kind {
            EventKind::StepStarted {
                step,
                index,
                name,
                kind,
                command,
                attempt,
                max_auto_reruns,
                background,
            } => {
                tx.prepare_cached(
                    "INSERT OR IGNORE INTO steps (task_id, step, step_index, name, kind, command, attempt, max_auto_reruns, background, status, started_at_ms)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                )?
                .execute(params![id, step, index, name, kind, command, attempt, max_auto_reruns, background, StepState::Running, event.at_ms as i64])?;
            }
            EventKind::StepFinished { step, status, exit_code, signal, message, output_bytes } => {
                tx.prepare_cached(
                    "UPDATE steps SET status = ?3, exit_code = ?4, signal = ?5, message = ?6, ended_at_ms = ?7, output_bytes = ?8
                     WHERE task_id = ?1 AND step = ?2",
                )?
                .execute(params![id, step, StepState::from(*status), exit_code, signal, message, event.at_ms as i64, output_bytes])?;
            }
        }
    }
    tx.prepare_cached(
        "UPDATE tasks SET next_event = ?2, started_at_ms = coalesce(started_at_ms, ?3) WHERE id = ?1",
    )?
    .execute(params![id, next as i64, now as i64])?;
    commit::task_started(tx, &task.id, now)?;
    tx.effect(Effect::Changed(task.pipeline.clone()));
    Ok(Ok(next))
}

async fn upload_offset(
    State(state): State<Shared>,
    task: Holder,
    Path((_, sha256)): Path<(String, String)>,
    query: Numbers,
) -> Answer<Json<UploadAnswer>> {
    let task = task.alive()?;
    let length = upload_length(&query)?;
    let (blobs, id) = (state.blobs.clone(), task.id.clone());
    let offset = blocking(move || blobs.objects.offset(&id, &sha256, length)).await?;
    Ok(Json(UploadAnswer { offset, cancel: task.canceled }))
}

async fn upload(
    State(state): State<Shared>,
    task: Holder,
    Path((_, sha256)): Path<(String, String)>,
    query: Numbers,
    bytes: Bytes,
) -> Answer<Json<UploadAnswer>> {
    let task = task.alive()?;
    let (length, offset) = (upload_length(&query)?, number(&query, "offset")?);
    debug_assert!(bytes.len() <= MAX_CHUNK_BYTES + 1024, "the router bounds bodies");
    let (blobs, id) = (state.blobs.clone(), task.id.clone());
    let offset = blocking(move || blobs.objects.append(&id, &sha256, length, offset, &bytes)).await?;
    Ok(Json(UploadAnswer { offset, cancel: task.canceled }))
}

fn upload_length(query: &Numbers) -> Answer<u64> {
    let length = number(query, "length")?;
    check_length(length, LARGEST_UPLOAD)
}

fn check_length(length: u64, limit: u64) -> Answer<u64> {
    if length > limit {
        let message = format!("{length} bytes are more than the {limit} that this control plane accepts");
        return Err(Failure::coded(StatusCode::PAYLOAD_TOO_LARGE, RefusalCode::TooLarge, message));
    }
    Ok(length)
}

/// Refuses to name an upload that is not complete.
pub(super) async fn complete(state: &Shared, sha256: &str, length: u64) -> Answer<()> {
    let (blobs, sha256) = (state.blobs.clone(), sha256.to_owned());
    if blocking(move || blobs.objects.has(&sha256, length)).await? {
        return Ok(());
    }
    Err(Failure::coded(
        StatusCode::UNPROCESSABLE_ENTITY,
        RefusalCode::Checksum,
        "this upload is not complete",
    ))
}

async fn artifact(
    State(state): State<Shared>,
    task: Holder,
    Json(record): Json<ArtifactRecord>,
) -> Answer<Json<Value>> {
    let task = task.alive()?;
    let path_is_safe =
        record.path.len() <= 4096 && record.path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !path_is_safe {
        return Err(Failure::new(
            StatusCode::BAD_REQUEST,
            format!("`{}` is not a path for an artifact", record.path),
        ));
    }
    check_length(record.length, state.settings.max_artifact_bytes)?;
    complete(&state, &record.sha256, record.length).await?;
    state
        .store
        .write(move |tx| {
            tx.prepare_cached(
                "INSERT OR REPLACE INTO artifacts (id, job_id, project_id, task_id, node_index, step, path, sha256, length, created_at_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![new_id(), task.job, task.project, task.id.as_str(), task.node, record.step, record.path, record.sha256, record.length as i64, now_ms() as i64])?;
            Ok(())
        })
        .await?;
    Ok(Json(json!({})))
}

async fn finish(
    State(state): State<Shared>,
    task: Holder,
    Json(request): Json<FinishRequest>,
) -> Answer<Json<FinishAnswer>> {
    // The answer to the first finish was lost on the way.
    if task.finished {
        return Ok(Json(FinishAnswer::Confirmed));
    }
    let task = task.alive()?;
    let (blobs, id, steps) = (state.blobs.clone(), task.id.clone(), request.steps.clone());
    let missing = blocking(move || {
        let mut missing = Vec::new();
        for step in &steps {
            if let Some(offset) = blobs.outputs.check(&id, step.step, step.length, &step.sha256)? {
                missing.push((step.step, offset));
            }
        }
        Ok(missing)
    })
    .await?;
    let id = task.id.clone();
    let answer = state
        .store
        .write(move |tx| {
            let id = task.id.as_str();
            let next_event: u64 = tx
                .prepare_cached("SELECT next_event FROM tasks WHERE id = ?1")?
                .query_row([id], |row| row.get(0))?;
            if next_event < request.events || !missing.is_empty() {
                return Ok(FinishAnswer::Incomplete { next_event, steps: missing });
            }
            for step in &request.steps {
                tx.prepare_cached("UPDATE steps SET output_bytes = ?3 WHERE task_id = ?1 AND step = ?2")?
                    .execute(params![id, step.step, step.length as i64])?;
            }
            tx.prepare_cached("UPDATE tasks SET is_finished = 1 WHERE id = ?1")?.execute([id])?;
            commit::end_task(
                tx,
                &task.id,
                TaskState::from(request.status),
                request.message.as_deref(),
                now_ms(),
            )?;
            Ok(FinishAnswer::Confirmed)
        })
        .await?;
    if answer == FinishAnswer::Confirmed {
        state.hub.forget_task(&id);
    }
    Ok(Json(answer))
}

async fn lost(
    State(state): State<Shared>,
    token: ClassToken,
    Json(request): Json<LostTask>,
) -> Answer<Json<Value>> {
    state
        .store
        .write(move |tx| {
            let own = tx
                .prepare_cached("SELECT is_canceled FROM tasks WHERE id = ?1 AND resource_class = ?2 AND status = 'running'")?
                .query_row(params![request.id.as_str(), token.class], |row| row.get::<_, bool>(0))
                .optional()?;
            match own {
                Some(true) => commit::end_task(tx, &request.id, TaskState::Canceled, None, now_ms()),
                Some(false) => commit::end_task(tx, &request.id, TaskState::InfrastructureFail, Some(&request.message), now_ms()),
                None => Ok(()),
            }
        })
        .await?;
    Ok(Json(json!({})))
}

async fn unclaim(
    State(state): State<Shared>,
    task: Holder,
    Json(request): Json<Value>,
) -> Answer<Json<Value>> {
    if request["task_id"].as_str() != Some(task.id.as_str()) {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "`task_id` is not the task of this token"));
    }
    let task = task.alive()?;
    if state.store.write(move |tx| commit::requeue(tx, &task.id, now_ms())).await? {
        return Ok(Json(json!({ "message": "the task is back in its queue" })));
    }
    Err(Failure::new(StatusCode::CONFLICT, "this task went back to its queue too often"))
}

async fn fail(State(state): State<Shared>, task: Holder, Json(request): Json<Value>) -> Answer<Json<Value>> {
    use base64::Engine;
    if request["allocation"].as_str() != Some(task.allocation.as_str()) {
        return Err(Failure::not_found("this allocation is not of the task of this token"));
    }
    let message = request["message"].as_str().unwrap_or_default();
    let message = base64::engine::general_purpose::STANDARD
        .decode(message)
        .map_err(|_| Failure::new(StatusCode::BAD_REQUEST, "`message` is not base64"))?;
    let message = String::from_utf8_lossy(&message).into_owned();
    state
        .store
        .write(move |tx| {
            commit::end_task(tx, &task.id, TaskState::InfrastructureFail, Some(&message), now_ms())
        })
        .await?;
    Ok(Json(json!({ "message": "recorded" })))
}
