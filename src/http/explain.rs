//! Why no answer came and what to do about it: the library's errors in the words of an operator.

use super::connector::{Handshake, UnknownHost};
use super::proxy::Choice;
use super::rejected::{CertificateFault, Rejected};
use super::tunnel::NoTunnel;
use crate::system::clock::Rfc3339;
use rustls::{AlertDescription, CertificateError};
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::{Duration, SystemTime};
use ureq::Timeout;

/// The way to the control plane.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    /// Name of the host that was asked for.
    pub(super) host: &'a str,
    /// The proxy that leads there.
    pub(super) proxy: Option<&'a Choice>,
    /// Whether a client certificate is presented.
    pub(super) presents: bool,
    /// Whether it leads to another service, which no setting of a runner is about.
    #[cfg(feature = "server")]
    pub(super) is_other_service: bool,
}

impl<'a> Way<'a> {
    fn far(&self) -> Peer<'a> {
        #[cfg(feature = "server")]
        if self.is_other_service {
            return Peer::Service(self.host);
        }
        Peer::ControlPlane(self.host)
    }
}

/// The peer that a connection failed with.
#[derive(Clone, Copy)]
pub(super) enum Peer<'a> {
    ControlPlane(&'a str),
    Proxy(&'a Choice),
    #[cfg(feature = "server")]
    Service(&'a str),
}

impl Peer<'_> {
    /// Source of its address.
    fn setting(&self) -> &str {
        match self {
            Peer::ControlPlane(_) => "`api.url`",
            Peer::Proxy(proxy) => proxy.variable,
            #[cfg(feature = "server")]
            Peer::Service(_) => "the address",
        }
    }
}

impl fmt::Display for Peer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::ControlPlane(host) => write!(f, "`{host}`"),
            Peer::Proxy(proxy) => write!(f, "the proxy `{}` of {}", proxy.shown, proxy.variable),
            #[cfg(feature = "server")]
            Peer::Service(host) => write!(f, "`{host}`"),
        }
    }
}

/// Says in one line the cause, and after a semicolon what to do when that is known.
pub(super) fn transport(error: &ureq::Error, way: &Way<'_>) -> String {
    let (far, proxy) = (way.far(), way.proxy);
    // The socket leads to the proxy, where there is one.
    let near = proxy.map_or(far, Peer::Proxy);
    let via = |text: String| match proxy {
        Some(_) => format!("{text} (through {near})"),
        None => text,
    };
    match error {
        ureq::Error::Timeout(timeout) => via(timed_out(*timeout, far)),
        ureq::Error::Other(other) => {
            if let Some(unknown) = other.downcast_ref::<UnknownHost>() {
                return format!("{unknown}; check {} and the name servers of this host", near.setting());
            }
            if let Some(refusal) = other.downcast_ref::<NoTunnel>() {
                return refused_by_proxy(refusal, proxy);
            }
            match other.downcast_ref::<Handshake>() {
                Some(Handshake { tunnelled: false, error }) => io(error, near, way.presents),
                Some(Handshake { error, .. }) => via(io(error, far, way.presents)),
                None => via(other.to_string()),
            }
        }
        ureq::Error::Io(error) => opened(error, near).unwrap_or_else(|| via(io(error, far, way.presents))),
        ureq::Error::Protocol(error) => via(format!(
            "{far} does not speak HTTP there ({error}); check scheme and port of {} (TLS needs `https://`)",
            far.setting()
        )),
        ureq::Error::TlsRequired => {
            "the proxy wants TLS, which was not set up for a plain HTTP control plane; use an `http://` proxy"
                .to_owned()
        }
        other => via(other.to_string()),
    }
}

fn refused_by_proxy(why: &NoTunnel, proxy: Option<&Choice>) -> String {
    let Some(proxy) = proxy else { return format!("the proxy failed: {why}") };
    let shown = &proxy.shown;
    if why.status == Some(407) && proxy.has_login {
        return format!("the proxy `{shown}` refused the login given in {} (407)", proxy.variable);
    }
    if why.status == Some(407) {
        return format!(
            "the proxy `{shown}` demands a login (407); write it into {} as `http://user:password@{shown}`",
            proxy.variable
        );
    }
    format!(
        "the proxy `{shown}` of {} would not connect: {why}; if no proxy is needed, put the host into NO_PROXY",
        proxy.variable
    )
}

fn timed_out(timeout: Timeout, peer: Peer<'_>) -> String {
    match timeout {
        Timeout::Resolve => format!("the name {peer} was not looked up in time; check the name servers"),
        Timeout::Connect => format!(
            "{peer} did not answer in time while connecting; check {}, and that a firewall lets this host out (or set HTTPS_PROXY)",
            peer.setting()
        ),
        _ => format!("{peer} did not answer in time"),
    }
}

/// Whether the connection was there, with TLS where it has that: what was to be sent may have arrived.
pub(super) fn was_connected(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => false,
        ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => true,
        ureq::Error::Io(error) => {
            // A refusal of our certificate comes when the library takes the connection for made.
            let opening = matches!(
                error.kind(),
                ErrorKind::ConnectionRefused
                    | ErrorKind::NetworkUnreachable
                    | ErrorKind::HostUnreachable
                    | ErrorKind::AddrNotAvailable
            );
            !opening && tls_cause(error).is_none()
        }
        _ => false,
    }
}

/// Whether the other side has closed the connection in the place of an answer.
pub(super) fn was_cut(error: &ureq::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let of = |kind| matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof);
    matches!(error, ureq::Error::Io(error) if of(error.kind()))
}

/// The error of opening the socket, if it was that.
fn opened(error: &io::Error, peer: Peer<'_>) -> Option<String> {
    Some(match (error.kind(), peer) {
        (ErrorKind::ConnectionRefused, Peer::ControlPlane(_)) => {
            format!("connection refused: nothing listens there; is the control plane at {peer} running?")
        }
        #[cfg(feature = "server")]
        (ErrorKind::ConnectionRefused, Peer::Service(_)) => {
            format!("connection refused: nothing listens at {peer}")
        }
        (ErrorKind::ConnectionRefused, Peer::Proxy(_)) => format!(
            "connection refused: nothing listens at {peer}; is it running? If none is needed, put the host into NO_PROXY"
        ),
        (ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::AddrNotAvailable, _) => {
            format!("{peer} cannot be reached from here: {error}")
        }
        _ => return None,
    })
}

fn io(error: &io::Error, peer: Peer<'_>, presents: bool) -> String {
    match (tls_cause(error), error.kind()) {
        (Some(cause), _) => tls(cause, peer, presents),
        (None, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => format!(
            "the connection to {peer} was cut before an answer came; if it stays so, check scheme and port of {}, and whether a client certificate is demanded",
            peer.setting()
        ),
        _ => error.to_string(),
    }
}

/// The TLS error at the bottom of a chain of wrappers.
fn tls_cause(error: &io::Error) -> Option<&rustls::Error> {
    let mut inner: &(dyn std::error::Error + 'static) = error.get_ref()?;
    loop {
        if let Some(found) = inner.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        inner = match inner.downcast_ref::<io::Error>() {
            Some(wrapped) => wrapped.get_ref()?,
            None => inner.source()?,
        };
    }
}

pub(super) fn tls(error: &rustls::Error, peer: Peer<'_>, presents: bool) -> String {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage};
    match error {
        InvalidCertificate(why) => certificate(why, peer),
        InvalidMessage(_) => match peer {
            Peer::ControlPlane(_) => format!(
                "{peer} does not speak TLS there; check scheme and port of `api.url` (a control plane without TLS needs `http://`)"
            ),
            Peer::Proxy(_) => format!("{peer} does not speak TLS; write it as `http://`"),
            #[cfg(feature = "server")]
            Peer::Service(_) => {
                format!("{peer} does not speak TLS there; check scheme and port of the address")
            }
        },
        // A certificate of the client is never presented to a service.
        #[cfg(feature = "server")]
        AlertReceived(alert) if matches!(peer, Peer::Service(_)) => {
            format!("{peer} refused the TLS connection ({alert:?})")
        }
        AlertReceived(AlertDescription::CertificateRequired) => format!(
            "{peer} demands a client certificate; name it in `api.client_certificate` and `api.client_key`"
        ),
        // TLS 1.2 has no word of its own for it.
        AlertReceived(AlertDescription::HandshakeFailure) if !presents => format!(
            "{peer} refused the TLS connection (HandshakeFailure); it may demand a client certificate (`api.client_certificate` and `api.client_key`), or have a key of a kind that is not known here (known: RSA, P-256, P-384, Ed25519)"
        ),
        AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::HandshakeFailure),
        ) if presents => {
            format!(
                "{peer} does not accept the client certificate ({alert:?}); check `api.client_certificate`"
            )
        }
        AlertReceived(alert) => format!("{peer} refused the TLS connection ({alert:?})"),
        other => format!("TLS with {peer} failed: {other}"),
    }
}

fn certificate(error: &CertificateError, peer: Peer<'_>) -> String {
    use CertificateError::{NotValidForNameContext, Other};
    match error {
        NotValidForNameContext { presented, .. } => {
            let names: Vec<String> = presented.iter().map(|name| format!("`{}`", shown_name(name))).collect();
            let names = if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") };
            format!(
                "the certificate of {peer} is for {names}; use one of these in {}, or a certificate that has this one",
                peer.setting()
            )
        }
        Other(other) => match other.0.downcast_ref::<Rejected>() {
            Some(rejected) => {
                let whose = match &rejected.of {
                    None => format!("the certificate of {peer}"),
                    Some(owner) => format!("the certificate `{owner}`, which {peer} sends along,"),
                };
                match &rejected.why {
                    CertificateFault::Other(error) => {
                        dated(error, &whose).unwrap_or_else(|| format!("{whose} {rejected}"))
                    }
                    _ => format!("{whose} {rejected}"),
                }
            }
            None => format!("the certificate of {peer} is not accepted: {other}"),
        },
        other => {
            let whose = format!("the certificate of {peer}");
            dated(other, &whose).unwrap_or_else(|| format!("{whose} is not accepted: {other}"))
        }
    }
}

/// A certificate whose time is over or has not come.
fn dated(error: &CertificateError, whose: &str) -> Option<String> {
    let at = |seconds: u64| {
        Rfc3339 { time: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), milliseconds: false }
            .to_string()
    };
    Some(match error {
        CertificateError::ExpiredContext { time, not_after } => format!(
            "{whose} expired at {} (the clock here says {}); renew it on the server",
            at(not_after.as_secs()),
            at(time.as_secs())
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "{whose} is valid from {} only (the clock here says {}); check this host's clock",
            at(not_before.as_secs()),
            at(time.as_secs())
        ),
        _ => return None,
    })
}

/// `DnsName("a.example")` as the TLS library writes it, or `IpAddress(127.0.0.1)`, as `a.example`.
fn shown_name(name: &str) -> &str {
    name.split_once('(').map_or(name, |(_, rest)| rest.trim_end_matches(')').trim_matches('"'))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn proxy(has_login: bool) -> Choice {
        Choice {
            url: "http://u:secret@proxy:3128".into(),
            variable: "HTTPS_PROXY",
            shown: "proxy:3128".into(),
            has_login,
        }
    }

    fn way(proxy: Option<&Choice>) -> Way<'_> {
        Way {
            host: "ci",
            proxy,
            presents: false,
            #[cfg(feature = "server")]
            is_other_service: false,
        }
    }

    #[test]
    fn what_the_first_socket_met_is_the_proxys() {
        let refused = || ureq::Error::Io(ErrorKind::ConnectionRefused.into());
        let text = transport(&refused(), &way(Some(&proxy(true))));
        assert!(text.contains("nothing listens at the proxy `proxy:3128` of HTTPS_PROXY"), "{text}");
        assert!(!text.contains("control plane"), "{text}");
        assert!(transport(&refused(), &way(None)).contains("is the control plane at `ci` running?"));
        let expired = |tunnelled| {
            let error = rustls::Error::InvalidCertificate(CertificateError::Revoked);
            ureq::Error::Other(Box::new(Handshake { tunnelled, error: io::Error::other(error) }))
        };
        let text = transport(&expired(false), &way(Some(&proxy(false))));
        assert!(
            text.starts_with("the certificate of the proxy `proxy:3128` of HTTPS_PROXY is not"),
            "{text}"
        );
        let text = transport(&expired(true), &way(Some(&proxy(false))));
        assert!(
            text.starts_with("the certificate of `ci` is not") && text.contains("(through the"),
            "{text}"
        );
    }

    #[test]
    fn a_refused_handshake_speaks_of_the_client_certificate() {
        let alert = rustls::Error::AlertReceived(AlertDescription::HandshakeFailure);
        let peer = Peer::ControlPlane("ci");
        assert!(
            tls(&alert, peer, false).contains("may demand a client certificate (`api.client_certificate`")
        );
        assert!(tls(&alert, peer, true).contains("does not accept the client certificate"));
    }

    #[test]
    fn a_proxy_that_demands_a_login_is_told_apart_from_one_that_refuses_it() {
        let error = ureq::Error::Other(Box::new(NoTunnel { status: Some(407) }));
        let text = transport(&error, &way(Some(&proxy(false))));
        assert!(text.contains("demands a login (407); write it into HTTPS_PROXY"), "{text}");
        let text = transport(&error, &way(Some(&proxy(true))));
        assert!(text.contains("refused the login") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn a_tls_error_is_found_below_its_wrappers() {
        let inner = io::Error::new(
            ErrorKind::InvalidData,
            rustls::Error::InvalidCertificate(CertificateError::Revoked),
        );
        let wrapped = io::Error::other(inner);
        assert!(transport(&ureq::Error::Io(wrapped), &way(None)).contains("certificate of `ci`"));
        assert!(tls_cause(&io::Error::other("x")).is_none());
    }

    #[test]
    fn names_lose_the_wrapping_of_the_library() {
        assert_eq!(shown_name("DnsName(\"a.example\")"), "a.example");
        assert_eq!(shown_name("b"), "b");
        let time = rustls::pki_types::UnixTime::since_unix_epoch;
        let error = CertificateError::ExpiredContext {
            time: time(Duration::from_secs(1_800_000_000)),
            not_after: time(Duration::from_secs(1_700_000_000)),
        };
        let text = certificate(&error, Peer::ControlPlane("ci"));
        assert!(text.contains("expired at 2023-11-14T22:13:20Z"), "{text}");
        let error = CertificateError::NotValidForNameContext {
            expected: rustls::pki_types::ServerName::try_from("ci").unwrap(),
            presented: vec![],
        };
        assert!(certificate(&error, Peer::ControlPlane("ci")).contains("no name at all"));
    }
}
