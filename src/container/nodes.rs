//! The constraint checker: whether the cluster has a node for the pods of each class, looked at now and then. A class that
//! has none several times in a row claims no more until one is there, so that its tasks wait where other agents find them.
//!
//! Fields that count are those by which people choose nodes: `nodeName`, `nodeSelector`, and the expressions of a required
//! node affinity. Whether a node has room, or takes pods at all, changes by the minute and is left to the scheduler.

use super::api::{Kube, Node};
use super::settings::{Checker, ClassSettings};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A class that is looked after.
pub(super) struct WatchedClass {
    name: String,
    template: Value,
    misses: u32,
    /// Set while the class claims nothing.
    gate: Arc<AtomicBool>,
}

impl WatchedClass {
    /// Looks after a class; `gate` is set while it is to claim nothing.
    pub(super) fn new(class: &ClassSettings, gate: Arc<AtomicBool>) -> Self {
        Self { name: class.name.to_string(), template: class.template.clone(), misses: 0, gate }
    }

    fn look(&mut self, nodes: &[Node], threshold: u32) {
        if nodes.iter().any(|node| fits(node, &self.template)) {
            self.misses = 0;
            if self.gate.swap(false, Ordering::Relaxed) {
                log::info!("a node of the cluster fits `{}`: it claims tasks again", self.name);
            }
            return;
        }
        self.misses = self.misses.saturating_add(1);
        if self.misses >= threshold && !self.gate.swap(true, Ordering::Relaxed) {
            log::warn!(
                "none of the {} nodes of the cluster fits `{}` (its `nodeName`, `nodeSelector` and node affinity): it claims nothing until one does",
                nodes.len(),
                self.name
            );
        }
    }
}

/// Looks once. What cannot be asked changes nothing.
pub(super) fn once(kube: &Kube, checker: Checker, classes: &mut [WatchedClass]) {
    match kube.nodes() {
        Ok(nodes) => classes.iter_mut().for_each(|class| class.look(&nodes, checker.threshold)),
        Err(fault) => log::warn!("cannot look at the nodes of the cluster: {fault}"),
    }
}

/// Looks again and again, until the runner stops.
pub(super) fn forever(kube: &Kube, checker: Checker, mut classes: Vec<WatchedClass>, stopping: &AtomicBool) {
    while !stopping.load(Ordering::Relaxed) {
        let until = Instant::now() + checker.interval;
        while !stopping.load(Ordering::Relaxed) && Instant::now() < until {
            std::thread::sleep(checker.interval.min(Duration::from_millis(200)));
        }
        once(kube, checker, &mut classes);
    }
}

/// Whether the labels and the name of a node are what a pod template asks for.
fn fits(node: &Node, template: &Value) -> bool {
    let spec = &template["spec"];
    let labels = &node.metadata.labels;
    let named = spec["nodeName"].as_str().filter(|name| !name.is_empty());
    if named.is_some_and(|name| name != node.metadata.name) {
        return false;
    }
    let mut selector = spec["nodeSelector"].as_object().into_iter().flatten();
    if !selector.all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str()) {
        return false;
    }
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let Some(terms) = required["nodeSelectorTerms"].as_array() else { return true };
    terms.iter().any(|term| {
        term["matchExpressions"].as_array().into_iter().flatten().all(|expression| holds(expression, labels))
    })
}

/// Whether an expression of an affinity holds for labels. An operator of a later Kubernetes keeps nobody from claiming.
fn holds(expression: &Value, labels: &BTreeMap<String, String>) -> bool {
    let label = expression["key"].as_str().and_then(|key| labels.get(key));
    let values = || expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let is_among = label.is_some_and(|label| values().any(|value| value == label));
    let number = |text: &str| text.parse::<i64>().ok();
    let both = label.and_then(|label| number(label)).zip(values().next().and_then(number));
    match expression["operator"].as_str().unwrap_or_default() {
        "In" => is_among,
        "NotIn" => !is_among,
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        "Gt" => both.is_some_and(|(label, value)| label > value),
        "Lt" => both.is_some_and(|(label, value)| label < value),
        _ => true,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, labels: Value) -> Node {
        serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap()
    }

    #[test]
    fn names_selectors_and_expressions_choose_nodes() {
        let node = node("n1", json!({ "kubernetes.io/arch": "s390x", "cores": "8", "pool": "ci" }));
        let affinity = |terms: Value| {
            json!({ "affinity": { "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } } })
        };
        let term = |key: &str, operator: &str, values: &[&str]| json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
        for (spec, wanted) in [
            (json!({}), true),
            (json!({ "nodeName": "n1" }), true),
            (json!({ "nodeName": "n2" }), false),
            (json!({ "nodeSelector": { "kubernetes.io/arch": "s390x", "pool": "ci" } }), true),
            (json!({ "nodeSelector": { "kubernetes.io/arch": "amd64" } }), false),
            (json!({ "nodeSelector": { "gpu": "yes" } }), false),
            (affinity(json!([term("pool", "In", &["x", "ci"])])), true),
            (affinity(json!([term("pool", "NotIn", &["x", "ci"])])), false),
            (affinity(json!([term("gpu", "NotIn", &["x"])])), true),
            (affinity(json!([term("gpu", "Exists", &[])])), false),
            (affinity(json!([term("gpu", "DoesNotExist", &[])])), true),
            (affinity(json!([term("cores", "Gt", &["4"])])), true),
            (affinity(json!([term("cores", "Lt", &["8"])])), false),
            (affinity(json!([term("pool", "Gt", &["4"])])), false),
            // A single term that fits is enough.
            (affinity(json!([term("gpu", "Exists", &[]), term("pool", "Exists", &[])])), true),
            (
                affinity(
                    json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["x"] }] }]),
                ),
                true,
            ),
        ] {
            assert_eq!(fits(&node, &json!({ "spec": spec })), wanted, "{spec}");
        }
    }

    #[test]
    fn a_class_closes_after_misses_in_a_row_and_opens_at_once() {
        let gate = Arc::new(AtomicBool::new(false));
        let template = json!({ "spec": { "nodeSelector": { "kubernetes.io/arch": "amd64" } } });
        let mut watched =
            WatchedClass { name: "a/b".to_owned(), template, misses: 0, gate: Arc::clone(&gate) };
        let none = [node("a", json!({ "kubernetes.io/arch": "s390x" }))];
        let some = [node("b", json!({ "kubernetes.io/arch": "amd64" }))];
        let is_closed = || gate.load(Ordering::Relaxed);
        watched.look(&none, 3);
        watched.look(&none, 3);
        watched.look(&some, 3);
        watched.look(&none, 3);
        watched.look(&none, 3);
        assert!(!is_closed());
        watched.look(&none, 3);
        assert!(is_closed());
        watched.look(&[], 3);
        watched.look(&some, 3);
        assert!(!is_closed());
    }
}
