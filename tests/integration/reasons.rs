//! Why a job did not run, or waits: the same words in every API and on the terminal.

use crate::faults::Rogue;
use crate::repositories::Work;
use crate::server::Server;
use runlet::http::Body;
use runlet::protocol::Secret;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};

/// A job as each API tells of it: version 1.1, 2 and 3.
fn everywhere(server: &Server, number: i64) -> [Value; 3] {
    let v1 = server.call("GET", &format!("/api/v1.1/project/gh/acme/hello/{number}"), None);
    let v2 = server.call("GET", &format!("/api/v2/project/gh/acme/hello/job/{number}"), None);
    let id = v2["id"].as_str().unwrap();
    let v3 = server.call("GET", &format!("/api/v3/jobs/{id}"), None);
    [v1, v2, v3["data"]["attributes"].clone()]
}

fn assert_told(server: &Server, number: i64, reason: &str) {
    for told in everywhere(server, number) {
        let messages = told["messages"].as_array().unwrap();
        let found = messages.iter().any(|told| told["message"].as_str().unwrap().contains(reason));
        assert!(found, "`{reason}` is not in {told}");
    }
}

/// Jobs of a pipeline by name, as version 2 lists them.
fn job(server: &Server, pipeline: &str, name: &str) -> Value {
    let workflows = server.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
    let path = format!("/api/v2/workflow/{}/job", workflows["items"][0]["id"].as_str().unwrap());
    let jobs = server.call("GET", &path, None);
    jobs["items"].as_array().unwrap().iter().find(|job| job["name"] == name).unwrap().clone()
}

#[test]
fn a_job_that_ends_before_it_is_queued_has_a_number_and_a_reason() {
    let server = Server::start();
    server.project();
    let token = server.class_token("a/b");
    let pipeline = server.trigger(
        "version: 2.1
jobs:
  here: {machine: true, resource_class: a/b, steps: [run: echo here]}
  container: {docker: [{image: 'cimg/go:1.25'}], steps: [run: never]}
  nowhere: {machine: true, resource_class: no/where, steps: [run: never]}
  secret: {machine: true, resource_class: a/b, steps: [run: never]}
  after: {machine: true, resource_class: a/b, steps: [run: never]}
workflows: {w: {jobs: [here, container, nowhere, secret: {context: missing}, after: {requires: [container]}, ask: {type: approval, requires: [after]}]}}
",
    );
    let _runner = server.runner("r", &token);
    let jobs = server.ended(&pipeline);
    let status = |name: &str| jobs.iter().find(|job| job["name"] == name).unwrap()["status"].clone();
    assert_eq!(status("here"), "success");
    for (name, ended, reason) in [
        ("container", "failed", "it wants containers (`cimg/go:1.25`) of the hosted service"),
        ("nowhere", "failed", "there is no such class here"),
        ("secret", "unauthorized", "`missing`"),
        ("after", "not_run", "it requires `success` of `container`, which ended as `failed`"),
    ] {
        assert_eq!(status(name), ended);
        let number = job(&server, &pipeline, name)["job_number"].as_i64().unwrap();
        assert_told(&server, number, reason);
    }
    // Each has a number of its own; an approval has none, and tells why where it is listed.
    let mut numbers: Vec<i64> = jobs.iter().filter_map(|job| job["job_number"].as_i64()).collect();
    numbers.sort();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    let ask = job(&server, &pipeline, "ask");
    assert_eq!(ask["messages"][0]["message"], "it requires `success` of `after`, which ended as `not_run`");
    let told = everywhere(&server, job(&server, &pipeline, "container")["job_number"].as_i64().unwrap());
    assert!(told[0]["fail_reason"].as_str().unwrap().contains("no runner can take this job"));
    assert_eq!(told[1]["executor"]["type"], "docker");
    let table = server.admin(&["pipeline", "show", &pipeline], "");
    let row = |name: &str| table.lines().find(|line| line.contains(&format!(" {name} "))).unwrap();
    assert!(row("container").contains("no runner can take this job: it wants containers"), "{table}");
    assert!(
        row("after").contains("it requires `success` of `container`, which ended as `failed`"),
        "{table}"
    );
}

#[test]
fn a_job_that_is_cancelled_before_it_is_queued_has_a_number() {
    let server = Server::start();
    server.project();
    server.class_token("a/b");
    let pipeline = server.trigger(
        "version: 2.1
jobs:
  one: {machine: true, resource_class: a/b, steps: [run: never]}
workflows:
  first: {jobs: [one: {name: first, serial-group: k}]}
  w: {jobs: [one, one: {name: serial, serial-group: k}, ask: {type: approval}, one: {name: after, requires: [ask]}]}
",
    );
    let workflows = server.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
    let items = workflows["items"].as_array().unwrap();
    let id = items.iter().find(|found| found["name"] == "w").unwrap()["id"].as_str().unwrap();
    server.call("POST", &format!("/api/v2/workflow/{id}/cancel"), None);
    let jobs = server.call("GET", &format!("/api/v2/workflow/{id}/job"), None);
    let jobs = jobs["items"].as_array().unwrap();
    assert_eq!(jobs.len(), 4);
    let mut numbers = Vec::new();
    for job in jobs {
        assert_eq!(job["status"], "canceled", "{job}");
        let Some(number) = job["job_number"].as_i64() else {
            assert_eq!(job["type"], "approval", "{job}");
            continue;
        };
        numbers.push(number);
        let [v1, v2, v3] = everywhere(&server, number);
        assert_eq!(
            (&v1["status"], &v2["status"], &v3["outcome"]),
            (&"canceled".into(), &"canceled".into(), &"canceled".into())
        );
    }
    numbers.sort();
    let builds = server.call("GET", "/api/v1.1/project/gh/acme/hello?filter=completed", None);
    let mut listed: Vec<i64> =
        builds.as_array().unwrap().iter().map(|build| build["build_num"].as_i64().unwrap()).collect();
    listed.sort();
    assert_eq!((numbers.len(), listed), (3, numbers));
}

#[test]
fn no_machine_runner_is_given_a_container_and_a_queued_job_says_why_it_waits() {
    let server = Server::start();
    server.project();
    let rogue = Rogue::of(&server, "a/b");
    let pipeline = server.trigger(
        "version: 2.1
jobs:
  container: {docker: [{image: 'cimg/go:1.25'}], resource_class: a/b, steps: [run: never]}
  first: {machine: true, resource_class: a/b, steps: [run: never]}
  second: {machine: true, resource_class: a/b, steps: [run: never]}
workflows: {w: {jobs: [container, first, second]}}
",
    );
    let number = |name: &str| job(&server, &pipeline, name)["job_number"].as_i64().unwrap();
    assert_told(&server, number("container"), "no runner of `a/b` that takes containers was ever seen");
    assert_told(&server, number("first"), "no runner of `a/b` was ever seen");
    assert_told(&server, number("second"), "2 tasks wait before it");
    let builds = server.call("GET", "/api/v1.1/project/gh/acme/hello?limit=12", None);
    let told = |build: &Value| build["messages"][0]["message"].as_str().map(str::to_owned);
    let told: Vec<_> = builds.as_array().unwrap().iter().map(told).collect();
    assert!(told.len() == 3 && told.iter().all(Option::is_some), "{told:?}");
    server.admin_fails(&["resource-class", "delete", "a/b"], 4, "3 tasks wait for a runner of `a/b`");
    let (status, task) = rogue.claim("one");
    assert_eq!((status, &task["job_name"]), (200, &"first".into()), "the container is not for it");
    assert_told(&server, number("container"), "no runner of `a/b` that takes containers was ever seen");
    assert_told(&server, number("second"), "all runners of `a/b` are busy (1); 1 task waits before it");
    server.admin(&["resource-class", "delete", "a/b", "--force"], "");
    assert_eq!(job(&server, &pipeline, "second")["status"], "failed");
}

#[test]
fn a_job_that_was_given_back_says_why_until_it_runs() {
    let server = Server::start();
    server.project();
    let rogue = Rogue::of(&server, "a/b");
    let pipeline = server.trigger(
        "version: 2.1
jobs: {build: {machine: true, resource_class: a/b, steps: [run: never]}}
workflows: {w: {jobs: [build]}}
",
    );
    let number = job(&server, &pipeline, "build")["job_number"].as_i64().unwrap();
    for (nonce, times, pause) in [("one", "once)", 0), ("two", "2 times; that runner pauses until 20", 300)] {
        let (status, task) = rogue.claim(nonce);
        assert_eq!(status, 200, "{task}");
        let back = json!({
            "task_id": task["id"], "task_token": task["token"], "reason": "host",
            "message": "no shell is here", "pause_seconds": pause,
        });
        let body = back.to_string();
        let token = Secret::new(task["token"].as_str().unwrap());
        let (status, answer) =
            rogue.send("POST", "/api/v3/runner/unclaim", &token, Body::Json(body.as_bytes()));
        assert_eq!(status, 200, "{answer}");
        let told = format!(
            "the runner `rogue` gave it back: no shell is here (it has come back from runners {times}"
        );
        assert_told(&server, number, &told);
        let table = server.admin(&["pipeline", "show", &pipeline], "");
        assert!(table.contains("no shell is here"), "{table}");
    }
    let messages = everywhere(&server, number)[1]["messages"].to_string();
    assert!(!messages.contains("is there: the last one"), "it pauses: {messages}");
    let (status, task) = rogue.claim("three");
    assert_eq!(status, 200, "{task}");
    rogue.begin(&task);
    assert_eq!(everywhere(&server, number)[1]["messages"].as_array().unwrap().len(), 0);
}

/// The exit code and the output of whoever follows a pipeline of this config, beside a runner of the class `a/b`.
fn followed(config: &str) -> (Option<i32>, String) {
    let server = Server::start();
    server.project();
    let _runner = server.runner("r", &server.class_token("a/b"));
    let file = server.folder.path().join("config.yml");
    std::fs::write(&file, config).unwrap();
    let args = ["pipeline", "trigger", "gh/acme/hello", "--config", file.to_str().unwrap(), "--follow"];
    let output = server.admin_output(&args, "");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_pipeline_is_followed_to_its_end() {
    let config = "version: 2.1
jobs: {build: {machine: true, resource_class: a/b, steps: [run: 'seq 1 3', run: printf part, run: {name: second, command: exit 4}]}}
workflows: {w: {jobs: [build]}}
";
    let (code, said) = followed(config);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("build > seq 1 3\nbuild | 1\nbuild | 2\nbuild | 3\nbuild > printf part\nbuild | part\nbuild > second\n"), "{said}");
    assert!(
        said.contains("build > second\nbuild | exited with code 4\nbuild > second: failed with exit code 4"),
        "{said}"
    );
    assert!(said.lines().last().is_some_and(|line| line.starts_with("build: failed")), "{said}");
}

#[test]
fn who_follows_two_workflows_with_a_job_of_one_name_tells_them_apart_from_the_first_line() {
    let config = "version: 2.1
jobs: {build: {machine: true, resource_class: a/b, steps: [run: echo said]}, other: {machine: true, resource_class: a/b, steps: [run: echo said]}}
workflows: {one: {jobs: [build]}, two: {jobs: [build, other]}}
";
    let (code, said) = followed(config);
    assert_eq!(code, Some(0), "{said}");
    for line in ["one/build: success", "two/build: success", "other: success", "one/build | said"] {
        assert!(said.lines().any(|said| said == line), "{line} is missing: {said}");
    }
    assert!(!said.lines().any(|line| line.starts_with("build")), "{said}");
}

#[test]
fn who_follows_a_pipeline_in_which_nothing_runs_is_told_why() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let config = "version: 2.1
jobs: {build: {machine: true, resource_class: a/b, steps: [run: never]}}
workflows: {w: {jobs: [build: {filters: {tags: {ignore: /.*/}}}]}}
";
    work.commit_config(config, "first");
    work.git(&["tag", "v1"]);
    server.register(&work.url());
    let output =
        server.admin_output(&["pipeline", "trigger", "gh/acme/hello", "--tag", "v1", "--follow"], "");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing ran: no workflow of the config applies to the tag `v1` ("), "{said}");
}

#[test]
fn who_follows_a_pipeline_is_told_why_its_jobs_wait() {
    let server = Server::start();
    server.project();
    server.class_token("a/b");
    let file = server.folder.path().join("config.yml");
    let config = "version: 2.1
jobs: {q: {machine: true, resource_class: a/b, steps: [run: never]}}
workflows: {w: {jobs: [q]}}
";
    std::fs::write(&file, config).unwrap();
    let args = ["pipeline", "trigger", "gh/acme/hello", "--config", file.to_str().unwrap(), "--follow"];
    let mut child = server.admin_command(&args).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.starts_with("q: queued")).unwrap();
    assert!(line.contains("no runner of `a/b` was ever seen"), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_pipeline_with_errors_is_told_in_json_too() {
    let server = Server::start();
    server.project();
    let file = server.folder.path().join("config.yml");
    std::fs::write(&file, "version: 2.1\nworkflows: {w: {jobs: [missing]}}\n").unwrap();
    let args = ["pipeline", "trigger", "gh/acme/hello", "--config", file.to_str().unwrap(), "--json"];
    let output = server.admin_output(&args, "");
    assert_eq!(output.status.code(), Some(7));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["state"], "errored");
    assert!(answer["errors"][0]["message"].as_str().unwrap().contains("missing"), "{answer}");
}
