//! Compiling for people who write configs: the calls of command-line clients for `config validate` and
//! `config process`. Nothing is stored, and no token is needed.

use crate::config::{Compiled, Diagnostic, Diagnostics, Severity};
use crate::protocol::limits::CONFIG_BYTES;
use crate::server::api::shared::failure::{Answer, ApiError};
use crate::server::ids::fresh_uuid;
use crate::server::pipelines::compile::{self, ConfigSource};
use crate::server::state::Shared;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tokio::sync::Semaphore;

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v2/compile-config-with-defaults", post(compile_v2))
        .route("/api/v3/configs/compile", post(compile_v3))
        .layer(DefaultBodyLimit::max(CONFIG_BYTES))
}

/// Most configs that are compiled at once; further calls wait, so that strangers cannot take the machine.
static COMPILING: Semaphore = Semaphore::const_new(2);

#[derive(Deserialize)]
struct RequestV2 {
    config_yaml: String,
    #[serde(default)]
    options: Option<Options>,
}

/// Parameters and values that the config is compiled with; both families name them alike.
#[derive(Default, Deserialize)]
struct Options {
    #[serde(default)]
    pipeline_parameters: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    pipeline_values: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct RequestV3 {
    data: DataV3,
}

#[derive(Deserialize)]
struct DataV3 {
    attributes: AttributesV3,
}

#[derive(Deserialize)]
struct AttributesV3 {
    config: String,
    #[serde(flatten)]
    options: Options,
}

fn read<T: DeserializeOwned>(bytes: &Bytes) -> Answer<T> {
    // A client probes with no body at all and expects an error that is not 404.
    if bytes.is_empty() {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "the body is empty: a config is needed"));
    }
    serde_json::from_slice(bytes)
        .map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, format!("the body is not what is expected: {e}")))
}

async fn compile_v2(State(state): State<Shared>, bytes: Bytes) -> Answer<Json<Value>> {
    let request: RequestV2 = read(&bytes)?;
    let source = request.config_yaml.clone();
    let result = compile(&state, request.config_yaml, request.options.unwrap_or_default()).await?;
    Ok(Json(match result {
        Ok(compiled) => json!({
            "valid": true, "source-yaml": source, "output-yaml": compiled.processed, "errors": null,
        }),
        Err(errors) => {
            let errors: Vec<_> =
                mistakes(&errors).map(|error| json!({ "message": error.to_string() })).collect();
            json!({ "valid": false, "source-yaml": source, "output-yaml": "", "errors": errors })
        }
    }))
}

async fn compile_v3(State(state): State<Shared>, bytes: Bytes) -> Answer<Json<Value>> {
    let request: RequestV3 = read(&bytes)?;
    let AttributesV3 { config, options } = request.data.attributes;
    let result = compile(&state, config, options).await?;
    let title = |diagnostic: &Diagnostic| json!({ "title": diagnostic.to_string() });
    let (attributes, messages): (Value, Vec<Value>) = match &result {
        Ok(compiled) => (
            json!({ "phase": "ended", "outcome": "succeeded", "compiled_config": compiled.processed }),
            compiled.warnings.iter().map(title).collect(),
        ),
        Err(errors) => {
            (json!({ "phase": "ended", "outcome": "failed" }), mistakes(errors).map(title).collect())
        }
    };
    let mut answer = json!({ "data": { "id": fresh_uuid(), "attributes": attributes } });
    if !messages.is_empty() {
        answer["meta"] = json!({ "messages": messages });
    }
    Ok(Json(answer))
}

fn mistakes(errors: &Diagnostics) -> impl Iterator<Item = &Diagnostic> {
    errors.0.iter().filter(|diagnostic| diagnostic.severity == Severity::Error)
}

/// Sorts what was given into parameters and values. Values come with or without `pipeline.`; those below `pipeline.parameters` are parameters.
fn sort_values(options: Options) -> (BTreeMap<String, Value>, BTreeMap<String, Value>) {
    let mut parameters = options.pipeline_parameters.unwrap_or_default();
    let mut values = BTreeMap::new();
    for (name, value) in options.pipeline_values.unwrap_or_default() {
        let short = name.strip_prefix("pipeline.").unwrap_or(&name);
        match short.strip_prefix("parameters.") {
            Some(parameter) => drop(parameters.entry(parameter.to_owned()).or_insert(value)),
            None => drop(values.insert(format!("pipeline.{short}"), value)),
        }
    }
    (parameters, values)
}

async fn compile(state: &Shared, config: String, options: Options) -> Answer<Result<Compiled, Diagnostics>> {
    let (parameters, values) = sort_values(options);
    let stand_ins = crate::config::stand_ins(None, &values);
    let source = ConfigSource { config, file_name: "config.yml".to_owned(), parameters, values, stand_ins };
    let settings = state.settings.clone();
    let stopping = |_| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the control plane is stopping");
    let _permit = COMPILING.acquire().await.map_err(|_| stopping(()))?;
    let compiling = tokio::task::spawn_blocking(move || compile::compile(&settings, &source));
    compiling.await.map_err(|_| stopping(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_find_their_place() {
        let options: Options = serde_json::from_value(json!({
            "pipeline_parameters": { "a": 1 },
            "pipeline_values": { "pipeline.git.branch": "x", "number": 7, "parameters.a": 2, "pipeline.parameters.b": true },
        }))
        .unwrap_or_default();
        let (parameters, values) = sort_values(options);
        assert_eq!(json!(parameters), json!({ "a": 1, "b": true }));
        assert_eq!(json!(values), json!({ "pipeline.git.branch": "x", "pipeline.number": 7 }));
    }
}
