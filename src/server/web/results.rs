//! Test results and artifacts of a job.

use crate::server::api::shared::download;
use crate::server::api::shared::failure::{Answer, ApiError};
use crate::server::api::shared::input::Path;
use crate::server::api::shared::lookup::{Numbered, artifacts_of, job_of, tests_of};
use crate::server::store::read::{self, Artifact, Job, Test};
use crate::server::store::status::TestResult;
use crate::server::web::frame::Head;
use crate::server::web::session::Visitor;
use crate::server::web::shared::Web;
use crate::server::web::shown::{self, Mark, page, path_part};
use askama::Template;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use std::time::Duration;

/// Rows of one page.
const PAGE: usize = 500;
/// Longest message of a test that is shown, in characters.
const MOST_MESSAGE: usize = 2000;

/// Serves the paths of this file.
pub(super) fn router() -> Router<Web> {
    let job = "/{vcs}/{org}/{repo}/jobs/{number}";
    Router::new()
        .route(&format!("{job}/tests"), get(tests))
        .route(&format!("{job}/artifacts"), get(artifacts))
        .route(&format!("{job}/artifacts/{{node}}/{{*path}}"), get(artifact))
}

/// A test, for people.
pub(super) struct TestLine {
    /// Result, as glyph and word.
    pub(super) mark: Mark,
    /// Class and name of the test.
    pub(super) name: String,
    /// File that the report names, with the line of a failure; empty where it names none.
    pub(super) file: String,
    /// Run time as people read it, such as `1.2s`.
    pub(super) took: String,
    /// Reason of a failure or a skip.
    pub(super) message: String,
}

/// Shows a test.
pub(super) fn line(test: &Test) -> TestLine {
    let name = match test.classname.as_str() {
        "" => test.name.clone(),
        class => format!("{class}: {}", test.name),
    };
    let mut message: String = test.message.chars().take(MOST_MESSAGE).collect();
    if message.len() < test.message.len() {
        message.push_str(" …");
    }
    let seconds = Duration::try_from_secs_f64(test.run_time).unwrap_or_default();
    let file = test.place.as_ref().or(test.file.as_ref()).cloned().unwrap_or_default();
    TestLine { mark: test.result.into(), name, file, took: shown::fine_span(seconds), message }
}

#[derive(Debug, Default, Deserialize)]
struct Wanted {
    #[serde(default)]
    all: String,
    #[serde(default)]
    from: usize,
}

#[derive(Template)]
#[template(path = "tests.html")]
struct Tests {
    head: Head,
    failed: usize,
    passed: usize,
    skipped: usize,
    is_all: bool,
    lines: Vec<TestLine>,
    next: Option<String>,
}

/// The rows of one page, and the query of the next one; `query` is what it keeps of this one's.
fn page_of<'a, T>(all: &'a [T], from: usize, query: &str) -> (impl Iterator<Item = &'a T>, Option<String>) {
    let next = from.saturating_add(PAGE);
    (all.iter().skip(from).take(PAGE), (all.len() > next).then(|| format!("?{query}from={next}")))
}

fn head(visitor: &Visitor, job: &Job, number: i64, what: &str) -> Head {
    let slug = job.project.slug();
    Head::for_visitor(format!("{what}: {} {} #{number}", job.project.repo, job.name), visitor)
        .below_project(&slug)
        .below(format!("{} #{number}", job.name), format!("/{slug}/jobs/{number}"))
}

async fn tests(
    State(web): State<Web>,
    visitor: Visitor,
    Path(path): Path<Numbered>,
    Query(wanted): Query<Wanted>,
) -> Answer<Response> {
    let number = path.3;
    let job = job_of(&web.state, path).await?;
    let head = head(&visitor, &job, number, "Tests");
    let mut tests = tests_of(&web.state, job).await?;
    let count = |result| tests.iter().filter(|test| test.result == result).count();
    let (failed, passed, skipped) =
        (count(TestResult::Failure), count(TestResult::Success), count(TestResult::Skipped));
    // People come here for the failures; without any, all are shown.
    let is_all = !wanted.all.is_empty() || failed == 0;
    tests.retain(|test| is_all || test.result == TestResult::Failure);
    tests.sort_by_key(|test| test.result != TestResult::Failure);
    let (rows, next) = page_of(&tests, wanted.from, if wanted.all.is_empty() { "" } else { "all=1&" });
    let lines = rows.map(line).collect();
    page(&Tests { head, failed, passed, skipped, is_all, lines, next })
}

#[derive(Template)]
#[template(path = "artifacts.html")]
struct Artifacts {
    head: Head,
    count: usize,
    bytes: String,
    rows: Vec<ArtifactRow>,
    next: Option<String>,
}

struct ArtifactRow {
    node: u32,
    path: String,
    address: String,
    size: String,
}

async fn artifacts(
    State(web): State<Web>,
    visitor: Visitor,
    Path(path): Path<Numbered>,
    Query(wanted): Query<Wanted>,
) -> Answer<Response> {
    let number = path.3;
    let job = job_of(&web.state, path).await?;
    let base = format!("/{}/jobs/{number}/artifacts", job.project.slug());
    let head = head(&visitor, &job, number, "Artifacts");
    let artifacts = artifacts_of(&web.state, job).await?;
    let row = |artifact: &Artifact| {
        let parts: Vec<String> = artifact.path.split('/').map(path_part).collect();
        ArtifactRow {
            node: artifact.node_index,
            path: artifact.path.clone(),
            address: format!("{base}/{}/{}", artifact.node_index, parts.join("/")),
            size: shown::size(artifact.length),
        }
    };
    let (rows, next) = page_of(&artifacts, wanted.from, "");
    page(&Artifacts {
        head,
        count: artifacts.len(),
        bytes: shown::size(artifacts.iter().map(|artifact| artifact.length).sum()),
        rows: rows.map(row).collect(),
        next,
    })
}

/// An artifact, to be saved: never rendered in the browser, since artifacts are whatever jobs make.
async fn artifact(
    State(web): State<Web>,
    _visitor: Visitor,
    Path((vcs, org, repo, number, node, path)): Path<(String, String, String, i64, u32, String)>,
    headers: HeaderMap,
) -> Answer<Response> {
    let job = job_of(&web.state, (vcs, org, repo, number)).await?;
    let what = format!("the job {number} has no artifact `{path}` of execution {node}");
    let artifacts = artifacts_of(&web.state, job).await?;
    let found = artifacts.into_iter().find(|artifact| artifact.node_index == node && artifact.path == path);
    let id = found.ok_or_else(|| ApiError::not_found(&what))?.id;
    let of = id.clone();
    let content = web.state.store.read(move |view| read::artifact_content(view, &of)).await?;
    let content = content.ok_or_else(|| ApiError::not_found(what))?;
    download::artifact(&web.state, id, content, &headers).await
}
