//! Remains of a task agent that was killed: its runner, or the next one, sends it before the task is reported lost.
//! Against a fake control plane, and one real one.

use crate::spool::{numbers, spools};
use crate::support::control_plane::ControlPlane;
use crate::support::poll;
use crate::support::processes::{coming_child_with, end, end_below, signal, wait_end};
use crate::support::runner::{Machine, Running, task_of};
use runlet::protocol::{Secret, Variable};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A task that has printed and goes on; nothing of it was sent. Returns the agent's process.
fn printed_and_unsent(server: &ControlPlane, id: &str, machine: Machine) -> (Running, u32) {
    server.answer("/output", 503, "{}");
    let printed = machine.path("printed");
    let command = format!("seq 1 20000; touch '{}'; sleep 600", printed.display());
    server.offer(&task_of(id, &[&command]));
    let runner = machine.start();
    poll("all output in the spool", || {
        let spool = spools(&runner.machine).pop().map(|folder| folder.join("step-1"));
        let length = spool.and_then(|file| fs::metadata(file).ok()).map_or(0, |about| about.len());
        if length == numbers(20_000).len() as u64 && printed.exists() { Ok(()) } else { Err(runner.log()) }
    });
    let agent = coming_child_with(runner.pid() as u32, "task");
    (runner, agent)
}

fn assert_rest_came_before_lost(server: &ControlPlane, runner: &Running, id: &str) {
    let lost = server.wait_for(&format!("/tasks/{id}/lost"));
    assert_eq!(lost.json()["allocation"], format!("allocation-{id}"));
    let calls: Vec<_> = server.requests().into_iter().map(|request| request.path).collect();
    let last = calls.iter().rposition(|path| path.contains("/steps/1/output")).unwrap();
    let lost = calls.iter().position(|path| path.ends_with("/lost")).unwrap();
    assert!(last < lost, "{calls:?}");
    assert!(server.output(id, 1) == numbers(20_000), "the output differs");
    let kinds: Vec<_> = server.events(id).iter().map(|event| event["kind"].to_string()).collect();
    assert!(kinds.iter().any(|kind| kind == "\"run\""), "{kinds:?}");
    poll("the end of the spool", || match spools(&runner.machine).as_slice() {
        [] => Ok(()),
        left => Err(format!("{left:?} {}", runner.log())),
    });
}

#[test]
fn what_a_killed_task_agent_has_not_sent_is_sent_by_its_runner() {
    let server = ControlPlane::start();
    let machine = Machine::new(&server.url()).setting("mode", "single-task");
    let (mut runner, agent) = printed_and_unsent(&server, "s-6", machine);
    signal(agent, Signal::KILL);
    runner.wait_log("sending what the task agent has left");
    server.behave();
    assert_eq!(runner.wait(), Some(0));
    assert_rest_came_before_lost(&server, &runner, "s-6");
    let message = server.wait_for("/tasks/s-6/lost").json()["message"].to_string();
    assert!(message.contains("the task agent died (signal 9)"), "{message}");
}

#[test]
fn what_is_left_is_sent_though_the_agent_that_sends_it_is_killed_as_well() {
    let server = ControlPlane::start();
    let machine = Machine::new(&server.url()).setting("mode", "single-task");
    let (mut runner, agent) = printed_and_unsent(&server, "s-9", machine);
    signal(agent, Signal::KILL);
    runner.wait_log("sending what the task agent has left");
    signal(coming_child_with(runner.pid() as u32, "task"), Signal::KILL);
    runner.wait_log("trying again");
    server.behave();
    assert_eq!(runner.wait(), Some(0));
    assert_rest_came_before_lost(&server, &runner, "s-9");
}

/// The prefix stands for one that changes the user: the runner knows nothing of that home.
#[test]
fn keys_in_the_home_behind_a_prefix_go_with_a_task_agent_that_is_killed() {
    let server = ControlPlane::start();
    let machine = Machine::new(&server.url()).setting("mode", "single-task");
    let (home, pid) = (machine.path("behind"), machine.path("pid"));
    fs::create_dir(&home).unwrap();
    let mut task = task_of("s-50", &[&format!("echo $$ > '{}'; sleep 600", pid.display())]);
    task.git_files = vec![Variable { name: "config".to_owned(), value: Secret::new("[core]\n") }];
    server.offer(&task);
    let machine = machine.setting("use_home_ssh_dir_for_checkout_keys", "true");
    let mut runner = machine.setting("command_prefix", &format!("[env, 'HOME={}']", home.display())).start();
    runner.wait_file("pid");
    let keys = || fs::read_dir(home.join(".ssh")).map_or(0, Iterator::count);
    assert_eq!(keys(), 1);
    signal(coming_child_with(runner.pid() as u32, "task"), Signal::KILL);
    assert_eq!(runner.wait(), Some(0));
    server.wait_for("/tasks/s-50/lost");
    assert_eq!(keys(), 0, "{}", runner.log());
}

#[test]
fn events_are_kept_anew_where_a_step_has_removed_them() {
    let server = ControlPlane::start();
    for path in ["/events", "/output"] {
        server.answer(path, 503, "{}");
    }
    let machine = Machine::new(&server.url()).setting("mode", "single-task");
    let printed = machine.path("printed");
    let command = format!("seq 1 20000; touch '{}'; sleep 600", printed.display());
    server.offer(&task_of("s-15", &["rm -r ../runlet-output-*", &command]));
    let mut runner = machine.start();
    poll("all output in the spool", || {
        let spool = spools(&runner.machine).pop().map(|folder| folder.join("step-2"));
        let length = spool.and_then(|file| fs::metadata(file).ok()).map_or(0, |about| about.len());
        if length == numbers(20_000).len() as u64 && printed.exists() { Ok(()) } else { Err(runner.log()) }
    });
    signal(coming_child_with(runner.pid() as u32, "task"), Signal::KILL);
    runner.wait_log("sending what the task agent has left");
    server.behave();
    assert_eq!(runner.wait(), Some(0));
    server.wait_for("/tasks/s-15/lost");
    assert!(server.output("s-15", 2) == numbers(20_000), "the output differs");
    let events = server.events("s-15");
    let of = |step: u32| events.iter().filter(|event| event["step"] == step).count();
    assert_eq!((of(0), of(1), of(2)), (2, 2, 1), "{events:?}");
}

/// The exit code of an agent that has tried to send it for long; here a wrapper says so of one that was killed.
#[test]
fn what_an_agent_could_not_send_stays() {
    let server = ControlPlane::start();
    let machine = Machine::new(&server.url())
        .setting("mode", "single-task")
        .setting("command_prefix", "[/bin/sh, -c, '\"$@\"; exit 75', --]");
    let (mut runner, wrapper) = printed_and_unsent(&server, "s-10", machine);
    signal(coming_child_with(wrapper, "task"), Signal::KILL);
    server.behave();
    assert_eq!(runner.wait(), Some(0));
    let message = server.wait_for("/tasks/s-10/lost").json()["message"].to_string();
    assert!(message.contains("could not report the outcome"), "{message}");
    let left = spools(&runner.machine);
    assert!(left.len() == 1 && left[0].join("step-1").exists(), "{left:?} {}", runner.log());
}

#[test]
fn what_runner_and_agent_have_not_sent_when_both_were_killed_is_sent_by_the_next_runner() {
    let server = ControlPlane::start();
    let (runner, agent) = printed_and_unsent(&server, "s-7", Machine::new(&server.url()));
    runner.signal(Signal::KILL);
    signal(agent, Signal::KILL);
    server.behave();
    let runner = runner.crash_and_restart();
    assert_rest_came_before_lost(&server, &runner, "s-7");
    assert_eq!(server.wait_for("/tasks/s-7/rest").token, "class-token");
}

/// The record of the runner is on a disk that loses what was written last.
#[test]
fn what_a_task_has_left_that_its_runner_has_forgotten_is_sent_when_it_claims_again() {
    let server = ControlPlane::start();
    let machine = Machine::new(&server.url()).setting("mode", "single-task");
    let (runner, agent) = printed_and_unsent(&server, "s-51", machine);
    runner.signal(Signal::KILL);
    signal(agent, Signal::KILL);
    server.behave();
    let record = runner.machine.path("state/machine-tester.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    assert!(state["task"].take().is_object(), "it knows of its task");
    fs::write(&record, state.to_string()).unwrap();
    let held = task_of("s-51", &[]);
    let private = std::env::temp_dir().join(format!("runlet-task-{}", held.id));
    assert!(private.exists(), "{}", private.display());
    let refusal = json!({
        "message": "this claim has got a task", "code": "holds_task",
        "task": { "id": held.id, "allocation": held.allocation, "ended": false },
    });
    server.answer("/claim", 409, &refusal.to_string());
    let mut runner = runner.crash_and_restart();
    assert_eq!(runner.wait(), Some(0));
    assert_rest_came_before_lost(&server, &runner, "s-51");
    let message = server.wait_for("/tasks/s-51/lost").json()["message"].to_string();
    assert!(message.contains("does not know of it"), "{message}");
    assert!(!private.exists(), "{} is left: {}", private.display(), runner.log());
}

/// A process that has nothing to do with any task, and is a session of its own, and its child.
struct Stranger(Child, u32);

impl Stranger {
    /// With `script`, which starts the child and prints its number.
    fn start(script: &str) -> Self {
        let mut leader =
            Command::new("setsid").args(["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(leader.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self(leader, line.trim().parse().unwrap())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        end_below(self.1);
        end(&mut self.0);
    }
}

/// The state of a process and when it was started, in clock ticks since boot.
fn state_and_start(pid: u32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    Some((fields[0].chars().next()?, fields[19].parse().ok()?))
}

/// The number of the task agent is that of a stranger after the reboot: of a process that runs, and of one that has ended
/// and left its session behind.
#[test]
fn after_a_reboot_the_rest_is_sent_and_nobody_is_taken_for_the_task_agent() {
    for (id, script) in [("s-20", "sleep 600 & echo $!; wait"), ("s-21", "sleep 600 & echo $!")] {
        let server = ControlPlane::start();
        let (runner, agent) = printed_and_unsent(&server, id, Machine::new(&server.url()));
        runner.signal(Signal::KILL);
        end_below(agent);
        server.behave();
        let mut stranger = Stranger::start(script);
        if !script.ends_with("wait") {
            wait_end(&mut stranger.0);
        }
        let leader = stranger.0.id();
        let state = "state/machine-tester.json";
        let text = fs::read_to_string(runner.machine.path(state)).unwrap();
        let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(record["task"]["agent"]["boot_id"].is_string(), "{text}");
        record["task"]["agent"] = serde_json::json!({
            "pid": leader, "start_time": state_and_start(leader).map_or(1, |it| it.1), "boot_id": "another",
        });
        runner.machine.file(state, &record.to_string());
        let runner = runner.crash_and_restart();
        let log = poll("a word about the task", || match runner.log() {
            log if log.contains("gone when the runner started again") || log.contains("found the") => Ok(log),
            log => Err(log),
        });
        assert!(!log.contains("found the running task"), "{log}");
        assert_rest_came_before_lost(&server, &runner, id);
        server.wait_parked();
        let log = runner.log();
        assert!(!log.contains("killed a process"), "{log}");
        let lives = |pid: u32| matches!(state_and_start(pid), Some(('S' | 'R' | 'D', _)));
        assert!(lives(stranger.1) && lives(leader) == script.ends_with("wait"), "{log}");
    }
}

#[test]
fn what_cannot_be_sent_is_kept() {
    let server = ControlPlane::start();
    let (mut runner, agent) = printed_and_unsent(&server, "s-8", Machine::new(&server.url()));
    signal(agent, Signal::KILL);
    runner.wait_log("sending what the task agent has left");
    runner.term();
    runner.wait_log("draining");
    runner.term();
    assert_eq!(runner.wait(), Some(0));
    let left = spools(&runner.machine);
    // The agent that sends it is ended while it tries, or before it hears of ends at all.
    let named = left.first().and_then(|path| path.file_name()).unwrap().to_string_lossy();
    let says = |line: &str| line.contains("stays in") && line.contains(&*named);
    assert!(left.len() == 1 && runner.log().lines().any(says), "{left:?} {}", runner.log());
}

#[test]
#[cfg(feature = "server")]
fn a_restarted_runner_is_given_a_token_for_the_rest() {
    use crate::server::{Server, one_step};
    let server = Server::start();
    server.project();
    let token = server.class_token("a/b");
    let machine = Machine::new(server.client.url()).variable("CIRCLECI_RUNNER_API_AUTH_TOKEN", &token);
    let (go, printed) = (machine.path("go"), machine.path("printed"));
    let command = format!(
        "echo begun; until test -e {}; do sleep 0.05; done; seq 1 20000; echo > {}; sleep 600",
        go.display(),
        printed.display()
    );
    let pipeline = server.trigger(&one_step(&command));
    let runner = machine.start();
    server.wait_output(&pipeline, 1, "begun");
    // The control plane cannot answer, and the agent not deliver.
    signal(server.child.id(), Signal::STOP);
    fs::write(&go, "").unwrap();
    runner.wait_file("printed");
    let expected = "begun\n".to_owned() + &numbers(20_000);
    poll("all output in the spool", || {
        let spool = fs::metadata(spools(&runner.machine)[0].join("step-1")).unwrap().len();
        if spool == expected.len() as u64 { Ok(()) } else { Err(format!("{spool} bytes")) }
    });
    let agent = coming_child_with(runner.pid() as u32, "task");
    runner.signal(Signal::KILL);
    signal(agent, Signal::KILL);
    signal(server.child.id(), Signal::CONT);
    let runner = runner.crash_and_restart();
    let jobs = server.ended(&pipeline);
    assert_eq!(jobs[0]["status"], "infrastructure_fail", "{jobs:?} {}", runner.log());
    assert!(server.output(&jobs[0], 1) == expected, "the output differs: {}", runner.log());
}
