//! A control plane that is killed at random moments while it works: what it has acknowledged is there afterwards,
//! nothing ran twice, nothing went back, and a check of its data finds nothing.
//!
//! Ten kills, or RUNLET_KILLS of them; RUNLET_SEED repeats a run's moments. `ci/kill-server` runs hundreds.

use crate::server::{ANSWER, Server, runlet};
use crate::storage::faults;
use crate::support::{poll_within, ports};
use runlet::http::{Body, Client, Endpoint, Request};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Steps leave a line each in a file of the test: whoever ran twice is seen there.
fn work(log: &std::path::Path) -> String {
    format!(
        "version: 2.1
jobs:
  build:
    machine: true
    resource_class: a/b
    steps:
      - run: 'echo << pipeline.number >> build >> {log}; mkdir -p out; seq 1 30000 | tee out/numbers; for n in 1 2 3; do sleep 0.05; echo $n; done'
      - save_cache: {{key: 'v1-<< pipeline.number >>', paths: [out]}}
      - persist_to_workspace: {{root: ., paths: [out]}}
      - run: 'echo \"<testsuite><testcase name=\\\"t\\\"/></testsuite>\" > out/t.xml'
      - store_artifacts: {{path: out}}
      - store_test_results: {{path: out}}
  next:
    machine: true
    resource_class: a/b
    steps:
      - attach_workspace: {{at: .}}
      - run: 'echo << pipeline.number >> next >> {log}; cat out/numbers'
workflows: {{w: {{jobs: [build, {{next: {{requires: [build]}}}}]}}}}
",
        log = log.display()
    )
}

struct Random(u64);

impl Random {
    /// A number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// A call that may meet nobody, or somebody who dies over it.
fn ask(server: (&Client, &runlet::protocol::Secret), path: &str, body: Option<&Value>) -> Option<Value> {
    let bytes = body.map(|body| body.to_string().into_bytes());
    let method = if body.is_some() { "POST" } else { "GET" };
    let body = bytes.as_deref().map_or(Body::Empty, Body::Json);
    let request = Request { method, path, token: Some(server.1), body, timeout: ANSWER };
    let answer = server.0.send(&request).ok()?;
    assert!(answer.status < 300, "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    serde_json::from_slice(&answer.body).ok()
}

/// Statuses of jobs as people were told of them: one that has ended stays as it is.
#[derive(Default)]
struct Seen(HashMap<String, String>);

impl Seen {
    fn look(&mut self, ask: &dyn Fn(&str) -> Option<Value>, pipeline: &str) {
        let Some(workflows) = ask(&format!("/api/v2/pipeline/{pipeline}/workflow")) else { return };
        for workflow in workflows["items"].as_array().unwrap() {
            let id = workflow["id"].as_str().unwrap();
            let Some(jobs) = ask(&format!("/api/v2/workflow/{id}/job")) else { return };
            for job in jobs["items"].as_array().unwrap() {
                let (id, status) = (job["id"].as_str().unwrap(), job["status"].as_str().unwrap());
                let before = self.0.insert(id.to_owned(), status.to_owned());
                let is_over =
                    before.as_deref().is_some_and(|s| !["blocked", "queued", "running"].contains(&s));
                let went_back = is_over || (before.as_deref() == Some("running") && status != "success");
                assert!(!went_back || before.as_deref() == Some(status), "{before:?} became {status}: {job}");
            }
        }
    }
}

#[test]
fn nothing_that_was_acknowledged_is_lost_by_kills() {
    let kills = number_of("RUNLET_KILLS").unwrap_or(10);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number_of("RUNLET_SEED").unwrap_or(now.as_nanos() as u64 | 1);
    println!("RUNLET_SEED={seed}");
    let mut random = Random(seed);

    let held = ports::hold();
    let address = held.address().to_string();
    let mut server = Server::start_with(&["--listen", &address], None);
    server.project();
    let token = server.class_token("a/b");
    let _runners = [server.runner("one", &token), server.runner("two", &token)];
    let log = server.folder.path().join("ran");
    let body = json!({ "config": { "content": work(&log) } });
    let data = server.data();
    let over = AtomicBool::new(false);
    let url = server.client.url().to_owned();
    let person = server.token.clone();

    let (acknowledged, mut seen) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let client = Client::new(&Endpoint { url, ..Endpoint::default() }).unwrap();
            let ask = |path: &str, body: Option<&Value>| ask((&client, &person), path, body);
            let (mut acknowledged, mut seen) = (Vec::<String>::new(), Seen::default());
            while !over.load(Ordering::Relaxed) {
                if let Some(created) = ask("/api/v2/project/gh/acme/hello/pipeline/run", Some(&body)) {
                    acknowledged.push(created["id"].as_str().unwrap().to_owned());
                }
                for pipeline in acknowledged.iter().rev().take(4) {
                    seen.look(&|path| ask(path, None), pipeline);
                }
                std::thread::sleep(Duration::from_millis(150));
            }
            (acknowledged, seen)
        });
        for kill in 1..=kills {
            std::thread::sleep(Duration::from_millis(random.below(700)));
            server.child.kill().unwrap();
            server.child.wait().unwrap();
            if kill % 10 == 5 {
                assert_eq!(faults(&data), [], "after {kill} kills with RUNLET_SEED={seed}");
            }
            let mut command = runlet();
            command.arg("server").arg("--data").arg(&data).args(["--listen", &address]);
            server.child = command.stdout(Stdio::null()).spawn().unwrap();
            // Now and then it does not even come up before it is killed again.
            if random.below(4) > 0 {
                poll_within(Duration::from_secs(60), "the control plane to be back", || {
                    ask((&server.client, &server.token), "/ready", None).map(drop).ok_or_else(String::new)
                });
            }
        }
        over.store(true, Ordering::Relaxed);
        load.join().unwrap()
    });
    poll_within(Duration::from_secs(60), "the control plane to be back", || {
        ask((&server.client, &server.token), "/ready", None).map(drop).ok_or_else(String::new)
    });
    assert!(!acknowledged.is_empty());
    let expected: String = (1..=30_000).map(|n| format!("{n}\n")).collect();
    for pipeline in &acknowledged {
        let jobs = server.ended_within(Duration::from_secs(600), pipeline);
        seen.look(&|path| ask((&server.client, &server.token), path, None), pipeline);
        for job in &jobs {
            assert_eq!(job["status"], "success", "{job}");
            let step = if job["name"] == "build" { 1 } else { 2 };
            let end = if step == 1 { "1\n2\n3\n" } else { "" };
            assert!(server.output(job, step) == format!("{expected}{end}"), "the output of {job} differs");
        }
    }
    let ran = std::fs::read_to_string(&log).unwrap();
    let mut lines: Vec<&str> = ran.lines().collect();
    let times = lines.len();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), times, "a step ran twice: {ran}");
    assert_eq!(faults(&data), [], "after all kills with RUNLET_SEED={seed}");
    println!(
        "{kills} kills, {} pipelines acknowledged, {times} steps counted, nothing lost",
        acknowledged.len()
    );
}
