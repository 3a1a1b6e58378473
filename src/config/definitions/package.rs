//! Packages of definitions: one of the config, one of each orb.

use super::parameters::{Declarations, Owner};
use crate::config::values::{Map, Pos};
use std::collections::HashMap;
use std::rc::Rc;

/// The definitions of a config or an orb.
#[derive(Debug, Default)]
pub(crate) struct Package {
    pub(crate) commands: Definitions,
    pub(crate) executors: Definitions,
    pub(crate) jobs: Definitions,
    /// Alias of an imported orb to its index.
    pub(crate) orbs: HashMap<Rc<str>, usize>,
    /// Aliases of orbs that could not be imported, which was reported: nothing is said about their uses. Those that
    /// may be missing have their reference.
    pub(crate) broken_orbs: HashMap<Rc<str>, Option<Rc<str>>>,
}

pub(crate) type Definitions = HashMap<Rc<str>, Rc<Definition>>;

/// A command, an executor or a job.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) name: Rc<str>,
    pub(crate) pos: Pos,
    pub(crate) element: Element,
    /// Index of the package it was written in.
    pub(crate) package: usize,
    pub(crate) body: DefinitionBody,
}

#[derive(Debug)]
pub(crate) enum DefinitionBody {
    Own {
        map: Rc<Map>,
        parameters: Declarations,
    },
    /// Another name for an element of an orb: `name: alias/element`.
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

    pub(crate) fn owner(self) -> Owner {
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

    /// Map and parameters of an element that is no alias; [`Library::find`](super::Library::find) returns only
    /// such.
    pub(crate) fn own(&self) -> Option<(&Rc<Map>, &Declarations)> {
        match &self.body {
            DefinitionBody::Own { map, parameters } => Some((map, parameters)),
            DefinitionBody::Alias(_) => None,
        }
    }
}

impl Package {
    pub(crate) fn table(&self, element: Element) -> &Definitions {
        match element {
            Element::Command => &self.commands,
            Element::Executor => &self.executors,
            Element::Job => &self.jobs,
        }
    }
}
