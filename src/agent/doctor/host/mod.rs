//! Look at the host for the runner itself: its folders and locks, limits, control groups, clock, and what else of the
//! system decides whether jobs run.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as system;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as system;

use crate::agent::machine::{self, takes, writable};
use crate::agent::settings::Settings;
use crate::agent::status;
use crate::protocol::finding::{FindingLevel, Findings};
use crate::system::locks;
use crate::system::opening::open_regular;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The beginning of 2026: a clock that says less was never set.
const NOT_BEFORE: Duration = Duration::from_secs(1_767_225_600);

pub(super) fn look(settings: &Settings, found: &mut Findings) {
    system::user(settings, found);
    folders(settings, found);
    sharing(settings, found);
    if let Some(closed) = settings.gates.closed(&settings.working_directory, SystemTime::now()) {
        let text = format!("nothing would be claimed now: {}", closed.why);
        found.add("gates", FindingLevel::Warn, text, "wait, or change that setting");
    }
    if SystemTime::now() < SystemTime::UNIX_EPOCH + NOT_BEFORE {
        let text = "the clock of this host was never set";
        found.add("clock", FindingLevel::Fail, text, "set it (NTP): certificates cannot be judged");
    }
    system::look(settings, found);
}

fn folders(settings: &Settings, found: &mut Findings) {
    if let Some(folder) = &settings.state_directory {
        match writable(folder) {
            Ok(()) => found.fine("state_directory", format!("`{}` can be written to", folder.display())),
            Err(why) => {
                let text = format!("`{}` cannot be used, {why}", folder.display());
                let advice = "make room there, or set runner.state_directory: a runner that is restarted during a task does not know of it";
                found.add("state_directory", FindingLevel::Warn, text, advice);
            }
        }
    }
    let files = [
        ("logging.file", &settings.logging.file, "log"),
        ("status.textfile", &settings.status.textfile, "textfile"),
    ];
    for (key, file, id) in files {
        let Some(file) = file else { continue };
        let folder = file.parent().unwrap_or(Path::new("/"));
        let usable = match (file.exists(), folder.is_dir()) {
            (true, _) if file.is_file() => takes(file),
            (true, _) => writable(file),
            (false, true) => writable(folder),
            (false, false) => Err(format!("the folder `{}` does not exist", folder.display())),
        };
        match usable {
            Ok(()) => found.fine(id, format!("`{}` can be written to", file.display())),
            Err(why) => {
                let text = format!("`{}` ({key}) cannot be written: {why}", file.display());
                found.add(
                    id,
                    FindingLevel::Fail,
                    text,
                    "make the folder, or room in it, and give it to the runner's user",
                );
            }
        }
    }
    let work = &settings.working_directory;
    if let Some(target) = fs::read_link(work).ok().filter(|_| settings.cleanup_working_directory) {
        let text = format!(
            "`{}` is a link to `{}`: it is emptied after a job, but not after a kill of runner and task agent",
            work.display(),
            target.display()
        );
        let advice = "name the folder itself in runner.working_directory";
        found.add("working_directory", FindingLevel::Warn, text, advice);
    }
    if let Err(why) = status::check(settings) {
        found.add(
            "status_socket",
            FindingLevel::Warn,
            why,
            "set status.socket to a path that the runner may make",
        );
    }
}

/// Other runners of this host.
fn sharing(settings: &Settings, found: &mut Findings) {
    let state = settings.state_directory.as_deref();
    let own = state.map(|folder| folder.join(format!("machine-{}.lock", settings.name)));
    let is_held = |path: &Path| open_regular(path).is_ok_and(|file| !locks::is_free(&file));
    let own = own.filter(|path| is_held(path)).and_then(|path| machine::holder(&path));
    if let Some(pid) = own {
        found.fine("runner", format!("the runner `{}` runs with pid {pid}", settings.name));
    }
    match machine::held_by(&settings.working_directory, state, own) {
        Some(pid) => {
            let text = format!(
                "`{}` is the working directory of the runner with pid {pid}, or around or inside it",
                settings.working_directory.display()
            );
            found.add(
                "sharing",
                FindingLevel::Fail,
                text,
                "give each runner a runner.working_directory of its own",
            );
        }
        None => found.fine("sharing", "no other runner has this working directory"),
    }
}
