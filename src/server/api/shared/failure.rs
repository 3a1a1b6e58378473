//! Refused calls: one type that handlers return, which knows both shapes that clients read.
//!
//! Versions 1.1, 2 and the runners' API read `{"message", "code"?}`; version 3 reads `{"error": {"id", "title",
//! "detail"}}`, which stands beside the message. A handler does not know which path it serves: it answers the
//! first shape and leaves the failure with the response, and [`shape`](super::shape) renders it again where a
//! client of version 3 asked.

use crate::protocol::limits::{BODY_BYTES, CONFIG_BYTES};
use crate::protocol::{Refusal, RefusalCode};
use crate::server::blobs;
use crate::server::store::Error as StoreError;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Pause between two lines of the log about a full disk.
const FULL_TOLD_EVERY: Duration = Duration::from_secs(60);

/// The result of a handler.
pub type Answer<T> = Result<T, ApiError>;

/// A refused call.
#[derive(Clone, Debug)]
pub struct ApiError {
    status: StatusCode,
    refusal: Refusal,
}

/// The form in which a refusal is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `{"message"}`, and what programs read beside it.
    Message,
    /// `{"message"}` as above, with version 3's `error` beside it.
    WithError,
}

impl ApiError {
    /// A refusal with a message for people.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, refusal: Refusal::new(message) }
    }

    /// A refusal with a code for programs.
    pub fn coded(status: StatusCode, code: RefusalCode, message: impl Into<String>) -> Self {
        Self { status, refusal: Refusal::coded(code, message) }
    }

    /// 413 for a body over the limit of its call.
    pub fn too_long() -> Self {
        let why = format!(
            "the body is longer than this call takes: {CONFIG_BYTES} bytes where a config is compiled or continued with, and {BODY_BYTES} in any other call, such as the trigger of a pipeline with its config"
        );
        Self::coded(StatusCode::PAYLOAD_TOO_LARGE, RefusalCode::TooLarge, why)
    }

    /// 409 with the offset to send from.
    pub fn gap(offset: u64, message: impl Into<String>) -> Self {
        let refusal = Refusal { offset: Some(offset), ..Refusal::coded(RefusalCode::Gap, message) };
        Self { status: StatusCode::CONFLICT, refusal }
    }

    /// A refusal as it is sent.
    pub fn of(status: StatusCode, refusal: Refusal) -> Self {
        Self { status, refusal }
    }

    /// Says whether output and events are still taken.
    pub fn set_late(&mut self, late: bool) {
        self.refusal.late = late;
    }

    /// A refusal with 404: what the call names is not there.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, what)
    }

    /// HTTP status that the client gets.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The sentence for people.
    pub fn message(&self) -> &str {
        &self.refusal.message
    }

    /// 500. The message tells people nothing that is in the log already.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the control plane failed; its log says why")
    }

    /// The body in one of its shapes.
    pub fn body(&self, shape: Shape) -> String {
        // By way of a value, whose names are sorted whatever the type's order is.
        let mut body = serde_json::to_value(&self.refusal)
            .unwrap_or_else(|_| json!({ "message": self.refusal.message }));
        if shape == Shape::WithError {
            let title = self.status.canonical_reason().unwrap_or("Refused");
            let error = json!({ "id": self.status.as_str(), "title": title, "detail": self.refusal.message });
            body["error"] = error;
        }
        Value::to_string(&body)
    }

    /// No room for a file; the store tells of its own. Callers try again and again: the operator is told once a minute.
    fn no_space(message: String) -> Self {
        static TOLD: Mutex<Option<Instant>> = Mutex::new(None);
        let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= FULL_TOLD_EVERY) {
            *told = Some(Instant::now());
            log::error!("{message} (runners wait for room; `runlet admin storage list` says what fills it)");
        }
        Self::coded(StatusCode::INSUFFICIENT_STORAGE, RefusalCode::NoSpace, message)
    }

    /// A response with the body in one of its shapes.
    pub fn response(self, shape: Shape) -> Response {
        let mut response = Response::new(Body::from(self.body(shape)));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.response(Shape::Message)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace => {
                Self::coded(StatusCode::INSUFFICIENT_STORAGE, RefusalCode::NoSpace, error.to_string())
            }
            StoreError::Closed => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            error => {
                log::error!("{error}");
                Self::internal()
            }
        }
    }
}

impl From<blobs::Error> for ApiError {
    fn from(error: blobs::Error) -> Self {
        let message = error.to_string();
        match error {
            blobs::Error::Gap { stored } => Self::gap(stored, message),
            blobs::Error::Checksum => {
                Self::coded(StatusCode::UNPROCESSABLE_ENTITY, RefusalCode::Checksum, message)
            }
            blobs::Error::NoSpace => Self::no_space(message),
            blobs::Error::Invalid(_) => Self::new(StatusCode::BAD_REQUEST, message),
            blobs::Error::Io(_) => {
                log::error!("{message}");
                Self::internal()
            }
        }
    }
}

/// Runs blob work where blocking is allowed.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, blobs::Error> + Send + 'static,
) -> Answer<T> {
    let result = tokio::task::spawn_blocking(work).await;
    result
        .map_err(|_| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the control plane is stopping"))?
        .map_err(ApiError::from)
}

/// A refusal with 400: the input is wrong.
pub fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, message)
}

/// A refusal with 409: the state of things does not allow it.
pub fn conflict(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_both_shapes() {
        let gap = ApiError::gap(7, "gone");
        assert_eq!(gap.body(Shape::Message), r#"{"code":"gap","message":"gone","offset":7}"#);
        let missing = ApiError::not_found("gone");
        assert_eq!(missing.body(Shape::Message), r#"{"message":"gone"}"#);
        let error = r#"{"error":{"detail":"gone","id":"404","title":"Not Found"},"message":"gone"}"#;
        assert_eq!(missing.body(Shape::WithError), error);
    }
}
