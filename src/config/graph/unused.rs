//! Elements that no workflow uses: their mistakes are warnings, since they stop nothing until they are used.
//!
//! Each such element is compiled as a rehearsal, with parameters that have no value. Anything that depends on
//! one is passed over in silence; the rest is checked by the same code as ever.

use super::draft::{Drafts, EntryNode};
use super::edges;
use super::workflows::Workflows;
use crate::config::definitions::sections::EXECUTOR_KEYS;
use crate::config::definitions::{Definition, Element};
use crate::config::jobs::{environment, one_environment, shell};
use crate::config::language::Scope;
use crate::config::limits;
use crate::config::session::present;
use crate::config::values::{Bindings, Entry, Map, StepList};
use std::rc::Rc;

impl Workflows<'_> {
    /// Warns about mistakes in elements of the config that were not used.
    pub(crate) fn check_unused(&mut self) {
        // Uses are not known where expansion was given up.
        if self.budget.is_exhausted() {
            return;
        }
        let errors = self.report.count_errors_from(0);
        self.budget.renew();
        self.jobs = 0;
        for element in [Element::Command, Element::Executor, Element::Job] {
            for definition in self.expander.library.unused(element) {
                self.rehearse(definition.label(), |workflows| workflows.rehearse_element(&definition));
            }
        }
        let mut groups: Vec<&Entry> =
            self.groups.values().filter(|group| !self.used_groups.contains(&group.key)).collect();
        groups.sort_by_key(|group| group.key_pos);
        for group in groups {
            self.rehearse(format!("job group `{}`", group.key), |workflows| workflows.rehearse_group(group));
        }
        self.report.count_errors_from(errors);
    }

    fn rehearse(&mut self, label: String, inside: impl FnOnce(&mut Self)) {
        if !self.budget.is_exhausted() {
            self.report.rehearse(label, || inside(self));
        }
    }

    fn rehearse_element(&mut self, definition: &Definition) {
        let Some((map, parameters)) = definition.own() else { return };
        let bindings: Bindings = parameters.all_names().map(|name| (name.clone(), None)).collect();
        let scope = Scope::of_package(definition.package).with_parameters(bindings);
        match definition.element {
            Element::Command => {
                if let Some(steps) = present(map, "steps") {
                    self.expander.steps(steps, &scope);
                }
            }
            Element::Executor => self.rehearse_executor(definition, map, &scope),
            Element::Job => {
                self.expander.job_body(definition, map, &scope, StepList::default(), StepList::default());
            }
        }
    }

    fn rehearse_executor(&mut self, definition: &Definition, map: &Map, scope: &Scope) {
        let label = definition.label();
        let mut keys = Map::default();
        for entry in map.entries.iter().filter(|entry| EXECUTOR_KEYS.contains(&&*entry.key)) {
            if matches!(&*entry.key, "parameters" | "description") {
                continue;
            }
            if let Some(value) =
                self.language.substitute(&entry.value, scope).filter(|value| !value.is_null())
            {
                keys.entries.push(Entry { value, ..entry.clone() });
            }
        }
        one_environment(self.read, &keys, &label);
        if let Some(node) = present(&keys, "environment") {
            environment(self.read, node, &label);
        }
        if let Some(node) = present(&keys, "shell") {
            shell(self.read, node, &label);
        }
        for key in ["resource_class", "working_directory"] {
            self.read.text(&keys, key, &label);
        }
    }

    fn rehearse_group(&mut self, group: &Entry) {
        let workflow = "any".to_owned();
        let mut drafts = Drafts { workflow, list: Vec::new(), entries: 0, spaces: 0 };
        let entry = EntryNode { job: group.key.clone(), pos: group.key_pos, options: Rc::default() };
        self.group(group, &entry, &mut drafts);
        edges::build(self.read, &drafts.workflow, drafts.list, limits::REQUIREMENTS);
    }
}
