//! The config as a whole: version and sections in the order in which they depend on each other.

use crate::config::Workflow;
use crate::config::definitions::parameters::Owner;
use crate::config::language::pipeline;
use crate::config::process;
use crate::config::session::compiler::Compiler;
use crate::config::values::{Kind, Map, Node, Pos};
use crate::config::{Compiled, DeclaredParameter, Diagnostics, Input};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// Sections that mean something only in version 2.1.
const ONLY_2_1: &[&str] = &["orbs", "commands", "executors", "parameters", "job-groups"];

/// Compiles a config. Errors that do not depend on each other are reported together.
pub fn compile(input: &Input<'_>) -> Result<Compiled, Diagnostics> {
    let mut compiler = Compiler::new(input);
    let result = compiler.document();
    let resolved_orbs = std::mem::take(&mut compiler.resolved_orbs);
    let parameters = std::mem::take(&mut compiler.pipeline_parameters);
    let warnings = compiler.finish()?;
    let Some(Document { setup, workflows, declared }) = result else {
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
    Ok(Compiled { setup, workflows, parameters, declared, warnings, processed })
}

pub(crate) struct Document {
    setup: bool,
    workflows: Vec<Workflow>,
    declared: BTreeMap<String, DeclaredParameter>,
}

impl Compiler<'_> {
    pub(crate) fn document(&mut self) -> Option<Document> {
        let input = self.input;
        let root = self.load(input.file_name, input.source)?;
        let root = self.root_map(&root)?;
        self.tags = self.version(&root)? == Version::V2_1;
        if !self.tags {
            self.resolved_orbs = process::orbs_of_head(input.source);
        }
        if let Some(entry) = root.entry("functions") {
            self.error(entry.key_pos, "`functions` is not supported");
        }
        self.check_top_level(&root);
        let only_later = if self.tags { &[] } else { ONLY_2_1 };
        for key in only_later {
            if let Some(entry) = root.entry(key).filter(|entry| !entry.value.is_null()) {
                self.error(entry.key_pos, format!("`{key}` needs `version: 2.1`"));
            }
        }
        let setup = self.boolean(&root, "setup", "the config") == Some(true);
        let declared = self.pipeline_parameters(&root);
        let index = self.reserve_package();
        self.fill_package(index, &root, &mut HashMap::new(), 0);
        let groups = self.groups(&root);
        if let Some(config) = Rc::get_mut(&mut self.packages[index]) {
            config.groups = groups;
        }
        let workflows = self.workflows(&root, setup);
        self.check_unused();
        Some(Document { setup, workflows, declared })
    }

    /// Other keys at the top are a place for anchors; one that is nearly a known key is a mistake.
    fn check_top_level(&mut self, root: &Map) {
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
                self.warn(
                    entry.key_pos,
                    format!("`{written}` at the top of the config is ignored, did you mean `{meant}`?"),
                );
            }
        }
    }

    fn version(&mut self, root: &Map) -> Option<Version> {
        let Some(entry) = root.entry("version") else {
            self.error(
                Pos { file: 0, line: 1, column: 1 },
                "the config has no `version` (write `version: 2.1`)",
            );
            return None;
        };
        let scalar = entry.value.as_scalar().filter(|scalar| scalar.kind != Kind::Null);
        match scalar.map(|scalar| &*scalar.text) {
            Some("2" | "2.0") => Some(Version::V2),
            Some("2.1") => Some(Version::V2_1),
            _ => {
                let found = entry.value.describe();
                self.error(entry.value.pos, format!("`version` must be 2.1, 2.0 or 2, not {found}"));
                None
            }
        }
    }

    fn pipeline_parameters(&mut self, root: &Map) -> BTreeMap<String, DeclaredParameter> {
        let entry = root.entry("parameters");
        let pos = entry.map_or(Pos { file: 0, line: 1, column: 1 }, |entry| entry.key_pos);
        let declarations =
            self.declarations(entry.map(|entry| &entry.value), Owner::Pipeline, "the pipeline");
        self.bind_pipeline(&declarations, pos);
        let scope = crate::config::language::scope::Scope::pipeline(0, false);
        let mut declared = BTreeMap::new();
        for declaration in &declarations.list {
            let Some(default) = declaration.default.as_ref().and_then(|node| self.substitute(node, &scope))
            else {
                continue;
            };
            // Both as the type makes them, or the `2` of an enum would differ from its "2".
            let typed = |node: &Node| declaration.kind.check(node).unwrap_or_else(|_| node.data.clone());
            let data = typed(&default);
            let given = self.input.parameters.get(&*declaration.name);
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
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V2,
    V2_1,
}
