//! Pages of lists, and the tokens that lead from one to the next.

use crate::server::api::shared::failure::{Answer, bad};
use crate::server::api::shared::input::QueryWords;
use crate::server::store::read::Cursor;
use crate::server::time::Millis;
use axum::Json;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Items of one page.
const PAGE: usize = 100;

/// The `page-token` of a query, if there is one.
fn token(words: &QueryWords) -> Option<&str> {
    words.get("page-token").map(String::as_str).filter(|token| !token.is_empty())
}

/// A key for [`page`] that puts the newest first.
pub fn newest_first(at: Millis, id: &str) -> String {
    format!("{:020} {id}", u64::MAX - at.0)
}

/// A page of items that are ordered by a unique key, after the key that `page-token` holds.
pub fn page(items: Vec<(String, Value)>, words: &QueryWords) -> Answer<Json<Value>> {
    let after = match token(words) {
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

/// The place in the list of pipelines that a token of a client names; `what` names the token in a refusal.
pub fn cursor(token: Option<&str>, what: &str) -> Answer<Option<Cursor>> {
    let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(None) };
    let refused = || bad(format!("{what} is not one that was given out"));
    Cursor::parse(token).map(Some).ok_or_else(refused)
}

/// A page of version 2 of which nothing is left out.
pub fn whole(items: Vec<Value>) -> Json<Value> {
    Json(json!({ "items": items, "next_page_token": null }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use axum::extract::Query;
    use std::collections::HashMap;

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
