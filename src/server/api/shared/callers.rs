//! Handlers get whoever calls as an argument: a person, an administrator, a runner by its resource class token.

use crate::protocol::{PREVIOUS_PROTOCOL_VERSION, PROTOCOL_HEADER, PROTOCOL_VERSION, RefusalCode};
use crate::server::api::shared::failure::{Answer, ApiError};
use crate::server::auth::{self, Administrator, ClassToken, PeerAddress, Person};
use crate::server::clients::AcceptedConnection;
use crate::server::state::Shared;
use crate::server::store::tables::tasks::TaskRow;
use crate::server::store::{Error as StoreError, View};
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::{HeaderValue, StatusCode, header, request::Parts};
use base64::Engine;
use std::hash::Hash;
use std::sync::Arc;

/// The bearer token of a request.
pub fn bearer_of(parts: &Parts) -> Option<&str> {
    auth::bearer(parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?)
}

/// The record that a token is looked up to.
pub trait Holding {
    /// The holder of the connections that show it: further tokens of one person or class are no further holder.
    fn holder(&self) -> impl Hash;
}

impl Holding for Person {
    fn holder(&self) -> impl Hash {
        &self.id
    }
}

impl Holding for ClassToken {
    fn holder(&self) -> impl Hash {
        &self.class_id
    }
}

impl Holding for TaskRow {
    fn holder(&self) -> impl Hash {
        &self.id
    }
}

/// Looks for the holder of the first of these tokens that has one. The connection is known from then on; the answer to
/// tokens of which none has a holder comes late.
pub async fn holder_of<T: Holding + Send + 'static>(
    parts: &Parts,
    state: &Shared,
    tokens: Vec<String>,
    find: impl FnOnce(&View, &[String]) -> Result<Option<T>, StoreError> + Send + 'static,
) -> Answer<Option<T>> {
    if tokens.is_empty() {
        return Ok(None);
    }
    let found = state.store.look_up(move |view| find(view, &tokens)).await?;
    let connection = parts.extensions.get::<Arc<AcceptedConnection>>();
    match (connection, &found) {
        (Some(connection), Some(found)) => connection.set_known(&found.holder()),
        (Some(connection), None) => connection.set_refused(),
        (None, _) => {}
    }
    if found.is_some() {
        return Ok(found);
    }
    if let Some(ConnectInfo(PeerAddress(client))) = parts.extensions.get::<ConnectInfo<PeerAddress>>() {
        state.refusals.refused(client.ip()).await;
    }
    Ok(found)
}

/// Finds the person by any of the forms in which clients send a personal token.
impl FromRequestParts<Shared> for Person {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, ApiError> {
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        let authorization = parts.headers.get(header::AUTHORIZATION).and_then(text).unwrap_or_default();
        let mut tokens: Vec<String> = Vec::new();
        tokens.extend(auth::bearer(&authorization).map(str::to_owned));
        tokens.extend(parts.headers.get("circle-token").and_then(text));
        let basic = auth::credentials(&authorization, "Basic");
        let decoded = basic.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
        let user = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        tokens.extend(user.and_then(|pair| pair.split(':').next().map(str::to_owned)));
        if !authorization.is_empty() && !authorization.contains(' ') {
            // A client sends the token without a scheme.
            tokens.push(authorization);
        }
        let query = parts.uri.query().unwrap_or_default();
        tokens.extend(
            query.split('&').filter_map(|pair| pair.strip_prefix("circle-token=")).map(str::to_owned),
        );
        let found = holder_of(parts, state, tokens, Person::find).await?;
        found.ok_or_else(|| ApiError::new(StatusCode::UNAUTHORIZED, "a valid personal token is needed here"))
    }
}

impl FromRequestParts<Shared> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, ApiError> {
        let person = Person::from_request_parts(parts, state).await?;
        if person.is_admin {
            return Ok(Self(person));
        }
        let why = format!("only an administrator may do this, and `{}` is none: ask one", person.login);
        Err(ApiError::new(StatusCode::FORBIDDEN, why))
    }
}

/// Also checks the protocol version.
impl FromRequestParts<Shared> for ClassToken {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, ApiError> {
        check_protocol(parts)?;
        let tokens = bearer_of(parts).map(str::to_owned).into_iter().collect();
        let found = holder_of(parts, state, tokens, |view, tokens| match tokens.first() {
            Some(token) => ClassToken::find(view, token),
            None => Ok(None),
        });
        found.await?.ok_or_else(no_class_token)
    }
}

/// 401 for runners.
pub fn no_class_token() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "a valid resource class token is needed here")
}

/// The protocol version of a runner. One that names none speaks the first.
#[derive(Clone, Copy, Debug)]
pub struct ProtocolVersion(pub u32);

impl<S: Send + Sync> FromRequestParts<S> for ProtocolVersion {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        check_protocol(parts).map(Self)
    }
}

/// The version that a runner speaks, if this control plane does. Those that name none are given the benefit of the
/// doubt.
pub fn check_protocol(parts: &Parts) -> Result<u32, ApiError> {
    let Some(version) = parts.headers.get(PROTOCOL_HEADER) else { return Ok(PREVIOUS_PROTOCOL_VERSION) };
    let theirs: u32 = version.to_str().ok().and_then(|v| v.parse().ok()).unwrap_or(0);
    if (PREVIOUS_PROTOCOL_VERSION..=PROTOCOL_VERSION).contains(&theirs) {
        return Ok(theirs);
    }
    let side = if theirs < PROTOCOL_VERSION { "the runner" } else { "the control plane" };
    Err(ApiError::coded(
        StatusCode::BAD_REQUEST,
        RefusalCode::ProtocolMismatch,
        format!("the runner speaks protocol {theirs}, this control plane {PROTOCOL_VERSION}: upgrade {side}"),
    ))
}
