//! Status of a runner while it works, the gates that keep it from claiming, and what its log and its jobs are told.

use crate::support::control_plane::ControlPlane;
use crate::support::poll;
use crate::support::runner::{Machine, Running, task, task_of};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

/// Waits until the runner shows this state, and returns all that it shows.
fn wait_state(runner: &Running, state: &str) -> Value {
    poll(&format!("the state `{state}`"), || {
        let (code, out, err) = runner.machine.ask(&["status", "--json"]);
        let shown: Value = serde_json::from_str(&out).unwrap_or_default();
        if code == Some(0) && shown["state"] == state { Ok(shown) } else { Err(out + &err + &runner.log()) }
    })
}

fn get(address: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_runner_shows_what_it_does_and_why() {
    let server = ControlPlane::start();
    let machine = Machine::new(&server.url());
    let textfile = machine.path("runlet.prom");
    let mut runner = machine
        .variable("CIRCLECI_RUNNER_STATUS_LISTEN", "127.0.0.1:0")
        .variable("CIRCLECI_RUNNER_STATUS_MODE", "0640")
        .variable("CIRCLECI_RUNNER_STATUS_TEXTFILE", &textfile.display().to_string())
        .variable("CIRCLECI_RUNNER_STATUS_SOCKET", &textfile.with_extension("sock").display().to_string())
        .start();
    let shown = wait_state(&runner, "idle");
    assert_eq!((&shown["name"], &shown["resource_class"]), (&"tester".into(), &"acme/linux".into()));
    assert!(shown["task"].is_null() && !shown.to_string().contains("class-token"), "{shown}");
    let mode = std::fs::metadata(textfile.with_extension("sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    server.offer(&task_of("st-1", &["while ! test -e go; do sleep 0.05; done"]));
    let shown = wait_state(&runner, "running");
    assert_eq!(shown["task"]["job"], "build");
    let log = runner.wait_log("answering at http://");
    let address = log.split("answering at http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    assert!(get(&address, "/live").starts_with("HTTP/1.1 200 OK"));
    assert!(get(&address, "/ready").starts_with("HTTP/1.1 200 OK"));
    assert!(get(&address, "/token").starts_with("HTTP/1.1 404"));
    // The folder comes with the task agent.
    let go = runner.machine.path("work/go");
    poll("the working directory", || std::fs::write(&go, "").map_err(|error| error.to_string()));
    runner.wait_log("task done task_id=st-1");
    assert!(runner.log().contains(" outcome=success job=build took="), "{}", runner.log());
    let metrics = poll("the task in the metrics", || {
        let page = get(&address, "/metrics");
        if page.contains("runlet_tasks_total{result=\"success\"} 1\n") { Ok(page) } else { Err(page) }
    });
    assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    assert!(
        metrics.contains("runlet_claims_total{result=\"task\"} 1\n") && !metrics.contains("build\""),
        "{metrics}"
    );
    let text = std::fs::read_to_string(&textfile).unwrap();
    assert!(text.starts_with("# HELP runlet_build_info") && text.ends_with('\n'), "{text}");
    let (_, text, _) = runner.machine.ask(&["status"]);
    assert!(text.starts_with("tester acme/linux: ") && text.contains("ended: success"), "{text}");
    assert!(runner.log().contains(" resource_class=acme/linux "), "{}", runner.log());
    // A caller who says nothing, or too much, holds nobody up for long.
    let _silent = TcpStream::connect(&address).unwrap();
    runner.term();
    assert_eq!(runner.wait(), Some(0));
    assert!(!textfile.with_extension("sock").exists());
    let (code, _, err) = runner.machine.ask(&["status"]);
    assert_eq!((code, err.starts_with("runlet: no runner was found")), (Some(1), true), "{err}");
}

#[test]
fn a_runner_asks_for_nothing_in_quiet_hours_and_says_why() {
    let server = ControlPlane::start();
    server.offer(&task("st-2"));
    let mut runner =
        Machine::new(&server.url()).setting("quiet_hours", "['00:00-12:00', '12:00-00:00']").start();
    let shown = wait_state(&runner, "closed");
    assert!(shown["reason"].as_str().unwrap().starts_with("quiet hours ("), "{shown}");
    assert!(runner.log().contains("asking for no task: quiet hours ("), "{}", runner.log());
    assert_eq!(server.claims(), 0);
    runner.term();
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn a_runner_that_is_refused_shows_until_when_it_waits() {
    let server = ControlPlane::start();
    server.answer("/claim", 429, r#"{"message":"too many"}"#);
    let mut runner = Machine::new(&server.url()).start();
    let shown = wait_state(&runner, "backing_off");
    let reason = shown["reason"].as_str().unwrap();
    assert!(reason.starts_with("until 20") && reason.contains("status 429: too many"), "{shown}");
    assert!(shown["claims"].to_string().contains(r#""of":"failed""#), "{shown}");
    runner.term();
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn a_token_of_another_class_is_refused() {
    let server = ControlPlane::start();
    let wrong = || Machine::new(&server.url()).variable("CIRCLECI_RESOURCE_CLASS", "acme/arm");
    let mut runner = wrong().start();
    assert_eq!(runner.wait(), Some(2));
    assert!(runner.log().contains("is of the resource class `acme/linux`, but"), "{}", runner.log());
    assert_eq!(server.claims(), 0);
    // A class that cannot be asked for is told as the one that the claim wants.
    server.answer("/runner/self", 404, "{}");
    let mut runner = wrong().start();
    assert_eq!(server.wait_for("claim?wait=50").json()["resource_class"], "acme/arm");
    runner.term();
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn what_a_prefix_complains_of_reaches_the_job_and_the_log() {
    let server = ControlPlane::start();
    server.offer(&task("st-3"));
    let mut runner = Machine::new(&server.url())
        .setting("mode", "single-task")
        .task_agent("echo 'sudo: a password is required' >&2; exit 1")
        .start();
    assert_eq!(runner.wait(), Some(0));
    let back = server.wait_for("/unclaim").json();
    let message = back["message"].as_str().unwrap();
    assert!(message.contains("saying `sudo: a password is required`"), "{message}");
    assert!(runner.log().lines().any(|line| line == "sudo: a password is required"), "{}", runner.log());
}

#[test]
fn jobs_behind_a_prefix_find_the_commands_for_jobs() {
    let server = ControlPlane::start();
    server.offer(&task_of("st-4", &["circleci-agent --version"]));
    let mut runner =
        Machine::new(&server.url()).setting("mode", "single-task").setting("command_prefix", "[env]").start();
    assert_eq!(runner.wait(), Some(0));
    assert_eq!(server.wait_finished("st-4")["status"], "success", "{}", server.output("st-4", 1));
}

#[test]
fn settings_are_shown_with_their_origin_and_without_the_token() {
    let machine = Machine::new("https://ci.example").variable("CIRCLECI_RUNNER_MAX_RUN_TIME", "90m");
    let (code, text, err) = machine.ask(&["config", "show", "--origin"]);
    assert_eq!(code, Some(0), "{err}");
    let line = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
    assert!(line("runner.max_run_time").ends_with(" CIRCLECI_RUNNER_MAX_RUN_TIME"), "{text}");
    assert!(
        line("runner.max_run_time").contains("1h30m0s") && line("runner.mode").ends_with(" default"),
        "{text}"
    );
    assert!(
        line("api.url").contains("https://ci.example") && line("api.url").ends_with("config.yaml:3:3"),
        "{text}"
    );
    assert!(!text.contains("class-token") && line("api.auth_token ").contains("(not shown)"), "{text}");
}
