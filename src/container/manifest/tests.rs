//! Objects that are created of a task, and tasks that nothing can be made of.
#![expect(clippy::unwrap_used, reason = "a test that cannot read what it has written should fail loudly")]

use super::*;
use crate::container::services::ServiceRules;
use crate::container::settings::Cluster;
use crate::http::Endpoint;
use crate::logging::{self, Format};
use crate::protocol::ResourceClass;

fn settings() -> ContainerSettings {
    ContainerSettings {
        name: "pods".to_owned(),
        endpoint: Endpoint { url: "https://ci".to_owned(), ca_file: None, client_certificate: None },
        classes: Vec::new(),
        services: ServiceRules::default(),
        max_concurrent_tasks: 1,
        max_run_time: Duration::from_secs(3600),
        gc: None,
        checker: None,
        cluster: Cluster {
            url: "https://kubernetes".to_owned(),
            namespace: "ci".to_owned(),
            ca_file: PathBuf::new(),
            token_file: PathBuf::new(),
            token_secrets: Vec::new(),
        },
        instance: "agent-1".to_owned(),
        init_image: None,
        init_resources: json!({}),
        keeps_pods: false,
        proxy: Vec::new(),
        logging: logging::LogOptions { level: log::LevelFilter::Info, format: Format::Text, file: None },
        health: None,
        warnings: Vec::new(),
    }
}

fn class(template: Value) -> ClassSettings {
    let name = ResourceClass::new("a/b").unwrap();
    ClassSettings { name, token: None, template, services: ServiceRules::default() }
}

fn task(more: Value) -> ClaimedTask {
    let mut task = json!({ "id": "task-1", "token": "t", "allocation": "allocation-1", "job_name": "build", "job_url": "https://ci/1",
        "lease_seconds": 60, "containers": [{ "image": "cimg/base:1" }, { "image": "redis:7", "name": "cache" }] });
    task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(task).unwrap()
}

fn made(template: Value, more: Value) -> TaskObjects {
    objects(&settings(), &class(template), "runlet:1", &task(more), None).unwrap()
}

#[test]
fn names_of_any_length_fit_everywhere() {
    let long = "x".repeat(200);
    let images = json!([
        { "image": "cimg/base:1" },
        { "image": "a", "name": "n".repeat(63) },
        { "image": "b", "name": "n".repeat(64) },
        { "image": "c", "name": "not_a_host" }
    ]);
    let built_in = json!({ "CIRCLE_BRANCH": "feat/\u{e4} b", "CIRCLE_PROJECT_REPONAME": long });
    let more = json!({ "id": "x".repeat(64), "allocation": long, "job_name": long, "containers": images, "built_in": built_in });
    let made = made(json!({}), more);
    assert!(made.name.len() <= 63 && login_name(&made.name).len() <= 63, "{}", made.name);
    // Labels take 63 letters of an alphabet; what people write goes into annotations.
    let labels = made.pod["metadata"]["labels"].as_object().unwrap();
    assert_eq!(labels.len(), 1, "{labels:?}");
    let annotations = &made.pod["metadata"]["annotations"];
    assert_eq!(annotations["runlet.dev/job"], long);
    assert_eq!(annotations["runlet.dev/branch"], "feat/\u{e4} b");
    // A name that is none of a host is left out: a cluster would refuse the whole pod for it.
    assert_eq!(made.pod["spec"]["hostAliases"][0]["hostnames"], json!(["n".repeat(63)]));
}

#[test]
fn a_secret_that_a_cluster_would_not_take_is_not_sent() {
    let ca = "x".repeat(MOST_SECRET_BYTES);
    let why = objects(&settings(), &class(json!({})), "runlet:1", &task(json!({})), Some(&ca)).unwrap_err();
    assert!(why.contains("a cluster takes 1048576: shorten the entry point"), "{why}");
    let none = objects(&settings(), &class(json!({})), "runlet:1", &task(json!({ "containers": [] })), None);
    assert_eq!(none.unwrap_err(), "the task names no container");
}

#[test]
fn the_node_makes_an_end_after_the_longest_wait_and_the_longest_task() {
    let deadline = |more| made(json!({}), more).pod["spec"]["activeDeadlineSeconds"].as_u64().unwrap();
    assert_eq!(deadline(json!({})), 3600 + 600 + 600);
    assert_eq!(deadline(json!({ "begin_seconds": 600 })), 3600 + 600 + 600);
    assert_eq!(deadline(json!({ "begin_seconds": 7200 })), 3600 + 7200 + 600);
    let own = made(json!({ "spec": { "activeDeadlineSeconds": 60 } }), json!({}));
    assert_eq!(own.pod["spec"]["activeDeadlineSeconds"], 60);
}

#[test]
fn a_restricted_namespace_takes_the_pod_where_its_template_says_so() {
    let security = json!({ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } });
    let template = json!({ "spec": {
        "securityContext": { "runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{ "securityContext": security }]
    } });
    let images = json!([{ "image": "cimg/base:1", "user": "1001:7" }, { "image": "redis:7" }]);
    let made = made(template, json!({ "containers": images }));
    let spec = &made.pod["spec"];
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    // The user of the config is a number, so it is that of the container and none is looked up.
    assert_eq!(spec["containers"][0]["securityContext"]["runAsUser"], 1001);
    assert_eq!(spec["containers"][0]["securityContext"]["runAsGroup"], 7);
    // Services are like the first container, unless a rule says otherwise.
    assert_eq!(spec["containers"][1]["securityContext"], security);
    let init = &spec["initContainers"][0]["securityContext"];
    assert_eq!(init, &security, "the init container is under the same policy");
}

/// Fields of pods and containers that Kubernetes 1.25 has, of those that the runner sets itself.
const OLD: [&str; 27] = [
    "activeDeadlineSeconds",
    "automountServiceAccountToken",
    "containers",
    "enableServiceLinks",
    "hostAliases",
    "initContainers",
    "imagePullSecrets",
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "volumes",
    "args",
    "command",
    "env",
    "image",
    "lifecycle",
    "name",
    "resources",
    "securityContext",
    "terminationMessagePolicy",
    "volumeMounts",
    "livenessProbe",
    "value",
    "valueFrom",
    "secretKeyRef",
    "key",
    "mountPath",
    "emptyDir",
];

#[test]
fn the_runner_itself_sets_nothing_that_an_old_cluster_does_not_know() {
    let made = made(json!({}), json!({}));
    let containers = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| made.pod["spec"][list].as_array().unwrap().iter());
    let all = containers.chain([&made.pod["spec"]]).flat_map(|value| value.as_object().unwrap().keys());
    let unknown: Vec<_> = all.filter(|key| !OLD.contains(&key.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
