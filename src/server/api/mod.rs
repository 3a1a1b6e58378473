//! HTTP: one file per caller. Errors are `{"message", "code"?}` with a status that clients understand.

pub mod ours;
pub mod runner;
pub mod shared;
pub mod v1;
pub mod v2;
pub mod v3;

pub use crate::server::auth::{Administrator, Person};
pub use shared::failure::{Answer, Failure, blocking};

use crate::protocol::limits::BODY_BYTES;
use crate::protocol::{PREVIOUS_PROTOCOL_VERSION, PROTOCOL_HEADER, PROTOCOL_VERSION, RefusalCode};
use crate::server::auth::{self, ClassToken};
use crate::server::state::Shared;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Request, State};
use axum::http::{StatusCode, header, request::Parts};
use axum::middleware::{self, Next};
use axum::response::Response;
use base64::Engine;
use ours::{compile, inventory, operator, orchestration, results, watch};
use shared::{shape, slug, unread};
use std::sync::atomic::Ordering;
use v2::{contexts, people, projects, triggers, variables};

/// Builds the routes of all APIs.
pub fn router(state: Shared) -> axum::Router {
    let routes = axum::Router::new()
        .merge(runner::router())
        .merge(compile::router())
        .merge(orchestration::router())
        .merge(operator::router())
        .merge(inventory::router())
        .merge(results::router())
        .merge(v1::router())
        .merge(v2::router())
        .merge(v3::router())
        .merge(watch::router())
        .merge(people::router())
        .merge(projects::router())
        .merge(variables::router())
        .merge(contexts::router())
        .merge(triggers::router())
        .fallback(|| async { Failure::new(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn(shape::refusals))
        .layer(middleware::from_fn(unread::drain))
        .layer(middleware::from_fn_with_state(state.clone(), count))
        .with_state(state.clone());
    // A layer runs after the routing of its own router: slugs are rewritten by one around it.
    axum::Router::new().fallback_service(routes).layer(middleware::from_fn_with_state(state, slug::rewrite))
}

async fn count(State(state): State<Shared>, request: Request, next: Next) -> Response {
    state.requests.fetch_add(1, Ordering::Relaxed);
    next.run(request).await
}

/// The bearer token of a request.
pub fn bearer_of(parts: &Parts) -> Option<&str> {
    auth::bearer(parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?)
}

/// By any of the forms in which clients send a personal token.
impl FromRequestParts<Shared> for Person {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, Failure> {
        let mut tokens: Vec<String> = Vec::new();
        tokens.extend(bearer_of(parts).map(str::to_owned));
        tokens.extend(parts.headers.get("circle-token").and_then(|v| v.to_str().ok()).map(str::to_owned));
        let basic =
            parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()?.strip_prefix("Basic "));
        let decoded =
            basic.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text.trim()).ok());
        let user = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        tokens.extend(user.and_then(|pair| pair.split(':').next().map(str::to_owned)));
        let query = parts.uri.query().unwrap_or_default();
        tokens.extend(
            query.split('&').filter_map(|pair| pair.strip_prefix("circle-token=")).map(str::to_owned),
        );
        let found = state.store.read(move |view| Person::find(view, &tokens)).await?;
        found.ok_or_else(|| Failure::new(StatusCode::UNAUTHORIZED, "a valid personal token is needed here"))
    }
}

impl FromRequestParts<Shared> for Administrator {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, Failure> {
        let person = Person::from_request_parts(parts, state).await?;
        if person.is_admin {
            return Ok(Self(person));
        }
        let why = format!("only an administrator may do this, and `{}` is none: ask one", person.login);
        Err(Failure::new(StatusCode::FORBIDDEN, why))
    }
}

/// Also checks the protocol version.
impl FromRequestParts<Shared> for ClassToken {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, Failure> {
        check_protocol(parts)?;
        let token = bearer_of(parts).map(str::to_owned);
        let found = state.store.read(move |view| match token {
            Some(token) => ClassToken::find(view, &token),
            None => Ok(None),
        });
        found.await?.ok_or_else(no_class_token)
    }
}

/// 401 for runners.
pub fn no_class_token() -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, "a valid resource class token is needed here")
}

/// The protocol version of a runner. One that names none speaks the first.
#[derive(Clone, Copy, Debug)]
pub struct Protocol(pub u32);

impl<S: Send + Sync> FromRequestParts<S> for Protocol {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        check_protocol(parts).map(Self)
    }
}

/// The version that a runner speaks, if this control plane does. Those that name none are given the benefit of the
/// doubt.
pub fn check_protocol(parts: &Parts) -> Result<u32, Failure> {
    let Some(version) = parts.headers.get(PROTOCOL_HEADER) else { return Ok(PREVIOUS_PROTOCOL_VERSION) };
    let theirs: u32 = version.to_str().ok().and_then(|v| v.parse().ok()).unwrap_or(0);
    if (PREVIOUS_PROTOCOL_VERSION..=PROTOCOL_VERSION).contains(&theirs) {
        return Ok(theirs);
    }
    let side = if theirs < PROTOCOL_VERSION { "the runner" } else { "the control plane" };
    Err(Failure::coded(
        StatusCode::BAD_REQUEST,
        RefusalCode::ProtocolMismatch,
        format!("the runner speaks protocol {theirs}, this control plane {PROTOCOL_VERSION}: upgrade {side}"),
    ))
}
