//! Retention: artifacts 30 days, caches and workspace layers 15 (or less, as their job
//! says), and the bytes of an upload as long as something names them.

use crate::logging::record;
use crate::server::blobs::{self, Blobs};
use crate::server::state::Shared;
use crate::server::store::tables::{archives, results};
use crate::server::store::{Error, Tx};
use crate::server::time::Millis;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const ARTIFACT_DAYS: u32 = 30;
/// How long uploads stay that no row names: their row may be about to be written.
const UNNAMED: Duration = DAY;

/// Forgets what is too old; returns how much.
pub(in crate::server) fn expire_once(tx: &Tx<'_>, now: Millis) -> Result<usize, Error> {
    Ok(archives::delete_expired_caches(tx, now)?
        + archives::delete_expired_layers(tx, now)?
        + results::delete_artifacts_before(tx, now.minus(DAY * ARTIFACT_DAYS))?)
}

/// One pass: rows first, then the bytes that nothing names any more.
pub(in crate::server) async fn sweep_once(state: &Shared) {
    match state.store.write(|tx| expire_once(tx, Millis::now())).await {
        Ok(0) | Err(Error::Closed) => {}
        Ok(count) => {
            record!(Info, count = count; "artifacts, caches and workspace layers were too old and are gone")
        }
        Err(error) => log::error!("failed to remove what is too old: {error}"),
    }
    let since = SystemTime::now() - UNNAMED;
    let blobs = state.blobs.clone();
    let Some(unused) = told(blocking(move || blobs.objects.unused_since(since)).await) else { return };
    let named = state.store.read(move |c| {
        let mut unnamed = Vec::new();
        for sha256 in unused {
            if !archives::names_upload(c, &sha256)? {
                unnamed.push(sha256);
            }
        }
        Ok(unnamed)
    });
    let unnamed = match named.await {
        Ok(unnamed) => unnamed,
        Err(error) => return log::error!("failed to look for uploads that nothing names: {error}"),
    };
    let blobs = state.blobs.clone();
    // Whoever asks for one of them now keeps it: that is looked at again for each.
    let removed = told(blocking(move || remove(&blobs, &unnamed, since)).await);
    if let Some(count @ 1..) = removed {
        record!(Info, count = count; "uploads that nothing names are gone");
    }
}

fn remove(blobs: &Blobs, unnamed: &[String], since: SystemTime) -> Result<usize, blobs::Error> {
    let mut removed = 0;
    for sha256 in unnamed {
        removed += usize::from(blobs.objects.remove(sha256, since)?);
    }
    Ok(removed)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, blobs::Error> + Send + 'static,
) -> Result<T, String> {
    let result = tokio::task::spawn_blocking(work).await;
    result.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

fn told<T>(result: Result<T, String>) -> Option<T> {
    result.map_err(|error| log::error!("failed to remove uploads that nothing names: {error}")).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::{Archive, CacheRecord, FindCache, TaskId};
    use crate::server::engine::archives::{find_cache, save_cache};
    use crate::server::state::Routing;
    use crate::server::store::tables::projects::ensure_project;
    use crate::server::store::{Store, scene};

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    fn record(key: &str, sha256: &str) -> CacheRecord {
        CacheRecord { key: key.into(), archive: Archive { sha256: sha256.into(), length: 1 } }
    }

    fn find(tx: &Tx<'_>, project: &str, keys: &[&str], exact: bool, now: u64) -> Option<String> {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        find_cache(tx, &project.into(), &FindCache { keys, exact }, Millis(now))
            .unwrap()
            .map(|cache| cache.key)
    }

    /// A job with a cache retention of two days, and its task.
    fn task(tx: &Tx<'_>) -> (TaskId, String) {
        ensure_project(tx, "gh/acme/app", None, Millis(0)).unwrap();
        scene::insert_class(tx).unwrap();
        let project = scene::project(tx).unwrap();
        let pipeline = scene::insert_pipeline(tx, 1, "main", Millis(0)).unwrap();
        let text = "version: 2.1
jobs: {j: {machine: true, resource_class: a/b, retention: {caches: 2d}, steps: [checkout]}}
workflows: {w: {jobs: [j]}}";
        let compiled = crate::config::probe::compile_text(text).map_err(|e| e.to_string()).unwrap();
        let workflow = &compiled.workflows[0];
        let made = crate::server::engine::commit::create_workflow(
            tx,
            &pipeline,
            &project,
            workflow,
            false,
            &Routing::default(),
            Millis(0),
        )
        .unwrap();
        let task = scene::unfinished_tasks(tx, &made, "j").unwrap().remove(0);
        (task, project.into())
    }

    #[test]
    fn the_first_cache_of_a_key_stays_until_its_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), false, |_| ()).unwrap();
        let check = |tx: &Tx<'_>| {
            let (task, project) = task(tx);
            assert!(save_cache(tx, &task, &record("v1-app", "a"), Millis(0)).unwrap());
            assert!(
                save_cache(tx, &task, &record("v1-app", "a"), Millis(1)).unwrap(),
                "the same record sent again"
            );
            assert!(!save_cache(tx, &task, &record("v1-app", "b"), Millis(2)).unwrap());
            assert!(save_cache(tx, &task, &record("v1-app-new", "b"), Millis(3)).unwrap());
            for (keys, exact, found) in [
                (&["v1-app"][..], false, Some("v1-app-new")),
                (&["v1-app"], true, Some("v1-app")),
                (&["v1-"], true, None),
                (&["none", "v1-app-n", "v1-app"], false, Some("v1-app-new")),
                (&["V1", "%", "_"], false, None),
            ] {
                assert_eq!(find(tx, &project, keys, exact, 4).as_deref(), found, "{keys:?}");
            }
            assert_eq!(find(tx, "another", &["v1"], false, 4), None);
            // Two days, as the job says.
            assert_eq!(find(tx, &project, &["v1-app"], true, 2 * DAY_MS - 1).as_deref(), Some("v1-app"));
            assert_eq!(find(tx, &project, &["v1-app"], true, 2 * DAY_MS), None);
            assert!(archives::names_upload(tx, "a").unwrap());
            assert!(save_cache(tx, &task, &record("v1-app", "c"), Millis(2 * DAY_MS)).unwrap());
            assert!(!archives::names_upload(tx, "a").unwrap() && archives::names_upload(tx, "c").unwrap());
            assert_eq!(expire_once(tx, Millis(2 * DAY_MS + 3)).unwrap(), 1);
            assert_eq!(expire_once(tx, Millis(4 * DAY_MS)).unwrap(), 1);
            assert!(!archives::names_upload(tx, "b").unwrap() && !archives::names_upload(tx, "c").unwrap());
            Ok(())
        };
        store.write_blocking(check).unwrap();
    }

    #[test]
    fn artifacts_are_kept_thirty_days() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), false, |_| ()).unwrap();
        let check = |tx: &Tx<'_>| {
            task(tx);
            scene::insert_artifact(tx, "sum")?;
            assert_eq!(expire_once(tx, Millis(30 * DAY_MS))?, 0);
            assert!(archives::names_upload(tx, "sum")?);
            assert_eq!(expire_once(tx, Millis(30 * DAY_MS + 1))?, 1);
            assert!(!archives::names_upload(tx, "sum")?);
            Ok(())
        };
        store.write_blocking(check).unwrap();
    }
}
