//! How a connection is made: name look-up, socket, then TLS with our own trust; `tunnel` makes the way through a proxy of it.
//!
//! The HTTP library brings the rest. Its own TLS connector is not used because it copies every
//! trusted certificate and cannot be told who to name in an error. Its own look-up is not used
//! because it comes before every call, in a thread, even when a connection is at hand: a parked
//! runner would wake for nothing.

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::fmt;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, TcpConnector, Transport,
    TransportAdapter,
};

/// A chain of connectors without proxies, which connects to those addresses only that `may` lets it, whatever a name is
/// looked up to.
#[cfg(feature = "server")]
pub(super) fn chain_to(tls: Option<Arc<ClientConfig>>, may: fn(IpAddr) -> bool) -> impl Connector {
    ().chain(Guarded(Dial::default(), may)).chain(Tls(tls))
}

/// Looks the name up, and opens a socket to an address that is allowed.
#[cfg(feature = "server")]
#[derive(Debug)]
struct Guarded(Dial, fn(IpAddr) -> bool);

#[cfg(feature = "server")]
impl<In: Transport> Connector<In> for Guarded {
    type Out = Either<In, Box<dyn Transport>>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let found = self.0.look_up(details.uri, details)?;
        if found.iter().any(|address| !(self.1)(address.ip())) {
            let host = details.uri.host().unwrap_or_default().to_owned();
            return Err(ureq::Error::Other(Box::new(Forbidden { host })));
        }
        self.0.connect_to(found, details, chained)
    }
}

/// The address of a host is one that must not be called.
#[cfg(feature = "server")]
#[derive(Debug)]
struct Forbidden {
    host: String,
}

#[cfg(feature = "server")]
impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` has an address that is not public, which the control plane is not allowed to call",
            self.host
        )
    }
}

#[cfg(feature = "server")]
impl std::error::Error for Forbidden {}

/// Whether TLS is spoken to who has this address.
pub(super) fn is_https(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// Speaks TLS where the address says so.
#[derive(Clone)]
pub(super) struct Tls(pub(super) Option<Arc<ClientConfig>>);

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        // A plain call goes through the TLS of its proxy, where that has any.
        if !is_https(details.uri) {
            return Ok(Some(Either::A(transport)));
        }
        let tunnelled = details.config.proxy().is_some();
        Ok(Some(Either::B(self.open(transport.boxed(), details.uri, tunnelled, details)?)))
    }
}

impl Tls {
    /// Speaks TLS to who has this address.
    pub(super) fn open(
        &self,
        transport: Box<dyn Transport>,
        uri: &Uri,
        tunnelled: bool,
        details: &ConnectionDetails,
    ) -> Result<TlsTransport, ureq::Error> {
        let config = self.0.clone().ok_or(ureq::Error::TlsRequired)?;
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| ureq::Error::Tls("not a host name"))?;
        let other = |error: rustls::Error| ureq::Error::Io(std::io::Error::other(error));
        let mut connection = ClientConnection::new(config, name).map_err(other)?;
        let mut socket = TransportAdapter::new(transport, details.current_time.clone());
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket).map_err(|error| match ureq::Error::from(error) {
            ureq::Error::Io(error) => ureq::Error::Other(Box::new(Handshake { tunnelled, error })),
            other => other,
        })?;
        let sizes = (details.config.input_buffer_size(), details.config.output_buffer_size());
        let buffers = LazyBuffers::new(sizes.0, sizes.1);
        Ok(TlsTransport { buffers, stream: StreamOwned::new(connection, socket) })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

pub(super) struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        self.stream.flush()?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

/// TLS did not come about.
#[derive(Debug)]
pub(super) struct Handshake {
    /// Whether it is at the end of a proxy's tunnel, and not with the first host on the way.
    pub(super) tunnelled: bool,
    /// Why; most often an error of TLS inside.
    pub(super) error: std::io::Error,
}

impl fmt::Display for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Handshake {}

/// The connection that was there, or a socket.
type Opened<In> = Option<Either<In, Box<dyn Transport>>>;

/// Looks the name up and opens the socket.
#[derive(Debug, Default)]
pub(super) struct Dial {
    tcp: TcpConnector,
    names: DefaultResolver,
}

impl<In: Transport> Connector<In> for Dial {
    type Out = Either<In, Box<dyn Transport>>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let addresses =
            if chained.is_some() { self.names.empty() } else { self.look_up(details.uri, details)? };
        self.connect_to(addresses, details, chained)
    }
}

impl Dial {
    fn connect_to<In: Transport>(
        &self,
        addrs: ResolvedSocketAddrs,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Opened<In>, ureq::Error> {
        match chained {
            Some(transport) => Ok(Some(Either::A(transport))),
            None => Ok(self.open(addrs, details.uri, details)?.map(Either::B)),
        }
    }

    /// Opens a socket to who has this address.
    pub(super) fn open(
        &self,
        addrs: ResolvedSocketAddrs,
        uri: &Uri,
        details: &ConnectionDetails,
    ) -> Result<Option<Box<dyn Transport>>, ureq::Error> {
        let details = ConnectionDetails {
            uri,
            addrs,
            config: details.config,
            request_level: details.request_level,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        let opened = Connector::<Box<dyn Transport>>::connect(&self.tcp, &details, None)?;
        Ok(opened.map(|socket| Box::new(socket) as Box<dyn Transport>))
    }

    /// Looks up who has this address.
    pub(super) fn look_up(
        &self,
        uri: &Uri,
        details: &ConnectionDetails,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default();
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            let default = if is_https(uri) { 443 } else { 80 };
            let mut found = self.names.empty();
            found.push(SocketAddr::new(address, uri.port_u16().unwrap_or(default)));
            return Ok(found);
        }
        self.names.resolve(uri, details.config, details.timeout).map_err(|error| {
            let why = match &error {
                ureq::Error::Io(error) => error.to_string(),
                ureq::Error::HostNotFound => "it has no address".to_owned(),
                ureq::Error::Timeout(_) => "no name server answered in time".to_owned(),
                _ => return error,
            };
            let why = why.trim_start_matches("failed to lookup address information: ").to_owned();
            ureq::Error::Other(Box::new(UnknownHost { host: host.to_owned(), why }))
        })
    }
}

/// Stands where the library looks names up before every call; [`Dial`] does it when it is needed.
#[derive(Debug, Default)]
pub(super) struct Later(DefaultResolver);

impl Resolver for Later {
    fn resolve(
        &self,
        _uri: &Uri,
        _config: &ureq::config::Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut nowhere = self.0.empty();
        nowhere.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
        Ok(nowhere)
    }
}

/// A name that could not be looked up.
#[derive(Debug)]
pub(super) struct UnknownHost {
    /// The name: the control plane's or the proxy's.
    pub(super) host: String,
    /// The system's words.
    pub(super) why: String,
}

impl fmt::Display for UnknownHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name `{}` cannot be looked up: {}", self.host, self.why)
    }
}

impl std::error::Error for UnknownHost {}
