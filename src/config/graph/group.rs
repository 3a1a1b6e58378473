//! Job groups: named sets of jobs that a workflow uses like one job.
//!
//! A group becomes a beginning (nothing, or taking a lock), its members, and an end that stands for the
//! group in `requires`; with a serial group also a job that gives the lock back whatever happened.

use crate::config::JobKind;
use crate::config::graph::draft::{Draft, HIDDEN};
use crate::config::graph::entry::{Drafts, EntryNode, Place, any_status};
use crate::config::language::scope::Scope;
use crate::config::session::compiler::{Compiler, present};
use crate::config::session::cost;
use crate::config::values::{Entry, Map, Node, Pos};
use std::collections::HashMap;
use std::rc::Rc;

/// What the invocation of a group can have.
const INVOCATION_KEYS: &[&str] = &["name", "requires", "filters", "serial-group"];

impl Compiler<'_> {
    /// Reads `job-groups`; `jobs` is the section of that name, for clashes.
    pub(crate) fn groups(&mut self, root: &Map) -> HashMap<Rc<str>, Entry> {
        let mut groups = HashMap::new();
        let Some(node) = present(root, "job-groups") else { return groups };
        let Some(map) = self.expect_map(node, "`job-groups`").cloned() else { return groups };
        let jobs = present(root, "jobs").and_then(Node::as_map).cloned().unwrap_or_default();
        for entry in &map.entries {
            let what = format!("job group `{}`", entry.key);
            self.check_job_name(&entry.key, entry.key_pos, "job group");
            if jobs.get(&entry.key).is_some() {
                self.error(entry.key_pos, format!("`{}` is both a job and a job group", entry.key));
            }
            for section in ["commands", "workflows"] {
                if present(root, section)
                    .and_then(Node::as_map)
                    .is_some_and(|map| map.get(&entry.key).is_some())
                {
                    self.warn(entry.key_pos, format!("{what} has the name of one of the `{section}`"));
                }
            }
            let Some(body) = self.expect_map(&entry.value, &what).cloned() else { continue };
            self.check_keys(&body, &what, &["jobs"], true);
            match present(&body, "jobs").and_then(Node::as_seq) {
                Some(list) if !list.items.is_empty() => {
                    groups.insert(entry.key.clone(), entry.clone());
                }
                _ => self.error(entry.key_pos, format!("{what} needs `jobs`, a list of at least one")),
            }
        }
        groups
    }

    /// Adds the drafts of a group that a workflow invokes.
    pub(crate) fn group(&mut self, group: &Entry, entry: &EntryNode, drafts: &mut Drafts) {
        if !self.is_rehearsal() {
            self.used_groups.insert(group.key.clone());
        }
        let what = format!("job group `{}` in workflow `{}`", entry.job, drafts.workflow);
        let scope = Scope::pipeline(0, true);
        let options = &entry.options;
        for option in options.entries.iter().filter(|option| !INVOCATION_KEYS.contains(&&*option.key)) {
            self.error(
                option.key_pos,
                format!("{what} cannot have `{}` (known keys: {})", option.key, INVOCATION_KEYS.join(", ")),
            );
        }
        let name = match present(options, "name").map(|node| self.substitute(node, &scope)) {
            Some(node) => node.and_then(|node| self.expect_text(&node, format_args!("`name` of {what}"))),
            None => Some(entry.job.clone()),
        };
        let wanted = self.requirements(present(options, "requires"), &scope, &what);
        let kept = self.filter(options.get("filters"), &scope, &what);
        let lock = present(options, "serial-group").and_then(|node| {
            let substituted = self.substitute(node, &scope)?;
            let key = self.expect_text(&substituted, format_args!("`serial-group` of {what}"))?;
            self.serial_group(&key, node.pos)
        });
        let Some(name) = name else { return };
        // Three more jobs have the name, and every member begins with it.
        if !self.spend(entry.pos, 0, 3 * cost::text(&name)) {
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
        // It has the requirements of the whole group, so it looks them up where the group stands.
        drafts.list.push(Draft {
            wanted: wanted.unwrap_or_default(),
            kept: kept.unwrap_or(true),
            space: HIDDEN,
            ..draft(format!("{name}/start"), first)
        });
        let place = Place { space: drafts.spaces, prefix: format!("{name}-"), beginning: Some(beginning) };
        self.within(entry.pos, what, |compiler| compiler.members(group, &place, drafts));
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

    fn members(&mut self, group: &Entry, place: &Place, drafts: &mut Drafts) {
        let list = group.value.as_map().and_then(|map| map.get("jobs")).and_then(Node::as_seq).cloned();
        // Names and the entry that has them: the members of a matrix may share one, and get numbers.
        let mut names: HashMap<String, usize> = HashMap::new();
        for item in list.iter().flat_map(|list| &list.items) {
            let Some(entry) = self.entry_node(item) else { continue };
            if self.is_group(&entry.job) {
                self.error(
                    entry.pos,
                    format!("job group `{}` cannot contain the job group `{}`", group.key, entry.job),
                );
                continue;
            }
            if let Some(option) = entry.options.entry("serial-group") {
                self.error(
                    option.key_pos,
                    format!("a member of the job group `{}` cannot have a `serial-group`", group.key),
                );
            }
            let before = drafts.list.len();
            self.entry(&entry, place, drafts);
            let mut twice: Option<(Pos, String)> = None;
            for draft in &drafts.list[before..] {
                if *names.entry(draft.label.clone()).or_insert(draft.entry) != draft.entry {
                    twice = Some((draft.pos, draft.label.clone()));
                }
            }
            if let Some((pos, label)) = twice {
                self.error(
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
    pub(crate) fn check_group_uses(&mut self, drafts: &Drafts) -> bool {
        let before = self.errors();
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
                self.error(draft.pos, message);
            }
        }
        self.errors() == before
    }

    pub(crate) fn is_group(&self, name: &str) -> bool {
        self.packages.first().is_some_and(|config| config.groups.contains_key(name))
    }
}
