//! Calls for what only a person can decide about tasks: those of a restored backup, and those whose agent is known to be gone.

use crate::protocol::TaskId;
use crate::server::api::shared::failure::{Answer, ApiError, conflict};
use crate::server::api::shared::input::{Path, message};
use crate::server::auth::{Administrator, Person};
use crate::server::engine::commit::clock::{self, HeldAnswer, HeldVerdict};
use crate::server::engine::commit::task;
use crate::server::ids::JobId;
use crate::server::state::Shared;
use crate::server::store::tables::tasks::{self, TaskRow};
use crate::server::time::Millis;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v3/runner/held-tasks", get(list))
        .route("/api/v3/runner/held-tasks/{id}/release", post(release))
        .route("/api/v3/runner/held-tasks/{id}/end", post(end))
        .route("/api/v3/jobs/{id}/release-anyway", post(release_anyway))
}

fn shown(row: &TaskRow) -> Value {
    json!({
        "id": row.id, "job_id": row.job, "node_index": row.node_index, "resource_class": row.resource_class,
        "status": row.status, "runner": row.runner_name, "queued_at": row.queued_at.to_string(),
    })
}

async fn list(State(state): State<Shared>, _admin: Administrator) -> Answer<Json<Value>> {
    let open = state.store.read(tasks::open).await?;
    let items: Vec<Value> = open.iter().filter(|row| row.is_held).map(shown).collect();
    Ok(Json(json!({ "items": items })))
}

async fn release(state: State<Shared>, _admin: Administrator, id: Path<TaskId>) -> Answer<Json<Value>> {
    decide(state, id, HeldVerdict::Release).await
}

async fn end(state: State<Shared>, _admin: Administrator, id: Path<TaskId>) -> Answer<Json<Value>> {
    decide(state, id, HeldVerdict::End).await
}

async fn decide(
    State(state): State<Shared>,
    Path(id): Path<TaskId>,
    verdict: HeldVerdict,
) -> Answer<Json<Value>> {
    let (lease, held) = (state.settings.lease(), id.clone());
    let decided = state.store.write(move |tx| clock::decide_held(tx, &held, verdict, lease, Millis::now()));
    match decided.await? {
        HeldAnswer::Done => Ok(message("Accepted.")),
        HeldAnswer::Unknown => Err(ApiError::not_found(format!("there is no task with the id `{id}`"))),
        HeldAnswer::NotHeld => Err(conflict(format!("the task `{id}` is not held: it goes on by itself"))),
        HeldAnswer::HadEnded(status) => {
            Err(conflict(format!("the task `{id}` is held no more: it has ended as `{status}`")))
        }
    }
}

async fn release_anyway(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<JobId>,
) -> Answer<Json<Value>> {
    let nothing = ApiError::not_found(format!("no agent of the job `{id}` is waited for"));
    let released = state.store.write(move |tx| task::release_anyway(tx, &id, Millis::now())).await?;
    if released > 0 { Ok(message("Accepted.")) } else { Err(nothing) }
}
