//! SSH keys for the repository of a project: `checkout-key` of v2 and v1.1. The private halves never come out.

use crate::server::api::shared::failure::{Answer, ApiError, bad, conflict};
use crate::server::api::shared::input::{JsonBody, Path, QueryWords, message};
use crate::server::api::shared::lookup::{Slug, project};
use crate::server::api::shared::paging::whole;
use crate::server::api::shared::vocabulary::time;
use crate::server::auth::{Administrator, Person};
use crate::server::secrets::access::{self, Access, KeyKind, MOST_KEYS, SshKey};
use crate::server::secrets::sealer::SealError;
use crate::server::secrets::ssh_key::{Pair, fingerprints, make};
use crate::server::state::Shared;
use crate::server::store::Tx;
use crate::server::store::read::Project;
use crate::server::time::Millis;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// A slug in a path, and a fingerprint.
type Fingerprint = (String, String, String, String);

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    let path = |base: &str| format!("/api/{base}/project/{{vcs}}/{{org}}/{{repo}}/checkout-key");
    let (v2, v1) = (path("v2"), path("v1.1"));
    Router::new()
        .route(&v2, get(list).post(create))
        .route(&format!("{v2}/{{fingerprint}}"), get(one).delete(remove))
        .route(&v1, get(list_v1).post(create_v1))
        .route(&format!("{v1}/{{fingerprint}}"), get(one_v1).delete(remove))
}

/// Whether a query asks for fingerprints by SHA-256, rather than by MD5.
fn wants_sha256(words: &QueryWords) -> Answer<bool> {
    match words.get("digest").map(String::as_str) {
        None | Some("md5") => Ok(false),
        Some("sha256") => Ok(true),
        Some(other) => Err(bad(format!("`digest` is md5 or sha256, not `{other}`"))),
    }
}

fn shown(key: &SshKey, is_first: bool, by_sha256: bool) -> Value {
    let (md5, sha256) = fingerprints(&key.public);
    json!({
        "public-key": key.public, "type": key.kind, "fingerprint": if by_sha256 { sha256 } else { md5 },
        "preferred": is_first, "created-at": time(Some(key.created_at)),
    })
}

/// A key as version 1.1 writes it.
fn shown_v1(key: &SshKey, is_first: bool) -> Value {
    let kind = match key.kind {
        KeyKind::DeployKey => "deploy-key",
        KeyKind::UserKey => "github-user-key",
    };
    json!({
        "public_key": key.public, "type": kind, "fingerprint": fingerprints(&key.public).0, "login": null,
        "preferred": is_first, "time": time(Some(key.created_at)),
    })
}

fn unopened(project: &Project, why: SealError) -> ApiError {
    conflict(format!(
        "the keys of `{}` cannot be opened: {why} (start the control plane with the key file that it had)",
        project.slug
    ))
}

/// Reads what lets git into the repository of a project.
pub async fn access_of(state: &Shared, project: &Project) -> Answer<Access> {
    let (sealer, id) = (state.settings.sealer.clone(), project.id.clone());
    let opened = state.store.read(move |view| access::open(view, &sealer, &id)).await?;
    opened.map_err(|why| unopened(project, why))
}

/// Changes what lets git into the repository of a project.
pub async fn change_access(
    state: &Shared,
    project: &Project,
    change: impl FnOnce(&mut Access) -> Answer<()> + Send + 'static,
) -> Answer<Access> {
    let (sealer, project) = (state.settings.sealer.clone(), project.clone());
    let write = move |tx: &Tx<'_>| {
        let mut access = match access::open(tx, &sealer, &project.id)? {
            Ok(access) => access,
            Err(why) => return Ok(Err(unopened(&project, why))),
        };
        if let Err(refused) = change(&mut access) {
            return Ok(Err(refused));
        }
        access::keep(tx, &sealer, &project.id, &access, Millis::now())?;
        Ok(Ok(access))
    };
    state.store.write(write).await?
}

/// Puts a key in front of the others.
pub fn add(access: &mut Access, kind: KeyKind, pair: Pair) -> Answer<()> {
    if access.find(&fingerprints(&pair.public).1).is_some() {
        return Err(conflict("the project has this key already"));
    }
    if access.keys.len() >= MOST_KEYS {
        return Err(conflict(format!(
            "the project has {MOST_KEYS} keys, which is the limit: servers hang up on whoever offers more; delete one"
        )));
    }
    let Pair { public, private } = pair;
    access.keys.insert(0, SshKey { kind, public, private, created_at: Millis::now() });
    Ok(())
}

/// Takes a key away.
pub fn delete(access: &mut Access, fingerprint: &str, slug: &str) -> Answer<()> {
    let at = access.find(fingerprint).ok_or_else(|| unknown(fingerprint, slug))?;
    access.keys.remove(at);
    Ok(())
}

fn unknown(fingerprint: &str, slug: &str) -> ApiError {
    let shown: String = fingerprint.chars().filter(|c| !c.is_control()).take(80).collect();
    ApiError::not_found(format!("the project `{slug}` has no checkout key with the fingerprint `{shown}`"))
}

/// Makes a key. Its public half is for the forge.
pub fn fresh(project: &Project) -> Answer<Pair> {
    make(&format!("runlet {}", project.slug)).ok_or_else(ApiError::internal)
}

async fn list(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): Path<Slug>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let by_sha256 = wants_sha256(&words)?;
    let project = project(&state, slug).await?;
    let keys = access_of(&state, &project).await?.keys;
    Ok(whole(keys.iter().enumerate().map(|(at, key)| shown(key, at == 0, by_sha256)).collect()))
}

async fn list_v1(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): Path<Slug>,
) -> Answer<Json<Value>> {
    let project = project(&state, slug).await?;
    let keys = access_of(&state, &project).await?.keys;
    Ok(Json(keys.iter().enumerate().map(|(at, key)| shown_v1(key, at == 0)).collect()))
}

async fn found(state: &Shared, (vcs, org, repo, fingerprint): Fingerprint) -> Answer<(SshKey, bool)> {
    let project = project(state, (vcs, org, repo)).await?;
    let access = access_of(state, &project).await?;
    let at = access.find(&fingerprint).ok_or_else(|| unknown(&fingerprint, &project.slug))?;
    Ok((access.keys[at].clone(), at == 0))
}

async fn one(
    State(state): State<Shared>,
    _person: Person,
    Path(path): Path<Fingerprint>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let by_sha256 = wants_sha256(&words)?;
    let (key, is_first) = found(&state, path).await?;
    Ok(Json(shown(&key, is_first, by_sha256)))
}

async fn one_v1(
    State(state): State<Shared>,
    _person: Person,
    Path(path): Path<Fingerprint>,
) -> Answer<Json<Value>> {
    let (key, is_first) = found(&state, path).await?;
    Ok(Json(shown_v1(&key, is_first)))
}

async fn made(state: &Shared, slug: Slug, body: &JsonBody) -> Answer<SshKey> {
    let kind = match body.text("type")? {
        "deploy-key" => KeyKind::DeployKey,
        "user-key" | "github-user-key" => KeyKind::UserKey,
        other => return Err(bad(format!("`type` is deploy-key or user-key, not `{other}`"))),
    };
    let project = project(state, slug).await?;
    let pair = fresh(&project)?;
    let access = change_access(state, &project, move |access| add(access, kind, pair)).await?;
    access.keys.into_iter().next().ok_or_else(ApiError::internal)
}

async fn create(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(slug): Path<Slug>,
    words: QueryWords,
    body: JsonBody,
) -> Answer<Response> {
    // Before the key is made: a caller who is refused has none.
    let by_sha256 = wants_sha256(&words)?;
    let key = made(&state, slug, &body).await?;
    Ok((StatusCode::CREATED, Json(shown(&key, true, by_sha256))).into_response())
}

async fn create_v1(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(slug): Path<Slug>,
    body: JsonBody,
) -> Answer<Response> {
    let key = made(&state, slug, &body).await?;
    Ok((StatusCode::CREATED, Json(shown_v1(&key, true))).into_response())
}

async fn remove(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path((vcs, org, repo, fingerprint)): Path<Fingerprint>,
) -> Answer<Json<Value>> {
    let project = project(&state, (vcs, org, repo)).await?;
    let slug = project.slug.clone();
    change_access(&state, &project, move |access| delete(access, &fingerprint, &slug)).await?;
    Ok(message("ok"))
}
