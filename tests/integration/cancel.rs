//! A cancel while something on the way takes output and answers nothing: the control plane learns soon that the steps
//! have stopped, and the rest of the output follows when the way is free.

use crate::support::control_plane::ControlPlane;
use crate::support::poll;
use crate::support::runner::{Machine, task_of};

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
