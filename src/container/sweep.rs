//! Looks for what was left behind: pods of agents that are gone, pods that are too old, secrets without a pod.

use super::api::{ClusterFault, Pod};
use super::manifest::{INSTANCE, KEY, MANAGED, MANAGER, PRIMARY, pod_of};
use super::work::Tools;
use crate::protocol::Secret;
use crate::protocol::pod_task::PodTask;
use crate::system::clock::unix_time;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

/// Findings of a sweep.
#[derive(Default)]
pub(super) struct Found {
    /// Pods of this agent before its restart, and of agents that are gone; with the tokens of their tasks.
    pub(super) orphans: Vec<(Pod, Option<Secret>)>,
    /// Pods that are older than the threshold.
    pub(super) old: Vec<Pod>,
    /// Names of secrets that had no pod, twice in a row.
    pub(super) secrets: Vec<String>,
}

/// Memory of a sweep of the one before.
#[derive(Default)]
pub(super) struct Memory {
    bare: HashSet<String>,
    /// Whether this agent knows its pods; false in the sweep at the start.
    knows_own: bool,
}

/// Sweeps again and again, until `tell` says that nobody listens.
pub(super) fn forever(tools: &Tools, interval: Duration, tell: impl Fn(Found) -> bool) {
    let mut memory = Memory { knows_own: true, ..Memory::default() };
    loop {
        std::thread::sleep(interval);
        match once(tools, &mut memory) {
            Ok(found) => {
                if !tell(found) {
                    return;
                }
            }
            Err(fault) => log::warn!("cannot look for what was left behind: {fault}"),
        }
    }
}

/// Looks once, and returns what nobody looks after: secrets only when two looks in a row have found them.
pub(super) fn once(tools: &Tools, memory: &mut Memory) -> Result<Found, ClusterFault> {
    let label = format!("{MANAGED}={MANAGER}");
    // Secrets first: one that is made afterwards is not missed among the pods.
    let secrets = tools.kube.secrets(&label)?.items;
    let pods = tools.kube.pods(&label)?.items;
    let names: HashSet<&str> = pods.iter().map(|pod| pod.metadata.name.as_str()).collect();
    let bare =
        secrets.iter().map(|secret| &secret.metadata.name).filter(|name| !names.contains(pod_of(name)));
    let bare: HashSet<String> = bare.cloned().collect();
    let mut found = Found { secrets: bare.intersection(&memory.bare).cloned().collect(), ..Found::default() };
    memory.bare = bare;
    let mut alive: HashMap<String, bool> = HashMap::new();
    let own = &tools.settings.instance;
    for pod in pods {
        let instance = pod.metadata.annotations.get(INSTANCE).cloned().unwrap_or_default();
        let is_orphan = instance == *own
            || (!instance.is_empty()
                && !match alive.get(&instance) {
                    Some(alive) => *alive,
                    None => {
                        let there = is_alive(tools, &instance)?;
                        alive.insert(instance.clone(), there);
                        there
                    }
                });
        // Pods that this agent looks after are spared by it.
        if is_old(tools, &pod) {
            found.old.push(pod.clone());
        }
        if is_orphan {
            let needs_none = has_started(&pod) || (memory.knows_own && instance == *own);
            let token = if needs_none { None } else { token_of(tools, &pod.metadata.name)? };
            found.orphans.push((pod, token));
        }
    }
    Ok(found)
}

/// Whether the pod of an agent is there and has not ended.
fn is_alive(tools: &Tools, instance: &str) -> Result<bool, ClusterFault> {
    match tools.kube.pod(instance) {
        Ok(pod) => Ok(!matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")),
        Err(fault) if fault.is_missing() => Ok(false),
        Err(fault) => Err(fault),
    }
}

fn has_started(pod: &Pod) -> bool {
    let mut primary = pod.status.container_statuses.iter().filter(|status| status.name == PRIMARY);
    primary.any(|status| status.state.running.is_some() || status.state.terminated.is_some())
}

/// The token of a task, out of its secret.
fn token_of(tools: &Tools, name: &str) -> Result<Option<Secret>, ClusterFault> {
    use base64::Engine;
    let secret = match tools.kube.secret(name) {
        Err(fault) if fault.is_missing() => return Ok(None),
        secret => secret?,
    };
    let text =
        secret.data.get(KEY).and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    let task: Option<PodTask> = text.and_then(|text| serde_json::from_slice(&text).ok());
    Ok(task.map(|task| task.token))
}

fn is_old(tools: &Tools, pod: &Pod) -> bool {
    let Some(gc) = tools.settings.gc else { return false };
    let made = moment(&pod.metadata.creation_timestamp);
    made.and_then(|made| SystemTime::now().duration_since(made).ok()).is_some_and(|age| age > gc.threshold)
}

/// Reads a time such as `2026-01-31T12:00:00Z`.
fn moment(text: &str) -> Option<SystemTime> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u64>);
    let mut part = || parts.next()?.ok();
    let (year, month, day) = (part()?, part()?, part()?);
    unix_time(year, month, day, part()?, part()?, part()?)
}

#[cfg(test)]
mod tests {
    use super::moment;

    #[test]
    fn times_of_the_cluster_are_read() {
        let at = moment("1994-11-06T08:49:37Z")
            .and_then(|at| at.duration_since(std::time::SystemTime::UNIX_EPOCH).ok());
        assert_eq!(at.map(|at| at.as_secs()), Some(784_111_777));
        assert_eq!(moment("soon"), None);
    }
}
