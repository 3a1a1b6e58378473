//! Effects of a change of one workflow on others, collected so that it can be settled at the end.

use crate::server::ids::{JobId, WorkflowId};
use std::collections::VecDeque;

/// Workflows that must be looked at again, and jobs that were given the key they waited for.
#[derive(Default)]
#[must_use = "a ripple that is not settled leaves workflows behind their jobs"]
pub(super) struct Ripple {
    workflows: VecDeque<WorkflowId>,
    granted: VecDeque<JobId>,
}

impl Ripple {
    /// Notes that something about a job of this workflow changed.
    pub(super) fn touch(&mut self, workflow: WorkflowId) {
        if !self.workflows.contains(&workflow) {
            self.workflows.push_back(workflow);
        }
    }

    /// Notes that a job of this workflow has come to hold its key.
    pub(super) fn grant(&mut self, job: JobId, workflow: WorkflowId) {
        self.granted.push_back(job);
        self.touch(workflow);
    }

    /// Takes the next job that was given its key.
    pub(super) fn next_granted(&mut self) -> Option<JobId> {
        self.granted.pop_front()
    }

    /// Takes the next workflow to look at.
    pub(super) fn next_workflow(&mut self) -> Option<WorkflowId> {
        self.workflows.pop_front()
    }
}
