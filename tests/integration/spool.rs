//! Output on its way: a spool that is small or full, places on the host without room, and lines that carry small pieces
//! only. Against a fake control plane, and one real one.

use crate::hostile::{has_namespaces, inside, machine};
use crate::support::control_plane::ControlPlane;
use crate::support::poll;
use crate::support::runner::{Machine, Running, task_of};
use runlet::protocol::{StepAction, Task, When};
use std::fs;
use std::path::PathBuf;

pub(crate) fn numbers(last: u32) -> String {
    (1..=last).map(|n| format!("{n}\n")).collect()
}

/// A task whose steps may print up to 10 MiB.
fn wordy(id: &str, commands: &[&str]) -> Task {
    Task { max_step_output_bytes: 10 << 20, ..task_of(id, commands) }
}

/// Waits until a runner has tried so often to send output.
pub(crate) fn wait_tries(server: &ControlPlane, runner: &Running, times: usize) {
    poll("some tries to send", || {
        let tries = server.requests().iter().filter(|r| r.path.contains("/output")).count();
        if tries >= times { Ok(()) } else { Err(runner.log()) }
    });
}

/// A runner of one task whose spool is on a file system of this size.
pub(crate) fn small_spool(url: &str, size: &str) -> Machine {
    let machine = machine(url).setting("mode", "single-task");
    let spool = machine.path("spool");
    fs::create_dir(&spool).unwrap();
    let script = format!("mount -t tmpfs -o size={size} none '{}'", spool.display());
    inside(machine, &script).variable("TMPDIR", &spool.display().to_string())
}

pub(crate) fn ended(server: &ControlPlane, runner: &mut Running, id: &str) -> serde_json::Value {
    assert_eq!(runner.wait(), Some(0), "{}", runner.log());
    server.wait_over(id).json()
}

/// The folders that the runner's tasks have beside the working directory.
pub(crate) fn spools(machine: &Machine) -> Vec<PathBuf> {
    let entries = fs::read_dir(machine.path("")).unwrap().map(|entry| entry.unwrap().path());
    let is_spool = |path: &PathBuf| path.to_string_lossy().contains("/runlet-output-");
    entries.filter(is_spool).collect()
}

#[test]
fn a_full_spool_is_waited_for_and_nothing_is_lost() {
    if !has_namespaces() {
        return;
    }
    let server = ControlPlane::start();
    server.answer("/output", 503, "{}");
    let machine = small_spool(&server.url(), "256k");
    let printed = machine.path("printed");
    let command = format!("seq 1 200000; touch '{}'", printed.display());
    server.offer(&wordy("s-1", &[&command, "echo next"]));
    let mut runner = machine.start();
    // The step prints more than spool, pipe and buffers hold; an answered call shows that it had the time.
    wait_tries(&server, &runner, 4);
    assert!(!printed.exists(), "it ran blind");
    server.behave();
    assert_eq!(ended(&server, &mut runner, "s-1")["status"], "success", "{}", runner.log());
    assert!(server.output("s-1", 1) == numbers(200_000), "the output differs");
    assert_eq!(server.output("s-1", 2), "next\n");
}

#[test]
fn a_task_does_not_begin_on_a_spool_that_is_full() {
    if !has_namespaces() {
        return;
    }
    let server = ControlPlane::start();
    let machine = machine(&server.url()).setting("mode", "single-task");
    let (spool, ran) = (machine.path("spool"), machine.path("ran"));
    fs::create_dir(&spool).unwrap();
    let shown = spool.display();
    let script =
        format!("mount -t tmpfs -o size=64k none '{shown}'; ! head -c 1m /dev/zero > '{shown}/full'");
    server.offer(&task_of("s-19", &[&format!("touch '{}'", ran.display())]));
    let mut runner = inside(machine, &script).variable("TMPDIR", &shown.to_string()).start();
    assert_eq!(runner.wait(), Some(0), "{}", runner.log());
    let log = runner.log();
    let paths: Vec<_> = server.requests().into_iter().map(|request| request.path).collect();
    assert!(paths.iter().any(|path| path.ends_with("/unclaim")), "{paths:?} {log}");
    assert!(!paths.iter().any(|path| path.ends_with("/begin")) && !ran.exists(), "{paths:?} {log}");
}

#[test]
fn output_is_dropped_with_a_mark_where_that_is_chosen() {
    if !has_namespaces() {
        return;
    }
    let server = ControlPlane::start();
    server.answer("/output", 503, "{}");
    let machine = small_spool(&server.url(), "256k").setting("drop_output_on_full_disk", "true");
    let (printed, go) = (machine.path("printed"), machine.path("go"));
    let command = format!(
        "seq 1 100000; echo > '{}'; until test -e '{}'; do sleep 0.05; done; echo last",
        printed.display(),
        go.display()
    );
    server.offer(&wordy("s-2", &[&command]));
    let mut runner = machine.start();
    runner.wait_file("printed");
    server.behave();
    poll("the spool to be sent", || {
        let output = server.output("s-2", 1);
        if output.len() > 400_000 { Ok(()) } else { Err(format!("{} bytes", output.len())) }
    });
    fs::write(&go, "").unwrap();
    assert_eq!(ended(&server, &mut runner, "s-2")["status"], "success", "{}", runner.log());
    let output = server.output("s-2", 1);
    // Between what is lost there may be pieces for which there was room.
    assert!(unmarked(&output, &(numbers(100_000) + "last\n")).ends_with("last\n"));
}

/// Output with marks of what is lost in it is all of this in order, and there are such marks. Returns the part behind the last.
fn unmarked<'o>(output: &'o str, all: &str) -> &'o str {
    let (mut rest, mut at, mut marks) = (output, 0, 0);
    while let Some((front, marked)) = rest.split_once("\n[") {
        let (mark, after) = marked.split_once("]\n").unwrap();
        assert!(mark.contains("bytes of output were lost here") && mark.contains("No space left"), "{mark}");
        assert!(all[at..].starts_with(front), "{front}");
        at += front.len() + mark.split(' ').next().unwrap().parse::<usize>().unwrap();
        (rest, marks) = (after, marks + 1);
    }
    assert!(marks > 0 && rest == &all[at..], "{marks} {rest}");
    rest
}

#[test]
fn dropped_output_goes_on_as_soon_as_there_is_room_again_although_none_is_sent() {
    if !has_namespaces() {
        return;
    }
    let server = ControlPlane::start();
    server.answer("/output", 503, "{}");
    let machine = small_spool(&server.url(), "8m").setting("drop_output_on_full_disk", "true");
    let (printed, fill) = (machine.path("printed"), machine.path("spool/fill"));
    let command = format!(
        "head -c 20000000 /dev/zero > '{0}' || true; seq 1 400000; rm '{0}'; seq 1 1000; echo > '{1}'",
        fill.display(),
        printed.display()
    );
    server.offer(&wordy("s-41", &[&command]));
    let mut runner = machine.start();
    runner.wait_file("printed");
    server.behave();
    assert_eq!(ended(&server, &mut runner, "s-41")["status"], "success", "{}", runner.log());
    let output = server.output("s-41", 1);
    let (said, printed) = output.split_once('\n').unwrap();
    assert!(said.contains("No space left"), "{said}");
    assert!(unmarked(printed, &(numbers(400_000) + &numbers(1000))).ends_with(&numbers(1000)));
}

#[test]
fn steps_run_on_where_no_file_can_be_made_for_their_output() {
    if !has_namespaces() {
        return;
    }
    let server = ControlPlane::start();
    let machine = machine(&server.url()).setting("mode", "single-task");
    let spool = machine.path("spool");
    fs::create_dir(&spool).unwrap();
    let shown = spool.display();
    let script = format!("mount -t tmpfs -o size=8m,nr_inodes=64 none '{shown}'");
    let fill =
        format!("n=0; while true > '{shown}/fill'$n; do n=$((n+1)); done 2> /dev/null; echo full; exit 3");
    let mut task = wordy("s-42", &[&fill, "echo never", "seq 1 100000"]);
    task.job.steps[2].when = When::Always;
    server.offer(&task);
    let mut runner = inside(machine, &script).variable("TMPDIR", &shown.to_string()).start();
    let end = ended(&server, &mut runner, "s-42");
    assert_eq!(end["status"], "failed", "{end} {}", runner.log());
    assert!(end["message"].as_str().unwrap().ends_with("exited with code 3"), "{end}");
    assert!(server.output("s-42", 1).starts_with("full\n"));
    assert!(server.output("s-42", 3) == numbers(100_000), "{}", runner.log());
}

#[test]
fn a_cancel_is_heard_although_the_output_has_no_room() {
    if !has_namespaces() {
        return;
    }
    let server = ControlPlane::start();
    server.answer("/output", 503, "{}");
    let machine = small_spool(&server.url(), "256k");
    server.offer(&wordy("s-43", &["seq 1 200000"]));
    let mut runner = machine.start();
    wait_tries(&server, &runner, 4);
    server.cancel("s-43");
    server.wait_for("/tasks/s-43/stopped");
    server.behave();
    assert_eq!(runner.wait(), Some(0), "{}", runner.log());
    let output = server.output("s-43", 1);
    let (front, mark) = output.split_once("\n[").unwrap();
    assert!(numbers(200_000).starts_with(front) && mark.contains("bytes of output were lost here"), "{mark}");
}

#[test]
fn of_overlong_output_the_error_at_the_end_is_kept() {
    let server = ControlPlane::start();
    let mut task = task_of("s-3", &["seq 1 200000; echo THE ERROR; exit 7"]);
    task.max_step_output_bytes = 100_000;
    server.offer(&task);
    let mut runner = Machine::new(&server.url()).setting("mode", "single-task").start();
    assert_eq!(ended(&server, &mut runner, "s-3")["status"], "failed");
    let output = server.output("s-3", 1);
    assert!(output.starts_with("1\n2\n3\n"), "the beginning is missing");
    assert!(output.ends_with("199999\n200000\nTHE ERROR\nexited with code 7\n"), "the end is missing");
    let mark = output.lines().find(|line| line.starts_with('[')).unwrap();
    let dropped: usize = mark[1..].split(' ').next().unwrap().parse().unwrap();
    let printed = numbers(200_000).len() + "THE ERROR\nexited with code 7\n".len();
    assert_eq!((dropped, output.len() - mark.len() - 2), (printed - 100_000, 100_000), "{mark}");
}

#[test]
fn output_passes_what_takes_only_small_bodies() {
    for status in [413, 502] {
        let server = ControlPlane::start();
        server.limit_bodies(20_000, status);
        server.offer(&wordy("s-4", &["seq 1 100000"]));
        let mut runner = Machine::new(&server.url()).setting("mode", "single-task").start();
        assert_eq!(ended(&server, &mut runner, "s-4")["status"], "success", "{}", runner.log());
        assert!(server.output("s-4", 1) == numbers(100_000), "the output differs");
    }
}

/// The masked copy of the report is written to a disk that is smaller than the report.
#[test]
fn a_report_for_which_the_host_has_no_room_is_no_success() {
    if !has_namespaces() {
        return;
    }
    let server = ControlPlane::start();
    let large =
        "{ echo '<testsuite>'; head -c 3000000 /dev/zero | tr '\\0' x; echo '</testsuite>'; } > t.xml";
    let mut task = task_of("s-12", &[large]);
    task.max_artifact_bytes = 8 << 20;
    let mut store = task.job.steps[0].clone();
    store.action = StepAction::StoreTestResults { path: "t.xml".to_owned() };
    task.job.steps.push(store);
    server.offer(&task);
    let mut runner = small_spool(&server.url(), "1m").start();
    let end = ended(&server, &mut runner, "s-12");
    assert_eq!(end["status"], "infrastructure_fail", "{end}");
    assert!(end["message"].as_str().unwrap().contains("No space left"), "{end}");
}

/// Archives are written to a disk that is smaller than they are.
#[test]
fn an_archive_for_which_the_host_has_no_room_is_no_fault_of_the_job() {
    if !has_namespaces() {
        return;
    }
    let key = "v1".to_owned();
    let save = StepAction::SaveCache { key, paths: vec!["out".to_owned()] };
    let persist = StepAction::PersistToWorkspace { root: ".".to_owned(), paths: vec!["out".to_owned()] };
    for (id, action) in [("s-13", save), ("s-14", persist)] {
        let server = ControlPlane::start();
        let mut task = task_of(id, &["head -c 3000000 /dev/urandom > out"]);
        let mut step = task.job.steps[0].clone();
        step.action = action;
        task.job.steps.push(step);
        server.offer(&task);
        let mut runner = small_spool(&server.url(), "1m").start();
        let end = ended(&server, &mut runner, id);
        assert_eq!(end["status"], "infrastructure_fail", "{end}");
        let message = end["message"].as_str().unwrap();
        assert!(message.contains("No space left") && message.contains("TMPDIR"), "{message}");
    }
}

#[test]
#[cfg(feature = "server")]
fn more_output_than_the_spool_holds_passes_through_it() {
    use crate::server::{Server, one_step};
    if !has_namespaces() {
        return;
    }
    let server = Server::start();
    server.project();
    let token = server.class_token("a/b");
    let pipeline = server.trigger(&one_step("seq 1 1000000"));
    let machine = small_spool(server.client.url(), "2m");
    let mut runner = machine.variable("CIRCLECI_RUNNER_API_AUTH_TOKEN", &token).start();
    assert_eq!(runner.wait(), Some(0), "{}", runner.log());
    let jobs = server.ended(&pipeline);
    assert_eq!(jobs[0]["status"], "success", "{jobs:?} {}", runner.log());
    assert!(server.output(&jobs[0], 1) == numbers(1_000_000), "the output differs");
}
