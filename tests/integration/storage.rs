//! The data folder of a control plane: checked, backed up while it is in use, and restored.

use crate::server::{Server, runlet};
use crate::support::poll;
use crate::support::processes::signal;
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

pub(crate) const WORK: &str = "\
version: 2.1
jobs:
  build:
    machine: true
    resource_class: a/b
    steps:
      - run: 'mkdir -p out; seq 1 20000 > out/numbers; seq 1 30000; echo \"<testsuite><testcase name=\\\"t\\\"/></testsuite>\" > out/t.xml'
      - save_cache: {key: 'v1-<< pipeline.number >>', paths: [out]}
      - persist_to_workspace: {root: ., paths: [out]}
      - store_artifacts: {path: out}
      - store_test_results: {path: out}
  next: {machine: true, resource_class: a/b, steps: [{attach_workspace: {at: .}}, {run: 'test -s out/numbers; seq 1 500'}]}
workflows: {w: {jobs: [build, {next: {requires: [build]}}]}}
";

fn numbers(last: u32) -> String {
    (1..=last).map(|n| format!("{n}\n")).collect()
}

pub(crate) fn upkeep(verb: &str, args: &[&Path]) -> Output {
    let mut command = runlet();
    command.args(["server", verb]).args(args).stderr(Stdio::piped());
    command.output().unwrap()
}

/// Faults of a data folder: pairs of kind and sentence.
pub(crate) fn faults(data: &Path) -> Vec<(String, String)> {
    let output = upkeep("check", &[Path::new("--data"), data, Path::new("--json")]);
    let told = String::from_utf8(output.stdout).unwrap();
    let told: Value = serde_json::from_str(&told)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let text = |fault: &Value, key: &str| fault[key].as_str().unwrap().to_owned();
    let faults = told["faults"].as_array().unwrap();
    assert_eq!(output.status.code(), Some(i32::from(!faults.is_empty())));
    faults.iter().map(|fault| (text(fault, "kind"), text(fault, "what"))).collect()
}

fn copy_of(data: &Path, name: &str) -> PathBuf {
    let copy = data.with_file_name(name);
    assert!(Command::new("cp").arg("-a").args([data, &copy]).status().unwrap().success());
    copy
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

fn largest(folder: &Path) -> PathBuf {
    files(folder).into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

fn age(path: &Path) {
    let old = SystemTime::now() - Duration::from_secs(3 * 24 * 60 * 60);
    File::open(path).unwrap().set_modified(old).unwrap();
}

#[test]
fn a_check_finds_what_is_wrong_with_the_files() {
    let mut server = Server::start();
    server.project();
    let runner = server.runner("one", &server.class_token("a/b"));
    let pipeline = server.trigger(WORK);
    assert!(server.ended(&pipeline).iter().all(|job| job["status"] == "success"));
    assert_eq!(faults(&server.data()), [], "beside a running control plane");
    drop(runner);
    signal(server.child.id(), Signal::TERM);
    server.child.wait().unwrap();
    let data = server.data();
    assert_eq!(faults(&data), []);

    type Damage = fn(&Path);
    let damages: [(&str, &str, Damage); 12] = [
        ("upload", "is not there", |data| fs::remove_file(largest(&data.join("objects"))).unwrap()),
        ("upload", "should have", |data| {
            File::options().write(true).open(largest(&data.join("objects"))).unwrap().set_len(5).unwrap();
        }),
        ("upload", "checksum", |data| change_a_byte(&largest(&data.join("objects")))),
        ("output", "should have", |data| {
            File::options().write(true).open(largest(&data.join("output"))).unwrap().set_len(5).unwrap();
        }),
        ("output", "checksum", |data| change_a_byte(&largest(&data.join("output")))),
        // Small outputs are rows.
        ("output", "should have", |data| change(data, "DELETE FROM small_outputs")),
        ("output", "checksum", |data| {
            change(data, "UPDATE small_outputs SET bytes = zeroblob(length(bytes))")
        }),
        ("result", "and its tasks make it success", |data| {
            change(data, "UPDATE jobs SET status = 'failed' WHERE name = 'build'");
        }),
        ("result", "and its jobs make it success", |data| {
            change(data, "UPDATE workflows SET status = 'failed'")
        }),
        ("unnamed", "nothing names the upload", |data| {
            let folder = data.join("objects/ab");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("c".repeat(62)), "").unwrap();
            age(&folder.join("c".repeat(62)));
        }),
        ("unnamed", "which is no task", |data| {
            fs::create_dir(data.join("output/nobody")).unwrap();
            age(&data.join("output/nobody"));
        }),
        ("database", "", |data| {
            let length = fs::metadata(data.join("runlet.db")).unwrap().len();
            let file = File::options().write(true).open(data.join("runlet.db")).unwrap();
            // Pages in the middle, of which some are in use.
            std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xa5; length as usize / 4], length / 2)
                .unwrap();
        }),
    ];
    for (number, (kind, what, damage)) in damages.into_iter().enumerate() {
        let copy = copy_of(&data, &format!("damaged{number}"));
        damage(&copy);
        if kind == "database" {
            // So damaged that it may not be readable at all.
            let output = upkeep("check", &[Path::new("--data"), &copy]);
            assert_eq!(output.status.code(), Some(1));
            continue;
        }
        let found = faults(&copy);
        assert!(found.iter().any(|(k, w)| k == kind && w.contains(what)), "{kind} {what}: {found:?}");
        assert!(found.iter().all(|(k, _)| k == kind), "{found:?}");
    }
    let output = upkeep("check", &[Path::new("--data"), server.folder.path()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("there is no `runlet.db`"), "{text}");
}

fn change(data: &Path, sql: &str) {
    assert!(rusqlite::Connection::open(data.join("runlet.db")).unwrap().execute(sql, []).unwrap() > 0);
}

fn change_a_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_backup_under_load_is_whole_and_comes_back_held() {
    let mut server = Server::start();
    server.project();
    let token = server.class_token("a/b");
    let runners = [server.runner("one", &token), server.runner("two", &token)];
    let backup = server.folder.path().join("backup");
    let data = server.data();
    let back_up = || {
        let output = upkeep("backup", &[Path::new("--data"), &data, &backup, Path::new("--json")]);
        let told: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(output.status.code(), Some(0), "{told}");
        assert_eq!(faults(&backup), []);
        told
    };
    let first = server.trigger(WORK);
    // Copies at every stage of the jobs: before, in the middle, and after.
    let mut pipelines = vec![first.clone()];
    for _ in 0..4 {
        back_up();
        pipelines.push(server.trigger(WORK));
    }
    for pipeline in &pipelines {
        assert!(server.ended(pipeline).iter().all(|job| job["status"] == "success"));
    }
    back_up();
    let again = back_up();
    assert_eq!((&again["files"], again["kept"].as_u64() > Some(5)), (&Value::from(0), true), "{again}");
    assert!(!backup.join("secrets.key").exists() && !backup.join("admin-token").exists());
    let modes = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((modes(&backup), modes(&backup.join("runlet.db"))), (0o700, 0o600));

    // A pipeline waits, and the backup knows of it.
    drop(runners);
    let waiting = server.trigger(WORK);
    back_up();
    signal(server.child.id(), Signal::TERM);
    server.child.wait().unwrap();
    for (target, why) in [(server.folder.path(), "one lies in the other"), (&data.join("in"), "one lies in")]
    {
        let output = upkeep("backup", &[Path::new("--data"), &data, target]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && text.contains(why), "{text}");
    }
    let output = upkeep("restore", &[&backup, Path::new("--data"), &data]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("it is not empty"), "{text}");

    fs::rename(&data, data.with_file_name("lost")).unwrap();
    let output = upkeep("restore", &[&backup, Path::new("--data"), &data]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(faults(&data), []);
    fs::copy(data.with_file_name("lost").join("secrets.key"), data.join("secrets.key")).unwrap();
    let address = server.client.url().strip_prefix("http://").unwrap().to_owned();
    server.start_again(&address);
    let held = server.call("GET", "/api/v3/runner/held-tasks", None);
    assert_eq!(held["items"].as_array().unwrap().len(), 1, "{held}");
    let jobs = server.ended(&first);
    let build = jobs.iter().find(|job| job["name"] == "build").unwrap();
    assert_eq!(server.output(build, 1), numbers(30_000));
    let id = held["items"][0]["id"].as_str().unwrap().to_owned();
    server.call("POST", &format!("/api/v3/runner/held-tasks/{id}/release"), None);
    let _runner = server.runner("three", &token);
    assert!(server.ended(&waiting).iter().all(|job| job["status"] == "success"));

    // Held once: another start is an ordinary one.
    signal(server.child.id(), Signal::TERM);
    server.child.wait().unwrap();
    assert!(!data.join("backup.json").exists());
}

#[test]
fn what_others_could_read_is_closed_by_the_start() {
    let mut server = Server::start();
    signal(server.child.id(), Signal::TERM);
    server.child.wait().unwrap();
    let data = server.data();
    for (path, mode) in [("", 0o755), ("runlet.db", 0o644), ("objects", 0o755), ("secrets.key", 0o600)] {
        fs::set_permissions(data.join(path), Permissions::from_mode(mode)).unwrap();
    }
    File::create(data.join("runlet.db-journal")).unwrap().write_all(b"").unwrap();
    let address = server.client.url().strip_prefix("http://").unwrap().to_owned();
    server.start_again(&address);
    poll("everything to be closed", || {
        let open =
            |path: &&PathBuf| fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o077 != 0);
        let mut all = files(&data);
        all.extend(["", "objects", "output", "partial"].map(|name| data.join(name)));
        match all.iter().find(open) {
            Some(path) => Err(path.display().to_string()),
            None => Ok(()),
        }
    });
}

#[test]
fn what_is_old_goes_and_what_fills_the_disk_is_shown() {
    let mut server = Server::start();
    server.project();
    let runner = server.runner("one", &server.class_token("a/b"));
    let pipelines = [server.trigger(WORK), server.trigger(WORK)];
    let build = pipelines.clone().map(|pipeline| {
        let jobs = server.ended(&pipeline);
        jobs.into_iter().find(|job| job["name"] == "build").unwrap()
    });
    drop(runner);
    let shown = |server: &Server| {
        let token = server.folder.path().join("token");
        fs::write(&token, server.token.expose()).unwrap();
        let mut command = runlet();
        command.args(["admin", "storage", "list", "--json", "--server", server.client.url()]);
        let output = command.arg("--token-file").arg(&token).output().unwrap();
        let items: Value = serde_json::from_slice(&output.stdout).unwrap();
        let of = |kind: &str| {
            let is_it = |item: &&Value| item["kind"] == kind && item["project"] != "-";
            items
                .as_array()
                .unwrap()
                .iter()
                .find(is_it)
                .map(|item| (item["count"].as_u64().unwrap(), item["bytes"].as_u64()))
        };
        assert!(
            items
                .as_array()
                .unwrap()
                .iter()
                .any(|item| item["kind"] == "database" && item["bytes"].as_u64() > Some(0))
        );
        ["output", "artifacts", "caches", "workspaces", "tests"].map(of)
    };
    let [output, artifacts, caches, workspaces, tests] = shown(&server).map(Option::unwrap);
    assert!(output.1 > Some(2 * numbers(30_000).len() as u64), "{output:?}");
    assert!(artifacts.0 == 4 && artifacts.1 > Some(2 * numbers(20_000).len() as u64), "{artifacts:?}");
    assert_eq!((caches.0, workspaces.0, tests), (2, 2, (2, None)));

    // The first of them is made ten days older, the second stays; of the caches the quota leaves none.
    signal(server.child.id(), Signal::TERM);
    server.child.wait().unwrap();
    let database = rusqlite::Connection::open(server.data().join("runlet.db")).unwrap();
    let days = 10 * 24 * 60 * 60 * 1000_i64;
    for (table, times) in
        [("jobs", &["stopped_at_ms"][..]), ("tasks", &["stopped_at_ms"]), ("artifacts", &["created_at_ms"])]
    {
        for time in times {
            let jobs = "(SELECT id FROM jobs WHERE pipeline_id = ?2)";
            let column = if table == "jobs" { "id" } else { "job_id" };
            let sql = format!("UPDATE {table} SET {time} = {time} - ?1 WHERE {column} IN {jobs}");
            database.execute(&sql, rusqlite::params![days, pipelines[0]]).unwrap();
        }
    }
    database.close().unwrap();
    let address = server.client.url().strip_prefix("http://").unwrap().to_owned();
    let mut keep = vec!["--quota", "caches=1T", "--quota", "caches:github/acme/hello=1K"];
    for kind in ["--keep=output=5d", "--keep=tests=5d", "--keep=artifacts=5d"] {
        keep.push(kind);
    }
    server.start_again_with(&address, &keep);
    poll("what is old to go", || {
        let now = shown(&server);
        let [output, artifacts, caches, _, tests] = &now;
        let is_half = artifacts.unwrap_or_default().0 == 2 && tests.unwrap_or_default().0 == 1;
        let is_gone =
            caches.is_none() && output.unwrap_or_default().1 < Some(2 * numbers(30_000).len() as u64);
        if is_half && is_gone { Ok(()) } else { Err(format!("{now:?}")) }
    });
    let get = |job: &Value| {
        let path = format!("/api/v3/jobs/{}/stdout?filter%5Bstep_num%5D=1", job["id"].as_str().unwrap());
        let (token, body) = (Some(&server.token), runlet::http::Body::Empty);
        let request =
            runlet::http::Request { method: "GET", path: &path, token, body, timeout: crate::server::ANSWER };
        server.client.send(&request).unwrap()
    };
    let gone = get(&build[0]);
    assert!(
        gone.status == 410 && String::from_utf8_lossy(&gone.body).contains("has been removed"),
        "{}",
        gone.status
    );
    assert_eq!(get(&build[1]).body, numbers(30_000).into_bytes());
    // The bytes go a moment after their rows.
    poll("a data folder without faults", || {
        let faults = faults(&server.data());
        if faults.is_empty() { Ok(()) } else { Err(format!("{faults:?}")) }
    });

    signal(server.child.id(), Signal::TERM);
    server.child.wait().unwrap();
    let database = rusqlite::Connection::open(server.data().join("runlet.db")).unwrap();
    database
        .execute(
            "UPDATE pipelines SET created_at_ms = created_at_ms - ?1 WHERE id = ?2",
            rusqlite::params![days, pipelines[0]],
        )
        .unwrap();
    database.close().unwrap();
    server.start_again_with(&address, &["--keep", "pipelines=5d"]);
    poll("the old pipeline to go", || {
        let page = server.call("GET", "/api/v2/project/gh/acme/hello/pipeline", None);
        let ids: Vec<_> =
            page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
        if ids == [&pipelines[1]] { Ok(()) } else { Err(format!("{ids:?}")) }
    });
    assert_eq!(server.output(&build[1], 1), numbers(30_000));
    assert_eq!(faults(&server.data()), []);
}
