//! `matrix` of a workflow entry: every combination of values, less the excluded ones.

use crate::config::diagnostic::Severity;
use crate::config::language::{Language, Scope};
use crate::config::limits;
use crate::config::session::{cost, present};
use crate::config::values::{Bindings, Data, Entry, Node, Pos};
use std::rc::Rc;

/// A matrix with its values.
pub(crate) struct Matrix {
    /// Name for all members together, if one is given.
    pub(crate) alias: Option<Rc<str>>,
    pub(crate) members: Vec<Member>,
}

/// A combination: the value of each parameter, in the order of the text.
pub(crate) struct Member {
    pub(crate) values: Vec<Entry>,
}

impl Member {
    /// The values as `matrix.` names.
    pub(crate) fn bindings(&self) -> Bindings {
        self.values.iter().map(|entry| (entry.key.clone(), Some(entry.value.data.clone()))).collect()
    }

    /// The end of a member's name: `-value1-value2`.
    pub(crate) fn suffix(&self) -> String {
        self.values.iter().map(|entry| format!("-{}", value_text(&entry.value))).collect()
    }

    /// The value of a parameter as text.
    pub(crate) fn text(&self, parameter: &str) -> Option<String> {
        self.values.iter().find(|entry| &*entry.key == parameter).map(|entry| value_text(&entry.value))
    }
}

/// A parameter with its values.
type Axis<'m> = (&'m Entry, Vec<Node>);

/// A value as a tag would write it; executors given as maps by their name.
fn value_text(node: &Node) -> String {
    match &node.data {
        Data::Scalar(scalar) => scalar.rendered().to_string(),
        Data::Executor(executor) => executor.name.to_string(),
        Data::Map(map) => {
            map.get("name").and_then(Node::as_str).map_or_else(|| "map".into(), |n| n.to_string())
        }
        Data::Seq(_) | Data::Steps(_) => "list".to_owned(),
    }
}

/// Reads and expands a `matrix`, written in the scope of its entry.
pub(crate) fn matrix(language: &Language<'_>, node: &Node, what: &str, scope: &Scope) -> Option<Matrix> {
    let what = format!("`matrix` of {what}");
    let node = language.substitute(node, scope)?;
    let map = language.read.expect_map(&node, &what)?;
    language.read.check_keys(map, &what, &["parameters", "exclude", "alias"], true);
    let alias = language.read.text(map, "alias", &what)?;
    let Some(parameters) = present(map, "parameters") else {
        language.report.error(node.pos, format!("{what} has no `parameters`"));
        return None;
    };
    let parameters = language.read.expect_map(parameters, format_args!("`parameters` of {what}"))?;
    let mut axes: Vec<Axis<'_>> = Vec::new();
    for entry in &parameters.entries {
        let values = match &entry.value.data {
            Data::Seq(seq) => seq.items.clone(),
            _ if entry.value.is_null() => Vec::new(),
            _ => {
                let found = entry.value.describe();
                language.report.error(
                    entry.value.pos,
                    format!("the values of `{}` in {what} must be a list, not {found}", entry.key),
                );
                return None;
            }
        };
        if values.is_empty() {
            language
                .report
                .warn(entry.key_pos, format!("`{}` in {what} has no values, so there is no job", entry.key));
        }
        axes.push((entry, values));
    }
    if axes.is_empty() {
        language.report.error(node.pos, format!("`parameters` of {what} is empty"));
        return None;
    }
    let excluded = exclusions(language, present(map, "exclude"), &axes, &what)?;
    let members = combinations(language, &axes, &excluded, node.pos)?;
    Some(Matrix { alias, members })
}

fn exclusions(
    language: &Language<'_>,
    node: Option<&Node>,
    axes: &[Axis<'_>],
    what: &str,
) -> Option<Vec<Vec<(usize, Node)>>> {
    let Some(node) = node else { return Some(Vec::new()) };
    let Some(list) = node.as_seq() else {
        language
            .report
            .error(node.pos, format!("`exclude` of {what} must be a list of maps, not {}", node.describe()));
        return None;
    };
    let mut excluded = Vec::new();
    for item in &list.items {
        let map = language.read.expect_map(item, format_args!("an item of `exclude` of {what}"))?;
        let mut wanted = Vec::new();
        for entry in &map.entries {
            let Some(axis) = axes.iter().position(|(axis, _)| axis.key == entry.key) else {
                let names: Vec<&str> = axes.iter().map(|(axis, _)| &*axis.key).collect();
                let choices =
                    language.report.choices(Severity::Error, entry.key_pos, "parameters", &entry.key, names);
                language.report.error(
                    entry.key_pos,
                    format!("`exclude` of {what} names the unknown parameter `{}`{choices}", entry.key),
                );
                return None;
            };
            wanted.push((axis, entry.value.clone()));
        }
        if !wanted.is_empty() {
            excluded.push(wanted);
        }
    }
    Some(excluded)
}

/// All combinations, the first parameter varying slowest.
fn combinations(
    language: &Language<'_>,
    axes: &[Axis<'_>],
    excluded: &[Vec<(usize, Node)>],
    pos: Pos,
) -> Option<Vec<Member>> {
    let mut members = Vec::new();
    if axes.iter().any(|(_, values)| values.is_empty()) {
        return Some(members);
    }
    let mut at = vec![0; axes.len()];
    let compared: usize = excluded.iter().flatten().map(|(_, node)| cost::values(&node.data) - 1).sum();
    let bytes = cost::VALUE * (4 * axes.len() + compared);
    loop {
        // Exclusions may leave few of very many combinations; looking at them has its price.
        if !language.budget.spend(pos, 1 + excluded.len(), bytes) {
            return None;
        }
        let value = |axis: usize| &axes[axis].1[at[axis]];
        let is_excluded = excluded
            .iter()
            .any(|wanted| wanted.iter().all(|(axis, node)| node.data.equals(&value(*axis).data)));
        if !is_excluded {
            if members.len() == limits::MATRIX_JOBS {
                language
                    .report
                    .error(pos, format!("Matrices cannot generate more than {} jobs", limits::MATRIX_JOBS));
                return None;
            }
            let values = (0..axes.len())
                .map(|axis| Entry { value: value(axis).clone(), ..axes[axis].0.clone() })
                .collect();
            members.push(Member { values });
        }
        // The last parameter turns fastest, like the last digit of a counter.
        let mut axis = axes.len();
        loop {
            if axis == 0 {
                return Some(members);
            }
            axis -= 1;
            at[axis] += 1;
            if at[axis] < axes[axis].1.len() {
                break;
            }
            at[axis] = 0;
        }
    }
}
