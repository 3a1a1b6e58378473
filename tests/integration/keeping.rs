//! Data that goes while a control plane is in use: artifacts beyond a quota, and thousands of old rows.

use crate::server::{ANSWER, Server, one_step};
use crate::storage::faults;
use crate::support::poll;
use crate::support::processes::signal;
use crate::web::reader::Reader;
use runlet::http::{Body, Request};
use rusqlite::{Connection, params};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Three artifacts of 50,000 bytes each.
const ARTIFACTS: &str = "\
version: 2.1
jobs:
  build:
    machine: true
    resource_class: a/b
    steps:
      - run: 'mkdir out; for one in first second third; do echo \"$CIRCLE_PROJECT_REPONAME $one\" > out/$one; truncate -s 50000 out/$one; done'
      - store_artifacts: {path: out, destination: out}
workflows: {w: {jobs: [build]}}
";

/// Ends at once: there is no such class.
const ENDED: &str = "version: 2.1\njobs: {one: {machine: true, resource_class: no/class, steps: [checkout]}}\nworkflows: {w: {jobs: [one]}}\n";

/// Ends the process, changes its database, and starts it again on the same address.
fn change_and_start(server: &mut Server, args: &[&str], change: impl FnOnce(&Connection)) {
    signal(server.child.id(), Signal::TERM);
    server.child.wait().unwrap();
    let database = server.database();
    change(&database);
    database.close().unwrap();
    let address = server.client.url().strip_prefix("http://").unwrap().to_owned();
    server.start_again_with(&address, args);
}

/// Artifacts of a job: their paths on the control plane, by name.
fn artifacts(server: &Server, job: &Value) -> BTreeMap<String, String> {
    let found = server.call("GET", &format!("/api/v3/jobs/{}/artifacts", job["id"].as_str().unwrap()), None);
    let name_and_path = |one: &Value| {
        let url = one["attributes"]["url"].as_str().unwrap();
        let name = url.rsplit('/').next().unwrap().to_owned();
        (name, url.strip_prefix(server.client.url()).unwrap().to_owned())
    };
    found["data"].as_array().unwrap().iter().map(name_and_path).collect()
}

#[test]
fn beyond_its_quota_a_project_loses_the_artifact_that_was_read_longest_ago() {
    let mut server = Server::start();
    server.project();
    server.call("POST", "/api/v2/organization/gh/acme/project", Some(json!({ "name": "other" })));
    let runner = server.runner("one", &server.class_token("a/b"));
    let body = json!({ "config": { "content": ARTIFACTS } });
    let other = server.call("POST", "/api/v2/project/gh/acme/other/pipeline/run", Some(body));
    let pipelines = [server.trigger(ARTIFACTS), other["id"].as_str().unwrap().to_owned()];
    let [job, free] = pipelines.map(|pipeline| server.ended(&pipeline).remove(0));
    drop(runner);
    let all = artifacts(&server, &job);
    assert_eq!(all.keys().collect::<Vec<_>>(), ["first", "second", "third"]);

    // Made one after the other; the first of them is read, so that the second is left alone longest.
    change_and_start(&mut server, &[], |database| {
        for (path, days) in [("first", 4), ("second", 3), ("third", 2)] {
            let sql = "UPDATE artifacts SET created_at_ms = created_at_ms - ?1 WHERE path LIKE '%' || ?2";
            assert_eq!(database.execute(sql, params![days * DAY_MS, path]).unwrap(), 2);
        }
    });
    let first = server.text(&all["first"]);
    assert_eq!(first.len(), 50_000);

    // Of 150,000 bytes two artifacts are within the quota; the other project has none.
    let quotas = ["--quota", "artifacts=120K", "--quota", "artifacts:gh/acme/other=none"];
    change_and_start(&mut server, &quotas, |_| {});
    poll("an artifact to go", || {
        let left = artifacts(&server, &job);
        if left.len() < 3 { Ok(()) } else { Err(format!("{left:?}")) }
    });
    // A pass finds the rows that the one before it left.
    change_and_start(&mut server, &quotas, |_| {});
    assert_eq!(artifacts(&server, &job).keys().collect::<Vec<_>>(), ["first", "third"]);
    assert_eq!(artifacts(&server, &free).len(), 3);
    assert_eq!(server.text(&all["first"]), first);
    let (path, token, body) = (all["second"].as_str(), Some(&server.token), Body::Empty);
    let request = Request { method: "GET", path, token, body, timeout: ANSWER };
    assert_eq!(server.client.send(&request).unwrap().status, 404);
}

/// An answer to a call: its status and its text.
fn answer(server: &Server, path: &str) -> (u16, String) {
    let request =
        Request { method: "GET", path, token: Some(&server.token), body: Body::Empty, timeout: ANSWER };
    let answer = server.client.send(&request).unwrap();
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

/// The action of version 1.1 whose step wrote something, and the path of its output.
fn action(server: &Server) -> (Value, String) {
    let build = server.call("GET", "/api/v1.1/project/gh/acme/hello/1", None);
    let mut actions = build["steps"].as_array().unwrap().iter().map(|step| &step["actions"][0]);
    let action = actions.rfind(|action| action["step"] == 1).unwrap();
    let url = action["output_url"].as_str().unwrap_or_default();
    (action.clone(), url.strip_prefix(server.client.url()).unwrap_or_default().to_owned())
}

#[test]
fn output_that_was_removed_is_never_taken_for_none() {
    let mut server = Server::start();
    server.project();
    let runner = server.runner("one", &server.class_token("a/b"));
    let pipeline = server.trigger(&one_step("echo words"));
    let job = server.ended(&pipeline).remove(0)["id"].as_str().unwrap().to_owned();
    drop(runner);
    let (_, link) = action(&server);
    let step = "?filter%5Bstep_num%5D=1";
    let paths = [
        link.clone(),
        format!("/api/v3/jobs/{job}/stdout{step}"),
        format!("/api/v3/jobs/{job}/stderr{step}"),
        format!("/api/v3/jobs/{job}/stdout/condensed{step}"),
        "/api/private/output/raw/gh/acme/hello/1/output/0/1".to_owned(),
        "/gh/acme/hello/jobs/1/log.txt?step=1".to_owned(),
    ];
    let asked = |server: &Server| paths.clone().map(|path| answer(server, &path));
    let kept = asked(&server);
    assert!(kept.iter().all(|(status, _)| *status == 200), "{kept:?}");
    assert_eq!(kept.iter().filter(|(_, text)| text.contains("words")).count(), 5, "{kept:?}");

    change_and_start(&mut server, &["--keep=output=2d"], |database| {
        let aged = "UPDATE tasks SET stopped_at_ms = stopped_at_ms - ?1";
        assert_eq!(database.execute(aged, [9 * DAY_MS]).unwrap(), 1);
    });
    let database = server.database();
    poll("the output to go", || {
        let sql = "SELECT count(*) FROM tasks WHERE output_gone_at_ms IS NOT NULL";
        let gone: u32 = database.query_row(sql, [], |row| row.get(0)).unwrap();
        if gone == 1 { Ok(()) } else { Err(format!("{gone}")) }
    });
    database.close().unwrap();
    let gone = asked(&server);
    let is_told = |(status, text): &(u16, String)| *status == 410 && text.contains("has been removed");
    assert_eq!(gone.iter().filter(|answer| is_told(answer)).count(), paths.len(), "{gone:?}");
    let (action, other_link) = action(&server);
    assert_eq!((&action["has_output"], answer(&server, &other_link).0), (&json!(true), 410), "{action}");
    let mut reader = Reader::new(server.client.url());
    reader.sign_in(server.token.expose(), "/");
    let page = reader.get("/gh/acme/hello/jobs/1?step=1");
    let wrong = (page.text.contains("has been removed"), page.text.contains("wrote nothing"));
    assert_eq!((page.status, wrong), (200, (true, false)), "{}", page.text);

    change_and_start(&mut server, &["--keep=pipelines=5d"], |database| {
        let aged = "UPDATE pipelines SET created_at_ms = created_at_ms - ?1";
        assert_eq!(database.execute(aged, [9 * DAY_MS]).unwrap(), 1);
    });
    poll("the pipeline to go", || {
        let (status, text) = answer(&server, "/api/v1.1/project/gh/acme/hello/1");
        if status == 404 { Ok(()) } else { Err(format!("{status} {text}")) }
    });
    let (status, text) = answer(&server, &link);
    assert!(status == 404 && text.contains("has been removed"), "{status} {text}");
}

/// Copies the rows of a table for each `n` below a number, with these expressions in place of columns.
fn multiply(database: &Connection, table: &str, times: u32, replaced: &[(&str, &str)]) {
    let mut query = database.prepare("SELECT name FROM pragma_table_info(?1)").unwrap();
    let columns: Vec<String> =
        query.query_map([table], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let value = |column: &String| {
        let found = replaced.iter().find(|(name, _)| name == column);
        found.map_or(column.clone(), |(_, expression)| (*expression).to_owned())
    };
    let values: Vec<String> = columns.iter().map(value).collect();
    let sql = format!(
        "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {times} - 1)
         INSERT INTO {table} ({}) SELECT {} FROM {table}, numbers",
        columns.join(", "),
        values.join(", ")
    );
    database.execute(&sql, []).unwrap();
}

/// Of these the first are ten days old, more than one step of the sweep takes; the others are four.
const OLD: u32 = 520;
const ALL: u32 = 580;
const TESTS: u32 = 10;

/// Copies a pipeline that has ended, with test results for each copy.
fn age_and_multiply(database: &Connection) {
    let pipeline = "printf('00000000-0000-4000-8000-%012d', n)";
    let workflow = "printf('00000000-0000-4000-9000-%012d', n)";
    let job = "printf('00000000-0000-4000-a000-%012d', n)";
    let time =
        |column: &str| format!("{column} - CASE WHEN n < {OLD} THEN {} ELSE {} END", 10 * DAY_MS, 4 * DAY_MS);
    let (created, stopped) = (time("created_at_ms"), time("stopped_at_ms"));
    let times = [("created_at_ms", created.as_str()), ("stopped_at_ms", stopped.as_str())];
    database.execute_batch("BEGIN").unwrap();
    multiply(
        database,
        "pipelines",
        ALL,
        &[&[("id", pipeline), ("number", "n + 100000")], &times[..1]].concat(),
    );
    multiply(database, "pipeline_configs", ALL, &[("pipeline_id", pipeline)]);
    let of_workflow =
        [("id", workflow), ("pipeline_id", pipeline), ("root", workflow), ("workspace_id", workflow)];
    multiply(database, "workflows", ALL, &[&of_workflow[..], &times].concat());
    let of_job =
        [("id", job), ("workflow_id", workflow), ("pipeline_id", pipeline), ("number", "n + 100000")];
    multiply(database, "jobs", ALL, &[&of_job[..], &times].concat());
    let sql = format!(
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {TESTS})
         INSERT INTO test_results SELECT NULL, j.id, 't', 't.xml', 'test ' || n, '', NULL, '', 'success', 1, '', NULL
         FROM jobs j, numbers WHERE j.number >= 100000"
    );
    assert_eq!(database.execute(&sql, []).unwrap(), (ALL * TESTS) as usize);
    let with_tests = "INSERT INTO jobs_with_tests (project_id, name, job_id) SELECT project_id, name, id FROM jobs WHERE number >= 100000";
    database.execute(with_tests, []).unwrap();
    let counters = "UPDATE projects SET next_pipeline_number = 200000, next_job_number = 200000";
    database.execute(counters, []).unwrap();
    database.execute_batch("COMMIT").unwrap();
}

fn ids(database: &Connection, sql: &str) -> BTreeSet<String> {
    let mut query = database.prepare(sql).unwrap();
    query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn thousands_of_old_rows_go_beside_triggers_and_nothing_else_does() {
    let mut server = Server::start();
    server.project();
    let template = server.trigger(ENDED);
    server.ended(&template);
    let mut wanted = BTreeSet::from([template]);
    change_and_start(&mut server, &["--keep", "pipelines=5d"], age_and_multiply);
    wanted.extend((OLD..ALL).map(|n| format!("00000000-0000-4000-8000-{n:012}")));
    // The sweep runs from here on, with a pause after each pipeline: the first triggers come before its end.
    let database = server.database();
    let (mut beside, mut triggered) = (0, BTreeSet::new());
    poll("what is old to go", || {
        triggered.insert(server.trigger(ENDED));
        let sql = "SELECT count(*) FROM pipelines WHERE created_at_ms < (SELECT max(created_at_ms) FROM pipelines) - ?1";
        let old: u32 = database.query_row(sql, [5 * DAY_MS], |row| row.get(0)).unwrap();
        if old == 0 {
            return Ok(());
        }
        beside += 1;
        Err(format!("{old} are left after {beside} triggers"))
    });
    assert!(beside > 0, "all went before anything was triggered");
    for pipeline in &triggered {
        assert_eq!(server.ended(pipeline).len(), 1, "{pipeline}");
    }
    wanted.extend(triggered);
    for sql in ["SELECT id FROM pipelines", "SELECT pipeline_id FROM jobs"] {
        let found = ids(&database, sql);
        let (gone, left) = (wanted.difference(&found), found.difference(&wanted));
        let wrong = (gone.collect::<Vec<_>>(), left.collect::<Vec<_>>());
        assert!(wrong.0.is_empty() && wrong.1.is_empty(), "{sql}: gone or left: {wrong:?}");
    }
    let tests: u32 = database.query_row("SELECT count(*) FROM test_results", [], |row| row.get(0)).unwrap();
    assert_eq!(tests, (ALL - OLD) * TESTS);
    database.close().unwrap();
    assert_eq!(faults(&server.data()), []);
}
