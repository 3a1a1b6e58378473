//! Parameters as they are declared, and the values that their types accept.

use crate::config::diagnostic::Severity;
use crate::config::session::{NodeReader, present};
use crate::config::values::{Data, Entry, Node, Notation, Pos, ScalarKind};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// The parameters of one element, or of the pipeline, in the order of the text.
#[derive(Debug, Default)]
pub(crate) struct Declarations {
    pub(crate) list: Vec<Declaration>,
    by_name: HashMap<Rc<str>, usize>,
    /// Names that are declared with a mistake: their uses are not reported again.
    pub(crate) broken: BTreeSet<Rc<str>>,
}

#[derive(Debug)]
pub(crate) struct Declaration {
    pub(crate) name: Rc<str>,
    pub(crate) pos: Pos,
    pub(crate) kind: ParameterType,
    pub(crate) default: Option<Node>,
}

/// The type of a parameter.
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

/// The kind of element that declares parameters.
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

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|declaration| &*declaration.name)
    }
}

impl ParameterType {
    /// The word after `type:`.
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

    /// The value as this type; the error is the end of a sentence that begins "expected".
    pub(crate) fn check(&self, node: &Node) -> Result<Data, String> {
        let scalar = node.as_scalar();
        let text = node.as_str();
        let plain = scalar.is_some_and(|scalar| scalar.style == Notation::Plain);
        match self {
            // A pipeline value that does not apply is an empty text.
            ParameterType::String if scalar.is_some_and(|s| s.kind == ScalarKind::Null && s.substituted) => {
                return Ok(Data::string(""));
            }
            ParameterType::String if text.is_some() => {}
            ParameterType::String => {
                return Err(if scalar.is_some_and(|s| s.kind != ScalarKind::Null) {
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
                let text = scalar.filter(|scalar| scalar.kind != ScalarKind::Null).map(|scalar| &scalar.text);
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

/// Names of pipeline parameters may have dots: they stand in expressions only.
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

/// Reads a `parameters` map. What is wrong with one parameter does not hide the others.
pub(crate) fn declarations(
    read: NodeReader<'_>,
    node: Option<&Node>,
    owner: Owner,
    what: &str,
) -> Declarations {
    let mut declarations = Declarations::default();
    let Some(node) = node.filter(|node| !node.is_null()) else { return declarations };
    let Some(map) = read.expect_map(node, format_args!("`parameters` of {what}")) else {
        return declarations;
    };
    if map.entries.is_empty() && owner != Owner::Pipeline {
        read.report.error(node.pos, format!("`parameters` of {what} is empty"));
    }
    for entry in &map.entries {
        match declaration(read, entry, owner, what) {
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

fn declaration(read: NodeReader<'_>, entry: &Entry, owner: Owner, what: &str) -> Option<Declaration> {
    let name = &entry.key;
    let label = format!("parameter `{name}` of {what}");
    let fits = match owner {
        Owner::Pipeline => is_pipeline_parameter_name(name),
        _ => is_parameter_name(name),
    };
    if !fits {
        let message = "starts with a letter and has only letters, digits, `_` and `-`";
        if owner == Owner::Pipeline && !name.is_empty() && !name.contains(char::is_whitespace) {
            read.report.warn(
                entry.key_pos,
                format!("`{name}` cannot be used in expressions: there a parameter name {message}, and single dots between them"),
            );
        } else {
            read.report.error(entry.key_pos, format!("`{name}` is not a parameter name: it {message}"));
            return None;
        }
    }
    if owner == Owner::Job && RESERVED.contains(&&**name) {
        read.report.error(entry.key_pos, format!("`{name}` is reserved and cannot be a parameter of a job"));
        return None;
    }
    let map = read.expect_map(&entry.value, &label)?;
    read.check_keys(map, &label, &["type", "default", "description", "enum"], true);
    let kind = parameter_type(read, map.get("type"), map.get("enum"), owner, &label, entry.key_pos)?;
    // A null is no default: the parameter must be given.
    let default = present(map, "default").cloned();
    if owner == Owner::Pipeline && default.is_none() {
        read.report.error(entry.key_pos, format!("{label} has no `default`: pipeline parameters need one"));
        return None;
    }
    let checkable = !matches!(kind, ParameterType::Steps | ParameterType::Executor);
    if let Some(default) = default.as_ref().filter(|default| checkable && !default.data.tagged()) {
        if let Err(expected) = kind.check(default) {
            let found = default.describe();
            read.report.error(default.pos, format!("the default of {label} must be {expected}, not {found}"));
            return None;
        }
    }
    Some(Declaration { name: name.clone(), pos: entry.key_pos, kind, default })
}

fn parameter_type(
    read: NodeReader<'_>,
    node: Option<&Node>,
    values: Option<&Node>,
    owner: Owner,
    label: &str,
    pos: Pos,
) -> Option<ParameterType> {
    let allowed: &[&str] = match owner {
        Owner::Pipeline => &["string", "boolean", "integer", "enum"],
        Owner::Executor => &["string", "boolean", "integer", "enum", "env_var_name"],
        Owner::Job | Owner::Command => {
            &["string", "boolean", "integer", "enum", "executor", "steps", "env_var_name"]
        }
    };
    let Some(node) = node else {
        read.report.error(pos, format!("{label} has no `type` (known types: {})", allowed.join(", ")));
        return None;
    };
    let name = read.expect_text(node, format_args!("the type of {label}"))?;
    if !allowed.contains(&&*name) {
        let choices = read.report.choices(Severity::Error, node.pos, "types", &name, allowed.iter().copied());
        read.report.error(node.pos, format!("{label} cannot have the type `{name}`{choices}"));
        return None;
    }
    if let (Some(values), false) = (values, &*name == "enum") {
        read.report.error(values.pos, format!("{label} has an `enum` but the type `{name}`"));
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
                read.report.error(pos, format!("{label} needs `enum`, a list of at least one value"));
                return None;
            };
            let texts: Vec<_> = list
                .items
                .iter()
                .map(|item| read.expect_text(item, format_args!("a value of {label}")))
                .collect();
            ParameterType::Enum(texts.into_iter().collect::<Option<_>>()?)
        }
    })
}
