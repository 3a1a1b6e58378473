//! Orbs: packages of elements, written inline or imported by reference.

use super::orb_reference::OrbReference;
use super::package::{Element, Package};
use super::sections;
use crate::config::input::OrbError;
use crate::config::language::{Language, Scope};
use crate::config::limits;
use crate::config::session::present;
use crate::config::values::{Entry, Map, Pos};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

const ORB_KEYS: &[&str] =
    &["version", "orbs", "commands", "executors", "jobs", "description", "display", "examples", "name"];

/// The packages that a config consists of.
pub(crate) struct Packages {
    /// The config first, then the orbs it uses.
    pub(crate) list: Vec<Package>,
    /// References of orbs as written and as resolved, for the processed config.
    pub(crate) resolved_orbs: BTreeMap<String, String>,
}

/// Reads the elements of a config, and its orbs first.
pub(crate) fn packages(language: &Language<'_>, root: &Map) -> Packages {
    let mut loader = Loader {
        language,
        packages: Vec::new(),
        imported: HashMap::new(),
        resolved_orbs: BTreeMap::new(),
        url_orbs: 0,
        importing: Vec::new(),
        missing: Vec::new(),
        left_out: None,
    };
    let index = loader.reserve_package();
    loader.fill_package(index, root, 0);
    loader.report_missing();
    Packages { list: loader.packages, resolved_orbs: loader.resolved_orbs }
}

/// Packages of orbs, by the names that they are imported under.
type Imported = HashMap<Rc<str>, usize>;
/// Names of orbs that could not be imported, with the reference of one that may be missing.
type Broken = HashMap<Rc<str>, Option<Rc<str>>>;

struct Loader<'c> {
    language: &'c Language<'c>,
    packages: Vec<Package>,
    /// Imported orbs by exact reference.
    imported: HashMap<String, usize>,
    resolved_orbs: BTreeMap<String, String>,
    url_orbs: usize,
    /// Exact references of the orbs that are being read, outermost first.
    importing: Vec<String>,
    /// Orbs that the source does not have, with what it says of each.
    missing: Vec<(Pos, OrbError)>,
    /// Reference of the orb that was looked for last, where it is missing and may be.
    left_out: Option<Rc<str>>,
}

impl Loader<'_> {
    /// Reads the elements of the config or of an orb, and its orbs first. `index` is its place among
    /// the packages.
    fn fill_package(&mut self, index: usize, root: &Map, depth: usize) {
        let (orbs, broken_orbs) = self.orbs(root, index, depth);
        let package = Package {
            commands: sections::section(self.language, root, Element::Command, index),
            executors: sections::section(self.language, root, Element::Executor, index),
            jobs: sections::section(self.language, root, Element::Job, index),
            orbs,
            broken_orbs,
        };
        self.packages[index] = package;
    }

    /// The orbs of a package, and the names of those that could not be imported.
    fn orbs(&mut self, root: &Map, package: usize, depth: usize) -> (Imported, Broken) {
        let (mut orbs, mut broken) = (HashMap::new(), HashMap::new());
        let Some(node) = present(root, "orbs") else { return (orbs, broken) };
        let Some(map) = self.language.read.expect_map(node, "`orbs`") else { return (orbs, broken) };
        for entry in &map.entries {
            if entry.key.contains('/') || entry.key.is_empty() {
                let message = match &*entry.key {
                    "" => "the name of an orb is empty".to_owned(),
                    name => format!("`{name}` is not a name for an orb: it has a `/`"),
                };
                self.language.report.error(entry.key_pos, message);
                continue;
            }
            match self.orb(entry, package, depth) {
                Some(index) => {
                    orbs.insert(entry.key.clone(), index);
                }
                None => {
                    broken.insert(entry.key.clone(), self.left_out.take());
                }
            }
        }
        (orbs, broken)
    }

    /// Reports the orbs that are missing, several as one list: whoever mirrors orbs needs all of them.
    fn report_missing(&mut self) {
        let Some((pos, first)) = self.missing.first() else { return };
        let may_be = self.language.input.orbs.may_be_missing();
        let message = match self.missing.len() {
            1 if may_be => format!("{first}; jobs that want it do not run"),
            1 => first.to_string(),
            count => {
                let list =
                    self.missing.iter().map(|(pos, message)| format!("\nline {}: {message}", pos.line));
                let then = if may_be { ", and jobs that want one of them do not run" } else { "" };
                format!("{count} orbs cannot be imported{then}:{}", list.collect::<String>())
            }
        };
        // An orb that is missing for good makes the config invalid, whatever becomes of the others.
        let may_pass = self.missing.iter().all(|(_, why)| matches!(why, OrbError::Unreachable(_)));
        match (may_be, may_pass) {
            (true, _) => self.language.report.warn(*pos, message),
            (false, true) => self.language.report.passing_error(*pos, message),
            (false, false) => self.language.report.error(*pos, message),
        }
    }

    fn orb(&mut self, entry: &Entry, package: usize, depth: usize) -> Option<usize> {
        let pos = entry.key_pos;
        if depth >= limits::ORB_DEPTH || self.packages.len() > limits::ORBS {
            let message = format!(
                "more than {} orbs, or nested deeper than {} levels",
                limits::ORBS,
                limits::ORB_DEPTH
            );
            self.language.report.error(pos, message);
            return None;
        }
        if let Some(map) = entry.value.as_map() {
            let index = self.reserve_package();
            let name = entry.key.to_string();
            self.check_orb(map, &name);
            self.fill_package(index, map, depth + 1);
            return Some(index);
        }
        let node = self.language.substitute(&entry.value, &Scope::pipeline(package, package == 0))?;
        let reference = self.language.read.expect_text(&node, format_args!("orb `{}`", entry.key))?;
        let (exact, text) = self.fetch(&reference, node.pos, depth)?;
        self.resolved_orbs.insert(reference.to_string(), exact.clone());
        if let Some(first) = self.importing.iter().position(|outer| *outer == exact) {
            let mut ring: Vec<String> =
                self.importing[first..].iter().map(|orb| format!("`{orb}`")).collect();
            ring.push(format!("`{exact}`"));
            let message = format!("an orb cannot import itself: {}", ring.join(" imports "));
            self.language.report.error(node.pos, message);
            return None;
        }
        if let Some(index) = self.imported.get(&exact) {
            return Some(*index);
        }
        let index = self.reserve_package();
        self.imported.insert(exact.clone(), index);
        let file = self.language.input.orbs.place(&exact).unwrap_or_else(|| exact.clone());
        self.importing.push(exact.clone());
        let filled = self.language.report.within(pos, format!("orb `{exact}`"), || {
            let root = self.language.read.load(&file, &text)?;
            let map = self.language.read.expect_map(&root, format_args!("orb `{exact}`"))?;
            self.check_orb(map, &exact);
            self.fill_package(index, map, depth + 1);
            Some(())
        });
        self.importing.pop();
        filled?;
        Some(index)
    }

    fn reserve_package(&mut self) -> usize {
        self.packages.push(Package::default());
        self.packages.len() - 1
    }

    fn check_orb(&self, map: &Map, name: &str) {
        for key in ["workflows", "parameters", "setup", "job-groups"] {
            if let Some(entry) = map.entry(key) {
                self.language.report.error(entry.key_pos, format!("orb `{name}` cannot have `{key}`"));
            }
        }
        let known: Vec<&str> =
            ORB_KEYS.iter().copied().chain(["workflows", "parameters", "setup", "job-groups"]).collect();
        self.language.read.check_keys(map, &format!("orb `{name}`"), &known, false);
    }

    fn fetch(&mut self, reference: &str, pos: Pos, depth: usize) -> Option<(String, String)> {
        let is_url = reference.starts_with("https://") || reference.starts_with("http://");
        if let (false, Err(message)) = (is_url, OrbReference::parse(reference)) {
            self.language.report.error(pos, message);
            return None;
        }
        let result = if is_url {
            self.url_orbs += 1;
            if self.url_orbs > limits::URL_ORBS || depth >= limits::URL_ORB_DEPTH {
                Err(OrbError::Missing(format!(
                    "more than {} orbs are given by URL, or nested deeper than {} levels",
                    limits::URL_ORBS,
                    limits::URL_ORB_DEPTH
                )))
            } else {
                self.language.input.orbs.fetch(reference).map(|text| (reference.to_owned(), text))
            }
        } else {
            self.language.input.orbs.resolve(reference)
        };
        match result {
            Ok(found) => Some(found),
            Err(why) => {
                if !self.missing.iter().any(|(_, known)| *known == why) {
                    self.missing.push((pos, why));
                }
                self.left_out = self.language.input.orbs.may_be_missing().then(|| reference.into());
                None
            }
        }
    }
}
