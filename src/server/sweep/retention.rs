//! Retention: what is older than its kind is kept, what is beyond a project's quota, and the bytes that nothing names any
//! more. All of it goes in small steps with pauses between, beside whatever runs.

use crate::logging::record;
use crate::protocol::TaskId;
use crate::server::blobs::{self, Blobs};
use crate::server::state::{Quota as Limits, Shared};
use crate::server::store::tables::archives;
use crate::server::store::tables::keeping::{self, QuotaKind, Used};
use crate::server::store::tables::small_outputs::{self, SmallOutput};
use crate::server::store::{Error, Tx, inspect};
use crate::server::time::Millis;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long uploads and output stay that no row names: their row may be about to be written.
const UNNAMED: Duration = DAY;
/// How long after its end a task has sent the last of its output for certain.
const SILENT: Duration = Duration::from_secs(25 * 60 * 60);
/// Most rows that one step takes.
const STEP: u32 = 500;
/// Pause between two steps, for the writes of others.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs steps until one has nothing to do, or the control plane stops. Returns how much they did.
async fn in_steps<F>(state: &Shared, what: &str, step: F) -> u64
where
    F: Fn(&Tx<'_>) -> Result<u64, Error> + Clone + Send + 'static,
{
    let mut done = 0;
    while !*state.stopping.borrow() {
        match state.store.write(step.clone()).await {
            Ok(0) | Err(Error::Closed) => break,
            Ok(count) => done += count,
            Err(error) => {
                log::error!("failed to remove {what}: {error}");
                break;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    if done > 0 {
        record!(Info, count = done; "{what} went");
    }
    done
}

/// Sweeps once: rows first, then the bytes that nothing names any more.
pub(in crate::server) async fn sweep_once(state: &Shared) {
    let keeping = &state.settings.keeping;
    let before = move |kept: Duration| Millis::now().minus(kept);
    in_steps(state, "caches and workspace layers that were too old", |tx| {
        Ok(keeping::delete_expired(tx, Millis::now(), STEP)? as u64)
    })
    .await;
    if let Some(kept) = keeping.artifacts {
        in_steps(state, "artifacts that were too old", move |tx| {
            Ok(keeping::delete_artifacts_before(tx, before(kept), STEP)? as u64)
        })
        .await;
    }
    if let Some(kept) = keeping.tests {
        in_steps(state, "test results that were too old", move |tx| {
            Ok(keeping::delete_tests_before(tx, before(kept), STEP)? as u64)
        })
        .await;
    }
    evict(state, QuotaKind::Caches, &keeping.cache_quota).await;
    evict(state, QuotaKind::Artifacts, &keeping.artifact_quota).await;
    if let Some(kept) = keeping.output {
        give_up_outputs(state, kept).await;
    }
    if let Some(kept) = keeping.pipelines {
        delete_pipelines(state, kept).await;
    }
    remove_unnamed_uploads(state).await;
    remove_unnamed_outputs(state).await;
}

async fn evict(state: &Shared, quota: QuotaKind, limits: &Limits) {
    let used = match state.store.read(move |view| keeping::used_by_projects(view, quota)).await {
        Ok(used) => used,
        Err(error) => return log::error!("failed to compare projects with their quota: {error}"),
    };
    state.figures.stored(quota.table(), used.iter().map(|used| used.bytes).sum());
    if !limits.is_set() {
        return;
    }
    for Used { project, slug, bytes } in used {
        let mut left = bytes.saturating_sub(limits.bytes_of(&slug).unwrap_or(bytes));
        while left > 0 && !*state.stopping.borrow() {
            let id = project.clone();
            match state.store.write(move |tx| keeping::evict(tx, quota, &id, left, STEP)).await {
                Ok(0) | Err(Error::Closed) => break,
                Ok(evicted) => {
                    record!(Info, project = slug, bytes = evicted;
                        "a project had more than its quota of {}: what was used longest ago went", quota.table()
                    );
                    left = left.saturating_sub(evicted);
                }
                Err(error) => {
                    record!(Error, project = slug; "failed to bring a project below its quota: {error}");
                    return;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn give_up_outputs(state: &Shared, kept: Duration) {
    let mut gone = 0;
    while !*state.stopping.borrow() {
        let given_up = state.store.write(move |tx| {
            let now = Millis::now();
            keeping::give_up_outputs(tx, now.minus(kept), now, STEP)
        });
        match given_up.await {
            Ok(tasks) if tasks.is_empty() => break,
            Ok(tasks) => {
                gone += tasks.len();
                remove_outputs(state, tasks).await;
            }
            Err(Error::Closed) => break,
            Err(error) => return log::error!("failed to remove output that was too old: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    if gone > 0 {
        record!(Info, task_count = gone; "output that was too old went");
    }
}

async fn delete_pipelines(state: &Shared, kept: Duration) {
    let mut gone = 0;
    loop {
        let before = Millis::now().minus(kept);
        let old = match state.store.read(move |view| keeping::pipelines_before(view, before, STEP)).await {
            Ok(old) => old,
            Err(Error::Closed) => break,
            Err(error) => return log::error!("failed to look for pipelines that are too old: {error}"),
        };
        for pipeline in &old {
            loop {
                if *state.stopping.borrow() {
                    return;
                }
                let id = pipeline.clone();
                let part = state.store.write(move |tx| keeping::delete_part_of_pipeline(tx, &id, STEP)).await;
                let (tasks, is_gone) = match part {
                    Ok(part) => part,
                    Err(error) => {
                        record!(Error, pipeline_id = pipeline; "failed to remove a pipeline that was too old: {error}");
                        return;
                    }
                };
                remove_outputs(state, tasks).await;
                if is_gone {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
            gone += 1;
        }
        if old.is_empty() {
            break;
        }
    }
    if gone > 0 {
        record!(Info, count = gone; "pipelines that were too old went");
    }
}

async fn remove_outputs(state: &Shared, tasks: Vec<TaskId>) {
    let blobs = state.blobs.clone();
    let removed = blocking(move || {
        for task in tasks {
            blobs.outputs.remove(&task);
        }
        Ok(())
    });
    told(removed.await);
}

async fn remove_unnamed_uploads(state: &Shared) {
    let since = SystemTime::now() - UNNAMED;
    let blobs = state.blobs.clone();
    let Some(unused) = told(blocking(move || blobs.objects.unused_since(since)).await) else { return };
    let mut removed = 0;
    for some in unused.chunks(STEP as usize) {
        let some = some.to_vec();
        let named = state.store.read(move |view| {
            let mut unnamed = Vec::new();
            for sha256 in some {
                if !archives::names_upload(view, &sha256)? {
                    unnamed.push(sha256);
                }
            }
            Ok(unnamed)
        });
        let unnamed = match named.await {
            Ok(unnamed) => unnamed,
            Err(Error::Closed) => return,
            Err(error) => return log::error!("failed to look for uploads that nothing names: {error}"),
        };
        let blobs = state.blobs.clone();
        // A task that asks for one of them now keeps it: that is looked at again for each.
        removed += told(blocking(move || remove(&blobs, &unnamed, since)).await).unwrap_or(0);
        tokio::time::sleep(PAUSE).await;
    }
    if removed > 0 {
        record!(Info, count = removed; "uploads that nothing names went");
    }
}

/// Output whose task went while a control plane was killed; and small outputs of tasks from which nothing comes any more,
/// which become rows: those of tasks that ended by silence or a cancel, and what earlier versions and a stop have left.
async fn remove_unnamed_outputs(state: &Shared) {
    let since = SystemTime::now() - UNNAMED;
    let blobs = state.blobs.clone();
    let old = blocking(move || {
        let mut old = Vec::new();
        blobs.outputs.each_task(|task, modified| {
            if modified < since {
                old.extend(TaskId::new(task).ok());
            }
        })?;
        Ok(old)
    });
    for some in told(old.await).unwrap_or_default().chunks(STEP as usize) {
        let some = some.to_vec();
        let found = state.store.read(move |view| {
            let (mut strays, mut silent) = (Vec::new(), Vec::new());
            for task in some {
                if !inspect::has_output(view, &task)? {
                    strays.push(task);
                } else if keeping::is_silent_since(view, &task, Millis::now().minus(SILENT))? {
                    silent.push(task);
                }
            }
            Ok((strays, silent))
        });
        let Ok((strays, silent)) = found.await else { return };
        if !strays.is_empty() {
            remove_outputs(state, strays).await;
        }
        keep_as_rows(state, silent).await;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Makes the small outputs of tasks rows, and removes their files.
async fn keep_as_rows(state: &Shared, tasks: Vec<TaskId>) {
    for task in tasks {
        let (blobs, id) = (state.blobs.clone(), task.clone());
        let small = blocking(move || blobs.outputs.small_files(&id)).await;
        let Some(small) = told(small).filter(|small| !small.is_empty()) else { continue };
        let (steps, id): (Vec<u32>, _) = (small.iter().map(|(step, _)| *step).collect(), task.clone());
        let kept = state.store.write(move |tx| {
            // The output may have gone meanwhile.
            if inspect::has_output(tx, &id)? {
                for (step, bytes) in small {
                    small_outputs::insert_missing(tx, &id, &SmallOutput { step, bytes })?;
                }
            }
            Ok(())
        });
        match kept.await {
            Ok(()) => {
                let blobs = state.blobs.clone();
                let removed = blocking(move || {
                    blobs.outputs.remove_files(&task, steps);
                    Ok(())
                });
                told(removed.await);
            }
            Err(Error::Closed) => return,
            Err(error) => return log::error!("failed to keep small outputs as rows: {error}"),
        }
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
    use crate::server::run::ServerOptions;
    use crate::server::state::Routing;
    use crate::server::store::tables::projects::ensure_project;
    use crate::server::store::tables::tasks;
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
            let kept = Some(15 * DAY);
            assert!(save_cache(tx, &task, &record("v1-app", "a"), kept, Millis(0)).unwrap());
            assert!(
                save_cache(tx, &task, &record("v1-app", "a"), kept, Millis(1)).unwrap(),
                "the same record sent again"
            );
            assert!(!save_cache(tx, &task, &record("v1-app", "b"), kept, Millis(2)).unwrap());
            assert!(save_cache(tx, &task, &record("v1-app-new", "b"), kept, Millis(3)).unwrap());
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
            assert!(save_cache(tx, &task, &record("v1-app", "c"), kept, Millis(2 * DAY_MS)).unwrap());
            assert!(!archives::names_upload(tx, "a").unwrap() && archives::names_upload(tx, "c").unwrap());
            assert_eq!(keeping::delete_expired(tx, Millis(2 * DAY_MS + 3), STEP).unwrap(), 1);
            assert_eq!(keeping::delete_expired(tx, Millis(4 * DAY_MS), STEP).unwrap(), 1);
            assert!(!archives::names_upload(tx, "b").unwrap() && !archives::names_upload(tx, "c").unwrap());
            // The setting, where it is less than what the job says; without either a cache stays.
            assert!(save_cache(tx, &task, &record("short", "d"), Some(DAY), Millis(0)).unwrap());
            assert_eq!(find(tx, &project, &["short"], true, DAY_MS), None);
            Ok(())
        };
        store.write_blocking(check).unwrap();
    }

    #[test]
    fn what_a_canceled_task_has_sent_of_small_outputs_becomes_rows() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = ServerOptions::new(dir.path().to_owned());
        (options.listen, options.durable) = (std::net::SocketAddr::from(([127, 0, 0, 1], 0)), false);
        let running = crate::server::run::start(options).map_err(|error| error.to_string()).unwrap();
        let state = running.state.clone();
        let made = state.store.write_blocking(|tx| {
            let (task, _) = task(tx);
            let row = tasks::find(tx, &task)?.unwrap();
            crate::server::engine::commit::task::cancel(tx, row, Millis(1))?;
            Ok(task)
        });
        let task = made.unwrap();
        let large = vec![b'a'; 100_000];
        state.blobs.outputs.append(&task, 1, 0, b"abc").unwrap();
        state.blobs.outputs.append(&task, 2, 0, &large).unwrap();
        let folder = dir.path().join("output").join(task.as_str());
        std::fs::File::open(&folder).unwrap().set_modified(SystemTime::now() - 3 * DAY).unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(sweep_once(&state));
        assert!(!folder.join("1").exists() && folder.join("2").exists());
        assert_eq!(state.blobs.outputs.read(&task, 1, 0, 10).unwrap(), b"abc");
        assert_eq!(state.blobs.outputs.read(&task, 2, 0, usize::MAX).unwrap(), large);
        running.stop();
    }
}
