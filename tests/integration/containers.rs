//! Tasks for containers over the real API, with a runner that the test plays itself.

use crate::claims::{Played, call, job, messages};
use crate::faults::Rogue;
use crate::server::Server;
use runlet::protocol::{FIRST_BESIDE, Secret};
use serde_json::{Value, json};

pub(crate) const CONFIG: &str = "version: 2.1
jobs:
  build:
    docker:
      - image: cimg/base:1
        user: circleci
        environment: {A: '1'}
        auth: {username: me, password: $PULL}
      - {image: redis:7, name: cache, command: redis-server --port 1, entrypoint: [/init]}
    resource_class: a/b
    steps: [{run: 'true'}]
workflows: {w: {jobs: [build]}}
";

/// A claim of a runner that starts containers.
pub(crate) fn claim(server: &Server, rogue: &Rogue, nonce: &str, takes: &[&str]) -> (u16, Value) {
    let body = json!({ "name": "pods", "hostname": "h", "version": "0", "os": "linux", "arch": "x86_64",
        "nonce": nonce, "takes": takes });
    let body = body.to_string();
    let (status, _, answer) =
        call(server, "POST", "/api/v3/runner/claim?wait=0", &rogue.class, body.as_bytes());
    (status, answer)
}

fn get(server: &Server, path: &str, token: &str) -> (u16, Value) {
    let (status, _, answer) = call(server, "GET", path, &Secret::new(token), b"");
    (status, answer)
}

#[test]
fn a_job_in_containers_goes_to_a_runner_that_starts_them() {
    let server = Server::start();
    server.project();
    let variable = json!({ "name": "PULL", "value": "pass-word" });
    server.call("POST", "/api/v2/project/gh/acme/hello/envvar", Some(variable));
    let rogue = Rogue::of(&server, "a/b");
    let pipeline = server.trigger(CONFIG);
    assert_eq!(claim(&server, &rogue, "n-1", &["machine"]).0, 204);
    let waiting = messages(&server, &job(&server, &pipeline));
    assert!(waiting.contains("no runner of `a/b` that takes containers was ever seen"), "{waiting}");

    let (status, task) = claim(&server, &rogue, "n-2", &["container"]);
    assert_eq!(status, 200, "{task}");
    let containers = json!([
        { "image": "cimg/base:1", "user": "circleci", "environment": { "A": "1" },
          "login": { "username": "me", "password": "pass-word" } },
        { "image": "redis:7", "name": "cache", "entrypoint": ["/init"], "command": "redis-server --port 1" },
    ]);
    assert_eq!(task["containers"], containers);
    // The agent in the container is told no more than the token, and asks for the rest.
    let (id, token) = (task["id"].as_str().unwrap(), task["token"].as_str().unwrap());
    let path = format!("/api/v3/runner/tasks/{id}");
    let (status, fetched) = get(&server, &path, token);
    let mut told = task.clone();
    told.as_object_mut().unwrap().remove("containers");
    // The time that is left to begin, by now.
    let left =
        |task: &mut Value| task.as_object_mut().unwrap().remove("begin_seconds").unwrap().as_u64().unwrap();
    let mut fetched = fetched;
    assert!(left(&mut fetched) <= left(&mut told));
    assert_eq!((status, &fetched), (200, &told));
    assert_eq!(get(&server, &path, rogue.class.expose()).0, 401);

    // While it runs the runner asks on under its name, and nobody is warned of that.
    rogue.begin(&task);
    let (status, refused) = get(&server, &path, token);
    assert_eq!((status, &refused["code"]), (409, &json!("begun")), "{refused}");
    assert_eq!(claim(&server, &rogue, "n-3", &["container"]).0, 204);
    let said = messages(&server, &job(&server, &pipeline));
    assert!(!said.contains("asks for work while"), "{said}");
}

#[test]
fn a_runner_keeps_records_beside_those_of_the_task_and_they_bind_nothing() {
    let server = Server::start();
    server.project();
    let rogue = Rogue::of(&server, "a/b");
    let pipeline = server.trigger(CONFIG);
    let (_, task) = claim(&server, &rogue, "n-1", &["container"]);
    let (id, token) = (task["id"].as_str().unwrap(), Secret::new(task["token"].as_str().unwrap()));
    let say = |n: u32, more: Value| {
        let mut body = json!({ "name": "Task lifecycle", "kind": "task_lifecycle", "at_ms": 1 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let path = format!("/api/v3/runner/tasks/{id}/beside/{n}");
        call(&server, "POST", &path, &token, body.to_string().as_bytes()).0
    };
    assert_eq!((say(0, json!({})), say(0, json!({})), say(64, json!({}))), (200, 200, 400));
    assert_eq!(say(1, json!({ "name": "x".repeat(5000) })), 200, "it is cut");
    let output = format!("/api/v3/runner/tasks/{id}/steps/{FIRST_BESIDE}/output?offset=0");
    assert_eq!(call(&server, "PATCH", &output, &token, b"pulled\n").0, 200);
    // The task has not begun for all that.
    let back = json!({ "task_id": id, "task_token": token.expose(), "reason": "host", "message": "m" });
    let unclaim = "/api/v3/runner/unclaim";
    let (status, _, answer) = call(&server, "POST", unclaim, &token, back.to_string().as_bytes());
    assert_eq!((status, &answer["outcome"]), (200, &json!("queued")), "{answer}");
    assert_eq!(say(0, json!({})), 409);

    // A record that its runner leaves open ends with the task, in whose success it has no part.
    let (_, task) = claim(&server, &rogue, "n-2", &["container"]);
    let task = Played::of(&server, &rogue, &task);
    let service = json!({ "name": "redis:7", "kind": "service", "at_ms": 1 });
    assert_eq!(task.call("POST", "beside/1", &service).0, 200);
    assert_eq!(task.begin("0123456789abcdef").0, 200);
    let finish = json!({ "status": "success", "events": 0, "steps": [] });
    assert_eq!(task.call("POST", "finish", &finish).0, 200);
    assert_eq!(job(&server, &pipeline)["status"], "success");
    let number = job(&server, &pipeline)["job_number"].as_u64().unwrap();
    let build = server.call("GET", &format!("/api/v1.1/project/gh/acme/hello/{number}"), None);
    let step = &build["steps"][0];
    let shown = (step["name"].as_str(), step["actions"][0]["status"].as_str());
    assert_eq!(shown, (Some("redis:7"), Some("success")), "{build}");
}

#[test]
fn a_login_that_no_container_runner_does_is_refused_by_name() {
    let server = Server::start();
    server.project();
    let pipeline = server.trigger(&CONFIG.replace(
        "auth: {username: me, password: $PULL}",
        "aws_auth: {aws_access_key_id: k, aws_secret_access_key: $S}",
    ));
    let job = job(&server, &pipeline);
    assert_eq!(job["status"], "failed", "{job}");
    let said = messages(&server, &job);
    assert!(said.contains("`cimg/base:1` has `aws_auth`"), "{said}");
}
