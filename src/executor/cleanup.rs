//! Cleaning up after a job. What is removed is what stands in the place: nothing beyond a mount, which a job may have made
//! of any folder of the host, and nothing behind a link that is not the operator's.

use super::folder;
use super::mounts::{Mount, mounts};
use super::places::{self, real};
use crate::protocol::task_input::TaskInput;
use crate::system::os::{self, Access, access, symlink};
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

impl Before {
    /// Reads the links and mounts of the directory as they are now.
    pub fn of(directory: &Path) -> Self {
        let real = real(directory);
        let mut mounts = mounts(&real);
        mounts.iter_mut().for_each(Mount::look);
        Self { link: fs::read_link(directory).ok(), mounts, real }
    }
}

/// Takes off what is mounted in a folder, or on it, and was not there before, as far as this user may. Returns the mounts
/// that are there then: the table of a host may be long, and is read again only when it has changed.
fn detach(folder: &Path, before: &[Mount]) -> Vec<Mount> {
    let found = mounts(folder);
    let mut is_changed = false;
    // The one that came last lies on top.
    for mount in found.iter().rev() {
        if mount.place.starts_with(folder) && !mount.is_among(before) && os::detach(&mount.place).is_ok() {
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
    remove_without_mounts(&folder, true, mounts(&folder), false)
}

/// Removes a folder as [`remove`] does, after taking off the mounts of the job there, as far as that is allowed. `mounts`:
/// all that there are, since the job is at work no more.
pub(super) fn remove_with_mounts(path: &Path, mounts: Option<&[Mount]>) -> io::Result<()> {
    let folder = in_place(path);
    let is_free = mounts.is_some_and(|all| !all.iter().any(|mount| mount.place.starts_with(&folder)));
    remove_without_mounts(&folder, true, if is_free { Vec::new() } else { detach(&folder, &[]) }, false)
}

/// `itself`: not only what is in the folder, whose path has no links. `is_shared`: tasks may have folders in it.
fn remove_without_mounts(folder: &Path, itself: bool, mounts: Vec<Mount>, is_shared: bool) -> io::Result<()> {
    let mut kept = Vec::from_iter(mounts.into_iter().map(|mount| mount.place));
    kept.retain(|place| place.starts_with(folder));
    if is_shared {
        keep_held(folder, &mut kept);
    }
    let itself = itself && kept.first().is_none_or(|place| place != folder);
    let mut left = Left { kept, ..Left::default() };
    left.remove(folder, itself);
    if left.count > 1 {
        left.tell(format!("{} more cannot be removed", left.count - 1));
    }
    if left.text.is_empty() { Ok(()) } else { Err(io::Error::other(left.text)) }
}

/// Adds the folders in a folder that other tasks hold: one in a container sees it through a mount that nobody sees here.
fn keep_held(folder: &Path, kept: &mut Vec<PathBuf>) {
    let mut next = vec![folder.to_owned()];
    while let Some(folder) = next.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || kept.contains(&path) {
                continue;
            }
            if folder::is_held(&path) { kept.push(path) } else { next.push(path) }
        }
    }
}

/// All that is left where something was removed.
#[derive(Default)]
struct Left {
    /// Mount points and folders of other tasks, which stay.
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
            return self
                .tell(format!("`{}` is mounted there, or held by another task, and stays", path.display()));
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
            return if goes { os::remove_file(path) } else { Ok(()) };
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

/// Puts the folder of a confined job beside its place, for whoever has the job confined to remove: a tree of many files takes
/// long. False when nothing has moved, as where the folder is a link or something is mounted in it.
pub(super) fn put_aside(directory: &Path) -> bool {
    let folder = in_place(directory);
    let is_plain = folder.symlink_metadata().is_ok_and(|about| about.is_dir());
    let is_free = || mounts(&folder).iter().all(|mount| !mount.place.starts_with(&folder));
    let aside = folder.with_extension(format!("{}.{}", std::process::id(), TaskInput::ASIDE));
    is_plain && is_free() && fs::rename(&folder, aside).is_ok()
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
    let found = match before {
        Some(before) => detach(&real, &before.mounts),
        None => mounts(&real),
    };
    let is_strange = |mount: &&Mount| match before {
        Some(before) => real.starts_with(&mount.place) && !mount.is_among(&before.mounts),
        None => mount.place == real,
    };
    if let Some(mount) = found.iter().find(is_strange) {
        log::warn!(
            "not cleaning the working directory `{shown}`: a job may have mounted something at `{}` (umount it)",
            mount.place.display()
        );
    } else if let Err(error) = remove_without_mounts(&real, link.is_none(), found, true) {
        log::warn!(
            "failed to clean the working directory `{shown}`: {error} (remove what is left as its owner or as root)"
        );
    }
}

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::executor::mounts::in_namespace;
    use crate::system::locks::{Share, try_take};

    #[test]
    fn a_mount_of_before_stays_whatever_the_job_calls_its_source() {
        let test = "executor::cleanup::tests::a_mount_of_before_stays_whatever_the_job_calls_its_source";
        let script = "mkdir -p src other work; mount --bind src work; mkdir work/m; mount --bind other work/m; touch other/theirs";
        let Some(place) = in_namespace(test, script) else { return };
        let work = place.join("work");
        let before = Before::of(&work);
        fs::rename(place.join("src"), place.join("src2")).unwrap();
        fs::rename(place.join("other"), place.join("other2")).unwrap();
        fs::write(work.join("left"), "").unwrap();
        // Mounts of the job go, also one over a mount that was there before.
        let script = "mkdir work/own; for at in own m .; do mount --bind other2 work/$at; done";
        let mounted = std::process::Command::new("sh").args(["-ec", script]).current_dir(&place).status();
        assert!(mounted.unwrap().success());
        remove_working_directory(&work, Some(&before), true);
        assert_eq!(
            mounts(&work).iter().filter(|mount| mount.is_among(&before.mounts)).count(),
            before.mounts.len()
        );
        assert_eq!(mounts(&work).len(), before.mounts.len());
        assert!(work.join("m/theirs").exists());
        assert!(!work.join("left").exists() && !work.join("own").exists());
    }

    #[test]
    fn a_mount_stays_wherever_the_job_moves_what_it_is_in() {
        let test = "executor::cleanup::tests::a_mount_stays_wherever_the_job_moves_what_it_is_in";
        let script = "mkdir -p theirs work/deps/cache apart/m private/own apart2/m; touch theirs/file
            for at in work/deps/cache apart/m apart2/m; do mount --bind theirs $at; done";
        let Some(place) = in_namespace(test, script) else { return };
        let (work, private) = (place.join("work"), place.join("private"));
        let before = Before::of(&work);
        fs::rename(work.join("deps"), work.join("deps2")).unwrap();
        fs::rename(place.join("apart"), work.join("apart")).unwrap();
        fs::rename(place.join("apart2"), private.join("apart")).unwrap();
        remove_working_directory(&work, Some(&before), true);
        assert!(work.join("deps2/cache/file").exists() && !work.join("apart").exists());
        remove_with_mounts(&private, Some(&crate::executor::mounts::all())).unwrap();
        assert!(place.join("theirs/file").exists() && !private.exists());
    }

    #[test]
    fn a_folder_that_another_task_holds_is_not_emptied() {
        let place = tempfile::tempdir().unwrap();
        let work = place.path().join("work");
        for folder in ["a/theirs/b", "a/c", "d"] {
            fs::create_dir_all(work.join(folder)).unwrap();
            fs::write(work.join(folder).join("file"), "").unwrap();
        }
        // A file held as by a task in a container, whose names and mounts are not seen here.
        let theirs = fs::File::open(work.join("a/theirs")).unwrap();
        let held = try_take(theirs, Share::Alone).unwrap();
        remove_working_directory(&work, Some(&Before::of(&work)), true);
        assert!(work.join("a/theirs/b/file").exists());
        assert!(!work.join("a/c").exists() && !work.join("d").exists());
        drop(held);
        remove_working_directory(&work, Some(&Before::of(&work)), true);
        assert!(!work.exists());
    }
}
