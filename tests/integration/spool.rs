//! Output on its way: a spool that is small, full, emptied by a step or left behind by a task agent that was killed, and
//! lines that carry small pieces only. Against a fake control plane, and one real one.

use crate::hostile::{has_namespaces, inside, machine};
use crate::support::control_plane::ControlPlane;
use crate::support::poll;
use crate::support::processes::{coming_child_with, end, end_below, signal, wait_end};
use crate::support::runner::{Machine, Running, task_of};
use runlet::protocol::{Action, Secret, Variable, When};
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

fn numbers(last: u32) -> String {
    (1..=last).map(|n| format!("{n}\n")).collect()
}

/// A runner of one task whose spool is on a file system of this size.
fn small_spool(url: &str, size: &str) -> Machine {
    let machine = machine(url).setting("mode", "single-task");
    let spool = machine.path("spool");
    fs::create_dir(&spool).unwrap();
    let script = format!("mount -t tmpfs -o size={size} none '{}'", spool.display());
    inside(machine, &script).variable("TMPDIR", &spool.display().to_string())
}

fn ended(server: &ControlPlane, runner: &mut Running, id: &str) -> serde_json::Value {
    assert_eq!(runner.wait(), Some(0), "{}", runner.log());
    server.wait_over(id).json()
}

/// The folders that the runner's tasks have beside the working directory.
fn spools(machine: &Machine) -> Vec<PathBuf> {
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
    let mut task = task_of("s-1", &[&command, "echo next"]);
    task.max_step_output_bytes = 10 << 20;
    server.offer(&task);
    let mut runner = machine.start();
    // It prints more than spool, pipe and buffers hold; a call that is answered shows that it had the time.
    poll("some tries to send", || {
        let tries = server.requests().iter().filter(|r| r.path.contains("/output")).count();
        if tries >= 4 { Ok(()) } else { Err(runner.log()) }
    });
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
        "seq 1 100000; touch '{}'; until test -e '{}'; do sleep 0.05; done; echo last",
        printed.display(),
        go.display()
    );
    let mut task = task_of("s-2", &[&command]);
    task.max_step_output_bytes = 10 << 20;
    server.offer(&task);
    let mut runner = machine.start();
    poll("the step to have printed", || if printed.exists() { Ok(()) } else { Err(runner.log()) });
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
        "head -c 20000000 /dev/zero > '{0}' || true; seq 1 400000; rm '{0}'; seq 1 1000; touch '{1}'",
        fill.display(),
        printed.display()
    );
    let mut task = task_of("s-41", &[&command]);
    task.max_step_output_bytes = 10 << 20;
    server.offer(&task);
    let mut runner = machine.start();
    poll("the step to have printed", || if printed.exists() { Ok(()) } else { Err(runner.log()) });
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
    let mut task = task_of("s-42", &[&fill, "echo never", "seq 1 100000"]);
    task.job.steps[2].when = When::Always;
    task.max_step_output_bytes = 10 << 20;
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
    let mut task = task_of("s-43", &["seq 1 200000"]);
    task.max_step_output_bytes = 10 << 20;
    server.offer(&task);
    let mut runner = machine.start();
    poll("some tries to send", || {
        let tries = server.requests().iter().filter(|r| r.path.contains("/output")).count();
        if tries >= 4 { Ok(()) } else { Err(runner.log()) }
    });
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
        let mut task = task_of("s-4", &["seq 1 100000"]);
        task.max_step_output_bytes = 10 << 20;
        server.offer(&task);
        let mut runner = Machine::new(&server.url()).setting("mode", "single-task").start();
        assert_eq!(ended(&server, &mut runner, "s-4")["status"], "success", "{}", runner.log());
        assert!(server.output("s-4", 1) == numbers(100_000), "the output differs");
    }
}

#[test]
fn a_step_that_empties_its_own_spool_is_told_and_the_task_goes_on() {
    let server = ControlPlane::start();
    server.answer("/output", 503, "{}");
    let machine = Machine::new(&server.url()).setting("mode", "single-task");
    let printed = machine.path("printed");
    let command = format!(
        "seq 1 200; sleep 0.3; for file in ../runlet-output-*/step-1; do : > $file; rm $file; done; echo after; sleep 0.3; touch '{}'",
        printed.display()
    );
    server.offer(&task_of("s-5", &[&command, "echo next"]));
    let mut runner = machine.start();
    poll("the step to have printed", || if printed.exists() { Ok(()) } else { Err(runner.log()) });
    server.behave();
    let end = ended(&server, &mut runner, "s-5");
    let output = server.output("s-5", 1);
    assert!(output.contains("bytes of output are gone") && output.ends_with("after\n"), "{output}");
    assert_eq!(server.output("s-5", 2), "next\n");
    assert_eq!(end["status"], "infrastructure_fail", "{end}");
    assert!(end["message"].as_str().unwrap().contains("output of step 1 is gone"), "{end}");
}

#[test]
fn a_step_that_removes_the_folder_of_the_spool_is_told_and_the_task_goes_on() {
    let server = ControlPlane::start();
    server.answer("/output", 503, "{}");
    let machine = Machine::new(&server.url()).setting("mode", "single-task");
    server.offer(&task_of("s-11", &["rm -r ../runlet-output-*; echo first", "echo next"]));
    let mut runner = machine.start();
    poll("a try to send", || {
        let tries = server.requests().iter().filter(|r| r.path.contains("/output")).count();
        if tries > 0 { Ok(()) } else { Err(runner.log()) }
    });
    server.behave();
    let end = ended(&server, &mut runner, "s-11");
    assert_eq!((server.output("s-11", 1), server.output("s-11", 2)), ("first\n".into(), "next\n".into()));
    assert_eq!(end["status"], "success", "{end}");
    assert!(spools(&runner.machine).is_empty());
}

#[test]
fn a_step_that_removes_the_private_folder_leaves_the_next_one_its_environment() {
    let server = ControlPlane::start();
    let first = "echo 'export A=kept' >> \"$BASH_ENV\"; rm -r \"$(dirname \"$BASH_ENV\")\"";
    let second = "echo \"A=$A\"; echo hunter2 | circleci-agent secret add; echo hunter2";
    server.offer(&task_of("s-16", &[first, second, "rm \"$BASH_ENV\"", "echo \"A=[$A]\""]));
    // The commands of jobs are in the private folder as well where the runner has no place for them.
    let machine = Machine::new(&server.url()).setting("task_agent_directory", "/dev/null/none");
    let mut runner = machine.setting("mode", "single-task").start();
    assert_eq!(ended(&server, &mut runner, "s-16")["status"], "success", "{}", runner.log());
    let output = server.output("s-16", 2);
    assert!(output.starts_with("warning: a step removed the private folder `"), "{output}");
    assert!(output.contains("\nA=kept\n") && output.ends_with("\n****\n"), "{output}");
    assert_eq!(server.output("s-16", 4), "A=[]\n", "it was removed by itself");
}

/// Pipes stand where the agent keeps its events, and where the end of the output would go.
#[test]
fn what_a_step_puts_in_the_place_of_a_file_holds_nobody_up() {
    let server = ControlPlane::start();
    let command = "cd ../runlet-output-* && rm events && mkfifo events step-2.tail && echo first";
    let mut task = task_of("s-17", &[command, "seq 1 20000", "echo next"]);
    task.max_step_output_bytes = 20_000;
    server.offer(&task);
    let mut runner = Machine::new(&server.url()).setting("mode", "single-task").start();
    assert_eq!(ended(&server, &mut runner, "s-17")["status"], "success", "{}", runner.log());
    assert!(server.output("s-17", 2).ends_with("\n19999\n20000\n"), "the end is missing");
    assert_eq!(server.output("s-17", 3), "next\n");
}

/// The rest of a task whose agent was killed: nobody waits for the other end of a pipe.
#[test]
fn a_pipe_among_what_an_agent_has_left_is_passed_over() {
    let server = ControlPlane::start();
    server.answer("/output", 503, "{}");
    let command = "cd ../runlet-output-* && rm events && mkfifo events && kill -9 $PPID; sleep 600";
    server.offer(&task_of("s-18", &[command]));
    let mut runner = Machine::new(&server.url()).setting("mode", "single-task").start();
    assert_eq!(runner.wait(), Some(0), "{}", runner.log());
    let lost = server.wait_for("/lost").json();
    assert!(lost["message"].as_str().unwrap().contains("the task agent died"), "{lost}");
}

/// A device that takes nothing stands where the masked copy of the report is written.
#[test]
fn a_report_for_which_the_host_has_no_room_is_no_success() {
    let server = ControlPlane::start();
    let full = "echo '<testsuite/>' > t.xml; ln -s /dev/full \"$(dirname \"$BASH_ENV\")/report\"";
    let mut task = task_of("s-12", &[full]);
    let mut store = task.job.steps[0].clone();
    store.action = Action::StoreTestResults { path: "t.xml".to_owned() };
    task.job.steps.push(store);
    server.offer(&task);
    let mut runner = Machine::new(&server.url()).setting("mode", "single-task").start();
    let end = ended(&server, &mut runner, "s-12");
    assert_eq!(end["status"], "infrastructure_fail", "{end}");
    assert!(end["message"].as_str().unwrap().contains("No space left"), "{end}");
}

/// The same where archives are written.
#[test]
fn an_archive_for_which_the_host_has_no_room_is_no_fault_of_the_job() {
    let key = "v1".to_owned();
    let save = Action::SaveCache { key, paths: vec!["out".to_owned()] };
    let persist = Action::PersistToWorkspace { root: ".".to_owned(), paths: vec!["out".to_owned()] };
    for (id, action) in [("s-13", save), ("s-14", persist)] {
        let server = ControlPlane::start();
        let mut task = task_of(id, &["seq 1 9 > out; ln -s /dev/full \"$(dirname \"$BASH_ENV\")/archive\""]);
        let mut step = task.job.steps[0].clone();
        step.action = action;
        task.job.steps.push(step);
        server.offer(&task);
        let mut runner = Machine::new(&server.url()).setting("mode", "single-task").start();
        let end = ended(&server, &mut runner, id);
        assert_eq!(end["status"], "infrastructure_fail", "{end}");
        let message = end["message"].as_str().unwrap();
        assert!(message.contains("No space left") && message.contains("TMPDIR"), "{message}");
    }
}

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
    let mut task = task_of("s-17", &[&format!("echo $$ > '{}'; sleep 600", pid.display())]);
    task.git_files = vec![Variable { name: "config".to_owned(), value: Secret::new("[core]\n") }];
    server.offer(&task);
    let machine = machine.setting("use_home_ssh_dir_for_checkout_keys", "true");
    let mut runner = machine.setting("command_prefix", &format!("[env, 'HOME={}']", home.display())).start();
    runner.wait_file("pid");
    let keys = || fs::read_dir(home.join(".ssh")).map_or(0, Iterator::count);
    assert_eq!(keys(), 1);
    signal(coming_child_with(runner.pid() as u32, "task"), Signal::KILL);
    assert_eq!(runner.wait(), Some(0));
    server.wait_for("/tasks/s-17/lost");
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

/// With a control plane that stores for good.
#[cfg(feature = "server")]
mod real {
    use super::{Machine, coming_child_with, has_namespaces, numbers, poll, signal, small_spool, spools};
    use crate::server::Server;
    use rustix::process::Signal;
    use std::fs;

    fn pipeline(command: &str) -> String {
        format!(
            "version: 2.1\njobs: {{build: {{machine: true, resource_class: a/b, steps: [{{run: '{command}'}}]}}}}\nworkflows: {{w: {{jobs: [build]}}}}\n"
        )
    }

    #[test]
    fn more_output_than_the_spool_holds_passes_through_it() {
        if !has_namespaces() {
            return;
        }
        let server = Server::start();
        server.project();
        let token = server.class_token("a/b");
        let pipeline = server.trigger(&pipeline("seq 1 1000000"));
        let machine = small_spool(server.client.url(), "2m");
        let mut runner = machine.variable("CIRCLECI_RUNNER_API_AUTH_TOKEN", &token).start();
        assert_eq!(runner.wait(), Some(0), "{}", runner.log());
        let jobs = server.ended(&pipeline);
        assert_eq!(jobs[0]["status"], "success", "{jobs:?} {}", runner.log());
        assert!(server.output(&jobs[0], 1) == numbers(1_000_000), "the output differs");
    }

    #[test]
    fn a_restarted_runner_is_given_a_token_for_the_rest() {
        let server = Server::start();
        server.project();
        let token = server.class_token("a/b");
        let machine = Machine::new(server.client.url()).variable("CIRCLECI_RUNNER_API_AUTH_TOKEN", &token);
        let (go, printed) = (machine.path("go"), machine.path("printed"));
        let command = format!(
            "echo begun; until test -e {}; do sleep 0.05; done; seq 1 20000; touch {}; sleep 600",
            go.display(),
            printed.display()
        );
        let pipeline = server.trigger(&pipeline(&command));
        let runner = machine.start();
        server.wait_output(&pipeline, 1, "begun");
        // It cannot answer, and the agent not deliver.
        signal(server.child.id(), Signal::STOP);
        fs::write(&go, "").unwrap();
        poll("the step to have printed", || if printed.exists() { Ok(()) } else { Err(runner.log()) });
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
}
