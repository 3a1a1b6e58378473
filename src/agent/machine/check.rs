//! Whether tasks can begin on this host, as far as it takes no time to see: looked at by the start, before there is a task
//! that suffers. `runlet doctor` looks at everything.

use crate::agent::settings::Settings;
use crate::executor::scratch::{self, FolderKind};
use crate::system::fault;
use crate::system::os::{Access, access, geteuid, statvfs};
use std::path::{Path, PathBuf};

/// Room below which a spool is soon full.
const LEAST_ROOM_BYTES: u64 = 16 << 20;
/// Room below which files of the runner itself, such as its record of a task, may not be kept.
const LEAST_OWN_BYTES: u64 = 1 << 20;
/// Files of a few tasks.
const LEAST_INODES: u64 = 64;

/// Warns in the log. A prefix is not run, and the control plane not asked.
pub(super) fn at_start(settings: &Settings) {
    if geteuid().is_root() && settings.command_prefix.is_empty() {
        log::warn!(
            "the runner is root, and so are its jobs: give it a user of its own, or its jobs by `runner.command_prefix`"
        );
    }
    let own =
        [("runner.state_directory", &settings.state_directory), ("logging.file", &settings.logging.file)];
    for (key, path) in own {
        if let Some(Err(why)) = path.as_deref().filter(|path| path.exists()).map(takes) {
            log::warn!("`{key}` may not be written: {why}; make room there, or name another place");
        }
    }
    for problem in problems(settings) {
        log::warn!("tasks may not begin here: {problem}");
    }
    if let Err(why) = finds_prefix(settings) {
        log::warn!("tasks will not begin here: {why}");
    }
}

/// Looks for faults of the folders of tasks, for this user: those of the user behind a prefix cannot be judged.
fn problems(settings: &Settings) -> Vec<String> {
    if !settings.command_prefix.is_empty() {
        return Vec::new();
    }
    let directory = &settings.working_directory;
    let mut problems = Vec::new();
    if let Err(why) = writable(directory) {
        problems.push(format!("the working directory `{}` cannot be used: {why}", directory.display()));
    }
    for kind in [FolderKind::Spool, FolderKind::Private] {
        let tried = scratch::try_places(directory, kind);
        let is_full = !tried.full.is_empty();
        let advice = "make room there, or set TMPDIR to another folder";
        problems.extend(tried.full.into_iter().map(|full| format!("{full}; {advice}")));
        match tried.place {
            None => problems.push(
                "no folder for tasks and their output can be made; set TMPDIR to a place for them".to_owned(),
            ),
            Some(place) if kind == FolderKind::Spool && !is_full => problems.extend(little_room(&place)),
            Some(_) => {}
        }
    }
    // Both may go to one place.
    problems.dedup();
    problems
}

fn little_room(place: &Path) -> Option<String> {
    let full = nearly_full(place, LEAST_ROOM_BYTES)?;
    let place = place.display();
    Some(format!(
        "the output of tasks goes to `{place}`, which is {full}: make room, or set TMPDIR to another folder"
    ))
}

/// Says so if the file system of this path has less room than that, or hardly any files.
fn nearly_full(path: &Path, least: u64) -> Option<String> {
    let about = statvfs(path).ok()?;
    let room = about.f_bavail.saturating_mul(about.f_frsize);
    // Some file systems count no files.
    let has_few_files = about.f_files > 0 && about.f_favail < LEAST_INODES;
    (room < least || has_few_files).then(|| format!("nearly full{}", fault::left_at(path)))
}

/// Whether the first word of the command prefix is a program. Nothing is run: a prefix may do more than one expects.
fn finds_prefix(settings: &Settings) -> Result<(), String> {
    let Some(first) = settings.command_prefix.first() else { return Ok(()) };
    let path = std::env::var_os("PATH").filter(|_| !first.contains('/')).unwrap_or_default();
    let is_there = |folder: PathBuf| access(folder.join(first), Access::EXEC_OK).is_ok();
    if first.contains('/') && is_there(PathBuf::new()) || std::env::split_paths(&path).any(is_there) {
        return Ok(());
    }
    Err(format!("`{first}` of `runner.command_prefix` is no program that can be run; is it installed?"))
}

/// Whether the directory, or what is nearest above it, is a folder that lets this user write and has room; why not.
pub(in crate::agent) fn writable(directory: &Path) -> Result<(), String> {
    // A link that leads nowhere is in the way of a folder.
    let existing = directory.ancestors().find(|path| path.is_symlink() || path.exists());
    let existing = existing.unwrap_or(Path::new("/"));
    if existing.is_dir() {
        takes(existing)
    } else {
        Err(format!("`{}`: it is no folder", existing.display()))
    }
}

/// Whether what is there lets this user write, and has room for what a runner writes of itself; why not.
pub(in crate::agent) fn takes(path: &Path) -> Result<(), String> {
    let write = access(path, Access::WRITE_OK).map_err(|error| error.to_string());
    let room = nearly_full(path, LEAST_OWN_BYTES).map_or(Ok(()), Err);
    write.and(room).map_err(|why| format!("`{}`: {why}", path.display()))
}
