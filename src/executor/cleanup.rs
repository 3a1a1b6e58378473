//! Cleaning up after a job. What is removed is what stands in the place: nothing beyond a mount, which a job may have made
//! of any folder of the host, and nothing behind a link that is not the operator's.

use super::folder;
use super::places::{self, real};
use crate::system::os;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
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

/// Takes off what is mounted in a folder, or on it, and was not there before, as far as this user may.
pub(super) fn detach(folder: &Path, before: &[Mount]) {
    let folder = in_place(folder);
    // The one that came last lies on top.
    for mount in mounts(&folder).iter().rev() {
        if mount.place.starts_with(&folder) && !before.contains(mount) && os::detach(&mount.place).is_ok() {
            log::info!("detached `{}`, which the job had mounted", mount.place.display());
        }
    }
}

/// The path without links, except for one at its end.
fn in_place(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => real(parent).join(name),
        _ => real(path),
    }
}

/// Removes a folder with all in it, or a file, or a link as such. What is mounted there stays, and is an error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    remove_without_mounts(&in_place(path), true)
}

/// `itself`: not only what is in the folder, whose path has no links.
fn remove_without_mounts(folder: &Path, itself: bool) -> io::Result<()> {
    let mut kept = Vec::from_iter(mounts(folder).into_iter().map(|mount| mount.place));
    kept.retain(|place| place.starts_with(folder));
    let removes = |itself| remove_around(folder, &kept, itself);
    let itself = itself && kept.first().is_none_or(|place| place != folder);
    removes(itself).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        // A job may leave folders without write permission; those of this user can be opened up.
        io::ErrorKind::PermissionDenied => {
            open_up(folder, &kept);
            removes(itself)
        }
        _ => Err(error),
    })?;
    kept.retain(|place| place != folder);
    if kept.is_empty() {
        return Ok(());
    }
    let kept = Vec::from_iter(kept.iter().map(|place| format!("`{}`", place.display())));
    Err(io::Error::other(format!("{} is mounted there and stays", kept.join(", "))))
}

fn remove_around(path: &Path, kept: &[PathBuf], itself: bool) -> io::Result<()> {
    if itself && !kept.iter().any(|place| place.starts_with(path)) {
        return match path.symlink_metadata()?.is_dir() {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        };
    }
    if itself && kept.iter().any(|place| place == path) {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        remove_around(&entry?.path(), kept, true)?;
    }
    Ok(())
}

fn open_up(directory: &Path, kept: &[PathBuf]) {
    let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !kept.contains(&entry.path()) {
            open_up(&entry.path(), kept);
        }
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
    before.iter().for_each(|before| detach(&real, &before.mounts));
    let is_strange = |mount: &Mount| match before {
        Some(before) => real.starts_with(&mount.place) && !before.mounts.contains(mount),
        None => mount.place == real,
    };
    if let Some(mount) = mounts(&real).into_iter().find(is_strange) {
        log::warn!(
            "not cleaning the working directory `{shown}`: a job may have mounted something at `{}` (umount it)",
            mount.place.display()
        );
    } else if let Err(error) = remove_without_mounts(&real, link.is_none()) {
        log::warn!(
            "failed to clean the working directory `{shown}`: {error} (files of another user must be removed by that user)"
        );
    }
}
