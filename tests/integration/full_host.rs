//! A full disk on the host of a runner: what needs room there is no fault of the job, and a job that has filled the disk
//! itself ends as its own. Where namespaces cannot be made the tests say that they were skipped, as in `hostile`.

use crate::claims::messages;
use crate::hostile::{has_namespaces, inside, machine};
use crate::repositories::Work;
use crate::server::Server;
use crate::support::runner::Machine;
use serde_json::json;

/// A runner whose working directory, and spool, are on a file system of a megabyte.
fn small_host(server: &Server, class: &str) -> Machine {
    let machine = machine(server.client.url());
    let disk = machine.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let script = format!("mount -t tmpfs -o size=1m none '{}'", disk.display());
    inside(machine, &script)
        .setting("working_directory", &disk.join("work").display().to_string())
        .setting("cleanup_working_directory", "true")
        .variable("TMPDIR", &disk.display().to_string())
        .variable("CIRCLECI_RUNNER_API_AUTH_TOKEN", &server.class_token(class))
}

#[test]
fn what_needs_more_room_than_the_host_has_is_no_fault_of_the_job() {
    if !has_namespaces() {
        return;
    }
    let server = Server::start();
    server.project();
    let wide = server.runner("wide", &server.class_token("a/b"));
    let host = small_host(&server, "a/small").start();
    let job = |name: &str, step: &str| {
        format!("  {name}:\n    machine: true\n    resource_class: a/small\n    steps: [{step}]\n")
    };
    let config = format!(
        "version: 2.1\njobs:\n  make:\n    machine: true\n    resource_class: a/b\n    steps:\n      - run: 'mkdir out; head -c 3000000 /dev/urandom > out/bytes'\n      - save_cache: {{key: k, paths: [out]}}\n      - persist_to_workspace: {{root: ., paths: [out]}}\n{}{}workflows: {{w: {{jobs: [make, {{restore: {{requires: [make]}}}}, {{attach: {{requires: [make]}}}}]}}}}\n",
        job("restore", "{restore_cache: {key: k}}"),
        job("attach", "{attach_workspace: {at: .}}"),
    );
    let jobs = server.ended(&server.trigger(&config));
    for name in ["restore", "attach"] {
        let job = jobs.iter().find(|job| job["name"] == name).unwrap();
        assert_eq!(job["status"], "infrastructure_fail", "{jobs:?} {}", host.log());
        let said = messages(&server, job);
        // The message says the failure, its time and the remedy.
        for part in ["out/bytes`: No space left", "told at 20", "free some space", "see to that runner"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    drop(wide);
}

#[test]
fn a_checkout_that_the_host_has_no_room_for_is_no_fault_of_the_job() {
    if !has_namespaces() {
        return;
    }
    let server = Server::start();
    let work = Work::new(server.folder.path());
    let config = "version: 2.1\njobs: {build: {machine: true, resource_class: a/small, steps: [checkout]}}\nworkflows: {w: {jobs: [build]}}\n";
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + (state >> 40) as u8 % 90)
    };
    let text: String = (0..3_000_000).map(|_| random()).collect();
    work.write("large", &text);
    work.commit_config(config, "large");
    server.project();
    server.register(&work.url());
    let host = small_host(&server, "a/small").start();
    let created = server.call("POST", "/api/v2/project/gh%2Facme%2Fhello/pipeline", Some(json!({})));
    let pipeline = created["id"].as_str().unwrap().to_owned();
    let jobs = server.ended(&pipeline);
    assert_eq!(jobs[0]["status"], "infrastructure_fail", "{jobs:?} {}", host.log());
    let said = messages(&server, &jobs[0]);
    assert!(said.contains("`git ") && said.contains("No space left") && said.contains("free some"), "{said}");
}

#[test]
fn a_job_that_fills_the_disk_of_its_spool_ends_with_its_whole_log() {
    if !has_namespaces() {
        return;
    }
    let server = Server::start();
    server.project();
    let host = small_host(&server, "a/small").start();
    let config = "version: 2.1\njobs:\n  fills:\n    machine: true\n    resource_class: a/small\n    steps:\n      - run: 'seq 1 20000; head -c 3000000 /dev/zero > file'\n      - run: {command: 'seq 1 100000', when: always}\n  next: {machine: true, resource_class: a/small, steps: [{run: 'echo next'}]}\nworkflows: {w: {jobs: [fills, {next: {requires: [{fills: [failed]}]}}]}}\n";
    let jobs = server.ended(&server.trigger(config));
    let job = |name: &str| jobs.iter().find(|job| job["name"] == name).unwrap();
    assert_eq!(job("fills")["status"], "failed", "{jobs:?} {}", host.log());
    let numbers = |last: u32| (1..=last).map(|n| format!("{n}\n")).collect::<String>();
    let first = server.output(job("fills"), 1);
    let rest = first.strip_prefix(&numbers(20_000)).unwrap();
    assert!(rest.contains("No space left") && rest.ends_with("exited with code 1\n"), "{rest}");
    assert!(server.output(job("fills"), 2) == numbers(100_000), "the output differs");
    assert_eq!(
        (&job("next")["status"], server.output(job("next"), 1)),
        (&"success".into(), "next\n".to_owned())
    );
}

#[test]
fn a_full_place_for_the_folders_of_tasks_is_named_by_the_check() {
    if !has_namespaces() {
        return;
    }
    let server = Server::start();
    let token = server.class_token("a/b");
    // Without room the agent still makes its folders there; without inodes it passes the place over.
    for (options, fill, left) in [
        (
            "size=64k",
            "! head -c 1000000 /dev/zero > fill",
            "No space left on device (os error 28) (0 bytes and",
        ),
        ("nr_inodes=8", "for n in 1 2 3 4 5 6 7 8; do true > $n || break; done", "and 0 inodes are left)"),
    ] {
        let machine = machine(server.client.url());
        let disk = machine.path("disk");
        std::fs::create_dir(&disk).unwrap();
        let shown = disk.display().to_string();
        let script =
            format!("mount -t tmpfs -o {options} none '{shown}'; (cd '{shown}'; {fill}) 2> /dev/null");
        let machine = inside(machine, &script)
            .variable("TMPDIR", &shown)
            .variable("CIRCLECI_RUNNER_API_AUTH_TOKEN", &token);
        let (code, text) = machine.check();
        assert!(!code.success() && text.contains(left), "{text}");
        for what in ["the output of tasks", "the private folders of tasks"] {
            assert!(text.contains(&format!("`{shown}` cannot take {what}: ")), "{text}");
        }
    }
}

#[test]
fn a_full_place_for_what_the_runner_keeps_of_itself_is_named_by_the_check_and_the_start() {
    if !has_namespaces() {
        return;
    }
    let server = Server::start();
    let token = server.class_token("a/b");
    let no_files = "for n in 1 2 3 4 5 6 7 8; do true > $n || break; done";
    for (options, fill, left) in [
        ("size=64k", "! head -c 1000000 /dev/zero > fill", "nearly full (0 bytes"),
        // The log was begun before, and can be written to.
        ("nr_inodes=8", no_files, "and 0 inodes are left)"),
    ] {
        for key in ["state_directory", "log"] {
            let machine = machine(server.client.url());
            let disk = machine.path("disk");
            std::fs::create_dir(&disk).unwrap();
            let shown = disk.display().to_string();
            let script = format!(
                "mount -t tmpfs -o {options} none '{shown}'; (cd '{shown}'; true > log; {fill}) 2> /dev/null"
            );
            let log = format!("file: {shown}/log");
            let machine = inside(machine, &script).variable("CIRCLECI_RUNNER_API_AUTH_TOKEN", &token);
            let (machine, named) = match key {
                "log" => (machine.logging(&["format: text", &log]), "logging.file"),
                _ => (machine.setting(key, &shown), "runner.state_directory"),
            };
            let (_, text, _) = machine.ask(&["doctor"]);
            let is_told = |line: &str| line.contains(key) && line.contains(&shown) && line.contains(left);
            assert!(text.lines().any(is_told), "{named}: {text}");
            let (_, text, _) = machine.ask(&["machine", "--check"]);
            assert!(text.lines().any(is_told), "{named}: {text}");
            let runner = machine.start();
            // Records that a log has no room for are on standard error.
            if named != "logging.file" || left.contains("bytes") {
                let said = runner.wait_log(&format!("`{named}` may not be written: `{shown}"));
                assert!(said.contains(left), "{said}");
            }
        }
    }
}
