//! The form of version 3: entities and lists in `data`, filters in brackets, no empty fields.

use crate::server::api::shared::failure::{Answer, bad};
use crate::server::api::shared::input::{QueryWords, check_query, unknown};
use axum::Json;
use serde_json::{Map, Value, json};

/// The answer of version 3 that holds one entity.
pub(super) fn entity(data: Value) -> Json<Value> {
    Json(json!({ "data": data }))
}

/// A page of a list, and the token of the next.
pub(super) fn list(data: Vec<Value>, next: Option<String>) -> Json<Value> {
    Json(json!({ "data": data, "page": { "next": next, "prev": null } }))
}

/// `filter[name]` of a query, unless it is absent or empty.
pub(super) fn filter<'w>(words: &'w QueryWords, name: &str) -> Option<&'w str> {
    words.get(&format!("filter[{name}]")).map(String::as_str).filter(|value| !value.is_empty())
}

/// `filter[name]` of a query, which must be there.
pub(super) fn needed<'w>(words: &'w QueryWords, name: &str) -> Answer<&'w str> {
    filter(words, name).ok_or_else(|| bad(format!("`filter[{name}]` is missing")))
}

/// An id that stands at `place`, as clients of version 3 have them: a UUID, which is compared in its usual form.
pub(super) fn uuid<T: From<String>>(place: &str, text: &str) -> Answer<T> {
    let shown: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
    let id = uuid::Uuid::parse_str(text).map_err(|_| bad(format!("`{place}` is a UUID, not `{shown}`")))?;
    Ok(id.to_string().into())
}

/// `filter[name]` of a query, which must be there and an id.
pub(super) fn needed_id<T: From<String>>(words: &QueryWords, name: &str) -> Answer<T> {
    uuid(&format!("filter[{name}]"), needed(words, name)?)
}

/// Refuses filters that are not known: what they leave out must not be shown. So it is with other names; those of pages
/// are taken by lists that fit into one as well.
pub(super) fn check_filters(words: &QueryWords, known: &[&str]) -> Answer<()> {
    let named = words.keys().filter_map(|key| key.strip_prefix("filter[")?.strip_suffix(']'));
    match named.filter(|name| !known.contains(name)).min() {
        Some(name) => Err(bad(format!("`filter[{name}]`: {}", unknown(name, "what is listed", known)))),
        None => {
            let filters: Vec<String> = known.iter().map(|name| format!("filter[{name}]")).collect();
            let known = ["page[cursor]", "page[limit]"].into_iter().chain(filters.iter().map(String::as_str));
            check_query(words, "what is listed", &known.collect::<Vec<_>>())
        }
    }
}

/// Puts fields into a map; null ones are left out, since clients cannot read empty ones.
pub(super) fn with(mut map: Map<String, Value>, more: Value) -> Map<String, Value> {
    if let Value::Object(more) = more {
        map.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
    }
    map
}
