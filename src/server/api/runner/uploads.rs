//! Files that a task agent stores: uploads in pieces, and the records that name them as artifacts or test results.

use crate::protocol::limits::UPLOAD_BYTES;
use crate::protocol::{
    ArtifactRecord, MAX_CHUNK_BYTES, RefusalCode, TestResultsRecord, TestTimings, UploadAnswer,
};
use crate::server::api::runner::holder::Holder;
use crate::server::api::runner::{Numbers, number};
use crate::server::api::{Answer, Failure, blocking};
use crate::server::engine::test_timings;
use crate::server::junit;
use crate::server::state::Shared;
use crate::server::store::new_id;
use crate::server::time::Millis;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use rusqlite::params;
use serde_json::{Value, json};
use std::io::Read;

/// Largest JUnit file that is parsed, in bytes.
const LARGEST_JUNIT: u64 = 64 * 1024 * 1024;

/// Tells where to continue an upload.
pub(super) async fn upload_offset(
    State(state): State<Shared>,
    task: Holder,
    Path((_, sha256)): Path<(String, String)>,
    query: Numbers,
) -> Answer<Json<UploadAnswer>> {
    let task = task.alive()?;
    let length = upload_length(&query)?;
    let (blobs, id) = (state.blobs.clone(), task.id.clone());
    let offset = blocking(move || blobs.upload_offset(&id, &sha256, length)).await?;
    Ok(Json(UploadAnswer { offset, cancel: task.canceled() }))
}

/// Stores a piece of an upload.
pub(super) async fn upload(
    State(state): State<Shared>,
    task: Holder,
    Path((_, sha256)): Path<(String, String)>,
    query: Numbers,
    bytes: Bytes,
) -> Answer<Json<UploadAnswer>> {
    let task = task.alive()?;
    let (length, offset) = (upload_length(&query)?, number(&query, "offset")?);
    debug_assert!(bytes.len() <= MAX_CHUNK_BYTES + 1024, "the router bounds bodies");
    let (blobs, id) = (state.blobs.clone(), task.id.clone());
    let offset = blocking(move || blobs.append_upload(&id, &sha256, length, offset, &bytes)).await?;
    Ok(Json(UploadAnswer { offset, cancel: task.canceled() }))
}

fn upload_length(query: &Numbers) -> Answer<u64> {
    let length = number(query, "length")?;
    check_length(length, UPLOAD_BYTES)
}

fn check_length(length: u64, limit: u64) -> Answer<u64> {
    if length > limit {
        let message = format!("{length} bytes are more than the {limit} that this control plane accepts");
        return Err(Failure::coded(StatusCode::PAYLOAD_TOO_LARGE, RefusalCode::TooLarge, message));
    }
    Ok(length)
}

/// Refuses to name an upload that is not complete.
pub(in crate::server::api) async fn complete(state: &Shared, sha256: &str, length: u64) -> Answer<()> {
    let (blobs, sha256) = (state.blobs.clone(), sha256.to_owned());
    if blocking(move || blobs.has_object(&sha256, length)).await? {
        return Ok(());
    }
    Err(Failure::coded(
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
    let task = task.alive()?;
    let path_is_safe =
        record.path.len() <= 4096 && record.path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !path_is_safe {
        return Err(Failure::new(
            StatusCode::BAD_REQUEST,
            format!("`{}` is not a path for an artifact", record.path),
        ));
    }
    check_length(record.length, state.settings.max_artifact_bytes)?;
    complete(&state, &record.sha256, record.length).await?;
    state
        .store
        .write(move |tx| {
            tx.prepare_cached(
                "INSERT OR REPLACE INTO artifacts (id, job_id, project_id, task_id, node_index, step, path, sha256, length, created_at_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![new_id(), task.job, task.project, task.id.as_str(), task.node(), record.step, record.path, record.sha256, record.length as i64, Millis::now()])?;
            Ok(())
        })
        .await?;
    Ok(Json(json!({})))
}

/// Names an upload as a file of test results, and parses it.
pub(super) async fn test_results(
    State(state): State<Shared>,
    task: Holder,
    Json(record): Json<TestResultsRecord>,
) -> Answer<Json<Value>> {
    let task = task.alive()?;
    complete(&state, &record.sha256, record.length).await?;
    let (blobs, sha256) = (state.blobs.clone(), record.sha256.clone());
    let parsed = blocking(move || {
        let file = blobs.open_object(&sha256)?;
        let mut xml = Vec::new();
        let read = file.take(LARGEST_JUNIT + 1).read_to_end(&mut xml);
        Ok(match read {
            Ok(n) if n as u64 > LARGEST_JUNIT => Err(format!("it is larger than {LARGEST_JUNIT} bytes")),
            Ok(_) => junit::parse(&xml),
            Err(error) => Err(error.to_string()),
        })
    })
    .await?;
    let (cases, message) = match parsed {
        Ok(cases) => (cases, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let answer = json!({ "tests": cases.len(), "message": message });
    state
        .store
        .write(move |tx| {
            let id = task.id.as_str();
            let stored = tx
                .prepare_cached("INSERT OR IGNORE INTO test_files (task_id, job_id, path, sha256, step, tests, message) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
                .execute(params![id, task.job, record.path, record.sha256, record.step, cases.len() as i64, message])?;
            // Named before: the answer was lost on the way, the cases are there.
            if stored == 0 {
                return Ok(());
            }
            for case in &cases {
                tx.prepare_cached(
                    "INSERT INTO test_results (job_id, task_id, path, name, classname, file, source, result, run_time, message)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?3, ?7, ?8, ?9)",
                )?
                .execute(params![task.job, id, record.path, case.name, case.classname, case.file, case.result, case.run_time, case.message])?;
            }
            if cases.is_empty() { Ok(()) } else { test_timings::stored(tx, task.job.as_str()) }
        })
        .await?;
    Ok(Json(answer))
}

/// Hands out the timings that the nodes of the job share their tests by.
pub(super) async fn test_timings(State(state): State<Shared>, task: Holder) -> Answer<Json<TestTimings>> {
    let task = task.alive()?;
    let found = state.store.read(move |c| test_timings::of_job(c, task.job.as_str())).await?;
    found.map(Json).ok_or_else(|| Failure::not_found("there are no test timings for this job"))
}
