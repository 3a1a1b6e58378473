//! The beginning of a task, its fence, and what is delivered late, against a fake control plane.

use crate::support::control_plane::ControlPlane;
use crate::support::pki::{self, Authority};
use crate::support::poll;
use crate::support::runner::{Machine, Running, id_suffix, task_of};
use runlet::protocol::limits::{CLAIM_BYTES, EVENT_BATCH_BYTES, EVENT_COMMAND_BYTES};
use runlet::protocol::{PROTOCOL_HEADER, Secret, Step, StepAction, Task, Variable};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use std::fs;

/// A runner of one task.
fn single(server: &ControlPlane) -> Machine {
    Machine::new(&server.url()).setting("mode", "single-task")
}

/// A task whose control plane answers heartbeats at once, so that they come every second.
fn lively(id: &str, commands: &[&str]) -> Task {
    Task { heartbeat_wait_seconds: 1, ..task_of(id, commands) }
}

fn wait_output(server: &ControlPlane, runner: &Running, id: &str, wanted: &str) {
    poll("output of the step", || {
        let output = server.output(id, 1);
        if output.starts_with(wanted) { Ok(()) } else { Err(format!("{output}\n{}", runner.log())) }
    });
}

fn count(server: &ControlPlane, end: &str) -> usize {
    server.requests().iter().filter(|request| request.path.ends_with(end)).count()
}

#[test]
fn no_step_runs_before_the_beginning_is_acknowledged() {
    let server = ControlPlane::start();
    server.answer("/begin", 503, "{}");
    let machine = single(&server);
    let ran = machine.path("ran");
    server.offer(&task_of("b-1", &[&format!("touch '{}'", ran.display())]));
    let mut runner = machine.start();
    poll("several tries to begin", || match count(&server, "/tasks/b-1/begin") {
        0..=2 => Err(runner.log()),
        _ => Ok(()),
    });
    assert!(!ran.exists(), "a step has run");
    let asked = server.wait_for("/tasks/b-1/begin").json();
    assert_eq!(asked["agent"].as_str().map(str::len), Some(32));
    assert_eq!(asked["events"][0]["kind"], "spinup_environment");
    assert_eq!((&asked["events"][1]["step"], &asked["events"][2]["step"]), (&json!(0), &json!(1)));
    assert_eq!((&asked["events"][2]["event"], &asked["events"][3]), (&json!("step_started"), &Value::Null));
    server.behave();
    assert_eq!(server.wait_finished("b-1")["status"], "success");
    assert_eq!(runner.wait(), Some(0));
    assert!(ran.exists());
    // The spin-up output is sent again: this control plane does not know that it came along before.
    let spin_up = server.output("b-1", 0);
    assert!(spin_up.contains("working directory: "));
    assert_eq!(asked["spin_up"], spin_up);
}

#[test]
fn a_task_that_another_agent_has_begun_is_left_alone() {
    let server = ControlPlane::start();
    server.answer("/begin", 409, r#"{"message":"it was begun by another agent","code":"task_ended"}"#);
    let machine = single(&server);
    let ran = machine.path("ran");
    server.offer(&task_of("b-2", &[&format!("touch '{}'", ran.display())]));
    let mut runner = machine.start();
    assert_eq!(runner.wait(), Some(0));
    assert!(!ran.exists(), "a step has run");
    for call in ["/finish", "/lost", "/unclaim"] {
        assert_eq!(count(&server, call), 0, "{call}: {}", runner.log());
    }
}

#[test]
fn an_answer_of_something_in_between_is_no_answer() {
    let server = ControlPlane::start();
    server.intercept("claim", 200, "<html>Please log in</html>");
    server.intercept("/begin", 200, r#"{"next":2,"lease_seconds":60}"#);
    server.intercept("/finish", 404, "<html>gone</html>");
    let machine = single(&server);
    let ran = machine.path("ran");
    server.offer(&task_of("b-3", &[&format!("touch '{}'", ran.display())]));
    let mut runner = machine.start();
    let log = runner.wait_log("cannot claim tasks, trying on quietly");
    assert!(log.contains(PROTOCOL_HEADER) && log.contains("no Runlet control plane"), "{log}");
    server.behave();
    server.intercept("/begin", 200, r#"{"next":2,"lease_seconds":60}"#);
    server.intercept("/finish", 404, "<html>gone</html>");
    poll("a second try to begin", || match count(&server, "/tasks/b-3/begin") {
        0 | 1 => Err(runner.log()),
        _ => Ok(()),
    });
    assert!(!ran.exists(), "a step has run");
    server.behave();
    server.intercept("/finish", 404, "<html>gone</html>");
    poll("a second try to finish", || match count(&server, "/tasks/b-3/finish") {
        0 | 1 => Err(runner.log()),
        _ => Ok(()),
    });
    server.behave();
    assert_eq!(runner.wait(), Some(0));
    assert!(ran.exists() && runner.log().contains("task done task_id=b-3"), "{}", runner.log());
}

#[test]
fn a_check_is_not_satisfied_by_anything_that_answers() {
    let server = ControlPlane::start();
    for (status, body) in [(200, "{}"), (404, r#"{"message":"no such task"}"#), (200, "<html></html>")] {
        server.intercept("/runner/self", status, body);
        let (code, text) = Machine::new(&server.url()).check();
        assert!(!code.success() && text.contains("no Runlet control plane"), "{text}");
        assert!(text.contains("strips headers"), "{text}");
    }
    server.answer("/runner/self", 200, "{}");
    let (code, text) = Machine::new(&server.url()).check();
    assert!(!code.success() && text.contains("is not what a control plane says"), "{text}");
}

#[test]
fn a_working_directory_is_waited_for_and_given_up_with_the_name_of_its_holder() {
    let server = ControlPlane::start();
    let machine = single(&server).setting("max_run_time", "12s");
    let work = machine.path("work");
    fs::create_dir(&work).unwrap();
    let held = fs::File::open(&work).unwrap();
    flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
    server.offer(&task_of("b-4", &["echo never"]));
    let mut runner = machine.start();
    runner.wait_log("waiting for the working directory");
    // Another one finds it free in time.
    let other = ControlPlane::start();
    let waits = single(&other);
    let free = waits.path("work");
    fs::create_dir(&free).unwrap();
    let short = fs::File::open(&free).unwrap();
    flock(&short, FlockOperation::NonBlockingLockExclusive).unwrap();
    other.offer(&task_of("b-5", &["echo at last"]));
    let mut waits = waits.start();
    waits.wait_log("waiting for the working directory");
    drop(short);
    assert_eq!(other.wait_finished("b-5")["status"], "success");
    assert_eq!(waits.wait(), Some(0));
    // Nobody lets go of the first.
    let back = server.wait_for("/unclaim").json();
    let message = back["message"].as_str().unwrap();
    assert_eq!((&back["reason"], &back["pause_seconds"]), (&json!("host"), &json!(1)));
    assert!(
        message.contains("is in use by the task of ") && message.contains("runner.working_directory"),
        "{message}"
    );
    // The holder is no task agent, whose pid would be told.
    assert!(message.contains("the task of another process"), "{message}");
    assert_eq!(runner.wait(), Some(0));
    assert_eq!(count(&server, "/begin"), 0);
    assert!(runner.log().contains("pausing for 1s"), "{}", runner.log());
}

#[test]
fn a_task_waits_for_one_that_works_around_its_directory_and_makes_nothing_there() {
    let server = ControlPlane::start();
    let machine = single(&server).setting("max_run_time", "12s");
    let (outer, inner) = (machine.path("outer"), machine.path("outer/a/b"));
    fs::create_dir(&outer).unwrap();
    let held = fs::File::open(&outer).unwrap();
    flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
    let mut task = task_of("b-20", &["echo never"]);
    task.job.working_directory = Some(inner.display().to_string());
    server.offer(&task);
    let mut runner = machine.start();
    let back = server.wait_for("/unclaim").json();
    let message = back["message"].as_str().unwrap();
    assert!(message.contains("or one around or inside it, is in use by the task of "), "{message}");
    // The holder is no task agent, whose pid would be told.
    assert!(message.contains("the task of another process"), "{message}");
    assert_eq!(runner.wait(), Some(0));
    assert_eq!((count(&server, "/begin"), fs::read_dir(&outer).unwrap().count()), (0, 0));
}

/// A task that lets git into its repository.
fn with_git_config(id: &str) -> Task {
    let config = Variable { name: "config".to_owned(), value: Secret::new("[core]\n") };
    Task { git_files: vec![config], ..task_of(id, &["echo hello"]) }
}

#[test]
fn a_home_that_takes_no_keys_for_git_is_named() {
    let server = ControlPlane::start();
    server.offer(&with_git_config("b-15"));
    let machine = single(&server).setting("use_home_ssh_dir_for_checkout_keys", "true");
    let home = machine.path("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join(".ssh"), "").unwrap();
    let mut runner = machine.variable("HOME", &home.display().to_string()).start();
    let back = server.wait_for("/unclaim").json();
    let message = back["message"].as_str().unwrap();
    assert!(message.contains(&home.join(".ssh/runlet-task-b-15").display().to_string()), "{message}");
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn a_count_of_settings_that_git_would_not_take_ends_no_task_agent() {
    let server = ControlPlane::start();
    let mut task = with_git_config("b-16");
    task.job.environment.insert("GIT_CONFIG_COUNT".to_owned(), u32::MAX.to_string());
    server.offer(&task);
    let mut runner = single(&server).start();
    assert_eq!(server.wait_finished("b-16")["status"], "success", "{}", runner.log());
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn a_prefix_that_takes_the_certificates_away_is_named() {
    let authority = Authority::new("Acme Root");
    let server = ControlPlane::start_tls(pki::server(&authority.issue("127.0.0.1", |_| {}), None));
    server.offer(&Task { begin_seconds: 4, ..task_of("b-6", &["echo never"]) });
    let machine = single(&server).setting("command_prefix", "[env, -u, SSL_CERT_FILE]");
    let file = machine.file("ca.pem", &authority.pem).display().to_string();
    let mut runner = machine.variable("SSL_CERT_FILE", &file).start();
    let back = server.wait_for("/unclaim").json();
    assert_eq!(back["reason"], "runner", "it ends soon, since nothing mends itself");
    let message = back["message"].as_str().unwrap();
    for part in ["`runner.command_prefix`", "SSL_CERT_FILE", "certificate"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(runner.wait(), Some(0));
    assert!(runner.log().contains("pausing for 1s"), "{}", runner.log());
}

#[test]
fn lines_of_a_prefix_are_for_the_log() {
    let server = ControlPlane::start();
    server.offer(&task_of("b-7", &["echo hello"]));
    let mut runner = single(&server)
        .setting("command_prefix", "[/bin/sh, -c, 'echo welcome to this host; exec \"$@\"', --]")
        .start();
    assert_eq!(server.wait_finished("b-7")["status"], "success");
    assert_eq!(runner.wait(), Some(0));
    assert!(runner.log().contains("or what wraps it, says: welcome to this host"), "{}", runner.log());
    assert!(!runner.log().contains("runlet_task"), "{}", runner.log());
}

#[test]
fn a_prefix_that_ends_before_the_task_begins_is_a_fault_of_the_host() {
    let server = ControlPlane::start();
    server.offer(&task_of("b-8", &["echo never"]));
    let mut runner = single(&server)
        .setting("command_prefix", "[/bin/sh, -c, 'echo no such user >&2; exit 1', --]")
        .start();
    let back = server.wait_for("/unclaim").json();
    let message = back["message"].as_str().unwrap();
    assert_eq!((&back["reason"], &back["pause_seconds"]), (&json!("host"), &json!(1)));
    assert!(message.contains("exit code 1") && message.contains("`runner.command_prefix`"), "{message}");
    assert_eq!(runner.wait(), Some(0));
    assert_eq!(count(&server, "/lost"), 0, "{}", runner.log());
    assert!(runner.log().contains("pausing for 1s"), "{}", runner.log());
}

#[test]
fn a_prefix_that_never_starts_the_task_agent_and_ends_well_has_done_no_task() {
    let server = ControlPlane::start();
    server.offer(&task_of("b-13", &["echo never"]));
    let mut runner =
        single(&server).setting("command_prefix", "[/bin/sh, -c, 'cat > /dev/null', --]").start();
    let back = server.wait_for("/unclaim").json();
    let message = back["message"].as_str().unwrap();
    assert_eq!((&back["reason"], &back["pause_seconds"]), (&json!("host"), &json!(1)));
    assert!(message.contains("exit code 0") && message.contains("`runner.command_prefix`"), "{message}");
    assert_eq!(runner.wait(), Some(0));
    let log = runner.log();
    assert!(log.contains("pausing for 1s") && !log.contains("task done"), "{log}");
    assert_eq!(count(&server, "/lost"), 0, "{log}");
    // A runner whose task agent is only not heard has done its task.
    let server = ControlPlane::start();
    server.offer(&task_of("b-14", &["echo done"]));
    let mut runner =
        single(&server).setting("command_prefix", "[/bin/sh, -c, 'exec \"$@\" > /dev/null', --]").start();
    assert_eq!(server.wait_finished("b-14")["status"], "success");
    assert_eq!(runner.wait(), Some(0));
    let log = runner.log();
    assert!(log.contains("task done") && !log.contains("pausing"), "{log}");
}

#[test]
fn a_task_whose_token_is_not_taken_any_more_is_stopped_and_reported_lost() {
    let server = ControlPlane::start();
    server.offer(&lively("b-9", &["echo begun; while :; do sleep 0.05; done", "echo never"]));
    let mut runner = single(&server).start();
    wait_output(&server, &runner, "b-9", "begun\n");
    server.answer("/heartbeat", 401, r#"{"message":"the token is not known"}"#);
    assert!(server.wait_for("/tasks/b-9/lost").json()["message"].as_str().is_some());
    assert_eq!(runner.wait(), Some(0));
    assert!(!runner.log().contains("task done"), "{}", runner.log());
    // A task that may not even begin goes back by the same word.
    let server = ControlPlane::start();
    server.answer("/begin", 401, r#"{"message":"the token is not known"}"#);
    server.offer(&task_of("b-10", &["echo never"]));
    let mut runner = single(&server).start();
    server.wait_for("/tasks/b-10/lost");
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn behind_the_fence_the_steps_are_stopped_and_what_they_said_is_delivered() {
    let server = ControlPlane::start();
    let step = "trap 'echo cleaned; exit' TERM; echo begun; while :; do sleep 0.05; done";
    server.offer(&Task { budget_seconds: 8, ..lively("f-1", &[step, "echo never"]) });
    let mut runner = single(&server).start();
    wait_output(&server, &runner, "f-1", "begun\n");
    // A broken line, as far as the runner can tell.
    server.intercept("/tasks/f-1/", 502, "bad gateway");
    let state = runner.machine.path("work");
    poll("the end of the step", || {
        // The lock of the folder is not the point: the step is gone when its shell is.
        let shells = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let entry = entry.ok()?.path();
            let working = fs::read_link(entry.join("cwd")).ok()?;
            let command = fs::read_to_string(entry.join("cmdline")).ok()?;
            (working == state && command.contains("echo cleaned")).then_some(())
        });
        if shells.count() == 0 { Ok(()) } else { Err(runner.log()) }
    });
    server.behave();
    let finished = server.wait_finished("f-1");
    assert_eq!(finished["status"], "infrastructure_fail", "{finished}");
    let message = finished["message"].as_str().unwrap();
    assert!(message.starts_with("no answer from the control plane for "), "{message}");
    // The shell may have a word of its own to say about the signal.
    let output = server.output("f-1", 1);
    assert!(output.starts_with("begun\n"), "{output}");
    assert!(output.ends_with("cleaned\nstopped: the control plane does not answer\n"), "{output}");
    let events = server.events("f-1");
    let statuses: Vec<&Value> = events
        .iter()
        .filter(|event| event["event"] == "step_finished")
        .map(|event| &event["status"])
        .collect();
    assert_eq!(statuses, ["success", "infrastructure_fail", "not_run"]);
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn a_task_that_ended_without_its_agent_is_stopped_and_delivered() {
    let server = ControlPlane::start();
    let step = "trap 'echo cleaned; exit' TERM; echo begun; while :; do sleep 0.05; done";
    server.offer(&lively("f-2", &[step, "echo never"]));
    let mut runner = single(&server).start();
    wait_output(&server, &runner, "f-2", "begun\n");
    server.end("f-2", true);
    assert_eq!(runner.wait(), Some(0));
    assert!(server.output("f-2", 1).contains("\ncleaned\n"), "{}", server.output("f-2", 1));
    let events = server.events("f-2");
    assert_eq!(events.last().unwrap()["status"], "not_run", "{events:?}");
    // The end is reported all the same: that confirms that nothing runs any more.
    assert_eq!(count(&server, "/tasks/f-2/finish"), 1);
    assert_eq!(count(&server, "/lost"), 0);
}

#[test]
fn a_cancel_arrives_with_any_answer() {
    let server = ControlPlane::start();
    // No heartbeat comes through.
    server.intercept("/heartbeat", 502, "bad gateway");
    server.offer(&task_of("f-3", &["while :; do echo line; sleep 0.1; done"]));
    let mut runner = single(&server).start();
    wait_output(&server, &runner, "f-3", "line\n");
    server.cancel("f-3");
    assert_eq!(server.wait_finished("f-3")["status"], "canceled");
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn a_cancel_does_not_wait_for_an_upload_that_gets_no_answer() {
    let artifact = StepAction::StoreArtifacts { path: "file".to_owned(), destination: None };
    let cache = StepAction::SaveCache { key: "v1".to_owned(), paths: vec!["file".to_owned()] };
    for (id, action) in [("f-6", artifact), ("f-7", cache)] {
        let server = ControlPlane::start();
        server.answer("/caches/find", 200, r#"{"cache":null}"#);
        server.answer("/uploads/", 200, r#"{"offset":0}"#);
        server.swallow("&offset=0");
        let mut task = lively(id, &["echo hello > file"]);
        task.job.steps.push(Step { action, ..task.job.steps[0].clone() });
        server.offer(&task);
        let mut runner = single(&server).start();
        server.wait_for("&offset=0");
        server.cancel(id);
        let end = server.wait_for(&format!("/tasks/{id}/finish"));
        assert_eq!(end.json()["status"], "canceled", "{} {}", end.json(), runner.log());
        assert_eq!(end.held, 1, "the upload was waited for: {}", runner.log());
        assert_eq!(runner.wait(), Some(0));
    }
}

#[test]
fn a_heartbeat_that_gets_no_answer_is_given_up_while_the_lease_lasts() {
    let server = ControlPlane::start();
    server.swallow("/heartbeat");
    let go = tempfile::tempdir().unwrap();
    let step =
        format!("echo begun; until test -e {}/go; do sleep 0.05; done; echo ended", go.path().display());
    server.offer(&Task { lease_seconds: 3, ..lively("f-5", &[&step]) });
    let mut runner = single(&server).start();
    wait_output(&server, &runner, "f-5", "begun\n");
    // The first is given up: the next is on its way.
    poll("another heartbeat", || match count(&server, "/tasks/f-5/heartbeat?wait=1") {
        0 | 1 => Err(runner.log()),
        _ => Ok(()),
    });
    server.behave();
    fs::write(go.path().join("go"), "").unwrap();
    assert_eq!(server.wait_finished("f-5")["status"], "success");
    assert_eq!(server.output("f-5", 1), "begun\nended\n");
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn an_end_that_misses_something_is_said_again_after_a_pause() {
    let server = ControlPlane::start();
    server.answer("/finish", 200, r#"{"answer":"incomplete","next_event":0,"steps":[[1,0]]}"#);
    server.offer(&task_of("f-4", &["echo hello"]));
    let mut runner = single(&server).start();
    runner.wait_log("the control plane misses a part of the task (1 of its steps): sending it again in ");
    server.behave();
    assert_eq!(runner.wait(), Some(0));
    assert_eq!(server.output("f-4", 1), "hello\n");
    let again = "/tasks/f-4/steps/1/output?offset=0";
    assert!(count(&server, again) >= 2, "the output was not sent again");
}

#[test]
fn a_task_that_is_held_and_does_not_run_is_reported_lost() {
    let server = ControlPlane::start();
    let held = task_of("h-21", &[]);
    let refusal = json!({
        "message": "this claim has got a task", "code": "holds_task",
        "task": { "id": format!("held{}", id_suffix()), "allocation": held.allocation, "ended": false },
    });
    server.answer("claim", 409, &refusal.to_string());
    let mut runner = Machine::new(&server.url()).start();
    let lost = server.wait_for("/tasks/held/lost").json();
    assert_eq!(lost["allocation"], held.allocation);
    server.behave();
    server.wait_parked();
    let claims: Vec<_> = server.requests().into_iter().filter(|r| r.path.contains("/runner/claim")).collect();
    let nonces: Vec<_> = claims.iter().map(|claim| claim.json()["nonce"].clone()).collect();
    assert!(nonces.len() >= 2 && nonces[0] != nonces[1], "{nonces:?}");
    assert_eq!(claims[0].json()["takes"], json!(["machine"]));
    #[cfg(target_os = "linux")]
    assert_eq!(claims[0].json()["boot_id"].as_str().map(str::len), Some(36));
    if let Some(machine) = claims[0].json()["machine_id"].as_str() {
        let own = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        assert!(machine.len() == 32 && machine != own.trim(), "{machine}");
    }
    runner.term();
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn a_claim_that_is_too_long_is_not_asked_for_again() {
    let server = ControlPlane::start();
    let id = format!("long{}", id_suffix());
    server.hand_out(&format!("{id} al-1"), &format!("{{\"x\":\"{}\"}}", "x".repeat(CLAIM_BYTES)));
    let mut runner = Machine::new(&server.url()).start();
    let log = runner.wait_log("cannot claim tasks");
    assert!(
        log.contains(&format!("longer than the {CLAIM_BYTES} bytes")) && log.contains("goes back"),
        "{log}"
    );
    let asked = server.wait_for("claim?wait=50").json()["nonce"].clone();
    let state = runner.machine.path("state/machine-tester.json");
    poll("another nonce", || {
        let text = fs::read_to_string(&state).unwrap_or_default();
        let state: Value = serde_json::from_str(&text).unwrap_or_default();
        if state["nonce"].is_string() && state["nonce"] != asked { Ok(()) } else { Err(text) }
    });
    let lost = server.wait_for("lost");
    assert!(lost.path.ends_with("/long/lost"), "{}", lost.path);
    let why = lost.json();
    assert_eq!(why["allocation"], "al-1");
    let message = why["message"].as_str().unwrap_or_default();
    assert!(message.contains(&format!("longer than the {CLAIM_BYTES} bytes")), "{message}");
    // The runner pauses, and one request to stop ends it.
    runner.term();
    assert_eq!(runner.wait(), Some(0));
    assert_eq!(server.claims(), 1);
}

#[test]
fn a_claim_whose_long_answer_does_not_end_is_cut_by_one_request_to_stop() {
    let server = ControlPlane::start();
    server.stall("claim", 200, &format!("{{\"x\":\"{}\"}}", "x".repeat(CLAIM_BYTES / 2)));
    let mut runner = Machine::new(&server.url()).start();
    server.wait_for("claim?wait=50");
    runner.term();
    assert_eq!(runner.wait(), Some(0));
    assert_eq!(server.claims(), 1);
    assert!(!runner.log().contains("cannot claim tasks"), "{}", runner.log());
}

/// A task with a kind of step that this runner does not know.
fn too_new(id: &str) -> Value {
    let mut task = serde_json::to_value(task_of(id, &["echo never"])).unwrap();
    task["job"]["steps"][0]["type"] = json!("teleport");
    task
}

#[test]
fn a_task_that_cannot_be_given_back_holds_no_runner_that_is_to_stop() {
    let server = ControlPlane::start();
    server.answer("/runner/claim", 200, &too_new("b-12").to_string());
    server.answer("/unclaim", 503, "{}");
    let mut runner = Machine::new(&server.url()).start();
    runner.wait_log("cannot give the task back yet, trying on");
    runner.term();
    assert_eq!(runner.wait(), Some(0));
    assert!(runner.log().contains("cannot give the task back, its lease will lapse"), "{}", runner.log());
    assert_eq!(server.claims(), 1);
}

#[test]
fn a_task_that_is_too_new_for_the_runner_is_given_back() {
    let server = ControlPlane::start();
    let mut task = too_new("b-11");
    task["variables"] = json!([{ "name": "KEY", "value": "hunter2" }]);
    server.answer("/runner/claim", 200, &task.to_string());
    let mut runner = single(&server).start();
    let back = server.wait_for("/unclaim").json();
    let message = back["message"].as_str().unwrap();
    assert_eq!((&back["task_id"], &back["reason"]), (&json!(format!("b-11{}", id_suffix())), &json!("host")));
    assert!(message.contains("too old for the task") && message.contains("`teleport`"), "{message}");
    assert_eq!(runner.wait(), Some(0));
    assert!(!runner.log().contains("hunter2"), "{}", runner.log());
}

#[test]
fn the_longest_command_is_cut_in_its_event_and_runs_whole() {
    let server = ControlPlane::start();
    let command = format!("printf %s '{}' | wc -c", "\"".repeat(2_400_000));
    let mut task = task_of("l-1", &[&command, &command]);
    for step in &mut task.job.steps {
        step.name = "long".to_owned();
    }
    server.offer(&task);
    let mut runner = single(&server).start();
    assert_eq!(server.wait_finished("l-1")["status"], "success");
    assert_eq!(runner.wait(), Some(0));
    assert_eq!(server.output("l-1", 2).trim(), "2400000");
    let events = server.events("l-1");
    let told = events.iter().filter_map(|event| event["command"].as_str());
    for told in told {
        assert!(told.len() <= EVENT_COMMAND_BYTES, "{}", told.len());
        assert!(told.ends_with(&format!(" [cut here: it has {} bytes]", command.len())));
    }
    let said = server.requests().into_iter().filter(|request| !request.path.contains("/runner/claim"));
    assert!(said.into_iter().all(|request| request.body.len() <= EVENT_BATCH_BYTES));
}
