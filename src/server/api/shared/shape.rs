//! The shape of refusals: JSON always, also where the web framework answers by itself, and in the form
//! that each version's clients read.

use crate::server::api::shared::failure::{Failure, Shape};
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

/// Longest text of the framework that is shown, in bytes.
const MOST_BYTES: usize = 64 * 1024;

/// Gives refused calls the shape of their path; others pass untouched.
pub async fn refusals(request: Request, next: Next) -> Response {
    let shape = of_path(request.uri().path());
    let response = next.run(request).await;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    match response.extensions().get::<Failure>() {
        Some(_) if shape == Shape::Message => response,
        Some(failure) => {
            let shaped = failure.clone().response(shape);
            with_headers(shaped, response.headers())
        }
        // The framework answers in plain text, or with nothing.
        None => {
            let (parts, body) = response.into_parts();
            let text = to_bytes(body, MOST_BYTES).await.unwrap_or_default();
            with_headers(framework(status, &text).response(shape), &parts.headers)
        }
    }
}

fn of_path(path: &str) -> Shape {
    let is_v3 = path.starts_with("/api/v3/") && !path.starts_with("/api/v3/runner");
    if is_v3 { Shape::WithError } else { Shape::Message }
}

/// A refusal that the framework made.
fn framework(status: StatusCode, body: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return Failure::too_long();
    }
    let title = status.canonical_reason().unwrap_or("Refused");
    Failure::new(status, if text.is_empty() { title } else { text })
}

/// The response with the headers of another, but for those that say what its body is.
fn with_headers(mut response: Response, headers: &HeaderMap) -> Response {
    for (name, value) in headers {
        if name != header::CONTENT_LENGTH && name != header::CONTENT_TYPE {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use axum::routing::get;
    use tower::ServiceExt;

    #[test]
    fn the_framework_has_a_message_too() {
        let shown = |body: &str| framework(StatusCode::NOT_FOUND, body.as_bytes()).body(Shape::Message);
        assert_eq!(shown(""), r#"{"message":"Not Found"}"#);
        assert_eq!(shown("no such thing\n"), r#"{"message":"no such thing"}"#);
    }

    #[tokio::test]
    async fn a_refusal_has_the_shape_of_its_path_and_keeps_its_headers() {
        let refuse = || async { ([("x-more", "yes")], Failure::not_found("gone")).into_response() };
        let router = axum::Router::new()
            .route("/api/v2/x", get(refuse))
            .route("/api/v3/x", get(refuse))
            .route("/api/v3/plain", get(|| async { (StatusCode::BAD_REQUEST, "why") }))
            .layer(axum::middleware::from_fn(refusals));
        for (path, body) in [
            ("/api/v2/x", r#"{"message":"gone"}"#),
            ("/api/v3/x", r#"{"error":{"detail":"gone","id":"404","title":"Not Found"},"message":"gone"}"#),
            (
                "/api/v3/plain",
                r#"{"error":{"detail":"why","id":"400","title":"Bad Request"},"message":"why"}"#,
            ),
        ] {
            let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
            assert_eq!(response.headers().contains_key("x-more"), !path.ends_with("plain"), "{path}");
            assert_eq!(to_bytes(response.into_body(), MOST_BYTES).await.unwrap(), body, "{path}");
        }
    }
}
