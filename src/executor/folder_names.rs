//! Names that a task agent holds on its host for the folder that it works in. A lock on a folder is on what is there now,
//! and ends with the agent: a job that removes its working directory and makes it again leaves that lock behind, and what
//! outlives an agent that was killed has none.
//!
//! A name is the address of a socket of no file (`abstract`): it needs no place that anybody could empty, no rights of
//! the users behind a prefix, and ends with the last process that has the socket. There are none but on Linux, and none
//! between the network namespaces of containers; there the lock of the folder has to do, which is renewed before each step.
//!
//! A folder has two. One is made of the folder above it together with its own name there, so that it is the same behind a
//! bind mount; one process can have it. The other one is its path with the task agent, for everybody to read, and whatever
//! the agent starts inherits its socket: a single descriptor that leads nowhere. A locked folder would be a way out for
//! what a step keeps in a root of its own.

use crate::system::os::MetadataExt;
use crate::system::{hex, proc};
use ring::digest::{Context, SHA256};
use std::fs;
use std::path::{Path, PathBuf};

/// Begins the name that tells who works in a folder: `runlet-in-PID-START/PATH`.
const WORKED_IN: &str = "runlet-in-";
/// Longest path that is told, in bytes: a name has 107 in all. Of a longer one, tasks around it see the locks alone.
const LONGEST_PATH: usize = 75;

/// The names of a folder, as long as this lives.
#[derive(Debug, Default)]
pub(super) struct FolderNames {
    _places: Vec<HeldName>,
    worked_in: Vec<HeldName>,
}

impl FolderNames {
    /// Takes the names of a folder, by all ways to it; these have no links. `None` when another task works there, around or
    /// inside it.
    pub(super) fn take(ways: &[PathBuf]) -> Option<Self> {
        let (mut held, mut own) = (Self::default(), Vec::new());
        for (folder, is_place) in ways.iter().flat_map(|folder| [(folder, true), (folder, false)]) {
            let name = if is_place { by_place(folder) } else { worked_in(folder) };
            // Two ways may come through one folder above.
            let Some(name) = name.filter(|name| !own.contains(name)) else { continue };
            let taken = HeldName::take(&name)?;
            if is_place { &mut held._places } else { &mut held.worked_in }.extend(taken);
            own.push(name);
        }
        // Looked at when the own names are there for others to see: of two that come at once, one at least sees the other.
        (!ways.iter().any(|folder| are_in_use(folder, &own))).then_some(held)
    }

    /// Has whatever this process starts from now on hold the folder as well, until this value is dropped.
    pub(super) fn hand_on(&mut self) {
        self.worked_in.iter_mut().for_each(HeldName::hand_on);
    }
}

/// Whether another task than the own one works around or inside a folder.
fn are_in_use(folder: &Path, own: &[String]) -> bool {
    let is_other = |name: &String| !own.contains(name);
    folder.ancestors().skip(1).filter_map(by_place).any(|name| is_other(&name) && HeldName::is_held(&name))
        || workers(folder).iter().any(|worker| is_other(&worker.name))
}

/// The folder above, whatever way leads there, and the name in it.
fn by_place(folder: &Path) -> Option<String> {
    let above = fs::metadata(folder.parent()?).ok()?;
    let mut sum = Context::new(&SHA256);
    sum.update(&above.dev().to_le_bytes());
    sum.update(&above.ino().to_le_bytes());
    sum.update(folder.file_name()?.as_encoded_bytes());
    Some(format!("runlet-folder-{}", hex(&sum.finish().as_ref()[..16])))
}

fn worked_in(folder: &Path) -> Option<String> {
    let fits = |path: &&str| path.len() <= LONGEST_PATH && !path.contains(char::is_control);
    let path = folder.to_str().filter(fits)?;
    let own = proc::stat(std::process::id() as i32)?;
    Some(format!("{WORKED_IN}{}-{}{path}", own.pid, own.start_time))
}

/// A task that works in a folder, or what is left of it.
#[derive(Debug)]
struct Worker {
    name: String,
    /// The socket as the links of `/proc/PID/fd` name it.
    socket: String,
}

/// The tasks that work in a folder, around or inside it. None for a path that leads nowhere, which is empty.
///
/// A name can only be asked for by whoever knows it whole, and nobody knows which folders inside this one are worked in: they
/// are found in the table of all sockets, which is read once for a task.
fn workers(folder: &Path) -> Vec<Worker> {
    if folder.as_os_str().is_empty() {
        return Vec::new();
    }
    let sockets = fs::read("/proc/self/net/unix").unwrap_or_default();
    // `ffff8f1c: 00000002 00000000 00000000 0002 01 12345 @name`
    let worker = |line: &str| {
        let (facts, name) = line.split_once('@')?;
        let inside = Path::new(&name[name.find('/')?..]);
        let is_near =
            name.starts_with(WORKED_IN) && (inside.starts_with(folder) || folder.starts_with(inside));
        let socket = format!("socket:[{}]", facts.split_ascii_whitespace().nth(6)?);
        // A name that was let go is still there as long as a process has the socket.
        (is_near && HeldName::is_held(name)).then(|| Worker { name: name.to_owned(), socket })
    };
    String::from_utf8_lossy(&sockets).lines().filter_map(worker).collect()
}

/// Names the tasks that work in a folder, around or inside it, for people. Arguments are left out: their
/// secrets are not known to this task, so that none could be masked.
pub(super) fn holder(ways: &[PathBuf]) -> String {
    let told = |process: &proc::Stat| format!("pid {} (`{}`)", process.pid, process.name);
    let tell = |worker: Worker| {
        let mut agent = worker.name[WORKED_IN.len()..].split(['-', '/']);
        let pid = agent.next().and_then(|pid| pid.parse().ok());
        // A process that is emulated may know another start of itself than the one that is seen from outside.
        let is_same = |found: &proc::Stat| {
            agent.next() == Some(&found.start_time.to_string())
                || proc::has_open(found.pid, Path::new(&worker.socket))
        };
        if let Some(agent) = pid.and_then(proc::stat).filter(|found| !found.zombie).filter(is_same) {
            return told(&agent);
        }
        let left = proc::all().filter(|process| proc::has_open(process.pid, Path::new(&worker.socket)));
        let left = Vec::from_iter(left.map(|process| told(&process)));
        let left = if left.is_empty() { "processes".to_owned() } else { left.join(", ") };
        format!("a killed task agent, which left {left} running")
    };
    let mut told = Vec::from_iter(ways.iter().flat_map(|folder| workers(folder)).map(tell));
    // A task has a name for each way.
    told.dedup();
    if told.is_empty() { "another process".to_owned() } else { told.join(" or ") }
}

#[cfg(target_os = "linux")]
use linux::HeldName;

#[cfg(target_os = "linux")]
mod linux {
    use crate::logging::record;
    use std::io;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    /// Descriptors below are those that scripts use by their numbers.
    const FIRST_FREE: i32 = 100;

    /// A name that this process holds.
    #[derive(Debug)]
    pub(super) struct HeldName(UnixDatagram);

    impl HeldName {
        /// Takes a name. `None` when another process has it; nothing in it where no names are to be had.
        pub(super) fn take(name: &str) -> Option<Option<Self>> {
            let address = SocketAddr::from_abstract_name(name);
            match address.and_then(|address| UnixDatagram::bind_addr(&address)) {
                Ok(socket) => Some(Some(Self(socket))),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
                Err(error) => {
                    record!(Debug; "cannot hold the name of a folder: {error}");
                    Some(None)
                }
            }
        }

        /// Whether a process holds this name.
        pub(super) fn is_held(name: &str) -> bool {
            let address = SocketAddr::from_abstract_name(name);
            address.and_then(|address| UnixDatagram::unbound()?.connect_addr(&address)).is_ok()
        }

        /// Has the programs that are started from now on hold it, too.
        pub(super) fn hand_on(&mut self) {
            use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
            if let Ok(inherited) = fcntl_dupfd_cloexec(&self.0, FIRST_FREE) {
                let _ = fcntl_setfd(&inherited, FdFlags::empty());
                // The other descriptor is closed, and the name stays.
                self.0 = inherited.into();
            }
        }
    }

    /// A process that was started may have the socket for years. One that is connected to itself takes no other
    /// connection, which tells that it is held no more.
    impl Drop for HeldName {
        fn drop(&mut self) {
            let _ = self.0.local_addr().and_then(|own| self.0.connect_addr(&own));
        }
    }
}

#[cfg(not(target_os = "linux"))]
use nowhere::HeldName;

#[cfg(not(target_os = "linux"))]
mod nowhere {
    use crate::logging::record;

    /// A system without such names.
    #[derive(Debug)]
    pub(super) struct HeldName;

    impl HeldName {
        pub(super) fn take(name: &str) -> Option<Option<Self>> {
            record!(Debug; "no name `{name}` on this system");
            Some(None)
        }

        pub(super) fn is_held(_: &str) -> bool {
            false
        }

        pub(super) fn hand_on(&mut self) {}
    }
}

/// A wanted value that is there once nobody holds a folder that was let go of. A process that is just being started by another
/// test has the sockets of this one until its program begins.
#[cfg(test)]
pub(super) fn soon<T>(mut wanted: impl FnMut() -> Option<T>) -> Option<T> {
    (0..1_000).find_map(|_| {
        let had = wanted();
        if had.is_none() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        had
    })
}

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn take(folder: &Path) -> Option<FolderNames> {
        FolderNames::take(&[folder.to_owned()])
    }

    /// Whether a task works in a folder, around or inside it. Nothing is taken.
    fn are_held(folder: &Path) -> bool {
        by_place(folder).is_some_and(|name| HeldName::is_held(&name)) || are_in_use(folder, &[])
    }

    #[test]
    fn names_are_of_one_task_around_and_inside_whatever_becomes_of_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let outer = place.path().canonicalize().unwrap().join("outer");
        let inner = outer.join("deep/inner");
        fs::create_dir_all(&inner).unwrap();
        for (first, second) in [(&outer, &inner), (&inner, &outer), (&inner, &inner)] {
            let held = soon(|| take(first)).unwrap();
            fs::remove_dir_all(&outer).unwrap();
            assert!(are_held(second) && take(second).is_none());
            fs::create_dir_all(&inner).unwrap();
            assert!(are_held(second) && take(second).is_none());
            assert!(!are_held(Path::new("")), "a path that leads nowhere is not near");
            let beside = outer.with_file_name("other");
            assert!(soon(|| take(&beside)).is_some(), "what was tried in vain is not kept");
            drop(held);
            assert!(soon(|| (!are_held(second)).then(|| take(second)).flatten()).is_some());
        }
    }

    #[test]
    fn a_folder_is_the_same_by_whatever_way_the_one_above_it_is_reached() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("real/w")).unwrap();
        // A link stands for a bind mount: the paths differ, and the folder above is one.
        std::os::unix::fs::symlink("real", place.path().join("other")).unwrap();
        let held = take(&place.path().join("real/w")).unwrap();
        assert!(take(&place.path().join("other/w")).is_none());
        assert!(are_held(&place.path().join("other/w/below")));
        drop(held);
    }

    #[test]
    fn a_folder_is_held_by_what_was_started_until_it_is_let_go() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().canonicalize().unwrap().join("w");
        let mut held = take(&folder).unwrap();
        held.hand_on();
        let mut left = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        // The name of the place ends with the agent.
        let mark = held.worked_in.pop().unwrap();
        drop(held);
        for near in [&*folder, &folder.join("a"), place.path()] {
            assert!(are_held(near), "{}", near.display());
            assert!(take(near).is_none());
        }
        drop(mark);
        assert!(!are_held(&folder), "it was let go, although there is a process that has it");
        left.kill().unwrap();
        left.wait().unwrap();
    }
}
