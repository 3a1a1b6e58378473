//! Objects with one counter of versions, and the history that watches read.

use super::http::Watch;
use super::select;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, SystemTime};

/// How the cluster behaves.
#[derive(Debug, Default)]
pub(crate) struct Knobs {
    /// The token that is taken; another than [`super::TOKEN`] after a rotation.
    pub(crate) token: Option<String>,
    /// Answers to the next calls whose `METHOD path` contains the text, in this order: status, body, `Retry-After`. A
    /// status of 0 cuts the connection; one of 1 does what is asked and then cuts it.
    pub(crate) next: Vec<(String, u16, String, Option<u32>)>,
    /// Verbs that are not granted, as `create pods`.
    pub(crate) denied: Vec<String>,
    /// Most pods that a quota allows.
    pub(crate) quota: Option<usize>,
    /// All calls are answered with 503.
    pub(crate) away: bool,
    /// The namespace is being deleted: nothing new is taken.
    pub(crate) is_terminating: bool,
    /// The first init container installs the program, and the pods after it get links to that: a build for tests is large.
    pub(crate) installs_once: bool,
    /// Containers run in roots of their own with nothing in them but the shared folder, as `FROM scratch` gives them.
    pub(crate) private_roots: bool,
}

/// The state of the cluster.
pub(super) struct State {
    version: u64,
    compacted: u64,
    objects: BTreeMap<(String, String), Value>,
    history: Vec<Change>,
    uids: u64,
    pub(super) knobs: Knobs,
    pub(super) calls: Vec<String>,
    pub(super) cuts: u64,
    pub(super) over: bool,
    /// Groups of the processes of pods.
    pub(super) processes: Vec<rustix::process::Pid>,
    /// Pods that the kubelet looks after, by uid, with whether they are to end.
    pub(super) running: HashMap<String, bool>,
    /// Pods that their node has ended for want of something, by uid.
    pub(super) evicted: HashSet<String>,
}

struct Change {
    version: u64,
    kind: String,
    before: Option<Value>,
    after: Option<Value>,
}

/// Now, as the API server writes it.
pub(super) fn now() -> String {
    later(0)
}

/// A time from now, in seconds.
pub(super) fn later(seconds: u64) -> String {
    let time = SystemTime::now() + Duration::from_secs(seconds);
    runlet::system::clock::Rfc3339 { time, milliseconds: false }.to_string()
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            version: 100,
            compacted: 0,
            objects: BTreeMap::new(),
            history: Vec::new(),
            uids: 0,
            knobs: Knobs::default(),
            calls: Vec::new(),
            cuts: 0,
            over: false,
            processes: Vec::new(),
            running: HashMap::new(),
            evicted: HashSet::new(),
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn get(&self, kind: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(kind.to_owned(), name.to_owned()))
    }

    pub(super) fn all(&self, kind: &str) -> Vec<Value> {
        self.objects
            .iter()
            .filter(|((known, _), _)| known == kind)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Stores a new object; returns it as it is stored.
    pub(super) fn insert(&mut self, kind: &str, mut object: Value) -> Value {
        self.uids += 1;
        self.version += 1;
        let metadata = &mut object["metadata"];
        metadata["namespace"] = json!("ci");
        metadata["uid"] = json!(format!("00000000-0000-4000-8000-{:012}", self.uids));
        metadata["resourceVersion"] = json!(self.version.to_string());
        metadata["creationTimestamp"] = json!(now());
        if kind == "pods" {
            metadata["generation"] = json!(1);
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.note(kind, None, Some(object.clone()));
        self.objects.insert((kind.to_owned(), name), object.clone());
        object
    }

    /// Changes an object, if it is there.
    pub(super) fn change(
        &mut self,
        kind: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Option<Value> {
        let key = (kind.to_owned(), name.to_owned());
        let before = self.objects.get(&key)?.clone();
        let mut after = before.clone();
        change(&mut after);
        self.version += 1;
        after["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.note(kind, Some(before), Some(after.clone()));
        self.objects.insert(key, after.clone());
        Some(after)
    }

    pub(super) fn remove(&mut self, kind: &str, name: &str) -> Option<Value> {
        let mut object = self.objects.remove(&(kind.to_owned(), name.to_owned()))?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.note(kind, Some(object.clone()), None);
        Some(object)
    }

    fn note(&mut self, kind: &str, before: Option<Value>, after: Option<Value>) {
        self.history.push(Change { version: self.version, kind: kind.to_owned(), before, after });
    }

    pub(super) fn compact(&mut self) {
        self.version += 1;
        self.compacted = self.version;
        self.history.clear();
    }

    /// Lines of a watch after a version, and the version to go on from.
    pub(super) fn changes(&self, watch: &Watch, from: u64) -> (Vec<Value>, u64) {
        if from < self.compacted {
            let message = format!("too old resource version: {from} ({})", self.compacted);
            let object = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                "reason": "Expired", "code": 410 });
            return (vec![json!({ "type": "ERROR", "object": object })], from);
        }
        let fits = |object: &Option<Value>| {
            object.as_ref().is_some_and(|object| {
                select::has_labels(object, &watch.labels).unwrap_or(false)
                    && select::has_fields(&watch.kind, object, &watch.fields).unwrap_or(false)
            })
        };
        let new = self.history.iter().filter(|change| change.version > from && change.kind == watch.kind);
        let lines = new.filter_map(|change| {
            let (word, object) = match (fits(&change.before), fits(&change.after)) {
                (false, true) => ("ADDED", change.after.clone()?),
                (true, true) => ("MODIFIED", change.after.clone()?),
                (true, false) => {
                    let mut last = change.before.clone()?;
                    last["metadata"]["resourceVersion"] = json!(change.version.to_string());
                    ("DELETED", last)
                }
                (false, false) => return None,
            };
            Some(json!({ "type": word, "object": kinded(&watch.kind, object) }))
        });
        (lines.collect(), self.version)
    }

    pub(super) fn bookmark(&self, kind: &str) -> Value {
        let object = json!({ "metadata": { "resourceVersion": self.version.to_string() }, "spec": { "containers": null }, "status": {} });
        json!({ "type": "BOOKMARK", "object": kinded(kind, object) })
    }
}

/// The word of a kind in objects.
pub(super) fn word(kind: &str) -> &'static str {
    match kind {
        "pods" => "Pod",
        "secrets" => "Secret",
        "events" => "Event",
        _ => "Node",
    }
}

/// An object that stands alone says what it is.
pub(super) fn kinded(kind: &str, mut object: Value) -> Value {
    object["kind"] = json!(word(kind));
    object["apiVersion"] = json!("v1");
    object
}
