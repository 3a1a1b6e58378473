//! Calls to the API server: the token of the service account, which changes under way, and repetition of what passes.

use super::fault::ClusterFault;
use super::objects::{Event, List, Node, Pod, Secret};
use crate::container::settings::Cluster;
use crate::http::{self, Client, Endpoint, Exchange, encoded, retry};
use crate::logging::record;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest time of a call other than a watch or a log.
const SHORT: Duration = Duration::from_secs(30);
/// The token file is read again after this long.
const TOKEN_AGE: Duration = Duration::from_secs(60);
/// Longest answer, in bytes; lists come in pages.
const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// Objects of a page.
const PAGE: usize = 250;
/// Connections that are kept for the next call.
const CONNECTIONS: usize = 8;
/// Series of repetitions: first window, longest, and all together.
const WINDOW: (Duration, Duration, Duration) =
    (Duration::from_millis(200), Duration::from_secs(10), Duration::from_secs(90));

/// The API server, and the account that calls.
pub(in crate::container) struct Kube {
    client: Client,
    namespace: String,
    token_file: PathBuf,
    token: Mutex<(String, Instant)>,
    calls: AtomicU64,
}

impl Kube {
    /// Reads the token and the authorities; calls nobody.
    pub(in crate::container) fn new(cluster: &Cluster) -> Result<Self, ClusterFault> {
        let ca_file = Some(cluster.ca_file.clone()).filter(|file| file.exists());
        let endpoint = Endpoint { url: cluster.url.clone(), ca_file, client_certificate: None };
        let token = read_token(&cluster.token_file)?;
        Ok(Self {
            client: Client::direct(&endpoint, CONNECTIONS)?,
            namespace: cluster.namespace.clone(),
            token_file: cluster.token_file.clone(),
            token: Mutex::new((token, Instant::now())),
            calls: AtomicU64::new(0),
        })
    }

    /// Calls that were made.
    pub(in crate::container) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Ends all calls in flight, for good.
    pub(in crate::container) fn close(&self) {
        self.client.close();
    }

    /// The token; read anew when it is old, or when it was just refused.
    fn token(&self, refused: Option<&str>) -> Result<String, ClusterFault> {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if token.1.elapsed() > TOKEN_AGE || refused == Some(token.0.as_str()) {
            *token = (read_token(&self.token_file)?, Instant::now());
        }
        Ok(token.0.clone())
    }

    /// Makes a call and leaves its body to the caller. A refused token is read anew, once.
    pub(super) fn open(
        &self,
        method: &'static str,
        path: &str,
        body: &[u8],
        timeout: Duration,
    ) -> Result<http::OpenAnswer, ClusterFault> {
        let mut token = self.token(None)?;
        let mut again = true;
        loop {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let mut answer =
                self.client.exchange(&Exchange { method, path, token: &token, body, timeout })?;
            if (200..300).contains(&answer.status) {
                return Ok(answer);
            }
            let mut text = Vec::new();
            // The part of a refusal that was read is enough.
            let _ = (&mut answer.body).take(64 * 1024).read_to_end(&mut text);
            if answer.status == 401 && again {
                again = false;
                token = self.token(Some(&token))?;
                continue;
            }
            let fault = ClusterFault::of(answer.status, answer.retry_after, &text);
            return Err(match fault {
                ClusterFault::Refused { status: 401, reason, retry_after, .. } => ClusterFault::Refused {
                    status: 401,
                    reason,
                    retry_after,
                    message: format!(
                        "the API server does not take the token of the service account, `{}`",
                        self.token_file.display()
                    ),
                },
                fault => fault,
            });
        }
    }

    fn once<T: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        body: &[u8],
    ) -> Result<T, ClusterFault> {
        let answer = self.open(method, path, body, SHORT)?;
        let mut text = Vec::new();
        let read = answer.body.take(MOST_BYTES).read_to_end(&mut text);
        read.map_err(|error| {
            ClusterFault::Unanswered(format!("failed to read the answer to {method} `{path}`: {error}"))
        })?;
        serde_json::from_slice(&text).map_err(|error| {
            ClusterFault::Unanswered(format!(
                "the answer to {method} `{path}` is not what an API server says: {error}"
            ))
        })
    }

    /// A call that is made once. It may be repeated: names are chosen by us, and what is deleted is named by its uid.
    fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, ClusterFault> {
        self.once(method, path, body.map(Value::to_string).unwrap_or_default().as_bytes())
    }

    /// A call that is repeated while its fault passes, for callers that may wait.
    fn patiently<T: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, ClusterFault> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let started = Instant::now();
        let mut window = WINDOW.0;
        loop {
            let fault = match self.once(method, path, body.as_bytes()) {
                Err(fault) if fault.is_passing() && started.elapsed() < WINDOW.2 => fault,
                answer => return answer,
            };
            let wait =
                window.mul_f64(retry::random()).max(fault.retry_after().unwrap_or_default().min(WINDOW.1));
            record!(Debug; "{method} `{path}`: {fault}; trying again in {} ms", wait.as_millis());
            std::thread::sleep(wait);
            window = (window * 2).min(WINDOW.1);
        }
    }

    fn path(&self, kind: &str, name: &str) -> String {
        let slash = if name.is_empty() { "" } else { "/" };
        format!("/api/v1/namespaces/{}/{kind}{slash}{name}", self.namespace)
    }

    /// All objects that a query selects, page by page; from the beginning where a page has expired.
    fn list<T: DeserializeOwned>(&self, path: &str, query: &str) -> Result<List<T>, ClusterFault> {
        let mut all = List::default();
        loop {
            let next = match all.metadata.next.as_str() {
                "" => String::new(),
                next => format!("&continue={next}"),
            };
            let page: List<T> =
                match self.patiently("GET", &format!("{path}?limit={PAGE}{query}{next}"), None) {
                    Err(fault) if fault.status() == Some(410) && !all.items.is_empty() => {
                        all = List::default();
                        continue;
                    }
                    page => page?,
                };
            all.metadata = page.metadata;
            all.items.extend(page.items);
            if all.metadata.next.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Creates a pod.
    pub(in crate::container) fn create_pod(&self, pod: &Value) -> Result<Pod, ClusterFault> {
        self.call("POST", &self.path("pods", ""), Some(pod))
    }

    /// Creates a secret.
    pub(in crate::container) fn create_secret(&self, secret: &Value) -> Result<Secret, ClusterFault> {
        self.call("POST", &self.path("secrets", ""), Some(secret))
    }

    /// A pod by its name.
    pub(in crate::container) fn pod(&self, name: &str) -> Result<Pod, ClusterFault> {
        self.patiently("GET", &self.path("pods", name), None)
    }

    /// A secret by its name.
    pub(in crate::container) fn secret(&self, name: &str) -> Result<Secret, ClusterFault> {
        self.patiently("GET", &self.path("secrets", name), None)
    }

    /// Pods with a label.
    pub(in crate::container) fn pods(&self, label: &str) -> Result<List<Pod>, ClusterFault> {
        self.list(&self.path("pods", ""), &format!("&labelSelector={}", encoded(label)))
    }

    /// Secrets with a label.
    pub(in crate::container) fn secrets(&self, label: &str) -> Result<List<Secret>, ClusterFault> {
        self.list(&self.path("secrets", ""), &format!("&labelSelector={}", encoded(label)))
    }

    /// All nodes of the cluster.
    pub(in crate::container) fn nodes(&self) -> Result<Vec<Node>, ClusterFault> {
        self.list("/api/v1/nodes", "").map(|list| list.items)
    }

    /// Events about an object.
    pub(in crate::container) fn events(&self, uid: &str) -> Result<List<Event>, ClusterFault> {
        self.list(
            &self.path("events", ""),
            &format!("&fieldSelector={}", encoded(&format!("involvedObject.uid={uid}"))),
        )
    }

    /// Deletes a pod, if it is still this one. `now` does not wait for its node.
    pub(in crate::container) fn delete_pod(
        &self,
        name: &str,
        uid: &str,
        now: bool,
    ) -> Result<(), ClusterFault> {
        let mut options = json!({ "kind": "DeleteOptions", "apiVersion": "v1" });
        if !uid.is_empty() {
            options["preconditions"] = json!({ "uid": uid });
        }
        if now {
            options["gracePeriodSeconds"] = json!(0);
        }
        gone(self.call("DELETE", &self.path("pods", name), Some(&options)))
    }

    /// Deletes a secret.
    pub(in crate::container) fn delete_secret(&self, name: &str) -> Result<(), ClusterFault> {
        gone(self.call("DELETE", &self.path("secrets", name), None))
    }

    /// The log of a container from its beginning, or from a time (RFC 3339), as it comes.
    pub(in crate::container) fn follow(
        &self,
        pod: &str,
        container: &str,
        since: Option<&str>,
        timeout: Duration,
    ) -> Result<Box<dyn Read + Send>, ClusterFault> {
        let since = since.map_or_else(String::new, |since| format!("&sinceTime={}", encoded(since)));
        let query = format!("container={container}&follow=true&timestamps=true{since}");
        let path = format!("{}/log?{query}", self.path("pods", pod));
        self.open("GET", &path, b"", timeout).map(|answer| answer.body)
    }

    /// Opens a watch over pods with a label, from a version on.
    pub(super) fn open_watch(
        &self,
        label: &str,
        version: &str,
        seconds: u64,
    ) -> Result<Box<dyn Read + Send>, ClusterFault> {
        let path = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}&labelSelector={}",
            self.path("pods", ""),
            encoded(label)
        );
        // A connection that has died without a word is noticed by this.
        let timeout = Duration::from_secs(seconds + 15);
        self.open("GET", &path, b"", timeout).map(|answer| answer.body)
    }

    /// Asks whether this account may do something in the namespace; the error says why that is not known.
    pub(in crate::container) fn may(&self, verb: &str, resource: &str) -> Result<bool, ClusterFault> {
        self.review(verb, resource, &self.namespace)
    }

    /// Asks whether this account may do something outside of all namespaces.
    pub(in crate::container) fn may_in_cluster(
        &self,
        verb: &str,
        resource: &str,
    ) -> Result<bool, ClusterFault> {
        self.review(verb, resource, "")
    }

    fn review(&self, verb: &str, resource: &str, namespace: &str) -> Result<bool, ClusterFault> {
        let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
        let attributes =
            json!({ "verb": verb, "resource": resource, "subresource": sub, "namespace": namespace });
        let review = json!({ "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
            "spec": { "resourceAttributes": attributes } });
        let answer: Value =
            self.patiently("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", Some(&review))?;
        Ok(answer["status"]["allowed"].as_bool() == Some(true))
    }
}

/// Takes an object that is gone already, or is another one by now, for deleted.
fn gone(answer: Result<Value, ClusterFault>) -> Result<(), ClusterFault> {
    match answer {
        Err(fault) if fault.is_missing() || fault.status() == Some(409) => Ok(()),
        answer => answer.map(drop),
    }
}

fn read_token(file: &std::path::Path) -> Result<String, ClusterFault> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        ClusterFault::Setup(format!(
            "the token of the service account, `{}`, cannot be read: {error}",
            file.display()
        ))
    })?;
    Ok(text.trim().to_owned())
}
