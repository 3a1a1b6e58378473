//! Resource classes and the tokens of their runners.

use super::arguments::Arguments;
use super::remote::{Remote, encode};
use super::table::Table;
use super::verb::{Act, Said, UnknownVerb, find, not_found, text};
use crate::outcome::Failure;
use serde_json::json;

const CLASSES: &str = "/api/v3/runner/resource";
const TOKENS: &str = "/api/v3/runner/token";

/// Finds a verb of `resource-class`.
pub(super) fn class(verb: &str) -> Result<Act, UnknownVerb> {
    find(&[("create", create_class), ("list", list_classes), ("delete", delete_class)], verb)
}

/// Finds a verb of `token`.
pub(super) fn token(verb: &str) -> Result<Act, UnknownVerb> {
    find(&[("create", create_token), ("list", list_tokens), ("delete", delete_token)], verb)
}

fn create_class(arguments: &mut Arguments, remote: &Remote) -> Result<Said, Failure> {
    let name = arguments.word("NAMESPACE/NAME")?;
    let description = arguments.option("description").unwrap_or_default();
    arguments.finish()?;
    let body = json!({ "resource_class": name, "description": description });
    let made = remote.call("POST", CLASSES, Some(body))?;
    let next = "`runlet admin token create` makes a token for its runners";
    Ok(Said::Done(format!("made the resource class {name}; {next}"), made))
}

fn list_classes(arguments: &mut Arguments, remote: &Remote) -> Result<Said, Failure> {
    let namespace = arguments.option("namespace");
    arguments.finish()?;
    let query = namespace.map(|namespace| format!("?namespace={}", encode(&namespace)));
    let items = remote.list(&format!("{CLASSES}{}", query.unwrap_or_default()))?;
    let mut table = Table::new(&["RESOURCE CLASS", "ID", "DESCRIPTION"]);
    for item in &items {
        table.row(&[text(item, "resource_class"), text(item, "id"), text(item, "description")]);
    }
    Ok(Said::List(table, items))
}

fn delete_class(arguments: &mut Arguments, remote: &Remote) -> Result<Said, Failure> {
    let (name, force) = (arguments.word("NAMESPACE/NAME")?, arguments.flag("force"));
    arguments.finish()?;
    let items = remote.list(CLASSES)?;
    let found = items.iter().find(|item| text(item, "resource_class") == name);
    let id = found.map(|item| encode(text(item, "id")));
    let id = id.ok_or_else(|| not_found(format!("there is no resource class `{name}`")))?;
    let path = format!("{CLASSES}/{id}{}", if force { "/force" } else { "" });
    let answer = remote.call("DELETE", &path, None)?;
    Ok(Said::Done(format!("deleted the resource class {name}"), answer))
}

fn create_token(arguments: &mut Arguments, remote: &Remote) -> Result<Said, Failure> {
    let class = arguments.word("NAMESPACE/NAME")?;
    let nickname = arguments.option("nickname").unwrap_or_default();
    arguments.finish()?;
    let body = json!({ "resource_class": class, "nickname": nickname });
    let made = remote.call("POST", TOKENS, Some(body))?;
    let told = "it is shown this once; it belongs into `api.auth_token` of the runner's settings";
    Ok(Said::Secret(format!("made a token for runners of {class}; {told}"), made))
}

fn list_tokens(arguments: &mut Arguments, remote: &Remote) -> Result<Said, Failure> {
    let class = arguments.word("NAMESPACE/NAME")?;
    arguments.finish()?;
    let items = remote.list(&format!("{TOKENS}?resource-class={}", encode(&class)))?;
    let mut table = Table::new(&["ID", "NICKNAME", "CREATED"]);
    for item in &items {
        table.row(&[text(item, "id"), text(item, "nickname"), text(item, "created_at")]);
    }
    Ok(Said::List(table, items))
}

fn delete_token(arguments: &mut Arguments, remote: &Remote) -> Result<Said, Failure> {
    let id = arguments.word("ID")?;
    arguments.finish()?;
    let answer = remote.call("DELETE", &format!("{TOKENS}/{}", encode(&id)), None)?;
    Ok(Said::Done(format!("deleted the token {id}"), answer))
}
