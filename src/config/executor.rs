//! The executor of a compiled job: what its steps want to run in, and which runners may take it.

use crate::protocol::{ResourceClass, TaskKind, Words};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The environment of a job's steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Executor {
    /// The host of a machine runner.
    #[default]
    Machine,
    /// Containers: of a container runner where the job has a class of one's own, else of the hosted service.
    Docker {
        /// The first is the one that steps run in; never empty.
        images: Vec<Image>,
    },
    /// A Mac of the hosted service.
    Macos {
        /// Version of Xcode.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        xcode: Option<String>,
    },
    /// A virtual machine of the hosted service.
    HostedMachine {
        /// Image of the machine, where the config names one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<String>,
        /// Value of `docker_layer_caching`.
        #[serde(default)]
        layer_caching: bool,
    },
    /// Not known: the job wants orbs that are missing, where they may be.
    MissingOrbs {
        /// References to the orbs as the config writes them; never empty.
        references: Vec<String>,
    },
}

/// Kind of an executor: its `type` as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorKind {
    /// [`Executor::Machine`].
    Machine,
    /// [`Executor::Docker`].
    Docker,
    /// [`Executor::Macos`].
    Macos,
    /// [`Executor::HostedMachine`].
    HostedMachine,
    /// [`Executor::MissingOrbs`].
    MissingOrbs,
}

/// Container of a job: the first runs its steps, the others are services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Reference of the image.
    pub image: String,
    /// Host name under which others reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Replaces the entry point of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Words>,
    /// Replaces the command of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Words>,
    /// User that its processes run as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Variables with their literal values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Login of the registry, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub auth: BTreeMap<String, String>,
    /// Login of a registry of AWS, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aws_auth: BTreeMap<String, String>,
}

impl Executor {
    /// The kind of runner that may take a task of it in this class; `None` where no runner of one's own may.
    pub fn task_kind(&self, resource_class: &str) -> Option<TaskKind> {
        match self {
            Executor::Machine => Some(TaskKind::Machine),
            Executor::Docker { .. } => ResourceClass::new(resource_class).ok().map(|_| TaskKind::Container),
            Executor::Macos { .. } | Executor::HostedMachine { .. } | Executor::MissingOrbs { .. } => None,
        }
    }

    /// Whether the steps of the job are known.
    pub fn is_known(&self) -> bool {
        !matches!(self, Executor::MissingOrbs { .. })
    }

    /// The keys of a config that give such a job to runners of one's own, as a phrase.
    pub fn for_own_runners(&self) -> &'static str {
        match self {
            Executor::Docker { .. } => {
                "`resource_class: namespace/name`, and `machine: true` instead of `docker` where they are machine runners"
            }
            _ => "`machine: true` and `resource_class: namespace/name`",
        }
    }

    /// Names a part of it that no container runner can do, as a phrase that names the key of the config.
    pub fn refused_in_containers(&self) -> Option<String> {
        let Executor::Docker { images } = self else { return None };
        let asks = images.iter().find(|image| !image.aws_auth.is_empty())?;
        Some(format!(
            "the image `{}` has `aws_auth`, which container runners do not do (use `auth`, or give the nodes of the cluster rights to pull)",
            asks.image
        ))
    }

    /// The key of the config that names it: `machine`, `docker`, `macos`, or `orbs`.
    pub fn word(&self) -> &'static str {
        match self {
            Executor::Machine | Executor::HostedMachine { .. } => "machine",
            Executor::Docker { .. } => "docker",
            Executor::Macos { .. } => "macos",
            Executor::MissingOrbs { .. } => "orbs",
        }
    }

    /// The environment as a phrase for people, such as "containers (`cimg/go:1.25`)"; `class` is what the config
    /// names, empty where it names none.
    pub fn describe(&self, class: &str) -> String {
        let named = |what: &str, names: Vec<&str>| match names.as_slice() {
            [] => what.to_owned(),
            names => format!("{what} (`{}`)", names.join("`, `")),
        };
        let class = (!class.is_empty()).then_some(class);
        match self {
            Executor::Machine => "a machine runner".to_owned(),
            Executor::Docker { images } => {
                named("containers", images.iter().map(|image| image.image.as_str()).collect())
            }
            Executor::Macos { xcode } => named("a Mac", xcode.as_deref().into_iter().chain(class).collect()),
            Executor::HostedMachine { image, .. } => {
                named("a virtual machine", image.as_deref().into_iter().chain(class).collect())
            }
            Executor::MissingOrbs { references } => {
                let names = format!("`{}`", references.join("`, `"));
                match references.len() {
                    1 => format!("the orb {names}, which is not here"),
                    _ => format!("the orbs {names}, which are not here"),
                }
            }
        }
    }

    /// Names the parts that have no effect when its steps run on the host of a machine runner instead: a phrase for each.
    pub fn ignored_on_host(&self) -> Vec<String> {
        match self {
            Executor::Machine | Executor::MissingOrbs { .. } => Vec::new(),
            Executor::Docker { images } => {
                let mut ignored = Vec::new();
                if let [first, services @ ..] = images.as_slice() {
                    ignored.push(format!("the image `{}`", first.image));
                    ignored.extend(services.iter().map(|service| match &service.name {
                        Some(name) => format!("the service `{}` (`{name}`)", service.image),
                        None => format!("the service `{}`", service.image),
                    }));
                    if first.user.is_some() {
                        ignored.push("the user of the image".to_owned());
                    }
                }
                ignored
            }
            Executor::Macos { xcode: Some(xcode) } => vec![format!("macOS with Xcode {xcode}")],
            Executor::Macos { xcode: None } => vec!["macOS".to_owned()],
            Executor::HostedMachine { image, layer_caching } => {
                let image = image.as_ref().map(|image| format!("the image `{image}`"));
                let caching = layer_caching.then(|| "`docker_layer_caching`".to_owned());
                image.into_iter().chain(caching).collect()
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test whose value has no JSON should fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn every_executor_is_stored_with_a_kind_that_is_read_again() {
        let all = [
            (Executor::Machine, ExecutorKind::Machine),
            (Executor::Docker { images: Vec::new() }, ExecutorKind::Docker),
            (Executor::Macos { xcode: None }, ExecutorKind::Macos),
            (Executor::HostedMachine { image: None, layer_caching: false }, ExecutorKind::HostedMachine),
            (Executor::MissingOrbs { references: Vec::new() }, ExecutorKind::MissingOrbs),
        ];
        for (executor, kind) in all {
            let stored = serde_json::to_value(executor).unwrap();
            assert_eq!(serde_json::from_value::<ExecutorKind>(stored["type"].clone()).unwrap(), kind);
        }
    }
}
