//! Tasks that a restored backup left for an administrator to decide about.

use super::arguments::Arguments;
use super::remote::{Remote, encode};
use super::table::Table;
use super::verb::{UnknownVerb, VerbAnswer, VerbFunction, find, text};
use crate::outcome::Failure;

const HELD: &str = "/api/v3/runner/held-tasks";

/// Verbs of `task`.
pub(super) fn task(verb: &str) -> Result<VerbFunction, UnknownVerb> {
    find(&[("held", held), ("release", release), ("end", end)], verb)
}

fn held(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    arguments.finish()?;
    let items = remote.list(HELD)?;
    let mut table = Table::new(&["ID", "STATUS", "RESOURCE CLASS", "RUNNER", "JOB"]);
    for item in &items {
        let cells = ["id", "status", "resource_class", "runner", "job_id"].map(|key| text(item, key));
        table.row(&cells);
    }
    Ok(VerbAnswer::List(table, items))
}

fn release(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    decide(arguments, remote, "release", "released")
}

fn end(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    decide(arguments, remote, "end", "ended")
}

fn decide(arguments: &mut Arguments, remote: &Remote, verb: &str, done: &str) -> Result<VerbAnswer, Failure> {
    let id = arguments.word("ID")?;
    arguments.finish()?;
    let answer = remote.call("POST", &format!("{HELD}/{}/{verb}", encode(&id)), None)?;
    Ok(VerbAnswer::Done(format!("{done} the task {id}"), answer))
}
