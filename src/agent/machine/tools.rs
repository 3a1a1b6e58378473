//! `runner.task_agent_directory`: the in-job commands `circleci-agent` and `circleci`, links to the
//! running program. Best effort: without it the task agent makes a directory of its own.

use crate::agent::settings::Settings;
use crate::logging::record;
use crate::system::os::{HAS_LINKS, HOME, link_to_program};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Links made by this process.
static LINKS: AtomicU64 = AtomicU64::new(0);

/// The names under which steps call this program.
const NAMES: [&str; 2] = ["circleci-agent", "circleci"];

/// The path of this program. Without `/proc` the system cannot tell, but the one it was called by may do.
pub(in crate::agent) fn own_program() -> std::io::Result<PathBuf> {
    std::env::current_exe().or_else(|error| {
        let called = std::env::args_os().next().map(PathBuf::from);
        called.filter(|path| path.components().count() > 1).ok_or(error)?.canonicalize()
    })
}

/// Puts the links in place; `None` when that is not possible, which is no failure.
pub(super) fn prepare(settings: &Settings, program: &Path) -> Option<PathBuf> {
    let directory = settings.task_agent_directory.as_ref().filter(|_| HAS_LINKS)?;
    let home = std::env::var_os(HOME).map(PathBuf::from);
    if !settings.command_prefix.is_empty() && home.is_some_and(|home| directory.starts_with(home)) {
        // The user behind the prefix may not look into this user's home.
        return None;
    }
    let linked = fs::create_dir_all(directory)
        .and_then(|()| NAMES.iter().try_for_each(|name| link(program, &directory.join(name))));
    match linked {
        Ok(()) => Some(directory.clone()),
        Err(error) => {
            record!(Debug; "no in-job commands in `{}`: {error}", directory.display());
            None
        }
    }
}

/// Replaces an older link, but nothing else: the file may be another product's.
fn link(program: &Path, path: &Path) -> std::io::Result<()> {
    match fs::read_link(path) {
        Ok(target) if target == program => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(_) => return Err(std::io::Error::other(format!("`{}` is not a link", path.display()))),
    }
    // A name that is nobody else's: several runners may start at once, in one process or in many, also
    // in containers that share this directory and number their processes alike.
    let temporary = path.with_extension(format!(
        "new-{}-{:x}-{}",
        std::process::id(),
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos()),
        LINKS.fetch_add(1, Ordering::Relaxed)
    ));
    link_to_program(program, &temporary)?;
    fs::rename(&temporary, path).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn links_follow_the_program_and_spare_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("circleci");
        link(Path::new("/old"), &path).unwrap();
        link(Path::new("/new"), &path).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("/new"));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another product").unwrap();
        assert!(link(Path::new("/new"), &path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "another product");
    }

    #[test]
    fn runners_that_start_together_share_one_directory() {
        for _ in 0..20 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("circleci");
            std::thread::scope(|scope| {
                for n in 0..8 {
                    let path = &path;
                    let program = PathBuf::from(format!("/program-{}", n % 2));
                    scope.spawn(move || link(&program, path).unwrap());
                }
            });
            assert!(fs::read_link(&path).unwrap().starts_with("/"));
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "temporary links stayed");
        }
    }
}
