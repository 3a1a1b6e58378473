//! Acts of people that calls of several versions ask for: starting a pipeline, cancelling it, a workflow or a job, giving
//! an approval, running a workflow again. Each version has its own answer.

use crate::server::api::shared::failure::{Answer, ApiError, bad, conflict};
use crate::server::api::shared::lookup::unknown_workflow;
use crate::server::auth::Person;
use crate::server::engine::commit::{self, Approved, Canceled, RerunRefused, RerunScope};
use crate::server::ids::{JobId, PipelineId, WorkflowId};
use crate::server::pipelines::triggers::{self, TriggerRequest, Triggered};
use crate::server::pipelines::types::{self, CreatedPipeline};
use crate::server::state::Shared;
use crate::server::store::read::{self, Project};
use crate::server::store::tables::pipelines;
use crate::server::time::Millis;
use axum::http::StatusCode;

/// The answer to a cancel. One of a thing that has ended already has got what it asks for.
fn known(canceled: Canceled, unknown: String) -> Answer<()> {
    match canceled {
        Canceled::Now | Canceled::HadEnded => Ok(()),
        Canceled::Unknown => Err(ApiError::not_found(unknown)),
    }
}

/// Cancels a job; 404 when there is no such job. One that has ended stays as it is.
pub async fn cancel_job(state: &Shared, job: JobId, person: Person) -> Answer<()> {
    let unknown = format!("there is no job `{job}`");
    let write = state.store.write(move |tx| commit::cancel_job(tx, &job, Some(&person.id), Millis::now()));
    known(write.await?, unknown)
}

/// Cancels what has not ended in the workflows of a pipeline; 404 when there is no such pipeline.
pub async fn cancel_pipeline(state: &Shared, id: PipelineId, person: Person) -> Answer<()> {
    let unknown = format!("there is no pipeline `{id}`");
    let write = state.store.write(move |tx| {
        if !read::is_pipeline(tx, &id)? {
            return Ok(Canceled::Unknown);
        }
        let mut canceled = Canceled::HadEnded;
        for workflow in read::workflows_of(tx, &id)? {
            if commit::cancel_workflow(tx, &workflow.id, Some(&person.id), Millis::now())? == Canceled::Now {
                canceled = Canceled::Now;
            }
        }
        Ok(canceled)
    });
    known(write.await?, unknown)
}

/// Cancels what has not ended in a workflow; 404 when there is no such workflow.
pub async fn cancel_workflow(state: &Shared, id: WorkflowId, person: Person) -> Answer<()> {
    let unknown = unknown_workflow(&id);
    let write =
        state.store.write(move |tx| commit::cancel_workflow(tx, &id, Some(&person.id), Millis::now()));
    known(write.await?, unknown)
}

/// Refuses whoever made the pull request from a fork that a workflow is of: what strangers wrote is let on by others.
/// People are taken for those who have their login at the forge.
async fn check_stranger(state: &Shared, id: &WorkflowId, person: &Person) -> Answer<()> {
    if person.is_admin {
        return Ok(());
    }
    let id = id.clone();
    let strangers = state.store.read(move |view| pipelines::strangers(view, &id)).await?;
    if strangers.iter().any(|login| login.eq_ignore_ascii_case(&person.login)) {
        let why = format!(
            "the pull request from a fork that this is of was made by `{}`: somebody else has to approve it or run it again",
            person.login
        );
        return Err(ApiError::new(StatusCode::FORBIDDEN, why));
    }
    Ok(())
}

/// Gives an approval that waits in a workflow. Refusals: 404 for no such job, 409 for one that does not wait for that, 403 to
/// the author of a pull request from a fork.
pub async fn approve(state: &Shared, id: WorkflowId, job: JobId, person: Person) -> Answer<()> {
    check_stranger(state, &id, &person).await?;
    let (workflow, given) = (id.clone(), job.clone());
    let write =
        state.store.write(move |tx| commit::approve(tx, &workflow, &given, Some(&person.id), Millis::now()));
    let why = match write.await? {
        Approved::Now => return Ok(()),
        Approved::Unknown => {
            return Err(ApiError::not_found(format!("there is no job `{job}` in the workflow `{id}`")));
        }
        Approved::Before => format!("the approval `{job}` was given before"),
        Approved::NotYet(status) => {
            format!(
                "the approval `{job}` cannot be given yet: it is `{status}`, and what comes before it has not ended"
            )
        }
        Approved::HadEnded(status) => {
            format!("the approval `{job}` was not given, and has ended as `{status}`")
        }
        Approved::NoApproval => format!("the job `{job}` is no approval"),
    };
    Err(conflict(why))
}

/// Runs jobs of a workflow again, in a new one, whose id is returned. `force` does so although jobs of the old one may
/// be at work where nobody hears of them. Refusals: 404 for no such workflow, 409 for such jobs, 403 to the
/// author of a pull request from a fork, 400 otherwise.
pub async fn run_again(
    state: &Shared,
    id: WorkflowId,
    scope: RerunScope,
    force: bool,
    person: Person,
) -> Answer<WorkflowId> {
    check_stranger(state, &id, &person).await?;
    let write = state.store.write(move |tx| {
        let rerun = if force { commit::rerun_anyway } else { commit::rerun };
        rerun(tx, &id, &scope, Some(&person.id), Millis::now())
    });
    write.await?.map_err(|refused| {
        let status = match refused {
            RerunRefused::Unknown => StatusCode::NOT_FOUND,
            RerunRefused::Unreachable(_) => StatusCode::CONFLICT,
            _ => StatusCode::BAD_REQUEST,
        };
        ApiError::new(status, refused.to_string())
    })
}

/// Runs all of a workflow again, or what failed in it and what depends on that; as [`run_again`].
pub async fn run_workflow_again(
    state: &Shared,
    id: WorkflowId,
    only_failed: bool,
    person: Person,
) -> Answer<WorkflowId> {
    let scope = if only_failed { RerunScope::Failed } else { RerunScope::All };
    run_again(state, id, scope, false, person).await
}

/// Starts a pipeline; `None` when the message of the commit says that nothing is to be built.
pub async fn trigger_pipeline(
    state: &Shared,
    project: &Project,
    wanted: TriggerRequest,
    person: &Person,
) -> Answer<Option<CreatedPipeline>> {
    match triggers::trigger(state, project, wanted, &person.login).await {
        Ok(Triggered::Created(created)) => Ok(Some(created)),
        Ok(Triggered::Skipped) => Ok(None),
        Err(triggers::Error::Wrong(why)) => Err(bad(why)),
        Err(triggers::Error::Pipeline(error)) => Err(match error {
            types::Error::NoProject(_) => ApiError::not_found(error.to_string()),
            types::Error::NoSuch(why) => bad(why),
            types::Error::NoOrbs(_) => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            types::Error::Store(error) => error.into(),
        }),
    }
}
