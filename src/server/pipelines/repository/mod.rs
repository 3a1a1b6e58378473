//! Reading configs from repositories: a bare mirror for each project, kept up to date by real git.
//!
//! Only the wanted ref is fetched, one commit deep. Git runs without a shell and asks nobody anything;
//! it may use the protocol of the registered address and no other. Reads of one project come one after
//! the other; those of different projects do not wait for each other. `triggers` calls this.

mod access;
pub mod address;
mod git;
pub mod look;

pub use access::Opening;
use address::Protocol;
use git::{GitError, MirrorGit};
use ring::digest::{SHA256, digest};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Path of the config in a repository.
const CONFIG: &str = ".circleci/config.yml";
/// Largest config that is read, in bytes; the compiler's own limit is lower and names itself.
const MOST_CONFIG_BYTES: usize = 8 << 20;
/// How long a fetch may take.
const FETCH: Duration = Duration::from_secs(180);
/// How long a command on the mirror may take.
const LOCAL: Duration = Duration::from_secs(30);
/// Bytes of the names of changed files, and of a commit message that are kept; characters of its subject.
const MOST_NAME_BYTES: usize = 4 << 20;
const MOST_MESSAGE_BYTES: usize = 16 * 1024;
const MOST_SUBJECT_CHARS: usize = 500;

/// A ref to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A branch by its short name.
    Branch(String),
    /// A tag by its short name.
    Tag(String),
    /// The head of a pull request from a fork.
    Pull(PullRef),
}

/// The head of a pull request from a fork, which the repository that it goes to has as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRef {
    /// The full name: `refs/pull/12/head`.
    pub reference: String,
    /// The name of the branch that its pipelines are of: `pull/12`.
    pub branch: String,
}

/// Question to a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The ref to read.
    pub reference: Reference,
    /// The commit that is wanted, by its full id; `None`: the one that the ref points to.
    pub commit: Option<String>,
    /// Path of the config; `None`: the usual one.
    pub config: Option<String>,
    /// The files that changed since this commit are wanted as well.
    pub since: Option<String>,
}

impl From<&Reference> for Ask {
    fn from(reference: &Reference) -> Self {
        Self { reference: reference.clone(), commit: None, config: None, since: None }
    }
}

impl Reference {
    /// The full name, as git writes it.
    pub fn full(&self) -> String {
        match self {
            Reference::Branch(name) => format!("refs/heads/{name}"),
            Reference::Tag(name) => format!("refs/tags/{name}"),
            Reference::Pull(pull) => pull.reference.clone(),
        }
    }

    /// Kind and name of the reference, for messages.
    fn said(&self) -> (&'static str, &str) {
        match self {
            Reference::Branch(name) => ("branch", name),
            Reference::Tag(name) => ("tag", name),
            Reference::Pull(pull) => ("pull request", &pull.branch),
        }
    }
}

/// A commit of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Full id of the commit.
    pub revision: String,
    /// Name of the author.
    pub author: String,
    /// The address of the author.
    pub author_email: String,
    /// Time at which it was written, as ISO 8601 has it.
    pub authored_at: String,
    /// Name of who made it a commit.
    pub committer: String,
    /// Their address.
    pub committer_email: String,
    /// Time at which it was made one.
    pub committed_at: String,
    /// First line of the message.
    pub subject: String,
    /// The rest of it.
    pub body: String,
}

impl Commit {
    /// Whether its message says that nothing is to be built.
    pub fn skips_ci(&self) -> bool {
        [&self.subject, &self.body].into_iter().any(|text| {
            let start: String = text.chars().take(250).collect();
            start.contains("[skip ci]") || start.contains("[ci skip]")
        })
    }
}

/// The result of a read.
#[derive(Clone, Debug)]
pub struct Read {
    /// The commit that the ref points to.
    pub commit: Commit,
    /// The config, or a sentence about why the commit has none that can be used.
    pub config: Result<String, String>,
    /// The files that changed, where that was asked for and can be told.
    pub changed: Option<Vec<String>>,
    /// Whether the ref is at it.
    pub is_tip: bool,
}

/// The reason why nothing was read, in sentences for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The ref leads to no commit, or no ref can have its name: that stays so.
    UnknownRef(String),
    /// The repository has no such ref, or not the commit that is asked for: it may have both a little later.
    Missing(Missing),
    /// The repository cannot be reached or read, or git cannot be run.
    Failed(String),
}

/// A ref or a commit that a repository does not have. Forges tell of pushes before all their copies of a repository have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// A sentence about what is missing.
    pub why: String,
    /// The commit that the ref is at; `None`: there is no such ref.
    pub tip: Option<String>,
    /// Whether the commit is there that was asked for.
    pub has_commit: bool,
}

/// The mirrors of all projects.
#[derive(Debug)]
pub struct Mirrors {
    folder: PathBuf,
    busy: Mutex<HashMap<String, Turn>>,
    fetches: AtomicU64,
    opener: access::Opener,
}

/// A turn on one mirror: its holder works alone. It remembers the last read while others wait.
type Turn = Arc<tokio::sync::Mutex<Option<Recent>>>;

/// A read that serves everybody who asked before it began.
#[derive(Debug)]
struct Recent {
    url: String,
    ask: Ask,
    began: Instant,
    read: Result<Read, Error>,
}

impl Mirrors {
    /// Keeps mirrors below `folder`, which is made when it is needed.
    pub fn new(folder: PathBuf) -> Self {
        access::clear(&folder);
        let (busy, fetches, opener) = Default::default();
        Self { folder, busy, fetches, opener }
    }

    /// Has git let into repositories by what `find` finds, by the id of the project and the address.
    pub fn open_by<F>(&self, find: impl Fn(String, String) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Opening> + Send + 'static,
    {
        self.opener
            .set(Box::new(move |project, url| -> access::OpeningFuture { Box::pin(find(project, url)) }));
    }

    /// Git on the mirror of a project, let into its repository.
    async fn git(&self, project: &str, url: &str, protocol: Protocol) -> Result<MirrorGit, String> {
        let opened = self.opener.open(&self.folder, project, url).await;
        let (files, shut) = opened.map_err(|error| {
            format!("failed to write the keys of `{url}` below `{}`: {error}", self.folder.display())
        })?;
        Ok(MirrorGit::new(self.folder.join(format!("{project}.git")), protocol, files, shut))
    }

    fn turn(&self, project: &str) -> Turn {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        // Calls that wait or work hold a clone.
        busy.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(busy.entry(project.to_owned()).or_default())
    }

    /// Fetches a ref of the repository at `url` and reads its commit and config. `project` is the id of
    /// the project. Goes on when the caller is dropped, so that a fetch is not broken off half-way.
    pub async fn read(
        self: &Arc<Self>,
        project: &str,
        url: &str,
        reference: &Reference,
    ) -> Result<Read, Error> {
        self.read_as(project, url, reference.into()).await
    }

    /// [`Mirrors::read`], with more to ask for.
    pub async fn read_as(self: &Arc<Self>, project: &str, url: &str, ask: Ask) -> Result<Read, Error> {
        let protocol = address::check(url).map_err(Error::Failed)?;
        let (mirrors, project, url) = (Arc::clone(self), project.to_owned(), url.to_owned());
        let asked = Instant::now();
        let work = async move {
            let turn = mirrors.turn(&project);
            let mut recent = turn.lock().await;
            // A burst of triggers shares one fetch, and one failure.
            let same = |r: &&Recent| r.began >= asked && r.url == url && r.ask == ask;
            if let Some(recent) = recent.as_ref().filter(same) {
                return recent.read.clone();
            }
            let began = Instant::now();
            mirrors.fetches.fetch_add(1, Ordering::Relaxed);
            let read = match mirrors.git(&project, &url, protocol).await {
                Ok(git) => read(&git, &url, &ask).await,
                Err(why) => Err(Error::Failed(why)),
            };
            *recent = Some(Recent { url, ask, began, read: read.clone() });
            read
        };
        let stopping = |_| Error::Failed("the control plane is stopping".to_owned());
        tokio::spawn(work).await.map_err(stopping)?
    }

    /// Removes the mirror of a project that is no more.
    pub async fn forget(self: &Arc<Self>, project: &str) {
        let turn = self.turn(project);
        let _alone = turn.lock().await;
        remove(&self.folder.join(format!("{project}.git"))).await;
    }
}

async fn remove(folder: &Path) {
    match tokio::fs::remove_dir_all(folder).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            log::warn!("failed to remove the mirror `{}`: {error}", folder.display());
        }
        _ => {}
    }
}

async fn read(git: &MirrorGit, url: &str, ask: &Ask) -> Result<Read, Error> {
    let reference = &ask.reference;
    let mut target = match fetch(git, url, &reference.full(), reference).await {
        Err(Error::Missing(mut missing)) => {
            if let Some(commit) = &ask.commit {
                missing.has_commit = fetch(git, url, commit, reference).await.is_ok();
            }
            return Err(Error::Missing(missing));
        }
        fetched => fetched?,
    };
    let failed = |error: GitError| {
        // Git may name anything by a tag, and Linux has one of a tree.
        if error.says(&["expected commit type"]) {
            let (what, name) = reference.said();
            let kind = if error.says(&["dereferences to tree"]) { "a tree" } else { "a file" };
            return Error::UnknownRef(format!(
                "the {what} `{name}` of the repository `{url}` leads to {kind} and to no commit: there is nothing to build"
            ));
        }
        Error::Failed(format!("failed to read the mirror of `{url}`: {error}"))
    };
    let mut is_tip = true;
    if let Some(commit) = &ask.commit {
        let tip = git.run(LOCAL, 100, &["rev-parse", "--verify", &format!("{target}^{{commit}}")]).await;
        let tip = tip.map_err(failed)?;
        if !tip.bytes.starts_with(commit.as_bytes()) {
            // The ref has moved on since, or what it points to is wrapped in a tag.
            is_tip = false;
            let tip = String::from_utf8_lossy(&tip.bytes).trim().to_owned();
            target = fetch(git, url, commit, reference).await.map_err(|error| match error {
                Error::Missing(missing) => {
                    let (what, name) = reference.said();
                    let why = format!(
                        "the repository `{url}` has no commit {commit}: its {what} `{name}` is at {tip}"
                    );
                    Error::Missing(Missing { why, tip: Some(tip), ..missing })
                }
                other => other,
            })?;
        }
    }
    let commit_name = format!("{target}^{{commit}}");
    let format = "--format=%H%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%s%x00%b";
    let told = git
        .run(
            LOCAL,
            MOST_MESSAGE_BYTES,
            &["log", "-1", "--no-show-signature", "--encoding=UTF-8", format, &commit_name, "--"],
        )
        .await
        .map_err(failed)?;
    let commit = parse_commit(&told.bytes)
        .ok_or_else(|| Error::Failed(format!("the mirror of `{url}` has no readable commit")))?;
    let path = ask.config.as_deref().unwrap_or(CONFIG);
    let config = config(git, url, reference, &commit.revision, path).await?;
    let changed = match &ask.since {
        Some(since) => changed(git, url, since, &commit.revision, reference).await,
        None => None,
    };
    Ok(Read { commit, config, changed, is_tip })
}

/// Fetches what has this full name or id. Returns its name in the mirror.
async fn fetch(git: &MirrorGit, url: &str, full: &str, reference: &Reference) -> Result<String, Error> {
    // Flat names: a branch `a` that gave way to `a/b` cannot be in the way.
    let hash = crate::system::hex(&digest(&SHA256, full.as_bytes()).as_ref()[..16]);
    let target = format!("refs/runlet/{hash}");
    let refspec = format!("+{full}:{target}");
    let failed = |error: &GitError| Error::Failed(format!("failed to fetch `{full}` from `{url}`: {error}"));
    let mut fresh = git.prepare().await.map_err(|error| failed(&error))?;
    let (mut deep, mut has_ids) = (false, false);
    loop {
        let mut args = vec!["fetch", "--quiet", "--force", "--no-tags"];
        if !deep {
            args.push("--depth=1");
        }
        args.extend(["--", url, &refspec]);
        let Err(error) = git.run(FETCH, 0, &args).await else { return Ok(target) };
        if error.says(&[
            "couldn't find remote ref",
            "no such remote ref",
            "not our ref",
            "unadvertised object",
        ]) {
            let (what, name) = reference.said();
            let why = format!("the repository `{url}` has no {what} `{name}`");
            return Err(Error::Missing(Missing { why, tip: None, has_commit: false }));
        }
        if error.says(&["invalid refspec"]) {
            let (what, name) = reference.said();
            return Err(Error::UnknownRef(format!(
                "`{name}` cannot be the name of a {what}: git refuses it"
            )));
        }
        if !deep && error.says(&["does not support shallow", "does not support --depth"]) {
            deep = true;
            continue;
        }
        if let (false, Some(format)) = (has_ids, error.other_ids()) {
            remove(git.folder()).await;
            git.prepare_as(&["--object-format", format]).await.map_err(|error| failed(&error))?;
            (fresh, has_ids) = (true, true);
            continue;
        }
        if !fresh
            && error.says(&[
                "corrupt",
                "bad object",
                "shallow file",
                "not a git repository",
                "did not send all",
                "unable to read",
            ])
        {
            log::warn!("the mirror of `{url}` is damaged and made afresh: {error}");
            remove(git.folder()).await;
            git.prepare().await.map_err(|error| failed(&error))?;
            fresh = true;
            continue;
        }
        return Err(failed(&error));
    }
}

/// Reads the config at a commit. What is wrong with the commit stays so, and is the inner error; that git could not read
/// it is the outer one, and may pass.
async fn config(
    git: &MirrorGit,
    url: &str,
    reference: &Reference,
    revision: &str,
    path: &str,
) -> Result<Result<String, String>, Error> {
    let (kind, name) = reference.said();
    let at = format!("the {kind} `{name}` of the repository `{url}` (revision {revision})");
    let what = format!("the config `{path}` on {at}");
    let failed = |error: GitError| Error::Failed(format!("failed to read {what}: {error}"));
    let tree = ["ls-tree", "-l", "-z", "--full-tree", revision, "--", path];
    let listed = git.run(LOCAL, 4096, &tree).await.map_err(failed)?;
    let listed = String::from_utf8_lossy(&listed.bytes);
    // mode, type, object, size, then a tab and the path
    let mut words = listed.split(['\t', '\0']).next().unwrap_or_default().split_ascii_whitespace();
    let (mode, kind, object, size) = (words.next(), words.next(), words.next(), words.next());
    match (mode, kind) {
        (None, _) => return Ok(Err(format!("there is no `{path}` on {at}"))),
        (Some("120000"), _) => return Ok(Err(format!("{what} is a symbolic link, which is not followed"))),
        (_, Some("blob")) => {}
        _ => return Ok(Err(format!("{what} is not a file"))),
    }
    let size: usize = size.and_then(|size| size.parse().ok()).unwrap_or(usize::MAX);
    if size > MOST_CONFIG_BYTES {
        return Ok(Err(format!("{what} has {size} bytes, the limit is {MOST_CONFIG_BYTES}")));
    }
    let blob = ["cat-file", "blob", object.unwrap_or_default()];
    let text = git.run(LOCAL, MOST_CONFIG_BYTES, &blob).await.map_err(failed)?;
    if text.is_cut {
        return Err(Error::Failed(format!("{what} changed while it was read")));
    }
    Ok(String::from_utf8(text.bytes).map_err(|_| format!("{what} is not UTF-8 text")))
}

fn parse_commit(bytes: &[u8]) -> Option<Commit> {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.splitn(9, '\0');
    let revision = parts.next()?.to_owned();
    let author = parts.next()?.to_owned();
    let mut next = || Some(parts.next()?.to_owned());
    let (author_email, authored_at) = (next()?, next()?);
    let (committer, committer_email, committed_at) = (next()?, next()?, next()?);
    // A subject that is longer than what is read of a commit leaves no room for the rest.
    let subject = parts.next().unwrap_or_default().chars().take(MOST_SUBJECT_CHARS).collect();
    let body = parts.next().unwrap_or_default().trim_end().to_owned();
    let good = matches!(revision.len(), 40 | 64) && revision.bytes().all(|b| b.is_ascii_hexdigit());
    good.then_some(Commit {
        revision,
        author,
        author_email,
        authored_at,
        committer,
        committer_email,
        committed_at,
        subject,
        body,
    })
}

/// The files that differ between two commits; `None` when the earlier one is not to be had.
async fn changed(
    git: &MirrorGit,
    url: &str,
    since: &str,
    revision: &str,
    reference: &Reference,
) -> Option<Vec<String>> {
    let before = fetch(git, url, since, reference).await.ok()?;
    let args = ["diff-tree", "-r", "-z", "--name-only", "--no-renames", &before, revision];
    let listed = git.run(LOCAL, MOST_NAME_BYTES, &args).await.ok()?;
    if listed.is_cut {
        return None;
    }
    let names = listed.bytes.split(|b| *b == 0).filter(|name| !name.is_empty());
    Some(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

#[cfg(test)]
mod tests;
