//! The mounts of this system, and the ways that lead to one folder.
//!
//! The kernel tells when something is mounted or taken off, but not when a folder with a mount in it is moved: before
//! anything is removed the mounts are read, however long their table is.

use crate::system::os::{MetadataExt, OsStringExt};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// A mount point.
#[derive(Clone, Debug)]
pub(super) struct Mount {
    pub(super) place: PathBuf,
    /// The part of its device that is mounted, as that is called now.
    root: PathBuf,
    /// Number of the mount, that of the one below, and device.
    facts: Vec<u8>,
    /// Device and number of the folder that is seen there, of one that was looked at.
    number: Option<(u64, u64)>,
}

impl Mount {
    /// Looks at what is seen there.
    pub(super) fn look(&mut self) {
        self.number = number(&self.place);
    }

    /// Whether it is one of these, which were looked at. A job may rename what is mounted; and a number of a mount that is gone
    /// is given to the next one.
    pub(super) fn is_among(&self, mounts: &[Mount]) -> bool {
        let is_same = |mount: &Mount| {
            mount.root == self.root || mount.number.is_some() && mount.number == number(&self.place)
        };
        mounts.iter().any(|mount| mount.facts == self.facts && is_same(mount))
    }

    fn device(&self) -> Option<&[u8]> {
        self.facts.rsplit(|byte| *byte == b' ').next()
    }
}

/// Device and number of what is at a path.
pub(super) fn number(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|about| (about.dev(), about.ino()))
}

/// The ways to a folder: its path, which has no links, and those through other mounts of what it is in. A bind mount of a
/// folder inside the one of another task leads around neither of them, and back to both. `mounts`: all of them.
pub(super) fn ways(folder: &Path, mounts: &[Mount]) -> Vec<PathBuf> {
    ways_by(folder, mounts, |folder| number(folder).or_else(|| number(folder.parent()?)))
}

fn ways_by(folder: &Path, mounts: &[Mount], number: impl Fn(&Path) -> Option<(u64, u64)>) -> Vec<PathBuf> {
    let mut ways = vec![folder.to_owned()];
    let above = mounts.iter().filter(|mount| folder.starts_with(&mount.place));
    // Of two at one place, the last one lies on top.
    let own = above.max_by_key(|mount| mount.place.as_os_str().len());
    let inside = own.and_then(|own| Some((own, own.root.join(folder.strip_prefix(&own.place).ok()?))));
    let Some((own, inside)) = inside else { return ways };
    for mount in mounts.iter().filter(|mount| mount.device() == own.device()) {
        let Ok(rest) = inside.strip_prefix(&mount.root) else { continue };
        let way = mount.place.join(rest);
        // Another mount may cover this way; one inside of the folder is found by the mounts above it.
        if !way.starts_with(folder) && number(&way).is_some_and(|found| Some(found) == number(folder)) {
            ways.push(way);
        }
    }
    ways
}

/// The mount points in a folder, and those above it, in the order that they were mounted in. The path has no links.
pub(super) fn mounts(folder: &Path) -> Vec<Mount> {
    let mut found = Vec::new();
    // A table that cannot be read counts as empty.
    let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
    // `36 35 98:0 /in/it /place rw,noatime master:1 - ext3 /dev/sda1 rw`
    for line in text.split(|byte| *byte == b'\n') {
        let words = Vec::from_iter(line.splitn(6, |byte| *byte == b' '));
        let Some(place) = words.get(4).map(|word| unescaped(word)) else { continue };
        if place.starts_with(folder) || folder.starts_with(&place) {
            let root = unescaped(words[3]);
            found.push(Mount { place, root, facts: words[..3].join(&b' '), number: None });
        }
    }
    found
}

/// All mount points.
pub(super) fn all() -> Vec<Mount> {
    mounts(Path::new("/"))
}

/// `\040` is a space.
fn unescaped(word: &[u8]) -> PathBuf {
    let mut parts = word.split(|byte| *byte == b'\\');
    let mut text = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at(part.len().min(3));
        text.push(digits.iter().fold(0, |byte, digit| byte << 3 | digit & 7));
        text.extend(rest);
    }
    OsString::from_vec(text).into()
}

/// For tests that mount something: runs `script` and then the test of this name in a namespace of its own, in a folder that
/// is returned there. `None` outside, when that has been done, or cannot be here.
#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::unwrap_used)]
pub(super) fn in_namespace(test: &str, script: &str) -> Option<PathBuf> {
    const PLACE: &str = "RUNLET_TEST_MOUNTS";
    if let Some(place) = std::env::var_os(PLACE) {
        return Some(place.into());
    }
    let unshare = |script: &str, folder: &Path| {
        let script = format!("cd \"${PLACE}\"\n{script}");
        let mut command = std::process::Command::new("unshare");
        command.args(["-Urm", "--propagation", "private", "sh", "-ec", &script, "sh"]);
        command.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
        command.env(PLACE, folder).output()
    };
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().canonicalize().unwrap();
    if !unshare("mount -t tmpfs none .", &place).is_ok_and(|tried| tried.status.success()) {
        eprintln!("skipped `{test}`: user and mount namespaces are not to be had");
        return None;
    }
    let ran = unshare(&format!("{script}\nexec \"$@\""), &place).unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && said.contains(" 1 passed"), "{said}{told}");
    None
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set up its table should fail loudly")]
mod tests {
    use super::*;

    fn mount(text: &str) -> Mount {
        let [id, device, root, place]: [&str; 4] = Vec::from_iter(text.split(' ')).try_into().unwrap();
        let facts = format!("{id} 1 {device}").into_bytes();
        Mount { place: place.into(), root: root.into(), facts, number: None }
    }

    #[test]
    fn a_bind_mount_has_the_ways_of_what_it_shows() {
        let table = [
            "1 8:1 / /",
            "2 8:1 /n/x/wd/inner /n/b",
            "3 8:2 / /n/disk",
            "4 8:1 /n/x /mnt/x",
            "5 8:1 /other /n/o",
            "6 8:1 /n/x/wd /over",
            "7 8:1 /other /n/o/self",
        ];
        let table = table.map(mount);
        let ways = |folder: &str| {
            // The way `/over` leads elsewhere, as if something were mounted over it.
            ways_by(Path::new(folder), &table, |path| Some((8, u64::from(path.starts_with("/over")))))
        };
        let found = |all: &[&str]| Vec::from_iter(all.iter().map(PathBuf::from));
        assert_eq!(ways("/n/b"), found(&["/n/b", "/n/x/wd/inner", "/mnt/x/wd/inner"]));
        assert_eq!(ways("/n/b/w"), found(&["/n/b/w", "/n/x/wd/inner/w", "/mnt/x/wd/inner/w"]));
        assert_eq!(ways("/n/x/wd"), found(&["/n/x/wd", "/mnt/x/wd"]));
        assert_eq!(ways("/n/disk/w"), found(&["/n/disk/w"]));
        assert_eq!(ways("/n/o"), found(&["/n/o", "/other"]));
        assert_eq!(ways(""), found(&[""]));
    }

    #[test]
    fn a_mount_is_known_by_its_number_and_by_what_is_seen_there() {
        let place = std::env::temp_dir();
        let place = place.display();
        let mut before = mount(&format!("7 8:1 /src {place}"));
        before.look();
        let is_known =
            |text: &str| mount(&text.replace("PLACE", &place.to_string())).is_among(&[before.clone()]);
        assert!(is_known("7 8:1 /src PLACE"));
        assert!(is_known("7 8:1 /src2 PLACE"), "what is mounted was renamed");
        assert!(is_known("7 8:1 /src /moved"), "a folder above it was renamed");
        assert!(!is_known("9 8:1 /src PLACE"), "the same once more");
        assert!(
            !is_known("7 8:2 /src PLACE") && !is_known("7 8:1 /src2 /"),
            "another one by the same number"
        );
    }
}
