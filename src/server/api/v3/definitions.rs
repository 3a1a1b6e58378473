//! Pipelines of version 3, which are definitions of pipelines: one for each project. And their triggers, of which there
//! are none: what starts pipelines besides this API (forges, schedules) is set up elsewhere.

use crate::server::api::shared::definition::{
    DefinitionSource, FILE, NAME, is_definition_of, one_only, unknown_definition,
};
use crate::server::api::shared::failure::Answer;
use crate::server::api::shared::input::{JsonBody, Path, QueryWords};
use crate::server::api::shared::lookup::project_by_id;
use crate::server::api::v3::form::{check_filters, entity, filter, list, needed_id};
use crate::server::auth::{Administrator, Person};
use crate::server::ids::ProjectId;
use crate::server::state::Shared;
use crate::server::store::read::Project;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v3/pipelines", get(definitions).post(create))
        .route("/api/v3/pipelines/{id}", get(definition))
        .route("/api/v3/triggers", get(triggers).post(create_trigger))
}

fn show(project: &Project) -> Value {
    let source = DefinitionSource::of(project).v3();
    json!({
        "id": project.id,
        "attributes": {
            "name": NAME, "created_at": project.created_at.to_string(),
            "config": { "type": "vcs", "file_path": FILE, "vcs": source },
            "checkout": { "type": "vcs", "vcs": source },
        },
        "references": { "project": { "id": project.id } },
    })
}

async fn definitions(State(state): State<Shared>, _person: Person, words: QueryWords) -> Answer<Json<Value>> {
    check_filters(&words, &["project_id"])?;
    let project = project_by_id(&state, needed_id(&words, "project_id")?).await?;
    Ok(list(vec![show(&project)], None))
}

async fn definition(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<ProjectId>,
) -> Answer<Json<Value>> {
    Ok(entity(show(&project_by_id(&state, id).await?)))
}

/// Lists the triggers of a project, or of a definition, which has the id of its project.
async fn triggers(State(state): State<Shared>, _person: Person, words: QueryWords) -> Answer<Json<Value>> {
    check_filters(&words, &["project_id", "pipeline_id"])?;
    let definition = filter(&words, "pipeline_id");
    let is_of_project = filter(&words, "project_id").is_some() || definition.is_none();
    let id = needed_id(&words, if is_of_project { "project_id" } else { "pipeline_id" })?;
    let project = project_by_id(&state, id).await?;
    match definition.filter(|id| !is_definition_of(id, &project)) {
        Some(unknown) => Err(unknown_definition(unknown, &project)),
        None => Ok(list(Vec::new(), None)),
    }
}

async fn create(_admin: Administrator, _body: JsonBody) -> Answer<Json<Value>> {
    Err(one_only("another pipeline definition"))
}

async fn create_trigger(_admin: Administrator, _body: JsonBody) -> Answer<Json<Value>> {
    Err(one_only("a trigger"))
}
