//! Projects and their forges: connecting them, what came, and the hook of a plain git server.

use super::arguments::Arguments;
use super::remote::{Remote, slug_path};
use super::table::Table;
use super::verb::{VerbAnswer, text};
use crate::outcome::{Failure, exit};
use serde_json::{Map, Value, json};

/// The hook that a plain git server runs after each push; `ADDRESS` and `REPOSITORY` are put in.
const HOOK: &str = include_str!("post-receive.sh");

/// Connects a project to its forge, or changes how it is connected.
pub(super) fn connect(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let slug = arguments.word("SLUG")?;
    let path = slug_path(&slug)?;
    let mut body = Map::new();
    for (option, field) in [
        ("forge", "forge"),
        ("api", "api_url"),
        ("repository-id", "repository_id"),
        ("repository-name", "repository_name"),
    ] {
        body.extend(arguments.option(option).map(|value| (field.to_owned(), json!(value))));
    }
    if let Some(word) = arguments.option("poll") {
        let seconds = match word.as_str() {
            "never" => Value::Null,
            word => {
                let time = humantime::parse_duration(word).map_err(|error| {
                    Failure::usage(format!("`--poll {word}`: {error} (such as 5m, or never)"))
                })?;
                json!(time.as_secs())
            }
        };
        body.insert("poll_seconds".to_owned(), seconds);
    }
    if arguments.flag("rotate-secret") {
        body.insert("rotate_secret".to_owned(), json!(true));
    }
    if arguments.flag("set-hook") {
        body.insert("set_hook".to_owned(), json!(true));
    }
    let deletes = arguments.flag("delete-token");
    if deletes {
        body.insert("token".to_owned(), json!(""));
    }
    let given = match (arguments.flag("with-token"), arguments.flag("with-secret")) {
        (true, _) if deletes => {
            return Err(Failure::usage(
                "`--delete-token` takes away the token that `--with-token` would set: give one of the two",
            ));
        }
        (true, true) => {
            return Err(Failure::usage(
                "`--with-token` and `--with-secret` both read standard input: run the command once for each",
            ));
        }
        (true, false) => Some("token"),
        (false, true) => Some("secret"),
        (false, false) => None,
    };
    match given {
        Some(field) => {
            let value = arguments.secret_from_stdin()?;
            body.insert(field.to_owned(), json!(value.expose()));
        }
        None => arguments.finish()?,
    }
    let answer = remote.call("PUT", &format!("/api/v2/project/{path}/connection"), Some(body.into()))?;
    let mut said = format!("{slug} is connected to {}\n", text(&answer, "forge"));
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            said.push_str(&format!("  {name}: {value}\n"));
        }
    };
    line("address of the webhook", text(&answer, "address"));
    line("secret of the webhook (shown this once)", text(&answer, "secret"));
    let found = &answer["found"];
    line("default branch", text(found, "default_branch"));
    line("its commit", text(found, "revision"));
    let theirs = text(found, "forge_default_branch");
    if !theirs.is_empty() && theirs != text(found, "default_branch") {
        line(
            "but the forge says",
            &format!(
                "its default branch is `{theirs}` (`runlet admin project set-repository {slug} --default-branch {theirs}`)"
            ),
        );
    }
    line("version of the forge", text(found, "forge_version"));
    line("the forge told nothing of the repository", text(found, "forge_message"));
    match (found["has_config"].as_bool(), text(found, "message")) {
        (Some(true), _) => line("config", "present"),
        (_, why) => line("but", why),
    }
    match answer["poll_seconds"].as_u64() {
        Some(seconds) => line("looks at the refs", &format!("every {seconds} s")),
        None => line("looks at the refs", "never (`--poll 5m` where no webhook gets through)"),
    }
    line("the webhook on the forge", text(&answer, "hook"));
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        line("but", warning.as_str().unwrap_or_default());
    }
    let (whose, anew) = match text(&answer, "token_of") {
        "organization" => ("the token of its organization", "runlet admin forge-token set"),
        _ => ("the token", "--with-token"),
    };
    line(&format!("{whose} is not used any more (`{anew}` sets another)"), text(&answer, "token_message"));
    if answer["token_of"] == json!("organization") {
        line("shows the forge", whose);
    }
    let said = said.trim_end().to_owned();
    if answer["is_hook_set"] == json!(false) {
        let message = format!("{slug} is connected, and its webhook is not set");
        return Ok(VerbAnswer::Partly(said, answer, Failure { code: exit::FAILED, message }));
    }
    Ok(VerbAnswer::Done(said, answer))
}

/// Ends a connection.
pub(super) fn disconnect(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let slug = arguments.word("SLUG")?;
    let path = slug_path(&slug)?;
    arguments.finish()?;
    let answer = remote.call("DELETE", &format!("/api/v2/project/{path}/connection"), None)?;
    Ok(VerbAnswer::Done(format!("{slug} is connected to no forge any more; its webhook is refused"), answer))
}

/// Checks an option that names a delivery.
fn delivery(option: &str, id: String) -> Result<String, Failure> {
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Failure::usage(format!(
            "`--{option} {id}` is not the ID of a delivery, as the list shows it"
        )));
    }
    Ok(id)
}

/// A change of a delivery, and what became of it.
fn change(change: &Value) -> String {
    match text(change, "message") {
        "" => format!("{} {}", text(change, "name"), text(change, "state")),
        why => format!("{} {}: {why}", text(change, "name"), text(change, "state")),
    }
}

/// Lists what came from the forge of a project, or all changes of one delivery, or has one worked off again.
pub(super) fn deliveries(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let slug = arguments.word("SLUG")?;
    let path = format!("/api/v2/project/{}/deliveries", slug_path(&slug)?);
    let replay = arguments.option("replay").map(|id| delivery("replay", id)).transpose()?;
    let all_of = arguments.option("changes").map(|id| delivery("changes", id)).transpose()?;
    arguments.finish()?;
    match (replay, all_of) {
        (Some(_), Some(_)) => {
            return Err(Failure::usage(
                "`--replay` has a delivery worked off again, `--changes` lists what it holds: give one of the two",
            ));
        }
        (Some(id), None) => {
            let answer = remote.call("POST", &format!("{path}/{id}/replay"), None)?;
            return Ok(VerbAnswer::Done(format!("delivery {id} is worked off again"), answer));
        }
        (None, Some(id)) => {
            let items = remote.list(&format!("{path}/{id}/changes"))?;
            let mut table = Table::new(&["WHAT BECAME OF IT"]);
            items.iter().for_each(|item| table.row(&[&change(item)]));
            return Ok(VerbAnswer::List(table, items));
        }
        (None, None) => {}
    }
    let items = remote.list(&path)?;
    let mut table = Table::new(&["ID", "RECEIVED", "FROM", "EVENT", "VERDICT", "WHAT BECAME OF IT"]);
    for item in &items {
        let id = item["id"].to_string();
        let changes = item["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let row = |table: &mut Table, what: &str| {
            let received = text(item, "received_at");
            table.row(&[
                &id,
                received,
                text(item, "source"),
                text(item, "event"),
                text(item, "verdict"),
                what,
            ]);
        };
        let said = text(item, "message");
        if changes.is_empty() || !said.is_empty() {
            row(&mut table, said);
        }
        changes.iter().for_each(|one| row(&mut table, &change(one)));
        let left = item["change_count"].as_u64().unwrap_or_default().saturating_sub(changes.len() as u64);
        if left > 0 {
            let counts = item["changes_by_state"].as_object().into_iter().flatten();
            let counts: Vec<String> = counts.map(|(state, count)| format!("{count} {state}")).collect();
            let counts = counts.join(", ");
            row(&mut table, &format!("and {left} more (in all {counts}): `--changes {id}` lists them"));
        }
    }
    Ok(VerbAnswer::List(table, items))
}

/// Lists what the forge of a project was told of commits, and what it could not be told.
pub(super) fn statuses(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let slug = arguments.word("SLUG")?;
    let path = format!("/api/v2/project/{}/statuses", slug_path(&slug)?);
    arguments.finish()?;
    let items = remote.list(&path)?;
    let mut table = Table::new(&["COMMIT", "STATUS", "STATE", "TOLD", "SINCE", "WHAT IS IN THE WAY"]);
    for item in &items {
        let told = match item["is_due"].as_bool() {
            Some(true) => match item["attempts"].as_u64() {
                Some(1) => "not yet, after 1 try".to_owned(),
                tries => format!("not yet, after {} tries", tries.unwrap_or_default()),
            },
            _ => text(item, "told").to_owned(),
        };
        let revision: String = text(item, "revision").chars().take(10).collect();
        table.row(&[
            &revision,
            text(item, "context"),
            text(item, "state"),
            &told,
            text(item, "since"),
            text(item, "message"),
        ]);
    }
    Ok(VerbAnswer::List(table, items))
}

/// Prints the hook of a plain git server.
pub(super) fn hook(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let slug = arguments.word("SLUG")?;
    let path = slug_path(&slug)?;
    arguments.finish()?;
    let answer = remote.call("GET", &format!("/api/v2/project/{path}/connection"), None)?;
    let forge = text(&answer, "forge");
    if forge != "git" {
        // Deliveries of this hook would be refused as those of another forge.
        return Err(Failure::usage(format!(
            "{slug} is connected to {forge}, which sends its own webhooks: the hook is for a plain git server (`runlet admin project connect {slug} --forge git`)"
        )));
    }
    let script = HOOK.replace("@ADDRESS@", text(&answer, "address")).replace("@REPOSITORY@", &slug);
    Ok(VerbAnswer::Done(script.trim_end().to_owned(), json!({ "script": script })))
}

/// Shows the settings of a project, or changes some.
pub(super) fn settings(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let slug = arguments.word("SLUG")?;
    let path = slug_path(&slug)?;
    let mut changes = Map::new();
    while let Some(word) = arguments.maybe_word() {
        let (name, value) =
            word.split_once('=').ok_or_else(|| Failure::usage(format!("`{word}` is not NAME=VALUE")))?;
        // Text that is no JSON is text; a list is written with commas.
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        changes.insert(name.to_owned(), value);
    }
    arguments.finish()?;
    let project = remote.call("GET", &format!("/api/v2/project/{path}"), None)?;
    let base = format!("/api/v3/projects/{}", text(&project, "id"));
    let answer = if changes.is_empty() {
        remote.call("GET", &format!("{base}/settings"), None)?
    } else {
        let known = remote.call("GET", &format!("{base}/settings"), None)?;
        for (name, value) in &mut changes {
            let is_list = known["data"]["attributes"][name].is_array();
            if let (true, Some(text)) = (is_list, value.as_str()) {
                *value = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
            }
        }
        remote.call("POST", &format!("{base}/update-settings"), Some(changes.into()))?
    };
    let mut table = Table::new(&["SETTING", "VALUE"]);
    for (name, value) in answer["data"]["attributes"].as_object().into_iter().flatten() {
        table.row(&[name, &value.to_string()]);
    }
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        table.row(&["but", warning.as_str().unwrap_or_default()]);
    }
    Ok(VerbAnswer::List(table, vec![answer["data"]["attributes"].clone()]))
}
