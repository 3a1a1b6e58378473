//! Caches and workspaces where something goes wrong, or where they must not meet: a real control plane and
//! real runners. What they do when all is well is in the scenarios `cache*` and `workspace*`.

use crate::faults::{BadLine, address_of};
use crate::server::{Runner, Server};
use serde_json::{Value, json};
use std::path::PathBuf;

/// A control plane with a project and a runner.
fn stage() -> (Server, Runner) {
    let server = Server::start();
    server.project();
    let runner = server.runner("one", &server.class_token("a/b"));
    (server, runner)
}

fn job<'a>(jobs: &'a [Value], name: &str) -> &'a Value {
    jobs.iter().find(|job| job["name"] == name).unwrap_or_else(|| panic!("no job `{name}` in {jobs:?}"))
}

fn succeeded(jobs: &[Value]) -> bool {
    jobs.iter().all(|job| job["status"] == "success")
}

/// The uploads of a control plane.
fn objects(server: &Server) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(server.data().join("objects")).unwrap();
    folders
        .flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .collect()
}

const LARGE: &str = "\
version: 2.1
jobs:
  save:
    machine: true
    resource_class: a/b
    steps:
      - run: 'mkdir big && head -c 9000000 /dev/urandom > big/noise && seq 1 400000 > big/numbers && cat big/* | sha256sum > SUM'
      - save_cache: {key: big-SUFFIX, paths: [big]}
      - persist_to_workspace: {root: big, paths: [.]}
  load:
    machine: true
    resource_class: a/b
    steps:
      - run: test ! -e big
      - restore_cache: {key: big-SUFFIX}
      - attach_workspace: {at: ws}
      - run: 'cat big/* | sha256sum | cmp - SUM && cat ws/* | sha256sum | cmp - SUM'
workflows: {w: {jobs: [save, load: {requires: [save]}]}}
";

#[test]
fn a_bad_line_brings_archives_whole() {
    let server = Server::start();
    server.project();
    let line = BadLine::to(address_of(&server));
    let token = server.class_token("a/b");
    let _runner = server.runner_at("one", &token, &format!("http://{}", line.address));
    for round in 0..10 {
        let sum = server.folder.path().join("sum").display().to_string();
        let config = LARGE.replace("SUM", &sum).replace("SUFFIX", &round.to_string());
        let jobs = server.ended(&server.trigger(&config));
        // Saving a cache may be given up, but what was saved is whole.
        assert!(succeeded(&jobs), "{jobs:?}");
        if line.breaks() >= 8 {
            return;
        }
    }
    panic!("the line hardly ever broke");
}

const SAVE: &str = "\
version: 2.1
jobs:
  save:
    machine: true
    resource_class: a/b
    steps:
      - run: 'mkdir dep && seq 1 100000 > dep/numbers'
      - save_cache: {key: k, paths: [dep]}
workflows: {w: {jobs: [save]}}
";

const RESTORE: &str = "\
version: 2.1
jobs:
  restore:
    machine: true
    resource_class: a/b
    steps:
      - restore_cache: {key: k}
      - run: test -s dep/numbers
workflows: {w: {jobs: [restore]}}
";

#[test]
fn an_archive_that_was_damaged_where_it_is_stored_is_refused() {
    let (server, _runner) = stage();
    assert!(succeeded(&server.ended(&server.trigger(SAVE))));
    let files = objects(&server);
    assert_eq!(files.len(), 1, "{files:?}");
    let whole = std::fs::read(&files[0]).unwrap();

    // The last bytes end the frame: all files are unpacked by then, and still the job must hear of it.
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let mut torn = whole.clone();
    torn.truncate(whole.len() / 2);
    let mut noise = whole.clone();
    noise[20..].fill(0xa5);
    for (bytes, why) in [(damaged, "archive"), (torn, "has lost a part of it"), (noise, "archive")] {
        std::fs::write(&files[0], bytes).unwrap();
        let jobs = server.ended(&server.trigger(RESTORE));
        assert_eq!(jobs[0]["status"], "infrastructure_fail");
        let output = server.output(&jobs[0], 1);
        assert!(output.contains("failed to restore the cache `k`") && output.contains(why), "{output}");
    }
    std::fs::write(&files[0], whole).unwrap();
    assert!(succeeded(&server.ended(&server.trigger(RESTORE))));
}

#[test]
fn caches_are_of_one_project_and_can_be_forgotten() {
    let (server, _runner) = stage();
    assert!(succeeded(&server.ended(&server.trigger(SAVE))));
    server.call("POST", "/api/v2/organization/gh/acme/project", Some(json!({ "name": "other" })));
    let body = json!({ "config": { "content": RESTORE } });
    let created = server.call("POST", "/api/v2/project/gh/acme/other/pipeline/run", Some(body));
    let jobs = server.ended(created["id"].as_str().unwrap());
    assert!(server.output(&jobs[0], 1).contains("no cache was found"));
    assert!(succeeded(&server.ended(&server.trigger(RESTORE))));

    let answer = server.call("DELETE", "/api/v1.1/project/gh/acme/hello/build-cache", None);
    assert_eq!(answer["status"], "build dependency caches deleted: 1");
    let jobs = server.ended(&server.trigger(RESTORE));
    assert!(server.output(&jobs[0], 1).contains("no cache was found"));
}

#[test]
fn a_rerun_sees_the_layers_of_jobs_that_do_not_run_again() {
    let (server, _runner) = stage();
    let config = "\
version: 2.1
jobs:
  make:
    machine: true
    resource_class: a/b
    steps:
      - run: 'mkdir out && echo $CIRCLE_WORKFLOW_WORKSPACE_ID > out/id'
      - persist_to_workspace: {root: out, paths: [id]}
  use:
    machine: true
    resource_class: a/b
    steps:
      - attach_workspace: {at: ws}
      - run: 'cat ws/id; echo $CIRCLE_WORKFLOW_WORKSPACE_ID'
      - run: 'exit 1'
workflows: {w: {jobs: [make, use: {requires: [make]}]}}
";
    let pipeline = server.trigger(config);
    let first = server.ended(&pipeline);
    assert_eq!(job(&first, "use")["status"], "failed");
    let workflows = server.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
    let id = workflows["items"][0]["id"].as_str().unwrap();
    server.call("POST", &format!("/api/v2/workflow/{id}/rerun"), Some(json!({ "from_failed": true })));
    let all = server.ended(&pipeline);
    let again: Vec<&Value> = all.iter().filter(|job| job["name"] == "use").collect();
    assert_eq!(again.len(), 2);
    for run in again {
        let output = server.output(run, 2);
        let ids: Vec<&str> = output.lines().collect();
        assert!(ids.len() == 2 && ids[0] == ids[1], "{output}");
    }
}
