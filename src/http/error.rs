//! Why a call failed, as its caller has to know it.

use crate::protocol::Refusal;
use std::fmt;
use std::time::Duration;

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
