//! Jobs with their steps, and what they left.

use crate::server::api::shared::failure::Answer;
use crate::server::api::shared::input::{Path, QueryWords};
use crate::server::api::shared::lookup::{
    artifact_url, artifacts_of, attempts_of, job_by_id, jobs_of, one, tests_of,
};
use crate::server::api::shared::vocabulary::{self, job_v3, step_v3, time};
use crate::server::api::v3::form::{check_filters, entity, list, needed_id, with};
use crate::server::auth::Person;
use crate::server::ids::{JobId, WorkflowId};
use crate::server::state::Shared;
use crate::server::store::View;
use crate::server::store::read::{self, Artifact, Job, StepRow};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v3/jobs", get(of_workflow))
        .route("/api/v3/jobs/{id}", get(by_id))
        .route("/api/v3/jobs/{id}/artifacts", get(artifacts))
        .route("/api/v3/jobs/{id}/tests", get(tests))
}

fn attributes(job: &Job) -> Map<String, Value> {
    let mut attributes = job_v3(job.status);
    attributes.insert("name".into(), job.name.clone().into());
    attributes.insert("type".into(), job.kind.as_str().into());
    attributes.insert("started_at".into(), time(job.started_at));
    attributes.insert("ended_at".into(), time(job.stopped_at));
    attributes.insert("messages".into(), json!(job.messages));
    if let Some(number) = job.number {
        attributes.insert("number".into(), number.into());
    }
    attributes
}

async fn of_workflow(State(state): State<Shared>, _person: Person, words: QueryWords) -> Answer<Json<Value>> {
    check_filters(&words, &["workflow_id"])?;
    let workflow: WorkflowId = needed_id(&words, "workflow_id")?;
    let found = state.store.read(move |view| jobs_of(view, &workflow)).await?;
    let show = |job: &Job| {
        let references =
            json!({ "workflow": { "id": job.workflow_id }, "project": { "id": job.project.id } });
        json!({ "id": job.id, "attributes": attributes(job), "references": references })
    };
    Ok(list(found.iter().map(show).collect(), None))
}

fn step(step: &StepRow) -> Map<String, Value> {
    with(
        step_v3(step.status),
        json!({
            "name": step.name, "type": step.kind, "num": step.step, "exit_code": step.exit_code,
            "started_at": time(Some(step.started_at)), "ended_at": time(step.ended_at), "command": step.command,
        }),
    )
}

async fn by_id(State(state): State<Shared>, _person: Person, Path(id): Path<JobId>) -> Answer<Json<Value>> {
    let what = format!("there is no job `{id}`");
    let read = move |view: &View| {
        let Some(mut job) = read::job(view, &id)? else { return Ok(None) };
        let attempts = attempts_of(view, &mut job)?;
        let actor = read::pipeline(view, &job.pipeline_id)?.and_then(|pipeline| pipeline.actor_id);
        Ok(Some((job, attempts, actor)))
    };
    let (job, attempts, actor) = one(&state, what, read).await?;
    let executions: Vec<Value> = attempts
        .iter()
        .map(|attempt| json!({ "steps": attempt.steps.iter().map(step).collect::<Vec<_>>() }))
        .collect();
    let mut attributes = attributes(&job);
    attributes.insert("parallel_executions".into(), executions.into());
    let mut references = json!({
        "project": { "id": job.project.id }, "pipeline": { "id": job.pipeline_id }, "workflow": { "id": job.workflow_id },
    });
    if let Some(person) = actor {
        references["user"] = json!({ "id": person });
    }
    Ok(entity(json!({ "id": job.id, "attributes": attributes, "references": references })))
}

async fn artifacts(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<JobId>,
) -> Answer<Json<Value>> {
    let found = artifacts_of(&state, job_by_id(&state, id).await?).await?;
    let show = |artifact: &Artifact| {
        let url = artifact_url(&state, artifact);
        json!({ "id": artifact.id, "attributes": { "path": artifact.path, "url": url, "execution": artifact.node_index } })
    };
    Ok(list(found.iter().map(show).collect(), None))
}

async fn tests(State(state): State<Shared>, _person: Person, Path(id): Path<JobId>) -> Answer<Response> {
    let found = tests_of(&state, job_by_id(&state, id).await?).await?;
    let lines: String = found.iter().map(|test| format!("{}\n", vocabulary::test(test))).collect();
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response())
}
