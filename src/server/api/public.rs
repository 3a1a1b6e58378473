//! What people's clients call: triggers, pipelines, workflows, jobs, results, and the classes and tokens
//! of runners. Shapes are those that CircleCI's clients read.

use super::{Answer, Failure, Person, blocking};
use crate::protocol::{ResourceClass, TaskId};
use crate::server::flow;
use crate::server::state::{Shared, new_token, now_ms, timestamp, token_hash};
use crate::server::store::{Connection, Error as StoreError, new_id};
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use rusqlite::{OptionalExtension, Row, params};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// The paths.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/live", get(|| async { Json(json!({ "status": "live" })) }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/v2/me", get(me))
        .route("/api/v2/pipeline/{id}", get(pipeline))
        .route("/api/v2/pipeline/{id}/workflow", get(workflows))
        .route("/api/v2/workflow/{id}", get(workflow))
        .route("/api/v2/workflow/{id}/job", get(jobs))
        .route("/api/v2/workflow/{id}/cancel", post(cancel))
        .route("/api/v2/workflow/{id}/approve/{job}", post(approve))
        .route("/api/v3/jobs/{id}/artifacts", get(artifacts))
        .route("/api/v3/jobs/{id}/tests", get(tests))
        .route("/api/v3/jobs/{id}/stdout", get(stdout))
        .route("/api/v3/artifacts/{id}", get(artifact))
        .route("/api/v3/runner/resource", get(list_classes).post(create_class))
        .route("/api/v3/runner/resource/{id}", delete(delete_class))
        .route("/api/v3/runner/resource/{id}/force", delete(delete_class_by_force))
        .route("/api/v3/runner/token", get(list_tokens).post(create_token))
        .route("/api/v3/runner/token/{id}", delete(delete_token))
}

type Words = Query<HashMap<String, String>>;

async fn ready(State(state): State<Shared>) -> Answer<Json<Value>> {
    state.store.read(|c| Ok(c.query_row("SELECT 1", [], |_| Ok(()))?)).await?;
    if *state.stopping.borrow() {
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the control plane is stopping"));
    }
    Ok(Json(json!({ "status": "ready" })))
}

async fn metrics(State(state): State<Shared>) -> Answer<String> {
    let queues: Vec<(String, String, i64)> = state
        .store
        .read(|c| {
            let mut query = c.prepare_cached(
                "SELECT resource_class, status, count(*) FROM tasks WHERE status IN ('queued', 'running') GROUP BY 1, 2",
            )?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await?;
    let mut text = format!(
        "# TYPE runlet_requests_total counter\nrunlet_requests_total {}\n# TYPE runlet_output_bytes_total counter\nrunlet_output_bytes_total {}\n# TYPE runlet_tasks gauge\n",
        state.requests.load(Ordering::Relaxed),
        state.output_bytes.load(Ordering::Relaxed)
    );
    for (class, status, count) in queues {
        text.push_str(&format!("runlet_tasks{{resource_class=\"{class}\",status=\"{status}\"}} {count}\n"));
    }
    Ok(text)
}

async fn me(person: Person) -> Json<Value> {
    Json(json!({ "id": person.id, "login": person.login, "name": person.login }))
}

async fn one<T: Send + 'static>(
    state: &Shared,
    what: String,
    read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Answer<T> {
    let found = state.store.read(move |c| Ok(read(c).optional()?)).await?;
    found.ok_or_else(|| Failure::not_found(what))
}

fn time(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<String>> {
    Ok(row.get::<_, Option<i64>>(index)?.map(timestamp))
}

fn page(items: Vec<Value>) -> Json<Value> {
    Json(json!({ "items": items, "next_page_token": null }))
}

async fn pipeline(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let found = one(&state, format!("there is no pipeline `{id}`"), move |c| {
        c.prepare_cached(
            "SELECT p.id, p.number, p.state, p.created_at_ms, p.errors, p.trigger_type, p.actor_login, r.vcs, r.org, r.repo,
                p.repository_url, p.revision, p.branch, p.tag, p.updated_at_ms
             FROM pipelines p JOIN projects r ON r.id = p.project_id WHERE p.id = ?1",
        )?
        .query_row([id], |row| {
            let slug = format!("{}/{}/{}", row.get::<_, String>(7)?, row.get::<_, String>(8)?, row.get::<_, String>(9)?);
            let errors: Value = serde_json::from_str(&row.get::<_, String>(4)?).unwrap_or_default();
            let mut pipeline = json!({
                "id": row.get::<_, String>(0)?, "number": row.get::<_, i64>(1)?, "state": row.get::<_, String>(2)?,
                "created_at": time(row, 3)?, "updated_at": time(row, 14)?, "errors": errors, "project_slug": slug,
                "trigger": {
                    "type": row.get::<_, String>(5)?, "received_at": time(row, 3)?,
                    "actor": { "login": row.get::<_, String>(6)?, "avatar_url": null },
                },
            });
            if let (Some(url), Some(revision)) = (row.get::<_, Option<String>>(10)?, row.get::<_, Option<String>>(11)?) {
                pipeline["vcs"] = json!({
                    "provider_name": "Git", "origin_repository_url": url, "target_repository_url": url, "revision": revision,
                });
                for (name, column) in [("branch", 12), ("tag", 13)] {
                    if let Some(value) = row.get::<_, Option<String>>(column)? {
                        pipeline["vcs"][name] = json!(value);
                    }
                }
            }
            Ok(pipeline)
        })
    });
    found.await.map(Json)
}

const WORKFLOW: &str =
    "SELECT w.id, w.name, w.status, w.pipeline_id, p.number, r.vcs, r.org, r.repo, w.created_at_ms,
    w.stopped_at_ms, coalesce(w.started_by, w.id)
    FROM workflows w JOIN pipelines p ON p.id = w.pipeline_id JOIN projects r ON r.id = w.project_id";

fn workflow_row(row: &Row<'_>) -> rusqlite::Result<Value> {
    let slug =
        format!("{}/{}/{}", row.get::<_, String>(5)?, row.get::<_, String>(6)?, row.get::<_, String>(7)?);
    Ok(json!({
        "id": row.get::<_, String>(0)?, "name": row.get::<_, String>(1)?, "status": row.get::<_, String>(2)?,
        "pipeline_id": row.get::<_, String>(3)?, "pipeline_number": row.get::<_, i64>(4)?, "project_slug": slug,
        "created_at": time(row, 8)?, "stopped_at": time(row, 9)?, "started_by": row.get::<_, String>(10)?,
    }))
}

async fn workflows(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let read = move |c: &Connection| {
        let mut query =
            c.prepare_cached(&format!("{WORKFLOW} WHERE w.pipeline_id = ?1 ORDER BY w.position"))?;
        let rows = query.query_map([id], workflow_row)?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    };
    Ok(page(state.store.read(read).await?))
}

async fn workflow(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let what = format!("there is no workflow `{id}`");
    let read = move |c: &Connection| {
        c.prepare_cached(&format!("{WORKFLOW} WHERE w.id = ?1"))?.query_row([id], workflow_row)
    };
    one(&state, what, read).await.map(Json)
}

async fn jobs(State(state): State<Shared>, _person: Person, Path(id): Path<String>) -> Answer<Json<Value>> {
    let read = move |c: &Connection| {
        let mut query = c.prepare_cached(
            "SELECT j.id, j.name, j.status, j.kind, j.number, j.started_at_ms, j.stopped_at_ms, j.definition, r.vcs, r.org, r.repo
             FROM jobs j JOIN projects r ON r.id = j.project_id WHERE j.workflow_id = ?1 ORDER BY j.position",
        )?;
        let mut rows = query.query([id])?;
        let (mut items, mut ids) = (Vec::new(), HashMap::new());
        while let Some(row) = rows.next()? {
            let (id, name, kind): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(3)?);
            let slug = format!(
                "{}/{}/{}",
                row.get::<_, String>(8)?,
                row.get::<_, String>(9)?,
                row.get::<_, String>(10)?
            );
            let definition: Value = serde_json::from_str(&row.get::<_, String>(7)?)?;
            let mut item = json!({
                "id": id, "name": name, "status": row.get::<_, String>(2)?, "type": kind, "project_slug": slug,
                "started_at": time(row, 5)?, "stopped_at": time(row, 6)?, "dependencies": definition["requires"],
            });
            if let Some(number) = row.get::<_, Option<i64>>(4)? {
                item["job_number"] = json!(number);
            }
            if kind == "approval" {
                item["approval_request_id"] = json!(id);
            }
            ids.insert(name, id);
            items.push(item);
        }
        for item in &mut items {
            let names = item["dependencies"].as_array().cloned().unwrap_or_default();
            let known: Vec<_> = names.iter().filter_map(|entry| ids.get(entry["job"].as_str()?)).collect();
            item["dependencies"] = json!(known);
        }
        Ok(items)
    };
    Ok(page(state.store.read(read).await?))
}

async fn cancel(State(state): State<Shared>, person: Person, Path(id): Path<String>) -> Answer<Response> {
    let what = format!("there is no workflow `{id}`");
    let known =
        state.store.write(move |tx| flow::cancel_workflow(tx, &id, Some(&person.id), now_ms())).await?;
    accepted(known, what)
}

async fn approve(
    State(state): State<Shared>,
    person: Person,
    Path((id, job)): Path<(String, String)>,
) -> Answer<Response> {
    let what = format!("no approval `{job}` is waiting in the workflow `{id}`");
    let known = state.store.write(move |tx| flow::approve(tx, &id, &job, Some(&person.id), now_ms())).await?;
    accepted(known, what)
}

fn accepted(known: bool, what: String) -> Answer<Response> {
    if known {
        Ok((StatusCode::ACCEPTED, Json(json!({ "message": "Accepted." }))).into_response())
    } else {
        Err(Failure::not_found(what))
    }
}

async fn artifacts(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let base = state.settings.public_url.clone();
    let read = move |c: &Connection| {
        let mut query = c.prepare_cached(
            "SELECT id, path, node_index FROM artifacts WHERE job_id = ?1 ORDER BY node_index, path",
        )?;
        let rows = query.query_map([id], |row| {
            let id: String = row.get(0)?;
            let url = format!("{base}/api/v3/artifacts/{id}");
            Ok(json!({ "id": id, "attributes": { "path": row.get::<_, String>(1)?, "url": url, "execution": row.get::<_, u32>(2)? } }))
        })?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    };
    let data = state.store.read(read).await?;
    Ok(Json(json!({ "data": data, "page": { "next": null, "prev": null } })))
}

async fn artifact(State(state): State<Shared>, _person: Person, Path(id): Path<String>) -> Answer<Response> {
    let what = format!("there is no artifact `{id}`");
    let (sha256, length): (String, u64) = one(&state, what, move |c| {
        let mut query = c.prepare_cached("SELECT sha256, length FROM artifacts WHERE id = ?1")?;
        query.query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
    })
    .await?;
    let blobs = state.blobs.clone();
    let file = tokio::fs::File::from_std(blocking(move || blobs.open_object(&sha256)).await?);
    let stream = futures_util::stream::try_unfold(file, |mut file| async move {
        use tokio::io::AsyncReadExt;
        let mut buffer = bytes::BytesMut::with_capacity(256 * 1024);
        let n = file.read_buf(&mut buffer).await?;
        Ok::<_, std::io::Error>((n > 0).then(|| (buffer.freeze(), file)))
    });
    // Never rendered in the browser: artifacts are whatever jobs make.
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::CONTENT_DISPOSITION, "attachment".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

async fn tests(State(state): State<Shared>, _person: Person, Path(id): Path<String>) -> Answer<Response> {
    let read = move |c: &Connection| {
        let mut query = c.prepare_cached("SELECT classname, name, result, run_time, message, file FROM test_results WHERE job_id = ?1 ORDER BY id")?;
        let rows = query.query_map([id], |row| {
            Ok(json!({
                "classname": row.get::<_, String>(0)?, "name": row.get::<_, String>(1)?, "result": row.get::<_, String>(2)?,
                "run_time": row.get::<_, f64>(3)?, "message": row.get::<_, String>(4)?, "file": row.get::<_, Option<String>>(5)?,
            }))
        })?;
        let lines: Vec<String> =
            rows.map(|row| row.map(|value| format!("{value}\n"))).collect::<Result<_, _>>()?;
        Ok(lines.concat())
    };
    let text = state.store.read(read).await?;
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], text).into_response())
}

/// Output of one step; `Range: bytes=N-` continues, `X-Terminal` says that it is complete.
async fn stdout(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
    query: Words,
    headers: axum::http::HeaderMap,
) -> Answer<Response> {
    let wanted = |name: &str| query.get(name).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    let (execution, step) = (wanted("filter[execution]"), wanted("filter[step_num]"));
    let what = format!("there is no step {step} in execution {execution} of the job `{id}`");
    let (task, ended): (String, bool) = one(&state, what, move |c| {
        let mut query = c.prepare_cached(
            "SELECT t.id, s.ended_at_ms IS NOT NULL FROM tasks t JOIN steps s ON s.task_id = t.id
             WHERE t.job_id = ?1 AND t.node_index = ?2 AND s.step = ?3 ORDER BY t.attempt DESC LIMIT 1",
        )?;
        query.query_row(params![id, execution, step], |row| Ok((row.get(0)?, row.get(1)?)))
    })
    .await?;
    let task =
        TaskId::new(task).map_err(|e| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    let range = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let (blobs, offset) = (state.blobs.clone(), range.unwrap_or(0));
    let bytes = blocking(move || blobs.read_output(&task, step, offset, usize::MAX)).await?;
    let mut response = ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], bytes).into_response();
    if ended {
        response.headers_mut().insert("x-terminal", header::HeaderValue::from_static("true"));
    }
    Ok(response)
}

async fn list_classes(State(state): State<Shared>, _person: Person, query: Words) -> Answer<Json<Value>> {
    let namespace = query.get("namespace").cloned();
    let read = move |c: &Connection| {
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
    _person: Person,
    Json(body): Json<Value>,
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

async fn delete_class(state: State<Shared>, person: Person, id: Path<String>) -> Answer<Json<Value>> {
    remove_class(state, person, id, false).await
}

async fn delete_class_by_force(
    state: State<Shared>,
    person: Person,
    id: Path<String>,
) -> Answer<Json<Value>> {
    remove_class(state, person, id, true).await
}

async fn remove_class(
    State(state): State<Shared>,
    _person: Person,
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

async fn list_tokens(State(state): State<Shared>, _person: Person, query: Words) -> Answer<Json<Value>> {
    let class = query.get("resource-class").cloned().unwrap_or_default();
    let read = move |c: &Connection| {
        let mut query = c.prepare_cached(
            "SELECT t.id, r.name, t.nickname, t.created_at_ms FROM resource_class_tokens t
             JOIN resource_classes r ON r.id = t.resource_class_id WHERE r.name = ?1 ORDER BY t.created_at_ms",
        )?;
        let rows = query.query_map([class], |row| {
            Ok(json!({
                "id": row.get::<_, String>(0)?, "resource_class": row.get::<_, String>(1)?,
                "nickname": row.get::<_, String>(2)?, "created_at": time(row, 3)?,
            }))
        })?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    };
    Ok(Json(json!({ "items": state.store.read(read).await? })))
}

async fn create_token(
    State(state): State<Shared>,
    _person: Person,
    Json(body): Json<Value>,
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
    _person: Person,
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
