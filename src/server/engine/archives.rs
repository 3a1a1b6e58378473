//! Caches and workspaces: which cache a key stands for, how long caches and layers are kept, and what a job
//! finds in its workspace.

use crate::config::JobKind;
use crate::protocol::{Cache, CacheRecord, FindCache, Layer, LayerJob, LayerRecord, TaskId, Workspace};
use crate::server::ids::{JobId, PipelineId, ProjectId};
use crate::server::store::tables::archives::{self, Match, Persisting};
use crate::server::store::tables::{jobs, trust};
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use std::collections::HashMap;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The first character of the keys of caches that are a fork's own. No job's key begins with it.
pub const FORK_MARK: char = '\u{1}';

/// Returns the prefix of the cache keys of a pipeline: nothing, but for those of forks that get no secrets. They
/// neither read nor fill the caches that others trust.
pub fn cache_scope(view: &View, pipeline: &PipelineId) -> Result<String, Error> {
    let fork = trust::fork_of_pipeline(view, pipeline)?.filter(|fork| !fork.gets_secrets);
    Ok(fork.map(|fork| format!("{FORK_MARK}{}{FORK_MARK}", fork.branch)).unwrap_or_default())
}

/// The cache of the project that the first fitting key stands for.
pub fn find_cache(
    view: &View,
    project: &ProjectId,
    wanted: &FindCache,
    now: Millis,
) -> Result<Option<Cache>, Error> {
    let matching = if wanted.exact { Match::Whole } else { Match::Beginning };
    for key in &wanted.keys {
        if let Some(cache) = archives::find_cache(view, project, key, matching, now)? {
            return Ok(Some(cache));
        }
    }
    Ok(None)
}

/// Names an upload as a cache of the project of the task, for as long as caches are `kept` or its job says, if that is
/// less. False when the key is taken by others; the same record sent again is no second one.
pub fn save_cache(
    tx: &Tx<'_>,
    task: &TaskId,
    record: &CacheRecord,
    kept: Option<Duration>,
    now: Millis,
) -> Result<bool, Error> {
    let (project, definition) = jobs::definition_of_task(tx, task)?;
    let asked = match &definition.kind {
        JobKind::Build { job, .. } => job.cache_retention_days,
        _ => None,
    };
    let kept = [kept, asked.map(|days| DAY * days)].into_iter().flatten().min();
    // A cache whose time is over makes room, whether it was swept yet or not.
    archives::delete_expired_cache(tx, &project, &record.key, now)?;
    Ok(archives::insert_cache(tx, &project, task, record, expiry(kept, now), now)?
        || archives::is_own_cache(tx, &project, task, record)?)
}

/// Names an upload as a layer of the workspace, for as long as layers are `kept`.
pub fn save_layer(
    tx: &Tx<'_>,
    task: &TaskId,
    record: &LayerRecord,
    kept: Option<Duration>,
    now: Millis,
) -> Result<(), Error> {
    archives::insert_layer(tx, task, record, expiry(kept, now), now)
}

fn expiry(kept: Option<Duration>, now: Millis) -> Millis {
    kept.map_or(Millis::NEVER, |kept| now.plus(kept))
}

/// Lists the layers that the jobs upstream of `job` have persisted. A job that a rerun has not run again stands for the one
/// whose result it keeps.
pub fn workspace(view: &View, job: &JobId, now: Millis) -> Result<Workspace, Error> {
    let jobs = archives::jobs_around(view, job)?;
    let Some(own) = jobs.iter().position(|row| row.id == *job) else { return Ok(Workspace::default()) };
    let upstream = upstream(&jobs);
    let mut order: Vec<usize> = upstream[own].clone();
    // A job with more jobs upstream than another is not among those upstream of it.
    order.sort_by_key(|at| (upstream[*at].len(), *at));
    let mut found = Workspace::default();
    let mut places: HashMap<usize, usize> = HashMap::new();
    for at in order {
        let layers = archives::layers_of(view, &jobs[at].ran_as, now)?;
        if layers.is_empty() {
            continue;
        }
        let place = found.jobs.len();
        found.layers.extend(layers.into_iter().map(|layer| Layer {
            id: layer.id.into(),
            job: place,
            node_index: layer.node_index,
            archive: layer.archive,
        }));
        places.insert(at, place);
        let after = upstream[at].iter().filter_map(|other| places.get(other).copied()).collect();
        found.jobs.push(LayerJob { name: jobs[at].name.clone(), after });
    }
    Ok(found)
}

/// Lists for each job the positions of all that it requires, directly or not.
fn upstream(jobs: &[Persisting]) -> Vec<Vec<usize>> {
    let by_name: HashMap<&str, usize> = jobs.iter().enumerate().map(|(at, job)| (&*job.name, at)).collect();
    let direct: Vec<Vec<usize>> = jobs
        .iter()
        .map(|job| job.requires.iter().filter_map(|wanted| by_name.get(&*wanted.job).copied()).collect())
        .collect();
    (0..jobs.len())
        .map(|start| {
            let mut seen = vec![false; jobs.len()];
            let mut waiting = direct[start].clone();
            while let Some(at) = waiting.pop() {
                if !std::mem::replace(&mut seen[at], true) {
                    waiting.extend(&direct[at]);
                }
            }
            (0..jobs.len()).filter(|at| seen[*at]).collect()
        })
        .collect()
}
