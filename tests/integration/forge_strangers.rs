//! Faults between people, forges and projects: tokens that are refused and set anew, branches of odd names or
//! without commits, authors who would approve their own changes, and what is said of deliveries that are not taken.

use crate::forge::{Answer, Connected, NONE, pull, push, signed};
use crate::forge_back::Fake;
use crate::repositories::Work;
use crate::server::{ANSWER, Server};
use crate::support::poll;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const PROJECT: &str = "/api/v2/project/gh/acme/hello";
const JSON: (&str, &str) = ("Content-Type", "application/json");
const HOLDS: &str = "version: 2.1\njobs: {build: {machine: true, resource_class: acme/linux, steps: [{run: 'true'}]}}\nworkflows: {w: {jobs: [hold: {type: approval}, build: {requires: [hold]}]}}\n";

impl Server {
    /// The workflow of a pipeline, and the approval in it.
    fn held(&self, pipeline: &str) -> (String, String) {
        let workflows = self.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
        let workflow = workflows["items"][0]["id"].as_str().unwrap().to_owned();
        let jobs = self.call("GET", &format!("/api/v2/workflow/{workflow}/job"), None);
        let is_hold = |job: &&Value| job["name"] == "hold";
        let hold = jobs["items"].as_array().unwrap().iter().find(is_hold).unwrap()["id"].as_str().unwrap();
        (workflow, hold.to_owned())
    }

    fn deliveries(&self) -> Vec<Value> {
        let listed = self.call("GET", &format!("{PROJECT}/deliveries"), None);
        listed["items"].as_array().unwrap().clone()
    }

    /// The state of the last change of a ref, and why.
    fn became(&self, reference: &str) -> String {
        let items = self.worked_off();
        let mut changes = items.iter().flat_map(|item| item["changes"].as_array().unwrap());
        let change = changes.find(|change| change["name"] == reference);
        let change = change.unwrap_or_else(|| panic!("{reference}: {items:?}"));
        format!("{} {}", change["state"].as_str().unwrap(), change["message"].as_str().unwrap())
    }
}

impl Connected<'_> {
    /// A push at Bitbucket's cloud: name, before and after of each branch.
    fn cloud(&self, id: &str, changes: &[(&str, &str, &str)]) -> Answer {
        let at = |name: &str, id: &str| match id {
            NONE => Value::Null,
            id => json!({ "type": "branch", "name": name, "target": { "hash": id } }),
        };
        let changes: Vec<Value> = changes
            .iter()
            .map(|(name, before, after)| json!({ "old": at(name, before), "new": at(name, after) }))
            .collect();
        let body = json!({ "push": { "changes": changes }, "actor": { "nickname": "ada" },
            "repository": { "uuid": "{r1}", "full_name": "acme/hello" } })
        .to_string();
        let signature = signed(&self.secret, &body);
        let headers = [
            JSON,
            ("X-Event-Key", "repo:push"),
            ("X-Hook-UUID", "{h}"),
            ("X-Request-UUID", id),
            ("X-Hub-Signature", &*signature),
        ];
        self.send(&headers, body.as_bytes())
    }
}

#[test]
fn what_waits_for_a_token_is_told_once_it_is_set_anew() {
    let mut server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.commit_config(HOLDS, "main");
    server.register(&work.url());
    server.class_token("acme/linux");
    let may = Arc::new(AtomicBool::new(true));
    let is_allowed = Arc::clone(&may);
    let fake = Fake::start(move |call| {
        if call.method == "GET" {
            return (200, "", json!({ "default_branch": "main" }).to_string());
        }
        let is_new = call.headers["authorization"] == "Bearer new";
        match is_new || is_allowed.load(Ordering::SeqCst) {
            true => (201, "", "{}".to_owned()),
            false => (403, "", json!({ "message": "Resource not accessible" }).to_string()),
        }
    });
    server.connect(json!({ "api_url": fake.url(), "token": "old" }));
    let made = server.call("POST", &format!("{PROJECT}/pipeline"), Some(json!({ "branch": "main" })));
    let states = || -> Vec<Value> {
        let calls = fake.calls();
        let posts = calls.iter().filter(|call| call.method == "POST").map(|call| call.json());
        posts
            .filter(|body| body["context"] == "ci/circleci: w/hold")
            .map(|body| body["state"].clone())
            .collect()
    };
    poll("the approval to be told", || {
        if states() == ["pending"] { Ok(()) } else { Err(format!("{:?}", states())) }
    });
    may.store(false, Ordering::SeqCst);
    let (workflow, hold) = server.held(made["id"].as_str().unwrap());
    server.call("POST", &format!("/api/v2/workflow/{workflow}/approve/{hold}"), None);
    let shown = |server: &Server| server.call("GET", &format!("{PROJECT}/connection"), None);
    poll("the token to be found out", || {
        let shown = shown(&server);
        if shown["token_message"].as_str().is_some_and(|why| why.contains("403")) {
            Ok(())
        } else {
            Err(shown.to_string())
        }
    });
    // A mere look is told, and changes nothing; and neither does a restart.
    let said = server.admin(&["project", "connect", "gh/acme/hello"], "");
    assert!(said.contains("the token is not used any more") && said.contains("403"), "{said}");
    assert!(shown(&server)["token_message"].is_string());
    let listen = server.client.url().trim_start_matches("http://").to_owned();
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    server.start_again(&listen);
    let listed = server.call("GET", &format!("{PROJECT}/statuses"), None)["items"].clone();
    let waiting =
        listed.as_array().unwrap().iter().find(|one| one["context"] == "ci/circleci: w/hold").unwrap();
    assert!(waiting["is_due"] == true && waiting["message"].as_str().unwrap().contains("403"), "{waiting}");
    let calls = fake.calls().len();

    server.admin(&["project", "connect", "gh/acme/hello", "--with-token"], "new\n");
    poll("the end to be told", || {
        let calls = fake.calls();
        let of_new = |call: &crate::forge_back::Call| {
            call.method == "POST"
                && call.headers["authorization"] == "Bearer new"
                && call.json()["state"] == "success"
        };
        if calls.iter().any(of_new) { Ok(()) } else { Err(format!("{calls:?}")) }
    });
    assert!(fake.calls().len() > calls && shown(&server)["token_message"].is_null());
}

#[test]
fn a_branch_of_an_odd_name_holds_up_no_other() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let config = json!({ "version": 2.1, "jobs": { "look": { "machine": true, "resource_class": "acme/linux",
        "steps": ["checkout", { "run": "git log -1 --format=%s | grep -xFe \"$CIRCLE_BRANCH\"" }] } },
        "workflows": { "w": { "jobs": ["look"] } } })
    .to_string();
    let first = work.commit_config(&config, "first");
    let main = work.commit_config(&config, "main");
    work.git(&["switch", "--quiet", "--detach"]);
    let odd = work.commit_config(&config, "--upload-pack=x");
    work.git(&["update-ref", "refs/heads/--upload-pack=x", &odd]);
    server.register(&work.url());
    let hook = server.connect(json!({ "forge": "bitbucket_cloud" }));
    let _runner = server.runner("r", &server.class_token("acme/linux"));
    let changes = [("a..b", NONE, &*odd), ("--upload-pack=x", NONE, &*odd), ("main", &*first, &*main)];
    let answer = hook.cloud("d1", &changes);
    assert_eq!(answer.status, 202, "{}", answer.body);
    server.worked_off();
    let made = answer.body["pipelines"].as_array().unwrap();
    assert_eq!(made.len(), 2, "{}", answer.body);
    for pipeline in made {
        let jobs = server.ended(pipeline.as_str().unwrap());
        assert_eq!(jobs[0]["status"], "success", "{jobs:?}");
    }
    let said = server.deliveries()[0]["message"].as_str().unwrap().to_owned();
    assert!(said.contains("left out: `a..b` cannot be the name"), "{said}");
    assert_eq!(hook.cloud("d2", &changes[..1]).status, 400, "nothing is left of it");
}

#[test]
fn a_branch_that_brings_no_commit_is_not_built_whoever_tells_of_it() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let first = work.commit("one", "one");
    let main = work.commit("two", "two");
    for (name, at) in [("copy", &main), ("older", &first)] {
        work.git(&["branch", name, at]);
    }
    work.git(&["switch", "--quiet", "-c", "own"]);
    let own = work.commit("three", "three");
    work.git(&["branch", "twin"]);
    work.git(&["switch", "--quiet", "main"]);
    server.register(&work.url());
    let hook = server.connect(json!({ "forge": "bitbucket_cloud" }));
    // No other branch is known at first.
    assert_eq!(hook.cloud("b0", &[("older", NONE, &first)]).status, 202);
    assert!(server.became("refs/heads/older").contains("skipped the branch `older` was made of a commit"));
    // Two that come together bring their commit both.
    let all = [("copy", NONE, &*main), ("own", NONE, &*own), ("twin", NONE, &*own), ("main", NONE, &*main)];
    assert_eq!(hook.cloud("b1", &all).status, 202);
    for (name, state) in [("copy", "started"), ("own", "started"), ("twin", "started"), ("main", "started")] {
        let became = server.became(&format!("refs/heads/{name}"));
        assert!(became.starts_with(state), "{name}: {became}");
    }
    for (id, name, at) in [("b2", "late", &main), ("b3", "later", &own), ("b4", "old", &first)] {
        work.git(&["branch", name, at]);
        assert_eq!(hook.cloud(id, &[(name, NONE, at)]).status, 202);
        let became = server.became(&format!("refs/heads/{name}"));
        assert!(became.starts_with("skipped") && became.contains("was there before"), "{name}: {became}");
    }

    // A look finds no more of them.
    let look = || drop(server.connect(json!({ "forge": "git", "poll_seconds": 604_800 })));
    look();
    poll("a look", || {
        let items = server.worked_off();
        if items[0]["source"] == "poll" {
            return Ok(());
        }
        look();
        work.git(&["commit", "--allow-empty", "-q", "-m", "more"]);
        Err(format!("{items:?}"))
    });
    work.git(&["branch", "polled", &main]);
    work.git(&["switch", "--quiet", "-c", "news"]);
    work.commit("four", "four");
    let seen = |name: &str| {
        let items = server.worked_off();
        items
            .iter()
            .any(|item| item["changes"].as_array().unwrap().iter().any(|change| change["name"] == name))
    };
    poll("both branches", || {
        // A look that is still at work puts the next one off.
        look();
        if seen("refs/heads/polled") && seen("refs/heads/news") { Ok(()) } else { Err(String::new()) }
    });
    assert!(
        server.became("refs/heads/polled").contains("was there before"),
        "{}",
        server.became("refs/heads/polled")
    );
    assert!(server.became("refs/heads/news").starts_with("started"));
    let made = server.pipelines()[0].clone();
    assert_ne!(made["trigger"]["actor"]["login"], "unknown", "{made}");
}

#[test]
fn whoever_made_a_pull_request_from_a_fork_does_not_let_it_on() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.commit_config(HOLDS, "main");
    let theirs = work.commit_config(HOLDS, "theirs");
    work.git(&["update-ref", "refs/pull/12/head", &theirs]);
    let own = work.commit_config(HOLDS, "own");
    server.register(&work.url());
    server.set(json!({ "enable_building_fork_prs": true }));
    server.class_token("acme/linux");
    let hook = server.connect(json!({}));
    let (eve, ada) = (server.person("Eve", false), server.person("ada", false));
    let mut opened = pull("opened", 12, &theirs, 99);
    // Told by somebody else: the author counts.
    opened["sender"]["login"] = json!("mia");
    let pipeline = hook.github_started("pull_request", "f1", &opened);
    let shown = server.call("GET", &format!("/api/v2/pipeline/{pipeline}"), None);
    assert!(shown["vcs"]["origin_repository_url"] != shown["vcs"]["target_repository_url"], "{shown}");
    let (workflow, hold) = server.held(&pipeline);
    let approve = format!("/api/v2/workflow/{workflow}/approve/{hold}");
    let rerun = format!("/api/v2/workflow/{workflow}/rerun");
    for path in [&approve, &rerun] {
        let (status, answer) = server.answer_to(&eve, "POST", path, None);
        assert!(
            status == 403 && answer["message"].as_str().unwrap().contains("somebody else"),
            "{status} {answer}"
        );
    }
    assert_eq!(server.answer_to(&ada, "POST", &approve, None).0, 202);
    assert_eq!(server.answer_to(&ada, "POST", &rerun, None).0, 202);
    // A push to the repository itself is of somebody who may.
    let mut pushed = push("refs/heads/main", &theirs, &own);
    pushed["sender"]["login"] = json!("eve");
    let (workflow, hold) = server.held(&hook.github_started("push", "f2", &pushed));
    let approve = format!("/api/v2/workflow/{workflow}/approve/{hold}");
    assert_eq!(server.answer_to(&eve, "POST", &approve, None).0, 202);
}

#[test]
fn what_is_signed_is_in_the_list_and_of_the_rest_there_is_a_count() {
    let server = Server::start();
    server.project();
    let hook = server.connect(json!({}));
    let event = ("X-GitHub-Event", "push");
    let good = signed(&hook.secret, "{}");
    for _ in 0..8 {
        assert_eq!(hook.send(&[JSON, event, ("X-Hub-Signature-256", "sha256=00")], b"{}").status, 401);
    }
    let signature = ("X-Hub-Signature-256", &*good);
    let wrong = hook.send(&[JSON, event, signature], b"{}");
    assert_eq!(wrong.status, 400);
    // A single refusal, and not another one in it.
    assert_eq!(wrong.body["message"], "it has no `repository`", "{}", wrong.body);
    assert_eq!(wrong.body["error"]["detail"], wrong.body["message"], "{}", wrong.body);
    assert_eq!(hook.send(&[("Content-Type", "text/plain"), event, signature], b"{}").status, 415);
    assert_eq!(hook.send(&[("Content-Type", "text/plain"), event], b"{}").status, 401);
    poll("all of them to be counted", || {
        let items = server.deliveries();
        let all: Vec<&str> = items.iter().map(|item| item["message"].as_str().unwrap()).collect();
        let more = |said: &&str| {
            let (_, rest) = said.split_once("(and ")?;
            rest.split(' ').next()?.parse::<usize>().ok()
        };
        let strangers =
            all.iter().filter(|said| said.contains("signature") || said.contains("X-Hub")).count()
                + all.iter().filter_map(more).sum::<usize>();
        let is_there = |part: &str| all.iter().any(|said| said.contains(part));
        if strangers == 9 && is_there("it has no `repository`") && is_there("content type") {
            Ok(())
        } else {
            Err(format!("{strangers} {all:?}"))
        }
    });
}

#[test]
fn a_body_that_is_too_long_is_refused_by_its_length() {
    let server = Server::start();
    server.project();
    let (path, _) = server.connect(json!({})).parts();
    let address = server.client.url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(ANSWER)).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: 27262976\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).unwrap();
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&bytes[..count]);
    }
    let said = String::from_utf8_lossy(&answer);
    assert!(said.starts_with("HTTP/1.1 413") && said.contains("25000000 bytes"), "{said}");
}

#[test]
fn the_hook_of_a_plain_server_says_what_was_not_taken() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.commit("one", "one");
    server.register(&work.url());
    let hook = server.connect(json!({ "forge": "git" }));
    let bare = server.folder.path().join("bare.git");
    work.git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    let script = server.admin(&["project", "hook", "gh/acme/hello"], "");
    std::fs::write(bare.join("hooks/post-receive"), script).unwrap();
    std::fs::set_permissions(bare.join("hooks/post-receive"), std::fs::Permissions::from_mode(0o755))
        .unwrap();
    let place = server.folder.path().join("repositories/work");
    let push = |secret: &str| {
        std::fs::write(bare.join("hooks/runlet.secret"), secret).unwrap();
        work.commit("next", "next");
        let mut git = Command::new("git");
        git.current_dir(&place).args(["push", bare.to_str().unwrap(), "main"]);
        let output = git.output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = push("wrong");
    assert!(
        said.contains("did not take this push (401)") && said.contains("not signed with its secret"),
        "{said}"
    );
    let said = push(&hook.secret);
    assert!(!said.contains("runlet:"), "{said}");
}
