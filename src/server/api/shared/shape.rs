//! The shape of refusals: JSON always, also where the web framework answers by itself, and in the form
//! that each version's clients read.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Value, json};

/// Refusals are short.
const MOST_BYTES: usize = 64 * 1024;

/// Rewrites the bodies of refused calls; others pass untouched.
pub async fn refusals(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_v3 = path.starts_with("/api/v3/") && !path.starts_with("/api/v3/runner");
    let response = next.run(request).await;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, MOST_BYTES).await.unwrap_or_default();
    let text = refusal(status, &bytes, is_v3).to_string();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Response::from_parts(parts, Body::from(text))
}

/// `{"message"}`; version 3 has its own form beside it.
fn refusal(status: StatusCode, body: &[u8], is_v3: bool) -> Value {
    let title = status.canonical_reason().unwrap_or("Refused");
    let known: Option<Value> =
        serde_json::from_slice(body).ok().filter(|value: &Value| value["message"].is_string());
    let mut refusal = known.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        json!({ "message": if text.is_empty() { title } else { text } })
    });
    if is_v3 {
        refusal["error"] = json!({ "id": status.as_str(), "title": title, "detail": refusal["message"] });
    }
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_message() {
        let shaped = |body: &str, v3| refusal(StatusCode::NOT_FOUND, body.as_bytes(), v3);
        assert_eq!(shaped("", false), json!({ "message": "Not Found" }));
        assert_eq!(shaped("no such thing\n", false), json!({ "message": "no such thing" }));
        let own = r#"{"message":"gone","code":"gap","offset":7}"#;
        assert_eq!(shaped(own, false), json!({ "message": "gone", "code": "gap", "offset": 7 }));
        let error = json!({ "id": "404", "title": "Not Found", "detail": "gone" });
        assert_eq!(shaped(r#"{"message":"gone"}"#, true), json!({ "message": "gone", "error": error }));
    }
}
