//! Use of the disk, for administrators.

use crate::server::api::shared::failure::{Answer, blocking};
use crate::server::auth::Administrator;
use crate::server::state::Shared;
use crate::server::store::read;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new().route("/api/v2/storage", get(storage))
}

async fn storage(State(state): State<Shared>, _admin: Administrator) -> Answer<Json<Value>> {
    let (stored, database) =
        state.store.read(|view| Ok((read::stored(view)?, read::database_bytes(view)?))).await?;
    let blobs = state.blobs.clone();
    let space = blocking(move || blobs.space()).await?;
    let items: Vec<Value> = stored
        .into_iter()
        .map(|s| json!({ "project": s.project, "kind": s.kind, "count": s.count, "bytes": s.bytes }))
        .collect();
    Ok(Json(json!({
        "items": items, "database_bytes": database,
        "disk": { "total_bytes": space.total_bytes, "free_bytes": space.free_bytes },
    })))
}
