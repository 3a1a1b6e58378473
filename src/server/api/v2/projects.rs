//! Organisations and projects: made, listed, given a repository, removed.
//!
//! Making them is CircleCI's; the list, the repository and the removal are our own.

use crate::protocol::TaskId;
use crate::server::api::shared::failure::{Answer, bad, blocking, conflict};
use crate::server::api::shared::input::{JsonBody, Path, QueryWords, message};
use crate::server::api::shared::lookup::{organisation, project};
use crate::server::api::shared::paging::page;
use crate::server::api::shared::slug::short_vcs;
use crate::server::auth::{Administrator, Person};
use crate::server::ids::{OrganisationId, ProjectId};
use crate::server::pipelines::repository::address;
use crate::server::state::Shared;
use crate::server::store::Tx;
use crate::server::store::read;
use crate::server::store::read::Project;
use crate::server::store::tables::{forge, keeping, projects};
use crate::server::time::Millis;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

type Slug = Path<(String, String, String)>;

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v2/organization", post(create_organisation))
        .route("/api/v2/organization/{vcs}/{org}/project", post(create))
        .route("/api/v2/project", get(list))
        .route("/api/v2/project/{vcs}/{org}/{repo}", get(one).patch(change).delete(remove))
}

fn shown(project: &Project) -> Value {
    let mut parts = project.slug.splitn(3, '/');
    let (vcs, org, repo) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let (provider, host) = match vcs {
        "gh" => ("GitHub", Some("github.com")),
        "bb" => ("Bitbucket", Some("bitbucket.org")),
        _ => ("CircleCI", None),
    };
    let url = project.repository_url.clone().or_else(|| Some(format!("https://{}/{org}/{repo}", host?)));
    json!({
        "id": project.id, "slug": project.slug, "name": repo, "organization_name": org,
        "organization_slug": format!("{vcs}/{org}"), "organization_id": project.organisation,
        "vcs_info": { "vcs_url": url.unwrap_or_default(), "provider": provider, "default_branch": project.default_branch },
        "repository_url": project.repository_url,
    })
}

/// Checks a part of a slug, which becomes a part of paths and URLs.
fn check_part(what: &str, text: &str) -> Answer<()> {
    let good = (1..=200).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !text.bytes().all(|b| b == b'.');
    if good {
        return Ok(());
    }
    let shown: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
    Err(bad(format!(
        "`{shown}` cannot be the {what} in a slug: it has 1 to 200 letters, digits, `.`, `_` and `-`"
    )))
}

/// Reads the repository that a body names. It is fetched with the rights of the control plane, which is one of the
/// reasons why projects are for administrators.
fn repository(body: &JsonBody) -> Answer<Option<String>> {
    let Some(url) = body.optional_text("repository_url")?.filter(|url| !url.is_empty()) else {
        return Ok(None);
    };
    address::check(url).map_err(bad)?;
    Ok(Some(url.to_owned()))
}

fn default_branch(body: &JsonBody) -> Answer<Option<String>> {
    let Some(branch) = body.optional_text("default_branch")?.filter(|b| !b.is_empty()) else {
        return Ok(None);
    };
    address::check_ref(branch).map_err(bad)?;
    Ok(Some(branch.to_owned()))
}

async fn create_organisation(
    State(state): State<Shared>,
    _admin: Administrator,
    body: JsonBody,
) -> Answer<Response> {
    body.check_names("an organisation", &["name", "vcs_type"])?;
    let (name, vcs) = (body.text("name")?.to_owned(), short_vcs(body.text("vcs_type")?).to_owned());
    check_part("version control system", &vcs)?;
    check_part("organisation", &name)?;
    let id = OrganisationId::fresh();
    let answer = json!({ "id": id, "name": name, "slug": format!("{vcs}/{name}"), "vcs_type": vcs });
    let made = state.store.write(move |tx| projects::add_organisation(tx, &id, &vcs, &name, Millis::now()));
    if !made.await? {
        return Err(conflict(format!(
            "the organisation `{}` exists already",
            answer["slug"].as_str().unwrap_or_default()
        )));
    }
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

async fn create(
    State(state): State<Shared>,
    _admin: Administrator,
    Path((vcs, org)): Path<(String, String)>,
    body: JsonBody,
) -> Answer<Response> {
    body.check_names("a project", &["name", "repository_url", "default_branch"])?;
    let (vcs, name) = (short_vcs(&vcs).to_owned(), body.text("name")?.to_owned());
    check_part("version control system", &vcs)?;
    check_part("organisation", &org)?;
    check_part("project", &name)?;
    let url = repository(&body)?;
    let branch = default_branch(&body)?;
    let slug = format!("{vcs}/{org}/{name}");
    let wanted = slug.clone();
    let made = state.store.write(move |tx| {
        if read::project_by_slug(tx, &wanted)?.is_some() {
            return Ok(None);
        }
        let id = projects::ensure_project(tx, &wanted, url.as_deref(), Millis::now())?.project;
        if let Some(branch) = &branch {
            projects::set_repository(tx, &id, url.as_deref(), branch)?;
        }
        read::project(tx, &id)
    });
    let project = made.await?.ok_or_else(|| conflict(format!("the project `{slug}` exists already")))?;
    Ok((StatusCode::CREATED, Json(shown(&project))).into_response())
}

async fn list(State(state): State<Shared>, _person: Person, words: QueryWords) -> Answer<Json<Value>> {
    let owner = match words.get("org-slug").filter(|slug| !slug.is_empty()) {
        Some(slug) => Some(organisation(&state, None, Some(slug)).await?),
        None => None,
    };
    let projects = state.store.read(move |c| read::projects_of_some(c, owner.as_ref())).await?;
    page(projects.into_iter().map(|project| (project.slug.clone(), shown(&project))).collect(), &words)
}

async fn one(State(state): State<Shared>, _person: Person, Path(slug): Slug) -> Answer<Json<Value>> {
    Ok(Json(shown(&project(&state, slug).await?)))
}

async fn change(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(slug): Slug,
    body: JsonBody,
) -> Answer<Json<Value>> {
    let mut project = project(&state, slug).await?;
    if !body.0.is_object() {
        return Err(bad("the body must be an object with `repository_url`, `default_branch` or both"));
    }
    body.check_names("a project", &["repository_url", "default_branch"])?;
    let before = project.repository_url.clone();
    if body.0.get("repository_url").is_some() {
        project.repository_url = repository(&body)?;
    }
    if let Some(branch) = default_branch(&body)? {
        project.default_branch = branch;
    }
    let (row, is_moved) = (project.clone(), before != project.repository_url);
    let write = move |tx: &Tx<'_>| {
        if is_moved {
            forge::forget_refs(tx, &row.id)?;
        }
        projects::set_repository(tx, &row.id, row.repository_url.as_deref(), &row.default_branch)
    };
    state.store.write(write).await?;
    if before != project.repository_url {
        // Refs that were fetched from elsewhere must not be found under the same names.
        state.settings.mirrors.forget(project.id.as_str()).await;
    }
    Ok(Json(shown(&project)))
}

async fn remove(State(state): State<Shared>, _admin: Administrator, Path(slug): Slug) -> Answer<Json<Value>> {
    let project = project(&state, slug).await?;
    let id = project.id.clone();
    let busy = || {
        let slug = &project.slug;
        conflict(format!("workflows of `{slug}` have not ended: cancel them or wait for them"))
    };
    if state.store.read(move |view| projects::has_unfinished_workflows(view, &id)).await? {
        return Err(busy());
    }
    delete_pipelines(&state, &project.id).await?;
    let id = project.id.clone();
    let tasks = state
        .store
        .write(move |tx| {
            if projects::has_unfinished_workflows(tx, &id)? {
                return Ok(None);
            }
            let tasks = projects::list_tasks(tx, &id)?;
            projects::delete_project(tx, &id)?;
            Ok(Some(tasks))
        })
        .await?;
    let Some(tasks) = tasks else { return Err(busy()) };
    state.settings.mirrors.forget(project.id.as_str()).await;
    remove_outputs(&state, tasks).await?;
    Ok(message("Project deleted."))
}

/// Deletes the pipelines of a project that have ended a part at a time, so that no other write waits for all of them.
async fn delete_pipelines(state: &Shared, project: &ProjectId) -> Answer<()> {
    const MOST: u32 = 500;
    loop {
        let id = project.clone();
        let some = state.store.read(move |view| keeping::pipelines_of(view, &id, MOST)).await?;
        if some.is_empty() {
            return Ok(());
        }
        for pipeline in some {
            loop {
                let (id, of) = (pipeline.clone(), project.clone());
                let part = state.store.write(move |tx| {
                    // A workflow may have been triggered meanwhile: the project stays, with what is left.
                    if projects::has_unfinished_workflows(tx, &of)? {
                        return Ok(None);
                    }
                    keeping::delete_part_of_pipeline(tx, &id, MOST).map(Some)
                });
                let Some((tasks, is_gone)) = part.await? else { return Ok(()) };
                remove_outputs(state, tasks).await?;
                if is_gone {
                    break;
                }
            }
        }
    }
}

async fn remove_outputs(state: &Shared, tasks: Vec<TaskId>) -> Answer<()> {
    let blobs = state.blobs.clone();
    blocking(move || {
        for task in tasks {
            blobs.outputs.remove(&task);
        }
        Ok(())
    })
    .await
}
