//! Job groups: named sets of jobs that a workflow uses like one job.
//!
//! A group becomes a beginning (nothing, or taking a lock), its members, and an end that stands for the
//! group in `requires`; with a serial group also a job that gives the lock back whatever happened.

use super::draft::{Draft, Drafts, EntryNode, HIDDEN, Surroundings, any_status};
use super::filter;
use super::workflows::Workflows;
use crate::config::compiled::JobKind;
use crate::config::jobs::serial_group;
use crate::config::language::Scope;
use crate::config::session::{cost, present};
use crate::config::values::{Entry, Node, Pos};
use std::collections::HashMap;

/// Keys of the invocation of a group.
const INVOCATION_KEYS: &[&str] = &["name", "requires", "filters", "serial-group"];

impl Workflows<'_> {
    /// Adds the drafts of a group that a workflow invokes.
    pub(crate) fn group(&mut self, group: &Entry, entry: &EntryNode, drafts: &mut Drafts) {
        if !self.report.is_rehearsal() {
            self.used_groups.insert(group.key.clone());
        }
        let what = format!("job group `{}` in workflow `{}`", entry.job, drafts.workflow);
        let scope = Scope::pipeline(0, true);
        let options = &entry.options;
        for option in options.entries.iter().filter(|option| !INVOCATION_KEYS.contains(&&*option.key)) {
            self.report.error(
                option.key_pos,
                format!("{what} cannot have `{}` (known keys: {})", option.key, INVOCATION_KEYS.join(", ")),
            );
        }
        let name = match present(options, "name").map(|node| self.language.substitute(node, &scope)) {
            Some(node) => {
                node.and_then(|node| self.read.expect_text(&node, format_args!("`name` of {what}")))
            }
            None => Some(entry.job.clone()),
        };
        let wanted = self.requirements(present(options, "requires"), &scope, &what);
        let kept = filter::keeps(self.language, options.get("filters"), &scope, &what);
        let lock = present(options, "serial-group").and_then(|node| {
            let substituted = self.language.substitute(node, &scope)?;
            let key = self.read.expect_text(&substituted, format_args!("`serial-group` of {what}"))?;
            serial_group(self.report, &key, node.pos)
        });
        let Some(name) = name else { return };
        // Three more jobs have the name, and every member begins with it.
        if !self.budget.spend(entry.pos, 0, 3 * cost::text(&name)) {
            return;
        }
        drafts.entries += 1;
        drafts.spaces += 1;
        let number = drafts.entries;
        let draft = |label: String, kind| Draft::new(number, entry.pos, label, kind);
        let first = match &lock {
            Some(key) => JobKind::Lock { key: key.clone() },
            None => JobKind::NoOp,
        };
        let beginning = drafts.list.len();
        // The beginning has the requirements of the whole group, so it looks them up where the group stands.
        drafts.list.push(Draft {
            wanted: wanted.unwrap_or_default(),
            kept: kept.unwrap_or(true),
            space: HIDDEN,
            ..draft(format!("{name}/start"), first)
        });
        let around =
            Surroundings { space: drafts.spaces, prefix: format!("{name}-"), beginning: Some(beginning) };
        self.report.within(entry.pos, what, || self.members(group, &around, drafts));
        let members = beginning + 1..drafts.list.len();
        let end = drafts.list.len();
        drafts.list.push(Draft { members: Some(members), ..draft(name.to_string(), JobKind::NoOp) });
        if let Some(key) = lock {
            drafts.list.push(Draft {
                links: vec![(end, any_status())],
                space: HIDDEN,
                ..draft(format!("{name}/unlock"), JobKind::Unlock { key })
            });
        }
    }

    fn members(&mut self, group: &Entry, around: &Surroundings, drafts: &mut Drafts) {
        let list = group.value.as_map().and_then(|map| map.get("jobs")).and_then(Node::as_seq);
        // Names and the entry that has them: the members of a matrix may share one, and get numbers.
        let mut names: HashMap<String, usize> = HashMap::new();
        for item in list.iter().flat_map(|list| &list.items) {
            let Some(entry) = self.entry_node(item) else { continue };
            if self.is_group(&entry.job) {
                self.report.error(
                    entry.pos,
                    format!("job group `{}` cannot contain the job group `{}`", group.key, entry.job),
                );
                continue;
            }
            if let Some(option) = entry.options.entry("serial-group") {
                self.report.error(
                    option.key_pos,
                    format!("a member of the job group `{}` cannot have a `serial-group`", group.key),
                );
            }
            let before = drafts.list.len();
            self.entry(&entry, around, drafts);
            let mut twice: Option<(Pos, String)> = None;
            for draft in &drafts.list[before..] {
                if *names.entry(draft.label.clone()).or_insert(draft.entry) != draft.entry {
                    twice = Some((draft.pos, draft.label.clone()));
                }
            }
            if let Some((pos, label)) = twice {
                self.report.error(
                    pos,
                    format!(
                        "job group `{}` has two members called `{label}`: give them different names",
                        group.key
                    ),
                );
            }
        }
    }

    /// Whether every group of a workflow has a name of its own. Jobs that share a name are numbered; a
    /// group stands for its members, and cannot be.
    pub(crate) fn check_group_uses(&self, drafts: &Drafts) -> bool {
        let before = self.report.errors();
        let mut named: HashMap<&str, &Draft> = HashMap::new();
        for draft in drafts.list.iter().filter(|draft| draft.space == 0) {
            let Some(first) = named.get(&*draft.label).filter(|first| first.entry != draft.entry) else {
                named.insert(&draft.label, draft);
                continue;
            };
            if first.members.is_some() || draft.members.is_some() {
                let (name, workflow) = (&draft.label, &drafts.workflow);
                let message = format!(
                    "workflow `{workflow}` has a job group called `{name}` and another entry of that name: give one of them a `name` of its own"
                );
                self.report.error(draft.pos, message);
            }
        }
        self.report.errors() == before
    }

    pub(crate) fn is_group(&self, name: &str) -> bool {
        self.groups.contains_key(name)
    }
}
