//! The section `workflows`: conditions, triggers, and entries joined to a graph.

use super::draft::{Drafts, EntryNode, Surroundings};
use super::edges;
use super::schedule::schedules;
use super::workflows::Workflows;
use crate::config::compiled::{LeftOut, Workflow, WorkflowJob};
use crate::config::language::{ConditionOf, Scope};
use crate::config::limits;
use crate::config::session::{cost, present};
use crate::config::values::{Data, Entry, Map, Node, Pos};
use std::rc::Rc;

const KEYS: &[&str] = &["jobs", "when", "unless", "triggers", "max_auto_reruns", "description"];

impl Workflows<'_> {
    /// Compiles all workflows that apply.
    pub(crate) fn all(&mut self, root: &Map, setup: bool) -> Vec<Workflow> {
        let mut workflows = Vec::new();
        let section = present(root, "workflows");
        let map = match section {
            Some(node) => match self.read.expect_map(node, "`workflows`") {
                Some(map) => map.clone(),
                None => return workflows,
            },
            None => Rc::default(),
        };
        if !self.language.tags && section.is_some() && map.get("version").is_none() {
            let pos = section.map_or_else(Pos::default, |node| node.pos);
            self.report.error(pos, "`workflows` of a config of version 2 needs `version: 2`");
        }
        let entries: Vec<&Entry> = map.entries.iter().filter(|entry| &*entry.key != "version").collect();
        if entries.is_empty() {
            return self.implicit_workflow(root, section.map(|node| node.pos)).into_iter().collect();
        }
        let mut applying = 0;
        for entry in entries {
            let name = &entry.key;
            if name.is_empty() {
                self.report.error(entry.key_pos, "the name of a workflow is empty");
            }
            let Some(body) = self.read.expect_map(&entry.value, format_args!("workflow `{name}`")) else {
                continue;
            };
            self.read.check_keys(body, &format!("workflow `{name}`"), KEYS, false);
            match self.applies(entry, body) {
                Some(true) => {}
                Some(false) => {
                    self.left_out.push(LeftOut {
                        workflow: name.to_string(),
                        job: None,
                        other_names: job_names(body),
                    });
                    continue;
                }
                // The condition is wrong: nothing runs, but the mistakes further down are told as well.
                None => {
                    self.workflow(entry, body);
                    continue;
                }
            }
            applying += 1;
            if setup && applying > 1 {
                self.report.error(entry.key_pos, format!("workflow `{name}` is one too many: in a setup config exactly one workflow may apply (choose with `when`)"));
            }
            if let (true, Some(triggers)) = (setup, body.entry("triggers")) {
                self.report.error(
                    triggers.key_pos,
                    format!("workflow `{name}` of a setup config cannot have `triggers`"),
                );
            }
            workflows.extend(self.workflow(entry, body));
        }
        if setup && applying == 0 && self.report.errors() == 0 {
            let pos = section.map_or_else(Pos::default, |node| node.pos);
            self.report.error(pos, "no workflow applies: in a setup config exactly one must");
        }
        workflows
    }

    fn applies(&self, entry: &Entry, body: &Map) -> Option<bool> {
        let name = &entry.key;
        let (when, unless) = (body.entry("when"), body.entry("unless"));
        let (condition, wanted) = match (when, unless) {
            (None, None) => return Some(true),
            (Some(when), None) => (when, true),
            (None, Some(unless)) => (unless, false),
            (Some(_), Some(unless)) => {
                self.report.error(unless.key_pos, format!("workflow `{name}` has both `when` and `unless`"));
                return None;
            }
        };
        if !self.language.tags {
            self.report.error(
                condition.key_pos,
                format!("`{}` of workflow `{name}` needs `version: 2.1`", condition.key),
            );
            return None;
        }
        let scope = Scope::pipeline(0, true);
        self.language.condition(&condition.value, &scope, ConditionOf::Workflow).map(|holds| holds == wanted)
    }

    fn workflow(&mut self, entry: &Entry, body: &Map) -> Option<Workflow> {
        let name = &entry.key;
        let what = format!("workflow `{name}`");
        let scope = Scope::pipeline(0, true);
        let before = self.report.errors();
        let schedules = match present(body, "triggers").map(|node| self.language.substitute(node, &scope)) {
            Some(Some(node)) => schedules(self.read, &node, &what).unwrap_or_default(),
            _ => Vec::new(),
        };
        self.budget.spend(entry.key_pos, 0, schedules.iter().map(cost::schedule).sum());
        let reruns = match body.entry("max_auto_reruns") {
            Some(reruns) => {
                let value = self.workflow_scalar(&reruns.value);
                let node = value.map(|scalar| Node::new(reruns.value.pos, Data::Scalar(scalar)));
                let entries =
                    vec![Entry { value: node.unwrap_or_else(|| reruns.value.clone()), ..reruns.clone() }];
                let map = Map { entries, tagged: false };
                self.read.integer(&map, "max_auto_reruns", &what, (1, limits::AUTO_RERUNS)).flatten()
            }
            None => None,
        };
        let list = match present(body, "jobs").and_then(Node::as_seq) {
            Some(list) if !list.items.is_empty() => list.clone(),
            _ => {
                let pos = body.get("jobs").map_or(entry.key_pos, |node| node.pos);
                self.report.error(pos, format!("{what} needs `jobs`, a list of at least one"));
                return None;
            }
        };
        let mut drafts = Drafts { workflow: name.to_string(), list: Vec::new(), entries: 0, spaces: 0 };
        for item in &list.items {
            let Some(item) = self.entry_node(item) else { continue };
            self.workflow_entry(&item, &mut drafts);
        }
        if !self.check_group_uses(&drafts) {
            return None;
        }
        let jobs = self.graph(drafts)?;
        // A workflow that lost all its jobs to filters is not created.
        if self.report.errors() > before || jobs.is_empty() {
            return None;
        }
        Some(Workflow {
            name: name.to_string(),
            jobs,
            max_auto_reruns: reruns.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            schedules,
        })
    }

    fn workflow_entry(&mut self, item: &EntryNode, drafts: &mut Drafts) {
        if !self.language.tags {
            for key in ["matrix", "pre-steps", "post-steps", "override-with"] {
                if let Some(option) = item.options.entry(key) {
                    self.report.error(option.key_pos, format!("`{key}` needs `version: 2.1`"));
                }
            }
        }
        match self.groups.get(&item.job) {
            Some(group) => self.group(group, item, drafts),
            None => self.entry(item, &Surroundings::default(), drafts),
        }
    }

    fn graph(&mut self, drafts: Drafts) -> Option<Vec<WorkflowJob>> {
        let left = limits::REQUIREMENTS.saturating_sub(self.requirements);
        let jobs = edges::build(self.read, &drafts.workflow, drafts.list, left)?;
        self.requirements += jobs.iter().map(|job| job.requires.len()).sum::<usize>();
        Some(jobs)
    }

    /// The workflow of a config without workflows: its job `build`.
    fn implicit_workflow(&mut self, root: &Map, pos: Option<Pos>) -> Option<Workflow> {
        let jobs = present(root, "jobs");
        let build = jobs.and_then(Node::as_map).and_then(|jobs| jobs.entry("build"));
        // A compiled config may have lost all its workflows to conditions.
        if build.is_none() && !self.language.tags && pos.is_some() {
            return None;
        }
        let Some(build) = build else {
            let pos = pos.or(jobs.map(|node| node.pos)).unwrap_or(Pos { file: 0, line: 1, column: 1 });
            self.report.error(pos, "There are no workflows or build jobs in the config.");
            return None;
        };
        let mut drafts = Drafts { workflow: "workflow".to_owned(), list: Vec::new(), entries: 0, spaces: 0 };
        let entry = EntryNode { job: build.key.clone(), pos: build.key_pos, options: Rc::default() };
        let before = self.report.errors();
        self.entry(&entry, &Surroundings::default(), &mut drafts);
        let jobs = self.graph(drafts)?;
        (self.report.errors() == before && !jobs.is_empty()).then(|| Workflow {
            name: "workflow".to_owned(),
            jobs,
            max_auto_reruns: 0,
            schedules: Vec::new(),
        })
    }
}

/// Names of the jobs of a workflow as they are written, of entries and their `name`: it is not compiled.
fn job_names(body: &Map) -> Vec<String> {
    let mut names = Vec::new();
    let Some(Data::Seq(jobs)) = body.entry("jobs").map(|entry| &entry.value.data) else { return names };
    for item in &jobs.items {
        match &item.data {
            Data::Scalar(job) => names.push(job.text.to_string()),
            Data::Map(entries) => {
                for entry in &entries.entries {
                    names.push(entry.key.to_string());
                    if let Data::Map(options) = &entry.value.data {
                        let name = options.entry("name").and_then(|name| name.value.as_scalar());
                        names.extend(name.map(|name| name.text.to_string()));
                    }
                }
            }
            _ => {}
        }
    }
    names
}
