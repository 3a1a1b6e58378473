//! Runners as their operators see them from the control plane: who is there, pauses, how long jobs may wait, the first
//! settings file; and what the control plane says of itself: its log, its metrics.

use crate::claims::answer;
use crate::faults::address_of;
use crate::server::{Server, one_step, runlet, write_private};
use crate::support::poll;
use runlet::protocol::PROTOCOL_VERSION;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::process::Stdio;

const JOB: &str = "version: 2.1
jobs: {build: {machine: true, resource_class: acme/linux, steps: [run: 'while ! test -e go; do sleep 0.1; done']}}
workflows: {w: {jobs: [build]}}
";

fn status_of(server: &Server, pipeline: &str) -> Value {
    let workflows = server.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
    let path = format!("/api/v2/workflow/{}/job", workflows["items"][0]["id"].as_str().unwrap());
    let id = server.call("GET", &path, None)["items"][0]["id"].as_str().unwrap().to_owned();
    server.call("GET", &format!("/api/v3/jobs/{id}"), None)["data"]["attributes"].clone()
}

fn wait_row(server: &Server, words: &[&str]) -> String {
    poll("the runner in the list", || {
        let table = server.admin(&["runner", "list", "acme/linux"], "");
        let row = table.lines().find(|line| words.iter().all(|word| line.contains(word)));
        row.map(str::to_owned).ok_or(table)
    })
}

#[test]
fn runners_are_listed_paused_and_let_go_on() {
    let server = Server::start();
    server.project();
    let token = server.class_token("acme/linux");
    let _runner = server.runner_that_keeps("lpar1", &token);
    wait_row(&server, &["acme/linux", "lpar1", "idle"]);
    let said = server.admin(&["runner", "pause", "acme/linux", "lpar1"], "");
    assert_eq!(said, "the runner lpar1 of acme/linux gets no further tasks; what runs goes on\n");
    wait_row(&server, &["lpar1", "idle, paused"]);
    let pipeline = server.trigger(JOB);
    let waits = |reason: &str| {
        poll(reason, || {
            let shown = status_of(&server, &pipeline).to_string();
            if shown.contains(reason) { Ok(()) } else { Err(shown) }
        });
    };
    waits("that are there are paused");
    server.admin(&["runner", "pause", "acme/linux"], "");
    waits("the resource class `acme/linux` is paused");
    let output = server.admin_output(&["runner", "list"], "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("acme/linux: 1 wait, the oldest for ") && said.contains(": the class is paused"),
        "{said}"
    );
    server.admin(&["runner", "resume", "acme/linux", "lpar1"], "");
    server.admin(&["runner", "resume", "acme/linux"], "");
    wait_row(&server, &["lpar1", "busy", "build"]);
    // The folder comes with the task agent.
    let go = server.folder.path().join("lpar1").join("work").join("go");
    poll("the working directory", || std::fs::write(&go, "").map_err(|error| error.to_string()));
    assert_eq!(server.ended(&pipeline)[0]["status"], "success");
    server.admin_fails(&["runner", "pause", "acme/linux", "nobody"], 5, "no runner `nobody`");
    server.admin_fails(&["runner", "list", "acme/none"], 5, "no resource class `acme/none`");
    let audit = server.admin(&["audit", "--json"], "");
    assert!(audit.contains("\"is_paused\""), "{audit}");
}

#[test]
fn a_job_waits_no_longer_than_its_class_lets_it() {
    let server = Server::start();
    server.project();
    server.class_token("acme/linux");
    server.admin_fails(&["resource-class", "set-wait", "acme/linux", "1s"], 4, "a number from 60");
    let said = server.admin(&["resource-class", "set-wait", "acme/linux", "1m"], "");
    assert_eq!(said, "a job that no runner of acme/linux takes within 1m ends\n");
    let pipeline = server.trigger(JOB);
    // The job looks as if it could have been claimed for an hour.
    let database = server.database();
    database.execute("UPDATE tasks SET waits_since_ms = waits_since_ms - 3600000", []).unwrap();
    assert_eq!(server.ended(&pipeline)[0]["status"], "infrastructure_fail");
    let shown = status_of(&server, &pipeline).to_string();
    assert!(shown.contains("no runner of `acme/linux` took the job within 1m0s"), "{shown}");
}

#[test]
fn a_settings_file_is_made_with_its_token() {
    let server = Server::start();
    server.admin(&["resource-class", "create", "acme/linux"], "");
    let text = server.admin(&["runner", "config", "acme/linux", "--name", "lpar1"], "");
    let file = server.folder.path().join("runner.yaml");
    write_private(&file, &text);
    let mut doctor = runlet();
    doctor.arg("doctor").arg("--json").arg("--config").arg(&file);
    let output = doctor.env("HOME", server.folder.path()).output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let token = found.as_array().unwrap().iter().find(|finding| finding["id"] == "token").unwrap();
    assert!(token["evidence"].as_str().unwrap().ends_with("class `acme/linux` (token `lpar1`)"), "{token}");
    let large = found.as_array().unwrap().iter().find(|finding| finding["id"] == "large_calls").unwrap();
    assert_eq!(large["result"], "ok");
    // A path that is not served, and a token that is not known, are no success.
    for (from, to, id) in
        [("\"\n  auth", "/elsewhere\"\n  auth", "control_plane"), ("rlc_", "rlc_x", "token")]
    {
        let text = text.replacen(from, to, 1);
        write_private(&file, &text);
        let output = runlet().args(["doctor", "--json", "--config"]).arg(&file).output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let bad = found
            .as_array()
            .unwrap()
            .iter()
            .find(|finding| finding["id"] == id && finding["result"] == "fail");
        assert!(bad.is_some() && output.status.code() == Some(1), "{found}");
    }
}

#[test]
fn the_control_plane_tells_of_acts_and_triggers_as_objects_and_counts_calls() {
    let folder = tempfile::tempdir().unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut command = runlet();
    command.stderr(Stdio::from(log));
    let server = Server::start_by(command, &["--log-format", "json"]);
    server.project();
    server.class_token("acme/linux");
    let pipeline = server.trigger(JOB);
    let lines: Vec<Value> = poll("both in the log", || {
        let text = std::fs::read_to_string(folder.path().join("log")).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let has = |words: &str| lines.iter().any(|line| line["message"].as_str().unwrap().contains(words));
        if has("pipeline was triggered") && has("set-up was changed") { Ok(lines) } else { Err(text) }
    });
    let find =
        |words: &str| lines.iter().find(|line| line["message"].as_str().unwrap().contains(words)).unwrap();
    let trigger = find("pipeline was triggered");
    assert_eq!((&trigger["pipeline_id"], &trigger["user"]), (&json!(pipeline), &json!("admin")));
    let act = find("set-up was changed");
    assert_eq!(
        (&act["client"], act["call"].as_str().unwrap().split(' ').next()),
        (&json!("127.0.0.1"), Some("POST"))
    );
    assert!(!lines.iter().any(|line| line.to_string().contains("rlc_")), "no token is told");
    let metrics = String::from_utf8(server.text("/metrics")).unwrap();
    for line in [
        "runlet_tasks{resource_class=\"acme/linux\",status=\"queued\"} 1",
        "runlet_runners_online{resource_class=\"acme/linux\"} 0",
        "# TYPE runlet_request_duration_seconds histogram",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    assert!(metrics.contains("runlet_oldest_wait_seconds{resource_class=\"acme/linux\"} "), "{metrics}");
}

#[test]
fn a_sweep_that_fails_says_so_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = runlet();
    command.stderr(Stdio::from(std::fs::File::create(&log).unwrap()));
    let server = Server::start_by(command, &[]);
    server.class_token("acme/linux");
    let damage = "UPDATE resource_classes SET wait_limit_ms = -1";
    assert_eq!(server.database().execute(damage, []).unwrap(), 1);
    poll("the failure in the log", || {
        let text = std::fs::read_to_string(&log).unwrap();
        if text.contains("failed to end waits for runners: ") { Ok(()) } else { Err(text) }
    });
}

/// The samples of a page of metrics, which is refused where a strict parser refuses it: a family without its two heads, or
/// in two places; a sample twice; a histogram that falls, or whose last class is not its count.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let (mut heads, mut all) = (Vec::<(String, String)>::new(), BTreeMap::new());
    let mut last: Option<(String, f64)> = None;
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(head) = line.strip_prefix("# HELP ") {
            let name = head.split_once(' ').expect("help has a text").0.to_owned();
            assert!(heads.iter().all(|(known, _)| *known != name), "{name} begins twice");
            heads.push((name, String::new()));
            continue;
        }
        let (family, kind) = heads.last_mut().expect("a head comes first");
        if let Some(head) = line.strip_prefix("# TYPE ") {
            assert_eq!(head.split_once(' ').map(|(name, _)| name), Some(family.as_str()));
            *kind = head.split_once(' ').unwrap().1.to_owned();
            assert!(["counter", "gauge", "histogram"].contains(&kind.as_str()), "{head}");
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a sample has a value");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        let name = sample.split('{').next().unwrap();
        let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} has no head"));
        match kind.as_str() {
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
            "counter" => assert!(name.ends_with("_total") && suffix.is_empty(), "{line}"),
            _ => assert_eq!(suffix, "", "{line}"),
        }
        if suffix == "_bucket" {
            let smaller = last.take().filter(|(known, _)| known == family).map_or(0.0, |(_, value)| value);
            assert!(smaller <= value, "{line}");
            last = Some((family.clone(), value));
        }
        if suffix == "_count" {
            assert_eq!(all.get(&format!("{family}_bucket{{le=\"+Inf\"}}")), Some(&value), "{line}");
        }
        assert!(all.insert(sample.to_owned(), value).is_none(), "{sample} stands twice");
    }
    all
}

#[test]
fn the_control_plane_counts_how_tasks_ended_how_long_they_waited_and_ran() {
    let server = Server::start();
    server.project();
    let token = server.class_token("a/b");
    let count = |samples: &BTreeMap<String, f64>, status: &str| {
        let name = format!("runlet_ended_tasks_total{{resource_class=\"a/b\",status=\"{status}\"}}");
        samples.get(&name).copied()
    };
    let page = || samples(&String::from_utf8(server.text("/metrics")).unwrap());
    let before = page();
    assert_eq!((count(&before, "success"), before["runlet_task_run_seconds_count"]), (None, 0.0));
    let waits = server.trigger(&one_step("true"));
    let workflows = server.call("GET", &format!("/api/v2/pipeline/{waits}/workflow"), None);
    let workflow = workflows["items"][0]["id"].as_str().unwrap();
    server.call("POST", &format!("/api/v2/workflow/{workflow}/cancel"), None);
    let _runner = server.runner_that_keeps("lpar1", &token);
    for (command, status) in [("true", "success"), ("true", "success"), ("exit 3", "failed")] {
        assert_eq!(server.ended(&server.trigger(&one_step(command)))[0]["status"], status);
    }
    let after = page();
    let ends = ["success", "failed", "canceled", "infrastructure_fail"].map(|status| count(&after, status));
    assert_eq!(ends, [Some(2.0), Some(1.0), Some(1.0), None], "{after:?}");
    // The one that was cancelled never began.
    assert_eq!(after["runlet_task_wait_seconds_count"], 3.0);
    assert_eq!(after["runlet_task_run_seconds_count"], 3.0);
    assert!(after["runlet_database_size_bytes"] > 0.0 && after["runlet_output_bytes_total"] >= 0.0);
    for (name, value) in &before {
        assert!(!name.contains("_total") || after[name] >= *value, "{name} fell");
    }
}

#[test]
fn errors_of_admin_name_its_own_options_and_the_first_start_the_public_address() {
    let output = runlet()
        .args(["admin", "user", "list", "--server", "http://127.0.0.1:1/x?y", "--token-file", "/dev/null"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "rlp_x").unwrap();
    let held = crate::support::ports::hold();
    let url = format!("https://{}", held.address());
    let output = runlet()
        .args(["admin", "user", "list", "--ca-file", "/nonexistent.pem", "--server", &url, "--token-file"])
        .arg(token.path())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("`--ca-file`") && !said.contains("api."), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let mut server = runlet();
    server.args(["server", "--listen", "127.0.0.1:0", "--public-url", "https://ci.example", "--data"]);
    let mut child = server.arg(folder.path().join("data")).stdout(Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let hint = lines.map(Result::unwrap).find(|line| line.contains("RUNLET_SERVER="));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(hint.as_deref(), Some("  export RUNLET_SERVER=https://ci.example"));
}

/// A call as a runner of this version of the protocol makes it.
fn speak(
    server: &Server,
    version: u32,
    (method, path): (&str, &str),
    token: &str,
    body: &str,
) -> (u16, Value) {
    let mut connection = TcpStream::connect(address_of(server)).unwrap();
    write!(
        connection,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nRunlet-Protocol: {version}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let (status, _, said) = answer(connection);
    (status, said)
}

/// The calls of a runner of the version before, as one made them: it begins by its first call.
#[test]
fn a_runner_of_the_version_before_is_served_and_a_newer_one_is_not() {
    let server = Server::start();
    server.project();
    let class = server.class_token("acme/linux");
    let pipeline = server.trigger(JOB);
    let before = PROTOCOL_VERSION - 1;
    let claim = json!({ "name": "old", "hostname": "h", "version": "0.0.9", "os": "linux", "arch": "s390x", "nonce": "n" });
    let claim_call = ("POST", "/api/v3/runner/claim?wait=0");
    let (status, refusal) = speak(&server, PROTOCOL_VERSION + 1, claim_call, &class, &claim.to_string());
    assert_eq!((status, &refusal["code"]), (400, &json!("protocol_mismatch")));
    let message = refusal["message"].as_str().unwrap();
    assert!(message.contains(&format!("speaks protocol {}", PROTOCOL_VERSION + 1)), "{message}");
    assert!(
        message.contains(&format!("this control plane {PROTOCOL_VERSION}: upgrade the control plane")),
        "{message}"
    );
    let (status, task) = speak(&server, before, claim_call, &class, &claim.to_string());
    assert_eq!(status, 200, "{task}");
    let (id, token) = (task["id"].as_str().unwrap(), task["token"].as_str().unwrap());
    let of_task = |method: &str, rest: &str, body: &str| {
        let (status, said) =
            speak(&server, before, (method, &format!("/api/v3/runner/tasks/{id}/{rest}")), token, body);
        assert_eq!(status, 200, "{method} {rest}: {said}");
        said
    };
    of_task("POST", "heartbeat?wait=0", "{}");
    let started = json!([{ "number": 0, "at_ms": 1, "event": "step_started", "step": 1, "index": 0, "name": "s",
        "kind": "run", "attempt": 1, "max_auto_reruns": 0, "background": false }]);
    of_task("POST", "events", &started.to_string());
    of_task("PATCH", "steps/1/output?offset=0", "hello\n");
    let finished = json!([{ "number": 1, "at_ms": 2, "event": "step_finished", "step": 1, "status": "success", "exit_code": 0 }]);
    of_task("POST", "events", &finished.to_string());
    let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    let finish =
        json!({ "status": "success", "events": 2, "steps": [{ "step": 1, "length": 6, "sha256": sha256 }] });
    assert_eq!(of_task("POST", "finish", &finish.to_string())["answer"], "confirmed");
    assert_eq!(server.ended(&pipeline)[0]["status"], "success");
}
