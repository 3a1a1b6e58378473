//! Calls that would be misunderstood are refused in words of this control plane: with a name that is misspelled, an id
//! that is none, at a path with another method, or in a form that nothing reads.

use crate::api::Got;
use crate::server::Server;
use serde_json::{Value, json};

const V1: &str = "/api/v1.1/project/gh/acme/hello";
const V2: &str = "/api/v2/project/gh/acme/hello";
const CONFIG: &str = "version: 2.1\njobs: {a: {type: no-op}}\nworkflows: {w: {jobs: [a]}}\n";

fn assert_refused(got: &Got, status: u16, why: &str, call: &str) {
    let text = String::from_utf8_lossy(&got.body);
    assert!(
        got.status == status && text.contains(why),
        "{call}: {} instead of {status}, {why}: {text}",
        got.status
    );
    // Never the words of the library that serves HTTP.
    for foreign in
        ["deserialize", "Failed to", "Method Not Allowed", "Expected request", "Form requests", "rejection"]
    {
        assert!(!text.contains(foreign), "{call}: {text}");
    }
    let answer: Value = serde_json::from_slice(&got.body).unwrap_or_default();
    assert!(answer["message"].as_str().is_some_and(|message| !message.is_empty()), "{call}: {text}");
}

#[test]
fn a_name_that_is_misspelled_in_a_body_is_not_taken_for_absent() {
    let server = Server::start();
    server.project();
    let run = format!("{V2}/pipeline/run");
    for (path, body, why) in [
        (
            V1,
            json!({ "paralel": 2 }),
            "`paralel` says nothing about a build, did you mean `parallel`? (known: branch, ",
        ),
        (V1, json!({ "build_paramters": {} }), "did you mean `build_parameters`?"),
        (V1, json!({ "parameters": {} }), "`parameters` says nothing about a build"),
        (V1, json!({ "parallel": "many" }), "`parallel` must be a number"),
        (
            &format!("{V1}/tree/main"),
            json!({ "branch": "other" }),
            "the path names the branch `main`, and `branch` of the body `other`",
        ),
        (
            &format!("{V2}/pipeline"),
            json!({ "brnch": "x" }),
            "`brnch` says nothing about a pipeline, did you mean `branch`? (known: branch, tag, parameters)",
        ),
        (&run, json!({ "paramters": {}, "config": { "content": CONFIG } }), "did you mean `parameters`?"),
        (
            &run,
            json!({ "config": { "contents": CONFIG } }),
            "`contents` says nothing about `config`, did you mean `content`?",
        ),
        (
            &run,
            json!({ "config": { "content": CONFIG }, "checkout": { "brnach": "x" } }),
            "`brnach` says nothing about `checkout`, did you mean `branch`?",
        ),
        (
            "/api/v2/pipeline/continue",
            json!({ "continuation-key": "k", "configuration": "c", "parametrs": {} }),
            "did you mean `parameters`?",
        ),
        (
            "/api/v2/context",
            json!({ "name": "c", "owner": { "slgu": "gh/acme" } }),
            "`slgu` says nothing about `owner`",
        ),
        (&format!("{V2}/schedule"), json!({ "descriptoin": "x" }), "did you mean `description`?"),
        (
            "/api/v3/runner/resource",
            json!({ "resource_class": "a/b", "descripton": "x" }),
            "did you mean `description`?",
        ),
        (
            "/api/v3/runner/token",
            json!({ "resource_class": "a/b", "nick": "x" }),
            "`nick` says nothing about a token",
        ),
        (
            "/api/v3/runs/search",
            json!({ "scope": { "project_ids": [], "form": "x" } }),
            "`form` says nothing about `scope`, did you mean `from`?",
        ),
    ] {
        assert_refused(&server.post(path, &body), 400, why, &format!("{path} {body}"));
    }
    let none = server.get(&format!("{V2}/pipeline")).json();
    assert_eq!(none["items"], json!([]), "nothing was started");
    // Bodies of documented clients, with everything that they leave out as null or empty.
    for body in [
        json!({ "config": { "content": CONFIG, "branch": "", "tag": "" }, "checkout": { "branch": "", "tag": "" }, "definition_id": "", "parameters": {} }),
        json!({ "config": { "content": CONFIG }, "parameters": null }),
    ] {
        assert_eq!(server.post(&run, &body).status, 201, "{body}");
    }
    let made = server.post(
        "/api/v3/runner/resource",
        &json!({ "resource_class": "a/b", "description": "", "org_id": "11111111-2222-4333-8444-555555555555" }),
    );
    assert_eq!(made.status, 201);
}

#[test]
fn an_id_that_is_none_and_a_filter_that_is_not_known_are_refused() {
    let server = Server::start();
    server.project();
    let unknown = "11111111-2222-4333-8444-555555555555";
    for (path, why) in [
        ("workflows?filter[run_id]=junk", "`filter[run_id]` is a UUID, not `junk`"),
        ("jobs?filter[workflow_id]=7", "`filter[workflow_id]` is a UUID, not `7`"),
        ("runs?filter[user_id]=you", "`filter[user_id]` is a UUID"),
        ("users?filter[user_id]=you", "`filter[user_id]` is a UUID"),
        ("pipelines?filter[project_id]=gh/acme/hello", "`filter[project_id]` is a UUID"),
        ("triggers?filter[pipeline_id]=x", "`filter[pipeline_id]` is a UUID"),
        ("projects?filter[org_id]=acme", "`filter[org_id]` is a UUID"),
        (
            "projects?filter[org_id]=11111111-2222-4333-8444-555555555555&filter[nmae]=hello",
            "did you mean `name`?",
        ),
        (
            "workflows?filter[run]=11111111-2222-4333-8444-555555555555",
            "`run` says nothing about what is listed",
        ),
        (
            "runs?filter[user_id]=me&page[size]=abc",
            "`page[size]` says nothing about what is listed (known: page[cursor], page[limit], filter[user_id], ",
        ),
        ("runs?filter[user_id]=me&page[limit]=abc", "`page[limit]` must be a number, not `abc`"),
        (
            "runs?filter[user_id]=me&filter[phase",
            "`filter[phase` says nothing about what is listed, did you mean `filter[phase]`?",
        ),
        ("projects?slug=gh/acme/hello", "`slug` says nothing about what is listed"),
        (
            "jobs/x/stdout?step_num=abc",
            "`step_num` says nothing about the output of a step (known: filter[execution], filter[step_num], ",
        ),
        ("jobs/x/stdout?offset=abc", "`offset` says nothing about the output of a step"),
        ("jobs/x/stdout/condensed?filter[node]=1", "`filter[node]` says nothing about the output of a step"),
    ] {
        assert_refused(&server.get(&format!("/api/v3/{path}")), 400, why, path);
    }
    let search = |ids: Value| server.post("/api/v3/runs/search", &json!({ "scope": { "project_ids": ids } }));
    assert_refused(&search(json!(["x"])), 400, "`scope.project_ids` is a UUID", "search");
    assert_refused(&search(json!([7])), 400, "`scope.project_ids` is a UUID", "search");
    // An id that nothing has is none of these: clients wait for what comes.
    for path in [
        format!("workflows?filter[run_id]={unknown}"),
        format!("jobs?filter[workflow_id]={unknown}"),
        format!("projects?filter[org_id]={}", unknown.to_uppercase()),
    ] {
        let got = server.get(&format!("/api/v3/{path}"));
        assert_eq!((got.status, &got.json()["data"]), (200, &json!([])), "{path}");
    }
}

#[test]
fn no_answer_has_the_words_of_the_library_that_serves_it() {
    let server = Server::start();
    server.project();
    let token = format!("Circle-Token: {}", server.token.expose());
    let with = |path: &str, more: &[&str]| server.curl(path, &[&["-H", &token], more].concat());
    let post = |path: &str, kind: &str, body: &str| {
        with(path, &["-X", "POST", "-H", &format!("Content-Type: {kind}"), "-d", body])
    };
    for (path, kind, body, status, why) in [
        ("/login", "text/plain", "x", 415, "the body is no form"),
        ("/api/v3/runner/claim", "text/plain", "{}", 415, "the body is not said to be JSON"),
        ("/api/v3/runner/claim", "application/json", "{", 400, "the body is not JSON"),
        ("/api/v2/me", "application/json", "{}", 405, "this path "),
        ("/gh/acme/hello", "application/json", "{}", 405, "this path "),
    ] {
        let got = post(path, kind, body);
        // A call of a runner is refused for its token first.
        if got.status != 401 {
            assert_refused(&got, status, why, path);
        }
    }
}
