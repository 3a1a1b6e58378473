//! Jobs by their numbers in a project, what they left, and cancelling them.

use crate::config::ExecutorKind;
use crate::server::api::shared::acts::cancel_job;
use crate::server::api::shared::failure::Answer;
use crate::server::api::shared::input::{Path, accepted};
use crate::server::api::shared::lookup::{
    Numbered, artifact_url, artifacts_of, attempts_of, job_of, job_url, one, project, tests_of,
};
use crate::server::api::shared::paging::whole;
use crate::server::api::shared::vocabulary::{self, time};
use crate::server::auth::Person;
use crate::server::state::Shared;
use crate::server::store::View;
use crate::server::store::read::{self, Artifact};
use crate::server::time::Millis;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    let project = "/api/v2/project/{vcs}/{org}/{repo}";
    Router::new()
        .route(&format!("{project}/job/{{number}}"), get(by_number))
        .route(&format!("{project}/job/{{number}}/cancel"), post(cancel))
        .route(&format!("{project}/{{number}}/artifacts"), get(artifacts))
        .route(&format!("{project}/{{number}}/tests"), get(tests))
}

async fn by_number(
    State(state): State<Shared>,
    _person: Person,
    Path(path): Path<Numbered>,
) -> Answer<Json<Value>> {
    let mut job = job_of(&state, path).await?;
    let read = move |view: &View| {
        let attempts = attempts_of(view, &mut job)?;
        let latest = read::latest_workflow_with(view, &job.pipeline_id, &job.ran_as)?;
        Ok((job, attempts, latest))
    };
    let (job, attempts, latest) = state.store.read(read).await?;
    let (workflow, workflow_name) =
        latest.unwrap_or_else(|| (job.workflow_id.clone(), job.workflow_name.clone()));
    let runs: Vec<Value> =
        attempts.iter().map(|run| json!({ "index": run.node_index, "status": run.status })).collect();
    let contexts: Vec<Value> = job.contexts.iter().map(|name| json!({ "name": name })).collect();
    let until = job.stopped_at.unwrap_or_else(Millis::now);
    let duration_ms = job.started_at.map(|started| until.since(started).as_millis() as u64);
    let url = job_url(&state, &job);
    Ok(Json(json!({
        "id": job.id, "web_url": url, "name": job.name, "number": job.number, "status": job.status,
        "project": {
            "id": job.project.id, "slug": job.project.slug(), "name": job.project.repo,
            "external_url": job.project.repository_url.clone().unwrap_or_default(),
        },
        "organization": { "name": job.project.org }, "pipeline": { "id": job.pipeline_id },
        "latest_workflow": { "id": workflow, "name": workflow_name },
        "executor": { "resource_class": job.resource_class, "type": executor_type(job.executor) },
        "parallelism": job.parallelism, "parallel_runs": runs, "duration": duration_ms,
        "messages": job.messages, "contexts": contexts,
        "created_at": job.created_at.to_string(), "queued_at": time(job.queued_at),
        "started_at": time(job.started_at), "stopped_at": time(job.stopped_at),
    })))
}

/// The word for an executor; the hosted service has machines as well, and an approval is shown with the usual one.
fn executor_type(kind: Option<ExecutorKind>) -> Value {
    match kind {
        None | Some(ExecutorKind::Machine | ExecutorKind::HostedMachine) => json!("machine"),
        Some(kind) => json!(kind),
    }
}

/// By number, as published, or by id: an approval has no number, and may be cancelled all the same.
async fn cancel(
    State(state): State<Shared>,
    person: Person,
    Path((vcs, org, repo, job)): Path<(String, String, String, String)>,
) -> Answer<Response> {
    let job = match job.parse() {
        Ok(number) => job_of(&state, (vcs, org, repo, number)).await?,
        Err(_) => {
            let project = project(&state, (vcs, org, repo)).await?;
            let what = format!("the project `{}` has no job `{job}`", project.slug);
            let id = job.into();
            let read =
                move |view: &View| Ok(read::job(view, &id)?.filter(|job| job.project.id == project.id));
            one(&state, what, read).await?
        }
    };
    cancel_job(&state, job.id, person).await?;
    Ok(accepted())
}

async fn artifacts(
    State(state): State<Shared>,
    _person: Person,
    Path(path): Path<Numbered>,
) -> Answer<Json<Value>> {
    let artifacts = artifacts_of(&state, job_of(&state, path).await?).await?;
    let show = |artifact: &Artifact| {
        let url = artifact_url(&state, artifact);
        json!({ "path": artifact.path, "node_index": artifact.node_index, "url": url })
    };
    Ok(whole(artifacts.iter().map(show).collect()))
}

async fn tests(
    State(state): State<Shared>,
    _person: Person,
    Path(path): Path<Numbered>,
) -> Answer<Json<Value>> {
    let tests = tests_of(&state, job_of(&state, path).await?).await?;
    Ok(whole(tests.iter().map(vocabulary::test).collect()))
}
