//! Files that a task agent stores: uploads in pieces, and the records that name them as artifacts.

use crate::protocol::limits::{ARTIFACT_PATH_BYTES, UPLOAD_BYTES};
use crate::protocol::{ArtifactRecord, MAX_CHUNK_BYTES, RefusalCode, UploadAnswer};
use crate::server::api::runner::holder::Holder;
use crate::server::api::runner::query::{Numbers, number};
use crate::server::api::shared::failure::{Answer, ApiError, blocking};
use crate::server::api::shared::input::Path;
use crate::server::engine::task::{Call, Passed};
use crate::server::state::Shared;
use crate::server::store::tables::results;
use crate::server::time::Millis;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

/// Tells where to continue an upload.
pub(super) async fn upload_offset(
    State(state): State<Shared>,
    task: Holder,
    Path((_, sha256)): Path<(String, String)>,
    query: Numbers,
) -> Answer<Json<UploadAnswer>> {
    let task = task.alive(&state).await?;
    let length = upload_length(&query)?;
    let (blobs, id) = (state.blobs.clone(), task.id.clone());
    let offset = blocking(move || blobs.objects.offset(&id, &sha256, length)).await?;
    let Passed { cancel, .. } = task.took(&state, Call::Other).await?;
    Ok(Json(UploadAnswer { offset, cancel }))
}

/// Stores a piece of an upload.
pub(super) async fn upload(
    State(state): State<Shared>,
    task: Holder,
    Path((_, sha256)): Path<(String, String)>,
    query: Numbers,
    bytes: Bytes,
) -> Answer<Json<UploadAnswer>> {
    let task = task.alive(&state).await?;
    let (length, offset) = (upload_length(&query)?, number(&query, "offset")?);
    debug_assert!(bytes.len() <= MAX_CHUNK_BYTES + 1024, "the router bounds bodies");
    let (blobs, id) = (state.blobs.clone(), task.id.clone());
    let offset = blocking(move || blobs.objects.append(&id, &sha256, length, offset, &bytes)).await?;
    let Passed { cancel, .. } = task.took(&state, Call::Other).await?;
    Ok(Json(UploadAnswer { offset, cancel }))
}

fn upload_length(query: &Numbers) -> Answer<u64> {
    let length = number(query, "length")?;
    check_length(length, UPLOAD_BYTES)
}

fn check_length(length: u64, limit: u64) -> Answer<u64> {
    if length > limit {
        let message = format!("{length} bytes are more than the {limit} that this control plane accepts");
        return Err(ApiError::coded(StatusCode::PAYLOAD_TOO_LARGE, RefusalCode::TooLarge, message));
    }
    Ok(length)
}

/// Refuses to name an upload that is not complete.
pub(in crate::server::api) async fn complete(state: &Shared, sha256: &str, length: u64) -> Answer<()> {
    let (blobs, sha256) = (state.blobs.clone(), sha256.to_owned());
    if blocking(move || blobs.objects.has(&sha256, length)).await? {
        return Ok(());
    }
    Err(ApiError::coded(
        StatusCode::UNPROCESSABLE_ENTITY,
        RefusalCode::Checksum,
        "this upload is not complete",
    ))
}

/// Names an upload as an artifact.
pub(super) async fn artifact(
    State(state): State<Shared>,
    task: Holder,
    Json(record): Json<ArtifactRecord>,
) -> Answer<Json<Value>> {
    let task = task.alive(&state).await?;
    let path_is_safe = record.path.len() <= ARTIFACT_PATH_BYTES
        && record.path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !path_is_safe {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            format!("`{}` is not a path for an artifact", record.path),
        ));
    }
    check_length(record.length, state.settings.max_artifact_bytes)?;
    complete(&state, &record.sha256, record.length).await?;
    let (id, job, project, node) = (task.id.clone(), task.job.clone(), task.project.clone(), task.node());
    task.writes(&state, move |tx| {
        let place = results::ArtifactPlace { job: &job, project: &project, task: &id, node };
        results::insert_artifact(tx, place, &record, Millis::now())
    })
    .await?;
    Ok(Json(json!({})))
}
