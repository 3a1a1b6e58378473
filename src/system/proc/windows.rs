//! Processes as Windows lists them. It tells neither their arguments nor their environment without unsafe code, and a
//! parent by its number alone: one that is younger than its child is another process, and not the parent.

use super::facts::Stat;
use winsafe::{FILETIME, HPROCESS, HPROCESSLIST, co};

/// The facts of a process, without its parent; `None` when there is none of that number that may be looked at.
pub fn stat(pid: i32) -> Option<Stat> {
    let wish = co::PROCESS::QUERY_LIMITED_INFORMATION | co::PROCESS::SYNCHRONIZE;
    let process = HPROCESS::OpenProcess(wish, false, pid as u32).ok()?;
    let (created, ..) = process.GetProcessTimes().ok()?;
    let path = process.QueryFullProcessImageName(co::PROCESS_NAME::WIN32).unwrap_or_default();
    Some(Stat {
        pid,
        parent: 0,
        group: 0,
        session: 0,
        // The number stays taken while somebody looks at the process.
        zombie: process.WaitForSingleObject(Some(0)) == Ok(co::WAIT::OBJECT_0),
        stopped: false,
        start_time: number(created),
        name: path.rsplit('\\').next().unwrap_or_default().to_owned(),
        told: (),
    })
}

/// Units of 100 nanoseconds.
fn number(time: FILETIME) -> u64 {
    u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime)
}

/// All processes of this host that may be looked at.
pub fn all() -> impl Iterator<Item = Stat> {
    let mut found = Vec::new();
    if let Ok(mut list) = HPROCESSLIST::CreateToolhelp32Snapshot(co::TH32CS::SNAPPROCESS, None) {
        for entry in list.iter_processes().map_while(Result::ok) {
            let parent = entry.th32ParentProcessID as i32;
            found.extend(stat(entry.th32ProcessID as i32).map(|stat| Stat { parent, ..stat }));
        }
    }
    found.into_iter()
}

/// Descendants of a process that have not ended, as far as no parent between them has.
pub fn descendants(pid: i32) -> Vec<Stat> {
    let (mut found, mut next) = (Vec::new(), Vec::new());
    next.extend(stat(pid));
    let mut all = Vec::from_iter(all().filter(|one| one.pid != pid && !one.zombie));
    while let Some(parent) = next.pop() {
        let is_child = |one: &Stat| one.parent == parent.pid && one.start_time >= parent.start_time;
        let (children, others) = all.into_iter().partition(is_child);
        all = others;
        next.extend_from_slice(&children);
        found.extend(children);
    }
    found
}

/// Groups are not remembered: a Job Object holds what a step has started.
pub fn remember_group(_: i32) {}

/// Whether processes can be looked at.
pub fn is_mounted() -> bool {
    stat(std::process::id() as i32).is_some()
}

/// Arguments are not told.
pub fn arguments(_: &Stat) -> String {
    String::new()
}

/// No environment is told.
pub fn environment(_: &Stat) -> Option<Vec<u8>> {
    None
}

/// No holders: the system does not tell who has a pipe.
pub fn holders<T>(_: &T) -> Vec<Stat> {
    Vec::new()
}

/// Always false: the system does not tell what a process has open.
pub fn has_open(_: i32, _: &std::path::Path) -> bool {
    false
}

/// No user is told.
pub fn real_user(_: i32) -> Option<u32> {
    None
}
