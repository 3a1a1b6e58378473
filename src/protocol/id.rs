//! Identifiers as types, so that one kind cannot stand in for another.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Identifies one task: one attempt at one parallel node of a job. A lower-case UUID, made by the
/// control plane. Runners treat it as opaque, but it is checked before it becomes part of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId(String);

impl TaskId {
    /// Accepts what the control plane hands out: 1 to 64 letters, digits and `-`.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
        let text = text.into();
        let fits = (1..=64).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            Ok(Self(text))
        } else {
            Err(InvalidId)
        }
    }

    /// The identifier as it stands in URLs and file names.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TaskId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::new(text)
    }
}

impl From<TaskId> for String {
    fn from(id: TaskId) -> String {
        id.0
    }
}

/// A text that cannot be an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidId;

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an identifier has 1 to 64 letters, digits and `-`")
    }
}

impl std::error::Error for InvalidId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_that_could_leave_a_directory_is_refused() {
        for bad in ["", "..", "a/b", "a b", "é", &"x".repeat(65)] {
            assert!(TaskId::new(bad).is_err(), "{bad:?}");
        }
        assert!(serde_json::from_str::<TaskId>("\"../x\"").is_err());
        assert_eq!(TaskId::new("0a-9Z").map(String::from), Ok("0a-9Z".to_owned()));
    }
}
