//! Lists of steps: commands replaced by their steps, conditional steps kept or dropped, `steps`
//! parameters spliced in.

use super::builtin::builtin;
use super::expander::Expander;
use crate::config::definitions::{BUILTIN_STEPS, Definition, Element, builtin_name};
use crate::config::language::{ConditionOf, Scope};
use crate::config::limits;
use crate::config::session::{cost, present};
use crate::config::values::{Data, Entry, Node, PlacedStep, Pos, StepList};
use std::mem;
use std::rc::Rc;

impl Expander<'_> {
    /// Expands a list of steps written in `scope`.
    pub(crate) fn steps(&mut self, node: &Node, scope: &Scope) -> Option<StepList> {
        let mut list = StepList::default();
        self.expand(node, scope, &mut list).map(|()| list)
    }

    /// Expands steps that are given to a job or command: pre-steps, post-steps, arguments.
    pub(crate) fn given_steps(&mut self, node: &Node, scope: &Scope) -> Option<StepList> {
        let outer = mem::replace(&mut self.steps_are_given, true);
        let list = self.steps(node, scope);
        self.steps_are_given = outer;
        list
    }

    fn expand(&mut self, node: &Node, scope: &Scope, out: &mut StepList) -> Option<()> {
        if self.step_depth >= limits::STEP_DEPTH {
            let message = format!(
                "commands and conditional steps are nested deeper than {} levels",
                limits::STEP_DEPTH
            );
            self.report.error(node.pos, message);
            return None;
        }
        let substituted;
        let node = if node.as_scalar().is_some() {
            substituted = self.language.substitute(node, scope)?;
            &substituted
        } else {
            node
        };
        match &node.data {
            Data::Steps(list) => {
                let bytes = list.steps.iter().map(|placed| cost::step(&placed.step)).sum();
                if !self.budget.spend(node.pos, list.steps.len(), bytes) {
                    return None;
                }
                out.steps.extend_from_slice(&list.steps);
                Some(())
            }
            Data::Seq(seq) => {
                self.step_depth += 1;
                // Every step is looked at, so that all mistakes are found at once.
                let mut complete = Some(());
                for item in &seq.items {
                    complete = self.step(item, scope, out).and(complete);
                }
                self.step_depth -= 1;
                complete
            }
            _ => {
                self.report.error(node.pos, format!("steps must be a list, not {}", node.describe()));
                None
            }
        }
    }

    fn step(&mut self, item: &Node, scope: &Scope, out: &mut StepList) -> Option<()> {
        if !self.budget.spend(item.pos, 1, 0) {
            return None;
        }
        match &item.data {
            Data::Scalar(_) => {
                let item = self.language.substitute(item, scope)?;
                if let Data::Steps(_) = item.data {
                    return self.expand(&item, scope, out);
                }
                if item.is_null() {
                    let message =
                        "no step stands behind this `-`: write the name of one, or a map with one key";
                    self.report.error(item.pos, message);
                    return None;
                }
                let name = self.read.expect_text(&item, "a step")?;
                self.invoke(&name, item.pos, None, scope, out)
            }
            Data::Map(map) => {
                let entry = self.only_entry(item.pos, &map.entries)?;
                let body = Some(&entry.value).filter(|value| !value.is_null());
                if body.is_none() {
                    let name = &entry.key;
                    if let Some(takes) = self.takes(name, scope) {
                        self.report.error(
                            entry.key_pos,
                            format!("step `{name}` has nothing after the colon: it takes {takes}"),
                        );
                        return None;
                    }
                    // Public configs that ran for years have `- checkout:` among the steps of their jobs.
                    let may_be_null =
                        self.steps_are_given || map.entries.len() > 1 || self.is_builtin(name, scope);
                    if !may_be_null {
                        self.report.error(
                            entry.key_pos,
                            format!(
                                "step `{name}` has nothing after the colon: without arguments, write `- {name}`"
                            ),
                        );
                        return None;
                    }
                    self.report.warn(
                        entry.key_pos,
                        format!("step `{name}` has nothing after the colon: it is used without arguments"),
                    );
                }
                self.invoke(&entry.key, entry.key_pos, body, scope, out)
            }
            _ => {
                let found = item.describe();
                self.report.error(item.pos, format!("a step is a name or a map with one key, not {found}"));
                None
            }
        }
    }

    /// The one key of a step. Arguments that stand beside the name instead of below it are a common
    /// slip, which is told apart from two steps in one item.
    fn only_entry<'e>(&self, pos: Pos, entries: &'e [Entry]) -> Option<&'e Entry> {
        match entries {
            [only] => Some(only),
            [] => {
                self.report.error(pos, "a step is a name or a map with one key, not an empty map");
                None
            }
            [first, second, ..] if first.value.is_null() => {
                let (name, argument) = (&first.key, &second.key);
                self.report.warn(
                    second.key_pos,
                    format!("`{argument}` stands beside `{name}` and is ignored: indent the arguments of a step below its name"),
                );
                Some(first)
            }
            [first, second, ..] => {
                let (name, other) = (&first.key, &second.key);
                self.report.error(
                    second.key_pos,
                    format!("a step has one key, here are `{name}` and `{other}`: begin the second with `-`, or indent it"),
                );
                None
            }
        }
    }

    fn invoke(
        &mut self,
        name: &str,
        pos: Pos,
        body: Option<&Node>,
        scope: &Scope,
        out: &mut StepList,
    ) -> Option<()> {
        if !self.library.has_command(name, scope.package) {
            let name = builtin_name(name);
            if BUILTIN_STEPS.contains(&name) {
                let step = builtin(self.language, name, pos, body, scope)?;
                if !self.budget.spend(pos, 0, cost::step(&step)) {
                    return None;
                }
                out.steps.push(PlacedStep { step, pos });
                return Some(());
            }
            if !self.language.tags && matches!(name, "when" | "unless" | "steps") {
                self.report.error(pos, format!("the step `{name}` needs `version: 2.1`"));
                return None;
            }
            match (name, body) {
                ("when" | "unless", Some(body)) => {
                    return self.conditional(name, body, scope, out);
                }
                ("steps", Some(body)) if body.as_scalar().is_some() => {
                    return self.expand(body, scope, out);
                }
                ("when" | "unless" | "steps", _) => {
                    let takes = self.takes(name, scope).unwrap_or_default();
                    self.report.error(pos, format!("`{name}` takes {takes}"));
                    return None;
                }
                _ => {}
            }
        }
        match self.library.find(Element::Command, name, scope.package) {
            Some(command) => self.call(&command, pos, body, scope, out),
            None => {
                let message = self.library.not_found(Element::Command, name, scope.package, pos)?;
                self.report.error(pos, message);
                None
            }
        }
    }

    fn is_builtin(&self, name: &str, scope: &Scope) -> bool {
        BUILTIN_STEPS.contains(&builtin_name(name)) && !self.library.has_command(name, scope.package)
    }

    /// The arguments that a step cannot do without, for messages; `None` for commands, also for those that
    /// have the name of such a step.
    fn takes(&self, name: &str, scope: &Scope) -> Option<&'static str> {
        let takes = match name {
            "run" | "deploy" => "a command",
            "when" | "unless" if self.language.tags => "`condition` and `steps`",
            "steps" if self.language.tags => "a parameter of type steps",
            _ => return None,
        };
        (!self.library.has_command(name, scope.package)).then_some(takes)
    }

    fn conditional(&mut self, name: &str, body: &Node, scope: &Scope, out: &mut StepList) -> Option<()> {
        let what = format!("step `{name}`");
        let map = self.read.expect_map(body, &what)?;
        self.read.check_keys(map, &what, &["condition", "steps"], false);
        // A condition may well be null: a pipeline value that does not apply.
        let (Some(condition), Some(steps)) = (map.get("condition"), present(map, "steps")) else {
            self.report.error(body.pos, format!("{what} needs `condition` and `steps`"));
            return None;
        };
        let holds = self.language.condition(condition, scope, ConditionOf::Step);
        if self.report.is_rehearsal() {
            return self.expand(steps, scope, out);
        }
        if holds? == (name == "when") {
            self.expand(steps, scope, out)?;
        }
        Some(())
    }

    fn call(
        &mut self,
        command: &Rc<Definition>,
        pos: Pos,
        body: Option<&Node>,
        scope: &Scope,
        out: &mut StepList,
    ) -> Option<()> {
        let label = command.label();
        let id = (command.package, command.name.clone());
        if let Some(first) = self.calls.iter().position(|call| *call == id) {
            let mut chain: Vec<_> = self.calls[first..].iter().map(|(_, name)| format!("`{name}`")).collect();
            chain.push(format!("`{}`", command.name));
            self.report.error(pos, format!("{label} calls itself: {}", chain.join(" -> ")));
            return None;
        }
        self.library.mark_used(command);
        let arguments = match body {
            None => None,
            Some(body) => Some(self.read.expect_map(body, format_args!("the arguments of {label}"))?),
        };
        let arguments: Vec<_> = arguments.iter().flat_map(|map| &map.entries).collect();
        let (map, parameters) = command.own()?;
        let bound = self.bind(parameters, &arguments, scope, (&label, command.package), pos);
        if self.report.is_rehearsal() {
            return Some(());
        }
        // Near the limit the same call may be too deep in one place and not in another.
        let is_repeatable = bound.complete && self.step_depth < limits::STEP_DEPTH / 2;
        let known = self.repeated.find(command, &bound.bindings).filter(|_| is_repeatable);
        // A call that exceeds the budget is expanded again, so that the error stands at the step that does.
        let left = self.budget.left();
        if let Some(known) = known.filter(|known| known.spent.0 <= left.0 && known.spent.1 <= left.1) {
            if !self.budget.spend(pos, known.spent.0, known.spent.1) {
                return None;
            }
            out.steps.extend_from_slice(&known.list.steps);
            return Some(());
        }
        let inner = Scope::of_package(command.package).with_parameters(bound.bindings);
        let steps = map.get("steps")?;
        let (left, messages, first) = (self.budget.left(), self.report.messages(), out.steps.len());
        self.calls.push(id);
        let outer = mem::replace(&mut self.steps_are_given, false);
        let expanded = self.report.within(pos, label, || self.expand(steps, &inner, out));
        self.steps_are_given = outer;
        self.calls.pop();
        expanded.filter(|()| bound.complete)?;
        if let (true, true, Some(arguments)) =
            (is_repeatable, self.report.messages() == messages, inner.parameters)
        {
            let list = Rc::new(StepList { steps: out.steps[first..].to_vec() });
            let now = self.budget.left();
            self.repeated.keep(command, arguments, list, (left.0 - now.0, left.1 - now.1));
        }
        Some(())
    }
}
