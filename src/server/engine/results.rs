//! Results that are stored, compared with those that the rules of the engine make.

use crate::server::engine::graph::{self, GraphNode};
use crate::server::store::inspect::{self, Fault, JobResult, WorkflowResult, push};
use crate::server::store::status::{JobStatus, JobType};
use crate::server::store::{Error, View};

/// Looks for jobs whose status is not that of their tasks, and for workflows whose status is not that of their jobs, by the
/// engine's own rules. What those do not decide is as it is: a job without tasks may have ended before it was queued.
pub fn wrong_results(view: &View, faults: &mut Vec<Fault>) -> Result<(), Error> {
    inspect::each_job_result(view, |result| {
        let JobResult { job, status, tasks } = result;
        let made = graph::job_status(&tasks);
        if status != made {
            push(faults, "result", format!("job {job} is {status}, and its tasks make it {made}"));
        }
    })?;
    inspect::each_workflow_result(view, |result| {
        let node = |&(status, waits_for_lock): &(JobStatus, bool)| GraphNode {
            name: String::new(),
            kind: JobType::Build,
            requires: Vec::new(),
            status,
            waits_for_lock,
        };
        let WorkflowResult { workflow, status, is_canceled, jobs } = result;
        let made = graph::workflow_status(&jobs.iter().map(node).collect::<Vec<_>>(), is_canceled);
        if status != made {
            push(faults, "result", format!("workflow {workflow} is {status}, and its jobs make it {made}"));
        }
    })
}
