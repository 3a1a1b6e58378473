//! The shape of refusals: JSON always, also where the web framework answers by itself, and in the form
//! that each version's clients read.

use crate::server::api::shared::failure::{ApiError, Shape};
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
    match response.extensions().get::<ApiError>() {
        Some(failure) if shape != Shape::Message => {
            let shaped = failure.clone().response(shape);
            with_headers(shaped, response.headers())
        }
        _ => own_words(response, shape).await,
    }
}

fn of_path(path: &str) -> Shape {
    let is_v3 = path.starts_with("/api/v3/") && !path.starts_with("/api/v3/runner");
    if is_v3 { Shape::WithError } else { Shape::Message }
}

/// Beginnings of the framework's sentences, and ours in their place; what follows says what is wrong, and is kept.
const SAID: [(&str, &str); 6] = [
    ("Failed to deserialize the JSON body into the target type", "the body is not what this call takes"),
    ("Failed to parse the request body as JSON", "the body is not JSON"),
    ("Failed to deserialize form body", "the form is not what this address takes"),
    ("Failed to deserialize form", "the form is not what this address takes"),
    ("Failed to deserialize query string", "the query is not what this address takes"),
    ("Failed to buffer the request body", "the body was cut off"),
];

/// Ends of the language's sentences about a value, and ours in their place.
const NO_VALUE: [(&str, &str); 5] = [
    ("invalid digit found in string", "it takes a whole number"),
    ("cannot parse integer from empty string", "it takes a whole number"),
    ("number too large to fit in target type", "the number is too large"),
    ("number too small to fit in target type", "the number is too small"),
    ("provided string was not `true` or `false`", "it takes `true` or `false`"),
];

/// A text of the framework with our words about a value, where that stands at its end.
fn about_value(text: &str) -> String {
    if let Some(name) = text.strip_prefix(": duplicate field ") {
        return format!(": {name} stands in it more than once");
    }
    let ours = |(theirs, ours): &(&str, &str)| Some(format!("{}{ours}", text.strip_suffix(*theirs)?));
    NO_VALUE.iter().find_map(ours).unwrap_or_else(|| text.to_owned())
}

/// A refusal that the framework made, in words of this control plane. `allowed` are the methods of the path, where it
/// does not take that of the call.
fn framework(status: StatusCode, body: &[u8], allowed: Option<&str>) -> ApiError {
    let text = String::from_utf8_lossy(body);
    let kept = |(theirs, ours): &(&str, &str)| {
        Some(format!("{ours}{}", about_value(text.trim().strip_prefix(*theirs)?)))
    };
    let message = match status {
        StatusCode::PAYLOAD_TOO_LARGE => return ApiError::too_long(),
        // The framework adds some later: those stand in the header alone.
        StatusCode::METHOD_NOT_ALLOWED => allowed.map_or_else(
            || "this path does not take the method of the call: `Allow` names those that it takes".to_owned(),
            |methods| format!("this path takes other methods: {methods}"),
        ),
        StatusCode::UNSUPPORTED_MEDIA_TYPE if text.contains("form-urlencoded") => {
            "the body is no form: send it as `application/x-www-form-urlencoded`".to_owned()
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            "the body is not said to be JSON: send `Content-Type: application/json`".to_owned()
        }
        status if status.is_server_error() => {
            log::error!("a call could not be served: {}", text.trim());
            return ApiError::internal();
        }
        _ => SAID.iter().find_map(kept).unwrap_or_else(|| {
            "the call cannot be read: its path, its query or its body is malformed".to_owned()
        }),
    };
    ApiError::new(status, message)
}

/// A refusal of the framework in words of this control plane; any other response as it is.
pub async fn own_words(response: Response, shape: Shape) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    // The framework answers in plain text, or with nothing.
    let is_ours = response.extensions().get::<ApiError>().is_some()
        || kind.is_some_and(|kind| !kind.as_bytes().starts_with(b"text/plain"));
    if is_ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, MOST_BYTES).await.unwrap_or_default();
    let allowed = parts.headers.get(header::ALLOW).and_then(|methods| methods.to_str().ok());
    with_headers(framework(status, &text, allowed).response(shape), &parts.headers)
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
    fn the_framework_speaks_in_our_words() {
        let said = |status: StatusCode, body: &str| {
            framework(status, body.as_bytes(), Some("GET,HEAD")).message().to_owned()
        };
        let body =
            "Failed to deserialize the JSON body into the target type: missing field `id` at line 1 column 2";
        assert_eq!(
            said(StatusCode::UNPROCESSABLE_ENTITY, body),
            "the body is not what this call takes: missing field `id` at line 1 column 2"
        );
        let query = said(
            StatusCode::BAD_REQUEST,
            "Failed to deserialize query string: page: invalid digit found in string",
        );
        assert_eq!(query, "the query is not what this address takes: page: it takes a whole number");
        assert_eq!(said(StatusCode::METHOD_NOT_ALLOWED, ""), "this path takes other methods: GET,HEAD");
        assert!(said(StatusCode::BAD_REQUEST, "Anything new").starts_with("the call cannot be read"));
        assert!(said(StatusCode::INTERNAL_SERVER_ERROR, "Missing request extension").contains("its log"));
    }

    #[tokio::test]
    async fn a_refusal_has_the_shape_of_its_path_and_keeps_its_headers() {
        let refuse = || async { ([("x-more", "yes")], ApiError::not_found("gone")).into_response() };
        let router = axum::Router::new()
            .route("/api/v2/x", get(refuse))
            .route("/api/v3/x", get(refuse))
            .route(
                "/api/v3/plain",
                get(|| async { (StatusCode::BAD_REQUEST, "Failed to parse the request body as JSON: why") }),
            )
            .layer(axum::middleware::from_fn(refusals));
        for (path, body) in [
            ("/api/v2/x", r#"{"message":"gone"}"#),
            ("/api/v3/x", r#"{"error":{"detail":"gone","id":"404","title":"Not Found"},"message":"gone"}"#),
            (
                "/api/v3/plain",
                r#"{"error":{"detail":"the body is not JSON: why","id":"400","title":"Bad Request"},"message":"the body is not JSON: why"}"#,
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
