//! Conditions: logic statements (`and`, `or`, `not`, `equal`, `matches`) and bare expressions.

use super::scope::Scope;
use super::substitute::{At, Language};
use crate::config::diagnostic::Severity;
use crate::config::limits;
use crate::config::session::cost;
use crate::config::syntax::{Pattern, parse};
use crate::config::values::{Data, Node, ScalarKind, shorten};

/// The owner of a condition, which decides what a plain string means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConditionOf {
    /// `when` and `unless` of workflows, and `filters`: a string is an expression over pipeline values.
    Workflow,
    /// `condition` of a step: a string is an expression if it reads like one, else it is just true.
    Step,
}

impl Language<'_> {
    /// Whether a condition holds.
    pub(crate) fn condition(&self, node: &Node, scope: &Scope, of: ConditionOf) -> Option<bool> {
        if let Some(scalar) =
            node.as_scalar().filter(|scalar| scalar.kind == ScalarKind::Str && !scalar.tagged())
        {
            match (parse(&scalar.text), of) {
                (Ok(expression), ConditionOf::Step) if !expression.names_are_dotted() => {
                    let value = expression.evaluate(&mut |_| Err(()));
                    if value.is_ok_and(|value| !value.is_truthy()) {
                        let text = shorten(scalar.text.trim());
                        let message = format!(
                            "`{text}` is text here, which counts as true: an expression in the condition of a step has a name with a dot (for a condition that does not hold, write `false` without quotes)"
                        );
                        self.report.warn(node.pos, message);
                    }
                }
                (Err(_), ConditionOf::Step) => {}
                (Ok(expression), of) => {
                    let mut names = Vec::new();
                    expression.names(&mut names);
                    let foreign = names.iter().find(|name| !name.text.starts_with("pipeline."));
                    if let (Some(name), ConditionOf::Workflow) = (foreign, of) {
                        let message = format!(
                            "`{}` cannot be used here: conditions of workflows and filters only know `pipeline.` names (for a condition that is always true, write `true` without quotes)",
                            name.text
                        );
                        let pos = self.report.place_in(node.pos, scalar, name.offset);
                        self.report.error(pos, message);
                        return None;
                    }
                    return self
                        .evaluate(&expression, &scalar.text, At { pos: node.pos, scalar, offset: 0 }, scope)
                        .map(|value| value.is_truthy());
                }
                (Err(error), ConditionOf::Workflow) => {
                    let pos = self.report.place_in(node.pos, scalar, error.offset);
                    self.report.error(
                        pos,
                        format!("{} in the expression `{}`", error.message, shorten(scalar.text.trim())),
                    );
                    return None;
                }
            }
        }
        self.statement(node, scope, 1)
    }

    fn statement(&self, node: &Node, scope: &Scope, depth: usize) -> Option<bool> {
        if depth > limits::LOGIC_DEPTH {
            self.report
                .error(node.pos, format!("logic statements nest at most {} levels", limits::LOGIC_DEPTH));
            return None;
        }
        match &node.data {
            Data::Scalar(scalar) => {
                let mixed =
                    self.tags && scalar.tagged() && self.template(node.pos, scalar)?.sole_tag().is_none();
                if mixed {
                    let message = "this mixes text and `<< >>`, which makes it a string and so always true; put all of it into one tag";
                    self.report.warn(node.pos, message);
                }
                Some(!self.substitute(node, scope)?.data.is_falsy())
            }
            Data::Seq(_) => {
                self.report.error(node.pos, "a condition cannot be a list (combine with `and:` or `or:`)");
                None
            }
            Data::Map(map) => {
                let [entry] = map.entries.as_slice() else {
                    self.report.error(
                        node.pos,
                        "a logic statement has exactly one of the keys and, or, not, equal, matches",
                    );
                    return None;
                };
                match &*entry.key {
                    "and" | "or" => self.combination(&entry.key, &entry.value, scope, depth),
                    "not" => self.statement(&entry.value, scope, depth + 1).map(|value| !value),
                    "equal" => self.equal(&entry.value, scope),
                    "matches" => self.matches(&entry.value, scope),
                    other => {
                        let known = ["and", "or", "not", "equal", "matches"];
                        let choices =
                            self.report.choices(Severity::Error, entry.key_pos, "statements", other, known);
                        self.report
                            .error(entry.key_pos, format!("unknown logic statement `{other}`{choices}"));
                        None
                    }
                }
            }
            Data::Steps(_) | Data::Executor(_) => Some(!node.data.is_falsy()),
        }
    }

    /// The arguments of `and`, `or` and `equal`: a list of at least one.
    fn arguments<'n>(&self, word: &str, node: &'n Node) -> Option<&'n [Node]> {
        match node.as_seq() {
            Some(seq) if !seq.items.is_empty() => Some(&seq.items),
            Some(_) => {
                self.report.error(node.pos, format!("`{word}` needs at least one argument"));
                None
            }
            None => {
                self.report.error(node.pos, format!("`{word}` takes a list, not {}", node.describe()));
                None
            }
        }
    }

    fn combination(&self, word: &str, node: &Node, scope: &Scope, depth: usize) -> Option<bool> {
        let arguments = self.arguments(word, node)?;
        if !self.budget.spend(node.pos, 0, cost::VALUE * arguments.len()) {
            return None;
        }
        let values: Vec<_> =
            arguments.iter().map(|argument| self.statement(argument, scope, depth + 1)).collect();
        let values: Vec<bool> = values.into_iter().collect::<Option<_>>()?;
        Some(if word == "and" { values.into_iter().all(|v| v) } else { values.into_iter().any(|v| v) })
    }

    fn equal(&self, node: &Node, scope: &Scope) -> Option<bool> {
        let arguments = self.arguments("equal", node)?;
        let values: Vec<_> = arguments.iter().map(|argument| self.substitute(argument, scope)).collect();
        let values: Vec<Node> = values.into_iter().collect::<Option<_>>()?;
        let compared: usize = values.iter().map(|value| cost::values(&value.data)).sum();
        if !self.budget.spend(node.pos, 0, cost::VALUE * compared) {
            return None;
        }
        Some(values.iter().all(|value| value.data.equals(&values[0].data)))
    }

    fn matches(&self, node: &Node, scope: &Scope) -> Option<bool> {
        let map = self.read.expect_map(node, "`matches`")?;
        self.read.check_keys(map, "`matches`", &["pattern", "value"], false);
        let (Some(pattern), Some(value)) = (map.get("pattern"), map.get("value")) else {
            self.report.error(node.pos, "`matches` needs `pattern` and `value`");
            return None;
        };
        let pattern = self.substitute(pattern, scope)?;
        let value = self.substitute(value, scope)?;
        let text = self.read.expect_text(&pattern, "`pattern` of `matches`")?;
        let compiled = match Pattern::new(&text) {
            Ok(compiled) => compiled,
            Err(message) => {
                self.report.error(pattern.pos, message);
                return None;
            }
        };
        match value.as_str() {
            Some(text) => Some(compiled.is_match(text)),
            None if value.is_null() => Some(false),
            None => {
                self.report.error(
                    value.pos,
                    format!("`value` of `matches` must be a string, not {}", value.describe()),
                );
                None
            }
        }
    }
}
