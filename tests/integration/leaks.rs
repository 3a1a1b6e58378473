//! Things that a job should not tell, hold up or reach: secrets in whatever is stored, paths that are no files,
//! links out of its folders, the memory of the runner; and the operator's rules and log about who does what.

use crate::secrets::files_with;
use crate::server::{Runner, Server, runlet};
use crate::support::control_plane::ControlPlane;
use crate::support::processes;
use crate::support::runner::{Machine, as_ordinary_user, task_of};
use crate::support::seen::Seen;
use serde_json::{Value, json};
use std::process::Stdio;

/// A control plane with a project and a runner with further settings and variables.
fn stage(settings: &str, variables: &[(&str, &str)]) -> (Server, Runner) {
    let server = Server::start();
    server.project();
    let token = server.class_token("a/b");
    let folder = server.folder.path().join("one");
    std::fs::create_dir_all(&folder).unwrap();
    let text = format!(
        "api:\n  url: {}\n  auth_token: {token}\nrunner:\n  name: one\n  working_directory: {dir}/work\n  state_directory: {dir}/state\n  task_agent_directory: {dir}/bin\n  cleanup_working_directory: true\n{settings}",
        server.client.url(),
        dir = folder.display()
    );
    std::fs::write(folder.join("runner.yaml"), text).unwrap();
    let mut command = runlet();
    command.args(["machine", "--config"]).arg(folder.join("runner.yaml")).envs(variables.iter().copied());
    let runner = Runner(command.stdout(Stdio::null()).spawn().unwrap());
    (server, runner)
}

fn config(jobs: &str) -> String {
    format!("version: 2.1\n{jobs}")
}

/// A job of these steps.
fn job(steps: &str) -> String {
    config(&format!(
        "jobs:\n  j:\n    machine: true\n    resource_class: a/b\n    steps:\n{steps}\nworkflows: {{w: {{jobs: [j]}}}}\n"
    ))
}

fn outputs(seen: &Seen) -> String {
    let steps = seen.jobs.iter().flat_map(|job| &job.steps);
    steps.map(|step| String::from_utf8_lossy(&step.output).into_owned()).collect()
}

const SECRET: &str = "it's <41> & \"42\"";
/// Made by the job, which adds it.
const LATER: &str = "later-0123456789";
const PASSWORD: &str = "pr0xy-pass";

const TELLS: &str = r#"
      - run: |
          printf 'later-%s' 0123456789 > later
          circleci-agent secret add < later
          cat later; echo
      - run: |
          echo "$HTTPS_PROXY"; printf 'a%sz' "$SECRET" | base64
      - run: |
          mkdir out reports
          echo 1 > "out/$(cat later).txt"; echo 2 > "out/$SECRET.txt"
          printf '<testsuite><testcase name="%s" time="1" classname="c"><failure message="m">got %s</failure></testcase><testcase name=%s classname="later-\033[1m0123456789&#27;[m"/></testsuite>' \
            "it&#39;s &lt;41&gt; &amp; &quot;42&#34;" "$(cat later)" "$(cat later)" > reports/r.xml
      - store_artifacts: {path: out}
      - store_test_results: {path: reports}
      - save_cache: {key: 'v1-{{ .Environment.SECRET }}-{{ checksum "later" }}', paths: [later]}
      - run: rm later
      - restore_cache: {keys: ['v1-{{ .Environment.SECRET }}-']}
      - run: test -s later && exec "$(cat later)"
"#;

#[test]
fn nothing_that_is_stored_tells_a_secret() {
    let proxy = format!("http://me:{PASSWORD}@proxy.example:3128");
    let (server, runner) = stage("  mask_forms: [base64, url]\n", &[("HTTPS_PROXY", &proxy)]);
    let body = json!({ "name": "SECRET", "value": SECRET });
    assert_eq!(server.answer("POST", "/api/v2/project/gh/acme/hello/envvar", Some(body)).0, 201);
    let pipeline = server.trigger(&job(TELLS));
    let jobs = server.ended(&pipeline);
    let seen = Seen::watch(&server, &pipeline);
    let output = outputs(&seen);
    for part in [
        "\n****\n",
        "http://me:****@proxy.example:3128\n",
        "stored `out/****.txt`",
        "stored `out/****-2.txt`",
        "stored `r.xml` (2 tests)",
        "saved the cache `v1-****",
        "found the cache `v1-****",
    ] {
        assert!(format!("\n{output}").contains(part), "no {part:?} in {seen}");
    }
    assert_eq!(seen.jobs[0].status, "failed", "{seen}");
    let number = jobs[0]["job_number"].as_u64().unwrap();
    let tests = server.call("GET", &format!("/api/v2/project/gh/acme/hello/{number}/tests"), None);
    let test = &tests["items"][0];
    assert_eq!((&test["name"], &test["message"]), (&json!("****"), &json!("m\n\ngot ****")), "{tests}");
    // Names are as the reader of the file makes them: without quotation marks, and without colours.
    let test = &tests["items"][1];
    assert_eq!((&test["name"], &test["classname"]), (&json!("****"), &json!("****")), "{tests}");
    let artifacts = server.call("GET", &format!("/api/v2/project/gh/acme/hello/{number}/artifacts"), None);
    let mut names: Vec<_> =
        artifacts["items"].as_array().unwrap().iter().map(|item| item["path"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["out/****-2.txt", "out/****.txt"], "{artifacts}");
    // Files are stored as they are; here one does hold it: the cache.
    drop(runner);
    let forms = [SECRET, PASSWORD, "aXQncyA8NDE+ICYgIjQyI"];
    assert_eq!(files_with(&server.data(), &forms), Vec::<String>::new());
    let objects = server.data().join("objects");
    assert_eq!(files_with(&objects, &["&lt;41", "&#60;41", "&#39;s"]), Vec::<String>::new());
    let told = files_with(&server.data(), &[LATER]);
    assert!(told.iter().all(|file| file.contains("/objects/")) && told.len() <= 1, "{told:?}");
}

#[test]
fn paths_that_are_no_files_are_told_and_skipped() {
    let (server, _runner) = stage("", &[]);
    let steps = r#"
      - run: mkdir d && mkfifo fifo d/fifo d/fifo.xml && echo x > d/x
      - store_artifacts: {path: fifo}
      - store_artifacts: {path: d}
      - store_artifacts: {path: /dev/zero}
      - store_artifacts: {path: /proc/kmsg}
      - store_test_results: {path: fifo}
      - store_test_results: {path: d}
      - save_cache: {key: a, paths: [fifo, d]}
      - persist_to_workspace: {root: ., paths: [fifo, d]}
      - run: {command: 'true', when: always}
      - save_cache: {key: 'k-{{ checksum "fifo" }}', paths: [d]}
"#;
    let seen = Seen::watch(&server, &server.trigger(&job(steps)));
    let output = outputs(&seen);
    for part in [
        "fifo`: not a regular file",
        "skipped `d/fifo`: not a regular file",
        "skipped `/dev/zero`: not a regular file",
        "skipped `fifo.xml`: not a regular file",
        "stored `d/x` (2 bytes)",
        "fifo`: neither a file nor a folder nor a link",
        "saved the cache `a`: 1 file with 2 bytes",
        "persisted 1 file with 2 bytes",
        "fifo` cannot be made: not a regular file",
    ] {
        assert!(output.contains(part), "no {part:?} in {seen}");
    }
    // Whether it may be read at all depends on the host.
    assert!(
        output.contains("skipped `proc/kmsg`: cannot read it") || output.contains("`/proc/kmsg`"),
        "{seen}"
    );
}

const LINKS: &str = r#"
jobs:
  save:
    machine: true
    resource_class: a/b
    steps:
      - run: mkdir dep && echo x > dep/x && ln -s OUTSIDE out && ln -s OUTSIDE/secret.xml one.xml
      - save_cache: {key: dep, paths: [dep, out/secret.xml]}
      - store_artifacts: {path: out}
      - store_artifacts: {path: one.xml}
      - store_artifacts: {path: out/secret.xml}
      - store_test_results: {path: out}
      - persist_to_workspace: {root: ., paths: [dep]}
      - persist_to_workspace: {root: ., paths: [out/secret.xml]}
  restore:
    machine: true
    resource_class: a/b
    steps:
      - run: ln -s OUTSIDE dep
      - restore_cache: {keys: [dep]}
  attach:
    machine: true
    resource_class: a/b
    steps:
      - run: ln -s OUTSIDE at
      - attach_workspace: {at: at}
workflows: {w: {jobs: [save, restore: {requires: [save: failed]}, attach: {requires: [save: failed]}]}}
"#;

#[test]
fn links_out_of_the_job_are_not_followed() {
    let (server, _runner) = stage("", &[]);
    let outside = server.folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret.xml"), "<t><testcase name='outside-the-job'/></t>").unwrap();
    let text = config(&LINKS.replace("OUTSIDE", &outside.display().to_string()));
    let seen = Seen::watch(&server, &server.trigger(&text));
    let output = outputs(&seen);
    assert_eq!(output.matches("out of the job's folders").count(), 6, "{seen}");
    assert_eq!(output.matches("out of the working directory").count(), 1, "{seen}");
    assert!(output.contains("saved the cache `dep`: 1 file with 2 bytes"), "{seen}");
    for name in ["save", "restore", "attach"] {
        assert_eq!(seen.job(name).status, "failed", "{seen}");
    }
    assert!(output.contains("leads out of the folder"), "{seen}");
    let names: Vec<_> =
        std::fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["secret.xml"]);
    assert_eq!(files_with(&server.data(), &["outside-the-job"]), Vec::<String>::new());
}

/// Jobs persist and save links by their names and by patterns; the last one says where they lead.
const NAMED_LINKS: &str = r#"
jobs:
  save:
    machine: true
    resource_class: a/b
    steps:
      - run: mkdir -p w/lib && echo x > w/lib/x && cd w && ln -s lib lib64 && ln -s OUTSIDE out && ln -s OUTSIDE/secret.xml one.xml && ln -s nothing gone
      - persist_to_workspace: {root: w, paths: [lib, lib64, "*.xml", "lib64/*"]}
      - persist_to_workspace: {root: ., paths: [w/out, w/gone]}
      - save_cache: {key: links, paths: [w/out, w/gone, w/lib64]}
  kept:
    machine: true
    resource_class: a/b
    steps:
      - attach_workspace: {at: .}
      - restore_cache: {keys: [links]}
      - run: readlink lib64 one.xml; cd w && readlink out gone lib64; ls ../lib ..
workflows: {w: {jobs: [save, kept: {requires: [save]}]}}
"#;

#[test]
fn a_link_that_is_named_is_stored_as_a_link() {
    let (server, _runner) = stage("", &[]);
    let outside = server.folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret.xml"), "outside-the-job").unwrap();
    let outside = outside.display().to_string();
    let seen = Seen::watch(&server, &server.trigger(&config(&NAMED_LINKS.replace("OUTSIDE", &outside))));
    let output = outputs(&seen);
    for part in [
        "persisted 3 files with 2 bytes".to_owned(),
        "persisted 2 files with 0 bytes".to_owned(),
        "w/out` is a link, and saved as one".to_owned(),
        format!(
            "lib\n{outside}/secret.xml\n{outside}\nnothing\nlib\n..:\nlib\nlib64\none.xml\nw\n\n../lib:\nx\n"
        ),
    ] {
        assert!(output.contains(&part), "no {part:?} in {seen}");
    }
    assert_eq!(files_with(&server.data(), &["outside-the-job"]), Vec::<String>::new());
}

#[test]
fn a_step_of_the_same_user_reads_no_memory_of_the_runner() {
    let server = ControlPlane::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let machine = Machine::at(folder, &server.url()).variable("CIRCLECI_RUNNER_NAME", "private");
    let Some(machine) = as_ordinary_user(machine, &path) else { return };
    let look = r#"
agent=$PPID; runner=$(cut -d' ' -f4 /proc/$agent/stat)
for pid in $agent $runner; do
  for file in environ mem maps fd/0 exe; do
    if head -c 1 /proc/$pid/$file > /dev/null 2>&1; then echo "reached $file of $pid"; fi
  done
  test -r /proc/$pid/stat && echo "there is $pid"
done
head -c 1 /proc/$$/environ > /dev/null && head -c 1 /proc/$$/maps > /dev/null && echo "reached its own"
"#;
    // The step ends once what it leaves has its own name.
    let leave = "setsid sleep 600 > /dev/null 2>&1 < /dev/null & until grep -q sleep /proc/$!/comm; do sleep 0.02; done";
    server.offer(&task_of("private", &[look, leave]));
    let mut runner = machine.setting("mode", "single-task").start();
    assert_eq!(runner.wait(), Some(0), "{}", runner.log());
    let finish = server.wait_over("private").json();
    assert_eq!(finish["status"], "success", "{finish} {}", runner.log());
    let said = server.output("private", 1);
    assert!(!said.contains("reached environ") && !said.contains("reached mem"), "{said}");
    assert_eq!(said.matches("there is ").count(), 2, "{said}");
    assert!(said.ends_with("reached its own\n") && said.matches("reached").count() == 1, "{said}");
    // A process that outlives its step is found and ended all the same.
    assert!(server.output("private", 3).contains("`sleep 600`"), "{:?}", server.events("private"));
}

#[test]
fn a_rule_of_the_runner_ends_a_task_at_once() {
    let (server, _runner) = stage("  deny_projects: [other/*, ACME/h*]\n", &[]);
    let steps = "      - run: touch ran";
    let seen = Seen::watch(&server, &server.trigger(&job(steps)));
    let job = &seen.jobs[0];
    assert_eq!(job.status, "infrastructure_fail", "{seen}");
    let why = "the runner `one` does not run this job: `runner.deny_projects` has `acme/h*`, and its project is `acme/hello`";
    assert!(job.message.contains(why), "{seen}");
    assert!(job.steps.is_empty(), "{seen}");
}

fn acts(server: &Server, query: &str) -> Vec<Value> {
    let answer = server.call("GET", &format!("/api/v3/audit-events{query}"), None);
    answer["items"].as_array().unwrap().clone()
}

#[test]
fn what_people_set_up_is_in_the_audit_log() {
    let mut server = Server::start();
    server.project();
    server.class_token("a/b");
    let ada = server.call("POST", "/api/v2/user", Some(json!({ "login": "ada" })));
    let made =
        server.call("POST", "/api/v2/personal-token", Some(json!({ "user": "ada", "label": "laptop" })));
    let token = made["token"].as_str().unwrap();
    let secret = json!({ "name": "SECRET", "value": "s3cret-value" });
    server.call("POST", "/api/v2/project/gh/acme/hello/envvar", Some(secret.clone()));
    let ada_token = runlet::protocol::Secret::new(token);
    let path = "/api/v2/project/gh/acme/hello/envvar?circle-token=not-for-the-log";
    assert_eq!(server.answer_to(&ada_token, "POST", path, Some(secret)).0, 403);
    assert_eq!(server.answer_to(&ada_token, "GET", "/api/v3/audit-events", None).0, 403);
    assert_eq!(server.answer("DELETE", "/api/v2/user/nobody", None).0, 404);
    // Everyday work is none.
    server.trigger(&job("      - run: 'true'"));

    let before = acts(&server, "");
    let calls: Vec<String> = before
        .iter()
        .map(|act| {
            let text = |key: &str| act[key].as_str().unwrap_or_default().to_owned();
            format!(
                "{} {} {} {} {}",
                text("user"),
                text("address"),
                text("method"),
                text("path"),
                act["status"]
            )
        })
        .collect();
    let expected = [
        "admin 127.0.0.1 DELETE /api/v2/user/nobody 404",
        "ada 127.0.0.1 POST /api/v2/project/gh/acme/hello/envvar 403",
        "admin 127.0.0.1 POST /api/v2/project/gh/acme/hello/envvar 201",
        "admin 127.0.0.1 POST /api/v2/personal-token 201",
        "admin 127.0.0.1 POST /api/v2/user 201",
        "admin 127.0.0.1 POST /api/v3/runner/token 201",
        "admin 127.0.0.1 POST /api/v3/runner/resource 201",
    ];
    assert_eq!(calls[..7], expected, "{calls:#?}");
    assert_eq!(before[4]["detail"], json!({ "login": "ada", "id": ada["id"] }));
    assert_eq!(before[1]["token_id"], made["id"]);
    let all = json!(before).to_string();
    assert!(!all.contains("s3cret") && !all.contains(token) && !all.contains("not-for-the-log"), "{all}");
    assert_eq!(acts(&server, "?user=ada").len(), 1);
    let (status, page) = server.answer("GET", "/api/v3/audit-events?limit=2", None);
    assert_eq!((status, page["items"].as_array().map(Vec::len)), (200, Some(2)));
    let next = page["next_page_token"].as_str().unwrap();
    assert_eq!(acts(&server, &format!("?limit=2&page-token={next}")), before[2..4]);

    let listen = server.client.url().rsplit('/').next().unwrap().to_owned();
    processes::signal(server.child.id(), rustix::process::Signal::TERM);
    server.child.wait().unwrap();
    server.start_again(&listen);
    assert_eq!(acts(&server, ""), before);
    let table = server.admin(&["audit", "--user", "ada", "--limit", "3"], "");
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        row[1..6],
        ["ada", "127.0.0.1", "403", "POST", "/api/v2/project/gh/acme/hello/envvar"],
        "{table}"
    );
    server.admin_fails(&["audit", "--limit", "0"], 2, "number of acts");
}
