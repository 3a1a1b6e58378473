//! The machine of a job: the keys that say where it runs, and the resource class that comes of them.

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

/// The resource class whose runners may take the job. Environments other than a runner of one's own are
/// refused by name.
pub(crate) fn resource_class(
    read: NodeReader<'_>,
    default: Option<&str>,
    levels: &[&Map],
    label: &str,
    pos: Pos,
) -> Option<String> {
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
    if &*environment.key != "machine" {
        let kind = &environment.key;
        read.report.error(environment.key_pos, format!("{label} uses `{kind}`, which is not supported: jobs run on machine runners (`machine: true` and `resource_class: namespace/name`)"));
        return None;
    }
    let machine = &environment.value;
    let map = machine.as_map();
    if let Some(map) = map {
        let known = ["image", "docker_layer_caching", "enabled", "resource_class", "shell"];
        read.check_keys(map, &format!("`machine` of {label}"), &known, false);
        let caching = read.boolean(map, "docker_layer_caching", &format!("`machine` of {label}"));
        if let (Some(true), Some(entry)) = (caching, map.entry("docker_layer_caching")) {
            let message = "`docker_layer_caching` needs the hosted service: a machine runner keeps the layers of its own Docker, remove the key";
            read.report.error(entry.key_pos, message);
        }
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
                let message = format!("`enabled` of `machine` of {label} must be a boolean, not {found}");
                read.report.error(enabled.pos, message);
                return None;
            }
        }
    }
    let class = levels
        .iter()
        .find_map(|level| present(level, "resource_class").or_else(|| machine_key(level, "resource_class")));
    let name = match class {
        Some(node) => Some((read.expect_text(node, format_args!("`resource_class` of {label}"))?, node.pos)),
        None => None,
    };
    if let Some((name, pos)) = name.filter(|(name, _)| name.contains('/')) {
        if let Some(image) = map.and_then(|map| map.entry("image")) {
            read.report.error(
                image.key_pos,
                format!("{label} names an `image` and the resource class `{name}`: runners have no images"),
            );
            return None;
        }
        return match ResourceClass::new(&name) {
            Ok(class) => Some(class.as_str().to_owned()),
            Err(message) => {
                read.report.error(pos, format!("{label}: {message}"));
                None
            }
        };
    }
    if let Some(default) = default {
        return Some(default.to_owned());
    }
    match class {
        Some(node) => {
            let found = node.describe();
            read.report.error(node.pos, format!("{label} needs a resource class of your own runners such as `acme/linux`, not {found}"));
        }
        None => read.report.error(environment.key_pos, format!("{label} needs `resource_class: namespace/name`: machines of the hosted service are not supported")),
    }
    None
}

/// A key of the map below `machine`.
pub(crate) fn machine_key<'m>(level: &'m Map, key: &str) -> Option<&'m Node> {
    present(present(level, "machine")?.as_map()?, key)
}
