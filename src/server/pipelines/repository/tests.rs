//! Mirrors of real repositories, local ones and one behind `git daemon`.
#![expect(clippy::unwrap_used, reason = "a test without its repository should fail loudly")]

use super::*;
use std::path::Path;
use std::process::Command;

struct Bench {
    folder: tempfile::TempDir,
    mirrors: Arc<Mirrors>,
}

fn git(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(folder).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null");
    for name in ["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"] {
        command.env(name, "Ada");
    }
    for name in ["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"] {
        command.env(name, "ada@example.com");
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mirrors = Arc::new(Mirrors::new(folder.path().join("mirrors")));
        let bench = Self { folder, mirrors };
        std::fs::create_dir(bench.work()).unwrap();
        git(&bench.work(), &["init", "--quiet", "-b", "main"]);
        bench.commit("version: 2.1 # one\n", "first\n\nwith a body");
        bench
    }

    fn work(&self) -> std::path::PathBuf {
        self.folder.path().join("work")
    }

    fn url(&self) -> String {
        format!("file://{}", self.work().display())
    }

    fn commit(&self, config: &str, message: &str) -> String {
        std::fs::create_dir_all(self.work().join(".circleci")).unwrap();
        std::fs::write(self.work().join(CONFIG), config).unwrap();
        git(&self.work(), &["add", "."]);
        git(&self.work(), &["commit", "--quiet", "--allow-empty", "-m", message]);
        git(&self.work(), &["rev-parse", "HEAD"])
    }

    async fn branch(&self, name: &str) -> Result<Read, Error> {
        self.mirrors.read("p", &self.url(), &Reference::Branch(name.to_owned())).await
    }
}

#[tokio::test]
async fn a_branch_is_read_and_read_again_after_it_moved() {
    let bench = Bench::new();
    let first = git(&bench.work(), &["rev-parse", "HEAD"]);
    let read = bench.branch("main").await.unwrap();
    assert_eq!(read.commit.revision, first);
    assert_eq!((read.commit.subject.as_str(), read.commit.body.as_str()), ("first", "with a body"));
    assert_eq!(read.commit.author, "Ada");
    assert_eq!(read.config.unwrap(), "version: 2.1 # one\n");

    let second = bench.commit("version: 2.1 # two\n", "second");
    let read = bench.branch("main").await.unwrap();
    assert_eq!((read.commit.revision, read.config.unwrap()), (second, "version: 2.1 # two\n".to_owned()));

    // Rewritten history is followed as well.
    git(&bench.work(), &["reset", "--quiet", "--hard", &first]);
    let third = bench.commit("version: 2.1 # three\n", "third");
    assert_eq!(bench.branch("main").await.unwrap().commit.revision, third);
    let depth = git(&bench.folder.path().join("mirrors/p.git"), &["rev-list", "--count", &third]);
    assert_eq!(depth, "1", "one commit deep");
}

#[tokio::test]
async fn branches_that_give_way_to_folders_and_tags_are_read() {
    let bench = Bench::new();
    git(&bench.work(), &["branch", "a"]);
    bench.branch("a").await.unwrap();
    git(&bench.work(), &["branch", "-D", "a"]);
    git(&bench.work(), &["branch", "a/b"]);
    bench.branch("a/b").await.unwrap();
    let gone = bench.branch("a").await.unwrap_err();
    assert!(matches!(&gone, Error::Missing(it) if it.why.contains("no branch `a`")), "{gone:?}");

    git(&bench.work(), &["tag", "-a", "v1", "-m", "annotated"]);
    let tag = bench.mirrors.read("p", &bench.url(), &Reference::Tag("v1".into())).await.unwrap();
    assert_eq!(tag.commit.subject, "first");
    let none = bench.mirrors.read("p", &bench.url(), &Reference::Tag("v2".into())).await.unwrap_err();
    assert!(matches!(none, Error::Missing(_)));
}

#[tokio::test]
async fn what_stays_as_it_is_is_no_failure() {
    let bench = Bench::new();
    git(&bench.work(), &["tag", "tree", "HEAD^{tree}"]);
    git(&bench.work(), &["tag", "-a", "noted", "-m", "noted", "HEAD^{tree}"]);
    let blob = format!("HEAD:{CONFIG}");
    git(&bench.work(), &["tag", "file", &blob]);
    for (name, word) in [("tree", "a tree"), ("noted", "a tree"), ("file", "a file")] {
        let reference = Reference::Tag(name.to_owned());
        let object = git(&bench.work(), &["rev-parse", name]);
        for commit in [None, Some(object)] {
            let ask = Ask { commit, ..Ask::from(&reference) };
            let read = bench.mirrors.read_as("p", &bench.url(), ask).await;
            assert!(matches!(&read, Err(Error::UnknownRef(why)) if why.contains(word)), "{name}: {read:?}");
        }
    }
    let odd = bench.branch("a^b").await;
    assert!(matches!(&odd, Err(Error::UnknownRef(why)) if why.contains("git refuses it")), "{odd:?}");
    // A subject without an end.
    bench.commit("version: 2.1 # long\n", &"x".repeat(MOST_MESSAGE_BYTES + 1));
    let read = bench.branch("main").await.unwrap();
    assert_eq!((read.commit.subject.len(), read.commit.body.as_str()), (MOST_SUBJECT_CHARS, ""));
}

#[tokio::test]
async fn what_is_no_config_is_named() {
    let bench = Bench::new();
    let config = bench.work().join(CONFIG);
    std::fs::remove_file(&config).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &config).unwrap();
    git(&bench.work(), &["add", "-A"]);
    git(&bench.work(), &["commit", "--quiet", "-m", "link"]);
    assert!(bench.branch("main").await.unwrap().config.unwrap_err().contains("symbolic link"));

    git(&bench.work(), &["rm", "--quiet", CONFIG]);
    git(&bench.work(), &["commit", "--quiet", "-m", "none"]);
    assert!(bench.branch("main").await.unwrap().config.unwrap_err().contains("there is no"));

    bench.commit(&"#".repeat(MOST_CONFIG_BYTES + 1), "large");
    assert!(bench.branch("main").await.unwrap().config.unwrap_err().contains("limit"));

    // No fault of the commit's: git fails, and may not the next time.
    let main = Reference::Branch("main".to_owned());
    let outside = Ask { config: Some("../config.yml".to_owned()), ..Ask::from(&main) };
    let failed = bench.mirrors.read_as("p", &bench.url(), outside).await;
    assert!(matches!(&failed, Err(Error::Failed(why)) if why.contains("outside")), "{failed:?}");
}

#[tokio::test]
async fn failures_say_what_is_wrong_and_a_damaged_mirror_heals() {
    let bench = Bench::new();
    let url = format!("file://{}/nothing", bench.folder.path().display());
    let error = bench.mirrors.read("p", &url, &Reference::Branch("main".into())).await.unwrap_err();
    assert!(matches!(&error, Error::Failed(why) if why.contains("/nothing")), "{error:?}");
    let error = bench.mirrors.read("p", "ext::sh -c x", &Reference::Branch("main".into())).await;
    assert!(matches!(error, Err(Error::Failed(_))));

    bench.branch("main").await.unwrap();
    let mirror = bench.folder.path().join("mirrors/p.git");
    std::fs::remove_dir_all(mirror.join("objects")).unwrap();
    std::fs::create_dir(mirror.join("objects")).unwrap();
    std::fs::write(mirror.join("shallow.lock"), "").unwrap();
    bench.commit("version: 2.1 # healed\n", "healed");
    assert_eq!(bench.branch("main").await.unwrap().config.unwrap(), "version: 2.1 # healed\n");

    bench.mirrors.forget("p").await;
    assert!(!mirror.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_at_once_do_not_disturb_each_other() {
    let bench = Bench::new();
    git(&bench.work(), &["branch", "other"]);
    bench.commit("version: 2.1 # two\n", "second");
    let reads: Vec<_> = (0..12)
        .map(|n| {
            let (mirrors, url) = (Arc::clone(&bench.mirrors), bench.url());
            let name = if n % 2 == 0 { "main" } else { "other" };
            tokio::spawn(async move { mirrors.read("p", &url, &Reference::Branch(name.into())).await })
        })
        .collect();
    for (n, read) in reads.into_iter().enumerate() {
        let config = read.await.unwrap().unwrap().config.unwrap();
        assert_eq!(config, if n % 2 == 0 { "version: 2.1 # two\n" } else { "version: 2.1 # one\n" });
    }
    assert!(bench.mirrors.busy.lock().unwrap().len() <= 1, "turns of idle projects go away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_shares_a_fetch_and_later_reads_do_not() {
    let bench = Bench::new();
    let turn = bench.mirrors.turn("p");
    let alone = turn.lock().await;
    let reads: Vec<_> = (0..20)
        .map(|_| {
            let (mirrors, url) = (Arc::clone(&bench.mirrors), bench.url());
            tokio::spawn(async move { mirrors.read("p", &url, &Reference::Branch("main".into())).await })
        })
        .collect();
    // All of them wait before the first begins.
    while Arc::strong_count(&turn) < 22 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let latest = bench.commit("version: 2.1 # two\n", "second");
    drop(alone);
    for read in reads {
        assert_eq!(read.await.unwrap().unwrap().commit.revision, latest);
    }
    assert_eq!(bench.mirrors.fetches.load(Ordering::Relaxed), 1);
    let latest = bench.commit("version: 2.1 # three\n", "third");
    assert_eq!(bench.branch("main").await.unwrap().commit.revision, latest);
}

#[test]
fn skipped_commits_say_so_early() {
    let commit = |subject: &str, body: &str| Commit {
        subject: subject.to_owned(),
        body: body.to_owned(),
        ..Commit::default()
    };
    assert!(commit("fix [skip ci]", "").skips_ci() && commit("fix", "x\n[ci skip]").skips_ci());
    assert!(!commit("fix", "").skips_ci());
    assert!(!commit("fix", &format!("{}[skip ci]", "x".repeat(245))).skips_ci(), "cut at 250 characters");
}
