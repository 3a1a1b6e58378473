//! The file of git's index, read as far as it answers what `git ls-files` and `git write-tree` would be started for: three
//! processes less where nothing is uncommitted. A file with anything that is not known here is left to git.

use crate::system::hex;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Beginning of the file.
const SIGNATURE: &[u8] = b"DIRC";
/// Facts about the file of an entry, before its mode and after it.
const STAT_BYTES: (usize, usize) = (24, 12);
/// Type and permissions of an entry that is a repository inside.
const LINK: u32 = 0o160_000;
/// Flags of an entry: said to be unchanged, and followed by more flags.
const UNCHANGED: u16 = 1 << 15;
const EXTENDED: u16 = 1 << 14;
/// The further flag of one that is left out of a sparse working tree.
const SKIPPED: u16 = 1 << 14;
/// Lengths of the ids of objects, of the one format and the other.
const SHA1: usize = 20;
const SHA256: usize = 32;

/// Parts of an index that are asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// Entries that git does not look at.
    pub hidden: Vec<Hidden>,
    /// Paths with conflicts.
    pub conflicts: BTreeSet<Vec<u8>>,
    /// Commits and paths of repositories inside.
    pub links: Vec<(String, Vec<u8>)>,
    /// The tree that it makes, where it was made already and nothing has changed since.
    pub tree: Option<String>,
}

/// An entry whose file git does not look at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hidden {
    pub path: Vec<u8>,
    /// Whether git was told that it is unchanged.
    pub is_unchanged: bool,
    /// Whether it is left out of a sparse working tree.
    pub is_skipped: bool,
}

impl Index {
    /// `None` where git has to be asked: the file is not there, is damaged, or has parts that are not known here.
    pub(super) fn read(file: &Path, object_format: Option<&str>) -> Option<Self> {
        let id = if object_format == Some("sha256") { SHA256 } else { SHA1 };
        Self::parse(&fs::read(file).ok()?, id)
    }

    fn parse(file: &[u8], id: usize) -> Option<Self> {
        let mut rest = Bytes(file.strip_prefix(SIGNATURE)?);
        let (version, count) = (rest.number()?, rest.number()?);
        if !(2..=4).contains(&version) {
            return None;
        }
        let mut index = Self::default();
        let mut path = Vec::new();
        for _ in 0..count {
            let before = rest.0.len();
            rest.take(STAT_BYTES.0)?;
            let mode = rest.number()?;
            rest.take(STAT_BYTES.1)?;
            let commit = rest.take(id)?;
            let flags = rest.flags()?;
            let more = if flags & EXTENDED > 0 { rest.flags()? } else { 0 };
            if version == 4 {
                // The path does not repeat what it has in common with the one before.
                path.truncate(path.len().checked_sub(rest.offset()?)?);
            } else {
                path.clear();
            }
            path.extend_from_slice(rest.until(0)?);
            if version < 4 {
                // The end of the path is one of one to eight zeros, up to a multiple of eight.
                let length = before - rest.0.len();
                rest.take(length.next_multiple_of(8) - length)?;
            }
            let (is_unchanged, has_conflict) = (flags & UNCHANGED > 0, flags >> 12 & 3 > 0);
            let is_skipped = more & SKIPPED > 0 && !has_conflict;
            if has_conflict {
                index.conflicts.insert(path.clone());
            }
            if is_unchanged || is_skipped {
                index.hidden.push(Hidden { path: path.clone(), is_unchanged, is_skipped });
            }
            if mode == LINK {
                index.links.push((hex(commit), path.clone()));
            }
        }
        while rest.0.len() > id {
            let kind = rest.take(4)?;
            let length = usize::try_from(rest.number()?).ok()?;
            let mut part = Bytes(rest.take(length)?);
            match kind {
                b"TREE" => index.tree = part.tree(id)?,
                // Parts with a capital letter may be passed over; any other changes what the entries mean.
                _ if kind[0].is_ascii_uppercase() => {}
                _ => return None,
            }
        }
        // A checksum, or zeros, is the end.
        (rest.0.len() == id).then_some(index)
    }
}

/// Whether the bytes are an index of either format, for the fuzz target.
#[cfg(fuzzing)]
pub(super) fn is_known(file: &[u8]) -> bool {
    [SHA1, SHA256].into_iter().any(|id| Index::parse(file, id).is_some())
}

/// Bytes that are still to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn flags(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// Bytes before the next `end`, which is passed by.
    fn until(&mut self, end: u8) -> Option<&'a [u8]> {
        let at = self.0.iter().position(|byte| *byte == end)?;
        let taken = self.take(at)?;
        self.take(1)?;
        Some(taken)
    }

    /// A number of seven bits a byte, the highest first; each byte that goes on adds one.
    fn offset(&mut self) -> Option<usize> {
        let mut value = 0usize;
        loop {
            let byte = self.take(1)?[0];
            value = value.checked_mul(128)?.checked_add(usize::from(byte & 127))?;
            if byte < 128 {
                return Some(value);
            }
            value = value.checked_add(1)?;
        }
    }

    /// The first of the trees that were made of the index, which is the whole of it; the inner `None` says that it has
    /// changed since.
    fn tree(&mut self, id: usize) -> Option<Option<String>> {
        if !self.until(0)?.is_empty() {
            return None;
        }
        let is_made = self.until(b' ')?.first() != Some(&b'-');
        self.until(b'\n')?;
        Some(if is_made { Some(hex(self.take(id)?)) } else { None })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set up its files should fail loudly")]
mod tests {
    use super::*;
    use crate::exec::example::sh;

    /// Index of a repository, as git tells it.
    fn told(repo: &Path) -> Index {
        let flags = sh(repo, "git ls-files -v | grep -v '^H ' || true");
        let mut told = Index::default();
        for line in flags.lines() {
            let (tag, path) = line.split_once(' ').unwrap();
            let is_skipped = tag.eq_ignore_ascii_case("s");
            if tag.eq_ignore_ascii_case("m") {
                told.conflicts.insert(path.into());
            }
            let is_unchanged = tag == tag.to_lowercase();
            if is_skipped || is_unchanged {
                told.hidden.push(Hidden { path: path.into(), is_unchanged, is_skipped });
            }
        }
        for line in sh(repo, "git ls-files --stage").lines().filter(|line| line.starts_with("160000")) {
            let (about, path) = line.split_once('\t').unwrap();
            told.links.push((about.split(' ').nth(1).unwrap().to_owned(), path.into()));
        }
        told
    }

    const MADE: &str = "mkdir -p a/deep/folder/of/files inner
        for n in 1 2 3 4 5 6 7 8 9 10 11; do head -c $n /dev/zero | tr '\\0' x > a/$n; cp a/$n a/deep/folder/of/files; done
        long=$(head -c 200 /dev/zero | tr '\\0' y); mkdir -p $long/$long/$long/$long/$long/$long/$long/$long/$long/$long
        for d in $(seq 1 10); do cd $long; done; for n in 1 2; do > $long$n; done; for d in $(seq 1 10); do cd ..; done
        > gone; > same; > both; > plain; (cd inner; git init -qb main; git commit -q --allow-empty -m inner)
        git add . 2> /dev/null; git commit -qm first";

    #[test]
    fn an_index_is_read_as_git_reads_it() {
        for (format, version) in [("sha1", 2), ("sha1", 4), ("sha256", 2), ("sha256", 4)] {
            let repo = tempfile::tempdir().unwrap();
            let repo = repo.path();
            sh(
                repo,
                &format!(
                    "git init -qb main --object-format={format}; git config index.version {version}; {MADE}"
                ),
            );
            let file = repo.join(".git/index");
            let read = || Index::read(&file, Some(format)).unwrap();
            let tree = Some(sh(repo, "git rev-parse HEAD^{tree}").trim().to_owned());
            assert_eq!(read(), Index { tree: tree.clone(), ..told(repo) }, "{format} {version}");
            assert_eq!(read().links.len(), 1);
            sh(
                repo,
                "git update-index --skip-worktree gone; git update-index --assume-unchanged same
                 git update-index --skip-worktree both; git update-index --assume-unchanged both",
            );
            // Git forgets the tree where it looks at a file again whose time is that of the index.
            let found = read().tree.or(tree.clone());
            assert_eq!(found, tree, "{format} {version}");
            assert_eq!(read(), Index { tree: read().tree, ..told(repo) }, "{format} {version}");
            assert_eq!(read().hidden.len(), 3);
            sh(repo, "echo new > plain; git add plain");
            assert_eq!(read(), told(repo), "a tree is made no more");
            sh(
                repo,
                "git reset -q --hard; git checkout -qb other; echo one > plain; git commit -qam one
                 git checkout -q main; echo two > plain; git commit -qam two; git merge -q other > /dev/null || true",
            );
            assert_eq!(read(), told(repo), "{format} {version}");
            assert_eq!(read().conflicts.len(), 1);
        }
    }

    #[test]
    fn what_is_not_known_is_left_to_git() {
        let place = tempfile::tempdir().unwrap();
        sh(
            place.path(),
            "git init -qb main whole; cd whole; mkdir a; > a/b; > c; git add .; git commit -qm first; cd ..
             cp -r whole split; cd split; git update-index --split-index; cd ..
             cp -r whole sparse; cd sparse; mkdir d; > d/e; git add .; git commit -qm second
             git sparse-checkout set --cone --sparse-index a",
        );
        let read = |name: &str| Index::read(&place.path().join(name).join(".git/index"), None);
        assert!(read("whole").is_some());
        assert_eq!((read("split"), read("sparse"), read("none")), (None, None, None));
        let file = fs::read(place.path().join("whole/.git/index")).unwrap();
        for length in 0..file.len() {
            let read = Index::parse(&file[..length], SHA1);
            assert!(read.is_none_or(|read| read.tree.is_none()), "{length}");
        }
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0xff;
            // The reading ends, one way or the other.
            Index::parse(&damaged, SHA1);
        }
    }
}
