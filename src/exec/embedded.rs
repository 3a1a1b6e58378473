//! Repositories inside the working tree: git records each as a commit that a job has nowhere to get from, unless
//! `.gitmodules` says where. Files of the others take part as files; of a submodule the commit does, and it is told
//! what does not.

use super::git::{git, items, reading};
use super::index::Index;
use super::modules::{self, Submodule};
use std::ffi::{OsStr, OsString};
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const RECORD: &str = "record the repositories inside the working tree";

/// Puts the files of the repositories below `root` that are no submodules into the index that `environment` names, in
/// place of their commits; `index` is what is known of it. `unborn` are folders of repositories that git could not put there, relative to `root`.
/// Commits of submodules are made ready for jobs below `modules`, and their settings of git below `settings`. Returns
/// sentences for the person about submodules.
pub(super) fn record(
    root: &Path,
    environment: &[(&str, OsString)],
    index: Option<&Index>,
    unborn: Vec<Vec<u8>>,
    modules: &Path,
    settings: &Path,
) -> Result<Vec<String>, String> {
    let staged;
    let mut links: Vec<(&str, &[u8])> = match index {
        Some(index) => index.links.iter().map(|(commit, path)| (commit.as_str(), path.as_slice())).collect(),
        None => {
            staged = git(root, environment).args(["ls-files", "-z", "--stage"]).output(RECORD)?;
            modules::links(&staged).collect()
        }
    };
    // The folder of a submodule that is not checked out is empty.
    links.retain(|(_, path)| is_repository(&root.join(OsStr::from_bytes(path))));
    if links.is_empty() && unborn.is_empty() {
        return Ok(Vec::new());
    }
    let names = match root.join(".gitmodules").is_file() {
        true => modules::names(root, &["--file", ".gitmodules"])?,
        false => modules::Names::new(),
    };
    let mut submodules = Vec::new();
    let (mut replaced, mut files) = (Vec::new(), Vec::new());
    for (commit, path) in links {
        let Some(name) = names.get(path) else {
            replaced.extend_from_slice(path);
            replaced.push(0);
            list(root, path, &mut files)?;
            continue;
        };
        let folder = root.join(OsStr::from_bytes(path));
        let shown = String::from_utf8_lossy(path).into_owned();
        let settings = settings.join(submodules.len().to_string());
        submodules.push((name, Submodule { folder, commit, shown, settings }));
    }
    let prepared = side_by_side(&submodules, |(name, submodule)| {
        let mut notes = Vec::new();
        let status = reading(&submodule.folder).args(["status", "--porcelain"]);
        if !status.output("look at a submodule")?.is_empty() {
            notes.push(format!(
                "the submodule `{}` has changes that are not committed: jobs get its commit, without them",
                submodule.shown
            ));
        }
        notes.extend(submodule.prepare_as(name, &names, modules)?);
        Ok(notes)
    });
    let notes: Vec<Vec<String>> = prepared.into_iter().collect::<Result<_, String>>()?;
    for path in unborn {
        list(root, &path, &mut files)?;
    }
    if !replaced.is_empty() {
        let remove = git(root, environment).args(["update-index", "-z", "--force-remove", "--stdin"]);
        remove.input(&replaced, RECORD)?;
    }
    if !files.is_empty() {
        let add = git(root, environment).args(["update-index", "-z", "--add", "--remove", "--stdin"]);
        add.input(&files, RECORD)?;
    }
    Ok(notes.concat())
}

/// Does some work for each of the items, as many at a time as this host has processors. The results are in the order of
/// the items.
fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, work(item)));
        }
    };
    let most = thread::available_parallelism().map_or(1, NonZero::get).min(items.len());
    let mut done = thread::scope(|scope| {
        // The thread here does the rest where no further one can be had.
        let others: Vec<_> =
            (1..most).filter_map(|_| thread::Builder::new().spawn_scoped(scope, take).ok()).collect();
        let mut done = take();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Splits git's list: paths with a trailing slash are inner repositories that it has no commit of, the rest are files.
pub(super) fn split(listed: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (mut repositories, mut files) = (Vec::new(), Vec::new());
    for path in items(listed) {
        match path.strip_suffix(b"/") {
            Some(folder) => repositories.push(folder.to_owned()),
            None => files.extend([path, b"\0"].concat()),
        }
    }
    (repositories, files)
}

/// Adds the files of the repository in `folder`, and of those inside of it, as paths below `root`.
fn list(root: &Path, folder: &[u8], files: &mut Vec<u8>) -> Result<(), String> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = reading(&root.join(OsStr::from_bytes(folder))).args(arguments).output(RECORD)?;
    for name in items(&listed) {
        let path = [folder, b"/", name.strip_suffix(b"/").unwrap_or(name)].concat();
        let place = root.join(OsStr::from_bytes(&path));
        if !place.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            files.extend_from_slice(&path);
            files.push(0);
        } else if is_repository(&place) {
            list(root, &path, files)?;
        }
    }
    Ok(())
}

fn is_repository(folder: &Path) -> bool {
    folder.join(".git").symlink_metadata().is_ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set up its files should fail loudly")]
mod tests {
    use crate::exec::example::{sh, snapshot};
    use crate::exec::snapshot::{Name, Snapshot};
    use std::path::Path;

    #[test]
    fn work_that_is_done_side_by_side_is_in_order() {
        let items: Vec<u64> = (0..200).collect();
        let done = super::side_by_side(&items, |item| {
            std::thread::sleep(std::time::Duration::from_micros(item % 7 * 100));
            item * 2
        });
        assert_eq!(done, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        assert!(super::side_by_side(&[], |(): &()| ()).is_empty());
    }

    fn taken(root: &Path) -> (tempfile::TempDir, Snapshot) {
        snapshot(root, &Name::Own)
    }

    const TREE: &str = "git ls-tree -r --format='%(objectmode) %(path)' HEAD";
    /// A repository inside with a commit, uncommitted changes, another repository and one without a commit.
    const INSIDE: &str =
        "mkdir inner; cd inner; git init -qb main; echo '*.o' > .gitignore; echo one > a; echo x > gone
        git add .; git commit -qm one; rm gone; echo two > a; echo new > 'b c'; echo no > x.o
        mkdir deep; cd deep; git init -qb main; echo d > d; git add .; git commit -qm d; cd ..
        mkdir unborn; cd unborn; git init -qb main; echo u > u; cd ../..
        mkdir empty; cd empty; git init -qb main; echo e > e; cd ..";
    const FILES: &str = "100644 empty/e\n100644 inner/.gitignore\n100644 inner/a\n100644 inner/b c\n100644 inner/deep/d\n100644 inner/unborn/u\n";

    #[test]
    fn files_of_repositories_inside_take_part() {
        // A repository, a folder inside of one, and a folder in none.
        for (setup, folder) in [
            ("git init -qb main; git commit -q --allow-empty -m first", "."),
            ("git init -qb main; git commit -q --allow-empty -m first; mkdir sub", "sub"),
            ("mkdir none", "none"),
        ] {
            let place = tempfile::tempdir().unwrap();
            sh(place.path(), &format!("{setup}; cd {folder}; {INSIDE}"));
            let (_scratch, taken) = taken(&place.path().join(folder));
            assert_eq!(sh(&taken.repository, TREE), FILES, "{setup}");
            assert_eq!(sh(&taken.repository, "git show HEAD:inner/a"), "two\n");
            assert_eq!(taken.notes.len(), usize::from(folder == "sub"), "{:?}", taken.notes);
        }
    }

    #[test]
    fn a_submodule_stays_one_and_its_changes_are_named() {
        let place = tempfile::tempdir().unwrap();
        sh(
            place.path(),
            "git init -qb main lib; cd lib; echo l > l; git add .; git commit -qm l; cd ..
             git init -qb main x; cd x
             git -c protocol.file.allow=always submodule --quiet add ../lib lib; git commit -qm first",
        );
        let repo = place.path().join("x");
        let (_scratch, clean) = taken(&repo);
        assert_eq!(clean.revision, sh(&repo, "git rev-parse HEAD").trim());
        assert_eq!(clean.notes, Vec::<String>::new());
        sh(&repo.join("lib"), "git commit -q --allow-empty -m mine");
        let (_scratch, unpushed) = taken(&repo);
        assert_eq!(unpushed.notes, Vec::<String>::new());
        sh(&repo.join("lib"), "git reset -q --hard HEAD^");
        sh(&repo, "echo more > lib/l");
        let (_scratch, changed) = taken(&repo);
        assert_eq!(sh(&changed.repository, TREE), "100644 .gitmodules\n160000 lib\n");
        assert_eq!(
            changed.notes,
            ["the submodule `lib` has changes that are not committed: jobs get its commit, without them"]
        );
    }
}
