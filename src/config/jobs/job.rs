//! An invocation of a job: parameters bound, executor merged in, steps expanded.

use super::environment;
use super::expander::Expander;
use super::machine;
use crate::config::Executor;
use crate::config::compiled::JobKind;
use crate::config::definitions::Definition;
use crate::config::definitions::sections::check_steps_list;
use crate::config::diagnostic::Severity;
use crate::config::language::Scope;
use crate::config::limits;
use crate::config::session::{Report, cost, present};
use crate::config::values::{Entry, Map, Node, Pos, StepList, shorten};
use crate::protocol::limits::JOB_BYTES;
use crate::protocol::{Job, StepAction};
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
/// A use of a job by a workflow.
pub(crate) struct Invocation<'e> {
    pub(crate) arguments: Vec<&'e Entry>,
    pub(crate) pre_steps: Option<&'e Node>,
    pub(crate) post_steps: Option<&'e Node>,
    /// Scope of the workflow entry.
    pub(crate) scope: &'e Scope,
    pub(crate) pos: Pos,
}

impl Expander<'_> {
    /// Compiles a job as it is invoked.
    pub(crate) fn job(&mut self, definition: &Definition, invocation: &Invocation<'_>) -> Option<JobKind> {
        let (map, parameters) = definition.own()?;
        self.library.mark_used(definition);
        let before = self.report.errors();
        let Invocation { scope, pos, .. } = *invocation;
        let label = definition.label();
        let callee = (&*label, definition.package);
        let bound = self.bind(parameters, &invocation.arguments, scope, callee, pos);
        // Pre- and post-steps belong to the workflow entry and its scope.
        let mut around = |steps: Option<&Node>| match steps.filter(|steps| !steps.is_null()) {
            Some(steps) => self.given_steps(steps, scope),
            None => Some(StepList::default()),
        };
        let (pre, post) = (around(invocation.pre_steps), around(invocation.post_steps));
        let inner = Scope::of_package(definition.package).with_parameters(bound.bindings);
        if self.report.is_rehearsal() {
            return Some(JobKind::NoOp);
        }
        let is_whole = pre.is_some() && post.is_some();
        let (pre, post) = (pre.unwrap_or_default(), post.unwrap_or_default());
        let kind = self.report.within(pos, label, || self.job_body(definition, map, &inner, pre, post));
        // When an argument is wrong, or steps around the job come from a missing orb, the body is compiled only to report
        // its mistakes. An argument of such an orb counts where it is used.
        kind.filter(|_| is_whole && self.report.errors() == before)
    }

    /// A job that could not be compiled, if that is because of orbs that may be missing.
    pub(crate) fn without_orbs(&self, pos: Pos) -> Option<JobKind> {
        let references = self.library.take_wanted();
        if references.is_empty() {
            return None;
        }
        let executor = Executor::MissingOrbs { references };
        let class = self.language.input.default_resource_class.unwrap_or_default();
        let job = Job::without_steps(class.to_owned());
        let cost = cost::job(&job) + cost::executor(&executor);
        self.budget.spend(pos, 0, cost).then(|| JobKind::Build { job: Box::new(job), executor })
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
                let node = self.language.substitute(node, scope)?;
                self.read.expect_text(&node, format_args!("`type` of {label}"))?
            }
            None => "build".into(),
        };
        match &*kind {
            "build" => {
                let keys = Keys { map, scope, label: &label, pos: definition.pos };
                let (job, executor) = self.build(&keys, pre, post)?;
                let bytes = cost::json(&job);
                if bytes > JOB_BYTES {
                    let most = JOB_BYTES;
                    self.report.error(
                        definition.pos,
                        format!(
                            "{label} has {bytes} bytes when it is compiled, and a runner takes {most}: move long commands into files of the repository"
                        ),
                    );
                    return None;
                }
                Some(JobKind::Build { job: Box::new(job), executor })
            }
            kind => self.stepless(kind, map, definition, scope),
        }
    }

    /// Jobs of the types that run nothing.
    fn stepless(&self, kind: &str, map: &Map, definition: &Definition, scope: &Scope) -> Option<JobKind> {
        let label = definition.label();
        if !TYPES.contains(&kind) {
            let pos = map.get("type").map_or(definition.pos, |node| node.pos);
            let choices = self.report.choices(Severity::Error, pos, "types", kind, TYPES.iter().copied());
            self.report.error(pos, format!("{label} has the unknown type `{kind}`{choices}"));
            return None;
        }
        let known: &[&str] = match kind {
            "release" => &["type", "plan_name", "validation", "description", "parameters"],
            "lock" | "unlock" => &["type", "key", "description", "parameters"],
            _ => &["type", "description", "parameters"],
        };
        self.read.check_keys(map, &format!("{label} of type `{kind}`"), known, false);
        let text = |key: &str| {
            let substituted = match present(map, key) {
                Some(node) => Some(self.language.substitute(node, scope)?),
                None => None,
            };
            match substituted.filter(|node| !node.is_null()) {
                Some(node) => self.read.expect_text(&node, format_args!("`{key}` of {label}")),
                None => {
                    self.report.error(definition.pos, format!("{label} of type `{kind}` has no `{key}`"));
                    None
                }
            }
        };
        Some(match kind {
            "approval" => JobKind::Approval,
            "release" => {
                text("plan_name")?;
                self.report.warn(definition.pos, format!("{label} is a release, which needs the hosted service: here it succeeds without doing anything"));
                JobKind::NoOp
            }
            "lock" | "unlock" => {
                let pos = map.get("key").map_or(definition.pos, |node| node.pos);
                let key = text("key")?;
                let key = serial_group(self.report, &key, pos)?;
                if kind == "lock" { JobKind::Lock { key } } else { JobKind::Unlock { key } }
            }
            _ => JobKind::NoOp,
        })
    }

    fn build(&mut self, keys: &Keys<'_>, pre: StepList, post: StepList) -> Option<(Job, Executor)> {
        let Keys { map, scope, label, pos } = *keys;
        let before = self.report.errors();
        // Version 2 takes other keys in jobs and ignores them.
        self.read.check_keys(map, label, BUILD_KEYS, self.language.tags);
        for key in ["executor", "parameters"] {
            if let Some(entry) = map.entry(key).filter(|_| !self.language.tags) {
                self.report.error(entry.key_pos, format!("`{key}` of {label} needs `version: 2.1`"));
            }
        }
        if let Some(entry) = map.entry("branches") {
            self.report.warn(
                entry.key_pos,
                format!("`branches` of {label} is ignored: filters belong into a workflow"),
            );
        }
        let steps = self.check_steps(map, scope, label, pos);
        // Every own key replaces that of the executor, which is found first.
        let executor = match present(map, "executor") {
            Some(node) => self.language.substitute(node, scope).and_then(|node| self.executor(&node, scope)),
            None => None,
        };
        let mut settings = Map::default();
        let mut complete = true;
        for entry in map.entries.iter().filter(|entry| SETTINGS.contains(&&*entry.key)) {
            match self.language.substitute(&entry.value, scope) {
                Some(value) if value.is_null() => {}
                Some(value) => settings.entries.push(Entry { value, ..entry.clone() }),
                None => complete = false,
            }
        }
        let levels = match &executor {
            Some(executor) => vec![&settings, &*executor.keys],
            None => vec![&settings],
        };
        // A key without a value has been reported, and it might have named the executor.
        let missing = !complete || executor.is_none() && present(map, "executor").is_some();
        let place = if missing {
            None
        } else {
            machine::place(self.read, self.language.input.default_resource_class, &levels, label, pos)
        };
        let shell = levels
            .iter()
            .find_map(|level| present(level, "shell").or_else(|| machine::machine_key(level, "shell")))
            .and_then(|node| environment::shell(self.read, node, label));
        let working_directory = levels
            .iter()
            .find_map(|level| present(level, "working_directory"))
            .and_then(|node| self.read.expect_text(node, format_args!("`working_directory` of {label}")));
        let mut environment = BTreeMap::new();
        for level in levels.iter().rev() {
            if let Some(node) = present(level, "environment") {
                environment.extend(environment::environment(self.read, node, label).unwrap_or_default());
            }
        }
        let parallelism = self.read.integer(&settings, "parallelism", label, (1, limits::PARALLELISM));
        if self.read.boolean(&settings, "circleci_ip_ranges", label) == Some(true) {
            self.report.warn(
                pos,
                format!("`circleci_ip_ranges` of {label} needs the hosted service and is ignored"),
            );
        }
        let retention = self.retention(&settings, label);
        let steps = [pre, steps?, post].into_iter().flat_map(|list| list.steps).collect::<Vec<_>>();
        let mut remote_docker =
            steps.iter().filter(|placed| placed.step.action == StepAction::SetupRemoteDocker);
        if let (Some(_), Some(second)) = (remote_docker.next(), remote_docker.next()) {
            self.report.error(second.pos, format!("{label} has more than one `setup_remote_docker`"));
        }
        if self.report.errors() > before || !complete {
            return None;
        }
        let place = place?;
        let job = Job {
            resource_class: place.resource_class,
            shell,
            working_directory: working_directory.map(|text| text.to_string()),
            environment,
            parallelism: parallelism?.and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            steps: steps.into_iter().map(|placed| placed.step).collect(),
            cache_retention_days: retention,
        };
        let cost = cost::job(&job) + cost::executor(&place.executor);
        self.budget.spend(pos, 0, cost).then_some((job, place.executor))
    }

    fn check_steps(&mut self, map: &Map, scope: &Scope, label: &str, pos: Pos) -> Option<StepList> {
        let node = match present(map, "steps") {
            Some(node) if node.as_scalar().is_some() => node.clone(),
            _ => check_steps_list(self.language, map, label, pos)?,
        };
        self.steps(&node, scope)
    }

    fn retention(&self, settings: &Map, label: &str) -> Option<u32> {
        let node = present(settings, "retention")?;
        let what = format!("`retention` of {label}");
        let map = self.read.expect_map(node, &what)?;
        self.read.check_keys(map, &what, &["caches"], false);
        let caches = present(map, "caches")?;
        let text = self.read.expect_text(caches, format_args!("`caches` of {what}"))?;
        let days =
            text.strip_suffix('d').and_then(|days| days.parse().ok()).filter(|days| (1..=15).contains(days));
        if days.is_none() {
            self.report.error(caches.pos, format!("`caches` of {what} must be `1d` to `15d`, not `{text}`"));
        }
        days
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

/// A key of a serial group.
pub(crate) fn serial_group(report: &Report, key: &str, pos: Pos) -> Option<String> {
    let wrong = if key.trim().is_empty() {
        "it is empty".to_owned()
    } else if key.chars().count() > limits::SERIAL_GROUP_CHARS {
        format!("it has more than {} characters", limits::SERIAL_GROUP_CHARS)
    } else if !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b)) {
        "it may only have letters, digits and `.`, `_`, `/`, `-`".to_owned()
    } else {
        return Some(key.to_owned());
    };
    report.error(pos, format!("`{}` is not the key of a serial group: {wrong}", shorten(key)));
    None
}
