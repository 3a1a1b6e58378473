//! `runlet exec`: the whole road, from a config in a folder to results in a folder.

use crate::support::{poll, processes};
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn folder(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".circleci")).unwrap();
    fs::write(folder.path().join(".circleci/config.yml"), config).unwrap();
    folder
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runlet"));
    command.arg("exec").arg(folder).args(args).env_remove("BASH_ENV").stdin(Stdio::null());
    command
}

struct Ran {
    code: i32,
    text: String,
}

fn exec(folder: &Path, args: &[&str]) -> Ran {
    let Output { status, stdout, stderr } = command(folder, args).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    Ran { code: status.code().unwrap_or(-1), text }
}

/// A config with one job of these steps.
fn steps(steps: &str) -> String {
    let steps: String = steps.lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "version: 2.1\njobs:\n  build:\n    machine: true\n    steps:\n{steps}workflows:\n  w:\n    jobs: [build]\n"
    )
}

fn run_steps(text: &str) -> Ran {
    let folder = folder(&steps(text));
    exec(folder.path(), &[])
}

impl Ran {
    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.text);
        self
    }

    #[track_caller]
    fn says(self, part: &str) -> Self {
        assert!(self.text.contains(part), "missing {part:?} in:\n{}", self.text);
        self
    }

    #[track_caller]
    fn never_says(self, part: &str) -> Self {
        assert!(!self.text.contains(part), "unwanted {part:?} in:\n{}", self.text);
        self
    }
}

#[test]
fn the_example_runs_as_the_readme_says() {
    let folder = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/crc32");
    let copied =
        Command::new("cp").arg("-r").arg(&example).arg(folder.path().join("crc32")).status().unwrap();
    assert!(copied.success());
    let root = folder.path().join("crc32");
    exec(&root, &["--pipeline-parameter", "release=true"]).exits(0).says("4 passed").says("source-archive");
    let report = fs::read_to_string(root.join(".runlet/artifacts/pack/out/report.txt")).unwrap();
    assert_eq!(report, "cbf43926 9 out/check\n");
    assert!(root.join(".runlet/artifacts/source-archive/crc32.tar").exists());
    exec(&root, &["--job", "lint"]).exits(0).never_says("pack");
}

#[test]
fn after_a_failure_only_steps_that_want_to_run_do() {
    run_steps("- run: exit 3\n- run: echo plain-ran-$((1+1))\n- run: {command: echo always-ran-$((1+1)), when: always}\n- run: {command: echo on-fail-ran-$((1+1)), when: on_fail}")
        .exits(1)
        .says("failed with exit code 3")
        .never_says("plain-ran-2")
        .says("always-ran-2")
        .says("on-fail-ran-2");
}

#[test]
fn the_default_shell_stops_at_failures_in_pipelines_and_a_named_one_does_not() {
    run_steps("- run: false | cat").exits(1);
    run_steps("- run: {command: false | cat, shell: /bin/sh}").exits(0);
}

#[test]
fn bash_env_carries_over_to_the_next_step_only() {
    run_steps("- run: echo 'export A=1' >> \"$BASH_ENV\"; echo \"first=[$A]\"\n- run: echo \"second=[$A]\"")
        .exits(0)
        .says("first=[]")
        .says("second=[1]");
}

#[test]
fn halting_ends_the_job_as_a_success() {
    run_steps("- run: circleci-agent step halt; echo rest-of-step\n- run: exit 1")
        .exits(0)
        .says("rest-of-step");
}

#[test]
fn a_step_is_tried_again_as_often_as_it_says() {
    run_steps("- run: {command: 'echo x >> n; test $(wc -l < n) = 3', max_auto_reruns: 2}")
        .exits(0)
        .says("(attempt 3)");
    run_steps("- run: {command: 'false', max_auto_reruns: 1}")
        .exits(1)
        .says("(attempt 2)")
        .never_says("(attempt 3)");
}

#[test]
fn silence_is_timed_out() {
    run_steps("- run: {command: echo before; sleep 600, no_output_timeout: 1s}")
        .exits(1)
        .says("Too long with no output (exceeded 1s)");
}

#[test]
fn background_steps_and_leftovers_do_not_survive() {
    let mark = format!("31{}", std::process::id());
    run_steps(&format!(
        "- run: {{command: sleep {mark}, background: true}}\n- run: setsid sleep {mark} &\n- run: echo on"
    ))
    .exits(0)
    .says("[stopped: the job has ended]");
    let left = processes::lines_with(&[&format!("sleep {mark}")]);
    assert!(left.is_empty(), "processes were left behind: {left:?}");
}

#[test]
fn a_grandchild_that_holds_the_output_does_not_hold_the_job() {
    run_steps("- run: sleep 600 & echo started").exits(0).says("still holds its output open");
}

#[test]
fn strange_output_arrives_as_it_is() {
    let folder = folder(&steps(
        "- run: printf 'a\\377b\\0c\\n'; head -c 200000 /dev/zero | tr '\\0' x; echo; exec >&- 2>&-; sleep 0.1",
    ));
    let output = command(folder.path(), &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let has = |part: &[u8]| output.stdout.windows(part.len()).any(|window| window == part);
    assert!(has(b"a\xffb\0c\n"));
    assert!(output.stdout.iter().filter(|&&byte| byte == b'x').count() >= 200_000);
}

#[test]
fn what_is_missing_is_named() {
    run_steps("- run: {command: x, shell: /no/such/shell}")
        .exits(1)
        .says("`/no/such/shell`: it is not installed");
    run_steps("- run: {command: x, working_directory: nowhere}").exits(1).says("nowhere` does not exist");
    run_steps("- store_artifacts: {path: nothing}").exits(0).says("nothing to store");
    run_steps("- save_cache: {key: k, paths: [x]}").exits(1).says("does not do caches yet");
}

#[test]
fn an_artifact_is_kept_and_the_tree_taken_as_it_is() {
    let folder =
        folder(&steps("- checkout\n- run: test ! -e ignored; cp file out\n- store_artifacts: {path: out}"));
    fs::write(folder.path().join("file"), "uncommitted").unwrap();
    fs::write(folder.path().join("ignored"), "x").unwrap();
    fs::write(folder.path().join(".gitignore"), "ignored\n").unwrap();
    exec(folder.path(), &[]).exits(0);
    let kept = folder.path().join(".runlet/artifacts/build/out");
    assert_eq!(fs::read_to_string(kept).unwrap(), "uncommitted");
}

#[test]
fn test_results_are_read_and_do_not_fail_the_job() {
    let xml =
        "<testsuite><testcase name='a'/><testcase name='b'><failure>broken</failure></testcase></testsuite>";
    run_steps(&format!(
        "- run: echo \"{xml}\" > r.xml; echo '<' > bad.xml\n- store_test_results: {{path: .}}"
    ))
    .exits(0)
    .says("1 passed, 1 failed")
    .says("failed test in build: b: broken")
    .says("ignored `bad.xml`: not valid XML");
}

#[test]
fn jobs_wait_for_what_they_require() {
    let job = |name: &str, command: &str| {
        format!("  {name}:\n    machine: true\n    steps: [{{run: '{command}'}}]\n")
    };
    let config = format!(
        "version: 2.1\njobs:\n{}{}{}workflows:\n  w:\n    jobs:\n      - a\n      - b: {{requires: [a]}}\n      - c: {{requires: [{{a: failed}}]}}\n",
        job("a", "exit 1"),
        job("b", "echo b-ran"),
        job("c", "echo c-ran")
    );
    let folder = folder(&config);
    exec(folder.path(), &[]).exits(1).says("c-ran").says("= not run");
}

#[test]
fn wrong_input_has_its_own_exit_code_and_a_place() {
    let unknown = folder(&steps("- unknown-step"));
    exec(unknown.path(), &[]).exits(7).says(".circleci/config.yml:6:");
    let empty = tempfile::tempdir().unwrap();
    exec(empty.path(), &[]).exits(2).says("failed to read the config");
    let good = folder(&steps("- run: 'true'"));
    exec(good.path(), &["--job", "nope"]).exits(2).says("jobs that apply: build");
    exec(good.path(), &["--nope"]).exits(2).says("runlet exec --help");
}

#[test]
fn an_interrupt_cancels_and_leaves_nothing() {
    let mark = format!("32{}", std::process::id());
    let folder = folder(&steps(&format!("- run: echo begun > \"$MARK\"; sleep {mark}")));
    let begun = folder.path().join("begun");
    let mut child = command(folder.path(), &[]).env("MARK", &begun).stdout(Stdio::null()).spawn().unwrap();
    poll("the beginning of the step", || if begun.exists() { Ok(()) } else { Err(String::new()) });
    processes::signal(child.id(), Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let left = processes::lines_with(&[&format!("sleep {mark}")]);
    assert!(left.is_empty(), "processes were left behind: {left:?}");
}

#[test]
fn contexts_are_empty_and_said_to_be() {
    let folder = folder(
        "version: 2.1\njobs:\n  build:\n    machine: true\n    steps: [run: 'echo \"<$FROM_CONTEXT>\"']\nworkflows:\n  w:\n    jobs:\n      - build: {context: [deploy, org-global]}\n",
    );
    exec(folder.path(), &[]).exits(0).says("contexts are empty here (deploy, org-global)").says("<>");
}

#[test]
fn a_workflow_that_reruns_by_itself_counts_by_its_last_result() {
    let tries = tempfile::NamedTempFile::new().unwrap();
    let folder = folder(&format!(
        "version: 2.1
jobs:
  first: {{machine: true, steps: [{{run: 'true'}}]}}
  second: {{machine: true, steps: [{{run: 'echo x >> {0}; test $(wc -l < {0}) -ge 3'}}]}}
workflows:
  w:
    max_auto_reruns: 3
    jobs: [first, {{second: {{requires: [first]}}}}]
",
        tries.path().display()
    ));
    let ran = exec(folder.path(), &[]).exits(0);
    assert_eq!(fs::read_to_string(tries.path()).unwrap().lines().count(), 3);
    let table = &ran.text[ran.text.rfind("\njob").unwrap()..];
    assert_eq!(table.matches("second").count(), 1, "only the last try is in the summary: {table}");
}
