//! Projects, as whoever follows them sees them, and the switches that they have here.

use crate::server::api::shared::failure::{Answer, ApiError, bad};
use crate::server::api::shared::input::{JsonBody, Path, QueryWords};
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

/// All projects, in the pages that one client of version 2 reads.
async fn followed(State(state): State<Shared>, _person: Person, words: QueryWords) -> Answer<Json<Value>> {
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

/// The switches by their names in this version.
fn switch<'s>(settings: &'s mut ProjectSettings, name: &str) -> Option<&'s mut bool> {
    match name {
        "autocancel-builds" => Some(&mut settings.enable_auto_cancel_redundant_workflows),
        "build-prs-only" => Some(&mut settings.is_build_prs_only),
        "build-fork-prs" => Some(&mut settings.enable_building_fork_prs),
        "forks-receive-secret-env-vars" => Some(&mut settings.can_pass_secrets_to_fork_pr_jobs),
        "set-github-status" => Some(&mut settings.can_set_github_status),
        _ => None,
    }
}

const SWITCHES: [&str; 5] = [
    "autocancel-builds",
    "build-prs-only",
    "build-fork-prs",
    "forks-receive-secret-env-vars",
    "set-github-status",
];

fn show_settings(mut settings: ProjectSettings) -> Json<Value> {
    let flags: serde_json::Map<String, Value> = SWITCHES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), json!(*switch(&mut settings, name)?))))
        .collect();
    Json(json!({ "feature_flags": flags }))
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
    body: JsonBody,
) -> Answer<Json<Value>> {
    let flags = body.0["feature_flags"].as_object().cloned().unwrap_or_default();
    let mut wanted: Vec<(String, bool)> = Vec::new();
    for (name, value) in flags {
        if !SWITCHES.contains(&name.as_str()) {
            return Err(bad(format!(
                "the feature flag `{name}` is not available here (available: {})",
                SWITCHES.join(", ")
            )));
        }
        let on = value.as_bool().ok_or_else(|| bad(format!("`{name}` must be true or false")))?;
        wanted.push((name, on));
    }
    let project = project(&state, slug).await?;
    let what = format!("there is no project `{}`", project.slug);
    let changed = state.store.write(move |tx| {
        let Some(mut settings) = table::settings(tx, &project.id)? else { return Ok(None) };
        for (name, on) in &wanted {
            if let Some(place) = switch(&mut settings, name) {
                *place = *on;
            }
        }
        table::set_settings(tx, &project.id, &settings)?;
        Ok(Some(settings))
    });
    let settings = changed.await?.ok_or_else(|| ApiError::not_found(what))?;
    Ok(show_settings(settings))
}
