//! The whole road over TLS: a control plane with a certificate of a private authority, and a machine
//! runner as a process that claims a pipeline, checks a git repository out, runs steps, stores an
//! artifact and test results, and finishes. What the API then gives back is compared with what the
//! steps wrote.
//!
//! The runner is this build's own program, or the file that `RUNLET_ROAD_RUNNER` names, which may be
//! built for another architecture: `ci/cross-road` gives those and lets the kernel emulate them.

use crate::server::Server;
use crate::support::pki::Authority;
use crate::support::runner::{Machine, RUNLET, Running};
use crate::support::{emulated, poll, processes};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The sums of what is written are printed, for the test to compare; `circleci-agent` is the runner's
/// own program, called by a step. The artifact is larger than a chunk of an upload.
const CONFIG: &str = r#"version: 2.1
jobs:
  build:
    machine: true
    resource_class: acme/foreign
    environment: {GREETING: "größe"}
    steps:
      - checkout
      - run: git rev-parse HEAD; sha256sum < data.bin; echo "$GREETING"
      - run: |
          mkdir -p out/deep
          head -c 4500000 /dev/urandom > out/random.bin
          : > out/deep/empty
          for file in out/random.bin out/deep/empty; do sha256sum < $file; done
      - run: head -c 2000000 /dev/urandom | od -An -v -tx1 | tee output; sha256sum < output > output.sum
      - run: cat output.sum
      - run: |
          mkdir results
          echo '<testsuite name="s"><testcase classname="c" name="good" time="0.25"/><testcase classname="c" name="bad" time="1"><failure message="m">größer</failure></testcase></testsuite>' > results/junit.xml
      - store_test_results: {path: results}
      - store_artifacts: {path: out}
      - run: circleci-agent step halt
      - run: echo never
"#;

fn json(server: &Server, path: &str) -> Value {
    serde_json::from_slice(&server.text(path)).unwrap()
}

/// Output of a step record.
fn output(server: &Server, job: &str, record: u32) -> String {
    let path = format!("/api/v3/jobs/{job}/stdout?filter%5Bexecution%5D=0&filter%5Bstep_num%5D={record}");
    String::from_utf8(server.text(&path)).unwrap()
}

fn git(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "init.defaultBranch=main"]);
    let output = command.args(args).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository with the config and a file. Returns the commit and the sum of the file.
fn repository(folder: &Path) -> (String, String) {
    fs::create_dir_all(folder.join(".circleci")).unwrap();
    git(folder, &["init", "--quiet"]);
    fs::write(folder.join("data.bin"), "one").unwrap();
    git(folder, &["add", "."]);
    git(folder, &["commit", "--quiet", "-m", "one"]);
    let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(folder.join("data.bin"), &bytes).unwrap();
    fs::write(folder.join(".circleci/config.yml"), CONFIG).unwrap();
    git(folder, &["add", "."]);
    git(folder, &["commit", "--quiet", "-m", "two"]);
    (git(folder, &["rev-parse", "HEAD"]), sum(&bytes))
}

fn sum(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The sum at the beginning of a line of `sha256sum`.
fn sums(output: &str) -> Vec<&str> {
    output.lines().filter_map(|line| line.split(' ').next()).collect()
}

/// Prints what the runner's processes do when the test fails: what stands still is found by that alone.
struct ToldOnPanic<'a>(&'a Running);

impl Drop for ToldOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\n{}", self.0.log(), processes::doings_below(self.0.pid().unsigned_abs()));
        }
    }
}

#[test]
fn a_pipeline_travels_over_tls_and_every_byte_arrives() {
    let runner = std::env::var_os("RUNLET_ROAD_RUNNER").map_or_else(|| PathBuf::from(RUNLET), PathBuf::from);
    let arch = std::env::var("RUNLET_ROAD_ARCH").unwrap_or_else(|_| std::env::consts::ARCH.to_owned());
    let authority = Authority::new("Road Root");
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_tls(&authority, folder.path());
    let source = folder.path().join("source");
    let (revision, sum_of_source) = repository(&source);
    let url = format!("file://{}", source.display());
    server.call("POST", "/api/v2/organization/gh/acme/project", Some(json!({ "name": "road" })));
    server.call("PATCH", "/api/v2/project/gh/acme/road", Some(json!({ "repository_url": url })));
    let token = server.class_token("acme/foreign");

    let machine = Machine::new(server.client.url()).program(&runner);
    let ca_file = machine.file("ca.pem", &authority.pem).display().to_string();
    let mut machine = machine
        .api("ca_file", &ca_file)
        .setting("cleanup_working_directory", "true")
        .variable("CIRCLECI_RUNNER_API_AUTH_TOKEN", &token)
        .start();
    let told = ToldOnPanic(&machine);
    let trigger = Some(json!({ "branch": "main" }));
    let created = server.call("POST", "/api/v2/project/gh/acme/road/pipeline", trigger);
    let id = created["id"].as_str().unwrap();

    let workflows = format!("/api/v2/pipeline/{id}/workflow");
    let workflow = poll("the end of the workflow", || {
        let workflow = json(&server, &workflows)["items"][0].clone();
        if workflow["stopped_at"].is_null() { Err(workflow.to_string()) } else { Ok(workflow) }
    });
    let jobs = json(&server, &format!("/api/v2/workflow/{}/job", workflow["id"].as_str().unwrap()));
    let job = jobs["items"][0]["id"].as_str().unwrap();
    let all = || (0..10).map(|record| format!("--- {record}\n{:.300}\n", output(&server, job, record)));
    assert_eq!(jobs["items"][0]["status"], "success", "{}\n{}", machine.log(), all().collect::<String>());

    assert!(output(&server, job, 0).contains(&format!("linux {arch}\n")), "{}", output(&server, job, 0));
    assert_eq!(output(&server, job, 2), format!("{revision}\n{sum_of_source}  -\ngröße\n"));
    // The output itself, and the sum that its step made of it.
    let printed = output(&server, job, 4);
    assert_eq!(printed.len(), 2_000_000 * 3 + 2_000_000 / 16);
    assert_eq!(sums(&output(&server, job, 5)), [sum(printed.as_bytes())]);

    let written = output(&server, job, 3);
    let written = sums(&written);
    let artifacts = json(&server, &format!("/api/v3/jobs/{job}/artifacts"));
    let stored: Vec<(String, String)> = artifacts["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|artifact| {
            let id = artifact["id"].as_str().unwrap();
            let bytes = server.text(&format!("/api/v3/artifacts/{id}"));
            (artifact["attributes"]["path"].as_str().unwrap().to_owned(), sum(&bytes))
        })
        .collect();
    let expected = [("out/deep/empty", written[1]), ("out/random.bin", written[0])];
    assert_eq!(stored, expected.map(|(path, sum)| (path.to_owned(), sum.to_owned())));

    let tests = String::from_utf8(server.text(&format!("/api/v3/jobs/{job}/tests"))).unwrap();
    let tests: Vec<Value> = tests.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let facts: Vec<_> =
        tests.iter().map(|test| (&test["name"], &test["result"], test["run_time"].as_f64())).collect();
    let expected: [(Value, Value, f64); 2] =
        [("good".into(), "success".into(), 0.25), ("bad".into(), "failure".into(), 1.0)];
    assert_eq!(facts, expected.each_ref().map(|(name, result, time)| (name, result, Some(*time))));
    assert_eq!(tests[1]["message"], "m\n\ngrößer");

    drop(told);
    machine.term();
    assert_eq!(machine.wait(), Some(0), "{}", machine.log());
    assert!(!machine.machine.path("work").exists(), "the working directory is cleaned");
    let log = machine.log();
    assert!(!log.contains(&token), "{log}");
    // qemu-user refuses PR_SET_CHILD_SUBREAPER, which the task agent rightly reports.
    let expected = |line: &&str| {
        emulated() && line.contains("reaper of orphaned processes") || line.contains("the runner is root")
    };
    let trouble = |line: &&str| (line.contains("WARN") || line.contains("ERROR")) && !expected(line);
    assert_eq!(log.lines().find(trouble), None);
}
