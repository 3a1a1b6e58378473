//! The way through a proxy: CONNECT, with Basic authentication when its address has a login.
//!
//! The library's own connector is not used because it tells a refusal as text only, and brings a second reader of HTTP
//! answers and a table of all statuses as text.

use super::connector::{Dial, Tls, is_https};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;
use ureq::unversioned::transport::{ConnectionDetails, Connector, Either, Transport, TransportAdapter};

/// Bytes of a proxy's answer that are read.
const MOST_BYTES: usize = 16 * 1024;

/// The chain of connectors: proxy or not, socket, TLS. Without settings for it only plain HTTP can be spoken.
pub(super) fn chain(tls: Option<Arc<ClientConfig>>) -> impl Connector {
    let tls = Tls(tls);
    ().chain(Tunnel { dial: Dial::default(), tls: tls.clone() }).chain(Dial::default()).chain(tls)
}

/// Connects to a proxy, where there is one, and has it connect to the host.
#[derive(Debug)]
struct Tunnel {
    dial: Dial,
    tls: Tls,
}

impl<In: Transport> Connector<In> for Tunnel {
    type Out = Either<In, Box<dyn Transport>>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        match chained {
            Some(transport) => Ok(Some(Either::A(transport))),
            None => Ok(self.open(details)?.map(Either::B)),
        }
    }
}

impl Tunnel {
    fn open(&self, details: &ConnectionDetails) -> Result<Option<Box<dyn Transport>>, ureq::Error> {
        let Some(proxy) = details.config.proxy() else { return Ok(None) };
        let found = self.dial.look_up(proxy.uri(), details)?;
        let Some(mut transport) = self.dial.open(found, proxy.uri(), details)? else { return Ok(None) };
        if is_https(proxy.uri()) {
            transport = Box::new(self.tls.open(transport, proxy.uri(), false, details)?);
        }
        let host = details.uri.host().unwrap_or_default();
        let port = details.uri.port_u16().unwrap_or(if is_https(details.uri) { 443 } else { 80 });
        let mut login = String::new();
        if proxy.username().is_some() || proxy.password().is_some() {
            let (user, password) =
                (proxy.username().unwrap_or_default(), proxy.password().unwrap_or_default());
            let text = STANDARD.encode(format!("{user}:{password}"));
            login = format!("Proxy-Authorization: Basic {text}\r\n");
        }
        let request = format!(
            "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: {}\r\nProxy-Connection: Keep-Alive\r\n{login}\r\n",
            concat!("runlet/", env!("CARGO_PKG_VERSION")),
        );
        let mut socket = TransportAdapter::new(transport, details.current_time.clone());
        socket.set_timeout(details.timeout);
        socket.write_all(request.as_bytes())?;
        let mut head = Vec::new();
        // A byte at a time, out of a buffer: what follows the answer is the host's.
        while !(head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n")) {
            let mut byte = [0];
            if head.len() == MOST_BYTES || socket.read(&mut byte)? == 0 {
                return Err(ureq::Error::Other(Box::new(NoTunnel { status: None })));
            }
            head.push(byte[0]);
        }
        match status(&head) {
            Some(200..=299) => Ok(Some(socket.into_inner())),
            status => Err(ureq::Error::Other(Box::new(NoTunnel { status }))),
        }
    }
}

/// The status of an answer, by its first line: `HTTP/1.1 407 Proxy Authentication Required`.
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(rest).ok()?.parse().ok()
}

/// The proxy did not connect to the host.
#[derive(Debug)]
pub(super) struct NoTunnel {
    /// Status of its answer; `None`: it gave none that is HTTP.
    pub(super) status: Option<u16>,
}

impl fmt::Display for NoTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "it answered {status}"),
            None => f.write_str("it gave no answer that is HTTP"),
        }
    }
}

impl std::error::Error for NoTunnel {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_stands_in_the_first_line() {
        assert_eq!(status(b"HTTP/1.1 407 Proxy Authentication Required\r\nx: y\r\n\r\n"), Some(407));
        assert_eq!(status(b"HTTP/1.0 200\r\n\r\n"), Some(200));
        for other in
            [&b"HTTP/1.1 2\r\n\r\n"[..], b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 ab0 x\r\n\r\n", b"\r\n\r\n"]
        {
            assert_eq!(status(other), None);
        }
    }
}
