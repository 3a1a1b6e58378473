//! Calls of a task agent in the life of its task: it begins, is there, tells what happens, ends.

use crate::logging::record;
use crate::protocol::limits::AGENT_ID_BYTES;
use crate::protocol::{
    BeginAnswer, BeginRequest, EventsAnswer, FIRST_BESIDE, FinishAnswer, FinishRequest, GiveBack,
    GiveBackAnswer, HeartbeatAnswer, OutputAnswer, RefusalCode, TaskEvent, TaskId,
};
use crate::server::api::runner::claim::whole;
use crate::server::api::runner::holder::Holder;
use crate::server::api::runner::query::{Numbers, number, wait_of};
use crate::server::api::shared::failure::{Answer, ApiError, blocking};
use crate::server::api::shared::input::Path;
use crate::server::auth;
use crate::server::blobs;
use crate::server::blobs::outputs::{Checked, Outputs};
use crate::server::engine::claim;
use crate::server::engine::commit::task::{self, FoundOutputs, Recorded};
use crate::server::engine::task::{Call, Denied, Passed};
use crate::server::state::Shared;
use crate::server::store::Tx;
use crate::server::store::tables::small_outputs::SmallOutput;
use crate::server::time::Millis;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

/// Tells a task agent that was started with no more than the token what to run.
pub(super) async fn fetch(State(state): State<Shared>, task: Holder, headers: HeaderMap) -> Answer<Response> {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| auth::bearer(value.to_str().ok()?));
    let token = token.unwrap_or_default().to_owned();
    let (id, settings) = (task.id.clone(), state.settings.clone());
    let fetched =
        state.store.write(move |tx| claim::fetch(tx, &id, &token, &settings, Millis::now())).await?;
    let description = fetched.map_err(|why| task.refused(why))?;
    task.takes(&state, Call::Heartbeat).await?;
    let text = whole(&state, description).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// The commit point: answered once it is on the disk.
pub(super) async fn begin(
    State(state): State<Shared>,
    task: Holder,
    Json(mut request): Json<BeginRequest>,
) -> Answer<Json<BeginAnswer>> {
    if !(1..=AGENT_ID_BYTES).contains(&request.agent.len()) {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            format!("`agent` has 1 to {AGENT_ID_BYTES} characters"),
        ));
    }
    request.events.iter_mut().for_each(|event| event.kind.cut());
    let (id, lease, spin_up) = (task.id.clone(), state.settings.lease(), request.spin_up.clone());
    let begun = state.store.write(move |tx| task::begin(tx, &id, &request, lease, Millis::now())).await?;
    let (next, cancel) = recorded(&task, begun)?;
    let spin_up_bytes = match spin_up {
        Some(text) => {
            state.figures.output_bytes.fetch_add(text.len() as u64, Ordering::Relaxed);
            let (blobs, id) = (state.blobs.clone(), task.id.clone());
            let stored = blocking(move || blobs.outputs.append(&id, 0, 0, text.as_bytes())).await?;
            state.hub.wrote(task.pipeline.as_str());
            Some(stored.offset)
        }
        None => None,
    };
    Ok(Json(BeginAnswer { next, spin_up_bytes, cancel, lease_seconds: state.settings.lease_seconds }))
}

/// Number of the next event, and whether a cancel is asked for.
fn recorded(task: &Holder, recorded: Result<Recorded, Denied>) -> Answer<(u64, bool)> {
    match recorded {
        Ok(Recorded::Next { next, taken }) => {
            let Passed { cancel, .. } = task.decided(Ok(taken))?;
            Ok((next, cancel))
        }
        Ok(Recorded::Gap { next }) => Err(ApiError::gap(next, format!("event {next} is missing"))),
        Err(why) => Err(task.refused(why)),
    }
}

/// Renews the lease, and is held until there is news.
pub(super) async fn heartbeat(
    State(state): State<Shared>,
    task: Holder,
    query: Numbers,
) -> Answer<Json<HeartbeatAnswer>> {
    let lease = state.settings.lease();
    let notify = state.hub.task(&task.id);
    let woken = notify.notified();
    tokio::pin!(woken);
    // Registered before looking, so that a cancel in between is not missed.
    woken.as_mut().enable();
    let look = || {
        let id = task.id.clone();
        // Each look has a time of its own: the wait lies between them.
        state.store.write(move |tx| task::call(tx, &id, Call::Heartbeat, lease, Millis::now()))
    };
    let mut seen = look().await?;
    if matches!(seen, Ok(Passed { cancel: false, .. })) {
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep(wait_of(&query)) => {}
            () = state.stopped() => {}
        }
        seen = look().await?;
    }
    if seen.is_err() {
        state.hub.forget_task(&task.id);
    }
    let Passed { cancel, .. } = task.decided(seen)?;
    Ok(Json(HeartbeatAnswer { cancel, lease_seconds: state.settings.lease_seconds }))
}

/// Stores output of a step record by its offset.
pub(super) async fn output(
    State(state): State<Shared>,
    task: Holder,
    Path((_, step)): Path<(String, u32)>,
    query: Numbers,
    bytes: Bytes,
) -> Answer<Json<OutputAnswer>> {
    let call = Call::Output { is_spin_up: step == 0 || step >= FIRST_BESIDE };
    task.takes(&state, call).await?;
    let offset = number(&query, "offset")?;
    let most = longest_output(&state);
    if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > most) {
        let why = format!(
            "{} bytes at {offset} go beyond the {most} that are kept of a step's output",
            bytes.len()
        );
        return Err(ApiError::coded(StatusCode::PAYLOAD_TOO_LARGE, RefusalCode::TooLarge, why));
    }
    state.figures.output_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    let (blobs, id, now) = (state.blobs.clone(), task.id.clone(), Millis::now());
    let stored = blocking(move || blobs.outputs.append_at(&id, step, offset, &bytes, Some(now.0))).await?;
    state.hub.wrote(task.pipeline.as_str());
    // The body may have been long in coming: what became of the task meanwhile decides.
    let Passed { cancel, .. } = task.took(&state, call).await?;
    Ok(Json(OutputAnswer { offset: stored.offset, durable_to: stored.durable_to, cancel }))
}

/// Most bytes of a step's output. The runner keeps to the limit of its task; its marker lines may come on top.
fn longest_output(state: &Shared) -> u64 {
    state.settings.max_step_output_bytes.saturating_add(1024 * 1024)
}

/// Stores events in order.
pub(super) async fn events(
    State(state): State<Shared>,
    task: Holder,
    Json(mut events): Json<Vec<TaskEvent>>,
) -> Answer<Json<EventsAnswer>> {
    events.iter_mut().for_each(|event| event.kind.cut());
    let (id, lease) = (task.id.clone(), state.settings.lease());
    let stored = state.store.write(move |tx| task::events(tx, &id, &events, lease, Millis::now())).await?;
    let (next, cancel) = recorded(&task, stored)?;
    Ok(Json(EventsAnswer { next, cancel }))
}

/// Ends a cancelled task whose steps have stopped, though not everything is there.
pub(super) async fn stopped(State(state): State<Shared>, task: Holder) -> Answer<Json<HeartbeatAnswer>> {
    let (id, lease) = (task.id.clone(), state.settings.lease());
    let stopped = state.store.write(move |tx| task::stopped(tx, &id, lease, Millis::now())).await?;
    let Passed { cancel, .. } = task.decided(stopped)?;
    Ok(Json(HeartbeatAnswer { cancel, lease_seconds: state.settings.lease_seconds }))
}

/// Ends the task, when everything is there.
pub(super) async fn finish(
    State(state): State<Shared>,
    task: Holder,
    Json(request): Json<FinishRequest>,
) -> Answer<Json<FinishAnswer>> {
    let most = longest_output(&state);
    if let Some(step) = request.steps.iter().find(|step| step.length > most) {
        let why = format!(
            "the output of step {} has {} bytes as its agent says, and {most} are kept of a step's output",
            step.step, step.length
        );
        return Err(ApiError::coded(StatusCode::PAYLOAD_TOO_LARGE, RefusalCode::TooLarge, why));
    }
    // A task that has ended is answered by the machine alone: nothing is looked for, and nothing is marked.
    let steps = task.would_take(Call::Other).then(|| request.steps.clone());
    let (blobs, id) = (state.blobs.clone(), task.id.clone());
    let outputs = blocking(move || {
        let Some(steps) = steps else { return Ok(None) };
        let mut outputs = FoundOutputs::default();
        for step in &steps {
            if step.sha256.is_empty() {
                // The mark is written when the machine has taken the call: what comes late might fill the hole.
                outputs.kept.push((step.step, blobs.outputs.hole(&id, step.step, step.length)?.kept));
                continue;
            }
            match blobs.outputs.check(&id, step.step, step.length, &step.sha256)? {
                Checked::Whole => {}
                Checked::Small(bytes) => outputs.small.push(SmallOutput { step: step.step, bytes }),
                Checked::From(offset) => outputs.missing.push((step.step, offset)),
            }
        }
        Ok(Some(outputs))
    });
    let (outputs, id, lease) = (outputs.await?, task.id.clone(), state.settings.lease());
    let small: Vec<u32> =
        outputs.iter().flat_map(|outputs| &outputs.small).map(|output| output.step).collect();
    let is_kept = |step: u32| outputs.iter().flat_map(|outputs| &outputs.kept).any(|(kept, _)| *kept == step);
    let holes: Vec<(u32, u64)> = request.steps.iter().map(|step| (step.step, step.length)).collect();
    let holes: Vec<(u32, u64)> = holes.into_iter().filter(|(step, _)| is_kept(*step)).collect();
    let answer =
        state.store.write(move |tx| task::finish(tx, &id, &request, outputs, lease, Millis::now())).await?;
    let answer = answer.map_err(|why| task.refused(why))?;
    if answer == FinishAnswer::Confirmed && !holes.is_empty() {
        let (blobs, id) = (state.blobs.clone(), task.id.clone());
        blocking(move || mark_holes(&blobs.outputs, &id, &holes)).await?;
    }
    if answer == FinishAnswer::Confirmed && !small.is_empty() {
        // Small outputs are rows by now. Nobody waits for their files to go; the sweep does what a stop cuts.
        let (blobs, id) = (state.blobs.clone(), task.id.clone());
        tokio::task::spawn_blocking(move || blobs.outputs.remove_files(&id, small));
    }
    Ok(Json(answer))
}

/// Says in outputs of a task that has ended, by step and whole length, what is missing of them.
fn mark_holes(outputs: &Outputs, id: &TaskId, holes: &[(u32, u64)]) -> Result<(), blobs::Error> {
    for &(step, length) in holes {
        let missing = outputs.end_with_hole(id, step, length)?;
        if missing > 0 {
            record!(Error, task_id = id, step = step, byte_count = missing;
                "output is missing that was stored here before"
            );
        }
    }
    Ok(())
}

/// Puts a task back that has not begun.
pub(super) async fn give_back(
    State(state): State<Shared>,
    task: Holder,
    Json(request): Json<GiveBack>,
) -> Answer<Json<GiveBackAnswer>> {
    if request.task_id != task.id {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "`task_id` is not the task of this token"));
    }
    let given = state.store.write(move |tx| task::give_back(tx, &request, Millis::now())).await?;
    Ok(Json(GiveBackAnswer { outcome: given.map_err(|why| task.refused(why))? }))
}

/// Ends a task that its runner could not start, as the public API has it.
pub(super) async fn fail(
    State(state): State<Shared>,
    task: Holder,
    Json(request): Json<Value>,
) -> Answer<Json<Value>> {
    use base64::Engine;
    let allocation = request["allocation"].as_str().map(str::to_owned);
    let message = request["message"].as_str().unwrap_or_default();
    let message = base64::engine::general_purpose::STANDARD
        .decode(message)
        .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "`message` is not base64"))?;
    let message = String::from_utf8_lossy(&message).into_owned();
    let id = task.id.clone();
    let fail = move |tx: &Tx<'_>| task::fail(tx, &id, allocation.as_deref(), &message, Millis::now());
    state.store.write(fail).await?.map_err(|why| match why {
        Denied::AnotherAllocation => ApiError::not_found("this allocation is not of the task of this token"),
        why => task.refused(why),
    })?;
    Ok(Json(json!({ "message": "recorded" })))
}
