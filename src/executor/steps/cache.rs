//! `save_cache` and `restore_cache`.
//!
//! Names in the archive say what a path was relative to, so that a cache comes back where the next job has
//! its home and its working directory: `work/`, `home/` or `root/`.

use super::cache_key::{self, Values};
use super::download::Download;
use super::files::sha256;
use super::packing::{self, Uploaded};
use super::upload;
use crate::archive::unpack::{self, Target};
use crate::archive::{Error, lz4};
use crate::executor::beside::beside;
use crate::executor::control::Control;
use crate::executor::end::StepEnd;
use crate::executor::environment;
use crate::executor::host::TaskHost;
use crate::executor::output::log::{StepLog, counted};
use crate::executor::output::report::Reporter;
use crate::executor::output::secrets::Secrets;
use crate::executor::places::Places;
use crate::executor::records::Records;
use crate::protocol::{CacheAnswer, CacheRecord, FindCache, FoundCache, Task, Variable};
use crate::system::hex;
use crate::system::opening::open_regular;
use crate::system::os::OsStrExt;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// Runs the step `save_cache`.
pub(super) fn save(
    task: &Task,
    host: &TaskHost,
    control: &mut Control,
    records: &Records,
    key: &str,
    paths: &[String],
    log: &StepLog,
) -> Result<StepEnd, StepEnd> {
    let key = keys(task, &host.places, control, &records.secrets, vec![key.to_owned()])?.remove(0);
    let reporter = &records.reporter;
    match find(control, reporter, vec![key.clone()], true)? {
        Ok(FoundCache { cache: Some(_) }) => {
            log.note(&format!("skipped: there is a cache with the key `{key}` already"));
            return Ok(StepEnd::success());
        }
        Ok(FoundCache { cache: None }) => {}
        Err(why) => return Ok(not_saved(control, &why, log)),
    }
    let (places, paths) = (host.places.clone(), paths.to_owned());
    let uploaded = packing::upload(&host.private.path, control, reporter, log, move |packer| {
        for path in paths.iter().flat_map(|path| places.parts_of_home(path)) {
            let path = &path;
            let place = places.of(path);
            if let Err(error) = place.symlink_metadata() {
                let why = match error.kind() {
                    io::ErrorKind::NotFound => format!("there is no `{}` to save", place.display()),
                    _ => format!("cannot save `{}`: {error}", place.display()),
                };
                packer.notes.push(format!("warning: {why}"));
                continue;
            }
            // A link of the job is saved as one, whatever it leads to.
            let leads_on = place.is_symlink();
            let is_link = leads_on && places.is_of_job(&place) && place != places.directory;
            match places.led_out(if is_link { place.parent().unwrap_or(&place) } else { &place }) {
                Some(to) if places.is_of_job(&place) => {
                    packer.notes.push(format!(
                        "warning: skipped `{}`: a link leads from there to `{}`, out of the working directory (if that is meant, name that place)",
                        place.display(),
                        to.display()
                    ));
                    continue;
                }
                // A link that the host has there, to a larger disk, say.
                Some(to) => packer.notes.push(format!("`{}` is `{}`", place.display(), to.display())),
                None if is_link => {
                    packer.notes.push(format!("`{}` is a link, and saved as one", place.display()))
                }
                None => {}
            }
            let place = if leads_on && !is_link { place.canonicalize().unwrap_or(place) } else { place };
            packer.add(&place, archived_name(path).as_bytes())?;
        }
        Ok(())
    });
    let Uploaded { archive, summary } = match uploaded {
        Ok(Some(uploaded)) => uploaded,
        Ok(None) => {
            log.note("nothing was saved: none of the paths has anything in it");
            return Ok(StepEnd::success());
        }
        Err(packing::Error::Ended(end)) => return Err(end),
        Err(packing::Error::Stopped) => return Err(control.stopped_end()),
        Err(packing::Error::Unread(why)) => {
            return Err(StepEnd::failed(format!("failed to save the cache: {why}")));
        }
        Err(packing::Error::Upload(why)) => return Ok(not_saved(control, &why, log)),
    };
    match upload::post(control, reporter, "caches", &CacheRecord { key: key.clone(), archive })? {
        Ok(CacheAnswer { stored: true }) => log.note(&format!("saved the cache `{key}`: {summary}")),
        Ok(CacheAnswer { stored: false }) => {
            log.note(&format!("skipped: another job has saved the key `{key}` meanwhile"));
        }
        Err(why) => return Ok(not_saved(control, &why, log)),
    }
    Ok(StepEnd::success())
}

/// A cache only saves time: without it the job is as good.
fn not_saved(control: &mut Control, why: &str, log: &StepLog) -> StepEnd {
    if control.stopped().is_some() {
        return control.stopped_end();
    }
    log.note(&format!("warning: the cache was not saved: {why}"));
    StepEnd::success()
}

/// Runs the step `restore_cache`.
pub(super) fn restore(
    task: &Task,
    places: &Places,
    control: &mut Control,
    records: &Records,
    templates: &[String],
    log: &StepLog,
) -> Result<StepEnd, StepEnd> {
    let rendered = keys(task, places, control, &records.secrets, templates.to_owned())?;
    let shown = rendered.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    let found = match find(control, &records.reporter, rendered, false)? {
        Ok(found) => found,
        Err(_) if control.stopped().is_some() => return Err(control.stopped_end()),
        Err(why) => return Err(StepEnd::failed(format!("failed to look for a cache: {why}"))),
    };
    let Some(cache) = found.cache else {
        log.note(&format!("warning: no cache was found for {shown}"));
        return Ok(StepEnd::success());
    };
    log.note(&format!("found the cache `{}` ({})", cache.key, counted(cache.archive.length, "byte")));
    let (reporter, places) = (records.reporter.clone(), places.clone());
    let unpacked = beside(control, move |stop| {
        let download = Download::new(&reporter, format!("caches/{}", cache.id), cache.archive);
        let mut target = Restored { places: &places, root: None, stop };
        let unpacked = unpack::unpack(lz4::Reader::new(download), &mut target);
        unpacked.map_err(|error| (error, cache.key))
    })?;
    match unpacked {
        Ok(done) => {
            log.note(&format!("restored {}, {}", counted(done.files, "file"), counted(done.bytes, "byte")));
            Ok(StepEnd::success())
        }
        Err((Error::Stopped, _)) => Err(control.stopped_end()),
        Err((Error::Failed(why), key)) => {
            Err(StepEnd::failed(format!("failed to restore the cache `{key}`: {why}")))
        }
        Err((Error::Infrastructure(why), key)) => {
            Err(StepEnd::of_host(format!("failed to restore the cache `{key}`: {why}")))
        }
    }
}

fn find(
    control: &mut Control,
    reporter: &Reporter,
    keys: Vec<String>,
    exact: bool,
) -> Result<Result<FoundCache, String>, StepEnd> {
    upload::post(control, reporter, "caches/find", &FindCache { keys, exact })
}

/// The keys of templates, as they are stored: without secrets.
fn keys(
    task: &Task,
    places: &Places,
    control: &mut Control,
    secrets: &Secrets,
    templates: Vec<String>,
) -> Result<Vec<String>, StepEnd> {
    let (mut built_in, variables) = (task.built_in.clone(), task.variables.clone());
    built_in.extend(environment::of_agent(task, &places.told));
    let (places, secrets) = (places.clone(), secrets.clone());
    let rendered = beside(control, move |stop| {
        let values = TaskValues { places, secrets, built_in, variables, stop };
        let render = |template: &String| cache_key::render(template, &values);
        let keys = templates.iter().map(render).collect::<Result<Vec<_>, _>>()?;
        Ok::<_, String>(keys.iter().map(|key| values.secrets.mask(key)).collect())
    })?;
    rendered.map_err(StepEnd::failed)
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
            let (mut parts, mut written) = (parts, String::from_utf8_lossy(prefix).into_owned());
            if let Some(first) = parts.clone().next().and_then(|first| first.as_os_str().to_str()) {
                written.push_str(first);
                parts.next();
            }
            Some(places.of(&written).join(parts))
        }
    }
}

struct Restored<'t> {
    places: &'t Places,
    /// The folder that the present entry must not leave by a link: the working directory, and elsewhere the path that
    /// was saved, which may itself be a link of the host.
    root: Option<PathBuf>,
    stop: &'t AtomicBool,
}

impl Target for Restored<'_> {
    fn place(&mut self, name: &Path, is_folder: bool) -> Result<PathBuf, String> {
        let place = restored_place(self.places, name)
            .ok_or_else(|| format!("the archive is damaged: `{}` is no name of a cache", name.display()))?;
        if self.places.is_of_job(&place) {
            self.root = Some(self.places.directory.clone());
        } else if !self.root.as_ref().is_some_and(|root| place.starts_with(root)) {
            // A file or a link as such has no say about what is in it.
            let folder = if is_folder { Some(&*place) } else { place.parent() };
            self.root = folder.map(Path::to_owned);
        }
        Ok(place)
    }

    fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    fn is_stopped(&mut self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Values that cache keys refer to in a task.
struct TaskValues<'t> {
    places: Places,
    secrets: Secrets,
    built_in: BTreeMap<String, String>,
    variables: Vec<Variable>,
    stop: &'t AtomicBool,
}

impl TaskValues<'_> {
    /// A value with secrets in it has a digest in its place, so that keys differ as values do. It is short: from it
    /// nobody learns a value that cannot be guessed anyway.
    fn told(&self, value: String) -> String {
        if self.secrets.mask(&value) == value {
            return value;
        }
        let digest = ring::digest::digest(&ring::digest::SHA256, value.as_bytes());
        format!("****{}", hex(&digest.as_ref()[..4]))
    }
}

impl Values for TaskValues<'_> {
    fn field(&self, name: &str) -> Option<String> {
        let built_in = |name: &str| self.told(self.built_in.get(name).cloned().unwrap_or_default());
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
        let own = self.built_in.get(name).cloned();
        let found = own.or_else(|| {
            let found = self.variables.iter().rev().find(|variable| variable.name == name);
            found.map(|variable| variable.value.expose().to_owned())
        });
        found.map(|value| self.told(value))
    }

    fn checksum(&self, path: &str) -> Result<String, String> {
        let place = self.places.of(path);
        let sum = open_regular(&place).and_then(|mut file| sha256(&mut file, self.stop));
        let sum = sum.map(|sum| sum.map_or_else(String::new, |(_, sum)| STANDARD.encode(sum)));
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
