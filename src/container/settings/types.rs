//! ContainerSettings of the runner, as types.

use crate::container::services::ServiceRules;
use crate::http::Endpoint;
use crate::logging;
use crate::protocol::{ResourceClass, Secret};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of the container runner.
#[derive(Clone, Debug)]
pub(in crate::container) struct ContainerSettings {
    /// Shown in the inventory.
    pub(in crate::container) name: String,
    /// The control plane.
    pub(in crate::container) endpoint: Endpoint,
    /// Classes, by name.
    pub(in crate::container) classes: Vec<ClassSettings>,
    /// Rules for service containers of all classes.
    pub(in crate::container) services: ServiceRules,
    /// Tasks that may be here at once.
    pub(in crate::container) max_concurrent_tasks: usize,
    /// A task may run so long.
    pub(in crate::container) max_run_time: Duration,
    /// Collection of what was left behind; `None` when it is switched off.
    pub(in crate::container) gc: Option<Gc>,
    /// Looks at the nodes of the cluster; `None` when that is switched off.
    pub(in crate::container) checker: Option<Checker>,
    /// Cluster that the pods run in.
    pub(in crate::container) cluster: Cluster,
    /// Identifies this agent among the others of the namespace: the name of its pod.
    pub(in crate::container) instance: String,
    /// Image of the init container; `None` is that of this agent's own pod.
    pub(in crate::container) init_image: Option<String>,
    /// Resources of the init container.
    pub(in crate::container) init_resources: Value,
    /// Pods of tasks that failed stay until they are collected.
    pub(in crate::container) keeps_pods: bool,
    /// The proxy variables of this process, for the pods.
    pub(in crate::container) proxy: Vec<(String, String)>,
    /// Log of the operator.
    pub(in crate::container) logging: logging::LogOptions,
    /// Address of the probes; `None` for none.
    pub(in crate::container) health: Option<String>,
    /// Remarks for the log.
    pub(in crate::container) warnings: Vec<String>,
}

/// A resource class.
#[derive(Clone, Debug)]
pub(in crate::container) struct ClassSettings {
    /// Full name, `namespace/name`.
    pub(in crate::container) name: ResourceClass,
    /// Token of the class; `None` when only the cluster has it.
    pub(in crate::container) token: Option<Secret>,
    /// `metadata` and `spec` of its pods.
    pub(in crate::container) template: Value,
    /// Rules for its service containers.
    pub(in crate::container) services: ServiceRules,
}

/// Collection of pods and secrets that nobody wants any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::container) struct Gc {
    /// Age at which they are collected.
    pub(in crate::container) threshold: Duration,
    /// Pause between two looks.
    pub(in crate::container) interval: Duration,
}

/// Looks whether there are nodes for the pods of each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::container) struct Checker {
    /// Looks in a row without a node that end the claims of a class.
    pub(in crate::container) threshold: u32,
    /// Pause between two looks.
    pub(in crate::container) interval: Duration,
}

/// The cluster that this runs in.
#[derive(Clone, Debug)]
pub(in crate::container) struct Cluster {
    /// Address of the API server.
    pub(in crate::container) url: String,
    /// Namespace of the tasks.
    pub(in crate::container) namespace: String,
    /// Authorities of the API server.
    pub(in crate::container) ca_file: PathBuf,
    /// The token of the service account, which is read again and again.
    pub(in crate::container) token_file: PathBuf,
    /// Names of secrets with tokens of classes.
    pub(in crate::container) token_secrets: Vec<String>,
}
