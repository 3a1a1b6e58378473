//! A pipeline as it happens, for people's terminals and pages: `GET /api/v3/runs/{id}/events`, a stream of
//! server-sent events of what [`watch`] tells.

use crate::protocol::WatchEvent;
use crate::server::api::shared::failure::{Answer, ApiError};
use crate::server::api::shared::input::Path;
use crate::server::auth::Person;
use crate::server::ids::{PersonalTokenId, PipelineId};
use crate::server::live::watch::{self, Notification};
use crate::server::state::Shared;
use crate::server::store::read;
use crate::server::store::tables::people;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::watch::Receiver;

/// Most bytes of output in one event of the stream.
const CHUNK_BYTES: usize = 256 * 1024;
/// A comment this often keeps proxies from closing a quiet stream.
const QUIET: Duration = Duration::from_secs(15);

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new().route("/api/v3/runs/{id}/events", get(events))
}

async fn events(State(state): State<Shared>, person: Person, Path(id): Path<PipelineId>) -> Answer<Response> {
    let pipeline = id.clone();
    if !state.store.read(move |view| read::is_pipeline(view, &pipeline)).await? {
        return Err(ApiError::not_found(format!("there is no pipeline `{id}`")));
    }
    let client = Client {
        revoked: state.hub.revoked(),
        told: watch::follow(state.clone(), id, CHUNK_BYTES),
        state,
        token: person.token,
    };
    let stream = futures_util::stream::unfold(client, |mut client| async move {
        let bytes = client.next().await?;
        Some((Ok::<_, Infallible>(bytes), client))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// The client at the other end of a stream.
struct Client {
    state: Shared,
    /// The personal token by which they called; the stream ends with it.
    token: PersonalTokenId,
    revoked: Receiver<()>,
    told: mpsc::Receiver<Notification>,
}

impl Client {
    /// The next piece of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                biased;
                changed = self.revoked.changed() => {
                    changed.ok()?;
                    let token = self.token.clone();
                    if !self.state.store.read(move |view| people::is_token(view, &token)).await.ok()? {
                        return None;
                    }
                }
                told = self.told.recv() => return told.map(encode),
                () = tokio::time::sleep(QUIET) => return Some(Bytes::from_static(b": quiet\n\n")),
            }
        }
    }
}

fn encode(told: Notification) -> Bytes {
    let Notification { mut event, output } = told;
    if let WatchEvent::Output { data, .. } = &mut event {
        *data = base64::engine::general_purpose::STANDARD.encode(&output);
    }
    Bytes::from(format!("data: {}\n\n", serde_json::to_string(&event).unwrap_or_default()))
}
