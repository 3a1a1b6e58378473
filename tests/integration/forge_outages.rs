//! Forges that answer nothing but 500 for an hour, with a clock that the test turns; and looks at refs by conditional
//! requests, after which git is left alone.

use crate::forge::NONE;
use crate::forge_back::{Answer, Call, Fake};
use crate::private::HttpGit;
use crate::repositories::Work;
use crate::server::Server;
use crate::support::poll;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const PROJECT: &str = "/api/v2/project/gh/acme/hello";
const OTHER: &str = "/api/v2/project/gh/acme/other";

impl Server {
    fn listed(&self, project: &str, what: &str) -> Vec<Value> {
        self.call("GET", &format!("{project}/{what}"), None)["items"].as_array().unwrap().clone()
    }

    /// Lets the time come of everything that waits for it.
    fn turn_clock(&self) {
        let sql = "UPDATE forge_events SET not_before_ms = 0 WHERE state = 'waiting';
            UPDATE forge_reports SET not_before_ms = 0 WHERE is_due = 1;";
        self.database().execute_batch(sql).unwrap();
    }
}

#[test]
fn a_forge_that_is_down_for_an_hour_is_waited_for_and_nothing_else_waits() {
    let server = Server::start();
    server.project();
    server.call("POST", "/api/v2/organization/gh/acme/project", Some(json!({ "name": "other" })));
    let work = Work::new(server.folder.path());
    let first = work.commit("build", "first");
    let root = server.folder.path().join("bare");
    work.git(&["clone", "--quiet", "--bare", ".", root.join("app.git").to_str().unwrap()]);
    let git = HttpGit::start(&root, "");
    server.register(&git.url("app.git"));
    let folder = tempfile::tempdir().unwrap();
    let well = Work::new(folder.path());
    let mut before = well.commit("build", "first");
    server.call("PATCH", OTHER, Some(json!({ "repository_url": well.url() })));

    let is_down = Arc::new(AtomicBool::new(true));
    git.is_down.store(true, Ordering::Relaxed);
    let (down, taken) = (Arc::clone(&is_down), Arc::<Mutex<Vec<Value>>>::default());
    let kept = Arc::clone(&taken);
    let forge = Fake::start(move |call| {
        if down.load(Ordering::Relaxed) {
            return (500, "", "<html>Unicorn!</html>".to_owned());
        }
        kept.lock().unwrap().push(call.json()["state"].clone());
        (201, "", "{}".to_owned())
    });
    let elsewhere = Fake::start(|_| (201, "", "{}".to_owned()));
    let hook = server.connect(json!({ "api_url": forge.url(), "token": "t" }));
    let wanted = json!({ "api_url": elsewhere.url(), "token": "t", "repository_name": "acme/hello" });
    let other = server.connect_project(OTHER, wanted);
    let _runner = server.runner("r", &server.class_token("acme/linux"));

    // The other project goes on, its forge is told; what it has to do wakes whatever is due.
    let mut round = 0;
    let mut goes_on = || {
        round += 1;
        let commit = well.commit(&format!("round-{round}"), "next");
        let answer = other.push(&format!("o{round}"), "refs/heads/main", &before, &commit);
        assert_eq!(answer.status, 202, "{}", answer.body);
        before = commit.clone();
        poll("the other project to go on", || {
            let listed = server.listed(OTHER, "statuses");
            let is_told =
                |status: &&Value| status["revision"] == json!(commit) && status["told"] == "success";
            if listed.iter().any(|status| is_told(&status)) { Ok(()) } else { Err(format!("{listed:?}")) }
        });
    };
    let change = || server.listed(PROJECT, "deliveries")[0]["changes"][0].clone();
    let answer = hook.push("d1", "refs/heads/main", NONE, &first);
    assert_eq!(answer.status, 202, "it is answered, whatever becomes of it");
    // Waits of 2, 5, 15, 30, 60, 120, 300, 600, 900 and 900 seconds: most of an hour.
    for tries in 1..=10 {
        poll("the next try", || {
            let change = change();
            if change["attempts"] == tries { Ok(()) } else { Err(change.to_string()) }
        });
        let change = change();
        let why = change["message"].as_str().unwrap();
        assert!(
            change["state"] == "waiting" && why.contains("500") && why.contains("failed to fetch"),
            "{change}"
        );
        server.turn_clock();
        goes_on();
    }
    assert!(server.pipelines().is_empty());
    git.is_down.store(false, Ordering::Relaxed);
    server.turn_clock();
    goes_on();
    poll("the push to be built", || {
        let change = change();
        if change["state"] == "started" { Ok(()) } else { Err(change.to_string()) }
    });
    assert_eq!(server.pipelines().len(), 1);

    // Statuses are still refused, each with a sentence; only the end is told when they are taken.
    let status = |context: &str| {
        server.listed(PROJECT, "statuses").into_iter().find(|status| status["context"] == context)
    };
    let mut until = |what: &str, context: &str, is_so: &dyn Fn(&Value) -> bool| {
        poll(what, || {
            server.turn_clock();
            goes_on();
            let status = status(context).unwrap_or_default();
            if is_so(&status) { Ok(()) } else { Err(status.to_string()) }
        });
    };
    until("the status to be refused again and again", "ci/circleci: build", &|status| {
        let why = status["message"].as_str().unwrap_or_default();
        why.contains("answered 500: <html>Unicorn!")
            && status["attempts"].as_u64() > Some(2)
            && status["state"] == "success"
    });
    is_down.store(false, Ordering::Relaxed);
    until("the end to be told", "ci/circleci: build", &|status| {
        status["told"] == "success" && status["is_due"] == false
    });
    assert_eq!(*taken.lock().unwrap(), [json!("success")], "what was overtaken is not told");

    // A day is enough.
    is_down.store(true, Ordering::Relaxed);
    work.commit("late", "late");
    work.git(&["push", "--quiet", root.join("app.git").to_str().unwrap(), "main"]);
    server.call("POST", &format!("{PROJECT}/pipeline"), Some(json!({ "branch": "main" })));
    until("the status to be given up", "ci/circleci: late", &|status| {
        let day = "UPDATE forge_reports SET since_ms = since_ms - 90000000 WHERE is_due = 1";
        server.database().execute_batch(day).unwrap();
        status["is_due"] == false && status["message"].as_str().is_some_and(|why| why.contains("500"))
    });
}

/// GitHub's lists of refs, by their marks. The one of branches changes with `moves`.
fn refs(call: &Call, moves: &AtomicUsize, conditional: &Mutex<Vec<u16>>) -> Answer {
    if call.headers.get("authorization").map(String::as_str) != Some("Bearer ghp_token") {
        return (401, "", json!({ "message": "Bad credentials" }).to_string());
    }
    let (header, mark) = match (&*call.path, moves.load(Ordering::Relaxed)) {
        ("/repos/acme/hello/git/matching-refs/heads/", 0) => ("ETag: W/\"h0\"\r\n", "W/\"h0\""),
        ("/repos/acme/hello/git/matching-refs/heads/", _) => ("ETag: W/\"h1\"\r\n", "W/\"h1\""),
        ("/repos/acme/hello/git/matching-refs/tags/", _) => ("ETag: W/\"t0\"\r\n", "W/\"t0\""),
        _ => return (404, "", json!({ "message": "Not Found" }).to_string()),
    };
    let is_same = call.headers.get("if-none-match").map(String::as_str) == Some(mark);
    let status = if is_same { 304 } else { 200 };
    conditional.lock().unwrap().push(status);
    (status, header, if is_same { String::new() } else { "[]".to_owned() })
}

#[test]
fn refs_that_have_not_changed_are_asked_for_in_a_way_that_costs_nothing() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.commit("one", "one");
    server.register(&work.url());
    let (moves, answers) = (Arc::new(AtomicUsize::new(0)), Arc::<Mutex<Vec<u16>>>::default());
    let (moved, answered) = (Arc::clone(&moves), Arc::clone(&answers));
    let fake = Fake::start(move |call| refs(call, &moved, &answered));
    // A look is over when the next one is due in days.
    let look = || -> (Vec<u16>, Option<String>) {
        answers.lock().unwrap().clear();
        server.connect(json!({ "api_url": fake.url(), "token": "ghp_token", "poll_seconds": 604_800 }));
        let message = poll("the look", || {
            let sql =
                "SELECT next_poll_ms > (unixepoch() + 86400) * 1000, poll_message FROM forge_connections";
            let row = server.database().query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
            let (is_over, message): (bool, Option<String>) = row.unwrap();
            if is_over { Ok(message) } else { Err(format!("{message:?}")) }
        });
        (answers.lock().unwrap().clone(), message)
    };
    assert_eq!(look(), (vec![], None), "git notes what is there");
    assert_eq!(look(), (vec![200, 200], None));
    // Git would find nothing here: it is not asked.
    let (here, away) = (server.folder.path().join("repositories"), server.folder.path().join("away"));
    std::fs::rename(&here, &away).unwrap();
    assert_eq!(look(), (vec![304, 304], None));
    assert_eq!(look(), (vec![304, 304], None));
    moves.store(1, Ordering::Relaxed);
    let (answers, message) = look();
    assert!(
        answers == [200, 304] && message.is_some_and(|why| why.contains("failed to list")),
        "{answers:?}"
    );
    // Refs whose listing failed are not taken for seen.
    std::fs::rename(&away, &here).unwrap();
    let commit = work.commit("two", "two");
    assert_eq!(look(), (vec![200, 200], None));
    let items = server.worked_off();
    assert!(items[0]["source"] == "poll" && items[0]["changes"][0]["state"] == "started", "{items:?}");
    assert_eq!(server.pipelines()[0]["vcs"]["revision"], json!(commit));
}
