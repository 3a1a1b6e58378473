//! `persist_to_workspace` and `attach_workspace`.

use super::download::Download;
use super::packing::{self, Uploaded};
use super::upload;
use crate::archive::unpack::{self, Target};
use crate::archive::{Error, lz4};
use crate::executor::beside::beside;
use crate::executor::control::Control;
use crate::executor::end::StepEnd;
use crate::executor::host::TaskHost;
use crate::executor::output::log::{StepLog, counted};
use crate::executor::output::report::Reporter;
use crate::executor::places::Places;
use crate::glob::{self, Dialect};
use crate::http::Body;
use crate::protocol::{Layer, LayerRecord, Workspace};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Most files and folders that one pattern may match.
const MOST_MATCHES: usize = 100_000;

/// Runs the step `persist_to_workspace`.
pub(super) fn persist(
    host: &TaskHost,
    control: &mut Control,
    reporter: &Reporter,
    root: &str,
    paths: &[String],
    log: &StepLog,
) -> Result<StepEnd, StepEnd> {
    let (places, root, paths) = (host.places.clone(), root.to_owned(), paths.to_owned());
    let found = beside(control, move |_| {
        let from = places.persisted(&root, &paths);
        stays_inside(&places, &from, &from)?;
        let names = without_links_home(&places, &from, persisted(&from, &paths)?)?;
        names.iter().try_for_each(|name| stays_inside(&places, &from, &from.join(name)))?;
        Ok::<_, String>((from, names))
    })?;
    let (root, names) = found.map_err(StepEnd::failed)?;
    let from = root.clone();
    let uploaded = packing::upload(&host.private.path, control, reporter, log, move |packer| {
        names.iter().try_for_each(|name| packer.add(&from.join(name), name.as_bytes()))
    });
    let Uploaded { archive, summary } = match uploaded {
        Ok(Some(uploaded)) => uploaded,
        Ok(None) => {
            log.note(&format!("nothing was persisted: `{}` is empty", root.display()));
            return Ok(StepEnd::success());
        }
        Err(packing::Error::Ended(end)) => return Err(end),
        Err(packing::Error::Stopped) => return Err(control.stopped_end()),
        Err(packing::Error::Unread(why)) => {
            return Err(StepEnd::failed(format!("failed to persist: {why}")));
        }
        Err(packing::Error::Upload(why)) => {
            return Err(StepEnd::failed(format!("failed to upload the layer: {why}")));
        }
    };
    let record = LayerRecord { archive, step: log.step() };
    match upload::post::<serde::de::IgnoredAny>(control, reporter, "workspace", &record)? {
        Ok(_) => {
            log.note(&format!("persisted {summary}"));
            Ok(StepEnd::success())
        }
        Err(why) => Err(StepEnd::failed(format!("failed to store the layer: {why}"))),
    }
}

/// Runs the step `attach_workspace`.
pub(super) fn attach(
    places: &Places,
    control: &mut Control,
    reporter: &Reporter,
    at: &str,
    log: &StepLog,
) -> Result<StepEnd, StepEnd> {
    let at = places.attached(at);
    let (asked, places, to) = (reporter.clone(), places.clone(), at.clone());
    let workspace = beside(control, move |_| {
        let workspace: Workspace = asked
            .call("GET", "workspace", Body::Empty)
            .map_err(|why| StepEnd::failed(format!("failed to ask for the workspace: {why}")))?;
        stays_inside(&places, &to, &to).map_err(StepEnd::failed)?;
        std::fs::create_dir_all(&to)
            .map_err(|error| StepEnd::by_error(&format!("cannot create `{}`", to.display()), &error))?;
        Ok::<_, StepEnd>(workspace)
    })?;
    let workspace = match workspace {
        Ok(workspace) => workspace,
        Err(_) if control.stopped().is_some() => return Err(control.stopped_end()),
        Err(end) => return Err(end),
    };
    if workspace.layers.is_empty() {
        log.note("there is nothing in the workspace: no job that this one requires has persisted anything");
        return Ok(StepEnd::success());
    }
    let (reporter, log) = (reporter.clone(), log.clone());
    match beside(control, move |stop| unpack_layers(&reporter, &at, &workspace, &log, stop))? {
        Ok(()) => Ok(StepEnd::success()),
        Err(Error::Stopped) => Err(control.stopped_end()),
        Err(Error::Failed(why)) => Err(StepEnd::failed(why)),
        Err(Error::Infrastructure(why)) => Err(StepEnd::of_host(why)),
    }
}

/// Unpacks the layers, one after the other.
fn unpack_layers(
    reporter: &Reporter,
    at: &Path,
    workspace: &Workspace,
    log: &StepLog,
    stop: &AtomicBool,
) -> Result<(), Error> {
    let mut owners = Owners { track: may_conflict(workspace), by_file: BTreeMap::new() };
    for layer in &workspace.layers {
        let job = workspace.jobs.get(layer.job).map(|job| &job.name);
        let job =
            job.ok_or_else(|| Error::Failed("the control plane's list of layers makes no sense".to_owned()))?;
        let download = Download::new(reporter, format!("workspace/{}", layer.id), layer.archive.clone());
        let mut target = Attached { at, workspace, layer, owners: &mut owners, stop };
        let failed = |why| format!("failed to attach what the job `{job}` persisted: {why}");
        match unpack::unpack(lz4::Reader::new(download), &mut target) {
            Ok(done) => log.note(&format!(
                "attached {} of the job `{job}`, {}",
                counted(done.files, "file"),
                counted(done.bytes, "byte")
            )),
            Err(Error::Stopped) => return Err(Error::Stopped),
            Err(Error::Failed(why)) => return Err(Error::Failed(failed(why))),
            Err(Error::Infrastructure(why)) => return Err(Error::Infrastructure(failed(why))),
        }
    }
    Ok(())
}

/// Refuses a path that a link leads out of the root and of the job's folders. A link at the path itself leads nowhere: it is
/// stored as a link.
fn stays_inside(places: &Places, root: &Path, path: &Path) -> Result<(), String> {
    let path = if path != root && path.is_symlink() { path.parent().unwrap_or(root) } else { path };
    let Ok(found) = path.canonicalize() else { return Ok(()) };
    let is_inside = |folder: &Path| folder.canonicalize().is_ok_and(|folder| found.starts_with(folder));
    let stays = match path == root {
        true => places.led_out(path).is_none(),
        false => is_inside(root) || is_inside(&places.directory),
    };
    if stays {
        return Ok(());
    }
    Err(format!(
        "a link leads from `{}` to `{}`, out of the job's folders (if that is meant, make it the root)",
        path.display(),
        found.display()
    ))
}

/// Leaves out what is in the home of the job as a link only: nothing else of it is left when all of it is persisted.
fn without_links_home(places: &Places, root: &Path, mut names: Vec<String>) -> Result<Vec<String>, String> {
    if root == places.home && places.has_own_home() {
        if names.iter().any(String::is_empty) {
            names = persisted(root, &["*".to_owned()])?;
        }
        names.retain(|name| !places.is_lent(&root.join(name)));
    }
    Ok(names)
}

/// Names to persist, below `root`. Every path must be there.
fn persisted(root: &Path, paths: &[String]) -> Result<Vec<String>, String> {
    if !root.is_dir() {
        return Err(format!("the root `{}` is not a folder", root.display()));
    }
    let mut names = Vec::new();
    for path in paths {
        let escapes = Path::new(path).components().any(|part| part == Component::ParentDir);
        if escapes || path.starts_with(['/', '~']) {
            return Err(format!(
                "the path `{path}` is not below the root: it must be relative, without `..`"
            ));
        }
        let pattern: Vec<_> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        if pattern.is_empty() {
            // The root itself: all that is in it.
            return Ok(vec![String::new()]);
        }
        let found = glob::find(root, &pattern.join("/"), Dialect::Go, MOST_MATCHES)?;
        if found.is_empty() {
            return Err(format!("nothing in `{}` matches the path `{path}`", root.display()));
        }
        names.extend(found);
    }
    names.sort();
    names.dedup();
    // Files below a folder that is there as a whole would be stored twice.
    let mut kept: Vec<String> = Vec::new();
    for name in names {
        let covered = kept.iter().rev().any(|folder| {
            name.strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/'))
                && root.join(folder).is_dir()
        });
        if !covered {
            kept.push(name);
        }
    }
    Ok(kept)
}

/// Whether the layer `second` may hold a file that `first`, an earlier one, holds: it then replaces it.
fn follows(workspace: &Workspace, first: &Layer, second: &Layer) -> bool {
    if first.job == second.job {
        return first.node_index == second.node_index;
    }
    workspace.jobs.get(second.job).is_some_and(|job| job.after.contains(&first.job))
}

/// Whether any two layers come from jobs or nodes that may have run at the same time.
fn may_conflict(workspace: &Workspace) -> bool {
    let pairs = workspace.layers.iter().enumerate();
    pairs
        .flat_map(|(at, second)| workspace.layers[..at].iter().map(move |first| (first, second)))
        .any(|(first, second)| !follows(workspace, first, second))
}

/// Which layer a file has come from. Kept only where there can be a conflict: it takes memory.
struct Owners<'w> {
    track: bool,
    by_file: BTreeMap<PathBuf, &'w Layer>,
}

struct Attached<'a, 'w> {
    at: &'a Path,
    workspace: &'w Workspace,
    layer: &'w Layer,
    owners: &'a mut Owners<'w>,
    stop: &'a AtomicBool,
}

impl Target for Attached<'_, '_> {
    fn place(&mut self, name: &Path, is_folder: bool) -> Result<PathBuf, String> {
        let inside = unpack::inside(name).filter(|inside| is_folder || !inside.as_os_str().is_empty());
        let inside =
            inside.ok_or_else(|| format!("the archive is damaged: `{}` leaves it", name.display()))?;
        if !is_folder && self.owners.track {
            if let Some(first) = self.owners.by_file.insert(inside.clone(), self.layer) {
                if !follows(self.workspace, first, self.layer) {
                    let name = |layer: &Layer| {
                        let name = self.workspace.jobs.get(layer.job).map_or("?", |job| &job.name);
                        format!("`{name}` (node {})", layer.node_index)
                    };
                    return Err(format!(
                        "`{}` was persisted by {} and by {}, which may run at the same time, so there is no saying which is right: let one require the other, or persist under different names",
                        inside.display(),
                        name(first),
                        name(self.layer)
                    ));
                }
            }
        }
        Ok(self.at.join(inside))
    }

    fn root(&self) -> Option<&Path> {
        Some(self.at)
    }

    fn is_stopped(&mut self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::{Archive, LayerJob};
    use std::fs;

    #[test]
    fn paths_are_found_below_the_root_only() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("out/deep")).unwrap();
        for name in ["out/a.txt", "out/b.txt", "out/deep/c.txt", "d.txt"] {
            fs::write(root.join(name), name).unwrap();
        }
        let all = |paths: &[&str]| {
            persisted(root, &paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(all(&["out/*.txt", "./d.txt"]).unwrap(), ["d.txt", "out/a.txt", "out/b.txt"]);
        assert_eq!(all(&["out/deep", "out", "out/a.txt"]).unwrap(), ["out"]);
        assert_eq!(all(&["."]).unwrap(), [""]);
        for (paths, why) in [
            (&["none"][..], "nothing in"),
            (&["out", "x*"], "matches the path `x*`"),
            (&["../x"], "not below the root"),
            (&["/etc"], "not below the root"),
        ] {
            assert!(all(paths).unwrap_err().contains(why), "{paths:?}");
        }
        assert!(persisted(&root.join("d.txt"), &["x".to_owned()]).unwrap_err().contains("not a folder"));
    }

    #[test]
    fn only_layers_that_have_no_order_can_conflict() {
        let layer = |job, node_index| Layer {
            id: String::new(),
            job,
            node_index,
            archive: Archive { sha256: String::new(), length: 0 },
        };
        let job = |after: &[usize]| LayerJob { name: "j".into(), after: after.to_vec() };
        let chain = Workspace {
            jobs: vec![job(&[]), job(&[0])],
            layers: vec![layer(0, 0), layer(0, 0), layer(1, 0)],
        };
        assert!(!may_conflict(&chain));
        let fork = Workspace { jobs: vec![job(&[]), job(&[])], layers: vec![layer(0, 0), layer(1, 0)] };
        assert!(may_conflict(&fork));
        let nodes = Workspace { jobs: vec![job(&[])], layers: vec![layer(0, 0), layer(0, 1)] };
        assert!(may_conflict(&nodes));
    }
}
