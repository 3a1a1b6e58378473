//! Triggering a pipeline, showing it, following it.

use super::arguments::Arguments;
use super::follow::follow;
use super::remote::{Remote, encode, slug_path};
use super::table::Table;
use super::verb::{UnknownVerb, VerbAnswer, VerbFunction, find, text};
use crate::config::typed_parameters;
use crate::outcome::{Failure, exit};
use serde_json::{Value, json};

/// Finds a verb of `pipeline`.
pub(super) fn pipeline(verb: &str) -> Result<VerbFunction, UnknownVerb> {
    find(&[("trigger", trigger), ("show", show), ("follow", follow_one)], verb)
}

fn trigger(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let slug = arguments.word("SLUG")?;
    let path = slug_path(&slug)?;
    let checkout = json!({ "branch": arguments.option("branch"), "tag": arguments.option("tag") });
    let file = arguments.option("config");
    let given: Vec<(String, String)> = arguments
        .all("parameter")
        .into_iter()
        .map(|text| match text.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(Failure::usage(format!("`--parameter {text}` is not NAME=VALUE"))),
        })
        .collect::<Result<_, _>>()?;
    let follows = arguments.flag("follow");
    arguments.finish()?;
    let content = match &file {
        None => None,
        Some(file) => Some(
            std::fs::read_to_string(file)
                .map_err(|e| Failure::usage(format!("failed to read the config `{file}`: {e}")))?,
        ),
    };
    let parameters = match &content {
        Some(source) => {
            typed_parameters(source, &given).map_err(|wrong| Failure::usage(wrong.to_string()))?
        }
        // The types are in the repository: what reads like a boolean or a number is one.
        None => given.into_iter().map(|(name, text)| (name, guessed(text))).collect(),
    };
    let mut body = json!({ "config": { "content": content }, "parameters": parameters });
    // Without a place to check out, a project without a repository can be triggered too.
    if checkout.as_object().is_some_and(|refs| refs.values().any(|text| !text.is_null())) {
        body["checkout"] = checkout;
    }
    let answer = remote.call("POST", &format!("/api/v2/project/{path}/pipeline/run"), Some(body))?;
    let Some(number) = answer["number"].as_i64() else {
        let why = answer["message"].as_str().unwrap_or("no pipeline was made").to_owned();
        return Ok(VerbAnswer::Done(why, answer));
    };
    let id = answer["id"].as_str().unwrap_or_default();
    // The answer to a trigger does not say what became of its config.
    let pipeline = remote.call("GET", &format!("/api/v2/pipeline/{}", encode(id)), None)?;
    if pipeline["state"] == "errored" {
        let errors = || pipeline["errors"].as_array().into_iter().flatten();
        // A config that could not be got, or whose orbs could not, is not called invalid.
        let is_invalid = errors().any(|error| error["type"] != "config-fetch");
        let code = if is_invalid { exit::INVALID_CONFIG } else { exit::FAILED };
        let told: Vec<&str> = errors().filter_map(|error| error["message"].as_str()).collect();
        let message = format!("pipeline {number} ({id}) has errors:\n{}", told.join("\n"));
        return Ok(VerbAnswer::Failed(Failure { code, message }, pipeline));
    }
    // The page is below the slug that the project has here, whatever the person called it.
    let path = pipeline["project_slug"].as_str().map_or(Ok(path), slug_path)?;
    let made =
        format!("pipeline {number} of {slug} was made ({id}): {}", remote.page(&format!("{path}/{number}")));
    if follows {
        crate::outcome::print(&format!("{made}\n"))?;
        return follow(remote, id).map(VerbAnswer::Shown);
    }
    Ok(VerbAnswer::Done(made, pipeline))
}

fn follow_one(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let id = arguments.word("ID")?;
    arguments.finish()?;
    follow(remote, &id).map(VerbAnswer::Shown)
}

fn show(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let id = arguments.word("ID")?;
    arguments.finish()?;
    let mut table = Table::new(&["WORKFLOW", "JOB", "NUMBER", "STATUS", "REASON"]);
    let mut shown = Vec::new();
    for workflow in remote.list(&format!("/api/v2/pipeline/{}/workflow", encode(&id)))? {
        let name = text(&workflow, "name").to_owned();
        for job in remote.list(&format!("/api/v2/workflow/{}/job", encode(text(&workflow, "id"))))? {
            let told = remote.call("GET", &format!("/api/v3/jobs/{}", encode(text(&job, "id"))), None)?;
            let attributes = &told["data"]["attributes"];
            let messages = attributes["messages"].as_array().into_iter().flatten();
            let reasons: Vec<&str> = messages.map(|message| text(message, "message")).collect();
            let number = attributes["number"].as_i64().map(|number| number.to_string()).unwrap_or_default();
            table.row(&[&name, text(&job, "name"), &number, text(&job, "status"), &reasons.join("; ")]);
            shown.push(told["data"].clone());
        }
    }
    Ok(VerbAnswer::List(table, shown))
}

fn guessed(text: String) -> Value {
    match text.as_str() {
        "true" => true.into(),
        "false" => false.into(),
        _ => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
    }
}
