//! Contexts, their variables and their restrictions (v2). Values go in and never come out.

use crate::config;
use crate::protocol::Secret;
use crate::server::api::shared::input::{
    Body, Words, bad, conflict, message, organisation, page, project_by_slug,
};
use crate::server::api::shared::slug::short_vcs;
use crate::server::api::{Administrator, Answer, Failure, Person};
use crate::server::secrets::contexts::{self, Context, Full, Kind, Restriction};
use crate::server::secrets::variables::{self, Shown};
use crate::server::state::{Shared, now_ms, timestamp};
use crate::server::store::{Error, View};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, put};
use axum::{Json, Router};
use rusqlite::OptionalExtension;
use serde_json::{Value, json};

/// The paths.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v2/context", get(list).post(create))
        .route("/api/v2/context/{id}", get(one).delete(remove))
        .route("/api/v2/context/{id}/environment-variable", get(list_variables))
        .route("/api/v2/context/{id}/environment-variable/{name}", put(set_variable).delete(remove_variable))
        .route("/api/v2/context/{id}/restrictions", get(list_restrictions).post(restrict))
        .route("/api/v2/context/{id}/restrictions/{restriction}", delete(unrestrict))
}

fn shown(context: &Context) -> Value {
    json!({ "id": context.id, "name": context.name, "created_at": timestamp(context.created_at_ms) })
}

fn shown_variable(context: &str, variable: &Shown) -> Value {
    json!({
        "variable": variable.name, "truncated_value": variable.hint, "context_id": context,
        "created_at": timestamp(variable.created_at_ms), "updated_at": timestamp(variable.updated_at_ms),
    })
}

/// With the name of what it names, where that is a project.
fn shown_restriction(c: &View, context: &str, restriction: &Restriction) -> Result<Value, Error> {
    let mut item = json!({
        "id": restriction.id, "context_id": context, "restriction_type": restriction.kind.as_str(),
        "restriction_value": restriction.value,
    });
    if restriction.kind == Kind::Project {
        let name: Option<String> = c
            .prepare_cached("SELECT vcs || '/' || org || '/' || repo FROM projects WHERE id = ?1")?
            .query_row([&restriction.value], |row| row.get(0))
            .optional()?;
        item["project_id"] = json!(restriction.value);
        item["name"] = json!(name);
    }
    Ok(item)
}

fn missing(id: &str) -> Failure {
    Failure::not_found(format!("there is no context with the id `{id}`"))
}

/// The context, or 404.
async fn context(state: &Shared, id: &str) -> Answer<Context> {
    let key = id.to_owned();
    state.store.read(move |c| contexts::get(c, &key)).await?.ok_or_else(|| missing(id))
}

async fn list(State(state): State<Shared>, _person: Person, words: Words) -> Answer<Json<Value>> {
    let word = |name: &str| words.get(name).map(String::as_str);
    let owner = organisation(&state, word("owner-id"), word("owner-slug")).await?;
    let part = word("name").unwrap_or_default().to_owned();
    let all = state.store.read(move |c| contexts::list(c, &owner)).await?;
    let items = all.iter().filter(|context| context.name.contains(&part));
    page(items.map(|context| (context.name.clone(), shown(context))).collect(), &words)
}

async fn create(State(state): State<Shared>, _admin: Administrator, body: Body) -> Answer<Json<Value>> {
    let name = body.text("name")?.to_owned();
    contexts::check_name(&name).map_err(bad)?;
    let owner = &body.0["owner"];
    let owner = organisation(&state, owner["id"].as_str(), owner["slug"].as_str()).await?;
    let wanted = name.clone();
    let made = state.store.write(move |tx| contexts::create(tx, &owner, &wanted, now_ms())).await?;
    made.map(|context| Json(shown(&context))).map_err(|full| match full {
        Full::Exists => conflict(format!("there is a context `{name}` already")),
        Full::TooMany(most) => conflict(format!("the organisation has {most} contexts, which is the limit")),
    })
}

async fn one(State(state): State<Shared>, _person: Person, Path(id): Path<String>) -> Answer<Json<Value>> {
    let context = context(&state, &id).await?;
    let mut answer = shown(&context);
    answer["org_id"] = json!(context.organisation);
    let (variables, restrictions) = state
        .store
        .read(move |c| {
            let variables: Vec<Value> =
                contexts::variables(c, &id)?.iter().map(|variable| shown_variable(&id, variable)).collect();
            let all = contexts::restrictions(c, &id)?;
            let restrictions: Result<Vec<Value>, Error> =
                all.iter().map(|restriction| shown_restriction(c, &id, restriction)).collect();
            Ok((variables, restrictions?))
        })
        .await?;
    answer["environment_variables"] = json!(variables);
    answer["restrictions"] = json!(restrictions);
    Ok(Json(answer))
}

async fn remove(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let what = missing(&id);
    let removed = state.store.write(move |tx| contexts::delete(tx, &id)).await?;
    if removed { Ok(message("Context deleted.")) } else { Err(what) }
}

async fn list_variables(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
    words: Words,
) -> Answer<Json<Value>> {
    context(&state, &id).await?;
    let key = id.clone();
    let all = state.store.read(move |c| contexts::variables(c, &key)).await?;
    page(all.into_iter().map(|v| (v.name.clone(), shown_variable(&id, &v))).collect(), &words)
}

async fn set_variable(
    State(state): State<Shared>,
    _admin: Administrator,
    Path((id, name)): Path<(String, String)>,
    body: Body,
) -> Answer<Json<Value>> {
    let value = Secret::new(body.text("value")?);
    variables::check_name(&name).and_then(|()| variables::check_value(value.expose())).map_err(bad)?;
    context(&state, &id).await?;
    let (sealer, key) = (state.settings.sealer.clone(), id.clone());
    let stored = state
        .store
        .write(move |tx| {
            // It may have been removed since the look above.
            if contexts::get(tx, &key)?.is_none() {
                return Ok(None);
            }
            contexts::set_variable(tx, &sealer, &key, &name, &value, now_ms()).map(Some)
        })
        .await?;
    match stored {
        Some(Ok(variable)) => Ok(Json(shown_variable(&id, &variable))),
        Some(Err(_)) => {
            let most = contexts::MOST_VARIABLES;
            Err(conflict(format!("the context has {most} variables, which is the limit")))
        }
        None => Err(missing(&id)),
    }
}

async fn remove_variable(
    State(state): State<Shared>,
    _admin: Administrator,
    Path((id, name)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    let context = context(&state, &id).await?;
    let what = Failure::not_found(format!("the context `{}` has no variable `{name}`", context.name));
    let removed = state.store.write(move |tx| contexts::delete_variable(tx, &id, &name)).await?;
    if removed { Ok(message("Environment variable deleted.")) } else { Err(what) }
}

async fn list_restrictions(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
    words: Words,
) -> Answer<Json<Value>> {
    context(&state, &id).await?;
    let read = move |c: &View| {
        let all = contexts::restrictions(c, &id)?;
        let items: Result<Vec<_>, Error> =
            all.iter().map(|r| Ok((r.id.clone(), shown_restriction(c, &id, r)?))).collect();
        items
    };
    let mut items = state.store.read(read).await?;
    items.sort_by(|a, b| a.0.cmp(&b.0));
    page(items, &words)
}

async fn restrict(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(id): Path<String>,
    body: Body,
) -> Answer<Response> {
    let organisation = context(&state, &id).await?.organisation;
    let text = body.text("restriction_type")?;
    let kind = Kind::parse(text).ok_or_else(|| {
        bad(format!("`{text}` is no kind of restriction (known: project, expression, group)"))
    })?;
    let value = body.text("restriction_value")?.trim().to_owned();
    match kind {
        Kind::Expression => config::check_rule(&value).map_err(|why| bad(format!("not a rule: {why}")))?,
        Kind::Project | Kind::Group if value.is_empty() || value.len() > 300 => {
            return Err(bad("`restriction_value` must be the id of what the context is restricted to"));
        }
        _ => {}
    }
    let stored = state
        .store
        .write(move |tx| {
            if contexts::get(tx, &id)?.is_none() {
                return Ok(Err(missing(&id)));
            }
            let value = match kind {
                Kind::Project => match project_id(tx, &organisation, &value)? {
                    Some(project) => project,
                    None => return Ok(Err(bad(format!("the organisation has no project `{value}`")))),
                },
                _ => value,
            };
            Ok(match contexts::restrict(tx, &id, kind, &value)? {
                Ok(restriction) => Ok(shown_restriction(tx, &id, &restriction)?),
                Err(_) => {
                    let most = contexts::MOST_RESTRICTIONS;
                    Err(conflict(format!("the context has {most} restrictions, which is the limit")))
                }
            })
        })
        .await??;
    Ok((StatusCode::CREATED, Json(stored)).into_response())
}

/// A project of the organisation by id or slug.
fn project_id(c: &View, organisation: &str, named: &str) -> Result<Option<String>, Error> {
    let found: Option<String> = match named.split_once('/') {
        Some((vcs, rest)) => project_by_slug(c, &format!("{}/{rest}", short_vcs(vcs)))?
            .filter(|project| project.organisation == organisation)
            .map(|project| project.id),
        None => c
            .prepare_cached("SELECT id FROM projects WHERE id = ?1 AND organisation_id = ?2")?
            .query_row([named, organisation], |row| row.get(0))
            .optional()?,
    };
    Ok(found)
}

async fn unrestrict(
    State(state): State<Shared>,
    _admin: Administrator,
    Path((id, restriction)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    context(&state, &id).await?;
    let what = Failure::not_found(format!("the context has no restriction with the id `{restriction}`"));
    let removed = state.store.write(move |tx| contexts::unrestrict(tx, &id, &restriction)).await?;
    if removed { Ok(message("Context restriction deleted.")) } else { Err(what) }
}
