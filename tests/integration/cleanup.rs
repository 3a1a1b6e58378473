//! Cleaning up after jobs: what a job has mounted or linked in the place of its folders is not emptied.

use crate::hostile::{has_namespaces, inside, machine, tell_skipped};
use crate::support::control_plane::ControlPlane;
use crate::support::poll;
use crate::support::processes::{coming_child_with, signal};
use crate::support::runner::{Machine, Running, task_of};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

fn folder(machine: &Machine, name: &str) -> String {
    let folder = machine.path(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("file"), "precious").unwrap();
    folder.to_str().unwrap().to_owned()
}

fn is_whole(folder: &str) -> bool {
    Path::new(folder).join("file").exists()
}

/// Commands as the jobs of one runner, one after another; returns the runner, what each has said, and the log.
fn run(server: &ControlPlane, machine: Machine, id: &str, jobs: &[&str]) -> (Running, Vec<String>, String) {
    let mut runner = machine.setting("cleanup_working_directory", "true").start();
    let mut said = Vec::new();
    for (at, job) in jobs.iter().enumerate() {
        let id = format!("{id}-{at}");
        server.offer(&task_of(&id, &[job]));
        let end = server.wait_finished(&id);
        assert_eq!(end["status"], "success", "{end} {}", runner.log());
        said.push(server.output(&id, 1));
    }
    runner.term();
    runner.wait();
    let log = runner.log();
    (runner, said, log)
}

#[test]
#[cfg(target_os = "linux")]
fn what_a_job_has_mounted_is_taken_off_and_what_was_mounted_before_is_left() {
    if !has_namespaces() {
        return;
    }
    let server = ControlPlane::start();
    let machine = machine(&server.url());
    let (precious, theirs) = (folder(&machine, "precious"), folder(&machine, "theirs"));
    let work = machine.path("work");
    fs::create_dir_all(work.join("a b/theirs")).unwrap();
    let theirs_at = work.join("a b/theirs");
    let machine = inside(machine, &format!("mount --bind '{theirs}' '{}'", theirs_at.display()));
    let job = format!(
        "mkdir -p a/m a/c; chmod 500 'a b'; touch left a/left 'a b/left'; own=$(dirname \"$BASH_ENV\"); mkdir $own/m
for place in a/m $own/m '{}' .; do mount --bind '{precious}' \"$place\"; done; chmod 500 a",
        theirs_at.display()
    );
    let (_runner, said, log) = run(&server, machine, "m", &[&job, "find . | sort"]);
    assert!(is_whole(&precious) && is_whole(&theirs), "{log}");
    assert_eq!(said[1], ".\n./a b\n./a b/theirs\n./a b/theirs/file\n", "{log}");
    assert!(log.contains(&format!("`{}` is mounted there", theirs_at.display())), "{log}");
    assert_eq!(log.matches("which the job had mounted").count(), 4, "{log}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_working_directory_that_is_a_mount_of_the_operators_is_emptied() {
    if !has_namespaces() {
        return;
    }
    let server = ControlPlane::start();
    let machine = machine(&server.url());
    let (precious, work) = (folder(&machine, "precious"), machine.path("work"));
    fs::create_dir(&work).unwrap();
    let work = work.display();
    let machine = inside(machine, &format!("mount -t tmpfs none '{work}'"));
    let over = format!("touch left; mount --bind '{precious}' '{work}'");
    let (_runner, said, log) =
        run(&server, machine, "o", &[&over, "ls -A; touch left", "ls -A; grep -c \" $PWD \" /proc/mounts"]);
    assert_eq!((said[1].as_str(), said[2].as_str()), ("", "1\n"), "{log}");
    assert!(
        is_whole(&precious) && !log.contains("clean the working") && !log.contains("not cleaning"),
        "{log}"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn what_the_job_of_a_killed_agent_has_mounted_is_not_emptied() {
    if !has_namespaces() {
        return;
    }
    let server = ControlPlane::start();
    let machine = machine(&server.url());
    let (precious, work) = (folder(&machine, "precious"), machine.path("work"));
    let command = format!(
        "touch left; mkdir m; for at in m \"$(dirname \"$BASH_ENV\")\"; do mount --bind '{precious}' $at; done; echo begun; sleep 600"
    );
    server.offer(&task_of("k-1", &[&command]));
    let machine = machine.setting("cleanup_working_directory", "true");
    let runner = inside(machine, "").start();
    poll("the step", || if server.output("k-1", 1) == "begun\n" { Ok(()) } else { Err(runner.log()) });
    signal(coming_child_with(runner.pid() as u32, "task"), Signal::KILL);
    server.wait_for("/lost");
    poll("the cleanup", || if work.exists() { Err(runner.log()) } else { Ok(()) });
    assert!(is_whole(&precious), "{}", runner.log());
}

/// Root alone may make files that root cannot remove.
#[test]
#[cfg(target_os = "linux")]
fn all_but_what_cannot_be_removed_is_and_that_is_named() {
    let server = ControlPlane::start();
    let machine = Machine::new(&server.url());
    let work = machine.path("work");
    let job = "mkdir -p a/b c/d e/f; touch 0 a/b/kept a/b/left c/d/kept c/left e/f/left z; chmod 0 e/f; chattr +i a/b/kept c/d/kept || echo no";
    let (_runner, said, log) = run(&server, machine, "i", &[job]);
    if said[0].ends_with("no\n") {
        // Emulated tests are root in a namespace alone, and not every file system has such files.
        tell_skipped("no file can be made immutable here (run the tests as root, on ext4)");
        return;
    }
    let left = Command::new("find").arg(&work).output().unwrap();
    Command::new("chattr").args(["-R", "-i"]).arg(&work).status().unwrap();
    let left = String::from_utf8(left.stdout).unwrap();
    let below = |line| Path::new(line).strip_prefix(&work).ok().filter(|path| !path.as_os_str().is_empty());
    let mut left: Vec<_> = left.lines().filter_map(below).collect();
    left.sort_unstable();
    assert_eq!(left, ["a", "a/b", "a/b/kept", "c", "c/d", "c/d/kept"].map(Path::new), "{log}");
    let line = log.lines().find(|line| line.contains("failed to clean")).unwrap();
    let names = |name: &&&str| line.contains(&format!("{}`: ", work.join(name).display()));
    let named = ["a/b/kept", "c/d/kept"].iter().filter(names).count();
    assert!(
        named == 1 && line.contains("Operation not permitted (os error 1); 1 more cannot be removed ("),
        "{line}"
    );
}

#[test]
fn what_a_link_leads_to_that_a_job_has_made_is_not_emptied() {
    let server = ControlPlane::start();
    let machine = Machine::new(&server.url());
    let (precious, base) = (folder(&machine, "precious"), machine.path(""));
    let (work, base) = (machine.path("work"), base.display().to_string());
    let moved = format!("cd '{base}'; mv work moved; ln -s precious work");
    let removed = format!("cd '{base}'; rmdir work; ln -s '{precious}' work");
    let (_runner, said, log) = run(&server, machine, "l", &[&moved, &removed, "pwd -P; ls -A"]);
    assert!(is_whole(&precious), "{log}");
    assert!(said[2].ends_with("/work\n") && !log.contains("failed to clean"), "{said:?} {log}");
    assert_eq!(log.matches("nothing is removed there").count(), 2, "{log}");
    assert!(work.symlink_metadata().is_err());
}

#[test]
fn a_working_directory_that_is_the_operators_link_is_emptied_and_stays() {
    let server = ControlPlane::start();
    let machine = Machine::new(&server.url());
    let (precious, disk) = (folder(&machine, "precious"), machine.path("disk"));
    let work = machine.path("work");
    fs::create_dir(&disk).unwrap();
    symlink("disk", &work).unwrap();
    // Another time it leads elsewhere, and then what it led to is gone.
    let led = format!("touch left; ln -sfn '{precious}' '{}'", work.display());
    let gone = format!("cd /; rm -r '{}'", disk.display());
    let jobs = ["touch left", "ls -A", &led, "pwd -P", &gone, "ls -A"];
    let (_runner, said, log) = run(&server, machine, "s", &jobs);
    assert!(is_whole(&precious), "{log}");
    assert_eq!((said[1].as_str(), said[5].as_str()), ("", ""), "{log}");
    assert!(said[3].ends_with("/disk\n"), "{said:?}");
    assert_eq!(fs::read_link(&work).unwrap(), Path::new("disk"));
    assert!(disk.is_dir());
}

#[test]
fn a_link_that_a_config_names_is_not_emptied() {
    let server = ControlPlane::start();
    let machine = Machine::new(&server.url()).setting("cleanup_working_directory", "true");
    let (own, other) = (folder(&machine, "own"), machine.path("other"));
    symlink(&own, &other).unwrap();
    let mut task = task_of("c-1", &["ls"]);
    task.job.working_directory = Some(other.to_str().unwrap().to_owned());
    server.offer(&task);
    let mut runner = machine.setting("mode", "single-task").start();
    assert_eq!(runner.wait(), Some(0), "{}", runner.log());
    assert_eq!(server.output("c-1", 1), "file\n");
    assert!(is_whole(&own) && other.is_symlink(), "{}", runner.log());
    assert!(runner.log().contains("not cleaning the working directory"), "{}", runner.log());
}
