//! Submodules of the working tree as git clones them, `modules/NAME` in the repository around them: what is there is not
//! fetched, and a commit that was never pushed is found. The objects stay where the person has them.

use super::git::{Git, git, items};
use super::layout::{self, alternate, write};
use super::repository::{Repository, together};
use super::settings::{self, quoted};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

const LOOK: &str = "look at a submodule";

/// Names of submodules by their paths.
pub(super) type Names = BTreeMap<Vec<u8>, Vec<u8>>;

/// Names that a `.gitmodules` gives, wherever it is: `place` says so to `git config`. None where there is none.
pub(super) fn names(root: &Path, place: &[&str]) -> Result<Names, String> {
    let settings = ["--get-regexp", r"^submodule\..*\.path$"];
    let found = read(root).args(["config", "--null"]).args(place).args(settings);
    let found = found.run("read `.gitmodules`")?;
    let named = items(&found.stdout).filter_map(|setting| {
        let at = setting.iter().position(|byte| *byte == b'\n')?;
        let name = setting[..at].strip_prefix(b"submodule.")?.strip_suffix(b".path")?;
        let path = &setting[at + 1..];
        Some((path.strip_suffix(b"/").unwrap_or(path).to_owned(), name.to_owned()))
    });
    Ok(named.collect())
}

/// Commits and paths of repositories inside, in a list of `git ls-files --stage` or `git ls-tree`.
pub(super) fn links(listed: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    items(listed).filter_map(|entry| {
        let at = entry.iter().position(|byte| *byte == b'\t')?;
        let about = std::str::from_utf8(entry[..at].strip_prefix(b"160000 ")?).ok()?;
        Some((about.trim_start_matches("commit ").split(' ').next()?, &entry[at + 1..]))
    })
}

/// A submodule that is checked out.
pub(super) struct Submodule<'a> {
    /// The working tree of the submodule.
    pub folder: PathBuf,
    /// The commit that the repository around it wants.
    pub commit: &'a str,
    /// Path of the submodule, for the person.
    pub shown: String,
    /// The folder that its settings of git are put into.
    pub settings: PathBuf,
}

impl Submodule<'_> {
    /// Prepares it in the folder `modules` of the repository around it, which gives the submodules these `names`.
    /// Returns sentences about what jobs will not find, since neither that can be done nor the origin is known to
    /// have it.
    pub(super) fn prepare_as(
        &self,
        name: &[u8],
        names: &Names,
        modules: &Path,
    ) -> Result<Vec<String>, String> {
        // Git refuses names that lead elsewhere, and those of which one is a folder of the other.
        let place = Path::new(OsStr::from_bytes(name));
        let is_plain = place.components().all(|part| matches!(part, Component::Normal(_)));
        let is_apart = |other: &Vec<u8>| {
            let other = Path::new(OsStr::from_bytes(other));
            other == place || !other.starts_with(place) && !place.starts_with(other)
        };
        if !name.is_empty() && is_plain && names.values().all(is_apart) {
            if let Some(notes) = self.prepare(&modules.join(place))? {
                return Ok(notes);
            }
        }
        Ok(self.unpushed()?.into_iter().collect())
    }

    /// Makes `module` a repository with the objects of the submodule and what is known of its origin; `None` when the
    /// commit is not there, or git refuses the repository.
    fn prepare(&self, module: &Path) -> Result<Option<Vec<String>>, String> {
        let Ok(Some(found)) = Repository::of_module(&self.folder) else { return Ok(None) };
        let is_own = fs::canonicalize(&self.folder).is_ok_and(|folder| folder == found.top);
        let commit = self.commit;
        let exists = ["cat-file", "-e", &format!("{commit}^{{commit}}")];
        let is_head = found.head.as_ref().is_some_and(|(head, _)| head == commit);
        if !is_own || !(is_head || read(&self.folder).args(exists).run(LOOK)?.status.success()) {
            return Ok(None);
        }
        layout::init(module, false, found.object_format.as_deref())?;
        let path = module.join("config");
        let mut config =
            fs::read_to_string(&path).map_err(|e| format!("failed to read `{}`: {e}", path.display()))?;
        // Housekeeping would outlive the step that fetches.
        config += "[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n";
        if let Some(url) = &found.origin {
            let fetch = "+refs/heads/*:refs/remotes/origin/*";
            config += &format!("[remote \"origin\"]\n\turl = {}\n\tfetch = {fetch}\n", quoted(url));
            if found.is_partial {
                config += "\tpromisor = true\n\tpartialclonefilter = blob:none\n";
            }
        }
        if !found.settings.is_empty() {
            settings::write(&found.settings, &self.settings)?;
            let file = self.settings.join("config");
            config += &format!("[include]\n\tpath = {}\n", quoted(&file.to_string_lossy()));
        }
        write(&path, config.as_bytes())?;
        write(&module.join("objects/info/alternates"), &alternate(&found.objects))?;
        if let Some(edge) = found.edge()? {
            write(&module.join("shallow"), &edge)?;
        }
        // A commit that no reference leads to is one that git fetches.
        let line = format!("{commit}\n");
        write(&module.join("HEAD"), line.as_bytes())?;
        reference(module, "refs/runlet/source", &line)?;
        let known = found.references.into_iter().map(|(name, commit)| {
            let branch =
                name.strip_prefix("refs/heads/").map(|branch| format!("refs/remotes/origin/{branch}"));
            (branch.unwrap_or(name), commit)
        });
        let lines = together(known).into_iter().map(|(name, commit)| format!("{commit} {name}\n"));
        write(&module.join("packed-refs"), lines.collect::<String>().as_bytes())?;
        if let Some(branch) = found.default_branch {
            // `git submodule update --remote` asks for it.
            reference(module, "refs/remotes/origin/HEAD", &format!("ref: refs/remotes/origin/{branch}\n"))?;
        }
        self.inner(module).map(Some)
    }

    /// Prepares the submodules of its commit, as far as they are checked out.
    fn inner(&self, module: &Path) -> Result<Vec<String>, String> {
        let mut notes = Vec::new();
        // Most have none: git is not asked then.
        if self.folder.join(".gitmodules").symlink_metadata().is_err() {
            return Ok(notes);
        }
        let names = names(&self.folder, &["--blob", &format!("{}:.gitmodules", self.commit)])?;
        if names.is_empty() {
            return Ok(notes);
        }
        let paths = names.keys().map(|path| OsStr::from_bytes(path));
        let listed =
            read(&self.folder).args(["ls-tree", "-z", self.commit, "--"]).args(paths).output(LOOK)?;
        for (at, (commit, path)) in links(&listed).enumerate() {
            let folder = self.folder.join(OsStr::from_bytes(path));
            if let (Some(name), Ok(_)) = (names.get(path), folder.join(".git").symlink_metadata()) {
                let shown = format!("{}/{}", self.shown, String::from_utf8_lossy(path));
                let settings = self.settings.join(at.to_string());
                let inner = Submodule { folder, commit, shown, settings };
                notes.extend(inner.prepare_as(name, &names, &module.join("modules"))?);
            }
        }
        Ok(notes)
    }

    /// A sentence about it when its origin is not known to have the commit: jobs fetch it from there.
    fn unpushed(&self) -> Result<Option<String>, String> {
        let known = ["for-each-ref", "--count=1", "--contains", self.commit, "refs/remotes", "refs/tags"];
        let found = read(&self.folder).args(known).run(LOOK)?;
        if found.status.success() && !found.stdout.is_empty() {
            return Ok(None);
        }
        let (name, commit) = (&self.shown, self.commit);
        Ok(Some(format!(
            "the submodule `{name}` is at the commit {commit}, which its origin is not known to have: jobs that fetch it will not find it (push it from `{name}`, or fetch there if it was pushed from elsewhere)"
        )))
    }
}

/// A command in the repository of a submodule, about what is there: its origin is not asked.
fn read(folder: &Path) -> Git {
    git(folder, &[("GIT_NO_LAZY_FETCH", "1".into())])
}

/// Writes a reference as a file of its own.
fn reference(module: &Path, name: &str, line: &str) -> Result<(), String> {
    let path = module.join(name);
    let folder = path.parent().unwrap_or(module);
    fs::create_dir_all(folder).map_err(|e| format!("failed to create `{}`: {e}", folder.display()))?;
    write(&path, line.as_bytes())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set up its files should fail loudly")]
mod tests {
    use crate::exec::example::{sh, snapshot};
    use crate::exec::snapshot::Name;

    /// The repositories `deep`, `lib` around it and `x` around that, at commits that are in no other.
    const NESTED: &str = "export GIT_ALLOW_PROTOCOL=file
        git init -qb main deep; cd deep; echo one > d; git add .; git commit -qm one; cd ..
        git init -qb main lib; cd lib; git submodule --quiet add ../deep inner; git commit -qm one; cd ..
        git init -qb main x; cd x; git submodule --quiet add --name 'a/li\"b' ../lib lib
        git submodule --quiet update --init --recursive; git commit -qm one
        cd lib/inner; git checkout -q --detach; echo mine > d; git commit -qam mine
        cd ..; git commit -qam mine; cd ..; git commit -qam mine";

    #[test]
    fn commits_that_were_never_pushed_are_there_without_their_origins() {
        let place = tempfile::tempdir().unwrap();
        sh(place.path(), NESTED);
        let repo = place.path().join("x");
        let state = || sh(&repo, "find .git lib -type f | sort | xargs -d '\n' cksum");
        let before = state();
        let (_scratch, taken) = snapshot(&repo, &Name::Own);
        assert_eq!((taken.notes.clone(), state()), (Vec::new(), before));
        let module = taken.repository.join("modules/a/li\"b");
        for (module, folder, origin) in
            [(module.clone(), "lib", "lib"), (module.join("modules/inner"), "lib/inner", "deep")]
        {
            let commit = sh(&repo.join(folder), "git rev-parse HEAD");
            // Git fetches what this names.
            assert_eq!(sh(&module, &format!("git rev-list -n 1 {} --not --all", commit.trim())), "");
            assert_eq!(sh(&module, "git rev-parse HEAD"), commit);
            let real = std::fs::canonicalize(place.path()).unwrap().join(origin);
            assert_eq!(sh(&module, "git config remote.origin.url").trim(), real.to_str().unwrap());
            assert_eq!(sh(&module, "git rev-parse origin/HEAD"), sh(&real, "git rev-parse main"));
        }
    }

    #[test]
    fn a_shallow_one_at_no_branch_is_found_and_its_history_ends_where_it_does() {
        let place = tempfile::tempdir().unwrap();
        sh(
            place.path(),
            "export GIT_ALLOW_PROTOCOL=file; git init -qb main lib; cd lib; git config uploadpack.allowAnySHA1InWant true
             for n in 1 2 3 4; do echo $n > l; git add .; git commit -qm $n; done; cd ..
             git init -qb main x; cd x; git submodule --quiet add --depth 1 \"file://$PWD/../lib\" lib
             cd lib; git fetch -q --depth 1 origin $(git -C ../../lib rev-parse HEAD~2); git checkout -q FETCH_HEAD
             cd ..; git add .; git commit -qm first",
        );
        let (_scratch, taken) = snapshot(&place.path().join("x"), &Name::Own);
        assert_eq!(taken.notes, Vec::<String>::new());
        let module = taken.repository.join("modules/lib");
        assert_eq!(sh(&module, "git log --format=%s HEAD; git show HEAD:l"), "2\n2\n");
    }

    #[test]
    fn one_that_cannot_be_prepared_is_named_when_its_origin_has_it_not() {
        let place = tempfile::tempdir().unwrap();
        sh(place.path(), NESTED);
        let repo = place.path().join("x");
        for name in ["../../out", ""] {
            sh(
                &repo,
                &format!(
                    "git config --file .gitmodules --rename-section \"$(git config --file .gitmodules --name-only --get-regexp path | sed 's/.path$//')\" 'submodule.{name}'"
                ),
            );
            let (scratch, taken) = snapshot(&repo, &Name::Own);
            let commit = sh(&repo.join("lib"), "git rev-parse HEAD");
            let expected = format!(
                "the submodule `lib` is at the commit {}, which its origin is not known to have: jobs that fetch it will not find it (push it from `lib`, or fetch there if it was pushed from elsewhere)",
                commit.trim()
            );
            assert_eq!(taken.notes, [expected], "{name}");
            assert!(!scratch.path().join("out").exists() && !taken.repository.join("modules").exists());
        }
        sh(&repo, "git -C lib push -q origin HEAD:refs/heads/pushed");
        assert_eq!(snapshot(&repo, &Name::Own).1.notes, Vec::<String>::new());
    }
}
