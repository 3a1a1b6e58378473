//! A job: why it failed or what it is doing, its steps, and the log of one of them.

use crate::server::api::shared::callers::bearer_of;
use crate::server::api::shared::failure::{Answer, ApiError, bad, blocking};
use crate::server::api::shared::input::Path;
use crate::server::api::shared::lookup::{Numbered, attempts_of, job_by_id, job_of};
use crate::server::api::shared::stream;
use crate::server::auth::Person;
use crate::server::blobs::Stretch;
use crate::server::ids::JobId;
use crate::server::store::read::{self, Attempt, Job, StepRow};
use crate::server::store::status::{JobStatus, StepState, TaskState, TestResult};
use crate::server::web::frame::Head;
use crate::server::web::jobs::reasons;
use crate::server::web::log::{self, Part, Stamps};
use crate::server::web::results::{TestLine, line};
use crate::server::web::session::Visitor;
use crate::server::web::shared::Web;
use crate::server::web::shown::{self, Mark, page};
use askama::Template;
use axum::Router;
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use serde::Deserialize;

/// Failed tests that stand above the log.
const MOST_TESTS: usize = 10;

/// Serves the paths of this file.
pub(super) fn router() -> Router<Web> {
    let job = "/{vcs}/{org}/{repo}/jobs/{number}";
    Router::new().route(job, get(show)).route(&format!("{job}/log.txt"), get(whole))
}

/// The part of a job that an address names.
#[derive(Clone, Debug, Default, Deserialize)]
struct Wanted {
    execution: Option<u32>,
    step: Option<u32>,
    from: Option<u64>,
    /// How the times are shown at which lines came: [`Time::of`] reads it.
    #[serde(default)]
    time: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    /// Time of the day, UTC.
    Clock,
    /// Time since the beginning of the step.
    Since,
}

impl Time {
    fn of(text: &str) -> Answer<Option<Self>> {
        match text {
            "" => Ok(None),
            "clock" => Ok(Some(Self::Clock)),
            "since" => Ok(Some(Self::Since)),
            _ => Err(bad(format!("`time` is `clock` or `since`, not `{text}`"))),
        }
    }

    /// The part of an address that asks for these times.
    fn query(time: Option<Self>) -> &'static str {
        match time {
            None => "",
            Some(Self::Clock) => "&time=clock",
            Some(Self::Since) => "&time=since",
        }
    }
}

#[derive(Template)]
#[template(path = "job.html")]
struct Shown {
    head: Head,
    name: String,
    number: i64,
    address: String,
    /// The field of the form that cancels the job, while it has not ended.
    cancel: Option<String>,
    mark: Mark,
    reasons: Vec<String>,
    facts: Vec<(&'static str, String)>,
    executions: Vec<Execution>,
    steps: Vec<ShownStep>,
    chosen: Option<Chosen>,
    /// Why there is no log.
    silence: String,
    failed_tests: Vec<TestLine>,
    tests: usize,
    artifacts: usize,
}

struct Execution {
    index: u32,
    mark: Mark,
    is_chosen: bool,
}

struct ShownStep {
    number: u32,
    address: String,
    name: String,
    mark: Mark,
    exit_code: Option<i32>,
    took: String,
    is_chosen: bool,
}

struct Chosen {
    number: u32,
    name: String,
    command: Option<String>,
    note: String,
    part: Part,
    query: String,
    /// Query that shows the log without times.
    untimed: String,
    is_running: bool,
}

/// The step whose log a page shows unless another is asked for: the first that failed, else the running one, else the
/// last.
fn choose(steps: &[StepRow]) -> Option<&StepRow> {
    let has_failed = |step: &&StepRow| {
        matches!(step.status, StepState::Failed | StepState::Timedout | StepState::InfrastructureFail)
    };
    let is_running = |step: &&StepRow| step.status == StepState::Running && !step.background;
    steps.iter().find(has_failed).or_else(|| steps.iter().find(is_running)).or_else(|| steps.last())
}

/// The execution, and its step, that an address means.
fn find<'a>(attempts: &'a [Attempt], wanted: &Wanted) -> Answer<Option<(&'a Attempt, Option<&'a StepRow>)>> {
    let attempt = match wanted.execution {
        Some(index) => {
            let found = attempts.iter().find(|attempt| attempt.node_index == index);
            Some(found.ok_or_else(|| ApiError::not_found(format!("the job has no execution {index}")))?)
        }
        None => {
            let is_bad = |attempt: &&Attempt| {
                attempt.status.is_terminal()
                    && !matches!(attempt.status, TaskState::Success | TaskState::Canceled)
            };
            attempts.iter().find(is_bad).or(attempts.first())
        }
    };
    let Some(attempt) = attempt else { return Ok(None) };
    let step = match wanted.step {
        Some(number) => {
            let found = attempt.steps.iter().find(|step| step.step == number);
            let what = format!("execution {} has no step {number}", attempt.node_index);
            Some(found.ok_or_else(|| ApiError::not_found(what))?)
        }
        None => choose(&attempt.steps),
    };
    Ok(Some((attempt, step)))
}

async fn open(web: &Web, attempt: &Attempt, step: &StepRow) -> Answer<Stretch> {
    let (blobs, task, step) = (web.state.blobs.clone(), attempt.task.clone(), step.step);
    blocking(move || blobs.outputs.open(&task, step)).await
}

async fn show(
    State(web): State<Web>,
    visitor: Visitor,
    Path((vcs, org, repo, number)): Path<(String, String, String, String)>,
    Query(wanted): Query<Wanted>,
) -> Answer<Response> {
    let Ok(number) = number.parse() else { return by_id(&web, number.into()).await };
    let mut job = job_of(&web.state, (vcs, org, repo, number)).await?;
    let found = web.state.store.read(move |view| {
        let attempts = attempts_of(view, &mut job)?;
        let tests = read::tests(view, &job.ran_as)?;
        let artifacts = read::artifacts(view, &job.ran_as)?.len();
        let pipeline = read::pipeline(view, &job.pipeline_id)?;
        Ok((job, attempts, tests, artifacts, pipeline))
    });
    let (job, attempts, tests, artifacts, pipeline) = found.await?;
    let (chosen, time) = (find(&attempts, &wanted)?, Time::of(&wanted.time)?);
    let slug = job.project.slug();
    let address = format!("/{slug}/jobs/{number}");
    let mark = Mark::from(job.status);
    let mut head =
        Head::for_visitor(format!("{} {} {} #{number}", mark.glyph, job.project.repo, job.name), &visitor)
            .below_project(&slug);
    if let Some(pipeline) = &pipeline {
        let above = format!("/{slug}/{}", pipeline.number);
        head = head
            .below(format!("#{}", pipeline.number), &above)
            .below(&job.workflow_name, format!("{above}/{}", job.workflow_id));
    }
    let failed = tests.iter().filter(|test| test.result == TestResult::Failure);
    let (steps, shown_step) = match chosen {
        None => (Vec::new(), None),
        Some((attempt, step)) => {
            let steps = attempt.steps.iter().map(|row| step_row(attempt, row, step, time)).collect();
            let shown_step = match step {
                Some(step) => Some(chosen_step(&web, attempt, step, wanted.from, time).await?),
                None => None,
            };
            (steps, shown_step)
        }
    };
    let execution = |attempt: &Attempt| Execution {
        index: attempt.node_index,
        mark: attempt.status.into(),
        is_chosen: chosen.is_some_and(|(chosen, _)| chosen.task == attempt.task),
    };
    page(&Shown {
        cancel: (!job.status.is_terminal()).then(|| visitor.secret.field()),
        head,
        number,
        mark,
        reasons: reasons(&job),
        facts: facts(&job),
        executions: attempts.iter().map(execution).collect(),
        steps,
        silence: silence(&job),
        chosen: shown_step,
        failed_tests: failed.take(MOST_TESTS).map(line).collect(),
        tests: tests.len(),
        artifacts,
        name: job.name,
        address,
    })
}

/// A job without a number has a place on the page of its workflow.
async fn by_id(web: &Web, id: JobId) -> Answer<Response> {
    let job = job_by_id(&web.state, id).await?;
    let slug = job.project.slug();
    if let Some(number) = job.number {
        return Ok(Redirect::to(&format!("/{slug}/jobs/{number}")).into_response());
    }
    let id = job.workflow_id.clone();
    let workflow = web.state.store.read(move |view| read::workflow(view, &id)).await?;
    let workflow = workflow.ok_or_else(|| ApiError::not_found(format!("there is no job `{}`", job.id)))?;
    let address = format!("/{slug}/{}/{}#job-{}", workflow.pipeline_number, workflow.id, job.id);
    Ok(Redirect::to(&address).into_response())
}

fn step_row(attempt: &Attempt, row: &StepRow, chosen: Option<&StepRow>, time: Option<Time>) -> ShownStep {
    ShownStep {
        number: row.step,
        address: format!("?execution={}&step={}{}", attempt.node_index, row.step, Time::query(time)),
        name: row.name.clone(),
        mark: row.status.into(),
        exit_code: row.exit_code.filter(|code| *code != 0),
        took: shown::took(Some(row.started_at), row.ended_at),
        is_chosen: chosen.is_some_and(|chosen| chosen.step == row.step),
    }
}

async fn chosen_step(
    web: &Web,
    attempt: &Attempt,
    step: &StepRow,
    from: Option<u64>,
    time: Option<Time>,
) -> Answer<Chosen> {
    let stretch = open(web, attempt, step).await?;
    let untimed = format!("?execution={}&step={}", attempt.node_index, step.step);
    let query = format!("{untimed}{}", Time::query(time));
    let rows = format!("{}&amp;from=", query.replace('&', "&amp;"));
    let times = match time {
        None => Vec::new(),
        Some(_) => stream::output_times(&web.state, &attempt.task, step.step).await?,
    };
    let stamps = match time {
        Some(Time::Since) => Stamps::since(times, step.started_at),
        _ => Stamps::clock(times),
    };
    let part = blocking(move || log::part(&stretch, from, &rows, &stamps)).await?;
    let mut notes = Vec::new();
    // A message of its own names the code, too.
    let code = step.exit_code.filter(|code| *code != 0 && step.message.is_none());
    notes.extend(code.map(|code| format!("exit code {code}")));
    if step.max_auto_reruns > 0 {
        notes.push(format!("attempt {} of {}", step.attempt, step.max_auto_reruns + 1));
    }
    notes.extend(step.background.then(|| "in the background".to_owned()));
    notes.extend(step.message.clone());
    Ok(Chosen {
        number: step.step,
        name: step.name.clone(),
        command: step.command.clone(),
        note: notes.join(" · "),
        part,
        query,
        untimed,
        is_running: step.status == StepState::Running,
    })
}

fn facts(job: &Job) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let class = job.resource_class.clone().filter(|class| !class.is_empty());
    facts.extend(class.map(|class| ("class", class)));
    let begun = job.started_at.or(job.stopped_at);
    // A job that ends where it would have been queued never waited for a runner.
    let queued = job.queued_at.filter(|queued| begun.is_none_or(|begun| begun != *queued));
    facts.extend(queued.map(|queued| ("queued", shown::took(Some(queued), begun))));
    facts.extend(job.started_at.map(|at| ("started", format!("{} UTC", shown::moment(at)))));
    facts.extend(job.started_at.map(|_| ("took", shown::took(job.started_at, job.stopped_at))));
    if !job.contexts.is_empty() {
        facts.push(("contexts", job.contexts.join(", ")));
    }
    facts
}

/// Why a job without steps has no log.
fn silence(job: &Job) -> String {
    let text = match job.status {
        JobStatus::Queued | JobStatus::Blocked | JobStatus::OnHold => {
            "The job has not begun, so there is no log yet."
        }
        JobStatus::Running => "A runner has the job; its first step has not begun.",
        JobStatus::Canceled => "The job was cancelled before a runner began it, so there is no log.",
        _ => "The job never ran a step, so there is no log.",
    };
    text.to_owned()
}

/// The output of one step as it was written, for people with a cookie and for tools with a token.
async fn whole(
    State(web): State<Web>,
    Path(path): Path<Numbered>,
    Query(wanted): Query<Wanted>,
    request: Request,
) -> Response {
    let (mut parts, _) = request.into_parts();
    let has_token = bearer_of(&parts).is_some() || parts.headers.contains_key("circle-token");
    if has_token {
        if let Err(failure) = Person::from_request_parts(&mut parts, &web.state).await {
            return failure.into_response();
        }
    } else if let Err(response) = Visitor::from_request_parts(&mut parts, &web).await {
        return response;
    }
    text(&web, path, wanted).await.into_response()
}

async fn text(web: &Web, path: Numbered, wanted: Wanted) -> Answer<Response> {
    let time = Time::of(&wanted.time)?;
    let job = job_of(&web.state, path).await?;
    let ran_as = job.ran_as.clone();
    let attempts = web.state.store.read(move |view| read::attempts(view, &ran_as)).await?;
    let Some((attempt, Some(step))) = find(&attempts, &wanted)? else {
        return Err(ApiError::not_found(silence(&job)));
    };
    let stretch = open(web, attempt, step).await?;
    let name = format!("{}-{}-{}.txt", job.project.repo, job.number.unwrap_or_default(), step.step);
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, format!("inline; filename*=UTF-8''{}", shown::path_part(&name))),
    ];
    if time.is_some() {
        let times = stream::output_times(&web.state, &attempt.task, step.step).await?;
        return Ok((headers, stream::stamped(stretch, times)).into_response());
    }
    let length = [(header::CONTENT_LENGTH, stretch.length().to_string())];
    Ok((headers, length, stream::between(stretch, 0, u64::MAX)).into_response())
}
