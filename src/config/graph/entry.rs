//! Entries of a workflow's `jobs`: which job, under what name, after what, with which arguments.

use super::draft::{Draft, Drafts, EntryNode, RequiresItem, Surroundings, any_status};
use super::matrix::Member;
use super::workflows::Workflows;
use super::{filter, matrix};
use crate::config::compiled::{JobKind, LeftOut, RequiredStatus};
use crate::config::definitions::{Definition, Element};
use crate::config::diagnostic::Severity;
use crate::config::jobs::{Invocation, serial_group};
use crate::config::language::Scope;
use crate::config::limits;
use crate::config::session::{cost, present};
use crate::config::values::{Entry, Node, Scalar};
use std::rc::Rc;

/// Keys of an entry that are not arguments of the job.
const KEYS: &[&str] = &[
    "name",
    "requires",
    "filters",
    "context",
    "type",
    "matrix",
    "pre-steps",
    "post-steps",
    "serial-group",
    "override-with",
];
impl Workflows<'_> {
    /// Splits an item of `jobs` into the job and its options.
    pub(crate) fn entry_node(&self, item: &Node) -> Option<EntryNode> {
        if item.as_scalar().is_some() {
            let scope = Scope::pipeline(0, true);
            let node = self.language.substitute(item, &scope)?;
            let job = self.read.expect_text(&node, "the name of a job")?;
            return Some(EntryNode { job, pos: item.pos, options: Rc::default() });
        }
        let entry = match item.as_map().map(|map| map.entries.as_slice()).unwrap_or_default() {
            [entry] => entry,
            // A common slip, as with the arguments of a step.
            [first, second, ..] if first.value.is_null() => {
                let (job, option) = (&first.key, &second.key);
                self.report.warn(
                    second.key_pos,
                    format!("`{option}` stands beside `{job}` and is ignored: indent the options of a job below its name"),
                );
                first
            }
            _ => {
                let message =
                    "an entry of `jobs` is the name of a job, or a map with that name as its one key";
                self.report.error(item.pos, message);
                return None;
            }
        };
        let options = if entry.value.is_null() {
            Rc::default()
        } else {
            self.read.expect_map(&entry.value, format_args!("the options of job `{}`", entry.key))?.clone()
        };
        Some(EntryNode { job: entry.key.clone(), pos: entry.key_pos, options })
    }

    /// Adds the drafts of an entry: one, or one per member of its matrix.
    pub(crate) fn entry(&mut self, entry: &EntryNode, around: &Surroundings, drafts: &mut Drafts) {
        drafts.entries += 1;
        let number = drafts.entries;
        let scope = Scope::pipeline(0, true);
        let what = format!("job `{}` in workflow `{}`", entry.job, drafts.workflow);
        let Some(matrix) = present(&entry.options, "matrix") else {
            self.member(entry, None, number, around, &scope, drafts);
            return;
        };
        let matrix = matrix::matrix(self.language, matrix, &what, &scope);
        let alias =
            matrix.as_ref().and_then(|matrix| matrix.alias.clone()).unwrap_or_else(|| entry.job.clone());
        let matrix = match matrix {
            Some(matrix) if !matrix.members.is_empty() => matrix,
            // Without members there is still a name to require: like one that filters dropped.
            _ => {
                let prefix = around.prefix.clone();
                // `name` counts as well, unless it needs `matrix.`, which only a member has.
                let name = present(&entry.options, "name").filter(|name| {
                    !name.as_scalar().is_some_and(|name| name.tagged() && name.text.contains("matrix."))
                });
                let name = name.and_then(|name| self.language.substitute(name, &scope));
                let name = name.as_ref().and_then(Node::as_scalar).map(|name| name.text.to_string());
                let label = name.unwrap_or_else(|| alias.to_string());
                let draft = Draft::new(number, entry.pos, label, JobKind::NoOp);
                let alias = Some(alias);
                drafts.list.push(Draft { kept: false, space: around.space, prefix, alias, ..draft });
                return;
            }
        };
        for member in &matrix.members {
            let scope = Scope { matrix: Some(Rc::new(member.bindings())), ..scope.clone() };
            self.member(entry, Some((member, &alias)), number, around, &scope, drafts);
        }
    }

    fn member(
        &mut self,
        entry: &EntryNode,
        member: Option<(&Member, &Rc<str>)>,
        number: usize,
        around: &Surroundings,
        scope: &Scope,
        drafts: &mut Drafts,
    ) {
        // The name of the job goes into the messages about it.
        if !self.budget.spend(entry.pos, 0, cost::text(&entry.job)) {
            return;
        }
        let what = format!("job `{}` in workflow `{}`", entry.job, drafts.workflow);
        self.jobs += 1;
        if self.jobs > limits::JOBS {
            self.report.error(
                entry.pos,
                format!("the config has more than the limit of {} jobs in its workflows", limits::JOBS),
            );
            return;
        }
        let options = &entry.options;
        let label = self.label(entry, member.map(|(member, _)| member), scope, &what);
        let wanted = self.requirements(present(options, "requires"), scope, &what);
        let kept = filter::keeps(self.language, options.get("filters"), scope, &what);
        let contexts = self.contexts(present(options, "context"), scope, &what);
        let serial_group = match present(options, "serial-group")
            .map(|node| (self.language.substitute(node, scope), node.pos))
        {
            Some((Some(node), pos)) => {
                let key = self.read.expect_text(&node, format_args!("`serial-group` of {what}"));
                key.and_then(|key| serial_group(self.report, &key, pos))
            }
            _ => None,
        };
        self.expander.library.take_wanted();
        let kind = self.entry_kind(entry, member.map(|(member, _)| member), scope, around, &what);
        let kind = kind.or_else(|| self.expander.without_orbs(entry.pos));
        // An entry that could not be compiled still has a name that others may require.
        let label = label.unwrap_or_else(|| entry.job.to_string());
        let wanted = wanted.unwrap_or_default();
        let links = match around.beginning {
            Some(beginning) if wanted.is_empty() => vec![(beginning, vec![RequiredStatus::Success])],
            _ => Vec::new(),
        };
        if kept == Some(false) {
            let alias = member.map(|(_, alias)| alias.to_string());
            self.left_out.push(LeftOut {
                workflow: drafts.workflow.clone(),
                job: Some(label.clone()),
                other_names: alias.into_iter().chain([entry.job.to_string()]).collect(),
            });
        }
        let definition = self.expander.library.find(Element::Job, &entry.job, 0);
        let takes = |argument: &Entry| {
            let own = definition.as_ref().and_then(|definition| definition.own());
            own.is_none_or(|(_, parameters)| parameters.has(&argument.key))
        };
        let draft = Draft {
            space: around.space,
            job: Some(entry.job.clone()),
            alias: member.map(|(_, alias)| alias.clone()),
            prefix: around.prefix.clone(),
            wanted,
            links,
            kept: kept.unwrap_or(true),
            contexts: contexts.unwrap_or_default(),
            serial_group,
            is_defined: kind.is_some()
                || options.get("type").is_some()
                || entry.job.contains('/')
                || definition.is_some(),
            is_named: present(options, "name").is_some()
                || member.is_none_or(|(member, _)| {
                    member.values.iter().all(|value| &*value.key == "name" || takes(value))
                }),
            ..Draft::new(number, entry.pos, label, kind.unwrap_or(JobKind::NoOp))
        };
        if self.budget.spend(entry.pos, 0, draft.cost()) {
            drafts.list.push(draft);
        }
    }

    fn label(&self, entry: &EntryNode, member: Option<&Member>, scope: &Scope, what: &str) -> Option<String> {
        if let Some(node) = present(&entry.options, "name") {
            let substituted = self.language.substitute(node, scope)?;
            let name = self.read.expect_text(&substituted, format_args!("`name` of {what}"))?;
            if name.trim().is_empty() {
                self.report.error(node.pos, format!("`name` of {what} is empty"));
                return None;
            }
            return Some(name.to_string());
        }
        Some(match member {
            Some(member) => {
                let name = member.text("name").filter(|name| !name.trim().is_empty());
                name.unwrap_or_else(|| format!("{}{}", entry.job, member.suffix()))
            }
            None => entry.job.to_string(),
        })
    }

    /// Reads `requires`: a list of names, each with the statuses that it accepts.
    pub(crate) fn requirements(
        &self,
        node: Option<&Node>,
        scope: &Scope,
        what: &str,
    ) -> Option<Vec<RequiresItem>> {
        let Some(node) = node else { return Some(Vec::new()) };
        let node = self.language.substitute(node, scope)?;
        let Some(list) = node.as_seq() else {
            self.report
                .error(node.pos, format!("`requires` of {what} must be a list, not {}", node.describe()));
            return None;
        };
        if !self.budget.spend(node.pos, 0, cost::wanted(list.items.len())) {
            return None;
        }
        let wanted: Vec<_> = list.items.iter().map(|item| self.requirement(item, what)).collect();
        wanted.into_iter().collect()
    }

    fn requirement(&self, item: &Node, what: &str) -> Option<RequiresItem> {
        let Some(map) = item.as_map() else {
            let name = self.read.expect_text(item, format_args!("an item of `requires` of {what}"))?;
            return Some(RequiresItem { name, statuses: vec![RequiredStatus::Success], pos: item.pos });
        };
        let [entry] = map.entries.as_slice() else {
            self.report.error(item.pos, format!("an item of `requires` of {what} is a name, or a map of one name to a status or a list of those"));
            return None;
        };
        let (texts, single) = match entry.value.as_seq() {
            Some(_) => (self.read.text_list(&entry.value, "statuses")?, false),
            None => (vec![self.read.expect_text(&entry.value, "a status")?], true),
        };
        let mut statuses = Vec::new();
        for text in &texts {
            let status = match &**text {
                "terminal" if single => {
                    statuses = any_status();
                    continue;
                }
                "success" => RequiredStatus::Success,
                "failed" => RequiredStatus::Failed,
                "canceled" => RequiredStatus::Canceled,
                "unauthorized" => RequiredStatus::Unauthorized,
                "not_run" => RequiredStatus::NotRun,
                other => {
                    let mut known = vec!["success", "failed", "canceled", "unauthorized", "not_run"];
                    if single {
                        known.push("terminal");
                    }
                    let choices =
                        self.report.choices(Severity::Error, entry.value.pos, "statuses", other, known);
                    self.report.error(
                        entry.value.pos,
                        format!("`requires` of {what} has the unknown status `{other}`{choices}"),
                    );
                    return None;
                }
            };
            if !statuses.contains(&status) {
                statuses.push(status);
            }
        }
        if statuses.is_empty() {
            self.report
                .error(entry.value.pos, format!("`requires` of {what} lists no status for `{}`", entry.key));
            return None;
        }
        Some(RequiresItem { name: entry.key.clone(), statuses, pos: entry.key_pos })
    }

    fn contexts(&mut self, node: Option<&Node>, scope: &Scope, what: &str) -> Option<Vec<String>> {
        let Some(node) = node else { return Some(Vec::new()) };
        let node = self.language.substitute(node, scope)?;
        if node.is_null() {
            return Some(Vec::new());
        }
        let mut contexts = Vec::new();
        for name in self.read.text_list(&node, format_args!("`context` of {what}"))? {
            if name.chars().count() > limits::CONTEXT_CHARS {
                self.report.error(
                    node.pos,
                    format!(
                        "`context` of {what} has a name of more than {} characters",
                        limits::CONTEXT_CHARS
                    ),
                );
                return None;
            }
            // An expression may well come to "no context".
            if name.is_empty() || contexts.iter().any(|known: &String| **known == *name) {
                continue;
            }
            if self.known_contexts.insert(name.to_string()) && self.known_contexts.len() > limits::CONTEXTS {
                self.report
                    .error(node.pos, format!("the config uses more than {} contexts", limits::CONTEXTS));
                return None;
            }
            contexts.push(name.to_string());
        }
        Some(contexts)
    }

    fn entry_kind(
        &mut self,
        entry: &EntryNode,
        member: Option<&Member>,
        scope: &Scope,
        around: &Surroundings,
        what: &str,
    ) -> Option<JobKind> {
        let options = &entry.options;
        if let Some(node) = present(options, "type") {
            let node = self.language.substitute(node, scope)?;
            let kind = self.read.expect_text(&node, format_args!("`type` of {what}"))?;
            if &*kind != "approval" {
                self.report.error(
                    node.pos,
                    format!("{what} has the type `{kind}`: in a workflow only `approval` can be given"),
                );
                return None;
            }
            return self.approval(entry, around, what);
        }
        let definition = self.entry_job(entry, scope, what)?;
        let from_matrix = member.map(|member| member.values.as_slice()).unwrap_or_default();
        let mut arguments: Vec<&Entry> = Vec::new();
        for option in options.entries.iter().filter(|option| !KEYS.contains(&&*option.key)) {
            if from_matrix.iter().any(|argument| argument.key == option.key) {
                self.report.error(
                    option.key_pos,
                    format!("`{}` of {what} is given both beside the matrix and in it", option.key),
                );
                return None;
            }
            arguments.push(option);
        }
        // A matrix parameter called `name` names the jobs and is no argument: jobs cannot declare it.
        arguments.extend(from_matrix.iter().filter(|argument| &*argument.key != "name"));
        let invocation = Invocation {
            arguments,
            pre_steps: options.get("pre-steps"),
            post_steps: options.get("post-steps"),
            scope,
            pos: entry.pos,
        };
        self.expander.job(&definition, &invocation)
    }

    fn approval(&self, entry: &EntryNode, around: &Surroundings, what: &str) -> Option<JobKind> {
        if self.expander.library.find(Element::Job, &entry.job, 0).is_some() {
            let message = format!("{what} is an approval and hides the job of the same name");
            if around.space != 0 {
                self.report.error(entry.pos, message);
                return None;
            }
            self.report.warn(entry.pos, message);
        }
        for option in &entry.options.entries {
            if !matches!(&*option.key, "name" | "requires" | "filters" | "context" | "type" | "matrix") {
                self.report.warn(
                    option.key_pos,
                    format!("`{}` of {what} is ignored: it is an approval", option.key),
                );
            }
        }
        Some(JobKind::Approval)
    }

    /// The job that runs: the one named, or the one that overrides it where that exists.
    fn entry_job(&self, entry: &EntryNode, scope: &Scope, what: &str) -> Option<Rc<Definition>> {
        if let Some(node) = present(&entry.options, "override-with") {
            let substituted = self.language.substitute(node, scope)?;
            let reference = self.read.expect_text(&substituted, format_args!("`override-with` of {what}"))?;
            if !reference.contains('/') {
                self.report.error(node.pos, format!("`override-with` of {what} must name the job of an orb (`alias/job`), not `{reference}`"));
                return None;
            }
            if let Some(definition) = self.expander.library.find(Element::Job, &reference, 0) {
                return Some(definition);
            }
            if let Some(message) = self.expander.library.not_found(Element::Job, &reference, 0, node.pos) {
                self.report.warn(node.pos, format!("{what} is not overridden: {message}"));
            }
        }
        let found = self.expander.library.find(Element::Job, &entry.job, 0);
        if found.is_none() {
            let message = self.expander.library.not_found(Element::Job, &entry.job, 0, entry.pos)?;
            self.report.error(entry.pos, format!("{what}: {message}"));
        }
        found
    }

    /// The text of a scalar of a workflow, with pipeline values in place.
    pub(crate) fn workflow_scalar(&self, node: &Node) -> Option<Scalar> {
        let node = self.language.substitute(node, &Scope::pipeline(0, true))?;
        node.as_scalar().cloned()
    }
}
