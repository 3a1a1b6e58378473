//! `namespace/name`: the label that matches jobs to runners.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A checked resource class name. Namespace: letters, digits, `_`, `-`. Name: letters, digits, `:`, `_`,
/// `-`, `+`. Configs, runners and the control plane all go by it: what can be created can be used.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceClass(String);

impl ResourceClass {
    /// Checks and wraps a name; the error is a sentence for people.
    pub fn new(text: &str) -> Result<Self, String> {
        let explain = |why: &str| {
            Err(format!(
                "`{text}` is not a resource class: {why} (expected `namespace/name`, such as `acme/linux-s390x`)"
            ))
        };
        let Some((namespace, name)) = text.split_once('/') else {
            return explain("there is no `/`");
        };
        if namespace.is_empty() || name.is_empty() || text.len() > 256 {
            return explain("namespace and name must not be empty, nor longer than 256 characters");
        }
        if !namespace.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
            return explain("a namespace has letters, digits, `_` and `-`");
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b":_-+".contains(&b)) {
            return explain("a name has letters, digits, `:`, `_`, `-` and `+`");
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the full name, `namespace/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the slash.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }
}

impl fmt::Display for ResourceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ResourceClass {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::new(&text)
    }
}

impl From<ResourceClass> for String {
    fn from(class: ResourceClass) -> String {
        class.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["acme/linux", "a_b-1/X:y_z-1+2", "ns/s390x-big"] {
            assert!(ResourceClass::new(good).is_ok(), "{good}");
        }
        for bad in ["", "linux", "/x", "x/", "a/b/c", "a b/c", "ä/x", "ns/s390x.big", "a:b/c"] {
            assert!(ResourceClass::new(bad).is_err(), "{bad}");
        }
        assert_eq!(ResourceClass::new("acme/x").map(|c| c.namespace().to_owned()), Ok("acme".to_owned()));
    }
}
