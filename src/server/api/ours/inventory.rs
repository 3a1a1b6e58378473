//! The inventory of runners: resource classes, their tokens, the runners that were seen, what waits.

use crate::logging::record;
use crate::protocol::ResourceClass;
use crate::server::api::shared::failure::{Answer, ApiError, bad, conflict};
use crate::server::api::shared::input::{JsonBody, Path, QueryWords, message};
use crate::server::auth::{Administrator, Person};
use crate::server::auth::{new_token, token_hash};
use crate::server::engine::commit::queue;
use crate::server::ids::{ClassTokenId, ResourceClassId};
use crate::server::people;
use crate::server::state::Shared;
use crate::server::store::status::TaskState;
use crate::server::store::tables::classes::{self, Class, ClassTokenRow, Instance, Terms};
use crate::server::store::tables::fleet::{self, RunnerAtWork, TaskAtWork};
use crate::server::store::tables::instances::ONLINE;
use crate::server::store::{Effect, Error, View};
use crate::server::time::Millis;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::ops::RangeInclusive;
use std::time::Duration;

/// A runner that was silent this long is no longer listed.
const FORGOTTEN: Duration = Duration::from_secs(12 * 60 * 60);

/// Budgets that a class may have, in seconds. Late output is taken for a day.
const BUDGETS: RangeInclusive<u64> = 60..=24 * 60 * 60;

/// Times from the claim of a task to its begin that a class may allow, in seconds.
const BEGIN_LIMITS: RangeInclusive<u64> = 60..=24 * 60 * 60;

/// Longest waits of tasks that a class may have, in seconds.
const WAIT_LIMITS: RangeInclusive<u64> = 60..=90 * 24 * 60 * 60;

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v3/runner", get(instances).patch(change_instance))
        .route("/api/v3/runner/tasks", get(unclaimed))
        .route("/api/v3/runner/tasks/running", get(running))
        .route("/api/v3/runner/resource", get(list_classes).post(create_class))
        .route("/api/v3/runner/resource/{id}", delete(delete_class).patch(change_class))
        .route("/api/v3/runner/resource/{id}/force", delete(delete_class_by_force))
        .route("/api/v3/runner/token", get(list_tokens).post(create_token))
        .route("/api/v3/runner/token/{id}", delete(delete_token))
}

async fn instances(State(state): State<Shared>, _person: Person, words: QueryWords) -> Answer<Json<Value>> {
    let given = |name: &str| words.get(name).filter(|text| !text.is_empty()).cloned();
    let (class, namespace) = (given("resource-class"), given("namespace"));
    if class.is_none() && namespace.is_none() && given("org-id").is_none() {
        return Err(bad("one of `resource-class`, `namespace` and `org-id` is needed"));
    }
    let now = Millis::now();
    let read = state.store.read(move |view| {
        let since = now.minus(FORGOTTEN);
        let found = classes::list_instances(view, class.as_deref(), namespace.as_deref(), since)?;
        let with_work = found.into_iter().map(|instance| {
            let work = fleet::at_work(view, &instance.class, &instance.name)?;
            Ok((instance, work))
        });
        with_work.collect::<Result<Vec<_>, Error>>()
    });
    let items: Vec<Value> =
        read.await?.iter().map(|(instance, work)| shown_instance(instance, work, now)).collect();
    Ok(Json(json!({ "items": items })))
}

/// Pauses a runner, or lets it go on: `{"resource_class", "name", "is_paused"}`.
async fn change_instance(
    State(state): State<Shared>,
    _admin: Administrator,
    body: JsonBody,
) -> Answer<Json<Value>> {
    body.check_names("a runner", &["resource_class", "name", "is_paused"])?;
    let (class, name) = (body.text("resource_class")?.to_owned(), body.text("name")?.to_owned());
    let paused = body.flag("is_paused")?.ok_or_else(|| bad("`is_paused` is missing"))?;
    let unknown = ApiError::not_found(format!("no runner `{name}` of `{class}` was ever seen"));
    let changed = state.store.write(move |tx| {
        tx.effect(Effect::QueuedForOthers(class.clone()));
        fleet::pause_runner(tx, &class, &name, paused)
    });
    if changed.await? { Ok(message("Changed.")) } else { Err(unknown) }
}

fn shown_instance(instance: &Instance, work: &RunnerAtWork, now: Millis) -> Value {
    let state = match &work.task {
        Some(_) => "busy",
        None if now.since(instance.last_connected) < ONLINE => "idle",
        None => "offline",
    };
    let shown = |task: &TaskAtWork| json!({ "id": task.id, "job_id": task.job, "job_name": task.job_name });
    let task = work.task.as_ref().map(shown);
    json!({
        "state": state, "is_paused": work.is_paused, "task": task,
        "resource_class": instance.class, "hostname": instance.hostname, "name": instance.name,
        "first_connected": instance.first_connected.to_string(),
        "last_connected": instance.last_connected.to_string(),
        "last_used": instance.last_used.map(|time| time.to_string()),
        "ip": instance.ip, "version": instance.version,
    })
}

async fn count(state: &Shared, words: &QueryWords, states: &'static [TaskState]) -> Answer<u64> {
    let class = words.get("resource-class").filter(|class| !class.is_empty()).cloned();
    let class = class.ok_or_else(|| bad("`resource-class` is missing"))?;
    let count = state.store.read(move |view| {
        states.iter().try_fold(0, |sum, state| Ok(sum + classes::count_tasks(view, &class, *state)?))
    });
    Ok(count.await?)
}

async fn unclaimed(State(state): State<Shared>, _person: Person, words: QueryWords) -> Answer<Json<Value>> {
    Ok(Json(json!({ "unclaimed_task_count": count(&state, &words, &[TaskState::Queued]).await? })))
}

async fn running(State(state): State<Shared>, _person: Person, words: QueryWords) -> Answer<Json<Value>> {
    Ok(Json(json!({ "running_runner_tasks": count(&state, &words, &TaskState::HELD_BY_A_RUNNER).await? })))
}

fn shown_class(class: &Class) -> Value {
    json!({
        "id": class.id, "resource_class": class.name, "description": class.description,
        "budget_seconds": class.budget_ms.map(|ms| ms / 1000), "unsafe_retries": class.unsafe_retries,
    })
}

async fn list_classes(
    State(state): State<Shared>,
    _person: Person,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let namespace = words.get("namespace").map(String::as_str);
    let now = Millis::now();
    let read = state.store.read(move |view| {
        let all = classes::list_classes(view)?.into_iter();
        let with_fleet = all.map(|class| fleet::fleet(view, &class.id, now).map(|fleet| (class, fleet)));
        Ok((with_fleet.collect::<Result<Vec<_>, Error>>()?, classes::list_untrusted(view)?))
    });
    let (all, untrusted) = read.await?;
    let fits =
        |class: &Class| namespace.is_none_or(|namespace| class.name.split('/').next() == Some(namespace));
    let shown = all.iter().filter(|(class, _)| fits(class)).map(|(class, fleet)| {
        let mut shown = shown_class(class);
        shown["takes_untrusted"] = json!(untrusted.contains(&class.id));
        shown["is_paused"] = json!(fleet.is_paused);
        shown["wait_limit_seconds"] = json!(fleet.wait_limit_ms.map(|ms| ms / 1000));
        shown["begin_limit_seconds"] = json!(fleet.begin_limit_ms.map(|ms| ms / 1000));
        shown["waiting"] = json!(fleet.waiting);
        shown["oldest_wait_seconds"] = json!(fleet.oldest.map(|oldest| now.since(oldest).as_secs()));
        shown["online"] = json!(fleet.online);
        shown
    });
    let items: Vec<Value> = shown.collect();
    Ok(Json(json!({ "items": items })))
}

async fn create_class(
    State(state): State<Shared>,
    _admin: Administrator,
    body: JsonBody,
) -> Answer<Response> {
    let known = [
        "resource_class",
        "description",
        "org_id",
        "budget_seconds",
        "begin_limit_seconds",
        "unsafe_retries",
    ];
    body.check_names("a resource class", &known)?;
    let name = ResourceClass::new(body.0["resource_class"].as_str().unwrap_or_default()).map_err(bad)?;
    let description = note(&body, "description")?;
    let (id, terms) = (ResourceClassId::fresh(), terms(&body, Terms::default())?);
    let Terms { budget_ms, unsafe_retries, begin_ms } = terms;
    let class = Class { id, name: name.as_str().to_owned(), description, budget_ms, unsafe_retries };
    let mut answer = shown_class(&class);
    answer["begin_limit_seconds"] = json!(begin_ms.map(|ms| ms / 1000));
    let added = state.store.write(move |tx| {
        let is_new = classes::add_class(tx, &class, Millis::now())?;
        if is_new {
            classes::set_terms(tx, &class.id, terms)?;
        }
        Ok(is_new)
    });
    let is_new = added.await?;
    if !is_new {
        return Err(conflict(format!("the resource class `{name}` exists already")));
    }
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// A note for people as a body has it; an absent one is empty.
fn note(body: &JsonBody, name: &str) -> Answer<String> {
    let text = body.optional_text(name)?.unwrap_or_default();
    people::check_text(name, text).map_err(bad)?;
    Ok(text.to_owned())
}

/// A field that is a number of seconds, or null for none; `None` where the body does not name it.
fn seconds(body: &JsonBody, name: &str, allowed: &RangeInclusive<u64>) -> Answer<Option<Option<u64>>> {
    match body.0.get(name).map(|given| (given, given.as_u64())) {
        None => Ok(None),
        Some((Value::Null, _)) => Ok(Some(None)),
        Some((_, Some(seconds))) if allowed.contains(&seconds) => Ok(Some(Some(seconds))),
        Some((given, _)) => {
            let (least, most) = (allowed.start(), allowed.end());
            Err(bad(format!("`{name}` is a number from {least} to {most}, not `{given}`")))
        }
    }
}

/// The terms of a class as a body has them: `budget_seconds`, how long a task may be silent once it has begun (null is as
/// usual), `begin_limit_seconds`, how long a claimed task may take to begin (null is as usual), and `unsafe_retries`,
/// whether what the infrastructure ended after its begin runs again (null is no). What the body does not name stays.
fn terms(body: &JsonBody, was: Terms) -> Answer<Terms> {
    let ms = |seconds: Option<u64>| seconds.map(|seconds| seconds * 1000);
    let budget_ms = seconds(body, "budget_seconds", &BUDGETS)?.map_or(was.budget_ms, ms);
    let begin_ms = seconds(body, "begin_limit_seconds", &BEGIN_LIMITS)?.map_or(was.begin_ms, ms);
    let unsafe_retries = match body.0.get("unsafe_retries") {
        Some(Value::Null) => false,
        _ => body.flag("unsafe_retries")?.unwrap_or(was.unsafe_retries),
    };
    Ok(Terms { budget_ms, unsafe_retries, begin_ms })
}

async fn change_class(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(id): Path<ResourceClassId>,
    body: JsonBody,
) -> Answer<Json<Value>> {
    let known = [
        "budget_seconds",
        "unsafe_retries",
        "takes_untrusted",
        "is_paused",
        "wait_limit_seconds",
        "begin_limit_seconds",
    ];
    if known.iter().all(|name| body.0.get(name).is_none()) {
        let message = "`budget_seconds` (a number, or null for the usual budget), `unsafe_retries`, `takes_untrusted` and `is_paused` (true or false), `wait_limit_seconds` (a number, or null for no limit) and `begin_limit_seconds` (a number, or null for the usual limit) are missing: give one of them";
        return Err(bad(message));
    }
    body.check_names("a resource class", &known)?;
    let (takes_untrusted, pause) = (body.flag("takes_untrusted")?, body.flag("is_paused")?);
    let limit = seconds(&body, "wait_limit_seconds", &WAIT_LIMITS)?;
    // Values that are wrong are so for every class.
    terms(&body, Terms::default())?;
    let unknown = ApiError::not_found(format!("there is no resource class with the id `{id}`"));
    let changed = state.store.write(move |tx| {
        let Some(was) = classes::terms(tx, &id)? else { return Ok(false) };
        let Ok(terms) = terms(&body, was) else { return Ok(false) };
        if let Some(takes) = takes_untrusted {
            classes::set_takes_untrusted(tx, &id, takes)?;
        }
        let name = classes::name(tx, &id)?.unwrap_or_default();
        if let Some(limit) = limit {
            queue::limit_waits(tx, (&id, &name), limit.map(Duration::from_secs), Millis::now())?;
        }
        if let Some(pause) = pause {
            let has_changed = fleet::pause_class(tx, &id, pause)?;
            if has_changed && !pause {
                queue::waits_anew(tx, &name, Millis::now())?;
            }
            tx.effect(Effect::QueuedForOthers(name));
        }
        classes::set_terms(tx, &id, terms).map(|()| true)
    });
    if changed.await? { Ok(message("Changed.")) } else { Err(unknown) }
}

async fn delete_class(
    state: State<Shared>,
    admin: Administrator,
    id: Path<ResourceClassId>,
) -> Answer<Json<Value>> {
    remove_class(state, admin, id, false).await
}

async fn delete_class_by_force(
    state: State<Shared>,
    admin: Administrator,
    id: Path<ResourceClassId>,
) -> Answer<Json<Value>> {
    remove_class(state, admin, id, true).await
}

async fn remove_class(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(id): Path<ResourceClassId>,
    force: bool,
) -> Answer<Json<Value>> {
    let unknown = ApiError::not_found(format!("there is no resource class with the id `{id}`"));
    let removed = state.store.write(move |tx| {
        if force {
            classes::delete_tokens_of(tx, &id)?;
        } else if let Some(obstacle) = obstacle(tx, &id)? {
            return Ok(Err(conflict(obstacle)));
        }
        let Some(name) = classes::delete_class(tx, &id)? else { return Ok(Err(unknown)) };
        let waited = queue::class_deleted(tx, &name, Millis::now())?;
        if waited > 0 {
            record!(Warn, class = name.as_str(), task_count = waited; "a resource class was deleted while tasks waited for it");
        }
        Ok(Ok(message("Deleted.")))
    });
    removed.await?
}

/// Names the things that still need a class, which only force removes.
fn obstacle(view: &View, id: &ResourceClassId) -> Result<Option<String>, Error> {
    let Some(name) = classes::name(view, id)? else { return Ok(None) };
    let waiting = classes::count_tasks(view, &name, TaskState::Queued)?;
    if waiting > 0 {
        let tasks = if waiting == 1 { "1 task waits".to_owned() } else { format!("{waiting} tasks wait") };
        return Ok(Some(format!(
            "{tasks} for a runner of `{name}` and would fail: cancel the jobs first, or use `/force` (`--force`)"
        )));
    }
    let has_tokens = classes::has_tokens(view, id)?;
    Ok(has_tokens.then(|| "the class still has tokens: delete them first, or use `/force`".to_owned()))
}

fn shown_token(class: &str, token: &ClassTokenRow) -> Value {
    json!({
        "id": token.id, "resource_class": class, "nickname": token.nickname,
        "created_at": token.created_at.to_string(),
    })
}

async fn list_tokens(State(state): State<Shared>, _person: Person, words: QueryWords) -> Answer<Json<Value>> {
    let class = words.get("resource-class").cloned().unwrap_or_default();
    let key = class.clone();
    let tokens = state.store.read(move |view| classes::list_tokens(view, &key)).await?;
    let items: Vec<Value> = tokens.iter().map(|token| shown_token(&class, token)).collect();
    Ok(Json(json!({ "items": items })))
}

async fn create_token(
    State(state): State<Shared>,
    _admin: Administrator,
    body: JsonBody,
) -> Answer<Response> {
    body.check_names("a token", &["resource_class", "nickname", "org_id"])?;
    let class = body.0["resource_class"].as_str().unwrap_or_default().to_owned();
    let nickname = note(&body, "nickname")?;
    let secret = new_token("rlc_")?;
    let token = ClassTokenRow { id: ClassTokenId::fresh(), nickname, created_at: Millis::now() };
    let mut answer = shown_token(&class, &token);
    answer["token"] = json!(secret);
    let unknown = ApiError::not_found(format!("there is no resource class `{class}`"));
    let hash = token_hash(&secret);
    if !state.store.write(move |tx| classes::add_token(tx, &class, &token, &hash)).await? {
        return Err(unknown);
    }
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

async fn delete_token(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(id): Path<ClassTokenId>,
) -> Answer<Json<Value>> {
    let unknown = ApiError::not_found(format!("there is no token with the id `{id}`"));
    let removed = state.store.write(move |tx| classes::delete_token(tx, &id)).await?;
    if removed { Ok(message("Deleted.")) } else { Err(unknown) }
}
