//! A git command: no shell, no questions, a deadline, bounded output.

use crate::server::pipelines::repository::access::Files;
use crate::server::pipelines::repository::address::Protocol;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// Bytes kept of what git says on standard error.
const MOST_STDERR_BYTES: usize = 16 * 1024;
/// Characters of standard error that people see.
const MOST_SHOWN_CHARS: usize = 600;

/// Variables of the control plane's environment that git gets: enough for keys, helpers, proxies and
/// certificates.
const PASSED_ON: &[&str] = &[
    "ALL_PROXY",
    "GIT_CONFIG_GLOBAL",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSL_CAINFO",
    "HOME",
    "HTTPS_PROXY",
    "LOGNAME",
    "NO_PROXY",
    "PATH",
    "SSH_AUTH_SOCK",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "USER",
    "XDG_CONFIG_HOME",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// The reason why a command has no result.
#[derive(Debug)]
pub(super) enum GitError {
    /// Git could not be started.
    NotStarted(std::io::Error),
    /// Git ended with a failure and this on standard error.
    Failed(String),
    /// Git was let in nowhere: a sentence about what was to open the repository, and what to do.
    Shut(String),
    /// Git was killed after this long.
    TooLong(Duration),
    /// The mirror's folder cannot be used.
    Folder(PathBuf, std::io::Error),
}

impl GitError {
    /// Whether standard error contains one of these.
    pub(super) fn says(&self, texts: &[&str]) -> bool {
        matches!(self, GitError::Failed(said) if texts.iter().any(|text| said.contains(text)))
    }

    /// The kind of ids of a repository whose mirror has those of another kind.
    pub(super) fn other_ids(&self) -> Option<&'static str> {
        if !self.says(&["mismatched algorithms"]) {
            return None;
        }
        Some(if self.says(&["server sha256"]) { "sha256" } else { "sha1" })
    }
}

impl fmt::Display for GitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GitError::NotStarted(error) if error.kind() == std::io::ErrorKind::NotFound => {
                f.write_str("`git` is not installed on the host of the control plane")
            }
            GitError::NotStarted(error) => write!(f, "`git` cannot be started: {error}"),
            GitError::Failed(said) => f.write_str(&for_people(said)),
            GitError::Shut(why) => f.write_str(why),
            GitError::TooLong(limit) => write!(f, "it took longer than {} s", limit.as_secs()),
            GitError::Folder(folder, error) => {
                write!(f, "failed to use the folder `{}`: {error}", folder.display())
            }
        }
    }
}

/// Words of git, and of ssh, where a repository wants a login that there is not. They tell nobody what to do.
const WANTS_LOGIN: [&str; 3] =
    ["unable to get password from user", "could not read Username", "could not read Password"];
/// Words where what was shown opens nothing; servers add their own.
const OPENS_NOTHING: [&str; 4] =
    ["Authentication failed for", "Permission denied (", "returned error: 401", "returned error: 403"];
/// Words of a repository that is not there, or that whoever may not see it is told so of.
const NOT_THERE: [&str; 1] = ["/' not found"];

/// Words of git as an error: with `shut` in their place where that is the matter.
fn failure(said: String, shut: &str) -> GitError {
    let says = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    if shut.is_empty() {
        return GitError::Failed(said);
    }
    if says(&WANTS_LOGIN) {
        return GitError::Shut(shut.to_owned());
    }
    if says(&OPENS_NOTHING) {
        return GitError::Shut(format!("{shut} (git: {})", for_people(&said)));
    }
    match says(&NOT_THERE) {
        true => GitError::Shut(format!("{}; if it is there all the same, {shut}", for_people(&said))),
        false => GitError::Failed(said),
    }
}

/// Joins the last lines of standard error to one, without control characters.
fn for_people(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut kept: Vec<&str> = lines.rev().take(4).collect();
    kept.reverse();
    let text = kept.join("; ");
    let text: String = text.chars().filter(|c| !c.is_control()).take(MOST_SHOWN_CHARS).collect();
    if text.is_empty() { "git failed and said nothing".to_owned() } else { text }
}

/// Git on one mirror.
#[derive(Debug)]
pub(super) struct MirrorGit {
    folder: PathBuf,
    protocol: Protocol,
    access: Option<Files>,
    /// Sentence for people where the repository is shut.
    shut: String,
}

impl MirrorGit {
    pub(super) fn new(folder: PathBuf, protocol: Protocol, access: Option<Files>, shut: String) -> Self {
        Self { folder, protocol, access, shut }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the mirror when there is none, and clears what a killed git left behind. True when it is new.
    pub(super) async fn prepare(&self) -> Result<bool, GitError> {
        self.prepare_as(&[]).await
    }

    /// [`MirrorGit::prepare`], for a mirror that is made with these arguments.
    pub(super) async fn prepare_as(&self, how: &[&str]) -> Result<bool, GitError> {
        if self.is_made().await {
            self.unlock().await;
            return Ok(false);
        }
        // No templates: their hooks and descriptions are of no use here.
        let folder = self.folder.clone();
        let made = tokio::task::spawn_blocking(move || {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
        });
        let fail = |error| GitError::Folder(self.folder.clone(), error);
        made.await.map_err(|error| fail(std::io::Error::other(error)))?.map_err(fail)?;
        let args = [&["init", "--quiet", "--bare", "--template="], how].concat();
        self.run(Duration::from_secs(30), 0, &args).await?;
        Ok(true)
    }

    /// Whether the mirror is there: enough for commands that only ask the repository itself.
    pub(super) async fn is_made(&self) -> bool {
        tokio::fs::try_exists(self.folder.join("HEAD")).await.unwrap_or(false)
    }

    /// Only one command at a time works here, so a lock that lies about was left by one that was killed.
    async fn unlock(&self) {
        for name in ["shallow.lock", "packed-refs.lock", "config.lock", "HEAD.lock"] {
            let _ = tokio::fs::remove_file(self.folder.join(name)).await;
        }
        let Ok(mut entries) = tokio::fs::read_dir(self.folder.join("refs/runlet")).await else { return };
        while let Ok(Some(entry)) = entries.next_entry().await {
            if entry.file_name().to_string_lossy().ends_with(".lock") {
                let _ = tokio::fs::remove_file(entry.path()).await;
            }
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.env_clear();
        let has_ssh = self.access.as_ref().is_some_and(Files::has_ssh);
        for name in PASSED_ON {
            // The keys of the project come before those that the host has for everything.
            if has_ssh && name.starts_with("GIT_SSH") {
                continue;
            }
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if !has_ssh && std::env::var_os("GIT_SSH_COMMAND").is_none() && std::env::var_os("GIT_SSH").is_none()
        {
            command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=20");
        }
        let mut folder = OsString::from("--git-dir=");
        folder.push(&self.folder);
        command
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "true")
            .env("SSH_ASKPASS_REQUIRE", "never")
            .env("GIT_ALLOW_PROTOCOL", self.protocol.as_str())
            .env("GIT_PROTOCOL_FROM_USER", "0")
            .arg(folder)
            .args([
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "gc.autoDetach=false",
                "-c",
                "maintenance.autoDetach=false",
            ])
            .args([
                "-c",
                "credential.interactive=false",
                "-c",
                "http.lowSpeedLimit=1",
                "-c",
                "http.lowSpeedTime=60",
            ])
            .args(["-c", "submodule.recurse=false", "-c", "fetch.recurseSubmodules=false"])
            .args(self.access.iter().flat_map(|files| ["-c".to_owned(), files.setting()]))
            .args(args)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Helpers of git (ssh, git-remote-https) end with it.
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// Runs git and returns what it says on standard output, at most `most` bytes.
    pub(super) async fn run(&self, limit: Duration, most: usize, args: &[&str]) -> Result<Bounded, GitError> {
        let child = self.command(args).spawn().map_err(GitError::NotStarted)?;
        let mut group = Group(child);
        let (stdout, stderr) = (group.0.stdout.take(), group.0.stderr.take());
        let work = async {
            let (bytes, said) = tokio::join!(bounded(stdout, most), bounded(stderr, MOST_STDERR_BYTES));
            (bytes, said, group.0.wait().await)
        };
        let done = tokio::time::timeout(limit, work).await;
        let Ok((out, said, status)) = done else {
            group.kill().await;
            return Err(GitError::TooLong(limit));
        };
        if !status.map_err(GitError::NotStarted)?.success() {
            return Err(failure(String::from_utf8_lossy(&said.bytes).into_owned(), &self.shut));
        }
        Ok(out)
    }
}

/// The path of git. Looked for here and not by the standard library: a name that is looked for in another environment than
/// this process's makes it copy the tables of all pages of the process, for each command.
fn program() -> PathBuf {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&paths).map(|folder| folder.join("git"));
    let is_program = |file: &PathBuf| {
        file.is_absolute()
            && file.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    places.find(is_program).unwrap_or_else(|| PathBuf::from("git"))
}

/// Output of a command, bounded.
#[derive(Default)]
pub(super) struct Bounded {
    pub(super) bytes: Vec<u8>,
    /// Whether there was more.
    pub(super) is_cut: bool,
}

/// Reads the first `most` bytes; the rest is read and dropped, so that the writer is not held up.
async fn bounded(stream: Option<impl AsyncRead + Unpin>, most: usize) -> Bounded {
    let mut all = Bounded::default();
    let Some(mut stream) = stream else { return all };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let keep = count.min(most - all.bytes.len());
        all.bytes.extend_from_slice(&buffer[..keep]);
        all.is_cut |= keep < count;
    }
    all
}

/// A child that leads a process group, all of which is killed with it.
struct Group(Child);

impl Group {
    fn signal(&self) {
        let id = self.0.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(id) = id {
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
    }

    async fn kill(&mut self) {
        self.signal();
        let _ = self.0.wait().await;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Without effect once it was waited for.
        self.signal();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_says_is_cut_for_people() {
        assert_eq!(for_people("a\n\nb\nfatal: \u{1b}[31mno\n"), "a; b; fatal: [31mno");
        assert_eq!(for_people(""), "git failed and said nothing");
        assert_eq!(for_people(&"x".repeat(5000)).len(), MOST_SHOWN_CHARS);
    }

    #[test]
    fn a_shut_repository_is_told_from_other_failures() {
        let said = |text: &str, shut| failure(text.to_owned(), shut).to_string();
        let asks = "fatal: unable to get password from user";
        assert_eq!((said(asks, "it is shut"), said(asks, "")), ("it is shut".to_owned(), asks.to_owned()));
        let denied = "remote: no\nfatal: Authentication failed for 'https://h/a/'";
        assert_eq!(
            said(denied, "it is shut"),
            "it is shut (git: remote: no; fatal: Authentication failed for 'https://h/a/')"
        );
        let gone = "fatal: repository 'https://h/a/' not found";
        assert_eq!(said(gone, "it is shut"), format!("{gone}; if it is there all the same, it is shut"));
        for other in ["fatal: couldn't find remote ref refs/heads/x", "Could not resolve host: h"] {
            assert_eq!(said(other, "it is shut"), other);
        }
    }

    #[tokio::test]
    async fn time_and_output_are_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let git = MirrorGit::new(folder.path().join("m.git"), Protocol::File, None, String::new());
        assert!(git.prepare().await.expect("git works"));
        assert!(!git.prepare().await.expect("git works"));
        let said = git.run(Duration::from_secs(300), 3, &["--version"]).await.expect("git works");
        assert!(said.bytes == b"git" && said.is_cut);
        let error =
            git.run(Duration::from_millis(200), 10, &["-c", "alias.hang=!sleep 600", "hang"]).await.err();
        assert!(matches!(error, Some(GitError::TooLong(_))), "{error:?}");
    }
}
