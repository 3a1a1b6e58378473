//! From a push to a pipeline: deliveries of forges over HTTP, looks at refs, the hook of a plain git server.

use crate::repositories::Work;
use crate::server::{ANSWER, Server, runlet};
use crate::support::poll;
use ring::hmac;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

const PROJECT: &str = "/api/v2/project/gh/acme/hello";
/// The header of a body of JSON.
pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");

/// An answer to a delivery.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// A project that is connected to a forge.
pub(crate) struct Connected<'s> {
    server: &'s Server,
    /// The path of its address.
    path: String,
    pub(crate) secret: String,
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn signed(secret: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("sha256={}", hex(hmac::sign(&key, body.as_bytes()).as_ref()))
}

fn send(server: &Server, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    send_to(server.client.url().trim_start_matches("http://"), path, headers, body)
}

/// Sends a request as a forge does, with headers that our own client has no need of.
pub(crate) fn send_to(address: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(ANSWER)).unwrap();
    let mut head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // A body that is refused by its length is not taken.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    Answer { status, body: serde_json::from_str(body).unwrap_or(Value::Null) }
}

impl Server {
    /// Connects the project to a forge.
    pub(crate) fn connect(&self, wanted: Value) -> Connected<'_> {
        self.connect_project(PROJECT, wanted)
    }

    /// Connects the project of another path.
    pub(crate) fn connect_project(&self, project: &str, wanted: Value) -> Connected<'_> {
        let answer = self.call("PUT", &format!("{project}/connection"), Some(wanted));
        let address = answer["address"].as_str().unwrap();
        let path = address.strip_prefix(self.client.url()).unwrap().to_owned();
        Connected { server: self, path, secret: answer["secret"].as_str().unwrap_or_default().to_owned() }
    }

    /// The pipelines of the project, the newest first.
    pub(crate) fn pipelines(&self) -> Vec<Value> {
        self.call("GET", &format!("{PROJECT}/pipeline"), None)["items"].as_array().unwrap().clone()
    }

    /// Changes settings of the project.
    pub(crate) fn set(&self, settings: Value) {
        let id = self.call("GET", PROJECT, None)["id"].as_str().unwrap().to_owned();
        self.call("POST", &format!("/api/v3/projects/{id}/update-settings"), Some(settings));
    }

    /// Marks the only resource class for jobs of strangers.
    pub(crate) fn takes_untrusted(&self) {
        let classes = self.call("GET", "/api/v3/runner/resource", None);
        let class = format!("/api/v3/runner/resource/{}", classes["items"][0]["id"].as_str().unwrap());
        self.call("PATCH", &class, Some(json!({ "takes_untrusted": true })));
    }

    /// Changes of the last delivery that has some, once all of them are worked off.
    pub(crate) fn worked_off(&self) -> Vec<Value> {
        poll("the deliveries to be worked off", || {
            let listed = self.call("GET", &format!("{PROJECT}/deliveries"), None);
            let items = listed["items"].as_array().unwrap().clone();
            let waits = |item: &Value| {
                item["changes"].as_array().unwrap().iter().any(|change| change["state"] == "waiting")
            };
            if items.iter().any(waits) { Err(listed.to_string()) } else { Ok(items) }
        })
    }

    /// The verdict on the last delivery and on its only change.
    fn last(&self) -> (String, String) {
        let items = self.worked_off();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (word(&items[0]["changes"][0]["state"]), word(&items[0]["changes"][0]["message"]))
    }
}

impl Connected<'_> {
    /// A signed delivery of Bitbucket's cloud.
    pub(crate) fn bitbucket(&self, event: &str, id: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let signature = signed(&self.secret, &body);
        let headers = [
            JSON,
            ("X-Event-Key", event),
            ("X-Hook-UUID", "{h}"),
            ("X-Request-UUID", id),
            ("X-Hub-Signature", &*signature),
        ];
        self.send(&headers, body.as_bytes())
    }

    pub(crate) fn github(&self, event: &str, id: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let signature = signed(&self.secret, &body);
        let headers = [
            ("Content-Type", "application/json"),
            ("X-GitHub-Event", event),
            ("X-GitHub-Delivery", id),
            ("X-Hub-Signature-256", &signature),
        ];
        send(self.server, &self.path, &headers, body.as_bytes())
    }

    /// Sends it something with these headers.
    pub(crate) fn send(&self, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        send(self.server, &self.path, headers, body)
    }

    /// The path of its address, and its secret.
    pub(crate) fn parts(self) -> (String, String) {
        (self.path, self.secret)
    }

    /// A delivery that starts a pipeline; its id.
    pub(crate) fn github_started(&self, event: &str, id: &str, body: &Value) -> String {
        let answer = self.github(event, id, body);
        assert_eq!(answer.status, 202, "{}", answer.body);
        self.server.worked_off();
        answer.body["pipelines"][0].as_str().unwrap().to_owned()
    }

    pub(crate) fn push(&self, id: &str, reference: &str, before: &str, after: &str) -> Answer {
        self.github("push", id, &push(reference, before, after))
    }
}

pub(crate) const NONE: &str = "0000000000000000000000000000000000000000";

pub(crate) fn push(reference: &str, before: &str, after: &str) -> Value {
    json!({
        "ref": reference, "before": before, "after": after, "commits": [{ "id": after, "message": "Fix" }],
        "head_commit": { "id": after, "message": "Fix" },
        "repository": { "id": 7, "full_name": "acme/hello", "default_branch": "main" },
        "sender": { "login": "ada", "avatar_url": "https://forge.example/ada.png" },
    })
}

pub(crate) fn pull(action: &str, number: u64, head: &str, repository: u64) -> Value {
    json!({
        "action": action, "number": number,
        "pull_request": {
            "number": number, "title": "Add x", "html_url": format!("https://forge.example/pull/{number}"),
            "user": { "login": "eve" },
            "head": { "ref": "topic", "sha": head, "repo": { "id": repository, "name": "theirs", "owner": { "login": "eve" } } },
            "base": { "ref": "main", "sha": head, "repo": { "id": 7 } },
        },
        "repository": { "id": 7, "full_name": "acme/hello" }, "sender": { "login": "eve" },
    })
}

#[test]
fn a_push_is_built_once_and_whoever_cannot_sign_builds_nothing() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let first = work.commit("first", "the first");
    let second = work.commit("second", "the second\n\nbody");
    server.register(&work.url());
    let hook = server.connect(json!({}));

    let body = push("refs/heads/main", &first, &second).to_string();
    let good = signed(&hook.secret, &body);
    let kind = ("Content-Type", "application/json");
    let event = ("X-GitHub-Event", "push");
    for (headers, status) in [
        (vec![kind, event], 401),
        (vec![kind, event, ("X-Hub-Signature-256", "sha256=")], 401),
        (vec![kind, ("X-Gitea-Event", "push"), event, ("X-Hub-Signature-256", &good)], 401),
        (vec![event, ("Content-Type", "text/plain"), ("X-Hub-Signature-256", &good)], 415),
        (
            vec![
                kind,
                event,
                ("X-Hub-Signature-256", &good),
                ("Content-Length", "26000000"),
                ("Expect", "100-continue"),
            ],
            413,
        ),
    ] {
        assert_eq!(send(&server, &hook.path, &headers, body.as_bytes()).status, status, "{headers:?}");
    }
    let nobody = "/api/v3/hooks/00000000-0000-4000-8000-000000000000";
    assert_eq!(
        send(&server, nobody, &[kind, event, ("X-Hub-Signature-256", &good)], body.as_bytes()).status,
        401
    );
    assert!(server.pipelines().is_empty());

    // A repository of another name is not this project's, though its delivery is signed.
    let mut other = push("refs/heads/main", &first, &second);
    other["repository"] = json!({ "id": 8, "full_name": "acme/other" });
    assert_eq!(hook.github("push", "o", &other).status, 401);
    assert_eq!(
        hook.github(
            "ping",
            "p",
            &json!({ "zen": "Calm.", "repository": { "id": 7, "full_name": "acme/hello" } })
        )
        .status,
        200
    );
    // Known by its id from now on.
    other["repository"] = json!({ "id": 8, "full_name": "acme/hello" });
    assert_eq!(hook.github("push", "o", &other).status, 401);

    let answer = hook.push("d1", "refs/heads/main", &first, &second);
    assert_eq!(
        (answer.status, answer.body["pipelines"].as_array().unwrap().len()),
        (202, 1),
        "{}",
        answer.body
    );
    let id = answer.body["pipelines"][0].as_str().unwrap().to_owned();
    let again = hook.push("d1", "refs/heads/main", &first, &second);
    assert!(again.status == 200 && again.body["pipelines"] == json!([]), "the same delivery");
    assert_eq!(hook.push("d2", "refs/heads/main", &first, &second).status, 200, "the same push, told twice");
    for (name, before, after) in [("refs/heads/old", &*first, NONE), ("refs/heads/main", &*second, &*second)]
    {
        assert_eq!(hook.push(name, name, before, after).status, 200);
    }
    server.worked_off();
    let pipelines = server.pipelines();
    assert_eq!(pipelines.len(), 1);
    let pipeline = &pipelines[0];
    assert_eq!((pipeline["id"].as_str().unwrap(), &pipeline["vcs"]["revision"]), (&*id, &json!(second)));
    assert_eq!(
        (
            &pipeline["trigger"]["type"],
            &pipeline["trigger"]["actor"]["login"],
            &pipeline["vcs"]["commit"]["body"]
        ),
        (&json!("webhook"), &json!("ada"), &json!("body"))
    );

    // Back by force, and forth again: the ref moved each time. Late news of what the branch holds builds nothing.
    assert_eq!(hook.push("d3", "refs/heads/main", &second, &first).status, 202);
    assert_eq!(server.worked_off()[0]["changes"][0]["state"], "started");
    let third = work.commit("third", "the third");
    assert_eq!(hook.push("d4", "refs/heads/main", &first, &third).status, 202);
    server.worked_off();
    assert_eq!(hook.push("d5", "refs/heads/main", NONE, &second).status, 202);
    let (state, why) = server.last();
    assert!(state == "skipped" && why.contains("came late"), "{state} {why}");
    let skipped = work.commit("fourth", "docs [skip ci]");
    assert_eq!(hook.push("d6", "refs/heads/main", &third, &skipped).status, 202);
    assert!(server.last().1.contains("[skip ci]"));
    assert_eq!(hook.push("d7", "refs/heads/gone", &first, &third).status, 202);
    assert!(server.last().1.contains("has no branch `gone`"));
    assert_eq!(server.pipelines().len(), 3);

    // A change that was skipped is tried again, and one that never starts anything is not.
    let replay = |word: &str| {
        let items = server.worked_off();
        let said =
            |item: &&Value| item["changes"][0]["message"].as_str().is_some_and(|why| why.contains(word));
        let id = &items.iter().find(said).unwrap_or_else(|| panic!("{items:?}"))["id"];
        server.answer("POST", &format!("{PROJECT}/deliveries/{id}/replay"), None)
    };
    let (status, answer) = replay("was deleted");
    assert!(
        status == 409 && answer["message"].as_str().unwrap().contains("`refs/heads/old` was deleted"),
        "{answer}"
    );
    work.git(&["branch", "gone", &third]);
    let (status, answer) = replay("has no branch `gone`");
    assert_eq!((status, &answer["changes"]), (200, &json!(1)), "{answer}");
    server.worked_off();
    assert_eq!(server.pipelines().len(), 4);

    // A new secret, and the one before it while the forge does not know it.
    let rotated = server.connect(json!({ "rotate_secret": true }));
    for secret in [&hook.secret, &rotated.secret] {
        let hook = Connected { server: &server, path: hook.path.clone(), secret: secret.clone() };
        assert_eq!(hook.github("star", secret, &json!({})).status, 200);
    }
    let refused = server.worked_off();
    let refused: Vec<_> = refused.iter().filter(|item| item["verdict"] == "refused").collect();
    assert!(!refused.is_empty() && refused.iter().all(|item| item["message"] != ""));
}

#[test]
fn pull_requests_are_remembered_and_forks_are_kept_apart() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let text = |script: &str| {
        json!({ "version": 2.1, "jobs": { "look": { "machine": true, "resource_class": "acme/linux",
            "steps": ["checkout", { "run": script }] } }, "workflows": { "w": { "jobs": ["look"] } } })
        .to_string()
    };
    let script = "echo pr ${CIRCLE_PULL_REQUEST-none} ${CIRCLE_PR_NUMBER-none} ${CIRCLE_PR_USERNAME-none} $CIRCLE_BRANCH ${SECRET-none} << pipeline.event.name >>";
    work.commit_config(&text(script), "main");
    work.git(&["switch", "--quiet", "-c", "topic"]);
    let own = work.commit_config(&text(script), "topic");
    let theirs = work.commit_config(&text(script), "theirs");
    work.git(&["update-ref", "refs/pull/12/head", &theirs]);
    let pushed = work.commit_config(&text(script), "theirs again");
    work.git(&["reset", "--quiet", "--hard", &own]);
    server.register(&work.url());
    server.call("POST", &format!("{PROJECT}/envvar"), Some(json!({ "name": "SECRET", "value": "hunter22" })));
    let hook = server.connect(json!({}));
    let _runner = server.runner("r", &server.class_token("acme/linux"));
    let said = |pipeline: &str| {
        let jobs = server.ended(pipeline);
        let id = jobs[0]["id"].as_str().unwrap().to_owned();
        let path = format!("/api/v3/jobs/{id}/stdout?filter%5Bexecution%5D=0&filter%5Bstep_num%5D=2");
        String::from_utf8_lossy(&server.text(&path)).trim().to_owned()
    };
    let started = |answer: &Answer| {
        assert_eq!(answer.status, 202, "{}", answer.body);
        server.worked_off();
        answer.body["pipelines"][0].as_str().unwrap().to_owned()
    };

    assert_eq!(
        hook.github("pull_request", "p1", &pull("opened", 3, &own, 7)).status,
        200,
        "its push is built"
    );
    let id = started(&hook.push("p2", "refs/heads/topic", NONE, &own));
    assert_eq!(said(&id), "pr https://forge.example/pull/3 none none topic **** push");

    assert_eq!(
        hook.github("pull_request", "f1", &pull("opened", 12, &theirs, 99)).status,
        200,
        "off by default"
    );
    let id = server.call("GET", PROJECT, None)["id"].as_str().unwrap().to_owned();
    let settings = format!("/api/v3/projects/{id}/update-settings");
    let (status, refused) =
        server.answer("POST", &settings, Some(json!({ "enable_building_fork_prs": "yes" })));
    assert!(status == 400 && refused["message"].as_str().unwrap().contains("true or false"), "{refused}");
    server.call("POST", &settings, Some(json!({ "enable_building_fork_prs": true })));
    let id = started(&hook.github("pull_request", "f2", &pull("synchronize", 12, &theirs, 99)));
    let jobs = server.ended(&id);
    assert_eq!(jobs[0]["status"], "unauthorized", "the class is not marked for strangers");
    server.takes_untrusted();
    assert_eq!(
        hook.github("pull_request", "f3", &pull("reopened", 12, &theirs, 99)).status,
        200,
        "built already"
    );
    work.git(&["update-ref", "refs/pull/12/head", &pushed]);
    let id = started(&hook.github("pull_request", "f4", &pull("synchronize", 12, &pushed, 99)));
    assert_eq!(said(&id), "pr https://forge.example/pull/12 12 eve pull/12 none pull_request");
}

#[test]
fn refs_are_looked_at_and_a_plain_server_tells_by_its_hook() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.commit("one", "one");
    work.git(&["switch", "--quiet", "-c", "quiet"]);
    work.git(&["switch", "--quiet", "main"]);
    server.register(&work.url());
    let look = || server.connect(json!({ "forge": "git", "poll_seconds": 604_800 }));
    let hook = look();
    let listed = |wanted: &dyn Fn(&[Value]) -> bool, what: &str| {
        poll(what, || {
            let items = server.worked_off();
            if wanted(&items) { Ok(items) } else { Err(format!("{items:?}")) }
        })
    };
    // The first look finds what is there and no news. Another look is asked for until it was made.
    let changed = work.commit("two", "two");
    work.git(&["tag", "-a", "v1", "-m", "v1"]);
    work.git(&["branch", "-D", "quiet"]);
    let is_seen = |items: &[Value]| items.first().is_some_and(|item| item["source"] == "poll");
    poll("the look", || {
        look();
        let items = server.worked_off();
        if is_seen(&items) {
            Ok(())
        } else {
            work.git(&["commit", "--allow-empty", "-q", "-m", "more"]);
            Err(format!("{items:?}"))
        }
    });
    let items = listed(&is_seen, "the look");
    assert!(items.iter().all(|item| item["verdict"] == "accepted"));
    let built = server.pipelines();
    assert!(!built.is_empty());
    for pipeline in &built {
        assert!(pipeline["trigger"]["type"] == "webhook" && pipeline["vcs"]["revision"].is_string());
    }
    let _ = changed;

    // The hook, as it is printed.
    let bare = server.folder.path().join("bare.git");
    work.git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    server.register(&format!("file://{}", bare.display()));
    let mut admin = runlet();
    admin.args(["admin", "project", "hook", "gh/acme/hello", "--server", server.client.url()]);
    admin.env("RUNLET_TOKEN", server.token.expose()).stderr(Stdio::inherit());
    let script = admin.output().unwrap();
    assert!(script.status.success());
    std::fs::write(bare.join("hooks/post-receive"), script.stdout).unwrap();
    std::fs::set_permissions(bare.join("hooks/post-receive"), std::fs::Permissions::from_mode(0o755))
        .unwrap();
    std::fs::write(bare.join("hooks/runlet.secret"), format!("{}\n", hook.secret)).unwrap();
    let before = server.pipelines().len();
    let odd = "a;$(x)-\"q";
    let pushed = work.commit("three", "three");
    // Both bring it.
    work.git(&["branch", odd]);
    work.git(&["push", "--quiet", bare.to_str().unwrap(), "main", odd]);
    let items = server.worked_off();
    assert_eq!(
        (&items[0]["source"], items[0]["changes"].as_array().unwrap().len()),
        (&json!("webhook"), 2),
        "{items:?}"
    );
    let built = server.pipelines();
    assert_eq!(built.len(), before + 2);
    assert!(built.iter().any(|pipeline| pipeline["vcs"]["branch"] == odd));
    assert!(built.iter().any(|pipeline| pipeline["vcs"]["revision"] == json!(pushed)));
}

#[test]
fn what_was_answered_is_built_though_the_server_is_killed() {
    let mut server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.commit("one", "one");
    server.register(&work.url());
    let hook = server.connect(json!({}));
    let (path, secret) = (hook.path.clone(), hook.secret.clone());
    let listen = server.client.url().trim_start_matches("http://").to_owned();
    let mut before = NONE.to_owned();
    let mut commits = Vec::new();
    for round in 0..6 {
        let commit = work.commit(&format!("r{round}"), "next");
        work.git(&["branch", &format!("b{round}")]);
        {
            let hook = Connected { server: &server, path: path.clone(), secret: secret.clone() };
            for (name, before) in
                [("refs/heads/main".to_owned(), &*before), (format!("refs/heads/b{round}"), NONE)]
            {
                let answer = hook.push(&format!("{round} {name}"), &name, before, &commit);
                assert_eq!(answer.status, 202, "{}", answer.body);
            }
        }
        before = commit.clone();
        commits.push(commit);
        if round % 2 == 0 {
            server.child.kill().unwrap();
            server.child.wait().unwrap();
            server.start_again(&listen);
        }
    }
    server.worked_off();
    let mut built: Vec<(String, String)> = server
        .pipelines()
        .iter()
        .map(|pipeline| {
            let text = |key: &str| pipeline["vcs"][key].as_str().unwrap_or_default().to_owned();
            (text("branch"), text("revision"))
        })
        .collect();
    built.sort();
    let mut expected: Vec<(String, String)> = Vec::new();
    for (round, commit) in commits.iter().enumerate() {
        expected.push(("main".to_owned(), commit.clone()));
        expected.push((format!("b{round}"), commit.clone()));
    }
    expected.sort();
    assert_eq!(built, expected, "each push has one pipeline");
}
