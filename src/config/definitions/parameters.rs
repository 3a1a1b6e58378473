//! Parameters: how they are declared, and how arguments are bound to them.

use crate::config::Severity;
use crate::config::jobs::steps::NullBody;
use crate::config::language::pipeline;
use crate::config::language::scope::Scope;
use crate::config::limits;
use crate::config::session::compiler::Compiler;
use crate::config::session::cost;
use crate::config::values::{Bindings, Data, Entry, Kind, Node, Pos, Style};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// The parameters of one element, or of the pipeline, in the order of the text.
#[derive(Debug, Default)]
pub(crate) struct Declarations {
    pub(crate) list: Vec<Declaration>,
    by_name: HashMap<Rc<str>, usize>,
    /// Declared, but with a mistake: nothing is said about their uses.
    broken: BTreeSet<Rc<str>>,
}

#[derive(Debug)]
pub(crate) struct Declaration {
    pub(crate) name: Rc<str>,
    pub(crate) pos: Pos,
    pub(crate) kind: ParameterType,
    pub(crate) default: Option<Node>,
}

/// What a parameter accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ParameterType {
    String,
    Boolean,
    Integer,
    Enum(Vec<Rc<str>>),
    Executor,
    Steps,
    EnvVarName,
}

/// What declares the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Pipeline,
    Command,
    Executor,
    Job,
}

/// Names that mean something in a workflow entry and cannot be job parameters.
const RESERVED: &[&str] = &[
    "name",
    "requires",
    "context",
    "type",
    "filters",
    "matrix",
    "pre-steps",
    "post-steps",
    "override-with",
    "upstream",
    "serial-group",
];

impl Declarations {
    pub(crate) fn get(&self, name: &str) -> Option<&Declaration> {
        self.by_name.get(name).map(|index| &self.list[*index])
    }

    /// Whether a name is declared, be it with a mistake.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name) || self.broken.contains(name)
    }

    /// Every name that is declared.
    pub(crate) fn all_names(&self) -> impl Iterator<Item = &Rc<str>> {
        self.list.iter().map(|declaration| &declaration.name).chain(&self.broken)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|declaration| &*declaration.name)
    }
}

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

impl ParameterType {
    /// As it is written after `type:`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            ParameterType::String => "string",
            ParameterType::Boolean => "boolean",
            ParameterType::Integer => "integer",
            ParameterType::Enum(_) => "enum",
            ParameterType::Executor => "executor",
            ParameterType::Steps => "steps",
            ParameterType::EnvVarName => "env_var_name",
        }
    }

    /// The value as this type, or what was expected.
    pub(crate) fn check(&self, node: &Node) -> Result<Data, String> {
        let scalar = node.as_scalar();
        let text = node.as_str();
        let plain = scalar.is_some_and(|scalar| scalar.style == Style::Plain);
        match self {
            // A pipeline value that does not apply is an empty text.
            ParameterType::String if scalar.is_some_and(|s| s.kind == Kind::Null && s.substituted) => {
                return Ok(Data::string(""));
            }
            ParameterType::String if text.is_some() => {}
            ParameterType::String => {
                return Err(if scalar.is_some_and(|s| s.kind != Kind::Null) {
                    "a string (quote it)"
                } else {
                    "a string"
                }
                .into());
            }
            ParameterType::Boolean if node.as_bool().is_some() => {}
            ParameterType::Boolean if plain && matches!(text.map(|t| &**t), Some("y" | "Y")) => {
                return Ok(Data::bool(true));
            }
            ParameterType::Boolean if plain && matches!(text.map(|t| &**t), Some("n" | "N")) => {
                return Ok(Data::bool(false));
            }
            ParameterType::Boolean => return Err("a boolean (`true` or `false`, without quotes)".into()),
            ParameterType::Integer if node.as_int().is_some() => {}
            ParameterType::Integer => return Err("an integer (without quotes)".into()),
            // Values of an enum are texts, however they are written: `1.10` stays `1.10`.
            ParameterType::Enum(allowed) => {
                let text = scalar.filter(|scalar| scalar.kind != Kind::Null).map(|scalar| &scalar.text);
                return match text.filter(|text| allowed.contains(text)) {
                    Some(text) => Ok(Data::string(text.clone())),
                    None => Err(format!("one of {}", allowed.join(", "))),
                };
            }
            ParameterType::EnvVarName if text.is_some_and(|text| is_variable_name(text)) => {}
            ParameterType::EnvVarName => {
                return Err("the name of an environment variable (letters, digits and `_`)".into());
            }
            ParameterType::Executor if matches!(node.data, Data::Executor(_)) => {}
            ParameterType::Executor => return Err("an executor".into()),
            ParameterType::Steps if matches!(node.data, Data::Steps(_)) => {}
            ParameterType::Steps => return Err("a list of steps".into()),
        }
        Ok(node.data.substituted())
    }
}

/// Whether a shell takes it as the name of a variable.
pub(crate) fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Pipeline parameters are named in expressions only, which know dots as well.
fn is_pipeline_parameter_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && !name.contains("..")
        && !name.ends_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

fn is_parameter_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

impl Compiler<'_> {
    /// Reads a `parameters` map. What is wrong with one parameter does not hide the others.
    pub(crate) fn declarations(&mut self, node: Option<&Node>, owner: Owner, what: &str) -> Declarations {
        let mut declarations = Declarations::default();
        let Some(node) = node.filter(|node| !node.is_null()) else { return declarations };
        let Some(map) = self.expect_map(node, format_args!("`parameters` of {what}")) else {
            return declarations;
        };
        if map.entries.is_empty() && owner != Owner::Pipeline {
            self.error(node.pos, format!("`parameters` of {what} is empty"));
        }
        for entry in &map.entries {
            match self.declaration(entry, owner, what) {
                Some(declaration) => {
                    declarations.by_name.insert(declaration.name.clone(), declarations.list.len());
                    declarations.list.push(declaration);
                }
                None => {
                    declarations.broken.insert(entry.key.clone());
                }
            }
        }
        declarations
    }

    fn declaration(&mut self, entry: &Entry, owner: Owner, what: &str) -> Option<Declaration> {
        let name = &entry.key;
        let label = format!("parameter `{name}` of {what}");
        let fits = match owner {
            Owner::Pipeline => is_pipeline_parameter_name(name),
            _ => is_parameter_name(name),
        };
        if !fits {
            let message = "starts with a letter and has only letters, digits, `_` and `-`";
            if owner == Owner::Pipeline && !name.is_empty() && !name.contains(char::is_whitespace) {
                self.warn(
                    entry.key_pos,
                    format!("`{name}` cannot be used in expressions: there a parameter name {message}, and single dots between them"),
                );
            } else {
                self.error(entry.key_pos, format!("`{name}` is not a parameter name: it {message}"));
                return None;
            }
        }
        if owner == Owner::Job && RESERVED.contains(&&**name) {
            self.error(entry.key_pos, format!("`{name}` is reserved and cannot be a parameter of a job"));
            return None;
        }
        let map = self.expect_map(&entry.value, &label)?;
        self.check_keys(map, &label, &["type", "default", "description", "enum"], true);
        let kind = self.parameter_type(map.get("type"), map.get("enum"), owner, &label, entry.key_pos)?;
        let default = map.get("default").cloned();
        if owner == Owner::Pipeline && default.is_none() {
            self.error(entry.key_pos, format!("{label} has no `default`: pipeline parameters need one"));
            return None;
        }
        let checkable = !matches!(kind, ParameterType::Steps | ParameterType::Executor);
        if let Some(default) = default.as_ref().filter(|default| checkable && !default.data.tagged()) {
            if let Err(expected) = kind.check(default) {
                let found = default.describe();
                self.error(default.pos, format!("the default of {label} must be {expected}, not {found}"));
                return None;
            }
        }
        Some(Declaration { name: name.clone(), pos: entry.key_pos, kind, default })
    }

    fn parameter_type(
        &mut self,
        node: Option<&Node>,
        values: Option<&Node>,
        owner: Owner,
        label: &str,
        pos: Pos,
    ) -> Option<ParameterType> {
        let allowed: &[&str] = match owner {
            Owner::Pipeline => &["string", "boolean", "integer", "enum"],
            Owner::Command => &["string", "boolean", "integer", "enum", "steps", "env_var_name"],
            Owner::Executor => &["string", "boolean", "integer", "enum", "env_var_name"],
            Owner::Job => &["string", "boolean", "integer", "enum", "executor", "steps", "env_var_name"],
        };
        let Some(node) = node else {
            self.error(pos, format!("{label} has no `type` (known types: {})", allowed.join(", ")));
            return None;
        };
        let name = self.expect_text(node, format_args!("the type of {label}"))?;
        if !allowed.contains(&&*name) {
            let choices = self.choices(Severity::Error, node.pos, "types", &name, allowed.iter().copied());
            self.error(node.pos, format!("{label} cannot have the type `{name}`{choices}"));
            return None;
        }
        if let (Some(values), false) = (values, &*name == "enum") {
            self.error(values.pos, format!("{label} has an `enum` but the type `{name}`"));
            return None;
        }
        Some(match &*name {
            "string" => ParameterType::String,
            "boolean" => ParameterType::Boolean,
            "integer" => ParameterType::Integer,
            "executor" => ParameterType::Executor,
            "steps" => ParameterType::Steps,
            "env_var_name" => ParameterType::EnvVarName,
            _ => {
                let list = values.and_then(Node::as_seq).filter(|list| !list.items.is_empty());
                let Some(list) = list else {
                    let pos = values.map_or(pos, |values| values.pos);
                    self.error(pos, format!("{label} needs `enum`, a list of at least one value"));
                    return None;
                };
                let texts: Vec<_> = list
                    .items
                    .iter()
                    .map(|item| self.expect_text(item, format_args!("a value of {label}")))
                    .collect();
                ParameterType::Enum(texts.into_iter().collect::<Option<_>>()?)
            }
        })
    }

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
        if !self.spend(pos, 0, cost::VALUE * (declarations.list.len() + arguments.len())) {
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
                        self.choices(Severity::Error, entry.key_pos, "parameters", &entry.key, known);
                    self.error(
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
                    let scope = self.package_scope(package);
                    self.argument(declaration, default, &scope, package, callee)
                }
                None => {
                    let (name, kind) = (&declaration.name, declaration.kind.name());
                    self.error(pos, format!("Missing required argument: `{name}` ({kind}) for {callee}"));
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
            return self.steps(node, scope, NullBody::Accepted).map(|steps| Data::Steps(steps.into()));
        }
        let mut node = self.substitute(node, scope)?;
        if declaration.kind == ParameterType::Executor && !matches!(node.data, Data::Executor(_)) {
            let executor = self.executor_argument(&node, scope, package)?;
            node.data = Data::Executor(executor);
        }
        match declaration.kind.check(&node) {
            Ok(data) => Some(data),
            Err(expected) => {
                let name = &declaration.name;
                let found = node.describe();
                self.error(
                    node.pos,
                    format!("Type error for argument `{name}` of {callee}: expected {expected}, not {found}"),
                );
                None
            }
        }
    }

    /// Puts the pipeline parameters in force: defaults, and what the trigger gave.
    pub(crate) fn bind_pipeline(&mut self, declarations: &Declarations, pos: Pos) {
        let given = self.input.parameters;
        if given.len() > limits::GIVEN_PARAMETERS {
            let message = format!(
                "{} pipeline parameters were given, the limit is {}",
                given.len(),
                limits::GIVEN_PARAMETERS
            );
            self.error(pos, message);
        }
        for name in given.keys() {
            if !declarations.has(name) {
                let choices =
                    self.choices(Severity::Error, pos, "pipeline parameters", name, declarations.names());
                self.error(
                    pos,
                    format!(
                        "Unexpected argument(s): the pipeline parameter `{name}` is not declared{choices}"
                    ),
                );
            }
        }
        for name in &declarations.broken {
            self.pipeline_parameters.insert(name.clone(), None);
        }
        for declaration in &declarations.list {
            let value = self.pipeline_parameter(declaration);
            self.pipeline_parameters.insert(declaration.name.clone(), value);
        }
    }

    fn pipeline_parameter(&mut self, declaration: &Declaration) -> Option<Data> {
        let name = &declaration.name;
        let scope = Scope::pipeline(0, false);
        let mut node = self.substitute(declaration.default.as_ref()?, &scope)?;
        let mut source = "the default";
        if let Some(value) = self.input.parameters.get(&**name) {
            if name.chars().count() > limits::PARAMETER_NAME_CHARS {
                let message = format!(
                    "the name of a pipeline parameter has at most {} characters",
                    limits::PARAMETER_NAME_CHARS
                );
                self.error(declaration.pos, message);
            }
            if value.as_str().is_some_and(|text| text.chars().count() > limits::PARAMETER_VALUE_CHARS) {
                let message = format!(
                    "the value given for the pipeline parameter `{name}` has more than {} characters",
                    limits::PARAMETER_VALUE_CHARS
                );
                self.error(declaration.pos, message);
            }
            if value.is_array() || value.is_object() {
                self.error(declaration.pos, format!("the value given for the pipeline parameter `{name}` must be a string, a number or a boolean"));
                return None;
            }
            source = "the value given";
            node = Node::new(declaration.pos, pipeline::from_json(value));
        }
        match declaration.kind.check(&node) {
            // Given as null is no value at all.
            Ok(_) if node.is_null() => {
                self.error(node.pos, format!("{source} for the pipeline parameter `{name}` is null"));
                None
            }
            Ok(data) => Some(data),
            Err(expected) => {
                let found = node.describe();
                self.error(node.pos, format!("Type error for the pipeline parameter `{name}`: {source} must be {expected}, not {found}"));
                None
            }
        }
    }
}
