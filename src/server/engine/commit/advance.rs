//! Brings workflows up to date: jobs that can start start, those that cannot are given up, and workflows come to rest.

use crate::server::engine::commit::job::{close_job, end_job, give_up, say, set_status, waking};
use crate::server::engine::commit::ripple::Ripple;
use crate::server::engine::commit::{fence, nodes, rerun, serial};
use crate::server::engine::graph::{self, Decision};
use crate::server::engine::task::Task;
use crate::server::engine::test_timings;
use crate::server::ids::{JobId, WorkflowId};
use crate::server::secrets::contexts;
use crate::server::store::status::{JobStatus, JobType, MessageKind};
use crate::server::store::tables::tasks::{self, Place};
use crate::server::store::tables::{jobs, workflows};
use crate::server::store::{Effect, Error, Tx};
use crate::server::time::Millis;

/// Brings every touched workflow up to date, and those that this reaches.
pub(super) fn settle(tx: &Tx<'_>, mut ripple: Ripple, now: Millis) -> Result<(), Error> {
    begin_granted(tx, &mut ripple, now)?;
    while let Some(workflow) = ripple.next_workflow() {
        advance(tx, &workflow, &mut ripple, now)?;
        begin_granted(tx, &mut ripple, now)?;
    }
    Ok(())
}

/// Begins the jobs that were given the key they waited for.
fn begin_granted(tx: &Tx<'_>, ripple: &mut Ripple, now: Millis) -> Result<(), Error> {
    while let Some(job) = ripple.next_granted() {
        let kind = jobs::end_wait(tx, &job)?;
        begin_job(tx, &job, kind, ripple, now)?;
    }
    Ok(())
}

/// Starts what can start, gives up what cannot, and brings the workflow's status up to date.
fn advance(tx: &Tx<'_>, workflow: &WorkflowId, ripple: &mut Ripple, now: Millis) -> Result<(), Error> {
    let progress = workflows::progress(tx, workflow)?;
    if progress.has_ended {
        return Ok(());
    }
    let (ids, mut nodes) = nodes::of_workflow(tx, workflow)?;
    let mut has_changed = false;
    // A cancelled workflow starts nothing more.
    if !progress.is_canceled {
        loop {
            let decisions = graph::advance(&nodes);
            has_changed |= !decisions.is_empty();
            for &(index, decision) in &decisions {
                let obstacle = graph::obstacle(&nodes, index);
                let node = &mut nodes[index];
                node.status = match decision {
                    Decision::NotRun => {
                        if let Some(why) = obstacle {
                            give_up(tx, &ids[index], MessageKind::Warning, &why, now)?;
                        }
                        end_job(tx, &ids[index], JobStatus::NotRun, ripple, now)?
                    }
                    Decision::Start => start_job(tx, workflow, &ids[index], node.kind, ripple, now)?,
                };
                // In the order in which keys are given back: so jobs get their numbers and places in the queue.
                begin_granted(tx, ripple, now)?;
            }
            // A job that could not be started has ended, which decides about others.
            if decisions.is_empty() {
                break;
            }
        }
    }
    // A job may have come to hold a key that was given back meanwhile.
    if has_changed {
        (_, nodes) = nodes::of_workflow(tx, workflow)?;
    }
    let status = graph::workflow_status(&nodes, progress.is_canceled);
    if status != progress.status {
        workflows::set_status(tx, workflow, status, status.is_terminal().then_some(now))?;
    }
    tx.effect(Effect::Changed(progress.pipeline));
    // An agent that nobody hears may still be at work, and nothing is done beside it: see `task::fence_gone`.
    if status.is_terminal() && !tasks::is_workflow_fenced(tx, workflow)? {
        serial::leave_all(tx, workflow, ripple, now)?;
        rerun::automatically(tx, workflow, status, ripple, now)?;
    }
    Ok(())
}

/// The job's turn has come. Returns its status from now on.
fn start_job(
    tx: &Tx<'_>,
    workflow: &WorkflowId,
    job: &JobId,
    kind: JobType,
    ripple: &mut Ripple,
    now: Millis,
) -> Result<JobStatus, Error> {
    // An approval opens what is behind it: whoever may not use its context may not have it waiting either.
    if let (JobType::Build | JobType::Approval, Err(why)) = (kind, contexts::of_job(tx, job)?) {
        give_up(tx, job, MessageKind::Error, &why.to_string(), now)?;
        return end_job(tx, job, JobStatus::Unauthorized, ripple, now);
    }
    if let Some(key) = jobs::serial_key(tx, job)? {
        if kind == JobType::Unlock {
            serial::unlock(tx, workflow, &key, ripple, now)?;
            return end_job(tx, job, JobStatus::Success, ripple, now);
        }
        match serial::arrive(tx, job, key.clone(), now)? {
            serial::SerialTurn::Taken => {}
            serial::SerialTurn::TooLate => {
                let why = format!("skipped: a newer pipeline came first to the serial group `{key}`");
                give_up(tx, job, MessageKind::Warning, &why, now)?;
                return end_job(tx, job, JobStatus::NotRun, ripple, now);
            }
            serial::SerialTurn::Waits => {
                jobs::set_waiting(tx, job, JobStatus::Queued, now)?;
                return Ok(JobStatus::Queued);
            }
        }
    }
    begin_job(tx, job, kind, ripple, now)
}

fn begin_job(
    tx: &Tx<'_>,
    job: &JobId,
    kind: JobType,
    ripple: &mut Ripple,
    now: Millis,
) -> Result<JobStatus, Error> {
    match kind {
        JobType::Approval => set_status(tx, job, JobStatus::OnHold),
        JobType::NoOp | JobType::Unlock => end_job(tx, job, JobStatus::Success, ripple, now),
        JobType::Lock => {
            close_job(tx, job, JobStatus::Success, now)?;
            Ok(JobStatus::Success)
        }
        JobType::Build => queue_job(tx, job, ripple, now),
    }
}

fn queue_job(tx: &Tx<'_>, job: &JobId, ripple: &mut Ripple, now: Millis) -> Result<JobStatus, Error> {
    let to_queue = jobs::to_queue(tx, job)?;
    let number = jobs::take_number(tx, &to_queue.project)?;
    jobs::set_queued(tx, job, number, JobStatus::Queued, now)?;
    if let Some(end) = &to_queue.cannot_run {
        say(tx, job, MessageKind::Error, &end.message)?;
        return end_job(tx, job, end.status, ripple, now);
    }
    let class = &to_queue.resource_class;
    if !to_queue.is_class_known {
        let message = format!(
            "cannot run this job using the selected resource class `{class}`: there is no such class here (make it with `runlet admin resource-class create`)"
        );
        say(tx, job, MessageKind::Error, &message)?;
        return end_job(tx, job, JobStatus::Failed, ripple, now);
    }
    if to_queue.is_too_strange {
        let message = format!(
            "this pipeline comes from a fork, and the resource class `{class}` is not marked as fit for what strangers wrote: an administrator may do so with `runlet admin resource-class set-untrusted {class} on`"
        );
        say(tx, job, MessageKind::Error, &message)?;
        return end_job(tx, job, JobStatus::Unauthorized, ripple, now);
    }
    if to_queue.parallelism > 1 {
        test_timings::choose(tx, job)?;
    }
    // A rerun of what somebody gave up while nobody heard of it.
    let start = Task::first(fence::before(tx, job)?, now).initial();
    let waking = waking(tx, class, now)?;
    for node in 0..to_queue.parallelism {
        let place = Place {
            job,
            pipeline: &to_queue.pipeline,
            project: &to_queue.project,
            node_index: node,
            attempt: 1,
            resource_class: class,
            kind: to_queue.task_kind,
        };
        tasks::insert(tx, place, &start, now)?;
        tx.effect(waking.clone());
    }
    Ok(JobStatus::Queued)
}
