//! HTTP: one file per caller. Errors are `{"message", "code"?}` with a status that clients understand.

pub mod ours;
pub mod runner;
pub mod shared;
pub mod v1;
pub mod v2;
pub mod v3;

use crate::protocol::limits::BODY_BYTES;
use crate::protocol::{PREVIOUS_PROTOCOL_VERSION, PROTOCOL_HEADER, PROTOCOL_VERSION, Refusal, RefusalCode};
use crate::server::auth::{self, ClassToken};
pub use crate::server::auth::{Administrator, Person};
use crate::server::blobs;
use crate::server::state::Shared;
use crate::server::store::Error as StoreError;
use axum::Json;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Request, State};
use axum::http::{StatusCode, header, request::Parts};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use ours::{compile, inventory, operator, orchestration, results, watch};
use shared::{shape, slug, speaker, unread};
use std::sync::atomic::Ordering;
use v2::{contexts, people, projects, triggers, variables};

/// Everything that is served.
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
    axum::Router::new()
        .fallback_service(routes)
        .layer(middleware::from_fn_with_state(state, slug::rewrite))
        .layer(middleware::from_fn(speaker::mark))
}

async fn count(State(state): State<Shared>, request: Request, next: Next) -> Response {
    state.requests.fetch_add(1, Ordering::Relaxed);
    next.run(request).await
}

/// A refused call.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    refusal: Refusal,
}

impl Failure {
    /// A refusal with a message for people.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, refusal: Refusal::new(message) }
    }

    /// A refusal with a code for programs.
    pub fn coded(status: StatusCode, code: RefusalCode, message: impl Into<String>) -> Self {
        Self { status, refusal: Refusal::coded(code, message) }
    }

    /// 409 with the offset to send from.
    pub fn gap(offset: u64, message: impl Into<String>) -> Self {
        let refusal = Refusal { offset: Some(offset), ..Refusal::coded(RefusalCode::Gap, message) };
        Self { status: StatusCode::CONFLICT, refusal }
    }

    /// A refusal as it is sent.
    pub fn of(status: StatusCode, refusal: Refusal) -> Self {
        Self { status, refusal }
    }

    /// Says whether output and events are still taken.
    pub fn set_late(&mut self, late: bool) {
        self.refusal.late = late;
    }

    /// 404.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, what)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.refusal)).into_response()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace => {
                Self::coded(StatusCode::INSUFFICIENT_STORAGE, RefusalCode::NoSpace, error.to_string())
            }
            StoreError::Closed => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            error => {
                log::error!("{error}");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the control plane failed; its log says why")
            }
        }
    }
}

impl From<blobs::Error> for Failure {
    fn from(error: blobs::Error) -> Self {
        let message = error.to_string();
        match error {
            blobs::Error::Gap { stored } => Self::gap(stored, message),
            blobs::Error::Checksum => {
                Self::coded(StatusCode::UNPROCESSABLE_ENTITY, RefusalCode::Checksum, message)
            }
            blobs::Error::NoSpace => {
                Self::coded(StatusCode::INSUFFICIENT_STORAGE, RefusalCode::NoSpace, message)
            }
            blobs::Error::Invalid(_) => Self::new(StatusCode::BAD_REQUEST, message),
            blobs::Error::Io(_) => {
                log::error!("{message}");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the control plane failed; its log says why")
            }
        }
    }
}

/// What a handler answers.
pub type Answer<T> = Result<T, Failure>;

/// Runs blob work where blocking is allowed.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, blobs::Error> + Send + 'static,
) -> Answer<T> {
    let result = tokio::task::spawn_blocking(work).await;
    result
        .map_err(|_| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the control plane is stopping"))?
        .map_err(Failure::from)
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
