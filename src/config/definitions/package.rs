//! A namespace of elements: the config itself, or an orb. Reads definitions; finds them by name.

use crate::config::Severity;
use crate::config::definitions::parameters::{Declarations, Owner};
use crate::config::session::compiler::{Compiler, present};
use crate::config::values::{Entry, Map, Node, Pos};
use std::collections::HashMap;
use std::rc::Rc;

/// What a config or an orb defines.
#[derive(Debug, Default)]
pub(crate) struct Package {
    pub(crate) commands: Table,
    pub(crate) executors: Table,
    pub(crate) jobs: Table,
    pub(crate) groups: HashMap<Rc<str>, Entry>,
    /// Alias of an imported orb to its index.
    pub(crate) orbs: HashMap<Rc<str>, usize>,
}

pub(crate) type Table = HashMap<Rc<str>, Rc<Definition>>;

/// A command, an executor or a job.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) name: Rc<str>,
    pub(crate) pos: Pos,
    pub(crate) element: Element,
    /// Index of the package it was written in.
    pub(crate) package: usize,
    pub(crate) body: Body,
}

#[derive(Debug)]
pub(crate) enum Body {
    Own {
        map: Rc<Map>,
        parameters: Declarations,
    },
    /// `name: alias/element`.
    Alias(Rc<str>),
}

/// The kinds of definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Element {
    Command,
    Executor,
    Job,
}

impl Element {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Element::Command => "command",
            Element::Executor => "executor",
            Element::Job => "job",
        }
    }

    fn owner(self) -> Owner {
        match self {
            Element::Command => Owner::Command,
            Element::Executor => Owner::Executor,
            Element::Job => Owner::Job,
        }
    }
}

impl Definition {
    /// The element as messages call it.
    pub(crate) fn label(&self) -> String {
        format!("{} `{}`", self.element.word(), self.name)
    }

    /// Map and parameters of an element that is no alias; `find` returns only such.
    pub(crate) fn own(&self) -> Option<(&Rc<Map>, &Declarations)> {
        match &self.body {
            Body::Own { map, parameters } => Some((map, parameters)),
            Body::Alias(_) => None,
        }
    }
}

impl Package {
    pub(crate) fn table(&self, element: Element) -> &Table {
        match element {
            Element::Command => &self.commands,
            Element::Executor => &self.executors,
            Element::Job => &self.jobs,
        }
    }
}

impl Compiler<'_> {
    /// Reads one of the sections `commands`, `executors` and `jobs`.
    pub(crate) fn definitions(&mut self, root: &Map, element: Element, package: usize) -> Table {
        let section = format!("{}s", element.word());
        let mut table = Table::new();
        let Some(node) = present(root, &section) else { return table };
        let Some(map) = self.expect_map(node, format_args!("`{section}`")) else { return table };
        let mut folded: HashMap<String, Rc<str>> = HashMap::new();
        for entry in &map.entries {
            self.check_name(&entry.key, entry.key_pos, element);
            if element == Element::Job {
                if let Some(other) = folded.insert(entry.key.to_lowercase(), entry.key.clone()) {
                    let message = format!("the jobs `{other}` and `{}` differ only in case", entry.key);
                    self.error(entry.key_pos, message);
                }
            }
            if let Some(body) = self.body(entry, element) {
                let definition =
                    Definition { name: entry.key.clone(), pos: entry.key_pos, element, package, body };
                table.insert(entry.key.clone(), Rc::new(definition));
            }
        }
        table
    }

    fn body(&mut self, entry: &Entry, element: Element) -> Option<Body> {
        let what = format!("{} `{}`", element.word(), entry.key);
        if let Some(target) = entry.value.as_str() {
            return Some(Body::Alias(target.clone()));
        }
        let map = self.expect_map(&entry.value, &what)?.clone();
        match element {
            Element::Command => {
                self.check_keys(&map, &what, &["steps", "parameters", "description"], false);
                self.check_steps_list(&map, &what, entry.key_pos);
            }
            Element::Executor => self.check_keys(&map, &what, crate::config::jobs::executor::KEYS, false),
            // Depends on the type of the job, which is looked at when it is used.
            Element::Job => {}
        }
        let parameters = self.declarations(map.get("parameters"), element.owner(), &what);
        Some(Body::Own { map, parameters })
    }

    /// `steps` is there, a list, and not empty.
    pub(crate) fn check_steps_list(&mut self, map: &Map, what: &str, pos: Pos) -> Option<Node> {
        let Some(steps) = present(map, "steps") else {
            self.error(pos, format!("{what} has no `steps`"));
            return None;
        };
        match steps.as_seq() {
            // A compiled config, of version 2, may have lost all steps of a job to conditions.
            Some(seq) if !seq.items.is_empty() || !self.tags => Some(steps.clone()),
            Some(_) => {
                self.error(steps.pos, format!("`steps` of {what} is empty"));
                None
            }
            None => {
                self.error(steps.pos, format!("`steps` of {what} must be a list, not {}", steps.describe()));
                None
            }
        }
    }

    fn check_name(&mut self, name: &str, pos: Pos, element: Element) {
        let rest = name.chars().skip(1).all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        if element == Element::Job {
            // Version 2 has no rules for names; compiled configs have names with a `/`.
            if self.tags {
                self.check_job_name(name, pos, "job");
            }
        } else if !(name.starts_with(|c: char| c.is_ascii_lowercase())
            && rest
            && !name.contains(|c: char| c.is_ascii_uppercase()))
        {
            let word = element.word();
            let rule = "starts with a lower-case letter and has only those, digits, `_` and `-`";
            let article = if element == Element::Executor { "an" } else { "a" };
            self.error(pos, format!("`{name}` is not the name of {article} {word}: it {rule}"));
        }
    }

    /// Whether a job or a job group can have this name.
    pub(crate) fn check_job_name(&mut self, name: &str, pos: Pos, word: &str) {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_- \t\n".contains(c);
        if !(name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(fits)) {
            let rule = "starts with a letter and has only letters, digits, spaces, `_` and `-`";
            self.error(pos, format!("`{name}` is not the name of a {word}: it {rule}"));
        }
    }

    /// Finds an element by `name` or `alias/name`, through declared aliases. `None` when there is none.
    pub(crate) fn find(&self, element: Element, reference: &str, package: usize) -> Option<Rc<Definition>> {
        let mut found = self.look(element, reference, package)?;
        // A chain of aliases is short; a ring of them ends here.
        for _ in 0..16 {
            let Body::Alias(target) = &found.body else { return Some(found) };
            found = self.look(element, target, found.package)?;
        }
        None
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

    /// The message for an element that was not found.
    pub(crate) fn not_found(&self, element: Element, reference: &str, package: usize, pos: Pos) -> String {
        let word = element.word();
        let Some(known) = self.packages.get(package) else { return format!("unknown {word} `{reference}`") };
        if known.table(element).contains_key(reference) {
            return format!("the {word} `{reference}` is an alias that leads to no {word}");
        }
        let own = known.table(element).keys().map(|name| &**name);
        let builtin: &[&str] =
            if element == Element::Command { crate::config::jobs::builtin::STEPS } else { &[] };
        let own = own.chain(builtin.iter().copied());
        let Some((alias, name)) = reference.split_once('/') else {
            let choices = self.choices(Severity::Error, pos, &format!("{word}s"), reference, own);
            return match element {
                Element::Command => {
                    format!("Cannot find a definition for command named {reference}{choices}")
                }
                _ => format!("Cannot find a definition for {word} named {reference}{choices}"),
            };
        };
        match known.orbs.get(alias).and_then(|orb| self.packages.get(*orb)) {
            None => {
                let choices =
                    self.choices(Severity::Error, pos, "orbs", alias, known.orbs.keys().map(|name| &**name));
                format!("unknown orb '{alias}' in the {word} `{reference}`{choices}")
            }
            Some(orb) => {
                let names = orb.table(element).keys().map(|name| &**name);
                let choices = self.choices(Severity::Error, pos, &format!("{word}s"), name, names);
                format!("Cannot find {word} {name} in orb {alias}{choices}")
            }
        }
    }
}
