//! `environment` maps: names checked, values as the text a process will see.

use crate::config::definitions::parameters::is_variable_name;
use crate::config::session::compiler::Compiler;
use crate::config::values::{Data, Kind, Node, Pos};
use crate::config::yaml::number_text;
use std::collections::BTreeMap;

impl Compiler<'_> {
    /// Reads a substituted `environment`: a map, a list of maps and `NAME=value`, or one such string.
    pub(crate) fn environment(&mut self, node: &Node, what: &str) -> Option<BTreeMap<String, String>> {
        let mut variables = BTreeMap::new();
        self.add_environment(node, what, &mut variables).map(|()| variables)
    }

    fn add_environment(
        &mut self,
        node: &Node,
        what: &str,
        into: &mut BTreeMap<String, String>,
    ) -> Option<()> {
        let mut complete = Some(());
        match &node.data {
            Data::Map(map) => {
                for entry in &map.entries {
                    match (
                        self.variable_name(&entry.key, entry.key_pos, what),
                        self.variable_value(&entry.value, &entry.key),
                    ) {
                        (Some(()), Some(value)) => {
                            into.insert(entry.key.to_string(), value);
                        }
                        _ => complete = None,
                    }
                }
            }
            Data::Seq(seq) => {
                for item in &seq.items {
                    if item.as_seq().is_some() {
                        self.error(
                            item.pos,
                            format!("`environment` of {what} is a list of maps, not of lists"),
                        );
                        complete = None;
                    } else {
                        complete = self.add_environment(item, what, into).and(complete);
                    }
                }
            }
            Data::Scalar(scalar) if scalar.kind == Kind::Str => match scalar.text.split_once('=') {
                Some((name, value)) => {
                    self.variable_name(name, node.pos, what)?;
                    into.insert(name.to_owned(), value.to_owned());
                }
                None => {
                    let message =
                        format!("`environment` of {what} is a map of names and values, or `NAME=value`");
                    self.error(node.pos, message);
                    complete = None;
                }
            },
            _ => {
                self.error(
                    node.pos,
                    format!("`environment` of {what} must be a map, not {}", node.describe()),
                );
                complete = None;
            }
        }
        complete
    }

    fn variable_name(&mut self, name: &str, pos: Pos, what: &str) -> Option<()> {
        if is_variable_name(name) {
            return Some(());
        }
        let rule = "letters, digits and `_`, not beginning with a digit";
        self.error(
            pos,
            format!("`{name}` in the `environment` of {what} is not the name of a variable ({rule})"),
        );
        None
    }

    fn variable_value(&mut self, node: &Node, name: &str) -> Option<String> {
        let Some(scalar) = node.as_scalar() else {
            let found = node.describe();
            self.error(
                node.pos,
                format!("the variable `{name}` must be a string, a number or a boolean, not {found}"),
            );
            return None;
        };
        let number = |value: f64| number_text(value);
        let value = match scalar.kind {
            Kind::Str => scalar.text.to_string(),
            Kind::Null if scalar.substituted => "<nil>".to_owned(),
            Kind::Null => String::new(),
            Kind::Bool(value) if scalar.substituted => if value { "1" } else { "0" }.to_owned(),
            Kind::Bool(value) => value.to_string(),
            // Numbers go through a floating-point number at the hosted service as well.
            Kind::Int(value) => number(value as f64),
            Kind::Float(value) => number(value),
        };
        if matches!(scalar.kind, Kind::Int(_) | Kind::Float(_)) && value != *scalar.text {
            let text = &scalar.text;
            self.warn(node.pos, format!("the number `{text}` becomes `{value}` in the variable `{name}`; quote it to keep it as written"));
        }
        if value.contains('\0') {
            self.error(node.pos, format!("the variable `{name}` has a NUL character"));
            return None;
        }
        Some(value)
    }
}
