//! A call to a server that is no control plane: any status is an answer, and the body comes as it arrives.

use super::client::Client;
use super::endpoint::Endpoint;
use super::error::Error;
use super::{explain, retry, tls};
use std::io::Read;
use std::time::{Duration, SystemTime};

/// How long a name look-up and a connection may take, each.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Call to a server that is no control plane.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// `GET`, `POST`, `DELETE`, ...
    pub method: &'static str,
    /// Path and query, beginning with `/`.
    pub path: &'a str,
    /// Sent as bearer token.
    pub token: &'a str,
    /// JSON; empty for none.
    pub body: &'a [u8],
    /// Longest time for everything until the body has ended.
    pub timeout: Duration,
}

/// An answer whose body was not read yet.
pub struct OpenAnswer {
    /// Status of the answer.
    pub status: u16,
    /// `Retry-After`, counted from now.
    pub retry_after: Option<Duration>,
    /// Body, read as it arrives.
    pub body: Box<dyn Read + Send>,
}

impl Client {
    /// A client of a server that is reached without a proxy, such as the API server of the cluster that this runs in;
    /// up to `connections` wait for use. Only HTTPS is spoken.
    pub fn direct(endpoint: &Endpoint, connections: usize) -> Result<Self, Error> {
        let trust = tls::config(endpoint)?;
        Self::with_parts(endpoint, Some(trust), None, connections)
    }

    /// A client of the runner protocol for many calls at once: up to `connections` wait for use.
    pub fn of_busy_runner(endpoint: &Endpoint, connections: usize) -> Result<Self, Error> {
        Self::of_runner(endpoint)?.with_connections(connections)
    }

    /// Makes a call.
    pub fn exchange(&self, call: &Exchange<'_>) -> Result<OpenAnswer, Error> {
        let url = format!("{}{}", self.url(), call.path);
        let mut builder = ureq::http::Request::builder().method(call.method).uri(&url);
        builder = builder
            .header("Authorization", format!("Bearer {}", call.token))
            .header("Accept", "application/json");
        if !call.body.is_empty() {
            builder = builder.header("Content-Type", "application/json");
        }
        let http = builder.body(call.body).map_err(|e| Error::Setup(format!("cannot call `{url}`: {e}")))?;
        let agent = self.agent();
        let connect = CONNECT_TIMEOUT.min(call.timeout);
        let http = agent
            .configure_request(http)
            .timeout_global(Some(call.timeout))
            .timeout_resolve(Some(connect))
            .timeout_connect(Some(connect))
            .allow_non_standard_methods(true)
            .build();
        let answer = agent.run(http).map_err(|error| {
            let message = format!("failed to {} `{url}`: {}", call.method, self.explain(&error));
            match explain::was_connected(&error) {
                true => Error::Unanswered(message),
                false => Error::Transport(message),
            }
        })?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after =
            header("retry-after").and_then(|value| retry::retry_after(value, SystemTime::now()));
        let status = answer.status().as_u16();
        Ok(OpenAnswer { status, retry_after, body: Box::new(answer.into_body().into_reader()) })
    }
}
