//! Calls of runners and task agents: docs/protocol.md.

mod about;
mod archives;
mod beside;
mod claim;
mod holder;
mod query;
mod task;
mod test_results;
mod uploads;

pub(in crate::server::api) use self::holder::tell;

use crate::server::state::Shared;
use axum::Router;
use axum::routing::{get, patch, post};

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    let task = "/api/v3/runner/tasks/{id}";
    Router::new()
        .route("/api/v3/runner/self", post(about::about))
        .route("/api/v3/runner/claim", post(claim::claim))
        .route(&format!("{task}/lost"), post(claim::lost))
        .route(&format!("{task}/rest"), post(claim::rest))
        .route(task, get(task::fetch))
        .route(&format!("{task}/beside/{{n}}"), post(beside::beside))
        .route(&format!("{task}/begin"), post(task::begin))
        .route(&format!("{task}/heartbeat"), post(task::heartbeat))
        .route(&format!("{task}/steps/{{step}}/output"), patch(task::output))
        .route(&format!("{task}/events"), post(task::events))
        .route(&format!("{task}/stopped"), post(task::stopped))
        .route(&format!("{task}/finish"), post(task::finish))
        .route("/api/v3/runner/unclaim", post(task::give_back))
        .route("/api/v2/task/event/fail", post(task::fail))
        .route(&format!("{task}/uploads/{{sha256}}"), get(uploads::upload_offset).patch(uploads::upload))
        .route(&format!("{task}/artifacts"), post(uploads::artifact))
        .merge(archives::router())
        .merge(test_results::router())
}
