//! Why a call to the API server did not do what it should: by status first, reason second, message last.

use crate::http;
use serde::Deserialize;
use std::fmt;
use std::time::Duration;

/// Why there is no good answer.
#[derive(Clone, Debug)]
pub(in crate::container) enum ClusterFault {
    /// An answer that refuses the call.
    Refused {
        /// Status of the answer.
        status: u16,
        /// The word of the API server; empty in several of its answers.
        reason: String,
        /// The sentence of the API server.
        message: String,
        /// `Retry-After`, counted from now.
        retry_after: Option<Duration>,
    },
    /// No answer. The call may have been heard.
    Unanswered(String),
    /// ContainerSettings are wrong: trying again cannot help.
    Setup(String),
}

/// The body of a refusal, as far as it is JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    reason: Option<String>,
    message: Option<String>,
}

impl ClusterFault {
    /// Makes the fault of an answer with a bad status.
    pub(super) fn of(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let read: Status = serde_json::from_slice(body).unwrap_or_default();
        let text = || String::from_utf8_lossy(body).trim().chars().take(300).collect();
        let message = read.message.filter(|message| !message.is_empty()).unwrap_or_else(text);
        ClusterFault::Refused { status, reason: read.reason.unwrap_or_default(), message, retry_after }
    }

    /// The HTTP status, if there was an answer.
    pub(in crate::container) fn status(&self) -> Option<u16> {
        match self {
            ClusterFault::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// There is an object of this name.
    pub(in crate::container) fn already_exists(&self) -> bool {
        matches!(self, ClusterFault::Refused { status: 409, reason, .. } if reason == "AlreadyExists")
    }

    /// There is no such object: what was to be deleted is gone.
    pub(in crate::container) fn is_missing(&self) -> bool {
        self.status() == Some(404)
    }

    /// A quota has no room left: it frees when pods end.
    pub(in crate::container) fn is_full(&self) -> bool {
        matches!(self, ClusterFault::Refused { status: 403, message, .. } if message.contains("exceeded quota"))
    }

    /// The namespace is being deleted: it takes nothing any more.
    pub(in crate::container) fn is_leaving(&self) -> bool {
        matches!(self, ClusterFault::Refused { status: 403, message, .. } if message.contains("because it is being terminated"))
    }

    /// The account of this agent lacks a right.
    pub(in crate::container) fn lacks_right(&self) -> bool {
        matches!(self, ClusterFault::Refused { status: 403, message, .. } if message.contains(" cannot "))
    }

    /// Whether the same call may succeed later.
    pub(in crate::container) fn is_passing(&self) -> bool {
        match self {
            ClusterFault::Unanswered(_) => true,
            ClusterFault::Setup(_) => false,
            ClusterFault::Refused { status, message, .. } => match status {
                408 | 429 | 502..=504 => true,
                // Others of this status are about the request.
                500 => {
                    message.contains("failed calling webhook")
                        || message.contains("rpc error")
                        || message.contains("dial tcp")
                        || message.contains("timeout")
                        || message.contains("timed out")
                        || message.contains("context deadline")
                }
                // A namespace that was just made has no account yet.
                403 => message.contains("error looking up service account"),
                _ => false,
            },
        }
    }

    /// How long the API server wants to be left alone.
    pub(in crate::container) fn retry_after(&self) -> Option<Duration> {
        match self {
            ClusterFault::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl From<http::Error> for ClusterFault {
    fn from(error: http::Error) -> Self {
        match error {
            http::Error::Setup(why) => ClusterFault::Setup(why),
            other => ClusterFault::Unanswered(other.to_string()),
        }
    }
}

impl fmt::Display for ClusterFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClusterFault::Refused { status, message, .. } => write!(f, "{message} (status {status})"),
            ClusterFault::Unanswered(why) | ClusterFault::Setup(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_apart() {
        let fault = |status: u16, body: &str| ClusterFault::of(status, None, body.as_bytes());
        let quota = fault(
            403,
            r#"{"reason":"Forbidden","message":"pods \"a2\" is forbidden: exceeded quota: q, requested: pods=1"}"#,
        );
        assert!(quota.is_full() && !quota.lacks_right() && !quota.is_passing());
        let role = fault(
            403,
            r#"{"reason":"Forbidden","message":"pods is forbidden: User \"u\" cannot create resource \"pods\" in API group \"\""}"#,
        );
        assert!(role.lacks_right() && !role.is_full() && !role.is_passing());
        let leaving = fault(
            403,
            r#"{"reason":"Forbidden","message":"pods \"p\" is forbidden: unable to create new content in namespace ci because it is being terminated"}"#,
        );
        assert!(leaving.is_leaving() && !leaving.lacks_right() && !leaving.is_passing());
        let flow = fault(429, "Too many requests, please try again later.\n");
        assert!(
            flow.is_passing()
                && flow.to_string() == "Too many requests, please try again later. (status 429)"
        );
        let hook = fault(
            500,
            r#"{"reason":"InternalError","message":"Internal error occurred: failed calling webhook \"x\""}"#,
        );
        assert!(hook.is_passing());
        assert!(
            !fault(500, r#"{"message":"resourceVersion should not be set on objects to be created"}"#)
                .is_passing()
        );
        let there = fault(409, r#"{"reason":"AlreadyExists","message":"pods \"p\" already exists"}"#);
        assert!(there.already_exists() && !there.is_passing());
        assert!(!fault(400, r#"{"message":"admission webhook \"x\" denied the request: no"}"#).is_passing());
    }
}
