//! Tokens of organisations for the forge that their projects are at.

use super::arguments::Arguments;
use super::remote::{Remote, owner_path};
use super::table::Table;
use super::verb::{UnknownVerb, VerbAnswer, VerbFunction, find, text};
use crate::outcome::Failure;
use serde_json::{Value, json};

/// Finds a verb of `forge-token`.
pub(super) fn forge_token(verb: &str) -> Result<VerbFunction, UnknownVerb> {
    find(&[("set", set), ("list", list), ("show", show), ("delete", delete)], verb)
}

/// Takes OWNER; returns it and the path of its token.
fn owner(arguments: &mut Arguments) -> Result<(String, String), Failure> {
    let owner = arguments.word("OWNER")?;
    let path = format!("/api/v2/organization/{}/forge-token", owner_path(&owner)?);
    Ok((owner, path))
}

fn said(owner: &str, answer: &Value) -> String {
    let (forge, api) = (text(answer, "forge"), text(answer, "api_url"));
    let mut said =
        format!("projects of {owner} without a token of their own go by that of {owner} at {forge}, {api}\n");
    if !text(answer, "message").is_empty() {
        said.push_str(&format!("  but {}\n", text(answer, "message")));
    }
    said.push_str(match answer["for_jobs"].as_bool() {
        Some(true) => "  jobs get it for checkout, but those of pull requests from forks",
        _ => "  no job gets it (`--for-jobs` would have checkout go by it)",
    });
    for project in answer["projects"].as_array().into_iter().flatten() {
        let by = match text(project, "goes_by") {
            "organization" => "goes by it",
            "project" => "has one of its own",
            "github-app" => "goes by a GitHub App",
            _ => "does not go by it",
        };
        said.push_str(&format!("\n  {}: {by}", text(project, "slug")));
        if !text(project, "message").is_empty() {
            said.push_str(&format!("; {}", text(project, "message")));
        }
    }
    said
}

fn set(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (owner, path) = owner(arguments)?;
    let mut body = json!({ "for_jobs": arguments.flag("for-jobs") });
    for (option, field) in [("forge", "forge"), ("api", "api_url"), ("username", "username")] {
        if let Some(value) = arguments.option(option) {
            body[field] = json!(value);
        }
    }
    body["token"] = json!(arguments.secret_from_stdin()?.expose());
    let answer = remote.call("PUT", &path, Some(body))?;
    Ok(VerbAnswer::Done(said(&owner, &answer), answer))
}

fn list(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    arguments.finish()?;
    let items = remote.list("/api/v3/forge-tokens")?;
    let mut table = Table::new(&["OWNER", "FORGE", "API", "FOR JOBS", "PROJECTS", "SET"]);
    for item in &items {
        let is_for_jobs = item["for_jobs"] == json!(true);
        table.row(&[
            text(item, "organization"),
            text(item, "forge"),
            text(item, "api_url"),
            if is_for_jobs { "yes" } else { "no" },
            &item["project_count"].to_string(),
            text(item, "updated_at"),
        ]);
    }
    Ok(VerbAnswer::List(table, items))
}

fn show(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (owner, path) = owner(arguments)?;
    arguments.finish()?;
    let answer = remote.call("GET", &path, None)?;
    Ok(VerbAnswer::Done(said(&owner, &answer), answer))
}

fn delete(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (owner, path) = owner(arguments)?;
    arguments.finish()?;
    let answer = remote.call("DELETE", &path, None)?;
    Ok(VerbAnswer::Done(format!("no project goes by a token of {owner} any more"), answer))
}
