//! People and their personal tokens.

use super::arguments::Arguments;
use super::remote::{Remote, encode};
use super::table::Table;
use super::verb::{UnknownVerb, VerbAnswer, VerbFunction, find, text};
use crate::outcome::Failure;
use serde_json::json;

const USERS: &str = "/api/v2/user";
const TOKENS: &str = "/api/v2/personal-token";

/// Finds a verb of `user`.
pub(super) fn user(verb: &str) -> Result<VerbFunction, UnknownVerb> {
    find(&[("create", create), ("list", list), ("delete", delete)], verb)
}

/// Finds a verb of `personal-token`.
pub(super) fn token(verb: &str) -> Result<VerbFunction, UnknownVerb> {
    find(&[("create", create_token), ("list", list_tokens), ("delete", delete_token)], verb)
}

fn create(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let login = arguments.word("LOGIN")?;
    let (name, is_admin) = (arguments.option("name"), arguments.flag("admin"));
    arguments.finish()?;
    let body = json!({ "login": login, "name": name, "is_admin": is_admin });
    let made = remote.call("POST", USERS, Some(body))?;
    let what = if is_admin { "administrator" } else { "user" };
    let next = format!("`runlet admin personal-token create {login}` lets them in");
    Ok(VerbAnswer::Done(format!("made the {what} {login}; {next}"), made))
}

fn list(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    arguments.finish()?;
    let items = remote.list(USERS)?;
    let mut table = Table::new(&["LOGIN", "NAME", "ADMINISTRATOR", "CREATED"]);
    for item in &items {
        let is_admin = if item["is_admin"] == true { "yes" } else { "no" };
        table.row(&[text(item, "login"), text(item, "name"), is_admin, text(item, "created_at")]);
    }
    Ok(VerbAnswer::List(table, items))
}

fn delete(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let login = arguments.word("LOGIN")?;
    arguments.finish()?;
    let answer = remote.call("DELETE", &format!("{USERS}/{}", encode(&login)), None)?;
    Ok(VerbAnswer::Done(format!("deleted {login} and their tokens"), answer))
}

fn create_token(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let login = arguments.word("LOGIN")?;
    let label = arguments.option("label").unwrap_or_default();
    arguments.finish()?;
    let made = remote.call("POST", TOKENS, Some(json!({ "user": login, "label": label })))?;
    Ok(VerbAnswer::Secret(format!("made a personal token for {login}; it is shown this once"), made))
}

fn list_tokens(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let login = arguments.maybe_word();
    arguments.finish()?;
    let query = login.map(|login| format!("?user={}", encode(&login)));
    let items = remote.list(&format!("{TOKENS}{}", query.unwrap_or_default()))?;
    let mut table = Table::new(&["ID", "LABEL", "CREATED"]);
    for item in &items {
        table.row(&[text(item, "id"), text(item, "label"), text(item, "created_at")]);
    }
    Ok(VerbAnswer::List(table, items))
}

fn delete_token(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let id = arguments.word("ID")?;
    arguments.finish()?;
    let answer = remote.call("DELETE", &format!("{TOKENS}/{}", encode(&id)), None)?;
    Ok(VerbAnswer::Done(format!("deleted the personal token {id}"), answer))
}
