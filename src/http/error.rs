//! Why a call failed, as its caller has to know it.

use crate::protocol::{Refusal, RefusalCode};
use std::fmt;
use std::time::Duration;

/// Why there is no answer, or not a usable one.
#[derive(Debug)]
pub enum Error {
    /// The endpoint's own settings are wrong: URL, certificate files. Trying again cannot help.
    Setup(String),
    /// No connection came about: look-up, proxy, socket, TLS. Nobody has heard of the call.
    Transport(String),
    /// The call was on its way when the connection broke or the time was over: it may have been heard.
    Unanswered(String),
    /// An answer came that refuses the call.
    Refused {
        /// Status of the answer.
        status: u16,
        /// `Retry-After`, counted from now.
        retry_after: Option<Duration>,
        /// The body, when it was the protocol's own.
        refusal: Option<Refusal>,
        /// A sentence for people.
        message: String,
    },
    /// An answer came that is not what the protocol says, such as a proxy's HTML page.
    Undecodable(String),
    /// An answer came that no control plane has written: something in between answers in its place, or takes the
    /// protocol's header out of its answers. As good as no answer.
    Foreign(String),
    /// The answer is longer than any may be. It will be so again.
    TooLong {
        /// A sentence for people.
        message: String,
        /// The task that the answer hands out, as [`CLAIMED_HEADER`](crate::protocol::CLAIMED_HEADER) has it.
        claimed: Option<String>,
    },
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Setup(_) | Error::TooLong { .. } => false,
            Error::Transport(_) | Error::Unanswered(_) | Error::Undecodable(_) | Error::Foreign(_) => true,
            Error::Refused { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
        }
    }
}

impl Error {
    /// Whether the control plane may have done what the call asks for, although no answer of its own says so.
    pub fn may_be_heard(&self) -> bool {
        matches!(self, Error::Unanswered(_) | Error::Undecodable(_) | Error::Foreign(_))
    }

    /// The code of a refusal.
    pub fn code(&self) -> Option<RefusalCode> {
        self.refusal()?.code
    }

    /// The refusal, when it was the protocol's own.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Error::Refused { refusal, .. } => refusal.as_ref(),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Setup(message)
            | Error::Transport(message)
            | Error::Unanswered(message)
            | Error::Undecodable(message)
            | Error::Foreign(message)
            | Error::TooLong { message, .. }
            | Error::Refused { message, .. } => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}
