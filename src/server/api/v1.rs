//! Version 1.1, the parts that clients still call: builds with their steps, artifacts, tests.

use crate::protocol::TaskId;
use crate::server::api::ours::results;
use crate::server::api::shared::input::{self, Body, Words, bad, project};
use crate::server::api::shared::vocabulary::{lifecycle_v1, status_v1, time};
use crate::server::api::v2::{job_of, job_url, show_test};
use crate::server::api::{Administrator, Answer, Failure, Person};
use crate::server::engine::commit::{self, Refused, Scope};
use crate::server::state::{Shared, timestamp};
use crate::server::store::View;
use crate::server::store::read::{self, Attempt, Job, Pipeline, StepRow};
use crate::server::store::status::{JobStatus, StepState};
use crate::server::store::tables::archives;
use crate::server::time::Millis;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use rusqlite::OptionalExtension;
use serde_json::{Value, json};
use std::collections::HashSet;

type Slug = Path<(String, String, String)>;
type Numbered = Path<(String, String, String, i64)>;

/// The paths.
pub fn router() -> Router<Shared> {
    let project = "/api/v1.1/project/{vcs}/{org}/{repo}";
    Router::new()
        .route("/api/v1.1/me", get(me))
        .route("/api/v1.1/projects", get(projects))
        .route("/api/v1.1/recent-builds", get(recent))
        .route(project, get(of_project))
        .route(&format!("{project}/tree/{{branch}}"), get(of_branch))
        .route(&format!("{project}/follow"), post(follow))
        .route(&format!("{project}/{{number}}"), get(build))
        .route(&format!("{project}/{{number}}/artifacts"), get(artifacts))
        .route(&format!("{project}/{{number}}/tests"), get(tests))
        .route(&format!("{project}/{{number}}/cancel"), post(cancel))
        .route(&format!("{project}/{{number}}/retry"), post(retry))
        .route(&format!("{project}/{{number}}/ssh"), post(ssh))
        .route(&format!("{project}/build-cache"), delete(forget_caches))
        .route(&format!("{project}/settings"), get(settings).put(change_settings))
}

async fn me(person: Person) -> Json<Value> {
    Json(json!({
        "login": person.login, "name": person.login, "selected_email": null, "avatar_url": null,
        "analytics_id": person.id, "projects": {},
    }))
}

async fn projects(State(state): State<Shared>, _person: Person) -> Answer<Json<Value>> {
    let read = |c: &View| {
        let mut query = c.prepare_cached(
            "SELECT vcs, org, repo, coalesce(repository_url, ''), default_branch FROM projects ORDER BY vcs, org, repo",
        )?;
        let rows = query.query_map([], |row| {
            let (vcs, org, repo): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(json!({
                "vcs_type": long_vcs(&vcs), "username": org, "reponame": repo, "name": repo,
                "slug": format!("{vcs}/{org}/{repo}"), "vcs_url": row.get::<_, String>(3)?,
                "default_branch": row.get::<_, String>(4)?, "following": true, "branches": {},
            }))
        })?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    };
    Ok(Json(state.store.read(read).await?.into()))
}

fn long_vcs(vcs: &str) -> &str {
    match vcs {
        "gh" => "github",
        "bb" => "bitbucket",
        other => other,
    }
}

/// Everybody sees every project here, so following changes nothing.
async fn follow(State(state): State<Shared>, _person: Person, Path(slug): Slug) -> Answer<Json<Value>> {
    project(&state, slug).await?;
    Ok(Json(json!({ "following": true, "followed": true })))
}

/// The next jobs begin without caches, as after a bad one was saved.
async fn forget_caches(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): Slug,
) -> Answer<Json<Value>> {
    let project = input::project(&state, slug).await?;
    let count =
        state.store.write(move |tx| archives::delete_caches_of(tx, &project.id.as_str().into())).await?;
    Ok(Json(json!({ "status": format!("build dependency caches deleted: {count}") })))
}

/// A build without its steps.
fn summary(state: &Shared, job: &Job, pipeline: &Pipeline) -> Value {
    let (started, stopped) = (job.started_at_ms, job.stopped_at_ms);
    let outcome = job.status.is_terminal().then(|| status_v1(job.status));
    json!({
        "build_num": job.number, "status": status_v1(job.status), "outcome": outcome, "lifecycle": lifecycle_v1(job.status),
        "vcs_url": pipeline.repository_url, "vcs_type": long_vcs(&job.project.vcs), "vcs_revision": pipeline.revision,
        "vcs_tag": pipeline.tag, "branch": pipeline.branch, "username": job.project.org, "reponame": job.project.repo,
        "build_url": job_url(state, job), "subject": pipeline.subject, "body": pipeline.body,
        "committer_name": pipeline.author, "committer_email": null, "author_name": pipeline.author,
        "queued_at": time(job.queued_at_ms), "start_time": time(started), "stop_time": time(stopped),
        "build_time_millis": started.zip(stopped).map(|(started, stopped)| stopped - started),
        "parallel": job.parallelism, "canceled": job.status == JobStatus::Canceled,
        "infrastructure_fail": job.status == JobStatus::InfrastructureFail, "timedout": job.ran_out_of_time,
        "why": pipeline.trigger_type, "user": { "login": pipeline.actor_login, "is_user": true }, "previous": null,
        "workflows": {
            "job_name": job.name, "job_id": job.id, "workflow_id": job.workflow_id, "workflow_name": job.workflow_name,
            "workspace_id": job.workspace_id, "upstream_job_ids": [],
        },
    })
}

/// The window of builds that a client asks for.
fn window(words: &Words) -> Answer<(u32, u32)> {
    let number = |name: &str, default: u32| match words.get(name).filter(|text| !text.is_empty()) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| bad(format!("`{name}` must be a number, not `{text}`"))),
    };
    Ok((number("offset", 0)?, number("limit", 30)?.min(100)))
}

async fn builds(
    state: &Shared,
    project: Option<String>,
    branch: Option<String>,
    words: &Words,
) -> Answer<Json<Value>> {
    let (offset, limit) = window(words)?;
    let wanted = words.get("filter").filter(|text| !text.is_empty()).cloned();
    let read = move |c: &View| {
        let mut found = Vec::new();
        for job in read::recent_jobs(c, project.as_deref(), branch.as_deref(), offset, limit)? {
            let fits = match wanted.as_deref() {
                None => true,
                Some("completed") => job.status.is_terminal(),
                Some("successful") => job.status == JobStatus::Success,
                Some("failed") => job.status.is_failure(),
                Some("running") => job.status == JobStatus::Running,
                Some(_) => false,
            };
            if let (true, Some(pipeline)) = (fits, read::pipeline(c, &job.pipeline_id)?) {
                found.push((job, pipeline));
            }
        }
        Ok(found)
    };
    let found = state.store.read(read).await?;
    Ok(Json(found.iter().map(|(job, pipeline)| summary(state, job, pipeline)).collect::<Vec<_>>().into()))
}

async fn recent(State(state): State<Shared>, _person: Person, words: Words) -> Answer<Json<Value>> {
    builds(&state, None, None, &words).await
}

async fn of_project(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): Slug,
    words: Words,
) -> Answer<Json<Value>> {
    let project = project(&state, slug).await?;
    builds(&state, Some(project.id.into()), None, &words).await
}

async fn of_branch(
    State(state): State<Shared>,
    _person: Person,
    Path((vcs, org, repo, branch)): Path<(String, String, String, String)>,
    words: Words,
) -> Answer<Json<Value>> {
    let project = project(&state, (vcs, org, repo)).await?;
    builds(&state, Some(project.id.into()), Some(branch), &words).await
}

/// One parallel run of a step.
fn action(state: &Shared, attempt: &Attempt, step: &StepRow, has_output: bool) -> Answer<Value> {
    let failed =
        matches!(step.status, StepState::Failed | StepState::Timedout | StepState::InfrastructureFail);
    let ended = step.status != StepState::Running;
    let mut shown = json!({
        "index": attempt.node_index, "step": step.step, "name": step.name, "type": step.kind,
        "status": step.status, "failed": if ended { json!(failed) } else { Value::Null },
        "exit_code": step.exit_code, "bash_command": step.command, "start_time": timestamp(step.started_at_ms),
        "end_time": time(step.ended_at_ms), "run_time_millis": step.ended_at_ms.map(|end| end - step.started_at_ms),
        "has_output": has_output, "truncated": false, "background": step.background, "parallel": true,
        "continue": null, "insignificant": false, "canceled": step.status == StepState::Canceled,
        "timedout": step.status == StepState::Timedout,
        "infrastructure_fail": step.status == StepState::InfrastructureFail, "messages": step.message,
    });
    if has_output {
        shown["output_url"] = results::output_url(state, &attempt.task, step.step)?.into();
    }
    if step.max_auto_reruns > 0 {
        shown["auto_rerun_number"] = json!(step.attempt.saturating_sub(1));
        shown["max_auto_reruns"] = json!(step.max_auto_reruns);
    }
    Ok(shown)
}

/// Steps of all parallel runs, those of one record side by side.
async fn steps(state: &Shared, attempts: &[Attempt]) -> Answer<Vec<Value>> {
    let with_output = with_output(state, attempts).await?;
    let mut numbers: Vec<u32> = attempts.iter().flat_map(|a| a.steps.iter().map(|step| step.step)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut shown = Vec::new();
    for number in numbers {
        let (mut name, mut actions) = (String::new(), Vec::new());
        for attempt in attempts {
            let Some(step) = attempt.steps.iter().find(|step| step.step == number) else { continue };
            let has_output = with_output.contains(&(attempt.task.clone(), number));
            name.clone_from(&step.name);
            actions.push(action(state, attempt, step, has_output)?);
        }
        shown.push(json!({ "name": name, "actions": actions }));
    }
    Ok(shown)
}

/// The steps that have written something.
async fn with_output(state: &Shared, attempts: &[Attempt]) -> Answer<HashSet<(String, u32)>> {
    let steps = attempts.iter().flat_map(|a| a.steps.iter().map(|step| (a.task.clone(), step.step)));
    let (names, steps): (Vec<_>, Vec<_>) = steps
        .filter_map(|name| TaskId::new(name.0.clone()).ok().map(|task| (name.clone(), (task, name.1))))
        .unzip();
    let lengths = state.blobs.outputs.lengths(steps).await?;
    Ok(names.into_iter().zip(lengths).filter(|(_, length)| *length > 0).map(|(name, _)| name).collect())
}

async fn build_of(state: &Shared, job: Job) -> Answer<Json<Value>> {
    let what = format!("there is no job `{}`", job.id);
    let read = move |c: &View| {
        let Some(pipeline) = read::pipeline(c, &job.pipeline_id)? else { return Ok(None) };
        let attempts = read::attempts(c, &job.ran_as)?;
        let artifacts = !read::artifacts(c, &job.ran_as)?.is_empty();
        Ok(Some((job, pipeline, attempts, artifacts)))
    };
    let (job, pipeline, attempts, artifacts) = crate::server::api::v2::one(state, what, read).await?;
    let mut shown = summary(state, &job, &pipeline);
    shown["has_artifacts"] = json!(artifacts);
    shown["steps"] = steps(state, &attempts).await?.into();
    shown["pull_requests"] = json!([]);
    Ok(Json(shown))
}

async fn build(State(state): State<Shared>, _person: Person, Path(path): Numbered) -> Answer<Json<Value>> {
    let job = job_of(&state, path).await?;
    build_of(&state, job).await
}

async fn artifacts(
    State(state): State<Shared>,
    _person: Person,
    Path(path): Numbered,
) -> Answer<Json<Value>> {
    let job = job_of(&state, path).await?;
    let found = state.store.read(move |c| read::artifacts(c, &job.ran_as)).await?;
    let show = |artifact: &read::Artifact| {
        let url = results::artifact_url(&state, artifact);
        json!({ "path": artifact.path, "pretty_path": artifact.path, "node_index": artifact.node_index, "url": url })
    };
    Ok(Json(found.iter().map(show).collect::<Vec<_>>().into()))
}

async fn tests(State(state): State<Shared>, _person: Person, Path(path): Numbered) -> Answer<Json<Value>> {
    let job = job_of(&state, path).await?;
    let found = state.store.read(move |c| read::tests(c, &job.ran_as)).await?;
    Ok(Json(json!({ "tests": found.iter().map(show_test).collect::<Vec<_>>(), "exceptions": [] })))
}

async fn cancel(State(state): State<Shared>, person: Person, Path(path): Numbered) -> Answer<Json<Value>> {
    let job = job_of(&state, path.clone()).await?;
    state
        .store
        .write(move |tx| {
            commit::cancel_job(tx, &job.id.into(), Some(&person.id.as_str().into()), Millis::now())
        })
        .await?;
    let job = job_of(&state, path).await?;
    build_of(&state, job).await
}

/// Runs the job and what depends on it again, in a new workflow.
async fn retry(State(state): State<Shared>, person: Person, Path(path): Numbered) -> Answer<Json<Value>> {
    let job = job_of(&state, path).await?;
    let name = job.name.clone();
    let made = state.store.write(move |tx| {
        let scope = Scope::Jobs(vec![job.id.clone().into()]);
        commit::rerun(tx, &job.workflow_id.into(), &scope, Some(&person.id.as_str().into()), Millis::now())
    });
    let workflow = made.await?.map_err(|refused| match refused {
        Refused::Unknown => Failure::not_found(refused.to_string()),
        refused => Failure::new(StatusCode::BAD_REQUEST, refused.to_string()),
    })?;
    let what = format!("the new workflow has no job `{name}`");
    let read =
        move |c: &View| Ok(read::jobs_of(c, workflow.as_str())?.into_iter().find(|job| job.name == name));
    let again = crate::server::api::v2::one(&state, what, read).await?;
    build_of(&state, again).await
}

async fn ssh(_person: Person) -> Answer<Json<Value>> {
    Err(bad("reruns with SSH are not available on this control plane: use `/retry`"))
}

async fn settings(State(state): State<Shared>, _person: Person, Path(slug): Slug) -> Answer<Json<Value>> {
    let project = project(&state, slug).await?;
    let what = format!("there is no project `{}`", project.slug);
    let read = move |c: &View| {
        let mut query = c.prepare_cached("SELECT settings FROM projects WHERE id = ?1")?;
        Ok(query.query_row([project.id], |row| row.get::<_, String>(0)).optional()?)
    };
    let stored: Value =
        serde_json::from_str(&crate::server::api::v2::one(&state, what, read).await?).unwrap_or_default();
    let on = stored["enable_auto_cancel_redundant_workflows"] == true;
    Ok(Json(json!({ "feature_flags": { "autocancel-builds": on } })))
}

async fn change_settings(
    state: State<Shared>,
    Administrator(person): Administrator,
    Path(slug): Slug,
    body: Body,
) -> Answer<Json<Value>> {
    let flags = body.0["feature_flags"].as_object().cloned().unwrap_or_default();
    if let Some(unknown) = flags.keys().find(|name| *name != "autocancel-builds") {
        return Err(bad(format!(
            "the feature flag `{unknown}` is not available here (available: autocancel-builds)"
        )));
    }
    if let Some(flag) = flags.get("autocancel-builds") {
        let on = flag.as_bool().ok_or_else(|| bad("`autocancel-builds` must be true or false"))?;
        let project = input::project(&state, slug.clone()).await?;
        let update = "UPDATE projects SET settings = json_set(settings, '$.enable_auto_cancel_redundant_workflows', json(?2)) WHERE id = ?1";
        let write = state.store.write(move |tx| {
            Ok(tx.execute(update, [project.id.as_str(), if on { "true" } else { "false" }])?)
        });
        write.await?;
    }
    settings(state, person, Path(slug)).await
}
