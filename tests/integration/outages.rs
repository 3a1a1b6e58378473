//! Decisions while nobody is heard, over the real API: calls that an end overtakes, retries after the begin,
//! fences, and a control plane that was restored from a backup.

use crate::admin::parsed;
use crate::claims::{Played, answer, bench, call, cancel, claim, job, messages, workflow};
use crate::faults::{Rogue, address_of, until};
use crate::server::Server;
use crate::support::ports;
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

/// `hello`, by its SHA-256.
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// The beginning of a call: its headers, and half of its body.
fn half(task: &Played<'_>, server: &Server, method: &str, rest: &str, body: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address_of(server)).unwrap();
    write!(
        connection,
        "{method} /api/v3/runner/tasks/{}/{rest} HTTP/1.1\r\nHost: x\r\nRunlet-Protocol: 2\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
        task.id,
        task.token.expose(),
        body.len(),
        &body[..body.len() / 2]
    )
    .unwrap();
    connection
}

#[test]
fn an_end_that_overtakes_a_call_decides_about_it() {
    let (server, rogue, pipeline) = bench();
    let task = Played::claim(&server, &rogue, "n-1");
    task.begin("agent-1");
    assert_eq!(task.call("POST", "events", &task.started(0, 1)).0, 200);
    let upload = format!("uploads/{HELLO}?length=5&offset=0");
    let path = format!("/api/v3/runner/tasks/{}/{upload}", task.id);
    assert_eq!(call(&server, "PATCH", &path, &task.token, b"hello").0, 200);
    let archive = json!({ "sha256": HELLO, "length": 5 });
    let other = HELLO.replace('2', "3");
    let calls: [(&str, &str, String, u16); 9] = [
        (
            "POST",
            "artifacts",
            json!({ "path": "a", "sha256": HELLO, "length": 5, "step": 1 }).to_string(),
            409,
        ),
        ("POST", "caches", json!({ "key": "k", "archive": archive, "step": 1 }).to_string(), 409),
        ("POST", "workspace", json!({ "archive": archive, "step": 1 }).to_string(), 409),
        (
            "POST",
            "test-results",
            json!({ "path": "t", "sha256": HELLO, "length": 5, "step": 1 }).to_string(),
            409,
        ),
        ("POST", "caches/find", json!({ "keys": ["k"], "exact": false }).to_string(), 409),
        ("PATCH", &format!("uploads/{other}?length=9&offset=0"), "some".to_owned(), 409),
        ("POST", "finish", json!({ "status": "success", "events": 1, "steps": [] }).to_string(), 409),
        // Output and events of what was lost are taken late.
        ("PATCH", "steps/1/output?offset=0", "late".to_owned(), 200),
        ("POST", "events", task.started(1, 2).to_string(), 200),
    ];
    let begun: Vec<_> =
        calls.iter().map(|(method, rest, body, _)| half(&task, &server, method, rest, body)).collect();
    // The end comes before the bodies are complete, whatever the control plane has done by now.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(task.lost(&task.allocation), 200);
    for (mut connection, (method, rest, body, expected)) in begun.into_iter().zip(&calls) {
        connection.write_all(&body.as_bytes()[body.len() / 2..]).unwrap();
        let (status, head, said) = answer(connection);
        assert_eq!(status, *expected, "{method} {rest} {said}");
        match expected {
            200 => assert!(head.contains("runlet-task: ended"), "{rest} {head}"),
            _ => assert_eq!((&said["code"], &said["late"]), (&json!("task_ended"), &json!(true)), "{rest}"),
        }
    }
    let job = job(&server, &pipeline);
    assert_eq!(job["status"], "infrastructure_fail");
    let id = job["id"].as_str().unwrap();
    let artifacts = server.call("GET", &format!("/api/v3/jobs/{id}/artifacts"), None);
    assert_eq!(artifacts["data"], json!([]), "nothing was stored behind the end");
    assert!(server.text(&format!("/api/v3/jobs/{id}/tests")).is_empty());
}

#[test]
fn where_it_is_wanted_what_was_lost_after_its_begin_runs_again() {
    let (server, rogue, pipeline) = bench();
    let list = server.admin(&["resource-class", "list"], "");
    assert!(list.contains(" 15m ") && list.contains(" off"), "{list}");
    server.admin_fails(&["resource-class", "set-unsafe-retries", "a/b", "maybe"], 2, "`on` nor `off`");
    server.admin(&["resource-class", "set-unsafe-retries", "a/b", "on"], "");
    server.admin(&["resource-class", "set-budget", "a/b", "90m"], "");
    let list = server.admin(&["resource-class", "list"], "");
    assert!(list.contains(" 1h30m ") && list.contains(" on"), "one setting leaves the other: {list}");
    // The second end is said by the agent itself, the others by its runner.
    for attempt in 1..=3 {
        let task = Played::claim(&server, &rogue, &format!("n-{attempt}"));
        task.begin("agent");
        if attempt == 2 {
            let end =
                json!({ "status": "infrastructure_fail", "events": 0, "steps": [], "message": "no space" });
            assert_eq!(task.call("POST", "finish", &end).2["answer"], "confirmed");
            assert_eq!(task.call("POST", "finish", &end).2["answer"], "confirmed", "said again");
        } else {
            assert_eq!(task.lost(&task.allocation), 200);
        }
        let job = job(&server, &pipeline);
        assert_eq!(job["status"], "queued");
        let said = messages(&server, &job);
        assert!(said.contains(&format!("unsafe retries ({attempt} of 3)")), "{said}");
    }
    let last = Played::claim(&server, &rogue, "n-4");
    last.begin("agent");
    assert_eq!(last.lost(&last.allocation), 200);
    assert_eq!(job(&server, &pipeline)["status"], "infrastructure_fail");
    // Not what a job does by itself.
    let pipeline = server.trigger(&until(Path::new("/")));
    let task = Played::claim(&server, &rogue, "n-5");
    task.begin("agent");
    task.call("POST", "finish", &json!({ "status": "failed", "events": 0, "steps": [] }));
    assert_eq!(job(&server, &pipeline)["status"], "failed");
}

#[test]
fn output_that_nobody_has_any_more_is_marked_and_the_end_is_taken() {
    let (server, rogue, pipeline) = bench();
    let task = Played::claim(&server, &rogue, "n-1");
    task.begin("agent");
    assert_eq!(task.call("POST", "events", &task.started(0, 1)).0, 200);
    let path = format!("/api/v3/runner/tasks/{}/steps/1/output?offset=0", task.id);
    assert_eq!(call(&server, "PATCH", &path, &task.token, b"hello").0, 200);
    let finished = json!([{ "number": 1, "at_ms": 2, "event": "step_finished", "step": 1, "status": "success",
        "exit_code": 0, "output_bytes": 1200 }]);
    assert_eq!(task.call("POST", "events", &finished).0, 200);
    // The runner gave the room back that these bytes took; the control plane has lost some of them since.
    let end = |sha256: &str| json!({ "status": "success", "events": 2, "steps": [{ "step": 1, "length": 1200, "sha256": sha256 }] });
    assert_eq!(task.call("POST", "finish", &end(HELLO)).2["answer"], "incomplete", "it may come yet");
    for _ in 0..2 {
        assert_eq!(task.call("POST", "finish", &end("")).2["answer"], "confirmed");
        let output = server.output(&job(&server, &pipeline), 1);
        let mark = "[1195 bytes of output are missing here: the control plane lost them, and the runner had them no longer]";
        assert_eq!(output, format!("hello\n{mark}\n"));
    }
    assert_eq!(job(&server, &pipeline)["status"], "success");
}

#[test]
fn a_cancel_that_overtakes_a_call_is_on_its_answer() {
    let (server, rogue, pipeline) = bench();
    let task = Played::claim(&server, &rogue, "n-1");
    let body = json!({ "agent": "agent-1", "events": [] }).to_string();
    let mut begin = half(&task, &server, "POST", "begin", &body);
    std::thread::sleep(Duration::from_millis(100));
    cancel(&server, &pipeline);
    begin.write_all(&body.as_bytes()[body.len() / 2..]).unwrap();
    let (status, head, refused) = answer(begin);
    assert_eq!((status, &refused["code"]), (409, &json!("task_ended")));
    assert!(head.contains("runlet-task: cancel"), "{head}");
}

#[test]
fn a_cancelled_task_ends_when_its_steps_have_stopped_and_takes_the_rest_of_its_output() {
    let (server, rogue, pipeline) = bench();
    let task = Played::claim(&server, &rogue, "n-1");
    assert_eq!(task.call("POST", "stopped", &json!({})).2["code"], "not_begun");
    task.begin("agent-1");
    assert_eq!(task.call("POST", "events", &task.started(0, 1)).0, 200);
    let output = |offset: usize, bytes: &str| {
        let path = format!("/api/v3/runner/tasks/{}/steps/1/output?offset={offset}", task.id);
        call(&server, "PATCH", &path, &task.token, bytes.as_bytes())
    };
    assert_eq!(output(0, "first,").0, 200);
    // Nobody has cancelled it: then it says nothing.
    let (status, _, answer) = task.call("POST", "stopped", &json!({}));
    assert_eq!((status, &answer["cancel"]), (200, &json!(false)));
    cancel(&server, &pipeline);
    assert_eq!(job(&server, &pipeline)["status"], "running");
    let (status, _, answer) = task.call("POST", "stopped", &json!({}));
    assert_eq!((status, &answer["cancel"]), (200, &json!(true)));
    assert_eq!(job(&server, &pipeline)["status"], "canceled");
    let (_, again) = claim(&server, &rogue, "n-2", "boot-1");
    assert_eq!(again, json!(null), "there is no further attempt");
    let (status, head, _) = output(6, "late");
    assert!(status == 200 && head.contains("runlet-task: ended"), "{status} {head}");
    let (status, _, refused) = task.call("POST", "stopped", &json!({}));
    assert_eq!((status, &refused["code"], &refused["late"]), (409, &json!("task_ended"), &json!(true)));
    assert_eq!(server.output(&job(&server, &pipeline), 1), "first,late");
    // No fence: what replaces it may begin.
    assert_eq!(release_anyway(&server, &job(&server, &pipeline)), 404);
}

/// A person runs a workflow again: status, answer.
fn rerun(server: &Server, workflow: &str, body: &Value) -> (u16, Value) {
    let path = format!("/api/v2/workflow/{workflow}/rerun");
    let (status, _, answer) = call(server, "POST", &path, &server.token, body.to_string().as_bytes());
    (status, answer)
}

/// The only job of a workflow.
fn job_of(server: &Server, workflow: &str) -> Value {
    server.call("GET", &format!("/api/v2/workflow/{workflow}/job"), None)["items"][0].clone()
}

fn release_anyway(server: &Server, job: &Value) -> u16 {
    let path = format!("/api/v3/jobs/{}/release-anyway", job["id"].as_str().unwrap());
    call(server, "POST", &path, &server.token, b"{}").0
}

#[test]
fn what_a_restored_backup_says_waits_for_an_administrator_and_then_for_its_fence() {
    let port = ports::hold();
    let listen = port.address().to_string();
    let mut server = Server::start_with(&["--listen", &listen], None);
    server.project();
    let rogue = Rogue::of(&server, "a/b");
    // Three that run, and one that waits.
    let pipelines: Vec<String> = (0..4).map(|_| server.trigger(&until(Path::new("/")))).collect();
    for name in ["n-1", "n-2", "n-3"] {
        Played::claim(&server, &rogue, name).begin(name);
    }
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    server.start_again_with(&listen, &["--restored"]);
    let held = parsed(&server.admin(&["task", "held", "--json"], ""));
    assert_eq!(held.as_array().map(Vec::len), Some(4), "{held}");
    let ids: Vec<&str> = held.as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap()).collect();
    assert!(server.admin(&["task", "held"], "").contains("rogue"));
    assert_eq!(claim(&server, &rogue, "n-4", "boot-1").0, 204, "nothing is handed out");
    let workflows: Vec<String> = pipelines.iter().map(|pipeline| workflow(&server, pipeline)).collect();
    let (status, refused) = rerun(&server, &workflows[0], &json!({}));
    assert_eq!(status, 409, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("`build`"), "{refused}");

    for id in &ids[..3] {
        server.admin(&["task", "end", id], "");
        server.admin_fails(&["task", "end", id], 4, "it has ended as `infrastructure_fail`");
    }
    let old: Vec<Value> = workflows[..3].iter().map(|workflow| job_of(&server, workflow)).collect();
    assert!(old.iter().all(|job| job["status"] == "infrastructure_fail"), "{old:?}");
    // Their agents may be at work: what is started in their place waits, and says so.
    let again = |workflow: &str, body: &Value| {
        let (status, made) = rerun(&server, workflow, body);
        assert_eq!(status, 202, "{made}");
        job_of(&server, made["workflow_id"].as_str().unwrap())
    };
    let waiting = [again(&workflows[0], &json!({})), again(&workflows[1], &json!({ "from_failed": true }))];
    for (job, old) in waiting.iter().zip(&old) {
        let said = messages(&server, job);
        let path = format!("/api/v3/jobs/{}/release-anyway", old["id"].as_str().unwrap());
        assert!(said.contains(&path), "{said}");
    }
    let (status, early) = claim(&server, &rogue, "n-5", "boot-1");
    assert_eq!(status, 204, "{early}");
    // A person knows better; the second time there is nothing to know.
    assert_eq!((release_anyway(&server, &old[0]), release_anyway(&server, &old[0])), (200, 404));
    let runs = |job: &Value, nonce: &str, boot: &str| {
        let (status, task) = claim(&server, &rogue, nonce, boot);
        assert_eq!(status, 200, "{task}");
        let number = format!("/{}", job["job_number"]);
        assert!(task["job_url"].as_str().unwrap().ends_with(&number), "{task}");
    };
    runs(&waiting[0], "n-6", "boot-1");
    // A person who insists knows it, too.
    runs(&again(&workflows[2], &json!({ "force": true })), "n-7", "boot-1");
    // The machine was started again: nothing of before runs there.
    runs(&waiting[1], "n-8", "boot-2");
    // A task that waited in the backup waits until it is released.
    server.admin(&["task", "release", ids[3]], "");
    runs(&job_of(&server, &workflows[3]), "n-9", "boot-2");
    server.admin_fails(&["task", "release", ids[3]], 4, "is not held");
    server.admin_fails(&["task", "release", "no-task"], 5, "no task with the id `no-task`");
}

/// As if all that waits in a class did so since an hour ago.
fn an_hour_passes(server: &Server, class: &str) {
    let sql =
        "UPDATE tasks SET queued_at_ms = queued_at_ms - 3600000, waits_since_ms = waits_since_ms - 3600000
        WHERE status = 'queued' AND resource_class = ?1";
    assert!(server.database().execute(sql, [class]).unwrap() > 0);
}

/// Waits until the control plane has ended whatever has waited too long by now: another class has such a job, and all are
/// looked at together.
fn waits_are_looked_at(server: &Server) {
    let other = server.trigger(&until(Path::new("/")).replace("a/b", "a/other"));
    an_hour_passes(server, "a/other");
    assert_eq!(server.ended(&other)[0]["status"], "infrastructure_fail");
}

#[test]
fn time_in_which_nobody_may_take_a_job_is_no_wait_for_a_runner() {
    let port = ports::hold();
    let listen = port.address().to_string();
    let mut server = Server::start_with(&["--listen", &listen], None);
    server.project();
    let rogue = Rogue::of(&server, "a/b");
    server.class_token("a/other");
    for class in ["a/b", "a/other"] {
        server.admin(&["resource-class", "set-wait", class, "1m"], "");
    }
    let pipelines: Vec<String> = (0..2).map(|_| server.trigger(&until(Path::new("/")))).collect();
    Played::claim(&server, &rogue, "n-1").begin("agent");
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    server.start_again_with(&listen, &["--restored"]);
    let held = parsed(&server.admin(&["task", "held", "--json"], ""));
    let ids: Vec<&str> = held.as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap()).collect();
    // One waits for the fence of what it replaces, and one for an administrator.
    server.admin(&["task", "end", ids[0]], "");
    let old = job(&server, &pipelines[0]);
    let (status, made) = rerun(&server, &workflow(&server, &pipelines[0]), &json!({}));
    assert_eq!(status, 202, "{made}");
    let again = made["workflow_id"].as_str().unwrap();
    let statuses = || [job_of(&server, again), job(&server, &pipelines[1])].map(|job| job["status"].clone());
    an_hour_passes(&server, "a/b");
    waits_are_looked_at(&server);
    assert_eq!(statuses(), ["queued", "queued"]);
    assert_eq!(release_anyway(&server, &old), 200);
    server.admin(&["task", "release", ids[1]], "");
    waits_are_looked_at(&server);
    assert_eq!(statuses(), ["queued", "queued"], "when the fence is gone, and when it is released");
    server.admin(&["runner", "pause", "a/b"], "");
    an_hour_passes(&server, "a/b");
    waits_are_looked_at(&server);
    assert_eq!(statuses(), ["queued", "queued"], "while the class is paused");
    server.admin(&["runner", "resume", "a/b"], "");
    waits_are_looked_at(&server);
    assert_eq!(statuses(), ["queued", "queued"], "when the class goes on");
    an_hour_passes(&server, "a/b");
    // It has never been paused since.
    server.admin(&["runner", "resume", "a/b"], "");
    waits_are_looked_at(&server);
    assert_eq!(statuses(), ["infrastructure_fail", "infrastructure_fail"]);
}

#[test]
fn a_job_that_no_runner_could_take_is_refused_before_it_begins() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".circleci")).unwrap();
    let command = "x".repeat(450_000);
    let steps = "      - long\n".repeat(20);
    let config = format!(
        "version: 2.1\ncommands: {{long: {{steps: [{{run: {command}}}]}}}}\njobs:\n  build:\n    machine: true\n    steps:\n{steps}workflows: {{w: {{jobs: [build]}}}}\n"
    );
    std::fs::write(folder.path().join(".circleci/config.yml"), config).unwrap();
    let output =
        crate::server::runlet().arg("exec").arg(folder.path()).stderr(std::process::Stdio::piped()).output();
    let output = output.unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains("8388608"), "{said}");
}
