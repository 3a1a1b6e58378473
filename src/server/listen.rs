//! The listening socket: TLS by rustls, or plain HTTP where that is safe.

use crate::server::auth::Peer;
use crate::server::marked::Marked;
use crate::server::state::Shared;
use axum::extract::Request;
use axum::extract::connect_info::Connected;
use axum::middleware::{self, Next};
use axum::serve::IncomingStream;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// A client that says nothing during the handshake is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// An accepted connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connections whose handshake is done.
pub struct Listener {
    ready: mpsc::Receiver<(Box<dyn Stream>, SocketAddr)>,
    local: SocketAddr,
}

impl Listener {
    /// Accepts on `socket` from now on. Handshakes run beside each other.
    pub fn start(socket: TcpListener, tls: Option<TlsAcceptor>) -> std::io::Result<Self> {
        let local = socket.local_addr()?;
        let (sender, ready) = mpsc::channel(64);
        tokio::spawn(accept(socket, tls, sender));
        Ok(Self { ready, local })
    }
}

async fn accept(
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
    sender: mpsc::Sender<(Box<dyn Stream>, SocketAddr)>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = sender.closed() => return,
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
        let _ = stream.set_nodelay(true);
        let sender = sender.clone();
        let tls = tls.clone();
        tokio::spawn(async move {
            if let Some(stream) = shake_hands(stream, tls).await {
                let _ = sender.send((Box::new(Marked::new(stream)), peer)).await;
            }
        });
    }
}

async fn shake_hands(stream: TcpStream, tls: Option<TlsAcceptor>) -> Option<Box<dyn Stream>> {
    let Some(tls) = tls else { return Some(Box::new(stream)) };
    match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(Box::new(stream)),
        Ok(Err(error)) => {
            log::debug!("a TLS handshake failed: {error}");
            None
        }
        Err(_) => None,
    }
}

impl axum::serve::Listener for Listener {
    type Io = Box<dyn Stream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The accepting task runs as long as this receiver lives.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.local)
    }
}

impl Connected<IncomingStream<'_, Listener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        Peer(*stream.remote_addr())
    }
}

/// Reads certificate chain and key.
pub fn tls(certificate: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let fail = |path: &Path, why: String| format!("failed to read `{}`: {why}", path.display());
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|e| fail(certificate, e.to_string()))?;
    if chain.is_empty() {
        return Err(fail(certificate, "there is no certificate in it (expected PEM)".to_owned()));
    }
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| fail(key, e.to_string()))?;
    let mut config = rustls::ServerConfig::builder_with_provider(crate::http::tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("failed to set up TLS: {e}"))?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|e| {
            format!("`{}` and `{}` do not fit together: {e}", certificate.display(), key.display())
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Everything that is served: the API to programs, pages to people.
fn router(state: Shared) -> axum::Router {
    let api = crate::server::api::router(state.clone());
    let choose = move |request: Request, next: Next| {
        let api = api.clone();
        async move {
            let path = request.uri().path();
            let is_api = path.starts_with("/api/") || ["/api", "/live", "/ready", "/metrics"].contains(&path);
            if !is_api {
                return next.run(request).await;
            }
            match api.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    };
    // Around the router of the pages: what it finds in a path must not reach the other.
    axum::Router::new().fallback_service(crate::server::web::router(state)).layer(middleware::from_fn(choose))
}

/// Serves until the control plane stops.
pub async fn serve(listener: Listener, state: Shared) {
    let service = router(state.clone()).into_make_service_with_connect_info::<Peer>();
    let mut stopping = state.stopping.subscribe();
    let stop = async move {
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(stop).await {
        log::error!("failed to serve: {error}");
    }
}
