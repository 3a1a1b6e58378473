//! Processes as `/proc` shows them. Where it is not mounted there are none to see.

use super::facts::Stat;
use std::fs;
use std::path::Path;

/// The facts of a process; `None` when there is none of that number, or no `/proc`.
pub fn stat(pid: i32) -> Option<Stat> {
    stat_in(Path::new("/proc"), pid)
}

fn stat_in(proc: &Path, pid: i32) -> Option<Stat> {
    let stat = fs::read(proc.join(format!("{pid}/stat"))).ok()?;
    parse(pid, &String::from_utf8_lossy(&stat))
}

/// Parses `/proc/PID/stat`; the name of the program may hold anything, parentheses and spaces too.
fn parse(pid: i32, text: &str) -> Option<Stat> {
    let (start, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<i32>().ok();
    Some(Stat {
        pid,
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
        stopped: *fields.first()? == "T",
        start_time: fields.get(19)?.parse().ok()?,
        name: start.split_once('(').map_or_else(String::new, |(_, name)| name.to_owned()),
        told: (),
    })
}

/// All processes of this host that can be seen.
pub fn all() -> impl Iterator<Item = Stat> {
    all_in(Path::new("/proc"))
}

fn all_in(proc: &Path) -> impl Iterator<Item = Stat> + '_ {
    let folder = fs::read_dir(proc).into_iter().flatten().flatten();
    folder.filter_map(move |entry| stat_in(proc, entry.file_name().to_str()?.parse().ok()?))
}

/// Descendants of a process that have not ended, found by descent where the kernel tells children, else by one pass
/// over the parents of all processes. Some may be missing that are just being started.
pub fn descendants(pid: i32) -> Vec<Stat> {
    descendants_in(Path::new("/proc"), pid)
}

fn descendants_in(proc: &Path, pid: i32) -> Vec<Stat> {
    let mut found = Vec::new();
    if let Some(children) = children(proc, pid) {
        let mut next = children;
        while let Some(pid) = next.pop() {
            next.extend(self::children(proc, pid).unwrap_or_default());
            found.extend(stat_in(proc, pid));
        }
    } else {
        // Each process that was found is taken out of the table: whatever that says of parents, this ends.
        let mut all: Vec<Stat> = all_in(proc).filter(|one| one.pid != pid).collect();
        let mut next = vec![pid];
        while let Some(parent) = next.pop() {
            let mut at = 0;
            while at < all.len() {
                if all[at].parent == parent {
                    next.push(all[at].pid);
                    found.push(all.swap_remove(at));
                } else {
                    at += 1;
                }
            }
        }
    }
    found.retain(|one| !one.zombie);
    found
}

/// Children of all threads of a process; `None` when it is gone, or when the kernel does not tell.
fn children(proc: &Path, pid: i32) -> Option<Vec<i32>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(proc.join(format!("{pid}/task"))).ok()?.flatten() {
        let text = fs::read_to_string(thread.path().join("children")).ok()?;
        children.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Some(children)
}

/// Whether processes can be looked at: that needs `/proc`.
pub fn is_mounted() -> bool {
    stat(std::process::id() as i32).is_some()
}

/// Remembers nothing: orphans are adopted, and so found by descent.
pub fn remember_group(_: i32) {}

/// Arguments of a process, with a zero byte after each; everybody may read them.
pub fn arguments(process: &Stat) -> String {
    let arguments = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
    String::from_utf8_lossy(&arguments).into_owned()
}

/// The user who started a process; everybody may read it, whatever the process keeps private.
pub fn real_user(pid: i32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_ascii_whitespace().next()?.parse().ok()
}

/// The environment that a process was started with, `name=value` with a zero byte after each.
pub fn environment(process: &Stat) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{}/environ", process.pid)).ok()
}

/// The descendants of this process that hold the other end of the pipe that `reader` reads.
pub fn holders(reader: &fs::File) -> Vec<Stat> {
    use std::os::fd::AsRawFd;
    let own = fs::read_link(format!("/proc/self/fd/{}", reader.as_raw_fd()));
    let Ok(pipe) = own else { return Vec::new() };
    let mut found = descendants(std::process::id() as i32);
    found.retain(|process| has_open(process.pid, &pipe));
    found
}

/// Whether a process has the file open that `link` names, as the links of `/proc/PID/fd` name it.
pub fn has_open(pid: i32, link: &Path) -> bool {
    let Ok(folder) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    folder.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == link))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_with_odd_names_are_read() {
        let line = "42 (a) b (c) S 1 40 39 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 2";
        let stat = parse(42, line).unwrap();
        assert_eq!((stat.parent, stat.group, stat.session, stat.start_time), (1, 40, 39, 12345));
        assert!(!stat.zombie && !stat.stopped);
        assert!(parse(42, &line.replace(") S 1", ") T 1")).unwrap().stopped);
        assert_eq!(stat.name, "a) b (c");
        assert!(parse(42, "42 (x) Z 1").is_none() && parse(42, "").is_none());
    }

    /// A tree as kernels show it, with and without files of children.
    fn tree(processes: impl Iterator<Item = (i32, i32, char)>, tells_children: bool) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (pid, parent, state) in processes {
            let at = folder.path().join(pid.to_string());
            fs::create_dir_all(at.join(format!("task/{pid}"))).unwrap();
            let stat = format!("{pid} (x) {state} {parent} 1 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 9");
            fs::write(at.join("stat"), stat).unwrap();
            if tells_children {
                fs::write(at.join(format!("task/{pid}/children")), "").unwrap();
                let of_parent = folder.path().join(format!("{parent}/task/{parent}/children"));
                if let Ok(known) = fs::read_to_string(&of_parent) {
                    fs::write(of_parent, format!("{known}{pid} ")).unwrap();
                }
            }
        }
        folder
    }

    #[test]
    fn descendants_are_found_with_and_without_files_of_children() {
        for tells_children in [true, false] {
            let mut processes =
                vec![(10, 1, 'S'), (11, 1, 'S'), (12, 10, 'S'), (13, 12, 'Z'), (14, 12, 'S'), (15, 11, 'S')];
            processes.extend((100..600).map(|pid| (pid, 14, 'S')));
            let folder = tree(processes.into_iter(), tells_children);
            let mut found: Vec<_> = descendants_in(folder.path(), 10).iter().map(|one| one.pid).collect();
            found.sort_unstable();
            let expected: Vec<_> = [12, 14].into_iter().chain(100..600).collect();
            assert_eq!(found, expected, "{tells_children}");
            assert!(descendants_in(folder.path(), 15).is_empty());
        }
        // A number that its parent got later than it, as after a turn of the numbers.
        let folder = tree([(20, 900, 'S'), (900, 10, 'S'), (10, 1, 'S')].into_iter(), false);
        assert_eq!(descendants_in(folder.path(), 10).len(), 2);
        assert!(descendants_in(&folder.path().join("nowhere"), 10).is_empty());
    }

    #[test]
    fn the_own_process_is_there() {
        let own = stat(std::process::id() as i32).unwrap();
        assert_eq!(own.parent, rustix::process::getppid().unwrap().as_raw_nonzero().get());
        assert!(!own.zombie && !super::super::command_line(&own).is_empty());
        assert!(all().any(|process| process == own));
    }
}
