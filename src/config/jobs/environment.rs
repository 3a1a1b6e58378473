//! The environment of commands: `environment` maps, their names checked, with values as the text that a
//! process will see; and `shell`.

use crate::config::definitions::parameters::is_variable_name;
use crate::config::session::NodeReader;
use crate::config::values::{Data, Node, Pos, ScalarKind};
use crate::config::yaml::number_text;
use std::collections::BTreeMap;

/// Reads a substituted `environment`: a map, a list of maps and `NAME=value`, or one such string.
pub(crate) fn environment(read: NodeReader<'_>, node: &Node, what: &str) -> Option<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    add_environment(read, node, what, &mut variables).map(|()| variables)
}

fn add_environment(
    read: NodeReader<'_>,
    node: &Node,
    what: &str,
    into: &mut BTreeMap<String, String>,
) -> Option<()> {
    let mut complete = Some(());
    match &node.data {
        Data::Map(map) => {
            for entry in &map.entries {
                match (
                    variable_name(read, &entry.key, entry.key_pos, what),
                    variable_value(read, &entry.value, &entry.key),
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
                    read.report
                        .error(item.pos, format!("`environment` of {what} is a list of maps, not of lists"));
                    complete = None;
                } else {
                    complete = add_environment(read, item, what, into).and(complete);
                }
            }
        }
        Data::Scalar(scalar) if scalar.kind == ScalarKind::Str => match scalar.text.split_once('=') {
            Some((name, value)) => {
                variable_name(read, name, node.pos, what)?;
                into.insert(name.to_owned(), value.to_owned());
            }
            None => {
                let message =
                    format!("`environment` of {what} is a map of names and values, or `NAME=value`");
                read.report.error(node.pos, message);
                complete = None;
            }
        },
        _ => {
            read.report
                .error(node.pos, format!("`environment` of {what} must be a map, not {}", node.describe()));
            complete = None;
        }
    }
    complete
}

fn variable_name(read: NodeReader<'_>, name: &str, pos: Pos, what: &str) -> Option<()> {
    if is_variable_name(name) {
        return Some(());
    }
    let rule = "letters, digits and `_`, not beginning with a digit";
    read.report.error(
        pos,
        format!("`{name}` in the `environment` of {what} is not the name of a variable ({rule})"),
    );
    None
}

fn variable_value(read: NodeReader<'_>, node: &Node, name: &str) -> Option<String> {
    let Some(scalar) = node.as_scalar() else {
        let found = node.describe();
        read.report.error(
            node.pos,
            format!("the variable `{name}` must be a string, a number or a boolean, not {found}"),
        );
        return None;
    };
    let number = |value: f64| number_text(value);
    let value = match scalar.kind {
        ScalarKind::Str => scalar.text.to_string(),
        ScalarKind::Null if scalar.substituted => "<nil>".to_owned(),
        ScalarKind::Null => String::new(),
        ScalarKind::Bool(value) if scalar.substituted => if value { "1" } else { "0" }.to_owned(),
        ScalarKind::Bool(value) => value.to_string(),
        // Numbers go through a floating-point number at the hosted service as well.
        ScalarKind::Int(value) => number(value as f64),
        ScalarKind::Float(value) => number(value),
    };
    if matches!(scalar.kind, ScalarKind::Int(_) | ScalarKind::Float(_)) && value != *scalar.text {
        let text = &scalar.text;
        read.report.warn(node.pos, format!("the number `{text}` becomes `{value}` in the variable `{name}`; quote it to keep it as written"));
    }
    if value.contains('\0') {
        read.report.error(node.pos, format!("the variable `{name}` has a NUL character"));
        return None;
    }
    Some(value)
}

/// A shell: one command line, or a list of words.
pub(crate) fn shell(read: NodeReader<'_>, node: &Node, what: &str) -> Option<String> {
    let words = read.text_list(node, format_args!("`shell` of {what}"))?;
    let shell = words.join(" ");
    if shell.trim().is_empty() {
        read.report.error(node.pos, format!("`shell` of {what} is empty"));
        return None;
    }
    Some(shell)
}
