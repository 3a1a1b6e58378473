//! Variables of projects: `envvar`.

use crate::server::api::shared::failure::Answer;
use crate::server::api::shared::input::Path;
use crate::server::api::shared::variables::{ProjectPath, all, one, remove, set, shown};
use crate::server::auth::Person;
use crate::server::state::Shared;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    let path = "/api/v1.1/project/{vcs}/{org}/{repo}/envvar";
    Router::new().route(path, get(list).post(set)).route(&format!("{path}/{{name}}"), get(one).delete(remove))
}

async fn list(State(state): State<Shared>, _person: Person, Path(slug): ProjectPath) -> Answer<Json<Value>> {
    Ok(Json(all(&state, slug).await?.iter().map(shown).collect()))
}
