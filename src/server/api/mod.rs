//! HTTP: one file per caller. Errors are `{"message", "code"?}` with a status that clients understand.

pub mod ours;
pub mod runner;
pub mod shared;
pub mod v1;
pub mod v2;
pub mod v3;

use crate::logging::record;
use crate::protocol::limits::BODY_BYTES;
use crate::server::state::Shared;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use ours::{
    audit, compile, connections, held, hooks, inventory, operator, orchestration, results, storage, watch,
};
use shared::failure::Failure;
use shared::{shape, slug, speaker, unread};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use v2::{contexts, people, projects, schedules, triggers, variables, webhooks};

/// A call that takes longer is told of in the log.
const SLOW: Duration = Duration::from_secs(2);

/// Builds the routes of all APIs.
pub fn router(state: Shared) -> axum::Router {
    let routes = axum::Router::new()
        .merge(runner::router())
        .merge(audit::router())
        .merge(compile::router())
        .merge(connections::router())
        .merge(hooks::router())
        .merge(orchestration::router())
        .merge(operator::router())
        .merge(inventory::router())
        .merge(held::router())
        .merge(results::router())
        .merge(storage::router())
        .merge(v1::router())
        .merge(v2::router())
        .merge(v3::router())
        .merge(watch::router())
        .merge(people::router())
        .merge(projects::router())
        .merge(variables::router())
        .merge(schedules::router())
        .merge(webhooks::router())
        .merge(contexts::router())
        .merge(triggers::router())
        .fallback(|| async { Failure::new(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn_with_state(state.clone(), audit::write_down))
        .layer(middleware::from_fn(shape::refusals))
        .layer(middleware::from_fn(unread::drain))
        .layer(middleware::from_fn_with_state(state.clone(), measure))
        .with_state(state.clone());
    // A layer runs after the routing of its own router: slugs are rewritten by one around it.
    axum::Router::new()
        .fallback_service(routes)
        .layer(middleware::from_fn_with_state(state, slug::rewrite))
        .layer(middleware::from_fn(speaker::mark))
}

/// Counts calls by the time they take, and tells of slow ones. Those that ask to be held are not slow by that.
async fn measure(State(state): State<Shared>, request: Request, next: Next) -> Response {
    state.requests.fetch_add(1, Ordering::Relaxed);
    if request.uri().query().is_some_and(|query| query.contains("wait=")) {
        return next.run(request).await;
    }
    let (method, path, started) = (request.method().clone(), request.uri().path().to_owned(), Instant::now());
    let response = next.run(request).await;
    let took = started.elapsed();
    state.latencies.note(took);
    if took >= SLOW {
        record!(Warn, call = format_args!("{method} {path}"), took_ms = took.as_millis(), status = response.status().as_u16();
            "a call was slow"
        );
    }
    response
}
