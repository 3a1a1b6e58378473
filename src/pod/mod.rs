//! The program inside a pod: `runlet pod`, started by the container runner in containers of any image.
//!
//! An init container installs the program in a folder that the containers of the pod share. The first container runs
//! `init` as its first process: it fetches the task and starts a task agent, which does the rest as on a machine.
//! Service containers leave a file when they have started. Nothing here knows of Kubernetes.

mod init;
mod user;

use crate::outcome::{Failure, Outcome, exit};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub(crate) const HELP: &str = "\
Parts of a pod. The container runner starts these; they are not meant for people.

Usage: runlet pod install DIR    copy this program to DIR, with the names of the commands for jobs
       runlet pod run            run the task of the variable RUNLET_POD_TASK as the first process
       runlet pod ready FILE     make FILE, to say that this container has started

Exit codes of `run`: 0 nothing is left to report; 75 the task has not begun, or its outcome could not be reported;
1 the task agent was killed.
";

/// Runs `runlet pod` with the arguments after the command.
pub fn command(args: Vec<OsString>) -> Outcome {
    let words: Vec<_> = args.iter().map(|arg| arg.to_str().unwrap_or_default()).collect();
    match (words.as_slice(), args.get(1)) {
        (["install", _], Some(folder)) => install(Path::new(folder)).map(|()| exit::OK),
        (["ready", _], Some(file)) => ready(Path::new(file)).map(|()| exit::OK),
        (["run"], _) => init::run(),
        (["--help" | "-h"], _) => crate::outcome::print(HELP),
        _ => Err(Failure::usage("`runlet pod` wants `install DIR`, `run` or `ready FILE`")),
    }
}

/// Copies this program. What an earlier start of the container has left is replaced.
fn install(folder: &Path) -> Result<(), Failure> {
    let failed = |what: &str, error: io::Error| {
        Failure::new(format!("cannot install in `{}`: {what}: {error}", folder.display()))
    };
    let own = std::env::current_exe().map_err(|error| failed("this program is not found", error))?;
    let target = folder.join("runlet");
    fs::create_dir_all(folder).map_err(|error| failed("the folder cannot be made", error))?;
    fs::copy(own, &target).map_err(|error| failed("this program cannot be copied", error))?;
    // Containers run as any user.
    let modes = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&target, modes).map_err(|error| failed("the mode cannot be set", error))?;
    for name in ["circleci-agent", "circleci"] {
        match std::os::unix::fs::symlink("runlet", folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("a link cannot be made", error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn ready(file: &Path) -> Result<(), Failure> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    // Two containers of a pod may do so at once.
    let made = fs::create_dir_all(folder).and_then(|()| fs::write(file, ""));
    made.map_err(|error| Failure::new(format!("cannot make `{}`: {error}", file.display())))?;
    // The folder of whoever came first takes the files of others.
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o777));
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot make a folder should fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_installed_again_and_again() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        install(&bin).unwrap();
        install(&bin).unwrap();
        let own = std::env::current_exe().unwrap();
        assert_eq!(fs::metadata(bin.join("circleci")).unwrap().len(), fs::metadata(own).unwrap().len());
        ready(&bin.join("ready/1")).unwrap();
        ready(&bin.join("ready/1")).unwrap();
        assert!(bin.join("ready/1").exists());
        assert!(ready(&bin.join("runlet/1")).is_err());
    }
}
