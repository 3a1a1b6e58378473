//! Liveness, readiness and metrics, for the operator's tools. They need no token.

use crate::metrics::Page;
use crate::protocol::RefusalCode;
use crate::server::api::shared::failure::{Answer, ApiError, blocking};
use crate::server::figures::Histogram;
use crate::server::state::Shared;
use crate::server::store::tables::classes::{self, list_queue_lengths};
use crate::server::store::tables::fleet::{self, Fleet};
use crate::server::store::{Error, read};
use crate::server::time::Millis;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

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
        let fleets = fleets.collect::<Result<Vec<_>, Error>>()?;
        Ok((list_queue_lengths(view)?, fleets, read::database_bytes(view)?))
    });
    let (queues, fleets, database) = read.await?;
    let blobs = state.blobs.clone();
    let space = blocking(move || blobs.space()).await?;
    let figures = &state.figures;
    let mut page = Page::default();
    page.one("runlet_requests_total", "counter", "Calls since the start.", load(&figures.requests));
    let help = "Output of steps since the start.";
    page.one("runlet_output_bytes_total", "counter", help, load(&figures.output_bytes));
    page.head("runlet_tasks", "gauge", "Tasks that have not ended.");
    for queue in queues {
        let labels = [("resource_class", queue.class.as_str()), ("status", queue.state.as_str())];
        page.sample("runlet_tasks", &labels, queue.count);
    }
    let name = "runlet_ended_tasks_total";
    page.head(name, "counter", "Tasks that have ended since the start, by how; `retried` ones run again.");
    for (class, status, count) in figures.ended_tasks() {
        page.sample(name, &[("resource_class", class.as_str()), ("status", status)], count);
    }
    let gauges: [(&str, &str, OfClass); 3] = [
        ("runlet_oldest_wait_seconds", "Time for which the oldest task waits.", |fleet, now| {
            fleet.oldest.map_or(0, |oldest| now.since(oldest).as_secs())
        }),
        ("runlet_runners_online", "Runners that asked for work lately.", |fleet, _| fleet.online),
        ("runlet_class_paused", "1 for a class that is paused.", |fleet, _| u64::from(fleet.is_paused)),
    ];
    for (name, help, value) in gauges {
        page.head(name, "gauge", help);
        for (class, fleet) in &fleets {
            page.sample(name, &[("resource_class", class)], value(fleet, now));
        }
    }
    let help = "Calls that were not held, nor refused for their token, by the time they took.";
    histogram(&mut page, "runlet_request_duration_seconds", help, &figures.latencies);
    let help = "Tasks that a runner took, by the time they had waited.";
    histogram(&mut page, "runlet_task_wait_seconds", help, &figures.waits);
    let help = "Tasks that had begun and have ended, by the time they ran.";
    histogram(&mut page, "runlet_task_run_seconds", help, &figures.runs);
    page.one("runlet_data_free_bytes", "gauge", "Room left for the data folder.", space.free_bytes);
    page.one("runlet_data_size_bytes", "gauge", "Size of its file system.", space.total_bytes);
    page.one("runlet_database_size_bytes", "gauge", "Size of the database.", database);
    let help = "Bytes of uploads, as the last sweep of the data folder has found them.";
    page.head("runlet_stored_bytes", "gauge", help);
    for (kind, bytes) in figures.stored_bytes() {
        page.sample("runlet_stored_bytes", &[("kind", kind)], bytes);
    }
    Ok(page.text)
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn histogram(page: &mut Page, name: &str, help: &str, figures: &Histogram) {
    page.head(name, "histogram", help);
    let (classes, sum) = figures.read();
    let bucket = format!("{name}_bucket");
    for (end, count) in &classes {
        page.sample(&bucket, &[("le", end)], *count);
    }
    page.text.push_str(&format!("{name}_sum {sum}\n"));
    let all = classes.last().map_or(0, |(_, count)| *count);
    page.sample(&format!("{name}_count"), &[], all);
}
