//! The repository around a folder, as git tells of it; it is only read.

use super::filters::Filters;
use super::git::{git, rev_parse, said};
use super::settings;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// The repository around a folder.
pub(super) struct Repository {
    /// The folder of its working tree.
    pub top: PathBuf,
    /// The folder of its objects.
    pub objects: PathBuf,
    /// The file of its index.
    pub index: PathBuf,
    /// Lists where the history is cut off, in a shallow clone.
    pub shallow: PathBuf,
    /// Filters whose files jobs get as they are here; git LFS is one where it has brought large files here, or was asked to.
    pub filters: Filters,
    /// `sha256`, or `sha1` where this git can tell.
    pub object_format: Option<String>,
    /// Some of its objects are on a server only.
    pub is_partial: bool,
    /// The commit that is checked out, and its tree, which is empty where it was not asked for; `None` before the first one.
    pub head: Option<(String, String)>,
    /// The branch that is checked out; `None` when HEAD is detached.
    pub branch: Option<String>,
    /// Name of the branch that the origin calls its default, when that was told.
    pub default_branch: Option<String>,
    /// Subject line of HEAD.
    pub subject: String,
    /// URL of the remote that jobs know as their origin, without credentials.
    pub origin: Option<String>,
    /// References that an origin of this repository would hand out, as full names and commits: the branches that the origin
    /// was seen to have, else those that are here, and the tags.
    pub references: Vec<(String, String)>,
    /// Settings of its own by which git reaches the origin, as the text of a config; empty when there are none.
    pub settings: String,
    /// Full names of references that are left out, since their objects are not there.
    pub broken: Vec<String>,
}

impl Repository {
    /// `None` when `root` is in no repository; an error when it is in one that git refuses. The subject of HEAD is left
    /// empty unless it is asked for: git has to be started once more for it.
    pub(super) fn find(root: &Path, with_subject: bool) -> Result<Option<Self>, String> {
        Self::read(root, with_subject, false)
    }

    /// Like [`Self::find`], without the tree of HEAD, and with an error where there is no commit yet.
    pub(super) fn of_module(folder: &Path) -> Result<Option<Self>, String> {
        Self::read(folder, false, true)
    }

    fn read(root: &Path, with_subject: bool, is_module: bool) -> Result<Option<Self>, String> {
        let questions: [&[&str]; 8] = [
            &["--show-toplevel"],
            &["--git-path", "objects"],
            &["--git-path", "index"],
            &["--git-path", "shallow"],
            &["--git-path", "lfs"],
            &["--show-object-format"],
            &["HEAD^{commit}"],
            &["HEAD^{tree}"],
        ];
        let ask = |args: &[&str]| git(root, &[]).args(args).start("read the repository");
        let kinds = ["refs/remotes", "refs/heads", "refs/tags"];
        // To tell the type of an object git has to find it, and what a tag is of.
        let fields = "--format=%(HEAD)%(objectname) %(refname) %(symref) %(objecttype) %(*objecttype)";
        // These questions are also answered by an error where there is no repository.
        let references = ask(&[&["for-each-ref", fields][..], &kinds].concat())?;
        let scoped = ask(&["config", "--null", "--show-scope", "--get-regexp", settings::KEYS])?;
        let mut answers = rev_parse(root, &questions[..questions.len() - usize::from(is_module)])?;
        if answers.is_err() && !is_module {
            // Before the first commit the rest is there nevertheless.
            answers = rev_parse(root, &questions[..6])?;
        }
        let answers = match answers {
            Ok(answers) => answers,
            Err(found) => {
                // Nobody is left behind.
                let _ = (references.end("read the repository"), scoped.end("read the repository"));
                if is_bare(root)? {
                    return Err(bare(root));
                }
                let refused = root.ancestors().find(|folder| folder.join(".git").symlink_metadata().is_ok());
                return match refused {
                    Some(folder) => Err(format!(
                        "git refuses the repository in `{}`: it said: {} (mend it as `git status` there asks for, or run a copy of the files without `.git`)",
                        folder.display(),
                        said(&found)
                    )),
                    None => Ok(None),
                };
            }
        };
        let mut answers = answers.into_iter();
        let mut answer = || answers.next().unwrap_or_default();
        let (top, objects, index, shallow) = (answer(), answer(), answer(), answer());
        let (lfs, format, commit, tree) = (answer(), answer(), answer(), answer());
        let head = match with_subject || commit.is_empty() {
            true => ask(&["log", "-1", "--format=%H%n%T%n%s"])?.text("read HEAD")?.unwrap_or_default(),
            false => format!("{}\n{}\n", commit.to_string_lossy(), tree.to_string_lossy()),
        };
        let mut broken = Vec::new();
        let references = match references.text("list the branches and tags")? {
            Some(listed) => listed,
            None => sound(root, &kinds, &mut broken)?,
        };
        let what = "read the settings of the repository";
        let scoped = scoped.end(what)?;
        let listed = String::from_utf8_lossy(&scoped.stdout);
        let filters = Filters::read(&listed);
        let (all, own) = match scoped.status.code() {
            // git before 2.26 does not know of scopes.
            Some(129) => {
                let all = ask(&["config", "--null", "--get-regexp", settings::KEYS])?;
                (all.text(what)?.unwrap_or_default(), Vec::new())
            }
            _ => settings::by_scope(&listed),
        };
        let remotes = Remotes::read(&all);
        let (remote, origin) = remotes.origin(current(&references)).unzip();
        let remote = remote.unwrap_or(ORIGIN);
        let references = References::read(&references, remote);
        let mut head = head.lines().map(|line| (!line.is_empty()).then(|| line.to_owned()));
        let (commit, tree, subject) = (head.next().flatten(), head.next().flatten(), head.next().flatten());
        let branch = match commit {
            Some(_) => references.current,
            // No reference is there yet that could be the current one.
            None => ask(&["symbolic-ref", "--quiet", "HEAD"])?
                .text("read HEAD")?
                .and_then(|name| name.trim_end().strip_prefix("refs/heads/").map(str::to_owned)),
        };
        let top = root.join(top);
        let top = fs::canonicalize(&top).unwrap_or(top);
        let objects = root.join(objects);
        Ok(Some(Self {
            objects: fs::canonicalize(&objects).unwrap_or(objects),
            index: root.join(index),
            shallow: root.join(shallow),
            filters: if root.join(lfs).is_dir() { filters.with_large_files() } else { filters },
            // git before 2.25 knows only one and echoes the question.
            object_format: format.into_string().ok().filter(|name| !name.starts_with('-')),
            is_partial: remotes.is_partial,
            head: commit.map(|commit| (commit, tree.unwrap_or_default())),
            branch,
            default_branch: references.default,
            references: references.all,
            settings: settings::text(&own, remote, &top, std::env::home_dir().as_deref()),
            broken,
            subject: subject.unwrap_or_default(),
            origin: origin.map(|url| origin_url(url, &top)),
            top,
        }))
    }

    /// The commits at which its history ends although commits have parents, as git's file `shallow` has it.
    pub(super) fn edge(&self) -> Result<Option<Vec<u8>>, String> {
        match fs::read(&self.shallow) {
            Ok(edge) => Ok(Some(edge)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("failed to read `{}`: {error}", self.shallow.display())),
        }
    }
}

/// Whether `root` is in a bare repository, or one that has its working trees elsewhere.
pub(super) fn is_bare(root: &Path) -> Result<bool, String> {
    let asked = ["rev-parse", "--is-bare-repository"];
    Ok(git(root, &[]).args(asked).run("read the repository")?.stdout.starts_with(b"true"))
}

/// The error of a bare repository.
pub(super) fn bare(root: &Path) -> String {
    let root = root.display();
    format!(
        "`{root}` is in a bare repository, which has no working tree that could be run: name a clone of it, or one of its worktrees (`git -C {root} worktree list`; `git -C {root} worktree add FOLDER BRANCH` makes one)"
    )
}

/// Lists references like [`References::read`] takes them, of those kinds and without those whose objects are not there:
/// these are added to `broken`.
fn sound(root: &Path, kinds: &[&str], broken: &mut Vec<String>) -> Result<String, String> {
    let what = "list the branches and tags";
    let format = "--format=%(HEAD)%(objectname) %(refname) %(symref)";
    let listed = git(root, &[]).args(["for-each-ref", format]).args(kinds).output(what)?;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let words = |line: &str| -> Vec<String> {
        line.trim_start_matches(['*', ' ']).split(' ').map(str::to_owned).collect()
    };
    let objects: String = listed.lines().map(|line| words(line).swap_remove(0) + "^{}\n").collect();
    // A server that promised objects has none of these either: such a reference would not be here.
    let found = git(root, &[("GIT_NO_LAZY_FETCH", "1".into())])
        .args(["cat-file", "--batch-check"])
        .input(objects.as_bytes(), what)?;
    let found = String::from_utf8_lossy(&found).into_owned();
    let mut kept = String::new();
    for (line, object) in listed.lines().zip(found.lines()) {
        if object.ends_with(" missing") {
            broken.extend(words(line).into_iter().nth(1));
        } else {
            kept.push_str(&format!("{line}\n"));
        }
    }
    Ok(kept)
}

/// The remote that a clone has.
const ORIGIN: &str = "origin";

/// References, as `git for-each-ref` lists them.
#[derive(Debug, Default, PartialEq, Eq)]
struct References {
    /// The branch that is checked out.
    current: Option<String>,
    /// The branch that the origin calls its default.
    default: Option<String>,
    /// References that an origin would hand out.
    all: Vec<(String, String)>,
}

/// The branch that is checked out, among listed references.
fn current(listed: &str) -> Option<&str> {
    let name = listed.lines().find_map(|line| line.strip_prefix('*'))?.split(' ').nth(1)?;
    name.strip_prefix("refs/heads/")
}

impl References {
    /// `remote` is the name of the remote that jobs know as their origin.
    fn read(listed: &str, remote: &str) -> Self {
        let current = current(listed).map(str::to_owned);
        let mut read = Self { current, ..Self::default() };
        let (mut own, mut tags) = (Vec::new(), Vec::new());
        let seen = format!("refs/remotes/{remote}/");
        for line in listed.lines() {
            let mut words = line.trim_start_matches(['*', ' ']).split(' ');
            let (Some(commit), Some(name)) = (words.next(), words.next()) else { continue };
            let named = |kind: &str, short: &str| (format!("refs/{kind}/{short}"), commit.to_owned());
            if let Some(short) = name.strip_prefix(&seen) {
                if short == "HEAD" {
                    let target = words.next().and_then(|target| target.strip_prefix(&seen));
                    read.default = target.map(str::to_owned);
                } else {
                    read.all.push(named("heads", short));
                }
            } else if let Some(short) = name.strip_prefix("refs/heads/") {
                own.push(named("heads", short));
            } else if let Some(short) = name.strip_prefix("refs/tags/") {
                tags.push(named("tags", short));
            }
        }
        read.all.extend(own.into_iter().chain(tags));
        read
    }
}

/// Settings of the remotes and of branches, as `git config --null` lists them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Remotes {
    /// First URL of each, by name.
    urls: BTreeMap<String, String>,
    /// The remote of each branch that has one.
    of_branches: BTreeMap<String, String>,
    /// Some remote has promised objects that are not here.
    is_partial: bool,
}

impl Remotes {
    fn read(listed: &str) -> Self {
        let mut read = Self::default();
        for setting in listed.split('\0') {
            let Some((name, value)) = setting.split_once('\n') else { continue };
            let middle =
                |kind: &str, key: &str| name.strip_prefix(kind)?.strip_suffix(key).map(str::to_owned);
            if let Some(remote) = middle("remote.", ".url") {
                read.urls.entry(remote).or_insert_with(|| value.to_owned());
            } else if let Some(branch) = middle("branch.", ".remote") {
                read.of_branches.insert(branch, value.to_owned());
            }
            read.is_partial |= name.starts_with("remote.") && name.ends_with(".promisor");
        }
        read
    }

    /// Name and URL of the remote that jobs know as their origin: that of this name, else that of the branch that is
    /// checked out, else the only one.
    fn origin(&self, branch: Option<&str>) -> Option<(&str, &str)> {
        let of_branch = branch.and_then(|branch| self.of_branches.get(branch)).map(String::as_str);
        let only = self.urls.keys().map(String::as_str).filter(|_| self.urls.len() == 1);
        let mut names = [ORIGIN].into_iter().chain(of_branch).chain(only);
        names.find_map(|name| self.urls.get_key_value(name)).map(|(name, url)| (name.as_str(), url.as_str()))
    }
}

/// References that can be there together, by name: of those that cannot, the first stays.
pub(super) fn together(all: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let mut kept: BTreeMap<String, String> = BTreeMap::new();
    for (name, commit) in all {
        let below = format!("{name}/");
        let is_above = kept.range(below.clone()..).next().is_some_and(|(known, _)| known.starts_with(&below));
        let is_below = name.match_indices('/').any(|(at, _)| kept.contains_key(&name[..at]));
        if !is_above && !is_below {
            kept.entry(name).or_insert(commit);
        }
    }
    kept
}

/// The address as jobs use it: without credentials, and not relative to a folder that they are not in.
fn origin_url(url: &str, top: &Path) -> String {
    let is_path = !url.contains("://") && !url.split('/').next().unwrap_or_default().contains(':');
    if is_path {
        let path = top.join(OsString::from(url));
        return fs::canonicalize(&path).unwrap_or(path).display().to_string();
    }
    without_credentials(url)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_leave_the_origin_and_paths_become_whole() {
        let top = Path::new("/no/such/top");
        assert_eq!(origin_url("https://me:tok@h.example/o/r.git", top), "https://h.example/o/r.git");
        assert_eq!(origin_url("git@h.example:o/r.git", top), "git@h.example:o/r.git");
        assert_eq!(origin_url("../r.git", top), "/no/such/top/../r.git");
        assert_eq!(origin_url("/srv/r.git", top), "/srv/r.git");
    }

    #[test]
    fn references_and_settings_are_read_as_git_lists_them() {
        let read = References::read(
            " a1 refs/heads/x \n*b2 refs/heads/release/1.0 \n c3 refs/remotes/origin/HEAD refs/remotes/origin/trunk\n c3 refs/remotes/origin/trunk \n e5 refs/remotes/up/y \n d4 refs/tags/v1 \n",
            "origin",
        );
        assert_eq!(read.current.as_deref(), Some("release/1.0"));
        assert_eq!(read.default.as_deref(), Some("trunk"));
        let all: Vec<String> = read.all.iter().map(|(name, commit)| format!("{name}={commit}")).collect();
        assert_eq!(
            all,
            ["refs/heads/trunk=c3", "refs/heads/x=a1", "refs/heads/release/1.0=b2", "refs/tags/v1=d4"]
        );
        let of = |listed: &str| Remotes::read(&listed.replace('|', "\0").replace('=', "\n"));
        let up = of("remote.up.url=a|remote.up.url=other|remote.up.promisor=true|branch.x.remote=far|");
        assert!(up.is_partial);
        assert_eq!((up.origin(None), up.origin(Some("x"))), (Some(("up", "a")), Some(("up", "a"))));
        let two = of("remote.up.url=a|remote.a.b.url=c|branch.x.y.remote=a.b|branch.z.remote=.|");
        assert_eq!((two.origin(Some("x.y")), two.origin(Some("z"))), (Some(("a.b", "c")), None));
        let three = of("remote.up.url=a|remote.origin.url=b|branch.x.remote=up|");
        assert_eq!((three.is_partial, three.origin(Some("x"))), (false, Some(("origin", "b"))));
    }

    #[test]
    fn of_branches_that_exclude_each_other_the_first_stays() {
        let all = ["h/release/1.0", "h/release", "h/rel", "h/x", "h/x/y", "h/x-1"];
        let kept = together(all.map(|name| (name.to_owned(), String::new())));
        assert_eq!(kept.into_keys().collect::<Vec<_>>(), ["h/rel", "h/release/1.0", "h/x", "h/x-1"]);
    }
}
