//! What the calls that change settings share: their bodies, pages, and whom a path or a query names.

use crate::server::api::shared::slug::short_vcs;
use crate::server::api::{Answer, Failure};
use crate::server::state::Shared;
use crate::server::store::View;
pub use crate::server::store::read::Project;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Query, Request};
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::OptionalExtension;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Query parameters by name.
pub type Words = Query<HashMap<String, String>>;

/// Items of one page.
const PAGE: usize = 100;

/// A JSON body, whatever its content type says; an absent one is null.
pub struct Body(pub Value);

impl FromRequest<Shared> for Body {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, Failure> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|error| Failure::new(error.status(), format!("the body cannot be read: {error}")))?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(Value::Null));
        }
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| bad(format!("the body is not JSON: {error}")))
    }
}

impl Body {
    /// A text that must be there, maybe empty.
    pub fn text(&self, name: &str) -> Answer<&str> {
        self.0[name].as_str().ok_or_else(|| bad(format!("`{name}` must be a string")))
    }

    /// A text that may be absent or null.
    pub fn optional_text(&self, name: &str) -> Answer<Option<&str>> {
        match &self.0[name] {
            Value::Null => Ok(None),
            _ => self.text(name).map(Some),
        }
    }
}

/// 400.
pub fn bad(message: impl Into<String>) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, message)
}

/// 409.
pub fn conflict(message: impl Into<String>) -> Failure {
    Failure::new(StatusCode::CONFLICT, message)
}

/// `{"message"}`, for what has no other answer.
pub fn message(text: &str) -> Json<Value> {
    Json(json!({ "message": text }))
}

/// One page of items that are ordered by a unique key, after the key that `page-token` holds.
pub fn page(items: Vec<(String, Value)>, words: &Words) -> Answer<Json<Value>> {
    let token = words.get("page-token").map(String::as_str).filter(|token| !token.is_empty());
    let after = match token {
        None => None,
        Some(token) => {
            let key = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            Some(key.ok_or_else(|| bad("`page-token` is not one that was given out"))?)
        }
    };
    let mut rest = items.into_iter().filter(|(key, _)| after.as_ref().is_none_or(|after| key > after));
    let page: Vec<(String, Value)> = rest.by_ref().take(PAGE).collect();
    let more = rest.next().is_some();
    let next = page.last().filter(|_| more).map(|(key, _)| URL_SAFE_NO_PAD.encode(key));
    let items: Vec<Value> = page.into_iter().map(|(_, item)| item).collect();
    Ok(Json(json!({ "items": items, "next_page_token": next })))
}

/// The project of a path.
pub async fn project(state: &Shared, (vcs, org, repo): (String, String, String)) -> Answer<Project> {
    let slug = format!("{}/{org}/{repo}", short_vcs(&vcs));
    let key = slug.clone();
    let found = state.store.read(move |c| Ok(project_by_slug(c, &key)?)).await?;
    found.ok_or_else(|| {
        Failure::not_found(format!(
            "there is no project `{slug}` here (`runlet admin project create` makes it)"
        ))
    })
}

/// A project by its slug with the short name of its vcs.
pub fn project_by_slug(c: &View, slug: &str) -> rusqlite::Result<Option<Project>> {
    let mut parts = slug.splitn(3, '/');
    let key = [parts.next(), parts.next(), parts.next()];
    c.prepare_cached(
        "SELECT id, organisation_id, vcs || '/' || org || '/' || repo, repository_url, default_branch
         FROM projects WHERE vcs = ?1 AND org = ?2 AND repo = ?3",
    )?
    .query_row(key, project_row)
    .optional()
}

/// A row of the columns of [`Project`] in their order.
pub fn project_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Project> {
    Ok(Project {
        id: row.get(0)?,
        organisation: row.get(1)?,
        slug: row.get(2)?,
        repository_url: row.get(3)?,
        default_branch: row.get(4)?,
    })
}

/// The id of an organisation that is named by its id or its slug.
pub async fn organisation(state: &Shared, id: Option<&str>, slug: Option<&str>) -> Answer<String> {
    let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let (id, slug) = (given(id), given(slug));
    let shown = id.clone().or_else(|| slug.clone());
    let shown =
        shown.ok_or_else(|| bad("the owner is missing: give its id or its slug, such as `gh/acme`"))?;
    let find = move |c: &View| {
        Ok(match (id, slug) {
            (Some(id), _) => c
                .prepare_cached("SELECT id FROM organisations WHERE id = ?1")?
                .query_row([id], |row| row.get(0))
                .optional()?,
            (None, slug) => {
                let slug = slug.unwrap_or_default();
                let (vcs, name) = slug.split_once('/').unwrap_or_default();
                c.prepare_cached("SELECT id FROM organisations WHERE vcs = ?1 AND name = ?2")?
                    .query_row([short_vcs(vcs), name], |row| row.get(0))
                    .optional()?
            }
        })
    };
    let found: Option<String> = state.store.read(find).await?;
    found.ok_or_else(|| {
        Failure::not_found(format!(
            "there is no organisation `{shown}` here: it comes with its first project"
        ))
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_gaps() {
        let items: Vec<_> = (0..250).map(|n| (format!("{n:03}"), json!(n))).collect();
        let mut words = HashMap::new();
        let mut seen = Vec::new();
        loop {
            let answer = page(items.clone(), &Query(words.clone())).unwrap().0;
            seen.extend(answer["items"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()));
            let Some(next) = answer["next_page_token"].as_str() else { break };
            words.insert("page-token".to_owned(), next.to_owned());
        }
        assert_eq!(seen, (0..250).collect::<Vec<_>>());
        words.insert("page-token".to_owned(), "!".to_owned());
        assert!(page(items, &Query(words)).is_err());
    }
}
