//! Looks up the things that paths and queries name, and makes the addresses under which clients find them again.

use crate::http::encoded;
use crate::server::api::shared::failure::{Answer, ApiError, bad};
use crate::server::api::shared::slug::{organisation_named, project_named, short_vcs};
use crate::server::ids::{JobId, OrganisationId, ProjectId, WorkflowId};
use crate::server::state::Shared;
use crate::server::store::read::{self, Artifact, Attempt, Job, Project, Test, Workflow};
use crate::server::store::{Error, View};
use crate::server::time::Millis;

/// The three segments of a slug in a path: version control system, organisation, repository.
pub type Slug = (String, String, String);

/// A slug in a path, and a number in that project.
pub type Numbered = (String, String, String, i64);

/// Reads one thing, which must be there; `what` is the refusal when it is not.
pub async fn one<T: Send + 'static>(
    state: &Shared,
    what: String,
    read: impl FnOnce(&View) -> Result<Option<T>, Error> + Send + 'static,
) -> Answer<T> {
    state.store.read(read).await?.ok_or_else(|| ApiError::not_found(what))
}

/// Finds the project of a path, which may be `circleci/ORGANISATION-ID/PROJECT-ID`.
pub async fn project(state: &Shared, (vcs, org, repo): Slug) -> Answer<Project> {
    let slug = format!("{}/{org}/{repo}", short_vcs(&vcs));
    let what = format!("there is no project `{slug}` here (`runlet admin project create` makes it)");
    let find = move |view: &View| match read::project_by_slug(view, &slug)? {
        None if vcs == "circleci" => project_named(view, &slug),
        found => Ok(found),
    };
    one(state, what, find).await
}

/// Finds the project with an id.
pub async fn project_by_id(state: &Shared, id: ProjectId) -> Answer<Project> {
    let what = format!("there is no project `{id}`");
    one(state, what, move |view| read::project(view, &id)).await
}

/// Finds the organisation that is named by its id or its slug.
pub async fn organisation(state: &Shared, id: Option<&str>, slug: Option<&str>) -> Answer<OrganisationId> {
    let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let (id, slug) = (given(id), given(slug));
    let shown = id.clone().or_else(|| slug.clone());
    let shown =
        shown.ok_or_else(|| bad("the owner is missing: give its id or its slug, such as `gh/acme`"))?;
    let what = format!("there is no organisation `{shown}` here: it comes with its first project");
    let find = move |view: &View| match (id, slug) {
        (Some(id), _) => read::organisation(view, &id.into()),
        (None, slug) => organisation_named(view, &slug.unwrap_or_default()),
    };
    Ok(one(state, what, find).await?.id)
}

/// Finds the job of a path by its number.
pub async fn job_of(state: &Shared, (vcs, org, repo, number): Numbered) -> Answer<Job> {
    let project = project(state, (vcs, org, repo)).await?;
    let what = format!("the project `{}` has no job {number}", project.slug);
    one(state, what, move |view| read::job_by_number(view, &project.id, number)).await
}

/// Finds the job of a path by its id.
pub async fn job_by_id(state: &Shared, id: JobId) -> Answer<Job> {
    let what = format!("there is no job `{id}`");
    one(state, what, move |view| read::job(view, &id)).await
}

/// Finds the workflow of a path.
pub async fn workflow(state: &Shared, id: WorkflowId) -> Answer<Workflow> {
    one(state, unknown_workflow(&id), move |view| read::workflow(view, &id)).await
}

/// The jobs of a workflow; those that wait say why.
pub fn jobs_of(view: &View, workflow: &WorkflowId) -> Result<Vec<Job>, Error> {
    explained(view, read::jobs_of(view, workflow)?)
}

/// Jobs of which those that wait say why.
pub fn explained(view: &View, mut jobs: Vec<Job>) -> Result<Vec<Job>, Error> {
    let now = Millis::now();
    jobs.iter_mut().try_for_each(|job| read::explain_waiting(view, job, now))?;
    Ok(jobs)
}

/// The attempts at a job; one that waits says why.
pub fn attempts_of(view: &View, job: &mut Job) -> Result<Vec<Attempt>, Error> {
    read::explain_waiting(view, job, Millis::now())?;
    read::attempts(view, &job.ran_as)
}

/// The refusal of a workflow that is not there.
pub fn unknown_workflow(id: &WorkflowId) -> String {
    format!("there is no workflow `{id}`")
}

/// The artifacts of a job; those of the job that it stands for, if it was not run again.
pub async fn artifacts_of(state: &Shared, job: Job) -> Answer<Vec<Artifact>> {
    Ok(state.store.read(move |view| read::artifacts(view, &job.ran_as)).await?)
}

/// The test results of a job; those of the job that it stands for, if it was not run again.
pub async fn tests_of(state: &Shared, job: Job) -> Answer<Vec<Test>> {
    Ok(state.store.read(move |view| read::tests(view, &job.ran_as)).await?)
}

/// The address at which people look at a job.
pub fn job_url(state: &Shared, job: &Job) -> String {
    let slug = job.project.slug();
    match job.number {
        Some(number) => state.settings.job_url(&slug, number),
        None => state.settings.job_url(&slug, &job.id),
    }
}

/// The address that an artifact is fetched from, with a token. It ends in the artifact's path, which clients save it
/// under.
pub fn artifact_url(state: &Shared, artifact: &Artifact) -> String {
    let segments: Vec<String> = artifact.path.split('/').map(encoded).collect();
    format!("{}/api/v3/artifacts/{}/{}", state.settings.public_url, artifact.id, segments.join("/"))
}
