//! Variables and contexts on the whole road: sealed in the store, handed out with claims, masked in what
//! jobs print.

use crate::server::{ANSWER, Runner, Server, runlet};
use crate::support::processes;
use base64::Engine;
use runlet::http::{Body, Request};
use runlet::protocol::Secret;
use serde_json::{Value, json};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

const PROJECT_SECRET: &str = "pr0ject-Secret-Value-41";
const CONTEXT_SECRET: &str = "c0ntext-Secret-Value-42";

impl Server {
    /// A call with any answer.
    pub(crate) fn answer(&self, method: &'static str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.answer_to(&self.token, method, path, body)
    }

    /// Makes a call with somebody's token and takes any answer.
    pub(crate) fn answer_to(
        &self,
        token: &Secret,
        method: &'static str,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let bytes = body.map(|body| body.to_string().into_bytes());
        let body = bytes.as_deref().map_or(Body::Empty, Body::Json);
        let request = Request { method, path, token: Some(token), body, timeout: ANSWER };
        let answer = self.client.send(&request).unwrap();
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    /// A call that is refused with this status, for a reason that holds these words.
    pub(crate) fn refused(
        &self,
        method: &'static str,
        path: &str,
        body: Option<Value>,
        status: u16,
        why: &str,
    ) {
        let (found, answer) = self.answer(method, path, body);
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(found == status && message.contains(why), "{method} {path}: {found} {answer}");
    }

    pub(crate) fn project(&self) {
        self.call("POST", "/api/v2/organization/gh/acme/project", Some(json!({ "name": "hello" })));
    }

    fn variable(&self, name: &str, value: &str) {
        let body = json!({ "name": name, "value": value });
        assert_eq!(self.answer("POST", "/api/v2/project/gh/acme/hello/envvar", Some(body)).0, 201);
    }

    fn context(&self, name: &str, variables: &[(&str, &str)]) -> String {
        let body = json!({ "name": name, "owner": { "slug": "gh/acme", "type": "organization" } });
        let (status, context) = self.answer("POST", "/api/v2/context", Some(body));
        assert_eq!(status, 200, "{context}");
        let id = context["id"].as_str().unwrap().to_owned();
        for (name, value) in variables {
            let path = format!("/api/v2/context/{id}/environment-variable/{name}");
            assert_eq!(self.answer("PUT", &path, Some(json!({ "value": value }))).0, 200);
        }
        id
    }

    /// Output of a step of a job.
    pub(crate) fn output(&self, job: &Value, step: u32) -> String {
        let id = job["id"].as_str().unwrap();
        let path = format!("/api/v3/jobs/{id}/stdout?filter%5Bexecution%5D=0&filter%5Bstep_num%5D={step}");
        String::from_utf8(self.text(&path)).unwrap()
    }

    /// Stops it and starts another one on the same data, which answers or ends.
    fn restart(mut self, args: &[&str]) -> std::process::Output {
        crate::support::processes::signal(self.child.id(), rustix::process::Signal::TERM);
        self.child.wait().unwrap();
        let data = self.folder.path().join("data");
        let mut command = runlet();
        command.arg("server").arg("--data").arg(data).args(["--listen", "127.0.0.1:0"]).args(args);
        let output = command.stderr(std::process::Stdio::piped()).output().unwrap();
        // The folder goes with `self`.
        drop(self);
        output
    }
}

/// Every file below a folder that holds one of the texts.
pub(crate) fn files_with(folder: &Path, texts: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            found.extend(files_with(&path, texts));
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let holds = |text: &&str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
            found.extend(
                texts.iter().find(|text| holds(text)).map(|text| format!("{text}: {}", path.display())),
            );
        }
    }
    found
}

#[test]
fn secrets_reach_the_steps_and_nothing_else() {
    let server = Server::start();
    server.project();
    let token = server.class_token("acme/linux");
    let _runner: Runner = server.runner("r", &token);
    server.variable("PROJECT_SECRET", PROJECT_SECRET);
    server.variable("SHORT", "abc");
    server.variable("FLAG", "true");
    server.variable("BOTH", "from-the-project");
    server.variable("KEY", "first line of it\nsecond line of it\n");
    server.variable("JOB_WINS", "from-the-project");
    server.context("one", &[("BOTH", "from-context-one"), ("CONTEXT_SECRET", CONTEXT_SECRET)]);
    server.context("two", &[("BOTH", "from-context-two")]);
    let go = server.folder.path().join("go");
    let config = format!(
        r#"version: 2.1
jobs:
  build:
    machine: true
    resource_class: acme/linux
    environment: {{JOB_WINS: job}}
    steps:
      - run: echo "whole $PROJECT_SECRET and $CONTEXT_SECRET"
      - run: |
          printf 'cut %s' "${{PROJECT_SECRET:0:9}}"; sleep 0.5
          printf '%s' "${{PROJECT_SECRET:9:3}}"; sleep 0.5
          printf '%s end\n' "${{PROJECT_SECRET:12}}"
      - run: echo "short $SHORT $FLAG"
      - run: test "${{BOTH#from-context-}} $JOB_WINS" = "two job" && echo right
      - run: printf '%s' "$KEY" | tail -n 1
      - run: echo waits; while [ ! -e '{go}' ]; do sleep 0.05; done
workflows:
  w:
    jobs:
      - build: {{context: [one, org-global, two]}}
"#,
        go = go.display()
    );
    let pipeline = server.trigger(&config);
    // All that watchers are told, from the beginning.
    let path = format!("/api/v3/runs/{pipeline}/events");
    let mut stream = server.client.open(&path, &server.token).unwrap();
    let watcher = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    });
    let secrets = [PROJECT_SECRET, CONTEXT_SECRET, "from-context-two", "second line of it"];
    server.wait_output(&pipeline, 6, "waits");
    // While the job runs its environment holds them; files and command lines do not.
    assert_eq!(processes::lines_with(&secrets), Vec::<String>::new());
    assert_eq!(files_with(server.folder.path(), &secrets), Vec::<String>::new());
    std::fs::write(&go, "").unwrap();

    let jobs = server.ended(&pipeline);
    assert_eq!(jobs[0]["status"], "success", "{}", jobs[0]);
    assert_eq!(server.output(&jobs[0], 1), "whole **** and ****\n");
    assert_eq!(server.output(&jobs[0], 2), "cut **** end\n");
    assert_eq!(server.output(&jobs[0], 3), "short abc true\n");
    assert_eq!(server.output(&jobs[0], 4), "right\n");
    assert_eq!(server.output(&jobs[0], 5).trim(), "****");
    assert_eq!(files_with(server.folder.path(), &secrets), Vec::<String>::new());
    let data = server.folder.path().join("data");
    let sealed = std::fs::read(data.join("runlet.db-wal")).unwrap_or_default().len();
    assert!(sealed > 0, "the write-ahead log was looked at");

    let told = watcher.join().unwrap();
    let mut shown = String::new();
    for line in told.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let event: Value = serde_json::from_str(line).unwrap();
        shown.push_str(&event.to_string());
        if let Some(data) = event["data"].as_str() {
            let bytes = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
            shown.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    assert!(shown.contains("whole **** and ****"), "{shown}");
    assert!(!secrets.iter().any(|secret| shown.contains(secret)), "{shown}");
}

const TWO_JOBS: &str = "version: 2.1\njobs:\n  build: &job\n    machine: true\n    resource_class: acme/linux\n    steps: [run: 'true']\n  after: *job\nworkflows:\n  w:\n    jobs:\n      - build: {context: deploy}\n      - after: {requires: [build]}\n";

#[test]
fn jobs_without_their_context_are_unauthorized() {
    let server = Server::start();
    server.project();
    let token = server.class_token("acme/linux");
    let _runner = server.runner("r", &token);
    let run = |status: &str| {
        let pipeline = server.trigger(TWO_JOBS);
        let jobs = server.ended(&pipeline);
        let workflows = server.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
        assert_eq!(jobs[0]["status"], status, "{jobs:?}");
        assert_eq!(workflows["items"][0]["status"], status, "{workflows}");
        let after = if status == "success" { "success" } else { "not_run" };
        assert_eq!(jobs[1]["status"], after, "{jobs:?}");
    };
    run("unauthorized");
    let id = server.context("deploy", &[("A", "value-of-a")]);
    run("success");

    let path = format!("/api/v2/context/{id}/restrictions");
    let restrict = |kind: &str, value: &str| {
        let body = json!({ "restriction_type": kind, "restriction_value": value });
        let (status, answer) = server.answer("POST", &path, Some(body));
        assert_eq!((status, &answer["context_id"]), (201, &json!(id)), "{answer}");
        format!("{path}/{}", answer["id"].as_str().unwrap())
    };
    server.call("POST", "/api/v2/organization/gh/acme/project", Some(json!({ "name": "other" })));
    let other = restrict("project", "github/acme/other");
    run("unauthorized");
    let own = restrict("project", "gh/acme/hello");
    run("success");
    // The config was sent along, which a rule may forbid.
    let rule = restrict("expression", "not (pipeline.config_source starts-with \"api\")");
    run("unauthorized");
    server.call("DELETE", &rule, None);
    let group = restrict("group", "11111111-2222-4333-8444-555555555555");
    run("unauthorized");
    // A person who may not use a context has nothing to approve with it.
    let hold = TWO_JOBS.replace("build: {context: deploy}", "build: {context: deploy, type: approval}");
    let jobs = server.ended(&server.trigger(&hold));
    assert_eq!((&jobs[0]["status"], &jobs[1]["status"]), (&json!("unauthorized"), &json!("not_run")));
    for restriction in [group, other, own] {
        server.call("DELETE", &restriction, None);
    }
    run("success");

    let wrong = |kind: &str, value: &str| json!({ "restriction_type": kind, "restriction_value": value });
    server.refused("POST", &path, Some(wrong("expression", "branch ==")), 400, "not a rule");
    server.refused(
        "POST",
        &path,
        Some(wrong("expression", "pipeline.git.brunch")),
        400,
        "pipeline.git.brunch",
    );
    server.refused("POST", &path, Some(wrong("project", "gh/acme/none")), 400, "no project");
    server.refused("POST", &path, Some(wrong("moon", "full")), 400, "known: project");
}

#[test]
fn a_context_that_goes_while_its_job_waits_is_missed() {
    let server = Server::start();
    server.project();
    let token = server.class_token("acme/linux");
    let id = server.context("deploy", &[("A", "value-of-a")]);
    let (gone, kept) = (server.trigger(TWO_JOBS), server.trigger(&TWO_JOBS.replace("deploy", "org-global")));
    server.call("DELETE", &format!("/api/v2/context/{id}"), None);
    // The first claim finds nothing to hand out in the first pipeline, and takes from the second.
    let _runner = server.runner("r", &token);
    assert_eq!(server.ended(&gone)[0]["status"], "failed");
    assert_eq!(server.ended(&kept)[0]["status"], "success");
}

#[test]
fn variables_have_the_shapes_that_clients_read() {
    let server = Server::start();
    server.project();
    let base = "/api/v2/project/github%2Facme%2Fhello/envvar";
    let set =
        |name: &str, value: &str| server.answer("POST", base, Some(json!({ "name": name, "value": value })));
    assert_eq!(set("TOKEN", "hunter2-hunter2"), (201, json!({ "name": "TOKEN", "value": "xxxxter2" })));
    assert_eq!(set("EMPTY", ""), (201, json!({ "name": "EMPTY", "value": "xxxx" })));
    assert_eq!(set("TOKEN", "0123456789"), (201, json!({ "name": "TOKEN", "value": "xxxx6789" })));
    let page = server.call("GET", base, None);
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    assert!(page["next_page_token"].is_null() && page["items"][1]["name"] == "TOKEN", "{page}");
    assert!(page["items"][0]["created-at"].is_string() && page["items"][0]["created_at"].is_string());
    let one = format!("{base}/TOKEN");
    assert_eq!(server.call("GET", &one, None), json!({ "name": "TOKEN", "value": "xxxx6789" }));
    let old = server.call("GET", "/api/v1.1/project/github/acme/hello/envvar", None);
    assert_eq!(old, json!([{ "name": "EMPTY", "value": "xxxx" }, { "name": "TOKEN", "value": "xxxx6789" }]));
    // Any form of the slug, and the id, name the same project.
    let id = server.call("GET", "/api/v2/project", None)["items"][0]["id"].as_str().unwrap().to_owned();
    for slug in [id.as_str(), "gh%2facme%2Fhello", "gh/acme/hello", "github/acme/hello"] {
        assert_eq!(
            server.call("GET", &format!("/api/v2/project/{slug}/envvar/TOKEN"), None)["value"],
            "xxxx6789"
        );
    }
    assert!(server.call("DELETE", &one, None)["message"].is_string());
    server.refused("GET", &one, None, 404, "no variable `TOKEN`");
    server.refused("DELETE", &one, None, 404, "no variable");
    server.refused("POST", base, Some(json!({ "name": "1A", "value": "x" })), 400, "not the name");
    server.refused("POST", base, Some(json!({ "name": "A" })), 400, "`value` must be");
    server.refused(
        "POST",
        base,
        Some(json!({ "name": "A", "value": "x".repeat(32769) })),
        400,
        "limit is 32768",
    );
    server.refused("POST", base, None, 400, "`name` must be");
    server.refused("GET", "/api/v2/project/gh%2Facme%2Fnone/envvar", None, 404, "no project `gh/acme/none`");

    server.refused(
        "POST",
        "/api/v2/context",
        Some(json!({ "name": "c", "owner": { "slug": "gh/none" } })),
        404,
        "no organisation",
    );
    server.refused("POST", "/api/v2/context", Some(json!({ "name": "c" })), 400, "owner is missing");
    server.refused(
        "POST",
        "/api/v2/context",
        Some(json!({ "name": "x".repeat(201), "owner": { "slug": "gh/acme" } })),
        400,
        "200",
    );
    let id = server.context("deploy", &[("A", "0123456789")]);
    server.refused(
        "POST",
        "/api/v2/context",
        Some(json!({ "name": "deploy", "owner": { "slug": "gh/acme" } })),
        409,
        "already",
    );
    let page = server.call("GET", "/api/v2/context?owner-slug=github%2Facme&name=epl&page-token=", None);
    assert_eq!((&page["items"][0]["id"], &page["next_page_token"]), (&json!(id), &Value::Null));
    assert!(page["items"][0]["created_at"].is_string());
    let page = server.call("GET", &format!("/api/v2/context/{id}/environment-variable"), None);
    assert_eq!(
        (&page["items"][0]["variable"], &page["items"][0]["truncated_value"]),
        (&json!("A"), &json!("xxxx6789"))
    );
    let context = server.call("GET", &format!("/api/v2/context/{id}"), None);
    assert!(context["org_id"].is_string() && context["restrictions"] == json!([]), "{context}");
    assert_eq!(context["environment_variables"][0]["context_id"], json!(id));
    server.refused(
        "DELETE",
        &format!("/api/v2/context/{id}/environment-variable/B"),
        None,
        404,
        "no variable `B`",
    );
    server.call("DELETE", &format!("/api/v2/context/{id}/environment-variable/A"), None);
    server.call("DELETE", &format!("/api/v2/context/{id}"), None);
    server.refused("GET", &format!("/api/v2/context/{id}"), None, 404, "no context");
}

#[test]
fn swapped_rows_do_not_open() {
    let server = Server::start();
    server.project();
    let token = server.class_token("acme/linux");
    let _runner = server.runner("r", &token);
    server.variable("A", "value-of-a");
    server.variable("B", "value-of-b");
    let database = server.database();
    database
        .execute("UPDATE project_variables SET sealed = (SELECT sealed FROM project_variables WHERE name = 'A') WHERE name = 'B'", [])
        .unwrap();
    server.context("deploy", &[]);
    let jobs = server.ended(&server.trigger(TWO_JOBS));
    assert_eq!(jobs[0]["status"], "infrastructure_fail", "{jobs:?}");
    let messages: String =
        database.query_row("SELECT messages FROM jobs WHERE name = 'build'", [], |row| row.get(0)).unwrap();
    assert!(messages.contains("`B`") && messages.contains("set it again"), "{messages}");
    server.variable("B", "value-of-b");
    assert_eq!(server.ended(&server.trigger(TWO_JOBS))[0]["status"], "success");
}

#[test]
fn the_key_file_is_guarded() {
    let server = Server::start();
    server.project();
    server.variable("A", "value-of-a");
    let key = server.folder.path().join("data/secrets.key");
    let meta = std::fs::metadata(&key).unwrap();
    assert_eq!(meta.mode() & 0o777, 0o600);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = server.restart(&[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("chmod 600"), "{said}");

    let server = Server::start();
    server.project();
    server.variable("A", "value-of-a");
    let elsewhere = server.folder.path().join("elsewhere");
    let output = server.restart(&["--secrets-key", elsewhere.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("is missing, and 1 variable"), "{said}");
}
