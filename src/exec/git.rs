//! Git as `exec` calls it: told nothing by the caller's environment, and running nothing but itself.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

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
/// the file system and the filter of large files would write to it. Objects that are made are thrown
/// away soon: to compress them takes longer than to write them.
const SETTINGS: [&str; 9] = [
    "safe.directory=*",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.splitIndex=false",
    "log.showSignature=false",
    "core.looseCompression=0",
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
    /// Adds arguments, after those that are there.
    pub(super) fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.0.args(args);
        self
    }

    /// Starts it; others may run beside it.
    pub(super) fn start(mut self, what: &str) -> Result<Started, String> {
        let pipes = self.0.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        pipes.spawn().map(Started).map_err(|e| start_failure(what, &e))
    }

    /// Runs it, whatever comes of it.
    pub(super) fn run(self, what: &str) -> Result<Output, String> {
        self.start(what)?.end(what)
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

/// A git command that runs.
pub(super) struct Started(Child);

impl Started {
    /// Waits for its end, whatever comes of it.
    pub(super) fn end(self, what: &str) -> Result<Output, String> {
        self.0.wait_with_output().map_err(|e| format!("failed to {what}: lost sight of `git`: {e}"))
    }

    /// Waits for its standard output as text; `None` when it failed.
    pub(super) fn text(self, what: &str) -> Result<Option<String>, String> {
        let output = self.end(what)?;
        Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
    }
}

/// The answers of `git rev-parse` to several questions, in their order; they may be any bytes. The inner error is a
/// refusal of git.
pub(super) fn rev_parse(root: &Path, questions: &[&[&str]]) -> Result<Result<Vec<OsString>, Output>, String> {
    let what = "read the repository";
    let found = git(root, &[]).args(["rev-parse"]).args(questions.concat()).run(what)?;
    if !found.status.success() {
        return Ok(Err(found));
    }
    let mut lines: Vec<&[u8]> = found.stdout.split(|&byte| byte == b'\n').collect();
    lines.pop();
    if lines.len() == questions.len() {
        return Ok(Ok(lines.into_iter().map(|line| OsString::from_vec(line.to_owned())).collect()));
    }
    // A folder with a line break in its name: alone an answer is what stands before the last one.
    let mut answers = Vec::new();
    for question in questions {
        let mut answer = git(root, &[]).args(["rev-parse"]).args(*question).output(what)?;
        answer.pop();
        answers.push(OsString::from_vec(answer));
    }
    Ok(Ok(answers))
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
