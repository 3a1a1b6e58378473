//! Builds, which are jobs with a number: lists, one of them, what they left, and what people do to them.

use crate::server::api::shared::acts::{cancel_job, run_again};
use crate::server::api::shared::failure::{Answer, bad, blocking};
use crate::server::api::shared::input::{self, Path, QueryWords};
use crate::server::api::shared::lookup::{
    Numbered, Slug, artifact_url, artifacts_of, attempts_of, explained, job_of, one, project, tests_of,
};
use crate::server::api::shared::vocabulary;
use crate::server::api::v1::show::{steps, summary};
use crate::server::auth::Person;
use crate::server::engine::commit::RerunScope;
use crate::server::ids::ProjectId;
use crate::server::state::Shared;
use crate::server::store::View;
use crate::server::store::read::{self, Artifact, Attempt, Job, Recent, StepRow};
use crate::server::store::status::JobStatus;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

/// Builds of a list unless the client says.
const PAGE: u32 = 30;
/// Most builds of a list.
const MOST: u32 = 100;

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    let project = "/api/v1.1/project/{vcs}/{org}/{repo}";
    Router::new()
        .route("/api/v1.1/recent-builds", get(recent))
        .route(project, get(of_project))
        .route(&format!("{project}/tree/{{*branch}}"), get(of_branch))
        .route(&format!("{project}/latest/artifacts"), get(latest_artifacts))
        .route(&format!("{project}/{{number}}"), get(build))
        .route(&format!("{project}/{{number}}/artifacts"), get(artifacts))
        .route(&format!("{project}/{{number}}/tests"), get(tests))
        .route(&format!("{project}/{{number}}/cancel"), post(cancel))
        .route(&format!("{project}/{{number}}/retry"), post(retry))
        .route(&format!("{project}/{{number}}/ssh"), post(ssh))
}

/// The window of builds that a client asks for: its offset and its limit.
fn window(words: &QueryWords) -> Answer<(u32, u32)> {
    let number = |name: &str, default: u32| match words.get(name).filter(|text| !text.is_empty()) {
        None => Ok(default),
        Some(text) => input::number(name, text),
    };
    Ok((number("offset", 0)?, number("limit", PAGE)?.min(MOST)))
}

/// Statuses of jobs that a word of `filter` stands for; `None` without the word.
fn statuses(words: &QueryWords) -> Answer<Option<Vec<JobStatus>>> {
    use JobStatus as S;
    const FAILED: [JobStatus; 4] = [S::Failed, S::InfrastructureFail, S::TerminatedUnknown, S::Unauthorized];
    let statuses = match words.get("filter").map(String::as_str).filter(|word| !word.is_empty()) {
        None => return Ok(None),
        Some("completed") => [&[S::Success, S::Canceled, S::NotRun], &FAILED[..]].concat(),
        Some("successful") => vec![S::Success],
        Some("failed") => FAILED.to_vec(),
        Some("running") => vec![S::Running],
        Some(word) => {
            return Err(bad(format!(
                "`filter` cannot be `{word}`: it is completed, successful, failed or running"
            )));
        }
    };
    Ok(Some(statuses))
}

async fn list(
    state: &Shared,
    project: Option<ProjectId>,
    branch: Option<String>,
    words: &QueryWords,
) -> Answer<Json<Value>> {
    let (offset, limit) = window(words)?;
    // Builds are short either way.
    input::flag(words, "shallow")?;
    let wanted = Recent { project, branch, statuses: statuses(words)?, with_artifacts: false };
    let read = move |view: &View| {
        let mut found = Vec::new();
        for job in explained(view, read::recent_jobs(view, &wanted, offset, limit)?)? {
            if let Some(pipeline) = read::pipeline(view, &job.pipeline_id)? {
                found.push((job, pipeline));
            }
        }
        Ok(found)
    };
    let found = state.store.read(read).await?;
    Ok(Json(found.iter().map(|(job, pipeline)| summary(state, job, pipeline)).collect::<Vec<_>>().into()))
}

async fn recent(State(state): State<Shared>, _person: Person, words: QueryWords) -> Answer<Json<Value>> {
    list(&state, None, None, &words).await
}

async fn of_project(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): Path<Slug>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let project = project(&state, slug).await?;
    list(&state, Some(project.id), None, &words).await
}

async fn of_branch(
    State(state): State<Shared>,
    _person: Person,
    Path((vcs, org, repo, branch)): Path<(String, String, String, String)>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let project = project(&state, (vcs, org, repo)).await?;
    list(&state, Some(project.id), Some(branch), &words).await
}

/// A build with its steps.
pub(super) async fn show(state: &Shared, mut job: Job) -> Answer<Json<Value>> {
    let what = format!("there is no job `{}`", job.id);
    let read = move |view: &View| {
        let Some(pipeline) = read::pipeline(view, &job.pipeline_id)? else { return Ok(None) };
        let attempts = attempts_of(view, &mut job)?;
        let has_artifacts = !read::artifacts(view, &job.ran_as)?.is_empty();
        let build = (job, pipeline);
        Ok(Some((build, attempts, has_artifacts)))
    };
    let ((job, pipeline), attempts, has_artifacts) = one(state, what, read).await?;
    let written = |attempt: &Attempt, step: &StepRow| {
        // Nobody can look at the bytes any more: where they are asked for, the answer says so.
        let wrote = attempt.is_output_gone && step.output_bytes != Some(0);
        ((attempt.task.clone(), step.step), wrote)
    };
    let all: Vec<_> =
        attempts.iter().flat_map(|one| one.steps.iter().map(move |step| written(one, step))).collect();
    let blobs = state.blobs.clone();
    let has_output = move || {
        let kept =
            all.into_iter().filter(|((task, step), wrote)| *wrote || blobs.outputs.length(task, *step) > 0);
        Ok(kept.map(|(of, _)| of).collect())
    };
    let with_output = blocking(has_output).await?;
    let mut shown = summary(state, &job, &pipeline);
    shown["has_artifacts"] = json!(has_artifacts);
    shown["steps"] = steps(state, &attempts, &with_output)?.into();
    shown["pull_requests"] = json!([]);
    Ok(Json(shown))
}

async fn build(
    State(state): State<Shared>,
    _person: Person,
    Path(path): Path<Numbered>,
) -> Answer<Json<Value>> {
    let job = job_of(&state, path).await?;
    show(&state, job).await
}

async fn artifacts(
    State(state): State<Shared>,
    _person: Person,
    Path(path): Path<Numbered>,
) -> Answer<Json<Value>> {
    let job = job_of(&state, path).await?;
    show_artifacts(&state, job).await
}

/// The artifacts of the newest build that left some: of a branch, and with an end as `filter` says, any end unless it does.
async fn latest_artifacts(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): Path<Slug>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let project = project(&state, slug).await?;
    let branch = words.get("branch").filter(|branch| !branch.is_empty()).cloned();
    let what = format!("no build of `{}` that is asked for has artifacts", project.slug);
    let statuses = statuses(&words)?;
    let wanted = Recent { project: Some(project.id), branch, statuses, with_artifacts: true };
    let read = move |view: &View| Ok(read::recent_jobs(view, &wanted, 0, 1)?.pop());
    let latest = one(&state, what, read).await?;
    show_artifacts(&state, latest).await
}

async fn show_artifacts(state: &Shared, job: Job) -> Answer<Json<Value>> {
    let found = artifacts_of(state, job).await?;
    let show = |artifact: &Artifact| {
        let url = artifact_url(state, artifact);
        json!({ "path": artifact.path, "pretty_path": artifact.path, "node_index": artifact.node_index, "url": url })
    };
    Ok(Json(found.iter().map(show).collect::<Vec<_>>().into()))
}

async fn tests(
    State(state): State<Shared>,
    _person: Person,
    Path(path): Path<Numbered>,
) -> Answer<Json<Value>> {
    let found = tests_of(&state, job_of(&state, path).await?).await?;
    let tests: Vec<_> = found.iter().map(vocabulary::test).collect();
    Ok(Json(json!({ "tests": tests, "exceptions": [] })))
}

async fn cancel(
    State(state): State<Shared>,
    person: Person,
    Path(path): Path<Numbered>,
) -> Answer<Json<Value>> {
    let job = job_of(&state, path.clone()).await?;
    cancel_job(&state, job.id, person).await?;
    let job = job_of(&state, path).await?;
    show(&state, job).await
}

/// Runs the job and what depends on it again, in a new workflow.
async fn retry(
    State(state): State<Shared>,
    person: Person,
    Path(path): Path<Numbered>,
) -> Answer<Json<Value>> {
    let job = job_of(&state, path).await?;
    let name = job.name.clone();
    let workflow = run_again(&state, job.workflow_id, RerunScope::Jobs(vec![job.id]), false, person).await?;
    let what = format!("the new workflow has no job `{name}`");
    let read =
        move |view: &View| Ok(read::jobs_of(view, &workflow)?.into_iter().find(|job| job.name == name));
    let again = one(&state, what, read).await?;
    show(&state, again).await
}

async fn ssh(_person: Person) -> Answer<Json<Value>> {
    Err(bad("reruns with SSH are not available on this control plane: use `/retry`"))
}
