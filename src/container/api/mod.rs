//! The API server of the cluster: calls, a watch, and what its objects say. Knows nothing of tasks.

mod client;
mod fault;
mod objects;
mod watch;

pub(super) use client::Kube;
pub(super) use fault::ClusterFault;
pub(super) use objects::{ContainerStatus, Node, Pod, Terminated};
pub(super) use watch::{Seen, watch};
