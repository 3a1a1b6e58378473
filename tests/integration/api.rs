//! The public APIs on a real control plane after a real pipeline: shapes and words that clients insist on.

use crate::faults::Rogue;
use crate::server::{ANSWER, Server};
use runlet::http::{Body, Request};
use runlet::protocol::Secret;
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

const CONFIG: &str = "\
version: 2.1
jobs:
  build:
    machine: true
    resource_class: a/b
    parallelism: 2
    steps:
      - run: {name: say, command: 'echo line one; echo line two >&2'}
      - run: 'mkdir out; echo data > \"out/a b.txt\"; printf \"<testsuite name=\\\"s\\\"><testcase classname=\\\"c\\\" name=\\\"n\\\" time=\\\"0.5\\\" file=\\\"f.c\\\"/><testcase classname=\\\"c\\\" name=\\\"bad\\\"><failure message=\\\"why\\\"/></testcase></testsuite>\" > out/t.xml'
      - store_artifacts: {path: out}
      - store_test_results: {path: out}
  fail:
    machine: true
    resource_class: a/b
    steps: [{run: 'exit 3'}]
workflows:
  w:
    jobs:
      - build
      - gate: {type: approval, requires: [build]}
      - fail: {requires: [gate]}
";

/// Answer to a call of curl: status, headers in lower case, body.
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Server {
    /// A call by an independent client.
    pub(crate) fn curl(&self, path: &str, args: &[&str]) -> Got {
        let output = Command::new("curl")
            .args(["-s", "-i", "-g", "--max-time", "120"])
            .args(args)
            .arg(format!("{}{path}", self.client.url()))
            .output()
            .unwrap();
        let split = output.stdout.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let headers = String::from_utf8_lossy(&output.stdout[..split]).to_lowercase();
        let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
        Got { status, headers, body: output.stdout[split + 4..].to_vec() }
    }

    pub(crate) fn get(&self, path: &str) -> Got {
        self.curl(path, &["-H", &format!("Circle-Token: {}", self.token.expose())])
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Got {
        let token = format!("Authorization: Bearer {}", self.token.expose());
        self.curl(path, &["-H", &token, "-X", "POST", "-d", &body.to_string()])
    }
}

/// A control plane whose one pipeline stopped at its approval, and the ids of the pipeline and workflow.
fn held() -> (Server, crate::server::Runner, String, String) {
    let server = Server::start();
    server.project();
    let runner = server.runner("one", &server.class_token("a/b"));
    let pipeline = server.trigger(CONFIG);
    let workflow = crate::support::poll("the hold of the workflow", || {
        let workflows = server.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
        let workflow = &workflows["items"][0];
        if workflow["status"] == "on_hold" {
            Ok(workflow["id"].as_str().unwrap().to_owned())
        } else {
            Err(workflows.to_string())
        }
    });
    (server, runner, pipeline, workflow)
}

#[test]
fn version_2_reads_what_ran() {
    let (server, _runner, pipeline, workflow) = held();
    let slug = "/api/v2/project/gh/acme/hello";
    for path in [
        format!("{slug}/pipeline"),
        "/api/v2/project/github%2Facme%2Fhello/pipeline".into(),
        "/api/v2/pipeline?org-slug=gh/acme&mine=true".into(),
        format!("{slug}/pipeline/mine?page-token="),
    ] {
        let page = server.get(&path).json();
        assert_eq!(
            (&page["items"][0]["id"], &page["next_page_token"]),
            (&json!(pipeline), &Value::Null),
            "{path}"
        );
    }
    let one = server.get(&format!("{slug}/pipeline/1")).json();
    assert_eq!(
        (&one["id"], &one["project_slug"], &one["state"]),
        (&json!(pipeline), &json!("gh/acme/hello"), &json!("created"))
    );
    let config = server.get(&format!("/api/v2/pipeline/{pipeline}/config")).json();
    assert_eq!(config["source"], CONFIG);
    assert!(config["compiled"].as_str().unwrap().starts_with("version: 2"));

    let jobs = server.get(&format!("/api/v2/workflow/{workflow}/job")).json();
    let (build, gate, fail) = (&jobs["items"][0], &jobs["items"][1], &jobs["items"][2]);
    assert_eq!(
        (&gate["type"], &gate["status"], &gate["approval_request_id"]),
        (&json!("approval"), &json!("on_hold"), &gate["id"])
    );
    assert_eq!(gate["dependencies"], json!([build["id"]]));
    assert!(fail.get("job_number").is_none() && fail["started_at"].is_null(), "{fail}");
    let number = build["job_number"].as_i64().unwrap();
    let job = server.get(&format!("{slug}/job/{number}")).json();
    assert_eq!(
        (&job["id"], &job["status"], &job["parallelism"]),
        (&build["id"], &json!("success"), &json!(2))
    );
    assert_eq!(
        job["parallel_runs"],
        json!([{ "index": 0, "status": "success" }, { "index": 1, "status": "success" }])
    );
    assert_eq!(job["executor"]["resource_class"], "a/b");
    assert_eq!(job["latest_workflow"], json!({ "id": workflow, "name": "w" }));

    let artifacts = server.get(&format!("{slug}/{number}/artifacts")).json();
    let artifact = artifacts["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|a| a["path"] == "out/a b.txt" && a["node_index"] == 1);
    let url =
        artifact.unwrap()["url"].as_str().unwrap().strip_prefix(server.client.url()).unwrap().to_owned();
    let file = server.get(&url);
    assert_eq!((file.status, file.body.as_slice()), (200, &b"data\n"[..]));
    assert!(
        file.headers
            .contains("content-disposition: attachment; filename=\"a b.txt\"; filename*=utf-8''a%20b.txt"),
        "{}",
        file.headers
    );
    let token = format!("Circle-Token: {}", server.token.expose());
    let rest = server.curl(&url, &["-H", &token, "-H", "Range: bytes=2-"]);
    assert_eq!((rest.status, rest.body.as_slice()), (206, &b"ta\n"[..]));
    assert_eq!(server.curl(&url, &["-H", &token, "-H", "Range: bytes=5-"]).status, 416);
    assert_eq!(server.curl(&url, &[]).status, 401);

    let tests = server.get(&format!("{slug}/{number}/tests")).json();
    let bad = tests["items"].as_array().unwrap().iter().find(|test| test["name"] == "bad").unwrap();
    assert_eq!(
        (&bad["result"], &bad["message"], &bad["classname"]),
        (&json!("failure"), &json!("why"), &json!("c"))
    );

    let approve = |job: &str| server.post(&format!("/api/v2/workflow/{workflow}/approve/{job}"), &json!({}));
    let gate = gate["id"].as_str().unwrap();
    let approved = approve(gate);
    assert_eq!((approved.status, approved.json()), (202, json!({ "message": "Accepted." })));
    let again = approve(gate);
    let why = format!("the approval `{gate}` was given before");
    assert_eq!((again.status, &again.json()["message"]), (409, &json!(why)));
    assert_eq!(approve("11111111-2222-4333-8444-555555555555").status, 404);
    server.ended(&pipeline);
    assert_eq!(server.get(&format!("/api/v2/workflow/{workflow}")).json()["status"], "failed");
}

#[test]
fn an_approval_can_be_refused_by_its_id() {
    let server = Server::start();
    server.project();
    let workflow = "version: 2.1\nworkflows:\n  w:\n    jobs:\n      - gate: {type: approval}\n      - refused: {requires: [gate: canceled]}\n      - given: {requires: [gate]}\n";
    let pipeline =
        server.trigger(&format!("{workflow}jobs:\n  refused: {{type: no-op}}\n  given: {{type: no-op}}\n"));
    let workflows = server.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
    let jobs = format!("/api/v2/workflow/{}/job", workflows["items"][0]["id"].as_str().unwrap());
    let gate = server.get(&jobs).json()["items"][0]["id"].as_str().unwrap().to_owned();
    let cancel =
        |job: &str| server.post(&format!("/api/v2/project/gh/acme/hello/job/{job}/cancel"), &json!({}));
    assert_eq!(cancel(&gate).status, 202);
    assert_eq!(cancel("11111111-2222-4333-8444-555555555555").status, 404);
    let ended = server.ended(&pipeline);
    let statuses: Vec<_> = ended.iter().map(|job| job["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["canceled", "success", "not_run"]);
}

#[test]
fn version_3_reads_what_ran() {
    let (server, _runner, pipeline, workflow) = held();
    let me = server.get("/api/v3/users?filter%5Buser_id%5D=me").json();
    assert_eq!(me["data"][0]["attributes"]["login"], "admin");
    let project = server.get("/api/v3/projects?filter[slug]=github/acme/hello").json();
    let project = project["data"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(server.get("/api/v3/projects?filter[slug]=gh/acme/none").json()["data"], json!([]));
    assert!(server.get("/api/v3/orgs?filter[slug]=gh/acme").json()["data"][0]["id"].is_string());
    assert_eq!(
        server.get(&format!("/api/v3/projects/{project}")).json()["data"]["attributes"]["name"],
        "hello"
    );

    let run = server.get(&format!("/api/v3/runs/{pipeline}")).json();
    assert_eq!(
        (&run["data"]["attributes"]["phase"], &run["data"]["references"]["project"]["id"]),
        (&json!("started"), &json!(project))
    );
    let search = |filter: &str| {
        let body = json!({ "scope": { "project_ids": [project], "from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z" }, "filter": filter, "page": { "cursor": "", "limit": 20 } });
        server.post("/api/v3/runs/search", &body).json()
    };
    assert_eq!(search("")["data"][0]["id"], json!(pipeline));
    assert_eq!(search("pipeline.status == \"on_hold\"")["data"][0]["id"], json!(pipeline));
    assert_eq!(search("pipeline.status == \"failed\"")["data"], json!([]));
    assert_eq!(search("pipeline.git.branch == \"x\" and pipeline.status == \"on_hold\"")["data"], json!([]));
    assert!(search("nonsense")["error"]["detail"].as_str().unwrap().contains("nonsense"));
    let detail = |answer: Value| answer["error"]["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail(search("pipeline.status == \"zzz\"")).contains("`zzz`: it is one of success, "));
    for filter in ["phase", "current_outcome"] {
        let answer = server.get(&format!("/api/v3/runs?filter[user_id]=me&filter[{filter}]=zzz"));
        assert_eq!(answer.status, 400, "{filter}");
        assert!(detail(answer.json()).contains("`zzz`: it is one of "), "{filter}");
    }
    assert_eq!(server.get("/api/v1.1/recent-builds?shallow=maybe").status, 400);
    assert_eq!(server.get("/api/v1.1/recent-builds?shallow=true").status, 200);
    assert_eq!(server.get("/api/v2/pipeline?org-slug=gh/acme&mine=maybe").status, 400);
    let mine = server.get("/api/v3/runs?filter[user_id]=me&filter[phase]=started&page[limit]=5").json();
    assert_eq!((&mine["data"][0]["id"], &mine["page"]["next"]), (&json!(pipeline), &Value::Null));

    let workflows = server.get(&format!("/api/v3/workflows?filter[run_id]={pipeline}")).json();
    assert_eq!(
        (&workflows["data"][0]["id"], &workflows["data"][0]["attributes"]["phase"]),
        (&json!(workflow), &json!("started"))
    );
    assert_eq!(server.get("/api/v3/jobs").status, 400);
    let jobs = server.get(&format!("/api/v3/jobs?filter[workflow_id]={workflow}")).json();
    let build = jobs["data"][0]["id"].as_str().unwrap();
    let job = server.get(&format!("/api/v3/jobs/{build}")).json();
    let attributes = &job["data"]["attributes"];
    assert_eq!((&attributes["phase"], &attributes["outcome"]), (&json!("ended"), &json!("succeeded")));
    let step = &attributes["parallel_executions"][1]["steps"][1];
    assert_eq!(
        (&step["name"], &step["type"], &step["exit_code"], &step["outcome"]),
        (&json!("say"), &json!("run"), &json!(0), &json!("succeeded"))
    );
    let query = format!("filter[execution]=1&filter[step_num]={}", step["num"]);
    let out = server.get(&format!("/api/v3/jobs/{build}/stdout?{query}"));
    assert_eq!(out.body, b"line one\nline two\n");
    assert!(out.headers.contains("x-terminal: true"), "{}", out.headers);
    let token = format!("Circle-Token: {}", server.token.expose());
    let rest = server
        .curl(&format!("/api/v3/jobs/{build}/stdout?{query}"), &["-H", &token, "-H", "Range: bytes=9-"]);
    assert_eq!(rest.body, b"line two\n");
    let end = server
        .curl(&format!("/api/v3/jobs/{build}/stdout?{query}"), &["-H", &token, "-H", "Range: bytes=18-"]);
    assert_eq!((end.status, end.body.len()), (200, 0));
    let error = server.get(&format!("/api/v3/jobs/{build}/stderr?{query}"));
    assert_eq!((error.status, error.body.len()), (200, 0));
    assert_eq!(
        server.get(&format!("/api/v3/jobs/{build}/stdout/condensed?{query}")).body,
        b"line one\nline two\n"
    );
    let missing = server.get(&format!("/api/v3/jobs/{build}/stdout?filter[step_num]=99"));
    assert_eq!((missing.status, &missing.json()["error"]["title"]), (404, &json!("Not Found")));
    let tests = server.get(&format!("/api/v3/jobs/{build}/tests"));
    assert!(tests.headers.contains("content-type: application/x-ndjson"));
    let first: Value = serde_json::from_slice(tests.body.split(|&b| b == b'\n').next().unwrap()).unwrap();
    assert_eq!((&first["name"], &first["run_time"]), (&json!("n"), &json!(0.5)));

    let canceled = server.post(&format!("/api/v3/workflows/{workflow}/cancel"), &Value::Null);
    assert_eq!((canceled.status, canceled.json()), (202, json!({ "data": { "id": workflow } })));
    server.ended(&pipeline);
    let run = server.get(&format!("/api/v3/runs/{pipeline}")).json();
    assert_eq!(
        (&run["data"]["attributes"]["phase"], &run["data"]["attributes"]["current_outcome"]),
        (&json!("ended"), &json!("canceled"))
    );
}

#[test]
fn version_1_reads_builds_and_their_output() {
    let (server, _runner, _pipeline, workflow) = held();
    let query = format!("?circle-token={}", server.token.expose());
    let project = "/api/v1.1/project/github/acme/hello";
    let builds = server.curl(&format!("{project}{query}&limit=5"), &[]).json();
    assert_eq!(builds.as_array().unwrap().len(), 1);
    let number = builds[0]["build_num"].as_i64().unwrap();
    let build = server.curl(&format!("{project}/{number}{query}"), &[]).json();
    assert_eq!(
        (&build["status"], &build["lifecycle"], &build["workflows"]["job_name"]),
        (&json!("success"), &json!("finished"), &json!("build"))
    );
    let step = build["steps"].as_array().unwrap().iter().find(|step| step["name"] == "say").unwrap();
    let action = &step["actions"][1];
    assert_eq!(
        (&action["index"], &action["failed"], &action["has_output"]),
        (&json!(1), &json!(false), &json!(true))
    );
    let url = action["output_url"].as_str().unwrap().strip_prefix(server.client.url()).unwrap();
    let output = server.curl(url, &[]).json();
    assert_eq!((&output[0]["type"], &output[0]["message"]), (&json!("out"), &json!("line one\nline two\n")));
    // Another letter in the middle: some bits of the last one may mean nothing.
    let (head, tail) = url.split_at(url.len() - 8);
    let letter = if tail.starts_with('A') { "B" } else { "A" };
    let forged = format!("{head}{letter}{}", &tail[1..]);
    assert_eq!(server.curl(&forged, &[]).status, 404);
    let raw = format!("/api/private/output/raw/gh/acme/hello/{number}/output/1/{}", action["step"]);
    assert_eq!(server.get(&raw).json(), json!("line one\nline two\n"));
    assert_eq!(
        server.curl(&format!("{project}/{number}/tests{query}"), &[]).json()["tests"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
    let basic = server.curl("/api/v1.1/me", &["-u", &format!("{}:", server.token.expose())]);
    assert_eq!(basic.json()["login"], "admin");
    assert_eq!(server.get("/api/v1.1/projects").json()[0]["vcs_type"], "github");
    server.call("POST", &format!("/api/v2/workflow/{workflow}/cancel"), None);
    let again = server.post(&format!("{project}/{number}/retry"), &Value::Null);
    assert_eq!((again.status, &again.json()["workflows"]["job_name"]), (200, &json!("build")));
}

/// Clients report failures for the word `failed` alone; the run of the node keeps what it was.
#[test]
fn a_task_that_ran_out_of_time_is_a_failed_job_in_every_version() {
    let server = Server::start();
    server.project();
    let rogue = Rogue::of(&server, "a/b");
    let pipeline = server.trigger(
        "version: 2.1\njobs: {build: {machine: true, resource_class: a/b, steps: [{run: 'true'}]}}\nworkflows: {w: {jobs: [build]}}\n",
    );
    let (_, task) = rogue.claim("n-1");
    rogue.begin(&task);
    let path = format!("/api/v3/runner/tasks/{}/finish", task["id"].as_str().unwrap());
    let token = Secret::new(task["token"].as_str().unwrap());
    let end = json!({ "status": "timedout", "message": "too long", "events": 0, "steps": [] }).to_string();
    let (status, answer) = rogue.send("POST", &path, &token, Body::Json(end.as_bytes()));
    assert_eq!((status, &answer["answer"]), (200, &json!("confirmed")));
    let jobs = server.ended(&pipeline);
    assert_eq!(jobs[0]["status"], "failed");
    let v3 = server.get(&format!("/api/v3/jobs/{}", jobs[0]["id"].as_str().unwrap())).json();
    assert_eq!(v3["data"]["attributes"]["outcome"], "failed");
    let v2 = server.get("/api/v2/project/gh/acme/hello/job/1").json();
    assert_eq!(
        (&v2["status"], &v2["parallel_runs"], &v2["messages"][0]["message"]),
        (&json!("failed"), &json!([{ "index": 0, "status": "timedout" }]), &json!("too long"))
    );
    let v1 = server.get("/api/v1.1/project/gh/acme/hello/1").json();
    assert_eq!(
        (&v1["status"], &v1["outcome"], &v1["timedout"]),
        (&json!("failed"), &json!("failed"), &json!(true))
    );
    let workflow = server.get(&format!("/api/v3/workflows?filter[run_id]={pipeline}")).json();
    assert_eq!(workflow["data"][0]["attributes"]["outcome"], "failed");
}

#[test]
fn refusals_are_json_in_every_family() {
    let server = Server::start();
    for (path, args, status) in [
        ("/api/v2/nothing", &[][..], 404),
        ("/api/v2/me", &["-X", "PATCH"], 405),
        ("/api/v2/pipeline/x", &["-H", "Circle-Token: wrong"], 401),
        ("/nowhere", &[], 404),
    ] {
        let got = server.curl(path, args);
        assert_eq!(got.status, status, "{path}");
        assert!(got.headers.contains("content-type: application/json"), "{path}: {}", got.headers);
        assert!(got.json()["message"].as_str().is_some_and(|text| !text.is_empty()), "{path}");
    }
    let refused = server.get("/api/v3/runs/no-such-run").json();
    assert_eq!(refused["error"]["title"], "Not Found");
    let closed = server.curl("/live", &["-H", "Connection: close"]);
    assert!(closed.headers.contains("connection: close"), "{}", closed.headers);
    let inventory = server.get("/api/v3/runner");
    assert_eq!(inventory.status, 400);
    let _runner = server.runner("one", &server.class_token("a/b"));
    crate::support::poll("the first claim of the runner", || {
        let seen = server.get("/api/v3/runner?namespace=a").json();
        if seen["items"][0]["name"] == "one" { Ok(()) } else { Err(seen.to_string()) }
    });
    assert_eq!(
        server.get("/api/v3/runner/tasks?resource-class=a/b").json(),
        json!({ "unclaimed_task_count": 0 })
    );
    assert_eq!(
        server.get("/api/v3/runner/tasks/running?resource-class=a/b").json(),
        json!({ "running_runner_tasks": 0 })
    );
    // The runner's own client speaks the same.
    let (path, token, body) = ("/api/v2/me", Some(&server.token), Body::Empty);
    let request = Request { method: "GET", path, token, body, timeout: ANSWER };
    assert_eq!(server.client.send(&request).unwrap().status, 200);
}

#[test]
fn a_refused_call_leaves_its_connection_usable() {
    let server = Server::start();
    let mut connection = TcpStream::connect(server.client.url().strip_prefix("http://").unwrap()).unwrap();
    connection.set_nodelay(true).unwrap();
    for path in ["/api/v3/runner/tasks/x/heartbeat", "/api/v3/runner/claim", "/nowhere"] {
        write!(connection, "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n").unwrap();
        // The body comes late. Whoever answers before it has come must close the connection.
        connection.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let early = connection.read(&mut [0]).map_err(|error| error.kind());
        assert!(matches!(early, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "{path}: {early:?}");
        connection.write_all(b"[1,2]").unwrap();
        connection.set_read_timeout(Some(ANSWER)).unwrap();
        let mut answer = String::new();
        // A refusal is one object.
        while !answer.ends_with('}') {
            let mut byte = [0];
            connection.read_exact(&mut byte).unwrap();
            answer.push(byte[0].into());
        }
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains("message"), "{path}: {answer}");
        assert!(!answer.to_lowercase().contains("connection: close"), "{path}: {answer}");
    }
}
