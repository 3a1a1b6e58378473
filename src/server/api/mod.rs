//! HTTP: one file per caller. Errors are `{"message", "code"?}` with a status that clients understand.

pub mod ours;
pub mod runner;
pub mod shared;
pub mod v1;
pub mod v2;
pub mod v3;

pub use shared::failure::{Answer, Failure, blocking};

use crate::protocol::{PREVIOUS_PROTOCOL_VERSION, PROTOCOL_HEADER, PROTOCOL_VERSION, RefusalCode};
use crate::server::state::{Shared, token_hash};
use crate::server::store::{Error as StoreError, View};
use axum::extract::{DefaultBodyLimit, FromRequestParts, Request, State};
use axum::http::{StatusCode, header, request::Parts};
use axum::middleware::{self, Next};
use axum::response::Response;
use base64::Engine;
use ours::{compile, inventory, operator, orchestration, results, watch};
use runner::{archives, test_results};
use rusqlite::{OptionalExtension, Row};
use shared::{shape, slug, unread};
use std::sync::atomic::Ordering;
use v2::{contexts, people, projects, triggers, variables};

/// Everything that is served.
pub fn router(state: Shared) -> axum::Router {
    let routes = axum::Router::new()
        .merge(runner::router())
        .merge(archives::router())
        .merge(test_results::router())
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
        .layer(DefaultBodyLimit::max(crate::protocol::MAX_CHUNK_BYTES + 1024))
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
pub fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::trim)
}

/// A person, by any of the forms in which clients send a personal token.
#[derive(Clone, Debug)]
pub struct Person {
    /// UUID.
    pub id: String,
    /// Login.
    pub login: String,
    /// May change what is set up.
    pub is_admin: bool,
    /// UUID of the token that was shown.
    pub token: String,
}

impl FromRequestParts<Shared> for Person {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, Failure> {
        let mut tokens: Vec<String> = Vec::new();
        tokens.extend(bearer(parts).map(str::to_owned));
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
        let hashes: Vec<_> = tokens.iter().map(|token| token_hash(token)).collect();
        let found = state
            .store
            .read(move |c| {
                for hash in hashes {
                    let mut query = c.prepare_cached(
                        "SELECT users.id, login, is_admin, t.id FROM personal_tokens t JOIN users ON users.id = user_id
                         WHERE hash = ?1",
                    )?;
                    let row = |row: &Row<'_>| {
                        Ok(Person {
                            id: row.get(0)?,
                            login: row.get(1)?,
                            is_admin: row.get(2)?,
                            token: row.get(3)?,
                        })
                    };
                    let person = query.query_row([hash], row).optional()?;
                    if person.is_some() {
                        return Ok(person);
                    }
                }
                Ok(None)
            })
            .await?;
        found.ok_or_else(|| Failure::new(StatusCode::UNAUTHORIZED, "a valid personal token is needed here"))
    }
}

/// A person who may change what is set up: resource classes, projects, secrets, people.
#[derive(Clone, Debug)]
pub struct Administrator(pub Person);

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

/// A runner, by its resource class token; also checks the protocol version.
#[derive(Clone, Debug)]
pub struct ClassToken {
    /// UUID of the token.
    pub id: String,
    /// UUID of the class.
    pub class_id: String,
    /// `namespace/name`.
    pub class: String,
}

impl FromRequestParts<Shared> for ClassToken {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, Failure> {
        check_protocol(parts)?;
        let hash = bearer(parts).map(token_hash);
        let found = state
            .store
            .read(move |c| {
                let Some(hash) = hash else { return Ok(None) };
                Ok(c.prepare_cached(
                    "SELECT t.id, r.id, r.name FROM resource_class_tokens t JOIN resource_classes r ON r.id = t.resource_class_id WHERE t.hash = ?1",
                )?
                .query_row([hash], |row| Ok(ClassToken { id: row.get(0)?, class_id: row.get(1)?, class: row.get(2)? }))
                .optional()?)
            })
            .await?;
        found.ok_or_else(Self::refusal)
    }
}

impl ClassToken {
    /// Whether it has not been deleted since the call began.
    pub fn is_there(&self, c: &View) -> Result<bool, StoreError> {
        Ok(c.prepare_cached("SELECT 1 FROM resource_class_tokens WHERE id = ?1")?.exists([&self.id])?)
    }

    /// 401.
    pub fn refusal() -> Failure {
        Failure::new(StatusCode::UNAUTHORIZED, "a valid resource class token is needed here")
    }
}

/// Refuses runners of another protocol version; those that name none are given the benefit of the doubt.
pub fn check_protocol(parts: &Parts) -> Result<(), Failure> {
    let Some(version) = parts.headers.get(PROTOCOL_HEADER) else { return Ok(()) };
    let theirs: u32 = version.to_str().ok().and_then(|v| v.parse().ok()).unwrap_or(0);
    if (PREVIOUS_PROTOCOL_VERSION..=PROTOCOL_VERSION).contains(&theirs) {
        return Ok(());
    }
    let side = if theirs < PROTOCOL_VERSION { "the runner" } else { "the control plane" };
    Err(Failure::coded(
        StatusCode::BAD_REQUEST,
        RefusalCode::ProtocolMismatch,
        format!("the runner speaks protocol {theirs}, this control plane {PROTOCOL_VERSION}: upgrade {side}"),
    ))
}
