//! The working tree as a commit: uncommitted files included, ignored files left out.
//!
//! Real git does the work on a temporary index and a temporary object folder, so the repository of the
//! user is only read. What comes out is a bare repository that stands in for the origin in the `checkout`
//! steps of the jobs: it has the branches that the origin was seen to have, and the tags. When nothing is
//! uncommitted, the commit is HEAD itself.

use super::embedded;
use super::git::{check, git, said};
use super::index::{Hidden, Index};
use super::layout::{self, alternate, write};
use super::repository::{Repository, together};
use super::settings;
use super::underway;
use crate::protocol::task_input::LocalSource;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The branch of a detached HEAD: a pipeline has one.
const DETACHED: &str = "detached";
/// Arguments that take everything; of repositories inside it is told otherwise.
const ADD: [&str; 4] = ["add", "--all", "--ignore-errors", "--no-warn-embedded-repo"];
/// The end of git's sentence about a repository inside that has no commit yet; its files are taken otherwise.
const NO_COMMIT: &str = "does not have a commit checked out";

/// Part of its sentence about a folder that it cannot look into.
const UNSEEN: &str = "could not open directory";

/// A frozen working tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Bare repository to fetch from.
    pub repository: PathBuf,
    /// Some of its objects are at the origin only.
    pub is_partial: bool,
    /// Full id of the commit that holds the files.
    pub revision: String,
    /// Name of the commit in `repository`.
    pub name: Named,
    /// Whether the branch is what the remote calls its default, or `main` or `master` where it says nothing.
    pub is_default_branch: bool,
    /// The branch that the origin calls its default, when that is known here.
    pub default_branch: Option<String>,
    /// Subject line of HEAD; empty outside a repository.
    pub subject: String,
    /// URL of the remote that jobs know as their origin, without credentials.
    pub origin: Option<String>,
    /// The repository itself, where it has submodules and no remote: git takes their relative addresses from there.
    pub own_origin: Option<PathBuf>,
    /// Sentences for the person: what is not as it seems.
    pub notes: Vec<String>,
}

/// Branch or tag that a commit is built as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Name {
    /// The branch that is checked out.
    #[default]
    Own,
    /// A branch that was asked for.
    Given(Named),
}

/// A branch or a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// Branch, by its short name.
    Branch(String),
    /// Tag, by its short name.
    Tag(String),
}

impl Named {
    /// The full name of the reference.
    pub(super) fn reference(&self) -> String {
        match self {
            Named::Branch(name) => format!("refs/heads/{name}"),
            Named::Tag(name) => format!("refs/tags/{name}"),
        }
    }

    /// Fails when git has no branch or tag of such a name; `folder` is one to run git in.
    pub(super) fn check(&self, folder: &Path) -> Result<(), String> {
        let (Named::Branch(name) | Named::Tag(name)) = self;
        let is_good = git(folder, &[]).args(["check-ref-format", &self.reference()]).run("check a name")?;
        // Commands of git take the one for an option, and the other for what is checked out.
        if name.starts_with('-') || name == "HEAD" || !is_good.status.success() {
            return Err(format!(
                "`{name}` cannot be the name of a branch or tag (`git help check-ref-format` has the rules)"
            ));
        }
        Ok(())
    }
}

/// Uses of a snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purpose {
    /// Jobs check it out; else the files are not looked at, and the revision is that of HEAD.
    pub is_for_jobs: bool,
    /// Somebody may ask for the subject line of HEAD.
    pub with_subject: bool,
}

/// Freezes the tree at `root` into `scratch` (an empty directory of ours), as a commit of the branch or tag `name`.
pub(super) fn take(root: &Path, scratch: &Path, name: &Name, purpose: Purpose) -> Result<Snapshot, String> {
    let found = Repository::find(root, purpose.with_subject)?;
    let mut notes = Vec::new();
    let own = found.as_ref().map_or_else(|| Some("main".to_owned()), |found| found.branch.clone());
    let name = match name {
        Name::Given(given) => given.clone(),
        Name::Own => Named::Branch(own.unwrap_or_else(|| {
            notes.push(format!(
                "HEAD is detached: the pipeline is one of the branch `{DETACHED}` (say `--branch NAME` or `--tag NAME`)"
            ));
            DETACHED.to_owned()
        })),
    };
    if let Some(found) = &found {
        notes.extend(remarks(found, root));
    }
    let repository = scratch.join("source.git");
    layout::init(&repository, true, found.as_ref().and_then(|found| found.object_format.as_deref()))?;
    let objects = scratch.join("objects");
    fs::create_dir(&objects).map_err(|e| format!("failed to create `{}`: {e}", objects.display()))?;

    let whole = found.as_ref().filter(|found| found.top == root);
    let places = Places {
        root,
        repository: &repository,
        objects: &objects,
        object_format: found.as_ref().and_then(|found| found.object_format.as_deref()),
        index: scratch.join("index"),
    };
    let head = found.as_ref().and_then(|found| found.head.as_ref());
    let revision = match purpose.is_for_jobs {
        true => places.commit(found.as_ref(), whole, &mut notes)?,
        false => head.map_or_else(|| "0".repeat(40), |(head, _)| head.clone()),
    };
    if let Some(text) = found.as_ref().map(|found| &found.settings).filter(|text| !text.is_empty()) {
        settings::write(text, &LocalSource::settings(&repository))?;
    }

    let mut alternates = vec![objects.as_path()];
    alternates.extend(found.as_ref().map(|found| found.objects.as_path()));
    let list: Vec<u8> = alternates.iter().flat_map(|folder| alternate(folder)).collect();
    write(&repository.join("objects/info/alternates"), &list)?;
    if let Some(edge) = whole.map(Repository::edge).transpose()?.flatten() {
        write(&repository.join("shallow"), &edge)?;
    }
    let reference = name.reference();
    let mut references = vec![(reference.clone(), revision.clone())];
    references.extend(whole.map(|whole| whole.references.clone()).unwrap_or_default());
    let kept = together(references.iter().cloned());
    // A branch may be listed twice, as the origin has it and as it is here.
    let left_out: BTreeSet<&str> = references
        .iter()
        .map(|(other, _)| other.as_str())
        .filter(|other| !kept.contains_key(*other) && excludes(&reference, other))
        .collect();
    for other in left_out {
        notes.push(format!(
            "jobs do not see `{}`: git cannot have it beside `{}`, which this is built as",
            short(other),
            short(&reference)
        ));
    }
    write(&repository.join("packed-refs"), layout::packed(&kept).as_bytes())?;
    if let Named::Branch(_) = name {
        write(&repository.join("HEAD"), format!("ref: {reference}\n").as_bytes())?;
    }

    let default = found.as_ref().and_then(|found| found.default_branch.as_deref());
    let is_default_branch = match &name {
        Named::Branch(branch) => {
            default.map_or(matches!(branch.as_str(), "main" | "master"), |name| name == branch)
        }
        Named::Tag(_) => false,
    };
    let is_base = whole.is_some_and(|found| found.origin.is_none()) && root.join(".gitmodules").is_file();
    Ok(Snapshot {
        repository,
        own_origin: is_base.then(|| root.to_owned()),
        is_partial: whole.is_some_and(|found| found.is_partial),
        revision,
        name,
        is_default_branch,
        default_branch: default.map(str::to_owned),
        subject: found.as_ref().map(|found| found.subject.clone()).unwrap_or_default(),
        origin: found.and_then(|found| found.origin),
        notes,
    })
}

/// Sentences about the parts of a repository that jobs do not get.
fn remarks(found: &Repository, root: &Path) -> Vec<String> {
    let mut remarks = Vec::new();
    if found.top != root {
        let (folder, top) = (root.display(), found.top.display());
        remarks.push(format!(
            "`{folder}` is a folder inside the repository `{top}`: jobs get its files alone, as one commit without history (for all of it: `runlet exec {top} --config FILE`)"
        ));
    }
    if !found.broken.is_empty() && found.top == root {
        remarks.push(format!(
            "jobs do not see {}: what they point at is not in the repository (`git fsck` tells more)",
            found.broken.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ));
    }
    remarks
}

/// Copies an index with its age: of files that are not older git looks at the content, since they may have changed at the
/// moment when it was written.
fn copy_index(from: &Path, to: &Path) -> io::Result<()> {
    let modified = fs::metadata(from)?.modified()?;
    fs::copy(from, to)?;
    File::open(to)?.set_modified(modified)
}

/// Notes what git said of files that it did not take, if it said anything.
fn note_left_out(said: &[&str], notes: &mut Vec<String>) {
    if !said.is_empty() {
        notes.push(format!("some files are left out, since git cannot read them: {}", said.join("\n")));
    }
}

/// Whether one reference is a folder of the other: they cannot be there together.
fn excludes(a: &str, b: &str) -> bool {
    a.strip_prefix(b).or_else(|| b.strip_prefix(a)).is_some_and(|rest| rest.starts_with('/'))
}

/// The name of a branch or tag without the folder of its kind.
fn short(reference: &str) -> &str {
    reference.trim_start_matches("refs/heads/").trim_start_matches("refs/tags/")
}

/// Folders that a commit is made in.
struct Places<'a> {
    /// The working tree.
    root: &'a Path,
    repository: &'a Path,
    objects: &'a Path,
    object_format: Option<&'a str>,
    index: PathBuf,
}

impl Places<'_> {
    /// Commits the working tree, if HEAD is not that already, and returns the commit. `whole` is the repository
    /// when the working tree is its own, and not a folder inside.
    fn commit(
        &self,
        found: Option<&Repository>,
        whole: Option<&Repository>,
        notes: &mut Vec<String>,
    ) -> Result<String, String> {
        let root = self.root;
        let mut environment = vec![("GIT_INDEX_FILE", self.index.as_os_str().to_owned())];
        if let Some(found) = found {
            environment.push(("GIT_OBJECT_DIRECTORY", self.objects.as_os_str().to_owned()));
            environment.push(("GIT_ALTERNATE_OBJECT_DIRECTORIES", found.objects.as_os_str().to_owned()));
        }
        if whole.is_none() {
            // Outside a repository, and inside a larger one: its files become the root of the snapshot.
            environment.push(("GIT_DIR", self.repository.as_os_str().to_owned()));
            environment.push(("GIT_WORK_TREE", root.as_os_str().to_owned()));
        }
        let record = "record the working tree";
        let without_filters = whole.map(|found| found.filters.off()).unwrap_or_default();
        let mut unborn = Vec::new();
        if let (Some(_), None) = (found, whole) {
            let listed = git(root, &[])
                .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
                .output("list the files of the working tree")?;
            let files;
            (unborn, files) = embedded::split(&listed);
            git(root, &environment)
                .args(["update-index", "-z", "--add", "--remove", "--stdin"])
                .input(&files, record)?;
        } else {
            // The user's index knows which files are unchanged: with a copy of it only changes are hashed.
            if let Some(found) = whole.filter(|found| found.index.exists()) {
                copy_index(&found.index, &self.index)
                    .map_err(|e| format!("failed to copy the index `{}`: {e}", found.index.display()))?;
                let conflicts = self.take_hidden_files(&environment, &without_filters)?;
                // The file of the index is in the folder of this working tree, which other ones do not share.
                notes.extend(found.index.parent().and_then(|folder| underway::note(folder, &conflicts)));
            }
            // A repository may come from a system where names differ by more than their case.
            let is_exact = whole.is_some() && root.join(".GIT").symlink_metadata().is_err();
            let exact: &[&str] = if is_exact { &["-c", "core.ignoreCase=false"] } else { &[] };
            let add = || git(root, &environment).args(exact).args(&without_filters).args(ADD).run(record);
            let mut added = add()?;
            if added.status.code() == Some(128) && self.index.exists() {
                // A damaged index: the files say what it could have said.
                fs::remove_file(&self.index)
                    .map_err(|e| format!("failed to remove `{}`: {e}", self.index.display()))?;
                if let Some((head, _)) = whole.and_then(|found| found.head.as_ref()) {
                    git(root, &environment).args(["read-tree", head]).done(record)?;
                }
                added = add()?;
            }
            let said = said(&added);
            match added.status.code() {
                // A folder that it cannot look into it passes by.
                Some(0) => {
                    let unseen: Vec<&str> = said.lines().filter(|line| line.contains(UNSEEN)).collect();
                    note_left_out(&unseen, notes);
                }
                Some(1) => {
                    let others = git(root, &environment)
                        .args(["ls-files", "-z", "--others", "--exclude-standard"])
                        .output("list the files that git did not take")?;
                    unborn = embedded::split(&others).0;
                    let lines = said.lines().filter(|line| !line.ends_with(NO_COMMIT));
                    note_left_out(&lines.collect::<Vec<_>>(), notes);
                }
                _ => check(record, &added)?,
            }
        }
        let (modules, settings) = (self.repository.join("modules"), LocalSource::settings(self.repository));
        let index = self.index();
        notes.extend(embedded::record(root, &environment, index.as_ref(), unborn, &modules, &settings)?);
        if let Some(found) = whole {
            found.filters.take(root, &environment)?;
        }
        let head = whole.and_then(|found| found.head.as_ref());
        // Of an index that nothing was added to, the tree of the last commit is known; files of inner repositories and of
        // filters may have been added since it was read.
        if let Some((head, _)) = head.filter(|(_, of_head)| self.is_of_tree(of_head)) {
            return Ok(head.to_owned());
        }
        let tree = git(root, &environment).args(["write-tree"]).line("write the tree")?;
        if let Some((head, _)) = head.filter(|(_, of_head)| *of_head == tree) {
            return Ok(head.to_owned());
        }
        for name in ["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"] {
            environment.push((name, "runlet exec".into()));
        }
        for email in ["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"] {
            environment.push((email, "runlet@localhost".into()));
        }
        let mut commit = git(root, &environment);
        commit = commit.args(["commit-tree", &tree, "-m", "The working tree, with what is not committed"]);
        if let Some((head, _)) = head {
            commit = commit.args(["-p", head]);
        }
        commit.line("commit the working tree")
    }
}

impl Places<'_> {
    /// Takes in what the index is told not to look at, where it is there: the tree is taken as it is. A file that is
    /// absent from a sparse working tree stays what it was. Returns the files with conflicts.
    fn take_hidden_files(
        &self,
        environment: &[(&str, OsString)],
        without_filters: &[String],
    ) -> Result<BTreeSet<Vec<u8>>, String> {
        let record = "record the files that the index does not look at";
        let (hidden, conflicts) = match self.index() {
            Some(index) => (index.hidden, index.conflicts),
            // A damaged index is dealt with later.
            None => listed(&git(self.root, environment).args(["ls-files", "-v", "-z"]).run(record)?.stdout),
        };
        let (mut unchanged, mut skipped) = (Vec::new(), Vec::new());
        for Hidden { path, is_unchanged, is_skipped } in hidden {
            let is_there = || self.root.join(OsStr::from_bytes(&path)).symlink_metadata().is_ok();
            let is_taken = !is_skipped || is_there();
            if is_taken && is_skipped {
                skipped.extend([&path[..], b"\0"].concat());
            }
            if is_taken && is_unchanged {
                unchanged.extend([&path[..], b"\0"].concat());
            }
        }
        let all = [unchanged.as_slice(), &skipped].concat();
        for (how, paths) in
            [("--no-assume-unchanged", &unchanged), ("--no-skip-worktree", &skipped), ("--remove", &all)]
        {
            if !paths.is_empty() {
                let update = git(self.root, environment).args(without_filters);
                update.args(["update-index", "-z", how, "--stdin"]).input(paths, record)?;
            }
        }
        Ok(conflicts)
    }

    /// Parts of the index as it is, where they can be read without git.
    fn index(&self) -> Option<Index> {
        Index::read(&self.index, self.object_format)
    }

    /// Whether the index is known to make a tree.
    fn is_of_tree(&self, tree: &str) -> bool {
        self.index().and_then(|index| index.tree).is_some_and(|made| made == tree)
    }
}

/// The entries that `git ls-files -v -z` marks: those that git does not look at, and the paths with conflicts.
fn listed(stdout: &[u8]) -> (Vec<Hidden>, BTreeSet<Vec<u8>>) {
    let (mut hidden, mut conflicts) = (Vec::new(), BTreeSet::new());
    for entry in stdout.split(|&byte| byte == 0) {
        let [tag, b' ', path @ ..] = entry else { continue };
        if matches!(tag, b'M' | b'm') {
            conflicts.insert(path.to_owned());
        }
        let (is_unchanged, is_skipped) = (tag.is_ascii_lowercase(), matches!(tag, b'S' | b's'));
        if is_unchanged || is_skipped {
            hidden.push(Hidden { path: path.to_owned(), is_unchanged, is_skipped });
        }
    }
    (hidden, conflicts)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set up its files should fail loudly")]
mod tests {
    use super::*;
    use crate::exec::example::{self, sh};

    fn snapshot(root: &Path) -> (tempfile::TempDir, Snapshot) {
        example::snapshot(root, &Name::Own)
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
        assert_eq!((taken.name.clone(), taken.subject.as_str()), (Named::Branch("trunk".into()), "first"));
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
    fn a_file_that_changed_when_the_index_was_written_is_taken_as_it_is() {
        let repo = tempfile::tempdir().unwrap();
        sh(
            repo.path(),
            "git init -qb main; git config core.trustctime false; echo one > a; touch -d 2020-01-01 a; git add a
             git commit -qm first; touch -d 2020-01-01 .git/index; echo two > a; touch -d 2020-01-01 a",
        );
        let (_scratch, taken) = snapshot(repo.path());
        assert_eq!(files(&taken), "a two\n");
        assert_eq!(sh(repo.path(), "git status --porcelain"), " M a\n");
    }

    #[test]
    fn a_history_that_is_not_all_there_is_cut_off() {
        let place = tempfile::tempdir().unwrap();
        sh(
            place.path(),
            "git init -qb main whole; cd whole; git config uploadpack.allowFilter true
             for n in 1 2 3; do echo $n > a; git add a; git commit -qm $n; done",
        );
        for (how, commits) in [("--depth 2", "2"), ("--filter=blob:none", "3")] {
            sh(place.path(), &format!("rm -rf part; git clone -q {how} \"file://$PWD/whole\" part"));
            let part = place.path().join("part");
            let (_scratch, taken) = snapshot(&part);
            assert_eq!(taken.revision, sh(&part, "git rev-parse HEAD").trim(), "{how}");
            assert_eq!(sh(&taken.repository, "git rev-list --count HEAD").trim(), commits, "{how}");
            sh(&part, "echo four > a");
            let (_scratch, taken) = snapshot(&part);
            assert_eq!(
                sh(&taken.repository, "git ls-tree --name-only HEAD; git show HEAD:a"),
                "a\nfour\n",
                "{how}"
            );
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
        assert!(
            taken.notes.iter().any(|note| note.contains("one commit without history")),
            "{:?}",
            taken.notes
        );
    }

    #[test]
    fn files_that_the_index_does_not_look_at_are_taken_as_they_are() {
        let repo = tempfile::tempdir().unwrap();
        sh(
            repo.path(),
            "git init -qb main; for f in a b c d e; do echo one > $f; done; git add .; git commit -qm first
             git update-index --assume-unchanged a c; git update-index --skip-worktree b d c
             for f in a b c; do echo two > $f; done; rm d",
        );
        let (_scratch, taken) = snapshot(repo.path());
        let shown =
            sh(&taken.repository, "git ls-tree --name-only main; git show main:a main:b main:c main:d");
        assert_eq!(shown, "a\nb\nc\nd\ne\ntwo\ntwo\ntwo\none\n");
        assert_eq!(sh(repo.path(), "git ls-files -v"), "h a\nS b\ns c\nS d\nH e\n");
    }

    #[test]
    fn references_whose_objects_are_gone_are_left_out_and_named() {
        let repo = tempfile::tempdir().unwrap();
        sh(
            repo.path(),
            "git init -qb main; echo one > a; git add .; git commit -qm first; git tag good
             mkdir -p .git/refs/remotes/origin; for name in tags/gone heads/lost remotes/origin/away
             do echo 1234567890123456789012345678901234567890 > .git/refs/$name; done",
        );
        let (_scratch, taken) = snapshot(repo.path());
        assert_eq!(files(&taken), "a one\n");
        let kept = sh(&taken.repository, "git for-each-ref --format='%(refname)' refs/heads refs/tags");
        assert_eq!(kept, "refs/heads/main\nrefs/tags/good\n");
        assert_eq!(
            taken.notes,
            [
                "jobs do not see `refs/heads/lost`, `refs/remotes/origin/away`, `refs/tags/gone`: what they point at is not in the repository (`git fsck` tells more)"
            ]
        );
    }

    #[test]
    fn names_that_git_does_not_have_are_refused_and_those_that_exclude_each_other_told() {
        let repo = tempfile::tempdir().unwrap();
        for name in ["bad name", "-x", "HEAD", "a..b", ""] {
            assert!(Named::Branch(name.into()).check(repo.path()).is_err(), "{name}");
        }
        assert_eq!(Named::Tag("v/1.0".into()).check(repo.path()), Ok(()));
        sh(
            repo.path(),
            "git init -qb main; git commit -q --allow-empty -m first
             git branch release; git update-ref refs/remotes/origin/release HEAD",
        );
        let name = Name::Given(Named::Branch("release/1.0".into()));
        let (_scratch, taken) = example::snapshot(repo.path(), &name);
        assert_eq!(
            taken.notes,
            ["jobs do not see `release`: git cannot have it beside `release/1.0`, which this is built as"]
        );
    }

    #[test]
    fn a_folder_in_no_repository_works_too() {
        let folder = tempfile::tempdir().unwrap();
        sh(folder.path(), "echo one > a; echo i > .gitignore; echo no > i");
        let (_scratch, taken) = snapshot(folder.path());
        assert_eq!(files(&taken), ".gitignore a one\n");
        assert_eq!(taken.name, Named::Branch("main".into()));
        assert!(!folder.path().join(".git").exists());
    }
}
