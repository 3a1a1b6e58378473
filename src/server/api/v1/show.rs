//! Builds and their steps in the words of version 1.1.

use crate::protocol::TaskId;
use crate::server::api::shared::failure::Answer;
use crate::server::api::shared::link::output_url;
use crate::server::api::shared::lookup::job_url;
use crate::server::api::shared::slug::long_vcs;
use crate::server::api::shared::vocabulary::{lifecycle_v1, status_v1, time};
use crate::server::state::Shared;
use crate::server::store::read::{Attempt, Job, Pipeline, StepRow};
use crate::server::store::status::{JobStatus, StepState};
use serde_json::{Value, json};
use std::collections::HashSet;

/// A build without its steps.
pub(super) fn summary(state: &Shared, job: &Job, pipeline: &Pipeline) -> Value {
    let (started, stopped) = (job.started_at, job.stopped_at);
    let outcome = job.status.is_terminal().then(|| status_v1(job.status));
    let took_ms = started.zip(stopped).map(|(started, stopped)| stopped.since(started).as_millis() as u64);
    json!({
        "build_num": job.number, "status": status_v1(job.status), "outcome": outcome, "lifecycle": lifecycle_v1(job.status),
        "vcs_url": pipeline.repository_url, "vcs_type": long_vcs(&job.project.vcs), "vcs_revision": pipeline.revision,
        "vcs_tag": pipeline.tag, "branch": pipeline.branch, "username": job.project.org, "reponame": job.project.repo,
        "build_url": job_url(state, job), "subject": pipeline.subject, "body": pipeline.body,
        "committer_name": pipeline.author, "committer_email": null, "author_name": pipeline.author,
        "queued_at": time(job.queued_at), "start_time": time(started), "stop_time": time(stopped),
        "build_time_millis": took_ms,
        "parallel": job.parallelism, "canceled": job.status == JobStatus::Canceled,
        "infrastructure_fail": job.status == JobStatus::InfrastructureFail, "timedout": job.ran_out_of_time,
        "messages": job.messages, "fail_reason": fail_reason(job),
        "why": pipeline.trigger_type, "user": { "login": pipeline.actor_login, "is_user": true }, "previous": null,
        "workflows": {
            "job_name": job.name, "job_id": job.id, "workflow_id": job.workflow_id, "workflow_name": job.workflow_name,
            "workspace_id": job.workspace_id, "upstream_job_ids": [],
        },
    })
}

/// The reason of a bad end, where there is something to say.
fn fail_reason(job: &Job) -> Option<&str> {
    let is_bad = job.status.is_failure() || job.status == JobStatus::Unauthorized;
    job.messages.first().filter(|_| is_bad).map(|message| message.message.as_str())
}

/// Steps of all parallel runs, those of one record side by side. `with_output` are the steps that have
/// written something.
pub(super) fn steps(
    state: &Shared,
    attempts: &[Attempt],
    with_output: &HashSet<(TaskId, u32)>,
) -> Answer<Vec<Value>> {
    let mut numbers: Vec<u32> = attempts.iter().flat_map(|a| a.steps.iter().map(|step| step.step)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut shown = Vec::new();
    for number in numbers {
        let (mut name, mut actions) = (String::new(), Vec::new());
        for attempt in attempts {
            let Some(step) = attempt.steps.iter().find(|step| step.step == number) else { continue };
            let has_output = with_output.contains(&(attempt.task.clone(), number));
            name.clone_from(&step.name);
            actions.push(action(state, attempt, step, has_output)?);
        }
        shown.push(json!({ "name": name, "actions": actions }));
    }
    Ok(shown)
}

/// A parallel run of a step, which version 1.1 calls an action.
fn action(state: &Shared, attempt: &Attempt, step: &StepRow, has_output: bool) -> Answer<Value> {
    let failed =
        matches!(step.status, StepState::Failed | StepState::Timedout | StepState::InfrastructureFail);
    let ended = step.status != StepState::Running;
    let took_ms = step.ended_at.map(|end| end.since(step.started_at).as_millis() as u64);
    let mut shown = json!({
        "index": attempt.node_index, "step": step.step, "name": step.name, "type": step.kind,
        "status": step.status, "failed": if ended { json!(failed) } else { Value::Null },
        "exit_code": step.exit_code, "bash_command": step.command, "start_time": time(Some(step.started_at)),
        "end_time": time(step.ended_at), "run_time_millis": took_ms,
        "has_output": has_output, "truncated": false, "background": step.background, "parallel": true,
        "continue": null, "insignificant": false, "canceled": step.status == StepState::Canceled,
        "timedout": step.status == StepState::Timedout,
        "infrastructure_fail": step.status == StepState::InfrastructureFail, "messages": step.message,
    });
    if has_output {
        shown["output_url"] = output_url(state, &attempt.task, step.step)?.into();
    }
    if step.max_auto_reruns > 0 {
        shown["auto_rerun_number"] = json!(step.attempt.saturating_sub(1));
        shown["max_auto_reruns"] = json!(step.max_auto_reruns);
    }
    Ok(shown)
}
