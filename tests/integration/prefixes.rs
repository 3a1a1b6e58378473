//! A prefix that ends before its task agent: nothing is left, and nothing is lost.

use crate::support::control_plane::ControlPlane;
use crate::support::emulated;
use crate::support::runner::{Machine, Running, task_of};
use std::fs;

/// A runner of one task behind this script, in which `start` is the task agent in the background.
fn behind(server: &ControlPlane, script: &str) -> Machine {
    let machine = Machine::new(&server.url()).setting("mode", "single-task");
    let temporary = machine.path("tmp");
    fs::create_dir(&temporary).unwrap();
    let text = format!("exec 3<&0\nstart() {{ \"$@\" <&3 3<&- & }}\n{script}\n");
    machine.variable("TMPDIR", &temporary.display().to_string()).task_agent(&text)
}

/// The folders of tasks that are still there.
fn left(runner: &Running) -> Vec<String> {
    let entries = fs::read_dir(runner.machine.path("tmp")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_task_agent_goes_on_behind_a_prefix_that_does_not_wait() {
    // Processes under an emulator have the arguments of the emulator.
    if emulated() {
        return;
    }
    for (id, script) in [
        ("p-1", "start \"$@\"; exit 0"),
        // By way of a process that does not wait either, and unheard.
        ("p-2", "(start \"$@\" > /dev/null) & exit 0"),
        // The task agent is started by what a prefix has left, when that has long ended.
        ("p-8", "(sleep 0.5; start \"$@\") & exit 0"),
        // A prefix that ends once the task has begun.
        ("p-3", "start \"$@\"; until test -e $DIR/began; do sleep 0.05; done; exit 0"),
    ] {
        let server = ControlPlane::start();
        let machine = behind(&server, script);
        let (began, go) = (machine.path("began"), machine.path("go"));
        let (began, go) = (began.display(), go.display());
        let step = format!("touch {began}; until test -e {go}; do sleep 0.05; done; echo done");
        server.offer(&task_of(id, &[&step]));
        let mut runner = machine.start();
        runner.wait_log("has not waited for the task agent, which goes on");
        runner.machine.file("go", "");
        assert_eq!(server.wait_finished(id)["status"], "success", "{}", runner.log());
        assert_eq!(runner.wait(), Some(0));
        let log = runner.log();
        assert_eq!(server.output(id, 1), "done\n", "{log}");
        assert!(log.contains("task done") && !log.contains("pausing"), "{log}");
        assert_eq!(left(&runner), [] as [&str; 0], "{log}");
    }
}

#[test]
fn what_the_task_agent_of_a_prefix_that_ended_well_has_left_is_removed_and_its_task_goes_back() {
    let server = ControlPlane::start();
    // The task agent has its folders, and may not begin.
    server.answer("/begin", 503, "{}");
    server.offer(&task_of("p-4", &["echo never"]));
    let wait = "until test -e $TMPDIR/runlet-task-*; do sleep 0.05; done";
    let mut runner = behind(&server, &format!("start \"$@\"; {wait}; kill -9 $!; wait; exit 0")).start();
    let message = server.wait_for("/unclaim").json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("exit code 0") && message.contains("`runner.command_prefix`"), "{message}");
    assert_eq!(runner.wait(), Some(0));
    assert_eq!(left(&runner), [] as [&str; 0], "{}", runner.log());
    assert!(runner.log().contains("pausing for 1s"), "{}", runner.log());
}

#[test]
fn a_task_whose_agent_was_killed_behind_a_prefix_that_ended_well_is_lost_with_what_it_said() {
    let server = ControlPlane::start();
    server.answer("/steps/1/output", 503, "{}");
    // The output of the step is kept once the task agent has tried to send it.
    let kill = "until test -e $DIR/heard; do sleep 0.05; done; kill -9 $!; wait; exit 0";
    let again = "if test -e $DIR/heard; then exec \"$@\"; fi";
    let machine = behind(&server, &format!("{again}\nstart \"$@\"; {kill}"));
    server.offer(&task_of("p-5", &["echo said; exec sleep 600"]));
    let mut runner = machine.start();
    server.wait_for("/steps/1/output?offset=0");
    runner.machine.file("heard", "");
    server.wait_for("/unclaim");
    server.behave();
    let lost = server.wait_for("/tasks/p-5/lost").json()["message"].as_str().unwrap().to_owned();
    assert!(lost.contains("exit code 0 before the task agent had reported"), "{lost}");
    assert_eq!(runner.wait(), Some(0));
    let log = runner.log();
    assert_eq!(server.output("p-5", 1), "said\n", "{log}");
    assert!(!log.contains("task done"), "{log}");
    assert_eq!(left(&runner), [] as [&str; 0], "{log}");
}
