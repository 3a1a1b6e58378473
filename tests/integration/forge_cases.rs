//! From a push to a result, case by case: several refs in one delivery, pull requests only, a newer push, approvals,
//! webhooks that are refused twice, schedules with parameters; and whatever a forge should not send.

use crate::forge::{Answer, JSON, NONE, pull, push, signed};
use crate::forge_back::Fake;
use crate::repositories::Work;
use crate::server::Server;
use crate::support::poll;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Mutex;

const PROJECT: &str = "/api/v2/project/gh/acme/hello";

impl Server {
    /// Whether the list has a refused delivery with these words.
    fn refused_for(&self, why: &str) -> Result<(), String> {
        let listed = self.call("GET", &format!("{PROJECT}/deliveries"), None);
        let is_it = |item: &Value| {
            item["verdict"] == "refused" && item["message"].as_str().is_some_and(|said| said.contains(why))
        };
        if listed["items"].as_array().unwrap().iter().any(is_it) { Ok(()) } else { Err(listed.to_string()) }
    }

    fn workflow_of(&self, pipeline: &str) -> Value {
        self.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None)["items"][0].clone()
    }
}

fn started(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body["pipelines"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

#[test]
fn one_delivery_may_tell_of_many_refs_and_of_commits_by_their_beginning() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let first = work.commit("one", "one");
    let second = work.commit("two", "two");
    work.git(&["switch", "--quiet", "-c", "topic"]);
    let topic = work.commit("topic", "topic");
    work.git(&["switch", "--quiet", "main"]);
    server.register(&work.url());
    let hook = server.connect(json!({ "forge": "bitbucket_cloud" }));
    let at = |name: &str, id: &str| json!({ "type": "branch", "name": name, "target": { "hash": id } });
    let repository = json!({ "uuid": "{r1}", "full_name": "acme/hello" });
    let body = json!({
        "push": { "changes": [
            { "old": at("main", &first), "new": at("main", &second) },
            { "old": at("old", &first), "new": null, "closed": true },
            { "old": at("topic", NONE), "new": at("topic", &topic) },
        ] },
        "repository": repository, "actor": { "display_name": "Ada" },
    });
    assert_eq!(started(&hook.bitbucket("repo:push", "b1", &body)).len(), 2, "one reply for both branches");
    let changes = server.worked_off()[0]["changes"].clone();
    let states: Vec<_> = changes.as_array().unwrap().iter().map(|change| &change["state"]).collect();
    // The change that started no pipeline comes first.
    assert_eq!(states, ["skipped", "started", "started"], "{changes}");

    // A pull request names the first twelve digits of its commit.
    server.set(json!({ "is_build_prs_only": true }));
    work.git(&["switch", "--quiet", "-c", "feature"]);
    let head = work.commit("three", "three");
    let place = |id: &str, branch: &str| json!({ "branch": { "name": branch }, "commit": { "hash": &id[..12] }, "repository": repository });
    let body = json!({
        "pullrequest": { "id": 8, "title": "T", "links": { "html": { "href": "https://b.example/8" } },
            "source": place(&head, "feature"), "destination": place(&second, "main") },
        "repository": repository, "actor": { "display_name": "Ada" },
    });
    let made = started(&hook.bitbucket("pullrequest:created", "b2", &body));
    server.worked_off();
    let pipeline = server.call("GET", &format!("/api/v2/pipeline/{}", made[0]), None);
    assert_eq!((&pipeline["vcs"]["revision"], &pipeline["vcs"]["branch"]), (&json!(head), &json!("feature")));
}

#[test]
fn pull_requests_only_and_a_newer_push_ends_the_one_before() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let main = [work.commit("one", "one"), work.commit("two", "two"), work.commit("three", "three")];
    work.git(&["switch", "--quiet", "-c", "topic"]);
    let topic = [work.commit("four", "four"), work.commit("five", "five")];
    server.register(&work.url());
    server.set(json!({ "is_build_prs_only": true, "enable_auto_cancel_redundant_workflows": true }));
    server.class_token("acme/linux");
    let hook = server.connect(json!({}));

    assert_eq!(hook.push("t1", "refs/heads/topic", NONE, &topic[0]).status, 200, "there is no pull request");
    let opened = started(&hook.github("pull_request", "t2", &pull("opened", 3, &topic[0], 7)));
    server.worked_off();
    assert_eq!(server.workflow_of(&opened[0])["status"], "running");
    let pushed = started(&hook.push("t3", "refs/heads/topic", &topic[0], &topic[1]));
    server.worked_off();
    assert_eq!(server.workflow_of(&opened[0])["status"], "canceled");
    assert_eq!(server.workflow_of(&pushed[0])["status"], "running");
    // Not on the default branch.
    let first = started(&hook.push("m1", "refs/heads/main", &main[0], &main[1]));
    let second = started(&hook.push("m2", "refs/heads/main", &main[1], &main[2]));
    server.worked_off();
    assert_eq!(server.workflow_of(&first[0])["status"], "running");
    assert_eq!(server.workflow_of(&second[0])["status"], "running");
}

#[test]
fn strangers_get_no_context() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let config = json!({ "version": 2.1, "jobs": { "look": { "machine": true, "resource_class": "acme/linux",
        "steps": [{ "run": "true" }] } }, "workflows": { "w": { "jobs": [{ "look": { "context": "org-global" } }] } } });
    work.commit_config(&config.to_string(), "main");
    let theirs = work.commit_config(&config.to_string(), "theirs");
    work.git(&["update-ref", "refs/pull/12/head", &theirs]);
    server.register(&work.url());
    server.set(json!({ "enable_building_fork_prs": true }));
    server.class_token("acme/linux");
    server.takes_untrusted();
    let hook = server.connect(json!({}));
    let pipeline = started(&hook.github("pull_request", "f1", &pull("opened", 12, &theirs, 99)));
    server.worked_off();
    assert_eq!(server.ended(&pipeline[0])[0]["status"], "unauthorized");
}

#[test]
fn an_approval_is_told_as_a_status_of_its_own() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let config = json!({ "version": 2.1,
        "jobs": { "build": { "machine": true, "resource_class": "acme/linux", "steps": [{ "run": "true" }] } },
        "workflows": { "w": { "jobs": [{ "hold": { "type": "approval" } }, { "build": { "requires": ["hold"] } }] } } });
    work.commit_config(&config.to_string(), "main");
    server.register(&work.url());
    server.class_token("acme/linux");
    let fake = Fake::start(|_| (201, "", "{}".to_owned()));
    server.connect(json!({ "api_url": fake.url(), "token": "t" }));
    let made = server.call("POST", &format!("{PROJECT}/pipeline"), Some(json!({ "branch": "main" })));
    let told = |state: &str| {
        poll("the approval to be told", || {
            let calls = fake.calls();
            let of = |call: &crate::forge_back::Call| {
                let body = call.body.starts_with('{').then(|| call.json())?;
                (body["context"] == "ci/circleci: w/hold")
                    .then(|| body["state"].as_str().unwrap_or_default().to_owned())
            };
            let states: Vec<String> = calls.iter().filter_map(of).collect();
            if states.last().is_some_and(|last| last == state) {
                Ok(states)
            } else {
                Err(format!("{states:?}"))
            }
        })
    };
    assert_eq!(told("pending"), ["pending"]);
    let workflow = server.workflow_of(made["id"].as_str().unwrap())["id"].as_str().unwrap().to_owned();
    let jobs = server.call("GET", &format!("/api/v2/workflow/{workflow}/job"), None);
    let hold = jobs["items"].as_array().unwrap().iter().find(|job| job["name"] == "hold").unwrap().clone();
    let request = hold["approval_request_id"].as_str().unwrap();
    server.call("POST", &format!("/api/v2/workflow/{workflow}/approve/{request}"), None);
    assert_eq!(told("success"), ["pending", "success"]);
}

#[test]
fn a_webhook_that_is_refused_twice_is_called_a_third_time_with_the_same_words() {
    let count = Mutex::new(0);
    let fake = Fake::start(move |_| {
        let mut count = count.lock().unwrap();
        *count += 1;
        (if *count <= 2 { 500 } else { 200 }, "", String::new())
    });
    let server = Server::start_with(&["--allow-webhook-host", &fake.address.to_string()], None);
    server.project();
    let project = server.call("GET", PROJECT, None)["id"].as_str().unwrap().to_owned();
    let body = json!({ "name": "n", "url": fake.url(), "events": ["workflow-completed"], "verify-tls": true,
        "signing-secret": "hook-secret", "scope": { "id": project, "type": "project" } });
    let hook = server.call("POST", "/api/v2/webhook", Some(body))["id"].as_str().unwrap().to_owned();
    server.class_token("acme/linux");
    // A workflow on hold is not completed, and its trigger wakes the calls that are due.
    let holds = "version: 2.1\njobs: {build: {machine: true, resource_class: acme/linux, steps: [{run: 'true'}]}}\nworkflows: {w: {jobs: [hold: {type: approval}, build: {requires: [hold]}]}}\n";
    let pipeline = server.trigger(holds);
    let workflow = server.workflow_of(&pipeline)["id"].as_str().unwrap().to_owned();
    server.call("POST", &format!("/api/v2/workflow/{workflow}/cancel"), None);
    let listed =
        || server.call("GET", &format!("/api/v2/webhook/{hook}/deliveries"), None)["items"][0].clone();
    for tries in 1..=3 {
        poll("the next call", || {
            let call = listed();
            if call["attempts"] == tries { Ok(()) } else { Err(call.to_string()) }
        });
        let call = listed();
        let (state, why) = if tries < 3 { ("waiting", "answered 500") } else { ("done", "") };
        assert_eq!(call["state"], state, "{call}");
        assert!(call["message"].as_str().unwrap().contains(why), "{call}");
        server
            .database()
            .execute_batch("UPDATE webhook_calls SET not_before_ms = 0 WHERE state = 'waiting'")
            .unwrap();
        server.trigger(holds);
    }
    let calls = fake.calls();
    let words: HashSet<_> =
        calls.iter().map(|call| (&call.body, &call.headers["circleci-signature"])).collect();
    assert_eq!((calls.len(), words.len()), (3, 1), "{calls:?}");
}

#[test]
fn a_schedule_starts_its_branch_with_its_parameters() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let commit = work.commit("build", "nightly [skip ci]");
    server.register(&work.url());
    server.class_token("acme/linux");
    let hours: Vec<u32> = (0..24).collect();
    let days = ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"];
    for (name, parameter) in [("declared", "fast"), ("unknown", "x")] {
        let body = json!({ "name": name, "attribution-actor": "system",
            "timetable": { "per-hour": 60, "hours-of-day": hours, "days-of-week": days },
            "parameters": { "branch": "main", parameter: true } });
        assert_eq!(server.answer("POST", &format!("{PROJECT}/schedule"), Some(body)).0, 201);
    }
    // Three minutes that are not waited for.
    server.database().execute_batch("UPDATE schedules SET last_ms = last_ms - 180000").unwrap();
    let started = poll("both to start", || {
        let items = server.worked_off();
        let started: Vec<Value> = items.iter().filter(|item| item["source"] == "schedule").cloned().collect();
        if started.len() >= 2 { Ok(started) } else { Err(format!("{items:?}")) }
    });
    assert!(started.iter().all(|item| item["changes"][0]["state"] == "started"), "{started:?}");
    let pipelines = server.pipelines();
    let with = |state: &str| pipelines.iter().find(|pipeline| pipeline["state"] == state);
    let (good, bad) = (with("created").unwrap(), with("errored").unwrap());
    assert_eq!((&good["vcs"]["revision"], &good["vcs"]["branch"]), (&json!(commit), &json!("main")));
    assert_eq!(
        (&good["trigger"]["type"], &good["trigger"]["actor"]["login"]),
        (&json!("scheduled_pipeline"), &json!("system-actor"))
    );
    assert_eq!(good["trigger_parameters"]["fast"], true);
    assert!(bad["errors"].to_string().contains("`x`"), "{bad}");
}

#[test]
fn whatever_a_forge_should_not_send_is_seen_with_a_sentence() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let first = work.commit("one", "one");
    let second = work.commit("two", "two");
    server.register(&work.url());
    let hook = server.connect(json!({}));
    let body = push("refs/heads/main", &first, &second).to_string();
    let good = signed(&hook.secret, &body);
    let event = ("X-GitHub-Event", "push");
    // Strangers are written down once a second at most: they come again.
    let seen = |headers: &[(&str, &str)], body: &[u8], status: u16, why: &str| {
        poll("the refusal to be listed", || {
            let answer = hook.send(headers, body);
            assert_eq!(answer.status, status, "{why}: {}", answer.body);
            assert!(!answer.body["message"].as_str().unwrap().contains("pipelines"), "{}", answer.body);
            server.refused_for(why)
        });
    };
    let wrong = signed("not the secret", &body);
    seen(&[JSON, event, ("X-Hub-Signature-256", &wrong)], body.as_bytes(), 401, "not made with the secret");
    seen(&[JSON, event], body.as_bytes(), 401, "set the secret of the webhook");
    seen(&[JSON, ("X-Hub-Signature-256", &good)], body.as_bytes(), 401, "no header names an event");
    seen(
        &[JSON, ("X-Gitlab-Event", "Push Hook"), ("X-Gitlab-Token", &hook.secret)],
        body.as_bytes(),
        401,
        "it is of gitlab",
    );
    let long = [
        JSON,
        event,
        ("X-Hub-Signature-256", &*good),
        ("Content-Length", "26214400"),
        ("Expect", "100-continue"),
    ];
    seen(&long, b"", 413, "25000000 bytes");
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    seen(
        &[form, event, ("X-Hub-Signature-256", &good)],
        body.as_bytes(),
        400,
        "a form without the field `payload`",
    );
    let text = ("Content-Type", "text/plain");
    seen(&[text, event, ("X-Hub-Signature-256", &good)], body.as_bytes(), 415, "content type");
    let broken = "{\"ref\":";
    let signature = signed(&hook.secret, broken);
    seen(&[JSON, event, ("X-Hub-Signature-256", &signature)], broken.as_bytes(), 400, "JSON");
    let mut other = push("refs/heads/main", &first, &second);
    other["repository"] = json!({ "id": 8, "full_name": "acme/other" });
    let (other, id) = (other.to_string(), ("X-GitHub-Delivery", "mine"));
    let signature = signed(&hook.secret, &other);
    seen(&[JSON, event, id, ("X-Hub-Signature-256", &signature)], other.as_bytes(), 401, "acme/other");

    // A refused delivery is taken when it is sent again as it should be, with the same id.
    assert_eq!(
        started(&hook.send(&[JSON, event, id, ("X-Hub-Signature-256", &good)], body.as_bytes())).len(),
        1
    );
    // Yesterday's delivery, and yesterday's push under another id.
    server.worked_off();
    let day = "UPDATE forge_deliveries SET received_at_ms = received_at_ms - 86400000;
        UPDATE forge_events SET at_ms = at_ms - 86400000;";
    server.database().execute_batch(day).unwrap();
    let again = hook.send(&[JSON, event, id, ("X-Hub-Signature-256", &good)], body.as_bytes());
    assert!(
        again.status == 200 && again.body["message"].as_str().unwrap().contains("came before"),
        "{}",
        again.body
    );
    assert_eq!(server.pipelines().len(), 1);

    // A hundred and fifty branches at once, some of them gone when they are fetched.
    for n in 0..10 {
        work.git(&["branch", &format!("b{n}")]);
    }
    for n in 0..150 {
        let answer = hook.push(&format!("many{n}"), &format!("refs/heads/b{n}"), &first, &second);
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
    poll("all of them to be worked off", || {
        let sql = "SELECT count(*) FROM forge_events WHERE state = 'waiting'";
        let left: i64 = server.database().query_row(sql, [], |row| row.get(0)).unwrap();
        if left == 0 { Ok(()) } else { Err(left.to_string()) }
    });
    assert_eq!(server.pipelines().len(), 11);
    let listed = server.worked_off();
    let why =
        |item: &Value| item["changes"][0]["message"].as_str().unwrap_or_default().contains("has no branch");
    let mut believed = listed.iter().filter(|item| item["is_believed"] == true);
    assert!(believed.all(why), "the last fifty are gone: {listed:?}");
}

#[test]
fn a_plain_server_and_a_clock_that_is_off() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let first = work.commit("one", "one");
    work.git(&["tag", "-a", "v1", "-m", "v1"]);
    let tag = work.git(&["rev-parse", "v1"]);
    server.register(&work.url());
    let hook = server.connect(json!({ "forge": "git" }));
    let body = json!({ "repository": "app.git", "pusher": "ada", "changes": [
        { "ref": "refs/heads/main", "before": NONE, "after": first }, { "ref": "refs/tags/v1", "before": NONE, "after": tag },
    ] })
    .to_string();
    let event = ("X-Runlet-Event", "push");
    assert_eq!(hook.send(&[JSON, event], body.as_bytes()).status, 401);
    let signature = signed(&hook.secret, &body);
    let made = started(&hook.send(&[JSON, event, ("X-Runlet-Signature-256", &signature)], body.as_bytes()));
    assert_eq!(made.len(), 2, "one for each ref");
    server.worked_off();
    let tagged = server.call("GET", &format!("/api/v2/pipeline/{}", made[1]), None);
    assert_eq!(
        (&tagged["vcs"]["tag"], &tagged["vcs"]["revision"]),
        (&json!("v1"), &json!(first)),
        "the commit of the tag"
    );

    // A forge that signs the time is believed for five minutes.
    let hook = server.connect(json!({ "forge": "gitlab", "repository_name": "acme/hello" }));
    let body = json!({ "object_kind": "push", "project_id": 15 }).to_string();
    let headers = [
        JSON,
        ("X-Gitlab-Event", "Push Hook"),
        ("webhook-id", "m1"),
        ("webhook-timestamp", "1700000000"),
        ("webhook-signature", "v1,AAAA"),
    ];
    poll("the refusal to be listed", || {
        assert_eq!(hook.send(&headers, body.as_bytes()).status, 401);
        server.refused_for("5 minutes")
    });
}

#[test]
fn a_branch_is_called_what_it_is_called() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let config = json!({ "version": 2.1, "jobs": { "look": { "machine": true, "resource_class": "acme/linux",
        "steps": ["checkout", { "run": "printf '[%s] [%s]\\n' \"$CIRCLE_BRANCH\" \"$(git branch --show-current)\"" }] } },
        "workflows": { "w": { "jobs": ["look"] } } });
    let commit = work.commit_config(&config.to_string(), "main");
    let name = "feature/a;$(x)-é\"q";
    work.git(&["branch", name]);
    server.register(&work.url());
    let _runner = server.runner("r", &server.class_token("acme/linux"));
    let hook = server.connect(json!({}));
    let made = started(&hook.push("d1", &format!("refs/heads/{name}"), NONE, &commit));
    server.worked_off();
    assert_eq!(server.pipelines()[0]["vcs"]["branch"], name);
    let (job, said) = server.looked(&made[0]);
    assert_eq!(job["status"], "success", "{said}");
    assert!(said.contains(&format!("[{name}] [{name}]\n")), "{said}");
}
