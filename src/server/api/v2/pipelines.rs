//! Pipelines: lists, one of them, its configs; and the end of all its workflows.

use crate::server::api::shared::acts::cancel_pipeline;
use crate::server::api::shared::failure::Answer;
use crate::server::api::shared::input::{Path, QueryWords, accepted};
use crate::server::api::shared::lookup::{Numbered, Slug, one, organisation, project};
use crate::server::api::shared::paging::cursor;
use crate::server::api::shared::slug::provider;
use crate::server::auth::Person;
use crate::server::ids::PipelineId;
use crate::server::state::Shared;
use crate::server::store::read::{self, Filter, Pipeline};
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

/// Pipelines on a page.
const PAGE: usize = 50;

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    let project = "/api/v2/project/{vcs}/{org}/{repo}";
    Router::new()
        .route("/api/v2/pipeline", get(all))
        .route("/api/v2/pipeline/{id}", get(by_id))
        .route("/api/v2/pipeline/{id}/config", get(config))
        .route("/api/v2/pipeline/{id}/cancel", post(cancel))
        .route(&format!("{project}/pipeline"), get(of_project))
        .route(&format!("{project}/pipeline/mine"), get(mine))
        .route(&format!("{project}/pipeline/{{number}}"), get(by_number))
}

fn show(pipeline: &Pipeline) -> Value {
    let created_at = pipeline.created_at.to_string();
    let mut shown = json!({
        "id": pipeline.id, "number": pipeline.number, "project_slug": pipeline.project.slug(), "state": pipeline.state,
        "created_at": created_at, "updated_at": pipeline.updated_at.to_string(),
        "errors": pipeline.errors, "trigger_parameters": pipeline.trigger_parameters,
        "trigger": {
            "type": pipeline.trigger_type, "received_at": created_at,
            "actor": { "login": pipeline.actor_login, "avatar_url": pipeline.actor_avatar },
        },
    });
    if let (Some(url), Some(revision)) = (&pipeline.repository_url, &pipeline.revision) {
        let mut vcs = json!({
            "provider_name": provider(&pipeline.project.vcs), "origin_repository_url": pipeline.origin_url, "target_repository_url": url,
            "revision": revision,
        });
        for (name, value) in [("branch", &pipeline.branch), ("tag", &pipeline.tag)] {
            if let Some(value) = value {
                vcs[name] = json!(value);
            }
        }
        if let Some(subject) = &pipeline.subject {
            vcs["commit"] =
                json!({ "subject": subject, "body": pipeline.body.as_deref().unwrap_or_default() });
        }
        shown["vcs"] = vcs;
    }
    shown
}

async fn list(state: &Shared, filter: Filter, words: &QueryWords) -> Answer<Json<Value>> {
    let after = cursor(words.get("page-token").map(String::as_str), "`page-token`")?;
    let listed = state.store.read(move |view| read::pipelines(view, &filter, after.as_ref(), PAGE)).await?;
    let items: Vec<Value> = listed.items.iter().map(show).collect();
    Ok(Json(json!({ "items": items, "next_page_token": listed.next.map(|next| next.token()) })))
}

async fn all(State(state): State<Shared>, person: Person, words: QueryWords) -> Answer<Json<Value>> {
    let slug = words.get("org-slug").filter(|slug| !slug.is_empty());
    let organisation = match slug {
        Some(slug) => Some(organisation(&state, None, Some(slug)).await?),
        None => None,
    };
    let mine = words.get("mine").is_some_and(|mine| mine == "true");
    let filter = Filter { organisation, actor: mine.then_some(person.id), ..Filter::default() };
    list(&state, filter, &words).await
}

async fn of_project(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): Path<Slug>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let projects = vec![project(&state, slug).await?.id];
    let branch = words.get("branch").filter(|branch| !branch.is_empty()).cloned();
    list(&state, Filter { projects, branch, ..Filter::default() }, &words).await
}

async fn mine(
    State(state): State<Shared>,
    person: Person,
    Path(slug): Path<Slug>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let projects = vec![project(&state, slug).await?.id];
    list(&state, Filter { projects, actor: Some(person.id), ..Filter::default() }, &words).await
}

async fn by_number(
    State(state): State<Shared>,
    _person: Person,
    Path((vcs, org, repo, number)): Path<Numbered>,
) -> Answer<Json<Value>> {
    let project = project(&state, (vcs, org, repo)).await?;
    let what = format!("the project `{}` has no pipeline {number}", project.slug);
    let read = one(&state, what, move |view| read::pipeline_by_number(view, &project.id, number));
    Ok(Json(show(&read.await?)))
}

async fn by_id(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<PipelineId>,
) -> Answer<Json<Value>> {
    let what = format!("there is no pipeline `{id}`");
    Ok(Json(show(&one(&state, what, move |view| read::pipeline(view, &id)).await?)))
}

async fn config(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<PipelineId>,
) -> Answer<Json<Value>> {
    let what = format!("there is no pipeline `{id}`");
    let configs = one(&state, what, move |view| read::configs(view, &id)).await?;
    let mut shown = json!({ "source": configs.source, "compiled": configs.processed });
    let setup = [("setup-config", configs.setup_source), ("compiled-setup-config", configs.setup_processed)];
    for (name, text) in setup {
        if let Some(text) = text {
            shown[name] = text.into();
        }
    }
    Ok(Json(shown))
}

async fn cancel(State(state): State<Shared>, person: Person, Path(id): Path<PipelineId>) -> Answer<Response> {
    cancel_pipeline(&state, id, person).await?;
    Ok(accepted())
}
