//! Arguments of an invocation, bound to the parameters of its definition.

use super::expander::Expander;
use crate::config::definitions::parameters::{Declaration, Declarations, ParameterType};
use crate::config::diagnostic::Severity;
use crate::config::language::Scope;
use crate::config::session::cost;
use crate::config::values::{Bindings, Data, Entry, Node, Pos};

/// Arguments bound to parameters.
pub(crate) struct Bound {
    pub(crate) bindings: Bindings,
    /// Every parameter has its value.
    pub(crate) complete: bool,
}

impl Bound {
    fn insert(&mut self, declaration: &Declaration, data: Option<Data>) {
        self.complete &= data.is_some();
        self.bindings.insert(declaration.name.clone(), data);
    }
}

impl Expander<'_> {
    /// Binds arguments, written in `scope`, to the parameters of `callee` in the package `package`. With
    /// mistakes there are bindings too, so that the inside of the callee can be looked at as well.
    pub(crate) fn bind(
        &mut self,
        declarations: &Declarations,
        arguments: &[&Entry],
        scope: &Scope,
        (callee, package): (&str, usize),
        pos: Pos,
    ) -> Bound {
        let mut bound = Bound { bindings: Bindings::new(), complete: declarations.broken.is_empty() };
        if !self.budget.spend(pos, 0, cost::VALUE * (declarations.list.len() + arguments.len())) {
            return Bound { complete: false, ..bound };
        }
        for name in &declarations.broken {
            bound.bindings.insert(name.clone(), None);
        }
        for entry in arguments {
            let Some(declaration) = declarations.get(&entry.key) else {
                if !declarations.has(&entry.key) {
                    let known = declarations.names();
                    let choices =
                        self.report.choices(Severity::Error, entry.key_pos, "parameters", &entry.key, known);
                    self.report.error(
                        entry.key_pos,
                        format!("Unexpected argument(s): `{}` for {callee}{choices}", entry.key),
                    );
                }
                bound.complete = false;
                continue;
            };
            let data = self.argument(declaration, &entry.value, scope, package, callee);
            bound.insert(declaration, data);
        }
        for declaration in &declarations.list {
            if bound.bindings.contains_key(&declaration.name) {
                continue;
            }
            let data = match &declaration.default {
                Some(default) => {
                    let scope = Scope::of_package(package);
                    self.argument(declaration, default, &scope, package, callee)
                }
                None => {
                    let (name, kind) = (&declaration.name, declaration.kind.name());
                    self.report
                        .error(pos, format!("Missing required argument: `{name}` ({kind}) for {callee}"));
                    None
                }
            };
            bound.insert(declaration, data);
        }
        bound
    }

    fn argument(
        &mut self,
        declaration: &Declaration,
        node: &Node,
        scope: &Scope,
        package: usize,
        callee: &str,
    ) -> Option<Data> {
        // Steps keep the scope they were written in, so they are compiled there.
        if declaration.kind == ParameterType::Steps && node.as_seq().is_some() {
            return self.given_steps(node, scope).map(|steps| Data::Steps(steps.into()));
        }
        let mut node = self.language.substitute(node, scope)?;
        if declaration.kind == ParameterType::Executor && !matches!(node.data, Data::Executor(_)) {
            let executor = self.executor_argument(&node, scope, package)?;
            node.data = Data::Executor(executor);
        }
        match declaration.kind.check(&node) {
            Ok(data) => Some(data),
            Err(expected) => {
                let name = &declaration.name;
                let found = node.describe();
                self.report.error(
                    node.pos,
                    format!("Type error for argument `{name}` of {callee}: expected {expected}, not {found}"),
                );
                None
            }
        }
    }
}
