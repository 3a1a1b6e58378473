//! The values of names in tags, and the substitution of tags by values.

use super::evaluate::{EvaluationError, Value};
use super::pipeline;
use super::scope::Scope;
use crate::config::diagnostic::Severity::{Error, Warning};
use crate::config::input::Input;
use crate::config::limits;
use crate::config::session::{Budget, NodeReader, Report, cost};
use crate::config::syntax::template::{self, Template, TemplatePart, TemplateTag};
use crate::config::syntax::{Expression, Identifier};
use crate::config::values::{Bindings, Data, Entry, Map, Node, Pos, Scalar, Seq};
use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

/// The place of an expression: a byte of a scalar. Line and column are worked out only for a message.
#[derive(Clone, Copy)]
pub(crate) struct At<'s> {
    pub(crate) pos: Pos,
    pub(crate) scalar: &'s Scalar,
    pub(crate) offset: usize,
}

/// The reason for which a name has no value.
enum Missing {
    /// Not declared, with the rest of the message.
    Undeclared(Rc<str>),
    /// Declared, but not visible here, with the message.
    Hidden(String),
    /// Declared, but the declaration or the value has a mistake, which was reported.
    Broken,
}

/// The value of a name, unless it is a broken one.
fn bound(data: &Option<Data>) -> Result<Value, Missing> {
    data.as_ref().map(Value::of).ok_or(Missing::Broken)
}

/// The language of one config: its version, the values that names stand for, and the substitution of tags.
pub(crate) struct Language<'c> {
    pub(crate) input: &'c Input<'c>,
    pub(crate) report: &'c Report,
    pub(crate) budget: &'c Budget<'c>,
    pub(crate) read: NodeReader<'c>,
    /// Whether tags are rendered, as in version 2.1.
    pub(crate) tags: bool,
    /// Pipeline parameters with their values in force; empty until their declarations are read.
    pub(crate) pipeline_parameters: Bindings,
    /// Tags with an unknown pipeline value, by place and offset in the text: many steps may come from one,
    /// and it is reported once.
    unknown_values: RefCell<HashSet<(Pos, usize)>>,
}

impl<'c> Language<'c> {
    pub(crate) fn new(input: &'c Input<'c>, read: NodeReader<'c>, tags: bool) -> Self {
        Self {
            input,
            report: read.report,
            budget: read.budget,
            read,
            tags,
            pipeline_parameters: Bindings::new(),
            unknown_values: RefCell::default(),
        }
    }

    /// The parsed form of a text with tags, `None` for one without; mistakes are reported at each use.
    pub(crate) fn template(&self, pos: Pos, scalar: &Scalar) -> Option<Rc<Template>> {
        let known = scalar.template.as_ref()?;
        if let Some(parsed) = known.get() {
            return Some(parsed.clone());
        }
        // A parsed tag takes much more room than its text.
        if !self.budget.spend(pos, 0, 4 * cost::VALUE * scalar.text.matches("<<").count()) {
            return None;
        }
        match template::parse(&scalar.text) {
            Ok(parsed) => Some(known.get_or_init(|| Rc::new(parsed)).clone()),
            Err(error) => {
                let pos = self.report.place_in(pos, scalar, error.offset);
                self.report.error(pos, error.message);
                None
            }
        }
    }

    fn place(&self, at: At<'_>, offset: usize) -> Pos {
        self.report.place_in(at.pos, at.scalar, at.offset + offset)
    }

    fn look_up(&self, name: &Identifier, at: At<'_>, scope: &Scope) -> Result<Value, Missing> {
        let (offset, name) = (name.offset, &*name.text);
        if let Some(name) = name.strip_prefix("parameters.") {
            let Some(bindings) = &scope.parameters else {
                return Err(Missing::Undeclared(
                    ": nothing here has `parameters` (pipeline parameters are `pipeline.parameters.NAME`)"
                        .into(),
                ));
            };
            return match bindings.get(name) {
                Some(data) => bound(data),
                None => {
                    let known = bindings.keys().map(|key| &**key);
                    Err(Missing::Undeclared(self.report.choices(Error, at.pos, "parameters", name, known)))
                }
            };
        }
        if let Some(name) = name.strip_prefix("pipeline.parameters.") {
            if !scope.pipeline_parameters {
                let place =
                    if scope.package == 0 { "in the declaration of pipeline parameters" } else { "in orbs" };
                return Err(Missing::Hidden(format!(
                    "`pipeline.parameters.{name}` cannot be used {place}; pass it as an argument"
                )));
            }
            return match self.pipeline_parameters.get(name) {
                Some(data) => bound(data),
                None => {
                    let known = self.pipeline_parameters.keys().map(|key| &**key);
                    Err(Missing::Undeclared(self.report.choices(
                        Error,
                        at.pos,
                        "pipeline parameters",
                        name,
                        known,
                    )))
                }
            };
        }
        if name.starts_with("pipeline.") {
            let values = [self.input.values, self.input.stand_ins];
            if let Some(value) = values.into_iter().find_map(|values| values.get(name)) {
                return Ok(Value::of(&pipeline::from_json(value)));
            }
            // Reported once for each tag, which many steps may come from.
            if !pipeline::is_known(name)
                && !self.report.is_full(Warning)
                && self.unknown_values.borrow_mut().insert((at.pos, at.offset + offset))
            {
                let hint = self.report.choices(Warning, at.pos, "pipeline values", name, pipeline::names());
                let pos = self.place(at, offset);
                self.report.warn(pos, format!("`{name}` is no pipeline value and is left empty{hint}"));
            }
            return Ok(Value::Undefined);
        }
        if let Some(name) = name.strip_prefix("matrix.") {
            let Some(bindings) = &scope.matrix else {
                return Err(Missing::Hidden(format!(
                    "`matrix.{name}` can only be used in a workflow entry that has a `matrix`"
                )));
            };
            return match bindings.get(name) {
                Some(data) => bound(data),
                None => {
                    let known = bindings.keys().map(|key| &**key);
                    Err(Missing::Undeclared(self.report.choices(
                        Error,
                        at.pos,
                        "matrix parameters",
                        name,
                        known,
                    )))
                }
            };
        }
        Err(Missing::Undeclared(" (names begin with `pipeline.`, `parameters.` or `matrix.`)".into()))
    }

    /// The value of an expression. `source` is its text, for messages.
    pub(crate) fn evaluate(
        &self,
        expression: &Expression,
        source: &str,
        at: At<'_>,
        scope: &Scope,
    ) -> Option<Value> {
        let result = expression
            .evaluate(&mut |name| self.look_up(name, at, scope).map_err(|missing| (name.clone(), missing)));
        let (offset, message) = match result {
            // A name that does not apply stays empty; anything computed from it is false in the end.
            Ok(Value::Undefined) if !matches!(expression, Expression::Name(_)) => {
                return Some(Value::Boolean(false));
            }
            Ok(value) => return Some(value),
            Err(EvaluationError::Name((_, Missing::Broken))) => return None,
            Err(EvaluationError::Type(offset, message)) => {
                (offset, format!("{message} in `{}`", source.trim()))
            }
            Err(EvaluationError::Name((name, Missing::Hidden(message)))) => (name.offset, message),
            Err(EvaluationError::Name((name, Missing::Undeclared(hint)))) => {
                let Identifier { text, offset } = name;
                let message = match expression {
                    Expression::Name(_) if text.contains("parameters.") => {
                        format!("Arguments referenced without declared parameters: {text}{hint}")
                    }
                    _ => {
                        let (before, after) = source.split_at(offset.min(source.len()));
                        let before = before.rsplit('\n').next().unwrap_or_default();
                        let line = format!("{before}{}", after.lines().next().unwrap_or_default());
                        let indent = before.chars().count() - (line.len() - line.trim_start().len());
                        let (line, caret) = (line.trim(), " ".repeat(indent));
                        format!(
                            "Referred to a variable \"{text}\" that does not exist{hint}:\n{line}\n{caret}^"
                        )
                    }
                };
                (offset, message)
            }
        };
        let pos = self.place(at, offset);
        self.report.error(pos, message);
        None
    }

    fn tag(&self, tag: &TemplateTag, pos: Pos, scalar: &Scalar, scope: &Scope) -> Option<Value> {
        self.evaluate(&tag.expression, &tag.source, At { pos, scalar, offset: tag.offset }, scope)
    }

    /// The value of a scalar: that of its tag when that is all there is, else text.
    fn substitute_scalar(&self, pos: Pos, scalar: &Scalar, scope: &Scope) -> Option<Data> {
        let template = self.template(pos, scalar)?;
        if let Some(tag) = template.sole_tag() {
            return self.tag(tag, pos, scalar, scope).map(Value::into_data);
        }
        let mut text = String::new();
        self.render(&template.parts, pos, scalar, scope, &mut text)?;
        self.budget.spend(pos, 0, text.len()).then(|| Data::string(text))
    }

    fn render(
        &self,
        parts: &[TemplatePart],
        pos: Pos,
        scalar: &Scalar,
        scope: &Scope,
        out: &mut String,
    ) -> Option<()> {
        let mut complete = Some(());
        for part in parts {
            match part {
                TemplatePart::Text(text) => out.push_str(text),
                TemplatePart::Tag(tag) => match self.tag(tag, pos, scalar, scope) {
                    Some(value) => match value.into_data() {
                        Data::Scalar(value) => out.push_str(&value.rendered()),
                        Data::Executor(executor) => out.push_str(&executor.name),
                        other => {
                            let pos = self.report.place_in(pos, scalar, tag.offset);
                            let source = &tag.source;
                            let what = other.type_name();
                            self.report
                                .error(pos, format!("`{source}` is {what} and cannot stand inside a text"));
                            complete = None;
                        }
                    },
                    None => complete = None,
                },
                TemplatePart::Section { name, inverted, parts } => match self.tag(name, pos, scalar, scope) {
                    Some(value) => {
                        if value.into_data().is_falsy() == *inverted {
                            complete = complete.and(self.render(parts, pos, scalar, scope, out));
                        }
                    }
                    None => complete = None,
                },
            }
            if out.len() > limits::EXPANDED_BYTES {
                self.budget.spend(pos, 0, out.len());
                return None;
            }
        }
        complete
    }

    /// A tree with all tags in values replaced. Parts without tags are shared, not copied.
    pub(crate) fn substitute(&self, node: &Node, scope: &Scope) -> Option<Node> {
        if !self.tags || !node.data.tagged() {
            return Some(node.clone());
        }
        let copied = match &node.data {
            Data::Seq(seq) => seq.items.len(),
            Data::Map(map) => map.entries.len(),
            Data::Scalar(_) | Data::Steps(_) | Data::Executor(_) => 0,
        };
        if !self.budget.spend(node.pos, 0, cost::VALUE * copied) {
            return None;
        }
        let data = match &node.data {
            Data::Scalar(scalar) => self.substitute_scalar(node.pos, scalar, scope)?,
            Data::Seq(seq) => {
                let items: Vec<_> = seq.items.iter().map(|item| self.substitute(item, scope)).collect();
                Data::Seq(Rc::new(Seq { items: items.into_iter().collect::<Option<_>>()?, tagged: false }))
            }
            Data::Map(map) => {
                let entries: Vec<_> = map
                    .entries
                    .iter()
                    .map(|entry| {
                        let value = self.substitute(&entry.value, scope)?;
                        Some(Entry { key: entry.key.clone(), key_pos: entry.key_pos, value })
                    })
                    .collect();
                Data::Map(Rc::new(Map {
                    entries: entries.into_iter().collect::<Option<_>>()?,
                    tagged: false,
                }))
            }
            Data::Steps(_) | Data::Executor(_) => node.data.clone(),
        };
        Some(Node::new(node.pos, data))
    }
}
