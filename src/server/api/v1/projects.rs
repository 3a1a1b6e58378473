//! Projects, as whoever follows them sees them, and the switches that they have here.

use crate::server::api::shared::failure::{Answer, Failure, bad};
use crate::server::api::shared::input::{Body, Path, Words};
use crate::server::api::shared::lookup::{Slug, one, project};
use crate::server::api::shared::paging::page;
use crate::server::api::shared::slug::long_vcs;
use crate::server::auth::{Administrator, Person};
use crate::server::state::Shared;
use crate::server::store::read::{self, PersonRow, ProjectRef};
use crate::server::store::tables::archives;
use crate::server::store::tables::projects::{self as table, ProjectSettings};
use axum::extract::State;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    let project = "/api/v1.1/project/{vcs}/{org}/{repo}";
    Router::new()
        .route("/api/v1.1/me", get(me))
        .route("/api/v1.1/projects", get(all))
        .route("/api/private/me/followed-projects", get(followed))
        .route(&format!("{project}/follow"), post(follow))
        .route(&format!("{project}/build-cache"), delete(forget_caches))
        .route(&format!("{project}/settings"), get(settings).put(change_settings))
}

async fn me(State(state): State<Shared>, person: Person) -> Answer<Json<Value>> {
    let what = format!("there is no user `{}`", person.id);
    let PersonRow { id, login, name } = one(&state, what, move |view| read::person(view, &person.id)).await?;
    Ok(Json(json!({
        "login": login, "name": name, "selected_email": null, "avatar_url": null, "analytics_id": id,
        "projects": {},
    })))
}

async fn all(State(state): State<Shared>, _person: Person) -> Answer<Json<Value>> {
    let show = |project: &ProjectRef| {
        json!({
            "vcs_type": long_vcs(&project.vcs), "username": project.org, "reponame": project.repo, "name": project.repo,
            "slug": project.slug(), "vcs_url": project.repository_url.as_deref().unwrap_or_default(),
            "default_branch": project.default_branch, "following": true, "branches": {},
        })
    };
    let all = state.store.read(read::project_refs).await?;
    Ok(Json(all.iter().map(show).collect::<Vec<_>>().into()))
}

/// The same projects, in the pages that one client of version 2 reads.
async fn followed(State(state): State<Shared>, _person: Person, words: Words) -> Answer<Json<Value>> {
    let show = |project: &ProjectRef| {
        let slug = project.slug();
        let shown = json!({ "name": project.repo, "slug": slug, "vcs_type": long_vcs(&project.vcs) });
        (slug, shown)
    };
    let all = state.store.read(read::project_refs).await?;
    let mut shown: Vec<_> = all.iter().map(show).collect();
    shown.sort_by(|(one, _), (other, _)| one.cmp(other));
    page(shown, &words)
}

/// Everybody sees every project here, so following changes nothing.
async fn follow(State(state): State<Shared>, _person: Person, Path(slug): Path<Slug>) -> Answer<Json<Value>> {
    project(&state, slug).await?;
    Ok(Json(json!({ "following": true, "followed": true })))
}

/// The next jobs begin without caches, as after a bad one was saved.
async fn forget_caches(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): Path<Slug>,
) -> Answer<Json<Value>> {
    let project = project(&state, slug).await?;
    let count = state.store.write(move |tx| archives::delete_caches_of(tx, &project.id)).await?;
    Ok(Json(json!({ "status": format!("build dependency caches deleted: {count}") })))
}

fn show_settings(settings: ProjectSettings) -> Json<Value> {
    let on = settings.enable_auto_cancel_redundant_workflows;
    Json(json!({ "feature_flags": { "autocancel-builds": on } }))
}

async fn settings(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): Path<Slug>,
) -> Answer<Json<Value>> {
    let project = project(&state, slug).await?;
    let what = format!("there is no project `{}`", project.slug);
    Ok(show_settings(one(&state, what, move |view| table::settings(view, &project.id)).await?))
}

async fn change_settings(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(slug): Path<Slug>,
    body: Body,
) -> Answer<Json<Value>> {
    let flags = body.0["feature_flags"].as_object().cloned().unwrap_or_default();
    if let Some(unknown) = flags.keys().find(|name| *name != "autocancel-builds") {
        return Err(bad(format!(
            "the feature flag `{unknown}` is not available here (available: autocancel-builds)"
        )));
    }
    let on = match flags.get("autocancel-builds") {
        Some(flag) => Some(flag.as_bool().ok_or_else(|| bad("`autocancel-builds` must be true or false"))?),
        None => None,
    };
    let project = project(&state, slug).await?;
    let what = format!("there is no project `{}`", project.slug);
    let changed = state.store.write(move |tx| {
        let Some(mut settings) = table::settings(tx, &project.id)? else { return Ok(None) };
        if let Some(on) = on {
            settings.enable_auto_cancel_redundant_workflows = on;
            table::set_settings(tx, &project.id, &settings)?;
        }
        Ok(Some(settings))
    });
    let settings = changed.await?.ok_or_else(|| Failure::not_found(what))?;
    Ok(show_settings(settings))
}
