//! A repository that an earlier task left where a job checks out.
//!
//! Its objects and what it knows of the origin save a fetch. Anything else could decide what the job gets: settings,
//! filters, branches, replaced commits, an index that hides files. The settings go before the first step of the job, so that
//! those of its own steps are known; the rest goes with the checkout, since steps before that may look at it.

use crate::executor::cleanup::remove;
use crate::system::os::{MetadataExt, geteuid, may_write};
use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

/// The parts of a `.git` that stay. `refs` and `packed-refs` lose what is not of the origin.
const KEPT: [&str; 6] = ["objects", "refs", "packed-refs", "shallow", "modules", "lfs"];
/// References that cleaning keeps: the next fetch offers them to the origin, and corrects them.
const OF_ORIGIN: [&str; 2] = ["refs/remotes/origin/", "refs/tags/"];

/// The parts that hold settings.
const SETTINGS: [&str; 4] = ["config", "config.worktree", "info", "hooks"];
/// The settings of a submodule's repository that stay: its form, and its origin. Git finds its files without any.
const OF_SUBMODULE: [&str; 8] = [
    "repositoryformatversion",
    "objectformat",
    "partialclone",
    "filemode",
    "url",
    "fetch",
    "promisor",
    "partialclonefilter",
];
/// File by which a repository is known whose settings, but nothing else, are of this task.
const MARK: &str = "left-by-an-earlier-job";

/// A sentence about a file or folder that belongs to another user.
pub(super) fn other_owner(path: &Path) -> Option<String> {
    let (owner, own) = (path.symlink_metadata().ok()?.uid(), geteuid().as_raw());
    (owner != own).then(|| {
        format!(
            "`{}` is owned by another user (uid {owner}, and this runner has uid {own}): remove it, or give it to the runner's user",
            path.display()
        )
    })
}

/// A sentence about the first folder within one that another user has and that cannot be written to. Costs a look at each entry.
pub(super) fn kept_by_another(folder: &Path) -> Option<String> {
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        let owner = if may_write(&folder) { None } else { other_owner(&folder) };
        if owner.is_some() {
            return owner;
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        left.extend(
            entries.filter(|one| one.file_type().is_ok_and(|kind| kind.is_dir())).map(|one| one.path()),
        );
    }
    None
}

/// Whether nothing of this task has set up the repository: its settings, or the file that stands for it, are older,
/// or there are none.
pub(super) fn is_old(repository: &Path, began: SystemTime) -> bool {
    let settings = if repository.is_dir() { repository.join("config") } else { repository.to_owned() };
    let set_up = settings.symlink_metadata().and_then(|about| about.modified());
    !set_up.is_ok_and(|modified| modified >= began)
}

/// Whether [`set_aside`] has removed the settings of the repository since it was left.
pub(super) fn is_set_aside(repository: &Path) -> bool {
    repository.join(MARK).exists()
}

/// Removes the settings of a repository and, for `modules`, those of its submodules, and marks it. An error, too, when there
/// is none, or only a link to one.
pub(super) fn set_aside(repository: &Path, modules: bool) -> io::Result<()> {
    if !repository.symlink_metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    remove_odd(repository)?;
    SETTINGS.iter().try_for_each(|name| remove(&repository.join(name)))?;
    if modules {
        set_modules_aside(&repository.join("modules"))?;
    }
    fs::write(repository.join(MARK), "")
}

/// Removes what decides about the files of submodules, whose repositories are below a folder: their names may have slashes.
/// They come out of it whole, since no step makes them anew.
fn set_modules_aside(modules: &Path) -> io::Result<()> {
    // Through a link they are of a repository elsewhere, which stays as it is.
    if !modules.symlink_metadata().is_ok_and(|about| about.is_dir()) {
        return Ok(());
    }
    retain(modules, &|_| true)?;
    for entry in fs::read_dir(modules).into_iter().flatten().flatten() {
        let module = entry.path();
        if !module.join("HEAD").exists() {
            set_modules_aside(&module)?;
            continue;
        }
        let config = module.join("config");
        let settings = fs::read(&config).unwrap_or_default();
        retain(&module, &|name| !SETTINGS.contains(&name))?;
        retain(&module.join("refs"), &|name| name != "replace")?;
        fs::write(&config, of_submodule(&String::from_utf8_lossy(&settings)))?;
        set_modules_aside(&module.join("modules"))?;
    }
    Ok(())
}

/// The lines of settings that stay, in their sections.
fn of_submodule(settings: &str) -> String {
    let mut kept = String::new();
    for line in settings.lines() {
        let text = line.trim();
        let name = text.split_once('=').map_or(text, |(name, _)| name.trim());
        let is_section = text.starts_with('[') && text.find(']') == Some(text.len() - 1);
        if is_section || OF_SUBMODULE.contains(&name) && !text.ends_with('\\') {
            kept += line;
            kept.push('\n');
        }
    }
    kept
}

/// Removes what is not to be taken over; `settings`: but for those; `modules`: and the settings of submodules. Afterwards it is no repository until `git init` has
/// completed it.
pub(super) fn strip(repository: &Path, settings: bool, modules: bool) -> io::Result<()> {
    if !repository.symlink_metadata()?.is_dir() {
        // A link to a repository elsewhere, which stays as it is.
        return remove(repository);
    }
    remove_odd(repository)?;
    retain(repository, &|name| KEPT.contains(&name) || settings && SETTINGS.contains(&name))?;
    if modules {
        set_modules_aside(&repository.join("modules"))?;
    }
    let refs = repository.join("refs");
    retain(&refs, &|name| name == "remotes" || name == "tags")?;
    retain(&refs.join("remotes"), &|name| name == "origin")?;
    let packed = repository.join("packed-refs");
    match fs::read_to_string(&packed) {
        Ok(text) => fs::write(&packed, of_origin(&text)),
        // A damaged file goes; the next fetch learns all of it anew.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => fs::remove_file(&packed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether objects were left out when they were fetched: git asks the origin for them when it wants them.
pub(super) fn is_partial(repository: &Path) -> bool {
    let mut packs = fs::read_dir(repository.join("objects/pack")).into_iter().flatten().flatten();
    packs.any(|pack| pack.path().extension().is_some_and(|kind| kind == "promisor"))
}

/// Removes what is no file, folder or link from a folder and those in it: whoever opens a fifo waits for ever.
fn remove_odd(folder: &Path) -> io::Result<()> {
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                left.push(entry.path());
            } else if !kind.is_file() && !kind.is_symlink() {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// Removes the entries of a folder whose names are not wanted, and links: parts of a repository elsewhere stay as they
/// are. A folder that is not there has none.
fn retain(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_symlink() || !entry.file_name().to_str().is_some_and(wanted) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// The lines of a `packed-refs` that are of the origin, with what stands below them (`^` and the tagged commit).
fn of_origin(packed: &str) -> String {
    let mut kept = String::new();
    let mut keeps = false;
    for line in packed.lines() {
        if !line.starts_with('^') {
            let name = line.split_once(' ').map(|(_, name)| name).unwrap_or_default();
            keeps = line.starts_with('#') || OF_ORIGIN.iter().any(|place| name.starts_with(place));
        }
        if keeps {
            kept += line;
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set up its files should fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn packed_references_of_the_origin_stay_with_what_their_tags_are_of() {
        let packed = "# pack-refs with: peeled fully-peeled sorted \n1a refs/heads/main\n2b refs/remotes/origin/main\n\
            3c refs/remotes/other/main\n4d refs/replace/9\n^77\n5e refs/tags/v1\n^6f\n";
        assert_eq!(
            of_origin(packed),
            "# pack-refs with: peeled fully-peeled sorted \n2b refs/remotes/origin/main\n5e refs/tags/v1\n^6f\n"
        );
    }

    #[test]
    fn settings_that_came_after_those_that_were_set_aside_stay() {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join(".git");
        assert!(set_aside(&repository, true).is_err());
        fs::create_dir(&repository).unwrap();
        for name in ["config", "config.worktree", "HEAD", "index"] {
            fs::write(repository.join(name), "left").unwrap();
        }
        fs::create_dir(repository.join("info")).unwrap();
        fs::write(repository.join("info/grafts"), "left").unwrap();
        let there = |name: &str| repository.join(name).exists();
        assert!(!is_set_aside(&repository));
        set_aside(&repository, true).unwrap();
        assert!(is_set_aside(&repository) && there("HEAD") && there("index"));
        assert!(!there("config") && !there("config.worktree") && !there("info"));
        assert!(is_old(&repository, SystemTime::UNIX_EPOCH));
        fs::write(repository.join("config"), "own").unwrap();
        assert!(!is_old(&repository, SystemTime::UNIX_EPOCH));
        strip(&repository, true, false).unwrap();
        assert!(there("config") && !there("HEAD") && !there("index") && !is_set_aside(&repository));
    }

    #[test]
    fn submodules_keep_their_form_and_their_origin() {
        let settings = "[core]\n\trepositoryformatversion = 0\n\tworktree = ../../../lib\n\thooksPath = /x\n[core] fsmonitor = x ;]\n\
            [remote \"origin\"]\n\turl = /o\\\n\turl = /origin\n\tuploadpack = x\n[url \"x\"]\n\tinsteadOf = y\n[include]\n path = z\n";
        assert_eq!(
            of_submodule(settings),
            "[core]\n\trepositoryformatversion = 0\n[remote \"origin\"]\n\turl = /origin\n[url \"x\"]\n[include]\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let modules = folder.path().join("modules");
        let (outer, inner) = (modules.join("libs/outer"), modules.join("libs/outer/modules/inner"));
        for module in [&outer, &inner] {
            for file in
                ["HEAD", "config", "index", "hooks/post-checkout", "info/attributes", "refs/replace/1"]
            {
                let path = module.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, settings).unwrap();
            }
        }
        let elsewhere = folder.path().join("elsewhere");
        fs::rename(modules.join("libs"), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, modules.join("libs")).unwrap();
        set_modules_aside(&modules).unwrap();
        assert!(!modules.join("libs").exists() && elsewhere.join("outer/hooks/post-checkout").exists());
        fs::rename(&elsewhere, modules.join("libs")).unwrap();
        set_modules_aside(&modules).unwrap();
        for module in [&outer, &inner] {
            assert_eq!(fs::read_to_string(module.join("config")).unwrap(), of_submodule(settings));
            let is_there = |name: &&&str| module.join(name).exists();
            assert_eq!(["HEAD", "index", "hooks", "info", "refs/replace"].iter().filter(is_there).count(), 2);
        }
        set_modules_aside(&folder.path().join("nothing")).unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_would_be_waited_for_goes_before_anything_is_opened() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join(".git");
        let fifos = ["packed-refs", "refs/remotes/origin/main", "modules/m/config", MARK];
        for clean in [&|| set_aside(&repository, true), &|| strip(&repository, false, true)]
            as [&dyn Fn() -> io::Result<()>; 2]
        {
            fs::create_dir_all(repository.join("refs/remotes/origin")).unwrap();
            fs::create_dir_all(repository.join("modules/m")).unwrap();
            fs::write(repository.join("modules/m/HEAD"), "x").unwrap();
            for name in fifos {
                let _ = fs::remove_file(repository.join(name));
                mknodat(CWD, repository.join(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            }
            clean().unwrap();
            for name in fifos {
                assert!(fs::metadata(repository.join(name)).map_or(true, |about| about.is_file()), "{name}");
            }
        }
    }

    #[test]
    fn only_objects_and_what_is_known_of_the_origin_stay() {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join(".git");
        let files = [
            "objects/aa/bb",
            "refs/heads/main",
            "refs/remotes/origin/deep/x",
            "refs/remotes/git/y",
            "refs/tags/v1",
            "refs/replace/1",
            "config",
            "config.worktree",
            "index",
            "info/attributes",
            "hooks/post-checkout",
            "HEAD",
            "modules/lib/HEAD",
            "shallow",
            "logs/HEAD",
        ];
        for file in files {
            let path = repository.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        strip(&repository, false, true).unwrap();
        let is_there = |file: &&&str| repository.join(file).exists();
        let kept: Vec<_> = files.iter().filter(is_there).copied().collect();
        assert_eq!(
            kept,
            ["objects/aa/bb", "refs/remotes/origin/deep/x", "refs/tags/v1", "modules/lib/HEAD", "shallow"]
        );
        assert!(!is_partial(&repository));
        fs::create_dir_all(repository.join("objects/pack")).unwrap();
        fs::write(repository.join("objects/pack/p.promisor"), "").unwrap();
        assert!(is_partial(&repository));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&repository, &link).unwrap();
        strip(&link, false, true).unwrap();
        assert!(link.symlink_metadata().is_err() && repository.join("objects/aa/bb").exists());
        // Parts may be elsewhere as well.
        let shares = folder.path().join("shares");
        fs::create_dir(&shares).unwrap();
        fs::create_dir(repository.join("refs/heads")).unwrap();
        fs::write(repository.join("packed-refs"), "1a refs/heads/main\n").unwrap();
        for part in ["refs", "packed-refs"] {
            std::os::unix::fs::symlink(repository.join(part), shares.join(part)).unwrap();
        }
        strip(&shares, false, true).unwrap();
        assert_eq!(fs::read_dir(&shares).unwrap().count(), 0);
        assert!(repository.join("refs/heads").exists());
        assert_eq!(fs::read_to_string(repository.join("packed-refs")).unwrap(), "1a refs/heads/main\n");
    }
}
