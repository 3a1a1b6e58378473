//! The place of a job: the keys that say where it runs, and the executor and resource class that come of them.

use super::containers;
use crate::config::Executor;
use crate::config::session::{NodeReader, present};
use crate::config::values::{Map, Node, Pos};
use crate::protocol::ResourceClass;

/// Keys that name the environment of a job; a job has exactly one of them.
const ENVIRONMENTS: &[&str] = &["docker", "machine", "macos"];

/// Checks that at most one key names an environment; more are reported.
pub(crate) fn one_environment(read: NodeReader<'_>, level: &Map, label: &str) -> bool {
    let present: Vec<_> = level.entries.iter().filter(|entry| ENVIRONMENTS.contains(&&*entry.key)).collect();
    let [first, second, ..] = present.as_slice() else { return true };
    let (a, b) = (&first.key, &second.key);
    read.report.error(
        second.key_pos,
        format!("{label} has both `{a}` and `{b}`: a job runs in one of docker, machine, macos"),
    );
    false
}

/// Executor of the steps of a job, and the resource class: `namespace/name` of runners of one's own, a word of the
/// hosted service, or nothing where the config names none.
pub(crate) struct JobPlace {
    pub(crate) executor: Executor,
    pub(crate) resource_class: String,
}

/// Reads where a job runs. An environment that only the hosted service has is no mistake: the job is compiled, and
/// whoever starts it says that nothing here can run it.
pub(crate) fn place(
    read: NodeReader<'_>,
    default: Option<&str>,
    levels: &[&Map],
    label: &str,
    pos: Pos,
) -> Option<JobPlace> {
    let mut found = None;
    for level in levels {
        if !one_environment(read, level, label) {
            return None;
        }
        let mut present = level.entries.iter().filter(|entry| ENVIRONMENTS.contains(&&*entry.key));
        found = found.or(present.next());
    }
    let Some(environment) = found else {
        read.report.error(pos, format!("{label} has no executor: it needs one of executor, docker, machine, macos (on a runner of your own, `machine: true` and `resource_class: namespace/name`)"));
        return None;
    };
    let class = levels
        .iter()
        .filter_map(|level| present(level, "resource_class").or_else(|| machine_key(level, "resource_class")))
        // Without a value it names no class, as a parameter that may be left out does.
        .find(|class| class.as_str().is_none_or(|class| !class.is_empty()));
    let (class, class_pos) = match class {
        Some(node) => {
            let name = read.expect_text(node, format_args!("`resource_class` of {label}"))?;
            (name.to_string(), node.pos)
        }
        None => (String::new(), pos),
    };
    let is_own = class.contains('/');
    if is_own {
        if let Err(message) = ResourceClass::new(&class) {
            read.report.error(class_pos, format!("{label}: {message}"));
            return None;
        }
    }
    let place = match &*environment.key {
        "docker" => {
            JobPlace { executor: containers::docker(read, &environment.value, label)?, resource_class: class }
        }
        "macos" => JobPlace { executor: macos(read, &environment.value, label)?, resource_class: class },
        _ => {
            let executor = machine(read, &environment.value, is_own, &class, label)?;
            match (&executor, default) {
                (Executor::HostedMachine { image: None, .. }, Some(default)) => {
                    JobPlace { executor: Executor::Machine, resource_class: default.to_owned() }
                }
                _ => JobPlace { executor, resource_class: class },
            }
        }
    };
    let needs = place.executor.task_kind(&place.resource_class);
    if needs.is_none() && default.is_none() {
        let what = place.executor.describe(&place.resource_class);
        read.report.warn(environment.key_pos, format!("{label} wants {what} of the hosted service: no runner takes it, and it fails when its turn comes (on runners of your own it needs {})", place.executor.for_own_runners()));
    }
    Some(place)
}

/// The value of `macos`.
fn macos(read: NodeReader<'_>, node: &Node, label: &str) -> Option<Executor> {
    let what = format!("`macos` of {label}");
    let map = read.expect_map(node, &what)?;
    read.check_keys(map, &what, &["xcode", "resource_class"], false);
    let xcode = match present(map, "xcode") {
        Some(node) => Some(read.expect_text(node, format_args!("`xcode` of {what}"))?.to_string()),
        None => None,
    };
    Some(Executor::Macos { xcode })
}

/// The value of `machine`: of a runner of one's own where the job names such a class.
fn machine(read: NodeReader<'_>, machine: &Node, is_own: bool, class: &str, label: &str) -> Option<Executor> {
    let map = machine.as_map();
    let what = format!("`machine` of {label}");
    let mut layer_caching = false;
    if let Some(map) = map {
        let known = ["image", "docker_layer_caching", "enabled", "resource_class", "shell"];
        read.check_keys(map, &what, &known, false);
        layer_caching = read.boolean(map, "docker_layer_caching", &what) == Some(true);
    }
    if machine.as_bool() == Some(false) || machine.as_seq().is_some() {
        read.report
            .error(machine.pos, format!("{label} has no executor: `machine` is {}", machine.describe()));
        return None;
    }
    if let Some(enabled) = map.and_then(|map| present(map, "enabled")) {
        match enabled.as_bool() {
            Some(true) => {}
            Some(false) => {
                let message = format!("{label} has no executor: its `machine` is not `enabled`");
                read.report.error(enabled.pos, message);
                return None;
            }
            None => {
                let found = enabled.describe();
                read.report.error(enabled.pos, format!("`enabled` of {what} must be a boolean, not {found}"));
                return None;
            }
        }
    }
    let image = map.and_then(|map| map.entry("image")).filter(|entry| !entry.value.is_null());
    if !is_own {
        let image = match image {
            Some(entry) => {
                Some(read.expect_text(&entry.value, format_args!("`image` of {what}"))?.to_string())
            }
            None => None,
        };
        return Some(Executor::HostedMachine { image, layer_caching });
    }
    if let Some(image) = image {
        read.report.error(
            image.key_pos,
            format!("{label} names an `image` and the resource class `{class}`: runners have no images"),
        );
        return None;
    }
    if let Some(entry) = map.and_then(|map| map.entry("docker_layer_caching")).filter(|_| layer_caching) {
        let message =
            "`docker_layer_caching` is ignored: a machine runner keeps the layers of its own Docker";
        read.report.warn(entry.key_pos, message);
    }
    Some(Executor::Machine)
}

/// A key of the map below `machine`.
pub(crate) fn machine_key<'m>(level: &'m Map, key: &str) -> Option<&'m Node> {
    present(present(level, "machine")?.as_map()?, key)
}
