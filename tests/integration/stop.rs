//! A control plane that is told to stop with everything open that can be: parked calls, streams, halves of
//! requests. It answers who waits, ends well, and another one on its data finds everything.
//!
//! Nothing here measures time. A control plane that stops cuts whatever it has not answered within seconds:
//! an answer to a parked call is the work of the stop.

use crate::faults::{Rogue, address_of, until};
use crate::server::{ANSWER, Server};
use crate::support::processes::{signal, wait_end};
use crate::support::{poll, ports};
use runlet::http::{Body, Client, Endpoint, Request};
use runlet::protocol::Secret;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;

/// Seconds that parked calls ask for: as many as runners do.
const PARKED: u64 = 50;

const ONE: &str = "\
version: 2.1
jobs: {one: {machine: true, resource_class: a/queue, steps: [{run: 'true'}]}}
workflows: {w: {jobs: [one]}}
";

/// Prints much more than a connection holds, and then waits.
fn loud(go: &Path) -> String {
    until(go).replace("echo begun;", "head -c 12000000 /dev/zero | tr \"\\\\0\" x; echo begun;")
}

fn claim(name: &str) -> Value {
    json!({ "name": name, "hostname": "h", "version": "0", "os": "linux", "arch": "x86_64", "nonce": name })
}

/// A connection that has said this much.
fn said(server: &Server, text: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address_of(server)).unwrap();
    connection.write_all(text.as_bytes()).unwrap();
    connection.set_read_timeout(Some(ANSWER)).unwrap();
    connection
}

/// Triggers one pipeline after the other until the control plane is gone; those that it said it made.
fn trigger_until_gone(server: &Server) -> Vec<String> {
    let endpoint = Endpoint { url: server.client.url().to_owned(), ..Endpoint::default() };
    let client = Client::new(&endpoint).unwrap();
    let body = json!({ "config": { "content": ONE } }).to_string();
    let (path, token) = ("/api/v2/project/gh/acme/hello/pipeline/run", Some(&server.token));
    let body = Body::Json(body.as_bytes());
    let request = Request { method: "POST", path, token, body, timeout: ANSWER };
    let mut made = Vec::new();
    while let Ok(answer) = client.send(&request) {
        if answer.status != 201 {
            break;
        }
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        made.push(answer["id"].as_str().unwrap().to_owned());
    }
    made
}

/// Lets half of what a task is held for pass.
fn age(server: &Server, task: &Value) -> i64 {
    let aged = "UPDATE tasks SET lease_until_ms = (lease_until_ms + unixepoch() * 1000) / 2 WHERE id = ?1";
    assert_eq!(server.database().execute(aged, [task["id"].as_str().unwrap()]).unwrap(), 1);
    lease(server, task)
}

/// How long a task is held, as the database has it.
fn lease(server: &Server, task: &Value) -> i64 {
    let database = server.database();
    let lease = "SELECT lease_until_ms FROM tasks WHERE id = ?1";
    database.query_row(lease, [task["id"].as_str().unwrap()], |row| row.get(0)).unwrap()
}

#[test]
fn who_waits_is_answered_and_everything_is_found_again() {
    let port = ports::hold();
    let listen = port.address().to_string();
    let mut server = Server::start_with(&["--listen", &listen], None);
    server.project();
    let _runner = server.runner("one", &server.class_token("a/b"));
    let (idle, held) = (Rogue::of(&server, "a/idle"), Rogue::of(&server, "a/held"));
    server.class_token("a/queue");
    let go = server.folder.path().join("go");
    let pipeline = server.trigger(&loud(&go));
    server.wait_output(&pipeline, 1, "begun");
    let other = server.trigger(&ONE.replace("a/queue", "a/held"));
    let (status, task) = held.claim("held");
    assert_eq!(status, 200, "{task}");
    held.begin(&task);
    let task_token = Secret::new(task["token"].as_str().unwrap());

    let token = server.token.expose();
    let events = format!("/api/v3/runs/{pipeline}/events");
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nCircle-Token: {token}\r\n");
    // A stream that is read, one that is not, a connection that waits for its next call, and one whose
    // call never gets its body.
    let mut stream = BufReader::new(server.client.open(&events, &server.token).unwrap());
    let _deaf = said(&server, &format!("{}\r\n", get(&events)));
    let mut idler = said(&server, &format!("{}\r\n", get("/api/v2/me")));
    idler.read_exact(&mut [0]).unwrap();
    let _half = said(&server, "POST /api/v2/user HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");

    // The rest of a lease is extended by a heartbeat once it is less than two thirds.
    let claimed = age(&server, &task);
    let made = std::thread::scope(|scope| {
        let parked = scope.spawn(|| {
            let (path, body) = (format!("/api/v3/runner/claim?wait={PARKED}"), claim("idle").to_string());
            idle.send("POST", &path, &idle.class, Body::Json(body.as_bytes())).0
        });
        let beat = scope.spawn(|| {
            let id = task["id"].as_str().unwrap();
            let path = format!("/api/v3/runner/tasks/{id}/heartbeat?wait={PARKED}");
            held.send("POST", &path, &task_token, Body::Json(b"{}"))
        });
        let read = scope.spawn(move || {
            let mut text = String::new();
            while stream.read_line(&mut text).unwrap() > 0 {
                text.clear();
            }
        });
        let triggers = scope.spawn(|| trigger_until_gone(&server));
        poll("the parked claim", || {
            let seen = server.call("GET", "/api/v3/runner?namespace=a", None);
            let is_seen = seen["items"].as_array().unwrap().iter().any(|runner| runner["name"] == "idle");
            if is_seen { Ok(()) } else { Err(seen.to_string()) }
        });
        poll("the heartbeat", || match lease(&server, &task) {
            lease if lease > claimed => Ok(()),
            lease => Err(lease.to_string()),
        });
        // Two are there from before. Of a third that is made meanwhile its maker has heard once there is a fourth.
        poll("pipelines that are made meanwhile", || {
            let page = server.call("GET", "/api/v2/project/gh/acme/hello/pipeline", None);
            let count = page["items"].as_array().unwrap().len();
            if count >= 4 { Ok(()) } else { Err(format!("{count} pipelines")) }
        });
        signal(server.child.id(), Signal::TERM);
        assert_eq!(parked.join().unwrap(), 204);
        let (status, answer) = beat.join().unwrap();
        assert_eq!((status, &answer["cancel"]), (200, &json!(false)));
        read.join().unwrap();
        triggers.join().unwrap()
    });
    assert_eq!(wait_end(&mut server.child).code(), Some(0));

    let database = rusqlite::Connection::open(server.folder.path().join("data/runlet.db")).unwrap();
    let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    assert!(!database.prepare("PRAGMA foreign_key_check").unwrap().exists([]).unwrap(), "rows without owner");
    database.close().unwrap();

    server.start_again(&listen);
    // The task that a stranger holds is still its own.
    let path = format!("/api/v3/runner/tasks/{}/finish", task["id"].as_str().unwrap());
    let end = json!({ "status": "success", "events": 0, "steps": [] }).to_string();
    let (status, answer) = held.send("POST", &path, &task_token, Body::Json(end.as_bytes()));
    assert_eq!((status, &answer["answer"]), (200, &json!("confirmed")));
    assert_eq!(server.ended(&other)[0]["status"], "success");
    assert!(!made.is_empty(), "no pipeline was made meanwhile");
    for id in &made {
        let found = server.call("GET", &format!("/api/v2/pipeline/{id}"), None);
        assert_eq!(found["state"], "created", "{found}");
    }
    // Whole ones, all of them: one whose answer was lost on the way may be there as well.
    let page = server.call("GET", "/api/v2/project/gh/acme/hello/pipeline", None);
    for found in page["items"].as_array().unwrap() {
        let path = format!("/api/v2/pipeline/{}/workflow", found["id"].as_str().unwrap());
        assert_eq!(server.call("GET", &path, None)["items"].as_array().unwrap().len(), 1, "{found}");
    }
    // The task that ran all the while comes to its end.
    std::fs::write(go, "").unwrap();
    let jobs = server.ended(&pipeline);
    assert_eq!(jobs[0]["status"], "success", "{jobs:?}");
    let output = server.output(&jobs[0], 1);
    assert!(output.len() == 12_000_000 + "begun\nended\n".len(), "{} bytes", output.len());
    assert!(output.ends_with("xbegun\nended\n"));
}

#[test]
fn an_idle_control_plane_stops_and_closes_its_database() {
    let mut server = Server::start();
    signal(server.child.id(), Signal::TERM);
    assert_eq!(wait_end(&mut server.child).code(), Some(0));
    let left: Vec<_> = std::fs::read_dir(server.folder.path().join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with("-wal") || name.ends_with("-shm"))
        .collect();
    assert!(left.is_empty(), "the database was not closed: {left:?}");
}
