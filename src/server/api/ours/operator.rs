//! What the operator's tools call: liveness, readiness, metrics. No token.

use crate::server::api::{Answer, Failure};
use crate::server::state::Shared;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

/// The paths.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/live", get(|| async { Json(json!({ "status": "live" })) }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
}

async fn ready(State(state): State<Shared>) -> Answer<Json<Value>> {
    state.store.read(|c| Ok(c.query_row("SELECT 1", [], |_| Ok(()))?)).await?;
    if *state.stopping.borrow() {
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the control plane is stopping"));
    }
    Ok(Json(json!({ "status": "ready" })))
}

async fn metrics(State(state): State<Shared>) -> Answer<String> {
    let queues: Vec<(String, String, i64)> = state
        .store
        .read(|c| {
            let mut query = c.prepare_cached(
                "SELECT resource_class, status, count(*) FROM tasks WHERE status IN ('queued', 'running') GROUP BY 1, 2",
            )?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await?;
    let mut text = format!(
        "# TYPE runlet_requests_total counter\nrunlet_requests_total {}\n# TYPE runlet_output_bytes_total counter\nrunlet_output_bytes_total {}\n# TYPE runlet_tasks gauge\n",
        state.requests.load(Ordering::Relaxed),
        state.output_bytes.load(Ordering::Relaxed)
    );
    for (class, status, count) in queues {
        text.push_str(&format!("runlet_tasks{{resource_class=\"{class}\",status=\"{status}\"}} {count}\n"));
    }
    Ok(text)
}
