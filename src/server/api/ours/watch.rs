//! A pipeline as it happens, for people's terminals and pages: `GET /api/v3/runs/{id}/events`, and
//! [`follow`] for a watcher in this process.
//!
//! What was told is compared with what is stored whenever the pipeline changes: a watcher that is slow or
//! comes late sees the same in the end.

use crate::protocol::{TaskId, WatchEvent};
use crate::server::api::{Answer, Failure, Person, blocking};
use crate::server::state::Shared;
use crate::server::store::read::{EXTENT, Extent};
use crate::server::store::tables::people;
use crate::server::store::{Error, View};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Most bytes of output in one event of the stream.
const CHUNK: usize = 256 * 1024;
/// Most pieces of a running step's output before other steps have their turn.
const TURN: usize = 8;
/// A comment this often keeps proxies from closing a quiet stream.
const QUIET: Duration = Duration::from_secs(15);

/// The path.
pub fn router() -> Router<Shared> {
    Router::new().route("/api/v3/runs/{id}/events", get(events))
}

async fn events(State(state): State<Shared>, person: Person, Path(id): Path<String>) -> Answer<Response> {
    let pipeline = id.clone();
    let known = state
        .store
        .read(move |c| Ok(c.prepare_cached("SELECT 1 FROM pipelines WHERE id = ?1")?.exists([pipeline])?))
        .await?;
    if !known {
        return Err(Failure::not_found(format!("there is no pipeline `{id}`")));
    }
    let listener = Listener {
        revoked: state.hub.revoked(),
        told: follow(state.clone(), id, CHUNK),
        state,
        token: person.token,
    };
    let stream = futures_util::stream::unfold(listener, |mut listener| async move {
        let bytes = listener.next().await?;
        Some((Ok::<_, Infallible>(bytes), listener))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// Somebody at the other end of a stream.
struct Listener {
    state: Shared,
    /// UUID of the personal token; the stream ends with it.
    token: String,
    revoked: watch::Receiver<()>,
    told: mpsc::Receiver<Told>,
}

impl Listener {
    /// The next piece of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                biased;
                changed = self.revoked.changed() => {
                    changed.ok()?;
                    let token = self.token.clone();
                    if !self.state.store.read(move |c| people::is_token(c, &token.into())).await.ok()? {
                        return None;
                    }
                }
                told = self.told.recv() => return told.map(encode),
                () = tokio::time::sleep(QUIET) => return Some(Bytes::from_static(b": quiet\n\n")),
            }
        }
    }
}

/// One thing that a watcher is told.
#[derive(Clone, Debug)]
pub struct Told {
    /// What. The `data` of an output event is empty.
    pub event: WatchEvent,
    /// The bytes of an output event, as the step wrote them.
    pub output: Vec<u8>,
}

/// Tells everything about a pipeline from now on, until it has ended or nobody listens. Output comes in
/// pieces of at most `chunk` bytes. Call it on the control plane's runtime.
pub fn follow(state: Shared, pipeline: String, chunk: usize) -> mpsc::Receiver<Told> {
    let (sender, receiver) = mpsc::channel(8);
    tokio::spawn(async move {
        let mut teller = Teller { state, sender, chunk, things: HashMap::new(), offsets: HashMap::new() };
        // `None` is a watcher that has gone away, or a store that is being closed.
        teller.tell(pipeline).await.unwrap_or_default();
    });
    receiver
}

/// What one watcher was told.
struct Teller {
    state: Shared,
    sender: mpsc::Sender<Told>,
    chunk: usize,
    things: HashMap<String, WatchEvent>,
    offsets: HashMap<(String, u32), u64>,
}

/// A step record and where its output is.
struct StepOutput {
    task: String,
    job: String,
    execution: u32,
    step: u32,
    /// Its end is told after all of its output.
    extent: Extent,
}

impl Teller {
    async fn tell(&mut self, pipeline: String) -> Option<()> {
        let mut changes = self.state.hub.watch(&pipeline);
        let mut seen = None;
        let mut running: Vec<StepOutput> = Vec::new();
        loop {
            let version = *changes.borrow_and_update();
            let mut more = false;
            if seen != Some(version.state) {
                seen = Some(version.state);
                let id = pipeline.clone();
                let (events, mut outputs, ended) =
                    self.state.store.read(move |c| present(c, &id)).await.ok()?;
                running.clear();
                // Tasks whose output is still on its way: what comes after it in them is told after it.
                let mut waiting: HashSet<String> = HashSet::new();
                // A job that has ended is told after its steps; who was never told of it learns of it first.
                for (key, event) in events.iter().filter(|(_, event)| has_run(event)) {
                    if !self.things.contains_key(key) {
                        self.event(key.clone(), started(event)).await?;
                    }
                }
                for (key, event) in events {
                    if outputs.get(&key).is_some_and(|output| waiting.contains(&output.task)) {
                        continue;
                    }
                    // Every step is told to run before its output, and to have ended after it, even one
                    // that did both since the last look.
                    if let Some(output) = outputs.remove(&key) {
                        if !self.things.contains_key(&key) {
                            self.event(key.clone(), started(&event)).await?;
                        }
                        let is_over = is_end(&event);
                        more |= self.output(&output, if is_over { usize::MAX } else { TURN }).await?;
                        if !self.is_told(&output) {
                            let task = output.task.clone();
                            running.push(output);
                            if is_over {
                                waiting.insert(task);
                                continue;
                            }
                        }
                    }
                    self.event(key, event).await?;
                }
                if ended {
                    return self.send(WatchEvent::End, Vec::new()).await;
                }
            } else {
                for output in &running {
                    more |= self.output(output, TURN).await?;
                    // The end of a step may have waited for just this.
                    if self.is_told(output) {
                        seen = None;
                    }
                }
            }
            if more {
                continue;
            }
            tokio::select! {
                changed = changes.changed() => changed.ok()?,
                () = self.sender.closed() => return None,
                () = crate::server::api::runner::stopped(&self.state) => return None,
            }
        }
    }

    /// Tells `event` unless that is what was told last of this thing.
    async fn event(&mut self, key: String, event: WatchEvent) -> Option<()> {
        if self.things.get(&key) == Some(&event) {
            return Some(());
        }
        self.things.insert(key, event.clone());
        self.send(event, Vec::new()).await
    }

    /// Whether the step has ended and all of its output was told.
    fn is_told(&self, output: &StepOutput) -> bool {
        let told = self.offsets.get(&(output.task.clone(), output.step));
        output.extent.is_complete(told.copied().unwrap_or(0))
    }

    /// Tells up to `most` pieces of what a step has written since; true when there may be more.
    async fn output(&mut self, output: &StepOutput, most: usize) -> Option<bool> {
        let key = (output.task.clone(), output.step);
        let task = TaskId::new(output.task.clone()).ok()?;
        for _ in 0..most {
            let offset = self.offsets.get(&key).copied().unwrap_or(0);
            let (blobs, id, step, chunk) = (self.state.blobs.clone(), task.clone(), output.step, self.chunk);
            let bytes = blocking(move || blobs.outputs.read(&id, step, offset, chunk)).await.ok()?;
            if bytes.is_empty() {
                return Some(false);
            }
            self.offsets.insert(key.clone(), offset + bytes.len() as u64);
            let event = WatchEvent::Output {
                job_id: output.job.clone(),
                execution: output.execution,
                step: output.step,
                offset,
                data: String::new(),
            };
            self.send(event, bytes).await?;
        }
        Some(true)
    }

    async fn send(&mut self, event: WatchEvent, output: Vec<u8>) -> Option<()> {
        self.sender.send(Told { event, output }).await.ok()
    }
}

fn is_end(event: &WatchEvent) -> bool {
    match event {
        WatchEvent::Step { ended_at_ms, .. } | WatchEvent::Job { ended_at_ms, .. } => ended_at_ms.is_some(),
        _ => false,
    }
}

/// Whether it is a job that began and has ended.
fn has_run(event: &WatchEvent) -> bool {
    matches!(event, WatchEvent::Job { started_at_ms: Some(_), ended_at_ms: Some(_), .. })
}

/// A step or a job as it was while it ran.
fn started(event: &WatchEvent) -> WatchEvent {
    let mut event = event.clone();
    if let WatchEvent::Job { status, ended_at_ms, message, .. } = &mut event {
        "running".clone_into(status);
        (*ended_at_ms, *message) = (None, None);
    }
    if let WatchEvent::Step { status, exit_code, ended_at_ms, message, .. } = &mut event {
        if status != "not_run" {
            "running".clone_into(status);
        }
        (*exit_code, *ended_at_ms, *message) = (None, None, None);
    }
    event
}

fn encode(told: Told) -> Bytes {
    let Told { mut event, output } = told;
    if let WatchEvent::Output { data, .. } = &mut event {
        *data = base64::engine::general_purpose::STANDARD.encode(&output);
    }
    Bytes::from(format!("data: {}\n\n", serde_json::to_string(&event).unwrap_or_default()))
}

/// Everything to tell in order, the steps among it, and whether all workflows have ended.
type Present = (Vec<(String, WatchEvent)>, HashMap<String, StepOutput>, bool);

fn present(c: &View, pipeline: &str) -> Result<Present, Error> {
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
    let mut query = c.prepare_cached(&format!(
        "SELECT t.id, t.job_id, t.node_index, s.step, s.name, s.kind, s.status, s.exit_code, s.attempt, s.background,
            s.started_at_ms, s.ended_at_ms, s.message, {EXTENT}
         FROM steps s JOIN tasks t ON t.id = s.task_id WHERE t.pipeline_id = ?1 AND t.status <> 'retried'
         ORDER BY t.seq, CASE WHEN s.background AND s.ended_at_ms IS NOT NULL THEN s.ended_at_ms ELSE s.started_at_ms END, s.step",
    ))?;
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
        let extent = Extent::from_row(row, 13)?;
        outputs.insert(key, StepOutput { task, job: job_id, execution, step, extent });
    }
    // Ends of steps are told before the ends of their jobs.
    let (job_ends, mut all): (Vec<_>, Vec<_>) = events.into_iter().partition(|(_, event)| is_end(event));
    all.extend(steps);
    all.extend(job_ends);
    Ok((all, outputs, ended))
}
