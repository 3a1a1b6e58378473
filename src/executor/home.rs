//! The home of a confined job: what a person's tools keep in theirs is lent to it.
//!
//! Settings are copies: a job that writes `git config --global` or `~/.npmrc` changes its own. Caches and installed
//! things are links, since they are large, and since what a job adds to them is of use to the next. A folder of programs
//! that tools fill with scripts of their own (`shims`, `~/.local/bin`) is the job's as well: such scripts hold the path
//! of the home, which is gone after the job.

use crate::system::opening::open_regular;
use crate::system::os::{OsStrExt, symlink};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file that is copied; larger ones are no settings.
const MOST_BYTES: u64 = 256 * 1024;
/// Entries of a folder of settings; one with more is no folder of settings.
const MOST_ENTRIES: usize = 200;
/// Depth of folders below one of settings.
const MOST_DEPTH: usize = 4;

/// Folders of settings by their names at home. Not `.ssh`: ssh asks the system for the home, and finds what a job adds
/// to its known hosts only in the person's.
const SETTINGS: [&str; 5] = [".aws", ".azure", ".docker", ".kube", ".terraform.d"];
/// A folder whose entries are each of another tool.
const CONFIGS: &str = ".config";
/// A folder that programs are installed into beside what they keep.
const LOCAL: &str = ".local";
/// Folders of programs that their tools write anew.
const PROGRAMS: [&str; 2] = ["shims", "bin"];

/// Whether a name at home is of something that tools keep there for every project: settings, keys, caches.
pub(super) fn is_of_tools(name: &OsStr) -> bool {
    name.as_bytes().first() == Some(&b'.') || name == "go"
}

/// Lends what tools keep in `person` to the home `own`, as far as nothing of the same name is there. What cannot be
/// copied or linked is left out: the job says what it lacks.
pub(super) fn lend(person: &Path, own: &Path) {
    for entry in fs::read_dir(person).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if is_of_tools(&name) && own.join(&name).symlink_metadata().is_err() {
            lend_one(&entry.path(), &own.join(&name), &name);
        }
    }
}

fn lend_one(from: &Path, to: &Path, name: &OsStr) {
    let Ok(about) = from.metadata() else { return link(from, to) };
    if about.is_file() {
        return copy_or_link(from, to, about.len());
    }
    if !about.is_dir() {
        return link(from, to);
    }
    if SETTINGS.iter().any(|known| name == *known) {
        return copy_settings(from, to);
    }
    let has_shims = || from.join(PROGRAMS[0]).is_dir();
    match name.to_str() {
        Some(CONFIGS) => open(from, to, |from, to, _| match from.is_dir() {
            true => copy_settings(from, to),
            false => lend_file(from, to),
        }),
        Some(LOCAL) => open_programs(from, to),
        _ if has_shims() => open_programs(from, to),
        _ => link(from, to),
    }
}

/// A folder of the job's own, whose entries are links but for the folders of programs.
fn open_programs(from: &Path, to: &Path) {
    open(from, to, |from, to, name| {
        let is_of_programs = PROGRAMS.iter().any(|known| name == *known) && from.is_dir();
        match is_of_programs && !from.is_symlink() {
            true if name == PROGRAMS[0] => open_shims(from, to),
            true => open(from, to, |from, to, _| lend_file(from, to)),
            false => link(from, to),
        }
    });
}

/// A folder of shims of the job's own. They are many and mostly one text under many names: of those that follow each other
/// one is copied, and the others are further names of the copy, as their tools make them. To create a file
/// costs a hundred times what a name does.
fn open_shims(from: &Path, to: &Path) {
    let mut last = (Vec::new(), PathBuf::new());
    open(from, to, |from, to, _| {
        let text = text_of(from);
        let is_same = !text.is_empty()
            && text == last.0
            && matches!((from.metadata(), last.1.metadata()), (Ok(a), Ok(b)) if a.permissions() == b.permissions());
        if !(is_same && fs::hard_link(&last.1, to).is_ok()) {
            lend_file(from, to);
            last = (text, to.to_owned());
        }
    });
}

/// The contents of a file; none of what is no file, for which a job may have left a pipe that somebody would wait at.
fn text_of(file: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    let _ = open_regular(file).and_then(|mut file| file.read_to_end(&mut text));
    text
}

/// Makes a folder of the job's own, and lends each entry of `from` to it.
fn open(from: &Path, to: &Path, mut lend: impl FnMut(&Path, &Path, &OsStr)) {
    let made = fs::create_dir(to).and_then(|()| fs::set_permissions(to, from.metadata()?.permissions()));
    if made.is_err() {
        return;
    }
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let name = entry.file_name();
        lend(&entry.path(), &to.join(&name), &name);
    }
}

/// Copies a folder of settings as a whole, or links it where it is none after all.
fn copy_settings(from: &Path, to: &Path) {
    let mut left = MOST_ENTRIES;
    match is_of_settings(from, MOST_DEPTH, &mut left) {
        true => copy_all(from, to),
        false => link(from, to),
    }
}

fn is_of_settings(folder: &Path, depth: usize, left: &mut usize) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    for entry in entries {
        let Some(about) = entry.as_ref().ok().and_then(|entry| entry.metadata().ok()) else { return false };
        *left = left.saturating_sub(1);
        let fits = match about.file_type() {
            kind if kind.is_dir() => {
                depth > 0 && entry.is_ok_and(|entry| is_of_settings(&entry.path(), depth - 1, left))
            }
            kind if kind.is_file() => about.len() <= MOST_BYTES,
            kind => kind.is_symlink(),
        };
        if !fits || *left == 0 {
            return false;
        }
    }
    true
}

fn copy_all(from: &Path, to: &Path) {
    open(from, to, |from, to, _| match from.is_dir() && !from.is_symlink() {
        true => copy_all(from, to),
        false => lend_file(from, to),
    });
}

fn lend_file(from: &Path, to: &Path) {
    match from.metadata() {
        Ok(about) if about.is_file() => copy_or_link(from, to, about.len()),
        _ => link(from, to),
    }
}

fn copy_or_link(from: &Path, to: &Path, length: u64) {
    if length > MOST_BYTES || fs::copy(from, to).is_err() {
        let _ = fs::remove_file(to);
        link(from, to);
    }
}

fn link(from: &Path, to: &Path) {
    let _ = symlink(from, to);
}

/// Whether the path `rest` below the home is the person's: the job has nothing there, or only what is lent.
pub(super) fn is_persons(person: &Path, own: &Path, rest: &Path) -> bool {
    let mut path = PathBuf::new();
    for part in rest.components() {
        path.push(part);
        match own.join(&path).symlink_metadata() {
            Ok(about) if about.is_dir() => {}
            Ok(_) => return is_lent(&person.join(&path), &own.join(&path)),
            Err(_) => {
                return path.parent() == Some(Path::new("")) && person.join(&path).symlink_metadata().is_ok();
            }
        }
    }
    is_lent(&person.join(rest), &own.join(rest))
}

/// Whether what stands at `own` is only lent, from `person`: a link to it, a copy of it, or a folder that holds something
/// that is lent.
pub(super) fn is_lent(person: &Path, own: &Path) -> bool {
    let Ok(about) = own.symlink_metadata() else { return false };
    if about.is_symlink() {
        return fs::read_link(own).is_ok_and(|to| to == person);
    }
    if about.is_file() {
        let is_alike = |person: fs::Metadata| person.is_file() && person.len() == about.len();
        if about.len() > MOST_BYTES || !person.metadata().is_ok_and(is_alike) {
            return false;
        }
        let text = text_of(own);
        return text.len() as u64 == about.len() && text == text_of(person);
    }
    let entries = fs::read_dir(own).into_iter().flatten().flatten();
    let mut entries = entries.take(MOST_ENTRIES);
    entries.any(|entry| is_lent(&person.join(entry.file_name()), &entry.path()))
}

#[cfg(all(test, feature = "server"))]
#[expect(clippy::unwrap_used, reason = "a test that cannot make a file should fail loudly")]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn shims_of_one_text_are_names_of_one_file() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let (person, own) = (folder.path().join("person"), folder.path().join("own"));
        for (name, text) in [("a", "shim"), ("b", "shim"), ("c", "shim"), ("d", "shim"), ("x", "other")] {
            write(&person.join(".tool/shims").join(name), text);
            write(&person.join(".tool/bin").join(name), text);
        }
        fs::set_permissions(person.join(".tool/shims/d"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(&own).unwrap();
        lend(&person, &own);
        let files = |folder: &str| -> usize {
            let inode = |entry: fs::DirEntry| entry.metadata().unwrap().ino();
            let all: BTreeSet<u64> =
                fs::read_dir(own.join(folder)).unwrap().map(|e| inode(e.unwrap())).collect();
            all.len()
        };
        // The files come in any order: the two that differ part the others at most.
        assert!((3..=5).contains(&files(".tool/shims")), "{}", files(".tool/shims"));
        assert_eq!(files(".tool/bin"), 5);
        for name in ["a", "b", "c", "d", "x"] {
            let (own, person) = (own.join(".tool/shims").join(name), person.join(".tool/shims").join(name));
            let (a, b) = (own.metadata().unwrap(), person.metadata().unwrap());
            assert_eq!((a.mode(), fs::read(&own).unwrap()), (b.mode(), fs::read(&person).unwrap()), "{name}");
            assert_ne!(a.ino(), b.ino(), "what a job writes is its own");
        }
    }

    #[test]
    fn nobody_waits_for_a_pipe_that_a_job_has_left_among_the_tools() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let folder = tempfile::tempdir().unwrap();
        let (person, own) = (folder.path().join("person"), folder.path().join("own"));
        let shims = [".tool/shims/one", ".tool/shims/other"];
        write(&person.join(".tool/shims/a"), "shim");
        for shim in shims {
            mknodat(CWD, person.join(shim), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        fs::create_dir(&own).unwrap();
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            lend(&person, &own);
            let links = shims.map(|shim| fs::read_link(own.join(shim)).unwrap() == person.join(shim));
            for shim in shims {
                fs::remove_file(own.join(shim)).unwrap();
                fs::write(own.join(shim), "").unwrap();
            }
            let lent = shims.map(|shim| is_persons(&person, &own, Path::new(shim)));
            sender.send((links, lent)).unwrap();
        });
        // A wait for a pipe is one for ever.
        let found = ended.recv_timeout(std::time::Duration::from_secs(60));
        assert_eq!(found, Ok(([true, true], [false, false])));
    }

    #[test]
    fn settings_and_scripts_of_tools_are_the_jobs_own_and_caches_are_the_persons() {
        let folder = tempfile::tempdir().unwrap();
        let (person, own) = (folder.path().join("person"), folder.path().join("own"));
        let private = [
            ".gitconfig",
            ".npmrc",
            ".docker/config.json",
            ".kube/cache/http/1",
            ".config/gh/hosts.yml",
            ".config/top",
            ".pyenv/shims/python3",
            ".local/bin/tool",
        ];
        let shared = [
            ".ssh/known_hosts",
            ".cargo/registry/index",
            ".npm/_cacache/x",
            ".pyenv/versions/3.12/bin/python3",
            ".pyenv/libexec/pyenv",
            ".local/lib/python/x.py",
            "go/pkg/mod/x",
        ];
        for path in private.iter().chain(&shared) {
            write(&person.join(path), "person");
        }
        // Large is no settings.
        write(&person.join(".history"), &"x".repeat(MOST_BYTES as usize + 1));
        for n in 0..=MOST_ENTRIES {
            write(&person.join(format!(".aws/cli/cache/{n}")), "person");
        }
        fs::set_permissions(person.join(".npmrc"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(person.join(".docker"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(&own).unwrap();
        lend(&person, &own);
        let is_mode =
            |path: &str, mode| own.join(path).metadata().unwrap().permissions().mode() & 0o777 == mode;
        assert!(is_mode(".npmrc", 0o600) && is_mode(".docker", 0o700));
        for path in [".history", ".aws", ".ssh", ".cargo", ".npm", ".pyenv/versions", ".local/lib", "go"] {
            assert_eq!(fs::read_link(own.join(path)).unwrap(), person.join(path), "{path}");
        }
        for path in private.iter().chain(&shared) {
            assert!(is_persons(&person, &own, Path::new(path)), "{path}");
            fs::write(own.join(path), "job").unwrap();
        }
        // Lending is repeated, and replaces nothing.
        lend(&person, &own);
        for path in private {
            assert_eq!(fs::read_to_string(person.join(path)).unwrap(), "person", "{path}");
            assert_eq!(fs::read_to_string(own.join(path)).unwrap(), "job", "{path}");
            assert!(!is_persons(&person, &own, Path::new(path)), "{path}");
        }
        for path in shared {
            assert_eq!(fs::read_to_string(person.join(path)).unwrap(), "job", "{path}");
            assert!(is_persons(&person, &own, Path::new(path)), "{path}");
        }
    }
}
