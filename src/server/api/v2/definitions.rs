//! Pipeline definitions of a project, which has one, and their triggers, of which there are none: what starts pipelines
//! besides this API (forges, schedules) is set up elsewhere.

use crate::server::api::shared::definition::{
    DefinitionSource, FILE, NAME, is_definition_of, one_only, unknown_definition,
};
use crate::server::api::shared::failure::Answer;
use crate::server::api::shared::input::Path;
use crate::server::api::shared::lookup::project_by_id;
use crate::server::api::shared::paging::whole;
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
    let definitions = "/api/v2/projects/{id}/pipeline-definitions";
    Router::new()
        .route(definitions, get(list).post(create))
        .route(&format!("{definitions}/{{definition}}"), get(one))
        .route(&format!("{definitions}/{{definition}}/triggers"), get(triggers).post(create_trigger))
}

fn show(project: &Project) -> Value {
    let source = DefinitionSource::of(project).v2();
    let mut config = source.clone();
    config["file_path"] = json!(FILE);
    json!({
        "id": project.id, "name": NAME, "description": "", "created_at": project.created_at.to_string(),
        "config_source": config, "checkout_source": source,
    })
}

async fn list(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<ProjectId>,
) -> Answer<Json<Value>> {
    Ok(whole(vec![show(&project_by_id(&state, id).await?)]))
}

/// The project, if it has this definition.
async fn with_definition(state: &Shared, id: ProjectId, definition: &str) -> Answer<Project> {
    let project = project_by_id(state, id).await?;
    if is_definition_of(definition, &project) {
        return Ok(project);
    }
    Err(unknown_definition(definition, &project))
}

async fn one(
    State(state): State<Shared>,
    _person: Person,
    Path((id, definition)): Path<(ProjectId, String)>,
) -> Answer<Json<Value>> {
    Ok(Json(show(&with_definition(&state, id, &definition).await?)))
}

async fn triggers(
    State(state): State<Shared>,
    _person: Person,
    Path((id, definition)): Path<(ProjectId, String)>,
) -> Answer<Json<Value>> {
    with_definition(&state, id, &definition).await?;
    Ok(whole(Vec::new()))
}

async fn create(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(id): Path<ProjectId>,
) -> Answer<Json<Value>> {
    project_by_id(&state, id).await?;
    Err(one_only("another pipeline definition"))
}

async fn create_trigger(
    State(state): State<Shared>,
    _admin: Administrator,
    Path((id, definition)): Path<(ProjectId, String)>,
) -> Answer<Json<Value>> {
    with_definition(&state, id, &definition).await?;
    Err(one_only("a trigger"))
}
