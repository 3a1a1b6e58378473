//! Query parameters of the runner's calls.

use crate::server::api::shared::failure::{Answer, ApiError};
use axum::extract::Query;
use axum::http::StatusCode;
use std::collections::HashMap;
use std::time::Duration;

/// Longest time that a claim or a heartbeat is held, in seconds.
const LONGEST_WAIT: u64 = 55;

/// Query parameters by name.
pub(super) type Numbers = Query<HashMap<String, String>>;

pub(super) fn number(query: &Numbers, name: &str) -> Answer<u64> {
    let text = query.get(name).map(String::as_str).unwrap_or_default();
    text.parse()
        .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, format!("`{name}={text}` is not a number")))
}

pub(super) fn wait_of(query: &Numbers) -> Duration {
    Duration::from_secs(number(query, "wait").unwrap_or(0).min(LONGEST_WAIT))
}
