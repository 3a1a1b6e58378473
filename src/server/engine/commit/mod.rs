//! Commits what the engine decides: jobs start, tasks queue, ends spread, workflows come to rest.
//!
//! Everything here runs inside one transaction of the caller's, with the time passed in. What happens to
//! one workflow can reach others (a serial group's key passes on), so every change is collected as a
//! `ripple` and settled at its end by `advance`.

mod advance;
mod cancel;
pub mod clock;
mod fence;
#[cfg(test)]
mod fence_tests;
mod job;
#[cfg(test)]
mod machine_tests;
mod nodes;
pub mod queue;
mod rerun;
pub mod rest;
mod ripple;
mod serial;
#[cfg(test)]
mod serial_tests;
#[cfg(test)]
mod story_tests;
pub mod task;
#[cfg(test)]
mod tests;

pub use cancel::{
    Approved, Canceled, approve, cancel_forgotten_once, cancel_job, cancel_redundant, cancel_workflow,
    expire_waits_once,
};
pub use rerun::{RerunRefused, RerunScope};

use crate::config::{JobKind, Workflow};
use crate::server::engine::commit::rerun::Cause;
use crate::server::engine::commit::ripple::Ripple;
use crate::server::engine::placement;
use crate::server::ids::{PipelineId, ProjectId, UserId, WorkflowId};
use crate::server::state::Routing;
use crate::server::store::status::{JobStatus, MessageKind, WorkflowStatus};
use crate::server::store::tables::jobs::{self, NewJob};
use crate::server::store::tables::tasks;
use crate::server::store::tables::workflows::{self, NewWorkflow};
use crate::server::store::{Error, Tx};
use crate::server::time::Millis;

/// Stores a workflow and starts what can start. Returns its id.
pub fn create_workflow(
    tx: &Tx<'_>,
    pipeline: &PipelineId,
    project: &ProjectId,
    workflow: &Workflow,
    is_setup: bool,
    routing: &Routing,
    now: Millis,
) -> Result<WorkflowId, Error> {
    let id = workflows::insert_workflow(
        tx,
        &NewWorkflow {
            pipeline,
            project,
            name: &workflow.name,
            is_setup,
            max_auto_reruns: workflow.max_auto_reruns,
            status: WorkflowStatus::Running,
            created_at: now,
        },
    )?;
    for (position, definition) in workflow.jobs.iter().enumerate() {
        let place = placement::of(&definition.kind, routing);
        let serial_key = match &definition.kind {
            JobKind::Lock { key } | JobKind::Unlock { key } => Some(key.as_str()),
            _ => definition.serial_group.as_deref(),
        };
        let new = NewJob {
            workflow: &id,
            pipeline,
            project,
            position,
            definition,
            serial_key,
            resource_class: place.resource_class,
            task_kind: place.task_kind,
            cannot_run: place.cannot_run.as_ref(),
            parallelism: place.parallelism,
            status: JobStatus::Blocked,
            created_at: now,
        };
        let job = jobs::insert_job(tx, &new)?;
        if let Some(remark) = &place.remark {
            job::say(tx, &job, MessageKind::Remark, remark)?;
        }
    }
    let mut ripple = Ripple::default();
    ripple.touch(id.clone());
    advance::settle(tx, ripple, now)?;
    Ok(id)
}

/// Runs a workflow again, unless a job of it may be at work where nobody hears of it. Returns the id of the new one.
pub fn rerun(
    tx: &Tx<'_>,
    workflow: &WorkflowId,
    scope: &RerunScope,
    by: Option<&UserId>,
    now: Millis,
) -> Result<Result<WorkflowId, RerunRefused>, Error> {
    run_again(tx, workflow, scope, Cause::Person { by, is_forced: false }, now)
}

/// Runs a workflow again, whatever its jobs may be doing: whoever says so knows that the agents of those that have
/// ended are gone, and has it run beside those that have not. Returns the id of the new one.
pub fn rerun_anyway(
    tx: &Tx<'_>,
    workflow: &WorkflowId,
    scope: &RerunScope,
    by: Option<&UserId>,
    now: Millis,
) -> Result<Result<WorkflowId, RerunRefused>, Error> {
    let made = run_again(tx, workflow, scope, Cause::Person { by, is_forced: true }, now)?;
    if made.is_ok() {
        for job in tasks::fenced_jobs(tx, workflow)? {
            task::release_anyway(tx, &job, now)?;
        }
    }
    Ok(made)
}

fn run_again(
    tx: &Tx<'_>,
    workflow: &WorkflowId,
    scope: &RerunScope,
    cause: Cause<'_>,
    now: Millis,
) -> Result<Result<WorkflowId, RerunRefused>, Error> {
    let mut ripple = Ripple::default();
    let made = rerun::create(tx, workflow, scope, cause, &mut ripple, now)?;
    advance::settle(tx, ripple, now)?;
    Ok(made)
}
