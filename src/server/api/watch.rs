//! `GET /api/v3/runs/{id}/events`: a pipeline as it happens, for people's terminals and pages.
//!
//! The handler compares what it told with what is stored whenever the pipeline changes: a watcher that is
//! slow or comes late sees the same in the end.

use super::{Answer, Failure, Person, blocking};
use crate::protocol::{TaskId, WatchEvent};
use crate::server::state::Shared;
use crate::server::store::{Connection, Error};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use std::collections::HashMap;
use std::convert::Infallible;

/// Most bytes of output in one event.
const CHUNK: usize = 256 * 1024;

/// The path.
pub fn router() -> Router<Shared> {
    Router::new().route("/api/v3/runs/{id}/events", get(events))
}

async fn events(State(state): State<Shared>, _person: Person, Path(id): Path<String>) -> Answer<Response> {
    let pipeline = id.clone();
    let known = state
        .store
        .read(move |c| Ok(c.prepare_cached("SELECT 1 FROM pipelines WHERE id = ?1")?.exists([pipeline])?))
        .await?;
    if !known {
        return Err(Failure::not_found(format!("there is no pipeline `{id}`")));
    }
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(16);
    tokio::spawn(tell(state, id, sender));
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|bytes| (Ok::<_, Infallible>(bytes), receiver))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// What a watcher was told.
#[derive(Default)]
struct Told {
    things: HashMap<String, WatchEvent>,
    offsets: HashMap<(String, u32), u64>,
}

/// A step record and where its output is.
struct StepOutput {
    task: String,
    job: String,
    execution: u32,
    step: u32,
}

async fn tell(state: Shared, pipeline: String, sender: tokio::sync::mpsc::Sender<Bytes>) {
    let mut changes = state.hub.watch(&pipeline);
    let mut told = Told::default();
    loop {
        changes.mark_unchanged();
        let id = pipeline.clone();
        let Ok((events, outputs, ended)) = state.store.read(move |c| snapshot(c, &id)).await else { return };
        for (key, event) in events {
            // Every step is told to run before its output, and to have ended after it, even one that did
            // both since the last look.
            if let Some(output) = outputs.get(&key) {
                if !told.things.contains_key(&key)
                    && !send(&sender, &mut told, key.clone(), started(&event)).await
                {
                    return;
                }
                if send_output(&state, &sender, &mut told, output).await.is_err() {
                    return;
                }
            }
            if !send(&sender, &mut told, key, event).await {
                return;
            }
        }
        if ended {
            let _ = sender.send(encode(&WatchEvent::End)).await;
            return;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            // A comment now and then keeps proxies from closing a quiet stream.
            () = tokio::time::sleep(std::time::Duration::from_secs(15)) => {
                if sender.send(Bytes::from_static(b": quiet\n\n")).await.is_err() {
                    return;
                }
            }
            () = sender.closed() => return,
            () = super::runner::stopped(&state) => return,
        }
    }
}

fn is_end(event: &WatchEvent) -> bool {
    match event {
        WatchEvent::Step { ended_at_ms, .. } | WatchEvent::Job { ended_at_ms, .. } => ended_at_ms.is_some(),
        _ => false,
    }
}

/// A step as it was while it ran.
fn started(event: &WatchEvent) -> WatchEvent {
    let mut event = event.clone();
    if let WatchEvent::Step { status, exit_code, ended_at_ms, message, .. } = &mut event {
        if status != "not_run" {
            "running".clone_into(status);
        }
        (*exit_code, *ended_at_ms, *message) = (None, None, None);
    }
    event
}

async fn send(
    sender: &tokio::sync::mpsc::Sender<Bytes>,
    told: &mut Told,
    key: String,
    event: WatchEvent,
) -> bool {
    if told.things.get(&key) == Some(&event) {
        return true;
    }
    let sent = sender.send(encode(&event)).await.is_ok();
    told.things.insert(key, event);
    sent
}

async fn send_output(
    state: &Shared,
    sender: &tokio::sync::mpsc::Sender<Bytes>,
    told: &mut Told,
    output: &StepOutput,
) -> Result<(), ()> {
    let key = (output.task.clone(), output.step);
    let task = TaskId::new(output.task.clone()).map_err(|_| ())?;
    loop {
        let offset = told.offsets.get(&key).copied().unwrap_or(0);
        let (blobs, id, step) = (state.blobs.clone(), task.clone(), output.step);
        let bytes = blocking(move || blobs.read_output(&id, step, offset, CHUNK)).await.map_err(|_| ())?;
        if bytes.is_empty() {
            return Ok(());
        }
        told.offsets.insert(key.clone(), offset + bytes.len() as u64);
        let event = WatchEvent::Output {
            job_id: output.job.clone(),
            execution: output.execution,
            step: output.step,
            offset,
            data: base64::engine::general_purpose::STANDARD.encode(&bytes),
        };
        sender.send(encode(&event)).await.map_err(|_| ())?;
    }
}

fn encode(event: &WatchEvent) -> Bytes {
    Bytes::from(format!("data: {}\n\n", serde_json::to_string(event).unwrap_or_default()))
}

/// Everything to tell in order, the steps among it, and whether all workflows have ended.
type Snapshot = (Vec<(String, WatchEvent)>, HashMap<String, StepOutput>, bool);

fn snapshot(c: &Connection, pipeline: &str) -> Result<Snapshot, Error> {
    let mut events = Vec::new();
    let mut ended = true;
    let mut query = c.prepare_cached(
        "SELECT id, name, status, stopped_at_ms, rerun_of FROM workflows WHERE pipeline_id = ?1 ORDER BY position",
    )?;
    let mut rows = query.query([pipeline])?;
    while let Some(row) = rows.next()? {
        ended &= row.get::<_, Option<i64>>(3)?.is_some();
        let id: String = row.get(0)?;
        let (name, status, rerun_of) = (row.get(1)?, row.get(2)?, row.get(4)?);
        events.push((id.clone(), WatchEvent::Workflow { id, name, status, rerun_of }));
    }
    let mut query = c.prepare_cached(
        "SELECT j.id, j.workflow_id, j.name, j.status, j.started_at_ms, j.stopped_at_ms,
            json_extract(j.messages, '$[0].message')
         FROM jobs j JOIN workflows w ON w.id = j.workflow_id WHERE j.pipeline_id = ?1 ORDER BY w.position, j.position",
    )?;
    let mut rows = query.query([pipeline])?;
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        events.push((
            id.clone(),
            WatchEvent::Job {
                id,
                workflow_id: row.get(1)?,
                name: row.get(2)?,
                status: row.get(3)?,
                started_at_ms: row.get(4)?,
                ended_at_ms: row.get(5)?,
                message: row.get(6)?,
            },
        ));
    }
    let mut query = c.prepare_cached(
        "SELECT t.id, t.job_id, t.node_index, s.step, s.name, s.kind, s.status, s.exit_code, s.attempt, s.background,
            s.started_at_ms, s.ended_at_ms, s.message
         FROM steps s JOIN tasks t ON t.id = s.task_id WHERE t.pipeline_id = ?1 AND t.status <> 'retried' ORDER BY t.seq, s.step",
    )?;
    let mut rows = query.query([pipeline])?;
    let mut steps = Vec::new();
    let mut outputs = HashMap::new();
    while let Some(row) = rows.next()? {
        let (task, job_id, execution, step): (String, String, u32, u32) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let event = WatchEvent::Step {
            job_id: job_id.clone(),
            execution,
            step,
            name: row.get(4)?,
            kind: row.get(5)?,
            status: row.get(6)?,
            exit_code: row.get(7)?,
            attempt: row.get(8)?,
            background: row.get(9)?,
            started_at_ms: row.get(10)?,
            ended_at_ms: row.get(11)?,
            message: row.get(12)?,
        };
        let key = format!("{task}/{step}");
        steps.push((key.clone(), event));
        outputs.insert(key, StepOutput { task, job: job_id, execution, step });
    }
    // Ends of steps are told before the ends of their jobs.
    let (job_ends, mut all): (Vec<_>, Vec<_>) = events.into_iter().partition(|(_, event)| is_end(event));
    all.extend(steps);
    all.extend(job_ends);
    Ok((all, outputs, ended))
}
