//! Steps that empty, remove or replace what the task agent keeps of them: each is told, and nobody is held up.

use crate::spool::{ended, spools, wait_tries};
use crate::support::control_plane::ControlPlane;
use crate::support::runner::{Machine, task_of};

#[test]
fn a_step_that_empties_its_own_spool_is_told_and_the_task_goes_on() {
    let server = ControlPlane::start();
    server.answer("/output", 503, "{}");
    let machine = Machine::new(&server.url()).setting("mode", "single-task");
    let printed = machine.path("printed");
    let command = format!(
        "seq 1 200; sleep 0.3; for file in ../runlet-output-*/step-1; do : > $file; rm $file; done; echo after; sleep 0.3; echo > '{}'",
        printed.display()
    );
    server.offer(&task_of("s-5", &[&command, "echo next"]));
    let mut runner = machine.start();
    runner.wait_file("printed");
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
    wait_tries(&server, &runner, 1);
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
