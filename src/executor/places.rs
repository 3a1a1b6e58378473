//! The places that the paths of a job lead to: its working directory, and what its steps name beside it. Paths in,
//! paths out; only whether a checkout stays inside is asked of the disk.
//!
//! On a runner's host a job goes where it says, as whoever runs it may. `runlet exec` runs it on a person's
//! own machine, where `~/project` may well be the work of years: there the job is *confined*, and its
//! working directory is made below the runner's, whatever the config calls it.

use std::path::{Component, Path, PathBuf};

/// The places of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Working directory of the job, absolute.
    pub directory: PathBuf,
    /// The same as steps are told (`CIRCLE_WORKING_DIRECTORY`): as the config writes it, where that leads there.
    pub told: String,
    /// Home of the user.
    pub home: PathBuf,
    confined: Option<Confined>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Confined {
    /// The runner's own working directory: everything stays below it.
    root: PathBuf,
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
        let named = resolve(written, &root, &home);
        if !confine {
            return Self { directory: named, told: written.to_owned(), home, confined: None };
        }
        let rest = named.strip_prefix(&root).or_else(|_| named.strip_prefix(&home)).unwrap_or(&named);
        let kept = kept_inside(rest);
        let directory = root.join(&kept);
        let told = directory.to_string_lossy().into_owned();
        let mut confined = Confined { root, named: named.clone(), moved: directory.clone() };
        // With `~/project/Backend`, all of `~/project` is the job's: it may well check out there.
        let above = named.strip_prefix(&home).ok().and_then(|rest| rest.components().next());
        if let (Some(Component::Normal(first)), true) =
            (above, rest == kept && !named.starts_with(&confined.root))
        {
            confined.named = home.join(first);
            confined.moved = confined.root.join(first);
        }
        Self { directory, told, home, confined: Some(confined) }
    }

    /// A path of the config made absolute: `~` is the home, anything relative is below the working
    /// directory. Variables are not expanded.
    pub fn of(&self, path: &str) -> PathBuf {
        let found = resolve(path, &self.directory, &self.home);
        // A path below the working directory by its own name is below the folder it was put into. A home that is
        // one remains the home as well: tools keep their things there.
        let moved = self.confined.as_ref().filter(|confined| !self.home.starts_with(&confined.named));
        match moved.and_then(|confined| Some((confined, found.strip_prefix(&confined.named).ok()?))) {
            Some((confined, rest)) => confined.moved.join(rest),
            None => found,
        }
    }

    /// A path of the config made absolute as the config means it, also where the job is elsewhere.
    pub fn named(&self, path: &str) -> PathBuf {
        resolve(path, &self.directory, &self.home)
    }

    /// The folder that a workspace is attached to. The home of a confined job is where its own folder is: nothing is
    /// unpacked over what a person has at home.
    pub fn attached(&self, path: &str) -> PathBuf {
        let found = self.of(path);
        match &self.confined {
            Some(confined) if found == self.home => confined.root.clone(),
            _ => found,
        }
    }

    /// The root that `paths` are persisted from: as [`Places::attached`], unless all of them are at home only. Asks
    /// the disk.
    pub fn persisted(&self, root: &str, paths: &[String]) -> PathBuf {
        let (own, home) = (self.attached(root), self.of(root));
        let is_at_home = |path: &String| {
            let first = Path::new(path).components().find(|part| matches!(part, Component::Normal(_)));
            first.is_some_and(|first| !own.join(first).exists() && home.join(first).exists())
        };
        if paths.iter().all(is_at_home) { home } else { own }
    }

    /// The folder that is removed after the job, where the runner cleans up.
    pub fn cleaned(&self) -> &Path {
        self.confined.as_ref().map_or(&self.directory, |confined| &confined.root)
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
        let Some(confined) = &self.confined else { return Ok(()) };
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

/// As [`Places::of`], for a job that is not confined.
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

/// The path without links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Ok(found), ..) => found,
        (Err(_), Some(parent), Some(name)) => real(parent).join(name),
        // It ends in `..`, or there is not even a root: nothing that is inside of anything.
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

    #[test]
    fn a_confined_job_finds_its_directory_by_the_name_it_gave_it() {
        let project = places("~/project", true);
        assert_eq!(project.of("~/project/out"), Path::new("/w/project/out"));
        assert_eq!(project.of("/h/project"), Path::new("/w/project"));
        assert_eq!(project.of("out"), Path::new("/w/project/out"));
        assert_eq!(project.of("~/.cargo"), Path::new("/h/.cargo"));
        assert_eq!(places("~", true).of("~/.cargo"), Path::new("/h/.cargo"));
        let part = places("~/project/Backend", true);
        assert_eq!(part.directory, Path::new("/w/project/Backend"));
        assert_eq!(part.of("~/project"), Path::new("/w/project"));
        assert_eq!(part.of("~/project/Frontend/x"), Path::new("/w/project/Frontend/x"));
        assert_eq!(part.of("~/other"), Path::new("/h/other"));
        assert_eq!(places("/tmp/x/y", true).of("/tmp/out"), Path::new("/tmp/out"));
        assert_eq!(project.named("~/project/out"), Path::new("/h/project/out"));
    }

    #[test]
    fn a_workspace_of_the_home_is_where_the_folder_of_a_confined_job_is() {
        for path in ["~", "~/", "/h"] {
            assert_eq!(places("~/project", true).attached(path), Path::new("/w"), "{path}");
            assert_eq!(places("~/project", false).attached(path), Path::new("/h"), "{path}");
        }
        assert_eq!(places("~/project", true).attached("~/out"), Path::new("/h/out"));
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
        for path in ["~/repository", "../../h/repository", "../link/repository", "../link/new", "/"] {
            assert!(places.may_check_out(&places.of(path)).is_err(), "{path}");
        }
    }
}
