//! Verbs: what each of them takes, answers, and is found by.

use super::arguments::Arguments;
use super::remote::Remote;
use super::table::Table;
use crate::outcome::{Failure, exit};
use serde_json::Value;

/// The answer of a verb.
pub(super) enum VerbAnswer {
    /// A sentence, and the answer of the API.
    Done(String, Value),
    /// A sentence for the terminal, and an answer with a `token` that is shown once.
    Secret(String, Value),
    /// A failure after the API has answered, and that answer.
    Failed(Failure, Value),
    /// A sentence about what was done, the answer of the API, and a failure in a part of it.
    Partly(String, Value, Failure),
    /// The exit code of what has been shown already.
    Shown(u8),
    /// Rows, and the items of the API.
    List(Table, Vec<Value>),
}

/// The function of a verb.
pub(super) type VerbFunction = fn(&mut Arguments, &Remote) -> Result<VerbAnswer, Failure>;

/// A noun has no verb of this name.
#[derive(Debug)]
pub(super) struct UnknownVerb {
    /// The verbs that it has.
    pub(super) known: Vec<&'static str>,
}

/// Finds a verb by its name.
pub(super) fn find(verbs: &[(&'static str, VerbFunction)], verb: &str) -> Result<VerbFunction, UnknownVerb> {
    let found = verbs.iter().find(|(name, _)| *name == verb).map(|(_, act)| *act);
    found.ok_or_else(|| UnknownVerb { known: verbs.iter().map(|(name, _)| *name).collect() })
}

/// Reads a field of an item, for a table; empty when it is no text.
pub(super) fn text<'a>(item: &'a Value, key: &str) -> &'a str {
    item[key].as_str().unwrap_or_default()
}

/// Fails as the API does for a thing that does not exist, where the API was asked for a list.
pub(super) fn not_found(message: String) -> Failure {
    Failure { code: exit::NOT_FOUND, message }
}
