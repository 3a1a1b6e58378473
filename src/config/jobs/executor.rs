//! Executors: reusable environments of jobs, with parameters.

use super::expander::Expander;
use crate::config::definitions::Element;
use crate::config::language::Scope;
use crate::config::values::{Data, Entry, ExecutorValue, Map, Node, Pos};
use std::rc::Rc;

impl Expander<'_> {
    /// The value of a job's `executor`, already substituted.
    pub(crate) fn executor(&mut self, node: &Node, scope: &Scope) -> Option<Rc<ExecutorValue>> {
        if let Data::Executor(executor) = &node.data {
            return Some(executor.clone());
        }
        let (name, arguments) = self.executor_reference(node)?;
        self.resolve_executor(&name, &arguments, node.pos, scope, scope.package)
    }

    /// An argument for a parameter of type `executor`. A name is looked up where the argument was
    /// written, then in the package of the job; the map form the other way round.
    pub(crate) fn executor_argument(
        &mut self,
        node: &Node,
        scope: &Scope,
        package: usize,
    ) -> Option<Rc<ExecutorValue>> {
        let (name, arguments) = self.executor_reference(node)?;
        let order = if node.as_map().is_some() { [package, scope.package] } else { [scope.package, package] };
        let found =
            order.into_iter().find(|package| self.library.find(Element::Executor, &name, *package).is_some());
        self.resolve_executor(&name, &arguments, node.pos, scope, found.unwrap_or(scope.package))
    }

    fn executor_reference(&self, node: &Node) -> Option<(Rc<str>, Vec<Entry>)> {
        if let Some(name) = node.as_str() {
            return Some((name.clone(), Vec::new()));
        }
        let Some(map) = node.as_map() else {
            let found = node.describe();
            self.report.error(node.pos, format!("an executor is a name or a map with `name`, not {found}"));
            return None;
        };
        let Some(name) = map.get("name") else {
            self.report.error(node.pos, "an executor given as a map needs `name` beside its arguments");
            return None;
        };
        let name = self.read.expect_text(name, "the name of an executor")?;
        Some((name, map.entries.iter().filter(|entry| &*entry.key != "name").cloned().collect()))
    }

    fn resolve_executor(
        &mut self,
        name: &Rc<str>,
        arguments: &[Entry],
        pos: Pos,
        scope: &Scope,
        package: usize,
    ) -> Option<Rc<ExecutorValue>> {
        let Some(definition) = self.library.find(Element::Executor, name, package) else {
            let message = self.library.not_found(Element::Executor, name, package, pos);
            self.report.error(pos, message);
            return None;
        };
        let (map, parameters) = definition.own()?;
        self.library.mark_used(&definition);
        let arguments: Vec<_> = arguments.iter().collect();
        let callee = (&*definition.label(), definition.package);
        let bound = self.bind(parameters, &arguments, scope, callee, pos);
        let scope = Scope::of_package(definition.package).with_parameters(bound.bindings);
        let keys = self.report.within(pos, definition.label(), || {
            let mut keys = Map::default();
            let mut complete = true;
            for entry in
                map.entries.iter().filter(|entry| !matches!(&*entry.key, "parameters" | "description"))
            {
                match self.language.substitute(&entry.value, &scope) {
                    Some(value) => keys.entries.push(Entry { value, ..entry.clone() }),
                    None => complete = false,
                }
            }
            (complete && bound.complete).then_some(keys)
        })?;
        Some(Rc::new(ExecutorValue { name: name.clone(), keys: Rc::new(keys) }))
    }
}
