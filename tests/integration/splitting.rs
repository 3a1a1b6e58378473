//! Tests of a job, shared among its parallel nodes.

use crate::support::control_plane::ControlPlane;
use crate::support::runner::{Machine, RUNLET, task_of};
use std::io::Write;
use std::process::{Command, Stdio};

/// The times add up to 19: the first file alone against all others is the best there is.
#[cfg(feature = "server")]
const CONFIG: &str = r#"
version: 2.1
jobs:
  test:
    machine: true
    resource_class: acme/split
    parallelism: 2
    steps:
      - run:
          name: split
          command: echo a.rb b.rb c.rb d.rb e.rb | circleci-agent tests split --split-by=timings | tee share
      - run:
          name: report
          command: |
            mkdir results
            { echo '<testsuite>'
              while read -r name; do
                case $name in a*) time=10;; b*|c*) time=3;; d*) time=2;; *) time=1;; esac
                echo "<testcase name='$name works' classname='K' file='./$name' time='$time'/>"
              done < share
              echo '</testsuite>'; } > results/junit.xml
      - store_test_results: {path: results}
workflows: {w: {jobs: [test]}}
"#;

#[cfg(feature = "server")]
#[test]
fn the_next_run_shares_by_what_the_tests_took() {
    use crate::support::seen::Seen;
    let server = crate::server::Server::start();
    server.project();
    let token = server.class_token("acme/split");
    let _runners = [server.runner("one", &token), server.runner("two", &token)];
    let shares = || {
        let pipeline = server.trigger(CONFIG);
        let seen = Seen::watch(&server, &pipeline);
        let job = seen.job("test");
        assert_eq!(job.status, "success", "{seen}");
        ["split@0", "split@1"].map(|title| {
            let step = job.step(title).unwrap_or_else(|| panic!("no `{title}` in\n{seen}"));
            String::from_utf8(step.output.clone()).unwrap()
        })
    };
    let names = |text: &str| {
        let names = text.lines().filter(|line| line.ends_with(".rb"));
        names.collect::<Vec<_>>().join(" ")
    };
    // No times are known yet, and both nodes say so.
    let first = shares();
    assert_eq!(first.each_ref().map(|text| names(text)), ["a.rb c.rb e.rb", "b.rb d.rb"]);
    for text in &first {
        assert!(text.contains("no earlier run of this job has stored test results"), "{text}");
        assert!(text.contains("Error auto-detecting timing type, falling back to weighting by name."));
    }
    // The reports of both nodes count, and nothing but the names is printed.
    for _ in 0..2 {
        assert_eq!(shares(), ["a.rb\n", "b.rb\nc.rb\nd.rb\ne.rb\n"]);
    }
}

const SPLIT: &str = "echo a b c | circleci-agent tests split --split-by=timings";

fn with_timings(id: &str, commands: &[&str]) -> runlet::protocol::Task {
    let mut task = task_of(id, commands);
    task.node_total = 2;
    task.has_test_timings = true;
    task
}

#[test]
fn timings_that_come_late_hold_only_who_needs_them() {
    let plane = ControlPlane::start();
    plane.answer("test-timings", 503, "later");
    plane.offer(&with_timings("late", &["echo first", SPLIT]));
    let machine = Machine::new(&plane.url()).setting("mode", "single-task").start();
    // The second step has begun, so the first was not held.
    crate::support::poll("the second step", || {
        let text: String =
            plane.requests().iter().map(|r| String::from_utf8_lossy(&r.body).into_owned()).collect();
        if text.contains("\"step\":2") { Ok(()) } else { Err(machine.log()) }
    });
    plane.answer("test-timings", 200, r#"{"filename":{"c":5,"a":1,"b":1}}"#);
    let finished = plane.wait_finished("late");
    assert_eq!(finished["status"], "success", "{finished}\n{}", machine.log());
    assert_eq!(plane.output("late", 2), "c\n");
}

#[test]
fn timings_that_cannot_be_had_leave_no_test_out() {
    let plane = ControlPlane::start();
    plane.answer("test-timings", 404, r#"{"message":"they are gone"}"#);
    plane.offer(&with_timings(
        "gone",
        &["echo first", &format!("{SPLIT} || echo refused"), "echo a b | circleci-agent tests split"],
    ));
    let machine = Machine::new(&plane.url()).setting("mode", "single-task").start();
    let finished = plane.wait_finished("gone");
    assert_eq!(finished["status"], "success", "{finished}\n{}", machine.log());
    let output = plane.output("gone", 2);
    assert!(output.contains("they are gone") && output.contains("--split-by=name"), "{output}");
    assert!(output.ends_with("\nrefused\n"), "{output}");
    assert_eq!(plane.output("gone", 3), "a\n");
}

/// Runs an in-job command with this input; the exit code and what it printed.
fn tool(words: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(RUNLET);
    command.arg("tool").args(words).env_remove("BASH_ENV");
    command
        .env_remove("CIRCLE_INTERNAL_TASK_DATA")
        .env_remove("CIRCLE_NODE_INDEX")
        .env_remove("CIRCLE_NODE_TOTAL");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that refuses its options reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn every_node_has_its_share_of_many_names() {
    let names: Vec<String> = (0..20_000).map(|n| format!("spec/{n:05}_spec.rb")).collect();
    let input = names.join("\n");
    let mut all = Vec::new();
    for index in 0..3 {
        let index = index.to_string();
        let (code, out, error) =
            tool(&["tests", "split", "--total=3", "--index", &index, "--show-counts"], &input);
        assert_eq!(code, Some(0), "{error}");
        assert!(error.contains(&format!("of 20000 names for node {index} of 3")), "{error}");
        all.extend(out.lines().map(str::to_owned));
    }
    all.sort();
    assert_eq!(all, names);
}

#[test]
fn a_named_timings_file_is_used_on_any_host() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("timings.json");
    std::fs::write(&file, r#"{"classname": {"A": 1, "B": 1.5, "C": 4}}"#).unwrap();
    let option = format!("--timings-file={}", file.display());
    let words = ["tests", "split", "--index=0", "--total=2", "--split-by", "timings", &option];
    assert_eq!(tool(&words, "A B C"), (Some(0), "C\n".to_owned(), String::new()));
    std::fs::write(&file, "[").unwrap();
    let (code, _, error) = tool(&words, "A B C");
    assert!(code == Some(1) && error.contains("failed to read the timings in"), "{error}");
}

#[test]
fn a_command_runs_with_the_share_and_gives_its_code() {
    let run = |index: &str, input: &str| {
        let index = format!("--index={index}");
        tool(&["tests", "run", "--command=echo \"<$(cat)>\"; exit 9", &index, "--total=2"], input)
    };
    assert_eq!(run("0", "c b\na"), (Some(9), "<a c>\n".to_owned(), String::new()));
    let (code, out, error) = run("1", "only");
    assert!((code, out.as_str()) == (Some(0), "") && error.contains("the command is not run"), "{error}");
    let (code, out, error) = run("0", " \n");
    assert!((code, out.as_str()) == (Some(0), "") && error.contains("No test names found in input source"));
    let (code, _, error) = tool(&["tests", "run", "--index=0", "--total=1"], "a");
    assert!(code == Some(1) && error.contains("--command"), "{error}");
    let (code, _, error) = tool(&["tests", "split"], "a");
    assert!(code == Some(1) && error.contains("CIRCLE_NODE_INDEX"), "{error}");
}
