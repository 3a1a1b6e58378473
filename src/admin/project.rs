//! Projects and their variables.

use super::access;
use super::arguments::Arguments;
use super::forge;
use super::remote::{Remote, encode, owner_path, slug_path};
use super::table::Table;
use super::verb::{UnknownVerb, VerbAnswer, VerbFunction, find};
use crate::outcome::Failure;
use serde_json::{Value, json};

/// Finds a verb of `project`.
pub(super) fn project(verb: &str) -> Result<VerbFunction, UnknownVerb> {
    let verbs: [(&str, VerbFunction); 11] = [
        ("create", create),
        ("list", list),
        ("set-repository", set_repository),
        ("delete", delete),
        ("access", access::access),
        ("settings", forge::settings),
        ("connect", forge::connect),
        ("disconnect", forge::disconnect),
        ("deliveries", forge::deliveries),
        ("statuses", forge::statuses),
        ("hook", forge::hook),
    ];
    find(&verbs, verb)
}

/// Finds a verb of `variable`.
pub(super) fn variable(verb: &str) -> Result<VerbFunction, UnknownVerb> {
    find(&[("set", set_variable), ("list", list_variables), ("delete", delete_variable)], verb)
}

fn create(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let slug = arguments.word("SLUG")?;
    let path = slug_path(&slug)?;
    let (owner, _) = path.rsplit_once('/').unwrap_or_default();
    let name = slug.rsplit('/').next().unwrap_or_default();
    let body = json!({
        "name": name, "repository_url": arguments.option("repository"), "default_branch": arguments.option("default-branch"),
    });
    arguments.finish()?;
    let made = remote.call("POST", &format!("/api/v2/organization/{owner}/project"), Some(body))?;
    Ok(VerbAnswer::Done(format!("made the project {}", made["slug"].as_str().unwrap_or(&slug)), made))
}

fn list(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let owner = arguments.option("organization");
    arguments.finish()?;
    let query = match &owner {
        Some(owner) => {
            owner_path(owner)?;
            format!("?org-slug={}", encode(owner))
        }
        None => String::new(),
    };
    let items = remote.list(&format!("/api/v2/project{query}"))?;
    let mut table = Table::new(&["PROJECT", "DEFAULT BRANCH", "REPOSITORY"]);
    for item in &items {
        let text = |value: &'_ Value| value.as_str().unwrap_or("-").to_owned();
        table.row(&[
            &text(&item["slug"]),
            &text(&item["vcs_info"]["default_branch"]),
            &text(&item["repository_url"]),
        ]);
    }
    Ok(VerbAnswer::List(table, items))
}

fn set_repository(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let slug = arguments.word("SLUG")?;
    let path = slug_path(&slug)?;
    let (url, branch) = (arguments.maybe_word(), arguments.option("default-branch"));
    arguments.finish()?;
    let mut body = serde_json::Map::new();
    body.extend(url.map(|url| ("repository_url".to_owned(), json!(url))));
    body.extend(branch.map(|branch| ("default_branch".to_owned(), json!(branch))));
    if body.is_empty() {
        return Err(Failure::usage(
            "`runlet admin project set-repository` needs a URL, `--default-branch` or both",
        ));
    }
    let answer = remote.call("PATCH", &format!("/api/v2/project/{path}"), Some(body.into()))?;
    let url = answer["repository_url"].as_str().unwrap_or("no repository");
    let branch = answer["vcs_info"]["default_branch"].as_str().unwrap_or_default();
    Ok(VerbAnswer::Done(format!("{slug} is built from {url}, by default its branch {branch}"), answer))
}

fn delete(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let slug = arguments.word("SLUG")?;
    let path = slug_path(&slug)?;
    arguments.finish()?;
    let answer = remote.call("DELETE", &format!("/api/v2/project/{path}"), None)?;
    Ok(VerbAnswer::Done(format!("deleted the project {slug}"), answer))
}

fn set_variable(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (slug, name) = (arguments.word("SLUG")?, arguments.word("NAME")?);
    let path = slug_path(&slug)?;
    let value = arguments.value_from_stdin()?;
    let body = json!({ "name": name, "value": value.expose() });
    let answer = remote.call("POST", &format!("/api/v2/project/{path}/envvar"), Some(body))?;
    let shown = answer["value"].as_str().unwrap_or_default().to_owned();
    Ok(VerbAnswer::Done(format!("set {name} of {slug} ({shown})"), answer))
}

fn list_variables(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let path = slug_path(&arguments.word("SLUG")?)?;
    arguments.finish()?;
    let items = remote.list(&format!("/api/v2/project/{path}/envvar"))?;
    let mut table = Table::new(&["NAME", "VALUE", "SET"]);
    for item in &items {
        let text = |key: &str| item[key].as_str().unwrap_or_default();
        table.row(&[text("name"), text("value"), text("created_at")]);
    }
    Ok(VerbAnswer::List(table, items))
}

fn delete_variable(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (slug, name) = (arguments.word("SLUG")?, arguments.word("NAME")?);
    let path = slug_path(&slug)?;
    arguments.finish()?;
    let answer = remote.call("DELETE", &format!("/api/v2/project/{path}/envvar/{}", encode(&name)), None)?;
    Ok(VerbAnswer::Done(format!("deleted {name} of {slug}"), answer))
}
