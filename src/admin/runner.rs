//! Resource classes and the tokens of their runners.

use super::arguments::Arguments;
use super::remote::{Remote, encode, failure};
use super::table::Table;
use super::verb::{UnknownVerb, VerbAnswer, VerbFunction, find, not_found, text};
use crate::http::Error;
use crate::outcome::Failure;
use crate::protocol::duration;
use serde_json::{Value, json};
use std::io::IsTerminal;

pub(super) const CLASSES: &str = "/api/v3/runner/resource";
pub(super) const TOKENS: &str = "/api/v3/runner/token";

/// Finds a verb of `resource-class`.
pub(super) fn class(verb: &str) -> Result<VerbFunction, UnknownVerb> {
    find(
        &[
            ("create", create_class),
            ("set-budget", set_budget),
            ("set-unsafe-retries", set_unsafe_retries),
            ("set-untrusted", set_untrusted),
            ("set-wait", set_wait),
            ("set-begin", set_begin),
            ("list", list_classes),
            ("delete", delete_class),
        ],
        verb,
    )
}

/// Finds a verb of `token`.
pub(super) fn token(verb: &str) -> Result<VerbFunction, UnknownVerb> {
    find(&[("create", create_token), ("list", list_tokens), ("delete", delete_token)], verb)
}

fn create_class(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let name = arguments.word("NAMESPACE/NAME")?;
    let description = arguments.option("description").unwrap_or_default();
    let budget = arguments.option("budget").map(|text| seconds(&text)).transpose()?;
    let unsafe_retries = arguments.flag("unsafe-retries");
    arguments.finish()?;
    let body = json!({
        "resource_class": name, "description": description, "budget_seconds": budget,
        "unsafe_retries": unsafe_retries,
    });
    let made = remote.call("POST", CLASSES, Some(body))?;
    let next = "`runlet admin token create` makes a token for its runners";
    Ok(VerbAnswer::Done(format!("made the resource class {name}; {next}"), made))
}

fn seconds(text: &str) -> Result<u64, Failure> {
    duration::parse(text)
        .map(|budget| budget.as_secs())
        .map_err(|why| Failure::usage(format!("`{text}`: {why}")))
}

fn on_or_off(arguments: &mut Arguments) -> Result<bool, Failure> {
    match arguments.word("on or off")?.as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(Failure::usage(format!("`{other}` is neither `on` nor `off`"))),
    }
}

/// Changes terms of a class.
fn change(remote: &Remote, name: &str, terms: Value) -> Result<Value, Failure> {
    let path = format!("{CLASSES}/{}", id_of(remote, name)?);
    remote.call("PATCH", &path, Some(terms))
}

fn set_budget(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (name, budget) = (arguments.word("NAMESPACE/NAME")?, arguments.maybe_word());
    let budget = budget.map(|text| seconds(&text)).transpose()?;
    arguments.finish()?;
    let answer = change(remote, &name, json!({ "budget_seconds": budget }))?;
    Ok(VerbAnswer::Done(
        format!("changed the budget of {name}; it counts for tasks that are claimed from now on"),
        answer,
    ))
}

fn set_unsafe_retries(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (name, wanted) = (arguments.word("NAMESPACE/NAME")?, on_or_off(arguments)?);
    arguments.finish()?;
    let answer = change(remote, &name, json!({ "unsafe_retries": wanted }))?;
    let told = if wanted {
        "runs again when the infrastructure fails under it, 3 times at most: its steps may run twice"
    } else {
        "does not run again when the infrastructure fails under it"
    };
    Ok(VerbAnswer::Done(
        format!("a task of {name} that has begun {told}; it counts for tasks that are claimed from now on"),
        answer,
    ))
}

fn set_untrusted(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (name, wanted) = (arguments.word("NAMESPACE/NAME")?, on_or_off(arguments)?);
    arguments.finish()?;
    let answer = change(remote, &name, json!({ "takes_untrusted": wanted }))?;
    let told = if wanted {
        "takes jobs of pull requests from forks: what strangers wrote runs on its hosts"
    } else {
        "takes no jobs of pull requests from forks"
    };
    Ok(VerbAnswer::Done(format!("{name} {told}"), answer))
}

fn set_wait(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (class, limit) = (arguments.word("NAMESPACE/NAME")?, arguments.maybe_word());
    let limit = limit.map(|text| seconds(&text)).transpose()?;
    arguments.finish()?;
    let answer = change(remote, &class, json!({ "wait_limit_seconds": limit }))?;
    let told = match limit {
        Some(limit) => format!("a job that no runner of {class} takes within {} ends", shown_seconds(limit)),
        None => format!("jobs may wait for a runner of {class} for as long as it takes"),
    };
    Ok(VerbAnswer::Done(told, answer))
}

fn set_begin(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (class, limit) = (arguments.word("NAMESPACE/NAME")?, arguments.maybe_word());
    let limit = limit.map(|text| seconds(&text)).transpose()?;
    arguments.finish()?;
    let answer = change(remote, &class, json!({ "begin_limit_seconds": limit }))?;
    let limit = limit.map_or("10m".to_owned(), shown_seconds);
    Ok(VerbAnswer::Done(
        format!(
            "a task of {class} goes back to its queue when it has not begun {limit} after its claim; it counts for tasks that are claimed from now on"
        ),
        answer,
    ))
}

/// The id of a class by its name, as part of a path.
pub(super) fn id_of(remote: &Remote, name: &str) -> Result<String, Failure> {
    let items = remote.list(CLASSES)?;
    let found = items.iter().find(|item| text(item, "resource_class") == name);
    let id = found.map(|item| encode(text(item, "id")));
    id.ok_or_else(|| not_found(format!("there is no resource class `{name}`")))
}

fn list_classes(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let namespace = arguments.option("namespace");
    arguments.finish()?;
    let query = namespace.map(|namespace| format!("?namespace={}", encode(&namespace)));
    let items = remote.list(&format!("{CLASSES}{}", query.unwrap_or_default()))?;
    let mut table = Table::new(&["RESOURCE CLASS", "ID", "BUDGET", "UNSAFE RETRIES", "DESCRIPTION"]);
    for item in &items {
        let budget = item["budget_seconds"].as_u64().map_or("15m".to_owned(), shown_seconds);
        let unsafe_retries = if item["unsafe_retries"] == true { "on" } else { "off" };
        let (name, id) = (text(item, "resource_class"), text(item, "id"));
        table.row(&[name, id, &budget, unsafe_retries, text(item, "description")]);
    }
    Ok(VerbAnswer::List(table, items))
}

/// A budget as it is written: `15m`, `1h30m`.
pub(super) fn shown_seconds(seconds: u64) -> String {
    let parts = [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect()
}

fn delete_class(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (name, force) = (arguments.word("NAMESPACE/NAME")?, arguments.flag("force"));
    arguments.finish()?;
    let path = format!("{CLASSES}/{}", id_of(remote, &name)?);
    let by_force = || remote.call("DELETE", &format!("{path}/force"), None);
    let answer = match force {
        true => by_force()?,
        false => match remote.attempt("DELETE", &path, None) {
            // A person at a terminal is asked about a class that is still needed; a program has to say that it means it.
            Err(needed @ Error::Refused { status: 409, .. }) => {
                let needed = failure(needed);
                if agrees(&needed.message) { by_force()? } else { return Err(needed) }
            }
            other => other.map_err(failure)?,
        },
    };
    Ok(VerbAnswer::Done(format!("deleted the resource class {name}"), answer))
}

/// Whether the person at the terminal wants it all the same.
fn agrees(obstacle: &str) -> bool {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return false;
    }
    eprint!("{obstacle}\nDelete the class with its tokens, and end what waits for it? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

fn create_token(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let class = arguments.word("NAMESPACE/NAME")?;
    let nickname = arguments.option("nickname").unwrap_or_default();
    arguments.finish()?;
    let body = json!({ "resource_class": class, "nickname": nickname });
    let made = remote.call("POST", TOKENS, Some(body))?;
    let told = "it is shown this once; it belongs into `api.auth_token` of the runner's settings";
    Ok(VerbAnswer::Secret(format!("made a token for runners of {class}; {told}"), made))
}

fn list_tokens(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let class = arguments.word("NAMESPACE/NAME")?;
    arguments.finish()?;
    let items = remote.list(&format!("{TOKENS}?resource-class={}", encode(&class)))?;
    let mut table = Table::new(&["ID", "NICKNAME", "CREATED"]);
    for item in &items {
        table.row(&[text(item, "id"), text(item, "nickname"), text(item, "created_at")]);
    }
    Ok(VerbAnswer::List(table, items))
}

fn delete_token(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let id = arguments.word("ID")?;
    arguments.finish()?;
    let answer = remote.call("DELETE", &format!("{TOKENS}/{}", encode(&id)), None)?;
    Ok(VerbAnswer::Done(format!("deleted the token {id}"), answer))
}
