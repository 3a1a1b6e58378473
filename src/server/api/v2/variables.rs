//! Project variables: `envvar` of v2 and v1.1. Values go in and never come out.

use crate::protocol::Secret;
use crate::server::api::shared::failure::{Answer, Failure, bad, conflict};
use crate::server::api::shared::input::{Body, Path, Words, message};
use crate::server::api::shared::lookup::project;
use crate::server::api::shared::paging::page;
use crate::server::auth::{Administrator, Person};
use crate::server::secrets::variables;
use crate::server::state::Shared;
use crate::server::store::read::Project;
use crate::server::store::tables::variables::{self as table, ShownVariable};
use crate::server::time::Millis;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

type Slug = Path<(String, String, String)>;
type SlugAndName = Path<(String, String, String, String)>;

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    let mut router = Router::new();
    for base in ["/api/v2", "/api/v1.1"] {
        let path = format!("{base}/project/{{vcs}}/{{org}}/{{repo}}/envvar");
        let old = base.ends_with("1.1");
        let many = if old { get(list_v1).post(set) } else { get(list).post(set) };
        router = router.route(&path, many).route(&format!("{path}/{{name}}"), get(one).delete(remove));
    }
    router
}

fn shown(variable: &ShownVariable) -> Value {
    json!({ "name": variable.name, "value": variable.hint })
}

async fn all(state: &Shared, slug: (String, String, String)) -> Answer<Vec<ShownVariable>> {
    let project = project(state, slug).await?;
    Ok(state.store.read(move |c| table::list_of_project(c, &project.id)).await?)
}

async fn list(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): Slug,
    words: Words,
) -> Answer<Json<Value>> {
    let items = all(&state, slug).await?.into_iter().map(|variable| {
        let mut item = shown(&variable);
        let created = variable.created_at.to_string();
        // The published schema has one spelling, a client the other.
        item["created-at"] = json!(created);
        item["created_at"] = json!(created);
        (variable.name, item)
    });
    page(items.collect(), &words)
}

async fn list_v1(State(state): State<Shared>, _person: Person, Path(slug): Slug) -> Answer<Json<Value>> {
    Ok(Json(all(&state, slug).await?.iter().map(shown).collect()))
}

async fn one(
    State(state): State<Shared>,
    _person: Person,
    Path((vcs, org, repo, name)): SlugAndName,
) -> Answer<Json<Value>> {
    let project = project(&state, (vcs, org, repo)).await?;
    let what = missing(&project, &name);
    let found = state.store.read(move |c| table::find_of_project(c, &project.id, &name)).await?;
    found.map(|variable| Json(shown(&variable))).ok_or(what)
}

async fn set(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(slug): Slug,
    body: Body,
) -> Answer<Response> {
    let project = project(&state, slug).await?;
    let (name, value) = (body.text("name")?.to_owned(), Secret::new(body.text("value")?));
    variables::check_name(&name).and_then(|()| variables::check_value(value.expose())).map_err(bad)?;
    let sealer = state.settings.sealer.clone();
    let stored = state
        .store
        .write(move |tx| variables::set_of_project(tx, &sealer, &project.id, &name, &value, Millis::now()))
        .await?
        .ok_or_else(|| {
            conflict(format!("the project has {} variables, which is the limit", variables::MOST_PER_PROJECT))
        })?;
    Ok((StatusCode::CREATED, Json(shown(&stored))).into_response())
}

async fn remove(
    State(state): State<Shared>,
    _admin: Administrator,
    Path((vcs, org, repo, name)): SlugAndName,
) -> Answer<Json<Value>> {
    let project = project(&state, (vcs, org, repo)).await?;
    let what = missing(&project, &name);
    let removed = state.store.write(move |tx| table::delete_of_project(tx, &project.id, &name)).await?;
    if removed { Ok(message("ok")) } else { Err(what) }
}

fn missing(project: &Project, name: &str) -> Failure {
    Failure::not_found(format!("the project `{}` has no variable `{name}`", project.slug))
}
