//! Meaning of a pod for its task: values in, values out. Only containers that this runner defined count; others may have
//! been put in by a mesh, and neither hold a task up nor end it.

use super::api::{ContainerStatus, Pod, Terminated};
use super::manifest::{INIT, PRIMARY};
use std::time::Duration;

/// Meaning of a pod for its task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The container of the steps does not run yet.
    Waits {
        /// Phase and reason, for people.
        what: String,
        /// The pod is stuck: how long to wait, and the message afterwards.
        trouble: Option<Trouble>,
    },
    /// The container of the steps runs.
    Runs,
    /// The container of the steps has ended well: its agent has reported everything.
    Done,
    /// The container of the steps has ended badly; the message is for people.
    Broken(String),
}

/// Why a pod does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// The reason as a word.
    pub(super) reason: String,
    /// Message for people.
    pub(super) message: String,
    /// How long it may last.
    pub(super) patience: Duration,
    /// The job is wrong, and no other pod would fare better.
    pub(super) is_final: bool,
}

/// Judges a pod.
pub(super) fn judge(pod: &Pod) -> Verdict {
    let status = &pod.status;
    let find =
        |list: &'_ [ContainerStatus], name: &str| list.iter().find(|status| status.name == name).cloned();
    let primary = find(&status.container_statuses, PRIMARY).unwrap_or_default().state;
    if let Some(end) = &primary.terminated {
        return ended(end, pod);
    }
    if status.phase == "Succeeded" {
        return Verdict::Done;
    }
    if status.phase == "Failed" {
        return Verdict::Broken(failed(pod));
    }
    if primary.running.is_some() {
        return Verdict::Runs;
    }
    let init = find(&status.init_container_statuses, INIT).unwrap_or_default().state;
    if let Some(end) = init.terminated.as_ref().filter(|end| end.exit_code != 0 || end.reason == "StartError")
    {
        return Verdict::Broken(format!("the init container of the pod failed: {}", end_text(end)));
    }
    let own = status.container_statuses.iter().filter(|status| is_own(&status.name));
    let own = own.chain(status.init_container_statuses.iter().filter(|status| status.name == INIT));
    let troubles = own.filter_map(|status| {
        let waiting = status.state.waiting.as_ref()?;
        trouble(&waiting.reason, &waiting.message, &image_of(pod, &status.name))
    });
    if let Some(trouble) = troubles.min_by_key(|trouble| trouble.patience) {
        return Verdict::Waits {
            what: format!("{}: {}", trouble.reason, trouble.message),
            trouble: Some(trouble),
        };
    }
    let scheduled = status.conditions.iter().find(|condition| condition.kind == "PodScheduled");
    let what = match scheduled.filter(|condition| condition.status == "False") {
        Some(condition) => format!("{}: {}", condition.reason, condition.message),
        None if pod.spec.node_name.is_empty() => "waits for a node".to_owned(),
        None => {
            let waiting = find(&status.container_statuses, PRIMARY).and_then(|status| status.state.waiting);
            let reason = waiting.map(|waiting| waiting.reason).filter(|reason| !reason.is_empty());
            format!("on node {}: {}", pod.spec.node_name, reason.unwrap_or_else(|| "starting".to_owned()))
        }
    };
    Verdict::Waits { what, trouble: None }
}

fn is_own(name: &str) -> bool {
    name == PRIMARY || name.starts_with("secondary-")
}

fn image_of(pod: &Pod, container: &str) -> String {
    let found = pod.spec.containers.iter().find(|spec| spec.name == container);
    found.map_or_else(|| container.to_owned(), |spec| spec.image.clone())
}

/// The reason of a container that waits, unless it is an ordinary one.
fn trouble(reason: &str, message: &str, image: &str) -> Option<Trouble> {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let (patience, is_final) = match reason {
        "" | "PodInitializing" | "ContainerCreating" => return None,
        // A pull that fails passes when the registry is back, but not when the name of the image is wrong.
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "SignatureValidationFailed" => {
            (minutes(3), true)
        }
        "InvalidImageName" | "ErrImageNeverPull" | "ImageInspectError" => (Duration::ZERO, true),
        // A secret that was just made may lag.
        "CreateContainerConfigError" => (minutes(1), true),
        "CreateContainerError" | "RunContainerError" | "PostStartHookError" | "CrashLoopBackOff" => {
            (Duration::ZERO, true)
        }
        _ => return None,
    };
    let said = if message.is_empty() { String::new() } else { format!(": {message}") };
    Some(Trouble { reason: reason.to_owned(), message: format!("`{image}`{said}"), patience, is_final })
}

fn ended(end: &Terminated, pod: &Pod) -> Verdict {
    // Old runtimes report an exit code of 0 for it.
    if end.reason == "OOMKilled" {
        return Verdict::Broken(format!(
            "the container of the steps ran out of memory (OOMKilled): raise its memory limit (`resources.limits.memory` of the resource class), or use less{}",
            said(&end.message)
        ));
    }
    match (end.exit_code, end.reason.as_str()) {
        (0, "" | "Completed") => Verdict::Done,
        (_, "ContainerStatusUnknown") => {
            Verdict::Broken("the node lost track of the container of the steps".to_owned())
        }
        (_, "StartError" | "ContainerCannotRun") => Verdict::Broken(format!(
            "the container of the steps could not be started (an image for another architecture?): {}",
            end_text(end)
        )),
        _ if !pod.status.reason.is_empty() => Verdict::Broken(failed(pod)),
        _ => Verdict::Broken(format!("the container of the steps ended: {}", end_text(end))),
    }
}

/// Why a pod has failed as a whole.
fn failed(pod: &Pod) -> String {
    let status = &pod.status;
    let disruption = status
        .conditions
        .iter()
        .find(|condition| condition.kind == "DisruptionTarget" && condition.status == "True");
    match (status.reason.as_str(), disruption) {
        ("", Some(condition)) => format!("the pod was ended ({}): {}", condition.reason, condition.message),
        ("", None) => {
            let all = status.init_container_statuses.iter().chain(&status.container_statuses);
            let bad = all.filter_map(|one| Some((one.name.as_str(), one.state.terminated.as_ref()?)));
            let bad = bad.into_iter().find(|(_, end)| end.exit_code != 0);
            bad.map_or_else(
                || "the pod failed without a reason".to_owned(),
                |(name, end)| format!("the pod failed: its container `{name}` ended: {}", end_text(end)),
            )
        }
        (reason, _) => format!("the pod failed: {reason}{}", said(&status.message)),
    }
}

fn end_text(end: &Terminated) -> String {
    let reason = if end.reason.is_empty() { String::new() } else { format!("{}, ", end.reason) };
    format!("{reason}exit code {}{}", end.exit_code, said(&end.message))
}

fn said(message: &str) -> String {
    // The last lines of a log are many; the end says the most.
    let message = message.trim();
    let from = message.char_indices().rev().nth(999).map_or(0, |(at, _)| at);
    if message.is_empty() { String::new() } else { format!(": {}", &message[from..]) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "a test that sees another verdict should say which")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn verdict(status: Value) -> Verdict {
        let pod = json!({ "metadata": { "name": "p" }, "spec": { "nodeName": "n", "containers": [{ "name": PRIMARY, "image": "cimg/x" }] }, "status": status });
        judge(&serde_json::from_value(pod).unwrap())
    }

    fn ended(state: Value) -> Verdict {
        verdict(
            json!({ "phase": "Running", "containerStatuses": [{ "name": PRIMARY, "state": { "terminated": state } }] }),
        )
    }

    fn broken(verdict: Verdict) -> String {
        match verdict {
            Verdict::Broken(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_container_of_the_steps_decides() {
        assert_eq!(ended(json!({ "exitCode": 0, "reason": "Completed" })), Verdict::Done);
        assert_eq!(verdict(json!({ "phase": "Succeeded" })), Verdict::Done);
        // A service that was killed, and a mesh that is never ready.
        let both = json!({ "phase": "Running", "containerStatuses": [
            { "name": "secondary-1", "state": { "terminated": { "exitCode": 137 } } },
            { "name": "mesh", "state": { "waiting": { "reason": "ImagePullBackOff" } } },
            { "name": PRIMARY, "state": { "running": {} } }] });
        assert_eq!(verdict(both), Verdict::Runs);
        assert!(broken(ended(json!({ "exitCode": 0, "reason": "OOMKilled" }))).contains("out of memory"));
        assert!(
            broken(ended(json!({ "exitCode": 137, "reason": "ContainerStatusUnknown" })))
                .contains("lost track")
        );
        let why = broken(ended(
            json!({ "exitCode": 75, "reason": "Error", "message": "the pod cannot get its task" }),
        ));
        assert_eq!(why, "the container of the steps ended: Error, exit code 75: the pod cannot get its task");
    }

    #[test]
    fn a_pod_may_fail_as_a_whole() {
        let out = json!({ "phase": "Failed", "reason": "OutOfpods", "message": "Pod was rejected: Node didn't have enough resource" });
        assert!(broken(verdict(out)).contains("OutOfpods: Pod was rejected"));
        let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory." });
        assert!(broken(verdict(evicted)).contains("Evicted: The node was low"));
        let init = json!({ "phase": "Pending", "initContainerStatuses": [{ "name": INIT, "state": { "terminated": { "exitCode": 128, "reason": "StartError", "message": "exec format error" } } }] });
        assert!(broken(verdict(init)).contains("exec format error"));
    }

    #[test]
    fn what_hangs_is_told_with_its_reason_and_how_long_to_wait() {
        let waits = |status: Value| match verdict(status) {
            Verdict::Waits { what, trouble } => (what, trouble),
            other => panic!("{other:?}"),
        };
        let (what, trouble) = waits(json!({ "phase": "Pending", "conditions": [
            { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available" }] }));
        assert_eq!((what.as_str(), trouble), ("Unschedulable: 0/3 nodes are available", None));
        let waiting = |reason: &str| {
            json!({ "phase": "Pending", "containerStatuses": [
            { "name": PRIMARY, "state": { "waiting": { "reason": reason, "message": "not found" } } }] })
        };
        assert_eq!(waits(waiting("ContainerCreating")).0, "on node n: ContainerCreating");
        let (what, trouble) = waits(waiting("ImagePullBackOff"));
        let trouble = trouble.unwrap();
        assert_eq!(
            (what.as_str(), trouble.patience),
            ("ImagePullBackOff: `cimg/x`: not found", Duration::from_secs(180))
        );
        assert_eq!(waits(waiting("InvalidImageName")).1.unwrap().patience, Duration::ZERO);
    }
}
