//! The listening socket: TLS by rustls, or plain HTTP where that is safe; and the connections, until they end or have
//! to go.

use crate::logging::record;
use crate::protocol::limits::HEADER_BYTES;
use crate::server::auth::PeerAddress;
use crate::server::certificate::Certificate;
use crate::server::clients::{AcceptedConnection, Admission, ConnectionLimits, Connections, Proxies};
use crate::server::marked::Marked;
use crate::server::patience::{self, Patience, PatientStream};
use crate::server::state::Shared;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// A client that says nothing during the handshake is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A client that has shown no token is dropped when it makes no call, or does not get its head across, for so long.
const QUIET_OF_UNKNOWN: Duration = Duration::from_secs(10);
/// A client that has shown a token is dropped later than proxies and our client leave an idle connection.
const QUIET: Duration = Duration::from_secs(75);
/// Pause between two looks at a quiet connection.
const LOOK: Duration = Duration::from_secs(1);

/// Pause between two looks whether there is room for another connection.
const ROOM: Duration = Duration::from_millis(5);

/// An accepted connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Raises the soft limit of open files of this process to the hard one. Programs that it starts inherit that.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::warn!("failed to raise the limit of open files: {error}");
    }
    if limit.maximum.is_some_and(|files| files < 1024) {
        log::warn!(
            "only {} files may be open at once, connections included: raise the hard limit (`LimitNOFILE=` of systemd) where more runners than half of that are to connect",
            limit.maximum.unwrap_or_default()
        );
    }
}

/// Parts that serve every connection.
#[derive(Clone)]
struct Serving {
    routers: Routers,
    tls: Option<Arc<Certificate>>,
    proxies: Arc<Proxies>,
}

/// Routes to all that is served.
#[derive(Clone)]
struct Routers {
    /// Routes for programs: the API and the calls of runners.
    api: axum::Router,
    /// Pages, for people. Made for the first of them: a control plane inside another program has none.
    web: Arc<OnceLock<axum::Router>>,
    state: Shared,
}

impl Routers {
    fn new(state: Shared) -> Self {
        Self { api: crate::server::api::router(state.clone()), web: Arc::default(), state }
    }

    /// The router of a path. Which one it is is said by the path as it came: what a page finds in its path does not reach the
    /// API.
    fn of(&self, path: &str) -> axum::Router {
        let is_api = path.starts_with("/api/") || ["/api", "/live", "/ready", "/metrics"].contains(&path);
        if is_api {
            return self.api.clone();
        }
        self.web.get_or_init(|| crate::server::web::router(self.state.clone())).clone()
    }
}

/// Serves until the control plane stops.
pub async fn serve(socket: TcpListener, tls: Option<Arc<Certificate>>, proxies: Proxies, state: Shared) {
    let limits = ConnectionLimits::of_files(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX));
    let connections = Connections::new(limits);
    let routers = Routers::new(state.clone());
    let serving = Serving { routers, tls, proxies: Arc::new(proxies) };
    let ending = GracefulShutdown::new();
    let mut stopping = state.stopping.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, usually: waiting lets others close theirs.
                log::warn!("failed to accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(connection) = admitted(&connections, peer).await else {
            // All others are runners and people: it may try again.
            record!(Warn, client = peer.ip(), connections = limits.all; "no room for another connection");
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (serving, watcher) = (serving.clone(), ending.watcher());
        tokio::spawn(async move {
            let served = async {
                let Some(stream) =
                    shake_hands(stream, serving.tls.as_deref().map(Certificate::acceptor)).await
                else {
                    return;
                };
                converse(stream, peer, &connection, &serving, watcher).await;
            };
            tokio::select! {
                () = served => {}
                () = connection.evicted() => {}
                () = too_quiet(&connection) => record!(Debug, client = peer.ip(); "a client made no call: its connection is closed"),
            }
        });
    }
    drop(socket);
    ending.shutdown().await;
}

/// A connection in its place among the others, once there is one. `None` when there will be none.
async fn admitted(connections: &Arc<Connections>, peer: SocketAddr) -> Option<Arc<AcceptedConnection>> {
    loop {
        match connections.accept(peer.ip(), Instant::now()) {
            Admission::In(connection) => return Some(connection),
            Admission::Full => return None,
            Admission::NotYet => tokio::time::sleep(ROOM).await,
        }
    }
}

/// Returns when a connection that has shown no token makes no call for a while.
async fn too_quiet(connection: &AcceptedConnection) {
    while connection.is_known() || connection.quiet(Instant::now()) < QUIET_OF_UNKNOWN {
        if connection.is_known() {
            // The HTTP library watches over it.
            return std::future::pending().await;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Answers the calls of a connection.
async fn converse(
    stream: Box<dyn Stream>,
    peer: SocketAddr,
    connection: &Arc<AcceptedConnection>,
    serving: &Serving,
    watcher: Watcher,
) {
    let stream = TokioIo::new(Marked::new(PatientStream::new(stream, Patience::USUAL)));
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let client = serving.proxies.client(peer, request.headers());
        request.extensions_mut().insert(ConnectInfo(PeerAddress(client)));
        request.extensions_mut().insert(Arc::clone(connection));
        let router = serving.routers.of(request.uri().path());
        async move {
            let next =
                |request| async { router.oneshot(request).await.unwrap_or_else(|never| match never {}) };
            Ok::<_, Infallible>(
                patience::answer(connection, Patience::USUAL, request.map(Body::new), next).await,
            )
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(QUIET)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(stream, service);
    if let Err(error) = watcher.watch(serving).await {
        record!(Debug, client = peer.ip(); "a connection ended: {error}");
    }
}

async fn shake_hands(stream: TcpStream, tls: Option<TlsAcceptor>) -> Option<Box<dyn Stream>> {
    let Some(tls) = tls else { return Some(Box::new(stream)) };
    match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(Box::new(stream)),
        Ok(Err(error)) => {
            record!(Debug; "a TLS handshake failed: {error}");
            None
        }
        Err(_) => None,
    }
}
