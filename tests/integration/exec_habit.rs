//! `runlet exec` as people use it every day: what ends it, what it asks for, what it keeps.

use crate::exec::{command, exec, folder, git, mark, steps};
use crate::support::{poll, processes};
use rustix::process::Signal;
use std::fs;
use std::process::Stdio;

/// Two jobs behind each other, a matrix, an approval, filters, a schedule, and a job of a name that two workflows have.
pub(crate) const GRAPH: &str = "version: 2.1
jobs:
  say:
    parameters: {word: {type: string, default: plain}}
    machine: true
    steps: [{run: 'echo word-is-<< parameters.word >> on $CIRCLE_BRANCH$CIRCLE_TAG'}]
workflows:
  w:
    jobs:
      - say: {matrix: {parameters: {word: [-O0, -O2]}}}
      - hold: {type: approval, requires: [say]}
      - say: {name: deploy, word: deployed, requires: [hold]}
      - say: {name: release, word: released, filters: {branches: {only: stable}, tags: {only: /v.*/}}}
  other:
    jobs: [{say: {name: same}}]
  more:
    jobs: [{say: {name: same}}]
  never:
    when: false
    jobs: [say]
  nightly:
    triggers: [{schedule: {cron: '0 0 * * *', filters: {branches: {only: main}}}}]
    jobs: [say]
";

#[test]
fn nothing_outlives_a_run_whatever_ends_it() {
    // Each has the grace of its steps to wait for: they do so side by side.
    std::thread::scope(|scope| {
        for (test, signals, code) in [
            (41, &[Signal::HUP][..], Some(129)),
            (42, &[Signal::TERM], Some(143)),
            (43, &[Signal::KILL], None),
        ] {
            scope.spawn(move || ends_everything(test, signals, code));
        }
    });
}

fn ends_everything(test: u32, signals: &[Signal], code: Option<i32>) {
    let mark = mark(test);
    let folder = folder(&steps(&format!(
        "- checkout\n- run: (trap '' HUP TERM; setsid sleep {mark}) & echo begun > \"$MARK\"; sleep {mark}"
    )));
    let (places, begun) = (tempfile::tempdir().unwrap(), folder.path().join("begun"));
    let mut command = command(folder.path(), &[]);
    command.env("MARK", &begun).env("TMPDIR", places.path()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    poll("the beginning of the step", || if begun.exists() { Ok(()) } else { Err(String::new()) });
    signals.iter().for_each(|&signal| processes::signal(child.id(), signal));
    assert_eq!(child.wait().unwrap().code(), code);
    // After a signal that no process survives, its guard is at work for a moment.
    poll("the end of all that was there", || {
        let left = processes::lines_with(&[&format!("sleep {mark}"), &places.path().display().to_string()]);
        let files = fs::read_dir(places.path()).unwrap().count();
        if left.is_empty() && files == 0 { Ok(()) } else { Err(format!("{files} {left:?}")) }
    });
}

#[test]
fn a_run_cleans_up_after_one_that_was_killed_with_its_guard() {
    let mark = mark(44);
    let first = folder(&steps(&format!("- run: echo begun > \"$MARK\"; sleep {mark}")));
    let (places, begun) = (tempfile::tempdir().unwrap(), first.path().join("begun"));
    let mut started = command(first.path(), &[]);
    started.env("MARK", &begun).env("TMPDIR", places.path()).stdout(Stdio::null());
    let mut child = started.spawn().unwrap();
    poll("the beginning of the step", || if begun.exists() { Ok(()) } else { Err(String::new()) });
    let guard = processes::child_with(child.id(), "--guard").unwrap();
    processes::signal(guard, Signal::KILL);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::read_dir(places.path()).unwrap().count(), 1);
    let second = folder(&steps("- run: 'true'"));
    let output = command(second.path(), &[]).env("TMPDIR", places.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("removed what a run that was killed had left"),
        "{said}"
    );
    assert_eq!(fs::read_dir(places.path()).unwrap().count(), 0);
    let left = processes::lines_with(&[&format!("sleep {mark}")]);
    assert!(left.is_empty(), "processes were left behind: {left:?}");
}

#[test]
fn zero_means_that_what_was_asked_for_ran() {
    let folder = folder(GRAPH);
    let root = folder.path();
    exec(root, &["--job", "deploy"])
        .exits(1)
        .says("= waits for approval")
        .says("`--approve hold`")
        .never_says("word-is-deployed");
    exec(root, &["--job", "deploy", "--approve", "h*"])
        .exits(0)
        .says("approved `hold`, as `--approve` says")
        .never_says("is for no job")
        .says("word-is-deployed on main");
    // Names before a matrix and patterns; what they require runs with them.
    exec(root, &["--workflow", "w", "--job", "say"])
        .exits(0)
        .says("word-is--O0")
        .says("word-is--O2")
        .never_says("hold")
        .never_says("word-is-released");
    exec(root, &["--job", "*--O2", "--approve", "hol"]).exits(0).says("`--approve hol` is for no job");
    exec(root, &["--job", "*--O2"]).exits(0).says("word-is--O2").never_says("word-is--O0");
    exec(root, &["--job", "nothing*"]).exits(2).says("there is no job `nothing*` to run (jobs that apply: ");
    exec(root, &["--workflow", "never"]).exits(2).says(
        "the workflow `never` does not run: its condition does not hold (`when` or `unless`) (workflows that apply: w, other, more)",
    );
    exec(root, &["--workflow", "none"]).exits(2).says("(workflows that apply: w, other, more)");
    exec(root, &["--workflow", "nightly"]).exits(2).says(
        "there is no workflow `nightly` to run (workflows that apply: w, other, more); `nightly` has schedules, and runs by them alone",
    );
    exec(root, &["--job", "release", "--branch", "stable"]).exits(0).says("word-is-released on stable");
    exec(root, &["--job", "release", "--tag", "v1"]).exits(0).says("word-is-released on v1");
    for name in ["a..b", "-x", "HEAD"] {
        let told = format!("`{name}` cannot be the name of a branch or tag");
        exec(root, &[&format!("--branch={name}")]).exits(2).says(&told);
    }
    exec(root, &["--job", "same"]).exits(0).says("other/same").says("more/same").never_says("w/");
}

#[test]
fn an_approval_is_named_even_where_it_is_the_first_of_several() {
    let folder = folder(
        "version: 2.1
workflows: {one: {jobs: [hold: {type: approval}]}, two: {jobs: [hold: {type: approval}]}}
",
    );
    exec(folder.path(), &["--job", "hold"])
        .exits(1)
        .says("= `hold` waits for approval\n")
        .says("two/hold | = waits for approval\n")
        .says("(`--approve one/hold`, `--approve two/hold`)");
}

#[test]
fn a_config_that_is_not_where_it_is_looked_for_is_named() {
    let folder = folder(GRAPH);
    let root = folder.path();
    fs::write(root.join("other.yml"), GRAPH).unwrap();
    // Beside it stands the usual config, which was not asked for.
    for path in ["other.yml", ".circleci/../other.yml"] {
        exec(&root.join(path), &["--list"])
            .exits(2)
            .says("is a file: name the folder to run")
            .says("`--config`");
    }
    exec(&root.join(".circleci/config.yml"), &["--list"]).exits(0);
    fs::rename(root.join(".circleci/config.yml"), root.join(".circleci/config.yaml")).unwrap();
    exec(root, &[]).exits(2).says("config.yaml` is there, and only `config.yml` is looked for: rename it");
}

#[test]
fn an_approval_with_a_name_of_words_is_quoted() {
    let folder =
        folder("version: 2.1\nworkflows: {w: {jobs: [ask: {type: approval, name: \"Ready to 'ship'?\"}]}}\n");
    let quoted = r"`--approve 'Ready to '\''ship'\''?'`";
    exec(folder.path(), &[]).exits(1).says(quoted);
    exec(folder.path(), &["--list"]).exits(0).says(quoted);
    exec(folder.path(), &["--approve", "Ready to 'ship'?"]).exits(0);
}

#[test]
fn an_approval_is_given_by_the_name_that_the_config_has_for_it() {
    let folder = folder(
        "version: 2.1
jobs:
  said: {machine: true, steps: [run: echo word-is-said]}
workflows:
  w:
    jobs:
      - hold: {type: approval, matrix: {alias: all, parameters: {of: [a, b]}}}
      - ask: {type: approval, name: go}
      - twice: {type: approval}
      - twice: {type: approval}
      - go: {type: approval, name: last}
      - said: {requires: [all, go, twice-1, twice-2]}
",
    );
    let root = folder.path();
    for given in ["hold", "w/hold", "all", "h*"] {
        exec(root, &["--approve", given, "--approve", "twice", "--approve", "ask"])
            .exits(1)
            .says("word-is-said")
            .says("(`--approve last`)\n")
            .never_says("is for no job");
    }
    // A job that is called so comes before one that is it under another name.
    exec(root, &["--approve", "w/hold-a", "--approve", "twi?e", "--approve", "go"])
        .exits(1)
        .says("(`--approve hold-b`, `--approve last`)\n")
        .never_says("is for no job");
    exec(root, &["--list", "--approve", "hold"]).exits(0).says("  hold-a [approval, given]");
}

#[test]
fn an_approval_is_given_by_the_name_that_the_output_has_for_it() {
    let folder = folder(
        "version: 2.1
jobs:
  said: {machine: true, parameters: {of: {type: string}}, steps: [run: echo word-is-<< parameters.of >>]}
workflows:
  one: {jobs: [hold: {type: approval}, said: {of: one, requires: [hold]}]}
  two: {jobs: [hold: {type: approval}, said: {of: two, requires: [hold]}]}
",
    );
    let root = folder.path();
    for given in ["one/hold", "one/*", "on?/h*"] {
        exec(root, &["--approve", given])
            .exits(1)
            .says("word-is-one")
            .says("(`--approve two/hold`)\n")
            .never_says("word-is-two")
            .never_says("is for no job");
    }
    exec(root, &["--approve", "two/hold", "--approve", "one/hold"])
        .exits(0)
        .says("word-is-one")
        .says("word-is-two");
    exec(root, &["--approve", "three/hold"]).exits(1).says("`--approve three/hold` is for no job");
    exec(root, &["--list", "--approve", "two/hold"])
        .exits(0)
        .says("  hold [approval: `--approve one/hold` gives it]")
        .says("  hold [approval, given]");
}

#[test]
fn names_and_messages_of_tests_do_not_reach_the_terminal_as_commands() {
    let xml = r"<testsuite><testcase name=\x22esc \033]0;pwn\007 \010\x22><failure message=\x22\001 \033[2J \033[31mred\033[0m\x22/></testcase></testsuite>";
    let folder = folder(&steps(&format!(
        "- run: mkdir r; printf '{xml}' > r/a.xml\n- store_test_results: {{path: r}}"
    )));
    exec(folder.path(), &["--plain"])
        .says("2 texts of it had control characters, which were replaced")
        .says("esc \u{fffd}]0;pwn\u{fffd} \u{fffd}: \u{fffd} \u{fffd}[2J red\n")
        .never_says("\u{1b}")
        .never_says("\u{7}");
    let named = self::folder(
        "version: 2.1
jobs: {build: {machine: true, steps: [run: 'true']}}
workflows: {\"w\\e]0;pwn\\a\": {jobs: [build]}}
",
    );
    exec(named.path(), &["--workflow", "other"])
        .exits(2)
        .says("(workflows that apply: w\u{fffd}]0;pwn\u{fffd})")
        .never_says("\u{1b}");
}

#[test]
fn a_list_says_what_runs_and_why_other_things_do_not() {
    let folder = folder(GRAPH);
    fs::create_dir_all(folder.path().join("deep/er")).unwrap();
    // A folder that is in no repository does not get the config of the folder above.
    exec(&folder.path().join("deep/er"), &["--list"]).exits(2).says("deep/er/.circleci/config.yml");
    git(folder.path(), "init -qb main");
    // From a folder below, as the config is found from there, too.
    let expected = "workflow w
  say--O0
  say--O2
  hold [approval: `--approve hold` gives it] (after say--O0, say--O2)
  deploy (after hold)
  release: does not run, since its filters leave out the branch `main`
workflow other
  same
workflow more
  same
workflow nightly: does not run, since it has schedules
  say
workflow never: does not run, since its condition does not hold (`when` or `unless`)
";
    let output = command(&folder.path().join("deep/er"), &["--list"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = said.lines().map(str::trim_end).collect();
    assert_eq!(lines.join("\n") + "\n", expected);
    assert!(!folder.path().join(".runlet").exists());
}

#[test]
fn a_list_says_what_cannot_run_here_and_shows_the_part_that_is_asked_for() {
    let folder = folder(
        "version: 2.1\njobs:\n  native: {machine: true, resource_class: a/b, steps: [run: 'true']}\n  boxed: {docker: [{image: 'cimg/base:1'}], steps: [run: 'true']}\nworkflows:\n  w: {jobs: [native, boxed, {native: {name: last, requires: [boxed]}}]}\n  other: {jobs: [{native: {name: released, filters: {branches: {only: stable}}}}]}\n",
    );
    let list = |arguments: &[&str]| {
        let output = command(folder.path(), arguments).arg("--list").output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let here = list(&[]);
    let reason = "\n  boxed: cannot run here: it wants containers (`cimg/base:1`) (`--on-host` ";
    assert!(here.contains("\n  native\n") && here.contains(reason), "{here}");
    assert!(here.contains("\n  last (after boxed): does not run, since `boxed` cannot\n"), "{here}");
    let on_host = list(&["--on-host", "--job", "last"]);
    let expected =
        "workflow w\n  boxed: runs on this host, without the image `cimg/base:1`\n  last (after boxed)\n";
    assert_eq!(on_host, expected);
    let next = folder.path().join(".circleci/next.yml");
    fs::rename(folder.path().join(".circleci/config.yml"), next).unwrap();
    let setup = "version: 2.1\nsetup: true\njobs: {choose: {machine: true, steps: [run: 'true']}}\nworkflows: {s: {jobs: [choose]}}\n";
    fs::write(folder.path().join(".circleci/config.yml"), setup).unwrap();
    let first = list(&[]);
    let expected = "workflow s\n  choose\n`.circleci/next.yml` may be what it goes on with: `--list --config .circleci/next.yml` lists that\n";
    assert!(first.starts_with("a setup config: ") && first.ends_with(expected), "{first}");
    fs::rename(folder.path().join(".circleci/next.yml"), folder.path().join(".circleci/config.yml")).unwrap();
    exec(folder.path(), &["--list", "--job", "nothing"])
        .exits(2)
        .says("there is no job `nothing` to run (jobs that apply: native, boxed, last)");
}

#[test]
fn a_job_is_found_by_every_name_that_the_config_has_for_it() {
    let folder = folder(
        "version: 2.1\njobs:\n  unit: {parameters: {o: {type: string}}, machine: true, steps: [run: 'true']}\nworkflows:\n  w:\n    jobs:\n      - unit: {name: test, matrix: {alias: all, parameters: {o: [a, b]}}}\n      - unit: {name: test-last, o: c}\n",
    );
    let list = |job: &str| {
        let output = command(folder.path(), &["--list", "--job", job]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let matrix = "workflow w\n  test-1\n  test-2\n";
    assert_eq!([list("test"), list("all"), list("test-?")], [matrix; 3]);
    assert_eq!(list("test-last"), "workflow w\n  test-last\n");
    // No job has the name `unit`: all of the matrix have it in common.
    assert_eq!(list("unit"), format!("{matrix}  test-last\n"));
}

#[test]
fn a_job_that_wants_a_missing_orb_does_not_keep_the_others_from_running() {
    let folder = folder(
        "version: 2.1
orbs:
  codecov: codecov/codecov@5.2.1
  node: circleci/node@5
  tools: {orbs: {node: circleci/node@5}, jobs: {run: node/run}}
commands: {upload: {steps: [codecov/upload: {file: x}]}}
jobs:
  test:
    parameters: {after: {type: steps, default: [codecov/upload]}, reports: {type: boolean, default: false}}
    machine: true
    steps: [run: echo word-is-tested, when: {condition: << parameters.reports >>, steps: << parameters.after >>}]
  report: {machine: true, steps: [run: echo word-is-reported, upload]}
  boxed: {executor: node/default, steps: [run: echo word-is-boxed]}
  linked: node/run
workflows:
  w:
    jobs:
      - test
      - report: {requires: [test]}
      - boxed
      - linked
      - node/test: {name: far}
      - test: {name: after, requires: [far]}
      - test: {name: around, post-steps: [codecov/upload]}
      - test: {name: reported, reports: true}
      - tools/run: {name: through}
",
    );
    for flags in [&[][..], &["--on-host"]] {
        exec(folder.path(), flags)
            .exits(8)
            .says("word-is-tested")
            .never_says("word-is-reported")
            .never_says("word-is-boxed")
            .says("2 orbs cannot be imported, and jobs that want one of them do not run")
            .says("report: cannot run here: it wants the orb `codecov/codecov@5.2.1`, which is not here")
            .says("far: cannot run here: it wants the orb `circleci/node@5`, which is not here")
            .says("around: cannot run here: it wants the orb `codecov/codecov@5.2.1`, which is not here")
            .says("reported: cannot run here: it wants the orb `codecov/codecov@5.2.1`, which is not here")
            .says("after: it requires `success` of `far`");
    }
    exec(folder.path(), &["--job", "test"]).exits(0);
    let list = command(folder.path(), &["--list"]).output().unwrap();
    let list = String::from_utf8_lossy(&list.stdout);
    for job in ["boxed", "linked", "far", "through"] {
        let line = format!("  {job}: cannot run here: it wants the orb `circleci/node@5`, which is not here");
        assert!(list.contains(&line), "{list}");
    }
    // A mistake of the config itself is one all the same.
    let wrong = fs::read_to_string(folder.path().join(".circleci/config.yml")).unwrap();
    fs::write(
        folder.path().join(".circleci/config.yml"),
        wrong.replace("[run: echo word-is-boxed]", "[cehckout]"),
    )
    .unwrap();
    exec(folder.path(), &[]).exits(7).says("did you mean `checkout`?");
}

#[test]
fn a_signal_while_sources_are_prepared_ends_the_run() {
    use rustix::process::{Pid, kill_process, kill_process_group};
    use std::os::unix::process::CommandExt;
    for (test, signal, to_all) in [(45, Signal::INT, true), (46, Signal::TERM, false)] {
        let (mark, folder) = (mark(test), folder(&steps("- run: 'true'")));
        let (places, begun) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        // Git waits for a filter, which says that it has begun.
        git(folder.path(), "init -qb main");
        let filter = folder.path().join("filter");
        let script = format!("#!/bin/sh\necho begun > '{}'; exec sleep {mark}\n", begun.path().display());
        fs::write(&filter, script).unwrap();
        fs::set_permissions(&filter, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        git(folder.path(), &format!("config filter.slow.clean {}", filter.display()));
        fs::write(folder.path().join(".gitattributes"), "*.slow filter=slow\n").unwrap();
        fs::write(folder.path().join("x.slow"), "x").unwrap();
        let mut command = command(folder.path(), &[]);
        command.env("TMPDIR", places.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child = command.spawn().unwrap();
        poll("the beginning of the filter", || match fs::metadata(begun.path()).unwrap().len() {
            0 => Err(String::new()),
            _ => Ok(()),
        });
        let pid = Pid::from_raw(child.id() as i32).unwrap();
        if to_all { kill_process_group(pid, signal) } else { kill_process(pid, signal) }.unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(128 + signal.as_raw()), "{said}");
        assert!(output.stdout.is_empty() && !said.contains("git said"), "{said}");
        assert_eq!(fs::read_dir(places.path()).unwrap().count(), 0);
        poll("the end of the filter", || {
            let left = processes::lines_with(&[&format!("sleep {mark}")]);
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }
}

#[test]
fn variables_come_from_a_file_and_are_masked() {
    let folder =
        folder(&steps("- run: echo \"<$TOKEN>\"; test \"$TOKEN\" = 'secret value'; test \"$OTHER\" = two"));
    let file = folder.path().join("vars.env");
    fs::write(&file, "# ours\nexport TOKEN=\"secret value\"\nOTHER=two\n").unwrap();
    let file = file.display().to_string();
    exec(folder.path(), &["--env-file", &file]).exits(0).says("<****>").never_says("secret value");
    fs::write(folder.path().join("vars.env"), "TOKEN=x\nno variable\nNO-NAME=y\n").unwrap();
    exec(folder.path(), &["--env-file", &file, "--env-file", "/no/such"])
        .exits(2)
        .says(&format!("{file}:2: expected NAME=VALUE"))
        .says(&format!("{file}:3: what stands before `=` is not the name of a variable"))
        .says("failed to read the variables in `/no/such`")
        .never_says("no variable")
        .never_says("NO-NAME");
}

#[test]
fn variables_come_from_arguments_and_are_masked() {
    let folder = folder(&steps(
        "- run: echo \"<$TOKEN>\"; test \"$TOKEN\" = 'secret = value'; test \"$OTHER\" = 'mine here'; test \"$MORE\" = three",
    ));
    let file = folder.path().join("vars.env");
    fs::write(&file, "TOKEN=of the file\nMORE=three\n").unwrap();
    let file = file.display().to_string();
    let args = ["-e", "TOKEN=secret = value", "--env-file", &file, "--env", "OTHER"];
    let run = command(folder.path(), &args).env("OTHER", "mine here").output().unwrap();
    let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    assert!(run.status.success() && said.contains("<****>"), "{said}");
    assert!(!said.contains("secret = value") && !said.contains("of the file"), "{said}");
    exec(folder.path(), &["-e", "NOT_HERE_AT_ALL"]).exits(2).says("write `--env NAME=VALUE`");
    exec(folder.path(), &["--env=1X=hidden"]).exits(2).says("the name of a variable").never_says("hidden");
}

#[test]
fn caches_are_kept_for_the_next_run() {
    let folder = folder(&steps(
        "- restore_cache: {key: k-}\n- run: test -e kept/x && echo was-$((1 + 1))-there || { mkdir kept; echo x > kept/x; }\n- save_cache: {key: k-1, paths: [kept]}",
    ));
    let caches = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let output = command(folder.path(), args).env("XDG_CACHE_HOME", caches.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}");
        said.contains("was-2-there")
    };
    assert!(!run(&["--no-cache"]) && !caches.path().join("runlet").exists());
    assert!(!run(&[]));
    assert!(run(&[]) && run(&[]));
    assert!(!run(&["--no-cache"]));
}

#[test]
fn the_end_says_once_more_what_failed() {
    let xml = "<testsuite><testcase classname='C' name='t' file='t_c.py' line='7'><failure message='one'>two</failure></testcase></testsuite>";
    let folder = folder(&steps(&format!(
        "- run: echo \"{xml}\" > r.xml\n- store_test_results: {{path: r.xml}}\n- run: {{name: count, command: seq 1 50; exit 3}}"
    )));
    let ran = exec(folder.path(), &[]).exits(1);
    let end = &ran.text[ran.text.rfind("= failed").unwrap()..];
    assert!(end.contains("build: `count` failed with exit code 3\n    32\n"), "{end}");
    assert!(end.contains("    50\n") && !end.contains("    31\n"), "{end}");
    assert!(end.contains("failed test in build: t_c.py:7 C t: "), "{end}");
    // Files of results are as the API has them.
    let kept = fs::read_to_string(folder.path().join(".runlet/test-results/build.ndjson")).unwrap();
    assert!(kept.contains("\"file\":\"t_c.py\"") && !kept.contains("t_c.py:7"), "{kept}");
}
