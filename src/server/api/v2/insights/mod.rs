//! Insights: how workflows, jobs and tests of a project went over time, from what is stored.

mod metrics;
mod query;
mod tests_of_runs;

use crate::server::api::shared::failure::{Answer, ApiError};
use crate::server::api::shared::input::{Path, QueryWords};
use crate::server::api::shared::lookup::{Slug, project};
use crate::server::api::shared::paging::{newest_first, page};
use crate::server::api::shared::vocabulary::{time, workflow_v2};
use crate::server::auth::Person;
use crate::server::ids::ProjectId;
use crate::server::state::Shared;
use crate::server::store::View;
use crate::server::store::read::{self, FlakyTest, JobRun, Runs, WorkflowRun};
use crate::server::store::status::{JobStatus, WorkflowStatus};
use crate::server::time::Millis;
use crate::system::suggest::nearest;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use metrics::{MeasuredRun, Metrics};
use query::{Period, branches_of, given, no_period};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A test is compared with itself within this time.
const FLAKY_WITHIN: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The three segments of a slug, and the name of a workflow.
type OfWorkflow = (String, String, String, String);

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    let project = "/api/v2/insights/{vcs}/{org}/{repo}";
    Router::new()
        .route(&format!("{project}/workflows"), get(workflows))
        .route(&format!("{project}/workflows/{{name}}"), get(workflow_runs))
        .route(&format!("{project}/workflows/{{name}}/summary"), get(summary))
        .route(&format!("{project}/workflows/{{name}}/jobs"), get(jobs))
        .route(&format!("{project}/workflows/{{name}}/jobs/{{job}}"), get(job_runs))
        .route(&format!("{project}/workflows/{{name}}/test-metrics"), get(test_metrics))
        .route(&format!("{project}/branches"), get(branches))
        .route(&format!("{project}/flaky-tests"), get(flaky_tests))
}

fn of_workflow(run: &WorkflowRun) -> MeasuredRun {
    let is_good = match run.status {
        WorkflowStatus::Success => Some(true),
        WorkflowStatus::Failed | WorkflowStatus::Error | WorkflowStatus::Unauthorized => Some(false),
        _ => None,
    };
    let ended = run.stopped_at.filter(|_| run.status.is_terminal());
    MeasuredRun { is_good, began: run.created_at, ended }
}

fn of_job(run: &JobRun) -> MeasuredRun {
    let is_good = match run.status {
        JobStatus::Success => Some(true),
        status => status.is_failure().then_some(false),
    };
    MeasuredRun { is_good, began: run.started_at, ended: run.stopped_at }
}

/// The runs of a project that a query asks for.
async fn runs(state: &Shared, slug: Slug, words: &QueryWords, period: &Period) -> Answer<Runs> {
    let project = project(state, slug).await?;
    let branches = branches_of(words, &project.default_branch)?;
    Ok(Runs { project: project.id, branches, from: period.from, to: period.to })
}

/// Refuses names that no pipeline has, where nothing was found by them: a workflow, and a job of it.
async fn check_names(state: &Shared, project: &ProjectId, workflow: &str, job: Option<&str>) -> Answer<()> {
    let (project, workflow, job) = (project.clone(), workflow.to_owned(), job.map(str::to_owned));
    let read = move |view: &View| {
        let workflows = read::known_names(view, &project, None)?;
        if !workflows.contains(&workflow) {
            return Ok(Some(unknown("workflow", &workflow, &workflows)));
        }
        let Some(job) = job else { return Ok(None) };
        let jobs = read::known_names(view, &project, Some(&workflow))?;
        Ok((!jobs.contains(&job)).then(|| unknown("job", &job, &jobs)))
    };
    state.store.read(read).await?.map_or(Ok(()), |why| Err(ApiError::not_found(why)))
}

fn unknown(what: &str, name: &str, known: &[String]) -> String {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let meant = nearest(name, &known).map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    format!("no pipeline of the project has a {what} `{name}`{meant} (known: {known})")
}

/// Runs by a name, in its order, with their metrics.
fn by_name<T>(
    runs: &[T],
    name: impl Fn(&T) -> &str,
    of: impl Fn(&T) -> MeasuredRun,
    days: f64,
) -> BTreeMap<String, Metrics> {
    let mut named: BTreeMap<String, Vec<MeasuredRun>> = BTreeMap::new();
    for run in runs {
        named.entry(name(run).to_owned()).or_default().push(of(run));
    }
    named.into_iter().map(|(name, runs)| (name, Metrics::of(&runs, days))).collect()
}

fn show_named(name: String, metrics: &Metrics, shown: Value) -> (String, Value) {
    let [start, end] = metrics.window();
    let item = json!({ "name": name, "window_start": start, "window_end": end, "metrics": shown });
    (name, item)
}

async fn workflows(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): Path<Slug>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let period = Period::of(&words, Millis::now())?;
    let runs = runs(&state, slug, &words, &period).await?;
    let found = state.store.read(move |view| read::workflow_runs(view, &runs, None)).await?;
    let named = by_name(&found, |run| &run.name, of_workflow, period.days());
    page(named.into_iter().map(|(name, sums)| show_named(name, &sums, sums.of_workflow())).collect(), &words)
}

async fn jobs(
    State(state): State<Shared>,
    _person: Person,
    Path((vcs, org, repo, workflow)): Path<OfWorkflow>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let period = Period::of(&words, Millis::now())?;
    let runs = runs(&state, (vcs, org, repo), &words, &period).await?;
    let (project, name) = (runs.project.clone(), workflow.clone());
    let found = state.store.read(move |view| read::job_runs(view, &runs, &workflow, None)).await?;
    if found.is_empty() {
        check_names(&state, &project, &name, None).await?;
    }
    let named = by_name(&found, |run| &run.name, of_job, period.days());
    page(named.into_iter().map(|(name, sums)| show_named(name, &sums, sums.of_job())).collect(), &words)
}

async fn workflow_runs(
    State(state): State<Shared>,
    _person: Person,
    Path((vcs, org, repo, workflow)): Path<OfWorkflow>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let period = Period::of(&words, Millis::now())?;
    let runs = runs(&state, (vcs, org, repo), &words, &period).await?;
    let (project, name) = (runs.project.clone(), workflow.clone());
    let found = state.store.read(move |view| read::workflow_runs(view, &runs, Some(&workflow))).await?;
    if found.is_empty() {
        check_names(&state, &project, &name, None).await?;
    }
    let ended = found.iter().filter_map(|run| Some((run, of_workflow(run).ended?)));
    let show = |(run, ended): (&WorkflowRun, Millis)| {
        let shown = json!({
            "id": run.id, "branch": run.branch, "duration": ended.since(run.created_at).as_secs(),
            "created_at": run.created_at.to_string(), "stopped_at": ended.to_string(), "credits_used": 0,
            "status": workflow_v2(run.status),
        });
        (newest_first(run.created_at, run.id.as_str()), shown)
    };
    page(ended.map(show).collect(), &words)
}

async fn job_runs(
    State(state): State<Shared>,
    _person: Person,
    Path((vcs, org, repo, workflow, job)): Path<(String, String, String, String, String)>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let period = Period::of(&words, Millis::now())?;
    let runs = runs(&state, (vcs, org, repo), &words, &period).await?;
    let (project, name, of) = (runs.project.clone(), workflow.clone(), job.clone());
    let found = state.store.read(move |view| read::job_runs(view, &runs, &workflow, Some(&job))).await?;
    if found.is_empty() {
        check_names(&state, &project, &name, Some(&of)).await?;
    }
    let ended = found.iter().filter(|run| run.stopped_at.is_some());
    let show = |run: &JobRun| {
        let duration = run.stopped_at.map(|stopped| stopped.since(run.started_at).as_secs());
        let shown = json!({
            "id": run.id, "started_at": run.started_at.to_string(), "stopped_at": time(run.stopped_at),
            "status": run.status, "duration": duration, "credits_used": 0,
        });
        (newest_first(run.started_at, run.id.as_str()), shown)
    };
    page(ended.map(show).collect(), &words)
}

/// A workflow in a window, and how that differs from the window before.
async fn summary(
    State(state): State<Shared>,
    _person: Person,
    Path((vcs, org, repo, workflow)): Path<OfWorkflow>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let now = Period::of(&words, Millis::now())?;
    let before = now.before();
    let mut runs = runs(&state, (vcs, org, repo), &words, &now).await?;
    runs.from = before.from;
    let project = runs.project.clone();
    let found = state.store.read(move |view| read::workflow_runs(view, &runs, None)).await?;
    if !found.iter().any(|run| run.name == workflow) {
        check_names(&state, &project, &workflow, None).await?;
    }
    let names: BTreeSet<&str> =
        found.iter().filter(|run| run.created_at >= now.from).map(|run| run.name.as_str()).collect();
    let within = |period: &Period| {
        let of = found.iter().filter(|run| run.name == workflow && period.has(run.created_at));
        Metrics::of(&of.map(of_workflow).collect::<Vec<_>>(), period.days())
    };
    let (sums, earlier) = (within(&now), within(&before));
    let mut shown = sums.of_workflow();
    let [start, end] = sums.window();
    shown["window_start"] = start;
    shown["window_end"] = end;
    shown["completed_runs"] = json!(sums.good + sums.bad);
    Ok(Json(json!({ "metrics": shown, "trends": sums.trends(&earlier), "workflow_names": names })))
}

/// Tests of the newest runs of a workflow.
async fn test_metrics(
    State(state): State<Shared>,
    _person: Person,
    Path((vcs, org, repo, workflow)): Path<OfWorkflow>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let now = Millis::now();
    let runs = runs(&state, (vcs, org, repo), &words, &Period::of(&words, now)?).await?;
    let (name, project) = (workflow.clone(), runs.project.clone());
    let found = state.store.read(move |view| {
        let flaky = read::flaky_tests(view, &runs.project, now.minus(FLAKY_WITHIN))?;
        Ok((read::test_runs(view, &runs, &name)?, flaky))
    });
    let ((found, tests), flaky) = found.await?;
    if found.is_empty() {
        check_names(&state, &project, &workflow, None).await?;
    }
    Ok(Json(tests_of_runs::shown(&found, &tests, &flaky, &workflow)))
}

async fn branches(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): Path<Slug>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    no_period(&words, "branches are those of all pipelines that are stored")?;
    let project = project(&state, slug).await?;
    let (id, workflow) = (project.id.clone(), given(&words, "workflow-name").map(str::to_owned));
    if let Some(workflow) = &workflow {
        check_names(&state, &project.id, workflow, None).await?;
    }
    let found = state.store.read(move |view| read::branches(view, &id, workflow.as_deref())).await?;
    Ok(Json(json!({ "org_id": project.organisation, "project_id": project.id, "branches": found })))
}

/// The published form and that of one client differ in how they spell it: both are sent.
async fn flaky_tests(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): Path<Slug>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    no_period(&words, "flaky tests are those of the last 14 days")?;
    let project = project(&state, slug).await?;
    let since = Millis::now().minus(FLAKY_WITHIN);
    let found = state.store.read(move |view: &View| read::flaky_tests(view, &project.id, since)).await?;
    let show = |test: &FlakyTest| {
        let mut shown = json!({
            "source": test.source, "file": test.file.as_deref().unwrap_or_default(), "classname": test.classname,
        });
        for (name, value) in [
            ("test-name", json!(test.name)),
            ("job-name", json!(test.job_name)),
            ("job-number", json!(test.job_number)),
            ("workflow-name", json!(test.workflow_name)),
            ("workflow-id", json!(test.workflow_id)),
            ("pipeline-number", json!(test.pipeline_number)),
            ("times-flaked", json!(test.times_flaked)),
            ("time-wasted", json!(test.wasted)),
            ("workflow-created-at", json!(test.workflow_created_at.to_string())),
        ] {
            shown[name.replace('-', "_")] = value.clone();
            shown[name] = value;
        }
        shown
    };
    let shown: Vec<Value> = found.iter().map(show).collect();
    let count = shown.len();
    Ok(Json(json!({
        "flaky-tests": shown, "flaky_tests": shown, "total-flaky-tests": count, "total_flaky_tests": count,
    })))
}
