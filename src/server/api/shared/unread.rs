//! Reads what a call left of its body before the answer goes out.
//!
//! A call is often refused, or needs nothing of its body, before the body has arrived: it comes in a packet
//! of its own. A connection with an unread body cannot be used again and is closed, which its client learns
//! only when the next call on it is cut; and where much was on its way, the reset overtakes the answer.

use crate::protocol::MAX_CHUNK_BYTES;
use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::{Stream, StreamExt};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// Most bytes that are read of a body that nobody wants; a client that sends more is cut off.
const MOST_BYTES: usize = 2 * MAX_CHUNK_BYTES;
/// Reading them may take this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the call, and reads what is left.
pub async fn drain(request: Request, next: Next) -> Response {
    drain_after(request, |request| next.run(request)).await
}

/// Runs any future, and reads what is left of the request.
pub async fn drain_after<F>(request: Request, next: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    // A client that asks first whether to send has sent nothing, and need not.
    if request.body().is_end_stream() || request.headers().contains_key(header::EXPECT) {
        return next(request).await;
    }
    let length = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
    let is_endless = length.is_some_and(|length| length > MOST_BYTES as u64);
    let (parts, body) = request.into_parts();
    let shared = Shared(Arc::new(Mutex::new(Some(body.into_data_stream()))));
    let body = Body::from_stream(shared.clone());
    let response = next(Request::from_parts(parts, body)).await;
    let left = tokio::time::timeout(PATIENCE, rest(shared));
    if is_endless {
        // A client may send nothing before it has the answer, and hears the answer although it sends.
        tokio::spawn(left);
    } else {
        let _ = left.await;
    }
    response
}

/// Reads to the end, or until it is too much.
async fn rest(mut body: Shared) {
    let mut read = 0;
    while let Some(Ok(bytes)) = body.next().await {
        read += bytes.len();
        if read > MOST_BYTES {
            return;
        }
    }
}

/// A body with two readers, one after the other; `None` once it has ended.
#[derive(Clone)]
struct Shared(Arc<Mutex<Option<BodyDataStream>>>);

impl Stream for Shared {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stream) = body.as_mut() else { return Poll::Ready(None) };
        let next = stream.poll_next_unpin(context);
        if !matches!(next, Poll::Pending | Poll::Ready(Some(Ok(_)))) {
            *body = None;
        }
        next
    }
}
