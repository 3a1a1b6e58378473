//! The places that the paths of a job lead to: its working directory, and what its steps name beside it. Paths in,
//! paths out; only whether a checkout stays inside is asked of the disk.
//!
//! On a runner's host a job goes where it says, as whoever runs it may. `runlet exec` runs it on a person's
//! own machine, where `~/project` may well be the work of years: there the job is *confined*. Its working
//! directory is made below the runner's, whatever the config calls it, and that folder is its home, to which `home`
//! lends what tools keep in the person's.

use super::home::{self, is_of_tools};
use crate::system::os;
use std::borrow::Cow;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Homes that configs of the hosted service name by their paths: no user of a confined job has anything there.
const HOSTED_HOMES: [&str; 2] = ["/home/circleci", "/root"];

/// Whether jobs can be confined: by `runlet exec` alone, which the runner-only build does not have. Its file is smaller
/// without what that takes.
pub(super) const CAN_CONFINE: bool = cfg!(feature = "server");

/// The places of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Working directory of the job, absolute.
    pub directory: PathBuf,
    /// Value of `CIRCLE_WORKING_DIRECTORY`: the directory as the config writes it, if that leads there.
    pub told: String,
    /// Home of the job, as steps are told (`HOME`).
    pub home: PathBuf,
    confined: Option<Confined>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Confined {
    /// The runner's own working directory: everything stays below it.
    root: PathBuf,
    /// Home of the user.
    person: PathBuf,
    /// A folder that the config would have elsewhere: its working directory, or one above that which belongs
    /// to the job as well.
    named: PathBuf,
    /// Folder that it was put into.
    moved: PathBuf,
}

impl Places {
    /// The places of a job whose working directory is `written`, on a runner that works in `base` (the home
    /// where it says nothing). A runner that confines its jobs has a `base`.
    pub fn new(written: &str, base: Option<&Path>, home: PathBuf, confine: bool) -> Self {
        let root = base.unwrap_or(&home).to_owned();
        if !(CAN_CONFINE && confine) {
            let directory = resolve(written, &root, &home);
            return Self { directory, told: written.to_owned(), home, confined: None };
        }
        let named = resolve(&at_home(written, &home), &root, &home);
        let rest = named.strip_prefix(&root).or_else(|_| named.strip_prefix(&home)).unwrap_or(&named);
        let kept = kept_inside(rest);
        let directory = root.join(&kept);
        let told = directory.to_string_lossy().into_owned();
        let (mut source, mut moved) = (named.clone(), directory.clone());
        // With `~/project/Backend`, all of `~/project` is the job's: it may well check out there.
        let above = named.strip_prefix(&home).ok().and_then(|rest| rest.components().next());
        if let (Some(Component::Normal(first)), true) = (above, rest == kept && !named.starts_with(&root)) {
            (source, moved) = (home.join(first), root.join(first));
        }
        // A job that works in all of its home finds its own files only there: it keeps that of the user as well.
        let own = if directory == root { home.clone() } else { root.clone() };
        let confined = Confined { root, person: home, named: source, moved };
        Self { directory, told, home: own, confined: Some(confined) }
    }

    fn confined(&self) -> Option<&Confined> {
        self.confined.as_ref().filter(|_| CAN_CONFINE)
    }

    /// A path of the config made absolute: `~` is the home, anything relative is below the working
    /// directory. Variables are not expanded. Things that tools keep at home are, for a confined job, those of the
    /// user, unless the job has made its own. Asks the disk about that.
    pub fn of(&self, path: &str) -> PathBuf {
        let Some(confined) = self.confined() else { return self.named(path) };
        let found = resolve(&at_home(path, &confined.person), &self.directory, &self.home);
        if let Ok(rest) = found.strip_prefix(&confined.root) {
            let first = rest.components().next().map(Component::as_os_str).unwrap_or_default();
            let is_persons = self.has_own_home()
                && is_of_tools(first)
                && home::is_persons(&confined.person, &confined.root, rest);
            return if is_persons { confined.person.join(rest) } else { found };
        }
        // A path below the working directory by its own name is below the folder it was put into. A home that is
        // one remains the home as well: tools keep their things there.
        match found.strip_prefix(&confined.named) {
            Ok(rest) if !confined.person.starts_with(&confined.named) => confined.moved.join(rest),
            _ => found,
        }
    }

    /// Lends what tools keep at the home of the user to that of a confined job, as far as the job has nothing of the
    /// same name. Repeated before each step, since tools make such things.
    pub fn lend_home(&self) {
        if let Some(confined) = self.confined().filter(|_| self.has_own_home()) {
            home::lend(&confined.person, &confined.root);
        }
    }

    /// Whether the job has a home that is not the user's.
    pub fn has_own_home(&self) -> bool {
        self.confined().is_some_and(|confined| self.home == confined.root)
    }

    /// The paths that a path stands for where it is copied: the own home of a job without what is only lent.
    pub fn parts_of_home(&self, path: &str) -> Vec<String> {
        if !self.has_own_home() || self.of(path) != self.home {
            return vec![path.to_owned()];
        }
        let entries = fs::read_dir(&self.home).into_iter().flatten().flatten();
        let own = entries.filter(|entry| !self.is_lent(&entry.path()));
        let mut paths: Vec<_> =
            own.filter_map(|own| Some(format!("~/{}", own.file_name().to_str()?))).collect();
        paths.sort();
        paths
    }

    /// Whether the path is of what [`Places::lend_home`] lends.
    pub fn is_lent(&self, path: &Path) -> bool {
        let Some(confined) = self.confined().filter(|_| self.has_own_home()) else { return false };
        let name = path.strip_prefix(&confined.root).unwrap_or(Path::new(""));
        is_of_tools(name.as_os_str()) && home::is_lent(&confined.person.join(name), path)
    }

    /// A path of the config made absolute as the config means it, also where the job is elsewhere.
    pub fn named(&self, path: &str) -> PathBuf {
        let home = self.confined().map_or(&self.home, |confined| &confined.person);
        resolve(path, &self.directory, home)
    }

    /// The folder that a workspace is attached to. The home of a confined job is where its own folder is: nothing is
    /// unpacked over what a person has at home.
    pub fn attached(&self, path: &str) -> PathBuf {
        let found = self.of(path);
        match self.confined() {
            Some(confined) if found == confined.person => confined.root.clone(),
            _ => found,
        }
    }

    /// The root that `paths` are persisted from: as [`Places::attached`], unless all of them are at home only. Asks
    /// the disk.
    pub fn persisted(&self, root: &str, paths: &[String]) -> PathBuf {
        let own = self.attached(root);
        let Some(confined) = self.confined().filter(|confined| own == confined.root) else {
            return own;
        };
        let is_at_home = |path: &String| {
            let first = Path::new(path).components().find(|part| matches!(part, Component::Normal(_)));
            first.is_some_and(|first| {
                let (here, there) = (own.join(first), confined.person.join(first));
                let may_be = !self.has_own_home() || is_of_tools(first.as_os_str());
                may_be && there.exists() && (!here.exists() || self.is_lent(&here))
            })
        };
        if paths.iter().all(is_at_home) { confined.person.clone() } else { own }
    }

    /// The folder that is removed after the job, where the runner cleans up.
    pub fn cleaned(&self) -> &Path {
        self.confined().map_or(&self.directory, |confined| &confined.root)
    }

    /// Whether a path is below the working directory by its names: what stands there comes of the job, links too.
    pub fn is_of_job(&self, path: &Path) -> bool {
        path.starts_with(&self.directory) && !path.components().any(|part| part == Component::ParentDir)
    }

    /// The place that a path leads to, if a link has it lead somewhere that its names do not say: out of the working
    /// directory, or, for a path elsewhere, out of its folder. Asks the disk.
    pub fn led_out(&self, path: &Path) -> Option<PathBuf> {
        let found = path.canonicalize().ok()?;
        let is_inside = |folder: &Path| folder.canonicalize().is_ok_and(|folder| found.starts_with(folder));
        let stays = match (self.is_of_job(path), path.parent()) {
            (false, Some(parent)) if path.is_symlink() => is_inside(parent) || is_inside(&self.directory),
            (false, _) => true,
            (true, _) => is_inside(&self.directory),
        };
        (!stays).then_some(found)
    }

    /// Whether git may turn `directory` into a clone of the job's. The error is a sentence for people.
    pub fn may_check_out(&self, directory: &Path) -> Result<(), String> {
        let Some(confined) = self.confined() else { return Ok(()) };
        if real(directory).starts_with(real(&confined.root)) {
            return Ok(());
        }
        Err(format!(
            "cannot check out into `{}`: this runner keeps jobs inside `{}` (use a `path` below the working directory)",
            directory.display(),
            confined.root.display()
        ))
    }
}

/// A path below a home of the hosted service as one below `~`, where nobody is at home there.
fn at_home<'p>(path: &'p str, home: &Path) -> Cow<'p, str> {
    let below =
        |place: &str| path.strip_prefix(place).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    match HOSTED_HOMES.into_iter().filter(|place| home != Path::new(place)).find_map(below) {
        Some(rest) => Cow::Owned(format!("~{rest}")),
        None => Cow::Borrowed(path),
    }
}

/// Resolves the working directory of a job that is not confined.
fn resolve(path: &str, base: &Path, home: &Path) -> PathBuf {
    match path.strip_prefix('~') {
        Some("") => home.to_owned(),
        Some(rest) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => {
            let joined = base.join(path);
            // `a/.` names `a`; other dots are the system's business.
            joined.components().filter(|part| !matches!(part, Component::CurDir)).collect()
        }
    }
}

/// The path as a relative one that does not climb out, by its names alone.
fn kept_inside(path: &Path) -> PathBuf {
    let mut kept = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => kept.push(name),
            Component::ParentDir => {
                kept.pop();
            }
            _ => {}
        }
    }
    kept
}

/// The home of the user; `/` when nothing says where it is.
pub(super) fn home() -> PathBuf {
    let named = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    named.or_else(os::home).unwrap_or_else(|| PathBuf::from("/"))
}

/// The path without links, as far as it exists. Empty where it ends in `..` before that.
pub(super) fn real(path: &Path) -> PathBuf {
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Ok(found), ..) => found,
        (Err(_), Some(parent), Some(name)) => real(parent).join(name),
        // The path ends in `..`, or there is not even a root: nothing that is inside of anything.
        (Err(_), ..) => PathBuf::new(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot make a folder should fail loudly")]
mod tests {
    use super::*;

    fn places(written: &str, confine: bool) -> Places {
        Places::new(written, Some(Path::new("/w")), "/h".into(), confine)
    }

    #[test]
    fn paths_know_the_home_and_no_variables() {
        let places = places("/w", false);
        for (path, expected) in [
            ("~", "/h"),
            ("~/a", "/h/a"),
            ("~other", "/w/~other"),
            ("./a/.", "/w/a"),
            ("/abs", "/abs"),
            ("$HOME/x", "/w/$HOME/x"),
        ] {
            assert_eq!(places.of(path), Path::new(expected), "{path}");
        }
        assert!(places.may_check_out(Path::new("/abs")).is_ok());
    }

    #[test]
    fn a_job_goes_where_it_says() {
        for (written, expected) in
            [("~/project", "/h/project"), ("/tmp/x", "/tmp/x"), ("sub", "/w/sub"), ("~", "/h")]
        {
            assert_eq!(places(written, false).directory, Path::new(expected), "{written}");
            assert_eq!(places(written, false).cleaned(), Path::new(expected), "{written}");
        }
    }

    #[cfg(feature = "server")]
    #[test]
    fn a_confined_job_stays_below_the_runners_directory() {
        for (written, expected) in [
            ("~/project", "/w/project"),
            ("/tmp/x", "/w/tmp/x"),
            ("sub", "/w/sub"),
            ("/w/sub", "/w/sub"),
            ("~", "/w"),
            ("~/x/..", "/w"),
            ("../../etc", "/w/etc"),
            ("/", "/w"),
            (".", "/w"),
        ] {
            let places = places(written, true);
            assert_eq!(places.directory, Path::new(expected), "{written}");
            assert_eq!(places.cleaned(), Path::new("/w"), "{written}");
        }
    }

    #[cfg(feature = "server")]
    #[test]
    fn a_confined_job_finds_its_directory_by_the_name_it_gave_it() {
        let project = places("~/project", true);
        assert_eq!(project.of("~/project/out"), Path::new("/w/project/out"));
        assert_eq!(project.of("/h/project"), Path::new("/w/project"));
        assert_eq!(project.of("out"), Path::new("/w/project/out"));
        assert_eq!(project.of("~/.cargo"), Path::new("/w/.cargo"));
        assert_eq!(places("~", true).of("~/.cargo"), Path::new("/h/.cargo"));
        let part = places("~/project/Backend", true);
        assert_eq!(part.directory, Path::new("/w/project/Backend"));
        assert_eq!(part.of("~/project"), Path::new("/w/project"));
        assert_eq!(part.of("~/project/Frontend/x"), Path::new("/w/project/Frontend/x"));
        assert_eq!(part.of("~/other"), Path::new("/w/other"));
        assert_eq!(places("/tmp/x/y", true).of("/tmp/out"), Path::new("/tmp/out"));
        assert_eq!(project.named("~/project/out"), Path::new("/h/project/out"));
    }

    #[cfg(feature = "server")]
    #[test]
    fn a_workspace_of_the_home_is_where_the_folder_of_a_confined_job_is() {
        for path in ["~", "~/", "/h"] {
            assert_eq!(places("~/project", true).attached(path), Path::new("/w"), "{path}");
            assert_eq!(places("~/project", false).attached(path), Path::new("/h"), "{path}");
        }
        assert_eq!(places("~/project", true).attached("~/out"), Path::new("/w/out"));
        let folder = tempfile::tempdir().unwrap();
        let (home, base) = (folder.path().join("h"), folder.path().join("w"));
        for path in ["h/project", "h/.tool", "w/project"] {
            std::fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        let places = Places::new("~/project", Some(&base), home.clone(), true);
        let of = |paths: &[&str]| {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            places.persisted("~", &paths)
        };
        for paths in [&["./project"][..], &["project/*"], &["."], &["*"], &["project", ".tool"]] {
            assert_eq!(of(paths), base, "{paths:?}");
        }
        assert_eq!(of(&[".tool"]), home);
    }

    #[cfg(feature = "server")]
    #[test]
    fn a_confined_job_has_a_home_with_what_tools_keep_in_the_users() {
        let folder = tempfile::tempdir().unwrap();
        let (home, root) = (folder.path().join("h"), folder.path().join("w"));
        for path in ["h/.cargo/registry", "h/go/pkg", "h/work", "h/.made", "w/project", "w/.made"] {
            std::fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        std::fs::write(home.join(".gitconfig"), "").unwrap();
        let places = |written: &str| Places::new(written, Some(&root), home.clone(), true);
        let job = places("~/project");
        assert_eq!((job.home.as_path(), job.has_own_home()), (&*root, true));
        // A file that the job's home lacks is that of the user, before and after a link is made.
        for _ in 0..2 {
            for path in [".cargo/registry", ".cargo/new", "go/pkg", ".gitconfig"] {
                assert_eq!(job.of(&format!("~/{path}")), home.join(path), "{path}");
            }
            for path in ["", "work", "project/.cargo", ".made/x", ".new", "out"] {
                assert_eq!(job.of(&format!("~/{path}")), root.join(path), "{path}");
            }
            job.lend_home();
        }
        for path in [".cargo", "go"] {
            assert_eq!(fs::read_link(root.join(path)).unwrap(), home.join(path));
            assert!(job.is_lent(&root.join(path)));
        }
        assert!(root.join(".gitconfig").symlink_metadata().unwrap().is_file());
        assert!(job.is_lent(&root.join(".gitconfig")));
        assert!(!root.join("work").exists() && !job.is_lent(&root.join(".made")));
        assert_eq!(job.parts_of_home("~"), ["~/.made", "~/project"]);
        assert_eq!(job.parts_of_home("~/.cargo"), ["~/.cargo"]);
        let persisted =
            |paths: &[&str]| job.persisted("~", &paths.iter().map(|&p| p.into()).collect::<Vec<_>>());
        assert_eq!((persisted(&[".cargo"]), persisted(&["work"])), (home.clone(), root.clone()));
        // A job that works in all of its home has none beside it.
        let whole = places("~");
        assert_eq!((whole.home.as_path(), whole.directory.as_path()), (&*home, &*root));
        assert_eq!(whole.of(".cargo"), root.join(".cargo"));
        assert_eq!(Places::new("~/project", Some(&root), home.clone(), false).home, home);
    }

    #[cfg(feature = "server")]
    #[test]
    fn a_home_of_the_hosted_service_is_that_of_a_confined_job() {
        for written in ["/home/circleci/project", "/root/project", "~/project"] {
            let places = places(written, true);
            assert_eq!(places.directory, Path::new("/w/project"));
            assert_eq!(places.of("/home/circleci/project/out"), Path::new("/w/project/out"));
            assert_eq!(places.of("/home/circleci/.npm"), Path::new("/w/.npm"));
            assert_eq!(places.of("/rootless"), Path::new("/rootless"));
        }
        assert_eq!(places("~/project", false).of("/root/x"), Path::new("/root/x"));
        let root = Places::new("/root/project", Some(Path::new("/w")), "/root".into(), true);
        assert_eq!(root.of("/root/x"), Path::new("/root/x"));
    }

    #[test]
    fn a_link_out_of_the_job_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["w/in/deep", "elsewhere/x", "h"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, at(name)).unwrap();
        link("in/deep", "w/short");
        link("../elsewhere", "w/out");
        link("../w/in", "h/job");
        link("../elsewhere", "h/out");
        link("w", "also-w");
        let real = folder.path().canonicalize().unwrap();
        for directory in ["w", "also-w"] {
            let directory = at(directory);
            let places = Places::new(&directory.to_string_lossy(), None, at("h"), false);
            let led_out = |path: &str| places.led_out(&places.of(path));
            for path in [".", "in", "short", "none", "in/..", "../elsewhere", "~", "~/job", "/"] {
                assert_eq!(led_out(path), None, "{path}");
            }
            assert_eq!(led_out("out").as_deref(), Some(&*real.join("elsewhere")));
            assert_eq!(led_out("out/x").as_deref(), Some(&*real.join("elsewhere/x")));
            assert_eq!(led_out("~/out").as_deref(), Some(&*real.join("elsewhere")));
        }
    }

    #[cfg(feature = "server")]
    #[test]
    fn a_confined_job_checks_out_inside_only() {
        let folder = tempfile::tempdir().unwrap();
        let (root, home) = (folder.path().join("w"), folder.path().join("h"));
        std::fs::create_dir_all(root.join("project")).unwrap();
        std::fs::create_dir_all(home.join("repository")).unwrap();
        std::os::unix::fs::symlink(&home, root.join("link")).unwrap();
        let places = Places::new("~/project", Some(&root), home.clone(), true);
        for path in ["~/project", "new/deep", "."] {
            assert_eq!(places.may_check_out(&places.of(path)), Ok(()), "{path}");
        }
        let repository = home.join("repository").display().to_string();
        for path in [&*repository, "../../h/repository", "../link/repository", "../link/new", "/"] {
            assert!(places.may_check_out(&places.of(path)).is_err(), "{path}");
        }
    }
}
