//! A watch over all pods with a label: a list, then what changes, for ever. Ends of the connection, versions
//! that have expired and silence are its own affair.

use super::client::Kube;
use super::fault::ClusterFault;
use super::objects::Pod;
use crate::logging::record;
use serde::Deserialize;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

/// The API server ends a watch after this long, in seconds.
const WATCH_SECONDS: u64 = 60;
/// All pods are listed anew after this long, in case that a change was lost.
const RELIST: Duration = Duration::from_secs(300);
/// Pause between two watches.
const BETWEEN: Duration = Duration::from_millis(50);
/// Longest line of a watch, in bytes.
const MOST_LINE: usize = 8 * 1024 * 1024;

/// News of the pods.
#[derive(Debug)]
pub(in crate::container) enum Seen {
    /// All that there are; any other is gone.
    All(Vec<Pod>),
    /// A pod is there, or has changed.
    Pod(Box<Pod>),
    /// A pod is gone.
    Gone(Box<Pod>),
    /// The API server cannot be reached, or refuses; said once until it answers again.
    Away(String),
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

/// How a watch ended.
enum End {
    /// The watch may go on from this version.
    GoOn(String),
    /// The version has expired, or it is time to list anew.
    Relist,
}

/// Watches until `tell` says that nobody listens any more.
pub(in crate::container) fn watch(kube: &Kube, label: &str, tell: impl Fn(Seen) -> bool) {
    let mut pause = Duration::from_millis(200);
    let mut version: Option<String> = None;
    let mut listed = Instant::now();
    let mut is_away = false;
    loop {
        let step = match &version {
            None => kube.pods(label).map(|list| {
                listed = Instant::now();
                (End::GoOn(list.metadata.resource_version), tell(Seen::All(list.items)))
            }),
            Some(from) => {
                // A server that ends watches at once is not asked without a pause.
                std::thread::sleep(BETWEEN);
                follow(kube, label, from, listed + RELIST, &tell)
            }
        };
        match step {
            Ok((_, false)) => return,
            Ok((End::GoOn(next), true)) => {
                version = Some(next);
                pause = Duration::from_millis(200);
                is_away = false;
            }
            Ok((End::Relist, true)) => version = None,
            Err(fault) => {
                if fault.status() == Some(410) {
                    version = None;
                }
                if !std::mem::replace(&mut is_away, true) && !tell(Seen::Away(fault.to_string())) {
                    return;
                }
                std::thread::sleep(pause.max(fault.retry_after().unwrap_or_default()));
                pause = (pause * 2).min(Duration::from_secs(10));
            }
        }
    }
}

/// Reads one watch to its end.
fn follow(
    kube: &Kube,
    label: &str,
    from: &str,
    relist_at: Instant,
    tell: &impl Fn(Seen) -> bool,
) -> Result<(End, bool), ClusterFault> {
    let mut version = from.to_owned();
    let mut lines = BufReader::new(kube.open_watch(label, from, WATCH_SECONDS)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line that was cut is read again from the version before it.
        let read = std::io::Read::take(&mut lines, MOST_LINE as u64).read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) || line.last() != Some(&b'\n') {
            let end = if Instant::now() > relist_at { End::Relist } else { End::GoOn(version) };
            return Ok((end, true));
        }
        let Ok(said) = serde_json::from_slice::<Line>(&line) else { continue };
        if said.kind == "ERROR" {
            let text = said.object.to_string();
            record!(Debug; "the watch ended: {text}");
            let code = said.object["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
            if code == 410 {
                return Ok((End::Relist, true));
            }
            return Err(ClusterFault::of(code, None, text.as_bytes()));
        }
        let Ok(pod) = serde_json::from_value::<Pod>(said.object) else { continue };
        if !pod.metadata.resource_version.is_empty() {
            version.clone_from(&pod.metadata.resource_version);
        }
        let heard = match said.kind.as_str() {
            "ADDED" | "MODIFIED" => tell(Seen::Pod(Box::new(pod))),
            "DELETED" => tell(Seen::Gone(Box::new(pod))),
            // Bookmarks carry a version and nothing else; other kinds are not known yet.
            _ => true,
        };
        if !heard {
            return Ok((End::Relist, false));
        }
    }
}
