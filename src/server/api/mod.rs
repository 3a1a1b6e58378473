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
    access, apps, audit, compile, connections, held, hooks, inventory, operator, orchestration, results,
    storage, tokens, watch,
};
use shared::failure::ApiError;
use shared::{shape, slug, speaker, unread};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use v2::{checkout_keys, contexts, people, projects, schedules, triggers, variables, webhooks};

/// A call that takes longer is told of in the log.
const SLOW: Duration = Duration::from_secs(2);

/// Builds the routes of all APIs.
pub fn router(state: Shared) -> axum::Router {
    let of_people = axum::Router::new()
        .merge(access::router())
        .merge(apps::router())
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
        .merge(tokens::router())
        .merge(v1::router())
        .merge(v2::router())
        .merge(v3::router())
        .merge(watch::router())
        .merge(people::router())
        .merge(projects::router())
        .merge(variables::router())
        .merge(schedules::router())
        .merge(webhooks::router())
        .merge(checkout_keys::router())
        .merge(contexts::router())
        .merge(triggers::router())
        .layer(middleware::from_fn_with_state(state.clone(), audit::write_down));
    let routes = of_people
        // No runner changes what is set up.
        .merge(runner::router())
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn_with_state(state.clone(), within))
        .with_state(state.clone());
    // A layer runs after the routing of its own router: slugs are rewritten by one around it.
    axum::Router::new().fallback_service(routes).layer(middleware::from_fn_with_state(state, around))
}

/// Measures every call whose path is as handlers know it: it is counted by the time it takes, and told of when
/// it is slow. One that asks to be held is not slow by that, nor one that is refused: the answer to a token that nobody has
/// comes late on purpose, and strangers take their time to send what nobody reads.
///
/// Each layer has a copy of what it wraps and a future of its own, and so has every call that is parked: there are few.
async fn within(State(state): State<Shared>, request: Request, next: Next) -> Response {
    state.figures.requests.fetch_add(1, Ordering::Relaxed);
    let is_held = request.uri().query().is_some_and(|query| query.contains("wait="));
    let call =
        (!is_held).then(|| (request.method().clone(), request.uri().path().to_owned(), Instant::now()));
    let around = |request| runner::tell(request, |request| shape::refusals(request, next));
    let response = unread::drain_after(request, around).await;
    let Some((method, path, started)) = call else { return response };
    let (took, status) = (started.elapsed(), response.status());
    if status == StatusCode::UNAUTHORIZED {
        return response;
    }
    state.figures.latencies.note(took);
    if took >= SLOW && !status.is_client_error() {
        record!(Warn, call = format_args!("{method} {path}"), took_ms = took.as_millis(), status = status.as_u16();
            "a call was slow"
        );
    }
    response
}

/// Prepares a call before it is routed, and completes every answer.
async fn around(State(state): State<Shared>, mut request: Request, next: Next) -> Response {
    slug::rewrite(&state, &mut request).await;
    let mut response = next.run(request).await;
    speaker::mark_answer(&mut response);
    response
}
