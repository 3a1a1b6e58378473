//! Tokens of organisations for the forge that their projects are at, for administrators; tokens go in only.

use crate::protocol::Secret;
use crate::server::api::ours::connections::{check_api, token_of, usual_api, usual_forge};
use crate::server::api::shared::failure::{Answer, ApiError, bad};
use crate::server::api::shared::input::{JsonBody, Path, message};
use crate::server::api::shared::lookup::organisation;
use crate::server::api::shared::vocabulary::time;
use crate::server::auth::Administrator;
use crate::server::ids::OrganisationId;
use crate::server::secrets::access::{APP_USER, check_token, check_username};
use crate::server::secrets::tokens::{self, NewToken};
use crate::server::state::Shared;
use crate::server::store::forge_states::Forge;
use crate::server::store::read::{self, Project};
use crate::server::store::tables::tokens::{self as table, SealedToken};
use crate::server::store::tables::{forge, reports};
use crate::server::store::{Effect, Error as StoreError, Tx, View};
use crate::server::time::Millis;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v2/organization/{vcs}/{org}/forge-token", get(show).put(set).delete(delete))
        .route("/api/v3/forge-tokens", get(list))
}

const KNOWN: [&str; 5] = ["forge", "api_url", "token", "username", "for_jobs"];

fn shown(token: &SealedToken, slug: &str) -> Value {
    json!({
        "organization": slug, "forge": token.forge, "api_url": token.api_url, "username": token.username,
        "for_jobs": token.is_for_jobs, "updated_at": time(Some(token.updated_at)),
    })
}

/// The credential that a project of the organisation goes by, and why it is not the token where it is none.
fn shown_project(view: &View, project: &Project, token: &SealedToken) -> Result<Value, StoreError> {
    let connection = forge::connection(view, &project.id)?;
    let by = token_of(view, &project.id)?;
    let why = match (&connection, by) {
        (None, _) => Some("it is connected to no forge".to_owned()),
        (Some(connection), _) if connection.forge != token.forge => {
            Some(format!("it is connected to {}", connection.forge))
        }
        (Some(connection), _) if connection.api_url.as_ref() != Some(&token.api_url) => {
            let api = connection.api_url.as_deref().unwrap_or("no address");
            Some(format!("the API of its forge is at {api}"))
        }
        (Some(connection), _) => connection.token_message.clone(),
    };
    Ok(json!({ "slug": project.slug, "goes_by": by, "message": why }))
}

async fn named(state: &Shared, (vcs, org): (String, String)) -> Answer<(OrganisationId, String)> {
    let slug = format!("{vcs}/{org}");
    Ok((organisation(state, None, Some(&slug)).await?, slug))
}

async fn show(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(path): Path<(String, String)>,
) -> Answer<Json<Value>> {
    let of = named(&state, path).await?;
    found(&state, of).await
}

/// The token of an organisation, and the projects that go by it or by something else.
async fn found(state: &Shared, (id, slug): (OrganisationId, String)) -> Answer<Json<Value>> {
    let none = format!(
        "`{slug}` has no token for its forge: `runlet admin forge-token set {slug}` reads one from standard input"
    );
    let sealer = state.settings.sealer.clone();
    let read = move |view: &View| {
        let Some(token) = table::of_organisation(view, &id)? else { return Ok(None) };
        let projects = read::projects_of(view, &id, None)?;
        let projects = projects.iter().map(|project| shown_project(view, project, &token));
        let mut shown = shown(&token, &slug);
        shown["projects"] = projects.collect::<Result<Vec<_>, StoreError>>()?.into();
        if let Err(why) = tokens::open(&sealer, &token) {
            shown["message"] = json!(format!("it cannot be opened: {why}; set it anew"));
        }
        Ok(Some(shown))
    };
    state.store.read(read).await?.map(Json).ok_or_else(|| ApiError::not_found(none))
}

async fn list(State(state): State<Shared>, Administrator(_): Administrator) -> Answer<Json<Value>> {
    let read = |view: &View| {
        let mut items = Vec::new();
        for token in table::list_all(view)? {
            let owner = read::organisation(view, &token.organisation)?;
            let slug = owner.map(|owner| format!("{}/{}", owner.vcs, owner.name)).unwrap_or_default();
            let mut item = shown(&token, &slug);
            let mut count = 0;
            for project in read::projects_of(view, &token.organisation, None)? {
                count += u32::from(token_of(view, &project.id)? == Some("organization"));
            }
            item["project_count"] = json!(count);
            items.push(item);
        }
        Ok(items)
    };
    Ok(Json(json!({ "items": state.store.read(read).await?, "next_page_token": null })))
}

fn wanted(body: &JsonBody, organisation: OrganisationId, slug: &str) -> Answer<NewToken> {
    if !body.0.is_object() {
        return Err(bad("the body must be an object"));
    }
    body.check_names("a token", &KNOWN)?;
    let known = || Forge::ALL.map(Forge::as_str).join(", ");
    let forge = match body.optional_text("forge")? {
        Some(word) => Forge::parse(word)
            .ok_or_else(|| bad(format!("`{word}` is no forge that is known here (known: {})", known())))?,
        None => usual_forge(slug)
            .ok_or_else(|| bad(format!("say which forge the projects of `{slug}` are on: {}", known())))?,
    };
    if forge == Forge::Git {
        return Err(bad("a plain git server has no API that a token would be for"));
    }
    let api_url = match body.optional_text("api_url")? {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => usual_api(forge).ok_or_else(|| {
            bad(format!("say where the API of the {forge} is that the token is for (`api_url`): it is shown nowhere else"))
        })?,
    };
    check_api(&api_url)?;
    let usual = if forge == Forge::BitbucketCloud { "x-token-auth" } else { APP_USER };
    let username = body.optional_text("username")?.unwrap_or(usual);
    check_username(username).map_err(|why| bad(format!("`username` cannot be used: {why}")))?;
    let token = body.text("token")?.trim();
    check_token(token).map_err(|why| bad(format!("`token` cannot be used: {why}")))?;
    Ok(NewToken {
        organisation,
        forge,
        api_url,
        username: username.to_owned(),
        is_for_jobs: body.is_set("for_jobs")?,
        token: Secret::new(token),
    })
}

async fn set(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(path): Path<(String, String)>,
    body: JsonBody,
) -> Answer<Json<Value>> {
    let (id, slug) = named(&state, path).await?;
    let new = wanted(&body, id.clone(), &slug)?;
    let (sealer, of) = (state.settings.sealer.clone(), id.clone());
    let write = move |tx: &Tx<'_>| {
        let now = Millis::now();
        tokens::keep(tx, &sealer, new, now)?;
        changed(tx, &of, now)
    };
    state.store.write(write).await?;
    found(&state, (id, slug)).await
}

/// Messages and looks that wait for a token of an organisation are tried again at once.
fn changed(tx: &Tx<'_>, organisation: &OrganisationId, now: Millis) -> Result<(), StoreError> {
    table::forget_messages(tx, organisation)?;
    for project in read::projects_of(tx, organisation, None)? {
        if forge::secret(tx, &project.id, "token")?.is_none() {
            reports::hurry(tx, &project.id, now)?;
        }
    }
    tx.effect(Effect::Connected);
    Ok(())
}

async fn delete(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(path): Path<(String, String)>,
) -> Answer<Json<Value>> {
    let (id, slug) = named(&state, path).await?;
    let write = move |tx: &Tx<'_>| {
        let is_deleted = table::delete(tx, &id)?;
        if is_deleted {
            changed(tx, &id, Millis::now())?;
        }
        Ok(is_deleted)
    };
    if state.store.write(write).await? {
        return Ok(message("Deleted."));
    }
    Err(ApiError::not_found(format!("`{slug}` has no token for its forge")))
}
