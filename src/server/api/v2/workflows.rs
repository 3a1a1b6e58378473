//! Workflows and the jobs in them; cancelling them, and approving what waits in them.

use crate::server::api::shared::acts;
use crate::server::api::shared::failure::Answer;
use crate::server::api::shared::input::{Path, accepted};
use crate::server::api::shared::lookup::{jobs_of, one, unknown_workflow, workflow};
use crate::server::api::shared::paging::whole;
use crate::server::api::shared::vocabulary::{time, workflow_v2};
use crate::server::auth::Person;
use crate::server::ids::{JobId, PipelineId, WorkflowId};
use crate::server::state::Shared;
use crate::server::store::View;
use crate::server::store::read::{self, Job, Workflow};
use crate::server::store::status::JobType;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v2/pipeline/{id}/workflow", get(of_pipeline))
        .route("/api/v2/workflow/{id}", get(by_id))
        .route("/api/v2/workflow/{id}/job", get(jobs))
        .route("/api/v2/workflow/{id}/cancel", post(cancel))
        .route("/api/v2/workflow/{id}/approve/{job}", post(approve))
}

fn show(workflow: &Workflow) -> Value {
    // Clients read a UUID; a pipeline that a program triggered has nobody.
    let started_by = workflow.started_by.as_ref().map_or(workflow.id.as_str(), |person| person.as_str());
    let mut shown = json!({
        "id": workflow.id, "name": workflow.name, "status": workflow_v2(workflow.status),
        "pipeline_id": workflow.pipeline_id, "pipeline_number": workflow.pipeline_number,
        "project_slug": workflow.project.slug(), "created_at": workflow.created_at.to_string(),
        "stopped_at": time(workflow.stopped_at), "tag": workflow.is_setup.then_some("setup"),
        "started_by": started_by,
    });
    if let Some(person) = &workflow.canceled_by {
        shown["canceled_by"] = json!(person);
    }
    if workflow.max_auto_reruns > 0 {
        shown["max_auto_reruns"] = json!(workflow.max_auto_reruns);
        shown["auto_rerun_number"] = json!(workflow.auto_rerun_number);
    }
    shown
}

async fn of_pipeline(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<PipelineId>,
) -> Answer<Json<Value>> {
    let what = format!("there is no pipeline `{id}`");
    let read = move |view: &View| {
        if read::is_pipeline(view, &id)? { read::workflows_of(view, &id).map(Some) } else { Ok(None) }
    };
    Ok(whole(one(&state, what, read).await?.iter().map(show).collect()))
}

async fn by_id(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<WorkflowId>,
) -> Answer<Json<Value>> {
    Ok(Json(show(&workflow(&state, id).await?)))
}

/// The ids of the jobs that each job requires, by its id.
fn dependencies(jobs: &[Job]) -> HashMap<&JobId, Vec<&JobId>> {
    let ids: HashMap<&str, &JobId> = jobs.iter().map(|job| (job.name.as_str(), &job.id)).collect();
    let of =
        |job: &Job| job.requires.iter().filter_map(|entry| ids.get(entry.job.as_str()).copied()).collect();
    jobs.iter().map(|job| (&job.id, of(job))).collect()
}

async fn jobs(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<WorkflowId>,
) -> Answer<Json<Value>> {
    let what = unknown_workflow(&id);
    let read = move |view: &View| {
        if !read::is_workflow(view, &id)? {
            return Ok(None);
        }
        jobs_of(view, &id).map(Some)
    };
    let jobs = one(&state, what, read).await?;
    let dependencies = dependencies(&jobs);
    let show = |job: &Job| {
        let mut shown = json!({
            "id": job.id, "name": job.name, "status": job.status, "type": job.kind, "project_slug": job.project.slug(),
            "started_at": time(job.started_at), "stopped_at": time(job.stopped_at),
            "dependencies": dependencies.get(&job.id),
        });
        if let Some(number) = job.number {
            shown["job_number"] = json!(number);
        }
        if job.kind == JobType::Approval {
            shown["approval_request_id"] = json!(job.id);
        }
        // Approvals have no number by which more could be asked of them.
        if !job.messages.is_empty() {
            shown["messages"] = json!(job.messages);
        }
        for (name, person) in [("canceled_by", &job.canceled_by), ("approved_by", &job.approved_by)] {
            if let Some(person) = person {
                shown[name] = json!(person);
            }
        }
        shown
    };
    Ok(whole(jobs.iter().map(show).collect()))
}

async fn cancel(State(state): State<Shared>, person: Person, Path(id): Path<WorkflowId>) -> Answer<Response> {
    acts::cancel_workflow(&state, id, person).await?;
    Ok(accepted())
}

async fn approve(
    State(state): State<Shared>,
    person: Person,
    Path((id, job)): Path<(WorkflowId, JobId)>,
) -> Answer<Response> {
    acts::approve(&state, id, job, person).await?;
    Ok(accepted())
}
