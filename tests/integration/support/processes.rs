//! Other processes, as `/proc` shows them: no `ps`, `pgrep` or `kill` need be installed.

use crate::support::poll;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::process::{Child, ExitStatus};

/// A process and its command line.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    /// Arguments, with a space between them; empty for one that has ended.
    pub(crate) line: String,
}

/// All of them.
pub(crate) fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn read(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
    Some(Process { pid, parent, line })
}

/// The child of `parent` that was started with this word.
pub(crate) fn child_with(parent: u32, word: &str) -> Option<u32> {
    let is_it = |process: &Process| process.parent == parent && process.line.split(' ').any(|w| w == word);
    all().into_iter().find(is_it).map(|process| process.pid)
}

/// [`child_with`] of a child that is being started: before it has its own program it looks like its parent.
pub(crate) fn coming_child_with(parent: u32, word: &str) -> u32 {
    poll("a child process", || {
        child_with(parent, word).ok_or_else(|| format!("{parent} has none with `{word}`"))
    })
}

/// Command lines that hold one of the texts.
pub(crate) fn lines_with(texts: &[&str]) -> Vec<String> {
    let lines = all().into_iter().map(|process| process.line);
    lines.filter(|line| texts.iter().any(|text| line.contains(text))).collect()
}

/// Describes each of the processes below `root`, one line for a thread: state, system call, and the kernel's
/// function that it waits in. For the message of a test that waits in vain.
pub(crate) fn doings_below(root: u32) -> String {
    let (all, mut told, mut below) = (all(), String::new(), vec![root]);
    while let Some(parent) = below.pop() {
        let children = all.iter().filter(|process| process.parent == parent || process.pid == parent);
        for process in children {
            if process.pid != parent {
                below.push(process.pid);
                continue;
            }
            told += &format!("{} (of {}) {:.200}\n", process.pid, process.parent, process.line);
            for thread in fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
                let file = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
                let stat = file("stat");
                let state = stat.rsplit_once(") ").map_or("?", |(_, rest)| &rest[..1]);
                let (call, waits) = (file("syscall"), file("wchan"));
                told += &format!("    {state} {} {waits}\n", call.trim_end());
            }
        }
    }
    told
}

/// Processes that have a variable with this value in their environment, or the value in their command line.
pub(crate) fn marked(name: &str, value: &str) -> Vec<Process> {
    let variable = format!("{name}={value}").into_bytes();
    let has_it = |process: &Process| {
        let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|one| one == variable) || process.line.contains(value)
    };
    all().into_iter().filter(has_it).collect()
}

/// Ends a child without mercy, and with it what it started: a task agent outlives its runner, and would
/// look for a control plane that is gone for an hour.
pub(crate) fn end(child: &mut Child) {
    if matches!(child.try_wait(), Ok(None)) {
        end_below(child.id());
    }
    let _ = child.wait();
}

/// Ends a process without mercy, and all that descends from it. Each may have ended by itself before.
pub(crate) fn end_below(first: u32) {
    let all = all();
    let mut family = vec![first];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(all.iter().filter(|process| process.parent == parent).map(|process| process.pid));
        next += 1;
    }
    for pid in family {
        let _ = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
    }
}

/// Waits for the end of a child that was told to end.
pub(crate) fn wait_end(child: &mut Child) -> ExitStatus {
    super::poll("the end of the process", || {
        child.try_wait().unwrap().ok_or_else(|| format!("pid {} runs", child.id()))
    })
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}
