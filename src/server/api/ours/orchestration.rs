//! Calls that move pipelines on: reruns and continuation; and the settings of projects that decide about it.

use crate::protocol::limits::CONFIG_BYTES;
use crate::server::api::shared::acts::run_again;
use crate::server::api::shared::failure::{Answer, ApiError, bad};
use crate::server::api::shared::input::{JsonBody, Path, message};
use crate::server::auth::{Administrator, Person};
use crate::server::engine::commit::RerunScope;
use crate::server::ids::{JobId, ProjectId, WorkflowId};
use crate::server::pipelines::continuation::{self, Continuation};
use crate::server::pipelines::forge::report::warnings as warnings_of;
use crate::server::pipelines::forge::rules::check_settings;
use crate::server::state::Shared;
use crate::server::store::tables::projects::{self, ProjectSettings};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v2/workflow/{id}/rerun", post(rerun_v2))
        .route("/api/v3/workflows/{id}/rerun", post(rerun_v3))
        .route("/api/v3/projects/{id}/settings", get(settings))
        .route("/api/v3/projects/{id}/update-settings", post(update_settings))
        .route(
            "/api/v2/pipeline/continue",
            post(continue_pipeline).layer(DefaultBodyLimit::max(CONFIG_BYTES)),
        )
}

/// Checks a body of a rerun that may be absent or null, which asks for all; `known` are the names that it may have. One
/// that asks for something else must not run everything again.
fn check_wishes(body: &JsonBody, known: &[&str]) -> Answer<()> {
    if !body.0.is_null() && !body.0.is_object() {
        return Err(bad("the body must be an object, or absent to run everything again"));
    }
    body.check_names("a rerun", known)
}

/// The jobs that a rerun names, if it names any.
fn named(wishes: &JsonBody) -> Answer<Option<Vec<JobId>>> {
    let list = match wishes.0.get("jobs") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(bad("`jobs` must be a list of the ids of jobs")),
    };
    if list.is_empty() {
        return Err(bad(
            "`jobs` names no job: name at least one by its id, or leave it out to run everything again",
        ));
    }
    let id = |job: &Value| {
        job.as_str().map(JobId::from).ok_or_else(|| bad(format!("`jobs` has ids of jobs, not `{job}`")))
    };
    list.iter().map(id).collect::<Answer<_>>().map(Some)
}

async fn rerun_v2(
    State(state): State<Shared>,
    person: Person,
    Path(id): Path<WorkflowId>,
    wishes: JsonBody,
) -> Answer<Response> {
    // A published client misspells the second.
    check_wishes(&wishes, &["from_failed", "fromFailed", "jobs", "sparse_tree", "enable_ssh", "force"])?;
    if wishes.is_set("enable_ssh")? {
        return Err(bad("reruns with SSH are not available on this control plane: leave `enable_ssh` out"));
    }
    let is_from_failed = wishes.is_set("from_failed")? || wishes.is_set("fromFailed")?;
    let is_sparse = wishes.is_set("sparse_tree")?;
    let scope = match (is_from_failed, named(&wishes)?) {
        (true, Some(_)) => {
            return Err(bad("`from_failed` and `jobs` exclude each other: give one of them"));
        }
        (_, None) if is_sparse => return Err(bad("`sparse_tree` needs `jobs`: name the jobs to run again")),
        (true, None) => RerunScope::Failed,
        (false, Some(jobs)) => RerunScope::Jobs(jobs),
        (false, None) => RerunScope::All,
    };
    let id = run_again(&state, id, scope, wishes.is_set("force")?, person).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "workflow_id": id }))).into_response())
}

async fn rerun_v3(
    State(state): State<Shared>,
    person: Person,
    Path(id): Path<WorkflowId>,
    wishes: JsonBody,
) -> Answer<Response> {
    check_wishes(&wishes, &["is_from_failed", "force"])?;
    let scope = if wishes.is_set("is_from_failed")? { RerunScope::Failed } else { RerunScope::All };
    let id = run_again(&state, id, scope, wishes.is_set("force")?, person).await?;
    let location = [(header::LOCATION, format!("/api/v3/workflows/{id}"))];
    Ok((StatusCode::CREATED, location, Json(json!({ "data": { "id": id } }))).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ContinueRequest {
    continuation_key: String,
    configuration: String,
    #[serde(default)]
    parameters: Option<BTreeMap<String, Value>>,
}

/// Continues a pipeline. The key alone authorises: the scripts that call this have no other token.
async fn continue_pipeline(State(state): State<Shared>, body: JsonBody) -> Answer<Json<Value>> {
    body.check_names("a continuation", &["continuation-key", "configuration", "parameters"])?;
    let request: ContinueRequest = serde_json::from_value(body.0).map_err(|e| {
        bad(format!("the body is not what is expected (continuation-key, configuration, parameters): {e}"))
    })?;
    let request = Continuation {
        key: request.continuation_key,
        configuration: request.configuration,
        parameters: request.parameters.unwrap_or_default(),
    };
    use continuation::NoContinuation;
    continuation::continue_pipeline(&state, request).await.map_err(|refused| match refused {
        NoContinuation::Store(error) => ApiError::from(error),
        NoContinuation::NoOrbs(_) => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, refused.to_string()),
        NoContinuation::UnknownKey => ApiError::new(StatusCode::NOT_FOUND, refused.to_string()),
        _ => bad(refused.to_string()),
    })?;
    Ok(message("Accepted."))
}

/// Settings that this control plane does not act on are refused rather than stored without effect.
fn shown(settings: ProjectSettings) -> Json<Value> {
    Json(json!({ "data": { "attributes": settings } }))
}

/// Settings with some of them changed; the refusal names what is wrong.
fn changed(settings: &ProjectSettings, changes: &Map<String, Value>) -> Answer<ProjectSettings> {
    let Ok(Value::Object(mut all)) = serde_json::to_value(settings) else { return Err(ApiError::internal()) };
    let known: Vec<String> = all.keys().cloned().collect();
    for (name, value) in changes {
        let Some(place) = all.get_mut(name) else {
            return Err(bad(format!(
                "the setting `{name}` is not available on this control plane (available: {})",
                known.join(", ")
            )));
        };
        let fits = match (&*place, value) {
            (Value::Array(_), Value::Array(items)) => items.iter().all(Value::is_string),
            (Value::Bool(_), Value::Bool(_)) | (Value::String(_), Value::String(_)) => true,
            _ => false,
        };
        if !fits {
            let what = match place {
                Value::Bool(_) => "true or false",
                Value::Array(_) => "a list of strings",
                _ => "a string",
            };
            return Err(bad(format!("`{name}` must be {what}")));
        }
        *place = value.clone();
    }
    let settings = serde_json::from_value(Value::Object(all)).map_err(|error| bad(error.to_string()))?;
    check_settings(&settings).map_err(bad)?;
    Ok(settings)
}

fn unknown_project(id: &ProjectId) -> ApiError {
    ApiError::not_found(format!("there is no project `{id}`"))
}

async fn settings(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<ProjectId>,
) -> Answer<Json<Value>> {
    let unknown = unknown_project(&id);
    let found = state.store.read(move |view| projects::settings(view, &id)).await?;
    found.map(shown).ok_or(unknown)
}

async fn update_settings(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(id): Path<ProjectId>,
    body: JsonBody,
) -> Answer<Json<Value>> {
    let changes = body.0.as_object().ok_or_else(|| bad("the body must be an object of settings"))?;
    // Values that are wrong are so for every project.
    changed(&ProjectSettings::default(), changes)?;
    let (unknown, changes) = (unknown_project(&id), changes.clone());
    let changed = state.store.write(move |tx| {
        let Some(settings) = projects::settings(tx, &id)? else { return Ok(None) };
        let Ok(settings) = changed(&settings, &changes) else { return Ok(None) };
        projects::set_settings(tx, &id, &settings)?;
        Ok(Some((settings, warnings_of(tx, &id)?)))
    });
    let (settings, warnings) = changed.await?.ok_or(unknown)?;
    let Json(mut answer) = shown(settings);
    if !warnings.is_empty() {
        answer["warnings"] = json!(warnings);
    }
    Ok(Json(answer))
}
