//! A look at what no workflow uses: mistakes there stop nothing now, but will when it is used.

use super::builtin;
use super::compiler::{Compiler, present};
use super::expression::Expression;
use super::package::{Definition, Element};
use super::parameters::Declarations;
use super::template::{self, Part, Tag};
use super::value::{Data, Node, Pos, Scalar};
use std::rc::Rc;

impl Compiler<'_> {
    /// Warns about mistakes in elements of the config that were not used. Only what is certain without
    /// arguments is looked at: tags, names of parameters, names of steps.
    pub(crate) fn check_unused(&mut self) {
        let Some(config) = self.packages.first().cloned() else { return };
        for element in [Element::Command, Element::Executor, Element::Job] {
            let mut unused: Vec<Rc<Definition>> = config
                .table(element)
                .values()
                .filter(|definition| !self.used.contains(&(element, 0, definition.name.clone())))
                .cloned()
                .collect();
            unused.sort_by_key(|definition| definition.pos);
            for definition in unused {
                let Some((map, parameters)) = definition.own() else { continue };
                let label = definition.label();
                for entry in map.entries.iter().filter(|entry| &*entry.key != "parameters") {
                    self.check_tags(&entry.value, parameters, &label);
                }
                if element != Element::Executor {
                    self.check_step_names(present(map, "steps"), &label);
                }
            }
        }
    }

    fn unused_mistake(&mut self, pos: Pos, label: &str, message: &str) {
        self.warn(pos, format!("{label} is not used, but has a mistake: {message}"));
    }

    fn check_tags(&mut self, node: &Node, parameters: &Declarations, label: &str) {
        match &node.data {
            Data::Scalar(scalar) if scalar.tagged && self.tags => match template::parse(&scalar.text) {
                Ok(template) => self.check_parts(&template.parts, node.pos, scalar, parameters, label),
                Err(error) => {
                    let pos = self.place_in(node.pos, scalar, error.offset);
                    self.unused_mistake(pos, label, &error.message);
                }
            },
            Data::Seq(seq) if seq.tagged => {
                for item in &seq.items {
                    self.check_tags(item, parameters, label);
                }
            }
            Data::Map(map) if map.tagged => {
                for entry in &map.entries {
                    self.check_tags(&entry.value, parameters, label);
                }
            }
            _ => {}
        }
    }

    fn check_parts(
        &mut self,
        parts: &[Part],
        pos: Pos,
        scalar: &Scalar,
        parameters: &Declarations,
        label: &str,
    ) {
        let check = |compiler: &mut Self, tag: &Tag| {
            // In a longer expression an unknown name may never be looked at.
            let Expression::Name(name) = &tag.expression else { return };
            let name = &name.text;
            let Some(parameter) = name.strip_prefix("parameters.") else { return };
            if !parameters.has(parameter) {
                let pos = compiler.place_in(pos, scalar, tag.offset);
                let message = format!("Arguments referenced without declared parameters: {name}");
                compiler.unused_mistake(pos, label, &message);
            }
        };
        for part in parts {
            match part {
                Part::Text(_) => {}
                Part::Tag(tag) => check(self, tag),
                Part::Section { name, parts, .. } => {
                    check(self, name);
                    self.check_parts(parts, pos, scalar, parameters, label);
                }
            }
        }
    }

    fn check_step_names(&mut self, steps: Option<&Node>, label: &str) {
        for item in steps.and_then(Node::as_seq).iter().flat_map(|seq| &seq.items) {
            let (name, pos, body) = match &item.data {
                Data::Scalar(scalar) if !scalar.tagged => (scalar.text.clone(), item.pos, None),
                Data::Map(map) => match map.entries.first() {
                    Some(entry) => (entry.key.clone(), entry.key_pos, Some(&entry.value)),
                    None => continue,
                },
                _ => continue,
            };
            if let "when" | "unless" = &*name {
                self.check_step_names(body.and_then(Node::as_map).and_then(|map| map.get("steps")), label);
            } else if &*name != "steps"
                && !builtin::is_builtin(&name)
                && self.find(Element::Command, &name, 0).is_none()
            {
                let message = self.not_found(Element::Command, &name, 0, pos);
                self.unused_mistake(pos, label, &message);
            }
        }
    }
}
