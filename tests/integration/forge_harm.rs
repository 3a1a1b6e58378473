//! Events that must harm nothing else: a change that is damaged in the database, floods of deliveries that nobody signed, a token
//! that is set while the one before it is refused, schedules of a control plane that is killed.

use crate::forge::{JSON, NONE, signed};
use crate::forge_back::Fake;
use crate::repositories::Work;
use crate::server::Server;
use crate::support::{DEADLINE, poll};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

const PROJECT: &str = "/api/v2/project/gh/acme/hello";

impl Server {
    fn list_of(&self, what: &str) -> Vec<Value> {
        self.call("GET", &format!("{PROJECT}/{what}"), None)["items"].as_array().unwrap().clone()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_change_that_is_damaged_ends_alone_and_comes_again_when_it_is_sent_again() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let commit = work.commit("build", "first");
    for name in ["a", "b", "c"] {
        work.git(&["branch", name]);
    }
    server.register(&work.url());
    let (hook, before) = (server.connect(json!({})), "2".repeat(40));
    // Fetches fail for now: all of the pushes wait.
    let (here, away) = (server.folder.path().join("repositories"), server.folder.path().join("away"));
    std::fs::rename(&here, &away).unwrap();
    for name in ["a", "b", "c"] {
        assert_eq!(hook.push(name, &format!("refs/heads/{name}"), &before, &commit).status, 202);
    }
    poll("all of them to wait", || {
        let sql = "SELECT count(*) FROM forge_events WHERE state = 'waiting' AND attempts > 0";
        let waiting: u32 = server.database().query_row(sql, [], |row| row.get(0)).unwrap();
        if waiting == 3 { Ok(()) } else { Err(waiting.to_string()) }
    });
    std::fs::rename(&away, &here).unwrap();
    let damage = "UPDATE forge_events SET event = '{\"kind\":' WHERE key LIKE 'refs/heads/b %';
        UPDATE forge_events SET not_before_ms = 0";
    server.database().execute_batch(damage).unwrap();
    // The next change wakes those that wait.
    assert_eq!(hook.push("d", "refs/heads/main", NONE, &commit).status, 202);
    let items = server.worked_off();
    let of = |id: &str| {
        let item = items.iter().find(|item| item["delivery"] == id).unwrap_or_else(|| panic!("{items:?}"));
        item["changes"][0].clone()
    };
    for (id, state) in [("a", "started"), ("b", "failed"), ("c", "started"), ("d", "started")] {
        assert_eq!(of(id)["state"], state, "{id}: {items:?}");
    }
    assert!(of("b")["message"].as_str().unwrap().contains("damaged"), "{items:?}");
    assert_eq!(server.pipelines().len(), 3);
    // A forge sends the delivery again when somebody asks for it; and those that were built stay built.
    assert_eq!(hook.push("b", "refs/heads/b", &before, &commit).status, 202);
    assert_eq!(hook.push("a", "refs/heads/a", &before, &commit).status, 200);
    let again = server.worked_off();
    assert!(again[0]["delivery"] == "b" && again[0]["changes"][0]["state"] == "started", "{again:?}");
    assert_eq!(again.iter().filter(|item| item["delivery"] == "b").count(), 1);
    assert_eq!(server.pipelines().len(), 4);
}

#[test]
fn strangers_push_nothing_out_of_the_list() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let commit = work.commit("build", "first");
    server.register(&work.url());
    let hook = server.connect(json!({}));
    let event = ("X-GitHub-Event", "push");
    assert_eq!(hook.push("mine", "refs/heads/main", NONE, &commit).status, 202);
    // Signed, and not understood.
    let good = signed(&hook.secret, "{}");
    let signature = ("X-Hub-Signature-256", &*good);
    assert_eq!(hook.send(&[JSON, event, ("X-GitHub-Delivery", "odd"), signature], b"{}").status, 400);
    server.worked_off();
    let id = server.call("GET", PROJECT, None)["id"].as_str().unwrap().to_owned();
    assert_eq!(hook.send(&[JSON, event, ("X-Hub-Signature-256", "sha256=00")], b"{}").status, 401);
    poll("a stranger to be listed", || {
        let listed = server.list_of("deliveries");
        if listed.iter().any(|item| item["is_believed"] == false) {
            Ok(())
        } else {
            Err(format!("{listed:?}"))
        }
    });
    // More than a minute of them, of which one a second is written down.
    let sql = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 70)
         INSERT INTO forge_deliveries (project_id, delivery, source, event, received_at_ms, verdict, is_strange, sentence)
         SELECT '{id}', 'x' || i, 'webhook', 'push', 1, 'refused', 1, 'noise' FROM n"
    );
    server.database().execute_batch(&sql).unwrap();
    let has = |name: &str| server.list_of("deliveries").iter().any(|item| item["delivery"] == name);
    assert!(has("mine") && has("odd"), "{:?}", server.list_of("deliveries"));
    let strangers =
        || server.list_of("deliveries").iter().filter(|item| item["is_believed"] == false).count();
    assert_eq!(strangers(), 10);
    // The next one that is written down takes away what is too much, and only of strangers.
    let rows = |which: &str| -> u32 {
        let sql = format!("SELECT count(*) FROM forge_deliveries WHERE {which}");
        server.database().query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    poll("no more than ten of them to be kept", || {
        assert_eq!(hook.send(&[JSON, event], b"{}").status, 401);
        let count = rows("is_strange = 1");
        if count == 10 { Ok(()) } else { Err(count.to_string()) }
    });
    assert_eq!(rows("is_strange = 0"), 2);
    assert!(has("mine") && has("odd"));
    // Many that were signed are not pushed out by strangers either, nor the other way round.
    for n in 0..55 {
        let id = format!("odd{n}");
        assert_eq!(hook.send(&[JSON, event, ("X-GitHub-Delivery", &id), signature], b"{}").status, 400);
    }
    assert_eq!((rows("is_strange = 0 AND verdict = 'refused'"), strangers()), (50, 10));
    assert_eq!(rows("verdict = 'accepted'"), 1);
}

#[test]
fn a_token_that_is_set_while_the_one_before_it_is_refused_counts() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.commit_config("version: 2.1\nworkflows: {w: {jobs: [hold: {type: approval}]}}\n", "main");
    server.register(&work.url());
    let (asked, is_asked) = channel();
    let (go, may_go) = channel::<()>();
    let may_go = Mutex::new(may_go);
    let fake = Fake::start(move |call| {
        if call.method == "GET" {
            return (200, "", json!({ "default_branch": "main" }).to_string());
        }
        if call.headers["authorization"] == "Bearer old" {
            let _ = asked.send(());
            let _ = may_go.lock().unwrap().recv();
            return (401, "", json!({ "message": "Bad credentials" }).to_string());
        }
        (201, "", "{}".to_owned())
    });
    let old = json!({ "api_url": fake.url(), "token": "old", "repository_name": "acme/hello" });
    server.connect(old);
    let sealed = || -> Vec<u8> {
        let sql = "SELECT sealed FROM forge_secrets WHERE name = 'token'";
        server.database().query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let before = sealed();
    server.call("POST", &format!("{PROJECT}/pipeline"), Some(json!({ "branch": "main" })));
    is_asked.recv_timeout(DEADLINE).unwrap();
    std::thread::scope(|scope| {
        // A new token is tried at the forge before the answer, and the forge is busy with the old one.
        let setting = scope.spawn(|| server.connect(json!({ "token": "new" })).secret);
        poll("the new token to be kept", || if sealed() == before { Err(String::new()) } else { Ok(()) });
        go.send(()).unwrap();
        drop(go);
        setting.join().unwrap();
    });
    poll("the status to be told by the new token", || {
        let shown = server.call("GET", &format!("{PROJECT}/connection"), None);
        let listed = server.list_of("statuses");
        let is_told = listed.len() == 1 && listed[0]["told"] == "pending" && listed[0]["is_due"] == false;
        if is_told && shown["token_message"].is_null() { Ok(()) } else { Err(format!("{shown} {listed:?}")) }
    });
}

#[test]
fn schedules_run_each_time_once_over_kills() {
    let mut server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let config = json!({ "version": 2.1, "workflows": {
        "nightly": { "triggers": [{ "schedule": { "cron": "* * * * *", "filters": { "branches": { "only": "main" } } } }],
            "jobs": [{ "hold": { "type": "approval" } }] },
        "usual": { "jobs": [{ "hold": { "type": "approval" } }] } } });
    let commit = work.commit_config(&config.to_string(), "main");
    server.register(&work.url());
    let hook = server.connect(json!({}));
    // The schedules of a config are those of its last pipeline.
    assert_eq!(hook.push("p", "refs/heads/main", NONE, &commit).status, 202);
    server.worked_off();
    let hours: Vec<u32> = (0..24).collect();
    let days = ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"];
    let body = json!({ "name": "often", "attribution-actor": "system", "parameters": { "branch": "main" },
        "timetable": { "per-hour": 60, "hours-of-day": hours, "days-of-week": days } });
    assert_eq!(server.answer("POST", &format!("{PROJECT}/schedule"), Some(body)).0, 201);
    let of_schedules = |server: &Server| -> Vec<(String, String)> {
        let sql = "SELECT key || ' ' || d.sentence, e.state FROM forge_events e JOIN forge_deliveries d ON d.seq = e.delivery_seq
            WHERE d.source = 'schedule' ORDER BY e.seq";
        let database = server.database();
        let mut query = database.prepare(sql).unwrap();
        query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    let listen = server.client.url().trim_start_matches("http://").to_owned();
    let mut counted = 0;
    for round in 0..4 {
        server.kill();
        counted = of_schedules(&server).len();
        // Three minutes that are not waited for.
        let aged = "UPDATE schedules SET last_ms = last_ms - 180000; UPDATE branch_schedules SET last_ms = last_ms - 180000;";
        server.database().execute_batch(aged).unwrap();
        server.start_again(&listen);
        // Killed again before they start, while they do, or after it.
        std::thread::sleep(Duration::from_millis(round * 60));
        server.kill();
        server.start_again(&listen);
        poll("both to run", || {
            let all = of_schedules(&server);
            let kinds: HashSet<bool> =
                all[counted..].iter().map(|(what, _)| what.contains("`often`")).collect();
            if kinds.len() == 2 { Ok(()) } else { Err(format!("{all:?}")) }
        });
        server.worked_off();
        let all = of_schedules(&server);
        let distinct: HashSet<&String> = all[counted..].iter().map(|(what, _)| what).collect();
        assert_eq!(distinct.len(), all.len() - counted, "each time once: {all:?}");
    }
    assert!(counted > 0);
    server.worked_off();
    // No pipeline is made between the two counts: the clock goes on.
    server.kill();
    let all = of_schedules(&server);
    assert!(
        all.iter().filter(|(_, state)| state != "waiting").all(|(_, state)| state == "started"),
        "{all:?}"
    );
    let sql = "SELECT count(*) FROM pipelines WHERE trigger_type = 'scheduled_pipeline'";
    let made: usize = server.database().query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(
        made,
        all.iter().filter(|(_, state)| state == "started").count(),
        "one pipeline for each time"
    );
}

#[test]
fn a_schedule_that_is_damaged_is_named_and_hides_no_other() {
    let server = Server::start();
    server.project();
    let schedules = format!("{PROJECT}/schedule");
    let made = |name: &str| {
        let body = json!({ "name": name, "attribution-actor": "system", "parameters": { "branch": "main" },
            "timetable": { "per-hour": 1, "hours-of-day": [8], "days-of-week": ["MON"] } });
        let (status, made) = server.answer("POST", &schedules, Some(body));
        assert_eq!(status, 201, "{made}");
        made["id"].as_str().unwrap().to_owned()
    };
    let (first, table, time) = (made("first"), made("table"), made("time"));
    let damage = format!(
        "UPDATE schedules SET timetable = '{{' WHERE id = '{table}'; UPDATE schedules SET last_ms = -1 WHERE id = '{time}'"
    );
    server.database().execute_batch(&damage).unwrap();
    let listed = server.call("GET", &schedules, None);
    let ids: Vec<_> = listed["items"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect();
    assert_eq!(ids, [json!(first)], "{listed}");
    let damaged = listed["damaged"].as_array().unwrap();
    let names: Vec<_> = damaged.iter().map(|one| (&one["id"], &one["name"])).collect();
    assert_eq!(names, [(&json!(table), &json!("table")), (&json!(time), &json!("time"))], "{listed}");
    assert!(damaged[0]["message"].as_str().unwrap().contains("delete it and make it anew"), "{listed}");
    let path = |id: &str| format!("/api/v2/schedule/{id}");
    for (method, body) in [("GET", None), ("PATCH", Some(json!({ "name": "n" })))] {
        let (status, answer) = server.answer(method, &path(&table), body);
        assert!(status == 409 && answer["message"].as_str().unwrap().contains(&table), "{status} {answer}");
    }
    assert_eq!(server.call("GET", &path(&first), None)["name"], "first");
    // Others are made, those that are damaged are counted and deleted.
    let another = made("another");
    for id in [&table, &time, &another] {
        assert_eq!(server.call("DELETE", &path(id), None)["message"], "Schedule deleted.");
    }
    let listed = server.call("GET", &schedules, None);
    assert_eq!((listed["items"].as_array().unwrap().len(), &listed["damaged"]), (1, &json!([])), "{listed}");
}
