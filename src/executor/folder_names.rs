//! Names that a task agent holds on its host for the folder that it works in. A lock on a folder is on what is there now:
//! a job that removes its working directory and makes it again leaves that lock behind, and a name it does not.
//!
//! A name is the address of a socket of no file (`abstract`): it needs no place that anybody could empty, no rights of
//! the users behind a prefix, and ends with its process. There are none but on Linux, and none between the network
//! namespaces of containers; there the lock of the folder has to do, which is renewed before each step.
//!
//! A folder is named by its path, and by the folder above it together with its own name there, so that it is the same
//! behind a bind mount.

use crate::system::hex;
use ring::digest::{Context, SHA256};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Tasks that are known to work inside of one folder, at most. More of them have the locks of folders alone.
const MOST_INSIDE: u32 = 64;

/// The names of a folder, as long as this lives.
#[derive(Debug, Default)]
pub(super) struct FolderNames(Vec<Name>);

/// A digest by which a folder is known: of its path, or of its place on the disk.
type Key = [u8; 16];

impl FolderNames {
    /// Takes the names of a folder; the path has no links. `None` when another task works there, around or inside it.
    pub(super) fn take(folder: &Path) -> Option<Self> {
        let mut held = Self::default();
        for key in keys(folder) {
            held.0.extend(Name::take(&key, 0)?);
        }
        for above in folder.ancestors().skip(1) {
            let key = by_path(above);
            // Those of other tasks are passed over; nothing where there are no names at all.
            let free = (1..=MOST_INSIDE).find_map(|place| Name::take(&key, place)).flatten();
            held.0.extend(free);
        }
        // Looked at when the own names are there for others to see: of two that come at once, one at least sees the other.
        (!are_in_use(folder)).then_some(held)
    }
}

/// Whether a task works around or inside a folder.
fn are_in_use(folder: &Path) -> bool {
    Name::is_one_held(around_and_inside(folder))
}

/// Whether a task works in a folder, around or inside it. Nothing is taken.
pub(super) fn are_held(folder: &Path) -> bool {
    let own = keys(folder).into_iter().map(|key| (key, 0));
    Name::is_one_held(own.chain(around_and_inside(folder)))
}

/// Names that tasks have which work in a folder above this one, or below it.
fn around_and_inside(folder: &Path) -> impl Iterator<Item = (Key, u32)> {
    let own = by_path(folder);
    let around = folder.ancestors().skip(1).flat_map(keys).map(|key| (key, 0));
    around.chain((1..=MOST_INSIDE).map(move |place| (own, place)))
}

fn keys(folder: &Path) -> Vec<Key> {
    let mut keys = vec![by_path(folder)];
    keys.extend(by_place(folder));
    keys
}

fn by_path(folder: &Path) -> Key {
    digest(&[folder.as_os_str().as_bytes()])
}

/// The folder above, whatever way leads there, and the name in it.
fn by_place(folder: &Path) -> Option<Key> {
    let above = fs::metadata(folder.parent()?).ok()?;
    let name = folder.file_name()?.as_bytes();
    Some(digest(&[&above.dev().to_le_bytes(), &above.ino().to_le_bytes(), name]))
}

fn digest(parts: &[&[u8]]) -> Key {
    let mut sum = Context::new(&SHA256);
    for part in parts {
        sum.update(&part.len().to_le_bytes());
        sum.update(part);
    }
    let mut key = Key::default();
    key.copy_from_slice(&sum.finish().as_ref()[..16]);
    key
}

#[cfg(target_os = "linux")]
use linux::Name;

#[cfg(target_os = "linux")]
mod linux {
    use super::{Key, hex};
    use crate::logging::record;
    use std::io;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    /// A name that this process holds.
    #[derive(Debug)]
    pub(super) struct Name {
        _socket: UnixDatagram,
    }

    impl Name {
        /// Takes a name. `None` when another process has it; nothing in it where no names are to be had.
        pub(super) fn take(key: &Key, place: u32) -> Option<Option<Self>> {
            match address(key, place).and_then(|address| UnixDatagram::bind_addr(&address)) {
                Ok(socket) => Some(Some(Self { _socket: socket })),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
                Err(error) => {
                    record!(Debug; "cannot hold the name of a folder: {error}");
                    Some(None)
                }
            }
        }

        /// Whether a process holds one of these names.
        pub(super) fn is_one_held(mut names: impl Iterator<Item = (Key, u32)>) -> bool {
            let Ok(asking) = UnixDatagram::unbound() else { return false };
            names.any(|(key, place)| address(&key, place).and_then(|at| asking.connect_addr(&at)).is_ok())
        }
    }

    fn address(key: &Key, place: u32) -> io::Result<SocketAddr> {
        SocketAddr::from_abstract_name(format!("runlet-folder-{}-{place}", hex(key)))
    }
}

#[cfg(not(target_os = "linux"))]
use nowhere::Name;

#[cfg(not(target_os = "linux"))]
mod nowhere {
    use super::{Key, hex};
    use crate::logging::record;

    /// A system without such names.
    #[derive(Debug)]
    pub(super) struct Name;

    impl Name {
        pub(super) fn take(key: &Key, _place: u32) -> Option<Option<Self>> {
            record!(Debug; "no name for the folder {} on this system", hex(key));
            Some(None)
        }

        pub(super) fn is_one_held(_: impl Iterator<Item = (Key, u32)>) -> bool {
            false
        }
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

    #[test]
    fn names_are_of_one_task_around_and_inside_whatever_becomes_of_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let outer = place.path().canonicalize().unwrap().join("outer");
        let inner = outer.join("deep/inner");
        fs::create_dir_all(&inner).unwrap();
        for (first, second) in [(&outer, &inner), (&inner, &outer), (&inner, &inner)] {
            let held = soon(|| FolderNames::take(first)).unwrap();
            fs::remove_dir_all(&outer).unwrap();
            assert!(are_held(second) && FolderNames::take(second).is_none());
            fs::create_dir_all(&inner).unwrap();
            assert!(are_held(second) && FolderNames::take(second).is_none());
            let beside = outer.with_file_name("other");
            assert!(soon(|| FolderNames::take(&beside)).is_some(), "what was tried in vain is not kept");
            drop(held);
            assert!(soon(|| (!are_held(second)).then(|| FolderNames::take(second)).flatten()).is_some());
        }
    }

    #[test]
    fn a_folder_is_the_same_by_whatever_way_the_one_above_it_is_reached() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("real/w")).unwrap();
        // A link stands for a bind mount: the paths differ, and the folder above is one.
        std::os::unix::fs::symlink("real", place.path().join("other")).unwrap();
        let held = FolderNames::take(&place.path().join("real/w")).unwrap();
        assert!(FolderNames::take(&place.path().join("other/w")).is_none());
        assert!(are_held(&place.path().join("other/w/below")));
        drop(held);
    }
}
