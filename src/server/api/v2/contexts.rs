//! Contexts, their variables and their restrictions (v2). Values go in and never come out.

use crate::config;
use crate::protocol::Secret;
use crate::server::api::shared::failure::{Answer, ApiError, bad, conflict};
use crate::server::api::shared::input::{JsonBody, Path, QueryWords, check_names, message};
use crate::server::api::shared::lookup::organisation;
use crate::server::api::shared::paging::page;
use crate::server::api::shared::slug::short_vcs;
use crate::server::auth::{Administrator, Person};
use crate::server::ids::{ContextId, OrganisationId, ProjectId, RestrictionId};
use crate::server::secrets::contexts::{self, Full};
use crate::server::secrets::variables;
use crate::server::state::Shared;
use crate::server::store::read;
use crate::server::store::status::RestrictionKind;
use crate::server::store::tables::contexts::{self as table, Context, Restriction};
use crate::server::store::tables::variables::{self as variables_table, ShownVariable};
use crate::server::store::{Error, View};
use crate::server::time::Millis;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, put};
use axum::{Json, Router};
use serde_json::{Value, json};

/// Serves the paths of this file.
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
    json!({ "id": context.id, "name": context.name, "created_at": context.created_at.to_string() })
}

fn shown_variable(context: &ContextId, variable: &ShownVariable) -> Value {
    json!({
        "variable": variable.name, "truncated_value": variable.hint, "context_id": context,
        "created_at": variable.created_at.to_string(), "updated_at": variable.updated_at.to_string(),
    })
}

/// Shows a restriction; one to a project with the project's slug.
fn shown_restriction(c: &View, context: &ContextId, restriction: &Restriction) -> Result<Value, Error> {
    let mut item = json!({
        "id": restriction.id, "context_id": context, "restriction_type": restriction.kind,
        "restriction_value": restriction.value,
    });
    if restriction.kind == RestrictionKind::Project {
        let name = read::project_slug(c, &ProjectId::from(&*restriction.value))?;
        item["project_id"] = json!(restriction.value);
        item["name"] = json!(name);
    }
    Ok(item)
}

fn missing(id: &ContextId) -> ApiError {
    ApiError::not_found(format!("there is no context with the id `{id}`"))
}

/// Finds a context, or answers 404.
async fn context(state: &Shared, id: &ContextId) -> Answer<Context> {
    let key = id.clone();
    state.store.read(move |c| table::find_context(c, &key)).await?.ok_or_else(|| missing(id))
}

async fn list(State(state): State<Shared>, _person: Person, words: QueryWords) -> Answer<Json<Value>> {
    let word = |name: &str| words.get(name).map(String::as_str);
    let owner = organisation(&state, word("owner-id"), word("owner-slug")).await?;
    let part = word("name").unwrap_or_default().to_owned();
    let all = state.store.read(move |c| table::list_contexts(c, &owner)).await?;
    let items = all.iter().filter(|context| context.name.contains(&part));
    page(items.map(|context| (context.name.clone(), shown(context))).collect(), &words)
}

async fn create(State(state): State<Shared>, _admin: Administrator, body: JsonBody) -> Answer<Json<Value>> {
    let name = body.text("name")?.to_owned();
    contexts::check_name(&name).map_err(bad)?;
    body.check_names("a context", &["name", "owner"])?;
    let owner = &body.0["owner"];
    check_names(owner, "`owner`", &["id", "slug", "type"])?;
    let owner = organisation(&state, owner["id"].as_str(), owner["slug"].as_str()).await?;
    let wanted = name.clone();
    let made = state.store.write(move |tx| contexts::create(tx, &owner, &wanted, Millis::now())).await?;
    made.map(|context| Json(shown(&context))).map_err(|full| match full {
        Full::Exists => conflict(format!("there is a context `{name}` already")),
        Full::TooMany(most) => conflict(format!("the organisation has {most} contexts, which is the limit")),
    })
}

async fn one(State(state): State<Shared>, _person: Person, Path(id): Path<ContextId>) -> Answer<Json<Value>> {
    let context = context(&state, &id).await?;
    let mut answer = shown(&context);
    answer["org_id"] = json!(context.organisation);
    let (variables, restrictions) = state
        .store
        .read(move |c| {
            let variables: Vec<Value> = variables_table::list_of_context(c, &id)?
                .iter()
                .map(|variable| shown_variable(&id, variable))
                .collect();
            let all = table::list_restrictions(c, &id)?;
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
    Path(id): Path<ContextId>,
) -> Answer<Json<Value>> {
    let what = missing(&id);
    let removed = state.store.write(move |tx| table::delete_context(tx, &id)).await?;
    if removed { Ok(message("Context deleted.")) } else { Err(what) }
}

async fn list_variables(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<ContextId>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    context(&state, &id).await?;
    let key = id.clone();
    let all = state.store.read(move |c| variables_table::list_of_context(c, &key)).await?;
    page(all.into_iter().map(|v| (v.name.clone(), shown_variable(&id, &v))).collect(), &words)
}

async fn set_variable(
    State(state): State<Shared>,
    _admin: Administrator,
    Path((id, name)): Path<(ContextId, String)>,
    body: JsonBody,
) -> Answer<Json<Value>> {
    let value = Secret::new(body.text("value")?);
    variables::check_name(&name).and_then(|()| variables::check_value(value.expose())).map_err(bad)?;
    context(&state, &id).await?;
    let (sealer, key) = (state.settings.sealer.clone(), id.clone());
    let stored = state
        .store
        .write(move |tx| {
            // The context may have been removed since the look above.
            if table::find_context(tx, &key)?.is_none() {
                return Ok(None);
            }
            variables::set_of_context(tx, &sealer, &key, &name, &value, Millis::now()).map(Some)
        })
        .await?;
    match stored {
        Some(Some(variable)) => Ok(Json(shown_variable(&id, &variable))),
        Some(None) => {
            let most = variables::MOST_PER_CONTEXT;
            Err(conflict(format!("the context has {most} variables, which is the limit")))
        }
        None => Err(missing(&id)),
    }
}

async fn remove_variable(
    State(state): State<Shared>,
    _admin: Administrator,
    Path((id, name)): Path<(ContextId, String)>,
) -> Answer<Json<Value>> {
    let context = context(&state, &id).await?;
    let what = ApiError::not_found(format!("the context `{}` has no variable `{name}`", context.name));
    let removed = state.store.write(move |tx| variables_table::delete_of_context(tx, &id, &name)).await?;
    if removed { Ok(message("Environment variable deleted.")) } else { Err(what) }
}

async fn list_restrictions(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<ContextId>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    context(&state, &id).await?;
    let read = move |c: &View| {
        let all = table::list_restrictions(c, &id)?;
        let items: Result<Vec<_>, Error> =
            all.iter().map(|r| Ok((r.id.to_string(), shown_restriction(c, &id, r)?))).collect();
        items
    };
    let mut items = state.store.read(read).await?;
    items.sort_by(|a, b| a.0.cmp(&b.0));
    page(items, &words)
}

async fn restrict(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(id): Path<ContextId>,
    body: JsonBody,
) -> Answer<Response> {
    let organisation = context(&state, &id).await?.organisation;
    let text = body.text("restriction_type")?;
    let kind = RestrictionKind::parse(text).ok_or_else(|| {
        bad(format!("`{text}` is no kind of restriction (known: project, expression, group)"))
    })?;
    let value = body.text("restriction_value")?.trim().to_owned();
    match kind {
        RestrictionKind::Expression => {
            config::check_rule(&value).map_err(|why| bad(format!("not a rule: {why}")))?
        }
        RestrictionKind::Project | RestrictionKind::Group if value.is_empty() || value.len() > 300 => {
            return Err(bad("`restriction_value` must be the id of what the context is restricted to"));
        }
        _ => {}
    }
    let stored = state
        .store
        .write(move |tx| {
            if table::find_context(tx, &id)?.is_none() {
                return Ok(Err(missing(&id)));
            }
            let value = match kind {
                RestrictionKind::Project => match project_id(tx, &organisation, &value)? {
                    Some(project) => project.into(),
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

/// Finds a project of the organisation by id or slug.
fn project_id(c: &View, organisation: &OrganisationId, named: &str) -> Result<Option<ProjectId>, Error> {
    let found = match named.split_once('/') {
        Some((vcs, rest)) => read::project_by_slug(c, &format!("{}/{rest}", short_vcs(vcs)))?,
        None => read::project(c, &ProjectId::from(named))?,
    };
    Ok(found.filter(|project| project.organisation == *organisation).map(|project| project.id))
}

async fn unrestrict(
    State(state): State<Shared>,
    _admin: Administrator,
    Path((id, restriction)): Path<(ContextId, RestrictionId)>,
) -> Answer<Json<Value>> {
    context(&state, &id).await?;
    let what = ApiError::not_found(format!("the context has no restriction with the id `{restriction}`"));
    let removed = state.store.write(move |tx| table::delete_restriction(tx, &id, &restriction)).await?;
    if removed { Ok(message("Context restriction deleted.")) } else { Err(what) }
}
