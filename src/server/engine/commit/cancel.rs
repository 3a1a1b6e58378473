//! Acts of people, newer pipelines and the clock on a workflow that runs: cancel it, cancel a job, approve one.

use crate::server::engine::commit::advance::settle;
use crate::server::engine::commit::job::{end_job, give_up, say};
use crate::server::engine::commit::rerun::OLDEST;
use crate::server::engine::commit::ripple::Ripple;
use crate::server::engine::commit::task;
use crate::server::ids::{JobId, PipelineId, UserId, WorkflowId};
use crate::server::store::status::{JobStatus, JobType, MessageKind, TriggerType};
use crate::server::store::tables::{jobs, projects, serial, tasks, workflows};
use crate::server::store::{Error, Tx};
use crate::server::time::Millis;
use std::time::Duration;

/// Longest time that a job waits for its key: 5 hours.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60 * 60);

/// State in which a cancel found the thing that a person wants to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canceled {
    /// The thing had not ended: it ends now, or when its agent hears of it.
    Now,
    /// The thing had ended before, and stays as it is.
    HadEnded,
    /// There is no such thing.
    Unknown,
}

/// Cancels a workflow: what has not begun ends now, what runs is told to stop.
pub fn cancel_workflow(
    tx: &Tx<'_>,
    workflow: &WorkflowId,
    by: Option<&UserId>,
    now: Millis,
) -> Result<Canceled, Error> {
    if !workflows::mark_canceled(tx, workflow, by)? {
        let is_known = workflows::exists(tx, workflow)?;
        return Ok(if is_known { Canceled::HadEnded } else { Canceled::Unknown });
    }
    // A key that one of its jobs gives back is for others, not for the next of its jobs.
    serial::delete_waiting_of_workflow(tx, workflow)?;
    for job in jobs::unfinished(tx, workflow)? {
        stop_job(tx, &job, by, now)?;
    }
    let mut ripple = Ripple::default();
    ripple.touch(workflow.clone());
    settle(tx, ripple, now)?;
    Ok(Canceled::Now)
}

/// Cancels one job; the workflow goes on with what may follow.
pub fn cancel_job(tx: &Tx<'_>, job: &JobId, by: Option<&UserId>, now: Millis) -> Result<Canceled, Error> {
    let Some((workflow, has_ended)) = jobs::workflow_of(tx, job)? else { return Ok(Canceled::Unknown) };
    if has_ended {
        return Ok(Canceled::HadEnded);
    }
    stop_job(tx, job, by, now)?;
    let mut ripple = Ripple::default();
    ripple.touch(workflow);
    settle(tx, ripple, now)?;
    Ok(Canceled::Now)
}

/// Stops one job that has not ended: at once when no runner has it, else through its runner.
fn stop_job(tx: &Tx<'_>, job: &JobId, by: Option<&UserId>, now: Millis) -> Result<(), Error> {
    jobs::set_canceled_by(tx, job, by)?;
    let open = tasks::open_of_job(tx, job)?;
    if open.is_empty() {
        jobs::give_number(tx, job, now)?;
        let mut ripple = Ripple::default();
        say(tx, job, MessageKind::Error, &format!("the job was canceled at {now}, before it was queued"))?;
        end_job(tx, job, JobStatus::Canceled, &mut ripple, now)?;
        return settle(tx, ripple, now);
    }
    task::each(tx, open, now, |task| task.cancel(now)).map(drop)
}

/// State in which an approval found its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approved {
    /// The job waited for the approval: it is given.
    Now,
    /// The approval was given before.
    Before,
    /// The approval cannot be given yet: what the job requires has not ended, or it waits for its serial group.
    NotYet(JobStatus),
    /// The job ended without the approval.
    HadEnded(JobStatus),
    /// The job is no approval.
    NoApproval,
    /// There is no such job in the workflow.
    Unknown,
}

/// Approves a job that waits for that.
pub fn approve(
    tx: &Tx<'_>,
    workflow: &WorkflowId,
    job: &JobId,
    by: Option<&UserId>,
    now: Millis,
) -> Result<Approved, Error> {
    if !jobs::approve(tx, workflow, job, JobStatus::OnHold, by)? {
        return Ok(match jobs::kind_and_status(tx, workflow, job)? {
            None => Approved::Unknown,
            Some((JobType::Approval, JobStatus::Success)) => Approved::Before,
            Some((JobType::Approval, status)) if status.is_terminal() => Approved::HadEnded(status),
            Some((JobType::Approval, status)) => Approved::NotYet(status),
            Some(_) => Approved::NoApproval,
        });
    }
    let mut ripple = Ripple::default();
    end_job(tx, job, JobStatus::Success, &mut ripple, now)?;
    ripple.touch(workflow.clone());
    settle(tx, ripple, now)?;
    Ok(Approved::Now)
}

/// Pipelines that are started for a state of a branch, which the next state makes pointless.
fn follows_branch(trigger_type: TriggerType) -> bool {
    matches!(trigger_type, TriggerType::Api | TriggerType::Explicit | TriggerType::Webhook)
}

/// A newer pipeline of the branch makes older ones pointless, where the project says so: cancels their
/// workflows, except scheduled ones and reruns. Never on the default branch. Returns how many.
pub fn cancel_redundant(tx: &Tx<'_>, pipeline: &PipelineId, now: Millis) -> Result<usize, Error> {
    let newest = workflows::newest(tx, pipeline)?;
    let Some(branch) = newest.branch.filter(|branch| *branch != newest.default_branch) else { return Ok(0) };
    let settings = projects::settings(tx, &newest.project)?;
    let is_wanted = settings.is_some_and(|settings| settings.enable_auto_cancel_redundant_workflows);
    if !is_wanted || !follows_branch(newest.trigger_type) {
        return Ok(0);
    }
    let mut older = workflows::unfinished_of_branch(tx, &newest.project, &branch, newest.number)?;
    older.retain(|older| !older.is_rerun && follows_branch(older.trigger_type));
    for older in &older {
        cancel_workflow(tx, &older.workflow, None, now)?;
    }
    Ok(older.len())
}

/// Cancels workflows that have not ended in 90 days: an approval that nobody gives, a class without runners. One of which
/// a job runs is not forgotten: the clock was wrong when it was made. Returns how many.
pub fn cancel_forgotten_once(tx: &Tx<'_>, now: Millis) -> Result<usize, Error> {
    let forgotten = workflows::unfinished_before(tx, now.minus(OLDEST))?;
    let why = format!(
        "cancelled at {now}: the workflow had not ended for 90 days by the clock of the control plane; start a new pipeline"
    );
    let mut count = 0;
    for workflow in &forgotten {
        for job in jobs::unfinished(tx, workflow)? {
            give_up(tx, &job, MessageKind::Error, &why, now)?;
        }
        // The end of a workflow before may have given this one the key that it waited for, and so its end.
        count += usize::from(cancel_workflow(tx, workflow, None, now)? == Canceled::Now);
    }
    Ok(count)
}

/// Gives up jobs that have waited too long for the key of their serial group. Returns how many.
pub fn expire_waits_once(tx: &Tx<'_>, now: Millis) -> Result<usize, Error> {
    // The pass after the last one in which the holder was held begins to count, to the minute.
    serial::wait_anew_behind_held(tx, now.minus(Duration::from_secs(60)), now)?;
    let mut count = 0;
    for wait in serial::waiting_since_before(tx, now.minus(LONGEST_WAIT))? {
        // An end before this one may have given it its key.
        if !serial::is_waiting(tx, &wait.job)? {
            continue;
        }
        count += 1;
        let mut ripple = Ripple::default();
        let why = format!(
            "cancelled at {now}: it waited longer than 5 hours for the serial group `{}`; rerun the workflow when what holds the group has ended",
            wait.key
        );
        give_up(tx, &wait.job, MessageKind::Error, &why, now)?;
        end_job(tx, &wait.job, JobStatus::Canceled, &mut ripple, now)?;
        ripple.touch(wait.workflow.clone());
        settle(tx, ripple, now)?;
    }
    Ok(count)
}
