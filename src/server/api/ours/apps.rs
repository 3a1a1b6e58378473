//! GitHub Apps of projects and organisations, for administrators; private keys go in only.

use crate::protocol::Secret;
use crate::server::api::shared::failure::{Answer, Failure, bad};
use crate::server::api::shared::input::{Body, Path, message};
use crate::server::api::shared::lookup::{Slug, organisation, project};
use crate::server::auth::Administrator;
use crate::server::pipelines::forge::installation::{self, LAST};
use crate::server::secrets::app::{self, App, Rights};
use crate::server::state::Shared;
use crate::server::store::Tx;
use crate::server::store::tables::apps::{self, AppOwner};
use crate::server::time::Millis;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new()
        .route(
            "/api/v2/project/{vcs}/{org}/{repo}/github-app",
            get(show_of_project).put(set_of_project).delete(delete_of_project),
        )
        .route(
            "/api/v2/organization/{vcs}/{org}/github-app",
            get(show_of_organisation).put(set_of_organisation).delete(delete_of_organisation),
        )
}

const KNOWN: [&str; 3] = ["app_id", "installation_id", "private_key"];

async fn of_project(state: &Shared, slug: Slug) -> Answer<(AppOwner, String)> {
    let project = project(state, slug).await?;
    Ok((AppOwner::Project(project.id), project.slug))
}

async fn of_organisation(state: &Shared, (vcs, org): (String, String)) -> Answer<(AppOwner, String)> {
    let slug = format!("{vcs}/{org}");
    Ok((AppOwner::Organisation(organisation(state, None, Some(&slug)).await?), slug))
}

async fn show(state: &Shared, (owner, slug): (AppOwner, String)) -> Answer<Json<Value>> {
    let (sealer, of) = (state.settings.sealer.clone(), owner.clone());
    let found = state.store.read(move |view| app::of_owner(view, &sealer, &of)).await?;
    let none =
        || Failure::not_found(format!("`{slug}` has no GitHub App: `runlet admin github-app set {slug} ID`"));
    let mut shown = match found.ok_or_else(none)? {
        Ok(App { id, installation, .. }) => json!({ "app_id": id, "installation_id": installation }),
        Err(why) => json!({ "message": format!("it cannot be opened: {why}; set it again") }),
    };
    if let AppOwner::Project(project) = &owner {
        // Whoever asks may have changed something there.
        state.installations.forget_refusals();
        for (name, rights) in [("statuses", Rights::Statuses), ("contents", Rights::Contents)] {
            let got = installation::token(state, project, rights, LAST).await?;
            shown[name] = match got {
                Some(Ok(_)) => json!("granted"),
                Some(Err(why)) => json!(why),
                None => Value::Null,
            };
        }
    }
    Ok(Json(shown))
}

async fn set(state: &Shared, of: (AppOwner, String), body: Body) -> Answer<Json<Value>> {
    if !body.0.is_object() {
        return Err(bad("the body must be an object"));
    }
    body.check_names("a GitHub App", &KNOWN)?;
    let app = App {
        id: body.text("app_id")?.trim().to_owned(),
        installation: body.optional_text("installation_id")?.map(|id| id.trim().to_owned()),
        key: Secret::new(body.text("private_key")?),
    };
    app.check().map_err(bad)?;
    let (sealer, owner) = (state.settings.sealer.clone(), of.0.clone());
    state.store.write(move |tx: &Tx<'_>| app::keep(tx, &sealer, &owner, &app, Millis::now())).await?;
    show(state, of).await
}

async fn delete(state: &Shared, (owner, slug): (AppOwner, String)) -> Answer<Json<Value>> {
    if state.store.write(move |tx| apps::delete(tx, &owner)).await? {
        return Ok(message("Deleted."));
    }
    Err(Failure::not_found(format!("`{slug}` has no GitHub App")))
}

async fn show_of_project(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(slug): Path<Slug>,
) -> Answer<Json<Value>> {
    show(&state, of_project(&state, slug).await?).await
}

async fn set_of_project(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(slug): Path<Slug>,
    body: Body,
) -> Answer<Json<Value>> {
    set(&state, of_project(&state, slug).await?, body).await
}

async fn delete_of_project(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(slug): Path<Slug>,
) -> Answer<Json<Value>> {
    delete(&state, of_project(&state, slug).await?).await
}

async fn show_of_organisation(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(owner): Path<(String, String)>,
) -> Answer<Json<Value>> {
    show(&state, of_organisation(&state, owner).await?).await
}

async fn set_of_organisation(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(owner): Path<(String, String)>,
    body: Body,
) -> Answer<Json<Value>> {
    set(&state, of_organisation(&state, owner).await?, body).await
}

async fn delete_of_organisation(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(owner): Path<(String, String)>,
) -> Answer<Json<Value>> {
    delete(&state, of_organisation(&state, owner).await?).await
}
