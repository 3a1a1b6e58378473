//! Names that the command line looks up: namespaces of resource classes, and its own releases.

use crate::protocol::ResourceClass;
use crate::server::api::shared::failure::{Answer, ApiError, bad};
use crate::server::api::shared::input::{JsonBody, QueryWords};
use crate::server::api::shared::lookup::organisation;
use crate::server::api::v3::form::{entity, list, needed};
use crate::server::auth::{Administrator, Person};
use crate::server::state::Shared;
use crate::server::store::View;
use crate::server::store::read;
use crate::server::store::tables::classes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

/// The command line of CircleCI, as releases call it.
const COMMAND_LINE: &str = "circleci-cli";
/// Newest release that this API was compared with, and the beginning of the month in which that came out.
const RELEASE: (&str, &str) = ("1.0.48692", "2026-08-01T00:00:00.000Z");

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v3/namespaces", get(namespace).post(create_namespace))
        .route("/api/v3/tool/releases", get(releases))
}

/// A namespace is the first part of names of resource classes; nothing is stored of it, so its id is made of its name.
fn show(name: &str) -> Value {
    json!({ "id": id_of("namespace", name), "attributes": { "name": name }, "references": {} })
}

/// The id of what has nothing but a name: always the same.
fn id_of(kind: &str, name: &str) -> String {
    let mut bytes = [0; 16];
    let hash = digest(&SHA256, format!("{kind} {name}").as_bytes());
    bytes.iter_mut().zip(hash.as_ref()).for_each(|(byte, of)| *byte = *of);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// A namespace is there once a class is in it, and where an organisation has its name.
async fn namespace(State(state): State<Shared>, _person: Person, words: QueryWords) -> Answer<Json<Value>> {
    let name = needed(&words, "name")?.to_owned();
    let wanted = name.clone();
    let read = move |view: &View| {
        let of_class = |class: &classes::Class| class.name.split('/').next() == Some(&*wanted);
        Ok(classes::list_classes(view)?.iter().any(of_class)
            || read::organisations(view)?.iter().any(|organisation| organisation.name == wanted))
    };
    if state.store.read(read).await? {
        return Ok(entity(show(&name)));
    }
    Err(ApiError::not_found(format!(
        "there is no namespace `{name}`: it comes with its first resource class (`runlet admin resource-class create {name}/NAME`)"
    )))
}

/// Every administrator may make classes in any namespace, so nothing is claimed: the answer says that the name is good.
async fn create_namespace(
    State(state): State<Shared>,
    _admin: Administrator,
    body: JsonBody,
) -> Answer<Response> {
    let name = body.text("name")?;
    ResourceClass::new(&format!("{name}/class"))
        .map_err(|_| bad(format!("`{name}` cannot be the namespace of resource classes")))?;
    if let Some(id) = body.optional_text("org_id")?.filter(|id| !id.is_empty()) {
        organisation(&state, Some(id), None).await?;
    }
    Ok((StatusCode::CREATED, entity(show(name))).into_response())
}

/// The release that this API was compared with: asked for before there is a token.
async fn releases(words: QueryWords) -> Answer<Json<Value>> {
    if needed(&words, "tool")? != COMMAND_LINE {
        return Ok(list(Vec::new(), None));
    }
    let (version, published_at) = RELEASE;
    let attributes = json!({ "tool": COMMAND_LINE, "version": version, "published_at": published_at });
    Ok(list(
        vec![json!({ "id": id_of("release", version), "attributes": attributes, "references": {} })],
        None,
    ))
}
