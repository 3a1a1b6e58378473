//! A task for tests.

use crate::protocol::{Job, Secret, Task, TaskId};
use std::collections::BTreeMap;

/// A task without steps.
pub(super) fn task(id: &str) -> Task {
    let job = Job {
        resource_class: "acme/linux".to_owned(),
        shell: None,
        working_directory: None,
        environment: BTreeMap::new(),
        parallelism: 1,
        steps: Vec::new(),
        cache_retention_days: None,
    };
    Task {
        id: TaskId::new(id).expect("an id"),
        token: Secret::new("t"),
        allocation: "a".to_owned(),
        job_name: "job".to_owned(),
        job_url: String::new(),
        job,
        node_index: 0,
        node_total: 1,
        built_in: BTreeMap::new(),
        variables: Vec::new(),
        mask: Vec::new(),
        source: None,
        has_test_timings: false,
        lease_seconds: 60,
        begin_seconds: 600,
        budget_seconds: 900,
        heartbeat_wait_seconds: 20,
        max_step_output_bytes: 1 << 20,
        max_artifact_bytes: 1 << 20,
    }
}
