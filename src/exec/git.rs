//! Git as `exec` calls it: told nothing by the caller's environment, and running nothing but itself.

use super::signals;
use crate::system::proc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// Pause between two looks at signals while git runs.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// A signal of the terminal comes to git and to this process in any order; so long after git's it is waited for.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(1);

/// Set inside hooks and by wrappers; they would point git at another repository, or change what names of files mean.
const FOREIGN: [&str; 18] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_GRAFT_FILE",
    "GIT_REPLACE_REF_BASE",
    "GIT_NAMESPACE",
    "GIT_ATTR_SOURCE",
    "GIT_CONFIG",
    "GIT_QUARANTINE_PATH",
    "GIT_LITERAL_PATHSPECS",
    "GIT_GLOB_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
];

/// Settings for every call. A repository of another owner is refused as git refuses it, since its settings are obeyed, unless the
/// person has called it safe. Hooks, a monitor of the file system and the filter of large files would write to one. Objects that are made are thrown
/// away soon: to compress them takes longer than to write them. Files are taken wherever they are, also in a part
/// that a sparse working tree leaves out, and with line ends that the person would not commit.
const SETTINGS: [&str; 10] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.splitIndex=false",
    "core.sparseCheckout=false",
    "core.safecrlf=false",
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
    // Jobs see commits as they are: one that is shown in place of HEAD is not what they check out.
    command.env("GIT_NO_REPLACE_OBJECTS", "1");
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    Git(command)
}

/// A command in a repository of the user, which is not written to: not even what its index knows of files.
pub(super) fn reading(folder: &Path) -> Git {
    git(folder, &[("GIT_OPTIONAL_LOCKS", "0".into())])
}

/// The items of a list that git ends with zero bytes.
pub(super) fn items(listed: &[u8]) -> impl Iterator<Item = &[u8]> {
    listed.split(|byte| *byte == 0).filter(|item| !item.is_empty())
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

    /// Standard output of git. `what` was attempted, for the error.
    pub(super) fn output(self, what: &str) -> Result<Vec<u8>, String> {
        let output = self.run(what)?;
        check(what, &output)?;
        Ok(output.stdout)
    }

    /// Runs it for its effect.
    pub(super) fn done(self, what: &str) -> Result<(), String> {
        self.output(what).map(|_| ())
    }

    /// Standard output of git, as a line of text.
    pub(super) fn line(self, what: &str) -> Result<String, String> {
        let output = self.output(what)?;
        Ok(String::from_utf8_lossy(&output).trim_end().to_owned())
    }

    /// Runs it with `bytes` on its standard input. Returns its standard output.
    pub(super) fn input(mut self, bytes: &[u8], what: &str) -> Result<Vec<u8>, String> {
        let pipes = self.0.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().map_err(|e| start_failure(what, &e))?;
        let stdin = child.stdin.take();
        let output = std::thread::scope(|scope| {
            scope.spawn(move || {
                // git that stopped reading says why on stderr, which is the better message.
                stdin.map(|mut stdin| stdin.write_all(bytes))
            });
            Started(child).end(what)
        })?;
        check(what, &output)?;
        Ok(output.stdout)
    }
}

/// A git command that runs.
pub(super) struct Started(Child);

impl Started {
    /// Waits for its end. What it answers holds however it ended, unless a signal has ended it; one that ends this
    /// process ends it too.
    pub(super) fn end(mut self, what: &str) -> Result<Output, String> {
        let ended = self.wait().map_err(|e| format!("failed to {what}: lost sight of `git`: {e}"));
        if !matches!(ended, Ok(Some(_))) {
            self.kill();
        }
        let output = ended?.ok_or_else(|| format!("failed to {what}: interrupted"))?;
        let Some(signal) = output.status.signal() else { return Ok(output) };
        let deadline = Instant::now() + SIGNAL_PATIENCE;
        while !signals::is_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(format!("failed to {what}: the signal {signal} has ended `git` (run it once more)"))
    }

    /// Gathers its output until it ends; `None` when this process is to end before.
    fn wait(&mut self) -> io::Result<Option<Output>> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (mut out, mut err) = (self.0.stdout.take(), self.0.stderr.take());
        let mut bytes = vec![0; 1 << 16];
        while out.is_some() || err.is_some() {
            let open = out.iter().map(AsFd::as_fd).chain(err.iter().map(AsFd::as_fd));
            let mut open: Vec<PollFd> =
                open.map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::IN)).collect();
            match poll(&mut open, Some(&LOOK)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready: Vec<bool> = open.iter().map(|pipe| !pipe.revents().is_empty()).collect();
            if signals::is_ended() {
                return Ok(None);
            }
            let is_out_ready = out.is_some() && ready.first() == Some(&true);
            if ready.last() == Some(&true) && err.is_some() {
                take(&mut err, &mut stderr, &mut bytes)?;
            }
            if is_out_ready {
                take(&mut out, &mut stdout, &mut bytes)?;
            }
        }
        let status: ExitStatus = self.0.wait()?;
        Ok(Some(Output { status, stdout, stderr }))
    }

    /// Ends it and what it has started, such as filters.
    fn kill(&mut self) {
        for process in proc::descendants(self.0.id() as i32) {
            if let Some(pid) = Pid::from_raw(process.pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
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
    // A path with a line break makes a common answer ambiguous: each question is asked alone.
    let mut answers = Vec::new();
    for question in questions {
        let mut answer = git(root, &[]).args(["rev-parse"]).args(*question).output(what)?;
        answer.pop();
        answers.push(OsString::from_vec(answer));
    }
    Ok(Ok(answers))
}

/// Reads once from a pipe that has something to say, or is at its end and is closed then.
fn take<R: Read>(pipe: &mut Option<R>, into: &mut Vec<u8>, bytes: &mut [u8]) -> io::Result<()> {
    match pipe.as_mut().map_or(Ok(0), |pipe| pipe.read(bytes)) {
        Ok(0) => *pipe = None,
        Ok(count) => into.extend_from_slice(&bytes[..count]),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(error) => return Err(error),
    }
    Ok(())
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
