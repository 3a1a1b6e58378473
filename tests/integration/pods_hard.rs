//! Images with nothing in them, clusters without a fitting node, namespaces that go, classes that let pods wait for long.

use crate::claims::{job, messages};
use crate::cluster::Cluster;
use crate::container::{Agent, a_pod, command, empty, start, until};
use crate::support::poll;
use serde_json::{Value, json};
use std::process::Stdio;

const CONFIG: &str = "version: 2.1
jobs:
  build:
    docker: [{image: 'scratch:1'}]
    resource_class: a/b
    steps: [{store_artifacts: {path: /etc/hostname}}, {run: 'true'}]
workflows: {w: {jobs: [build]}}
";

#[test]
fn an_image_with_nothing_in_it_runs_what_needs_no_shell_and_says_what_is_missing() {
    let (server, token) = start();
    let Some(cluster) = Cluster::with_private_roots() else {
        eprintln!("this host gives no namespaces to its users: not tried");
        return;
    };
    let _agent = Agent::start_as(&server, &cluster, &token, "agent-1", &[]);
    // Of all programs only that of the task is there.
    let alone = CONFIG
        .replace(", {run: 'true'}", "")
        .replace("steps:", "shell: /opt/circleci/bin/runlet\n    steps:");
    let pipeline = server.trigger(&alone);
    until(&server, &pipeline, "success");
    let number = job(&server, &pipeline)["job_number"].clone();
    let artifacts = server.call("GET", &format!("/api/v2/project/gh/acme/hello/{number}/artifacts"), None);
    assert_eq!(artifacts["items"].as_array().map(Vec::len), Some(1), "{artifacts}");
    let pipeline = server.trigger(CONFIG);
    server.ended(&pipeline);
    let said = messages(&server, &job(&server, &pipeline));
    assert!(said.contains("there is no shell on this host"), "{said}");
    empty(&cluster);
}

#[test]
fn a_class_that_no_node_fits_claims_nothing_until_one_does() {
    let (server, token) = start();
    let cluster = Cluster::without_kubelet();
    let node = |name: &str, arch: &str| {
        let labels = json!({ "kubernetes.io/arch": arch });
        cluster.put("nodes", json!({ "metadata": { "name": name, "labels": labels } }));
    };
    node("a", "amd64");
    let class = format!("{{token: {token}, spec: {{nodeSelector: {{kubernetes.io/arch: s390x}}}}}}");
    let mut command = command(&server, &cluster, &class, "agent-1");
    command.env("CHECK_ENABLED", "true").env("CHECK_THRESHOLD", "1").env("CHECK_INTERVAL", "50ms");
    let _agent = Agent(command.stdout(Stdio::null()).spawn().unwrap());
    let pipeline = server.trigger(CONFIG);
    let looks = || cluster.calls().iter().filter(|call| *call == "GET /api/v1/nodes").count();
    poll("looks at the nodes", || if looks() > 5 { Ok(()) } else { Err(looks().to_string()) });
    assert!(cluster.objects("pods").is_empty());
    assert_eq!(job(&server, &pipeline)["started_at"], Value::Null);
    node("b", "s390x");
    a_pod(&cluster);
    crate::claims::cancel(&server, &pipeline);
    until(&server, &pipeline, "canceled");
    empty(&cluster);
}

#[test]
fn a_namespace_that_goes_costs_no_task_its_life() {
    let (server, token) = start();
    let cluster = Cluster::without_kubelet();
    cluster.knobs(|knobs| knobs.is_terminating = true);
    let _agent = Agent::start_as(&server, &cluster, &token, "agent-1", &[]);
    let pipeline = server.trigger(CONFIG);
    // The task is given back, for want of a host: an agent of another namespace may have it.
    let database = server.database();
    poll("the task to come back", || {
        let count = |row: &rusqlite::Row<'_>| row.get::<_, u32>(0);
        match database.query_row("SELECT sum(host_unclaims) FROM tasks", [], count).unwrap() {
            0 => Err("0".to_owned()),
            _ => Ok(()),
        }
    });
    assert_eq!(job(&server, &pipeline)["stopped_at"], Value::Null);
    empty(&cluster);
}

#[test]
fn a_class_may_let_its_pods_wait_for_long() {
    let (server, token) = start();
    server.admin_fails(&["resource-class", "set-begin", "a/b", "1s"], 4, "a number from 60");
    let said = server.admin(&["resource-class", "set-begin", "a/b", "2h"], "");
    assert!(
        said.starts_with("a task of a/b goes back to its queue when it has not begun 2h after its claim"),
        "{said}"
    );
    let classes = server.call("GET", "/api/v3/runner/resource", None);
    assert_eq!(classes["items"][0]["begin_limit_seconds"], 7200, "{classes}");
    let cluster = Cluster::without_kubelet();
    let _agent = Agent::start_as(&server, &cluster, &token, "agent-1", &[("MAX_RUN_TIME", "1h")]);
    let pipeline = server.trigger(CONFIG);
    let pod = a_pod(&cluster);
    // The longest wait, the longest task, and what a task takes to stop.
    assert_eq!(pod["spec"]["activeDeadlineSeconds"], 7200 + 3600 + 600);
    crate::claims::cancel(&server, &pipeline);
    until(&server, &pipeline, "canceled");
    // The default is set again.
    server.admin(&["resource-class", "set-begin", "a/b"], "");
    let classes = server.call("GET", "/api/v3/runner/resource", None);
    assert_eq!(classes["items"][0]["begin_limit_seconds"], Value::Null, "{classes}");
}
