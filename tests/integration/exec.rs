//! `runlet exec`: the whole road, from a config in a folder to results in a folder.

use crate::support::{poll, processes};
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

pub(crate) fn folder(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".circleci")).unwrap();
    fs::write(folder.path().join(".circleci/config.yml"), config).unwrap();
    folder
}

pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runlet"));
    command.arg("exec").arg(folder).args(args).env_remove("BASH_ENV").stdin(Stdio::null());
    // Nobody's own: caches are kept there.
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) text: String,
}

pub(crate) fn exec(folder: &Path, args: &[&str]) -> Ran {
    let Output { status, stdout, stderr } = command(folder, args).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    Ran { code: status.code().unwrap_or(-1), text }
}

/// Seconds to sleep by which the sleeping process is known: those of one test of one test program, and no
/// part of anybody else's.
pub(crate) fn mark(test: u32) -> String {
    format!("{test}{:08}", std::process::id())
}

/// A config with one job of these steps.
pub(crate) fn steps(steps: &str) -> String {
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
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.text);
        self
    }

    #[track_caller]
    pub(crate) fn says(self, part: &str) -> Self {
        assert!(self.text.contains(part), "missing {part:?} in:\n{}", self.text);
        self
    }

    #[track_caller]
    pub(crate) fn never_says(self, part: &str) -> Self {
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
    let mark = mark(31);
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
    run_steps("- save_cache: {key: k, paths: [x]}").exits(0).says("there is no `").says("nothing was saved");
    run_steps("- add_ssh_keys").exits(0).says("ssh uses your own");
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
fn an_artifact_that_another_one_replaces_is_named() {
    let step = |from: &str| format!("- store_artifacts: {{path: {from}/o, destination: o}}\n");
    let made = "- run: mkdir a b c; echo 1 > a/o; echo 1 > b/o; echo 2 > c/o\n";
    let ended = run_steps(&[made, &step("a"), &step("b"), &step("c")].concat()).exits(0);
    let text = ended.says("warning: this `o`, of `").says("b/o`: the last file of a name is kept");
    assert_eq!(text.text.matches("has replaced the one of").count(), 1, "equal files replace nothing");
}

#[test]
fn test_results_are_read_and_do_not_fail_the_job() {
    let xml =
        "<testsuite><testcase name='a'/><testcase name='b'><failure>broken</failure></testcase></testsuite>";
    run_steps(&format!(
        "- run: echo \"{xml}\" > r.xml; echo '<' > bad.xml; echo \"<testsuite><testcase name='c'/>\" > cut.xml\n- store_test_results: {{path: .}}"
    ))
    .exits(0)
    .says("2 passed, 1 failed")
    .says("failed test in build: b: broken")
    .says("stored `cut.xml` (1 test)\nwarning: `cut.xml`: not valid XML")
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
    let mark = mark(32);
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
fn every_line_of_a_parallel_job_names_its_node() {
    let folder = folder(
        "version: 2.1\njobs: {build: {machine: true, parallelism: 2, steps: [run: echo node-$CIRCLE_NODE_INDEX]}}\nworkflows: {w: {jobs: [build]}}\n",
    );
    let output = command(folder.path(), &["--concurrency", "1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = said.split("\n\njob ").next().unwrap();
    assert!(told.lines().all(|line| line.starts_with("build")), "{said}");
    for line in ["build#0 | node-0\n", "build#1 | node-1\n", "build   | = success in "] {
        assert!(said.contains(line), "{said}");
    }
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

/// A home with a repository at `project`; the config is committed in it.
fn home_with_project(config: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let project = home.path().join("project");
    fs::create_dir_all(project.join(".circleci")).unwrap();
    fs::write(project.join(".circleci/config.yml"), config).unwrap();
    fs::write(project.join("precious"), "not committed\n").unwrap();
    git(&project, "init -qb main");
    git(&project, "add .circleci");
    git(&project, "commit -qm first");
    home
}

pub(crate) fn git(folder: &Path, words: &str) -> String {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"];
    let output =
        Command::new("git").current_dir(folder).args(identity).args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "git {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn exec_at_home(home: &Path, args: &[&str]) -> Ran {
    let Output { status, stdout, stderr } =
        command(&home.join("project"), args).env("HOME", home).env_remove("GOPATH").output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    Ran { code: status.code().unwrap_or(-1), text }
}

#[test]
fn jobs_that_work_where_the_repository_is_leave_it_alone() {
    for written in ["~/project", "~", "~/x/..", "PLACE/project", "..", "/"] {
        // Each of the two waits for the other one, so that both are in a directory of the same name at once;
        // where one had to go first, it would fail in the end.
        let job = "{machine: true, working_directory: WRITTEN, steps: [checkout, \
                   {run: 'ls -A; echo \"$PWD\" > where; mkdir -p out; echo made > out/x'}, \
                   {run: 'touch MEETING/$CIRCLE_JOB; n=0; until test -e MEETING/one && test -e MEETING/two; do \
                   n=$((n + 1)); test $n -lt 6000; sleep 0.05; done'}, {run: cd / && ls / > /dev/null}, \
                   {store_artifacts: {path: where}}]}";
        let meeting = tempfile::tempdir().unwrap();
        let config = format!(
            "version: 2.1\njobs:\n  one: {job}\n  two: {job}\nworkflows: {{w: {{jobs: [one, two]}}}}\n"
        )
        .replace("MEETING", &meeting.path().display().to_string());
        let home = home_with_project(&config);
        let place = home.path().display().to_string();
        let project = home.path().join("project");
        let written = written.replace("PLACE", &place);
        fs::write(project.join(".circleci/config.yml"), config.replace("WRITTEN", &written)).unwrap();
        let before = git(&project, "status --porcelain");
        exec_at_home(home.path(), &["--concurrency", "2"]).exits(0).says("precious");
        assert_eq!(git(&project, "status --porcelain"), before, "{written}");
        assert_eq!(fs::read_to_string(project.join("precious")).unwrap(), "not committed\n");
        assert!(!project.join("out").exists(), "{written}");
        let places = ["one", "two"].map(|job| {
            fs::read_to_string(project.join(".runlet/artifacts").join(job).join("where")).unwrap()
        });
        assert_ne!(places[0], places[1], "{written}");
        assert!(places.iter().all(|path| path.contains("runlet-exec-")), "{written}: {places:?}");
    }
}

#[test]
fn a_workspace_of_the_whole_home_leaves_the_home_alone() {
    let config = "version: 2.1
jobs:
  one:
    machine: true
    working_directory: ~/project
    steps: [checkout, {run: 'echo built > made; echo other > precious'}, {persist_to_workspace: {root: ~/, paths: [./project]}}]
  two:
    machine: true
    working_directory: ~/project
    steps: [{attach_workspace: {at: ~/}}, {run: 'cat made precious'}, {store_artifacts: {path: ~/project/made}}]
workflows: {w: {jobs: [one, {two: {requires: [one]}}]}}
";
    let home = home_with_project(config);
    let project = home.path().join("project");
    let place = project.display().to_string();
    exec_at_home(home.path(), &[])
        .exits(0)
        .says("built")
        .says(&format!("stored `{}/made`", place.trim_start_matches('/')));
    assert!(!project.join("made").exists());
    assert_eq!(fs::read_to_string(project.join("precious")).unwrap(), "not committed\n");
}

#[test]
fn a_home_of_the_job_stands_in_for_that_of_the_person() {
    let config = r#"version: 2.1
jobs:
  one:
    machine: true
    steps:
      - checkout
      - run: |
          test "$PWD" = "$HOME/project" && test "$CIRCLE_WORKING_DIRECTORY" = "$PWD"
          cd ~/project && mkdir -p ~/project/out ~/out && echo made > ~/project/out/x && echo beside > ~/out/y
          rm -rf ~/project/.circleci ~/.netrc ~/work && mkdir ~/.fresh && echo fresh > ~/.fresh/f
      - run: {working_directory: ~/project/out, command: cat x}
      - run: |
          test "$(git config --global user.name)" = "Home Owner"
          cat ~/.cargo/marker && echo added > ~/.cargo/added && ls "$GOPATH/pkg"
      - store_artifacts: {path: ~/project/out, destination: tilde}
      - store_artifacts: {path: /home/circleci/project/out, destination: hosted}
      - store_artifacts: {path: ~/out, destination: beside}
      - save_cache: {key: k, paths: [~/project/out, ~/.fresh, ~/.cargo/marker]}
      - persist_to_workspace: {root: ~/project, paths: [out]}
      - persist_to_workspace: {root: ~/, paths: [.]}
  two:
    machine: true
    steps:
      - attach_workspace: {at: '~'}
      - run: cat ~/project/out/x ~/out/y out/x && rm -r ~/.fresh
      - restore_cache: {key: k}
      - run: cat ~/.fresh/f && test "$(git config --global user.name)" = "Home Owner"
workflows: {w: {jobs: [one, {two: {requires: [one]}}]}}
"#;
    let home = home_with_project(config);
    let at = |name: &str| home.path().join(name);
    for folder in [".cargo", "go/pkg/mod", "work"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    for (name, text) in [
        (".gitconfig", "[user]\n\tname = Home Owner\n"),
        (".cargo/marker", ""),
        (".netrc", ""),
        ("work/precious", ""),
    ] {
        fs::write(at(name), text).unwrap();
    }
    exec_at_home(home.path(), &[]).exits(0);
    let artifacts = at("project/.runlet/artifacts/one");
    for name in ["tilde/x", "hosted/x", "beside/y"] {
        assert!(artifacts.join(name).is_file(), "{name}");
    }
    for kept in
        ["project/.circleci/config.yml", "project/precious", "work/precious", ".netrc", ".cargo/added"]
    {
        assert!(at(kept).exists(), "{kept}");
    }
    for strange in ["project/out", "out", ".fresh"] {
        assert!(!at(strange).exists(), "{strange}");
    }
}

#[test]
fn a_checkout_does_not_take_over_the_repository_itself() {
    let config = "version: 2.1\njobs: {build: {machine: true, working_directory: other, steps: [checkout: {path: PLACE}]}}\n";
    let home = home_with_project(config);
    let project = home.path().join("project");
    fs::write(project.join(".circleci/config.yml"), config.replace("PLACE", &project.display().to_string()))
        .unwrap();
    git(&project, "commit -qam place");
    git(&project, "remote add origin https://example.com/o/r.git");
    let before = git(&project, "config --list --local");
    exec_at_home(home.path(), &[]).exits(1).says("cannot check out into").says("use a `path` below");
    assert_eq!(git(&project, "config --list --local"), before);
    assert_eq!(git(&project, "status --porcelain"), "?? .runlet/\n?? precious".replace("?? .runlet/\n", ""));
}

#[test]
fn clones_without_their_whole_history_run_too() {
    let config = "version: 2.1\njobs: {build: {machine: true, steps: [checkout, {run: 'cat precious; git status'}]}}\n";
    let home = home_with_project(config);
    let project = home.path().join("project");
    git(&project, "config uploadpack.allowFilter true");
    git(&project, "add precious");
    git(&project, "commit -qm second");
    for how in ["--depth=1", "--filter=blob:none"] {
        let clone = home.path().join(how.replace([':', '='], "-"));
        git(home.path(), &format!("clone -q {how} file://{} {}", project.display(), clone.display()));
        exec(&clone, &[]).exits(0).says("not committed").never_says("warning");
        fs::write(clone.join("precious"), "changed\n").unwrap();
        exec(&clone, &[]).exits(0).says("changed");
    }
}

#[test]
fn results_are_those_of_the_last_run_and_of_it_alone() {
    let first = steps(
        "- run: mkdir -p d g; echo 1 > d/x; echo 2 > g/y; echo 3 > keep\n- store_artifacts: {path: d}\n- store_artifacts: {path: keep}",
    );
    let folder = folder(&first);
    exec(folder.path(), &[]).exits(0);
    let kept = folder.path().join(".runlet/artifacts/build");
    assert!(kept.join("d/x").exists() && kept.join("keep").exists());
    let second = steps("- run: mkdir -p g; echo 3 > keep; echo 4 > f\n- store_artifacts: {path: keep}");
    fs::write(folder.path().join(".circleci/config.yml"), second).unwrap();
    exec(folder.path(), &[]).exits(0);
    assert!(!kept.join("d").exists() && kept.join("keep").exists());

    // A folder that somebody else keeps things in is not cleared.
    let theirs = tempfile::tempdir().unwrap();
    fs::create_dir(theirs.path().join("artifacts")).unwrap();
    fs::write(theirs.path().join("artifacts/mine"), "mine").unwrap();
    let path = theirs.path().display().to_string();
    exec(folder.path(), &["--artifacts", &path]).exits(2).says("not from an earlier run");
    assert!(theirs.path().join("artifacts/mine").exists());
    fs::remove_dir_all(theirs.path().join("artifacts")).unwrap();
    exec(folder.path(), &["--artifacts", &path]).exits(0);
    exec(folder.path(), &["--artifacts", &path]).exits(0);
    assert!(theirs.path().join("artifacts/build/keep").exists());
}

#[test]
fn a_job_may_have_more_test_results_than_one_answer_holds() {
    let folder = folder(&steps(
        "- run: |
    head -c 63000 /dev/zero | tr '\\0' x > text
    { echo '<testsuite>'; for i in $(seq 290); do echo \"<testcase name='t$i'><failure>$(cat text)</failure></testcase>\"; done; echo '</testsuite>'; } > t.xml
- store_test_results: {path: t.xml}",
    ));
    exec(folder.path(), &[]).exits(0).says("290 failed").says("and 240 failed tests more");
    let kept = fs::read_to_string(folder.path().join(".runlet/test-results/build.ndjson")).unwrap();
    assert_eq!((kept.lines().count(), kept.len() > 16 << 20), (290, true));
}

#[test]
fn results_of_an_earlier_run_that_cannot_be_removed_hide_nothing_and_change_no_end() {
    let folder = folder(&steps("- run: echo 1 > f\n- store_artifacts: {path: f}"));
    exec(folder.path(), &[]).exits(0);
    let artifacts = folder.path().join(".runlet/artifacts");
    fs::remove_dir_all(&artifacts).unwrap();
    fs::write(&artifacts, "no folder").unwrap();
    // The artifact of the job has no place then, and that is an error.
    exec(folder.path(), &[]).exits(1).says("failed to remove the results").says("is not kept").says("job  ");
    fs::write(folder.path().join(".circleci/config.yml"), steps("- run: echo 1 > f")).unwrap();
    exec(folder.path(), &[]).exits(0).says("failed to remove the results").says("job  ");
}

#[test]
fn an_artifact_that_cannot_be_kept_is_named_and_the_others_are_kept() {
    let folder = folder(&steps(
        "- run: mkdir d; echo 1 > f; echo 2 > d/sub; echo 3 > other\n- store_artifacts: {path: f, destination: g}\n- store_artifacts: {path: d, destination: g}\n- store_artifacts: {path: other}",
    ));
    exec(folder.path(), &[]).exits(1).says("is not kept: failed to write").says("= success").says("job  ");
    assert!(folder.path().join(".runlet/artifacts/build/other").exists());
}
