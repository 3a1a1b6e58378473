//! Access of git to the repository of a project.

use super::arguments::Arguments;
use super::remote::{Remote, slug_path};
use super::verb::{VerbAnswer, text};
use crate::outcome::Failure;
use serde_json::{Map, Value, json};

/// Shows what lets git into the repository of a project, or changes it.
pub(super) fn access(arguments: &mut Arguments, remote: &Remote) -> Result<VerbAnswer, Failure> {
    let slug = arguments.word("SLUG")?;
    let path = format!("/api/v2/project/{}/access", slug_path(&slug)?);
    let mut body = Map::new();
    body.extend(arguments.option("delete-key").map(|key| ("delete_key".to_owned(), json!(key))));
    if arguments.flag("new-key") {
        body.insert("new_key".to_owned(), json!(true));
    }
    if arguments.flag("delete-token") {
        body.insert("token".to_owned(), json!(""));
    }
    let given = [("with-key", "private_key"), ("with-token", "token"), ("with-known-hosts", "known_hosts")];
    let given: Vec<&str> =
        given.iter().filter(|(flag, _)| arguments.flag(flag)).map(|(_, field)| *field).collect();
    if given.contains(&"token") {
        body.extend(arguments.option("username").map(|name| ("username".to_owned(), json!(name))));
        if arguments.flag("bearer") {
            body.insert("is_bearer".to_owned(), json!(true));
        }
    }
    match given.as_slice() {
        [] => arguments.finish()?,
        [field] => {
            let value = arguments.secret_from_stdin()?;
            body.insert((*field).to_owned(), json!(value.expose()));
        }
        _ => {
            return Err(Failure::usage(
                "standard input is one thing: give one of `--with-key`, `--with-token` and `--with-known-hosts`",
            ));
        }
    }
    let answer = match body.is_empty() {
        true => remote.call("GET", &path, None)?,
        false => remote.call("PUT", &path, Some(body.into()))?,
    };
    Ok(VerbAnswer::Done(said(&slug, &answer), answer))
}

fn said(slug: &str, answer: &Value) -> String {
    let mut said = format!("git gets into the repository of {slug}");
    let keys = answer["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    for key in keys {
        said.push_str(&format!(
            "\n  by the key {} ({})\n    {}",
            text(key, "fingerprint"),
            text(key, "md5"),
            text(key, "public_key")
        ));
    }
    if answer["has_token"] == true {
        said.push_str(&match answer["is_bearer"] == true {
            true => "\n  by a bearer token".to_owned(),
            false => format!("\n  by a token, as `{}`", text(answer, "username")),
        });
    }
    if keys.is_empty() && answer["has_token"] != true {
        said.push_str(" by what the hosts have themselves");
    }
    let hosts = text(answer, "known_hosts").lines().count();
    if hosts > 0 {
        said.push_str(&format!("\n  with {hosts} lines of known hosts"));
    }
    said
}
