//! `runlet exec` of a setup config: what is asked for may be in it, or in the config that follows.

use crate::exec::{exec, folder};
use crate::exec_habit::GRAPH;
use std::fs;

#[test]
fn jobs_of_a_config_that_is_continued_can_be_chosen() {
    let setup = "version: 2.1\nsetup: true\njobs:\n  choose:\n    machine: true\n    steps: [checkout, {run: circleci-agent pipeline continue next.yml || circleci-agent pipeline continue --help}]\nworkflows: {s: {jobs: [choose]}}\n";
    let next = GRAPH.replace("  never:", "  setup-ed:");
    let folder = folder(setup);
    fs::write(folder.path().join("next.yml"), next).unwrap();
    exec(folder.path(), &["--workflow", "w", "--job", "say--O0"])
        .exits(0)
        .says("word-is--O0")
        .never_says("word-is--O2");
}

#[test]
fn what_a_setup_workflow_does_not_go_on_to_is_not_there() {
    let folder = folder(
        "version: 2.1\nsetup: true\njobs: {choose: {machine: true, steps: [run: echo word-is-setup]}}\nworkflows: {s: {jobs: [choose]}}\n",
    );
    let why = "the setup workflow did not continue the pipeline";
    exec(folder.path(), &[]).exits(0);
    exec(folder.path(), &["--job", "choose"]).exits(0).never_says(why);
    exec(folder.path(), &["--job", "nope"])
        .exits(2)
        .says("word-is-setup")
        .says(&format!("there is no job `nope`: {why}"));
    exec(folder.path(), &["--workflow", "nope"])
        .exits(2)
        .says(&format!("there is no workflow `nope`: {why}"));
}

/// A folder with a setup config whose jobs `pick` (the matrix `choose`) go on with `next`.
fn setup(next: &str) -> tempfile::TempDir {
    let folder = folder(
        "version: 2.1
setup: true
jobs:
  pick:
    parameters: {word: {type: string}}
    machine: true
    steps: [checkout, {run: 'echo word-is-<< parameters.word >>'}, {run: 'circleci-agent pipeline continue next.yml'}]
workflows: {s: {jobs: [pick: {matrix: {alias: choose, parameters: {word: [set-up]}}}]}}
",
    );
    fs::write(folder.path().join("next.yml"), next).unwrap();
    folder
}

#[test]
fn a_setup_job_is_found_by_every_name_that_the_config_has_for_it() {
    let folder = setup(GRAPH);
    for name in ["choose", "pick", "pick-set-up", "ch*"] {
        exec(folder.path(), &["--job", name])
            .exits(0)
            .says("word-is-set-up")
            .never_says("there is no job")
            // The setup job was asked for, and no job that follows it.
            .never_says("word-is--O0");
    }
    let ran = exec(folder.path(), &["--job", "choose", "--job", "same"]).exits(0);
    ran.says("word-is-set-up").says("other/same").never_says("word-is--O0");
    let config = folder.path().join(".circleci/config.yml");
    let alone =
        fs::read_to_string(&config).unwrap().replace("circleci-agent pipeline continue next.yml", "true");
    fs::write(&config, alone).unwrap();
    exec(folder.path(), &["--job", "choose"]).exits(0).says("word-is-set-up").never_says("there is no job");
    exec(folder.path(), &["--job", "choose", "--job", "same"])
        .exits(2)
        .says("there is no job `same`: the setup workflow did not continue the pipeline")
        .never_says("there is no job `choose`");
}

#[test]
fn what_does_not_run_in_the_config_that_follows_has_a_reason() {
    let folder = setup(GRAPH);
    for (arguments, why) in [
        (["--workflow", "nightly"], "; `nightly` has schedules, and runs by them alone\n"),
        (["--workflow", "never"], "the workflow `never` does not run: its condition does not hold"),
        (
            ["--job", "release"],
            "the job `release` of the workflow `w` does not run: its filters leave out what is built, the branch `main` (jobs that apply: say--O0, ",
        ),
        (["--job", "nope"], "there is no job `nope` to run (jobs that apply: say--O0, "),
    ] {
        let ran = exec(folder.path(), &arguments).exits(2).says("word-is-set-up").says(why);
        let end = &ran.text[ran.text.rfind("\njob").unwrap()..];
        assert!(end.contains(why), "{end}");
    }
    // A try that is refused does not count where a later one goes on.
    let config = folder.path().join(".circleci/config.yml");
    let tries =
        "{ circleci-agent pipeline continue first.yml || circleci-agent pipeline continue next.yml; }";
    let text =
        fs::read_to_string(&config).unwrap().replace("circleci-agent pipeline continue next.yml", tries);
    fs::write(&config, text).unwrap();
    fs::write(folder.path().join("first.yml"), GRAPH.replace("  other:", "  another:")).unwrap();
    exec(folder.path(), &["--workflow", "other"]).exits(0).says("word-is-plain");
}
