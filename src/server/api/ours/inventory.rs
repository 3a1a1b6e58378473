//! The inventory of runners: resource classes, their tokens, the runners that were seen, what waits.

use crate::protocol::ResourceClass;
use crate::server::api::shared::input::{Body, Words, bad};
use crate::server::api::shared::vocabulary::time;
use crate::server::api::{Administrator, Answer, Failure, Person};
use crate::server::state::{Shared, new_token, now_ms, timestamp, token_hash};
use crate::server::store::{Error as StoreError, View, new_id};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use rusqlite::params;
use serde_json::{Value, json};

/// A runner that was silent this long is no longer listed: 12 hours.
const FORGOTTEN_MS: u64 = 12 * 60 * 60 * 1000;

/// The paths.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v3/runner", get(instances))
        .route("/api/v3/runner/tasks", get(unclaimed))
        .route("/api/v3/runner/tasks/running", get(running))
        .route("/api/v3/runner/resource", get(list_classes).post(create_class))
        .route("/api/v3/runner/resource/{id}", delete(delete_class))
        .route("/api/v3/runner/resource/{id}/force", delete(delete_class_by_force))
        .route("/api/v3/runner/token", get(list_tokens).post(create_token))
        .route("/api/v3/runner/token/{id}", delete(delete_token))
}

async fn instances(State(state): State<Shared>, _person: Person, words: Words) -> Answer<Json<Value>> {
    let given = |name: &str| words.get(name).filter(|text| !text.is_empty()).cloned();
    let (class, namespace) = (given("resource-class"), given("namespace"));
    if class.is_none() && namespace.is_none() && given("org-id").is_none() {
        return Err(bad("one of `resource-class`, `namespace` and `org-id` is needed"));
    }
    let read = move |c: &View| {
        let mut query = c.prepare_cached(
            "SELECT r.name, i.hostname, i.name, i.first_connected_ms, i.last_connected_ms, i.last_used_ms, i.ip, i.version
             FROM runner_instances i JOIN resource_classes r ON r.id = i.resource_class_id
             WHERE (?1 IS NULL OR r.name = ?1) AND (?2 IS NULL OR r.name LIKE ?2 || '/%') AND i.last_connected_ms > ?3
             ORDER BY r.name, i.name",
        )?;
        let since = now_ms().saturating_sub(FORGOTTEN_MS) as i64;
        let rows = query.query_map(params![class, namespace, since], |row| {
            Ok(json!({
                "resource_class": row.get::<_, String>(0)?, "hostname": row.get::<_, String>(1)?,
                "name": row.get::<_, String>(2)?, "first_connected": timestamp(row.get(3)?),
                "last_connected": timestamp(row.get(4)?), "last_used": time(row.get(5)?),
                "ip": row.get::<_, String>(6)?, "version": row.get::<_, String>(7)?,
            }))
        })?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    };
    Ok(Json(json!({ "items": state.store.read(read).await? })))
}

async fn count(state: &Shared, words: &Words, status: &'static str) -> Answer<i64> {
    let class = words.get("resource-class").filter(|class| !class.is_empty()).cloned();
    let class = class.ok_or_else(|| bad("`resource-class` is missing"))?;
    let read = move |c: &View| {
        let sql = format!("SELECT count(*) FROM tasks WHERE resource_class = ?1 AND status = '{status}'");
        Ok(c.prepare_cached(&sql)?.query_row([class], |row| row.get(0))?)
    };
    Ok(state.store.read(read).await?)
}

async fn unclaimed(State(state): State<Shared>, _person: Person, words: Words) -> Answer<Json<Value>> {
    Ok(Json(json!({ "unclaimed_task_count": count(&state, &words, "queued").await? })))
}

async fn running(State(state): State<Shared>, _person: Person, words: Words) -> Answer<Json<Value>> {
    Ok(Json(json!({ "running_runner_tasks": count(&state, &words, "running").await? })))
}

async fn list_classes(State(state): State<Shared>, _person: Person, words: Words) -> Answer<Json<Value>> {
    let namespace = words.get("namespace").cloned();
    let read = move |c: &View| {
        let mut query =
            c.prepare_cached("SELECT id, name, description FROM resource_classes ORDER BY name")?;
        let rows = query.query_map([], |row| {
            Ok(json!({ "id": row.get::<_, String>(0)?, "resource_class": row.get::<_, String>(1)?, "description": row.get::<_, String>(2)? }))
        })?;
        let all = rows.collect::<Result<Vec<_>, _>>()?;
        let fits = |item: &Value| {
            let class = item["resource_class"].as_str().unwrap_or_default();
            namespace.as_deref().is_none_or(|namespace| class.split('/').next() == Some(namespace))
        };
        Ok(all.into_iter().filter(fits).collect::<Vec<_>>())
    };
    Ok(Json(json!({ "items": state.store.read(read).await? })))
}

async fn create_class(
    State(state): State<Shared>,
    _admin: Administrator,
    Body(body): Body,
) -> Answer<Response> {
    let class = ResourceClass::new(body["resource_class"].as_str().unwrap_or_default())
        .map_err(|why| Failure::new(StatusCode::BAD_REQUEST, why))?;
    let description = body["description"].as_str().unwrap_or_default().to_owned();
    let answer = json!({ "id": new_id(), "resource_class": class.as_str(), "description": description });
    let row = answer.clone();
    let written = state.store.write(move |tx| {
        let (id, name) = (row["id"].as_str(), row["resource_class"].as_str());
        tx.execute(
            "INSERT INTO resource_classes VALUES (?1, ?2, ?3, ?4)",
            params![id, name, description, now_ms() as i64],
        )?;
        Ok(())
    });
    written
        .await
        .map_err(|error| duplicate(error, format!("the resource class `{class}` exists already")))?;
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

fn duplicate(error: StoreError, message: String) -> Failure {
    if error.is_duplicate() { Failure::new(StatusCode::CONFLICT, message) } else { error.into() }
}

async fn delete_class(state: State<Shared>, admin: Administrator, id: Path<String>) -> Answer<Json<Value>> {
    remove_class(state, admin, id, false).await
}

async fn delete_class_by_force(
    state: State<Shared>,
    admin: Administrator,
    id: Path<String>,
) -> Answer<Json<Value>> {
    remove_class(state, admin, id, true).await
}

async fn remove_class(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(id): Path<String>,
    force: bool,
) -> Answer<Json<Value>> {
    let what = format!("there is no resource class with the id `{id}`");
    let removed = state.store.write(move |tx| {
        if force {
            tx.execute("DELETE FROM resource_class_tokens WHERE resource_class_id = ?1", [&id])?;
        }
        Ok(tx.execute("DELETE FROM resource_classes WHERE id = ?1", [&id])?)
    });
    let removed = removed.await.map_err(|error| {
        duplicate(error, "the class still has tokens: delete them first, or use `/force`".into())
    })?;
    if removed == 0 { Err(Failure::not_found(what)) } else { Ok(Json(json!({ "message": "Deleted." }))) }
}

async fn list_tokens(State(state): State<Shared>, _person: Person, words: Words) -> Answer<Json<Value>> {
    let class = words.get("resource-class").cloned().unwrap_or_default();
    let read = move |c: &View| {
        let mut query = c.prepare_cached(
            "SELECT t.id, r.name, t.nickname, t.created_at_ms FROM resource_class_tokens t
             JOIN resource_classes r ON r.id = t.resource_class_id WHERE r.name = ?1 ORDER BY t.created_at_ms",
        )?;
        let rows = query.query_map([class], |row| {
            Ok(json!({
                "id": row.get::<_, String>(0)?, "resource_class": row.get::<_, String>(1)?,
                "nickname": row.get::<_, String>(2)?, "created_at": timestamp(row.get(3)?),
            }))
        })?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    };
    Ok(Json(json!({ "items": state.store.read(read).await? })))
}

async fn create_token(
    State(state): State<Shared>,
    _admin: Administrator,
    Body(body): Body,
) -> Answer<Response> {
    let class = body["resource_class"].as_str().unwrap_or_default().to_owned();
    let nickname = body["nickname"].as_str().unwrap_or_default().to_owned();
    let token = new_token("rlc_")?;
    let (id, now) = (new_id(), now_ms() as i64);
    let answer = json!({ "id": id, "resource_class": class, "nickname": nickname, "created_at": timestamp(now), "token": token });
    let what = format!("there is no resource class `{class}`");
    let written = state.store.write(move |tx| {
        let insert = "INSERT INTO resource_class_tokens SELECT ?1, id, ?3, ?4, ?5 FROM resource_classes WHERE name = ?2";
        Ok(tx.execute(insert, params![id, class, nickname, token_hash(&token), now])?)
    });
    if written.await? == 0 {
        return Err(Failure::not_found(what));
    }
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

async fn delete_token(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let what = format!("there is no token with the id `{id}`");
    let removed = state
        .store
        .write(move |tx| Ok(tx.execute("DELETE FROM resource_class_tokens WHERE id = ?1", [&id])?));
    if removed.await? == 0 {
        Err(Failure::not_found(what))
    } else {
        Ok(Json(json!({ "message": "Deleted." })))
    }
}
