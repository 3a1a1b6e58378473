//! Pipeline parameters: as the config declares them, and with the values that the trigger gave.

use super::parameters::{self, Declaration, Declarations, Owner};
use crate::config::compiled::DeclaredParameter;
use crate::config::diagnostic::Severity;
use crate::config::language::{Language, Scope, pipeline};
use crate::config::limits;
use crate::config::values::{Bindings, Data, Map, Node, Pos};
use std::collections::BTreeMap;

/// The pipeline parameters of a config.
pub(crate) struct PipelineParameters {
    /// Values in force.
    pub(crate) values: Bindings,
    /// Types and defaults.
    pub(crate) declared: BTreeMap<String, DeclaredParameter>,
}

/// Reads the section `parameters` of a config and binds what the trigger gave.
pub(crate) fn pipeline_parameters(language: &Language<'_>, root: &Map) -> PipelineParameters {
    let entry = root.entry("parameters");
    let pos = entry.map_or(Pos { file: 0, line: 1, column: 1 }, |entry| entry.key_pos);
    let section = entry.map(|entry| &entry.value);
    let declarations = parameters::declarations(language.read, section, Owner::Pipeline, "the pipeline");
    let values = bind(language, &declarations, pos);
    PipelineParameters { values, declared: declared(language, &declarations) }
}

fn declared(language: &Language<'_>, declarations: &Declarations) -> BTreeMap<String, DeclaredParameter> {
    let scope = Scope::pipeline(0, false);
    let mut declared = BTreeMap::new();
    for declaration in &declarations.list {
        let Some(default) = declaration.default.as_ref().and_then(|node| language.substitute(node, &scope))
        else {
            continue;
        };
        // Both as the type makes them, or the `2` of an enum would differ from its "2".
        let typed = |node: &Node| declaration.kind.check(node).unwrap_or_else(|_| node.data.clone());
        let data = typed(&default);
        let given = language.input.parameters.get(&*declaration.name);
        let given_other_than_default = given.is_some_and(|value| {
            !typed(&Node::new(declaration.pos, pipeline::from_json(value))).equals(&data)
        });
        let default = pipeline::to_json(&data);
        let kind = declaration.kind.name().to_owned();
        declared.insert(
            declaration.name.to_string(),
            DeclaredParameter { kind, default, given_other_than_default },
        );
    }
    declared
}

/// Binds the pipeline parameters: defaults, and what the trigger gave.
fn bind(language: &Language<'_>, declarations: &Declarations, pos: Pos) -> Bindings {
    let mut bindings = Bindings::new();
    let given = language.input.parameters;
    if given.len() > limits::GIVEN_PARAMETERS {
        let message = format!(
            "{} pipeline parameters were given, the limit is {}",
            given.len(),
            limits::GIVEN_PARAMETERS
        );
        language.report.error(pos, message);
    }
    for name in given.keys() {
        if !declarations.has(name) {
            let choices = language.report.choices(
                Severity::Error,
                pos,
                "pipeline parameters",
                name,
                declarations.names(),
            );
            language.report.error(
                pos,
                format!("Unexpected argument(s): the pipeline parameter `{name}` is not declared{choices}"),
            );
        }
    }
    for name in &declarations.broken {
        bindings.insert(name.clone(), None);
    }
    for declaration in &declarations.list {
        let value = value(language, declaration);
        bindings.insert(declaration.name.clone(), value);
    }
    bindings
}

fn value(language: &Language<'_>, declaration: &Declaration) -> Option<Data> {
    let name = &declaration.name;
    let scope = Scope::pipeline(0, false);
    let mut node = language.substitute(declaration.default.as_ref()?, &scope)?;
    let mut source = "the default";
    if let Some(value) = language.input.parameters.get(&**name) {
        if name.chars().count() > limits::PARAMETER_NAME_CHARS {
            let message = format!(
                "the name of a pipeline parameter has at most {} characters",
                limits::PARAMETER_NAME_CHARS
            );
            language.report.error(declaration.pos, message);
        }
        if value.as_str().is_some_and(|text| text.chars().count() > limits::PARAMETER_VALUE_CHARS) {
            let message = format!(
                "the value given for the pipeline parameter `{name}` has more than {} characters",
                limits::PARAMETER_VALUE_CHARS
            );
            language.report.error(declaration.pos, message);
        }
        if value.is_array() || value.is_object() {
            language.report.error(declaration.pos, format!("the value given for the pipeline parameter `{name}` must be a string, a number or a boolean"));
            return None;
        }
        source = "the value given";
        node = Node::new(declaration.pos, pipeline::from_json(value));
    }
    match declaration.kind.check(&node) {
        // Given as null is no value at all.
        Ok(_) if node.is_null() => {
            language.report.error(node.pos, format!("{source} for the pipeline parameter `{name}` is null"));
            None
        }
        Ok(data) => Some(data),
        Err(expected) => {
            let found = node.describe();
            language.report.error(
                node.pos,
                format!(
                    "Type error for the pipeline parameter `{name}`: {source} must be {expected}, not {found}"
                ),
            );
            None
        }
    }
}
