//! Needs of public clients beyond reading one pipeline: builds of version 1.1 started and sought, downloads, insights,
//! names and ids in every form, and refusals of what would be misunderstood.

use crate::api::Got;
use crate::repositories::Work;
use crate::server::{Runner, Server};
use serde_json::{Value, json};

const PROJECT: &str = "/api/v1.1/project/github/acme/hello";
const BRANCH: &str = "feature/deep/x";

/// `build` leaves an artifact, and a test that fails until the flag is there; `quick` leaves nothing.
fn config(flag: &str) -> String {
    format!(
        "\
version: 2.1
jobs:
  build:
    machine: true
    resource_class: acme/linux
    steps:
      - run: |
          echo hello; mkdir out; printf 0123456789 > 'out/a ü.txt'
          ok='<testcase classname=\"c\" name=\"sure\" time=\"0.5\"/>'
          if test -e {flag}; then bad=''; else bad='<failure message=\"why\"/>'; fi
          printf '<testsuite name=\"s\">%s<testcase classname=\"c\" name=\"shaky\" file=\"f.c\" time=\"2\">%s</testcase></testsuite>' \"$ok\" \"$bad\" > t.xml
      - store_artifacts: {{path: out}}
      - store_test_results: {{path: t.xml}}
      - run: test -e {flag}
  quick: {{machine: true, resource_class: acme/linux, steps: [{{run: 'true'}}]}}
workflows:
  w:
    jobs: [build, {{quick: {{requires: [build]}}}}]
"
    )
}

struct Bench {
    server: Server,
    _runner: Runner,
    flag: std::path::PathBuf,
}

fn bench() -> Bench {
    let server = Server::start();
    server.project();
    let runner = server.runner("one", &server.class_token("acme/linux"));
    let flag = server.folder.path().join("flag");
    let work = Work::new(server.folder.path());
    work.commit_config(&config(&flag.display().to_string()), "the first\n\nand only");
    work.git(&["branch", BRANCH]);
    server.register(&work.url());
    Bench { server, _runner: runner, flag }
}

impl Bench {
    fn got(&self, path: &str) -> Value {
        let Got { status, body, .. } = self.server.get(path);
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    fn numbers(&self, query: &str) -> Vec<i64> {
        let builds = self.got(&format!("{PROJECT}{query}"));
        builds.as_array().unwrap().iter().map(|build| build["build_num"].as_i64().unwrap()).collect()
    }

    /// The pipeline of the only project with this number.
    fn pipeline(&self, number: u32) -> String {
        let pipeline = self.got(&format!("/api/v2/project/gh/acme/hello/pipeline/{number}"));
        pipeline["id"].as_str().unwrap().to_owned()
    }

    fn refused(&self, got: &Got, status: u16, why: &str) {
        let text = String::from_utf8_lossy(&got.body);
        assert!(got.status == status && text.contains(why), "{} instead of {status}: {text}", got.status);
    }
}

#[test]
fn builds_are_started_sought_downloaded_and_added_up() {
    let bench = bench();
    let server = &bench.server;
    let nothing = server.get(&format!("{PROJECT}/latest/artifacts"));
    bench.refused(&nothing, 404, "artifacts");

    // The first build is that of the branch, whose name has slashes; it fails.
    let started = server.post(&format!("{PROJECT}/tree/{BRANCH}"), &json!({ "parallel": null, "tag": "" }));
    assert_eq!(started.status, 200);
    let started = started.json();
    assert_eq!(
        (&started["build_num"], &started["branch"], &started["workflows"]["job_name"]),
        (&json!(1), &json!(BRANCH), &json!("build"))
    );
    let first = bench.pipeline(1);
    let jobs = server.ended(&first);
    assert_eq!((&jobs[0]["status"], &jobs[1]["status"]), (&json!("failed"), &json!("not_run")));
    std::fs::write(&bench.flag, "").unwrap();

    // Run again on the same commit it succeeds, and what it ran before is kept in the next rerun.
    let workflows = bench.got(&format!("/api/v2/pipeline/{first}/workflow"));
    let workflow = workflows["items"][0]["id"].as_str().unwrap().to_owned();
    let rerun = |id: &str, body: Value| server.post(&format!("/api/v2/workflow/{id}/rerun"), &body);
    for (body, why) in [
        (json!({ "jobs": [] }), "names no job"),
        (json!({ "from_failed": false, "jobs": [] }), "names no job"),
        (json!({ "jobs": [7] }), "ids of jobs"),
        (json!({ "jobs": "all" }), "`jobs`"),
        (json!({ "job": ["x"] }), "`job`"),
        (json!({ "sparse_tree": true }), "needs `jobs`"),
        (json!({ "from_failed": "yes" }), "true or false"),
        (json!([]), "object"),
    ] {
        bench.refused(&rerun(&workflow, body), 400, why);
    }
    let again = rerun(&workflow, json!({ "from_failed": true, "sparse_tree": false }));
    assert_eq!(again.status, 202);
    let again = again.json()["workflow_id"].as_str().unwrap().to_owned();
    server.ended(&first);
    let jobs = bench.got(&format!("/api/v2/workflow/{again}/job"));
    let quick = jobs["items"][1]["id"].as_str().unwrap();
    let third = rerun(&again, json!({ "jobs": [quick] }));
    assert_eq!(third.status, 202);
    let third = third.json()["workflow_id"].as_str().unwrap().to_owned();
    server.ended(&first);
    // Builds so far: 1 build failed, 2 quick that did not run, 3 build, 4 quick, 5 quick again.
    let job = bench.got("/api/v2/project/gh/acme/hello/job/3");
    assert_eq!(job["latest_workflow"]["id"], json!(third), "the last that has its result");
    assert_eq!(bench.got("/api/v2/project/gh/acme/hello/job/1")["latest_workflow"]["id"], json!(workflow));

    // The filter comes before the limit, and the branch is one of several segments.
    assert_eq!(bench.numbers(""), [5, 4, 3, 2, 1]);
    assert_eq!(bench.numbers("?filter=failed&limit=1"), [1]);
    assert_eq!(bench.numbers("?filter=successful&limit=2&offset=1"), [4, 3]);
    assert_eq!(bench.numbers("?filter=running"), [0; 0]);
    assert_eq!(bench.numbers(&format!("/tree/{BRANCH}?filter=completed&limit=1")), [5]);
    assert_eq!(bench.numbers("/tree/feature%2Fdeep%2Fx?limit=1"), [5]);
    assert_eq!(bench.numbers("/tree/main"), [0; 0]);
    bench.refused(&server.get(&format!("{PROJECT}?filter=good")), 400, "successful");

    // The newest build that left artifacts is not the newest build.
    let latest = bench.got(&format!("{PROJECT}/latest/artifacts?branch={BRANCH}&filter=successful"));
    let failed = bench.got(&format!("{PROJECT}/latest/artifacts?filter=failed"));
    assert_ne!(latest[0]["url"], failed[0]["url"]);
    assert_eq!(server.get(&format!("{PROJECT}/latest/artifacts?branch=main")).status, 404);
    downloads(&bench, latest[0]["url"].as_str().unwrap());

    // The time of output is that of its step, at every request.
    let build = bench.got(&format!("{PROJECT}/1"));
    let steps = build["steps"].as_array().unwrap();
    let action = steps.iter().map(|step| &step["actions"][0]).find(|action| action["has_output"] == true);
    let action = action.unwrap();
    let url = action["output_url"].as_str().unwrap().strip_prefix(server.client.url()).unwrap();
    assert_eq!(server.curl(url, &[]).json()[0]["time"], action["start_time"]);
    insights(&bench, &workflow);
}

fn downloads(bench: &Bench, url: &str) {
    let server = &bench.server;
    let path = url.strip_prefix(server.client.url()).unwrap();
    assert!(path.ends_with("/out/a%20%C3%BC.txt"), "{path}");
    let token = format!("Circle-Token: {}", server.token.expose());
    let part = |range: &str, more: &str| {
        let range = format!("Range: {range}");
        server.curl(path, &["-H", &token, "-H", &range, "-H", more])
    };
    let whole = server.get(path);
    assert_eq!((whole.status, whole.body.as_slice()), (200, &b"0123456789"[..]));
    let named = "filename=\"a _.txt\"; filename*=utf-8''a%20%c3%bc.txt";
    assert!(whole.headers.contains(named), "{}", whole.headers);
    let tag = whole.headers.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().trim().to_owned();
    for (range, more, status, body) in [
        ("bytes=2-4", "X: y".to_owned(), 206, &b"234"[..]),
        ("bytes=-3", "X: y".to_owned(), 206, b"789"),
        ("bytes=8-99", "X: y".to_owned(), 206, b"89"),
        ("bytes=0-1,4-5", "X: y".to_owned(), 200, b"0123456789"),
        ("bytes=2-4", format!("If-Range: {tag}"), 206, b"234"),
        ("bytes=2-4", "If-Range: \"other\"".to_owned(), 200, b"0123456789"),
    ] {
        let got = part(range, &more);
        assert_eq!((got.status, got.body.as_slice()), (status, body), "{range} {more}");
    }
    for (known, is_it) in [
        (tag.clone(), true),
        (format!("\"other\", W/{tag}"), true),
        ("*".to_owned(), true),
        ("\"other\"".to_owned(), false),
    ] {
        let known = format!("If-None-Match: {known}");
        for range in ["X: y", "Range: bytes=2-4"] {
            let got = server.curl(path, &["-H", &token, "-H", &known, "-H", range]);
            let status = if is_it {
                304
            } else if range == "X: y" {
                200
            } else {
                206
            };
            assert_eq!((got.status, got.body.is_empty()), (status, is_it), "{known} {range}");
            assert!(got.headers.contains(&tag), "{}", got.headers);
        }
    }
    assert!(part("bytes=2-4", "X: y").headers.contains("content-range: bytes 2-4/10"));
    let outside = part("bytes=10-", "X: y");
    assert!(outside.headers.contains("content-range: bytes */10"), "{}", outside.headers);
    bench.refused(&outside, 416, "10 bytes");
    let id = path.strip_suffix("/out/a%20%C3%BC.txt").unwrap();
    assert_eq!(server.get(id).body, b"0123456789");
    assert_eq!(server.get(&format!("{id}/out/other.txt")).status, 404);
}

/// The workflow `w` failed, succeeded, and succeeded again; `build` ran twice on one commit, its test went both ways.
fn insights(bench: &Bench, workflow: &str) {
    let of = "/api/v2/insights/gh/acme/hello";
    let all = bench.got(&format!("{of}/workflows?branch={BRANCH}&reporting-window=last-7-days"));
    let (item, metrics) = (&all["items"][0], &all["items"][0]["metrics"]);
    assert_eq!((&item["name"], &all["next_page_token"]), (&json!("w"), &Value::Null));
    let counts = ["total_runs", "successful_runs", "failed_runs", "total_recoveries"];
    assert_eq!(counts.map(|name| metrics[name].as_u64()), [3, 2, 1, 1].map(Some), "{metrics}");
    assert_eq!(metrics["success_rate"].as_f64(), Some(2.0 / 3.0));
    assert!(metrics["duration_metrics"]["max"].is_u64() && item["window_start"].is_string(), "{item}");
    assert_eq!(bench.got(&format!("{of}/workflows"))["items"], json!([]), "none of the default branch");

    let runs = bench.got(&format!("{of}/workflows/w?all-branches=true"));
    let statuses: Vec<_> =
        runs["items"].as_array().unwrap().iter().map(|run| run["status"].clone()).collect();
    assert_eq!(statuses, ["success", "success", "failed"]);
    assert_eq!((&runs["items"][2]["id"], &runs["items"][2]["branch"]), (&json!(workflow), &json!(BRANCH)));
    let future = bench.got(&format!(
        "{of}/workflows/w?all-branches=true&start-date=2100-01-01T00:00:00Z&end-date=2101-01-01T00:00:00Z"
    ));
    assert_eq!(future["items"], json!([]));

    let jobs = bench.got(&format!("{of}/workflows/w/jobs?all-branches=true"));
    let total = |job: usize| jobs["items"][job]["metrics"]["total_runs"].clone();
    assert_eq!((total(0), total(1)), (json!(2), json!(2)), "kept results do not count: {jobs}");
    let builds = bench.got(&format!("{of}/workflows/w/jobs/build?all-branches=true"));
    assert_eq!(
        (&builds["items"][0]["status"], &builds["items"][1]["status"]),
        (&json!("success"), &json!("failed"))
    );
    let summary = bench.got(&format!("{of}/workflows/w/summary?all-branches=true"));
    assert_eq!(
        (&summary["metrics"]["completed_runs"], &summary["workflow_names"], &summary["trends"]["total_runs"]),
        (&json!(3), &json!(["w"]), &json!(0.0))
    );
    assert_eq!(bench.got(&format!("{of}/branches"))["branches"], json!([BRANCH]));
    assert_eq!(bench.got(&format!("{of}/branches?workflow-name=w"))["branches"], json!([BRANCH]));
    bench.refused(&bench.server.get(&format!("{of}/branches?workflow-name=x")), 404, "a workflow `x`");
    let title_case = bench.got(&format!("{of}/workflows/w?all-branches=True"));
    assert_eq!(title_case["items"].as_array().map(Vec::len), Some(3));

    let flaky = bench.got(&format!("{of}/flaky-tests"));
    assert_eq!((&flaky["total_flaky_tests"], &flaky["flaky-tests"]), (&json!(1), &flaky["flaky_tests"]));
    let test = &flaky["flaky_tests"][0];
    assert_eq!(
        ["test-name", "job-name", "workflow-name", "classname", "file"].map(|name| test[name].as_str()),
        ["shaky", "build", "w", "c", "f.c"].map(Some)
    );
    assert_eq!(
        ["job_number", "pipeline-number", "times-flaked"].map(|name| test[name].as_u64()),
        [1, 1, 1].map(Some)
    );
    let tests = bench.got(&format!("{of}/workflows/w/test-metrics?all-branches=true"));
    let worst = &tests["most_failed_tests"][0];
    assert_eq!(
        (&worst["test_name"], &worst["flaky"], &worst["total_runs"]),
        (&json!("shaky"), &json!(true), &json!(2))
    );
    assert_eq!((&tests["total_test_runs"], &tests["average_test_count"]), (&json!(2), &json!(2)), "{tests}");
    let rates: Vec<_> =
        tests["test_runs"].as_array().unwrap().iter().map(|run| run["success_rate"].as_f64()).collect();
    assert_eq!(rates, [Some(1.0), Some(0.5)]);
    for (path, why) in [
        ("workflows/ww", "no pipeline of the project has a workflow `ww` (known: w)"),
        ("workflows/nope/summary", "no pipeline of the project has a workflow `nope` (known: w)"),
        ("workflows/nope/jobs", "a workflow `nope`"),
        ("workflows/nope/test-metrics", "a workflow `nope`"),
        ("workflows/nope/jobs/build", "a workflow `nope`"),
        ("workflows/w/jobs/biuld", "a job `biuld`, did you mean `build`? (known: build, quick)"),
    ] {
        bench.refused(&bench.server.get(&format!("{of}/{path}")), 404, why);
    }
    // Workflows and jobs that ran on another branch, or at another time, are known.
    assert_eq!(bench.got(&format!("{of}/workflows/w/jobs/build"))["items"], json!([]));
    let refused = bench.server.get(&format!("{of}/workflows?reporting-window=ever"));
    bench.refused(&refused, 400, "last-90-days");
    let future = "all-branches=true&start-date=2100-01-01T00:00:00Z&end-date=2101-01-01T00:00:00Z";
    assert_eq!(bench.got(&format!("{of}/workflows?{future}"))["items"], json!([]));
    assert_eq!(bench.got(&format!("{of}/workflows/w/jobs?{future}"))["items"], json!([]));
    let summary = bench.got(&format!("{of}/workflows/w/summary?{future}"));
    assert_eq!(summary["metrics"]["completed_runs"], json!(0));
    let tests = bench.got(&format!("{of}/workflows/w/test-metrics?{future}"));
    assert_eq!(tests["total_test_runs"], json!(0), "{tests}");
    for path in [
        "workflows",
        "workflows/w",
        "workflows/w/summary",
        "workflows/w/jobs",
        "workflows/w/jobs/build",
        "workflows/w/test-metrics",
        "branches",
        "flaky-tests",
    ] {
        let refused = bench.server.get(&format!("{of}/{path}?start-date=garbage"));
        bench.refused(&refused, 400, "`start-date`");
    }
}

/// The ways in which scripts start the builds of version 1.1.
#[test]
fn builds_are_started_by_forms_and_by_the_short_call() {
    let bench = bench();
    let token = format!("Circle-Token: {}", bench.server.token.expose());
    let curl = |path: &str, options: &[&str]| {
        bench.server.curl(&format!("{PROJECT}{path}"), &[&["-H", &token][..], options].concat())
    };
    for (path, options, branch) in [
        ("/build", &["-X", "POST"][..], "main"),
        ("/build", &["-d", "branch=feature%2Fdeep%2Fx"], BRANCH),
        // A body of JSON that curl calls a form.
        ("/build", &["-d", "{\"branch\": \"feature/deep/x\"}"], BRANCH),
    ] {
        assert_eq!(
            curl(path, options).json(),
            json!({ "status": 200, "body": "Build created" }),
            "{options:?}"
        );
        let newest = bench.got("/api/v2/project/gh/acme/hello/pipeline")["items"][0].clone();
        assert_eq!(newest["vcs"]["branch"], json!(branch), "{options:?}");
    }
    assert_eq!(curl("", &["-d", "branch=main"]).json()["branch"], json!("main"));
    assert_eq!(curl("/tree/main", &["-d", "tag="]).json()["branch"], json!("main"));
    let pipelines = bench.got("/api/v2/project/gh/acme/hello/pipeline")["items"].as_array().map(Vec::len);
    for (path, options, why) in [
        ("/build", &["-d", "brunch=main"][..], "did you mean `branch`"),
        ("/build", &["-d", "branch=main&branch=other"], "more than once"),
        ("", &["-d", "[1]"], "says nothing about a build"),
        ("/build", &["-H", "content-type: text/plain", "-d", "branch=main"], "not JSON"),
    ] {
        bench.refused(&curl(path, options), 400, why);
    }
    assert_eq!(
        bench.got("/api/v2/project/gh/acme/hello/pipeline")["items"].as_array().map(Vec::len),
        pipelines
    );
}

#[test]
fn names_and_ids_are_known_in_every_form() {
    let server = Server::start();
    server.project();
    let project = server.get("/api/v2/project/gh/acme/hello").json();
    let (id, owner) = (project["id"].as_str().unwrap(), project["organization_id"].as_str().unwrap());
    for slug in [
        format!("circleci/{owner}/{id}"),
        format!("circleci%2F{owner}%2F{id}"),
        format!("circleci/{}/{}", owner.to_uppercase(), id.to_uppercase()),
        id.to_owned(),
        "github%2Facme%2Fhello".to_owned(),
    ] {
        assert_eq!(server.get(&format!("/api/v2/project/{slug}")).json()["id"], json!(id), "{slug}");
        assert_eq!(server.get(&format!("/api/v2/project/{slug}/pipeline")).status, 200, "{slug}");
        assert_eq!(server.get(&format!("/api/v1.1/project/{slug}")).json(), json!([]), "{slug}");
        if !slug.contains('%') {
            let found = server.get(&format!("/api/v3/projects?filter[slug]={slug}")).json();
            assert_eq!(found["data"][0]["id"], json!(id), "{slug}");
        }
    }
    assert_eq!(server.get(&format!("/api/v2/project/circleci/{id}/{id}")).status, 404, "of another owner");
    for slug in ["gh/acme".to_owned(), format!("circleci/{owner}"), owner.to_owned()] {
        let found = server.get(&format!("/api/v3/orgs?filter[slug]={slug}")).json();
        assert_eq!(found["data"][0]["id"], json!(owner), "{slug}");
        assert_eq!(server.get(&format!("/api/v2/context?owner-slug={slug}")).status, 200, "{slug}");
        assert_eq!(server.get(&format!("/api/v2/pipeline?org-slug={slug}")).status, 200, "{slug}");
    }
    let made = server.post(&format!("/api/v2/organization/{owner}/project"), &json!({ "name": "other" }));
    assert_eq!((made.status, &made.json()["slug"]), (201, &json!("gh/acme/other")));

    let token = server.token.expose();
    for header in [format!("bearer {token}"), format!("BEARER  {token}"), token.to_owned()] {
        let got = server.curl("/api/v2/me", &["-H", &format!("Authorization: {header}")]);
        assert_eq!((got.status, &got.json()["name"]), (200, &json!("Administrator")), "{header}");
    }
    assert_eq!(server.get("/api/v1.1/me").json()["name"], "Administrator");
    let users = server.get("/api/v3/users?filter[user_id]=me").json();
    assert_eq!(users["data"][0]["attributes"], json!({ "name": "Administrator", "login": "admin" }));

    for path in [
        "/api/v2/project/gh/acme/hello/job/one",
        "/api/v2/project/gh/acme/hello/pipeline/one",
        "/api/v2/project/gh/acme/hello/one/tests",
        "/api/v1.1/project/gh/acme/hello/one",
        "/api/private/output/raw/gh/acme/hello/one/output/0/1",
    ] {
        let got = server.get(path);
        let message = got.json()["message"].as_str().unwrap().to_owned();
        assert!(
            got.status == 404 && message.contains("`one` stands where a number belongs"),
            "{path}: {message}"
        );
    }
    // Nor is one of more digits than any number has.
    for (path, status) in [
        ("/api/v2/project/gh/acme/hello/job/99999999999999999999", 404),
        ("/api/v1.1/project/gh/acme/hello/99999999999999999999", 404),
        ("/api/v1.1/project/gh/acme/hello?limit=99999999999999999999", 400),
    ] {
        let got = server.get(path);
        let message = got.json()["message"].as_str().unwrap().to_owned();
        assert!(
            got.status == status && message.contains("as large as `99999999999999999999`"),
            "{path}: {message}"
        );
    }
    definitions(&server, id);
    namespaces(&server, owner);
}

fn definitions(server: &Server, project: &str) {
    let of = format!("/api/v2/projects/{project}/pipeline-definitions");
    let list = server.get(&of).json();
    let definition = &list["items"][0];
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(definition["config_source"]["file_path"], ".circleci/config.yml");
    assert_eq!(definition["config_source"]["repo"]["full_name"], "acme/hello");
    let id = definition["id"].as_str().unwrap();
    assert_eq!(server.get(&format!("{of}/{id}")).json(), *definition);
    assert_eq!(server.get(&format!("{of}/{id}/triggers")).json()["items"], json!([]));
    assert_eq!(server.get(&format!("{of}/other")).status, 404);
    assert_eq!(server.post(&of, &json!({ "name": "x" })).status, 400);
    let v3 = server.get(&format!("/api/v3/pipelines?filter[project_id]={project}")).json();
    assert_eq!(
        (&v3["data"][0]["id"], &v3["data"][0]["references"]["project"]["id"], &v3["page"]["next"]),
        (&json!(id), &json!(project), &Value::Null)
    );
    let triggers = format!("/api/v3/triggers?filter[project_id]={project}&filter[pipeline_id]={id}");
    assert_eq!(server.get(&triggers).json()["data"], json!([]));
    assert_eq!(server.get("/api/v3/pipelines").status, 400);
    // The one definition may be named where a pipeline is started; another is not the same by chance.
    let run = |definition: &str| {
        let body = json!({ "definition_id": definition, "config": { "content": "version: 2.1\njobs: {a: {type: no-op}}\nworkflows: {w: {jobs: [a]}}\n" } });
        server.post("/api/v2/project/gh/acme/hello/pipeline/run", &body).status
    };
    assert_eq!((run(id), run(""), run("11111111-2222-4333-8444-555555555555")), (201, 201, 404));
}

fn namespaces(server: &Server, owner: &str) {
    assert_eq!(server.get("/api/v3/namespaces?filter[name]=none").status, 404);
    let made = server.post("/api/v3/namespaces", &json!({ "name": "tools", "org_id": owner }));
    assert_eq!(made.status, 201);
    assert_eq!(server.post("/api/v3/namespaces", &json!({ "name": "no/good" })).status, 400);
    server.class_token("tools/linux");
    let found = server.get("/api/v3/namespaces?filter[name]=tools").json();
    assert_eq!(
        (&found["data"], &found["data"]["attributes"]["name"]),
        (&made.json()["data"], &json!("tools"))
    );
    let releases = server.curl("/api/v3/tool/releases?filter[tool]=circleci-cli", &[]).json();
    assert!(releases["data"][0]["attributes"]["version"].is_string(), "{releases}");
    let settings = format!("/api/v3/orgs/{owner}/settings");
    assert_eq!(server.get(&settings).json(), json!({ "data": { "attributes": {} } }));
    let update = format!("/api/v3/orgs/{owner}/update-settings");
    assert!(
        server.post(&update, &json!({ "is_oss": true })).json()["message"]
            .as_str()
            .unwrap()
            .contains("is_oss")
    );
    let followed = server.get("/api/private/me/followed-projects").json();
    assert_eq!(
        followed["items"][0],
        json!({ "name": "hello", "slug": "gh/acme/hello", "vcs_type": "github" })
    );
    let long = "x".repeat(201);
    for (path, body) in [
        ("/api/v3/runner/resource", json!({ "resource_class": "a/b", "description": long })),
        ("/api/v3/runner/resource", json!({ "resource_class": "a/b", "description": 7 })),
        ("/api/v3/runner/token", json!({ "resource_class": "tools/linux", "nickname": long })),
        ("/api/v3/runner/token", json!({ "resource_class": "tools/linux", "nickname": "a\nb" })),
    ] {
        let got = server.post(path, &body);
        assert_eq!(got.status, 400, "{path} {body}");
    }
    assert_eq!(server.get("/api/v3/runner/resource?namespace=a").json()["items"], json!([]));
}
