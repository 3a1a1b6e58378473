//! A task for tests.

use crate::protocol::{Secret, Task, TaskId};

/// A task without steps.
pub(super) fn task(id: &str) -> Task {
    let id = TaskId::new(id).expect("an id");
    let task = Task::without_steps(id, Secret::new("t"), "job".to_owned());
    Task { max_step_output_bytes: 1 << 20, max_artifact_bytes: 1 << 20, ..task }
}
