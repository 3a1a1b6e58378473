//! Files that git stores in another form than the working tree has them in: those of git LFS, and those of filters that
//! only the repository is set to, such as git-crypt. Jobs have nothing that brings these out again, so they are taken as they
//! are here. The git of jobs knows the filters in the settings of the person and of the host: their files stay as git
//! stores them.

use super::git::{git, items};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The filter of git LFS. Every call of git here does without it.
const LFS: &str = "lfs";
const RECORD: &str = "record the files of filters";

/// Filters whose files are taken as they are in the working tree.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filters(BTreeSet<String>);

impl Filters {
    /// The filters that only the repository is set to, in what `git config --null --show-scope` lists. One that brings
    /// nothing out is none: every checkout has its files as git stores them.
    pub(super) fn read(listed: &str) -> Self {
        let (mut own, mut shared) = (BTreeSet::new(), BTreeSet::new());
        let mut parts = listed.split('\0');
        while let (Some(scope), Some(setting)) = (parts.next(), parts.next()) {
            let Some((name, value)) = setting.split_once('\n') else { continue };
            let driver = name.strip_prefix("filter.").and_then(|rest| rest.rsplit_once('.'));
            let Some((driver, "smudge" | "process")) = driver else { continue };
            // An argument of git cannot name the others.
            if matches!(value.trim(), "" | "cat") || driver.contains(['=', '\n', char::REPLACEMENT_CHARACTER])
            {
                continue;
            }
            match scope {
                "local" | "worktree" => own.insert(driver.to_owned()),
                "command" => false,
                _ => shared.insert(driver.to_owned()),
            };
        }
        own.retain(|driver| !shared.contains(driver));
        Self(own)
    }

    /// Counts git LFS among them.
    pub(super) fn with_large_files(mut self) -> Self {
        self.0.insert(LFS.to_owned());
        self
    }

    /// Arguments by which a git does without them.
    pub(super) fn off(&self) -> Vec<String> {
        let settings = ["clean=", "process=", "required=false"];
        let all = self.0.iter().filter(|name| *name != LFS).flat_map(|name| {
            settings.iter().flat_map(move |setting| ["-c".to_owned(), format!("filter.{name}.{setting}")])
        });
        all.collect()
    }

    /// Takes their files into the index that `environment` names, as they are below `root`.
    pub(super) fn take(&self, root: &Path, environment: &[(&str, OsString)]) -> Result<(), String> {
        if self.0.is_empty() {
            return Ok(());
        }
        let what = "list the files of filters";
        let listed = git(root, environment)
            .args(["ls-files", "-z", "--cached", "--", ".", ":(exclude,attr:!filter)"])
            .output(what)?;
        if listed.is_empty() {
            return Ok(());
        }
        let filters = git(root, environment).args(["check-attr", "-z", "--stdin", "filter"]);
        let filters = filters.input(&listed, what)?;
        let mut words = items(&filters);
        let mut files = Vec::new();
        while let (Some(path), Some(_), Some(filter)) = (words.next(), words.next(), words.next()) {
            let is_ours = std::str::from_utf8(filter).is_ok_and(|filter| self.0.contains(filter));
            // A sparse working tree does not have all of them.
            if is_ours && root.join(OsStr::from_bytes(path)).symlink_metadata().is_ok() {
                files.extend_from_slice(path);
                files.push(0);
            }
        }
        if files.is_empty() {
            return Ok(());
        }
        // The index remembers facts about a file by which it would seem unchanged.
        for how in ["--force-remove", "--add"] {
            git(root, environment)
                .args(self.off())
                .args(["update-index", "-z", how, "--remove", "--stdin"])
                .input(&files, RECORD)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set up its files should fail loudly")]
mod tests {
    use super::*;
    use crate::exec::example::{sh, snapshot};
    use crate::exec::snapshot::Name;

    #[test]
    fn large_files_come_with_their_content() {
        let repo = tempfile::tempdir().unwrap();
        sh(
            repo.path(),
            "git init -qb main; mkdir .git/lfs; echo '*.bin filter=lfs' > .gitattributes; echo top > a
             git config filter.lfs.clean 'sh -c \"cat > /dev/null; echo pointer\"'
             git config filter.lfs.smudge cat
             echo content > x.bin; echo pointer > 'not here.bin'; git add .; git commit -qm first
             test \"$(git show HEAD:x.bin)\" = pointer; test -z \"$(git status --porcelain)\"",
        );
        let (_scratch, taken) = snapshot(repo.path(), &Name::Own);
        assert_eq!(
            sh(&taken.repository, "git show main:x.bin 'main:not here.bin' main:a"),
            "content\npointer\ntop\n"
        );
    }

    #[test]
    fn files_of_filters_that_only_the_repository_has_come_as_they_are_here() {
        let repo = tempfile::tempdir().unwrap();
        sh(
            repo.path(),
            "git init -qb main; printf '%s\\n' '*.key filter=my.crypt' '*.nb filter=strip' '*.no filter=nobody' > .gitattributes
             git config filter.my.crypt.clean 'tr a-z b-za'; git config filter.my.crypt.smudge 'tr b-za a-z'
             git config filter.my.crypt.required true; git config filter.strip.clean 'sed s/output//'
             mkdir d; for f in same.key d/changed.key gone.key absent.key; do echo secret > $f; done
             echo cell output > x.nb; echo plain > y.no; git add .; git commit -qm first
             test \"$(git show HEAD:same.key)\" = tfdsfu; test -z \"$(git status --porcelain)\"
             echo newer > d/changed.key; rm gone.key; echo new > 'a new.key'
             git update-index --skip-worktree absent.key; rm absent.key",
        );
        let before = sh(repo.path(), "git status --porcelain; cat .git/index | cksum");
        let (_scratch, taken) = snapshot(repo.path(), &Name::Own);
        let shown = sh(
            &taken.repository,
            "git ls-tree -r --name-only main | grep key; git show main:same.key main:d/changed.key 'main:a new.key' main:absent.key main:x.nb main:y.no",
        );
        assert_eq!(
            shown,
            "a new.key\nabsent.key\nd/changed.key\nsame.key\nsecret\nnewer\nnew\ntfdsfu\ncell \nplain\n"
        );
        assert_eq!(sh(repo.path(), "git status --porcelain; cat .git/index | cksum"), before);
    }

    #[test]
    fn filters_that_jobs_know_too_are_left_to_them() {
        let listed = [
            ("system", "filter.lfs.process\ngit-lfs"),
            ("global", "filter.both.smudge\nx"),
            ("local", "filter.both.smudge\ny"),
            ("local", "filter.a.b.smudge\nz"),
            ("worktree", "filter.w.process\nz"),
            ("local", "filter.none.smudge\ncat"),
            ("local", "filter.off.smudge\n"),
            ("local", "filter.bare.smudge"),
            ("command", "filter.c.process\nz"),
            ("local", "filter.x=y.smudge\nz"),
        ];
        let listed: String = listed.iter().map(|(scope, setting)| format!("{scope}\0{setting}\0")).collect();
        let filters = Filters::read(&listed).with_large_files();
        assert_eq!(filters.0.iter().collect::<Vec<_>>(), ["a.b", "lfs", "w"]);
        assert_eq!(filters.off().len(), 12);
        assert_eq!(filters.off()[1], "filter.a.b.clean=");
    }
}
