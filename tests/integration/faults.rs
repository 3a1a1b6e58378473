//! Promises that nothing is lost, on networks and hosts that lose things: real runners and a real
//! control plane with a bad line between them, or killed in the middle.

use crate::server::{ANSWER, Runner, Server, one_step};
use crate::support::processes::{child_with, signal};
use crate::support::{poll, ports};
use runlet::http::{Body, Client, Endpoint, Request};
use runlet::protocol::Secret;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A line to `upstream` that breaks: each connection carries only so many bytes in either direction, and
/// now and then one is answered by a stranger's error page.
#[derive(Debug)]
pub(crate) struct BadLine {
    pub(crate) address: SocketAddr,
    broken: Arc<AtomicUsize>,
}

impl BadLine {
    /// How many connections have lost bytes so far.
    pub(crate) fn breaks(&self) -> usize {
        self.broken.load(Ordering::Relaxed)
    }

    pub(crate) fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let broken = Arc::new(AtomicUsize::new(0));
        let count = broken.clone();
        std::thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let (Ok(mut client), count) = (client, count.clone()) else { continue };
                // Enough for some calls, too little for others; never the same for two in a row.
                let budget = [900, 70_000, 6_000_000, 3_000, 400_000, 6_000_000][number % 6];
                if number % 7 == 3 {
                    let _ = client.write_all(
                        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops",
                    );
                    count.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                std::thread::spawn(move || {
                    let Ok(server) = TcpStream::connect(upstream) else { return };
                    let left = Arc::new(Mutex::new(budget));
                    let back = (server.try_clone().unwrap(), client.try_clone().unwrap(), left.clone());
                    let returning = std::thread::spawn(move || carry(back.0, back.1, &back.2));
                    let cut = carry(client, server, &left);
                    if cut | returning.join().unwrap_or(false) {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self { address, broken }
    }
}

/// Carries bytes until the budget of both directions is used up, then cuts both, wherever that is. Returns
/// whether bytes were lost that way.
fn carry(mut from: TcpStream, mut to: TcpStream, left: &Mutex<usize>) -> bool {
    let mut buffer = [0; 4096];
    let mut cut = false;
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let allowed = {
            let mut left = left.lock().unwrap();
            let allowed = n.min(*left);
            *left -= allowed;
            allowed
        };
        cut = allowed < n;
        if to.write_all(&buffer[..allowed]).is_err() || cut {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
    cut
}

pub(crate) fn address_of(server: &Server) -> SocketAddr {
    server.client.url().strip_prefix("http://").unwrap().parse().unwrap()
}

const WORK: &str = "\
version: 2.1
jobs:
  build:
    machine: true
    resource_class: a/b
    steps:
      - run: seq 1 200000
      - run: {name: slowly, command: 'for n in $(seq 1 30); do echo line $n; sleep 0.05; done'}
      - run: 'mkdir out; seq 1 300000 > out/numbers; echo small > out/small; echo \"<testsuite><testcase name=\\\"t\\\"/></testsuite>\" > out/t.xml'
      - store_artifacts: {path: out}
      - store_test_results: {path: out}
workflows: {w: {jobs: [build]}}
";

fn numbers(last: u32) -> String {
    (1..=last).map(|n| format!("{n}\n")).collect()
}

/// Checks that all that `WORK` left is there, once, byte for byte.
fn assert_all_arrived(server: &Server, job: &Value) {
    assert_eq!(job["status"], "success", "{job}");
    assert!(server.output(job, 1) == numbers(200_000), "the output differs");
    let slowly: String = (1..=30).map(|n| format!("line {n}\n")).collect();
    assert_eq!(server.output(job, 2), slowly);
    let id = job["id"].as_str().unwrap();
    let artifacts = server.call("GET", &format!("/api/v3/jobs/{id}/artifacts"), None);
    let artifacts = artifacts["data"].as_array().unwrap();
    let paths: Vec<_> = artifacts.iter().map(|a| a["attributes"]["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["out/numbers", "out/small", "out/t.xml"]);
    let url = artifacts[0]["attributes"]["url"].as_str().unwrap();
    let bytes = server.text(url.strip_prefix(server.client.url()).unwrap());
    assert!(bytes == numbers(300_000).into_bytes(), "the artifact differs");
    assert_eq!(server.text(&format!("/api/v3/jobs/{id}/tests")).iter().filter(|&&b| b == b'\n').count(), 1);
    let steps = server.call("GET", &format!("/api/v3/jobs/{id}"), None);
    let steps = steps["data"]["attributes"]["parallel_executions"][0]["steps"].as_array().unwrap().clone();
    let outcomes: Vec<_> = steps.iter().map(|step| step["outcome"].as_str().unwrap_or("none")).collect();
    assert_eq!(outcomes, ["succeeded"; 6], "{steps:?}");
}

#[test]
fn a_bad_line_loses_and_doubles_nothing() {
    let server = Server::start();
    server.project();
    let line = BadLine::to(address_of(&server));
    let token = server.class_token("a/b");
    let _runner = server.runner_at("one", &token, &format!("http://{}", line.address));
    // How many connections a pipeline takes depends on the machine's speed: as many pipelines as it takes
    // for the line to have broken often.
    for _ in 0..20 {
        let pipeline = server.trigger(WORK);
        let jobs = server.ended(&pipeline);
        assert_all_arrived(&server, &jobs[0]);
        if line.broken.load(Ordering::Relaxed) >= 8 {
            return;
        }
    }
    panic!("the line was too good to prove anything: {line:?}");
}

#[test]
fn a_control_plane_that_is_killed_goes_on_where_it_was() {
    let port = ports::hold();
    let listen = port.address().to_string();
    let mut server = Server::start_with(&["--listen", &listen], None);
    server.project();
    let _runner = server.runner("one", &server.class_token("a/b"));
    let pipeline = server.trigger(WORK);
    poll("the second step", || {
        let found = server.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
        let path = format!("/api/v2/workflow/{}/job", found["items"][0]["id"].as_str().unwrap());
        let jobs = server.call("GET", &path, None);
        let job =
            server.call("GET", &format!("/api/v3/jobs/{}", jobs["items"][0]["id"].as_str().unwrap()), None);
        let steps = &job["data"]["attributes"]["parallel_executions"][0]["steps"];
        if steps.as_array().is_some_and(|steps| steps.len() >= 3) { Ok(()) } else { Err(job.to_string()) }
    });
    signal(server.child.id(), Signal::KILL);
    server.child.wait().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    server.start_again(&listen);
    let jobs = server.ended(&pipeline);
    assert_all_arrived(&server, &jobs[0]);
}

/// A job that lasts until the file is there.
pub(crate) fn until(go: &Path) -> String {
    one_step(&format!("echo begun; until test -e {}; do sleep 0.05; done; echo ended", go.display()))
}

fn task_agent_of(runner: &Runner) -> u32 {
    poll("the task agent", || child_with(runner.0.id(), "task").ok_or_else(|| "no child".to_owned()))
}

#[test]
fn a_killed_task_agent_is_an_infrastructure_failure() {
    let server = Server::start();
    server.project();
    let runner = server.runner("one", &server.class_token("a/b"));
    let note = server.folder.path().join("private-folder");
    let config = until(&server.folder.path().join("go"));
    let telling = format!("echo $CIRCLE_INTERNAL_TASK_DATA > {}; echo begun", note.display());
    assert!(config.contains("echo begun"), "{config}");
    let pipeline = server.trigger(&config.replace("echo begun", &telling));
    server.wait_output(&pipeline, 1, "begun");
    let folder = std::fs::read_to_string(note).unwrap();
    let folder = Path::new(folder.trim());
    assert!(folder.is_dir());
    signal(task_agent_of(&runner), Signal::KILL);
    let jobs = server.ended(&pipeline);
    assert_eq!(jobs[0]["status"], "infrastructure_fail", "{jobs:?}");
    poll("the end of its private folder", || {
        if folder.exists() { Err(format!("`{}` is there", folder.display())) } else { Ok(()) }
    });
}

#[test]
fn a_killed_runner_finds_its_task_again() {
    let server = Server::start();
    server.project();
    let token = server.class_token("a/b");
    let mut runner = server.runner("one", &token);
    let go = server.folder.path().join("go");
    let pipeline = server.trigger(&until(&go));
    // A task agent that has not been given its task yet could not go on with it.
    server.wait_output(&pipeline, 1, "begun");
    runner.0.kill().unwrap();
    runner.0.wait().unwrap();
    let _again = server.runner("one", &token);
    std::fs::write(go, "").unwrap();
    let jobs = server.ended(&pipeline);
    assert_eq!(jobs[0]["status"], "success", "{jobs:?}");
    assert_eq!(server.output(&jobs[0], 1), "begun\nended\n");
}

/// A runner of this test's own, which breaks the rules on purpose.
pub(crate) struct Rogue {
    client: Client,
    pub(crate) class: Secret,
}

impl Rogue {
    /// For a class that the control plane does not have yet.
    pub(crate) fn of(server: &Server, class: &str) -> Self {
        let class = Secret::new(server.class_token(class));
        let endpoint = Endpoint { url: server.client.url().to_owned(), ..Endpoint::default() };
        Self { client: Client::new(&endpoint).unwrap(), class }
    }

    pub(crate) fn send(
        &self,
        method: &'static str,
        path: &str,
        token: &Secret,
        body: Body<'_>,
    ) -> (u16, Value) {
        let request = Request { method, path, token: Some(token), body, timeout: ANSWER };
        let answer = self.client.send(&request).unwrap();
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    pub(crate) fn claim(&self, nonce: &str) -> (u16, Value) {
        let body = json!({ "name": "rogue", "hostname": "h", "version": "0", "os": "linux", "arch": "x86_64", "nonce": nonce });
        self.send("POST", "/api/v3/runner/claim?wait=0", &self.class, Body::Json(body.to_string().as_bytes()))
    }

    /// Begins a claimed task, as its agent does before the first step.
    pub(crate) fn begin(&self, task: &Value) {
        let path = format!("/api/v3/runner/tasks/{}/begin", task["id"].as_str().unwrap());
        let token = Secret::new(task["token"].as_str().unwrap());
        let body = json!({ "agent": "0123456789abcdef0123456789abcdef", "events": [] }).to_string();
        let (status, answer) = self.send("POST", &path, &token, Body::Json(body.as_bytes()));
        assert_eq!(status, 200, "{answer}");
    }
}

#[test]
fn claims_offsets_and_checksums_are_held_to() {
    let server = Server::start();
    server.project();
    let rogue = Rogue::of(&server, "a/b");
    server.trigger(&until(Path::new("/")));
    let (status, first) = rogue.claim("n-1");
    assert_eq!(status, 200, "{first}");
    let (_, again) = rogue.claim("n-1");
    assert_eq!(again["id"], first["id"], "the answer was lost, the task is not");
    assert_eq!(rogue.claim("n-2").0, 204, "nobody else gets it");
    let task = Secret::new(again["token"].as_str().unwrap());
    let path = format!("/api/v3/runner/tasks/{}", again["id"].as_str().unwrap());
    let heartbeat = format!("{path}/heartbeat?wait=0");
    // A proxy may send a claim twice, and its runner go by the answer to either.
    for word in ["token", "allocation"] {
        assert_eq!(again[word], first[word], "the {word} of the first answer is dead");
    }
    assert_eq!(rogue.send("POST", &heartbeat, &task, Body::Json(b"{}")).0, 200);
    assert_eq!(
        rogue.send("POST", &heartbeat, &rogue.class, Body::Json(b"{}")).0,
        401,
        "tokens are not interchangeable"
    );

    rogue.begin(&again);
    let started = json!([{ "number": 0, "at_ms": 1, "event": "step_started", "step": 0, "name": "s", "kind": "run", "attempt": 1, "max_auto_reruns": 0, "background": false }]);
    let events = format!("{path}/events");
    assert_eq!(rogue.send("POST", &events, &task, Body::Json(started.to_string().as_bytes())).1["next"], 1);
    let late = json!([{ "number": 5, "at_ms": 1, "event": "step_finished", "step": 0, "status": "success" }]);
    let (status, gap) = rogue.send("POST", &events, &task, Body::Json(late.to_string().as_bytes()));
    assert_eq!((status, &gap["code"], &gap["offset"]), (409, &json!("gap"), &json!(1)));

    let output = |offset: u32| format!("{path}/steps/0/output?offset={offset}");
    assert_eq!(rogue.send("PATCH", &output(0), &task, Body::Bytes(b"hello")).0, 200);
    assert_eq!(
        rogue.send("PATCH", &output(0), &task, Body::Bytes(b"hello")).0,
        200,
        "sent twice, stored once"
    );
    let (status, gap) = rogue.send("PATCH", &output(9), &task, Body::Bytes(b"!"));
    assert_eq!((status, &gap["code"], &gap["offset"]), (409, &json!("gap"), &json!(5)));

    // SHA-256 of `hello`, and one that is not.
    let right = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let wrong = right.replace('2', "3");
    let finish = |sha256: &str, length: u64| {
        let body = json!({ "status": "success", "events": 1, "steps": [{ "step": 0, "length": length, "sha256": sha256 }] });
        rogue.send("POST", &format!("{path}/finish"), &task, Body::Json(body.to_string().as_bytes()))
    };
    for (sha256, length) in [(wrong.as_str(), 5), (right, 6), (right, 4)] {
        let (status, refused) = finish(sha256, length);
        assert_eq!((status, &refused["answer"]), (200, &json!("incomplete")), "{length} {refused}");
        assert_eq!(rogue.send("POST", &heartbeat, &task, Body::Json(b"{}")).0, 200, "the task is not over");
    }
    // Bytes that differed are sent again, from where the answer said.
    rogue.send("PATCH", &output(0), &task, Body::Bytes(b"hello"));
    assert_eq!(finish(right, 5).1["answer"], "confirmed");
    let (status, over) = rogue.send("POST", &heartbeat, &task, Body::Json(b"{}"));
    assert_eq!((status, &over["code"]), (409, &json!("task_ended")));
}
