//! Says in every answer that it comes from a control plane: an answer without the header comes from something in
//! between, whatever its status says. What the HTTP library answers by itself is marked by `listen`.

use crate::protocol::PROTOCOL_VERSION;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

/// [`PROTOCOL_HEADER`](crate::protocol::PROTOCOL_HEADER) as it goes over the line.
pub const HEADER: &str = "runlet-protocol";

/// Runs the call, and marks the answer.
pub async fn mark(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    mark_answer(&mut response);
    response
}

/// Marks an answer.
pub fn mark_answer(response: &mut Response) {
    let version = HeaderValue::from(PROTOCOL_VERSION);
    response.headers_mut().insert(HeaderName::from_static(HEADER), version);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_that_of_the_protocol() {
        assert!(HEADER.eq_ignore_ascii_case(crate::protocol::PROTOCOL_HEADER));
    }
}
