//! The parts of a look that are of Unix.

use super::says::{SHORT, says};
use crate::protocol::finding::{FindingLevel, Findings};
use crate::system::command;
use crate::system::os::set_mode;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{getegid, geteuid, umask};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The user of jobs, and what they have by that.
pub(super) fn who(found: &mut Findings) {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let home = std::env::var("HOME").unwrap_or_default();
    found.fine("job_user", format!("jobs run as uid {uid}, gid {gid}, HOME=`{home}`"));
    if home.is_empty() {
        found.add("job_home", FindingLevel::Note, "jobs have no HOME", "it is `/` then; tools may want one");
    } else if !Path::new(&home).is_dir() {
        let text = format!("the home `{home}` of jobs does not exist");
        found.add(
            "job_home",
            FindingLevel::Warn,
            text,
            "make it, or set HOME: ssh, git and caches live there",
        );
    }
    let mask = umask(Mode::from_raw_mode(0o022)).as_raw_mode();
    let text = format!("files of jobs are made with the umask {mask:04o}");
    match mask & 0o777 {
        0o077 | 0o177 | 0o777 => {
            found.add(
                "umask",
                FindingLevel::Warn,
                text,
                "packages and images get unreadable files: UMask=0022",
            );
        }
        mask if mask & 0o002 == 0 => {
            found.add("umask", FindingLevel::Warn, text, "everyone may change files of jobs: UMask=0022");
        }
        _ => found.fine("umask", text),
    }
    let path = std::env::var("PATH").unwrap_or_default();
    if path.is_empty() {
        let text = "jobs have no PATH";
        found.add(
            "job_path",
            FindingLevel::Note,
            text,
            "it is /usr/local/bin:/usr/bin:/bin then; set PATH otherwise",
        );
    }
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    if let Some(locale) = locale {
        let lower = locale.to_ascii_lowercase();
        if !lower.contains("utf-8") && !lower.contains("utf8") && lower != "c" && lower != "posix" {
            let text = format!("the locale of jobs is `{locale}`, which is not UTF-8");
            found.add(
                "locale",
                FindingLevel::Warn,
                text,
                "set LANG=C.UTF-8: git and Python stumble over other names",
            );
        }
    }
}

/// Makes a link.
pub(super) fn links(to: &Path, link: &Path, _: &mut Findings) -> Result<(), (&'static str, io::Error)> {
    symlink(to, link).map_err(|error| ("make a symbolic link", error))
}

/// Runs a script and a program that were made in the folder.
pub(super) fn programs(folder: &Path, found: &mut Findings) -> Result<(), (&'static str, io::Error)> {
    let did = |what: &'static str| move |error: io::Error| (what, error);
    let script = folder.join("script");
    fs::write(&script, "#!/bin/sh\nexit 0\n").map_err(did("write a script"))?;
    set_mode(&script, 0o755).map_err(did("change permissions"))?;
    runs(&script, found);
    let real = ["/bin/true", "/usr/bin/true"].iter().find(|path| Path::new(path).exists());
    if let Some(real) = real {
        let copy = folder.join("true");
        if fs::copy(real, &copy).is_ok() {
            runs(&copy, found);
        }
    }
    Ok(())
}

/// Runs a file of the working directory, and says what an error means.
fn runs(file: &Path, found: &mut Findings) {
    let mut tried = command::run(&mut Command::new(file), SHORT);
    for _ in 0..20 {
        // A process that is just being started may hold a file that was written to a moment ago.
        if !matches!(&tried, Err(error) if error.raw_os_error() == Some(Errno::TXTBSY.raw_os_error())) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        tried = command::run(&mut Command::new(file), SHORT);
    }
    let Err(error) = tried else { return };
    let code = error.raw_os_error().unwrap_or_default();
    let advice = match code {
        code if code == Errno::ACCESS.raw_os_error() => {
            "the file system is mounted noexec, or SELinux forbids it: another runner.working_directory, or a mount without noexec"
        }
        code if code == Errno::PERM.raw_os_error() => {
            "something like fapolicyd trusts no new programs: it needs a rule for the user and this folder"
        }
        code if code == Errno::NOENT.raw_os_error() => "its interpreter is missing: install /bin/sh",
        code if code == Errno::NOEXEC.raw_os_error() => "it is of another architecture",
        _ => "jobs run programs that they build: look at the mount and at security modules",
    };
    let what = if file.ends_with("script") { "a script" } else { "a copied program" };
    found.add(
        "run_files",
        FindingLevel::Fail,
        format!("{what} in the working directory cannot be run: {error}"),
        advice,
    );
}

/// Looks for the shells of steps.
pub(super) fn shells(found: &mut Findings) {
    if says(&["bash", "--version"]).is_none() {
        let text = "there is no bash on the PATH of jobs";
        found.add(
            "shell",
            FindingLevel::Note,
            text,
            "steps run in `/bin/sh -eo pipefail`, if that knows pipefail",
        );
    }
    match says(&["/bin/sh", "-c", "exit 7"]) {
        Some((Some(7), _)) => found.fine("shell", "/bin/sh runs"),
        _ => {
            found.add("shell", FindingLevel::Fail, "/bin/sh does not run", "install a shell: steps need one")
        }
    }
}
