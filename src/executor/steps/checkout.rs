//! The `checkout` step: real git, output in the step's log, nothing asked of anybody.

use super::left;
use super::locks::{is_locked, remove_locks};
use crate::executor::beside::beside;
use crate::executor::control::Control;
use crate::executor::end::{ChildEnd, StepEnd, end_of, exit_text};
use crate::executor::host::TaskHost;
use crate::executor::output::log::StepLog;
use crate::executor::{access, cleanup};
use crate::protocol::task_input::{LocalSource, TaskInput};
use crate::protocol::{CheckoutMethod, Source, StepStatus};
use crate::system::fault;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A fetch that says nothing for this long hangs.
const SILENCE: Duration = Duration::from_secs(600);
/// A reference that no repository has: asking for it shows whether the repository answers, and nothing else.
const NO_REF: &str = "refs/runlet/none";
/// Settings of the user and the host that would change what is checked out, or run programs beside it.
const SETTINGS: [&str; 14] = [
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.autocrlf=false",
    "-c",
    "submodule.recurse=false",
    // Large files stay pointers until a step asks for them.
    "-c",
    "filter.lfs.smudge=",
    "-c",
    "filter.lfs.process=",
    "-c",
    "filter.lfs.required=false",
];

/// The reason why a commit is not checked out.
enum Trouble {
    /// Git said no.
    Git(StepEnd),
    /// The origin does not have it.
    Gone(StepEnd),
}

impl From<StepEnd> for Trouble {
    fn from(end: StepEnd) -> Self {
        Trouble::Git(end)
    }
}

/// Checks the commit of the task out at `path`.
pub(super) fn checkout(
    input: &TaskInput,
    host: &TaskHost,
    control: &mut Control,
    path: &str,
    method: CheckoutMethod,
    log: &StepLog,
) -> Result<StepEnd, StepEnd> {
    let Some(source) = &input.task.source else {
        return Err(StepEnd::failed(
            "this project has no repository to check out (register one, or remove the step)",
        ));
    };
    let directory = host.places.of(path);
    host.places.may_check_out(&directory).map_err(StepEnd::failed)?;
    let tree = WorkTree { input, host, directory: &directory, source };
    let mut checkout = Checkout { tree, control, method, log };
    checkout.run().map(|()| StepEnd::success())
}

/// The folder that is checked out into, with its repository.
#[derive(Clone, Copy)]
pub(super) struct WorkTree<'a> {
    pub(super) input: &'a TaskInput,
    pub(super) host: &'a TaskHost,
    pub(super) directory: &'a Path,
    pub(super) source: &'a Source,
}

impl WorkTree<'_> {
    /// The file with what git is told of the origin that a repository on this host stands in for.
    fn own_settings(&self) -> Option<PathBuf> {
        let local = self.input.local_source.as_ref()?;
        Some(LocalSource::settings(&local.repository).join("config")).filter(|file| file.exists())
    }

    /// Makes a repository, or completes one, and tells it of its origin, by means of `git`, which is told how to run it.
    pub(super) fn set_up(&self, git: &mut RunGit<'_>) -> Result<(), StepEnd> {
        let source = self.source;
        let repository = self.directory.join(".git");
        // A repository whose making was cut short is made again: that adds what is missing.
        if !repository.join("config").exists()
            || git(Manner::Quiet, &["--git-dir=.git", "rev-parse", "--git-dir"]).is_err()
        {
            let mut init = vec!["init", "--quiet"];
            if source.revision.len() == 64 {
                init.push("--object-format=sha256");
            }
            git(Manner::Logged, &init)?;
            if let Some(local) = &self.input.local_source {
                share(&local.repository, &repository)?;
            }
        }
        let mut settings = vec![
            ("remote.origin.url", source.repository_url.as_str()),
            ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"),
            // Housekeeping would outlive the step, behind the back of those that follow.
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
        ];
        let local = self.input.local_source.clone();
        let pushed = local.as_ref().and_then(|local| local.repository.to_str());
        if let Some(url) = pushed {
            // The commit of a person's working tree is not for everybody; and of references that git looks for beside
            // borrowed objects, the person's may lead nowhere.
            settings
                .extend([("remote.origin.pushurl", url), ("core.alternateRefsPrefixes", LocalSource::KNOWN)]);
        }
        let own = self.own_settings();
        settings.extend(own.as_ref().and_then(|file| file.to_str()).map(|file| ("include.path", file)));
        let is_partial =
            local.as_ref().map_or_else(|| left::is_partial(&repository), |local| local.is_partial);
        if is_partial {
            settings.extend([
                ("remote.origin.promisor", "true"),
                ("remote.origin.partialclonefilter", "blob:none"),
            ]);
        }
        for (name, value) in settings {
            git(Manner::Logged, &["config", "--replace-all", name, value])?;
        }
        Ok(())
    }

    /// Asks git something that is answered at once, without a word in the log. The answer without white space around
    /// it; `None` when git fails.
    pub(super) fn asks(&self, args: &[&str]) -> Option<String> {
        answer(self.question(args))
    }

    fn question(&self, args: &[&str]) -> Command {
        let mut command = self.command(self.directory, args);
        // Without this a blobless clone would ask the server for a commit that it does not have.
        command.env("GIT_NO_LAZY_FETCH", "1").stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn command(&self, directory: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(self.program("git"));
        command.env_clear().envs(&self.host.environment);
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            command.env_remove(name);
        }
        command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
        // A damaged repository must not make it take one further up for its own.
        if let Some(above) = fs::canonicalize(directory).ok().as_deref().and_then(Path::parent) {
            command.env("GIT_CEILING_DIRECTORIES", above);
        }
        let has_own = access::has_file(self.input, "ssh_config") || self.own_settings().is_some();
        if !has_own && !self.host.environment.contains_key("GIT_SSH_COMMAND") {
            command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
        }
        command.current_dir(directory).args(SETTINGS);
        if let Some(config) = access::git_config(self.input, &self.host.private.path) {
            // Gits older than 2.31 do not look at what the environment says of it.
            command.arg("-c").arg(format!("include.path={}", config.display()));
        }
        command.args(args);
        command
    }

    /// A program as the `PATH` of the job finds it: the agent's own may differ.
    fn program(&self, name: &str) -> PathBuf {
        let path = self.host.environment.get("PATH").map(String::as_str).unwrap_or_default();
        let found = std::env::split_paths(path).map(|folder| folder.join(name)).find(|file| file.is_file());
        found.unwrap_or_else(|| PathBuf::from(name))
    }
}

/// How a git runs.
#[derive(Clone, Copy)]
pub(super) enum Manner {
    /// Words of it are in the log of the step.
    Logged,
    /// Only its success counts.
    Quiet,
}

/// Runs git with arguments, in a manner.
pub(super) type RunGit<'a> = dyn FnMut(Manner, &[&str]) -> Result<(), StepEnd> + 'a;

fn answer(mut question: Command) -> Option<String> {
    let output = question.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A checkout that is under way.
struct Checkout<'a> {
    tree: WorkTree<'a>,
    control: &'a mut Control,
    method: CheckoutMethod,
    log: &'a StepLog,
}

impl Checkout<'_> {
    fn run(&mut self) -> Result<(), StepEnd> {
        let (directory, log) = (self.tree.directory, self.log);
        let shown = directory.display();
        let make = |e| StepEnd::by_error(&format!("failed to create `{shown}`"), &e);
        fs::create_dir_all(directory).map_err(make)?;
        let repository = directory.join(".git");
        let existing = repository.symlink_metadata().is_ok();
        if !existing && !holds_nothing(directory, &self.tree.host.places.directory) {
            return Err(StepEnd::failed(format!(
                "cannot check out into `{shown}`: it has files and is not a git repository (empty it at the start of the job, or set `path`)"
            )));
        }
        log.note(if existing { "Fetching into the existing repository" } else { "Cloning git repository" });
        if existing {
            remove_locks(&repository, self.tree.host.began, &mut |path, outcome| match outcome {
                Ok(()) => log.note(&format!("removed `{}`, left by a git that was killed", path.display())),
                Err(error) => log.note(&format!("failed to remove `{}`: {error}", path.display())),
            });
        }
        let cannot_remove = |e: io::Error| {
            let e = fault::of_disk(e.to_string().as_bytes()).unwrap_or(e);
            StepEnd::by_error(&format!("failed to remove `{}`", repository.display()), &e)
        };
        let mut owner = [directory, &repository].into_iter().find_map(left::other_owner);
        let mut before = None;
        if existing && owner.is_none() {
            let is_old = left::is_old(&repository, self.tree.host.began);
            let settings = self.asks(&["config", "--file=.git/config", "--list", "--name-only"]);
            // A name outside of a section is no setting, though git goes on after it.
            let keeps = !is_old && settings.is_some_and(|names| names.lines().all(|name| name.contains('.')));
            if !keeps || left::is_set_aside(&repository) {
                // HEAD says which files are the commit's, and which are to go.
                before = self.asks(&["--git-dir=.git", "rev-parse", "--verify", "--quiet", "HEAD"]);
                let modules = !keeps && self.tree.input.local_source.is_none();
                if let Err(error) = left::strip(&repository, keeps, modules) {
                    if let Some(owner) = left::kept_by_another(directory) {
                        return Err(owned(cannot_remove(error), Some(owner)));
                    }
                    log.note(&format!(
                        "The repository that was here cannot be used ({error}): making it anew"
                    ));
                    cleanup::remove(&repository).map_err(cannot_remove)?;
                }
            }
        }
        let before = before.as_deref();
        let mut moved = self.fetch_and_move(before);
        if moved.is_err() && owner.is_none() {
            owner = left::kept_by_another(directory);
        }
        if let (Err(Trouble::Git(end)), true, None, false) =
            (&moved, existing, &owner, is_locked(&repository))
        {
            // The fault is in what an earlier job left here when the origin answers all the same.
            let (failed, from) = (end.status == StepStatus::Failed, self.from().to_owned());
            if failed && self.git_in(Path::new("/"), &["ls-remote", &from, NO_REF]).is_ok() {
                log.note("The repository that was here cannot be used: making it anew");
                cleanup::remove(&repository).map_err(cannot_remove)?;
                moved = self.fetch_and_move(None);
            }
        }
        moved.map_err(|(Trouble::Git(end) | Trouble::Gone(end))| owned(end, owner))?;
        log.note(&format!("Checked out {}", self.tree.source.revision));
        Ok(())
    }

    /// The address that is fetched from.
    fn from(&self) -> &str {
        let local = self.tree.input.local_source.as_ref().and_then(|local| local.repository.to_str());
        local.unwrap_or(&self.tree.source.repository_url)
    }

    fn fetch_and_move(&mut self, before: Option<&str>) -> Result<(), Trouble> {
        let tree = self.tree;
        let (directory, source, log) = (tree.directory, tree.source, self.log);
        let revision = &source.revision;
        let repository = directory.join(".git");
        tree.set_up(&mut |manner, args| match manner {
            Manner::Logged => self.git(args),
            Manner::Quiet => self.asks(args).map(drop).ok_or_else(StepEnd::success),
        })?;

        let wanted = match (&source.reference, &source.branch, &source.tag) {
            (Some(reference), ..) => format!("+{reference}:refs/runlet/source"),
            (None, Some(branch), _) => format!("+refs/heads/{branch}:refs/remotes/origin/{branch}"),
            (None, None, Some(tag)) => format!("+refs/tags/{tag}:refs/tags/{tag}"),
            (None, None, None) => revision.clone(),
        };
        let branch = source.branch.as_deref().unwrap_or_default();
        let ours = [format!("refs/heads/{branch}"), format!("refs/remotes/origin/{branch}")];
        self.clear_the_way(&ours)?;
        let from = self.from().to_owned();
        // By its name, a fetch that leaves blobs out makes no further remote.
        let remote = if from == source.repository_url { "origin" } else { &from };
        let how = self.how(is_local(&from));
        let mut fetch = vec!["fetch", "--quiet", "--force", "--no-tags"];
        fetch.extend(how.iter().map(String::as_str));
        fetch.push(remote);
        if !matches!(self.method, CheckoutMethod::Shallow { .. }) {
            // Branches that are gone may stand in the way of new ones, as `release` in that of `release/1.0`.
            fetch.insert(1, "--prune");
            fetch.extend(["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]);
        }
        let plain = fetch.len();
        fetch.push(&wanted);
        let fetched = self.git(&fetch);
        let is_here = self.has_commit(revision);
        if !is_here || fetched.is_err() {
            // The branch has moved on past a shallow fetch, or is gone: many servers hand out a commit by name.
            fetch.truncate(plain);
            if !is_here {
                fetch.push(revision);
            }
            self.git(&fetch).map_err(|end| match fetched {
                Err(first) => Trouble::Git(first),
                Ok(()) => Trouble::Gone(StepEnd {
                    message: Some(format!(
                        "the revision {revision} is not in the repository (was the branch rewritten since?)"
                    )),
                    ..end
                }),
            })?;
        }
        if let Some(default) = &source.default_branch {
            // A clone has this reference, where that branch has come along.
            self.succeeds(&["remote", "set-head", "--", "origin", default]);
        }
        if let Some(before) = before {
            self.succeeds(&["read-tree", before]);
            // Files that are as they should be are not written again: what was built from them stays newer.
            self.succeeds(&["update-index", "-q", "--refresh"]);
        }
        let target: Vec<&str> = match (&source.branch, &source.tag) {
            // Git makes no branch here whose name begins with `-`, though it has them elsewhere.
            (Some(branch), None) if !branch.starts_with('-') => {
                vec!["checkout", "--quiet", "--force", "-B", branch, revision]
            }
            _ => vec!["checkout", "--quiet", "--force", "--detach", revision],
        };
        let index = repository.join("index");
        match self.git(&target) {
            Err(end) if end.status == StepStatus::Failed && index.exists() && !is_locked(&repository) => {
                log.note("Trying again with a new index");
                fs::remove_file(&index)
                    .map_err(|e| StepEnd::failed(format!("failed to remove `{}`: {e}", index.display())))?;
                // The index of HEAD says which files of the commit before are to go.
                self.succeeds(&["read-tree", "HEAD"]);
                self.git(&target)?;
            }
            ended => ended?,
        }
        self.have_default_branch();
        Ok(())
    }

    /// Makes the default branch as a clone has it, where it has come along: `git diff main...` and `git pull` ask for it.
    fn have_default_branch(&mut self) {
        let source = self.tree.source;
        let Some(default) = &source.default_branch else { return };
        let upstream = format!("origin/{default}");
        let is_built = source.tag.is_none() && source.branch.as_ref() == Some(default);
        let branch: &[&str] = match is_built {
            true => &["branch", "--quiet", "--set-upstream-to", &upstream],
            false => &["branch", "--quiet", "--force", "--track", "--", default, &upstream],
        };
        self.succeeds(branch);
    }

    /// Removes branches of earlier jobs that cannot be there together with those of this one: git keeps them
    /// as files and folders.
    fn clear_the_way(&mut self, ours: &[String]) -> Result<(), StepEnd> {
        let listed = self.asks(&["for-each-ref", "--format=%(refname)", "refs/heads", "refs/remotes"]);
        let below =
            |one: &str, other: &str| one.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'));
        for known in listed.unwrap_or_default().lines() {
            if ours.iter().any(|name| below(known, name) || below(name, known)) {
                self.git(&["update-ref", "--no-deref", "-d", known])?;
            }
        }
        Ok(())
    }

    /// Arguments of `git fetch` for the method, as far as this git can.
    fn how(&mut self, local: bool) -> Vec<String> {
        let shallow = self.tree.directory.join(".git/shallow").exists();
        let mut how = match self.method {
            CheckoutMethod::Shallow { depth } => vec![format!("--depth={depth}")],
            CheckoutMethod::Blobless if !local => {
                let version = self.asks(&["version"]).unwrap_or_default();
                if blobless_works(&version) { vec!["--filter=blob:none".to_owned()] } else { vec![] }
            }
            CheckoutMethod::Blobless | CheckoutMethod::Full => vec![],
        };
        if shallow && !matches!(self.method, CheckoutMethod::Shallow { .. }) {
            how.push("--unshallow".to_owned());
        }
        if local {
            how.push("--update-shallow".to_owned());
        }
        how
    }

    fn has_commit(&mut self, revision: &str) -> bool {
        self.succeeds(&["cat-file", "-e", &format!("{revision}^{{commit}}")])
    }

    /// Asks git as [`WorkTree::asks`] does. Git may hang on what the job has made of its repository: a stop is heard all the same,
    /// and answered by `None`.
    fn asks(&mut self, args: &[&str]) -> Option<String> {
        let question = self.tree.question(args);
        beside(self.control, move |_| answer(question)).ok().flatten()
    }

    fn succeeds(&mut self, args: &[&str]) -> bool {
        self.asks(args).is_some()
    }

    fn git(&mut self, args: &[&str]) -> Result<(), StepEnd> {
        self.git_in(self.tree.directory, args)
    }

    fn git_in(&mut self, directory: &Path, args: &[&str]) -> Result<(), StepEnd> {
        let command = self.tree.command(directory, args);
        let what = args.first().copied().unwrap_or_default();
        // Messages of earlier commands are not meant.
        self.log.heard();
        match self.control.child(self.log, command, Some(SILENCE)) {
            ChildEnd::Ended(ended) if ended.code == 0 => Ok(()),
            ChildEnd::Ended(ended) => {
                let why = format!("`git {what}` failed with exit code {}", ended.code);
                // Some of its messages do not say why a file could not be written.
                Err(match self.log.heard().or_else(|| fault::full_at(directory)) {
                    Some(error) => StepEnd { ended: Some(ended), ..StepEnd::by_error(&why, &error) },
                    None => StepEnd { message: Some(why), ..exit_text(ended) },
                })
            }
            ChildEnd::NotStarted(error) if error.kind() == io::ErrorKind::NotFound => Err(StepEnd::failed(
                "cannot run `git`: it is not installed on this runner, and `checkout` needs it",
            )),
            other => Err(end_of(other)),
        }
    }
}

/// An end with a sentence about an owner.
fn owned(end: StepEnd, owner: Option<String>) -> StepEnd {
    match (owner, end.message.as_deref()) {
        (Some(owner), Some(why)) => StepEnd { message: Some(format!("{why}; {owner}")), ..end },
        _ => end,
    }
}

/// Whether the repository is on a disk of this host. Nothing is saved by leaving its blobs out, and where
/// its own history is cut off, a partial clone would ask for the missing commits for ever.
fn is_local(url: &str) -> bool {
    url.starts_with("file://") || url.starts_with('/')
}

/// Whether a folder is empty, but for the way to the working directory that was made for this task.
fn holds_nothing(folder: &Path, working: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (folder, working) = (real(folder), real(working));
    let Ok(mut entries) = fs::read_dir(folder) else { return false };
    entries.all(|entry| {
        entry.is_ok_and(|entry| {
            working.starts_with(entry.path())
                && entry.file_type().is_ok_and(|kind| kind.is_dir())
                && holds_nothing(&entry.path(), &working)
        })
    })
}

/// Lets a new repository use the objects of one on this host, and ends its history where that one's ends. Its
/// submodules come with it, as far as they are prepared there.
fn share(source: &Path, repository: &Path) -> Result<(), StepEnd> {
    let edge = source.join("shallow");
    let mut made = fs::write(
        repository.join("objects/info/alternates"),
        format!("{}\n", source.join("objects").display()),
    );
    if made.is_ok() && edge.exists() {
        made = fs::copy(&edge, repository.join("shallow")).map(drop);
    }
    made = made.and_then(|()| add(&source.join("modules"), &repository.join("modules")));
    made.map_err(|e| StepEnd::by_error(&format!("failed to set up `{}`", repository.display()), &e))
}

/// Adds the files of a folder, if there is one, to another. Of a submodule that an earlier job left what is there stays:
/// it learns which commit is wanted, and where further objects are.
fn add(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    fs::create_dir_all(to)?;
    for entry in entries {
        let (from, to) = {
            let entry = entry?;
            (entry.path(), to.join(entry.file_name()))
        };
        if from.is_dir() {
            add(&from, &to)?;
        } else if !to.exists() || to.ends_with("refs/runlet/source") {
            fs::copy(&from, &to)?;
        } else if to.ends_with("objects/info/alternates") || to.ends_with("shallow") {
            let (lines, mut all) = (fs::read(&from)?, fs::read(&to)?);
            if !all.ends_with(&lines) {
                all.extend(lines);
                fs::write(&to, all)?;
            }
        }
    }
    Ok(())
}

/// Partial clones came with git 2.19; 2.41.0 broke them.
fn blobless_works(version: &str) -> bool {
    let number = version.split_whitespace().nth(2).unwrap_or_default();
    let mut parts = number.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    version >= (2, 19, 0) && version != (2, 41, 0)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set up its files should fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_job_left_of_a_submodule_stays_and_learns_of_more() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        add(&from, &to).unwrap();
        assert!(!to.exists());
        let write = |place: &Path, files: &[(&str, &str)]| {
            for (name, text) in files {
                let path = place.join("lib").join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
        };
        let prepared = [
            ("HEAD", "new"),
            ("config", "new"),
            ("objects/info/alternates", "/new\n"),
            ("shallow", "2b\n"),
            ("refs/runlet/source", "new"),
        ];
        write(&from, &prepared);
        let left = [
            ("HEAD", "old"),
            ("objects/info/alternates", "/old\n"),
            ("shallow", "1a\n"),
            ("refs/runlet/source", "old"),
        ];
        write(&to, &left);
        for _again in 0..2 {
            add(&from, &to).unwrap();
            let now = prepared.map(|(name, _)| fs::read_to_string(to.join("lib").join(name)).unwrap());
            assert_eq!(now, ["old", "new", "/old\n/new\n", "1a\n2b\n", "new"]);
        }
    }

    #[test]
    fn old_and_broken_gits_clone_in_full() {
        assert!(blobless_works("git version 2.39.5\n"));
        assert!(!blobless_works("git version 2.41.0"));
        assert!(!blobless_works("git version 2.18.4 (Apple Git-1)"));
        assert!(!blobless_works(""));
    }
}
