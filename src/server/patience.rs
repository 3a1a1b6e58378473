//! How long a client may take: to send a body, and to take what it is sent. The head of a call, and the time between
//! two calls, are the HTTP library's and [`listen`](super::listen)'s to watch.

use crate::server::clients::{AcceptedConnection, BusyConnection};
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Time after which a client that takes nothing of its answer is cut off.
    take: Duration,
    /// The body of one that has shown no token must have come by then.
    body_of_unknown: Duration,
    /// The next piece of a body must come within this, also from one that is known.
    piece: Duration,
    /// The whole body of one that is known.
    body: Duration,
}

impl Patience {
    /// The ordinary one: bodies are small, and a line may be very slow.
    pub(super) const USUAL: Self = Self {
        take: Duration::from_secs(60),
        body_of_unknown: Duration::from_secs(10),
        piece: Duration::from_secs(60),
        body: Duration::from_secs(15 * 60),
    };
}

type Line = Pin<Box<Sleep>>;

/// A stream whose writes fail when the other side takes nothing for a while.
#[derive(Debug)]
pub(super) struct PatientStream<S> {
    inner: S,
    patience: Patience,
    /// Set while a write waits.
    stalled: Option<Line>,
}

impl<S> PatientStream<S> {
    /// Wraps a connection.
    pub(super) fn new(inner: S, patience: Patience) -> Self {
        Self { inner, patience, stalled: None }
    }

    fn waited<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let take = self.patience.take;
        let line = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(take)));
        ready!(line.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PatientStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.waited(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(context);
        self.waited(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(context);
        self.waited(context, polled)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PatientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

/// A body that must come in time.
struct Given {
    body: Body,
    connection: Arc<AcceptedConnection>,
    patience: Patience,
    began: Instant,
    /// When the piece that is waited for was asked for.
    asked: Option<(Instant, Line)>,
    is_late: Arc<AtomicBool>,
}

impl Given {
    /// The latest time for the piece that was asked for then.
    fn limit(&self, asked: Instant) -> Instant {
        if self.connection.is_known() {
            (asked + self.patience.piece).min(self.began + self.patience.body)
        } else {
            self.began + self.patience.body_of_unknown
        }
    }
}

impl HttpBody for Given {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.asked = None;
            return Poll::Ready(frame);
        }
        let asked = self.asked.as_ref().map_or_else(Instant::now, |(asked, _)| *asked);
        // The client may have become known since.
        let limit = self.limit(asked);
        let (_, line) = self.asked.get_or_insert_with(|| (asked, Box::pin(tokio::time::sleep_until(limit))));
        if line.deadline() != limit {
            line.as_mut().reset(limit);
        }
        ready!(line.as_mut().poll(context));
        self.is_late.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer; the call is not over before it went out.
struct Answered {
    body: Body,
    _busy: BusyConnection,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Has a call answered, its body in time: else with 408, and the connection is closed.
pub(super) async fn answer<F>(
    connection: &Arc<AcceptedConnection>,
    patience: Patience,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response
where
    F: Future<Output = Response>,
{
    let busy = connection.call();
    let is_late = Arc::new(AtomicBool::new(false));
    let request = if request.body().is_end_stream() {
        request
    } else {
        let (connection, is_late, began) = (Arc::clone(connection), Arc::clone(&is_late), Instant::now());
        request.map(|body| Body::new(Given { body, connection, patience, began, asked: None, is_late }))
    };
    let mut response = next(request).await;
    if is_late.load(Ordering::Relaxed) {
        *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if response.body().is_end_stream() {
        return response;
    }
    response.map(|body| Body::new(Answered { body, _busy: busy }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its streams should fail loudly")]
mod tests {
    use super::*;
    use crate::server::clients::{Admission, ConnectionLimits, Connections};
    use tokio::io::AsyncWriteExt;

    fn connection() -> Arc<AcceptedConnection> {
        let all = Connections::new(ConnectionLimits::of_files(1024));
        match all.accept(std::net::IpAddr::from([127, 0, 0, 1]), std::time::Instant::now()) {
            Admission::In(connection) => connection,
            other => unreachable!("{other:?}"),
        }
    }

    /// A body of a byte, and then one every `between`, for ever.
    fn slow(between: Duration) -> Body {
        let bytes = futures_util::stream::unfold((), move |()| async move {
            tokio::time::sleep(between).await;
            Some((Ok::<_, io::Error>(Bytes::from_static(b"x")), ()))
        });
        Body::from_stream(bytes)
    }

    /// A tenth of a second for one, and hours for the others.
    fn short(one: impl FnOnce(&mut Patience) -> &mut Duration) -> Patience {
        let hours = Duration::from_secs(10_000);
        let mut patience = Patience { take: hours, body_of_unknown: hours, piece: hours, body: hours };
        *one(&mut patience) = SHORT;
        patience
    }

    const SHORT: Duration = Duration::from_millis(100);

    /// Sees a handler that wants the whole body get an error at its time.
    async fn is_cut(connection: &Arc<AcceptedConnection>, patience: Patience, body: Body) {
        let began = Instant::now();
        let response = answer(connection, patience, Request::new(body), |request| async {
            assert!(axum::body::to_bytes(request.into_body(), usize::MAX).await.is_err());
            Response::new(Body::empty())
        });
        let response = response.await;
        assert_eq!(
            (response.status(), &response.headers()["connection"]),
            (StatusCode::REQUEST_TIMEOUT, &HeaderValue::from_static("close"))
        );
        assert!(began.elapsed() >= SHORT);
    }

    #[tokio::test]
    async fn a_slow_body_ends_in_time_for_strangers_and_for_known_ones() {
        let often = Duration::from_millis(1);
        is_cut(&connection(), short(|p| &mut p.body_of_unknown), slow(often)).await;
        let known = connection();
        known.set_known(&1);
        is_cut(&known, short(|p| &mut p.body), slow(often)).await;
        is_cut(&known, short(|p| &mut p.piece), slow(Duration::from_secs(10_000))).await;
    }

    #[tokio::test]
    async fn who_takes_nothing_is_cut_off() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let error = PatientStream::new(ours, short(|p| &mut p.take)).write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_call_lasts_until_its_answer_went_out() {
        let connection = connection();
        let later = std::time::Instant::now() + Duration::from_secs(60);
        let respond = |_| async { Response::new(Body::from("text")) };
        let response = answer(&connection, Patience::USUAL, Request::new(Body::empty()), respond).await;
        assert_eq!(connection.quiet(later), Duration::ZERO);
        drop(response);
        assert!(connection.quiet(later) > Duration::ZERO);
    }
}
