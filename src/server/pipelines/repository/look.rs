//! Questions to a repository that need no config: its refs, what changed between two commits, which came first.

use super::{Error, FETCH, LOCAL, Mirrors, address};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of the list of refs of one repository: some 100,000 of them.
const MOST_LIST_BYTES: usize = 16 << 20;
/// How long a list of refs may take.
const LIST: Duration = Duration::from_secs(60);
/// Commits that are looked back for the order of two.
const DEPTH: &str = "--depth=200";

/// A branch or tag of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRef {
    /// The full name.
    pub name: String,
    /// The object that it points to.
    pub object: String,
    /// The commit: the object, or what a tag's object points to.
    pub commit: String,
}

impl Mirrors {
    /// Lists the branches and tags of a repository. The error is a sentence for people.
    pub async fn list_refs(self: &Arc<Self>, project: &str, url: &str) -> Result<Vec<ListedRef>, String> {
        let protocol = address::check(url)?;
        let git = self.git(project, url, protocol).await?;
        let failed = |error| format!("failed to list the refs of `{url}`: {error}");
        if !git.is_made().await {
            let turn = self.turn(project);
            let _alone = turn.lock().await;
            git.prepare().await.map_err(failed)?;
        }
        // Of a repository on this host a third of the processes will do. Whatever is wrong with it is told by the usual way.
        let path = url.strip_prefix("file://").filter(|path| !path.contains('%'));
        if let Some(path) = path {
            let said = git.run(LIST, MOST_LIST_BYTES, &["upload-pack", "--advertise-refs", path]).await;
            if let Some(all) = said.ok().filter(|said| !said.is_cut).and_then(|said| advertised(&said.bytes))
            {
                return Ok(all);
            }
        }
        // Reads nothing of the mirror, so it waits for nobody.
        let args = ["ls-remote", "--heads", "--tags", "--", url];
        let listed = git.run(LIST, MOST_LIST_BYTES, &args).await.map_err(failed)?;
        if listed.is_cut {
            return Err(format!("the list of the refs of `{url}` has more than {MOST_LIST_BYTES} bytes"));
        }
        Ok(parse(&String::from_utf8_lossy(&listed.bytes)))
    }

    /// Whether a commit comes before another, or is the same. False where the history that is looked at (200 commits)
    /// does not tell.
    pub async fn is_ancestor(
        self: &Arc<Self>,
        project: &str,
        url: &str,
        older: &str,
        newer: &str,
    ) -> Result<bool, Error> {
        if older == newer {
            return Ok(true);
        }
        let protocol = address::check(url).map_err(Error::Failed)?;
        let turn = self.turn(project);
        let _alone = turn.lock().await;
        let git = self.git(project, url, protocol).await.map_err(Error::Failed)?;
        let failed = |error| Error::Failed(format!("failed to compare commits of `{url}`: {error}"));
        git.prepare().await.map_err(failed)?;
        let fetch = ["fetch", "--quiet", "--no-tags", DEPTH, "--", url, newer];
        if git.run(FETCH, 0, &fetch).await.is_err() {
            return Ok(false);
        }
        Ok(git.run(LOCAL, 0, &["merge-base", "--is-ancestor", older, newer]).await.is_ok())
    }
}

impl Mirrors {
    /// Whether a commit is in the history of one of these (200 commits of each are looked at). False where that cannot be
    /// told.
    pub async fn is_in_any(
        self: &Arc<Self>,
        project: &str,
        url: &str,
        commit: &str,
        tips: &[String],
    ) -> bool {
        if tips.is_empty() || tips.iter().any(|tip| tip == commit) {
            return !tips.is_empty();
        }
        let Ok(protocol) = address::check(url) else { return false };
        let turn = self.turn(project);
        let _alone = turn.lock().await;
        let Ok(git) = self.git(project, url, protocol).await else { return false };
        if git.prepare().await.is_err() {
            return false;
        }
        // A tip that is gone spoils the whole fetch: then the first has to do.
        for tips in [tips, &tips[..1]] {
            let mut fetch = vec!["fetch", "--quiet", "--no-tags", DEPTH, "--", url];
            fetch.extend(tips.iter().map(String::as_str));
            if git.run(FETCH, 0, &fetch).await.is_err() {
                continue;
            }
            let mut left = vec!["rev-list", "--max-count=1", commit, "--not"];
            left.extend(tips.iter().map(String::as_str));
            left.push("--");
            return git.run(LOCAL, 100, &left).await.is_ok_and(|left| left.bytes.is_empty());
        }
        false
    }
}

/// Most commits of one push that are told one by one.
const MOST_COMMITS: &str = "--max-count=20";

impl Mirrors {
    /// The commits that lead from one to another by first parents, the oldest first: the last 20 of them. `None` where
    /// the history that is looked at (200 commits) does not tell.
    pub async fn commits_between(
        self: &Arc<Self>,
        project: &str,
        url: &str,
        before: &str,
        after: &str,
    ) -> Option<Vec<String>> {
        let protocol = address::check(url).ok()?;
        let turn = self.turn(project);
        let _alone = turn.lock().await;
        let git = self.git(project, url, protocol).await.ok()?;
        git.prepare().await.ok()?;
        git.run(FETCH, 0, &["fetch", "--quiet", "--no-tags", DEPTH, "--", url, after]).await.ok()?;
        git.run(LOCAL, 0, &["merge-base", "--is-ancestor", before, after]).await.ok()?;
        let range = format!("{before}..{after}");
        let args = ["rev-list", "--first-parent", "--reverse", MOST_COMMITS, &range, "--"];
        let listed = git.run(LOCAL, 8192, &args).await.ok()?;
        Some(String::from_utf8_lossy(&listed.bytes).lines().map(str::to_owned).collect())
    }
}

/// The branches and tags that a repository tells of to whoever asks for its history: lines behind their lengths, as
/// git's documentation of its pack protocol has them (gitprotocol-pack). `None` where it says something else.
fn advertised(mut bytes: &[u8]) -> Option<Vec<ListedRef>> {
    let mut lines = Vec::new();
    loop {
        let length = std::str::from_utf8(bytes.get(..4)?).ok()?;
        let length = usize::from_str_radix(length, 16).ok()?;
        if length == 0 {
            return bytes.len().eq(&4).then(|| collect(lines.into_iter()));
        }
        let line = std::str::from_utf8(bytes.get(4..length)?).ok()?;
        bytes = bytes.get(length..)?;
        // The first line names the abilities of the repository behind a zero byte.
        let line = line.split('\0').next().unwrap_or_default().trim_end_matches('\n');
        let (object, name) = line.split_once(' ')?;
        if name.starts_with("refs/heads/") || name.starts_with("refs/tags/") {
            lines.push((object, name));
        }
    }
}

fn parse(text: &str) -> Vec<ListedRef> {
    collect(text.lines().filter_map(|line| line.split_once('\t')))
}

/// Objects and names, in the order that git has them in.
fn collect<'a>(lines: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<ListedRef> {
    let mut all: Vec<ListedRef> = Vec::new();
    for (object, name) in lines {
        match (name.strip_suffix("^{}"), all.last_mut()) {
            // Of an annotated tag the second line has the commit.
            (Some(name), Some(last)) if last.name == name => last.commit = object.to_owned(),
            (Some(_), _) => {}
            (None, _) => all.push(ListedRef {
                name: name.to_owned(),
                object: object.to_owned(),
                commit: object.to_owned(),
            }),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_line_of_a_tag_has_its_commit() {
        let all = parse("a1\trefs/heads/main\nb2\trefs/tags/v1\nc3\trefs/tags/v1^{}\nd4\trefs/tags/v2\n");
        let shown: Vec<_> = all.iter().map(|r| format!("{} {} {}", r.name, r.object, r.commit)).collect();
        assert_eq!(shown, ["refs/heads/main a1 a1", "refs/tags/v1 b2 c3", "refs/tags/v2 d4 d4"]);
        assert!(parse("").is_empty());
    }

    #[test]
    fn what_a_repository_on_this_host_tells_is_read_or_left_to_git() {
        let lines = [
            "a1 HEAD\0multi_ack symref=HEAD:refs/heads/main\n",
            "a1 refs/heads/main\n",
            "e5 refs/pull/1/head\n",
            "b2 refs/tags/v1\n",
            "c3 refs/tags/v1^{}\n",
        ];
        let said: String = lines.iter().map(|line| format!("{:04x}{line}", line.len() + 4)).collect();
        let all = advertised(format!("{said}0000").as_bytes()).expect("a list");
        let shown: Vec<_> = all.iter().map(|r| format!("{} {} {}", r.name, r.object, r.commit)).collect();
        assert_eq!(shown, ["refs/heads/main a1 a1", "refs/tags/v1 b2 c3"]);
        let empty = "0027".to_owned() + &"0".repeat(4) + " capabilities^{}\0multi_ack ofs\n0000";
        assert_eq!(advertised(empty.as_bytes()), Some(Vec::new()));
        for broken in [said.as_str(), "", "0000x", "0003", "zzzz", "0010no", "+008abcd0000", "0009äää0000"]
        {
            assert_eq!(advertised(broken.as_bytes()), None, "{broken}");
        }
    }
}
