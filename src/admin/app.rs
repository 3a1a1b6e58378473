//! GitHub Apps, by whose installations projects get in at GitHub.

use super::arguments::Arguments;
use super::remote::{Remote, owner_path, slug_path};
use super::verb::{UnknownVerb, VerbAnswer, VerbFunction, find, text};
use crate::outcome::Failure;
use serde_json::{Value, json};

/// Finds a verb of `github-app`.
pub(super) fn app(verb: &str) -> Result<VerbFunction, UnknownVerb> {
    find(&[("set", set), ("show", show), ("delete", delete)], verb)
}

/// Takes OWNER, a project or an organisation; returns it and the path of its App.
fn owner(arguments: &mut Arguments) -> Result<(String, String), Failure> {
    let owner = arguments.word("OWNER")?;
    let path = match owner.matches('/').count() {
        1 => format!("/api/v2/organization/{}/github-app", owner_path(&owner)?),
        _ => format!("/api/v2/project/{}/github-app", slug_path(&owner)?),
    };
    Ok((owner, path))
}

fn said(owner: &str, answer: &Value) -> String {
    let mut said = format!("{owner} goes by the GitHub App {}", text(answer, "app_id"));
    if text(answer, "of") == "organization" && owner.matches('/').count() > 1 {
        said.push_str(" of its organization");
    }
    match answer["installation_id"].as_str() {
        Some(id) => said.push_str(&format!(", installation {id}")),
        None => said.push_str(", where it is installed on the repository"),
    }
    for (name, what) in [("statuses", "to tell statuses"), ("contents", "to read the repository")] {
        match text(answer, name) {
            "" => {}
            word => said.push_str(&format!("\n  {what}: {word}")),
        }
    }
    match text(answer, "token_of") {
        "" | "github-app" => {}
        whose => said
            .push_str(&format!("\n  but calls of the API go by the token of the {whose}, which comes first")),
    }
    if !text(answer, "message").is_empty() {
        said.push_str(&format!("\n  but {}", text(answer, "message")));
    }
    said
}

fn set(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (owner, path) = owner(arguments)?;
    let mut body = json!({ "app_id": arguments.word("ID")? });
    if let Some(id) = arguments.option("installation") {
        body["installation_id"] = json!(id);
    }
    body["private_key"] = json!(arguments.secret_from_stdin()?.expose());
    let answer = remote.call("PUT", &path, Some(body))?;
    Ok(VerbAnswer::Done(said(&owner, &answer), answer))
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
    Ok(VerbAnswer::Done(format!("{owner} goes by no GitHub App of its own any more"), answer))
}
