//! Access of git to the repository of a project: keys, a login, known hosts. For administrators; secrets go in only.

use crate::protocol::Secret;
use crate::server::api::shared::failure::{Answer, bad};
use crate::server::api::shared::input::{JsonBody, Path};
use crate::server::api::shared::lookup::{Slug, project};
use crate::server::api::shared::vocabulary::time;
use crate::server::api::v2::checkout_keys::{access_of, add, change_access, delete, fresh};
use crate::server::auth::Administrator;
use crate::server::secrets::access::{
    APP_USER, Access, GitLogin, KeyKind, SshKey, check_hosts, check_password, check_token, check_username,
};
use crate::server::secrets::ssh_key::{Pair, fingerprints, read};
use crate::server::state::Shared;
use crate::server::store::read::Project;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new().route("/api/v2/project/{vcs}/{org}/{repo}/access", get(show).put(change))
}

const KNOWN: [&str; 7] =
    ["new_key", "private_key", "delete_key", "token", "username", "is_bearer", "known_hosts"];

fn shown(access: &Access) -> Value {
    let show = |key: &SshKey| {
        let (md5, sha256) = fingerprints(&key.public);
        json!({
            "public_key": key.public, "fingerprint": sha256, "md5": md5, "type": key.kind,
            "created_at": time(Some(key.created_at)),
        })
    };
    let login = access.login.as_ref();
    json!({
        "keys": access.keys.iter().map(show).collect::<Vec<_>>(), "known_hosts": access.known_hosts,
        "has_token": login.is_some(), "username": login.map(|login| &login.username),
        "is_bearer": login.is_some_and(|login| login.is_bearer),
    })
}

async fn show(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(slug): Path<Slug>,
) -> Answer<Json<Value>> {
    let project = project(&state, slug).await?;
    Ok(Json(shown(&access_of(&state, &project).await?)))
}

/// The name that goes with a token where none is given: some forges mind it.
fn usual_username(slug: &str) -> &'static str {
    if slug.starts_with("bb/") { "x-token-auth" } else { APP_USER }
}

/// Wishes for the access; parts that are absent stay as they are.
#[derive(Default)]
struct Wanted {
    key: Option<Pair>,
    deleted: Option<String>,
    /// The inner nothing takes the login away.
    login: Option<Option<GitLogin>>,
    known_hosts: Option<String>,
}

fn wanted(body: &JsonBody, project: &Project) -> Answer<Wanted> {
    let slug = &project.slug;
    let Some(fields) = body.0.as_object() else { return Err(bad("the body must be an object")) };
    body.check_names("access", &KNOWN)?;
    let mut wanted =
        Wanted { deleted: body.optional_text("delete_key")?.map(str::to_owned), ..Wanted::default() };
    if body.is_set("new_key")? {
        wanted.key = Some(fresh(project)?);
    }
    if let Some(text) = body.optional_text("private_key")? {
        if wanted.key.is_some() {
            return Err(bad("`new_key` and `private_key` exclude each other: give one of them"));
        }
        let pair = read(text, &format!("runlet {slug}"));
        wanted.key = Some(pair.map_err(|why| bad(format!("`private_key` cannot be used: {why}")))?);
    }
    if let Some(token) = body.optional_text("token")?.map(str::trim) {
        let username = body.optional_text("username")?.unwrap_or(usual_username(slug));
        let is_bearer = body.is_set("is_bearer")?;
        check_username(username).map_err(|why| bad(format!("`username` cannot be used: {why}")))?;
        wanted.login = Some(None);
        if !token.is_empty() {
            // A bearer token stands in a header, and in a file in git's own syntax; a password in a line of its own.
            let checked = if is_bearer { check_token(token) } else { check_password(token) };
            checked.map_err(|why| bad(format!("`token` cannot be used: {why}")))?;
            let login = GitLogin { username: username.to_owned(), token: Secret::new(token), is_bearer };
            wanted.login = Some(Some(login));
        }
    } else if fields.contains_key("username") || fields.contains_key("is_bearer") {
        return Err(bad("`username` and `is_bearer` go with a `token`"));
    }
    if let Some(hosts) = body.optional_text("known_hosts")? {
        check_hosts(hosts).map_err(|why| bad(format!("`known_hosts` cannot be used: {why}")))?;
        wanted.known_hosts = Some(hosts.to_owned());
    }
    Ok(wanted)
}

async fn change(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(slug): Path<Slug>,
    body: JsonBody,
) -> Answer<Json<Value>> {
    let project = project(&state, slug).await?;
    let wanted = wanted(&body, &project)?;
    let slug = project.slug.clone();
    let change = move |access: &mut Access| {
        if let Some(fingerprint) = &wanted.deleted {
            delete(access, fingerprint, &slug)?;
        }
        if let Some(pair) = wanted.key {
            add(access, KeyKind::DeployKey, pair)?;
        }
        if let Some(login) = wanted.login {
            access.login = login;
        }
        if let Some(hosts) = wanted.known_hosts {
            access.known_hosts = hosts;
        }
        Ok(())
    };
    Ok(Json(shown(&change_access(&state, &project, change).await?)))
}
