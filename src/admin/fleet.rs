//! Runners: who is there, pauses, how long jobs may wait, and the first settings file of a new one.

use super::arguments::Arguments;
use super::remote::{Remote, encode};
use super::runner::{CLASSES, TOKENS, id_of, shown_seconds};
use super::table::Table;
use super::verb::{UnknownVerb, VerbAnswer, VerbFunction, find, text};
use crate::outcome::{Failure, print};
use serde_json::{Value, json};

const RUNNERS: &str = "/api/v3/runner";

/// Finds a verb of `runner`.
pub(super) fn runner(verb: &str) -> Result<VerbFunction, UnknownVerb> {
    find(&[("list", list), ("pause", pause), ("resume", resume), ("config", config)], verb)
}

fn list(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let class = arguments.maybe_word();
    arguments.finish()?;
    let mut classes = remote.list(CLASSES)?;
    classes.retain(|item| class.as_deref().is_none_or(|class| text(item, "resource_class") == class));
    if let (Some(class), true) = (&class, classes.is_empty()) {
        // The error is that of anything else that does not exist.
        id_of(remote, class)?;
    }
    let (mut runners, mut waits) = (Vec::new(), Vec::new());
    for item in &classes {
        let name = text(item, "resource_class");
        let of_class = remote.list(&format!("{RUNNERS}?resource-class={}", encode(name)))?;
        waits.extend(wait(item, &of_class));
        runners.extend(of_class);
    }
    let columns = ["RESOURCE CLASS", "RUNNER", "STATE", "LAST SEEN", "HOST", "ADDRESS", "VERSION", "JOB"];
    let mut table = Table::new(&columns);
    for item in &runners {
        let state = match (text(item, "state"), item["is_paused"] == true) {
            (state, true) => format!("{state}, paused"),
            (state, false) => state.to_owned(),
        };
        let get = |key: &str| text(item, key);
        let job = text(&item["task"], "job_name");
        let (class, name, seen) = (get("resource_class"), get("name"), get("last_connected"));
        table.row(&[class, name, &state, seen, get("hostname"), get("ip"), get("version"), job]);
    }
    for wait in waits {
        eprintln!("{wait}");
    }
    Ok(VerbAnswer::List(table, runners))
}

/// Why tasks of a class wait, if some do.
fn wait(class: &Value, runners: &[Value]) -> Option<String> {
    let waiting = class["waiting"].as_u64().filter(|count| *count > 0)?;
    let oldest = shown_seconds(class["oldest_wait_seconds"].as_u64().unwrap_or(0).max(1));
    let is = |state: &str| {
        runners.iter().filter(|item| item["state"] == state && item["is_paused"] != true).count()
    };
    let why = match (class["is_paused"] == true, is("idle"), is("busy")) {
        (true, ..) => "the class is paused".to_owned(),
        (_, 1.., _) => {
            "a runner is about to take one, or what waits is for another kind of runner".to_owned()
        }
        (_, 0, busy @ 1..) => format!("all runners are busy ({busy})"),
        (_, 0, 0) if runners.iter().any(|item| item["is_paused"] == true && item["state"] != "offline") => {
            "the runners that are there are paused".to_owned()
        }
        _ => "no runner is there".to_owned(),
    };
    Some(format!("{}: {waiting} wait, the oldest for {oldest}: {why}", text(class, "resource_class")))
}

fn pause(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    set_pause(arguments, remote, true)
}

fn resume(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    set_pause(arguments, remote, false)
}

fn set_pause(arguments: &mut Arguments, remote: &Remote, paused: bool) -> Result<VerbAnswer, Failure> {
    let (class, name) = (arguments.word("NAMESPACE/NAME")?, arguments.maybe_word());
    arguments.finish()?;
    let (whom, answer) = match name {
        None => {
            let path = format!("{CLASSES}/{}", id_of(remote, &class)?);
            (class.clone(), remote.call("PATCH", &path, Some(json!({ "is_paused": paused })))?)
        }
        Some(name) => {
            let body = json!({ "resource_class": class, "name": name, "is_paused": paused });
            (format!("the runner {name} of {class}"), remote.call("PATCH", RUNNERS, Some(body))?)
        }
    };
    let told = if paused { "gets no further tasks; what runs goes on" } else { "gets tasks again" };
    Ok(VerbAnswer::Done(format!("{whom} {told}"), answer))
}

fn config(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let (class, name) = (arguments.word("NAMESPACE/NAME")?, arguments.option("name"));
    arguments.finish()?;
    let nickname = name.clone().unwrap_or_default();
    let made = remote.call("POST", TOKENS, Some(json!({ "resource_class": class, "nickname": nickname })))?;
    let (url, ca_file) = remote.place();
    let quoted = |text: &str| json!(text).to_string();
    let mut file =
        format!("# A runner of {class}. Keep this file from others: it holds a token (chmod 600).\napi:\n");
    file += &format!("  url: {}\n  auth_token: {}\n", quoted(url), text(&made, "token"));
    if let Some(path) = ca_file {
        let shown = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        file += &format!("  ca_file: {}\n", quoted(&shown.to_string_lossy()));
    }
    if let Some(name) = name {
        file += &format!("runner:\n  name: {}\n", quoted(&name));
    }
    print(&file).map(VerbAnswer::Shown)
}
