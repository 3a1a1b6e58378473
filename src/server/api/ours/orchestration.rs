//! What moves pipelines on from outside: reruns and continuation; and the settings that decide about it.

use crate::protocol::MAX_CHUNK_BYTES;
use crate::server::api::shared::input::{Body, bad};
use crate::server::api::{Administrator, Answer, Failure, Person};
use crate::server::engine::commit::{self, Refused, Scope};
use crate::server::pipelines::continuation::{self, Continuation};
use crate::server::state::{Shared, now_ms};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use rusqlite::{OptionalExtension, params};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The routes.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v2/workflow/{id}/rerun", post(rerun_v2))
        .route("/api/v3/workflows/{id}/rerun", post(rerun_v3))
        .route("/api/v3/projects/{id}/settings", get(settings))
        .route("/api/v3/projects/{id}/update-settings", post(update_settings))
        .route(
            "/api/v2/pipeline/continue",
            post(continue_pipeline).layer(DefaultBodyLimit::max(4 * MAX_CHUNK_BYTES)),
        )
}

/// An optional JSON body: nothing and `null` are the default.
fn optional<T: DeserializeOwned + Default>(bytes: &Bytes) -> Answer<T> {
    if bytes.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    let parsed: Option<T> = serde_json::from_slice(bytes).map_err(|e| {
        Failure::new(StatusCode::BAD_REQUEST, format!("the body is not what is expected: {e}"))
    })?;
    Ok(parsed.unwrap_or_default())
}

#[derive(Debug, Default, Deserialize)]
struct RerunV2 {
    // A published client misspells it.
    #[serde(default, alias = "fromFailed")]
    from_failed: Option<bool>,
    #[serde(default)]
    jobs: Option<Vec<String>>,
    #[serde(default)]
    enable_ssh: Option<bool>,
}

async fn rerun_v2(
    State(state): State<Shared>,
    person: Person,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Answer<Response> {
    let request: RerunV2 = optional(&bytes)?;
    if request.enable_ssh == Some(true) {
        let message = "reruns with SSH are not available on this control plane: leave `enable_ssh` out";
        return Err(Failure::new(StatusCode::BAD_REQUEST, message));
    }
    let jobs = request.jobs.filter(|jobs| !jobs.is_empty());
    let scope = match (request.from_failed.unwrap_or(false), jobs) {
        (true, Some(_)) => {
            let message = "`from_failed` and `jobs` exclude each other: give one of them";
            return Err(Failure::new(StatusCode::BAD_REQUEST, message));
        }
        (true, None) => Scope::Failed,
        (false, Some(jobs)) => Scope::Jobs(jobs),
        (false, None) => Scope::All,
    };
    let id = run_again(&state, person, id, scope).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "workflow_id": id }))).into_response())
}

#[derive(Debug, Default, Deserialize)]
struct RerunV3 {
    #[serde(default)]
    is_from_failed: Option<bool>,
}

async fn rerun_v3(
    State(state): State<Shared>,
    person: Person,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Answer<Response> {
    let request: RerunV3 = optional(&bytes)?;
    let scope = if request.is_from_failed == Some(true) { Scope::Failed } else { Scope::All };
    let id = run_again(&state, person, id, scope).await?;
    let location = [(header::LOCATION, format!("/api/v3/workflows/{id}"))];
    Ok((StatusCode::CREATED, location, Json(json!({ "data": { "id": id } }))).into_response())
}

async fn run_again(state: &Shared, person: Person, id: String, scope: Scope) -> Answer<String> {
    let made =
        state.store.write(move |tx| commit::rerun(tx, &id, &scope, Some(&person.id), now_ms())).await?;
    made.map_err(|refused| {
        let status = match refused {
            Refused::Unknown => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        };
        Failure::new(status, refused.to_string())
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ContinueRequest {
    continuation_key: String,
    configuration: String,
    #[serde(default)]
    parameters: Option<BTreeMap<String, Value>>,
}

/// Authorised by the key alone: the scripts that call this have no other token.
async fn continue_pipeline(State(state): State<Shared>, bytes: Bytes) -> Answer<Json<Value>> {
    let request: ContinueRequest = serde_json::from_slice(&bytes).map_err(|e| {
        let message =
            format!("the body is not what is expected (continuation-key, configuration, parameters): {e}");
        Failure::new(StatusCode::BAD_REQUEST, message)
    })?;
    let request = Continuation {
        key: request.continuation_key,
        configuration: request.configuration,
        parameters: request.parameters.unwrap_or_default(),
    };
    use continuation::Refused;
    continuation::continue_pipeline(&state, request).await.map_err(|refused| match refused {
        Refused::Store(error) => Failure::from(error),
        Refused::UnknownKey => Failure::new(StatusCode::NOT_FOUND, refused.to_string()),
        _ => Failure::new(StatusCode::BAD_REQUEST, refused.to_string()),
    })?;
    Ok(Json(json!({ "message": "Accepted." })))
}

/// Settings that this control plane acts on. Others are refused rather than stored without effect.
const SETTINGS: [&str; 1] = ["enable_auto_cancel_redundant_workflows"];

async fn settings(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let what = format!("there is no project `{id}`");
    let found: Option<String> = state
        .store
        .read(move |c| {
            let mut query = c.prepare_cached("SELECT settings FROM projects WHERE id = ?1")?;
            Ok(query.query_row([id], |row| row.get(0)).optional()?)
        })
        .await?;
    Ok(shown(&found.ok_or_else(|| Failure::not_found(what))?))
}

fn shown(stored: &str) -> Json<Value> {
    let stored: Value = serde_json::from_str(stored).unwrap_or_default();
    let attributes: Map<String, Value> = SETTINGS
        .iter()
        .map(|name| ((*name).to_owned(), json!(stored.get(name) == Some(&Value::Bool(true)))))
        .collect();
    Json(json!({ "data": { "attributes": attributes } }))
}

async fn update_settings(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(id): Path<String>,
    body: Body,
) -> Answer<Json<Value>> {
    let changes = body.0.as_object().cloned().ok_or_else(|| bad("the body must be an object of settings"))?;
    for (name, value) in &changes {
        if !SETTINGS.contains(&name.as_str()) {
            let message = format!(
                "the setting `{name}` is not available on this control plane (available: {})",
                SETTINGS.join(", ")
            );
            return Err(Failure::new(StatusCode::BAD_REQUEST, message));
        }
        if !value.is_boolean() {
            return Err(Failure::new(StatusCode::BAD_REQUEST, format!("`{name}` must be true or false")));
        }
    }
    let what = format!("there is no project `{id}`");
    let changes = Value::Object(changes).to_string();
    let stored: Option<String> = state
        .store
        .write(move |tx| {
            let update =
                "UPDATE projects SET settings = json_patch(settings, ?2) WHERE id = ?1 RETURNING settings";
            Ok(tx.prepare_cached(update)?.query_row(params![id, changes], |row| row.get(0)).optional()?)
        })
        .await?;
    Ok(shown(&stored.ok_or_else(|| Failure::not_found(what))?))
}
