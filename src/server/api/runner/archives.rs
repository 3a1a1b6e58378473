//! Caches and workspaces, as task agents call them: docs/protocol.md.

use crate::protocol::limits::{CACHE_KEY_CHARS, CACHE_KEYS};
use crate::protocol::{
    Archive, Cache, CacheAnswer, CacheRecord, FindCache, FoundCache, LayerRecord, MAX_CHUNK_BYTES, Workspace,
};
use crate::server::api::runner::holder::Holder;
use crate::server::api::runner::query::{Numbers, number};
use crate::server::api::runner::uploads::complete;
use crate::server::api::shared::failure::{Answer, ApiError, blocking};
use crate::server::api::shared::input::Path;
use crate::server::api::shared::uses::used;
use crate::server::engine::archives;
use crate::server::engine::task::Call;
use crate::server::ids::CacheId;
use crate::server::state::Shared;
use crate::server::store::tables::archives as rows;
use crate::server::store::tables::keeping::Counted;
use crate::server::store::{Tx, View};
use crate::server::time::Millis;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    let task = "/api/v3/runner/tasks/{id}";
    Router::new()
        .route(&format!("{task}/caches"), post(save_cache))
        .route(&format!("{task}/caches/find"), post(find_cache))
        .route(&format!("{task}/caches/{{cache}}"), get(read_cache))
        .route(&format!("{task}/workspace"), get(workspace).post(save_layer))
        .route(&format!("{task}/workspace/{{layer}}"), get(read_layer))
}

async fn find_cache(
    State(state): State<Shared>,
    task: Holder,
    Json(wanted): Json<FindCache>,
) -> Answer<Json<FoundCache>> {
    let task = task.alive(&state).await?;
    if wanted.keys.len() > CACHE_KEYS {
        let message =
            format!("{} keys are more than the {CACHE_KEYS} that are looked for", wanted.keys.len());
        return Err(ApiError::new(StatusCode::BAD_REQUEST, message));
    }
    wanted.keys.iter().try_for_each(|key| check_key(key))?;
    let (project, pipeline) = (task.project.clone(), task.pipeline.clone());
    let find = move |view: &View| {
        let scope = archives::cache_scope(view, &pipeline)?;
        let keys = wanted.keys.iter().map(|key| format!("{scope}{key}")).collect();
        let found = archives::find_cache(view, &project, &FindCache { keys, ..wanted }, Millis::now())?;
        Ok(found.map(|cache| {
            let key = cache.key.strip_prefix(&scope).map(str::to_owned).unwrap_or(cache.key);
            Cache { key, ..cache }
        }))
    };
    let cache = task.reads(&state, Call::Other, find).await?;
    Ok(Json(FoundCache { cache }))
}

fn check_key(key: &str) -> Answer<()> {
    if key.starts_with(archives::FORK_MARK) {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "the key of a cache does not begin with a control character",
        ));
    }
    if (1..=CACHE_KEY_CHARS).contains(&key.chars().count()) {
        return Ok(());
    }
    let message = format!("a cache key has 1 to {CACHE_KEY_CHARS} characters");
    Err(ApiError::new(StatusCode::BAD_REQUEST, message))
}

async fn save_cache(
    State(state): State<Shared>,
    task: Holder,
    Json(record): Json<CacheRecord>,
) -> Answer<Json<CacheAnswer>> {
    let task = task.alive(&state).await?;
    check_key(&record.key)?;
    complete(&state, &record.archive.sha256, record.archive.length).await?;
    let (id, pipeline) = (task.id.clone(), task.pipeline.clone());
    let kept = state.settings.keeping.caches;
    let save = move |tx: &Tx<'_>| {
        let key = format!("{}{}", archives::cache_scope(tx, &pipeline)?, record.key);
        archives::save_cache(tx, &id, &CacheRecord { key, ..record }, kept, Millis::now())
    };
    let stored = task.writes(&state, save).await?;
    Ok(Json(CacheAnswer { stored }))
}

async fn workspace(State(state): State<Shared>, task: Holder) -> Answer<Json<Workspace>> {
    let job = task.job.clone();
    let read = move |view: &View| archives::workspace(view, &job, Millis::now());
    Ok(Json(task.reads(&state, Call::Other, read).await?))
}

async fn save_layer(
    State(state): State<Shared>,
    task: Holder,
    Json(record): Json<LayerRecord>,
) -> Answer<Json<Value>> {
    let task = task.alive(&state).await?;
    complete(&state, &record.archive.sha256, record.archive.length).await?;
    let id = task.id.clone();
    let kept = state.settings.keeping.workspaces;
    task.writes(&state, move |tx| archives::save_layer(tx, &id, &record, kept, Millis::now())).await?;
    Ok(Json(json!({})))
}

async fn read_cache(
    State(state): State<Shared>,
    task: Holder,
    Path((_, cache)): Path<(String, CacheId)>,
    query: Numbers,
) -> Answer<Bytes> {
    let (id, project) = (cache.clone(), task.project.clone());
    let read = move |view: &View| rows::cache_archive(view, &cache, &project);
    let archive = task.reads(&state, Call::Other, read).await?;
    if archive.is_some() && number(&query, "offset")? == 0 {
        used(&state, Counted::Cache(id)).await?;
    }
    piece(&state, archive, &query).await
}

async fn read_layer(
    State(state): State<Shared>,
    task: Holder,
    Path((_, layer)): Path<(String, String)>,
    query: Numbers,
) -> Answer<Bytes> {
    let job = task.job.clone();
    let read = move |view: &View| rows::layer_archive(view, &layer.into(), &job);
    let archive = task.reads(&state, Call::Other, read).await?;
    piece(&state, archive, &query).await
}

/// A piece of an archive that the holder of the token may read.
async fn piece(state: &Shared, archive: Option<Archive>, query: &Numbers) -> Answer<Bytes> {
    let archive = archive.ok_or_else(|| ApiError::not_found("there is no such archive, or no longer"))?;
    let (offset, most) = (number(query, "offset")?, number(query, "most")?);
    let most = usize::try_from(most).unwrap_or(MAX_CHUNK_BYTES).min(MAX_CHUNK_BYTES);
    let blobs = state.blobs.clone();
    let bytes = blocking(move || blobs.objects.read(&archive.sha256, offset, most)).await?;
    Ok(Bytes::from(bytes))
}
