//! Orbs that have whatever is used of them. The compiler says what it misses, and the stub gets it, until
//! nothing more is missed. One stub stands for all orbs: it has the elements of all.

use runlet::config::{Diagnostic, OrbError, OrbSource};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Times that a parameter may change its type. Uses that need different types never end.
const CHANGES: u32 = 4;

#[derive(Default)]
pub(crate) struct Stubs {
    /// Elements by kind and name, with their parameters.
    elements: BTreeMap<(String, String), BTreeMap<String, Parameter>>,
}

struct Parameter {
    kind: &'static str,
    changes: u32,
}

impl OrbSource for Stubs {
    fn resolve(&self, reference: &str) -> Result<(String, String), OrbError> {
        Ok((reference.to_owned(), self.text()))
    }

    fn fetch(&self, _url: &str) -> Result<String, OrbError> {
        Ok(self.text())
    }
}

impl Stubs {
    /// Adds what the messages miss; tells whether there was something to add.
    pub(crate) fn learn(&mut self, messages: &[Diagnostic]) -> bool {
        let mut learned = false;
        for message in messages {
            // Every message of a kind has its names in the same places.
            learned |= self.missing_element(&message.message)
                || self.missing_parameter(&message.message)
                || self.other_type(&message.message);
        }
        learned
    }

    /// `Cannot find command NAME in orb ALIAS`.
    fn missing_element(&mut self, message: &str) -> bool {
        let Some((_, rest)) = message.split_once("Cannot find ") else { return false };
        let mut words = rest.split(' ');
        let (Some(kind), Some(name), Some("in")) = (words.next(), words.next(), words.next()) else {
            return false;
        };
        let element = (kind.to_owned(), name.to_owned());
        if self.elements.contains_key(&element) {
            return false;
        }
        self.elements.insert(element, BTreeMap::new());
        true
    }

    /// ``Unexpected argument(s): `x` for command `NAME` ``.
    fn missing_parameter(&mut self, message: &str) -> bool {
        let Some((_, rest)) = message.split_once("Unexpected argument(s): `") else { return false };
        let Some((parameter, rest)) = rest.split_once("` for ") else { return false };
        let Some(parameters) = self.element(rest) else { return false };
        if parameters.contains_key(parameter) {
            return false;
        }
        parameters.insert(parameter.to_owned(), Parameter { kind: "string", changes: 0 });
        true
    }

    /// ``Type error for argument `x` of command `NAME`: expected a string, not FOUND``.
    fn other_type(&mut self, message: &str) -> bool {
        let Some((_, rest)) = message.split_once("Type error for argument `") else { return false };
        let Some((parameter, rest)) = rest.split_once("` of ") else { return false };
        let Some((_, found)) =
            rest.split_once(": expected ").and_then(|(_, rest)| rest.rsplit_once(", not "))
        else {
            return false;
        };
        let kinds = [
            ("a boolean", "boolean"),
            ("an integer", "integer"),
            ("a list", "steps"),
            ("a map", "executor"),
            ("the executor", "executor"),
            ("a string", "string"),
        ];
        let Some((_, kind)) = kinds.iter().find(|(start, _)| found.starts_with(start)) else { return false };
        let Some(parameter) = self.element(rest).and_then(|parameters| parameters.get_mut(parameter)) else {
            return false;
        };
        if parameter.kind == *kind || parameter.changes >= CHANGES {
            return false;
        }
        *parameter = Parameter { kind, changes: parameter.changes + 1 };
        true
    }

    /// The stub of an element that a message calls ``command `NAME` ``.
    fn element(&mut self, label: &str) -> Option<&mut BTreeMap<String, Parameter>> {
        let (kind, rest) = label.split_once(" `")?;
        let (name, _) = rest.split_once('`')?;
        self.elements.get_mut(&(kind.to_owned(), name.to_owned()))
    }

    fn text(&self) -> String {
        let mut text = "version: 2.1\n".to_owned();
        for kind in ["executor", "command", "job"] {
            let _ = writeln!(text, "{kind}s:");
            if kind == "executor" {
                text += "  corpus-default: {machine: true}\n";
            }
            let elements = self.elements.iter().filter(|((of, _), _)| of == kind);
            for ((_, name), parameters) in elements {
                let _ = writeln!(text, "  {}:", quoted(name));
                let mut steps = "[{run: 'true'}".to_owned();
                if !parameters.is_empty() {
                    text += "    parameters:\n";
                }
                for (name, Parameter { kind, .. }) in parameters {
                    let default = match *kind {
                        "boolean" => "false",
                        "integer" => "1",
                        "steps" => "[]",
                        "executor" => "corpus-default",
                        _ => "''",
                    };
                    let _ = writeln!(text, "      {}: {{type: {kind}, default: {default}}}", quoted(name));
                    if *kind == "steps" {
                        let _ = write!(steps, ", {{steps: << parameters.{name} >>}}");
                    }
                }
                match kind {
                    "executor" => text += "    machine: true\n",
                    "job" => {
                        let _ = writeln!(text, "    machine: true\n    steps: {steps}]");
                    }
                    _ => {
                        let _ = writeln!(text, "    steps: {steps}]");
                    }
                }
            }
        }
        text
    }
}

/// A name as a JSON string, which is YAML as well.
fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}
