//! One invocation of a job: parameters bound, executor merged in, steps expanded.

use crate::config::JobKind;
use crate::config::Severity;
use crate::config::definitions::package::Definition;
use crate::config::jobs::steps::NullBody;
use crate::config::language::scope::Scope;
use crate::config::limits;
use crate::config::session::compiler::{Compiler, present};
use crate::config::session::cost;
use crate::config::values::{Entry, Map, Node, Pos, StepList};
use crate::protocol::{Action, Job, ResourceClass};
use std::collections::BTreeMap;

const TYPES: &[&str] = &["build", "approval", "no-op", "release", "lock", "unlock"];
const BUILD_KEYS: &[&str] = &[
    "type",
    "steps",
    "executor",
    "docker",
    "machine",
    "macos",
    "resource_class",
    "shell",
    "working_directory",
    "environment",
    "parallelism",
    "parameters",
    "retention",
    "circleci_ip_ranges",
    "description",
    "branches",
];
/// What a job runs in; exactly one of them.
const ENVIRONMENTS: &[&str] = &["docker", "machine", "macos"];

/// How a workflow uses a job.
pub(crate) struct Invocation<'e> {
    pub(crate) arguments: Vec<&'e Entry>,
    pub(crate) pre_steps: Option<&'e Node>,
    pub(crate) post_steps: Option<&'e Node>,
    /// Scope of the workflow entry.
    pub(crate) scope: &'e Scope,
    pub(crate) pos: Pos,
}

impl Compiler<'_> {
    /// Compiles a job as it is invoked.
    pub(crate) fn job(&mut self, definition: &Definition, invocation: &Invocation<'_>) -> Option<JobKind> {
        let (map, parameters) = definition.own()?;
        self.mark_used(definition);
        let before = self.errors();
        let Invocation { scope, pos, .. } = *invocation;
        let label = definition.label();
        let callee = (&*label, definition.package);
        let bound = self.bind(parameters, &invocation.arguments, scope, callee, pos);
        // Pre- and post-steps belong to the workflow entry and its scope.
        let mut around = |steps: Option<&Node>| match steps.filter(|steps| !steps.is_null()) {
            Some(steps) => self.steps(steps, scope, NullBody::Accepted),
            None => Some(StepList::default()),
        };
        let (pre, post) = (around(invocation.pre_steps), around(invocation.post_steps));
        let inner = self.package_scope(definition.package).with_parameters(bound.bindings);
        if self.is_rehearsal() {
            return Some(JobKind::NoOp);
        }
        let (pre, post) = (pre.unwrap_or_default(), post.unwrap_or_default());
        let kind = self.within(pos, label, |compiler| compiler.job_body(definition, map, &inner, pre, post));
        // With a mistake in the arguments its inside was looked at for those that are there as well.
        kind.filter(|_| self.errors() == before)
    }

    /// A job in the scope of its parameters.
    pub(crate) fn job_body(
        &mut self,
        definition: &Definition,
        map: &Map,
        scope: &Scope,
        pre: StepList,
        post: StepList,
    ) -> Option<JobKind> {
        let label = definition.label();
        let kind = match present(map, "type") {
            Some(node) => {
                let node = self.substitute(node, scope)?;
                self.expect_text(&node, format_args!("`type` of {label}"))?
            }
            None => "build".into(),
        };
        match &*kind {
            "build" => {
                let keys = Keys { map, scope, label: &label, pos: definition.pos };
                let job = self.build(&keys, pre, post)?;
                Some(JobKind::Build { job: Box::new(job) })
            }
            kind => self.stepless(kind, map, definition, scope),
        }
    }

    /// Jobs of the types that run nothing.
    fn stepless(&mut self, kind: &str, map: &Map, definition: &Definition, scope: &Scope) -> Option<JobKind> {
        let label = definition.label();
        if !TYPES.contains(&kind) {
            let pos = map.get("type").map_or(definition.pos, |node| node.pos);
            let choices = self.choices(Severity::Error, pos, "types", kind, TYPES.iter().copied());
            self.error(pos, format!("{label} has the unknown type `{kind}`{choices}"));
            return None;
        }
        let known: &[&str] = match kind {
            "release" => &["type", "plan_name", "validation", "description", "parameters"],
            "lock" | "unlock" => &["type", "key", "description", "parameters"],
            _ => &["type", "description", "parameters"],
        };
        self.check_keys(map, &format!("{label} of type `{kind}`"), known, false);
        let text = |compiler: &mut Self, key: &str| {
            let substituted = match present(map, key) {
                Some(node) => Some(compiler.substitute(node, scope)?),
                None => None,
            };
            match substituted.filter(|node| !node.is_null()) {
                Some(node) => compiler.expect_text(&node, format_args!("`{key}` of {label}")),
                None => {
                    compiler.error(definition.pos, format!("{label} of type `{kind}` has no `{key}`"));
                    None
                }
            }
        };
        Some(match kind {
            "approval" => JobKind::Approval,
            "release" => {
                text(self, "plan_name")?;
                self.warn(definition.pos, format!("{label} is a release, which needs the hosted service: here it succeeds without doing anything"));
                JobKind::NoOp
            }
            "lock" | "unlock" => {
                let pos = map.get("key").map_or(definition.pos, |node| node.pos);
                let key = text(self, "key")?;
                let key = self.serial_group(&key, pos)?;
                if kind == "lock" { JobKind::Lock { key } } else { JobKind::Unlock { key } }
            }
            _ => JobKind::NoOp,
        })
    }

    fn build(&mut self, keys: &Keys<'_>, pre: StepList, post: StepList) -> Option<Job> {
        let Keys { map, scope, label, pos } = *keys;
        let before = self.errors();
        self.check_keys(map, label, BUILD_KEYS, true);
        for key in ["executor", "parameters"] {
            if let Some(entry) = map.entry(key).filter(|_| !self.tags) {
                self.error(entry.key_pos, format!("`{key}` of {label} needs `version: 2.1`"));
            }
        }
        if let Some(entry) = map.entry("branches") {
            self.warn(
                entry.key_pos,
                format!("`branches` of {label} is ignored: filters belong into a workflow"),
            );
        }
        let steps = self.check_steps(map, scope, label, pos);
        // Every own key replaces that of the executor, which is found first.
        let executor = match present(map, "executor") {
            Some(node) => self.substitute(node, scope).and_then(|node| self.executor(&node, scope)),
            None => None,
        };
        let mut settings = Map::default();
        let mut complete = true;
        for entry in map.entries.iter().filter(|entry| SETTINGS.contains(&&*entry.key)) {
            match self.substitute(&entry.value, scope) {
                Some(value) if value.is_null() => {}
                Some(value) => settings.entries.push(Entry { value, ..entry.clone() }),
                None => complete = false,
            }
        }
        let levels = match &executor {
            Some(executor) => vec![&settings, &*executor.keys],
            None => vec![&settings],
        };
        // What has no value has been reported; it might also have said where to run.
        let missing = !complete || executor.is_none() && present(map, "executor").is_some();
        let resource_class = if missing { None } else { self.resource_class(&levels, label, pos) };
        let shell = levels
            .iter()
            .find_map(|level| present(level, "shell").or_else(|| machine_key(level, "shell")))
            .and_then(|node| self.shell(node, label));
        let working_directory = levels
            .iter()
            .find_map(|level| present(level, "working_directory"))
            .and_then(|node| self.expect_text(node, format_args!("`working_directory` of {label}")));
        let mut environment = BTreeMap::new();
        for level in levels.iter().rev() {
            if let Some(node) = present(level, "environment") {
                environment.extend(self.environment(node, label).unwrap_or_default());
            }
        }
        let parallelism = self.integer(&settings, "parallelism", label, (1, limits::PARALLELISM));
        if self.boolean(&settings, "circleci_ip_ranges", label) == Some(true) {
            self.warn(
                pos,
                format!("`circleci_ip_ranges` of {label} needs the hosted service and is ignored"),
            );
        }
        let retention = self.retention(&settings, label);
        let steps = [pre, steps?, post].into_iter().flat_map(|list| list.steps).collect::<Vec<_>>();
        let mut remote_docker = steps.iter().filter(|placed| placed.step.action == Action::SetupRemoteDocker);
        if let (Some(_), Some(second)) = (remote_docker.next(), remote_docker.next()) {
            self.error(second.pos, format!("{label} has more than one `setup_remote_docker`"));
        }
        if self.errors() > before || !complete {
            return None;
        }
        let job = Job {
            resource_class: resource_class?,
            shell,
            working_directory: working_directory.map(|text| text.to_string()),
            environment,
            parallelism: parallelism?.and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            steps: steps.into_iter().map(|placed| placed.step).collect(),
            cache_retention_days: retention,
        };
        self.spend(pos, 0, cost::job(&job)).then_some(job)
    }

    fn check_steps(&mut self, map: &Map, scope: &Scope, label: &str, pos: Pos) -> Option<StepList> {
        let node = match present(map, "steps") {
            Some(node) if node.as_scalar().is_some() => node.clone(),
            _ => self.check_steps_list(map, label, pos)?,
        };
        self.steps(&node, scope, NullBody::Refused)
    }

    /// Whether at most one of the keys says what to run in; reported if not.
    pub(crate) fn one_environment(&mut self, level: &Map, label: &str) -> bool {
        let present: Vec<_> =
            level.entries.iter().filter(|entry| ENVIRONMENTS.contains(&&*entry.key)).collect();
        let [first, second, ..] = present.as_slice() else { return true };
        let (a, b) = (&first.key, &second.key);
        self.error(
            second.key_pos,
            format!("{label} has both `{a}` and `{b}`: a job runs in one of docker, machine, macos"),
        );
        false
    }

    /// The class whose runners may take the job. Everything that is not a machine of one's own is
    /// refused by name.
    fn resource_class(&mut self, levels: &[&Map], label: &str, pos: Pos) -> Option<String> {
        let mut found = None;
        for level in levels {
            if !self.one_environment(level, label) {
                return None;
            }
            let mut present = level.entries.iter().filter(|entry| ENVIRONMENTS.contains(&&*entry.key));
            found = found.or(present.next());
        }
        let Some(environment) = found else {
            self.error(pos, format!("{label} has no executor: it needs one of executor, docker, machine, macos (on a runner of your own, `machine: true` and `resource_class: namespace/name`)"));
            return None;
        };
        if &*environment.key != "machine" {
            let kind = &environment.key;
            self.error(environment.key_pos, format!("{label} uses `{kind}`, which is not supported: jobs run on machine runners (`machine: true` and `resource_class: namespace/name`)"));
            return None;
        }
        let machine = &environment.value;
        let map = machine.as_map();
        if let Some(map) = map {
            let known = ["image", "docker_layer_caching", "enabled", "resource_class", "shell"];
            self.check_keys(map, &format!("`machine` of {label}"), &known, false);
            let caching = self.boolean(map, "docker_layer_caching", &format!("`machine` of {label}"));
            if let (Some(true), Some(entry)) = (caching, map.entry("docker_layer_caching")) {
                let message = "`docker_layer_caching` needs the hosted service: a machine runner keeps the layers of its own Docker, remove the key";
                self.error(entry.key_pos, message);
            }
        }
        if machine.as_bool() == Some(false) || machine.as_seq().is_some() {
            self.error(machine.pos, format!("{label} has no executor: `machine` is {}", machine.describe()));
            return None;
        }
        if let Some(enabled) = map.and_then(|map| present(map, "enabled")) {
            match enabled.as_bool() {
                Some(true) => {}
                Some(false) => {
                    let message = format!("{label} has no executor: its `machine` is not `enabled`");
                    self.error(enabled.pos, message);
                    return None;
                }
                None => {
                    let found = enabled.describe();
                    let message = format!("`enabled` of `machine` of {label} must be a boolean, not {found}");
                    self.error(enabled.pos, message);
                    return None;
                }
            }
        }
        let class = levels.iter().find_map(|level| {
            present(level, "resource_class").or_else(|| machine_key(level, "resource_class"))
        });
        let name = match class {
            Some(node) => {
                Some((self.expect_text(node, format_args!("`resource_class` of {label}"))?, node.pos))
            }
            None => None,
        };
        if let Some((name, pos)) = name.filter(|(name, _)| name.contains('/')) {
            if let Some(image) = map.and_then(|map| map.entry("image")) {
                self.error(
                    image.key_pos,
                    format!(
                        "{label} names an `image` and the resource class `{name}`: runners have no images"
                    ),
                );
                return None;
            }
            return match ResourceClass::new(&name) {
                Ok(class) => Some(class.as_str().to_owned()),
                Err(message) => {
                    self.error(pos, format!("{label}: {message}"));
                    None
                }
            };
        }
        if let Some(default) = self.input.default_resource_class {
            return Some(default.to_owned());
        }
        match class {
            Some(node) => {
                let found = node.describe();
                self.error(node.pos, format!("{label} needs a resource class of your own runners such as `acme/linux`, not {found}"));
            }
            None => self.error(environment.key_pos, format!("{label} needs `resource_class: namespace/name`: machines of the hosted service are not supported")),
        }
        None
    }

    fn retention(&mut self, settings: &Map, label: &str) -> Option<u32> {
        let node = present(settings, "retention")?;
        let what = format!("`retention` of {label}");
        let map = self.expect_map(node, &what)?.clone();
        self.check_keys(&map, &what, &["caches"], false);
        let caches = present(&map, "caches")?;
        let text = self.expect_text(caches, format_args!("`caches` of {what}"))?;
        let days =
            text.strip_suffix('d').and_then(|days| days.parse().ok()).filter(|days| (1..=15).contains(days));
        if days.is_none() {
            self.error(caches.pos, format!("`caches` of {what} must be `1d` to `15d`, not `{text}`"));
        }
        days
    }

    /// A key of a serial group.
    pub(crate) fn serial_group(&mut self, key: &str, pos: Pos) -> Option<String> {
        let wrong = if key.trim().is_empty() {
            "it is empty".to_owned()
        } else if key.chars().count() > limits::SERIAL_GROUP_CHARS {
            format!("it has more than {} characters", limits::SERIAL_GROUP_CHARS)
        } else if !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b)) {
            "it may only have letters, digits and `.`, `_`, `/`, `-`".to_owned()
        } else {
            return Some(key.to_owned());
        };
        self.error(
            pos,
            format!("`{}` is not the key of a serial group: {wrong}", crate::config::values::shorten(key)),
        );
        None
    }
}

/// A job's own map, for `build`.
#[derive(Clone, Copy)]
struct Keys<'k> {
    map: &'k Map,
    scope: &'k Scope,
    label: &'k str,
    pos: Pos,
}

/// Keys of a build job that hold values to substitute.
const SETTINGS: &[&str] = &[
    "docker",
    "machine",
    "macos",
    "resource_class",
    "shell",
    "working_directory",
    "environment",
    "parallelism",
    "retention",
    "circleci_ip_ranges",
];

fn machine_key<'m>(level: &'m Map, key: &str) -> Option<&'m Node> {
    present(present(level, "machine")?.as_map()?, key)
}
