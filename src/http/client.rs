//! A client of the control plane: each call is made once, with an answer within bounds.

use super::endpoint::{ALLOW_PLAINTEXT, Endpoint, check_url};
use super::error::Error;
use super::{connector, explain, proxy, retry, tls, tunnel};
use crate::protocol::{
    CLAIMED_HEADER, PROTOCOL_HEADER, PROTOCOL_VERSION, Refusal, Secret, TASK_CANCEL, TASK_ENDED, TASK_HEADER,
    json, limits,
};
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// An idle connection older than this is not used again: proxies and load balancers drop theirs
/// silently, the strictest of them after some 30 s.
pub const MAX_IDLE: Duration = Duration::from_secs(20);

/// How long a name look-up and a connection may take, each.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Idle connections of a runner: its calls, and what it sends.
const MOST_IDLE: usize = 2;

/// Per connection and direction. Large enough to fill TLS records, small enough for a parked runner.
const BUFFER_BYTES: usize = 16 * 1024;
/// Buffer for the output of a task: each turn of it is two calls of the system and wakes the other side.
const OUTPUT_BYTES: usize = 128 * 1024;

/// A client of one control plane. Cheap to share between threads.
pub struct Client {
    agent: ureq::Agent,
    url: String,
    host: String,
    tls: Option<Arc<rustls::ClientConfig>>,
    proxy: Option<proxy::Choice>,
    /// How many idle connections are kept.
    connections: usize,
    /// Only a control plane may answer.
    strict: bool,
}

/// Content of a call.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// No body at all.
    Empty,
    /// A JSON document.
    Json(&'a [u8]),
    /// Bytes as they are.
    Bytes(&'a [u8]),
}

/// Call to a control plane.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: &'static str,
    /// Path and query, beginning with `/`.
    pub path: &'a str,
    /// Sent as bearer token.
    pub token: Option<&'a Secret>,
    /// Content of a call.
    pub body: Body<'a>,
    /// Longest time for the whole call, answer included.
    pub timeout: Duration,
}

/// A complete answer of any status.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status of the answer.
    pub status: u16,
    /// `Retry-After`, counted from now.
    pub retry_after: Option<Duration>,
    /// News of the task whose token the call had.
    pub news: Option<TaskNews>,
    /// Body of at most [`MAX_ANSWER_BYTES`].
    pub body: Vec<u8>,
}

/// News of a task, which any answer to a call with its token may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskNews {
    /// Somebody cancelled it.
    Cancel,
    /// The task has ended there, and this call was taken all the same.
    Ended,
}

/// Longest answer that is read, in bytes.
pub const MAX_ANSWER_BYTES: usize =
    if limits::CLAIM_BYTES > limits::ANSWER_BYTES { limits::CLAIM_BYTES } else { limits::ANSWER_BYTES };

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
        Self::with_parts(endpoint, tls, proxy, MOST_IDLE)
    }

    /// Makes a client of parts that others have made.
    pub(super) fn with_parts(
        endpoint: &Endpoint,
        tls: Option<Arc<rustls::ClientConfig>>,
        proxy: Option<proxy::Choice>,
        connections: usize,
    ) -> Result<Self, Error> {
        let url = endpoint.url.trim_end_matches('/').to_owned();
        let host = check_url(&url)?.host().unwrap_or_default().to_owned();
        let agent = agent(tls.clone(), proxy.as_ref(), connections, BUFFER_BYTES)?;
        Ok(Self { agent, url, host, tls, proxy, connections, strict: false })
    }

    /// A sibling that keeps so many connections.
    #[cfg(feature = "kubernetes")]
    pub(super) fn with_connections(mut self, connections: usize) -> Result<Self, Error> {
        self.connections = connections;
        self.sibling()
    }

    /// The library's part.
    #[cfg(feature = "kubernetes")]
    pub(super) fn agent(&self) -> &ureq::Agent {
        &self.agent
    }

    /// Makes a client for the calls of the runner protocol: an answer without the protocol's header is
    /// [`Error::Foreign`], whatever its status.
    pub fn of_runner(endpoint: &Endpoint) -> Result<Self, Error> {
        Ok(Self { strict: true, ..Self::new(endpoint)? })
    }

    /// The client with larger buffers, for many bytes at a time. Its siblings have small ones.
    pub fn of_output(self) -> Result<Self, Error> {
        let agent = agent(self.tls.clone(), self.proxy.as_ref(), self.connections, OUTPUT_BYTES)?;
        Ok(Self { agent, ..self })
    }

    /// Another client of the same control plane with connections of its own; trust is shared.
    pub fn sibling(&self) -> Result<Self, Error> {
        Ok(Self {
            agent: agent(self.tls.clone(), self.proxy.as_ref(), self.connections, BUFFER_BYTES)?,
            url: self.url.clone(),
            host: self.host.clone(),
            tls: self.tls.clone(),
            proxy: self.proxy.clone(),
            connections: self.connections,
            strict: self.strict,
        })
    }

    /// Closes all connections, for good: calls in flight on other threads end at once with
    /// [`Error::Unanswered`], as do later ones.
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

    /// Makes one call. An answer of any status is a [`Response`]; no answer is [`Error::Transport`]
    /// or [`Error::Unanswered`].
    pub fn send(&self, request: &Request<'_>) -> Result<Response, Error> {
        let url = format!("{}{}", self.url, request.path);
        let connect = CONNECT_TIMEOUT.min(request.timeout);
        let (kind, bytes) = match request.body {
            Body::Empty => (None, &[][..]),
            Body::Json(bytes) => (Some("application/json"), bytes),
            Body::Bytes(bytes) => (Some("application/octet-stream"), bytes),
        };
        // A connection that was kept may be closed just when it is used again. What only asks is asked once more.
        let mut may_repeat = request.method == "GET";
        let answer = loop {
            let mut builder = ureq::http::Request::builder().method(request.method).uri(&url);
            builder = builder.header(PROTOCOL_HEADER, PROTOCOL_VERSION);
            if let Some(token) = request.token {
                builder = builder.header("Authorization", format!("Bearer {}", token.expose()));
            }
            if let Some(kind) = kind {
                builder = builder.header("Content-Type", kind);
            }
            let http = builder.body(bytes).map_err(|e| Error::Setup(format!("cannot call `{url}`: {e}")))?;
            let configured = self
                .agent
                .configure_request(http)
                .timeout_global(Some(request.timeout))
                .timeout_resolve(Some(connect))
                .timeout_connect(Some(connect))
                .allow_non_standard_methods(true)
                .build();
            match self.agent.run(configured) {
                Err(error) if may_repeat && explain::was_cut(&error) => may_repeat = false,
                answer => break answer,
            }
        };
        let answer = answer.map_err(|error| {
            let message = format!("failed to {} `{url}`: {}", request.method, self.explain(&error));
            if explain::was_connected(&error) {
                Error::Unanswered(message)
            } else {
                Error::Transport(message)
            }
        })?;
        let status = answer.status().as_u16();
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        // The other side has written the header, and people read it: no control characters, 200 at most.
        let shown = |text: &str| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
        let location = header("location").filter(|_| matches!(status, 300..=399)).map(shown);
        // A control plane redirects no runner, whatever the header says.
        if self.strict && (location.is_some() || header(PROTOCOL_HEADER).is_none()) {
            let led = location
                .map_or_else(String::new, |to| format!(", a redirect to `{to}` that is not followed,"));
            let who = header("server")
                .map_or_else(String::new, |name| format!(" calls itself `{}` and", shown(name)));
            return Err(Error::Foreign(format!(
                "{} `{url}` was answered with status {status}{led} by something that{who} is no Runlet control plane (it redirects, or has no `{PROTOCOL_HEADER}` header): check `api.url`, and what answers or strips headers on the way",
                request.method
            )));
        }
        let news = match header(TASK_HEADER) {
            Some(TASK_CANCEL) => Some(TaskNews::Cancel),
            Some(TASK_ENDED) => Some(TaskNews::Ended),
            _ => None,
        };
        let retry_after = header("retry-after").and_then(|v| retry::retry_after(v, SystemTime::now()));
        if let Some(location) = location {
            // Followed, it would carry the token to a place nobody named.
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
        let claimed = header(CLAIMED_HEADER).map(str::to_owned);
        let mut body = Vec::new();
        let mut reader = answer.into_body().into_reader().take(MAX_ANSWER_BYTES as u64 + 1);
        reader.read_to_end(&mut body).map_err(|error| {
            let why = self.explain(&error.into());
            Error::Unanswered(format!("failed to read the answer of `{url}`: {why}"))
        })?;
        if body.len() > MAX_ANSWER_BYTES {
            let message = format!(
                "the answer to {} `{url}` is longer than the {MAX_ANSWER_BYTES} bytes that an answer may have",
                request.method
            );
            return Err(Error::TooLong { message, claimed });
        }
        Ok(Response { status, retry_after, news, body })
    }

    pub(super) fn explain(&self, error: &ureq::Error) -> String {
        let presents = self.tls.as_ref().is_some_and(|tls| tls.client_auth_cert_resolver.has_certs());
        let way = explain::Way {
            host: &self.host,
            proxy: self.proxy.as_ref(),
            presents,
            #[cfg(feature = "server")]
            is_other_service: false,
        };
        explain::transport(error, &way)
    }

    /// Gets `path` and returns its body for reading as it arrives. Any status but 200 is an error.
    pub fn open(&self, path: &str, token: &Secret) -> Result<impl Read + use<>, Error> {
        let url = if path.starts_with('/') { format!("{}{path}", self.url) } else { path.to_owned() };
        let call = self.agent.get(&url).header("Authorization", format!("Bearer {}", token.expose()));
        let answer = call.call().map_err(|error| {
            let why = self.explain(&error);
            Error::Transport(format!("failed to GET `{url}`: {why}"))
        })?;
        let status = answer.status().as_u16();
        if status != 200 {
            let message = format!("GET `{url}` was refused with status {status}");
            return Err(Error::Refused { status, retry_after: None, refusal: None, message });
        }
        Ok(answer.into_body().into_reader())
    }

    /// Makes one call and decodes a 2xx answer as JSON; anything else is an error.
    pub fn json<A: serde::de::DeserializeOwned>(&self, request: &Request<'_>) -> Result<A, Error> {
        let response = self.send(request)?;
        response.decode(request, &self.url)
    }

    /// Makes one call and returns the body of a 2xx answer as it is; anything else is an error.
    pub fn bytes(&self, request: &Request<'_>) -> Result<Vec<u8>, Error> {
        let response = self.send(request)?;
        response.raw(request, &self.url)
    }
}

fn agent(
    tls: Option<Arc<rustls::ClientConfig>>,
    proxy: Option<&proxy::Choice>,
    connections: usize,
    output: usize,
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
        .max_idle_connections_per_host(connections)
        .max_response_header_size(limits::HEADER_BYTES)
        .input_buffer_size(BUFFER_BYTES)
        .output_buffer_size(output)
        .user_agent(concat!("runlet/", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(ureq::Agent::with_parts(config, tunnel::chain(tls), connector::Later::default()))
}

/// The body of a 2xx answer, decoded. The error says what was called.
pub fn decode<A: serde::de::DeserializeOwned>(
    body: &[u8],
    request: &Request<'_>,
    url: &str,
) -> Result<A, Error> {
    json::read(body).map_err(|error| undecodable(request, url, &error))
}

fn undecodable(request: &Request<'_>, url: &str, error: &serde_json::Error) -> Error {
    let what = format!("{} `{url}{}`", request.method, request.path);
    Error::Undecodable(format!("the answer to {what} is not what a control plane says: {error}"))
}

impl Response {
    /// Decodes a 2xx answer as JSON. Any other status, or another body, is an error that says what was
    /// called.
    pub fn decode<A: serde::de::DeserializeOwned>(
        self,
        request: &Request<'_>,
        url: &str,
    ) -> Result<A, Error> {
        decode(&self.raw(request, url)?, request, url)
    }

    /// The body of a 2xx answer as it is; any other status is an error.
    pub fn raw(self, request: &Request<'_>, url: &str) -> Result<Vec<u8>, Error> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        Err(self.refused(request, url))
    }

    fn refused(self, request: &Request<'_>, url: &str) -> Error {
        let what = format!("{} `{url}{}`", request.method, request.path);
        let refusal: Option<Refusal> = json::read(&self.body).ok();
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
    fn tokens_do_not_travel_in_the_clear() {
        let endpoint = |url: &str| Endpoint { url: url.to_owned(), ..Endpoint::default() };
        assert!(Client::new(&endpoint("http://127.0.0.1:1/")).is_ok());
        let error = Client::new(&endpoint("http://ci.example.com")).err().unwrap();
        assert!(matches!(&error, Error::Setup(text) if text.contains(ALLOW_PLAINTEXT)), "{error}");
        assert!(!error.is_retryable());
    }

    #[test]
    fn a_call_that_may_have_been_heard_is_told_from_one_that_was_not() {
        // Reads so much of the request, and hangs up.
        let after = |bytes: usize| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let client = Client::new(&Endpoint { url, ..Endpoint::default() }).unwrap();
            let timeout = Duration::from_secs(300);
            let request = Request { method: "POST", path: "/x", token: None, body: Body::Empty, timeout };
            std::thread::scope(|scope| {
                let answered = scope.spawn(|| client.send(&request));
                let (mut socket, _) = listener.accept().unwrap();
                std::io::Read::read_exact(&mut socket, &mut vec![0; bytes]).unwrap();
                drop(socket);
                assert!(answered.join().unwrap().unwrap_err().may_be_heard(), "after {bytes} bytes");
            });
        };
        after(0);
        after(20);
        // Bound and not listening: every connection is refused.
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
        let socket = socket.unwrap();
        let any = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0);
        rustix::net::bind(&socket, &any).unwrap();
        let address = std::net::SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
        let url = format!("http://{address}");
        let client = Client::new(&Endpoint { url, ..Endpoint::default() }).unwrap();
        let timeout = Duration::from_secs(300);
        let request = Request { method: "GET", path: "/x", token: None, body: Body::Empty, timeout };
        assert!(!client.send(&request).unwrap_err().may_be_heard());
    }

    #[test]
    fn what_only_asks_is_asked_again_where_the_connection_was_cut() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::new(&Endpoint { url, ..Endpoint::default() }).unwrap();
        let timeout = Duration::from_secs(300);
        let request = Request { method: "GET", path: "/x", token: None, body: Body::Empty, timeout };
        std::thread::scope(|scope| {
            let answered = scope.spawn(|| [client.send(&request), client.send(&request)]);
            // The first connection is kept after an answer, and closed when it is used again.
            let answer = |socket: &mut std::net::TcpStream| {
                assert!(std::io::Read::read(socket, &mut [0; 4096]).unwrap() > 0);
                let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                std::io::Write::write_all(socket, text.as_bytes()).unwrap();
            };
            let (mut kept, _) = listener.accept().unwrap();
            answer(&mut kept);
            assert!(std::io::Read::read(&mut kept, &mut [0; 4096]).unwrap() > 0);
            drop(kept);
            answer(&mut listener.accept().unwrap().0);
            for answer in answered.join().unwrap() {
                assert_eq!(answer.unwrap().status, 200);
            }
        });
    }

    /// The answer with this head, as a runner takes it.
    fn answered(head: &str) -> Result<Response, Error> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::of_runner(&Endpoint { url, ..Endpoint::default() }).unwrap();
        let client = client.sibling().unwrap();
        let timeout = Duration::from_secs(300);
        let request = Request { method: "GET", path: "/x", token: None, body: Body::Empty, timeout };
        std::thread::scope(|scope| {
            let answered = scope.spawn(|| client.send(&request));
            let (mut socket, _) = listener.accept().unwrap();
            let answer = format!("HTTP/1.1 {head}\r\nContent-Length: 2\r\n\r\n{{}}");
            std::io::Write::write_all(&mut socket, answer.as_bytes()).unwrap();
            answered.join().unwrap()
        })
    }

    #[test]
    fn a_runner_believes_the_control_plane_only() {
        let redirect = "307 Temporary Redirect\r\nServer: acme\r\nLocation: https://login.test/";
        for status in ["200 OK", redirect, "401 No", "404 Not Found", "409 No", "503 Busy"] {
            let error = answered(status).unwrap_err();
            assert!(matches!(&error, Error::Foreign(text) if text.contains("Runlet-Protocol")), "{error}");
            assert!(error.is_retryable(), "{status}");
            let ours = answered(&format!("{status}\r\nrunlet-protocol: 2"));
            assert_eq!(matches!(ours, Err(Error::Foreign(_))), status == redirect, "{status}");
        }
        let error = answered(&format!("{redirect}\r\nrunlet-protocol: 2")).unwrap_err().to_string();
        let told = "status 307, a redirect to `https://login.test/` that is not followed, by something that calls itself `acme`";
        assert!(error.contains(told) && error.contains("check `api.url`"), "{error}");
    }

    #[test]
    fn any_answer_may_bring_news_of_the_task() {
        for (said, news) in
            [("cancel", Some(TaskNews::Cancel)), ("ended", Some(TaskNews::Ended)), ("x", None)]
        {
            for status in ["200 OK", "409 Conflict"] {
                let answer =
                    answered(&format!("{status}\r\nRunlet-Protocol: 2\r\nRunlet-Task: {said}")).unwrap();
                assert_eq!(answer.news, news);
            }
        }
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
            timeout: Duration::from_secs(30),
        };
        std::thread::scope(|scope| {
            let parked = scope.spawn(|| client.send(&request));
            let (first, _) = listener.accept().unwrap();
            client.close();
            assert!(matches!(parked.join().unwrap(), Err(Error::Unanswered(_))));
            drop(first);
            assert!(matches!(client.send(&request), Err(Error::Unanswered(_))));
            let answered = scope.spawn(|| sibling.send(&request));
            let (mut second, _) = listener.accept().unwrap();
            std::io::Write::write_all(&mut second, b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            assert_eq!(answered.join().unwrap().unwrap().status, 204);
        });
    }
}
