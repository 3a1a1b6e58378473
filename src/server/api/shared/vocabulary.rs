//! The words of the store in those of each version of the API.

use crate::server::store::read::{RunStatus, Test};
use crate::server::store::status::{JobStatus, StepState, WorkflowStatus};
use crate::server::time::Millis;
use serde_json::{Map, Value, json};

/// A time in RFC 3339, or null.
pub fn time(at: Option<Millis>) -> Value {
    at.map_or(Value::Null, |at| at.to_string().into())
}

/// Version 2 of a workflow's status: it has no word for waiting on a serial group.
pub fn workflow_v2(status: WorkflowStatus) -> &'static str {
    match status {
        WorkflowStatus::Queued => "running",
        status => status.as_str(),
    }
}

/// Version 3 of something that has ended.
fn outcome(word: &str) -> &str {
    match word {
        "success" => "succeeded",
        "error" | "terminated-unknown" => "errored",
        word => word,
    }
}

/// Words of version 3 for `phase`; a run is never just created.
pub const PHASES: [&str; 4] = ["created", "queued", "started", "ended"];
/// Words of [`run_v3`] for `current_outcome`.
pub const OUTCOMES: [&str; 6] = ["succeeded", "failed", "errored", "canceled", "unauthorized", "not_run"];

/// `phase` and `current_outcome` of a run, which has no `outcome` even after its end.
pub fn run_v3(status: RunStatus) -> Map<String, Value> {
    let mut fields = Map::new();
    let (phase, current) = match status {
        RunStatus::Errored => ("ended", Some("errored")),
        RunStatus::Empty => ("ended", Some("not_run")),
        RunStatus::As(WorkflowStatus::Failing) => ("started", Some("failed")),
        RunStatus::As(WorkflowStatus::Queued) => ("queued", None),
        RunStatus::As(status) if status.is_terminal() => ("ended", Some(outcome(status.as_str()))),
        RunStatus::As(_) => ("started", None),
    };
    fields.insert("phase".into(), phase.into());
    if let Some(current) = current {
        fields.insert("current_outcome".into(), current.into());
    }
    fields
}

/// `phase`, `outcome` once ended, `current_outcome` while running.
pub fn workflow_v3(status: WorkflowStatus) -> Map<String, Value> {
    match status {
        WorkflowStatus::Failing => fields("started", "current_outcome", "failed"),
        WorkflowStatus::Queued => phase("queued"),
        status if status.is_terminal() => fields("ended", "outcome", outcome(status.as_str())),
        _ => phase("started"),
    }
}

/// `phase`, and `outcome` once ended.
pub fn job_v3(status: JobStatus) -> Map<String, Value> {
    match status {
        JobStatus::Blocked => phase("created"),
        JobStatus::Queued => phase("queued"),
        JobStatus::Running | JobStatus::OnHold => phase("started"),
        status => fields("ended", "outcome", outcome(status.as_str())),
    }
}

/// `phase`, and `outcome` once ended.
pub fn step_v3(status: StepState) -> Map<String, Value> {
    match status {
        StepState::Running => phase("started"),
        status => fields("ended", "outcome", outcome(status.as_str())),
    }
}

/// `lifecycle` of a build in version 1.1.
pub fn lifecycle_v1(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Blocked | JobStatus::OnHold => "not_running",
        JobStatus::Queued => "queued",
        JobStatus::Running => "running",
        JobStatus::NotRun => "not_run",
        _ => "finished",
    }
}

/// `status` of a build in version 1.1.
pub fn status_v1(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Blocked | JobStatus::OnHold => "not_running",
        JobStatus::TerminatedUnknown => "infrastructure_fail",
        JobStatus::Unauthorized => "failed",
        status => status.as_str(),
    }
}

/// A test as every version shows it.
pub fn test(test: &Test) -> Value {
    let mut shown = json!({
        "name": test.name, "classname": test.classname, "result": test.result, "run_time": test.run_time,
        "message": test.message, "source": test.source,
    });
    if let Some(file) = &test.file {
        shown["file"] = json!(file);
    }
    shown
}

fn phase(phase: &str) -> Map<String, Value> {
    Map::from_iter([("phase".to_owned(), json!(phase))])
}

fn fields(phase: &str, name: &str, outcome: &str) -> Map<String, Value> {
    Map::from_iter([("phase".to_owned(), json!(phase)), (name.to_owned(), json!(outcome))])
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn words_of_version_3() {
        let workflow = |status| Value::from(workflow_v3(status));
        assert_eq!(workflow(WorkflowStatus::Success), json!({ "phase": "ended", "outcome": "succeeded" }));
        assert_eq!(workflow(WorkflowStatus::Error), json!({ "phase": "ended", "outcome": "errored" }));
        assert_eq!(workflow(WorkflowStatus::OnHold), json!({ "phase": "started" }));
        assert_eq!(
            workflow(WorkflowStatus::Failing),
            json!({ "phase": "started", "current_outcome": "failed" })
        );
        let run = |status| Value::from(run_v3(status));
        let failed = RunStatus::As(WorkflowStatus::Failed);
        assert_eq!(run(failed), json!({ "phase": "ended", "current_outcome": "failed" }));
        assert_eq!(run(RunStatus::Errored), json!({ "phase": "ended", "current_outcome": "errored" }));
        for status in RunStatus::WORDS.map(|word| RunStatus::parse(word).unwrap()) {
            let fields = run_v3(status);
            assert!(PHASES.contains(&fields["phase"].as_str().unwrap()), "{status:?}");
            let outcome = fields.get("current_outcome").and_then(Value::as_str);
            assert!(outcome.is_none_or(|outcome| OUTCOMES.contains(&outcome)), "{status:?}");
        }
        let job = |status| Value::from(job_v3(status));
        assert_eq!(job(JobStatus::Blocked), json!({ "phase": "created" }));
        assert_eq!(job(JobStatus::Failed), json!({ "phase": "ended", "outcome": "failed" }));
    }
}
