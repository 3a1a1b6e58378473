//! A look at a host with the eyes of a task: what `runlet doctor` starts in place of a task, behind the same prefix and
//! with the same words. It is told on standard input, says what it found in one line on standard output, waits for TERM
//! and ends with an exit code of its own, so that the way there and back is looked at as well.

mod says;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as system;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as system;

use super::scratch::{self, FolderKind};
use crate::protocol::finding::{FindingLevel, Findings};
use crate::protocol::task_input::{PROBE_EXIT, Probe, ProbeAnswer};
use crate::system::os::{Access, Errno, MetadataExt, access, geteuid, statvfs};
use crate::system::signals::Stops;
use says::says;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long TERM is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Free part and room of a file system below which jobs may soon stop.
const LEAST_PERCENT: u64 = 5;
const LEAST_BYTES: u64 = 256 << 20;
/// A clock of a file server may differ by so much.
const MOST_SKEW: Duration = Duration::from_secs(5);

/// Looks around, says what was found, and waits for TERM. The exit code is for the caller to see.
pub(super) fn run(probe: &Probe) -> u8 {
    let stops = Stops::listen();
    let answer = ProbeAnswer { runlet_probe: look(probe).0 };
    let mut line = serde_json::to_string(&answer).unwrap_or_default();
    line.push('\n');
    let mut out = io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    let Ok(mut stops) = stops else { return PROBE_EXIT };
    let deadline = SystemTime::now() + PATIENCE;
    while !stops.has_come() && SystemTime::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    PROBE_EXIT
}

fn look(probe: &Probe) -> Findings {
    let mut found = Findings::default();
    system::who(&mut found);
    working_directory(&probe.working_directory, &mut found);
    output_place(&probe.working_directory, &mut found);
    tools(&mut found);
    if let Some(folder) = &probe.tool_directory {
        let command = folder.join("circleci-agent");
        if access(&command, Access::EXEC_OK).is_err() {
            let text = format!("`{}` cannot be run by jobs", command.display());
            found.add(
                "job_commands",
                FindingLevel::Note,
                text,
                "tasks make links of their own; nothing is lost",
            );
        }
    }
    found
}

/// Makes, writes, renames, links, runs and removes, as steps do.
fn working_directory(directory: &Path, found: &mut Findings) {
    let id = "working_directory";
    if let Err(error) = fs::create_dir_all(directory) {
        let text = format!("`{}` cannot be made: {error}", directory.display());
        found.add(
            id,
            FindingLevel::Fail,
            text,
            "give the user of jobs the folder above, or set runner.working_directory",
        );
        return;
    }
    let own = geteuid();
    let folder = directory.join(format!(".runlet-probe-{}", std::process::id()));
    let tried = try_folder(&folder, found);
    let _ = fs::remove_dir_all(&folder);
    match tried {
        Ok(()) => {
            found.fine(id, format!("`{}` can be worked in", directory.display()));
            room(id, directory, found);
        }
        Err((what, error)) => {
            let text = format!("in `{}` jobs cannot {what}: {error}", directory.display());
            let advice = match error.raw_os_error() {
                Some(code) if code == Errno::DQUOT.raw_os_error() => "the quota of the user is used up",
                Some(code) if code == Errno::NOSPC.raw_os_error() => {
                    "make room, or set runner.working_directory"
                }
                _ => "give the folder to the user of jobs, or set runner.working_directory",
            };
            found.add(id, FindingLevel::Fail, text, advice);
        }
    }
    let foreign = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .find(|entry| !own.is_root() && entry.metadata().is_ok_and(|about| about.uid() != own.as_raw()));
    if let Some(entry) = foreign {
        let text = format!("`{}` belongs to another user", entry.path().display());
        found.add(
            "leftovers",
            FindingLevel::Warn,
            text,
            "jobs cannot remove it, and git refuses repositories of others: remove it",
        );
    }
}

fn try_folder(folder: &Path, found: &mut Findings) -> Result<(), (&'static str, io::Error)> {
    let did = |what: &'static str| move |error: io::Error| (what, error);
    fs::create_dir(folder).map_err(did("make a folder"))?;
    let (file, other) = (folder.join("a"), folder.join("b"));
    // A quota or a full disk may let files be made, and not be written to.
    fs::write(&file, vec![b'x'; 1 << 20]).map_err(did("write a file of 1 MiB"))?;
    let about = fs::metadata(&file).map_err(did("look at a file"))?;
    let now = SystemTime::now();
    let made = about.modified().unwrap_or(now);
    let skew = now.duration_since(made).or_else(|_| made.duration_since(now)).unwrap_or_default();
    if skew > MOST_SKEW {
        let text = format!("new files are {} s off the clock of this host", skew.as_secs());
        found.add(
            "file_times",
            FindingLevel::Warn,
            text,
            "set both clocks (NTP): make builds everything again, or nothing",
        );
    }
    fs::rename(&file, &other).map_err(did("rename a file"))?;
    system::links(&other, &file, found)?;
    if folder.join("B").exists() {
        let text = "the file system of jobs does not tell upper from lower case";
        found.add("file_names", FindingLevel::Note, text, "repositories made on Linux may not fit");
    }
    system::programs(folder, found)?;
    fs::remove_file(&other).map_err(did("remove a file"))
}

fn room(id: &str, folder: &Path, found: &mut Findings) {
    let Ok(about) = statvfs(folder) else { return };
    let (all, free) =
        (about.f_blocks.saturating_mul(about.f_frsize), about.f_bavail.saturating_mul(about.f_frsize));
    let id = format!("{id}_room");
    let text = format!("`{}` has {} MiB of {} free", folder.display(), free >> 20, all >> 20);
    if free < LEAST_BYTES || free / LEAST_PERCENT.max(1) < all / 100 && free < LEAST_BYTES * 20 {
        found.add(
            &id,
            FindingLevel::Warn,
            text,
            "make room, or set runner.min_free_disk so that no task is claimed",
        );
    } else {
        found.fine(&id, text);
    }
    // Some file systems count no inodes.
    if about.f_files > 0 && about.f_favail * 50 < about.f_files {
        let text = format!("`{}` has {} of {} inodes left", folder.display(), about.f_favail, about.f_files);
        found.add(&id, FindingLevel::Warn, text, "remove small files there");
    }
}

fn output_place(directory: &Path, found: &mut Findings) {
    if let Some(given) = std::env::var_os("TMPDIR").map(PathBuf::from) {
        if !given.is_dir() {
            let text = format!("TMPDIR is `{}`, which is no folder", given.display());
            found.add(
                "temporary_folder",
                FindingLevel::Fail,
                text,
                "make it with mode 1777, or unset TMPDIR",
            );
        }
    }
    for kind in [FolderKind::Spool, FolderKind::Private] {
        let tried = scratch::try_places(directory, kind);
        let id = if kind == FolderKind::Spool { "output" } else { "temporary_folder" };
        let is_full = !tried.full.is_empty();
        for full in tried.full {
            found.add(id, FindingLevel::Fail, full, "make room there, or set TMPDIR to another folder");
        }
        match tried.place {
            Some(place) if kind == FolderKind::Spool && !is_full => room(id, &place, found),
            Some(_) => {}
            None => {
                let text = "no folder takes the output of tasks";
                found.add(
                    id,
                    FindingLevel::Fail,
                    text,
                    "set TMPDIR to a folder that the user of jobs may write to",
                );
            }
        }
    }
}

/// The programs that steps of our own call, and what is too old of them.
fn tools(found: &mut Findings) {
    match says(&["git", "--version"]) {
        Some((Some(0), text)) => {
            let mut numbers =
                text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u32>().ok());
            let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            if version < (2, 18) {
                found.add("git", FindingLevel::Warn, text, "checkout wants git 2.18 or newer");
            } else {
                found.fine("git", text);
            }
        }
        _ => found.add(
            "git",
            FindingLevel::Note,
            "there is no git on the PATH of jobs",
            "the step `checkout` needs it",
        ),
    }
    if says(&["ssh", "-V"]).is_none() {
        let text = "there is no ssh on the PATH of jobs";
        found.add("ssh", FindingLevel::Note, text, "repositories by ssh and deploy keys need it");
    }
    system::shells(found);
}
