//! Orbs: packages of elements, written inline or imported by reference.

use crate::config::definitions::orb_reference::OrbReference;
use crate::config::definitions::package::{Element, Package};
use crate::config::language::scope::Scope;
use crate::config::limits;
use crate::config::session::compiler::{Compiler, present};
use crate::config::values::{Entry, Map, Node, Pos};
use std::collections::HashMap;
use std::rc::Rc;

const ORB_KEYS: &[&str] =
    &["version", "orbs", "commands", "executors", "jobs", "description", "display", "examples", "name"];

/// Imported orbs by exact reference.
pub(crate) type Imported = HashMap<String, usize>;

impl Compiler<'_> {
    /// Reads the elements of the config or of an orb, and its orbs first. `index` is its place among
    /// the packages.
    pub(crate) fn fill_package(&mut self, index: usize, root: &Map, imported: &mut Imported, depth: usize) {
        let orbs = self.orbs(root, index, imported, depth);
        let package = Package {
            commands: self.definitions(root, Element::Command, index),
            executors: self.definitions(root, Element::Executor, index),
            jobs: self.definitions(root, Element::Job, index),
            groups: HashMap::new(),
            orbs,
        };
        self.packages[index] = Rc::new(package);
    }

    fn orbs(
        &mut self,
        root: &Map,
        package: usize,
        imported: &mut Imported,
        depth: usize,
    ) -> HashMap<Rc<str>, usize> {
        let mut orbs = HashMap::new();
        let Some(node) = present(root, "orbs") else { return orbs };
        let Some(map) = self.expect_map(node, "`orbs`").cloned() else { return orbs };
        for entry in &map.entries {
            if entry.key.contains('/') || entry.key.is_empty() {
                let message = match &*entry.key {
                    "" => "the name of an orb is empty".to_owned(),
                    name => format!("`{name}` is not a name for an orb: it has a `/`"),
                };
                self.error(entry.key_pos, message);
                continue;
            }
            if let Some(index) = self.orb(entry, package, imported, depth) {
                orbs.insert(entry.key.clone(), index);
            }
        }
        orbs
    }

    fn orb(&mut self, entry: &Entry, package: usize, imported: &mut Imported, depth: usize) -> Option<usize> {
        let pos = entry.key_pos;
        if depth >= limits::ORB_DEPTH || self.packages.len() > limits::ORBS {
            let message = format!(
                "more than {} orbs, or nested deeper than {} levels",
                limits::ORBS,
                limits::ORB_DEPTH
            );
            self.error(pos, message);
            return None;
        }
        if let Some(map) = entry.value.as_map() {
            let index = self.reserve_package();
            let name = entry.key.to_string();
            self.check_orb(map, &name);
            self.fill_package(index, map, imported, depth + 1);
            return Some(index);
        }
        let node = self.substitute(&entry.value, &Scope::pipeline(package, package == 0))?;
        let reference = self.expect_text(&node, format_args!("orb `{}`", entry.key))?;
        let (exact, text) = self.fetch(&reference, node.pos, depth)?;
        self.resolved_orbs.insert(reference.to_string(), exact.clone());
        if let Some(first) = self.importing.iter().position(|outer| *outer == exact) {
            let mut ring: Vec<String> =
                self.importing[first..].iter().map(|orb| format!("`{orb}`")).collect();
            ring.push(format!("`{exact}`"));
            let message = format!("an orb cannot import itself: {}", ring.join(" imports "));
            self.error(node.pos, message);
            return None;
        }
        if let Some(index) = imported.get(&exact) {
            return Some(*index);
        }
        let index = self.reserve_package();
        imported.insert(exact.clone(), index);
        let file = self.input.orbs.place(&exact).unwrap_or_else(|| exact.clone());
        self.importing.push(exact.clone());
        let filled = self.within(pos, format!("orb `{exact}`"), |compiler| {
            let root = compiler.load(&file, &text)?;
            let map = compiler.expect_map(&root, format_args!("orb `{exact}`"))?.clone();
            compiler.check_orb(&map, &exact);
            compiler.fill_package(index, &map, imported, depth + 1);
            Some(())
        });
        self.importing.pop();
        filled?;
        Some(index)
    }

    pub(crate) fn reserve_package(&mut self) -> usize {
        self.packages.push(Rc::new(Package::default()));
        self.packages.len() - 1
    }

    fn check_orb(&mut self, map: &Map, name: &str) {
        for key in ["workflows", "parameters", "setup", "job-groups"] {
            if let Some(entry) = map.entry(key) {
                self.error(entry.key_pos, format!("orb `{name}` cannot have `{key}`"));
            }
        }
        let known: Vec<&str> =
            ORB_KEYS.iter().copied().chain(["workflows", "parameters", "setup", "job-groups"]).collect();
        self.check_keys(map, &format!("orb `{name}`"), &known, false);
    }

    fn fetch(&mut self, reference: &str, pos: Pos, depth: usize) -> Option<(String, String)> {
        let result = if reference.starts_with("https://") || reference.starts_with("http://") {
            self.url_orbs += 1;
            if self.url_orbs > limits::URL_ORBS || depth >= limits::URL_ORB_DEPTH {
                Err(format!(
                    "more than {} orbs are given by URL, or nested deeper than {} levels",
                    limits::URL_ORBS,
                    limits::URL_ORB_DEPTH
                ))
            } else {
                self.input.orbs.fetch(reference).map(|text| (reference.to_owned(), text))
            }
        } else {
            OrbReference::parse(reference).and_then(|_| self.input.orbs.resolve(reference))
        };
        match result {
            Ok(found) => Some(found),
            Err(message) => {
                self.error(pos, message);
                None
            }
        }
    }

    /// The root of the tree as a map.
    pub(crate) fn root_map(&mut self, root: &Node) -> Option<Rc<Map>> {
        self.expect_map(root, "a config").cloned()
    }
}
