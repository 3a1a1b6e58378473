//! Variables of projects: `envvar`.

use crate::server::api::shared::failure::Answer;
use crate::server::api::shared::input::{Path, QueryWords};
use crate::server::api::shared::paging::page;
use crate::server::api::shared::variables::{ProjectPath, all, one, remove, set, shown};
use crate::server::auth::Person;
use crate::server::state::Shared;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    let path = "/api/v2/project/{vcs}/{org}/{repo}/envvar";
    Router::new().route(path, get(list).post(set)).route(&format!("{path}/{{name}}"), get(one).delete(remove))
}

async fn list(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): ProjectPath,
    words: QueryWords,
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
