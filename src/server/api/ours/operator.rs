//! Liveness, readiness and metrics, for the operator's tools. They need no token.

use crate::protocol::RefusalCode;
use crate::server::api::shared::failure::{Answer, ApiError, blocking};
use crate::server::state::Shared;
use crate::server::store::Error;
use crate::server::store::tables::classes::{self, list_queue_lengths};
use crate::server::store::tables::fleet::{self, Fleet};
use crate::server::time::Millis;
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
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the control plane is stopping"));
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

fn full(why: &str) -> ApiError {
    let message = format!("the disk of the control plane's data folder is full: {why}");
    ApiError::coded(StatusCode::SERVICE_UNAVAILABLE, RefusalCode::NoSpace, message)
}

/// A figure of a class.
type OfClass = fn(&Fleet, Millis) -> u64;

async fn metrics(State(state): State<Shared>) -> Answer<String> {
    let now = Millis::now();
    let read = state.store.read(move |view| {
        let fleets = classes::list_classes(view)?
            .into_iter()
            .map(|class| Ok((class.name, fleet::fleet(view, &class.id, now)?)));
        Ok((list_queue_lengths(view)?, fleets.collect::<Result<Vec<_>, Error>>()?))
    });
    let (queues, fleets) = read.await?;
    let blobs = state.blobs.clone();
    let space = blocking(move || blobs.space()).await?;
    let mut text = format!(
        "# HELP runlet_requests_total Calls since the start.\n# TYPE runlet_requests_total counter\nrunlet_requests_total {}\n# HELP runlet_output_bytes_total Output of steps since the start.\n# TYPE runlet_output_bytes_total counter\nrunlet_output_bytes_total {}\n# HELP runlet_tasks Tasks that have not ended.\n# TYPE runlet_tasks gauge\n",
        state.requests.load(Ordering::Relaxed),
        state.output_bytes.load(Ordering::Relaxed)
    );
    for queue in queues {
        text.push_str(&format!(
            "runlet_tasks{{resource_class=\"{}\",status=\"{}\"}} {}\n",
            queue.class, queue.state, queue.count
        ));
    }
    let gauges: [(&str, &str, OfClass); 3] = [
        ("runlet_oldest_wait_seconds", "Time for which the oldest task waits.", |fleet, now| {
            fleet.oldest.map_or(0, |oldest| now.since(oldest).as_secs())
        }),
        ("runlet_runners_online", "Runners that asked for work lately.", |fleet, _| fleet.online),
        ("runlet_class_paused", "1 for a class that is paused.", |fleet, _| u64::from(fleet.is_paused)),
    ];
    for (name, help, value) in gauges {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
        for (class, fleet) in &fleets {
            text.push_str(&format!("{name}{{resource_class=\"{class}\"}} {}\n", value(fleet, now)));
        }
    }
    let (classes, sum) = state.latencies.read();
    let name = "runlet_request_duration_seconds";
    text.push_str(&format!(
        "# HELP {name} Calls that were not held, nor refused for their token, by the time they took.\n# TYPE {name} histogram\n"
    ));
    for (end, count) in &classes {
        text.push_str(&format!("{name}_bucket{{le=\"{end}\"}} {count}\n"));
    }
    let count = classes.last().map_or(0, |(_, count)| *count);
    text.push_str(&format!("{name}_sum {sum}\n{name}_count {count}\n"));
    for (name, help, value) in [
        ("runlet_data_free_bytes", "Room left for the data folder.", space.free_bytes),
        ("runlet_data_size_bytes", "Size of its file system.", space.total_bytes),
    ] {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"));
    }
    Ok(text)
}
