//! A pipeline with its workflows, and a workflow with its jobs.

use crate::server::api::shared::failure::{Answer, ApiError};
use crate::server::api::shared::input::Path;
use crate::server::api::shared::lookup::{Numbered, jobs_of, one, project, unknown_workflow};
use crate::server::ids::WorkflowId;
use crate::server::store::read::{self, Job, Pipeline, Workflow};
use crate::server::store::status::WorkflowStatus;
use crate::server::store::{Error, View};
use crate::server::web::frame::Head;
use crate::server::web::jobs::{self, JobRow};
use crate::server::web::session::Visitor;
use crate::server::web::shared::Web;
use crate::server::web::shown::{self, Mark, page};
use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

/// Serves the paths of this file.
pub(super) fn router() -> Router<Web> {
    Router::new()
        .route("/{vcs}/{org}/{repo}/{number}", get(pipeline))
        .route("/{vcs}/{org}/{repo}/{number}/{workflow}", get(workflow))
}

#[derive(Template)]
#[template(path = "pipeline.html")]
struct Shown {
    head: Head,
    number: i64,
    mark: Mark,
    place: String,
    revision: String,
    subject: String,
    facts: Vec<(&'static str, String)>,
    errors: Vec<String>,
    workflows: Vec<Section>,
    /// Whether this is the page of one workflow.
    is_workflow: bool,
    /// Field by which forms prove where they come from.
    field: String,
}

struct Section {
    name: String,
    address: String,
    mark: Mark,
    created: String,
    took: String,
    note: String,
    jobs: Vec<JobRow>,
    /// The workflow has not ended: it can be cancelled, and not yet run again.
    is_open: bool,
    /// Some of it did not succeed: that part alone can be run again.
    has_failed: bool,
}

/// A pipeline, and its workflows with their jobs.
async fn read_pipeline(web: &Web, path: Numbered) -> Answer<(Pipeline, Vec<(Workflow, Vec<Job>)>)> {
    let (vcs, org, repo, number) = path;
    let project = project(&web.state, (vcs, org, repo)).await?;
    let what = format!("the project `{}` has no pipeline {number}", project.slug);
    let read = move |view: &View| {
        let Some(pipeline) = read::pipeline_by_number(view, &project.id, number)? else { return Ok(None) };
        let with_jobs = |workflow: Workflow| jobs_of(view, &workflow.id).map(|jobs| (workflow, jobs));
        let workflows = read::workflows_of(view, &pipeline.id)?.into_iter().map(with_jobs);
        Ok(Some((pipeline, workflows.collect::<Result<Vec<_>, Error>>()?)))
    };
    one(&web.state, what, read).await
}

fn section(address: &str, workflow: Workflow, jobs: Vec<Job>) -> Section {
    let mut notes = Vec::new();
    if workflow.is_setup {
        notes.push("setup".to_owned());
    }
    if workflow.auto_rerun_number > 0 {
        notes.push(format!("automatic rerun {} of {}", workflow.auto_rerun_number, workflow.max_auto_reruns));
    }
    Section {
        address: format!("{address}/{}", workflow.id),
        mark: workflow.status.into(),
        created: shown::moment(workflow.created_at),
        took: shown::took(Some(workflow.created_at), workflow.stopped_at),
        note: notes.join(", "),
        is_open: !workflow.status.is_terminal(),
        has_failed: workflow.status.is_terminal() && workflow.status != WorkflowStatus::Success,
        jobs: jobs::rows(jobs),
        name: workflow.name,
    }
}

fn facts(pipeline: &Pipeline) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("triggered by", format!("{} ({})", pipeline.actor_login, pipeline.trigger_type)),
        ("at", format!("{} UTC", shown::moment(pipeline.created_at))),
    ];
    facts.extend(pipeline.author.clone().map(|author| ("author", author)));
    facts.extend(pipeline.revision.clone().map(|revision| ("commit", revision)));
    facts.extend(pipeline.repository_url.clone().map(|url| ("repository", url)));
    if !pipeline.trigger_parameters.is_empty() {
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        let parameters = pipeline.trigger_parameters.iter();
        let words: Vec<String> = parameters.map(|(name, value)| format!("{name}={}", text(value))).collect();
        facts.push(("parameters", words.join(", ")));
    }
    facts
}

fn shown(head: Head, pipeline: Pipeline, workflows: Vec<Section>, is_workflow: bool) -> Shown {
    let field = head.person.as_ref().map_or_else(String::new, |(_, field)| field.clone());
    let (place, revision) = shown::source(&pipeline);
    Shown {
        head,
        number: pipeline.number,
        mark: pipeline.status.into(),
        place,
        revision,
        facts: facts(&pipeline),
        subject: pipeline.subject.unwrap_or_default(),
        errors: pipeline.errors.into_iter().map(|error| error.message).collect(),
        workflows,
        is_workflow,
        field,
    }
}

async fn pipeline(State(web): State<Web>, visitor: Visitor, Path(path): Path<Numbered>) -> Answer<Response> {
    let (pipeline, workflows) = read_pipeline(&web, path).await?;
    let (slug, mark) = (pipeline.project.slug(), Mark::from(pipeline.status));
    let address = format!("/{slug}/{}", pipeline.number);
    let title = format!("{} {} #{}", mark.glyph, pipeline.project.repo, pipeline.number);
    let head = Head::for_visitor(title, &visitor).below_project(&slug);
    let sections = workflows.into_iter().map(|(workflow, jobs)| section(&address, workflow, jobs)).collect();
    page(&shown(head, pipeline, sections, false))
}

async fn workflow(
    State(web): State<Web>,
    visitor: Visitor,
    Path((vcs, org, repo, number, id)): Path<(String, String, String, i64, WorkflowId)>,
) -> Answer<Response> {
    let (pipeline, workflows) = read_pipeline(&web, (vcs, org, repo, number)).await?;
    let found = workflows.into_iter().find(|(workflow, _)| workflow.id == id);
    let (workflow, jobs) = found.ok_or_else(|| ApiError::not_found(unknown_workflow(&id)))?;
    let slug = pipeline.project.slug();
    let address = format!("/{slug}/{number}");
    let mark = Mark::from(workflow.status);
    let title = format!("{} {} #{number} {}", mark.glyph, pipeline.project.repo, workflow.name);
    let head = Head::for_visitor(title, &visitor).below_project(&slug).below(format!("#{number}"), &address);
    let section = section(&address, workflow, jobs);
    let mut page_of = shown(head, pipeline, vec![section], true);
    page_of.mark = mark;
    page(&page_of)
}
