//! Deliveries of forges to the address of a project. Whoever sends them is believed by their signature only.

use crate::server::api::shared::failure::ApiError;
use crate::server::api::shared::input::Path;
use crate::server::ids::ProjectId;
use crate::server::pipelines::forge::receive::{self, MOST_BODY_BYTES, Received, Refused};
use crate::server::state::Shared;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new().route("/api/v3/hooks/{project}", post(take))
}

/// The address that a forge sends the deliveries of a project to.
pub fn address(public_url: &str, project: &ProjectId) -> String {
    format!("{public_url}/api/v3/hooks/{project}")
}

async fn take(State(state): State<Shared>, Path(project): Path<ProjectId>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let length: Option<usize> =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|text| text.to_str().ok()?.parse().ok());
    let body = match length {
        Some(length) if length > MOST_BODY_BYTES => None,
        _ => to_bytes(body, MOST_BODY_BYTES).await.ok(),
    };
    let Some(body) = body else {
        let why = format!("its body is longer than {MOST_BODY_BYTES} bytes, or was cut off");
        receive::note_refused(&state, &project, "", "", Refused::stranger(413, why.clone())).await;
        return answer(Received { status: 413, message: why, pipelines: Vec::new() });
    };
    answer(receive::receive(&state, &project, &parts.headers, &body).await)
}

fn answer(received: Received) -> Response {
    let status = StatusCode::from_u16(received.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if !status.is_success() {
        return ApiError::new(status, received.message).into_response();
    }
    (status, Json(json!({ "message": received.message, "pipelines": received.pipelines }))).into_response()
}
