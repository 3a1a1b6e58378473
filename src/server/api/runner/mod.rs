//! What runners and task agents call: docs/protocol.md.

mod archives;
mod claim;
mod holder;
mod task;
mod test_results;
mod uploads;

pub(super) use holder::Holder;
pub(super) use uploads::complete;

use crate::server::api::{Answer, Failure};
use crate::server::state::Shared;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::routing::{get, patch, post};
use axum::{Router, middleware};
use std::collections::HashMap;
use std::time::Duration;

/// Longest time that a claim or a heartbeat is held, in seconds.
const LONGEST_WAIT: u64 = 55;

/// The paths.
pub fn router() -> Router<Shared> {
    let task = "/api/v3/runner/tasks/{id}";
    Router::new()
        .route("/api/v3/runner/claim", post(claim::claim))
        .route(&format!("{task}/lost"), post(claim::lost))
        .route(&format!("{task}/begin"), post(task::begin))
        .route(&format!("{task}/heartbeat"), post(task::heartbeat))
        .route(&format!("{task}/steps/{{step}}/output"), patch(task::output))
        .route(&format!("{task}/events"), post(task::events))
        .route(&format!("{task}/finish"), post(task::finish))
        .route("/api/v3/runner/unclaim", post(task::give_back))
        .route("/api/v2/task/event/fail", post(task::fail))
        .route(&format!("{task}/uploads/{{sha256}}"), get(uploads::upload_offset).patch(uploads::upload))
        .route(&format!("{task}/artifacts"), post(uploads::artifact))
        .merge(archives::router())
        .merge(test_results::router())
        .layer(middleware::from_fn(holder::tell))
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
