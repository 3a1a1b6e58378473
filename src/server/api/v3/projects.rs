//! The person who is asking, organisations, and projects.

use crate::server::api::shared::failure::{Answer, bad};
use crate::server::api::shared::input::{JsonBody, Path, QueryWords};
use crate::server::api::shared::lookup::{organisation, project_by_id};
use crate::server::api::shared::slug::{organisation_named, project_named};
use crate::server::api::v3::form::{check_filters, entity, filter, list, needed, uuid};
use crate::server::auth::{Administrator, Person};
use crate::server::ids::{OrganisationId, ProjectId, UserId};
use crate::server::state::Shared;
use crate::server::store::View;
use crate::server::store::read::{self, Organisation, PersonRow, Project};
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v3/users", get(users))
        .route("/api/v3/orgs", get(organisations))
        .route("/api/v3/projects", get(projects))
        .route("/api/v3/projects/{id}", get(project))
        .route("/api/v3/orgs/{id}/settings", get(organisation_settings))
        .route("/api/v3/orgs/{id}/update-settings", post(update_organisation_settings))
}

async fn users(State(state): State<Shared>, person: Person, words: QueryWords) -> Answer<Json<Value>> {
    check_filters(&words, &["user_id"])?;
    let wanted = needed(&words, "user_id")?;
    if wanted != "me" {
        uuid::<UserId>("filter[user_id]", wanted)?;
    }
    if wanted != "me" && wanted != person.id.as_str() {
        return Ok(list(Vec::new(), None));
    }
    let found = state.store.read(move |view| read::person(view, &person.id)).await?;
    let show = |PersonRow { id, login, name }| json!({ "id": id, "attributes": { "name": name, "login": login }, "references": {} });
    Ok(list(found.into_iter().map(show).collect(), None))
}

async fn organisations(
    State(state): State<Shared>,
    _person: Person,
    words: QueryWords,
) -> Answer<Json<Value>> {
    check_filters(&words, &["slug"])?;
    let slug = needed(&words, "slug")?.to_owned();
    let read = move |view: &View| organisation_named(view, &slug);
    let show =
        |Organisation { id, name, .. }| json!({ "id": id, "attributes": { "name": name }, "references": {} });
    Ok(list(state.store.read(read).await?.into_iter().map(show).collect(), None))
}

fn show(project: &Project) -> Value {
    let name = project.slug.rsplit('/').next().unwrap_or_default();
    json!({
        "id": project.id, "attributes": { "name": name, "slug": project.slug },
        "references": { "org": { "id": project.organisation } },
    })
}

async fn projects(State(state): State<Shared>, _person: Person, words: QueryWords) -> Answer<Json<Value>> {
    let slug = filter(&words, "slug").map(str::to_owned);
    check_filters(&words, &["slug", "org_id", "name"])?;
    let organisation: Option<OrganisationId> =
        filter(&words, "org_id").map(|id| uuid("filter[org_id]", id)).transpose()?;
    let name = filter(&words, "name").map(str::to_owned);
    let found: Vec<Project> = match (slug, organisation) {
        (Some(slug), _) => {
            let found = state.store.read(move |view| project_named(view, &slug)).await?;
            found.into_iter().collect()
        }
        (None, Some(organisation)) => {
            state.store.read(move |view| read::projects_of(view, &organisation, name.as_deref())).await?
        }
        (None, None) => return Err(bad("`filter[slug]` or `filter[org_id]` is missing")),
    };
    Ok(list(found.iter().map(show).collect(), None))
}

async fn project(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<ProjectId>,
) -> Answer<Json<Value>> {
    Ok(entity(show(&project_by_id(&state, id).await?)))
}

/// No setting of a whole organisation has an effect here.
async fn organisation_settings(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<OrganisationId>,
) -> Answer<Json<Value>> {
    organisation(&state, Some(id.as_str()), None).await?;
    Ok(entity(json!({ "attributes": {} })))
}

/// Refuses every setting by its name rather than storing it without effect.
async fn update_organisation_settings(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(id): Path<OrganisationId>,
    body: JsonBody,
) -> Answer<Json<Value>> {
    organisation(&state, Some(id.as_str()), None).await?;
    let changes = body.0.as_object().ok_or_else(|| bad("the body must be an object of settings"))?;
    match changes.keys().next() {
        None => Ok(entity(json!({ "attributes": {} }))),
        Some(name) => Err(bad(format!(
            "the setting `{name}` is not available for organisations on this control plane: see the settings of their projects"
        ))),
    }
}
