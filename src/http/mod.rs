//! The runner's HTTP client: one call, bounded answer, no retry by itself.
//!
//! `agent`, `executor` and `exec` use it; it knows paths, tokens and bytes and nothing of tasks. TLS
//! is always verified: `tls` builds the trust, `retry` holds the policy of trying again.

pub mod retry;
mod tls;

use crate::protocol::{PROTOCOL_HEADER, PROTOCOL_VERSION, Refusal, Secret};
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

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

/// A client of one control plane. Cheap to share between threads.
pub struct Client {
    agent: ureq::Agent,
    url: String,
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
    /// `Retry-After`, when given in seconds.
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
        /// `Retry-After`, when given in seconds.
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
    /// Builds the client; reads certificate files.
    pub fn new(endpoint: &Endpoint) -> Result<Self, Error> {
        let tls = tls::config(endpoint)?;
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(tls)
            .user_agent(concat!("runlet/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self { agent, url: endpoint.url.trim_end_matches('/').to_owned() })
    }

    /// Base URL of the control plane.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Makes one call. An answer of any status is a [`Response`]; no answer is [`Error::Transport`].
    pub fn send(&self, request: &Request<'_>) -> Result<Response, Error> {
        let url = format!("{}{}", self.url, request.path);
        let transport =
            |error: ureq::Error| Error::Transport(format!("failed to {} `{url}`: {error}", request.method));
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
        let http = self
            .agent
            .configure_request(http)
            .timeout_global(Some(request.timeout))
            .allow_non_standard_methods(true)
            .build();
        let answer = self.agent.run(http).map_err(transport)?;
        let status = answer.status().as_u16();
        let retry_after = answer
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        let mut body = Vec::new();
        let mut reader = answer.into_body().into_reader().take(MAX_ANSWER_BYTES);
        reader
            .read_to_end(&mut body)
            .map_err(|e| Error::Transport(format!("failed to read the answer of `{url}`: {e}")))?;
        Ok(Response { status, retry_after, body })
    }

    /// Makes one call and decodes a 2xx answer as JSON; anything else is an error.
    pub fn json<A: serde::de::DeserializeOwned>(&self, request: &Request<'_>) -> Result<A, Error> {
        let response = self.send(request)?;
        response.decode(request, &self.url)
    }
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
        let refusal: Option<Refusal> = serde_json::from_slice(&self.body).ok();
        let why = refusal.as_ref().map_or_else(String::new, |r| format!(": {}", r.message));
        Err(Error::Refused {
            status: self.status,
            retry_after: self.retry_after,
            message: format!("{what} was refused with status {}{why}", self.status),
            refusal,
        })
    }
}
