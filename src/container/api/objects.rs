//! Objects of the API as far as the runner looks at them. Everything may be absent or null, and what is not named here
//! is ignored: clusters of many versions answer.

use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// A null is as good as nothing.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// Metadata of any object.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::container) struct Meta {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) uid: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) resource_version: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) creation_timestamp: String,
    pub(in crate::container) deletion_timestamp: Option<String>,
}

/// A list of objects.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(in crate::container) struct List<T> {
    pub(in crate::container) metadata: ListMeta,
    #[serde(deserialize_with = "or_default", bound(deserialize = "T: Deserialize<'de>"))]
    pub(in crate::container) items: Vec<T>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { metadata: ListMeta::default(), items: Vec::new() }
    }
}

/// Metadata of a list.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::container) struct ListMeta {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) resource_version: String,
    #[serde(rename = "continue", deserialize_with = "or_default")]
    pub(in crate::container) next: String,
}

/// Pod, with the fields that are looked at.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(in crate::container) struct Pod {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) metadata: Meta,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) spec: PodSpec,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) status: PodStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::container) struct PodSpec {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) node_name: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) containers: Vec<SpecContainer>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(in crate::container) struct SpecContainer {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) image: String,
}

/// Status of a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::container) struct PodStatus {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) phase: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) reason: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) message: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) conditions: Vec<Condition>,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) init_container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) container_statuses: Vec<ContainerStatus>,
}

/// A condition of a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(in crate::container) struct Condition {
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub(in crate::container) kind: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) status: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) reason: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) message: String,
}

/// Status of a container: one of its states, or none.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(in crate::container) struct ContainerStatus {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) state: ContainerState,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(in crate::container) struct ContainerState {
    pub(in crate::container) waiting: Option<Waiting>,
    pub(in crate::container) running: Option<IsRunning>,
    pub(in crate::container) terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(in crate::container) struct Waiting {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) reason: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(in crate::container) struct IsRunning {}

/// The end of a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::container) struct Terminated {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) exit_code: i64,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) reason: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) message: String,
}

/// Secret, with its data in base64.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(in crate::container) struct Secret {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) metadata: Meta,
    /// Values by key, as base64.
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) data: BTreeMap<String, String>,
}

/// An event about an object.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::container) struct Event {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) metadata: Meta,
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub(in crate::container) kind: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) reason: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) message: String,
}

/// A node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(in crate::container) struct Node {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) metadata: NodeMeta,
}

/// Metadata of a node: other objects are not asked for their labels.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(in crate::container) struct NodeMeta {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::container) labels: BTreeMap<String, String>,
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_unknown_fields_are_nothing() {
        let text = r#"{"kind":"Pod","metadata":{"name":"p","annotations":null,"new":1},"spec":{"containers":null},"status":null}"#;
        let pod: Pod = serde_json::from_str(text).unwrap();
        assert_eq!((pod.metadata.name.as_str(), pod.status.phase.as_str()), ("p", ""));
        let list: List<Pod> = serde_json::from_str(r#"{"metadata":{"continue":"x"},"items":null}"#).unwrap();
        assert_eq!((list.metadata.next.as_str(), list.items.len()), ("x", 0));
    }
}
