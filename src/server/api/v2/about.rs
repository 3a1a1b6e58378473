//! The person who is asking, people and organisations, and the list of what can be called.

use crate::server::api::shared::failure::Answer;
use crate::server::api::shared::input::Path;
use crate::server::api::shared::lookup::one;
use crate::server::auth::Person;
use crate::server::ids::UserId;
use crate::server::state::Shared;
use crate::server::store::read::{self, Organisation};
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v2/me", get(me))
        .route("/api/v2/me/collaborations", get(collaborations))
        .route("/api/v2/user/{id}", get(user))
        .route("/api/v2/openapi.json", get(openapi))
}

async fn me(state: State<Shared>, person: Person) -> Answer<Json<Value>> {
    let id = person.id.clone();
    user(state, person, Path(id)).await
}

async fn user(State(state): State<Shared>, _person: Person, Path(id): Path<UserId>) -> Answer<Json<Value>> {
    let what = format!("there is no user `{id}`");
    let person = one(&state, what, move |view| read::person(view, &id)).await?;
    Ok(Json(json!({ "id": person.id, "login": person.login, "name": person.name })))
}

async fn collaborations(State(state): State<Shared>, _person: Person) -> Answer<Json<Value>> {
    let show = |Organisation { id, vcs, name }: &Organisation| {
        let slug = format!("{vcs}/{name}");
        // The published schema and the clients differ in how they spell it.
        json!({ "id": id, "vcs-type": vcs, "vcs_type": vcs, "name": name, "avatar_url": "", "slug": slug })
    };
    let all = state.store.read(read::organisations).await?;
    Ok(Json(all.iter().map(show).collect::<Vec<_>>().into()))
}

/// Names the calls that clients look for before they make them: contexts and schedules.
async fn openapi() -> Json<Value> {
    Json(json!({
        "openapi": "3.0.3", "info": { "title": "Runlet", "version": "v2" },
        "paths": { "/context": { "get": {} }, "/schedule": { "get": {} }, "/webhook": { "get": {}, "post": {} }, "/project/{project-slug}/pipeline": { "get": {}, "post": {} } },
    }))
}
