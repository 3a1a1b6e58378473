//! The repository around a folder, as git tells of it; it is only read.

use super::git::{git, said};
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
    /// `sha256`, or `sha1` where this git can tell.
    pub object_format: Option<String>,
    /// Some of its objects are on a server only.
    pub is_partial: bool,
    /// The commit that is checked out; `None` before the first one.
    pub head: Option<String>,
    /// The branch that is checked out; `None` when HEAD is detached.
    pub branch: Option<String>,
    /// Name of the branch that the origin calls its default, when that was told.
    pub default_branch: Option<String>,
    /// Subject line of HEAD.
    pub subject: String,
    /// URL of `origin`, without credentials.
    pub origin: Option<String>,
}

impl Repository {
    /// `None` when `root` is in no repository; an error when it is in one that git refuses.
    pub(super) fn find(root: &Path) -> Result<Option<Self>, String> {
        let ask = |args: &[&str]| git(root, &[]).args(args).line("").ok().filter(|line| !line.is_empty());
        let found = git(root, &[]).args(["rev-parse", "--show-toplevel"]).run("look for a repository")?;
        if !found.status.success() {
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
        let path =
            |args: &[&str]| git(root, &[]).args(args).path("read the repository").map(|path| root.join(path));
        let (objects, index, shallow) = (
            path(&["rev-parse", "--git-path", "objects"])?,
            path(&["rev-parse", "--git-path", "index"])?,
            path(&["rev-parse", "--git-path", "shallow"])?,
        );
        let top = path(&["rev-parse", "--show-toplevel"])?;
        let top = fs::canonicalize(&top).unwrap_or(top);
        Ok(Some(Self {
            objects: fs::canonicalize(&objects).unwrap_or(objects),
            index,
            shallow,
            // git before 2.25 knows only one and echoes the question.
            object_format: ask(&["rev-parse", "--show-object-format"]).filter(|name| !name.starts_with('-')),
            is_partial: ask(&["config", "--get-regexp", r"^remote\..*\.promisor$"]).is_some(),
            head: ask(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]),
            branch: ask(&["symbolic-ref", "--quiet", "HEAD"])
                .and_then(|name| name.strip_prefix("refs/heads/").map(str::to_owned)),
            default_branch: ask(&["symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD"])
                .and_then(|name| name.strip_prefix("origin/").map(str::to_owned)),
            subject: ask(&["log", "-1", "--format=%s"]).unwrap_or_default(),
            origin: ask(&["config", "--get", "remote.origin.url"]).map(|url| origin_url(&url, &top)),
            top,
        }))
    }

    /// What an origin of this repository would hand out, as full names and commits: the branches that the origin
    /// was seen to have, else those that are here, and the tags.
    pub(super) fn references(&self) -> Result<Vec<(String, String)>, String> {
        let listed = git(&self.top, &[])
            .args(["for-each-ref", "--format=%(objectname) %(refname)"])
            .args(["refs/remotes/origin", "refs/heads", "refs/tags"])
            .output("list the branches and tags")?;
        let listed = String::from_utf8_lossy(&listed);
        let all: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once(' ')).collect();
        let under = |prefix: &'static str| {
            all.iter().filter_map(move |(commit, name)| Some((name.strip_prefix(prefix)?, *commit)))
        };
        let remote = under("refs/remotes/origin/").filter(|(name, _)| *name != "HEAD");
        let heads =
            remote.chain(under("refs/heads/")).map(|(name, commit)| (format!("refs/heads/{name}"), commit));
        let tags = under("refs/tags/").map(|(name, commit)| (format!("refs/tags/{name}"), commit));
        Ok(heads.chain(tags).map(|(name, commit)| (name, commit.to_owned())).collect())
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
    fn of_branches_that_exclude_each_other_the_first_stays() {
        let all = ["h/release/1.0", "h/release", "h/rel", "h/x", "h/x/y", "h/x-1"];
        let kept = together(all.map(|name| (name.to_owned(), String::new())));
        assert_eq!(kept.into_keys().collect::<Vec<_>>(), ["h/rel", "h/release/1.0", "h/x", "h/x-1"]);
    }
}
