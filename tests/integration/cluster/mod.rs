//! A fake Kubernetes cluster: an API server (real HTTP and TLS, answers by rules of its own) and a kubelet that starts the
//! containers of pods as processes of this host. Images are names only: each container needs a command or is a sleeper.

mod api;
mod http;
mod kubelet;
mod options;
mod select;
mod store;
mod valid;

pub(crate) use http::{Asked, Body, Reply, Watch};
pub(crate) use store::Knobs;

use crate::support::pki::{Authority, server};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use store::State;

/// The cluster; it ends with the value, and its processes with it.
pub(crate) struct Cluster {
    /// Files of pods, and those of the service account.
    pub(crate) folder: tempfile::TempDir,
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    folder: PathBuf,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The token of the service account of the runner.
pub(crate) const TOKEN: &str = "token-of-the-runner";
/// The token of somebody who may do everything.
pub(crate) const ADMIN: &str = "token-of-an-administrator";
/// The user that it is.
pub(crate) const USER: &str = "system:serviceaccount:ci:runlet-agent";

impl Cluster {
    /// With a kubelet that starts processes.
    pub(crate) fn start() -> Self {
        let cluster = Self::without_kubelet();
        kubelet::start(&cluster.shared);
        cluster
    }

    /// With roots of their own for the containers, where this host allows that.
    pub(crate) fn with_private_roots() -> Option<Self> {
        let cluster = kubelet::has_private_roots().then(Self::start)?;
        cluster.knobs(|knobs| knobs.private_roots = true);
        Some(cluster)
    }

    /// Pods stay as they are until the test says what became of them.
    pub(crate) fn without_kubelet() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let account = folder.path().join("account");
        std::fs::create_dir(&account).unwrap();
        let authority = Authority::new("the cluster");
        let tls = server(&authority.issue("127.0.0.1", |_| {}), None);
        for (name, text) in [("ca.crt", authority.pem.as_str()), ("token", TOKEN), ("namespace", "ci\n")] {
            std::fs::write(account.join(name), text).unwrap();
        }
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new()),
            changed: Condvar::new(),
            folder: folder.path().to_owned(),
        });
        let port = http::listen(tls, Arc::clone(&shared));
        Self { folder, port, shared }
    }

    /// Changes how it behaves.
    pub(crate) fn knobs(&self, turn: impl FnOnce(&mut Knobs)) {
        turn(&mut self.shared.lock().knobs);
        self.shared.changed.notify_all();
    }

    /// Objects of a kind (`pods`, `secrets`), by name.
    pub(crate) fn objects(&self, kind: &str) -> Vec<Value> {
        self.shared.lock().all(kind)
    }

    /// Puts an object there, as another client would.
    pub(crate) fn put(&self, kind: &str, object: Value) {
        self.shared.lock().insert(kind, object);
        self.shared.changed.notify_all();
    }

    /// The version of the newest change.
    pub(crate) fn version(&self) -> u64 {
        self.shared.lock().version()
    }

    /// Replaces an object, as another client would.
    pub(crate) fn replace(&self, kind: &str, name: &str, object: &Value) {
        self.shared.lock().change(kind, name, |there| {
            for part in ["labels", "annotations"] {
                there["metadata"][part] = object["metadata"][part].clone();
            }
            for part in ["spec", "status"] {
                there[part] = object[part].clone();
            }
        });
        self.shared.changed.notify_all();
    }

    /// Lines that a watch is told of changes that have happened already.
    pub(crate) fn told(&self, watch: &Watch) -> Vec<Value> {
        self.shared.lock().changes(watch, watch.from).0
    }

    /// Changes the status of a pod, as a kubelet does.
    pub(crate) fn set_status(&self, pod: &str, status: Value) {
        self.shared.lock().change("pods", pod, |pod| pod["status"] = status);
        self.shared.changed.notify_all();
    }

    /// Removes a pod without asking anybody.
    pub(crate) fn vanish(&self, pod: &str) {
        self.shared.lock().remove("pods", pod);
        self.shared.changed.notify_all();
    }

    /// Ends a pod as a node does that is short of something: its processes are killed, and the object stays.
    pub(crate) fn evict(&self, pod: &Value) {
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        self.shared.lock().evicted.insert(uid);
        self.shared.changed.notify_all();
    }

    /// Calls so far, as `METHOD path-without-query`.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.shared.lock().calls.clone()
    }

    /// Answers a request as this cluster does, without any connection.
    pub(crate) fn answer(&self, asked: &Asked) -> Reply {
        api::answer(&self.shared, asked)
    }

    /// Forgets the history: whoever watches from an older version lists anew.
    pub(crate) fn compact(&self) {
        self.shared.lock().compact();
        self.shared.changed.notify_all();
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        self.shared.lock().cuts += 1;
        self.shared.changed.notify_all();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.over = true;
        state.processes.iter().for_each(|pid| {
            kubelet::end_all(*pid);
        });
        drop(state);
        self.shared.changed.notify_all();
    }
}
