//! The `checkout` step: real git, output in the step's log, nothing asked of anybody.

use super::act::end_of;

use super::log::StepLog;
use super::task::{ChildEnd, StepEnd, TaskRun};
use crate::protocol::{CheckoutMethod, Source};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A fetch that says nothing for this long hangs.
const SILENCE: Duration = Duration::from_secs(600);

impl TaskRun {
    pub(super) fn checkout(
        &mut self,
        record: u32,
        path: &str,
        method: CheckoutMethod,
        log: &StepLog,
    ) -> StepEnd {
        let Some(source) = self.input.task.source.clone() else {
            return StepEnd::failed(
                "this project has no repository to check out (register one, or remove the step)",
            );
        };
        let directory = self.places.of(path);
        if let Err(why) = self.places.may_check_out(&directory) {
            return StepEnd::failed(why);
        }
        match self.check_out(record, &directory, &source, method, log) {
            Ok(()) => StepEnd::success(),
            Err(end) => end,
        }
    }

    fn check_out(
        &mut self,
        record: u32,
        directory: &Path,
        source: &Source,
        method: CheckoutMethod,
        log: &StepLog,
    ) -> Result<(), StepEnd> {
        let shown = directory.display();
        fs::create_dir_all(directory)
            .map_err(|e| StepEnd::failed(format!("failed to create `{shown}`: {e}")))?;
        let existing = directory.join(".git").exists();
        let empty = fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none());
        if !existing && !empty {
            return Err(StepEnd::failed(format!(
                "cannot check out into `{shown}`: it has files and is not a git repository (empty it at the start of the job, or set `path`)"
            )));
        }
        let revision = &source.revision;
        let init: &[&str] = if revision.len() == 64 {
            &["init", "--quiet", "--object-format=sha256"]
        } else {
            &["init", "--quiet"]
        };
        let steps: &[&[&str]] = if existing {
            &[&["remote", "set-url", "origin", &source.repository_url]]
        } else {
            &[init, &["remote", "add", "origin", &source.repository_url]]
        };
        log.note(if existing { "Fetching into the existing clone" } else { "Cloning git repository" });
        for args in steps {
            self.git(record, directory, args, log)?;
        }
        // Housekeeping would outlive the step, behind the back of those that follow.
        self.git(record, directory, &["config", "gc.auto", "0"], log)?;
        self.git(record, directory, &["config", "maintenance.auto", "false"], log)?;

        let refspec = match (&source.reference, &source.branch, &source.tag) {
            (Some(reference), ..) => format!("+{reference}:refs/runlet/source"),
            (None, Some(branch), _) => format!("+refs/heads/{branch}:refs/remotes/origin/{branch}"),
            (None, None, Some(tag)) => format!("+refs/tags/{tag}:refs/tags/{tag}"),
            (None, None, None) => revision.clone(),
        };
        let how = self.how(directory, method, is_local(&source.repository_url));
        let mut fetch = vec!["fetch", "--force", "--no-tags"];
        fetch.extend(how.iter().map(String::as_str));
        let plain = fetch.len();
        fetch.extend(["origin", &refspec]);
        let fetched = self.git(record, directory, &fetch, log);
        if !self.has_commit(directory, revision) {
            // The branch has moved on past a shallow fetch, or is gone: many servers hand out a commit by name.
            fetch.truncate(plain);
            fetch.extend(["origin", revision.as_str()]);
            self.git(record, directory, &fetch, log).map_err(|end| match fetched {
                Err(first) => first,
                Ok(()) => StepEnd {
                    message: Some(format!(
                        "the revision {revision} is not in the repository (was the branch rewritten since?)"
                    )),
                    ..end
                },
            })?;
        }
        let target: Vec<&str> = match (&source.branch, &source.tag) {
            (Some(branch), None) => vec!["checkout", "--quiet", "--force", "-B", branch, revision],
            _ => vec!["checkout", "--quiet", "--force", "--detach", revision],
        };
        self.git(record, directory, &target, log)?;
        log.note(&format!("Checked out {revision}"));
        Ok(())
    }

    /// Arguments of `git fetch` for the method, as far as this git can.
    fn how(&self, directory: &Path, method: CheckoutMethod, local: bool) -> Vec<String> {
        let shallow = directory.join(".git/shallow").exists();
        let mut how = match method {
            CheckoutMethod::Shallow { depth } => vec![format!("--depth={depth}")],
            CheckoutMethod::Blobless if !local => {
                let output = self.command(directory, &["version"]).stdin(Stdio::null()).output();
                let version = output
                    .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
                    .unwrap_or_default();
                if blobless_works(&version) { vec!["--filter=blob:none".to_owned()] } else { vec![] }
            }
            CheckoutMethod::Blobless | CheckoutMethod::Full => vec![],
        };
        if shallow && !matches!(method, CheckoutMethod::Shallow { .. }) {
            how.push("--unshallow".to_owned());
        }
        if local {
            how.push("--update-shallow".to_owned());
        }
        how
    }

    fn has_commit(&self, directory: &Path, revision: &str) -> bool {
        let object = format!("{revision}^{{commit}}");
        let mut command = self.command(directory, &["cat-file", "-e", &object]);
        // Without this a blobless clone would ask the server for a commit that it does not have.
        command
            .env("GIT_NO_LAZY_FETCH", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    fn git(&mut self, record: u32, directory: &Path, args: &[&str], log: &StepLog) -> Result<(), StepEnd> {
        let command = self.command(directory, args);
        let what = args.first().copied().unwrap_or_default();
        match self.child(record, log, command, Some(SILENCE)) {
            ChildEnd::Ended(ended) if ended.code == 0 => Ok(()),
            ChildEnd::Ended(ended) => Err(StepEnd {
                message: Some(format!("`git {what}` failed with exit code {}", ended.code)),
                ..super::task::exit_text(ended)
            }),
            ChildEnd::NotStarted(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(StepEnd::failed(
                    "cannot run `git`: it is not installed on this runner, and `checkout` needs it",
                ))
            }
            other => Err(end_of(other)),
        }
    }

    fn command(&self, directory: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(self.program("git"));
        command.env_clear().envs(&self.environment);
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            command.env_remove(name);
        }
        command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
        if !self.environment.contains_key("GIT_SSH_COMMAND") {
            command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
        }
        command.current_dir(directory).args(args);
        command
    }

    /// A program as the `PATH` of the job finds it: the agent's own may differ.
    fn program(&self, name: &str) -> PathBuf {
        let path = self.environment.get("PATH").map(String::as_str).unwrap_or_default();
        let found = std::env::split_paths(path).map(|folder| folder.join(name)).find(|file| file.is_file());
        found.unwrap_or_else(|| PathBuf::from(name))
    }
}

/// Whether the repository is on a disk of this host. Nothing is saved by leaving its blobs out, and where
/// its own history is cut off, a partial clone would ask for the missing commits for ever.
fn is_local(url: &str) -> bool {
    url.starts_with("file://") || url.starts_with('/')
}

/// Partial clones came with git 2.19; 2.41.0 broke them.
fn blobless_works(version: &str) -> bool {
    let number = version.split_whitespace().nth(2).unwrap_or_default();
    let mut parts = number.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    version >= (2, 19, 0) && version != (2, 41, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_broken_gits_clone_in_full() {
        assert!(blobless_works("git version 2.39.5\n"));
        assert!(!blobless_works("git version 2.41.0"));
        assert!(!blobless_works("git version 2.18.4 (Apple Git-1)"));
        assert!(!blobless_works(""));
    }
}
