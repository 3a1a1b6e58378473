//! The runner's HTTP client: one call, bounded answer, no retry by itself.
//!
//! `agent`, `executor` and `exec` use it; it knows paths, tokens and bytes and nothing of tasks. TLS
//! is always verified: `tls` builds the trust, `proxy` chooses the way out, `explain` says in an
//! operator's words what went wrong, `retry` holds the policy of trying again.

#[cfg(feature = "server")]
pub mod caller;
mod certificate;
mod client;
mod connector;
mod endpoint;
mod error;
#[cfg(feature = "kubernetes")]
mod exchange;
mod explain;
mod proxy;
mod rejected;
pub mod retry;
pub mod tls;
mod tunnel;

#[cfg(test)]
mod known_answers;

pub use client::{Body, Client, MAX_ANSWER_BYTES, MAX_IDLE, Request, Response, TaskNews, decode};
pub use endpoint::{ALLOW_PLAINTEXT, Endpoint, check_url, encoded};
pub use error::Error;
#[cfg(feature = "kubernetes")]
pub use exchange::{Exchange, OpenAnswer};
