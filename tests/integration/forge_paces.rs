//! What a forge asks of whoever calls it: one write after another, pauses that hold all that goes by one token, a
//! repository that has moved.

use crate::forge_back::{Answer, Fake};
use crate::repositories::Work;
use crate::server::Server;
use crate::support::poll;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

const PROJECT: &str = "/api/v2/project/gh/acme/hello";
const OTHER: &str = "/api/v2/project/gh/acme/other";

impl Server {
    /// Makes two projects of one repository, whose pipelines wait for an approval.
    fn two_projects(&self) -> Work {
        self.project();
        self.call("POST", "/api/v2/organization/gh/acme/project", Some(json!({ "name": "other" })));
        let work = Work::new(self.folder.path());
        work.commit_config("version: 2.1\nworkflows: {w: {jobs: [hold: {type: approval}]}}\n", "main");
        for project in [PROJECT, OTHER] {
            self.call("PATCH", project, Some(json!({ "repository_url": work.url() })));
        }
        work
    }

    /// Connects a project; the answer.
    fn connected(&self, project: &str, wanted: Value) -> Value {
        self.call("PUT", &format!("{project}/connection"), Some(wanted))
    }

    fn builds_main(&self, project: &str) {
        self.call("POST", &format!("{project}/pipeline"), Some(json!({ "branch": "main" })));
    }

    /// Waits until the newest status of a project is as it should be.
    fn status(&self, project: &str, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        poll(what, || {
            let listed = self.call("GET", &format!("{project}/statuses"), None);
            let status = listed["items"][0].clone();
            if is_it(&status) { Ok(status) } else { Err(listed.to_string()) }
        })
    }

    fn is_told(&self, project: &str) {
        self.status(project, "the status to be told", |status| {
            status["is_due"] == json!(false) && status["told"].is_string()
        });
    }

    fn waits(&self, project: &str, why: &str) {
        self.status(project, "the status to wait", |status| {
            status["is_due"] == json!(true)
                && status["message"].as_str().is_some_and(|message| message.contains(why))
        });
    }
}

/// A forge's words about a repository.
fn about() -> Answer {
    (200, "", json!({ "id": 7, "default_branch": "main" }).to_string())
}

/// The header of a limit that is spent, and is reset in so many seconds.
fn spent(seconds: u64) -> &'static str {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    format!("X-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: {}\r\n", now + seconds).leak()
}

#[test]
fn what_a_forge_asks_for_holds_every_call_of_a_token_and_none_of_another() {
    let server = Server::start();
    server.two_projects();
    let fake = Fake::start(|call| match &*call.method {
        "GET" => about(),
        // The call was taken, and it was the last one.
        _ if call.headers["authorization"] == "Bearer shared" => (201, spent(1800), "{}".to_owned()),
        _ => (201, "", "{}".to_owned()),
    });
    for project in [PROJECT, OTHER] {
        server.connected(project, json!({ "api_url": fake.url(), "token": "shared" }));
    }
    server.builds_main(PROJECT);
    server.is_told(PROJECT);
    let before = fake.calls().len();
    // Another commit, another project, another question: the token is what is held.
    server.builds_main(OTHER);
    server.waits(OTHER, "asked for a pause of this token");
    let answer = server.connected(PROJECT, json!({}));
    let why = answer["found"]["forge_message"].as_str().unwrap_or_default();
    assert!(why.contains("asked for a pause of this token"), "{answer}");
    assert_eq!(fake.calls().len(), before, "{:?}", fake.calls());
    server.connected(OTHER, json!({ "token": "another" }));
    server.is_told(OTHER);
}

#[test]
fn a_pause_beyond_all_reason_is_one_and_a_start_learns_of_it_anew() {
    let mut server = Server::start();
    let work = server.two_projects();
    let posts = Arc::new(AtomicUsize::new(0));
    let kept = Arc::clone(&posts);
    let fake = Fake::start(move |call| match &*call.method {
        "GET" => about(),
        _ => {
            kept.fetch_add(1, Ordering::SeqCst);
            (403, "Retry-After: 99999999999999999999999\r\n", "{}".to_owned())
        }
    });
    let connect = |server: &Server, project: &str| {
        server.connected(project, json!({ "api_url": fake.url(), "token": "shared" }));
    };
    connect(&server, PROJECT);
    server.builds_main(PROJECT);
    server.waits(PROJECT, "answered 403");
    let shown = server.call("GET", &format!("{PROJECT}/connection"), None);
    assert!(shown["token_message"].is_null(), "a limit says nothing against the token: {shown}");
    // More commits are no more calls.
    for number in 0..4 {
        work.commit_config(
            &format!("version: 2.1\n# {number}\nworkflows: {{w: {{jobs: [hold: {{type: approval}}]}}}}\n"),
            "next",
        );
        server.builds_main(PROJECT);
    }
    poll("all of them to wait", || {
        let listed = server.call("GET", &format!("{PROJECT}/statuses"), None);
        let waiting = listed["items"].as_array().unwrap().iter().filter(|item| item["message"].is_string());
        if waiting.count() == 5 { Ok(()) } else { Err(listed.to_string()) }
    });
    assert_eq!(posts.load(Ordering::SeqCst), 1);
    let address = server.client.url().trim_start_matches("http://").to_owned();
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    server.start_again(&address);
    work.commit_config("version: 2.1\nworkflows: {w: {jobs: [held: {type: approval}]}}\n", "last");
    server.builds_main(PROJECT);
    server.waits(PROJECT, "answered 403");
    assert_eq!(posts.load(Ordering::SeqCst), 2, "one call, by which it is known again");
}

#[test]
fn writes_by_one_token_are_one_after_another() {
    let server = Server::start();
    server.two_projects();
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let fake = Fake::start(move |call| {
        if call.method == "GET" {
            return about();
        }
        seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(1500));
        now.fetch_sub(1, Ordering::SeqCst);
        (201, "", "{}".to_owned())
    });
    for project in [PROJECT, OTHER] {
        let wanted =
            json!({ "forge": "gitea", "api_url": fake.url(), "repository_name": "acme/hello", "token": "t" });
        server.connected(project, wanted);
    }
    server.builds_main(PROJECT);
    server.builds_main(OTHER);
    server.is_told(PROJECT);
    server.is_told(OTHER);
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

#[test]
fn a_repository_that_has_moved_is_told_where_it_is() {
    let server = Server::start();
    let work = server.two_projects();
    let elsewhere = Fake::start(|_| (201, "", "{}".to_owned()));
    // The old name leads on as GitHub's does, by its id; to another host where the test wants that.
    let (kept, away) = (Arc::new(Mutex::new(307)), elsewhere.url());
    let (status, is_same_host) = (Arc::clone(&kept), Arc::new(AtomicBool::new(true)));
    let stays = Arc::clone(&is_same_host);
    let fake = Fake::start(move |call| {
        if call.method == "GET" {
            return about();
        }
        if !call.path.starts_with("/repos/acme/hello/") {
            return (201, "", "{}".to_owned());
        }
        let sha = call.path.rsplit('/').next().unwrap();
        let host = match stays.load(Ordering::SeqCst) {
            true => format!("http://{}", call.headers["host"]),
            false => away.clone(),
        };
        let header = format!("Location: {host}/repositories/7/statuses/{sha}\r\n").leak();
        (*status.lock().unwrap(), header, json!({ "message": "Moved" }).to_string())
    });
    let hook =
        server.connect(json!({ "api_url": fake.url(), "token": "t", "repository_name": "acme/hello" }));
    let first = hook.push("d1", "refs/heads/main", &"a".repeat(40), &work.git(&["rev-parse", "HEAD"]));
    assert_eq!(first.status, 202, "{}", first.body);
    server.is_told(PROJECT);
    let last = || fake.calls().last().unwrap().clone();
    assert!(last().path.starts_with("/repositories/7/statuses/") && last().body.contains("pending"));

    // Moved for good by the word for reading, or to another host: nothing is shown there, and it is said what to do.
    let trigger_next = |name: &str| {
        work.commit_config(
            &format!("version: 2.1\nworkflows: {{w: {{jobs: [{name}: {{type: approval}}]}}}}\n"),
            name,
        );
        server.builds_main(PROJECT);
    };
    *kept.lock().unwrap() = 301;
    trigger_next("second");
    server.waits(PROJECT, "--repository-name");
    is_same_host.store(false, Ordering::SeqCst);
    *kept.lock().unwrap() = 308;
    trigger_next("third");
    server.waits(PROJECT, "--repository-name");
    assert!(elsewhere.calls().is_empty(), "{:?}", elsewhere.calls());

    // A delivery of the same repository by its new name is believed, and tells the name.
    let mut renamed =
        crate::forge::push("refs/heads/main", &"b".repeat(40), &work.git(&["rev-parse", "HEAD"]));
    renamed["repository"]["full_name"] = json!("acme/renamed");
    let answer = hook.github("push", "d2", &renamed);
    assert!(answer.status / 100 == 2, "{}", answer.body);
    server.is_told(PROJECT);
    assert!(last().path.starts_with("/repos/acme/renamed/statuses/"), "{}", last().path);
    let shown = server.call("GET", &format!("{PROJECT}/connection"), None);
    assert_eq!((&shown["repository_name"], &shown["repository_id"]), (&json!("acme/renamed"), &json!("7")));
}
