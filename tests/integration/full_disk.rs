//! A full disk under the data folder of a control plane: a small file system in a mount namespace of its
//! own, filled and emptied from outside while pipelines run. Where namespaces cannot be made the tests say
//! that they were skipped, as in `hostile`.

use crate::hostile::has_namespaces;
use crate::server::{ANSWER, Server, runlet};
use crate::support::poll;
use runlet::http::{Body, Client, Endpoint, Request};
use runlet::protocol::Secret;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// `runlet server` with its data on a file system of this size, after `script`; `$DATA` is the folder.
fn server_on(data: &Path, size: &str, script: &str) -> Command {
    let mount = format!("DATA='{}'; mount -t tmpfs -o size={size} none $DATA; {script}", data.display());
    let mut command = Command::new("unshare");
    command.args(["-Urm", "--propagation", "private", "/bin/sh", "-ec", &format!("{mount}; exec \"$@\"")]);
    command.arg("sh").arg(runlet().get_program());
    command.arg("server").arg("--data").arg(data).args(["--listen", "127.0.0.1:0"]).stdin(Stdio::null());
    command
}

/// The control plane; its data folder as seen from here; its log.
fn start() -> (Server, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    fs::create_dir(&data).unwrap();
    let mut command = server_on(&data, "8m", "true");
    let greeting = folder.path().join("greeting");
    let child = command.stdout(File::create(&greeting).unwrap()).stderr(File::create(&log).unwrap());
    let child = child.spawn().unwrap();
    let greeted = poll("the greeting", || {
        let text = fs::read_to_string(&greeting).unwrap();
        if text.contains("project create") { Ok(text) } else { Err(text) }
    });
    let url = greeted.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
    let seen = format!("/proc/{}/root{}", child.id(), data.display());
    let token = Secret::new(fs::read_to_string(Path::new(&seen).join("admin-token")).unwrap());
    let client = Client::new(&Endpoint { url, ..Endpoint::default() }).unwrap();
    (Server { child, client, token, folder }, seen.into(), log)
}

/// Takes every byte that is left.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [64 * 1024, 512] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

fn answer(server: &Server, method: &'static str, path: &str, body: &Value) -> (u16, String) {
    let body = body.to_string();
    let body = if method == "GET" { Body::Empty } else { Body::Json(body.as_bytes()) };
    let request = Request { method, path, token: Some(&server.token), body, timeout: ANSWER };
    let answer = server.client.send(&request).unwrap();
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

fn job_of(server: &Server, pipeline: &str) -> Option<Value> {
    let workflows = server.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
    let path = format!("/api/v2/workflow/{}/job", workflows["items"][0]["id"].as_str()?);
    server.call("GET", &path, None)["items"].as_array()?.first().cloned()
}

const SMALL: &str = "version: 2.1\njobs: {small: {machine: true, resource_class: a/b, steps: [{run: echo small}]}}\nworkflows: {w: {jobs: [small]}}\n";

#[test]
fn nothing_is_lost_while_the_disk_is_full_and_work_goes_on_after_it() {
    if !has_namespaces() {
        return;
    }
    let (server, data, log) = start();
    server.project();
    let go = server.folder.path().join("go");
    let runner = server.runner("one", &server.class_token("a/b"));
    let config = format!(
        "version: 2.1\njobs:\n  big:\n    machine: true\n    resource_class: a/b\n    steps:\n      - run: 'echo begun; touch {0}.begun; until test -e {0}; do sleep 0.05; done; seq 1 200000'\n      - run: 'mkdir out; seq 1 300000 > out/numbers'\n      - store_artifacts: {{path: out/numbers, destination: numbers}}\nworkflows: {{w: {{jobs: [big]}}}}\n",
        go.display()
    );
    let big = server.trigger(&config);
    let begun = server.folder.path().join("go.begun");
    poll("the first step", || if begun.exists() { Ok(()) } else { Err(String::new()) });

    fill(&data.join("filler"));
    // Some may fit into what the database had taken before: those are kept as well.
    let wanted = json!({ "config": { "content": SMALL } });
    let mut taken = Vec::new();
    let refusal = poll("a refusal", || {
        let (status, body) = answer(&server, "POST", "/api/v2/project/gh/acme/hello/pipeline/run", &wanted);
        if status == 201 {
            let created: Value = serde_json::from_str(&body).unwrap();
            taken.push(created["id"].as_str().unwrap().to_owned());
            return Err(format!("{} pipelines were taken", taken.len()));
        }
        Ok((status, body))
    });
    assert!(refusal.0 == 507 && refusal.1.contains("disk of the control plane"), "{refusal:?}");
    fs::write(&go, "").unwrap();
    poll("the operator's log to say so", || {
        let text = fs::read_to_string(&log).unwrap();
        if text.contains("make space where the data folder is") { Ok(()) } else { Err(text) }
    });
    poll("the operator's log to say so of files as well", || {
        let text = fs::read_to_string(&log).unwrap();
        if text.contains("runners wait for room") { Ok(()) } else { Err(text) }
    });
    // The output cannot arrive, and nobody takes that for the end of the task.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(answer(&server, "GET", "/live", &Value::Null).0, 200);
    let ready = answer(&server, "GET", "/ready", &Value::Null);
    assert!(ready.0 == 503 && ready.1.contains("is full"), "{ready:?}");
    let job = job_of(&server, &big).unwrap();
    assert_eq!(job["status"], "running", "{job}");

    fs::remove_file(data.join("filler")).unwrap();
    poll("the control plane to be ready", || {
        let ready = answer(&server, "GET", "/ready", &Value::Null);
        if ready.0 == 200 { Ok(()) } else { Err(ready.1) }
    });
    let jobs = server.ended(&big);
    assert_eq!(jobs[0]["status"], "success", "{jobs:?} {}", fs::read_to_string(&log).unwrap());
    let numbers = |last: u32| (1..=last).map(|n| format!("{n}\n")).collect::<String>();
    assert!(server.output(&jobs[0], 1) == format!("begun\n{}", numbers(200_000)), "the output differs");
    let artifacts =
        server.call("GET", &format!("/api/v3/jobs/{}/artifacts", jobs[0]["id"].as_str().unwrap()), None);
    let url = artifacts["data"][0]["attributes"]["url"].as_str().unwrap();
    let bytes = server.text(url.strip_prefix(server.client.url()).unwrap());
    assert!(bytes == numbers(300_000).into_bytes(), "the artifact differs");
    taken.push(server.trigger(SMALL));
    for pipeline in taken {
        let jobs = server.ended(&pipeline);
        assert_eq!(jobs[0]["status"], "success", "{jobs:?}");
        assert_eq!(server.output(&jobs[0], 1), "small\n");
    }
    drop(runner);
}

#[test]
fn a_start_on_a_full_disk_says_what_is_wrong() {
    if !has_namespaces() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = "head -c 1m /dev/zero > $DATA/filler 2> /dev/null || true";
    let output = server_on(folder.path(), "64k", script).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(folder.path().to_str().unwrap()) && text.contains("disk"), "{text}");
}
