//! A control group for what the tasks of this runner start, where the system lets it have one: below the runner's
//! own group, in the unified hierarchy or in one of the older ones. Nothing leaves a group by starting a session,
//! by emptying its environment or by losing its parents.
//!
//! It is one group for each runner, not for each task: a runner that is started again finds in it what an earlier
//! one left, whatever it remembers. The runner is in it as well, so that what it starts is there from its birth:
//! moving a process takes the kernel some milliseconds, and would take them from every task. It leaves before it
//! kills what is in there.

use crate::agent::settings::Quotas;
use crate::system::os::{Pid, kill};
use std::cell::Cell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Folder that the hierarchies are mounted at, as every system has them.
const MOUNTED: &str = "/sys/fs/cgroup";

/// Group of a runner whose tasks are limited: one that gives limits to others has no members itself.
const SUPERVISOR: &str = "runlet-supervisor";

/// The group of one runner.
#[derive(Debug)]
pub(super) struct Group {
    /// Group that the runner was started in.
    own: PathBuf,
    folder: PathBuf,
    /// The runner is a member.
    is_member: Cell<bool>,
    /// The group above, where it was made to give limits.
    divided: Option<PathBuf>,
}

impl Group {
    /// The group of the runner that is known by this name alone; `None` where none can be had.
    pub(super) fn of(name: &str) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::below(Path::new(MOUNTED), &groups, name)
    }

    fn below(mounted: &Path, groups: &str, name: &str) -> Option<Self> {
        candidates(mounted, groups).into_iter().find_map(|own| {
            let folder = own.join(format!("runlet-{name}"));
            let is_new = !folder.is_dir();
            let made = fs::create_dir(&folder).or_else(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            });
            let made = made.ok();
            let group = made.map(|()| Self { own, folder, is_member: Cell::new(false), divided: None })?;
            // A group that may be made but not entered is of no use.
            match group.join() {
                Ok(()) => Some(group),
                Err(_) => {
                    let _ = is_new.then(|| fs::remove_dir(&group.folder));
                    None
                }
            }
        })
    }

    /// Sees to it that the runner is a member, and so whatever it starts.
    pub(super) fn join(&self) -> io::Result<()> {
        self.set_member(true)
    }

    fn set_member(&self, is_member: bool) -> io::Result<()> {
        if self.is_member.get() != is_member {
            write_to(&if is_member { &self.folder } else { &self.own }.join("cgroup.procs"), "0")?;
            self.is_member.set(is_member);
        }
        Ok(())
    }

    /// Limits its members together, the runner with them. The error is for people.
    ///
    /// A service manager cannot start a runner in a group that gives limits. An orderly end takes them away; after a kill
    /// the group has to be empty, or be cleared by the unit (docs/runner.md).
    pub(super) fn limit(&mut self, quotas: &Quotas) -> Result<(), String> {
        let top = self.own.clone();
        if !top.join("cgroup.controllers").exists() {
            return Err("control groups are not those of version 2".to_owned());
        }
        let own = top.join(SUPERVISOR);
        let failed = |what: &str, error: io::Error| format!("cannot {what}: {error}");
        fs::create_dir_all(&own).map_err(|error| failed("make a group", error))?;
        let members = fs::read_to_string(top.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines() {
            // A process that has ended meanwhile needs no place.
            let _ = write_to(&own.join("cgroup.procs"), pid);
        }
        self.own = own;
        self.divided = Some(top.clone());
        let limits = [
            ("memory", "memory.max", quotas.memory_bytes),
            ("pids", "pids.max", quotas.processes),
            ("cpu", "cpu.weight", quotas.cpu_weight),
        ];
        for (controller, file, value) in limits {
            let Some(value) = value else { continue };
            write_to(&top.join("cgroup.subtree_control"), &format!("+{controller}"))
                .and_then(|()| write_to(&self.folder.join(file), &value.to_string()))
                .map_err(|error| failed(&format!("set {file}"), error))?;
        }
        Ok(())
    }

    /// Process ids of its members, the runner's own not among them.
    pub(super) fn members(&self) -> Vec<i32> {
        let mut members = Vec::new();
        members_of(&self.folder, &mut members);
        let own = std::process::id() as i32;
        members.retain(|member| *member != own);
        members
    }

    /// Kills its members but the runner, in one stroke where the system knows how. Otherwise they are held still
    /// meanwhile, lest they start others.
    pub(super) fn kill(&self) {
        // An order to the group is one to all that are in it.
        let may_order = self.set_member(false).is_ok();
        let order = |file: &str, word: &str| may_order && write_to(&self.folder.join(file), word).is_ok();
        if order("cgroup.kill", "1") {
            return;
        }
        let frozen = order("cgroup.freeze", "1") || order("freezer.state", "FROZEN");
        for pid in self.members().into_iter().filter_map(Pid::from_raw) {
            let _ = kill(pid);
        }
        if frozen && !order("cgroup.freeze", "0") {
            order("freezer.state", "THAWED");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.set_member(false);
        if let Some(top) = &self.divided {
            for controller in ["memory", "pids", "cpu"] {
                let _ = write_to(&top.join("cgroup.subtree_control"), &format!("-{controller}"));
            }
            let _ = write_to(&top.join("cgroup.procs"), "0").and_then(|()| fs::remove_dir(&self.own));
        }
        // A group with members stays.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// The groups of this process, the unified hierarchy first, then what can freeze.
fn candidates(mounted: &Path, groups: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for wanted in ["", "freezer", "pids", "name=systemd"] {
        for line in groups.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            if !controllers.split(',').any(|controller| controller == wanted) {
                continue;
            }
            let folder = match wanted {
                "" if mounted.join("unified").is_dir() => "unified",
                "" => ".",
                _ => controllers.trim_start_matches("name="),
            };
            found.push(mounted.join(folder).join(path.trim_start_matches('/')));
        }
    }
    found
}

/// The file has to be there: these are no ordinary ones.
fn write_to(file: &Path, word: &str) -> io::Result<()> {
    io::Write::write_all(&mut fs::File::options().write(true).open(file)?, word.as_bytes())
}

/// Members of a group and of those below it, which a step may have made.
fn members_of(folder: &Path, members: &mut Vec<i32>) {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    members.extend(text.lines().filter_map(|pid| pid.parse::<i32>().ok()));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            members_of(&entry.path(), members);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_looked_for_in_every_kind_of_hierarchy() {
        let mounted = tempfile::tempdir().unwrap();
        let at = |path: &str| mounted.path().join(path);
        let unified = "0::/user.slice/session-1.scope\n";
        assert_eq!(candidates(mounted.path(), unified), [at("./user.slice/session-1.scope")]);
        let old = "9:name=systemd:/a\n8:pids:/b\n6:freezer,net_cls:/c:d\n0::/\n";
        fs::create_dir(at("unified")).unwrap();
        let expected = [at("unified/"), at("freezer,net_cls/c:d"), at("pids/b"), at("systemd/a")];
        assert_eq!(candidates(mounted.path(), old), expected);
        assert_eq!(candidates(mounted.path(), "nonsense\n\n"), [] as [PathBuf; 0]);
    }

    /// A tree of ordinary files, as far as they can stand for a control group.
    #[test]
    fn a_group_is_taken_where_it_can_be_entered() {
        let mounted = tempfile::tempdir().unwrap();
        let own = mounted.path().join("pids/own");
        let group = own.join("runlet-x");
        fs::create_dir_all(&group).unwrap();
        fs::create_dir_all(mounted.path().join("freezer/own")).unwrap();
        for folder in [&own, &group] {
            fs::write(folder.join("cgroup.procs"), "").unwrap();
        }
        let taken = Group::below(mounted.path(), "1:pids:/own\n2:freezer:/own\n", "x").unwrap();
        assert_eq!(taken.folder, group);
        assert!(!mounted.path().join("freezer/own/runlet-x").exists(), "it was left behind");
        fs::create_dir(group.join("inner")).unwrap();
        fs::write(group.join("cgroup.procs"), "11\n12\n").unwrap();
        fs::write(group.join("inner/cgroup.procs"), "13\n").unwrap();
        assert_eq!(taken.members(), [11, 12, 13]);
        assert!(Group::below(mounted.path(), "1:cpu:/own\n", "x").is_none());
    }

    /// Checks with ordinary files which process stands in which group, and which limits are written.
    #[test]
    fn limits_are_given_from_above_to_a_group_without_the_runner() {
        let mounted = tempfile::tempdir().unwrap();
        let own = mounted.path().join("own");
        let group = own.join("runlet-x");
        let supervisor = own.join(SUPERVISOR);
        fs::create_dir_all(&group).unwrap();
        fs::create_dir_all(&supervisor).unwrap();
        for (folder, files) in [
            (&own, &["cgroup.procs", "cgroup.subtree_control"][..]),
            (&group, &["cgroup.procs", "memory.max", "pids.max", "cpu.weight"]),
            (&supervisor, &["cgroup.procs"]),
        ] {
            files.iter().for_each(|file| fs::write(folder.join(file), "").unwrap());
        }
        let quotas = Quotas { memory_bytes: Some(2 << 30), processes: None, cpu_weight: Some(50) };
        let taken = || Group::below(mounted.path(), "0::/own\n", "x").unwrap();
        let error = taken().limit(&quotas).unwrap_err();
        assert!(error.contains("not those of version 2"), "{error}");
        fs::create_dir_all(&group).unwrap();
        fs::write(own.join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        let mut limited = taken();
        limited.limit(&quotas).unwrap();
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        assert_eq!(read(group.join("memory.max")), "2147483648");
        assert_eq!(
            (read(group.join("pids.max")), read(group.join("cpu.weight"))),
            (String::new(), "50".into())
        );
        assert!(read(own.join("cgroup.subtree_control")).starts_with("+cpu"));
        assert!(read(supervisor.join("cgroup.procs")).starts_with('0'));
        drop(limited);
        assert!(read(own.join("cgroup.subtree_control")).starts_with("-cpu"));
    }
}
