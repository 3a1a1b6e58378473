//! Git as `exec` calls it: told nothing by the caller's environment, and running nothing but itself.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Set inside hooks and by wrappers; they would point git at another repository.
const FOREIGN: [&str; 8] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
];

/// Settings for every call. A repository of another owner (mounted, root's) is only read here; hooks, a monitor of
/// the file system and the filter of large files would write to it.
const SETTINGS: [&str; 7] = [
    "safe.directory=*",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.splitIndex=false",
    "filter.lfs.clean=",
    "filter.lfs.process=",
    "filter.lfs.required=false",
];

/// A git command.
pub(super) struct Git(Command);

/// Begins a command in `directory`, with `environment` beside that of this process.
pub(super) fn git(directory: &Path, environment: &[(&str, OsString)]) -> Git {
    let mut command = Command::new("git");
    command.current_dir(directory);
    for name in FOREIGN {
        command.env_remove(name);
    }
    command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C").env("GIT_DEFAULT_REF_FORMAT", "files");
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    Git(command)
}

impl Git {
    /// Adds arguments.
    pub(super) fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.0.args(args);
        self
    }

    /// Runs it, whatever comes of it.
    pub(super) fn run(mut self, what: &str) -> Result<Output, String> {
        self.0.stdin(Stdio::null()).output().map_err(|e| start_failure(what, &e))
    }

    /// Its standard output. `what` was attempted, for the error.
    pub(super) fn output(self, what: &str) -> Result<Vec<u8>, String> {
        let output = self.run(what)?;
        check(what, &output)?;
        Ok(output.stdout)
    }

    /// Runs it for its effect.
    pub(super) fn done(self, what: &str) -> Result<(), String> {
        self.output(what).map(|_| ())
    }

    /// Its standard output as a line of text.
    pub(super) fn line(self, what: &str) -> Result<String, String> {
        let output = self.output(what)?;
        Ok(String::from_utf8_lossy(&output).trim_end().to_owned())
    }

    /// Its standard output as a path, which may be any bytes.
    pub(super) fn path(self, what: &str) -> Result<OsString, String> {
        let mut output = self.output(what)?;
        if output.last() == Some(&b'\n') {
            output.pop();
        }
        Ok(OsString::from_vec(output))
    }

    /// Runs it with `bytes` on its standard input.
    pub(super) fn input(mut self, bytes: &[u8], what: &str) -> Result<(), String> {
        let mut child = self
            .0
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| start_failure(what, &e))?;
        if let Some(mut stdin) = child.stdin.take() {
            // git that stopped reading says why on stderr, which is the better message.
            let _ = stdin.write_all(bytes);
        }
        let output = child.wait_with_output().map_err(|e| start_failure(what, &e))?;
        check(what, &output)
    }
}

fn start_failure(what: &str, error: &std::io::Error) -> String {
    format!(
        "failed to {what}: cannot run `git`: {error} (install git: the working tree is handed to jobs as a commit)"
    )
}

/// The error of a command that failed.
pub(super) fn check(what: &str, output: &Output) -> Result<(), String> {
    if output.status.success() {
        return Ok(());
    }
    Err(format!("failed to {what}: git said: {}", said(output)))
}

/// Standard error, for people.
pub(super) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}
