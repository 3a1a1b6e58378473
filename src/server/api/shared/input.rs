//! Bodies and queries of calls, and the answer that says no more than that it was done.

use crate::server::api::shared::failure::{Answer, ApiError, bad};
use crate::server::state::Shared;
use crate::server::time::Millis;
use crate::system::suggest::nearest;
use axum::Json;
use axum::body::Bytes;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::str::FromStr;
use std::time::SystemTime;

/// Query parameters by name.
pub type QueryWords = Query<HashMap<String, String>>;

/// Variable segments of a path, of a call or a page. A path with a word where a number belongs names nothing: 404.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        read.map(|axum::extract::Path(read)| Self(read)).map_err(|error| unreadable(&error))
    }
}

/// The refusal of a path whose segments are not what its call takes.
fn unreadable(error: &PathRejection) -> ApiError {
    let PathRejection::FailedToDeserializePathParams(error) = error else { return ApiError::internal() };
    match error.kind() {
        ErrorKind::ParseError { value, .. }
        | ErrorKind::ParseErrorAtIndex { value, .. }
        | ErrorKind::ParseErrorAtKey { value, .. } => {
            let shown: String = value.chars().filter(|c| !c.is_control()).take(60).collect();
            ApiError::not_found(match is_number(value) {
                true => format!("there is nothing at this path: no number here is as large as `{shown}`"),
                false => format!("there is nothing at this path: `{shown}` stands where a number belongs"),
            })
        }
        ErrorKind::InvalidUtf8InPathParam { .. } => bad("the path is not UTF-8 once its `%` are decoded"),
        _ => ApiError::internal(),
    }
}

/// Whether a text that could not be read as a number is one all the same, of more digits than it can have.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A number of a query, which is called `name` there.
pub fn number<N: FromStr>(name: &str, text: &str) -> Answer<N> {
    text.parse().map_err(|_| match is_number(text) {
        true => bad(format!("`{name}` cannot be as large as `{text}`")),
        false => bad(format!("`{name}` must be a number, not `{text}`")),
    })
}

/// A parameter of a query that is true or false; absent and empty are no. Clients in Python write `True`.
pub fn flag(words: &QueryWords, name: &str) -> Answer<bool> {
    match words.get(name).map_or("", String::as_str) {
        word if word.is_empty() || word.eq_ignore_ascii_case("false") => Ok(false),
        word if word.eq_ignore_ascii_case("true") => Ok(true),
        word => Err(bad(format!("`{name}` must be true or false, not `{word}`"))),
    }
}

/// A JSON body, whatever its content type says; an absent one is null.
pub struct JsonBody(pub Value);

impl FromRequest<Shared> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, ApiError> {
        Self::parse(&body_of(request, state).await?)
    }
}

/// The body of a call, in full.
pub async fn body_of(request: Request, state: &Shared) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state).await.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_long(),
        status => ApiError::new(status, format!("the body was cut off, or is no body: {error}")),
    })
}

impl JsonBody {
    /// Reads a body; an empty one is null.
    pub fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(Value::Null));
        }
        serde_json::from_slice(bytes).map(Self).map_err(|error| bad(format!("the body is not JSON: {error}")))
    }

    /// The text of a field that must be there, maybe empty.
    pub fn text(&self, name: &str) -> Answer<&str> {
        self.0[name].as_str().ok_or_else(|| bad(format!("`{name}` must be a string")))
    }

    /// The text of a field that may be absent or null.
    pub fn optional_text(&self, name: &str) -> Answer<Option<&str>> {
        match &self.0[name] {
            Value::Null => Ok(None),
            _ => self.text(name).map(Some),
        }
    }

    /// A field that is true or false; `None` where the body does not name it. Null is neither.
    pub fn flag(&self, name: &str) -> Answer<Option<bool>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Bool(wanted)) => Ok(Some(*wanted)),
            Some(given) => Err(bad(format!("`{name}` is true or false, not `{given}`"))),
        }
    }

    /// Whether a field is true; absent and null are no.
    pub fn is_set(&self, name: &str) -> Answer<bool> {
        if self.0[name].is_null() { Ok(false) } else { Ok(self.flag(name)? == Some(true)) }
    }

    /// Refuses fields that are not known: one that is misspelled must not be taken for absent. `about` is what the known
    /// ones say something about, for people.
    pub fn check_names(&self, about: &str, known: &[&str]) -> Answer<()> {
        check_names(&self.0, about, known)
    }
}

/// Refuses fields that are not known in an object inside of a body.
pub fn check_names(object: &Value, about: &str, known: &[&str]) -> Answer<()> {
    let mut names = object.as_object().into_iter().flat_map(serde_json::Map::keys);
    match names.find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(bad(unknown(name, about, known))),
        None => Ok(()),
    }
}

/// The sentence about a name that is not known, with the one that may be meant.
pub fn unknown(name: &str, about: &str, known: &[&str]) -> String {
    let meant = nearest(name, known).map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
    let shown: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
    format!("`{shown}` says nothing about {about}{meant} (known: {})", known.join(", "))
}

/// Refuses names of a query that are not known: what they ask for would be missing from the answer without a word.
pub fn check_query(words: &QueryWords, about: &str, known: &[&str]) -> Answer<()> {
    let stranger = words.keys().map(String::as_str).filter(|name| !known.contains(name)).min();
    stranger.map_or(Ok(()), |name| Err(bad(unknown(name, about, known))))
}

/// Reads a time that the client calls `name`; one before 1970 is 1970.
pub fn moment(name: &str, text: &str) -> Answer<Millis> {
    let time = humantime::parse_rfc3339_weak(text)
        .map_err(|_| bad(format!("`{name}` is a time such as 2026-01-02T03:04:05Z, not `{text}`")))?;
    Ok(Millis(time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)))
}

/// `{"message"}`, for what has no other answer.
pub fn message(text: &str) -> Json<Value> {
    Json(json!({ "message": text }))
}

/// 202, for what was asked for and may take its time.
pub fn accepted() -> Response {
    (StatusCode::ACCEPTED, message("Accepted.")).into_response()
}
