//! Redirects in place of answers, and refusals in the middle of a task: nothing is given up for what no control plane has
//! said, and what was said is told.

use crate::support::control_plane::ControlPlane;
use crate::support::poll;
use crate::support::runner::{Machine, Running, task_of};
use runlet::protocol::Task;
use std::fs;

/// A runner of one task, which has begun and ends when the file `go` is there.
fn running(server: &ControlPlane, id: &str, budget_seconds: u32) -> Running {
    let machine = Machine::new(&server.url()).setting("mode", "single-task");
    let (go, stopped) = (machine.path("go"), machine.path("stopped"));
    let step = format!(
        "trap 'echo > {}; exit 1' TERM; echo begun; until test -e {}; do sleep 0.05; done; echo done",
        stopped.display(),
        go.display()
    );
    server.offer(&Task { budget_seconds, heartbeat_wait_seconds: 1, ..task_of(id, &[&step]) });
    let runner = machine.start();
    poll("output of the step", || match server.output(id, 1).as_str() {
        "begun\n" => Ok(()),
        other => Err(format!("{other}\n{}", runner.log())),
    });
    runner
}

/// How often a call was made.
fn count(server: &ControlPlane, end: &str) -> usize {
    server.requests().iter().filter(|request| request.path.contains(end)).count()
}

#[test]
fn a_redirect_is_no_answer_whoever_it_seems_to_be_of() {
    let server = ControlPlane::start();
    let mut runner = running(&server, "r-1", 900);
    server.redirect("/tasks/r-1/", 302, "https://login.test/");
    let before = count(&server, "/heartbeat");
    poll("further heartbeats", || match count(&server, "/heartbeat") - before {
        0..=2 => Err(runner.log()),
        _ => Ok(()),
    });
    server.behave();
    fs::write(runner.machine.path("go"), "").unwrap();
    assert_eq!(server.wait_finished("r-1")["status"], "success", "{}", runner.log());
    assert_eq!(server.output("r-1", 1), "begun\ndone\n");
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn a_task_that_was_stopped_since_calls_are_redirected_says_so() {
    let server = ControlPlane::start();
    let mut runner = running(&server, "r-2", 60);
    server.redirect("/tasks/r-2/", 307, "https://login.test/");
    runner.wait_file("stopped");
    server.behave();
    let finished = server.wait_finished("r-2");
    assert_eq!(finished["status"], "infrastructure_fail", "{finished}");
    let message = finished["message"].as_str().unwrap();
    for part in [
        "no answer from the control plane for ",
        "status 307, a redirect to `https://login.test/`",
        "calls itself `acme-gateway`",
        "check `api.url`",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn a_task_whose_calls_are_refused_is_lost_with_the_refusal() {
    let server = ControlPlane::start();
    let mut runner = running(&server, "r-3", 900);
    server.answer("/tasks/r-3/heartbeat", 403, r#"{"message":"no agent may call from there"}"#);
    let lost = server.wait_for("/tasks/r-3/lost").json()["message"].as_str().unwrap().to_owned();
    assert!(lost.contains("status 403") && lost.contains("no agent may call from there"), "{lost}");
    assert_eq!(runner.wait(), Some(0));
}
