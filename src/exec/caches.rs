//! Caches between runs, in the user's cache folder: taken in before a run, kept after it, and forgotten when they
//! are old or too many.

use crate::protocol::{Archive, Cache};
use crate::server::Running;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes that the caches of all repositories may take.
const MOST_BYTES: u64 = 5 << 30;
/// Caches are kept this long.
const KEPT: Duration = Duration::from_secs(15 * 24 * 60 * 60);

/// The folder of the caches of one repository.
pub(super) struct Caches {
    /// The folder of all repositories.
    all: PathBuf,
    own: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Record {
    key: String,
    sha256: String,
    length: u64,
    created_at_ms: u64,
}

impl Caches {
    /// Opens the caches of the repository at `root`, whose project is `slug`. `None`: the user has no cache folder.
    pub(super) fn open(slug: &str, root: &Path) -> Option<Self> {
        let absolute =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        let mut hasher = DefaultHasher::new();
        // Clones of one repository share theirs; folders that have no origin do not.
        if slug.starts_with("local/") {
            root.hash(&mut hasher);
        }
        slug.hash(&mut hasher);
        let readable: String =
            slug.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(80).collect();
        let all = base.join("runlet/exec");
        let own = all.join(format!("{readable}-{:016x}", hasher.finish()));
        Some(Self { all, own })
    }

    fn object(&self, sha256: &str) -> PathBuf {
        self.own.join(format!("{sha256}.tar.lz4"))
    }

    /// Gives the control plane what earlier runs have kept.
    pub(super) fn load(&self, running: &Running, slug: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for (path, record) in records(&self.own) {
            let file = self.object(&record.sha256);
            let is_old = Duration::from_millis(record.created_at_ms) + KEPT < now;
            if is_old || fs::metadata(&file).map_or(true, |about| about.len() != record.length) {
                let _ = fs::remove_file(path);
                continue;
            }
            let Record { key, sha256, length, created_at_ms } = record;
            let cache = Cache { id: String::new(), key, archive: Archive { sha256, length }, created_at_ms };
            if let Err(error) = running.add_cache(slug, &cache, &file, KEPT) {
                super::tell::tell(format_args!(
                    "runlet: the cache `{}` of an earlier run is left out: {error}",
                    cache.key
                ));
            }
        }
    }

    /// Keeps the caches that the control plane has now. The error is a sentence for people.
    pub(super) fn keep(&self, running: &Running, slug: &str) -> Result<(), String> {
        let found = running.caches(slug).map_err(|error| error.to_string())?;
        if found.is_empty() {
            return Ok(());
        }
        let fail = |path: &Path, e: io::Error| format!("failed to keep caches in `{}`: {e}", path.display());
        fs::create_dir_all(&self.own).map_err(|e| fail(&self.own, e))?;
        for (cache, file) in found {
            let Cache { key, archive: Archive { sha256, length }, created_at_ms, .. } = cache;
            let object = self.object(&sha256);
            // The archive of an earlier run is a link to the very file.
            if !object.exists() {
                put(&file, &object).map_err(|e| fail(&object, e))?;
            }
            let mut hasher = DefaultHasher::new();
            key.hash(&mut hasher);
            let path = self.own.join(format!("{:016x}.json", hasher.finish()));
            let record = serde_json::to_vec(&Record { key, sha256, length, created_at_ms });
            let record = record.map_err(|e| fail(&path, e.into()))?;
            let beside = path.with_extension(format!("{}.new", std::process::id()));
            fs::write(&beside, record)
                .and_then(|()| fs::rename(&beside, &path))
                .map_err(|e| fail(&path, e))?;
        }
        trim(&self.all, MOST_BYTES).map_err(|e| fail(&self.all, e))
    }
}

/// The records in the folder of one repository.
fn records(folder: &Path) -> Vec<(PathBuf, Record)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let record = |path: PathBuf| {
        let text = fs::read(&path).ok().filter(|_| path.extension().is_some_and(|e| e == "json"))?;
        Some((path, serde_json::from_slice(&text).ok()?))
    };
    entries.filter_map(record).collect()
}

/// Moves a file, to another disk if need be; it is there as a whole or not at all.
fn put(file: &Path, object: &Path) -> io::Result<()> {
    if fs::rename(file, object).is_ok() {
        return Ok(());
    }
    let beside = object.with_extension(format!("{}.new", std::process::id()));
    fs::copy(file, &beside).and_then(|_| fs::rename(&beside, object))
}

/// Removes the oldest caches until the others take `most` bytes, and files of old that no record names.
fn trim(all: &Path, most: u64) -> io::Result<()> {
    let mut kept = Vec::new();
    for folder in fs::read_dir(all)?.flatten().map(|entry| entry.path()) {
        kept.extend(records(&folder).into_iter().map(|(path, record)| (folder.clone(), path, record)));
    }
    kept.sort_by_key(|(_, _, record)| std::cmp::Reverse(record.created_at_ms));
    let (mut named, mut forgotten) = (BTreeSet::new(), BTreeSet::new());
    let mut bytes = 0;
    for (folder, path, record) in kept {
        let object = folder.join(format!("{}.tar.lz4", record.sha256));
        let more = if named.contains(&object) { 0 } else { record.length };
        if bytes + more > most && !named.contains(&object) {
            fs::remove_file(path)?;
            forgotten.insert(object);
        } else {
            bytes += more;
            named.insert(object);
        }
    }
    let day = Duration::from_secs(24 * 60 * 60);
    for folder in fs::read_dir(all)?.flatten() {
        for entry in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let (path, about) = (entry.path(), entry.metadata()?);
            let age = about.modified().ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
            let is_record = path.extension().is_some_and(|e| e == "json");
            // Another run may be about to name one that is new.
            if forgotten.contains(&path) || !is_record && !named.contains(&path) && age > day {
                fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot write its files should fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_caches_go() {
        let all = tempfile::tempdir().unwrap();
        for (repository, key, length, created_at_ms) in
            [("a", "old", 60, 1), ("a", "new", 60, 3), ("b", "middle", 30, 2)]
        {
            let folder = all.path().join(repository);
            fs::create_dir_all(&folder).unwrap();
            let record = Record { key: key.into(), sha256: key.into(), length, created_at_ms };
            fs::write(folder.join(format!("{key}.json")), serde_json::to_vec(&record).unwrap()).unwrap();
            fs::write(folder.join(format!("{key}.tar.lz4")), "x").unwrap();
        }
        fs::write(all.path().join("b/soon.tar.lz4"), "x").unwrap();
        trim(all.path(), 100).unwrap();
        let mut left = Vec::new();
        for folder in ["a", "b"] {
            left.extend(
                fs::read_dir(all.path().join(folder)).unwrap().map(|entry| entry.unwrap().file_name()),
            );
        }
        left.sort();
        assert_eq!(left, ["middle.json", "middle.tar.lz4", "new.json", "new.tar.lz4", "soon.tar.lz4"]);
    }
}
