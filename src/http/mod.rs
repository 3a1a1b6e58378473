//! The runner's HTTP client: one call, bounded answer, no retry by itself.
//!
//! `agent`, `executor` and `exec` use it; it knows paths, tokens and bytes and nothing of tasks. TLS
//! is always verified: `tls` builds the trust, `proxy` chooses the way out, `explain` says in an
//! operator's words what went wrong, `retry` holds the policy of trying again.

mod certificate;
mod connector;
mod explain;
mod proxy;
mod rejected;
pub mod retry;
mod stream;
pub mod tls;

#[cfg(test)]
mod known_answers;

use crate::protocol::{PROTOCOL_HEADER, PROTOCOL_VERSION, Refusal, Secret};
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use ureq::http::Uri;

/// Where the control plane is and how to trust it.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// Base URL without a trailing slash, such as `https://ci.example.com`.
    pub url: String,
    /// Further certificate authorities, PEM; added to those of the system.
    pub ca_file: Option<PathBuf>,
    /// Client certificate and its key, PEM.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

/// Set to `1`, it lets tokens travel to another host over plain HTTP.
pub const ALLOW_PLAINTEXT: &str = "RUNLET_ALLOW_PLAINTEXT";

/// An idle connection older than this is not used again: proxies and load balancers drop theirs
/// silently, the strictest of them after some 30 s.
const MAX_IDLE: Duration = Duration::from_secs(20);

/// How long a name look-up and a connection may take, each.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Per connection and direction. Large enough to fill TLS records, small enough for a parked runner.
const BUFFER_BYTES: usize = 16 * 1024;

/// A client of one control plane. Cheap to share between threads.
pub struct Client {
    agent: ureq::Agent,
    url: String,
    host: String,
    tls: Option<Arc<rustls::ClientConfig>>,
    proxy: Option<proxy::Choice>,
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// No body.
    Empty,
    /// A JSON document.
    Json(&'a [u8]),
    /// Raw bytes.
    Bytes(&'a [u8]),
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: &'static str,
    /// Path and query, beginning with `/`.
    pub path: &'a str,
    /// Sent as bearer token.
    pub token: Option<&'a Secret>,
    /// What to send.
    pub body: Body<'a>,
    /// For the whole call, answer included.
    pub timeout: Duration,
}

/// A complete answer of any status.
#[derive(Clone, Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After`, counted from now.
    pub retry_after: Option<Duration>,
    /// At most [`MAX_ANSWER_BYTES`].
    pub body: Vec<u8>,
}

/// Longest answer that is read, in bytes.
pub const MAX_ANSWER_BYTES: u64 = 16 * 1024 * 1024;

/// Why there is no answer, or not a usable one.
#[derive(Debug)]
pub enum Error {
    /// The endpoint's own settings are wrong: URL, certificate files. Trying again cannot help.
    Setup(String),
    /// No answer came: connection, TLS, timeout.
    Transport(String),
    /// An answer came that refuses the call.
    Refused {
        /// HTTP status.
        status: u16,
        /// `Retry-After`, counted from now.
        retry_after: Option<Duration>,
        /// The body, when it was the protocol's own.
        refusal: Option<Refusal>,
        /// What to tell people.
        message: String,
    },
    /// An answer came that is not what the protocol says, such as a proxy's HTML page.
    Undecodable(String),
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Setup(_) => false,
            Error::Transport(_) | Error::Undecodable(_) => true,
            Error::Refused { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Setup(message) | Error::Transport(message) | Error::Undecodable(message) => {
                f.write_str(message)
            }
            Error::Refused { message, .. } => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl Client {
    /// Builds the client: checks the URL, reads certificate files and the proxy variables.
    pub fn new(endpoint: &Endpoint) -> Result<Self, Error> {
        let url = endpoint.url.trim_end_matches('/').to_owned();
        let uri = check_url(&url)?;
        if uri.scheme_str() == Some("http") {
            let host = uri.host().unwrap_or_default();
            let allowed = std::env::var(ALLOW_PLAINTEXT).is_ok_and(|value| value == "1");
            if !proxy::is_loopback(host) && !allowed {
                return Err(Error::Setup(format!(
                    "refusing to send tokens to `{url}` over plain HTTP; use `https://`, or set {ALLOW_PLAINTEXT}=1 if everything between here and `{host}` is trusted"
                )));
            }
        }
        let proxy = proxy::choose(&uri, |name| std::env::var(name).ok()).map_err(Error::Setup)?;
        let tls_proxy = proxy.as_ref().is_some_and(|proxy| proxy.url.starts_with("https:"));
        let needs_tls = uri.scheme_str() == Some("https") || tls_proxy;
        let tls = if needs_tls { Some(tls::config(endpoint)?) } else { None };
        let host = uri.host().unwrap_or_default().to_owned();
        let agent = agent(tls.clone(), proxy.as_ref())?;
        Ok(Self { agent, url, host, tls, proxy })
    }

    /// Another client of the same control plane with connections of its own; trust is shared.
    pub fn sibling(&self) -> Result<Self, Error> {
        Ok(Self {
            agent: agent(self.tls.clone(), self.proxy.as_ref())?,
            url: self.url.clone(),
            host: self.host.clone(),
            tls: self.tls.clone(),
            proxy: self.proxy.clone(),
        })
    }

    /// Closes all connections, for good: calls in flight on other threads end at once with
    /// [`Error::Transport`], as do later ones.
    pub fn close(&self) {
        self.agent.clone().shutdown();
    }

    /// Base URL of the control plane.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The proxy in use, as `host:port`.
    pub fn proxy(&self) -> Option<&str> {
        self.proxy.as_ref().map(|proxy| proxy.shown.as_str())
    }

    /// Makes one call. An answer of any status is a [`Response`]; no answer is [`Error::Transport`].
    pub fn send(&self, request: &Request<'_>) -> Result<Response, Error> {
        let url = format!("{}{}", self.url, request.path);
        let mut builder = ureq::http::Request::builder().method(request.method).uri(&url);
        builder = builder.header(PROTOCOL_HEADER, PROTOCOL_VERSION);
        if let Some(token) = request.token {
            builder = builder.header("Authorization", format!("Bearer {}", token.expose()));
        }
        let (kind, bytes) = match request.body {
            Body::Empty => (None, &[][..]),
            Body::Json(bytes) => (Some("application/json"), bytes),
            Body::Bytes(bytes) => (Some("application/octet-stream"), bytes),
        };
        if let Some(kind) = kind {
            builder = builder.header("Content-Type", kind);
        }
        let http = builder.body(bytes).map_err(|e| Error::Setup(format!("cannot call `{url}`: {e}")))?;
        let connect = CONNECT_TIMEOUT.min(request.timeout);
        let http = self
            .agent
            .configure_request(http)
            .timeout_global(Some(request.timeout))
            .timeout_resolve(Some(connect))
            .timeout_connect(Some(connect))
            .allow_non_standard_methods(true)
            .build();
        let answer = self.agent.run(http).map_err(|error| {
            let why = self.explain(&error);
            Error::Transport(format!("failed to {} `{url}`: {why}", request.method))
        })?;
        let status = answer.status().as_u16();
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after = header("retry-after").and_then(|v| retry::retry_after(v, SystemTime::now()));
        if let (300..=399, Some(location)) = (status, header("location")) {
            // Followed, it would carry the token to a place nobody named.
            let location: String = location.chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(Error::Refused {
                status,
                retry_after,
                refusal: None,
                message: format!(
                    "{} `{url}` was redirected to `{location}`, which is not followed; correct `api.url`",
                    request.method
                ),
            });
        }
        let mut body = Vec::new();
        let mut reader = answer.into_body().into_reader().take(MAX_ANSWER_BYTES + 1);
        reader.read_to_end(&mut body).map_err(|error| {
            let why = self.explain(&error.into());
            Error::Transport(format!("failed to read the answer of `{url}`: {why}"))
        })?;
        if body.len() as u64 > MAX_ANSWER_BYTES {
            return Err(Error::Undecodable(format!(
                "the answer of `{url}` is longer than {MAX_ANSWER_BYTES} bytes"
            )));
        }
        Ok(Response { status, retry_after, body })
    }

    fn explain(&self, error: &ureq::Error) -> String {
        let presents = self.tls.as_ref().is_some_and(|tls| tls.client_auth_cert_resolver.has_certs());
        explain::transport(error, &explain::Way { host: &self.host, proxy: self.proxy.as_ref(), presents })
    }

    /// Makes one call and decodes a 2xx answer as JSON; anything else is an error.
    pub fn json<A: serde::de::DeserializeOwned>(&self, request: &Request<'_>) -> Result<A, Error> {
        let response = self.send(request)?;
        response.decode(request, &self.url)
    }

    /// Makes one call and returns the body of a 2xx answer as it is; anything else is an error.
    pub fn bytes(&self, request: &Request<'_>) -> Result<Vec<u8>, Error> {
        let response = self.send(request)?;
        if (200..300).contains(&response.status) {
            return Ok(response.body);
        }
        Err(response.refused(request, &self.url))
    }
}

/// Checks the base URL; the error says what is wrong with it.
pub fn check_url(url: &str) -> Result<Uri, Error> {
    let wrong = |why: &str| {
        Error::Setup(format!(
            "`{url}` is not the address of a control plane: {why} (expected something like `https://ci.example.com`)"
        ))
    };
    let uri: Uri = url.parse().map_err(|_| wrong("it is not a URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("it begins neither with `https://` nor with `http://`"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
    if authority.host().is_empty() {
        return Err(wrong("it has no host"));
    }
    if authority.as_str().contains('@') {
        // Not shown: the part before the `@` may be a password.
        return Err(Error::Setup("the address of the control plane must not contain a login".to_owned()));
    }
    // The URL parser keeps a port that is no number to itself.
    let after_host = &authority.as_str()[authority.host().len().min(authority.as_str().len())..];
    if !after_host.is_empty() && authority.port_u16().is_none() {
        return Err(wrong("its port is not a number up to 65535"));
    }
    if uri.query().is_some() || url.contains('#') {
        return Err(wrong("it must not have a query or a fragment"));
    }
    Ok(uri)
}

fn agent(
    tls: Option<Arc<rustls::ClientConfig>>,
    proxy: Option<&proxy::Choice>,
) -> Result<ureq::Agent, Error> {
    let proxy = match proxy {
        None => None,
        Some(choice) => Some(ureq::Proxy::new(&choice.url).map_err(|_| {
            Error::Setup(format!("{} is not a proxy URL (`http://user:password@host:port`)", choice.variable))
        })?),
    };
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(proxy)
        .max_idle_age(MAX_IDLE)
        .max_idle_connections_per_host(2)
        .input_buffer_size(BUFFER_BYTES)
        .output_buffer_size(BUFFER_BYTES)
        .user_agent(concat!("runlet/", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(ureq::Agent::with_parts(config, connector::chain(tls), connector::Later::default()))
}

impl Response {
    /// Decodes a 2xx answer as JSON. Any other status, or another body, is an error that says what was
    /// called.
    pub fn decode<A: serde::de::DeserializeOwned>(
        self,
        request: &Request<'_>,
        url: &str,
    ) -> Result<A, Error> {
        let what = format!("{} `{url}{}`", request.method, request.path);
        if (200..300).contains(&self.status) {
            return serde_json::from_slice(&self.body).map_err(|e| {
                Error::Undecodable(format!("the answer to {what} is not what a control plane says: {e}"))
            });
        }
        Err(self.refused(request, url))
    }

    fn refused(self, request: &Request<'_>, url: &str) -> Error {
        let what = format!("{} `{url}{}`", request.method, request.path);
        let refusal: Option<Refusal> = serde_json::from_slice(&self.body).ok();
        let why = refusal.as_ref().map_or_else(String::new, |r| format!(": {}", r.message));
        Error::Refused {
            status: self.status,
            retry_after: self.retry_after,
            message: format!("{what} was refused with status {}{why}", self.status),
            refusal,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_with_a_reason() {
        for (url, why) in [
            ("ci.example.com", "begins neither"),
            ("ftp://ci.example.com", "begins neither"),
            ("https://", "not a URL"),
            ("https://ci:99999", "port"),
            ("https://ci:", "port"),
            ("https://ci?x=1", "query"),
            ("https://ci/#x", "fragment"),
            ("https://me:secret@ci", "login"),
        ] {
            let error = check_url(url).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{url}: {error}");
        }
        for good in ["https://ci", "http://127.0.0.1:8000", "https://ci/base", "http://[::1]:1"] {
            assert!(check_url(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn tokens_do_not_travel_in_the_clear() {
        let endpoint = |url: &str| Endpoint { url: url.to_owned(), ..Endpoint::default() };
        assert!(Client::new(&endpoint("http://127.0.0.1:1/")).is_ok());
        let error = Client::new(&endpoint("http://ci.example.com")).err().unwrap();
        assert!(matches!(&error, Error::Setup(text) if text.contains(ALLOW_PLAINTEXT)), "{error}");
        assert!(!error.is_retryable());
    }

    #[test]
    fn a_closed_client_fails_at_once_and_its_sibling_does_not_care() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::new(&Endpoint { url, ..Endpoint::default() }).unwrap();
        let sibling = client.sibling().unwrap();
        let request = Request {
            method: "GET",
            path: "/",
            token: None,
            body: Body::Empty,
            timeout: Duration::from_secs(300),
        };
        std::thread::scope(|scope| {
            let parked = scope.spawn(|| client.send(&request));
            let (first, _) = listener.accept().unwrap();
            client.close();
            assert!(matches!(parked.join().unwrap(), Err(Error::Transport(_))));
            drop(first);
            assert!(matches!(client.send(&request), Err(Error::Transport(_))));
            let answered = scope.spawn(|| sibling.send(&request));
            let (mut second, _) = listener.accept().unwrap();
            std::io::Write::write_all(&mut second, b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            assert_eq!(answered.join().unwrap().unwrap().status, 204);
        });
    }
}
