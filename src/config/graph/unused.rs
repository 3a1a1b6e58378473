//! A look at what no workflow uses: mistakes there stop nothing now, but will when it is used.
//!
//! Each such element is compiled for show, with parameters that have no value: what depends on one is
//! passed over in silence, everything else is checked by the same code as ever. Its errors are warnings.

use crate::config::definitions::package::{Definition, Element};
use crate::config::graph::edges;
use crate::config::graph::entry::{Drafts, EntryNode};
use crate::config::jobs::executor;
use crate::config::jobs::steps::NullBody;
use crate::config::language::scope::Scope;
use crate::config::limits;
use crate::config::session::compiler::{Compiler, present};
use crate::config::values::{Bindings, Entry, Map, StepList};
use std::rc::Rc;

impl Compiler<'_> {
    /// Warns about mistakes in elements of the config that were not used.
    pub(crate) fn check_unused(&mut self) {
        let Some(config) = self.packages.first().cloned() else { return };
        // What was given up before its end may be used all the same.
        if !self.begin_rehearsals() {
            return;
        }
        for element in [Element::Command, Element::Executor, Element::Job] {
            let mut unused: Vec<Rc<Definition>> = config
                .table(element)
                .values()
                .filter(|definition| !self.used.contains(&(element, 0, definition.name.clone())))
                .cloned()
                .collect();
            unused.sort_by_key(|definition| definition.pos);
            for definition in unused {
                self.rehearse(definition.label(), |compiler| compiler.rehearse_element(&definition));
            }
        }
        let mut groups: Vec<&Entry> =
            config.groups.values().filter(|group| !self.used_groups.contains(&group.key)).collect();
        groups.sort_by_key(|group| group.key_pos);
        for group in groups {
            self.rehearse(format!("job group `{}`", group.key), |compiler| compiler.rehearse_group(group));
        }
        self.end_rehearsals();
    }

    fn rehearse_element(&mut self, definition: &Definition) {
        let Some((map, parameters)) = definition.own() else { return };
        let bindings: Bindings = parameters.all_names().map(|name| (name.clone(), None)).collect();
        let scope = self.package_scope(definition.package).with_parameters(bindings);
        match definition.element {
            Element::Command => {
                if let Some(steps) = present(map, "steps") {
                    self.steps(steps, &scope, NullBody::Refused);
                }
            }
            Element::Executor => self.rehearse_executor(definition, map, &scope),
            Element::Job => {
                self.job_body(definition, map, &scope, StepList::default(), StepList::default());
            }
        }
    }

    fn rehearse_executor(&mut self, definition: &Definition, map: &Map, scope: &Scope) {
        let label = definition.label();
        let mut keys = Map::default();
        for entry in map.entries.iter().filter(|entry| executor::KEYS.contains(&&*entry.key)) {
            if matches!(&*entry.key, "parameters" | "description") {
                continue;
            }
            if let Some(value) = self.substitute(&entry.value, scope).filter(|value| !value.is_null()) {
                keys.entries.push(Entry { value, ..entry.clone() });
            }
        }
        self.one_environment(&keys, &label);
        if let Some(node) = present(&keys, "environment") {
            self.environment(node, &label);
        }
        if let Some(node) = present(&keys, "shell") {
            self.shell(node, &label);
        }
        for key in ["resource_class", "working_directory"] {
            self.text(&keys, key, &label);
        }
    }

    fn rehearse_group(&mut self, group: &Entry) {
        let workflow = "any".to_owned();
        let mut drafts = Drafts { workflow, list: Vec::new(), entries: 0, spaces: 0 };
        let entry = EntryNode { job: group.key.clone(), pos: group.key_pos, options: Rc::default() };
        self.group(group, &entry, &mut drafts);
        edges::build(self, &drafts.workflow, drafts.list, limits::REQUIREMENTS);
    }
}
