//! A root with only the static file and a BusyBox: no libraries, no `/etc`, no `/dev`, no `/proc` unless the
//! test says so. `RUNLET_TEST_BUSYBOX` names the BusyBox; that of the runner's own architecture makes
//! the whole userland foreign. Where it is set these tests run or fail.

use super::{find, has_namespaces, inside, is_static, machine, run_one, skip, tell_skipped};
use crate::support::control_plane::ControlPlane;
use crate::support::emulated;
use crate::support::runner::{Machine, RUNLET};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The BusyBox to use, when this build can live without libraries.
fn busybox() -> Option<PathBuf> {
    if !has_namespaces() {
        return None;
    }
    let named = std::env::var_os("RUNLET_TEST_BUSYBOX").map(PathBuf::from);
    if !is_static(Path::new(RUNLET)) {
        // ci/cross names one, and makes static files.
        assert!(named.is_none(), "this build of the runner is not static, or `readelf` is missing");
        // Required or not: it depends on the build, not on the host.
        tell_skipped("this build of the runner is not static (ci/cross makes one that is)");
        return None;
    }
    let found = named.or_else(|| find("busybox")).filter(|path| is_static(path));
    if found.is_none() {
        skip("there is no static BusyBox (install `busybox-static`, or name one in RUNLET_TEST_BUSYBOX)");
    }
    found
}

/// A root with the program and BusyBox; the settings of a machine are laid out to fit inside it.
fn root(machine: Machine, busybox: &Path, script: &str) -> Machine {
    let root = machine.path("");
    for folder in ["bin", "proc"] {
        fs::create_dir(root.join(folder)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for name in ["sh", "cat", "echo", "ls", "sleep", "uname", "seq", "sha256sum", "setsid"] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::copy(RUNLET, root.join("runlet")).unwrap();
    let shown = root.display();
    let shown = shown.to_string();
    let shown = shown.trim_end_matches('/');
    // The paths of the settings are those from outside, so the root is visible inside under its own name.
    fs::create_dir_all(root.join(shown.trim_start_matches('/'))).unwrap();
    let script = format!("ROOT='{shown}'\nmount --bind $ROOT $ROOT$ROOT\n{script}\nexec chroot $ROOT \"$@\"");
    inside(machine, &script).program(Path::new("/runlet"))
}

#[test]
fn the_file_alone_runs_a_task() {
    let Some(busybox) = busybox() else { return };
    let server = ControlPlane::start();
    let machine = root(machine(&server.url()), &busybox, "mount --rbind /proc $ROOT/proc");
    let commands = ["uname -m", "seq 1 20000 | sha256sum", "ls /", "setsid sleep 1005 & exit 4"];
    let (end, log) = run_one(&server, machine, "bare-1", &commands);
    assert_eq!(end["status"], "failed", "{end} {log}");
    assert!(end["message"].as_str().unwrap().contains("exited with code 4"), "{end} {log}");
    // The kernel's word is translated by the emulator when BusyBox is foreign too.
    let machine = server.output("bare-1", 1);
    if !emulated() || std::env::var_os("RUNLET_TEST_BUSYBOX").is_some() {
        let known = match std::env::consts::ARCH {
            "powerpc64" => "ppc64le\n".to_owned(),
            "arm" => "armv7l\n".to_owned(),
            other => format!("{other}\n"),
        };
        assert_eq!(machine, known);
    }
    let sum = "f6351f5ead9a700e34275480b3856ea738122a7c57bdeb744a631251c069587a";
    assert!(server.output("bare-1", 2).starts_with(sum), "{}", server.output("bare-1", 2));
    assert!(!server.output("bare-1", 3).contains("dev"), "{}", server.output("bare-1", 3));
}

#[test]
fn without_proc_tasks_run_and_the_loss_is_told() {
    let Some(busybox) = busybox() else { return };
    let server = ControlPlane::start();
    let (end, log) =
        run_one(&server, root(machine(&server.url()), &busybox, ""), "bare-2", &["echo ran; ls /proc"]);
    assert_eq!(end["status"], "success", "{end} {log}");
    assert_eq!(server.output("bare-2", 1), "ran\n");
    // qemu-user answers for a process's own files there, mounted or not.
    assert!(emulated() || log.contains("/proc is not mounted"), "{log}");
}
