//! GitHub Apps of projects and organisations, for administrators; private keys go in only.

use crate::protocol::Secret;
use crate::server::api::ours::connections::token_of;
use crate::server::api::shared::failure::{Answer, ApiError, bad};
use crate::server::api::shared::input::{JsonBody, Path, message};
use crate::server::api::shared::lookup::{organisation, project};
use crate::server::auth::Administrator;
use crate::server::pipelines::forge::installation::{self, LAST};
use crate::server::secrets::app::{self, App, FoundApp, Rights};
use crate::server::state::Shared;
use crate::server::store::tables::apps::{self, AppOwner};
use crate::server::store::{Tx, View};
use crate::server::time::Millis;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v2/project/{vcs}/{org}/{repo}/github-app", get(show).put(set).delete(delete))
        .route("/api/v2/organization/{vcs}/{org}/github-app", get(show).put(set).delete(delete))
}

const KNOWN: [&str; 3] = ["app_id", "installation_id", "private_key"];

/// The segments of a path that name a project or, without the last one, an organisation.
#[derive(Deserialize)]
struct Named {
    vcs: String,
    org: String,
    repo: Option<String>,
}

/// Finds the owner that a path names, with its slug.
async fn named(state: &Shared, Named { vcs, org, repo }: Named) -> Answer<(AppOwner, String)> {
    match repo {
        Some(repo) => {
            let project = project(state, (vcs, org, repo)).await?;
            Ok((AppOwner::Project(project.id), project.slug))
        }
        None => {
            let slug = format!("{vcs}/{org}");
            Ok((AppOwner::Organisation(organisation(state, None, Some(&slug)).await?), slug))
        }
    }
}

async fn show(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(path): Path<Named>,
) -> Answer<Json<Value>> {
    let owner = named(&state, path).await?;
    shown(&state, owner).await
}

async fn shown(state: &Shared, (owner, slug): (AppOwner, String)) -> Answer<Json<Value>> {
    let (sealer, asked) = (state.settings.sealer.clone(), owner.clone());
    let read = move |view: &View| match &asked {
        AppOwner::Project(project) => {
            Ok((app::of_project(view, &sealer, project)?, token_of(view, project)?))
        }
        AppOwner::Organisation(_) => {
            let app = app::of_owner(view, &sealer, &asked)?;
            Ok((app.map(|app| FoundApp { owner: asked, app }), None))
        }
    };
    let (found, token_of) = state.store.read(read).await?;
    let none = || {
        ApiError::not_found(format!("`{slug}` has no GitHub App: `runlet admin github-app set {slug} ID`"))
    };
    let FoundApp { owner: of, app } = found.ok_or_else(none)?;
    let mut shown = match app {
        Ok(App { id, installation, .. }) => json!({ "app_id": id, "installation_id": installation }),
        Err(why) => json!({ "message": format!("it cannot be opened: {why}; set it again") }),
    };
    shown["of"] = json!(match of {
        AppOwner::Project(_) => "project",
        AppOwner::Organisation(_) => "organization",
    });
    if let AppOwner::Project(project) = &owner {
        shown["token_of"] = json!(token_of);
        // The person who asks may have changed something there.
        state.installations.forget_all();
        for (name, rights) in [("statuses", Rights::Statuses), ("contents", Rights::Contents)] {
            let got = installation::token(state, project, rights, LAST).await?;
            shown[name] = match got {
                Some(Ok(_)) => json!("granted"),
                Some(Err(why)) => json!(why.to_string()),
                None => Value::Null,
            };
        }
    }
    Ok(Json(shown))
}

async fn set(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(path): Path<Named>,
    body: JsonBody,
) -> Answer<Json<Value>> {
    let of = named(&state, path).await?;
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
    shown(&state, of).await
}

async fn delete(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(path): Path<Named>,
) -> Answer<Json<Value>> {
    let (owner, slug) = named(&state, path).await?;
    if state.store.write(move |tx| apps::delete(tx, &owner)).await? {
        return Ok(message("Deleted."));
    }
    Err(ApiError::not_found(format!("`{slug}` has no GitHub App of its own")))
}
