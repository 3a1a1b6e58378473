//! Starting a build, as version 1.1 calls it: the answer is the first build of a new pipeline.

use crate::server::api::shared::acts::trigger_pipeline;
use crate::server::api::shared::failure::{Answer, ApiError, bad};
use crate::server::api::shared::input::{JsonBody, Path, body_of};
use crate::server::api::shared::lookup::{Slug, project};
use crate::server::api::v1::builds::show;
use crate::server::auth::Person;
use crate::server::pipelines::triggers::{TriggerRequest, reference};
use crate::server::state::Shared;
use crate::server::store::View;
use crate::server::store::read;
use crate::server::store::status::JobType;
use axum::extract::{FromRequest, Request, State};
use axum::http::header;
use axum::routing::post;
use axum::{Form, Json, Router};
use serde_json::{Value, json};

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    let project = "/api/v1.1/project/{vcs}/{org}/{repo}";
    Router::new()
        .route(project, post(of_project))
        .route(&format!("{project}/build"), post(of_project_in_short))
        .route(&format!("{project}/tree/{{*branch}}"), post(of_branch))
}

async fn of_project(
    state: State<Shared>,
    person: Person,
    Path(slug): Path<Slug>,
    Wishes(body): Wishes,
) -> Answer<Json<Value>> {
    build(state, person, slug, None, body).await
}

/// The call of configs with workflows: its answer names no build.
async fn of_project_in_short(
    state: State<Shared>,
    person: Person,
    Path(slug): Path<Slug>,
    Wishes(body): Wishes,
) -> Answer<Json<Value>> {
    let _first = build(state, person, slug, None, body).await?;
    Ok(Json(json!({ "status": 200, "body": "Build created" })))
}

async fn of_branch(
    state: State<Shared>,
    person: Person,
    Path((vcs, org, repo, branch)): Path<(String, String, String, String)>,
    Wishes(body): Wishes,
) -> Answer<Json<Value>> {
    build(state, person, (vcs, org, repo), Some(branch), body).await
}

/// Body of such a call: JSON, whatever its content type says, or a form, as scripts send it (`curl -d branch=main`).
struct Wishes(JsonBody);

impl FromRequest<Shared> for Wishes {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_form = kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        let (head, body) = request.into_parts();
        let bytes = body_of(Request::from_parts(head.clone(), body), state).await?;
        let begins = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        if !is_form || matches!(begins, None | Some(b'{')) {
            return JsonBody::parse(&bytes).map(Self);
        }
        let form = Request::from_parts(head, bytes.into());
        let fields = Form::<Vec<(String, String)>>::from_request(form, state).await;
        let Form(fields) = fields.map_err(|error| bad(format!("the body is no form: {error}")))?;
        let mut body = serde_json::Map::new();
        for (name, text) in fields {
            if body.insert(name.clone(), text.into()).is_some() {
                return Err(bad(format!("`{name}` stands in the form more than once")));
            }
        }
        Ok(Self(JsonBody(body.into())))
    }
}

/// Refuses what a body asks for and this control plane does not do, rather than building something else. Clients send
/// what their callers left out as null or empty. The number of parallel runs is that of the config, as it has been since
/// configs have versions.
fn check(body: &JsonBody) -> Answer<()> {
    if !body.0.is_null() && !body.0.is_object() {
        return Err(bad("the body must be an object"));
    }
    body.check_names("a build", &["branch", "revision", "tag", "parallel", "build_parameters"])?;
    if !matches!(&body.0["parallel"], Value::Null | Value::Number(_)) {
        return Err(bad("`parallel` must be a number"));
    }
    if body.optional_text("revision")?.is_some_and(|revision| !revision.is_empty()) {
        return Err(bad("a build of a `revision` is not available here: build its branch or a `tag`"));
    }
    let is_empty = match &body.0["build_parameters"] {
        Value::Null => true,
        Value::Object(parameters) => parameters.is_empty(),
        _ => return Err(bad("`build_parameters` must be an object")),
    };
    if is_empty {
        return Ok(());
    }
    Err(bad(
        "`build_parameters` are not available here: declare pipeline parameters in the config, and give them as `parameters` to `POST /api/v2/project/SLUG/pipeline`",
    ))
}

/// A tag goes before the branch of the path, which some clients always fill in.
async fn build(
    State(state): State<Shared>,
    person: Person,
    slug: Slug,
    branch: Option<String>,
    body: JsonBody,
) -> Answer<Json<Value>> {
    check(&body)?;
    let tag = body.optional_text("tag")?.filter(|tag| !tag.is_empty());
    let given = body.optional_text("branch")?.filter(|branch| !branch.is_empty());
    if let (Some(branch), Some(given)) = (&branch, given.filter(|given| branch.as_deref() != Some(*given))) {
        return Err(bad(format!(
            "the path names the branch `{branch}`, and `branch` of the body `{given}`: give one"
        )));
    }
    let branch = match tag {
        Some(_) => None,
        None => branch.or_else(|| given.map(str::to_owned)),
    };
    let checkout = reference(branch.as_deref(), tag).map_err(bad)?;
    let project = project(&state, slug).await?;
    let wanted = TriggerRequest { checkout, ..TriggerRequest::default() };
    let created = trigger_pipeline(&state, &project, wanted, &person).await?;
    let created = created
        .ok_or_else(|| bad("nothing is built: the message of the commit says `[skip ci]` or `[ci skip]`"))?;
    let (id, number) = (created.id, created.number);
    let read = move |view: &View| {
        let errors = read::pipeline(view, &id)?.map_or_else(Vec::new, |pipeline| pipeline.errors);
        let mut jobs = Vec::new();
        for workflow in read::workflows_of(view, &id)? {
            jobs.extend(
                read::jobs_of(view, &workflow.id)?.into_iter().filter(|job| job.kind == JobType::Build),
            );
        }
        // Jobs that were queued have numbers, in their order; the others wait for something.
        Ok((errors, jobs.into_iter().min_by_key(|job| job.number.unwrap_or(i64::MAX))))
    };
    let (errors, first) = state.store.read(read).await?;
    match (first, errors.first()) {
        (Some(job), _) => show(&state, job).await,
        (None, Some(error)) => Err(bad(format!("the pipeline {number} has no builds: {}", error.message))),
        (None, None) => {
            Err(bad(format!("the pipeline {number} has no builds: no workflow of its config applies")))
        }
    }
}
