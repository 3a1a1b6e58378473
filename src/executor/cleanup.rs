//! Cleaning up after a job. What is removed is what stands in the place: nothing beyond a mount, which a job may have made
//! of any folder of the host, and nothing behind a link that is not the operator's.

use super::folder;
use super::places::{self, real};
use crate::system::os::{self, Access, OsStringExt, access, symlink};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A working directory before its task: what was there is not the job's.
#[derive(Debug)]
pub struct Before {
    /// The folder that its path leads to.
    real: PathBuf,
    /// Target of the link that it is.
    link: Option<PathBuf>,
    mounts: Vec<Mount>,
}

/// A mount point.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    place: PathBuf,
    /// Number of the mount, that of the one below, device, and what of it is mounted.
    facts: Vec<u8>,
}

impl Before {
    /// As it is now.
    pub fn of(directory: &Path) -> Self {
        let real = real(directory);
        Self { link: fs::read_link(directory).ok(), mounts: mounts(&real), real }
    }
}

/// The mount points in a folder, and those above it, in the order that they were mounted in. The path has no links.
fn mounts(folder: &Path) -> Vec<Mount> {
    let mut found = Vec::new();
    // `36 35 98:0 /in/it /place rw,noatime master:1 - ext3 /dev/sda1 rw`
    for line in fs::read("/proc/self/mountinfo").unwrap_or_default().split(|byte| *byte == b'\n') {
        let words = Vec::from_iter(line.splitn(6, |byte| *byte == b' '));
        let Some(place) = words.get(4).map(|word| unescaped(word)) else { continue };
        if place.starts_with(folder) || folder.starts_with(&place) {
            found.push(Mount { place, facts: words[..4].join(&b' ') });
        }
    }
    found
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

/// Takes off what is mounted in a folder, or on it, and was not there before, as far as this user may. Returns the mounts
/// that are there then: the table of a host may be long, and is read again only when it has changed.
fn detach(folder: &Path, before: &[Mount]) -> Vec<Mount> {
    let found = mounts(folder);
    let mut is_changed = false;
    // The one that came last lies on top.
    for mount in found.iter().rev() {
        if mount.place.starts_with(folder) && !before.contains(mount) && os::detach(&mount.place).is_ok() {
            log::info!("detached `{}`, which the job had mounted", mount.place.display());
            is_changed = true;
        }
    }
    if is_changed { mounts(folder) } else { found }
}

/// The path without links, except for one at its end.
fn in_place(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => real(parent).join(name),
        _ => real(path),
    }
}

/// Removes a folder with all in it, or a file, or a link as such. What is mounted there stays, and is an error, as is what
/// cannot be removed; everything else goes.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let folder = in_place(path);
    remove_without_mounts(&folder, true, mounts(&folder))
}

/// As [`remove`], with what the job has mounted there, as far as it can be taken off.
pub(super) fn remove_with_mounts(path: &Path) -> io::Result<()> {
    let folder = in_place(path);
    remove_without_mounts(&folder, true, detach(&folder, &[]))
}

/// `itself`: not only what is in the folder, whose path has no links.
fn remove_without_mounts(folder: &Path, itself: bool, mounts: Vec<Mount>) -> io::Result<()> {
    let mut kept = Vec::from_iter(mounts.into_iter().map(|mount| mount.place));
    kept.retain(|place| place.starts_with(folder));
    let itself = itself && kept.first().is_none_or(|place| place != folder);
    let mut left = Left { kept, ..Left::default() };
    left.remove(folder, itself);
    if left.count > 1 {
        left.tell(format!("{} more cannot be removed", left.count - 1));
    }
    if left.text.is_empty() { Ok(()) } else { Err(io::Error::other(left.text)) }
}

/// All that is left where something was removed.
#[derive(Default)]
struct Left {
    /// Mount points, which stay.
    kept: Vec<PathBuf>,
    /// For people: what is mounted there, and the first path that could not be removed, with its error.
    text: String,
    /// Paths that could not be removed.
    count: usize,
}

impl Left {
    /// Removes what can be removed. `itself`: not only what is in the folder.
    fn remove(&mut self, path: &Path, itself: bool) {
        if itself && self.kept.iter().any(|place| place == path) {
            return self.tell(format!("`{}` is mounted there and stays", path.display()));
        }
        let goes = itself && !self.kept.iter().any(|place| place.starts_with(path));
        match self.remove_around(path, goes) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                if self.count == 0 {
                    self.tell(format!("`{}`: {error}", path.display()));
                }
                self.count += 1;
            }
            _ => {}
        }
    }

    fn remove_around(&mut self, path: &Path, goes: bool) -> io::Result<()> {
        if !path.symlink_metadata()?.is_dir() {
            return if goes { fs::remove_file(path) } else { Ok(()) };
        }
        if goes && fs::remove_dir_all(path).is_ok() {
            return Ok(());
        }
        // A job may leave folders without permissions; those of this user can be opened up.
        if access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_err() {
            let _ = os::set_mode(path, 0o700);
        }
        let before = self.count;
        for entry in fs::read_dir(path)?.flatten() {
            self.remove(&entry.path(), true);
        }
        if goes && self.count == before { fs::remove_dir(path) } else { Ok(()) }
    }

    fn tell(&mut self, text: String) {
        if !self.text.is_empty() {
            self.text.push_str("; ");
        }
        self.text.push_str(&text);
    }
}

/// Removes the working directory of a task whose agent died, unless another task is at work there: it may have died
/// while it waited for that. Nothing is known from before the task when this is another run of the runner.
pub fn remove_left_working_directory(directory: &Path, before: Option<&Before>) {
    if !directory.is_dir() {
        return;
    }
    match folder::lock(directory) {
        Ok(Some(_lock)) => remove_working_directory(directory, before, true),
        Ok(None) => log::info!(
            "not removing the working directory `{}`: another task is at work there",
            directory.display()
        ),
        Err(error) => log::warn!("failed to lock the working directory `{}`: {error}", directory.display()),
    }
}

/// Removes the working directory after the job. What cannot be removed is named in the runner's log. `is_own`: the
/// operator has named it, and not the job.
///
/// A config may name any directory. Those that hold the home or this program are never removed, whatever
/// way leads there (`~/x/..`, a link): they hold more than a job made.
pub(super) fn remove_working_directory(directory: &Path, before: Option<&Before>, is_own: bool) {
    let shown = directory.display();
    let real = real(directory);
    let link = fs::read_link(directory).ok();
    if let Some(before) = before.filter(|before| before.real != real) {
        log::warn!(
            "the working directory `{shown}` leads to `{}` now, and led to `{}` before the job: nothing is removed there",
            real.display(),
            before.real.display()
        );
        // The next job is not to work there.
        if link.is_some() && fs::remove_file(directory).is_ok() {
            let _ = before.link.as_ref().map(|link| (symlink(link, directory), fs::create_dir(&before.real)));
        }
        return;
    }
    if link.is_some() && !(is_own && before.is_some()) {
        log::warn!(
            "not cleaning the working directory `{shown}`, a link to `{}`, which the setting of the runner does not name or a job may have made",
            real.display()
        );
        return;
    }
    let held = [places::home().canonicalize().ok(), std::env::current_exe().ok()];
    if real.parent().is_none() || held.iter().flatten().any(|path| path.starts_with(&real)) {
        log::warn!("not removing the working directory `{shown}`: the home or this program is in it");
        return;
    }
    let found = before.map_or_else(|| mounts(&real), |before| detach(&real, &before.mounts));
    let is_strange = |mount: &&Mount| match before {
        Some(before) => real.starts_with(&mount.place) && !before.mounts.contains(mount),
        None => mount.place == real,
    };
    if let Some(mount) = found.iter().find(is_strange) {
        log::warn!(
            "not cleaning the working directory `{shown}`: a job may have mounted something at `{}` (umount it)",
            mount.place.display()
        );
    } else if let Err(error) = remove_without_mounts(&real, link.is_none(), found) {
        log::warn!(
            "failed to clean the working directory `{shown}`: {error} (remove what is left as its owner or as root)"
        );
    }
}
