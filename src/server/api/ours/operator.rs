//! Liveness, readiness and metrics, for the operator's tools. They need no token.

use crate::protocol::RefusalCode;
use crate::server::api::shared::failure::{Answer, Failure, blocking};
use crate::server::state::Shared;
use crate::server::store::tables::classes::list_queue_lengths;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/live", get(|| async { Json(json!({ "status": "live" })) }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
}

async fn ready(State(state): State<Shared>) -> Answer<Json<Value>> {
    state.store.check().await?;
    if *state.stopping.borrow() {
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the control plane is stopping"));
    }
    if state.store.is_full() {
        return Err(full("a write has failed for lack of space, and none has succeeded since"));
    }
    let blobs = state.blobs.clone();
    let space = blocking(move || blobs.space()).await?;
    if space.is_low() {
        return Err(full(&format!("{} bytes and {} files are left", space.free_bytes, space.free_files)));
    }
    Ok(Json(json!({ "status": "ready" })))
}

fn full(why: &str) -> Failure {
    let message = format!("the disk of the control plane's data folder is full: {why}");
    Failure::coded(StatusCode::SERVICE_UNAVAILABLE, RefusalCode::NoSpace, message)
}

async fn metrics(State(state): State<Shared>) -> Answer<String> {
    let queues = state.store.read(list_queue_lengths).await?;
    let mut text = format!(
        "# TYPE runlet_requests_total counter\nrunlet_requests_total {}\n# TYPE runlet_output_bytes_total counter\nrunlet_output_bytes_total {}\n# TYPE runlet_tasks gauge\n",
        state.requests.load(Ordering::Relaxed),
        state.output_bytes.load(Ordering::Relaxed)
    );
    for queue in queues {
        text.push_str(&format!(
            "runlet_tasks{{resource_class=\"{}\",status=\"{}\"}} {}\n",
            queue.class, queue.state, queue.count
        ));
    }
    Ok(text)
}
