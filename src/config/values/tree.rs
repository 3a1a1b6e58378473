//! The tree a config is while it is compiled: YAML with positions, shared by reference.
//!
//! The same type holds what was written and what it becomes: substitution replaces scalars and keeps
//! the position of the place they were used at. Two further kinds of data exist only after arguments
//! were bound: a list of compiled steps and a resolved executor.

use crate::config::syntax::template::Template;
use crate::protocol::Step;
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// A place in one of the files of a compilation; lines and columns from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pos {
    /// Index into the files of the compiler.
    pub(crate) file: u32,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) pos: Pos,
    pub(crate) data: Data,
}

/// The content of a node. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Scalar(Scalar),
    Seq(Rc<Seq>),
    Map(Rc<Map>),
    /// Value of a parameter of type `steps`, compiled where it was written.
    Steps(Rc<StepList>),
    /// Value of a parameter of type `executor`, resolved where it was written.
    Executor(Rc<ExecutorValue>),
}

/// A scalar: its text as written, with its type.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: Rc<str>,
    pub(crate) kind: ScalarKind,
    pub(crate) style: Notation,
    /// For a text with a `<<`, its parts once they are needed. Shared by all copies of the scalar.
    pub(crate) template: Option<Rc<OnceCell<Rc<Template>>>>,
    /// Whether it is the value of a tag; a null is then a pipeline value that does not apply.
    pub(crate) substituted: bool,
}

/// The type of a scalar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ScalarKind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str,
}

/// The notation of a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notation {
    Plain,
    Quoted,
    Block,
}

/// A list of values.
#[derive(Debug, Default)]
pub(crate) struct Seq {
    pub(crate) items: Vec<Node>,
    /// Whether some scalar inside has a `<<`.
    pub(crate) tagged: bool,
}

/// A map in the order of the text, keys unique.
#[derive(Debug, Default)]
pub(crate) struct Map {
    pub(crate) entries: Vec<Entry>,
    /// Whether some scalar inside has a `<<`; keys do not count.
    pub(crate) tagged: bool,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Rc<str>,
    pub(crate) key_pos: Pos,
    pub(crate) value: Node,
}

/// Steps ready to run, in order.
#[derive(Debug, Default)]
pub(crate) struct StepList {
    pub(crate) steps: Vec<PlacedStep>,
}

/// A step and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct PlacedStep {
    pub(crate) step: Step,
    pub(crate) pos: Pos,
}

/// An executor with its arguments bound.
#[derive(Debug)]
pub(crate) struct ExecutorValue {
    /// Name as it was written.
    pub(crate) name: Rc<str>,
    /// Keys of the executor with everything substituted.
    pub(crate) keys: Rc<Map>,
}

/// Arguments by parameter name. `None` is one with a mistake in its declaration or its value, which was
/// reported: uses of it have no value, and report nothing more.
pub(crate) type Bindings = BTreeMap<Rc<str>, Option<Data>>;

impl Map {
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| &*entry.key == key)
    }
}

impl Scalar {
    /// A string that no tag is looked for in.
    pub(crate) fn string(text: impl Into<Rc<str>>) -> Self {
        Self::of(ScalarKind::Str, text)
    }

    /// A value that stands in for a tag.
    pub(crate) fn of(kind: ScalarKind, text: impl Into<Rc<str>>) -> Self {
        Self { text: text.into(), kind, style: Notation::Quoted, template: None, substituted: true }
    }

    /// Whether the text has a `<<`.
    pub(crate) fn tagged(&self) -> bool {
        self.template.is_some()
    }

    /// The text that stands for the value inside a longer one.
    pub(crate) fn rendered(&self) -> Rc<str> {
        match self.kind {
            ScalarKind::Null => "".into(),
            ScalarKind::Bool(value) => if value { "true" } else { "false" }.into(),
            ScalarKind::Int(value) => value.to_string().into(),
            ScalarKind::Float(_) | ScalarKind::Str => self.text.clone(),
        }
    }
}

impl Data {
    pub(crate) fn null() -> Self {
        Data::Scalar(Scalar::of(ScalarKind::Null, ""))
    }

    pub(crate) fn bool(value: bool) -> Self {
        Data::Scalar(Scalar::of(ScalarKind::Bool(value), if value { "true" } else { "false" }))
    }

    pub(crate) fn int(value: i64) -> Self {
        Data::Scalar(Scalar::of(ScalarKind::Int(value), value.to_string()))
    }

    pub(crate) fn string(text: impl Into<Rc<str>>) -> Self {
        Data::Scalar(Scalar::string(text))
    }

    /// Whether substitution has anything to do.
    pub(crate) fn tagged(&self) -> bool {
        match self {
            Data::Scalar(scalar) => scalar.tagged(),
            Data::Seq(seq) => seq.tagged,
            Data::Map(map) => map.tagged,
            Data::Steps(_) | Data::Executor(_) => false,
        }
    }

    /// A copy of the data that counts as substituted: no expression in it is read again.
    pub(crate) fn substituted(&self) -> Self {
        match self {
            Data::Scalar(scalar) => {
                Data::Scalar(Scalar { template: None, substituted: true, ..scalar.clone() })
            }
            other => other.clone(),
        }
    }

    /// The name of its type, for messages.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Data::Scalar(scalar) => match scalar.kind {
                ScalarKind::Null => "null",
                ScalarKind::Bool(_) => "a boolean",
                ScalarKind::Int(_) => "an integer",
                ScalarKind::Float(_) => "a number",
                ScalarKind::Str => "a string",
            },
            Data::Seq(_) => "a list",
            Data::Map(_) => "a map",
            Data::Steps(_) => "a list of steps",
            Data::Executor(_) => "an executor",
        }
    }

    /// Falsy as in logic statements: false, null, zero, the empty string, nothing in a list.
    pub(crate) fn is_falsy(&self) -> bool {
        match self {
            Data::Scalar(scalar) => match scalar.kind {
                ScalarKind::Null => true,
                ScalarKind::Bool(value) => !value,
                ScalarKind::Int(value) => value == 0,
                ScalarKind::Float(value) => value == 0.0 || value.is_nan(),
                ScalarKind::Str => scalar.text.is_empty(),
            },
            Data::Seq(seq) => seq.items.is_empty(),
            Data::Steps(steps) => steps.steps.is_empty(),
            Data::Map(_) | Data::Executor(_) => false,
        }
    }

    /// Equal in type and value, all the way down. An executor equals its name, and the map that it is.
    pub(crate) fn equals(&self, other: &Data) -> bool {
        match (self, other) {
            (Data::Scalar(a), Data::Scalar(b)) => match (a.kind, b.kind) {
                (ScalarKind::Str, ScalarKind::Str) => a.text == b.text,
                (a, b) => a == b && a != ScalarKind::Str,
            },
            (Data::Seq(a), Data::Seq(b)) => {
                a.items.len() == b.items.len()
                    && a.items.iter().zip(&b.items).all(|(a, b)| a.data.equals(&b.data))
            }
            (Data::Map(a), Data::Map(b)) => {
                // By key, so that large maps do not cost the square of their size.
                let other: HashMap<&str, &Node> = b.entries.iter().map(|e| (&*e.key, &e.value)).collect();
                a.entries.len() == b.entries.len()
                    && a.entries
                        .iter()
                        .all(|e| other.get(&*e.key).is_some_and(|value| e.value.data.equals(&value.data)))
            }
            (Data::Executor(a), Data::Executor(b)) => a.name == b.name,
            (Data::Executor(a), Data::Scalar(b)) | (Data::Scalar(b), Data::Executor(a)) => {
                b.kind == ScalarKind::Str && a.name == b.text
            }
            // Configs compare executors with an alias of their definition.
            (Data::Executor(a), Data::Map(b)) | (Data::Map(b), Data::Executor(a)) => {
                let is_told = |key: &str| matches!(key, "parameters" | "description");
                a.keys.entries.len() == b.entries.iter().filter(|entry| !is_told(&entry.key)).count()
                    && a.keys.entries.iter().all(|entry| {
                        b.get(&entry.key).is_some_and(|value| entry.value.data.equals(&value.data))
                    })
            }
            _ => false,
        }
    }
}

impl Node {
    pub(crate) fn new(pos: Pos, data: Data) -> Self {
        Self { pos, data }
    }

    pub(crate) fn as_scalar(&self) -> Option<&Scalar> {
        match &self.data {
            Data::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The text of a string; other scalars are not strings.
    pub(crate) fn as_str(&self) -> Option<&Rc<str>> {
        self.as_scalar().filter(|scalar| scalar.kind == ScalarKind::Str).map(|scalar| &scalar.text)
    }

    pub(crate) fn as_bool(&self) -> Option<bool> {
        match self.as_scalar()?.kind {
            ScalarKind::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn as_int(&self) -> Option<i64> {
        match self.as_scalar()?.kind {
            ScalarKind::Int(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn as_seq(&self) -> Option<&Rc<Seq>> {
        match &self.data {
            Data::Seq(seq) => Some(seq),
            _ => None,
        }
    }

    pub(crate) fn as_map(&self) -> Option<&Rc<Map>> {
        match &self.data {
            Data::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.as_scalar().is_some_and(|scalar| scalar.kind == ScalarKind::Null)
    }

    /// The value with its type, shortened, for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.data {
            Data::Scalar(scalar) if scalar.kind != ScalarKind::Null => {
                format!("{} `{}`", self.data.type_name(), shorten(&scalar.text))
            }
            Data::Executor(executor) => format!("the executor `{}`", executor.name),
            other => other.type_name().to_owned(),
        }
    }
}

/// The first line of a text, at most 60 characters of it.
pub(crate) fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() > 60 {
        line.chars().take(57).chain("...".chars()).collect()
    } else if line.len() < text.trim_end().len() {
        format!("{line}...")
    } else {
        line.to_owned()
    }
}
