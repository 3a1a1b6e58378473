//! Webhooks that tell others of ended workflows and jobs (v2). Changing them is for administrators.

use crate::http::caller::check_way;
use crate::protocol::Secret;
use crate::server::api::shared::failure::{Answer, ApiError, bad, conflict};
use crate::server::api::shared::input::{JsonBody, Path, QueryWords, message};
use crate::server::api::shared::lookup::{one, project_by_id};
use crate::server::api::shared::paging::{page, whole};
use crate::server::auth::Administrator;
use crate::server::ids::{ProjectId, WebhookId};
use crate::server::pipelines::forge::outgoing::secret_name;
use crate::server::secrets::forge as secrets;
use crate::server::secrets::sealer::{Sealer, hint};
use crate::server::state::Shared;
use crate::server::store::tables::forge;
use crate::server::store::tables::webhooks::{self, Webhook, WebhookCall};
use crate::server::store::{Error as StoreError, Tx, View};
use crate::server::time::Millis;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// Webhooks of one project.
const MOST: usize = 5;
/// Calls that are shown of a webhook.
const MOST_CALLS: u32 = 50;
const EVENTS: [&str; 2] = ["workflow-completed", "job-completed"];
/// Longest signing secret, in bytes.
const MOST_SECRET_BYTES: usize = 1024;

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v2/webhook", get(list).post(create))
        .route("/api/v2/webhook/{id}", get(one_of).put(change).delete(remove))
        .route("/api/v2/webhook/{id}/deliveries", get(calls))
}

fn shown(webhook: &Webhook, secret: Option<&Secret>) -> Value {
    let (created, updated) = (webhook.created_at.to_string(), webhook.updated_at.to_string());
    // The published schema has one spelling, a client the other.
    json!({
        "id": webhook.id, "name": webhook.name, "url": webhook.url, "events": webhook.events, "verify-tls": true,
        "signing-secret": secret.map(hint).unwrap_or_default(),
        "scope": { "id": webhook.project, "type": "project" },
        "created-at": created, "created_at": created, "updated-at": updated, "updated_at": updated,
    })
}

fn secret_of(view: &View, sealer: &Sealer, webhook: &Webhook) -> Result<Option<Secret>, StoreError> {
    Ok(secrets::open(view, sealer, &webhook.project, &secret_name(&webhook.id))?.and_then(Result::ok))
}

async fn list(State(state): State<Shared>, _admin: Administrator, words: QueryWords) -> Answer<Json<Value>> {
    let word = |name: &str| words.get(name).filter(|word| !word.is_empty());
    if word("scope-type").is_some_and(|kind| kind != "project") {
        return Err(bad("`scope-type` is `project`: webhooks belong to projects"));
    }
    let id = word("scope-id").ok_or_else(|| bad("`scope-id` is missing: the id of a project"))?;
    let project = project_by_id(&state, ProjectId::from(id.as_str())).await?;
    let sealer = state.settings.sealer.clone();
    let read = move |view: &View| {
        let all = webhooks::list(view, &project.id)?;
        all.iter().map(|hook| Ok(shown(hook, secret_of(view, &sealer, hook)?.as_ref()))).collect()
    };
    let items: Vec<Value> = state.store.read(read).await?;
    page(items.into_iter().enumerate().map(|(at, item)| (format!("{at:04}"), item)).collect(), &words)
}

/// Names in a body. Clients send back what they were shown, in both of its spellings.
const KNOWN: [&str; 11] = [
    "name",
    "url",
    "events",
    "verify-tls",
    "signing-secret",
    "scope",
    "id",
    "created-at",
    "created_at",
    "updated-at",
    "updated_at",
];

/// Reads a webhook from a body; parts without a name in it stay.
fn described(body: &JsonBody, was: Webhook) -> Answer<(Webhook, Option<Secret>)> {
    let mut webhook = was;
    if !body.0.is_object() {
        return Err(bad("the body must be an object"));
    }
    body.check_names("a webhook", &KNOWN)?;
    if let Some(name) = body.optional_text("name")? {
        if name.trim().is_empty() || name.chars().count() > 200 || name.chars().any(char::is_control) {
            return Err(bad("`name` has 1 to 200 visible characters"));
        }
        webhook.name = name.to_owned();
    }
    if let Some(url) = body.optional_text("url")? {
        webhook.url = checked(url)?;
    }
    match body.0.get("events") {
        None | Some(Value::Null) => {}
        Some(given) => {
            let named: Option<Vec<String>> = given
                .as_array()
                .and_then(|all| all.iter().map(|one| one.as_str().map(str::to_owned)).collect());
            let named =
                named.filter(|all| !all.is_empty() && all.iter().all(|one| EVENTS.contains(&one.as_str())));
            webhook.events =
                named.ok_or_else(|| bad(format!("`events` is a list of {}", EVENTS.join(", "))))?;
        }
    }
    if body.0.get("verify-tls").is_some_and(|given| *given != true) {
        return Err(bad(
            "`verify-tls` is true: certificates are always checked here; have the host of the control plane trust the authority",
        ));
    }
    let secret = body.optional_text("signing-secret")?;
    if secret.is_some_and(|secret| secret.len() > MOST_SECRET_BYTES || secret.contains('\0')) {
        return Err(bad(format!("`signing-secret` has at most {MOST_SECRET_BYTES} bytes")));
    }
    Ok((webhook, secret.map(Secret::new)))
}

fn checked(url: &str) -> Answer<String> {
    let good = url.len() <= 2000
        && (url.starts_with("https://") || url.starts_with("http://"))
        && !url.bytes().any(|b| b <= b' ' || b == 0x7f);
    let authority =
        url.split("://").nth(1).and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if !good || authority.is_empty() || authority.contains('@') {
        return Err(bad("`url` is not an address that can be called: https://HOST/PATH, without a login"));
    }
    check_way(url).map_err(|why| bad(format!("`url` is not an address that can be called: {why}")))?;
    Ok(url.to_owned())
}

/// Stores a webhook and its secret; an empty secret removes the one that it had.
fn store(tx: &Tx<'_>, sealer: &Sealer, webhook: &Webhook, secret: Option<&Secret>) -> Result<(), StoreError> {
    webhooks::set(tx, webhook)?;
    let name = secret_name(&webhook.id);
    match secret {
        None => {}
        Some(secret) if secret.expose().is_empty() => {
            forge::delete_secret(tx, &webhook.project, &name)?;
        }
        Some(secret) => secrets::keep(tx, sealer, &webhook.project, &name, secret, webhook.updated_at)?,
    }
    Ok(())
}

async fn create(State(state): State<Shared>, _admin: Administrator, body: JsonBody) -> Answer<Response> {
    body.check_names("a webhook", &KNOWN)?;
    for needed in ["name", "url", "events", "scope"] {
        if body.0[needed].is_null() {
            return Err(bad(format!("`{needed}` is missing")));
        }
    }
    if body.0["scope"]["type"].as_str().unwrap_or("project") != "project" {
        return Err(bad("`scope.type` is `project`: webhooks belong to projects"));
    }
    let scope = body.0["scope"]["id"].as_str().ok_or_else(|| bad("`scope.id` is the id of a project"))?;
    let project = project_by_id(&state, ProjectId::from(scope)).await?;
    let now = Millis::now();
    let fresh = Webhook {
        id: WebhookId::fresh(),
        project: project.id,
        name: String::new(),
        url: String::new(),
        events: Vec::new(),
        created_at: now,
        updated_at: now,
    };
    let (webhook, secret) = described(&body, fresh)?;
    let answer = shown(&webhook, secret.as_ref());
    let sealer = state.settings.sealer.clone();
    let write = move |tx: &Tx<'_>| {
        if webhooks::list(tx, &webhook.project)?.len() >= MOST {
            return Ok(false);
        }
        store(tx, &sealer, &webhook, secret.as_ref()).map(|()| true)
    };
    if !state.store.write(write).await? {
        return Err(conflict(format!("a project has at most {MOST} webhooks: delete one first")));
    }
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

async fn find(state: &Shared, id: WebhookId) -> Answer<Webhook> {
    one(state, format!("there is no webhook `{id}`"), move |view| webhooks::find(view, &id)).await
}

async fn one_of(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(id): Path<WebhookId>,
) -> Answer<Json<Value>> {
    let (webhook, sealer) = (find(&state, id).await?, state.settings.sealer.clone());
    let read = move |view: &View| Ok(shown(&webhook, secret_of(view, &sealer, &webhook)?.as_ref()));
    Ok(Json(state.store.read(read).await?))
}

async fn change(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(id): Path<WebhookId>,
    body: JsonBody,
) -> Answer<Json<Value>> {
    let was = find(&state, id).await?;
    let (mut webhook, secret) = described(&body, was)?;
    webhook.updated_at = Millis::now();
    let sealer = state.settings.sealer.clone();
    let write = move |tx: &Tx<'_>| {
        store(tx, &sealer, &webhook, secret.as_ref())?;
        Ok(shown(&webhook, secret_of(tx, &sealer, &webhook)?.as_ref()))
    };
    Ok(Json(state.store.write(write).await?))
}

async fn remove(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(id): Path<WebhookId>,
) -> Answer<Json<Value>> {
    let webhook = find(&state, id).await?;
    let write = move |tx: &Tx<'_>| {
        forge::delete_secret(tx, &webhook.project, &secret_name(&webhook.id))?;
        webhooks::delete(tx, &webhook.id)
    };
    if state.store.write(write).await? {
        return Ok(message("Webhook deleted."));
    }
    Err(ApiError::not_found("the webhook was deleted meanwhile"))
}

fn shown_call(call: &WebhookCall) -> Value {
    json!({
        "id": call.id, "type": call.event, "happened_at": call.at.to_string(), "state": call.state,
        "attempts": call.attempts, "message": call.message,
    })
}

async fn calls(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(id): Path<WebhookId>,
) -> Answer<Json<Value>> {
    let webhook = find(&state, id).await?;
    let listed = state.store.read(move |view| webhooks::calls_of(view, &webhook.id, MOST_CALLS)).await?;
    Ok(whole(listed.iter().map(shown_call).collect()))
}
