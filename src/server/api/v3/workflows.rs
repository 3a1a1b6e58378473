//! Workflows, and cancelling them.

use crate::server::api::shared::acts::cancel_workflow;
use crate::server::api::shared::failure::Answer;
use crate::server::api::shared::input::{Path, QueryWords};
use crate::server::api::shared::lookup::workflow;
use crate::server::api::shared::vocabulary::{time, workflow_v3};
use crate::server::api::v3::form::{check_filters, entity, list, needed_id};
use crate::server::auth::Person;
use crate::server::ids::{PipelineId, WorkflowId};
use crate::server::state::Shared;
use crate::server::store::read::{self, Workflow};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v3/workflows", get(of_run))
        .route("/api/v3/workflows/{id}", get(by_id))
        .route("/api/v3/workflows/{id}/cancel", post(cancel))
}

fn show(workflow: &Workflow) -> Value {
    let mut attributes = workflow_v3(workflow.status);
    attributes.insert("name".into(), workflow.name.clone().into());
    attributes.insert("created_at".into(), workflow.created_at.to_string().into());
    attributes.insert("ended_at".into(), time(workflow.stopped_at));
    let mut references =
        json!({ "run": { "id": workflow.pipeline_id }, "project": { "id": workflow.project.id } });
    if let Some(person) = &workflow.started_by {
        references["user"] = json!({ "id": person });
    }
    json!({ "id": workflow.id, "attributes": attributes, "references": references })
}

async fn of_run(State(state): State<Shared>, _person: Person, words: QueryWords) -> Answer<Json<Value>> {
    check_filters(&words, &["run_id"])?;
    let run: PipelineId = needed_id(&words, "run_id")?;
    let found = state.store.read(move |view| read::workflows_of(view, &run)).await?;
    Ok(list(found.iter().map(show).collect(), None))
}

async fn by_id(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<WorkflowId>,
) -> Answer<Json<Value>> {
    Ok(entity(show(&workflow(&state, id).await?)))
}

async fn cancel(State(state): State<Shared>, person: Person, Path(id): Path<WorkflowId>) -> Answer<Response> {
    let answer = json!({ "id": id });
    cancel_workflow(&state, id, person).await?;
    Ok((StatusCode::ACCEPTED, entity(answer)).into_response())
}
