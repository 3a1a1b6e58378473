//! The jobs of a workflow as the engine's graph sees them.

use crate::server::engine::graph::GraphNode;
use crate::server::ids::{JobId, WorkflowId};
use crate::server::store::tables::jobs;
use crate::server::store::{Error, View};

/// The ids of the jobs of a workflow, and their nodes in the same order.
pub(super) fn of_workflow(view: &View, workflow: &WorkflowId) -> Result<(Vec<JobId>, Vec<GraphNode>), Error> {
    let rows = jobs::nodes(view, workflow)?.into_iter().map(|row| {
        let node = GraphNode {
            name: row.name,
            kind: row.kind,
            status: row.status,
            requires: row.requires,
            waits_for_lock: row.waits_for_key,
        };
        (row.id, node)
    });
    Ok(rows.unzip())
}
