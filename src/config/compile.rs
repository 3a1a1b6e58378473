//! The config as a whole: version and sections in the order in which they depend on each other.

use super::compiled::{Compiled, DeclaredParameter, Workflow};
use super::definitions::{self, Library, sections};
use super::diagnostic::Diagnostics;
use super::graph::Workflows;
use super::input::Input;
use super::jobs::Expander;
use super::language::{Language, pipeline};
use super::process;
use super::session::{Budget, NodeReader, Report};
use super::values::{Bindings, Map, Pos, ScalarKind};
use crate::config::LeftOut;
use std::collections::BTreeMap;

/// Sections that mean something only in version 2.1.
const ONLY_2_1: &[&str] = &["orbs", "commands", "executors", "parameters", "job-groups"];

/// Compiles a config. Errors that do not depend on each other are reported together.
pub fn compile(input: &Input<'_>) -> Result<Compiled, Diagnostics> {
    let report = Report::default();
    let result = document(input, &report);
    let warnings = report.finish()?;
    let Some(Document { setup, workflows, left_out, parameters, declared, resolved_orbs }) = result else {
        // Without a result there is an error, and `finish` has returned it.
        return Err(Diagnostics(warnings));
    };
    let tag =
        input.values.get("pipeline.git.tag").and_then(|tag| tag.as_str()).is_some_and(|tag| !tag.is_empty());
    let processed = process::render(setup, tag, &workflows, &resolved_orbs);
    let parameters = parameters
        .iter()
        .filter_map(|(name, data)| Some((name.to_string(), pipeline::to_json(data.as_ref()?))))
        .collect();
    Ok(Compiled { setup, workflows, parameters, declared, left_out, warnings, processed })
}

struct Document {
    setup: bool,
    workflows: Vec<Workflow>,
    left_out: Vec<LeftOut>,
    /// Values of the pipeline parameters.
    parameters: Bindings,
    declared: BTreeMap<String, DeclaredParameter>,
    /// References of orbs as written and as resolved.
    resolved_orbs: BTreeMap<String, String>,
}

fn document(input: &Input<'_>, report: &Report) -> Option<Document> {
    let budget = Budget::new(report);
    let read = NodeReader { report, budget: &budget };
    let root = read.load(input.file_name, input.source)?;
    let root = read.expect_map(&root, "a config")?;
    let tags = version(report, root)? == Version::V2_1;
    if let Some(entry) = root.entry("functions") {
        report.error(entry.key_pos, "`functions` is not supported");
    }
    check_top_level(report, root);
    let only_later = if tags { &[] } else { ONLY_2_1 };
    for key in only_later {
        if let Some(entry) = root.entry(key).filter(|entry| !entry.value.is_null()) {
            report.error(entry.key_pos, format!("`{key}` needs `version: 2.1`"));
        }
    }
    let setup = read.boolean(root, "setup", "the config") == Some(true);
    let mut language = Language::new(input, read, tags);
    let parameters = definitions::pipeline_parameters(&language, root);
    language.pipeline_parameters = parameters.values;
    let packages = definitions::packages(&language, root);
    let library = Library::new(report, packages.list);
    let groups = sections::groups(&language, root);
    let mut workflows = Workflows::new(Expander::new(&language, &library), &groups);
    let compiled = workflows.all(root, setup);
    workflows.check_unused();
    // A compiled config, of version 2, says in its head which orbs it was made with.
    let resolved_orbs = if tags { packages.resolved_orbs } else { process::orbs_of_head(input.source) };
    Some(Document {
        setup,
        workflows: compiled,
        left_out: std::mem::take(&mut workflows.left_out),
        parameters: language.pipeline_parameters,
        declared: parameters.declared,
        resolved_orbs,
    })
}

/// Other keys at the top are a place for anchors; one that is nearly a known key is a mistake.
fn check_top_level(report: &Report, root: &Map) {
    const SINGULAR: &[(&str, &str)] = &[
        ("workflow", "workflows"),
        ("job", "jobs"),
        ("command", "commands"),
        ("executor", "executors"),
        ("parameter", "parameters"),
        ("orb", "orbs"),
        ("job_groups", "job-groups"),
    ];
    for (written, meant) in SINGULAR {
        if let Some(entry) = root.entry(written) {
            report.warn(
                entry.key_pos,
                format!("`{written}` at the top of the config is ignored, did you mean `{meant}`?"),
            );
        }
    }
}

fn version(report: &Report, root: &Map) -> Option<Version> {
    let Some(entry) = root.entry("version") else {
        report
            .error(Pos { file: 0, line: 1, column: 1 }, "the config has no `version` (write `version: 2.1`)");
        return None;
    };
    let scalar = entry.value.as_scalar().filter(|scalar| scalar.kind != ScalarKind::Null);
    match scalar.map(|scalar| &*scalar.text) {
        Some("2" | "2.0") => Some(Version::V2),
        Some("2.1") => Some(Version::V2_1),
        _ => {
            let found = entry.value.describe();
            report.error(entry.value.pos, format!("`version` must be 2.1, 2.0 or 2, not {found}"));
            None
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V2,
    V2_1,
}

#[cfg(test)]
mod tests {
    use super::super::{NoOrbs, limits};
    use super::*;

    /// The number of places that choices were looked for.
    fn looked(source: &str) -> usize {
        let none = BTreeMap::new();
        let input = Input {
            source,
            file_name: "config.yml",
            parameters: &none,
            values: &none,
            stand_ins: &none,
            orbs: &NoOrbs,
            default_resource_class: None,
        };
        let report = Report::default();
        document(&input, &report);
        report.looked_for_choices()
    }

    #[test]
    fn choices_are_looked_for_once_for_a_place_and_for_what_is_shown() {
        let commands = "version: 2.1
commands:
  a: {steps: [run: 'x << pipeline.zz >>', run: {command: x, commnd: y}, nowhere]}
  b: {steps: [a, a, a, a, a, a, a, a, a, a]}
  c: {steps: [b, b, b, b, b, b, b, b, b, b]}
jobs: {build: {machine: true, resource_class: a/b, steps: [c]}}
";
        assert_eq!(looked(commands), 3);
        let mut requires = "version: 2.1
jobs: {j: {machine: true, resource_class: a/b, steps: [checkout]}}
workflows:
  w:
    jobs:
"
        .to_owned();
        for n in 0..500 {
            requires += &format!("      - j: {{name: j{n}, requires: [x{n}, y{n}, z{n}]}}\n");
        }
        assert_eq!(looked(&requires), limits::DIAGNOSTICS);
    }
}
