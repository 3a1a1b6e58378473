//! The library of one compilation: the packages of the config and of its orbs, searched by name.

use super::package::{Definition, DefinitionBody, Element, Package};
use crate::config::diagnostic::Severity;
use crate::config::session::Report;
use crate::config::values::Pos;
use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

/// Steps that need no definition.
pub(crate) const BUILTIN_STEPS: &[&str] = &[
    "add_ssh_keys",
    "attach_workspace",
    "checkout",
    "deploy",
    "install_signing_bundle",
    "persist_to_workspace",
    "restore_cache",
    "run",
    "save_cache",
    "setup_remote_docker",
    "store_artifacts",
    "store_test_results",
];

/// The name of a built-in step whose name has two spellings; any other name as it is.
pub(crate) fn builtin_name(name: &str) -> &str {
    match name {
        "restore-cache" => "restore_cache",
        "save-cache" => "save_cache",
        name => name,
    }
}

/// All packages, and which of their elements are used.
pub(crate) struct Library<'c> {
    report: &'c Report,
    /// The config first, then the orbs it uses.
    packages: Vec<Package>,
    used: RefCell<HashSet<(Element, usize, Rc<str>)>>,
    /// References of missing orbs that were wanted.
    wanted: RefCell<Vec<Rc<str>>>,
}

impl<'c> Library<'c> {
    pub(crate) fn new(report: &'c Report, packages: Vec<Package>) -> Self {
        Self { report, packages, used: RefCell::default(), wanted: RefCell::default() }
    }

    /// Whether a package has a command of this name itself; it then hides the built-in step.
    pub(crate) fn has_command(&self, name: &str, package: usize) -> bool {
        self.packages.get(package).is_some_and(|package| package.commands.contains_key(name))
    }

    /// Remembers that an element is used: the others are rehearsed.
    pub(crate) fn mark_used(&self, definition: &Definition) {
        if !self.report.is_rehearsal() {
            let element = (definition.element, definition.package, definition.name.clone());
            self.used.borrow_mut().insert(element);
        }
    }

    /// The elements of the config, of one kind, that are not used, in the order of the text.
    pub(crate) fn unused(&self, element: Element) -> Vec<Rc<Definition>> {
        let Some(config) = self.packages.first() else { return Vec::new() };
        let used = self.used.borrow();
        let definitions = config.table(element).values();
        let mut unused: Vec<Rc<Definition>> = definitions
            .filter(|definition| !used.contains(&(element, 0, definition.name.clone())))
            .cloned()
            .collect();
        unused.sort_by_key(|definition| definition.pos);
        unused
    }

    /// Finds an element by `name` or `alias/name`, through declared aliases. `None` when there is none.
    pub(crate) fn find(&self, element: Element, reference: &str, package: usize) -> Option<Rc<Definition>> {
        let found = self.look(element, reference, package)?;
        match found.body {
            DefinitionBody::Alias(_) => self.end_of(element, found).ok(),
            _ => Some(found),
        }
    }

    /// Follows aliases to what they stand for; the error is the last one, which leads to nothing.
    fn end_of(&self, element: Element, first: Rc<Definition>) -> Result<Rc<Definition>, Rc<Definition>> {
        let mut found = first;
        // A chain of aliases is short; a ring of them ends here.
        for _ in 0..16 {
            let DefinitionBody::Alias(target) = &found.body else { return Ok(found) };
            let Some(next) = self.look(element, target, found.package) else { break };
            found = next;
        }
        Err(found)
    }

    fn look(&self, element: Element, reference: &str, package: usize) -> Option<Rc<Definition>> {
        let package = self.packages.get(package)?;
        if let Some(definition) = package.table(element).get(reference) {
            return Some(definition.clone());
        }
        let (alias, name) = reference.split_once('/')?;
        let orb = *package.orbs.get(alias)?;
        self.packages.get(orb)?.table(element).get(name).cloned()
    }

    /// The message for an element that was not found; `None` when its orb is missing, which was reported.
    pub(crate) fn not_found(
        &self,
        element: Element,
        reference: &str,
        package: usize,
        pos: Pos,
    ) -> Option<String> {
        let known = self.packages.get(package)?;
        // An alias stands for what its package means by it, which may be an orb that uses others.
        let alias =
            self.look(element, reference, package).and_then(|first| self.end_of(element, first).err());
        let (user, target) = match alias.as_deref() {
            Some(Definition { body: DefinitionBody::Alias(target), package, .. }) => {
                (self.packages.get(*package)?, &**target)
            }
            _ => (known, reference),
        };
        let broken = target.split_once('/').and_then(|(alias, _)| user.broken_orbs.get(alias));
        if let Some(missing) = broken {
            self.wanted.borrow_mut().extend(missing.clone());
            return None;
        }
        Some(self.message_of_missing(known, element, reference, pos))
    }

    /// References of missing orbs that were wanted since the last call.
    pub(crate) fn take_wanted(&self) -> Vec<String> {
        let mut wanted: Vec<String> = self.wanted.take().iter().map(ToString::to_string).collect();
        wanted.sort();
        wanted.dedup();
        wanted
    }

    fn message_of_missing(&self, known: &Package, element: Element, reference: &str, pos: Pos) -> String {
        let word = element.word();
        if known.table(element).contains_key(reference) {
            return format!("the {word} `{reference}` is an alias that leads to no {word}");
        }
        let own = known.table(element).keys().map(|name| &**name);
        let builtin: &[&str] = if element == Element::Command { BUILTIN_STEPS } else { &[] };
        let own = own.chain(builtin.iter().copied());
        let Some((alias, name)) = reference.split_once('/') else {
            let choices = self.report.choices(Severity::Error, pos, &format!("{word}s"), reference, own);
            return match element {
                Element::Command => {
                    format!("Cannot find a definition for command named {reference}{choices}")
                }
                _ => format!("Cannot find a definition for {word} named {reference}{choices}"),
            };
        };
        match known.orbs.get(alias).and_then(|orb| self.packages.get(*orb)) {
            None => {
                let choices = self.report.choices(
                    Severity::Error,
                    pos,
                    "orbs",
                    alias,
                    known.orbs.keys().map(|name| &**name),
                );
                format!("unknown orb '{alias}' in the {word} `{reference}`{choices}")
            }
            Some(orb) => {
                let names = orb.table(element).keys().map(|name| &**name);
                let choices = self.report.choices(Severity::Error, pos, &format!("{word}s"), name, names);
                format!("Cannot find {word} {name} in orb {alias}{choices}")
            }
        }
    }
}
