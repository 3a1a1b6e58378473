//! Scheduled pipelines (v2).

use crate::server::api::shared::failure::{Answer, ApiError, bad, conflict};
use crate::server::api::shared::input::{JsonBody, Path, QueryWords, message};
use crate::server::api::shared::lookup::{Slug, one, project};
use crate::server::api::shared::paging::page;
use crate::server::auth::{Administrator, Person};
use crate::server::ids::ScheduleId;
use crate::server::pipelines::forge::schedule::SYSTEM;
use crate::server::pipelines::forge::timetable;
use crate::server::pipelines::triggers::{check_sizes, reference};
use crate::server::state::Shared;
use crate::server::store::View;
use crate::server::store::read;
use crate::server::store::tables::schedules::{self, Damaged, ScheduledPipeline, Timetable};
use crate::server::time::Millis;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Schedules of one project.
const MOST: usize = 100;

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v2/project/{vcs}/{org}/{repo}/schedule", get(list).post(create))
        .route("/api/v2/schedule/{id}", get(one_of).patch(change).delete(remove))
}

fn shown(schedule: &ScheduledPipeline, slug: &str) -> Value {
    let (created, updated) = (schedule.created_at.to_string(), schedule.updated_at.to_string());
    let actor = json!({ "id": schedule.actor, "login": schedule.actor_login, "name": schedule.actor_login });
    json!({
        "id": schedule.id, "name": schedule.name, "description": schedule.description,
        "timetable": schedule.timetable, "parameters": schedule.parameters, "project-slug": slug, "actor": actor,
        "created-at": created, "created_at": created, "updated-at": updated, "updated_at": updated,
    })
}

async fn list(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): Path<Slug>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let project = project(&state, slug).await?;
    let id = project.id.clone();
    let (found, damaged) = state.store.read(move |view| schedules::list(view, Some(&id))).await?;
    let items = found.iter().enumerate().map(|(at, one)| (format!("{at:04}"), shown(one, &project.slug)));
    let Json(mut listed) = page(items.collect(), &words)?;
    let shown = |one: &Damaged| json!({ "id": one.id, "name": one.name, "message": is_damaged(one) });
    listed["damaged"] = damaged.iter().map(shown).collect();
    Ok(Json(listed))
}

/// The sentence about a schedule that cannot be read.
fn is_damaged(Damaged { id, name }: &Damaged) -> String {
    let name = name.as_ref().map_or_else(String::new, |name| format!("`{name}` "));
    format!(
        "the schedule {name}({id}) is damaged in the database and does not run: delete it and make it anew"
    )
}

/// Names in a body. Clients send back what they were shown.
const KNOWN: [&str; 10] = [
    "name",
    "description",
    "timetable",
    "parameters",
    "attribution-actor",
    "id",
    "created-at",
    "updated-at",
    "project-slug",
    "actor",
];

/// Reads a schedule from a body; parts without a name in it stay. The caller may be the one in whose name it runs.
fn described(body: &JsonBody, was: ScheduledPipeline, person: &Person) -> Answer<ScheduledPipeline> {
    let mut schedule = was;
    if !body.0.is_object() {
        return Err(bad("the body must be an object"));
    }
    body.check_names("a schedule", &KNOWN)?;
    if let Some(name) = body.optional_text("name")? {
        if name.trim().is_empty() || name.chars().count() > 200 || name.chars().any(char::is_control) {
            return Err(bad("`name` has 1 to 200 visible characters"));
        }
        schedule.name = name.to_owned();
    }
    if let Some(text) = body.optional_text("description")? {
        if text.chars().count() > 2000 {
            return Err(bad("`description` has at most 2000 characters"));
        }
        schedule.description = text.to_owned();
    }
    if let Some(given) = body.0.get("timetable") {
        let table: Timetable = serde_json::from_value(given.clone())
            .map_err(|error| bad(format!("`timetable` is not one: {error}")))?;
        timetable::check(&table).map_err(|why| bad(format!("`timetable`: {why}")))?;
        schedule.timetable = table;
    }
    if let Some(given) = body.0.get("parameters") {
        let parameters: BTreeMap<String, Value> = serde_json::from_value(given.clone())
            .map_err(|_| bad("`parameters` must be an object, with `branch` or `tag` in it"))?;
        let text = |name: &str| match parameters.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(bad(format!("`parameters.{name}` must be a string"))),
        };
        let wanted = reference(text("branch")?, text("tag")?).map_err(bad)?;
        if wanted.is_none() {
            return Err(bad("`parameters` names what is built: give it `branch` or `tag`"));
        }
        check_sizes(&parameters).map_err(bad)?;
        schedule.parameters = parameters;
    }
    match body.optional_text("attribution-actor")? {
        None => {}
        Some("current") => {
            schedule.actor = Some(person.id.clone());
            schedule.actor_login = person.login.clone();
        }
        Some("system") => {
            schedule.actor = None;
            schedule.actor_login = SYSTEM.to_owned();
        }
        Some(other) => {
            return Err(bad(format!("`attribution-actor` is `current` or `system`, not `{other}`")));
        }
    }
    Ok(schedule)
}

async fn create(
    State(state): State<Shared>,
    Administrator(person): Administrator,
    Path(slug): Path<Slug>,
    body: JsonBody,
) -> Answer<Response> {
    body.check_names("a schedule", &KNOWN)?;
    for needed in ["name", "timetable", "attribution-actor", "parameters"] {
        if body.0[needed].is_null() {
            return Err(bad(format!("`{needed}` is missing")));
        }
    }
    let project = project(&state, slug).await?;
    let now = Millis::now();
    let fresh = ScheduledPipeline {
        id: ScheduleId::fresh(),
        project: project.id,
        name: String::new(),
        description: String::new(),
        timetable: Timetable {
            per_hour: 1,
            hours_of_day: Vec::new(),
            days_of_week: Vec::new(),
            days_of_month: Vec::new(),
            months: Vec::new(),
        },
        parameters: BTreeMap::new(),
        actor: None,
        actor_login: String::new(),
        created_at: now,
        updated_at: now,
        last: now,
    };
    let schedule = described(&body, fresh, &person)?;
    let answer = shown(&schedule, &project.slug);
    let added = state.store.write(move |tx| {
        if schedules::count(tx, &schedule.project)? >= MOST {
            return Ok(false);
        }
        schedules::set(tx, &schedule).map(|()| true)
    });
    if !added.await? {
        return Err(bad(format!("a project has at most {MOST} schedules: delete one first")));
    }
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// A schedule, and the slug of its project.
async fn find(state: &Shared, id: ScheduleId) -> Answer<(ScheduledPipeline, String)> {
    let what = format!("there is no schedule `{id}`");
    let read = move |view: &View| {
        Ok(match schedules::find(view, &id)? {
            Some(Ok(schedule)) => {
                let slug = read::project_slug(view, &schedule.project)?;
                slug.map(|slug| Ok((schedule, slug)))
            }
            Some(Err(damaged)) => Some(Err(conflict(is_damaged(&damaged)))),
            None => None,
        })
    };
    one(state, what, read).await?
}

async fn one_of(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<ScheduleId>,
) -> Answer<Json<Value>> {
    let (schedule, slug) = find(&state, id).await?;
    Ok(Json(shown(&schedule, &slug)))
}

async fn change(
    State(state): State<Shared>,
    Administrator(person): Administrator,
    Path(id): Path<ScheduleId>,
    body: JsonBody,
) -> Answer<Json<Value>> {
    let (was, slug) = find(&state, id).await?;
    let mut schedule = described(&body, was.clone(), &person)?;
    schedule.updated_at = Millis::now();
    if schedule.timetable != was.timetable {
        // Times that lie before the change are not made up for.
        schedule.last = schedule.updated_at;
    }
    let answer = shown(&schedule, &slug);
    state.store.write(move |tx| schedules::set(tx, &schedule)).await?;
    Ok(Json(answer))
}

async fn remove(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(id): Path<ScheduleId>,
) -> Answer<Json<Value>> {
    let unknown = ApiError::not_found(format!("there is no schedule `{id}`"));
    if state.store.write(move |tx| schedules::delete(tx, &id)).await? {
        return Ok(message("Schedule deleted."));
    }
    Err(unknown)
}
