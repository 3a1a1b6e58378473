//! The rules of a claim over the real API: what begins, goes back, is cancelled, lost, repeated and late.

use crate::faults::{Rogue, until};
use crate::server::Server;
use crate::storage::{faults, upkeep};
use runlet::protocol::Secret;
use runlet::protocol::limits::HEADER_BYTES;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

/// A runner of protocol 2 that the test plays itself, and the task that it got.
pub(crate) struct Played<'a> {
    server: &'a Server,
    rogue: &'a Rogue,
    pub(crate) id: String,
    pub(crate) token: Secret,
    pub(crate) allocation: String,
}

/// A call as a runner of protocol 2 makes it: status, headers in lower case, and body.
pub(crate) fn call(
    server: &Server,
    method: &str,
    path: &str,
    token: &Secret,
    body: &[u8],
) -> (u16, String, Value) {
    let mut connection = TcpStream::connect(crate::faults::address_of(server)).unwrap();
    write!(
        connection,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nRunlet-Protocol: 2\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        token.expose(),
        body.len()
    )
    .unwrap();
    connection.write_all(body).unwrap();
    answer(connection)
}

pub(crate) fn answer(mut connection: TcpStream) -> (u16, String, Value) {
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), serde_json::from_str(body).unwrap_or_default())
}

pub(crate) fn claim(server: &Server, rogue: &Rogue, nonce: &str, boot: &str) -> (u16, Value) {
    claim_as(server, rogue, ("rogue", 0), nonce, boot)
}

/// A claim of the runner of this name, which waits for so many seconds.
fn claim_as(
    server: &Server,
    rogue: &Rogue,
    (name, wait): (&str, u32),
    nonce: &str,
    boot: &str,
) -> (u16, Value) {
    let body = json!({ "name": name, "hostname": "h", "version": "0", "os": "linux", "arch": "x86_64", "nonce": nonce,
        "machine_id": "0123456789abcdef0123456789abcdef", "boot_id": boot });
    let path = format!("/api/v3/runner/claim?wait={wait}");
    let (status, head, answer) = call(server, "POST", &path, &rogue.class, body.to_string().as_bytes());
    assert!(head.contains("\r\nrunlet-protocol: 2"), "{head}");
    if let (200, Some(id), Some(allocation)) = (status, answer["id"].as_str(), answer["allocation"].as_str())
    {
        assert!(head.contains(&format!("\r\nrunlet-claimed: {id} {allocation}\r\n")), "{head}");
    }
    (status, answer)
}

impl<'a> Played<'a> {
    pub(crate) fn claim(server: &'a Server, rogue: &'a Rogue, nonce: &str) -> Self {
        let (status, task) = claim(server, rogue, nonce, "boot-1");
        assert_eq!(status, 200, "{task}");
        Self::of(server, rogue, &task)
    }

    /// With the task that a claim has got.
    pub(crate) fn of(server: &'a Server, rogue: &'a Rogue, task: &Value) -> Self {
        let text = |name: &str| task[name].as_str().unwrap().to_owned();
        Self {
            server,
            rogue,
            id: text("id"),
            token: Secret::new(text("token")),
            allocation: text("allocation"),
        }
    }

    pub(crate) fn call(&self, method: &str, rest: &str, body: &Value) -> (u16, String, Value) {
        let path = format!("/api/v3/runner/tasks/{}/{rest}", self.id);
        call(self.server, method, &path, &self.token, body.to_string().as_bytes())
    }

    pub(crate) fn begin(&self, agent: &str) -> (u16, String, Value) {
        self.call("POST", "begin", &json!({ "agent": agent, "events": [] }))
    }

    fn give_back(&self, pause: u32) -> (u16, Value) {
        let body = json!({ "task_id": self.id, "task_token": self.token.expose(), "reason": "host",
            "message": "no space left", "pause_seconds": pause });
        let body = body.to_string();
        let (status, _, answer) =
            call(self.server, "POST", "/api/v3/runner/unclaim", &self.token, body.as_bytes());
        (status, answer)
    }

    fn heartbeat(&self) -> (u16, String, Value) {
        self.call("POST", "heartbeat?wait=0", &json!({}))
    }

    pub(crate) fn lost(&self, allocation: &str) -> u16 {
        let body = json!({ "id": self.id, "allocation": allocation, "message": "the agent is gone" });
        let path = format!("/api/v3/runner/tasks/{}/lost", self.id);
        call(self.server, "POST", &path, &self.rogue.class, body.to_string().as_bytes()).0
    }

    pub(crate) fn started(&self, number: u64, step: u32) -> Value {
        json!([{ "number": number, "at_ms": 1, "event": "step_started", "step": step, "name": "s", "kind": "run",
            "attempt": 1, "max_auto_reruns": 0, "background": false }])
    }
}

pub(crate) fn bench() -> (Server, Rogue, String) {
    let server = Server::start();
    server.project();
    let rogue = Rogue::of(&server, "a/b");
    let pipeline = server.trigger(&until(Path::new("/")));
    (server, rogue, pipeline)
}

pub(crate) fn workflow(server: &Server, pipeline: &str) -> String {
    let found = server.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
    found["items"][0]["id"].as_str().unwrap().to_owned()
}

pub(crate) fn job(server: &Server, pipeline: &str) -> Value {
    let path = format!("/api/v2/workflow/{}/job", workflow(server, pipeline));
    server.call("GET", &path, None)["items"][0].clone()
}

/// Messages that people see with the job.
pub(crate) fn messages(server: &Server, job: &Value) -> String {
    let path = format!("/api/v2/project/{}/job/{}", job["project_slug"].as_str().unwrap(), job["job_number"]);
    server.call("GET", &path, None)["messages"].to_string()
}

pub(crate) fn cancel(server: &Server, pipeline: &str) {
    server.call("POST", &format!("/api/v2/workflow/{}/cancel", workflow(server, pipeline)), None);
}

#[test]
fn nothing_runs_before_begin_and_a_second_agent_never_begins() {
    let (server, rogue, _) = bench();
    let task = Played::claim(&server, &rogue, "n-1");
    // The spin-up record binds nothing.
    assert_eq!(task.call("POST", "events", &task.started(0, 0)).0, 200);
    assert_eq!(task.call("PATCH", "steps/0/output?offset=0", &json!("x")).0, 200);
    for (method, rest, body) in [
        ("POST", "events", task.started(1, 1)),
        ("PATCH", "steps/1/output?offset=0", json!("x")),
        ("POST", "finish", json!({ "status": "success", "events": 1, "steps": [] })),
        ("POST", "caches/find", json!({ "keys": ["a"], "exact": false })),
        ("GET", "workspace", json!({})),
    ] {
        let (status, _, answer) = task.call(method, rest, &body);
        assert_eq!((status, &answer["code"]), (409, &json!("not_begun")), "{rest} {answer}");
    }
    let (status, _, begun) = task.begin("agent-1");
    assert_eq!((status, &begun["next"], &begun["cancel"]), (200, &json!(1), &json!(false)), "{begun}");
    assert_eq!(task.begin("agent-1").2, begun, "the answer was lost");
    let (status, _, refused) = task.begin("agent-2");
    assert_eq!((status, &refused["code"]), (409, &json!("task_ended")));
    let (status, refused) = task.give_back(0);
    assert_eq!((status, &refused["code"]), (409, &json!("begun")), "the steps would run twice");
    assert_eq!(task.call("POST", "events", &task.started(1, 1)).0, 200);
    // The nonce is known: whoever asks with it is told what it got.
    let (status, holds) = claim(&server, &rogue, "n-1", "boot-1");
    assert_eq!((status, &holds["code"]), (409, &json!("holds_task")));
    assert_eq!((&holds["task"]["id"], &holds["task"]["ended"]), (&json!(task.id), &json!(false)));
}

#[test]
fn a_cancelled_task_is_never_handed_out_again() {
    let (server, rogue, pipeline) = bench();
    let task = Played::claim(&server, &rogue, "n-1");
    cancel(&server, &pipeline);
    assert_eq!(job(&server, &pipeline)["status"], "canceled", "at once: nobody has begun");
    let (status, head, refused) = task.begin("agent-1");
    assert_eq!((status, &refused["code"]), (409, &json!("task_ended")));
    assert!(head.contains("runlet-task: cancel"), "{head}");
    let (status, answer) = task.give_back(0);
    assert_eq!((status, &answer["outcome"]), (200, &json!("canceled")));
    assert_eq!(claim(&server, &rogue, "n-2", "boot-1").0, 204);
}

#[test]
fn a_cancel_is_on_every_answer_until_the_agent_confirms_it() {
    let (server, rogue, pipeline) = bench();
    let task = Played::claim(&server, &rogue, "n-1");
    task.begin("agent-1");
    cancel(&server, &pipeline);
    for (method, rest) in
        [("POST", "caches/find"), ("GET", "workspace"), ("GET", "workspace/none?offset=0&most=1")]
    {
        let body = json!({ "keys": ["a"], "exact": false });
        let (_, head, _) = task.call(method, rest, &body);
        assert!(head.contains("runlet-task: cancel"), "{rest} {head}");
    }
    let (status, _, beat) = task.heartbeat();
    assert_eq!((status, &beat["cancel"]), (200, &json!(true)));
    let finish = json!({ "status": "success", "events": 0, "steps": [] });
    for _ in 0..2 {
        assert_eq!(task.call("POST", "finish", &finish).2["answer"], "confirmed");
    }
    assert_eq!(job(&server, &pipeline)["status"], "canceled");
    let (status, _, over) = task.call("POST", "events", &task.started(0, 1));
    assert_eq!((status, &over["code"], &over["late"]), (409, &json!("task_ended"), &Value::Null));
}

#[test]
fn what_is_lost_is_lost_by_its_allocation_and_its_output_comes_late() {
    let (server, rogue, pipeline) = bench();
    let task = Played::claim(&server, &rogue, "n-1");
    task.begin("agent-1");
    task.call("POST", "events", &task.started(0, 1));
    assert_eq!(task.lost("another"), 409);
    let body = json!({ "id": "none", "allocation": "a", "message": "m" }).to_string();
    let unknown = call(&server, "POST", "/api/v3/runner/tasks/none/lost", &rogue.class, body.as_bytes());
    assert_eq!(unknown.0, 404);
    assert_eq!(task.lost(&task.allocation), 200);
    assert_eq!(task.lost(&task.allocation), 200, "said again");
    assert_eq!(job(&server, &pipeline)["status"], "infrastructure_fail");
    let (status, head, _) = task.call("PATCH", "steps/1/output?offset=0", &json!("late"));
    assert_eq!(status, 200);
    assert!(head.contains("runlet-task: ended"), "{head}");
    let ended =
        json!([{ "number": 1, "at_ms": 2, "event": "step_finished", "step": 1, "status": "success" }]);
    assert_eq!(task.call("POST", "events", &ended).0, 200);
    // No step of a task that has ended runs, whatever its agent says last, and any time and length can be shown.
    let mut mad = task.started(2, 2);
    mad[0]["at_ms"] = json!(u64::MAX);
    mad.as_array_mut().unwrap().push(json!({ "number": 3, "at_ms": 3, "event": "step_finished", "step": 1,
        "status": "success", "output_bytes": u64::MAX }));
    assert_eq!(task.call("POST", "events", &mad).0, 200);
    let number = job(&server, &pipeline)["job_number"].to_string();
    let shown = server.call("GET", &format!("/api/v1.1/project/gh/acme/hello/{number}"), None).to_string();
    assert!(shown.contains("9999-12-31") && !shown.contains("\"running\""), "{shown}");
    for (method, rest, body) in [
        ("POST", "heartbeat?wait=0", json!({})),
        ("POST", "finish", json!({ "status": "success", "events": 2, "steps": [] })),
        ("GET", "workspace", json!({})),
    ] {
        let (status, _, refused) = task.call(method, rest, &body);
        assert_eq!(
            (status, &refused["code"], &refused["late"]),
            (409, &json!("task_ended"), &json!(true)),
            "{rest}"
        );
    }
    assert_eq!(job(&server, &pipeline)["status"], "infrastructure_fail", "its status never changes");
}

/// Lets so many seconds pass since a task ended, as the database has it.
fn since_its_end(server: &Server, task: &Played<'_>, seconds: i64) {
    let database = server.database();
    let aged = "UPDATE tasks SET stopped_at_ms = (unixepoch() - ?2) * 1000 WHERE id = ?1";
    assert_eq!(database.execute(aged, (&task.id, seconds)).unwrap(), 1);
}

/// The end of the lease of a task, in milliseconds since 1970.
fn lease_of(server: &Server, task: &Played<'_>) -> i64 {
    let lease = "SELECT lease_until_ms FROM tasks WHERE id = ?1";
    server.database().query_row(lease, [&task.id], |row| row.get(0)).unwrap()
}

/// Has the lease of a task end sooner or later, as the database has it.
fn move_lease(server: &Server, task: &Played<'_>, by_ms: i64) -> i64 {
    let moved =
        "UPDATE tasks SET lease_until_ms = lease_until_ms + ?2 WHERE id = ?1 RETURNING lease_until_ms";
    server.database().query_row(moved, (&task.id, by_ms), |row| row.get(0)).unwrap()
}

#[test]
fn a_held_heartbeat_renews_the_lease_when_it_comes_and_when_it_goes() {
    let (server, rogue, pipeline) = bench();
    let task = Played::claim(&server, &rogue, "n-1");
    task.begin("agent-1");
    // Once the lease has nothing left, its renewal tells that the heartbeat is there; it is made short again while that
    // is held, by a time that no renewal could come to by itself.
    let short = move_lease(&server, &task, -30_000);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| task.call("POST", "heartbeat?wait=55", &json!({})));
        while lease_of(&server, &task) == short {
            assert!(!held.is_finished(), "it was not held");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let came = lease_of(&server, &task);
        move_lease(&server, &task, -30_000);
        // A cancel by itself renews no lease.
        cancel(&server, &pipeline);
        let (status, _, answer) = held.join().unwrap();
        assert_eq!((status, &answer["cancel"]), (200, &json!(true)), "{answer}");
        assert!(lease_of(&server, &task) > came, "it was renewed with the time at which the call came");
    });
    // A longer lease stays.
    let long = move_lease(&server, &task, 600_000);
    assert_eq!((task.heartbeat().0, lease_of(&server, &task)), (200, long));
}

#[test]
fn a_call_that_is_refused_changes_nothing() {
    let (server, rogue, pipeline) = bench();
    let task = Played::claim(&server, &rogue, "n-1");
    task.begin("agent-1");
    let unreachable = "UPDATE tasks SET status = 'unreachable', unreachable_since_ms = 1 WHERE id = ?1";
    server.database().execute(unreachable, [&task.id]).unwrap();
    let lease = move_lease(&server, &task, -30_000);
    let state = || -> String {
        let state = "SELECT status FROM tasks WHERE id = ?1";
        server.database().query_row(state, [&task.id], |row| row.get(0)).unwrap()
    };
    let (status, _, refused) = task.begin("agent-2");
    assert_eq!((status, &refused["code"]), (409, &json!("task_ended")), "{refused}");
    assert_eq!(task.call("POST", "events", &json!({ "no": "events" })).0, 422);
    assert_eq!((state().as_str(), lease_of(&server, &task)), ("unreachable", lease));
    assert!(!messages(&server, &job(&server, &pipeline)).contains("heard of again"));
    // The agent of the task is heard of again, by any call that is taken.
    assert_eq!(task.call("GET", "workspace", &json!({})).0, 200);
    assert!(state() == "running" && lease_of(&server, &task) > lease);
    assert!(messages(&server, &job(&server, &pipeline)).contains("heard of again"));
}

#[test]
fn what_comes_late_is_taken_for_a_day_and_no_longer() {
    let (server, rogue, pipeline) = bench();
    let task = Played::claim(&server, &rogue, "n-1");
    task.begin("agent-1");
    task.call("POST", "events", &task.started(0, 1));
    assert_eq!(task.lost(&task.allocation), 200);
    let output = |at: u64, text: &str| {
        let path = format!("/api/v3/runner/tasks/{}/steps/1/output?offset={at}", task.id);
        call(&server, "PATCH", &path, &task.token, text.as_bytes())
    };
    let day = 24 * 60 * 60;
    // Room for a machine that is slow, on the side that is asked about.
    since_its_end(&server, &task, day - 600);
    let (status, head, _) = output(0, "in time ");
    assert!(status == 200 && head.contains("runlet-task: ended"), "{status} {head}");
    assert_eq!(task.call("POST", "events", &task.started(1, 2)).0, 200);
    since_its_end(&server, &task, day + 1);
    for (status, _, refused) in [output(8, "too late"), task.call("POST", "events", &task.started(2, 3))] {
        assert_eq!((status, &refused["code"]), (409, &json!("task_ended")), "{refused}");
        assert_eq!(refused["late"], Value::Null, "{refused}");
    }
    let job = job(&server, &pipeline);
    assert_eq!(
        (&job["status"], server.output(&job, 1)),
        (&json!("infrastructure_fail"), "in time ".to_owned())
    );
}

#[test]
fn a_task_goes_back_so_often_and_no_more_and_says_why() {
    let (server, rogue, pipeline) = bench();
    for attempt in 0..10 {
        let task = Played::claim(&server, &rogue, &format!("n-{attempt}"));
        assert_eq!(task.give_back(600), (200, json!({ "outcome": "queued" })), "{attempt}");
        let (status, _, refused) = task.begin("agent-1");
        assert_eq!((status, &refused["code"]), (409, &json!("task_ended")));
    }
    let task = Played::claim(&server, &rogue, "last");
    assert_eq!(task.give_back(0).1["outcome"], "failed");
    let job = job(&server, &pipeline);
    assert_eq!(job["status"], "infrastructure_fail");
    assert!(messages(&server, &job).contains("no space left"), "{}", messages(&server, &job));
}

#[test]
fn what_is_too_long_in_an_event_is_cut_where_it_is_stored() {
    let (server, rogue, pipeline) = bench();
    let task = Played::claim(&server, &rogue, "n-1");
    task.begin("agent-1");
    let long = "x".repeat(1_000_000);
    let mut started = task.started(0, 1);
    (started[0]["name"], started[0]["command"]) = (json!(long), json!(long));
    assert_eq!(task.call("POST", "events", &started).0, 200);
    let end = json!({ "status": "failed", "events": 1, "steps": [], "message": long });
    assert_eq!(task.call("POST", "finish", &end).2["answer"], "confirmed");
    let job = job(&server, &pipeline);
    let shown =
        server.call("GET", &format!("/api/v3/jobs/{}", job["id"].as_str().unwrap()), None).to_string();
    let marks = shown.matches(" [cut here: it has 1000000 bytes]").count();
    assert!(
        marks >= 1 && shown.contains(" [...]") && shown.len() < 100_000,
        "{marks} in {} bytes",
        shown.len()
    );
}

#[test]
fn a_host_that_was_restarted_has_lost_what_it_ran() {
    let (server, rogue, pipeline) = bench();
    let task = Played::claim(&server, &rogue, "n-1");
    task.begin("agent-1");
    assert_eq!(claim(&server, &rogue, "n-2", "boot-1").0, 204);
    assert_eq!(job(&server, &pipeline)["status"], "running", "a name alone ends nothing");
    assert_eq!(claim(&server, &rogue, "n-3", "boot-2").0, 204);
    assert_eq!(job(&server, &pipeline)["status"], "infrastructure_fail");
}

#[test]
fn a_claim_of_before_a_restart_ends_nothing_and_gets_nothing() {
    let (server, rogue, pipeline) = bench();
    let running = Played::claim(&server, &rogue, "n-1");
    running.begin("agent-1");
    std::thread::scope(|scope| {
        let parked = scope.spawn(|| claim_as(&server, &rogue, ("other", 55), "n-2", "boot-1"));
        let seen = "SELECT count(*) FROM runner_instances WHERE name = 'other'";
        while server.database().query_row(seen, [], |row| row.get::<_, u32>(0)).unwrap() == 0 {
            assert!(!parked.is_finished(), "it is not parked");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        // The host is started again, without a word to the connection of the other runner there.
        assert_eq!(claim(&server, &rogue, "n-3", "boot-2").0, 204);
        assert_eq!(job(&server, &pipeline)["status"], "infrastructure_fail");
        let second = server.trigger(&until(Path::new("/")));
        // Whichever claim that wakes, the one of the host as it is now gets the task.
        let (status, parked) = parked.join().unwrap();
        assert_eq!((status, &parked), (204, &Value::Null), "an answer that nobody hears");
        let (status, task) = claim(&server, &rogue, "n-4", "boot-2");
        assert_eq!(status, 200, "{task}");
        Played::of(&server, &rogue, &task).begin("agent-2");
        assert_eq!(job(&server, &second)["status"], "running");
    });
}

#[test]
fn a_claim_that_is_said_again_has_waited_once() {
    let (server, rogue, _) = bench();
    let first = claim(&server, &rogue, "n-1", "boot-1");
    assert_eq!(claim(&server, &rogue, "n-1", "boot-1").1["allocation"], first.1["allocation"]);
    let page = String::from_utf8(server.text("/metrics")).unwrap();
    assert!(page.contains("\nrunlet_task_wait_seconds_count 1\n"), "{page}");
}

#[test]
fn an_output_is_marked_as_incomplete_when_its_task_ends_and_not_before() {
    let (server, rogue, pipeline) = bench();
    let task = Played::claim(&server, &rogue, "n-1");
    task.begin("agent-1");
    task.call("POST", "events", &task.started(0, 1));
    let output = format!("/api/v3/runner/tasks/{}/steps/1/output?offset=0", task.id);
    assert_eq!(call(&server, "PATCH", &output, &task.token, b"here").0, 200);
    let finish = |events: u32| {
        let steps = json!([{ "step": 1, "length": 9, "sha256": "" }]);
        task.call("POST", "finish", &json!({ "status": "failed", "events": events, "steps": steps })).2
    };
    assert_eq!(finish(2)["answer"], "incomplete");
    let shown = || server.output(&job(&server, &pipeline), 1);
    assert_eq!(shown(), "here");
    let ended = json!([{ "number": 1, "at_ms": 2, "event": "step_finished", "step": 1, "status": "failed" }]);
    assert_eq!(task.call("POST", "events", &ended).0, 200);
    for _ in 0..2 {
        assert_eq!(finish(2)["answer"], "confirmed");
        assert!(shown().starts_with("here\n[5 bytes of output are missing here"), "{}", shown());
    }
}

#[test]
fn a_task_whose_answer_has_become_too_long_ends_and_says_so() {
    let (server, rogue, pipeline) = bench();
    let task = Played::claim(&server, &rogue, "n-1");
    // In JSON such a character has six bytes.
    for number in 0..90 {
        let variable = json!({ "name": format!("V{number}"), "value": "\u{1}".repeat(32_768) });
        server.call("POST", "/api/v2/project/gh/acme/hello/envvar", Some(variable));
    }
    let path = format!("/api/v3/runner/tasks/{}", task.id);
    for _ in 0..2 {
        let (status, _, refused) = call(&server, "GET", &path, &task.token, b"");
        assert_eq!((status, &refused["code"]), (409, &json!("task_ended")), "{refused}");
    }
    let job = job(&server, &pipeline);
    assert_eq!(job["status"], "infrastructure_fail");
    let told = messages(&server, &job);
    assert!(told.contains("cannot be handed out") && told.contains("the limit is 16777216"), "{told}");
}

#[test]
fn offsets_that_overflow_are_refused() {
    let (server, rogue, _) = bench();
    let task = Played::claim(&server, &rogue, "n-1");
    task.begin("agent-1");
    let (status, _, refused) =
        task.call("PATCH", &format!("steps/1/output?offset={}", u64::MAX), &json!("text"));
    assert_eq!((status, &refused["code"]), (413, &json!("too_large")));
}

#[test]
fn every_answer_says_that_it_comes_from_a_control_plane() {
    let (server, _, _) = bench();
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(2 * HEADER_BYTES));
    for (request, expected) in [
        ("GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
        ("GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        ("PUT /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405),
        ("POST /api/v3/runner/claim HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 401),
        ("this is no HTTP\r\n\r\n", 400),
        (long.as_str(), 431),
    ] {
        let mut connection = TcpStream::connect(crate::faults::address_of(&server)).unwrap();
        // The other side may have answered and closed before all of it is sent.
        let _ = connection.write_all(request.as_bytes());
        let mut text = Vec::new();
        let _ = connection.read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text).to_ascii_lowercase();
        assert!(text.starts_with(&format!("http/1.1 {expected} ")), "{expected}: {text}");
        assert!(text.contains("\r\nrunlet-protocol: 2\r\n"), "{expected}: {text}");
    }
}

#[test]
fn a_class_that_is_deleted_ends_what_waits_for_it() {
    let (server, rogue, pipeline) = bench();
    let claimed = server.trigger(&until(Path::new("/")));
    let task = Played::claim(&server, &rogue, "n-1");
    let (claimed, pipeline) = match job(&server, &claimed)["status"].as_str() {
        Some("running") => (claimed, pipeline),
        _ => (pipeline, claimed),
    };
    let classes = server.call("GET", "/api/v3/runner/resource", None);
    let found = classes["items"].as_array().unwrap().iter().find(|class| class["resource_class"] == "a/b");
    let path = format!("/api/v3/runner/resource/{}", found.unwrap()["id"].as_str().unwrap());
    server.call("PATCH", &path, Some(json!({ "budget_seconds": 7200 })));
    server.call("DELETE", &format!("{path}/force"), None);
    let job = job(&server, &pipeline);
    assert_eq!(job["status"], "failed");
    assert!(messages(&server, &job).contains("was deleted"), "{}", messages(&server, &job));
    // A task that is given back has nobody to wait for.
    task.give_back(0);
    let job = self::job(&server, &claimed);
    assert_eq!(job["status"], "failed");
    assert!(messages(&server, &job).contains("was deleted"), "{}", messages(&server, &job));
}

#[test]
fn what_an_agent_leaves_out_is_no_success_and_spoils_no_backup() {
    let server = Server::start();
    server.project();
    let rogue = Rogue::of(&server, "a/b");
    let finished = json!([{ "number": 1, "at_ms": 2, "event": "step_finished", "step": 1, "status": "success",
        "exit_code": 0, "output_bytes": 10 }]);
    // Nobody has the rest of the output any more; a step has not ended; a step with output is not named.
    for (nonce, ends, steps, status, message) in [
        ("n-1", true, json!([{ "step": 1, "length": 10, "sha256": "" }]), "success", ""),
        (
            "n-2",
            false,
            json!([{ "step": 1, "length": 0, "sha256": "" }]),
            "infrastructure_fail",
            "had not ended",
        ),
        ("n-3", true, json!([]), "infrastructure_fail", "did not account for 10 bytes of output of step 1"),
    ] {
        let pipeline = server.trigger(&until(Path::new("/")));
        let task = Played::claim(&server, &rogue, nonce);
        assert_eq!(task.begin("agent").0, 200);
        assert_eq!(task.call("POST", "events", &task.started(0, 1)).0, 200);
        if ends {
            assert_eq!(task.call("PATCH", "steps/1/output?offset=0", &json!("x")).0, 200);
            assert_eq!(task.call("POST", "events", &finished).0, 200);
        }
        let too_long = json!([{ "step": 1, "length": u64::MAX, "sha256": "" }]);
        let events = if ends { 2 } else { 1 };
        let finish = |steps: &Value| {
            task.call("POST", "finish", &json!({ "status": "success", "events": events, "steps": steps }))
        };
        assert_eq!(finish(&too_long).0, 413);
        let (code, _, answer) = finish(&steps);
        assert_eq!((code, &answer["answer"]), (200, &json!("confirmed")), "{answer}");
        let job = job(&server, &pipeline);
        let shown = if status == "success" { status } else { "infrastructure_fail" };
        assert_eq!(job["status"], shown, "{job}");
        assert!(messages(&server, &job).contains(message), "{}", messages(&server, &job));
    }
    assert_eq!(faults(&server.data()), []);
    let copy = server.folder.path().join("backup");
    let backup = upkeep("backup", &[Path::new("--data"), &server.data(), &copy]);
    assert!(backup.status.success(), "{}", String::from_utf8_lossy(&backup.stderr));
    let restored = upkeep("restore", &[Path::new("--data"), &server.folder.path().join("restored"), &copy]);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
}
