//! What jobs left, as bytes: output of steps, artifacts; and the addresses under which clients find them.

use crate::protocol::{Secret, TaskId};
use crate::server::api::shared::input::Words;
use crate::server::api::v2::one;
use crate::server::api::{Answer, Failure, Person, blocking};
use crate::server::secrets::sealer::Place;
use crate::server::state::{Shared, now_ms, timestamp};
use crate::server::store::View;
use crate::server::store::read::{self, Artifact, EXTENT, Extent};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::{OptionalExtension, Row, params};
use serde_json::{Value, json};

/// An address of output that needs no token works this long: 1 hour.
const LINK_MS: u64 = 60 * 60 * 1000;
/// Most output that one answer holds, in bytes.
const MOST_OUTPUT: usize = 256 << 20;
/// Lines of a condensed output.
const CONDENSED_LINES: usize = 100;

/// The paths.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v3/jobs/{id}/stdout", get(stdout))
        .route("/api/v3/jobs/{id}/stderr", get(stderr))
        .route("/api/v3/jobs/{id}/stdout/condensed", get(condensed))
        .route("/api/v3/artifacts/{id}", get(artifact))
        .route("/api/v1.1/output/{link}", get(linked_output))
        .route("/api/private/output/raw/{vcs}/{org}/{repo}/{number}/{stream}/{node}/{step}", get(raw))
}

/// Where an artifact is fetched from, with a token.
pub fn artifact_url(state: &Shared, artifact: &Artifact) -> String {
    format!("{}/api/v3/artifacts/{}", state.settings.public_url, artifact.id)
}

/// An address of the output of a step that needs no token, for a while.
pub fn output_url(state: &Shared, task: &str, step: u32) -> Answer<String> {
    let claim = Secret::new(format!("{task} {step} {}", now_ms() + LINK_MS));
    let sealed = state
        .settings
        .sealer
        .seal(Place::Link, &claim)
        .map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(format!("{}/api/v1.1/output/{}", state.settings.public_url, URL_SAFE_NO_PAD.encode(sealed)))
}

/// One step of the newest attempt of a node.
struct Output {
    task: TaskId,
    step: u32,
}

async fn output_of(state: &Shared, job: String, words: &Words) -> Answer<(Output, Extent)> {
    let wanted = |name: &str| match words.get(name) {
        None => Ok(0),
        Some(text) => text.parse::<u32>().map_err(|_| {
            Failure::new(StatusCode::BAD_REQUEST, format!("`{name}` must be a number, not `{text}`"))
        }),
    };
    let (execution, step) = (wanted("filter[execution]")?, wanted("filter[step_num]")?);
    let what = format!("there is no step {step} in execution {execution} of the job `{job}`");
    let read = move |c: &View| {
        let mut query = c.prepare_cached(&format!(
            "SELECT t.id, {EXTENT} FROM tasks t JOIN steps s ON s.task_id = t.id
             WHERE t.job_id = (SELECT coalesce(reused_from, id) FROM jobs WHERE id = ?1)
                AND t.node_index = ?2 AND s.step = ?3 ORDER BY t.attempt DESC LIMIT 1",
        ))?;
        let row = |row: &Row<'_>| Ok((row.get(0)?, Extent::from_row(row, 1)?));
        Ok(query.query_row(params![job, execution, step], row).optional()?)
    };
    let (task, extent): (String, Extent) = one(state, what, read).await?;
    Ok((Output { task: task_id(task)?, step }, extent))
}

fn task_id(text: String) -> Answer<TaskId> {
    TaskId::new(text).map_err(|e| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

async fn bytes_of(state: &Shared, output: &Output, from: u64) -> Answer<Vec<u8>> {
    let (blobs, task, step) = (state.blobs.clone(), output.task.clone(), output.step);
    blocking(move || blobs.outputs.read(&task, step, from, MOST_OUTPUT)).await
}

async fn length_of(state: &Shared, output: &Output) -> Answer<u64> {
    let (blobs, task, step) = (state.blobs.clone(), output.task.clone(), output.step);
    blocking(move || Ok(blobs.outputs.length(&task, step))).await
}

fn text(bytes: Vec<u8>) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, bytes).into_response()
}

/// `Range: bytes=N-` continues, also at the very end; `X-Terminal` says that the step has ended and that
/// nothing comes after these bytes.
async fn stdout(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
    words: Words,
    headers: HeaderMap,
) -> Answer<Response> {
    let (output, extent) = output_of(&state, id, &words).await?;
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let from: u64 = from.unwrap_or(0);
    // In this order: what was complete when it was looked at is among the bytes that are read afterwards.
    let stored = length_of(&state, &output).await?;
    let bytes = bytes_of(&state, &output, from).await?;
    let is_last = from.saturating_add(bytes.len() as u64) >= stored;
    let mut response = text(bytes);
    if is_last && extent.is_complete(stored) {
        response.headers_mut().insert("x-terminal", HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Both streams of a step are one here, in the order in which they were written: this one is empty.
async fn stderr(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
    words: Words,
) -> Answer<Response> {
    output_of(&state, id, &words).await?;
    Ok(text(Vec::new()))
}

/// The end of the output, which is where failures say what they are.
async fn condensed(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
    words: Words,
) -> Answer<Response> {
    let (output, _) = output_of(&state, id, &words).await?;
    let length = length_of(&state, &output).await?;
    let bytes = bytes_of(&state, &output, length.saturating_sub(1 << 20)).await?;
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|&b| b == b'\n').rev().take(CONDENSED_LINES).collect();
    lines.reverse();
    Ok(text(lines.concat()))
}

/// The shape that scripts for version 1.1 read: pieces of output whose messages make the whole.
async fn linked_output(State(state): State<Shared>, Path(link): Path<String>) -> Answer<Json<Value>> {
    let refused =
        || Failure::not_found("this address of an output is not valid any more: ask for the build again");
    let sealed = URL_SAFE_NO_PAD.decode(&link).map_err(|_| refused())?;
    let claim = state.settings.sealer.open(Place::Link, &sealed).map_err(|_| refused())?;
    let mut words = claim.expose().split(' ');
    let (Some(task), Some(step), Some(until)) = (words.next(), words.next(), words.next()) else {
        return Err(refused());
    };
    let (step, until): (u32, u64) =
        (step.parse().map_err(|_| refused())?, until.parse().map_err(|_| refused())?);
    if now_ms() > until {
        return Err(refused());
    }
    let output = Output { task: task_id(task.to_owned())?, step };
    let bytes = bytes_of(&state, &output, 0).await?;
    if bytes.is_empty() {
        return Ok(Json(json!([])));
    }
    let message = String::from_utf8_lossy(&bytes);
    Ok(Json(json!([{ "type": "out", "time": timestamp(now_ms() as i64), "message": message }])))
}

/// Raw output by number, for a client that takes any JSON apart: as a JSON string it is always a text.
async fn raw(
    State(state): State<Shared>,
    _person: Person,
    Path((vcs, org, repo, number, stream, node, step)): Path<(String, String, String, i64, String, u32, u32)>,
) -> Answer<Json<Value>> {
    let job = crate::server::api::v2::job_of(&state, (vcs, org, repo, number)).await?;
    let what = format!("there is no step {step} in run {node} of job {number}");
    let attempts = state.store.read(move |c| read::attempts(c, &job.ran_as)).await?;
    let attempt = attempts.into_iter().find(|attempt| attempt.node_index == node);
    let known = attempt.filter(|attempt| attempt.steps.iter().any(|row| row.step == step));
    let attempt = known.ok_or_else(|| Failure::not_found(what))?;
    if stream != "output" {
        return Ok(Json(json!("")));
    }
    let output = Output { task: task_id(attempt.task)?, step };
    let bytes = bytes_of(&state, &output, 0).await?;
    Ok(Json(json!(String::from_utf8_lossy(&bytes))))
}

async fn artifact(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer<Response> {
    let what = format!("there is no artifact `{id}`");
    let read = move |c: &View| {
        let mut query = c.prepare_cached("SELECT sha256, length, path FROM artifacts WHERE id = ?1")?;
        Ok(query.query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?)
    };
    let (sha256, length, path): (String, u64, String) = one(&state, what, read).await?;
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let from: Option<u64> =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let start = from.unwrap_or(0);
    if from.is_some() && start >= length {
        let headers = [(header::CONTENT_RANGE, format!("bytes */{length}"))];
        let refused =
            Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, format!("the artifact has {length} bytes"));
        return Ok((headers, refused).into_response());
    }
    let blobs = state.blobs.clone();
    let mut file = tokio::fs::File::from_std(blocking(move || blobs.objects.open(&sha256)).await?);
    if start > 0 {
        use tokio::io::AsyncSeekExt;
        let sought = file.seek(std::io::SeekFrom::Start(start)).await;
        sought
            .map_err(|e| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to read: {e}")))?;
    }
    let stream = futures_util::stream::try_unfold(file, |mut file| async move {
        use tokio::io::AsyncReadExt;
        let mut buffer = bytes::BytesMut::with_capacity(256 * 1024);
        let n = file.read_buf(&mut buffer).await?;
        Ok::<_, std::io::Error>((n > 0).then(|| (buffer.freeze(), file)))
    });
    // Never rendered in the browser: artifacts are whatever jobs make.
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, (length - start).to_string()),
        (header::CONTENT_DISPOSITION, disposition(&path)),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ];
    let mut response = (headers, Body::from_stream(stream)).into_response();
    if from.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {start}-{}/{length}", length - 1);
        if let Ok(range) = HeaderValue::from_str(&range) {
            response.headers_mut().insert(header::CONTENT_RANGE, range);
        }
    }
    Ok(response)
}

/// The last part of the name, in the form that holds any character.
fn disposition(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    let mut encoded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("attachment; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_downloads_break_out_of_nothing() {
        assert_eq!(disposition("a/b/report.xml"), "attachment; filename*=UTF-8''report.xml");
        assert_eq!(
            disposition("x/\"; evil=\r\nü"),
            "attachment; filename*=UTF-8''%22%3B%20evil%3D%0D%0A%C3%BC"
        );
    }
}
