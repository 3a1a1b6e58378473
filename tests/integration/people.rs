//! People and personal tokens against a real control plane: made, shown once, ended at once; and what
//! somebody who is no administrator may do.

use crate::admin::parsed;
use crate::faults::Rogue;
use crate::server::Server;
use crate::support::poll;
use runlet::http::Body;
use runlet::protocol::Secret;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

const HOLD: &str = "\
version: 2.1
jobs: {build: {machine: true, resource_class: a/b, steps: [{run: 'true'}]}}
workflows: {w: {jobs: [gate: {type: approval}, build: {requires: [gate]}]}}
";

impl Server {
    /// Makes somebody with a token.
    pub(crate) fn person(&self, login: &str, is_admin: bool) -> Secret {
        self.call("POST", "/api/v2/user", Some(json!({ "login": login, "is_admin": is_admin })));
        let made =
            self.call("POST", "/api/v2/personal-token", Some(json!({ "user": login, "label": "first" })));
        Secret::new(made["token"].as_str().unwrap())
    }

    fn status_for(&self, token: &Secret) -> u16 {
        self.answer_to(token, "GET", "/api/v2/me", None).0
    }
}

/// Whether a text is in any file below a folder.
fn is_stored(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return is_stored(&path, text);
        }
        std::fs::read(path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
    })
}

#[test]
fn people_and_their_tokens_come_and_go() {
    let server = Server::start();
    let said = server.admin(&["user", "create", "ada", "--name", "Ada Lovelace"], "");
    assert!(said.contains("made the user ada") && said.contains("personal-token create ada"), "{said}");
    server.admin_fails(&["user", "create", "ada"], 4, "there is a user `ada` already");
    server.admin_fails(&["user", "create", "a/b"], 4, "`a/b` cannot be a login");
    let table = server.admin(&["user", "list"], "");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1][..4], ["ada", "Ada", "Lovelace", "no"], "{table}");
    assert_eq!(rows[2][..3], ["admin", "Administrator", "yes"], "{table}");

    let token = server.admin(&["personal-token", "create", "ada", "--label", "laptop"], "");
    let token = token.trim_end();
    assert!(token.starts_with("rlp_") && !token.contains(char::is_whitespace), "only the token: {token}");
    server.admin_fails(&["personal-token", "create", "bob"], 5, "no user `bob`");
    let ada = Secret::new(token);
    let (status, me) = server.answer_to(&ada, "GET", "/api/v2/me", None);
    assert_eq!((status, &me["login"]), (200, &json!("ada")));
    let listed = parsed(&server.admin(&["personal-token", "list", "ada", "--json"], ""));
    assert_eq!((&listed[0]["label"], &listed[0]["user"]), (&json!("laptop"), &json!("ada")));
    assert!(listed[0].get("token").is_none() && listed.as_array().unwrap().len() == 1, "{listed}");
    assert!(!is_stored(&server.folder.path().join("data"), token), "only a hash of it is stored");

    // Without a name it is one's own list.
    assert!(server.admin(&["personal-token", "list"], "").contains("first start"));
    server.admin(&["personal-token", "delete", listed[0]["id"].as_str().unwrap()], "");
    assert_eq!(server.status_for(&ada), 401);
    server.admin_fails(
        &["personal-token", "delete", listed[0]["id"].as_str().unwrap()],
        5,
        "no personal token",
    );

    let again = Secret::new(server.admin(&["personal-token", "create", "ada"], "").trim_end());
    assert_eq!(server.status_for(&again), 200);
    assert_eq!(server.admin(&["user", "delete", "ada"], ""), "deleted ada and their tokens\n");
    assert_eq!(server.status_for(&again), 401, "tokens go with their person");
    server.admin_fails(&["user", "delete", "ada"], 5, "no user `ada`");
    server.admin_fails(&["user"], 2, "needs VERB");
    server.admin_fails(&["personal-token", "show"], 2, "known: create, list, delete");
}

#[test]
fn an_administrator_always_stays() {
    let server = Server::start();
    let tokens = server.call("GET", "/api/v2/personal-token", None);
    let own = format!("/api/v2/personal-token/{}", tokens["items"][0]["id"].as_str().unwrap());
    server.refused("DELETE", &own, None, 409, "no administrator with a token would be left");
    server.refused("DELETE", "/api/v2/user/admin", None, 409, "no administrator with a token would be left");
    server.person("ada", false);
    server.call("POST", "/api/v2/user", Some(json!({ "login": "bob", "is_admin": true })));
    server.refused("DELETE", &own, None, 409, "make one first");
    let token = server.call("POST", "/api/v2/personal-token", Some(json!({ "user": "bob" })));
    let bob = Secret::new(token["token"].as_str().unwrap());
    // Now somebody is left.
    assert_eq!(server.answer("DELETE", &own, None).0, 200);
    assert_eq!(server.answer("GET", "/api/v2/me", None).0, 401);
    assert_eq!(server.answer_to(&bob, "DELETE", "/api/v2/user/admin", None).0, 200);
    let (status, answer) = server.answer_to(&bob, "DELETE", "/api/v2/user/bob", None);
    assert_eq!(status, 409, "{answer}");
    let users = server.answer_to(&bob, "GET", "/api/v2/user", None).1;
    let logins: Vec<_> = users["items"].as_array().unwrap().iter().map(|user| &user["login"]).collect();
    assert_eq!(logins, ["ada", "bob"]);
}

#[test]
fn an_ended_token_ends_its_streams() {
    let server = Server::start();
    server.project();
    server.class_token("a/b");
    let ada = server.person("ada", false);
    let pipeline = server.trigger(HOLD);
    let path = format!("/api/v3/runs/{pipeline}/events");
    let (own, other) =
        (server.client.open(&path, &ada).unwrap(), server.client.open(&path, &server.token).unwrap());
    let (mut own, mut other) = (BufReader::new(own), BufReader::new(other));
    let held = |stream: &mut dyn BufRead| {
        let mut line = String::new();
        while !line.contains("on_hold") {
            line.clear();
            assert!(stream.read_line(&mut line).unwrap() > 0, "the stream ended");
        }
    };
    held(&mut own);
    held(&mut other);
    server.call("DELETE", "/api/v2/user/ada", None);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut own, &mut rest).unwrap();
    assert!(!rest.contains("\"end\""), "the pipeline has not ended: {rest}");
    // Somebody else's goes on to the end of the pipeline.
    server.call("POST", &format!("/api/v2/pipeline/{pipeline}/cancel"), None);
    std::io::Read::read_to_string(&mut other, &mut rest).unwrap();
    assert!(rest.contains("\"end\""), "{rest}");
}

/// Calls that change what is set up.
fn changes(
    project: &str,
    class: &str,
    token: &str,
    context: &str,
    admin_token: &str,
) -> Vec<(&'static str, String, Value)> {
    let text = |path: &str| path.to_owned();
    let slug = "/api/v2/project/gh/acme/hello";
    let context = format!("/api/v2/context/{context}");
    vec![
        ("POST", text("/api/v3/runner/resource"), json!({ "resource_class": "x/y" })),
        ("DELETE", format!("/api/v3/runner/resource/{class}"), Value::Null),
        ("DELETE", format!("/api/v3/runner/resource/{class}/force"), Value::Null),
        ("POST", text("/api/v3/runner/token"), json!({ "resource_class": "a/b", "nickname": "" })),
        ("DELETE", format!("/api/v3/runner/token/{token}"), Value::Null),
        ("GET", text("/api/v2/user"), Value::Null),
        ("POST", text("/api/v2/user"), json!({ "login": "eve" })),
        ("DELETE", text("/api/v2/user/admin"), Value::Null),
        ("DELETE", text("/api/v2/user/ada"), Value::Null),
        ("POST", text("/api/v2/personal-token"), json!({ "user": "ada" })),
        ("GET", text("/api/v2/personal-token?user=admin"), Value::Null),
        ("DELETE", format!("/api/v2/personal-token/{admin_token}"), Value::Null),
        ("POST", text("/api/v2/organization"), json!({ "name": "o", "vcs_type": "gh" })),
        ("POST", text("/api/v2/organization/gh/acme/project"), json!({ "name": "new" })),
        ("PATCH", text(slug), json!({ "default_branch": "x" })),
        ("DELETE", text(slug), Value::Null),
        ("POST", format!("{slug}/envvar"), json!({ "name": "N", "value": "v" })),
        ("DELETE", format!("{slug}/envvar/SECRET"), Value::Null),
        ("POST", text("/api/v1.1/project/gh/acme/hello/envvar"), json!({ "name": "N", "value": "v" })),
        ("DELETE", text("/api/v1.1/project/gh/acme/hello/envvar/SECRET"), Value::Null),
        (
            "PUT",
            text("/api/v1.1/project/gh/acme/hello/settings"),
            json!({ "feature_flags": { "autocancel-builds": true } }),
        ),
        (
            "POST",
            format!("/api/v3/projects/{project}/update-settings"),
            json!({ "enable_auto_cancel_redundant_workflows": true }),
        ),
        ("POST", text("/api/v2/context"), json!({ "name": "c", "owner": { "slug": "gh/acme" } })),
        ("DELETE", context.clone(), Value::Null),
        ("PUT", format!("{context}/environment-variable/V"), json!({ "value": "v" })),
        ("DELETE", format!("{context}/environment-variable/V"), Value::Null),
        (
            "POST",
            format!("{context}/restrictions"),
            json!({ "restriction_type": "expression", "restriction_value": "true" }),
        ),
        ("DELETE", format!("{context}/restrictions/x"), Value::Null),
    ]
}

#[test]
fn who_is_no_administrator_reads_and_runs_and_changes_nothing_else() {
    let server = Server::start();
    server.project();
    let project =
        server.call("GET", "/api/v2/project/gh/acme/hello", None)["id"].as_str().unwrap().to_owned();
    let runner = server.class_token("a/b");
    let first = |path: &str| server.call("GET", path, None)["items"][0]["id"].as_str().unwrap().to_owned();
    let class = first("/api/v3/runner/resource");
    let class_token = first("/api/v3/runner/token?resource-class=a/b");
    let admin_token = first("/api/v2/personal-token");
    server.call(
        "POST",
        "/api/v2/project/gh/acme/hello/envvar",
        Some(json!({ "name": "SECRET", "value": "hunter2-hunter2" })),
    );
    let context = json!({ "name": "deploy", "owner": { "slug": "gh/acme" } });
    let context = server.call("POST", "/api/v2/context", Some(context))["id"].as_str().unwrap().to_owned();
    let ada = server.person("ada", false);
    let ask = |method, path: &str, body: Value| {
        server.answer_to(&ada, method, path, Some(body).filter(|b| !b.is_null()))
    };

    for (method, path, body) in changes(&project, &class, &class_token, &context, &admin_token) {
        let (status, answer) = ask(method, &path, body);
        // Somebody else's personal token does not even exist for her.
        let wanted = if path.ends_with(&admin_token) { 404 } else { 403 };
        assert_eq!(status, wanted, "{method} {path}: {answer}");
        let why = answer["message"].as_str().unwrap();
        assert!(
            status == 404 || why.contains("administrator") && why.contains("`ada`"),
            "{method} {path}: {why}"
        );
    }
    let settings = server.call("GET", &format!("/api/v3/projects/{project}/settings"), None);
    assert_eq!(settings["data"]["attributes"]["enable_auto_cancel_redundant_workflows"], false);

    for path in [
        "/api/v3/runner/resource",
        "/api/v3/runner/token?resource-class=a/b",
        "/api/v3/runner?namespace=a",
        "/api/v2/project",
        "/api/v2/project/gh/acme/hello/envvar",
        "/api/v2/context?owner-slug=gh/acme",
        "/api/v2/me/collaborations",
        "/api/v1.1/projects",
        "/api/v2/personal-token",
        "/api/v2/personal-token?user=ada",
        "/api/v2/personal-token?user=me",
    ] {
        let (status, answer) = ask("GET", path, Value::Null);
        assert_eq!(status, 200, "{path}: {answer}");
        assert!(!answer.to_string().contains("hunter2-hunter2"), "{path}: {answer}");
    }

    // She runs pipelines: triggers, approves, reruns, cancels.
    let _runner = server.runner("one", &runner);
    let run = "/api/v2/project/gh/acme/hello/pipeline/run";
    let trigger = || {
        let (status, made) = ask("POST", run, json!({ "config": { "content": HOLD } }));
        assert_eq!(status, 201, "{made}");
        let pipeline = made["id"].as_str().unwrap().to_owned();
        let workflows = ask("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), Value::Null).1;
        (pipeline, workflows["items"][0]["id"].as_str().unwrap().to_owned())
    };
    let (pipeline, workflow) = trigger();
    let jobs = ask("GET", &format!("/api/v2/workflow/{workflow}/job"), Value::Null).1;
    let gate = jobs["items"][0]["id"].as_str().unwrap();
    assert_eq!(ask("POST", &format!("/api/v2/workflow/{workflow}/approve/{gate}"), Value::Null).0, 202);
    let jobs = server.ended(&pipeline);
    assert_eq!(jobs[1]["status"], "success", "{jobs:?}");
    let path = format!("/api/v3/jobs/{}/stdout?filter%5Bstep_num%5D=1", jobs[1]["id"].as_str().unwrap());
    let request = runlet::http::Request {
        method: "GET",
        path: &path,
        token: Some(&ada),
        body: Body::Empty,
        timeout: crate::server::ANSWER,
    };
    assert_eq!(server.client.send(&request).unwrap().status, 200);
    assert_eq!(ask("POST", &format!("/api/v2/workflow/{workflow}/rerun"), Value::Null).0, 202);
    let (_, workflow) = trigger();
    assert_eq!(ask("POST", &format!("/api/v2/workflow/{workflow}/cancel"), Value::Null).0, 202);
    let mine = ask("GET", "/api/v2/pipeline?mine=true", Value::Null).1;
    assert_eq!(mine["items"].as_array().unwrap().len(), 2);
    assert_eq!(mine["items"][0]["trigger"]["actor"]["login"], "ada");

    // And ends her own token, which is the end of it.
    let own =
        ask("GET", "/api/v2/personal-token", Value::Null).1["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(ask("DELETE", &format!("/api/v2/personal-token/{own}"), Value::Null).0, 200);
    assert_eq!(server.status_for(&ada), 401);
}

#[test]
fn a_parked_claim_of_an_ended_token_gets_nothing() {
    let server = Server::start();
    server.project();
    let rogue = Rogue::of(&server, "a/b");
    let class = "/api/v3/runner/token?resource-class=a/b";
    let ended = server.call("GET", class, None)["items"][0]["id"].as_str().unwrap().to_owned();
    let made = server.call(
        "POST",
        "/api/v3/runner/token",
        Some(json!({ "resource_class": "a/b", "nickname": "good" })),
    );
    let good = Secret::new(made["token"].as_str().unwrap());
    let claim = |token: &Secret, name: &str| {
        let body = json!({ "name": name, "hostname": "h", "version": "0", "os": "linux", "arch": "x86_64", "nonce": name });
        rogue.send("POST", "/api/v3/runner/claim?wait=50", token, Body::Json(body.to_string().as_bytes()))
    };
    let seen = |name: &str| {
        poll("the claim to be parked", || {
            let seen = server.call("GET", "/api/v3/runner?namespace=a", None);
            let names = seen["items"].as_array().unwrap().iter().any(|runner| runner["name"] == name);
            if names { Ok(()) } else { Err(seen.to_string()) }
        });
        // A runner is in the inventory a moment before it waits. Whether it waits when its token is deleted
        // changes the way to its answer, not the answer: most of the time it does.
        std::thread::sleep(Duration::from_millis(200));
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| claim(&rogue.class, "first"));
        seen("first");
        let second = scope.spawn(|| claim(&good, "second"));
        seen("second");
        server.call("DELETE", &format!("/api/v3/runner/token/{ended}"), None);
        server.trigger("version: 2.1\njobs: {build: {machine: true, resource_class: a/b, steps: [{run: 'true'}]}}\nworkflows: {w: {jobs: [build]}}\n");
        // The first one in line is woken, and passes the task on.
        assert_eq!(first.join().unwrap().0, 401);
        let (status, task) = second.join().unwrap();
        assert_eq!((status, &task["job_name"]), (200, &json!("build")));
    });
}
