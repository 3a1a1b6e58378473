//! The person who is asking, organisations, and projects.

use crate::server::api::shared::failure::{Answer, bad};
use crate::server::api::shared::input::Words;
use crate::server::api::shared::lookup::one;
use crate::server::api::shared::slug::{short_slug, short_vcs};
use crate::server::api::v3::form::{entity, filter, list, needed};
use crate::server::auth::Person;
use crate::server::ids::{OrganisationId, ProjectId};
use crate::server::state::Shared;
use crate::server::store::View;
use crate::server::store::read::{self, Organisation, Project};
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v3/users", get(users))
        .route("/api/v3/orgs", get(organisations))
        .route("/api/v3/projects", get(projects))
        .route("/api/v3/projects/{id}", get(project))
}

async fn users(person: Person, words: Words) -> Answer<Json<Value>> {
    let wanted = needed(&words, "user_id")?;
    if wanted != "me" && wanted != person.id.as_str() {
        return Ok(list(Vec::new(), None));
    }
    let attributes = json!({ "name": person.login, "login": person.login });
    Ok(list(vec![json!({ "id": person.id, "attributes": attributes, "references": {} })], None))
}

async fn organisations(State(state): State<Shared>, _person: Person, words: Words) -> Answer<Json<Value>> {
    let slug = needed(&words, "slug")?.to_owned();
    let read = move |view: &View| {
        let (vcs, name) = slug.split_once('/').unwrap_or_default();
        read::organisation_by_name(view, short_vcs(vcs), name)
    };
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

async fn projects(State(state): State<Shared>, _person: Person, words: Words) -> Answer<Json<Value>> {
    let slug = filter(&words, "slug").map(short_slug);
    let organisation = filter(&words, "org_id").map(OrganisationId::from);
    let name = filter(&words, "name").map(str::to_owned);
    let found: Vec<Project> = match (slug, organisation) {
        (Some(slug), _) => {
            let found = state.store.read(move |view| read::project_by_slug(view, &slug)).await?;
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
    let what = format!("there is no project `{id}`");
    Ok(entity(show(&one(&state, what, move |view| read::project(view, &id)).await?)))
}
