//! Starting pipelines (v2): from the project's repository, or with the config sent along.

use crate::server::api::shared::acts::trigger_pipeline;
use crate::server::api::shared::definition::{is_definition_of, unknown_definition};
use crate::server::api::shared::failure::{Answer, bad};
use crate::server::api::shared::input::{JsonBody, Path, check_names, message};
use crate::server::api::shared::lookup::project;
use crate::server::auth::Person;
use crate::server::pipelines::repository::Reference;
use crate::server::pipelines::triggers::{TriggerRequest, reference};
use crate::server::state::Shared;
use crate::server::store::status::PipelineState;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::BTreeMap;

type Slug = Path<(String, String, String)>;

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    let pipeline = "/api/v2/project/{vcs}/{org}/{repo}/pipeline";
    Router::new().route(pipeline, post(trigger)).route(&format!("{pipeline}/run"), post(run))
}

async fn trigger(state: State<Shared>, person: Person, slug: Slug, body: JsonBody) -> Answer<Response> {
    body.check_names("a pipeline", &["branch", "tag", "parameters"])?;
    let wanted = TriggerRequest {
        checkout: refs(&body.0, "")?,
        parameters: parameters(&body.0)?,
        ..TriggerRequest::default()
    };
    create(state, person, slug, wanted).await
}

/// Starts a pipeline whose config and checkout may come from different refs. A project has one definition, which
/// `definition_id` may name.
async fn run(state: State<Shared>, person: Person, slug: Slug, body: JsonBody) -> Answer<Response> {
    body.check_names("a pipeline", &["definition_id", "config", "checkout", "parameters"])?;
    check_names(&body.0["config"], "`config`", &["branch", "tag", "content"])?;
    check_names(&body.0["checkout"], "`checkout`", &["branch", "tag"])?;
    if let Some(definition) = body.optional_text("definition_id")?.filter(|id| !id.is_empty()) {
        let project = project(&state, slug.0.clone()).await?;
        if !is_definition_of(definition, &project) {
            return Err(unknown_definition(definition, &project));
        }
    }
    let content = match &body.0["config"]["content"] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        _ => return Err(bad("`config.content` must be a string")),
    };
    let wanted = TriggerRequest {
        content,
        config: refs(&body.0, "config")?,
        checkout: refs(&body.0, "checkout")?,
        parameters: parameters(&body.0)?,
    };
    create(state, person, slug, wanted).await
}

fn refs(body: &Value, key: &str) -> Answer<Option<Reference>> {
    let object = if key.is_empty() { body } else { &body[key] };
    if !object.is_null() && !object.is_object() {
        let what = if key.is_empty() { "the body".to_owned() } else { format!("`{key}`") };
        return Err(bad(format!("{what} must be an object")));
    }
    let text = |name: &str| match &object[name] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.as_str())),
        _ => Err(bad(format!("`{name}` must be a string"))),
    };
    reference(text("branch")?, text("tag")?).map_err(bad)
}

fn parameters(body: &Value) -> Answer<BTreeMap<String, Value>> {
    match &body["parameters"] {
        Value::Null => Ok(BTreeMap::new()),
        Value::Object(map) => Ok(map.clone().into_iter().collect()),
        _ => Err(bad("`parameters` must be an object")),
    }
}

async fn create(
    State(state): State<Shared>,
    person: Person,
    Path(slug): Slug,
    wanted: TriggerRequest,
) -> Answer<Response> {
    let project = project(&state, slug).await?;
    let Some(created) = trigger_pipeline(&state, &project, wanted, &person).await? else {
        let why = "No pipeline: the message of the commit says `[skip ci]` or `[ci skip]`.";
        return Ok(message(why).into_response());
    };
    // Clients expect this word here, also of a config that has errors, and ask for the state later.
    let answer = json!({
        "id": created.id, "number": created.number, "state": PipelineState::Pending,
        "created_at": created.created_at.to_string(),
    });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}
