//! The audit log: every call by which a person changes what is set up is written down before it is made, and how it
//! was answered afterwards.
//!
//! All calls that change something are taken for such, but for those of everyday work (`EVERYDAY`): a new call is in the log
//! unless somebody decides otherwise. Calls of runners do not come by here. Of a body only what `TOLD` names is kept.

use crate::logging::record;
use crate::protocol::limits::BODY_BYTES;
use crate::server::api::shared::failure::{Answer, ApiError};
use crate::server::api::shared::input::{self, QueryWords};
use crate::server::auth::{Administrator, PeerAddress, Person};
use crate::server::state::Shared;
use crate::server::store::tables::audit::{self, AuditEntry};
use crate::server::time::Millis;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};

/// Words of paths of what people do with pipelines.
const EVERYDAY: [&str; 13] = [
    "pipeline",
    "workflow",
    "workflows",
    "job",
    "runs",
    "cancel",
    "retry",
    "ssh",
    "configs",
    "compile-config-with-defaults",
    "tree",
    // Of forges, and what is tried again of it.
    "hooks",
    "deliveries",
];
/// Fields of bodies that are kept: names, and none that may hold a secret.
const TOLD: [&str; 35] = [
    "name",
    "login",
    "is_admin",
    "user",
    "label",
    "nickname",
    "description",
    "resource_class",
    "org_id",
    "organization_id",
    "budget_seconds",
    "unsafe_retries",
    "is_paused",
    "wait_limit_seconds",
    "begin_limit_seconds",
    "vcs_type",
    "default_branch",
    "repository_url",
    "restriction_type",
    "restriction_value",
    "enable_auto_cancel_redundant_workflows",
    "owner",
    "slug",
    "forge",
    "api_url",
    "repository_id",
    "repository_name",
    "poll_seconds",
    "rotate_secret",
    "takes_untrusted",
    "set_hook",
    "app_id",
    "installation_id",
    "for_jobs",
    "username",
];
/// Longest text that is kept of a field, in characters.
const LONGEST: usize = 200;
/// Longest answer that is looked into for the id of what was made, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024;
/// Acts of one page, unless a call asks for fewer.
const PAGE: u32 = 100;

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new().route("/api/v3/audit-events", get(list))
}

/// Writes a call down, if it is one of those, and makes it.
pub async fn write_down(State(state): State<Shared>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    if !path.is_some_and(|path| is_act(request.method(), &path)) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    // Callers who cannot say who they are are refused, and change nothing.
    let Ok(person) = Person::from_request_parts(&mut parts, &state).await else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    let Ok(bytes) = to_bytes(body, BODY_BYTES).await else {
        let why = format!("the body is longer than {BODY_BYTES} bytes, or was cut off");
        return ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, why).into_response();
    };
    let mut detail = told(&bytes);
    let address = parts.extensions.get::<ConnectInfo<PeerAddress>>();
    let (login, method, path) = (person.login.clone(), parts.method.clone(), parts.uri.path().to_owned());
    let client = address.map(|ConnectInfo(PeerAddress(peer))| peer.ip().to_string()).unwrap_or_default();
    let act = AuditEntry {
        at: Millis::now(),
        user: person.id,
        login: person.login,
        token: person.token,
        address: client.clone(),
        method: method.to_string(),
        path: path.clone(),
        detail: detail.clone(),
        status: None,
    };
    let seq = match state.store.write(move |tx| audit::add(tx, &act)).await {
        Ok(seq) => seq,
        // An act that cannot be written down is not done.
        Err(error) => return ApiError::from(error).into_response(),
    };
    let response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
    let (parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, usize::MAX).await else { return parts.status.into_response() };
    if bytes.len() <= LONGEST_ANSWER {
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        detail.extend(answer["id"].as_str().map(|id| ("id".to_owned(), json!(id))));
    }
    let (status, told) = (parts.status.as_u16(), Value::from(detail.clone()));
    record!(Info, user = login, client = client, call = format_args!("{method} {path}"), status = status, detail = told.to_string();
        "the set-up was changed, or that was tried"
    );
    if let Err(error) = state.store.write(move |tx| audit::answered(tx, seq, status, &detail)).await {
        log::error!("failed to write into the audit log how a call was answered: {error}");
    }
    Response::from_parts(parts, Body::from(bytes))
}

fn is_act(method: &Method, path: &str) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
        && !path.split('/').any(|word| EVERYDAY.contains(&word))
}

/// Picks the part of a body that is kept.
fn told(body: &Bytes) -> Map<String, Value> {
    let fields = match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let mut kept = Map::new();
    for (name, value) in fields.into_iter().filter(|(name, _)| TOLD.contains(&name.as_str())) {
        let value = match value {
            Value::String(text) => json!(without_login(&text).chars().take(LONGEST).collect::<String>()),
            Value::Bool(_) | Value::Number(_) => value,
            // The owner of a context, by id or slug.
            Value::Object(owner) => match owner.get("slug").or_else(|| owner.get("id")) {
                Some(Value::String(text)) => json!(text.chars().take(LONGEST).collect::<String>()),
                _ => continue,
            },
            _ => continue,
        };
        kept.insert(name, value);
    }
    kept
}

/// A URL without the login in it.
fn without_login(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match host.rsplit_once('@') {
        Some((login, _)) => format!("{scheme}://{}", &rest[login.len() + 1..]),
        None => text.to_owned(),
    }
}

async fn list(State(state): State<Shared>, _admin: Administrator, words: QueryWords) -> Answer<Json<Value>> {
    let word = |name: &str| words.get(name).filter(|word| !word.is_empty());
    let number = |name: &str, default: i64| match word(name) {
        None => Ok(default),
        Some(word) => input::number(name, word),
    };
    let before = number("page-token", i64::MAX)?;
    let most = u32::try_from(number("limit", PAGE.into())?).unwrap_or(PAGE).clamp(1, PAGE);
    let login = word("user").cloned();
    let found = state.store.read(move |view| audit::list(view, before, login.as_deref(), most)).await?;
    let next = found.last().filter(|_| found.len() == most as usize).map(|(seq, _)| seq.to_string());
    let items: Vec<Value> = found.iter().map(|(_, act)| shown(act)).collect();
    Ok(Json(json!({ "items": items, "next_page_token": next })))
}

fn shown(act: &AuditEntry) -> Value {
    json!({
        "at": act.at.to_string(), "user": act.login, "user_id": act.user, "token_id": act.token,
        "address": act.address, "method": act.method, "path": act.path, "detail": act.detail, "status": act.status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_set_up_are_acts_and_everyday_work_is_none() {
        for path in [
            "/api/v2/context/{id}",
            "/api/v3/runner/token",
            "/api/v3/runner/held-tasks/{id}/end",
            "/api/v3/jobs/{id}/release-anyway",
            "/api/v2/anything/new",
        ] {
            assert!(is_act(&Method::POST, path) && !is_act(&Method::GET, path), "{path}");
        }
        for path in [
            "/api/v2/project/{vcs}/{org}/{repo}/pipeline",
            "/api/v2/workflow/{id}/approve/{job}",
            "/api/v3/runs/search",
        ] {
            assert!(!is_act(&Method::POST, path), "{path}");
        }
    }

    #[test]
    fn of_a_body_names_are_kept_and_no_secrets() {
        let body = r#"{"name": "N", "value": "s", "token": "s", "repository_url": "https://me:s@host/a@b",
            "owner": {"slug": "gh/acme", "secret": "s"}, "is_admin": true, "label": ["s"]}"#;
        let kept = Value::from(told(&Bytes::from(body)));
        let expected = json!({
            "name": "N", "repository_url": "https://host/a@b", "owner": "gh/acme", "is_admin": true,
        });
        assert_eq!(kept, expected);
        assert!(told(&Bytes::from("[]")).is_empty() && told(&Bytes::new()).is_empty());
    }
}
