//! Variables of projects, as versions 1.1 and 2 have them but for their lists. Values go in and never come out.

use crate::protocol::Secret;
use crate::server::api::shared::failure::{Answer, ApiError, bad, conflict};
use crate::server::api::shared::input::{JsonBody, Path, message};
use crate::server::api::shared::lookup::project;
use crate::server::auth::{Administrator, Person};
use crate::server::secrets::variables;
use crate::server::state::Shared;
use crate::server::store::read::Project;
use crate::server::store::tables::variables::{self as table, ShownVariable};
use crate::server::time::Millis;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// The words of a project's path.
pub type ProjectPath = Path<(String, String, String)>;
/// The words of a project's path, and the name of a variable.
pub type SlugAndName = Path<(String, String, String, String)>;

/// A variable without its value.
pub fn shown(variable: &ShownVariable) -> Value {
    json!({ "name": variable.name, "value": variable.hint })
}

/// All variables of a project.
pub async fn all(state: &Shared, slug: (String, String, String)) -> Answer<Vec<ShownVariable>> {
    let project = project(state, slug).await?;
    Ok(state.store.read(move |c| table::list_of_project(c, &project.id)).await?)
}

/// Shows a variable.
pub async fn one(
    State(state): State<Shared>,
    _person: Person,
    Path((vcs, org, repo, name)): SlugAndName,
) -> Answer<Json<Value>> {
    let project = project(&state, (vcs, org, repo)).await?;
    let what = missing(&project, &name);
    let found = state.store.read(move |c| table::find_of_project(c, &project.id, &name)).await?;
    found.map(|variable| Json(shown(&variable))).ok_or(what)
}

/// Makes a variable, or gives it another value.
pub async fn set(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(slug): ProjectPath,
    body: JsonBody,
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

/// Deletes a variable.
pub async fn remove(
    State(state): State<Shared>,
    _admin: Administrator,
    Path((vcs, org, repo, name)): SlugAndName,
) -> Answer<Json<Value>> {
    let project = project(&state, (vcs, org, repo)).await?;
    let what = missing(&project, &name);
    let removed = state.store.write(move |tx| table::delete_of_project(tx, &project.id, &name)).await?;
    if removed { Ok(message("ok")) } else { Err(what) }
}

fn missing(project: &Project, name: &str) -> ApiError {
    ApiError::not_found(format!("the project `{}` has no variable `{name}`", project.slug))
}
