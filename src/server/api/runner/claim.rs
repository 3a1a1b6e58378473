//! Calls with the token of a resource class: claiming tasks, and saying that one is lost.

use crate::protocol::limits::WORD_BYTES;
use crate::protocol::{CLAIMED_HEADER, ClaimRequest, LostTask, Refusal, RefusalCode, RestAnswer};
use crate::server::api::runner::holder::refused;
use crate::server::api::runner::query::{Numbers, wait_of};
use crate::server::api::shared::callers::{ProtocolVersion, no_class_token};
use crate::server::api::shared::failure::{Answer, ApiError};
use crate::server::api::shared::input::Path;
use crate::server::auth::ClassToken;
use crate::server::auth::PeerAddress;
use crate::server::engine::claim::{self, Claimed, Claimer, HandedOut, Look};
use crate::server::engine::commit::rest;
use crate::server::engine::commit::task::{self, NotLost};
use crate::server::engine::handout::Description;
use crate::server::engine::task::Denied;
use crate::server::pipelines::forge::access::open_task;
use crate::server::state::Shared;
use crate::server::time::Millis;
use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// Hands out a task, at once or when one comes up.
pub(super) async fn claim(
    State(state): State<Shared>,
    token: ClassToken,
    ProtocolVersion(protocol): ProtocolVersion,
    ConnectInfo(PeerAddress(peer)): ConnectInfo<PeerAddress>,
    query: Numbers,
    Json(request): Json<ClaimRequest>,
) -> Answer<Response> {
    check(&request)?;
    if let Some(wanted) = request.resource_class.as_ref().filter(|wanted| **wanted != token.class) {
        let why = format!(
            "the token is of the resource class `{}`, but the runner is set up for `{wanted}`",
            token.class
        );
        return Err(ApiError::new(StatusCode::FORBIDDEN, why));
    }
    let deadline = Instant::now() + wait_of(&query);
    let notify = state.hub.class(&token.class);
    let claimer = Claimer { token, request, protocol, ip: peer.ip().to_string() };
    let mut look = Look::First;
    loop {
        // Registered before looking, so that a task that arrives in between is not missed.
        let woken = notify.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let (claimer, settings) = (claimer.clone(), state.settings.clone());
        let claimed = state.store.write(move |tx| {
            // The token may have been deleted while this claim was parked.
            if !claimer.token.is_there(tx)? {
                return Ok(None);
            }
            claim::claim(tx, &claimer, look, &settings, Millis::now()).map(Some)
        });
        let claimed = claimed.await?;
        look = Look::Again;
        let again_at = match claimed {
            Some(Claimed::Task(HandedOut { described, claimed })) => {
                let headers = [("Content-Type", "application/json"), (CLAIMED_HEADER, &claimed)];
                return Ok((headers, whole(&state, described).await?).into_response());
            }
            Some(Claimed::Holds(held)) => {
                // The task that woke this claim, if one did, is for another one.
                notify.notify_one();
                let what = if held.ended { "has ended" } else { "has begun" };
                let message =
                    format!("this nonce got the task `{}` before, which {what}: draw another", held.id);
                let refusal =
                    Refusal { task: Some(Box::new(held)), ..Refusal::coded(RefusalCode::HoldsTask, message) };
                return Err(ApiError::of(StatusCode::CONFLICT, refusal));
            }
            Some(Claimed::Nothing { again_at }) => again_at,
            Some(Claimed::Outdated) => {
                // The task that woke this claim is for another one.
                notify.notify_one();
                return Ok(StatusCode::NO_CONTENT.into_response());
            }
            None => {
                // The task that woke this claim is for another one.
                notify.notify_one();
                return Err(no_class_token());
            }
        };
        let again = again_at.map(|at| Instant::now() + at.since(Millis::now()) + Duration::from_millis(1));
        let look_again = again.map_or(deadline, |again| again.min(deadline));
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep_until(look_again) => {
                if look_again == deadline {
                    return Ok(StatusCode::NO_CONTENT.into_response());
                }
            }
            () = state.stopped() => return Ok(StatusCode::NO_CONTENT.into_response()),
        }
    }
}

/// A task as JSON, with the token for git that is got for it now, if it needs one.
pub(super) async fn whole(state: &Shared, described: Description) -> Answer<Vec<u8>> {
    Ok(match described.unopened {
        None => described.text,
        Some(unopened) => open_task(state, *unopened).await?,
    })
}

/// Refuses a claim whose words are kept with the runner, and are longer than any runner's.
fn check(request: &ClaimRequest) -> Answer<()> {
    let needed = [("name", &request.name), ("nonce", &request.nonce)];
    let facts = [&request.hostname, &request.version, &request.os, &request.arch];
    let ids = [&request.machine_id, &request.boot_id].into_iter().flatten();
    if let Some((name, _)) = needed.iter().find(|(_, word)| !(1..=WORD_BYTES).contains(&word.len())) {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, format!("`{name}` has 1 to {WORD_BYTES} bytes")));
    }
    if facts.into_iter().chain(ids).any(|word| word.len() > WORD_BYTES) || request.takes.len() > WORD_BYTES {
        let why = format!("what a claim says of its runner has at most {WORD_BYTES} bytes each");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, why));
    }
    Ok(())
}

/// Ends a task, or puts it back, because its agent is gone.
pub(super) async fn lost(
    State(state): State<Shared>,
    token: ClassToken,
    ProtocolVersion(protocol): ProtocolVersion,
    Path(path): Path<String>,
    Json(request): Json<LostTask>,
) -> Answer<Json<Value>> {
    is_of_path(&path, &request)?;
    let (id, is_named) = (request.id.clone(), request.allocation.is_some());
    let lost = state.store.write(move |tx| task::lost(tx, &token.class, &request, Millis::now()));
    match lost.await? {
        Ok(()) => Ok(Json(json!({}))),
        // Runners of protocol 1 check their token by a task that is not there.
        Err(NotLost::Unknown) if protocol < 2 => Ok(Json(json!({}))),
        Err(NotLost::Unknown) => {
            Err(ApiError::not_found(format!("there is no task `{id}` of the resource class of this token")))
        }
        Err(NotLost::Refused(Denied::AnotherAllocation)) if !is_named => {
            let why = "`allocation` is missing: only a claim of protocol 1 is lost without it";
            Err(ApiError::new(StatusCode::BAD_REQUEST, why))
        }
        Err(NotLost::Refused(why)) => Err(refused(why)),
    }
}

/// Two ids in one call are a mistake, and either could be the wrong one.
fn is_of_path(path: &str, request: &LostTask) -> Answer<()> {
    match request.id.as_str() == path {
        true => Ok(()),
        false => Err(ApiError::new(StatusCode::BAD_REQUEST, "`id` is not the task of this path")),
    }
}

/// Hands out a token for sending what a task agent that is gone has left.
pub(super) async fn rest(
    State(state): State<Shared>,
    token: ClassToken,
    Path(path): Path<String>,
    Json(request): Json<LostTask>,
) -> Answer<Json<RestAnswer>> {
    is_of_path(&path, &request)?;
    let (id, sealer) = (request.id.clone(), state.settings.sealer.clone());
    let token =
        state.store.write(move |tx| rest::token_for(tx, &token.class, &request, &sealer, Millis::now()));
    match token.await? {
        Ok(token) => Ok(Json(RestAnswer { token })),
        Err(NotLost::Unknown) => {
            Err(ApiError::not_found(format!("there is no task `{id}` of the resource class of this token")))
        }
        Err(NotLost::Refused(why)) => Err(refused(why)),
    }
}
