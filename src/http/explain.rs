//! Why no answer came and what to do about it: the library's errors in the words of an operator.

use super::connector::UnknownHost;
use super::proxy::Choice;
use super::tls::Untrusted;
use rustls::{AlertDescription, CertificateError};
use std::io::{self, ErrorKind};
use std::time::{Duration, SystemTime};
use ureq::Timeout;

/// One line: the cause, and after a semicolon what to do when that is known.
pub(super) fn transport(error: &ureq::Error, host: &str, proxy: Option<&Choice>) -> String {
    let via = |text: String| match proxy {
        Some(proxy) => format!("{text} (through the proxy `{}` of {})", proxy.shown, proxy.variable),
        None => text,
    };
    match error {
        ureq::Error::ConnectProxyFailed(why) => refused_by_proxy(why, proxy),
        ureq::Error::Timeout(timeout) => via(timed_out(*timeout, host)),
        ureq::Error::Other(other) => match other.downcast_ref::<UnknownHost>() {
            Some(unknown) => via(format!(
                "{unknown}; check `api.url` and the name servers of this host{}",
                if proxy.is_some_and(|p| p.shown.starts_with(&unknown.host)) {
                    " (it is the proxy)"
                } else {
                    ""
                }
            )),
            None => via(other.to_string()),
        },
        ureq::Error::Io(error) => match tls_cause(error) {
            Some(cause) => via(tls(cause, host)),
            None => via(io(error, host)),
        },
        ureq::Error::Protocol(error) => via(format!(
            "`{host}` does not speak HTTP there ({error}); check scheme and port of `api.url` (TLS needs `https://`)"
        )),
        ureq::Error::TlsRequired => {
            "the proxy wants TLS, which was not set up for a plain HTTP control plane; use an `http://` proxy"
                .to_owned()
        }
        other => via(other.to_string()),
    }
}

fn refused_by_proxy(why: &str, proxy: Option<&Choice>) -> String {
    let Some(proxy) = proxy else { return format!("the proxy failed: {why}") };
    let shown = &proxy.shown;
    if why.contains("407") && proxy.has_login {
        return format!("the proxy `{shown}` refused the login given in {} (407)", proxy.variable);
    }
    if why.contains("407") {
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

fn timed_out(timeout: Timeout, host: &str) -> String {
    match timeout {
        Timeout::Resolve => format!("the name `{host}` was not looked up in time; check the name servers"),
        Timeout::Connect => format!(
            "`{host}` did not answer in time while connecting; check `api.url`, and that a firewall lets this host out (or set HTTPS_PROXY)"
        ),
        _ => format!("`{host}` did not answer in time"),
    }
}

fn io(error: &io::Error, host: &str) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            format!("connection refused: nothing listens there; is the control plane at `{host}` running?")
        }
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::AddrNotAvailable => {
            format!("`{host}` cannot be reached from here: {error}")
        }
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            format!(
                "the connection to `{host}` was cut before an answer came; if it stays so, check scheme and port of `api.url`, and whether a client certificate is demanded"
            )
        }
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

fn tls(error: &rustls::Error, host: &str) -> String {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage};
    match error {
        InvalidCertificate(why) => certificate(why, host),
        InvalidMessage(_) => format!(
            "`{host}` does not speak TLS there; check scheme and port of `api.url` (a control plane without TLS needs `http://`)"
        ),
        AlertReceived(AlertDescription::CertificateRequired) => format!(
            "`{host}` demands a client certificate; name it in `api.client_certificate` and `api.client_key`"
        ),
        AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError),
        ) => format!(
            "`{host}` does not accept the client certificate ({alert:?}); check `api.client_certificate`"
        ),
        AlertReceived(alert) => format!("`{host}` refused the TLS connection ({alert:?})"),
        other => format!("TLS with `{host}` failed: {other}"),
    }
}

fn certificate(error: &CertificateError, host: &str) -> String {
    use CertificateError::{ExpiredContext, NotValidForNameContext, NotValidYetContext, Other};
    let at = |seconds: u64| {
        humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
    };
    match error {
        ExpiredContext { time, not_after } => format!(
            "the certificate of `{host}` expired at {} (the clock here says {}); renew it on the server",
            at(not_after.as_secs()),
            at(time.as_secs())
        ),
        NotValidYetContext { time, not_before } => format!(
            "the certificate of `{host}` is valid from {} only (the clock here says {}); check this host's clock",
            at(not_before.as_secs()),
            at(time.as_secs())
        ),
        NotValidForNameContext { presented, .. } => {
            let names: Vec<String> = presented.iter().map(|name| format!("`{}`", shown_name(name))).collect();
            let names = if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") };
            format!(
                "the certificate of `{host}` is for {names}; use one of these in `api.url`, or a certificate that has `{host}`"
            )
        }
        Other(other) => match other.0.downcast_ref::<Untrusted>() {
            Some(untrusted) => format!(
                "the certificate of `{host}` {untrusted}, which this host does not trust; put the certificate of that authority (PEM) into a file and name it in `api.ca_file` or SSL_CERT_FILE"
            ),
            None if other.0.to_string().contains("CaUsedAsEndEntity") => format!(
                "the certificate of `{host}` is marked as an authority; name that very certificate in `api.ca_file`, or have one issued for the server"
            ),
            None => format!("the certificate of `{host}` is not accepted: {other}"),
        },
        other => format!("the certificate of `{host}` is not accepted: {other}"),
    }
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

    #[test]
    fn a_proxy_that_demands_a_login_is_told_apart_from_one_that_refuses_it() {
        let error = ureq::Error::ConnectProxyFailed("proxy server responded 407/407".into());
        let text = transport(&error, "ci", Some(&proxy(false)));
        assert!(text.contains("demands a login (407); write it into HTTPS_PROXY"), "{text}");
        let text = transport(&error, "ci", Some(&proxy(true)));
        assert!(text.contains("refused the login") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn a_tls_error_is_found_below_its_wrappers() {
        let inner = io::Error::new(
            ErrorKind::InvalidData,
            rustls::Error::InvalidCertificate(CertificateError::Revoked),
        );
        let wrapped = io::Error::other(inner);
        assert!(transport(&ureq::Error::Io(wrapped), "ci", None).contains("certificate of `ci`"));
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
        let text = certificate(&error, "ci");
        assert!(text.contains("expired at 2023-11-14T22:13:20Z"), "{text}");
        let error = CertificateError::NotValidForNameContext {
            expected: rustls::pki_types::ServerName::try_from("ci").unwrap(),
            presented: vec![],
        };
        assert!(certificate(&error, "ci").contains("no name at all"));
    }
}
