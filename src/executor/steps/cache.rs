//! `save_cache` and `restore_cache`.
//!
//! Names in the archive say what a path was relative to, so that a cache comes back where the next job has
//! its home and its working directory: `work/`, `home/` or `root/`.

use super::cache_key::{self, Values};
use super::download::Download;
use super::files::sha256;
use super::packing::{self, Uploaded};
use crate::archive::unpack::{self, Target};
use crate::archive::{Error, lz4};
use crate::executor::end::StepEnd;
use crate::executor::output::log::{StepLog, counted};
use crate::executor::places::Places;
use crate::executor::task::TaskRun;
use crate::protocol::{CacheAnswer, CacheRecord, FindCache, FoundCache};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

impl TaskRun {
    pub(super) fn save_cache(&mut self, key: &str, paths: &[String], log: &StepLog) -> StepEnd {
        let key = match cache_key::render(key, self) {
            Ok(key) => key,
            Err(why) => return StepEnd::failed(why),
        };
        match self.find_cache(vec![key.clone()], true) {
            Ok(FoundCache { cache: Some(_) }) => {
                log.note(&format!("skipped: there is a cache with the key `{key}` already"));
                return StepEnd::success();
            }
            Ok(FoundCache { cache: None }) => {}
            Err(why) => return self.not_saved(&why, log),
        }
        let places = self.places.clone();
        let uploaded = self.upload_packed(log, |packer| {
            for path in paths {
                let place = places.of(path);
                if place.symlink_metadata().is_err() {
                    packer.notes.push(format!("warning: there is no `{}` to save", place.display()));
                    continue;
                }
                packer.add(&place, archived_name(path).as_bytes())?;
            }
            Ok(())
        });
        let Uploaded { archive, summary } = match uploaded {
            Ok(Some(uploaded)) => uploaded,
            Ok(None) => {
                log.note("nothing was saved: none of the paths has anything in it");
                return StepEnd::success();
            }
            Err(packing::Error::Stopped) => return self.stopped_end(),
            Err(packing::Error::Packing(why)) => {
                return StepEnd::failed(format!("failed to save the cache: {why}"));
            }
            Err(packing::Error::Upload(why)) => return self.not_saved(&why, log),
        };
        match self.post::<CacheAnswer>("caches", &CacheRecord { key: key.clone(), archive }) {
            Ok(CacheAnswer { stored: true }) => log.note(&format!("saved the cache `{key}`: {summary}")),
            Ok(CacheAnswer { stored: false }) => {
                log.note(&format!("skipped: another job has saved the key `{key}` meanwhile"));
            }
            Err(why) => return self.not_saved(&why, log),
        }
        StepEnd::success()
    }

    /// A cache only saves time: without it the job is as good.
    fn not_saved(&mut self, why: &str, log: &StepLog) -> StepEnd {
        if self.stopped().is_some() {
            return self.stopped_end();
        }
        log.note(&format!("warning: the cache was not saved: {why}"));
        StepEnd::success()
    }

    pub(super) fn restore_cache(&mut self, keys: &[String], log: &StepLog) -> StepEnd {
        let mut rendered = Vec::new();
        for key in keys {
            match cache_key::render(key, self) {
                Ok(key) => rendered.push(key),
                Err(why) => return StepEnd::failed(why),
            }
        }
        let shown = rendered.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let found = match self.find_cache(rendered, false) {
            Ok(found) => found,
            Err(_) if self.stopped().is_some() => return self.stopped_end(),
            Err(why) => return StepEnd::failed(format!("failed to look for a cache: {why}")),
        };
        let Some(cache) = found.cache else {
            log.note(&format!("warning: no cache was found for {shown}"));
            return StepEnd::success();
        };
        log.note(&format!("found the cache `{}` ({})", cache.key, counted(cache.archive.length, "byte")));
        let reporter = self.reporter.clone();
        let download = Download::new(&reporter, format!("caches/{}", cache.id), cache.archive);
        let places = self.places.clone();
        let unpacked =
            unpack::unpack(lz4::Reader::new(download), &mut Restored { places: &places, task: self });
        match unpacked {
            Ok(done) => {
                log.note(&format!(
                    "restored {}, {}",
                    counted(done.files, "file"),
                    counted(done.bytes, "byte")
                ));
                StepEnd::success()
            }
            Err(Error::Stopped) => self.stopped_end(),
            Err(Error::Failed(why)) => {
                StepEnd::failed(format!("failed to restore the cache `{}`: {why}", cache.key))
            }
        }
    }

    fn find_cache(&self, keys: Vec<String>, exact: bool) -> Result<FoundCache, String> {
        self.post("caches/find", &FindCache { keys, exact })
    }
}

/// The name of a path of the config in a cache.
fn archived_name(path: &str) -> String {
    let parts = |path: &str| {
        let parts: Vec<_> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        parts.join("/")
    };
    let (root, rest) = match (path, path.strip_prefix("~/")) {
        ("~", _) => ("home", String::new()),
        (_, Some(rest)) => ("home", parts(rest)),
        _ if path.starts_with('/') => ("root", parts(path)),
        _ => ("work", parts(path)),
    };
    if rest.is_empty() { root.to_owned() } else { format!("{root}/{rest}") }
}

/// Place of a name of a cache on this host.
fn restored_place(places: &Places, name: &Path) -> Option<PathBuf> {
    let mut parts = name.components();
    let root = parts.next()?.as_os_str();
    let rest = parts.as_path().as_os_str().as_bytes();
    let prefix: &[u8] = match root.as_bytes() {
        b"work" => b"./",
        b"home" => b"~/",
        b"root" => b"/",
        _ => return None,
    };
    let written = [prefix, rest].concat();
    match std::str::from_utf8(&written) {
        Ok(text) => Some(places.of(text)),
        // Only the part that the config names can lead elsewhere, and that is text.
        Err(_) => {
            let base = places.of(std::str::from_utf8(prefix).ok()?);
            Some(base.join(OsStr::from_bytes(rest)))
        }
    }
}

struct Restored<'t> {
    places: &'t Places,
    task: &'t mut TaskRun,
}

impl Target for Restored<'_> {
    fn place(&mut self, name: &Path, _is_folder: bool) -> Result<PathBuf, String> {
        restored_place(self.places, name)
            .ok_or_else(|| format!("the archive is damaged: `{}` is no name of a cache", name.display()))
    }

    fn is_stopped(&mut self) -> bool {
        self.task.stopped().is_some()
    }
}

impl Values for TaskRun {
    fn field(&self, name: &str) -> Option<String> {
        let built_in = |name: &str| self.input.task.built_in.get(name).cloned().unwrap_or_default();
        match name {
            "Branch" => Some(built_in("CIRCLE_BRANCH")),
            "BuildNum" => Some(built_in("CIRCLE_BUILD_NUM")),
            "Revision" => Some(built_in("CIRCLE_SHA1")),
            // Checkouts here use the credentials of the host.
            "CheckoutKey" => Some(String::new()),
            _ => None,
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        let task = &self.input.task;
        let own = task.built_in.get(name).cloned();
        own.or_else(|| {
            let found = task.variables.iter().rev().find(|variable| variable.name == name);
            found.map(|variable| variable.value.expose().to_owned())
        })
    }

    fn checksum(&self, path: &str) -> Result<String, String> {
        let place = self.places.of(path);
        let sum = File::open(&place).and_then(|mut file| sha256(&mut file));
        let sum = sum.map(|(_, sum)| STANDARD.encode(sum));
        sum.map_err(|error| format!("the checksum of `{}` cannot be made: {error}", place.display()))
    }

    fn epoch(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
    }

    fn arch(&self) -> String {
        cache_key::arch(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_back_relative_to_what_they_were_written_relative_to() {
        let before = Places::new("/w/a", None, "/home/a".into(), false);
        let after = Places::new("/v/b", None, "/home/b".into(), false);
        for (path, name, place) in [
            ("target", "work/target", "/v/b/target"),
            ("./x/./y", "work/x/y", "/v/b/x/y"),
            (".", "work", "/v/b"),
            ("../up", "work/../up", "/v/b/../up"),
            ("~/.cargo/registry", "home/.cargo/registry", "/home/b/.cargo/registry"),
            ("~", "home", "/home/b"),
            ("/opt/cache", "root/opt/cache", "/opt/cache"),
        ] {
            assert_eq!(archived_name(path), name);
            let found =
                restored_place(&after, Path::new(name)).map(|found| found.components().collect::<PathBuf>());
            assert_eq!(found.as_deref(), Some(Path::new(place)), "{path} in {}", before.directory.display());
        }
        assert_eq!(restored_place(&after, Path::new("etc/passwd")), None);
    }
}
