//! The workflow graph: what may start, what never will, and how the whole stands. No IO.

use crate::config::{RequiredStatus, Requirement};
use crate::server::store::status::{JobStatus, JobType, TaskState, WorkflowStatus};
use std::collections::HashMap;

/// A job as the engine sees it.
#[derive(Clone, Debug)]
pub struct GraphNode {
    /// Name in the workflow.
    pub name: String,
    /// Kind of the job.
    pub kind: JobType,
    /// Jobs that it waits for, with the statuses that let it start.
    pub requires: Vec<Requirement>,
    /// Status of the job.
    pub status: JobStatus,
    /// Queued only because another job holds the key of its serial group.
    pub waits_for_lock: bool,
}

/// Decision about a blocked job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The tasks enter the queue, or the approval waits, or the no-op succeeds.
    Start,
    /// The requirements can never be met.
    NotRun,
}

/// Decides about every blocked job that can be decided now. Jobs that never run decide about others, so
/// the answer is a fixed point, in order of decision; once the caller knows where the started ones stand
/// it asks again.
pub fn advance(nodes: &[GraphNode]) -> Vec<(usize, Decision)> {
    let mut statuses: Vec<JobStatus> = nodes.iter().map(|node| node.status).collect();
    let mut decisions = Vec::new();
    let by_name: HashMap<&str, usize> =
        nodes.iter().enumerate().map(|(index, node)| (node.name.as_str(), index)).collect();
    loop {
        let before = decisions.len();
        for (index, node) in nodes.iter().enumerate() {
            if statuses[index] != JobStatus::Blocked {
                continue;
            }
            // A requirement that is not in the workflow was filtered out: it stops nobody.
            let status_of = |name: &str| by_name.get(name).map(|&found| statuses[found]);
            let (mut met, mut impossible) = (true, false);
            for requirement in &node.requires {
                match status_of(&requirement.job).map(reached) {
                    None => {}
                    Some(None) => met = false,
                    Some(Some(status)) => impossible |= !requirement.statuses.contains(&status),
                }
            }
            if impossible {
                statuses[index] = JobStatus::NotRun;
                decisions.push((index, Decision::NotRun));
            } else if met {
                // The caller finds out where that leads (a no-op succeeds, a lock may wait).
                statuses[index] = JobStatus::Queued;
                decisions.push((index, Decision::Start));
            }
        }
        if decisions.len() == before {
            return decisions;
        }
    }
}

/// The requirement that a job that never runs was not given, as a sentence for people.
pub fn obstacle(nodes: &[GraphNode], index: usize) -> Option<String> {
    let node = nodes.get(index)?;
    node.requires.iter().find_map(|requirement| {
        let required = nodes.iter().find(|node| node.name == requirement.job)?;
        let status = reached(required.status)?;
        if requirement.statuses.contains(&status) {
            return None;
        }
        let wanted: Vec<String> =
            requirement.statuses.iter().map(|status| format!("`{}`", word(*status))).collect();
        let ended = required.status;
        Some(format!("it requires {} of `{}`, which ended as `{ended}`", wanted.join(" or "), required.name))
    })
}

fn word(status: RequiredStatus) -> &'static str {
    match status {
        RequiredStatus::Success => "success",
        RequiredStatus::Failed => "failed",
        RequiredStatus::Canceled => "canceled",
        RequiredStatus::Unauthorized => "unauthorized",
        RequiredStatus::NotRun => "not_run",
    }
}

/// The final status as requirements name it; `None` while the job has not ended.
fn reached(status: JobStatus) -> Option<RequiredStatus> {
    match status {
        JobStatus::Success => Some(RequiredStatus::Success),
        JobStatus::Canceled => Some(RequiredStatus::Canceled),
        JobStatus::NotRun => Some(RequiredStatus::NotRun),
        JobStatus::Unauthorized => Some(RequiredStatus::Unauthorized),
        status if status.is_failure() => Some(RequiredStatus::Failed),
        _ => None,
    }
}

/// Jobs that run again when the chosen ones do: they, and everything that depends on them, since another
/// result may decide differently about it.
pub fn run_again(nodes: &[GraphNode], chosen: impl Fn(usize) -> bool) -> Vec<bool> {
    let mut again: Vec<bool> = (0..nodes.len()).map(chosen).collect();
    let by_name: HashMap<&str, usize> =
        nodes.iter().enumerate().map(|(index, node)| (node.name.as_str(), index)).collect();
    loop {
        let mut grew = false;
        for (index, node) in nodes.iter().enumerate() {
            let depends = |requirement: &Requirement| {
                by_name.get(requirement.job.as_str()).is_some_and(|&required| again[required])
            };
            if !again[index] && node.requires.iter().any(depends) {
                again[index] = true;
                grew = true;
            }
        }
        if !grew {
            return again;
        }
    }
}

/// Status of a workflow, given its jobs.
pub fn workflow_status(jobs: &[GraphNode], is_canceled: bool) -> WorkflowStatus {
    let any = |wanted: fn(JobStatus) -> bool| jobs.iter().any(|job| wanted(job.status));
    let ended = jobs.iter().all(|job| job.status.is_terminal());
    let runs = jobs.iter().any(|job| {
        job.status == JobStatus::Running || (job.status == JobStatus::Queued && !job.waits_for_lock)
    });
    if ended && any(|status| status == JobStatus::Unauthorized) {
        WorkflowStatus::Unauthorized
    } else if ended && any(JobStatus::is_failure) {
        WorkflowStatus::Failed
    } else if ended && (is_canceled || any(|status| status == JobStatus::Canceled)) {
        WorkflowStatus::Canceled
    } else if ended {
        WorkflowStatus::Success
    } else if any(JobStatus::is_failure) {
        WorkflowStatus::Failing
    } else if any(|status| status == JobStatus::OnHold) && !runs {
        WorkflowStatus::OnHold
    } else if any(|status| status == JobStatus::Queued) && !runs {
        WorkflowStatus::Queued
    } else {
        WorkflowStatus::Running
    }
}

/// Status of a job, given the newest attempt of each of its tasks: the worst result once all ended. A
/// task that ran out of time makes a failed job: clients act on failures by that word alone.
pub fn job_status(tasks: &[TaskState]) -> JobStatus {
    let any = |state| tasks.contains(&state);
    if tasks.iter().all(|task| task.is_terminal()) {
        let worst = [
            (TaskState::InfrastructureFail, JobStatus::InfrastructureFail),
            (TaskState::Timedout, JobStatus::Failed),
            (TaskState::Failed, JobStatus::Failed),
            (TaskState::Canceled, JobStatus::Canceled),
        ];
        let found = worst.into_iter().find(|(state, _)| any(*state));
        return found.map_or(JobStatus::Success, |(_, status)| status);
    }
    // A claimed task has not begun: only a begin makes a job run.
    let all_waiting = tasks.iter().all(|task| matches!(task, TaskState::Queued | TaskState::Claimed));
    if all_waiting { JobStatus::Queued } else { JobStatus::Running }
}

#[cfg(test)]
mod tests {
    use super::*;
    use JobStatus::{Blocked, Canceled, Failed, NotRun, OnHold, Queued, Running, Success};

    fn node(name: &str, status: JobStatus, requires: &[(&str, &[RequiredStatus])]) -> GraphNode {
        let requires = requires
            .iter()
            .map(|(job, statuses)| Requirement { job: (*job).into(), statuses: statuses.to_vec() });
        GraphNode {
            name: name.into(),
            kind: JobType::Build,
            requires: requires.collect(),
            status,
            waits_for_lock: false,
        }
    }

    fn standing(jobs: &[JobStatus], is_canceled: bool) -> WorkflowStatus {
        let jobs: Vec<GraphNode> = jobs.iter().map(|status| node("job", *status, &[])).collect();
        workflow_status(&jobs, is_canceled)
    }

    const OK: &[RequiredStatus] = &[RequiredStatus::Success];

    #[test]
    fn fan_in_waits_for_all() {
        let mut nodes = vec![
            node("a", Success, &[]),
            node("b", Running, &[]),
            node("c", Blocked, &[("a", OK), ("b", OK)]),
        ];
        assert_eq!(advance(&nodes), []);
        nodes[1].status = Success;
        assert_eq!(advance(&nodes), [(2, Decision::Start)]);
    }

    #[test]
    fn a_failure_spreads_and_handlers_run() {
        let nodes = [
            node("build", Failed, &[]),
            node("test", Blocked, &[("build", OK)]),
            node("deploy", Blocked, &[("test", OK)]),
            node("alert", Blocked, &[("build", &[RequiredStatus::Failed])]),
            node("cleanup", Blocked, &[("test", &[RequiredStatus::Success, RequiredStatus::NotRun])]),
        ];
        let decided = advance(&nodes);
        assert!(decided.contains(&(1, Decision::NotRun)) && decided.contains(&(2, Decision::NotRun)));
        assert!(decided.contains(&(3, Decision::Start)) && decided.contains(&(4, Decision::Start)));
        let why = obstacle(&nodes, 1);
        assert_eq!(why.as_deref(), Some("it requires `success` of `build`, which ended as `failed`"));
        assert_eq!(obstacle(&nodes, 3), None);
    }

    #[test]
    fn a_failure_handler_does_not_run_after_success() {
        let nodes =
            [node("build", Success, &[]), node("alert", Blocked, &[("build", &[RequiredStatus::Failed])])];
        assert_eq!(advance(&nodes), [(1, Decision::NotRun)]);
        assert_eq!(standing(&[Success, NotRun], false), WorkflowStatus::Success);
    }

    #[test]
    fn requirements_that_were_filtered_out_stop_nobody() {
        assert_eq!(advance(&[node("a", Blocked, &[("gone", OK)])]), [(0, Decision::Start)]);
    }

    #[test]
    fn workflows_stand_where_their_jobs_put_them() {
        let status = |jobs: &[JobStatus]| standing(jobs, false);
        assert_eq!(status(&[Success, Running]), WorkflowStatus::Running);
        assert_eq!(status(&[Failed, Running]), WorkflowStatus::Failing);
        assert_eq!(status(&[Failed, Canceled]), WorkflowStatus::Failed);
        assert_eq!(status(&[Success, OnHold, Blocked]), WorkflowStatus::OnHold);
        assert_eq!(status(&[Queued, OnHold]), WorkflowStatus::Running);
        assert_eq!(standing(&[Success, NotRun], true), WorkflowStatus::Canceled);
        let mut waiting = node("deploy", Queued, &[]);
        waiting.waits_for_lock = true;
        let held = [node("build", Success, &[]), waiting.clone(), node("after", Blocked, &[])];
        assert_eq!(workflow_status(&held, false), WorkflowStatus::Queued);
        assert_eq!(workflow_status(&[waiting, node("gate", OnHold, &[])], false), WorkflowStatus::OnHold);
        assert_eq!(status(&[]), WorkflowStatus::Success);
    }

    #[test]
    fn a_job_has_the_worst_result_of_its_tasks() {
        use TaskState as T;
        assert_eq!(job_status(&[T::Success, T::Failed]), Failed);
        assert_eq!(job_status(&[T::Success, T::Queued]), Running);
        assert_eq!(job_status(&[T::Queued, T::Queued]), Queued);
        assert_eq!(job_status(&[T::Claimed, T::Queued]), Queued);
        assert_eq!(job_status(&[T::Success, T::Claimed]), Running);
        assert_eq!(job_status(&[T::Canceled, T::InfrastructureFail]), JobStatus::InfrastructureFail);
        assert_eq!(job_status(&[T::Success, T::Timedout, T::Canceled]), Failed);
    }
}
