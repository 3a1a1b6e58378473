//! The working tree as a commit: uncommitted files included, ignored files left out.
//!
//! Real git does the work on a temporary index and a temporary object folder, so the repository of the
//! user is only read. What comes out is a bare repository that the `checkout` steps of the jobs fetch
//! from. When nothing is uncommitted, the commit is HEAD itself.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A frozen working tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Bare repository to fetch from.
    pub repository: PathBuf,
    /// Full id of the commit that holds the files.
    pub revision: String,
    /// Branch that names the commit in `repository`.
    pub branch: String,
    /// Whether `branch` is what the remote calls its default, or `main` or `master` where it says nothing.
    pub is_default_branch: bool,
    /// Subject line of HEAD; empty outside a repository.
    pub subject: String,
    /// URL of `origin`, without credentials.
    pub origin: Option<String>,
}

/// Freezes the tree at `root` into `scratch` (an empty directory of ours).
pub(super) fn take(root: &Path, scratch: &Path) -> Result<Snapshot, String> {
    let found = Repository::find(root)?;
    let repository = scratch.join("source.git");
    let mut init = git(root, &[]).args(["init", "--quiet", "--bare"]);
    if let Some(format) = found.as_ref().and_then(|found| found.object_format.as_deref()) {
        init = init.args([format!("--object-format={format}")]);
    }
    init.arg(&repository).done("create a temporary repository")?;
    let objects = scratch.join("objects");
    fs::create_dir(&objects).map_err(|e| format!("failed to create `{}`: {e}", objects.display()))?;
    let index = scratch.join("index");

    let mut environment = vec![("GIT_INDEX_FILE", index.as_os_str().to_owned())];
    let mut alternates = vec![objects.clone()];
    match &found {
        Some(found) => {
            environment.push(("GIT_OBJECT_DIRECTORY", objects.as_os_str().to_owned()));
            environment.push(("GIT_ALTERNATE_OBJECT_DIRECTORIES", found.objects.as_os_str().to_owned()));
            alternates.push(found.objects.clone());
        }
        None => {
            environment.push(("GIT_DIR", repository.as_os_str().to_owned()));
            environment.push(("GIT_WORK_TREE", root.as_os_str().to_owned()));
        }
    }
    let whole = found.as_ref().filter(|found| found.top == root);
    match (&found, whole) {
        // The user's index knows which files are unchanged: with a copy of it only changes are hashed.
        (_, Some(found)) => {
            if found.index.exists() {
                fs::copy(&found.index, &index)
                    .map_err(|e| format!("failed to copy the index `{}`: {e}", found.index.display()))?;
            }
            git(root, &environment).args(["add", "--all"]).done("record the working tree")?;
        }
        // A folder inside a larger repository: its files become the root of the snapshot.
        (Some(_), None) => {
            let listed = git(root, &[])
                .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
                .output("list the files of the working tree")?;
            environment.push(("GIT_DIR", repository.as_os_str().to_owned()));
            environment.push(("GIT_WORK_TREE", root.as_os_str().to_owned()));
            git(root, &environment)
                .args(["update-index", "-z", "--add", "--remove", "--stdin"])
                .input(listed, "record the working tree")?;
        }
        (None, None) => git(root, &environment).args(["add", "--all"]).done("record the working tree")?,
    }
    let tree = git(root, &environment).args(["write-tree"]).line("write the tree")?;

    let head = whole.and_then(|found| found.head.as_deref());
    let revision = match head {
        Some(head) if head_tree(root, head).as_deref() == Some(tree.as_str()) => head.to_owned(),
        _ => {
            for (name, value) in [
                ("GIT_AUTHOR_NAME", "runlet exec"),
                ("GIT_AUTHOR_EMAIL", "runlet@localhost"),
                ("GIT_COMMITTER_NAME", "runlet exec"),
                ("GIT_COMMITTER_EMAIL", "runlet@localhost"),
            ] {
                environment.push((name, value.into()));
            }
            let mut commit = git(root, &environment);
            commit =
                commit.args(["commit-tree", &tree, "-m", "The working tree, with what is not committed"]);
            if let Some(head) = head {
                commit = commit.args(["-p", head]);
            }
            commit.line("commit the working tree")?
        }
    };

    let branch = found.as_ref().and_then(|found| found.branch.clone()).unwrap_or_else(|| "main".to_owned());
    let mut list = String::new();
    for folder in &alternates {
        // Relative paths would be looked up from the bare repository.
        let absolute = fs::canonicalize(folder).unwrap_or_else(|_| folder.clone());
        list.push_str(&absolute.to_string_lossy());
        list.push('\n');
    }
    write(&repository.join("objects/info/alternates"), &list)?;
    if let Some(edge) = whole.map(Repository::edge).transpose()?.flatten() {
        write(&repository.join("shallow"), &edge)?;
    }
    let reference = format!("refs/heads/{branch}");
    git(&repository, &[]).args(["update-ref", &reference, &revision]).done("name the snapshot")?;
    git(&repository, &[]).args(["symbolic-ref", "HEAD", &reference]).done("name the snapshot")?;

    let default = found.as_ref().and_then(|found| found.default_branch.clone());
    let is_default_branch =
        default.map_or(matches!(branch.as_str(), "main" | "master"), |name| name == branch);
    Ok(Snapshot {
        repository,
        revision,
        branch,
        is_default_branch,
        subject: found.as_ref().map(|found| found.subject.clone()).unwrap_or_default(),
        origin: found.and_then(|found| found.origin),
    })
}

fn head_tree(root: &Path, head: &str) -> Option<String> {
    git(root, &[]).args(["rev-parse", "--verify", "--quiet", &format!("{head}^{{tree}}")]).line("").ok()
}

/// The repository around a folder.
struct Repository {
    top: PathBuf,
    objects: PathBuf,
    index: PathBuf,
    /// Lists where the history is cut off, in a shallow clone.
    shallow: PathBuf,
    /// `sha256`, or `sha1` where this git can tell.
    object_format: Option<String>,
    /// Some of its objects are on a server only.
    is_partial: bool,
    head: Option<String>,
    branch: Option<String>,
    default_branch: Option<String>,
    subject: String,
    origin: Option<String>,
}

impl Repository {
    /// `None` when `root` is in no repository.
    fn find(root: &Path) -> Result<Option<Self>, String> {
        let ask = |args: &[&str]| git(root, &[]).args(args).line("").ok().filter(|line| !line.is_empty());
        // Told apart from "no repository": git itself must be there.
        git(root, &[]).args(["--version"]).done("run git")?;
        let Some(top) = ask(&["rev-parse", "--show-toplevel"]) else { return Ok(None) };
        let path = |name: &str| ask(&["rev-parse", "--git-path", name]).map(|text| root.join(text));
        let (Some(objects), Some(index), Some(shallow)) = (path("objects"), path("index"), path("shallow"))
        else {
            return Err(format!(
                "failed to read the repository of `{}`: git names no directory",
                root.display()
            ));
        };
        let top = PathBuf::from(top);
        Ok(Some(Self {
            top: fs::canonicalize(&top).unwrap_or(top),
            objects: fs::canonicalize(&objects).unwrap_or(objects),
            index,
            shallow,
            // git before 2.25 knows only one and echoes the question.
            object_format: ask(&["rev-parse", "--show-object-format"]).filter(|name| !name.starts_with('-')),
            is_partial: ask(&["config", "--get-regexp", r"^remote\..*\.promisor$"]).is_some(),
            head: ask(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]),
            branch: ask(&["symbolic-ref", "--quiet", "--short", "HEAD"]),
            default_branch: ask(&["symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD"])
                .and_then(|name| name.strip_prefix("origin/").map(str::to_owned)),
            subject: ask(&["log", "-1", "--format=%s"]).unwrap_or_default(),
            origin: ask(&["config", "--get", "remote.origin.url"]).map(|url| without_credentials(&url)),
        }))
    }
}

impl Repository {
    /// The commits at which its history ends although commits have parents, as git's file `shallow` has it.
    fn edge(&self) -> Result<Option<String>, String> {
        // What a partial clone lacks it would have to fetch, which takes a network and whoever may use it. The
        // files of HEAD are there.
        if let (true, Some(head)) = (self.is_partial, &self.head) {
            return Ok(Some(format!("{head}\n")));
        }
        match fs::read_to_string(&self.shallow) {
            Ok(edge) => Ok(Some(edge)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("failed to read `{}`: {error}", self.shallow.display())),
        }
    }
}

/// `https://user:secret@host/x` without what stands before the `@`.
fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) if scheme.starts_with("http") => {
            let end = rest.find('/').unwrap_or(rest.len());
            let host = rest[..end].rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{}", &rest[end..])
        }
        _ => url.to_owned(),
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("failed to write `{}`: {e}", path.display()))
}

/// A git command that asks nothing and is told nothing by the caller's environment.
struct Git(Command);

fn git(directory: &Path, environment: &[(&str, std::ffi::OsString)]) -> Git {
    let mut command = Command::new("git");
    command.current_dir(directory);
    // Set inside hooks and by wrappers; they would point git at another repository.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"] {
        command.env_remove(name);
    }
    command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
    // A repository of another owner (mounted, root's) is only read here.
    command.args(["-c", "safe.directory=*", "-c", "core.fsmonitor=false"]);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    Git(command)
}

impl Git {
    fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.0.args(args);
        self
    }

    fn arg(mut self, arg: &Path) -> Self {
        self.0.arg(arg);
        self
    }

    fn output(mut self, what: &str) -> Result<Vec<u8>, String> {
        let output = self.0.stdin(Stdio::null()).output().map_err(|e| start_failure(what, &e))?;
        check(what, &output)?;
        Ok(output.stdout)
    }

    fn done(self, what: &str) -> Result<(), String> {
        self.output(what).map(|_| ())
    }

    fn line(self, what: &str) -> Result<String, String> {
        let output = self.output(what)?;
        Ok(String::from_utf8_lossy(&output).trim_end().to_owned())
    }

    fn input(mut self, bytes: Vec<u8>, what: &str) -> Result<(), String> {
        let mut child = self
            .0
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| start_failure(what, &e))?;
        if let Some(mut stdin) = child.stdin.take() {
            // git that stopped reading says why on stderr, which is the better message.
            let _ = stdin.write_all(&bytes);
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

fn check(what: &str, output: &std::process::Output) -> Result<(), String> {
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("failed to {what}: git said: {}", text.trim()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set up its files should fail loudly")]
mod tests {
    use super::*;

    fn sh(directory: &Path, script: &str) -> String {
        let output = Command::new("sh")
            .args(["-ec", script])
            .current_dir(directory)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .envs([("GIT_AUTHOR_NAME", "t"), ("GIT_AUTHOR_EMAIL", "t@t")])
            .envs([("GIT_COMMITTER_NAME", "t"), ("GIT_COMMITTER_EMAIL", "t@t")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn snapshot(root: &Path) -> (tempfile::TempDir, Snapshot) {
        let scratch = tempfile::tempdir().unwrap();
        let taken = take(&fs::canonicalize(root).unwrap(), scratch.path()).unwrap();
        (scratch, taken)
    }

    fn files(taken: &Snapshot) -> String {
        let clone = tempfile::tempdir().unwrap();
        sh(clone.path(), &format!("git clone -q 'file://{}' x", taken.repository.display()));
        sh(&clone.path().join("x"), "git ls-files | tr '\\n' ' '; cat a")
    }

    #[test]
    fn a_clean_tree_is_head_itself() {
        let repo = tempfile::tempdir().unwrap();
        sh(repo.path(), "git init -qb trunk; echo one > a; git add a; git commit -qm first");
        let (_scratch, taken) = snapshot(repo.path());
        assert_eq!(taken.revision, sh(repo.path(), "git rev-parse HEAD").trim());
        assert_eq!((taken.branch.as_str(), taken.subject.as_str()), ("trunk", "first"));
        assert_eq!(files(&taken), "a one\n");
    }

    #[test]
    fn uncommitted_files_are_in_and_ignored_files_are_not() {
        let repo = tempfile::tempdir().unwrap();
        sh(
            repo.path(),
            "git init -qb main; echo '*.o' > .gitignore; echo one > a; echo gone > b; git add .; git commit -qm first
             rm b; echo two > a; echo new > c; echo no > x.o; mkdir d; echo e > 'd/e f'",
        );
        let before =
            sh(repo.path(), "git status --porcelain; find .git -type f | sort; cat .git/index | cksum");
        let (_scratch, taken) = snapshot(repo.path());
        assert_eq!(files(&taken), ".gitignore a c d/e f two\n");
        assert_ne!(taken.revision, sh(repo.path(), "git rev-parse HEAD").trim());
        let after =
            sh(repo.path(), "git status --porcelain; find .git -type f | sort; cat .git/index | cksum");
        assert_eq!(before, after, "the user's repository must not change");
    }

    #[test]
    fn a_history_that_is_not_all_there_is_cut_off() {
        let place = tempfile::tempdir().unwrap();
        sh(
            place.path(),
            "git init -qb main whole; cd whole; git config uploadpack.allowFilter true
             for n in 1 2 3; do echo $n > a; git add a; git commit -qm $n; done",
        );
        for (how, commits) in [("--depth 2", "2"), ("--filter=blob:none", "1")] {
            sh(place.path(), &format!("rm -rf part; git clone -q {how} \"file://$PWD/whole\" part"));
            let part = place.path().join("part");
            let (_scratch, taken) = snapshot(&part);
            assert_eq!(taken.revision, sh(&part, "git rev-parse HEAD").trim(), "{how}");
            assert_eq!(sh(&taken.repository, "git rev-list --count HEAD").trim(), commits, "{how}");
            sh(&part, "echo four > a");
            let (_scratch, taken) = snapshot(&part);
            assert_eq!(files(&taken), "a four\n", "{how}");
        }
    }

    #[test]
    fn the_snapshot_counts_in_the_hashes_of_its_repository() {
        let repo = tempfile::tempdir().unwrap();
        sh(
            repo.path(),
            "git init -qb main --object-format=sha256; echo one > a; git add a; git commit -qm first",
        );
        let (_scratch, taken) = snapshot(repo.path());
        assert_eq!(taken.revision, sh(repo.path(), "git rev-parse HEAD").trim());
        assert_eq!(files(&taken), "a one\n");
    }

    #[test]
    fn a_folder_inside_a_repository_becomes_the_root() {
        let repo = tempfile::tempdir().unwrap();
        sh(
            repo.path(),
            "git init -qb main; mkdir sub; echo one > sub/a; echo y > top; echo ig > .gitignore; git add .
             git commit -qm first; echo x > sub/ig; echo z > sub/z",
        );
        let (_scratch, taken) = snapshot(&repo.path().join("sub"));
        assert_eq!(files(&taken), "a z one\n");
    }

    #[test]
    fn a_folder_in_no_repository_works_too() {
        let folder = tempfile::tempdir().unwrap();
        sh(folder.path(), "echo one > a; echo i > .gitignore; echo no > i");
        let (_scratch, taken) = snapshot(folder.path());
        assert_eq!(files(&taken), ".gitignore a one\n");
        assert_eq!(taken.branch, "main");
        assert!(!folder.path().join(".git").exists());
    }

    #[test]
    fn credentials_leave_the_origin() {
        assert_eq!(without_credentials("https://me:tok@h.example/o/r.git"), "https://h.example/o/r.git");
        assert_eq!(without_credentials("git@h.example:o/r.git"), "git@h.example:o/r.git");
    }
}
