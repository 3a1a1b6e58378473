//! Bytes that jobs left: output of steps, artifacts. They are streamed from their files.

use crate::protocol::TaskId;
use crate::server::api::shared::failure::{Answer, ApiError, blocking};
use crate::server::api::shared::input::{self, Path, QueryWords};
use crate::server::api::shared::lookup::{job_of, one};
use crate::server::api::shared::range::{self, Wanted};
use crate::server::api::shared::{download, link, stream};
use crate::server::auth::Person;
use crate::server::blobs::Stretch;
use crate::server::ids::{ArtifactId, JobId};
use crate::server::state::Shared;
use crate::server::store::View;
use crate::server::store::read::{self, StepOutput};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Most lines of a condensed output.
const CONDENSED_LINES: usize = 100;
/// Most bytes of a condensed output.
const CONDENSED_BYTES: u64 = 1 << 20;

/// Headers of output: text, whatever a browser would make of it.
const PLAIN: [(HeaderName, &str); 2] =
    [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v3/jobs/{id}/stdout", get(stdout))
        .route("/api/v3/jobs/{id}/stderr", get(stderr))
        .route("/api/v3/jobs/{id}/stdout/condensed", get(condensed))
        .route("/api/v3/artifacts/{id}", get(artifact_by_id))
        .route("/api/v3/artifacts/{id}/{*path}", get(artifact_by_path))
        .route("/api/v1.1/output/{link}", get(linked_output))
        .route("/api/private/output/raw/{vcs}/{org}/{repo}/{number}/{stream}/{node}/{step}", get(raw))
}

/// Finds the step of a job that a query names.
async fn output_of(state: &Shared, job: JobId, words: &QueryWords) -> Answer<StepOutput> {
    let wanted = |name: &str| match words.get(name) {
        None => Ok(0),
        Some(text) => input::number::<u32>(name, text),
    };
    input::check_query(
        words,
        "the output of a step",
        &["filter[execution]", "filter[step_num]", "timestamps"],
    )?;
    let (execution, step) = (wanted("filter[execution]")?, wanted("filter[step_num]")?);
    let what = format!("there is no step {step} in execution {execution} of the job `{job}`");
    let output = one(state, what, move |view| read::step_output(view, &job, execution, step)).await?;
    if output.is_gone {
        let why = "this output is older than the control plane keeps it, and has been removed";
        return Err(ApiError::new(StatusCode::GONE, why));
    }
    Ok(output)
}

async fn open(state: &Shared, task: TaskId, step: u32) -> Answer<Stretch> {
    let blobs = state.blobs.clone();
    blocking(move || blobs.outputs.open(&task, step)).await
}

/// A response of text from an offset of a file to before another.
fn text(stretch: Stretch, from: u64, end: u64) -> Response {
    let length = [(header::CONTENT_LENGTH, end.saturating_sub(from).to_string())];
    (PLAIN, length, stream::between(stretch, from, end)).into_response()
}

fn json(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// `timestamps=true` has the lines begin with the times at which they came; then there are no ranges. A range that begins
/// at the end or after it is an empty 200: clients that follow the output ask for what is not there
/// yet. `X-Terminal` says that the step has ended and that nothing comes after these bytes.
async fn stdout(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<JobId>,
    words: QueryWords,
    headers: HeaderMap,
) -> Answer<Response> {
    // In this order: all that was complete when it was looked at is in the file that is opened afterwards.
    let StepOutput { task, step, extent, .. } = output_of(&state, id, &words).await?;
    if input::flag(&words, "timestamps")? {
        let times = stream::output_times(&state, &task, step).await?;
        return Ok((PLAIN, stream::stamped(open(&state, task, step).await?, times)).into_response());
    }
    let stretch = open(&state, task, step).await?;
    let length = stretch.length();
    let mut end = length;
    let mut response = match range::wanted(&headers, length, None) {
        Wanted::Whole => text(stretch, 0, length),
        Wanted::Outside => text(stretch, length, length),
        Wanted::Part(from, before) => {
            end = before;
            let named = [(header::CONTENT_RANGE, range::content_range(Some((from, before)), length))];
            (StatusCode::PARTIAL_CONTENT, named, text(stretch, from, before)).into_response()
        }
    };
    if end == length && extent.is_complete(length) {
        response.headers_mut().insert("x-terminal", HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Both streams of a step are one here, in the order in which they were written: this one is empty.
async fn stderr(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<JobId>,
    words: QueryWords,
) -> Answer<Response> {
    output_of(&state, id, &words).await?;
    Ok((PLAIN, Body::empty()).into_response())
}

/// The end of the output, which is where failures say what they are.
async fn condensed(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<JobId>,
    words: QueryWords,
) -> Answer<Response> {
    let StepOutput { task, step, .. } = output_of(&state, id, &words).await?;
    let blobs = state.blobs.clone();
    let (stretch, from) = blocking(move || {
        let stretch = blobs.outputs.open(&task, step)?;
        let from = stretch.tail(CONDENSED_LINES, CONDENSED_BYTES)?;
        Ok((stretch, from))
    })
    .await?;
    let end = stretch.length();
    Ok(text(stretch, from, end))
}

/// The shape that scripts for version 1.1 read: pieces of output whose messages make the whole. It is one piece here, with the
/// time at which its step began.
async fn linked_output(State(state): State<Shared>, Path(link): Path<String>) -> Answer<Response> {
    let (task, step) = link::open(&state, &link).ok_or_else(|| {
        ApiError::not_found("this address of an output is not valid any more: ask for the build again")
    })?;
    let of = task.clone();
    let began = state.store.read(move |view| read::step_started_at(view, &of, step)).await?;
    let stretch = open(&state, task, step).await?;
    let Some(began) = began.filter(|_| stretch.length() > 0) else { return Ok(json(Body::from("[]"))) };
    let after = format!(r#"","time":"{began}","type":"out"}}]"#);
    Ok(json(stream::in_json(stretch, r#"[{"message":""#.to_owned(), after)))
}

/// Raw output by number, for a client that takes any JSON apart: as a JSON string it is always a text.
async fn raw(
    State(state): State<Shared>,
    _person: Person,
    Path((vcs, org, repo, number, stream, node, step)): Path<(String, String, String, i64, String, u32, u32)>,
) -> Answer<Response> {
    let job = job_of(&state, (vcs, org, repo, number)).await?;
    let what = format!("there is no step {step} in run {node} of job {number}");
    let attempts = state.store.read(move |view| read::attempts(view, &job.ran_as)).await?;
    let attempt = attempts.into_iter().find(|attempt| attempt.node_index == node);
    let known = attempt.filter(|attempt| attempt.steps.iter().any(|row| row.step == step));
    let attempt = known.ok_or_else(|| ApiError::not_found(what))?;
    if stream != "output" {
        return Ok(json(Body::from(r#""""#)));
    }
    let stretch = open(&state, attempt.task, step).await?;
    Ok(json(stream::in_json(stretch, "\"".to_owned(), "\"".to_owned())))
}

async fn artifact_by_id(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<ArtifactId>,
    headers: HeaderMap,
) -> Answer<Response> {
    artifact(&state, id, None, &headers).await
}

/// The address that lists give: its last segment is the name under which clients save the file.
async fn artifact_by_path(
    State(state): State<Shared>,
    _person: Person,
    Path((id, path)): Path<(ArtifactId, String)>,
    headers: HeaderMap,
) -> Answer<Response> {
    artifact(&state, id, Some(path), &headers).await
}

async fn artifact(
    state: &Shared,
    id: ArtifactId,
    path: Option<String>,
    headers: &HeaderMap,
) -> Answer<Response> {
    let what = match &path {
        Some(path) => format!("there is no artifact `{id}` with the path `{path}`"),
        None => format!("there is no artifact `{id}`"),
    };
    let of = id.clone();
    let read = move |view: &View| {
        let found = read::artifact_content(view, &of)?;
        Ok(found.filter(|content| path.is_none_or(|path| path == content.path)))
    };
    let content = one(state, what, read).await?;
    download::artifact(state, id, content, headers).await
}
