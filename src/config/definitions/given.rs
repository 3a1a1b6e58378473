//! Pipeline parameters that a trigger gives, compared with their declarations before a pipeline is made: the
//! caller gets the answer at once, not an errored pipeline later.
//!
//! The API and the command line call it. Only the declarations are read; the compiler checks everything
//! again, with a place in the text.

use crate::config::language::pipeline;
use crate::config::session::present;
use crate::config::values::{Data, Node, ScalarKind};
use crate::config::yaml;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// The type of a declared pipeline parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredType {
    /// The word after `type:`.
    pub kind: String,
    /// The values of an `enum`, as text; empty for other types.
    pub choices: Vec<String>,
}

/// The types of the pipeline parameters that a config declares, by name. `None` for a config that cannot
/// be read: [`compile()`](crate::config::compile()) says why. Lets clients read
/// text as values.
pub fn declared_types(source: &str) -> Option<BTreeMap<String, DeclaredType>> {
    let (root, _) = yaml::load(source, 0);
    let root = root.as_ref().and_then(Node::as_map)?;
    let parameters = present(root, "parameters");
    let entries = parameters.and_then(Node::as_map).map(|map| map.entries.as_slice()).unwrap_or_default();
    let declared = entries.iter().filter_map(|entry| {
        let map = entry.value.as_map()?;
        let kind = map.get("type")?.as_str()?.to_string();
        let values = map.get("enum").and_then(Node::as_seq).map(|list| list.items.as_slice());
        let texts = values.unwrap_or_default().iter().filter_map(Node::as_scalar);
        let choices =
            texts.filter(|scalar| scalar.kind != ScalarKind::Null).map(|scalar| scalar.text.to_string());
        Some((entry.key.to_string(), DeclaredType { kind, choices: choices.collect() }))
    });
    Some(declared.collect())
}

/// A pipeline parameter that does not fit the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WrongParameter {
    /// The config declares no such parameter.
    Undeclared {
        /// Name that was given.
        name: String,
        /// Names that are declared.
        declared: Vec<String>,
    },
    /// The value is not of the declared type.
    Type {
        /// Name of the parameter.
        name: String,
        /// Description of values that fit, such as `an integer`.
        expected: String,
        /// The value with its type, such as `the string x`.
        found: String,
    },
    /// The text of a command line or a form cannot be read as the declared type.
    Text {
        /// Name of the parameter.
        name: String,
        /// Description of texts that fit.
        expected: &'static str,
        /// Text that was given.
        text: String,
    },
}

impl fmt::Display for WrongParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undeclared { name, declared } => {
                let known = if declared.is_empty() { "none".to_owned() } else { declared.join(", ") };
                write!(
                    f,
                    "Unexpected argument(s): the pipeline parameter `{name}` is not declared (declared: {known})"
                )
            }
            Self::Type { name, expected, found } => {
                write!(f, "Type error for the pipeline parameter `{name}`: expected {expected}, not {found}")
            }
            Self::Text { name, expected, text } => {
                write!(f, "the pipeline parameter `{name}` must be {expected}, not `{text}`")
            }
        }
    }
}

impl std::error::Error for WrongParameter {}

/// Reads texts of a command line or a form as values of the types that the config declares; those of
/// parameters that it does not declare stay text.
pub fn typed_parameters(
    source: &str,
    given: &[(String, String)],
) -> Result<BTreeMap<String, Value>, WrongParameter> {
    let types = declared_types(source).unwrap_or_default();
    let mut parameters = BTreeMap::new();
    for (name, text) in given {
        let wrong = |expected| WrongParameter::Text { name: name.clone(), expected, text: text.clone() };
        let value = match types.get(name).map(|declared| declared.kind.as_str()) {
            Some("boolean") => match text.as_str() {
                "true" | "yes" | "on" => true.into(),
                "false" | "no" | "off" => false.into(),
                _ => return Err(wrong("`true` or `false`")),
            },
            Some("integer") => text.parse::<i64>().map_err(|_| wrong("an integer"))?.into(),
            _ => text.as_str().into(),
        };
        parameters.insert(name.clone(), value);
    }
    Ok(parameters)
}

/// Compares the parameters that a trigger gives with those that the config declares. A config that cannot
/// be read is not held against the caller: its pipeline says what is wrong with it.
pub fn check_parameters(source: &str, given: &BTreeMap<String, Value>) -> Result<(), WrongParameter> {
    if given.is_empty() {
        return Ok(());
    }
    let Some(types) = declared_types(source) else { return Ok(()) };
    for (name, value) in given {
        let Some(declared) = types.get(name) else {
            let declared = types.into_keys().collect();
            return Err(WrongParameter::Undeclared { name: name.clone(), declared });
        };
        if let Some(expected) = declared.misfit(value) {
            return Err(WrongParameter::Type { name: name.clone(), expected, found: describe(value) });
        }
    }
    Ok(())
}

impl DeclaredType {
    /// Describes the values that fit, when this one does not.
    fn misfit(&self, value: &Value) -> Option<String> {
        let (fits, expected) = match self.kind.as_str() {
            "boolean" => (value.is_boolean(), "a boolean (`true` or `false`)"),
            "integer" => (value.is_i64(), "an integer"),
            "string" => (value.is_string(), "a string"),
            // Values of an `enum` are compared as text.
            "enum" => {
                let fits = match (value, pipeline::from_json(value)) {
                    (Value::Null | Value::Array(_) | Value::Object(_), _) => false,
                    (_, Data::Scalar(scalar)) => self.choices.iter().any(|choice| **choice == *scalar.text),
                    _ => false,
                };
                return (!fits).then(|| format!("one of {}", self.choices.join(", ")));
            }
            // The compiler refuses the declaration.
            _ => (true, ""),
        };
        (!fits).then(|| expected.to_owned())
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("the boolean {value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string `{}`", text.chars().take(100).collect::<String>()),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SOURCE: &str = "version: 2.1
parameters:
  go: {type: boolean, default: false}
  n: {type: integer, default: 1}
  s: {type: string, default: ''}
  e: {type: enum, enum: [fast, 2, 'true'], default: fast}
";

    fn typed(name: &str, value: Value) -> Result<(), String> {
        check_parameters(SOURCE, &BTreeMap::from([(name.to_owned(), value)]))
            .map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn parameters_fit_their_declarations() {
        for (name, value) in [
            ("go", json!(true)),
            ("n", json!(3)),
            ("s", json!("x")),
            ("s", json!("")),
            ("e", json!("fast")),
            ("e", json!("2")),
            ("e", json!(2)),
            ("e", json!(true)),
        ] {
            assert_eq!(typed(name, value), Ok(()), "{name}");
        }
        for (name, value, expected) in [
            ("go", json!("true"), "expected a boolean (`true` or `false`), not the string `true`"),
            ("go", json!(1), "expected a boolean"),
            ("go", json!(null), "not null"),
            ("n", json!("3"), "expected an integer, not the string `3`"),
            ("n", json!(1.5), "not the number 1.5"),
            ("n", json!(false), "not the boolean false"),
            ("s", json!(3), "expected a string, not the number 3"),
            ("s", json!([]), "not a list"),
            ("e", json!("slow"), "expected one of fast, 2, true, not the string `slow`"),
            ("e", json!("Fast"), "expected one of"),
            ("e", json!(3), "expected one of"),
            ("e", json!(null), "expected one of"),
            ("e", json!({}), "not an object"),
        ] {
            let why = typed(name, value.clone()).err().unwrap_or_default();
            assert!(why.starts_with("Type error") && why.contains(expected), "{name} {value}: {why}");
        }
    }

    #[test]
    fn a_name_that_is_not_declared_is_told_with_those_that_are() {
        let why = typed("x", json!(1)).err().unwrap_or_default();
        assert!(why.contains("`x` is not declared (declared: e, go, n, s)"), "{why}");
        let given = BTreeMap::from([("x".to_owned(), json!(1))]);
        let none =
            check_parameters("version: 2.1", &given).err().map(|wrong| wrong.to_string()).unwrap_or_default();
        assert!(none.contains("declared: none"), "{none}");
    }

    #[test]
    fn what_is_wrong_with_the_config_is_left_to_the_compiler() {
        let given = BTreeMap::from([("x".to_owned(), json!(1))]);
        for source in ["", "- a", "a: [", "version: 2.1\nparameters: {x: {type: odd}}"] {
            assert_eq!(check_parameters(source, &given), Ok(()), "{source}");
        }
    }
}
