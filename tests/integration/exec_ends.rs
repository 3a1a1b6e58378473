//! How runs of `runlet exec` end: by people who are not there, by people who are in a hurry, and with reasons.

use crate::exec::{command, exec, folder, git, mark, steps};
use crate::support::{poll, processes};
use rustix::process::Signal;
use std::fs;
use std::process::{Command, Stdio};

#[test]
fn a_run_that_only_waits_for_people_ends_whatever_has_failed_beside() {
    let failed = folder(
        "version: 2.1
jobs:
  bad: {machine: true, steps: [run: exit 3]}
  good: {machine: true, steps: [run: echo word-is-$((1 + 1))]}
workflows:
  w:
    jobs:
      - bad
      - good
      - one: {type: approval}
      - two: {type: approval, requires: [good]}
      - after: {type: approval, requires: [bad]}
  other: {jobs: [bad, good: {requires: [bad]}]}
",
    );
    exec(failed.path(), &[])
        .exits(1)
        .says("word-is-2")
        .says("jobs wait for an approval that was not given (`--approve one`, `--approve two`)");
    // An approved job goes on, although another one has failed.
    exec(failed.path(), &["--approve", "two"]).exits(1).says("(`--approve one`)\n");
}

#[test]
fn a_run_ends_where_jobs_wait_for_a_key_that_is_held_behind_an_approval() {
    for beside in ["", ", bad"] {
        let folder = folder(&format!(
            "version: 2.1
jobs:
  job: {{machine: true, steps: [run: echo word-is-$((1 + 1))]}}
  bad: {{machine: true, steps: [run: exit 3]}}
  take: {{type: lock, key: word}}
  give: {{type: unlock, key: word}}
workflows:
  first:
    jobs:
      - take
      - hold: {{type: approval, requires: [take]}}
      - give: {{requires: [hold]}}
  second:
    jobs: [job: {{serial-group: word}}{beside}]
"
        ));
        exec(folder.path(), &[]).exits(1).says("(`--approve hold`)\n").never_says("word-is-2");
        exec(folder.path(), &["--approve", "hold"])
            .exits(i32::from(!beside.is_empty()))
            .says("word-is-2")
            .never_says("was not given");
    }
}

#[test]
fn references_whose_objects_are_gone_do_not_keep_jobs_from_the_rest() {
    let script = "git log --format=%s origin/main\ngit fetch -q \"$(git config remote.origin.pushurl)\" main\n\
         git push -q \"$(git config remote.origin.pushurl)\" HEAD:refs/heads/pushed\n\
         git for-each-ref --format='%(refname)'";
    let folder = folder(&steps(&format!("- checkout\n- run: |\n    {}", script.replace('\n', "\n    "))));
    let root = folder.path();
    git(root, "init -qb main");
    git(root, "add .");
    git(root, "commit -qm word-is-first");
    git(root, "tag good");
    git(root, "commit -q --allow-empty -m gone");
    git(root, "tag -a -m gone annotated");
    git(root, "reset -q --hard HEAD^");
    let gone = "1234567890123456789012345678901234567890\n";
    for name in
        ["heads/lost", "tags/lost", "remotes/up/lost", "remotes/origin/lost", "stash", "notes/commits"]
    {
        let file = root.join(".git/refs").join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, gone).unwrap();
    }
    exec(root, &[])
        .exits(0)
        .says("word-is-first")
        .says("refs/tags/good")
        .says("jobs do not see `refs/heads/lost`");
    // The tag is there, and what it names is not.
    let tagged = git(root, "rev-parse annotated^{}");
    let object = root.join(".git/objects").join(&tagged[..2]).join(tagged[2..].trim());
    fs::remove_file(object).unwrap();
    exec(root, &[]).exits(0).says("word-is-first").says("`refs/tags/annotated`");
}

#[test]
fn a_second_control_c_does_not_wait_for_steps_that_do_not_listen() {
    let mark = mark(45);
    let script = format!(
        "trap 'echo asked > \"$MARK.asked\"' TERM; (trap '' TERM; setsid sleep {mark}) & echo begun > \"$MARK\"\n\
         late=0\nwhile true; do\n  sleep 0.1 || true\n  if test -e \"$MARK.asked\"; then late=$((late + 1)); fi\n  \
         if test $late -gt 80; then echo late > \"$MARK.late\"; fi\ndone"
    );
    let folder = folder(&steps(&format!("- run: |\n    {}", script.replace('\n', "\n    "))));
    let begun = folder.path().join("begun");
    let is_there = |name: &str| {
        let file = folder.path().join(name);
        poll(name, || if file.exists() { Ok(()) } else { Err(String::new()) });
    };
    let mut command = command(folder.path(), &[]);
    command.env("MARK", &begun).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    is_there("begun");
    processes::signal(child.id(), Signal::INT);
    is_there("begun.asked");
    processes::signal(child.id(), Signal::INT);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert_eq!(said.matches("once more to stop at once").count(), 1, "{said}");
    assert!(said.contains("stopping at once: what still runs is killed"), "{said}");
    assert!(!folder.path().join("begun.late").exists(), "it had the time that one signal gives it");
    let left = processes::lines_with(&[&format!("sleep {mark}")]);
    assert!(left.is_empty(), "processes were left behind: {left:?}");
}

#[test]
fn a_job_that_filters_leave_out_says_so_where_it_is_asked_for() {
    let config = "version: 2.1
jobs:
  say: {machine: true, steps: [run: echo said]}
  release: {parameters: {o: {type: string}}, machine: true, steps: [run: echo said]}
workflows:
  w: {jobs: [say, release: {name: tagged, o: a, filters: {branches: {ignore: /.*/}, tags: {only: /v.*/}}}]}
  again: {jobs: [say]}
  all: {jobs: [release: {matrix: {alias: many, parameters: {o: [x, y]}}, filters: {branches: {only: stable}}}]}
";
    let folder = folder(config);
    let root = folder.path();
    for (job, name, workflow) in
        [("tagged", "tagged", "w"), ("release-x", "release-x", "all"), ("many", "release-x", "all")]
    {
        for more in [&[][..], &["--list"]] {
            exec(root, &[&["--job", job], more].concat()).exits(2).says(&format!(
                "the job `{name}` of the workflow `{workflow}` does not run: its filters leave out what is built, the branch `main`"
            ));
        }
    }
    exec(root, &["--job", "release"]).exits(2).says("its filters leave out what is built, the branch `main`");
    exec(root, &["--job", "release-x", "--tag", "x"]).exits(2).says("the tag `x`");
    exec(root, &["--workflow", "w", "--job", "nope"]).exits(2).says("(jobs that apply: say)");
    exec(root, &["--job", "nope"]).exits(2).says("there is no job `nope` to run (jobs that apply: say)");
    exec(root, &["--job", "many", "--branch", "stable"]).exits(0).says("said");

    // In a setup config, and in the one that it goes on with.
    fs::write(root.join("next.yml"), config).unwrap();
    let setup = "version: 2.1
setup: true
jobs:
  go: {machine: true, steps: [checkout, run: circleci-agent pipeline continue next.yml]}
  other: {machine: true, steps: [run: 'true']}
workflows: {s: {jobs: [go, other: {filters: {branches: {only: stable}}}]}}
";
    fs::write(root.join(".circleci/config.yml"), setup).unwrap();
    exec(root, &["--job", "tagged"])
        .exits(2)
        .says("the job `tagged` of the workflow `w` does not run: its filters");
    exec(root, &["--job", "nope"]).exits(2).says("(jobs that apply: say)");
    exec(root, &["--job", "other"])
        .exits(2)
        .says("the job `other` of the workflow `s` does not run: its filters leave out what is built, the branch `main`");
    let alone = setup.replace("circleci-agent pipeline continue next.yml", "'true'");
    fs::write(root.join(".circleci/config.yml"), alone).unwrap();
    exec(root, &["--job", "other"])
        .exits(2)
        .says("the job `other` of the workflow `s` does not run: its filters");
}

#[test]
fn jobs_of_workflows_that_do_not_apply_and_of_several_workflows_are_found_by_name() {
    let config = "version: 2.1
jobs:
  say: {machine: true, steps: [run: echo said]}
  deep: {machine: true, steps: [run: echo said]}
workflows:
  nightly: {when: << pipeline.parameters.on >>, jobs: [deep, say: {name: late}]}
  w: {jobs: [say]}
  w2: {jobs: [say]}
parameters: {on: {type: boolean, default: false}}
";
    let folder = folder(config);
    let root = folder.path();
    let why = "of the workflow `nightly` does not run: the condition of its workflow does not hold (`when` or `unless`)";
    for name in ["deep", "late", "nightly/deep"] {
        exec(root, &["--job", name]).exits(2).says(why).says("(jobs that apply: say)");
    }
    // The names are those in the lines of a run.
    exec(root, &[]).exits(0).says("w/say").says("w2/say");
    exec(root, &["--job", "w2/say"]).exits(0).says("> echo said\nsaid\n").never_says("w/say");
    exec(root, &["--job", "w2/*"]).exits(0).says("> echo said\nsaid\n");
    exec(root, &["--job", "w3/say"]).exits(2).says("there is no job `w3/say` to run");
}

#[test]
fn a_job_on_this_host_that_fails_is_told_what_it_went_without_and_which_command_it_was() {
    let config = "version: 2.1
jobs:
  psql:
    docker: [{image: cimg/ruby:3.3}, {image: postgres:16}]
    steps: [{run: \"echo first\\nexit 3\"}]
workflows: {w: {jobs: [psql]}}
";
    let folder = folder(config);
    let said = exec(folder.path(), &["--on-host"]).exits(1);
    let said = said.says("psql: runs on this host, without the image `cimg/ruby:3.3`").says("postgres:16");
    said.says("`echo first ...` failed with exit code 3");
}

#[test]
fn reports_of_one_name_from_several_steps_all_count() {
    let folder = folder(&steps(
        "- run: |
    mkdir unit whole
    echo '<testsuite><testcase classname=\"u\" name=\"ok\"/></testsuite>' > unit/results.xml
    echo '<testsuite><testcase classname=\"i\" name=\"breaks\"><failure message=\"boom\"/></testcase>' > whole/results.xml
    echo '<testcase classname=\"i\" name=\"b2\"/></testsuite>' >> whole/results.xml
- store_test_results: {path: unit}
- store_test_results: {path: whole}
- store_test_results: {path: unit}",
    ));
    exec(folder.path(), &[])
        .exits(0)
        .says("stored `results.xml` (1 test)")
        .says("stored `results.xml` (2 tests)")
        .says("2 passed, 1 failed")
        .says("boom");
}

#[test]
fn a_repository_that_git_refuses_is_refused_with_its_advice_and_nothing_of_it_runs() {
    let folder = folder(&steps("- checkout\n- run: cat a"));
    let root = folder.path();
    fs::write(root.join("a"), "word-is-one\n").unwrap();
    fs::write(root.join(".gitattributes"), "a filter=own\n").unwrap();
    git(root, "init -qb main");
    git(root, "add .");
    git(root, "commit -qm first");
    let ran = root.join(".git/ran");
    let filter = format!("sh -c 'touch {}; cat'", ran.display());
    let set = Command::new("git").current_dir(root).args(["config", "filter.own.clean", &filter]).status();
    assert!(set.unwrap().success());
    fs::write(root.join("a"), "word-is-two\n").unwrap();
    let home = tempfile::tempdir().unwrap();
    let exec = |args: &[&str]| {
        let mut command = command(root, args);
        // Git takes every repository that it finds for one of another owner then, as it would where a folder is mounted.
        command
            .env("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
            .env("HOME", home.path())
            .env_remove("XDG_CONFIG_HOME");
        let output = command.output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), said)
    };
    for args in [&[][..], &["--list"]] {
        let (code, said) = exec(args);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("detected dubious ownership in repository at"), "{said}");
        assert!(said.contains("git config --global --add safe.directory"), "{said}");
        assert!(!ran.exists() && !said.contains("word-is"), "{said}");
    }
    // A person who has called the folder safe has said so to git.
    fs::write(home.path().join(".gitconfig"), "[safe]\n\tdirectory = *\n").unwrap();
    let (code, said) = exec(&[]);
    assert!(code == Some(0) && said.contains("word-is-two") && ran.exists(), "{code:?} {said}");
}

#[test]
fn a_tree_of_many_files_goes_too() {
    let folder = folder(&steps("- run: mkdir d; cd d; seq 1 2500 | xargs touch"));
    let places = tempfile::tempdir().unwrap();
    let output = command(folder.path(), &[]).env("TMPDIR", places.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    poll("the removal", || match fs::read_dir(places.path()).unwrap().count() {
        0 => Ok(()),
        left => Err(format!("{left} folders are left")),
    });
}
