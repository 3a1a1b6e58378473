//! The folders of a task beside its working directory: a private one, and that of the spool, which a reboot should
//! not empty.

use super::cleanup;
use super::mounts::Mount;
use super::places::home;
use crate::protocol::TaskId;
use crate::protocol::task_input::TaskInput;
use crate::system::fault;
use crate::system::os::{self, DirBuilderExt, MetadataExt};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A folder of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FolderKind {
    /// Files that its steps and the agent need while it runs.
    Private,
    /// Output of the steps until the control plane has it.
    Spool,
}

/// Creates a folder of the task: in the place that TMPDIR names; the private one else in the system's temporary
/// folder, that of the spool beside the runner's working directory; and where that is missing or read-only, elsewhere.
pub(super) fn create(input: &TaskInput, kind: FolderKind) -> Result<PathBuf, String> {
    let working_directory = input.working_directory.as_deref();
    let beside = working_directory.and_then(Path::parent);
    // A confined job leaves nothing outside of the folders that are its runner's.
    let first = beside.filter(|_| input.confine).map(Path::to_owned);
    let places = first.into_iter().chain(places(working_directory, kind));
    let (made, passed) = make(places, &name_of(&input.task.id, kind));
    made.ok_or_else(|| {
        let why = passed.iter().map(|(folder, error)| format!("`{}`: {error}", folder.display()));
        format!(
            "failed to create a private folder for the task (set TMPDIR to a writable one): {}",
            Vec::from_iter(why).join("; ")
        )
    })
}

/// Makes a folder of this name in the first place that takes it. The places before it come with their errors.
fn make(places: impl Iterator<Item = PathBuf>, name: &str) -> (Option<PathBuf>, Vec<(PathBuf, io::Error)>) {
    let mut passed = Vec::new();
    for place in places {
        let folder = place.join(name);
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return (Some(folder), passed),
            Err(error) => passed.push((place, error)),
        }
    }
    (None, passed)
}

/// The places of a task's folders, as they are now.
#[derive(Debug, Default)]
pub struct Tried {
    /// Place that the folder of a task goes to; `None` when there is none.
    pub place: Option<PathBuf>,
    /// Sentences about places that are full: the one above, whose tasks cannot work, or one that is passed over for it.
    pub full: Vec<String>,
}

/// Makes a folder as for a task, writes a little into it, and removes it again.
pub fn try_places(working_directory: &Path, kind: FolderKind) -> Tried {
    let (made, passed) =
        make(places(Some(working_directory), kind), &format!("runlet-check-{}", crate::system::random_id()));
    let mut full = passed;
    if let Some(folder) = &made {
        // A disk without room may take folders.
        let written = fs::write(folder.join("file"), [b'x'; 4096]);
        remove(folder, None);
        full.extend(written.err().map(|error| (folder.clone(), error)));
    }
    full.retain(|(_, error)| fault::is_full(error));
    let told = |(folder, error): (PathBuf, io::Error)| {
        let place = if Some(&folder) == made.as_ref() { folder.parent().unwrap_or(&folder) } else { &folder };
        let what = if kind == FolderKind::Spool { "the output" } else { "the private folders" };
        let left = fault::left_at(place);
        format!("`{}` cannot take {what} of tasks: {error}{left}", place.display())
    };
    let full = full.into_iter().map(told).collect();
    Tried { place: made.as_deref().and_then(Path::parent).map(Path::to_owned), full }
}

/// Places for a folder of a task, best first.
fn candidates(task: &TaskId, working_directory: Option<&Path>, kind: FolderKind) -> Vec<PathBuf> {
    let name = name_of(task, kind);
    places(working_directory, kind).map(|place| place.join(&name)).collect()
}

fn places(working_directory: Option<&Path>, kind: FolderKind) -> impl Iterator<Item = PathBuf> {
    let beside = working_directory.and_then(Path::parent).map(Path::to_owned);
    let named = std::env::var_os("TMPDIR").map(PathBuf::from);
    let [volatile, lasting] = os::temporary().map(Some);
    let places = match kind {
        FolderKind::Private => [named, volatile, lasting, beside, Some(home())],
        FolderKind::Spool => [named, beside, lasting, volatile, Some(home())],
    };
    places.into_iter().flatten()
}

fn name_of(task: &TaskId, kind: FolderKind) -> String {
    let kind = match kind {
        FolderKind::Private => "task",
        FolderKind::Spool => "output",
    };
    format!("runlet-{kind}-{task}")
}

/// The spool that a task agent of this user has left behind.
pub(super) fn left_spool(input: &TaskInput) -> Option<PathBuf> {
    let own = os::geteuid().as_raw();
    let is_it =
        |folder: &PathBuf| fs::symlink_metadata(folder).is_ok_and(|it| it.is_dir() && it.uid() == own);
    candidates(&input.task.id, input.working_directory.as_deref(), FolderKind::Spool).into_iter().find(is_it)
}

/// Removes the private folder of a task whose agent was killed, and its spool only if nobody wants that.
pub fn remove_left_behind(task: &TaskId, working_directory: Option<&Path>, spool_too: bool) {
    remove_ssh_folder(task, None);
    for kind in [FolderKind::Private, FolderKind::Spool] {
        for folder in candidates(task, working_directory, kind) {
            if folder.is_dir() && (kind == FolderKind::Private || spool_too) {
                remove(&folder, None);
            }
        }
    }
}

/// Removes the folders of a task that hold what nobody else may see. `mounts`: all that there are.
pub(super) fn remove_private(task: &TaskId, private: &Path, mounts: &[Mount]) {
    remove(private, Some(mounts));
    remove_ssh_folder(task, Some(mounts));
}

/// The folder of a task beside the keys of the user.
pub(super) fn ssh_folder(task: &TaskId) -> PathBuf {
    home().join(".ssh").join(name_of(task, FolderKind::Private))
}

fn remove_ssh_folder(task: &TaskId, mounts: Option<&[Mount]>) {
    let folder = ssh_folder(task);
    if folder.is_dir() {
        remove(&folder, mounts);
    }
}

/// Removes a folder of a task. `mounts`: all that there are, where they were read.
pub(super) fn remove(folder: &Path, mounts: Option<&[Mount]>) {
    // Anything that is mounted there was mounted by the job.
    if let Err(error) = cleanup::remove_with_mounts(folder, mounts) {
        ::log::warn!("failed to remove `{}`: {error}", folder.display());
    }
}
