//! Version 2, the part that reads, and what people do to workflows and jobs.

pub mod contexts;
pub mod people;
pub mod projects;
pub mod triggers;
pub mod variables;

use crate::server::api::shared::input::{self, Words, bad, project};
use crate::server::api::shared::vocabulary::{time, workflow_v2};
use crate::server::api::{Answer, Failure, Person};
use crate::server::engine::commit;
use crate::server::state::{Shared, now_ms, timestamp};
use crate::server::store::Error;
use crate::server::store::View;
use crate::server::store::read::{self, Cursor, Filter, Job, Pipeline, ProjectRef, Workflow};
use crate::server::store::status::JobType;
use crate::server::time::Millis;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use rusqlite::OptionalExtension;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Pipelines on a page.
const PAGE: usize = 50;

type Slug = Path<(String, String, String)>;
type Numbered = Path<(String, String, String, i64)>;

/// The paths.
pub fn router() -> Router<Shared> {
    let project = "/api/v2/project/{vcs}/{org}/{repo}";
    Router::new()
        .route("/api/v2/me", get(me))
        .route("/api/v2/me/collaborations", get(collaborations))
        .route("/api/v2/user/{id}", get(user))
        .route("/api/v2/openapi.json", get(openapi))
        .route("/api/v2/pipeline", get(all_pipelines))
        .route("/api/v2/pipeline/{id}", get(pipeline))
        .route("/api/v2/pipeline/{id}/config", get(config))
        .route("/api/v2/pipeline/{id}/workflow", get(workflows))
        .route("/api/v2/pipeline/{id}/cancel", post(cancel_pipeline))
        .route("/api/v2/workflow/{id}", get(workflow))
        .route("/api/v2/workflow/{id}/job", get(jobs))
        .route("/api/v2/workflow/{id}/cancel", post(cancel))
        .route("/api/v2/workflow/{id}/approve/{job}", post(approve))
        .route(&format!("{project}/pipeline"), get(project_pipelines))
        .route(&format!("{project}/pipeline/mine"), get(my_pipelines))
        .route(&format!("{project}/pipeline/{{number}}"), get(numbered_pipeline))
        .route(&format!("{project}/job/{{number}}"), get(numbered_job))
        .route(&format!("{project}/job/{{number}}/cancel"), post(cancel_job))
        .route(&format!("{project}/{{number}}/artifacts"), get(artifacts))
        .route(&format!("{project}/{{number}}/tests"), get(tests))
}

async fn me(person: Person) -> Json<Value> {
    Json(json!({ "id": person.id, "login": person.login, "name": person.login }))
}

async fn user(State(state): State<Shared>, _person: Person, Path(id): Path<String>) -> Answer<Json<Value>> {
    let what = format!("there is no user `{id}`");
    let read = move |c: &View| {
        let mut query = c.prepare_cached("SELECT id, login, name FROM users WHERE id = ?1")?;
        let row = query.query_row([id], |row| {
            Ok(json!({ "id": row.get::<_, String>(0)?, "login": row.get::<_, String>(1)?, "name": row.get::<_, String>(2)? }))
        });
        Ok(row.optional()?)
    };
    state.store.read(read).await?.map(Json).ok_or_else(|| Failure::not_found(what))
}

async fn collaborations(State(state): State<Shared>, _person: Person) -> Answer<Json<Value>> {
    let read = |c: &View| {
        let mut query = c.prepare_cached("SELECT id, vcs, name FROM organisations ORDER BY vcs, name")?;
        let rows = query.query_map([], |row| {
            let (id, vcs, name): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let slug = format!("{vcs}/{name}");
            // The published schema and the clients differ in how they spell it.
            Ok(json!({ "id": id, "vcs-type": vcs, "vcs_type": vcs, "name": name, "avatar_url": "", "slug": slug }))
        })?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    };
    Ok(Json(state.store.read(read).await?.into()))
}

/// Enough for the clients that ask whether contexts and schedules exist before they call them.
async fn openapi() -> Json<Value> {
    Json(json!({
        "openapi": "3.0.3", "info": { "title": "Runlet", "version": "v2" },
        "paths": { "/context": { "get": {} }, "/project/{project-slug}/pipeline": { "get": {}, "post": {} } },
    }))
}

/// A page of which nothing is left out.
fn whole(items: Vec<Value>) -> Json<Value> {
    Json(json!({ "items": items, "next_page_token": null }))
}

/// Reads one thing, which must be there.
pub(super) async fn one<T: Send + 'static>(
    state: &Shared,
    what: String,
    read: impl FnOnce(&View) -> Result<Option<T>, Error> + Send + 'static,
) -> Answer<T> {
    state.store.read(read).await?.ok_or_else(|| Failure::not_found(what))
}

fn show_pipeline(pipeline: &Pipeline) -> Value {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let mut shown = json!({
        "id": pipeline.id, "number": pipeline.number, "project_slug": pipeline.project.slug(), "state": pipeline.state,
        "created_at": timestamp(pipeline.created_at_ms), "updated_at": timestamp(pipeline.updated_at_ms),
        "errors": parsed(&pipeline.errors), "trigger_parameters": parsed(&pipeline.trigger_parameters),
        "trigger": {
            "type": pipeline.trigger_type, "received_at": timestamp(pipeline.created_at_ms),
            "actor": { "login": pipeline.actor_login, "avatar_url": null },
        },
    });
    if let (Some(url), Some(revision)) = (&pipeline.repository_url, &pipeline.revision) {
        let mut vcs = json!({
            "provider_name": provider(&pipeline.project), "origin_repository_url": url, "target_repository_url": url,
            "revision": revision,
        });
        for (name, value) in [("branch", &pipeline.branch), ("tag", &pipeline.tag)] {
            if let Some(value) = value {
                vcs[name] = json!(value);
            }
        }
        if let Some(subject) = &pipeline.subject {
            vcs["commit"] =
                json!({ "subject": subject, "body": pipeline.body.as_deref().unwrap_or_default() });
        }
        shown["vcs"] = vcs;
    }
    shown
}

/// The provider as clients know it.
pub(super) fn provider(project: &ProjectRef) -> &'static str {
    match project.vcs.as_str() {
        "gh" => "GitHub",
        "bb" => "Bitbucket",
        _ => "CircleCI",
    }
}

async fn list(state: &Shared, filter: Filter, words: &Words) -> Answer<Json<Value>> {
    let after = match words.get("page-token").filter(|token| !token.is_empty()) {
        Some(token) => {
            Some(Cursor::parse(token).ok_or_else(|| bad("`page-token` is not one that was given out"))?)
        }
        None => None,
    };
    let listed = state.store.read(move |c| read::pipelines(c, &filter, after.as_ref(), PAGE)).await?;
    let items: Vec<Value> = listed.items.iter().map(show_pipeline).collect();
    Ok(Json(json!({ "items": items, "next_page_token": listed.next.map(|next| next.token()) })))
}

async fn all_pipelines(State(state): State<Shared>, person: Person, words: Words) -> Answer<Json<Value>> {
    let slug = words.get("org-slug").filter(|slug| !slug.is_empty());
    let organisation = match slug {
        Some(slug) => Some(input::organisation(&state, None, Some(slug)).await?),
        None => None,
    };
    let mine = words.get("mine").is_some_and(|mine| mine == "true");
    let filter = Filter { organisation, actor: mine.then_some(person.id), ..Filter::default() };
    list(&state, filter, &words).await
}

async fn project_pipelines(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): Slug,
    words: Words,
) -> Answer<Json<Value>> {
    let projects = vec![project(&state, slug).await?.id.into()];
    let branch = words.get("branch").filter(|branch| !branch.is_empty()).cloned();
    list(&state, Filter { projects, branch, ..Filter::default() }, &words).await
}

async fn my_pipelines(
    State(state): State<Shared>,
    person: Person,
    Path(slug): Slug,
    words: Words,
) -> Answer<Json<Value>> {
    let projects = vec![project(&state, slug).await?.id.into()];
    list(&state, Filter { projects, actor: Some(person.id), ..Filter::default() }, &words).await
}

async fn numbered_pipeline(
    State(state): State<Shared>,
    _person: Person,
    Path((vcs, org, repo, number)): Numbered,
) -> Answer<Json<Value>> {
    let project = project(&state, (vcs, org, repo)).await?;
    let what = format!("the project `{}` has no pipeline {number}", project.slug);
    let pipeline =
        one(&state, what, move |c| read::pipeline_by_number(c, project.id.as_str(), number)).await?;
    Ok(Json(show_pipeline(&pipeline)))
}

async fn pipeline(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let what = format!("there is no pipeline `{id}`");
    let pipeline = one(&state, what, move |c| read::pipeline(c, &id)).await?;
    Ok(Json(show_pipeline(&pipeline)))
}

async fn config(State(state): State<Shared>, _person: Person, Path(id): Path<String>) -> Answer<Json<Value>> {
    let what = format!("there is no pipeline `{id}`");
    let read = move |c: &View| {
        let mut query = c.prepare_cached(
            "SELECT source, processed, setup_source, setup_processed FROM pipeline_configs WHERE pipeline_id = ?1",
        )?;
        let row = query.query_row([id], |row| {
            let mut shown =
                json!({ "source": row.get::<_, String>(0)?, "compiled": row.get::<_, String>(1)? });
            for (name, column) in [("setup-config", 2), ("compiled-setup-config", 3)] {
                if let Some(text) = row.get::<_, Option<String>>(column)? {
                    shown[name] = text.into();
                }
            }
            Ok(shown)
        });
        Ok(row.optional()?)
    };
    one(&state, what, read).await.map(Json)
}

fn show_workflow(workflow: &Workflow) -> Value {
    let mut shown = json!({
        "id": workflow.id, "name": workflow.name, "status": workflow_v2(workflow.status),
        "pipeline_id": workflow.pipeline_id, "pipeline_number": workflow.pipeline_number,
        "project_slug": workflow.project.slug(), "created_at": timestamp(workflow.created_at_ms),
        "stopped_at": time(workflow.stopped_at_ms), "tag": workflow.is_setup.then_some("setup"),
        // Clients read a UUID; a pipeline that a program triggered has nobody.
        "started_by": workflow.started_by.as_ref().unwrap_or(&workflow.id),
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

async fn workflows(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let what = format!("there is no pipeline `{id}`");
    let read = move |c: &View| {
        let known = c.prepare_cached("SELECT 1 FROM pipelines WHERE id = ?1")?.exists([&id])?;
        if known { read::workflows_of(c, &id).map(Some) } else { Ok(None) }
    };
    Ok(whole(one(&state, what, read).await?.iter().map(show_workflow).collect()))
}

async fn workflow(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let what = format!("there is no workflow `{id}`");
    let workflow = one(&state, what, move |c| read::workflow(c, &id)).await?;
    Ok(Json(show_workflow(&workflow)))
}

/// The ids of the jobs that each job requires, by its id.
pub(super) fn dependencies(jobs: &[Job]) -> HashMap<&str, Vec<&str>> {
    let ids: HashMap<&str, &str> = jobs.iter().map(|job| (job.name.as_str(), job.id.as_str())).collect();
    let of = |job: &Job| {
        let requires: Value = serde_json::from_str(&job.requires).unwrap_or_default();
        let names = requires.as_array().into_iter().flatten().filter_map(|entry| entry["job"].as_str());
        names.filter_map(|name| ids.get(name).copied()).collect()
    };
    jobs.iter().map(|job| (job.id.as_str(), of(job))).collect()
}

async fn jobs(State(state): State<Shared>, _person: Person, Path(id): Path<String>) -> Answer<Json<Value>> {
    let what = format!("there is no workflow `{id}`");
    let read = move |c: &View| {
        let known = c.prepare_cached("SELECT 1 FROM workflows WHERE id = ?1")?.exists([&id])?;
        if known { read::jobs_of(c, &id).map(Some) } else { Ok(None) }
    };
    let jobs = one(&state, what, read).await?;
    let dependencies = dependencies(&jobs);
    let show = |job: &Job| {
        let mut shown = json!({
            "id": job.id, "name": job.name, "status": job.status, "type": job.kind, "project_slug": job.project.slug(),
            "started_at": time(job.started_at_ms), "stopped_at": time(job.stopped_at_ms),
            "dependencies": dependencies.get(job.id.as_str()),
        });
        if let Some(number) = job.number {
            shown["job_number"] = json!(number);
        }
        if job.kind == JobType::Approval {
            shown["approval_request_id"] = json!(job.id);
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

fn accepted() -> Response {
    (StatusCode::ACCEPTED, Json(json!({ "message": "Accepted." }))).into_response()
}

async fn cancel(State(state): State<Shared>, person: Person, Path(id): Path<String>) -> Answer<Response> {
    let what = format!("there is no workflow `{id}`");
    let write = state.store.write(move |tx| {
        commit::cancel_workflow(tx, &id.into(), Some(&person.id.as_str().into()), Millis::now())
    });
    if write.await? { Ok(accepted()) } else { Err(Failure::not_found(what)) }
}

async fn cancel_pipeline(
    State(state): State<Shared>,
    person: Person,
    Path(id): Path<String>,
) -> Answer<Response> {
    let what = format!("there is no pipeline `{id}`");
    let write = state.store.write(move |tx| {
        let Some(_) = read::pipeline(tx, &id)? else { return Ok(false) };
        for workflow in read::workflows_of(tx, &id)? {
            commit::cancel_workflow(
                tx,
                &workflow.id.into(),
                Some(&person.id.as_str().into()),
                Millis::now(),
            )?;
        }
        Ok(true)
    });
    if write.await? { Ok(accepted()) } else { Err(Failure::not_found(what)) }
}

async fn approve(
    State(state): State<Shared>,
    person: Person,
    Path((id, job)): Path<(String, String)>,
) -> Answer<Response> {
    let what = format!("no approval `{job}` is waiting in the workflow `{id}`");
    let write = state.store.write(move |tx| {
        commit::approve(tx, &id.into(), &job.into(), Some(&person.id.as_str().into()), Millis::now())
    });
    if write.await? { Ok(accepted()) } else { Err(Failure::not_found(what)) }
}

/// The job of a path.
pub(super) async fn job_of(
    state: &Shared,
    (vcs, org, repo, number): (String, String, String, i64),
) -> Answer<Job> {
    let project = project(state, (vcs, org, repo)).await?;
    let what = format!("the project `{}` has no job {number}", project.slug);
    one(state, what, move |c| read::job_by_number(c, project.id.as_str(), number)).await
}

/// Where people look at a job.
pub(super) fn job_url(state: &Shared, job: &Job) -> String {
    let number = job.number.map_or_else(|| job.id.clone(), |number| number.to_string());
    format!("{}/{}/{number}", state.settings.public_url, job.project.slug())
}

async fn numbered_job(
    State(state): State<Shared>,
    _person: Person,
    Path(path): Numbered,
) -> Answer<Json<Value>> {
    let job = job_of(&state, path).await?;
    let ran_as = job.ran_as.clone();
    let attempts = state.store.read(move |c| read::attempts(c, &ran_as)).await?;
    let runs: Vec<Value> =
        attempts.iter().map(|run| json!({ "index": run.node_index, "status": run.status })).collect();
    let contexts: Vec<String> = serde_json::from_str(&job.contexts).unwrap_or_default();
    let contexts: Vec<Value> = contexts.iter().map(|name| json!({ "name": name })).collect();
    let duration = job.started_at_ms.map(|started| job.stopped_at_ms.unwrap_or(now_ms() as i64) - started);
    let url = job_url(&state, &job);
    Ok(Json(json!({
        "id": job.id, "web_url": url, "name": job.name, "number": job.number, "status": job.status,
        "project": {
            "id": job.project.id, "slug": job.project.slug(), "name": job.project.repo,
            "external_url": job.project.repository_url.clone().unwrap_or_default(),
        },
        "organization": { "name": job.project.org }, "pipeline": { "id": job.pipeline_id },
        "latest_workflow": { "id": job.workflow_id, "name": job.workflow_name },
        "executor": { "resource_class": job.resource_class, "type": "machine" },
        "parallelism": job.parallelism, "parallel_runs": runs, "duration": duration,
        "messages": serde_json::from_str::<Value>(&job.messages).unwrap_or_default(), "contexts": contexts,
        "created_at": timestamp(job.created_at_ms), "queued_at": time(job.queued_at_ms),
        "started_at": time(job.started_at_ms), "stopped_at": time(job.stopped_at_ms),
    })))
}

/// By number, as published, or by id: an approval has no number, and may be cancelled all the same.
async fn cancel_job(
    State(state): State<Shared>,
    person: Person,
    Path((vcs, org, repo, job)): Path<(String, String, String, String)>,
) -> Answer<Response> {
    let job = match job.parse() {
        Ok(number) => job_of(&state, (vcs, org, repo, number)).await?,
        Err(_) => {
            let project = project(&state, (vcs, org, repo)).await?;
            let what = format!("the project `{}` has no job `{job}`", project.slug);
            let read =
                move |c: &View| Ok(read::job(c, &job)?.filter(|job| job.project.id == project.id.as_str()));
            one(&state, what, read).await?
        }
    };
    state
        .store
        .write(move |tx| {
            commit::cancel_job(tx, &job.id.into(), Some(&person.id.as_str().into()), Millis::now())
        })
        .await?;
    Ok(accepted())
}

async fn artifacts(
    State(state): State<Shared>,
    _person: Person,
    Path(path): Numbered,
) -> Answer<Json<Value>> {
    let job = job_of(&state, path).await?;
    let artifacts = state.store.read(move |c| read::artifacts(c, &job.ran_as)).await?;
    let show = |artifact: &read::Artifact| {
        json!({
            "path": artifact.path, "node_index": artifact.node_index, "url": crate::server::api::ours::results::artifact_url(&state, artifact),
        })
    };
    Ok(whole(artifacts.iter().map(show).collect()))
}

/// A test as versions 1.1 and 2 show it.
pub(super) fn show_test(test: &read::Test) -> Value {
    let mut shown = json!({
        "name": test.name, "classname": test.classname, "result": test.result, "run_time": test.run_time,
        "message": test.message, "source": test.source,
    });
    if let Some(file) = &test.file {
        shown["file"] = json!(file);
    }
    shown
}

async fn tests(State(state): State<Shared>, _person: Person, Path(path): Numbered) -> Answer<Json<Value>> {
    let job = job_of(&state, path).await?;
    let tests = state.store.read(move |c| read::tests(c, &job.ran_as)).await?;
    Ok(whole(tests.iter().map(show_test).collect()))
}
