//! From a result back to a forge, and to whom people want told: over HTTP, to fakes that refuse what the real ones refuse.

use crate::forge::{NONE, hex, send_to, signed};
use crate::repositories::Work;
use crate::server::Server;
use crate::support::poll;
use ring::hmac;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const PROJECT: &str = "/api/v2/project/gh/acme/hello";

/// A call that a fake was sent.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Call {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Answer of a fake: a status, headers, a body.
pub(crate) type Answer = (u16, &'static str, String);

/// A service that takes calls and writes them down. It lives as long as the test's process.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Fake {
    pub(crate) fn start(answer: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, calls) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Call>>>::default());
        let (kept, answer) = (Arc::clone(&calls), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let Some(call) = read(&stream) else { return };
                    let (status, headers, body) = answer(&call);
                    kept.lock().unwrap().push(call);
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
                    );
                    let _ = (&stream).write_all(format!("{head}{body}").as_bytes());
                });
            }
        });
        Self { address, calls }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Option<Call> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Call { method, path, headers, body: String::from_utf8(body).ok()? })
}

/// GitHub's memory: the hook that it was asked for, how many statuses it was told.
#[derive(Default)]
struct Told {
    hook: Value,
    statuses: u32,
}

/// Sends the delivery by which GitHub tries a hook.
fn ping(hook: &Value) {
    let body = json!({ "zen": "Calm.", "hook_id": 5, "repository": { "id": 7, "full_name": "acme/hello" } })
        .to_string();
    let signature = signed(hook["secret"].as_str().unwrap(), &body);
    let url = hook["url"].as_str().unwrap().trim_start_matches("http://");
    let (address, path) = url.split_once('/').unwrap();
    let headers = [
        ("Content-Type", "application/json"),
        ("X-GitHub-Event", "ping"),
        ("X-GitHub-Delivery", "a-ping"),
        ("X-Hub-Signature-256", &*signature),
    ];
    send_to(address, &format!("/{path}"), &headers, body.as_bytes());
}

/// GitHub's hooks and statuses, as strict as it is. The second status meets a limit.
fn github(call: &Call, told: &Mutex<Told>) -> Answer {
    let refused = |status, why: &str| (status, "", json!({ "message": why }).to_string());
    if call.headers.get("authorization").map(String::as_str) != Some("Bearer ghs_token") {
        return refused(401, "Bad credentials");
    }
    if !call.headers.contains_key("user-agent") || call.headers["accept"] != "application/vnd.github+json" {
        return refused(403, "Request forbidden by administrative rules");
    }
    let mut told = told.lock().unwrap();
    match (&*call.method, &*call.path) {
        ("GET", "/repos/acme/hello") => {
            return (
                200,
                "X-GitHub-Enterprise-Version: 3.17.1\r\n",
                json!({ "id": 7, "default_branch": "trunk" }).to_string(),
            );
        }
        ("GET", "/repos/acme/hello/hooks?per_page=100&page=1") => return (200, "", "[]".to_owned()),
        ("POST", "/repos/acme/hello/hooks") => {
            let config = &call.json()["config"];
            let is_whole = config["content_type"] == "json" && config["secret"].as_str().unwrap().len() > 32;
            told.hook = config.clone();
            return if is_whole {
                (201, "", json!({ "id": 5 }).to_string())
            } else {
                refused(422, "Validation Failed")
            };
        }
        ("POST", "/repos/acme/hello/hooks/5/pings") => {
            let hook = told.hook.clone();
            // The ping comes a moment after the answer.
            std::thread::spawn(move || ping(&hook));
            return (204, "", String::new());
        }
        _ => told.statuses += 1,
    }
    if told.statuses == 2 {
        return (403, "Retry-After: 1\r\n", json!({ "message": "secondary rate limit" }).to_string());
    }
    let Some(sha) = call.path.strip_prefix("/repos/acme/hello/statuses/") else {
        return refused(404, "Not Found");
    };
    let body = call.json();
    let is_word = ["error", "failure", "pending", "success"].iter().any(|word| body["state"] == *word);
    if sha.len() != 40 || !is_word || body["description"].as_str().unwrap().chars().count() > 140 {
        return refused(422, "Validation Failed");
    }
    (201, "", "{}".to_owned())
}

#[test]
fn a_forge_is_told_of_each_job_and_of_a_config_that_is_wrong() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let revision = work.commit("build", "first");
    server.register(&work.url());
    let told = Mutex::default();
    let fake = Fake::start(move |call| github(call, &told));
    let answer = server.call(
        "PUT",
        &format!("{PROJECT}/connection"),
        Some(json!({ "api_url": fake.url(), "repository_name": "acme/hello", "token": "ghs_token" })),
    );
    assert!(answer["has_token"] == true && !answer.to_string().contains("ghs_token"), "{answer}");
    let answer = server.call("PUT", &format!("{PROJECT}/connection"), Some(json!({ "set_hook": true })));
    assert_eq!(answer["hook"], "it was set, and its test delivery came (`ping`)");
    let found = &answer["found"];
    assert_eq!(
        (&found["forge_version"], &found["forge_default_branch"], &found["has_config"]),
        (&json!("3.17.1"), &json!("trunk"), &json!(true))
    );
    fake.calls.lock().unwrap().clear();
    let _runner = server.runner("r", &server.class_token("acme/linux"));
    let trigger = || {
        let made = server.call("POST", &format!("{PROJECT}/pipeline"), Some(json!({ "branch": "main" })));
        made["id"].as_str().unwrap().to_owned()
    };
    server.ended(&trigger());
    let states = |context: &str| -> Vec<String> {
        let of = |call: &Call| {
            let body = call.json();
            (body["context"] == context).then(|| body["state"].as_str().unwrap().to_owned())
        };
        fake.calls().iter().filter_map(of).collect()
    };
    let listed =
        || server.call("GET", &format!("{PROJECT}/statuses"), None)["items"].as_array().unwrap().clone();
    // Taken, and not only sent: the limit may have met it.
    poll("the end of the job to be told", || {
        let listed = listed();
        let is_told =
            |status: &Value| status["context"] == "ci/circleci: build" && status["told"] == "success";
        if listed.iter().any(is_told) { Ok(()) } else { Err(format!("{listed:?}")) }
    });
    // The first was refused by a limit and came again, or was overtaken.
    let states_of_job = states("ci/circleci: build");
    assert!(
        states_of_job.len() <= 3
            && states_of_job[..states_of_job.len() - 1].iter().all(|s| s == "pending" || s == "success"),
        "{states_of_job:?}"
    );
    let last = fake.calls().last().unwrap().clone();
    assert!(
        last.path.ends_with(&revision)
            && last.json()["target_url"].as_str().unwrap().contains("/gh/acme/hello/jobs/")
    );

    work.commit_config("version: 2.1\njobs: [", "broken");
    trigger();
    poll("the mistake to be told", || {
        let states = states("ci/circleci: config");
        if states == ["error"] { Ok(()) } else { Err(format!("{states:?}")) }
    });
    // Its errors are damaged when it is told of again: it is not taken for one without errors.
    let damage = "UPDATE pipelines SET errors = '[{' WHERE state = 'errored';
        INSERT INTO forge_changed (kind, id) SELECT 'pipeline', id FROM pipelines WHERE state = 'errored'";
    server.database().execute_batch(damage).unwrap();
    // A token that opens nothing is not used again until somebody changes it.
    server.call("PUT", &format!("{PROJECT}/connection"), Some(json!({ "token": "wrong" })));
    work.commit("build", "whole again");
    server.ended(&trigger());
    poll("the damage to be said", || {
        let listed = listed();
        let is_said = |status: &Value| {
            let said = status["description"].as_str().unwrap();
            status["context"] == "ci/circleci: config" && said.contains("damaged in the database")
        };
        if listed.iter().any(is_said) { Ok(()) } else { Err(format!("{listed:?}")) }
    });
    poll("the token to be found out", || {
        let shown = server.call("GET", &format!("{PROJECT}/connection"), None);
        let why = shown["token_message"].as_str().unwrap_or_default();
        if why.contains("401") { Ok(()) } else { Err(shown.to_string()) }
    });
    // The one that is still to be told says so, and waits; those that it was told before stay.
    poll("the status to wait", || {
        let listed = listed();
        let is_said = |status: &Value| {
            status["message"].as_str().is_some_and(|why| why.contains("401")) && status["is_due"] == true
        };
        if listed.iter().any(is_said) { Ok(()) } else { Err(format!("{listed:?}")) }
    });
    assert!(listed().iter().any(|status| status["told"] == "success" && status["message"].is_null()));
}

#[test]
fn gitlab_is_spared_what_it_refuses() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.commit("build", "first");
    server.register(&work.url());
    let states: Mutex<HashMap<String, String>> = Mutex::default();
    let refused = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&refused);
    let fake = Fake::start(move |call| {
        if call.headers.get("private-token").map(String::as_str) != Some("glpat") {
            return (401, "", "{}".to_owned());
        }
        if call.method == "GET" {
            return (404, "", "{}".to_owned());
        }
        let body = call.json();
        let (name, word) =
            (body["name"].as_str().unwrap().to_owned(), body["state"].as_str().unwrap().to_owned());
        let mut states = states.lock().unwrap();
        let was = states.get(&name).map(String::as_str).unwrap_or("none");
        let is_wrong = body["ref"] != "main"
            || !call.path.starts_with("/projects/grp%2Fsub%2Fhello/statuses/")
            || matches!((was, &*word), ("pending", "pending") | ("running", "pending" | "running"));
        if is_wrong {
            kept.lock().unwrap().push(format!("{was} -> {word} {}", call.path));
            return (400, "", json!({ "message": "Cannot transition status via :run" }).to_string());
        }
        states.insert(name, word);
        (201, "", "{}".to_owned())
    });
    let connection = json!({
        "forge": "gitlab", "api_url": fake.url(), "repository_name": "grp/sub/hello", "token": "glpat",
    });
    server.call("PUT", &format!("{PROJECT}/connection"), Some(connection));
    let _runner = server.runner("r", &server.class_token("acme/linux"));
    for _ in 0..2 {
        let made = server.call("POST", &format!("{PROJECT}/pipeline"), Some(json!({ "branch": "main" })));
        server.ended(made["id"].as_str().unwrap());
    }
    poll("the end of the job to be told", || {
        let calls = fake.calls();
        let last = calls.iter().rfind(|call| call.method == "POST").map(|call| call.json()["state"].clone());
        if last == Some(json!("success")) { Ok(()) } else { Err(format!("{calls:?}")) }
    });
    assert!(refused.lock().unwrap().is_empty(), "{:?}", refused.lock().unwrap());
}

#[test]
fn whoever_wants_to_know_is_told_of_ends_and_nobody_nearby_is_called_unasked() {
    let fake = Fake::start(|call| {
        let is_failing = call.path == "/failing";
        (if is_failing { 500 } else { 200 }, "", String::new())
    });
    let host = fake.address.to_string();
    let server = Server::start_with(&["--allow-webhook-host", &host], None);
    server.project();
    let work = Work::new(server.folder.path());
    work.commit("build", "first");
    server.register(&work.url());
    let project = server.call("GET", PROJECT, None)["id"].as_str().unwrap().to_owned();
    let hook = |url: String, events: Value| {
        let body = json!({ "name": "n", "url": url, "events": events, "verify-tls": true, "signing-secret": "hook-secret",
            "scope": { "id": project, "type": "project" } });
        let (status, made) = server.answer("POST", "/api/v2/webhook", Some(body));
        assert!(status == 201 && !made.to_string().contains("hook-secret"), "{made}");
        made["id"].as_str().unwrap().to_owned()
    };
    let both = json!(["workflow-completed", "job-completed"]);
    let good = hook(format!("{}/good", fake.url()), both.clone());
    let failing = hook(format!("{}/failing", fake.url()), json!(["workflow-completed"]));
    let nearby = hook("http://127.0.0.1:1/".to_owned(), json!(["workflow-completed"]));
    for (field, wrong) in
        [("events", json!(["push"])), ("url", json!("file:///x")), ("verify-tls", json!(false))]
    {
        let (status, answer) =
            server.answer("PUT", &format!("/api/v2/webhook/{good}"), Some(json!({ field: wrong })));
        assert!(status == 400 && answer["message"].as_str().unwrap().contains(field), "{answer}");
    }
    let _runner = server.runner("r", &server.class_token("acme/linux"));
    let made = server.call("POST", &format!("{PROJECT}/pipeline"), Some(json!({ "branch": "main" })));
    server.ended(made["id"].as_str().unwrap());
    let calls = |id: &str| {
        let listed = server.call("GET", &format!("/api/v2/webhook/{id}/deliveries"), None);
        listed["items"].as_array().unwrap().clone()
    };
    let settled = |id: &str, count: usize| {
        poll("the calls of the webhook", || {
            let calls = calls(id);
            let tried = calls.iter().filter(|call| call["attempts"] != 0).count();
            if tried == count { Ok(calls) } else { Err(format!("{calls:?}")) }
        })
    };
    assert!(settled(&good, 2).iter().all(|call| call["state"] == "done"));
    let waiting = settled(&failing, 1);
    assert!(waiting[0]["state"] == "waiting" && waiting[0]["message"] == "answered 500", "{waiting:?}");
    let refused = settled(&nearby, 1);
    assert!(refused[0]["message"].as_str().unwrap().contains("not public"), "{refused:?}");
    let mut events = Vec::new();
    for call in fake.calls().iter().filter(|call| call.path == "/good") {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"hook-secret");
        let signature = format!("v1={}", hex(hmac::sign(&key, call.body.as_bytes()).as_ref()));
        assert_eq!(call.headers["circleci-signature"], signature);
        let body = call.json();
        assert_eq!(
            (&body["type"], &body["project"]["slug"]),
            (&json!(call.headers["circleci-event-type"]), &json!("github/acme/hello"))
        );
        assert!(
            body["pipeline"]["vcs"]["branch"] == "main" && body["webhook"]["id"] == json!(good),
            "{body}"
        );
        let vcs = &body["pipeline"]["vcs"];
        let ada = json!({ "name": "Ada", "email": "ada@example.com" });
        assert_eq!(
            (&vcs["provider_name"], &vcs["commit"]["author"], &vcs["commit"]["committer"]),
            (&json!("github"), &ada, &ada)
        );
        for time in ["authored_at", "committed_at"] {
            let expected =
                work.git(&["log", "-1", if time == "authored_at" { "--format=%aI" } else { "--format=%cI" }]);
            assert_eq!(vcs["commit"][time], json!(expected));
        }
        let status = if body["job"].is_null() { &body["workflow"]["status"] } else { &body["job"]["status"] };
        assert_eq!(status, "success", "{body}");
        events.push(body["type"].as_str().unwrap().to_owned());
    }
    events.sort();
    assert_eq!(events, ["job-completed", "workflow-completed"]);
    assert_ne!(good, NONE);
}

#[test]
fn forges_that_are_not_github_are_told_of_in_their_own_way() {
    let fake = Fake::start(|call| (if call.path == "/hook" { 200 } else { 201 }, "", "{}".to_owned()));
    let server = Server::start_with(&["--allow-webhook-host", &fake.address.to_string()], None);
    server.project();
    let work = Work::new(server.folder.path());
    let config = json!({ "version": 2.1, "jobs": { "slow": { "machine": true, "resource_class": "acme/linux",
        "steps": [{ "run": { "name": "sit still", "command": "sleep 600", "no_output_timeout": "1s" } }] } },
        "workflows": { "w": { "jobs": ["slow"] } } });
    let commit = work.commit_config(&config.to_string(), "Fix\n\nlonger");
    server.register(&work.url());
    let project = server.call("GET", PROJECT, None)["id"].as_str().unwrap().to_owned();
    let body = json!({ "name": "n", "url": format!("{}/hook", fake.url()), "events": ["workflow-completed"],
        "verify-tls": true, "signing-secret": "", "scope": { "id": project, "type": "project" } });
    server.call("POST", "/api/v2/webhook", Some(body));
    let _runner = server.runner("r", &server.class_token("acme/linux"));
    let told = |forge: &str, nth: usize, reference: &str| {
        let wanted =
            json!({ "forge": forge, "api_url": fake.url(), "token": "t", "repository_name": "acme/hello" });
        server.connect(wanted);
        let made = server.call("POST", &format!("{PROJECT}/pipeline"), Some(json!({ "branch": "main" })));
        server.ended(made["id"].as_str().unwrap());
        poll("the step that took too long to be named", || {
            let calls: Vec<Value> =
                fake.calls().iter().filter(|call| call.method == "POST").map(Call::json).collect();
            let is_it =
                |call: &&Value| call["description"] == "Failed: sit still" && call["ref"] == reference;
            if calls.iter().any(|call| is_it(&call)) { Ok(()) } else { Err(format!("{calls:?}")) }
        });
        poll("the webhook", || {
            let calls = fake.calls();
            let call = calls.iter().filter(|call| call.path == "/hook").nth(nth);
            call.map(Call::json).ok_or_else(|| "not yet".to_owned())
        })["pipeline"]
            .clone()
    };
    let pipeline = told("gitlab", 0, "main");
    let parameters = &pipeline["trigger_parameters"];
    assert!(pipeline["vcs"].is_null(), "{pipeline}");
    assert_eq!(
        parameters["git"],
        json!({ "branch": "main", "tag": "", "ref": "refs/heads/main", "checkout_sha": commit, "checkout_url": work.url() })
    );
    assert_eq!(
        (&parameters["circleci"]["event_type"], &parameters["circleci"]["trigger_type"]),
        (&json!("api"), &json!("gitlab"))
    );
    let gitlab = &parameters["gitlab"];
    assert_eq!(
        (&gitlab["commit_title"], &gitlab["commit_message"], &gitlab["commit_author_email"]),
        (&json!("Fix"), &json!("Fix\n\nlonger"), &json!("ada@example.com"))
    );
    let pipeline = told("bitbucket_dc", 1, "refs/heads/main");
    let parameters = &pipeline["trigger_parameters"];
    assert!(parameters["git"]["branch"] == "main" && parameters["gitlab"].is_null(), "{pipeline}");

    // What Bitbucket Cloud cannot do is said where it is asked for.
    let connected =
        server.call("PUT", &format!("{PROJECT}/connection"), Some(json!({ "forge": "bitbucket_cloud" })));
    assert!(!connected["warnings"].to_string().contains("forks"), "{connected}");
    let wanted = json!({ "enable_building_fork_prs": true });
    let changed = server.call("POST", &format!("/api/v3/projects/{project}/update-settings"), Some(wanted));
    assert!(changed["warnings"].to_string().contains("not built at Bitbucket Cloud"), "{changed}");
}

#[test]
fn schedules_are_kept_as_they_are_told() {
    let server = Server::start();
    server.project();
    let schedules = format!("{PROJECT}/schedule");
    let table = json!({ "per-hour": 1, "hours-of-day": [8], "days-of-week": ["MON"] });
    let body = |table: &Value| json!({ "name": "nightly", "timetable": table, "attribution-actor": "current", "parameters": { "branch": "main", "x": 1 } });
    for wrong in [
        json!({ "per-hour": 1, "hours-of-day": [24], "days-of-week": ["MON"] }),
        json!({ "per-hour": 61, "hours-of-day": [8], "days-of-week": ["MON"] }),
        json!({ "per-hour": 1, "hours-of-day": [8], "days-of-week": ["mon"] }),
        json!({ "per-hour": 1, "hours-of-day": [8], "days-of-week": ["MON"], "days-of-month": [1] }),
        json!({ "per-hour": 1, "hours-of-day": [8] }),
    ] {
        assert_eq!(server.answer("POST", &schedules, Some(body(&wrong))).0, 400, "{wrong}");
    }
    let (status, made) = server.answer("POST", &schedules, Some(body(&table)));
    assert!(status == 201 && made["timetable"] == table && made["actor"]["login"] == "admin", "{made}");
    let path = format!("/api/v2/schedule/{}", made["id"].as_str().unwrap());
    let changed =
        server.call("PATCH", &path, Some(json!({ "attribution-actor": "system", "description": "d" })));
    assert_eq!((&changed["actor"]["login"], &changed["description"]), (&json!("system-actor"), &json!("d")));
    assert_eq!(server.call("GET", &schedules, None)["items"][0]["id"], made["id"]);
    assert_eq!(server.call("DELETE", &path, None)["message"], "Schedule deleted.");
    assert_eq!(server.answer("GET", &path, None).0, 404);
}
