//! Hosts that withhold what a runner is used to: old kernels, read-only roots, no home, no name for the
//! user, no certificates, no `/proc`, nothing but the program itself.
//!
//! The places are made with user and mount namespaces, which need no privilege on most systems; control
//! groups of version 1 need root. Where they cannot be made a test says so on standard error and passes; `ci/hostile` sets
//! `RUNLET_HOSTILE_REQUIRED`, with which it fails instead. Certificates that are expired or for another
//! host are in `trust`.

mod bare;
mod stores;
mod system;

use crate::support::control_plane::ControlPlane;
use crate::support::runner::{Machine, task_of};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Says that a test was not run; false.
pub(crate) fn skip(why: &str) -> bool {
    assert!(std::env::var_os("RUNLET_HOSTILE_REQUIRED").is_none(), "this host cannot run the test: {why}");
    tell_skipped(why)
}

/// Says it on standard error itself, which the test harness does not capture. By itself for what no setting of a host
/// gives, such as a file system that has no such thing.
pub(crate) fn tell_skipped(why: &str) -> bool {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
    false
}

/// Whether places can be made here.
pub(crate) fn has_namespaces() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    let works = *WORKS.get_or_init(|| {
        let script = "mount -t tmpfs none /mnt";
        let output = Command::new("unshare").args(["-Urm", "sh", "-c", script]).output();
        output.is_ok_and(|output| output.status.success())
    });
    works || skip("user and mount namespaces are not to be had (`unshare -Urm`)")
}

/// Whether system calls can be watched here.
pub(crate) fn has_strace() -> bool {
    let works = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    works.is_ok_and(|status| status.success()) || skip("`strace` is not to be had (install it)")
}

/// A runner whose files are outside `/tmp`, for tests that take that away.
pub(crate) fn machine(url: &str) -> Machine {
    Machine::at(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(), url)
}

/// Starts the runner where `script` has been run as root of a mount namespace of its own.
pub(crate) fn inside(machine: Machine, script: &str) -> Machine {
    let script = format!("{script}\nexec \"$@\"");
    machine.wrapper(&["unshare", "-Urm", "--propagation", "private", "/bin/sh", "-ec", &script, "sh"])
}

/// Runs one task of these commands there, to the runner's end. Returns how the task was finished.
fn run_one(
    server: &ControlPlane,
    machine: Machine,
    id: &str,
    commands: &[&str],
) -> (serde_json::Value, String) {
    server.offer(&task_of(id, commands));
    let mut runner = machine.setting("mode", "single-task").start();
    let code = runner.wait();
    assert_eq!(code, Some(0), "{}", runner.log());
    (server.wait_over(id).json(), runner.log())
}

/// A program of the `PATH`.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Whether a file is an ELF program that needs no other file: it has no interpreter.
fn is_static(path: &Path) -> bool {
    let output = Command::new("readelf").arg("-lW").arg(path).output();
    output.is_ok_and(|output| {
        output.status.success() && !String::from_utf8_lossy(&output.stdout).contains("INTERP")
    })
}
