//! The parts of a look that are of Windows.

use super::says::says;
use crate::protocol::finding::{FindingLevel, Findings};
use crate::system::os::{HOME, symlink};
use std::io;
use std::path::Path;

/// The user of jobs, and what they have by that.
pub(super) fn who(found: &mut Findings) {
    let named = |name| std::env::var(name).unwrap_or_default();
    let (user, home) = (named("USERNAME"), named(HOME));
    found.fine("job_user", format!("jobs run as `{user}`, {HOME}=`{home}`"));
    if !Path::new(&home).is_dir() {
        let text = format!("the home `{home}` of jobs does not exist");
        found.add(
            "job_home",
            FindingLevel::Warn,
            text,
            "log in once as that user: ssh, git and caches live there",
        );
    }
}

/// Makes a link, for which jobs may need a right.
pub(super) fn links(to: &Path, link: &Path, found: &mut Findings) -> Result<(), (&'static str, io::Error)> {
    if let Err(error) = symlink(to, link) {
        let text = format!("jobs cannot make symbolic links: {error}");
        let advice = "turn on the developer mode, or give the user the right to create symbolic links";
        found.add("links", FindingLevel::Note, text, advice);
    }
    Ok(())
}

/// Runs nothing: what may keep programs from running there is not known.
pub(super) fn programs(_: &Path, _: &mut Findings) -> Result<(), (&'static str, io::Error)> {
    Ok(())
}

/// Looks for the shells of steps.
pub(super) fn shells(found: &mut Findings) {
    let powershell = ["powershell.exe", "-NoProfile", "-Command", "exit 7"];
    match says(&powershell) {
        Some((Some(7), _)) => found.fine("shell", "powershell.exe runs"),
        _ => {
            let text = "powershell.exe does not run";
            found.add(
                "shell",
                FindingLevel::Fail,
                text,
                "put it on the PATH, or let jobs set `shell: cmd.exe`",
            );
        }
    }
    if !matches!(says(&["cmd.exe", "/d", "/c", "exit 7"]), Some((Some(7), _))) {
        found.add("shell", FindingLevel::Note, "cmd.exe does not run", "jobs that name it fail");
    }
    if says(&["bash.exe", "--version"]).is_none() {
        let text = "there is no bash.exe on the PATH of jobs";
        found.add("shell", FindingLevel::Note, text, "jobs that name it fail; git for Windows has one");
    }
}
