//! Contexts, by the name of their owner and their own.

use super::arguments::Arguments;
use super::remote::{Remote, encode, owner_path};
use super::table::Table;
use super::verb::{UnknownVerb, VerbAnswer, VerbFunction, find, not_found};
use crate::outcome::Failure;
use serde_json::{Value, json};

const CONTEXTS: &str = "/api/v2/context";

/// Finds a verb of `context`.
pub(super) fn context(verb: &str) -> Result<VerbFunction, UnknownVerb> {
    let verbs: [(&str, VerbFunction); 8] = [
        ("create", create),
        ("list", list),
        ("show", show),
        ("delete", delete),
        ("set", set),
        ("unset", unset),
        ("restrict", restrict),
        ("unrestrict", unrestrict),
    ];
    find(&verbs, verb)
}

fn of_owner(remote: &Remote, owner: &str, query: &str) -> Result<Vec<Value>, Failure> {
    owner_path(owner)?;
    remote.list(&format!("{CONTEXTS}?owner-slug={}{query}", encode(owner)))
}

/// Takes OWNER and NAME; returns the name of the context and its path.
fn named(arguments: &mut Arguments, remote: &Remote) -> Result<(String, String), Failure> {
    let (owner, name) = (arguments.word("OWNER")?, arguments.word("NAME")?);
    // The API finds parts of names.
    let items = of_owner(remote, &owner, &format!("&name={}", encode(&name)))?;
    let found = items.iter().find(|item| item["name"] == name.as_str()).and_then(|item| item["id"].as_str());
    match found {
        Some(id) => Ok((name, format!("{CONTEXTS}/{}", encode(id)))),
        None => Err(not_found(format!("{owner} has no context `{name}`"))),
    }
}

fn create(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (owner, name) = (arguments.word("OWNER")?, arguments.word("NAME")?);
    arguments.finish()?;
    owner_path(&owner)?;
    let body = json!({ "name": name, "owner": { "slug": owner, "type": "organization" } });
    let made = remote.call("POST", CONTEXTS, Some(body))?;
    Ok(VerbAnswer::Done(
        format!("made the context {name} of {owner}; every project of {owner} may use it"),
        made,
    ))
}

fn list(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let owner = arguments.word("OWNER")?;
    arguments.finish()?;
    let items = of_owner(remote, &owner, "")?;
    let mut table = Table::new(&["NAME", "ID", "CREATED"]);
    for item in &items {
        let text = |key: &str| item[key].as_str().unwrap_or_default();
        table.row(&[text("name"), text("id"), text("created_at")]);
    }
    Ok(VerbAnswer::List(table, items))
}

fn show(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (_, path) = named(arguments, remote)?;
    arguments.finish()?;
    let context = remote.call("GET", &path, None)?;
    let mut table = Table::new(&["KIND", "WHAT", "VALUE", "ID"]);
    for item in context["environment_variables"].as_array().into_iter().flatten() {
        let text = |key: &str| item[key].as_str().unwrap_or_default();
        table.row(&["variable", text("variable"), text("truncated_value"), "-"]);
    }
    for item in context["restrictions"].as_array().into_iter().flatten() {
        let text = |key: &str| item[key].as_str().unwrap_or_default();
        let shown = item["name"].as_str().unwrap_or_else(|| text("restriction_value"));
        table.row(&["restriction", text("restriction_type"), shown, text("id")]);
    }
    Ok(VerbAnswer::List(table, vec![context]))
}

fn delete(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (name, path) = named(arguments, remote)?;
    arguments.finish()?;
    Ok(VerbAnswer::Done(format!("deleted the context {name}"), remote.call("DELETE", &path, None)?))
}

fn set(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (context, path) = named(arguments, remote)?;
    let variable = arguments.word("VARIABLE")?;
    let value = arguments.value_from_stdin()?;
    let path = format!("{path}/environment-variable/{}", encode(&variable));
    let answer = remote.call("PUT", &path, Some(json!({ "value": value.expose() })))?;
    let shown = answer["truncated_value"].as_str().unwrap_or_default().to_owned();
    Ok(VerbAnswer::Done(format!("set {variable} of the context {context} ({shown})"), answer))
}

fn unset(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (context, path) = named(arguments, remote)?;
    let variable = arguments.word("VARIABLE")?;
    arguments.finish()?;
    let path = format!("{path}/environment-variable/{}", encode(&variable));
    let answer = remote.call("DELETE", &path, None)?;
    Ok(VerbAnswer::Done(format!("deleted {variable} of the context {context}"), answer))
}

fn restrict(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (context, path) = named(arguments, remote)?;
    let given = [("project", "project"), ("rule", "expression"), ("group", "group")]
        .into_iter()
        .filter_map(|(option, kind)| Some((kind, arguments.option(option)?)));
    let given: Vec<(&str, String)> = given.collect();
    arguments.finish()?;
    let [(kind, value)] = given.as_slice() else {
        return Err(Failure::usage(
            "`runlet admin context restrict` needs one of `--project SLUG`, `--rule EXPRESSION` and `--group ID`",
        ));
    };
    let body = json!({ "restriction_type": kind, "restriction_value": value });
    let answer = remote.call("POST", &format!("{path}/restrictions"), Some(body))?;
    Ok(VerbAnswer::Done(format!("restricted the context {context} to {kind} {value}"), answer))
}

fn unrestrict(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (context, path) = named(arguments, remote)?;
    let id = arguments.word("ID")?;
    arguments.finish()?;
    let answer = remote.call("DELETE", &format!("{path}/restrictions/{}", encode(&id)), None)?;
    Ok(VerbAnswer::Done(format!("removed a restriction of the context {context}"), answer))
}
