//! Processes as the command `ps` shows them, where there is no `/proc`: on macOS, where this was never run. How
//! its tables are read is tested on Linux, too.
//!
//! Orphans go to the first process of the system there, and no call that is free of unsafe code tells sessions or
//! children. So the groups of steps are remembered, and what remains of them is found by their numbers; what has left
//! its group is found by the variable of its task. `ps` tells the environment of the user's own processes, but not
//! that of programs that belong to macOS: one of those that starts a group of its own, and whose parents have ended, is
//! found by nothing.

use super::facts::{MARK, Stat, Told};
use super::table::{add_environments, family, row};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Columns that are asked for, each with a heading of its own, which is none: a line of headings is left out then.
const COLUMNS: [&str; 6] = ["pid=", "ppid=", "pgid=", "stat=", "lstart=", "command="];

/// Groups that this process has started.
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// The facts of a process; `None` when there is none of that number.
pub fn stat(pid: i32) -> Option<Stat<Told>> {
    table(&["-p", &pid.to_string()]).pop()
}

/// All processes of this host.
pub fn all() -> impl Iterator<Item = Stat<Told>> {
    let mut all = table(&["-A"]);
    // Of a line that has both nobody can tell where the arguments end: the environment is the rest behind the line that has
    // arguments alone.
    let full = table(&["-A", "-E"]);
    add_environments(&mut all, &full);
    all.into_iter()
}

/// Rows of `ps` with these options.
fn table(options: &[&str]) -> Vec<Stat<Told>> {
    let mut command = Command::new("/bin/ps");
    command.args(options).arg("-ww").env("LC_ALL", "C").env("TZ", "UTC0").stdin(Stdio::null());
    for column in COLUMNS {
        command.args(["-o", column]);
    }
    match command.output() {
        Ok(said) => String::from_utf8_lossy(&said.stdout).lines().filter_map(row).collect(),
        Err(error) => {
            log::warn!("cannot look at the processes of this host: /bin/ps: {error}");
            Vec::new()
        }
    }
}

/// Descendants of a process that have not ended; for this process also what is left of the groups that it has started,
/// and what has the task of its environment.
pub fn descendants(pid: i32) -> Vec<Stat<Told>> {
    let is_own = pid == std::process::id() as i32;
    let groups = match is_own {
        true => GROUPS.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        false => BTreeSet::new(),
    };
    let mark = std::env::var(MARK).ok().filter(|_| is_own).map(|task| format!("{MARK}={task}"));
    family(pid, all().collect(), &groups, mark.as_deref())
}

/// Remembers a group that this process has started.
pub fn remember_group(group: i32) {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner).insert(group);
}

/// Whether processes can be looked at.
pub fn is_mounted() -> bool {
    stat(std::process::id() as i32).is_some()
}

/// Arguments of a process, with a zero byte in place of each space: `ps` does not tell where one ends.
pub fn arguments(process: &Stat<Told>) -> String {
    process.told.arguments.replace(' ', "\0")
}

/// The environment that a process was started with, as far as `ps` tells it, with a zero byte in place of each space.
pub fn environment(process: &Stat<Told>) -> Option<Vec<u8>> {
    Some(process.told.environment.replace(' ', "\0").into_bytes())
}

/// No holders: `ps` does not tell who has a pipe.
pub fn holders(_: &std::fs::File) -> Vec<Stat<Told>> {
    Vec::new()
}

/// Always false: `ps` does not tell what a process has open.
pub fn has_open(_: i32, _: &std::path::Path) -> bool {
    false
}

/// The user who started a process.
pub fn real_user(pid: i32) -> Option<u32> {
    let said =
        Command::new("/bin/ps").args(["-p", &pid.to_string(), "-o", "ruid="]).stdin(Stdio::null()).output();
    String::from_utf8_lossy(&said.ok()?.stdout).trim().parse().ok()
}
