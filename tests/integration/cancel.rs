//! A cancel while something on the way takes output and answers nothing: the control plane learns soon that the steps
//! have stopped, and the rest of the output follows when the way is free.

use crate::support::control_plane::ControlPlane;
use crate::support::poll;
use crate::support::runner::{Machine, task_of};
use runlet::protocol::{Step, StepAction};

#[test]
fn a_cancelled_task_ends_although_its_output_hangs_and_nothing_of_that_is_lost() {
    // The steps run, or have ended, when the cancel comes; and what says that they have stopped may be lost.
    for (id, last, is_lost) in
        [("c-1", "exec sleep 600", false), ("c-2", "true", false), ("c-3", "exec sleep 600", true)]
    {
        let server = ControlPlane::start();
        let machine = Machine::new(&server.url()).setting("mode", "single-task");
        let go = machine.path("go");
        let command =
            format!("echo first; until test -e '{}'; do sleep 0.05; done; echo late; {last}", go.display());
        server.offer(&task_of(id, &[&command]));
        let mut runner = machine.start();
        poll("the step", || if server.output(id, 1) == "first\n" { Ok(()) } else { Err(runner.log()) });
        server.swallow("/output");
        std::fs::write(&go, "").unwrap();
        let hung = format!("/tasks/{id}/steps/1/output?offset=6");
        server.wait_for(&hung);
        if is_lost {
            server.intercept("/stopped", 503, "");
        }
        server.cancel(id);
        server.wait_for(&format!("/tasks/{id}/stopped"));
        server.release("/stopped");
        runner.wait_log("the cancelled task has ended; what is left of its output is still sent");
        server.behave();
        assert_eq!(runner.wait(), Some(0));
        let output = server.output(id, 1);
        assert!(output.starts_with("first\nlate\n"), "{output}");
        let calls = server.requests();
        let stopped = calls.iter().position(|call| call.path.ends_with("/stopped")).unwrap();
        let again = calls.iter().rposition(|call| call.path.ends_with(&hung)).unwrap();
        assert!(stopped < again, "it was sent again behind the end");
        assert!(runner.log().contains("outcome="), "{}", runner.log());
    }
}

#[test]
fn a_cancelled_task_ends_although_its_agent_has_died_and_the_output_that_it_left_hangs() {
    let server = ControlPlane::start();
    let machine = Machine::new(&server.url()).setting("mode", "single-task");
    let go = machine.path("go");
    let command = format!(
        "echo first; until test -e '{}'; do sleep 0.05; done; kill -9 $PPID; sleep 600",
        go.display()
    );
    server.offer(&task_of("d-9", &[&command]));
    let mut runner = machine.start();
    poll("the step", || if server.output("d-9", 1) == "first\n" { Ok(()) } else { Err(runner.log()) });
    server.swallow("/output");
    std::fs::write(&go, "").unwrap();
    runner.wait_log("sending what the task agent has left");
    server.cancel("d-9");
    server.wait_for("/tasks/d-9/stopped");
    runner.wait_log("the cancelled task has ended; what is left of its output is still sent");
    server.behave();
    assert_eq!(runner.wait(), Some(0));
    assert_eq!(server.output("d-9", 1), "first\n", "{}", runner.log());
}

#[test]
fn a_cancelled_task_ends_although_its_finish_hangs() {
    // The report that the steps have stopped may be lost, too; and the fence of a task may wait for it.
    for (id, is_lost, is_cancelled) in [("f-1", false, true), ("f-2", true, true), ("f-3", false, false)] {
        let server = ControlPlane::start();
        server.swallow("/finish");
        let machine = Machine::new(&server.url()).setting("mode", "single-task");
        server.offer(&task_of(id, &["echo done"]));
        let mut runner = machine.start();
        server.wait_for(&format!("/tasks/{id}/finish"));
        if is_lost {
            server.intercept("/stopped", 503, "");
        }
        if is_cancelled {
            server.cancel(id);
        } else {
            server.end(id, true);
        }
        server.wait_for(&format!("/tasks/{id}/stopped"));
        server.release("/stopped");
        // The agent waits for nothing more: the finish is still without an answer.
        assert_eq!(runner.wait(), Some(0), "{}", runner.log());
        assert_eq!(server.output(id, 1), "done\n");
        assert!(runner.log().contains("outcome="), "{}", runner.log());
    }
}

#[test]
fn a_cancelled_task_ends_although_an_upload_hangs_and_then_its_events_or_its_finish() {
    let upload = |path: &str, action: fn(String) -> StepAction| (path.to_owned(), action);
    let artifact: fn(String) -> StepAction = |path| StepAction::StoreArtifacts { path, destination: None };
    let results: fn(String) -> StepAction = |path| StepAction::StoreTestResults { path };
    for (n, (hangs, action)) in
        [upload("/uploads", artifact), upload("/artifacts", artifact), upload("/test-results", results)]
            .into_iter()
            .enumerate()
    {
        for (m, then) in ["/events", "/finish"].into_iter().enumerate() {
            let id = format!("u-{n}-{m}");
            let server = ControlPlane::start();
            let machine = Machine::new(&server.url()).setting("mode", "single-task");
            let file = machine.file("results.xml", "<testsuite><testcase name='a'/></testsuite>");
            let mut task = task_of(&id, &["true"]);
            let step = task.job.steps[0].clone();
            task.job.steps.push(Step { action: action(file.display().to_string()), ..step });
            server.swallow(&hangs);
            server.offer(&task);
            let mut runner = machine.start();
            poll("the upload", || {
                let calls = server.requests();
                if calls.iter().any(|call| call.path.contains(&hangs)) { Ok(()) } else { Err(runner.log()) }
            });
            server.swallow(then);
            server.cancel(&id);
            server.wait_for(&format!("/tasks/{id}/stopped"));
            server.behave();
            assert_eq!(runner.wait(), Some(0), "{hangs} {then}: {}", runner.log());
        }
    }
}
