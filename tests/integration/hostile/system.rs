//! Kernels without the younger system calls, and file systems that take nothing.

use super::{find, has_namespaces, inside, machine, run_one, skip};
use crate::leftovers::daemons_are_ended;
use crate::support::control_plane::ControlPlane;
use crate::support::emulated;
use crate::support::runner::{RUNLET, task_of};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Makes the root, the runner's own directory and every place for temporary files read-only, all but the
/// folders `kept`.
fn read_only(own: &Path, kept: &[&Path]) -> String {
    let kept: String = kept.iter().map(|path| format!(" '{}'", path.display())).collect();
    // The folder may be on a file system of its own, which the root does not cover.
    let places = format!("/tmp /var/tmp /dev/shm '{}'", own.display());
    // Each of them becomes a mount of its own while everything can still be written.
    format!(
        "for place in {places}; do test ! -d \"$place\" || mount --rbind \"$place\" \"$place\"; done
         for place in {places} /; do test ! -d \"$place\" || mount -o remount,bind,ro \"$place\"; done
         for place in {kept}; do mount --bind \"$place\" \"$place\"; mount -o remount,bind,rw \"$place\"; done"
    )
}

/// Leaves a process behind that left its group and its session, and one that is deaf; both are what they
/// will be called by.
const LEAVE_BEHIND: &str = "setsid sleep 1003 > /dev/null 2>&1 & one=$!
    (trap '' TERM; exec sleep 1004) > /dev/null 2>&1 & two=$!
    for pid in $one $two; do until grep -q sleep /proc/$pid/comm; do sleep 0.05; done; done";

/// The helper that makes a kernel old; compiled once.
fn refuse() -> Option<PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/hostile/refuse.c");
        // A name of its own: several test programs may do this at the same time.
        let program =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("refuse-{}", std::process::id()));
        let compiler = find("cc").or_else(|| find("gcc"))?;
        let made = Command::new(compiler).args(["-O1", "-o"]).arg(&program).arg(source).status();
        let works = made.is_ok_and(|status| status.success())
            && Command::new(&program).arg("true").status().is_ok_and(|status| status.success());
        works.then_some(program)
    });
    if built.is_none() {
        skip("no C compiler, or seccomp is not to be had");
    }
    built.clone()
}

#[test]
fn a_kernel_of_2013_is_enough() {
    let Some(refuse) = refuse() else { return };
    let server = ControlPlane::start();
    let machine = machine(&server.url()).wrapper(&[&refuse.display().to_string()]);
    let commands = ["echo one; echo two >&2", LEAVE_BEHIND, "exit 3"];
    let (end, log) = run_one(&server, machine, "old-1", &commands);
    assert_eq!(end["status"], "failed", "{end} {log}");
    assert_eq!(server.output("old-1", 1), "one\ntwo\n");
    assert!(end["message"].as_str().unwrap().contains("exited with code 3"), "{end}");
    let all: String = (0..6).map(|record| server.output("old-1", record)).collect();
    assert!(emulated() || all.contains("sleep 1003") && all.contains("sleep 1004"), "{all}");
}

#[test]
fn without_pidfd_a_running_task_is_found_again_and_answered_for() {
    let Some(refuse) = refuse() else { return };
    let server = ControlPlane::start();
    server.offer(&task_of("old-2", &["echo $$ > ../pid; sleep 600"]));
    let runner = machine(&server.url()).wrapper(&[&refuse.display().to_string()]).start();
    runner.wait_file("pid");
    let mut runner = runner.crash_and_restart();
    runner.wait_log("found the running task of an earlier run");
    runner.term();
    runner.wait_log("draining");
    runner.term();
    assert_eq!(runner.wait(), Some(0), "{}", runner.log());
    assert_eq!(server.wait_finished("old-2")["status"], "infrastructure_fail");
}

#[test]
fn control_groups_are_not_needed() {
    if !has_namespaces() {
        return;
    }
    let server = ControlPlane::start();
    let machine = inside(machine(&server.url()), "mount -t tmpfs -o ro none /sys");
    let commands = ["test -z \"$(ls /sys)\"; echo ran", LEAVE_BEHIND];
    let (end, log) = run_one(&server, machine, "cgroup-1", &commands);
    assert_eq!(end["status"], "success", "{end} {log}");
    assert_eq!(server.output("cgroup-1", 1), "ran\n");
    assert!(emulated() || server.output("cgroup-1", 3).contains("sleep 1003"));
}

/// Mounts of a host whose groups are all of version 1. That of the runner is one that can freeze.
const VERSION_1: &str = "mount -t tmpfs none /sys/fs/cgroup; mkdir /sys/fs/cgroup/freezer
    mount -t cgroup -o freezer none /sys/fs/cgroup/freezer";

#[test]
fn control_groups_of_version_1_keep_what_a_task_left_behind() {
    // Emulators run in a namespace whose root may not mount them.
    if emulated() {
        return;
    }
    let unshare = ["unshare", "-m", "--propagation", "private", "/bin/sh", "-ec"];
    let made = Command::new(unshare[0]).args(&unshare[1..]).arg(VERSION_1).output();
    if !made.is_ok_and(|made| made.status.success()) {
        skip(
            "control groups of version 1 cannot be mounted here: that needs root, and a kernel that has their `freezer`",
        );
        return;
    }
    let server = ControlPlane::start();
    let script = format!("{VERSION_1}\nexec \"$@\"");
    let machine = machine(&server.url()).wrapper(&[&unshare[..], &[&script, "sh"]].concat());
    assert!(daemons_are_ended(&server, machine, "cgroup-2", true), "the runner has made no control group");
}

#[test]
fn without_a_temporary_folder_the_place_beside_the_working_directory_is_used() {
    if !has_namespaces() {
        return;
    }
    let server = ControlPlane::start();
    let machine = machine(&server.url());
    let directory = machine.path("");
    let script = read_only(&directory, &[&directory]);
    let (end, log) = run_one(
        &server,
        inside(machine, &script).variable("HOME", "/nonexistent"),
        "tmp-1",
        &["! touch /tmp/x 2>/dev/null; ! touch /x 2>/dev/null; echo \"$CIRCLE_INTERNAL_TASK_DATA\""],
    );
    assert_eq!(end["status"], "success", "{end} {log}");
    let scratch = server.output("tmp-1", 1);
    assert!(scratch.starts_with(directory.to_str().unwrap()), "{scratch}");
}

#[test]
fn a_read_only_root_is_a_failure_that_says_what_to_set() {
    if !has_namespaces() {
        return;
    }
    let server = ControlPlane::start();
    let machine = |kept: &[&str]| {
        let machine = machine(&server.url());
        for folder in ["work", "scratch"] {
            fs::create_dir(machine.path(folder)).unwrap();
        }
        let kept: Vec<_> = kept.iter().map(|name| machine.path(name)).collect();
        let kept: Vec<_> = kept.iter().map(PathBuf::as_path).collect();
        let script = read_only(&machine.path(""), &kept);
        inside(machine, &script).variable("HOME", "/nonexistent")
    };
    // Only the working directory can be written: the runner goes on, the task cannot.
    server.offer(&task_of("ro-1", &["echo never"]));
    let mut runner = machine(&["work"]).setting("mode", "single-task").start();
    let back = server.wait_for("/unclaim").json();
    assert_eq!(runner.wait(), Some(0));
    let log = runner.log();
    assert_eq!(back["reason"], "host", "{back} {log}");
    let message = back["message"].as_str().unwrap();
    assert!(message.contains("set TMPDIR to a writable one") && message.contains("Read-only"), "{message}");
    assert!(log.contains("will not know of it; set `runner.state_directory`"), "{log}");
    // The advice of the message helps.
    let writable = machine(&["work", "scratch"]);
    let scratch = writable.path("scratch").display().to_string();
    let (end, log) = run_one(&server, writable.variable("TMPDIR", &scratch), "ro-2", &["echo ran"]);
    assert_eq!(end["status"], "success", "{end} {log}");
    assert!(log.contains(&format!("keeping state in `{scratch}/runlet-0`")), "{log}");
}

#[test]
fn a_user_without_a_name_or_a_home_runs_tasks() {
    if !has_namespaces() {
        return;
    }
    let server = ControlPlane::start();
    let nobody = |machine: crate::support::runner::Machine| {
        let script = read_only(&machine.path(""), &[&machine.path("")]);
        let script =
            format!("{script}\nunset HOME\nexec unshare -U --map-user=54321 --map-group=54321 \"$@\"");
        inside(machine, &script)
    };
    let commands = ["id -u; ! id -un 2>/dev/null; echo \"home=$HOME\"; git --version > /dev/null"];
    let (end, log) = run_one(&server, nobody(machine(&server.url())), "uid-1", &commands);
    assert_eq!(end["status"], "success", "{end} {log}");
    assert_eq!(server.output("uid-1", 1), "54321\n54321\nhome=/\n");
    // A directory of the home cannot be made: the job says which, and what to do.
    let mut task = task_of("uid-2", &["echo never"]);
    task.job.working_directory = Some("~/project".to_owned());
    server.offer(&task);
    let mut runner = nobody(machine(&server.url())).setting("mode", "single-task").start();
    assert_eq!(runner.wait(), Some(0), "{}", runner.log());
    let end = server.wait_finished("uid-2");
    assert_eq!(end["status"], "infrastructure_fail", "{end}");
    let message = end["message"].as_str().unwrap();
    assert!(
        message.contains("the working directory `/project`") && message.contains("make it writable"),
        "{message}"
    );
}

#[test]
fn without_any_environment_the_missing_setting_is_named() {
    let variables =
        [("CIRCLECI_RUNNER_API_AUTH_TOKEN", "t"), ("CIRCLECI_RUNNER_API_URL", "http://127.0.0.1:1")];
    let output = Command::new(RUNLET).arg("machine").env_clear().envs(variables).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("`runner.working_directory` is not set, and without HOME there is no default"),
        "{text}"
    );
}
