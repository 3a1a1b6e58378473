//! References of registry orbs: `namespace/orb@version`.

use std::fmt;

/// Reference of a registry orb, `namespace/orb@version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrbReference {
    /// Namespace, such as `circleci`.
    pub namespace: String,
    /// Name within the namespace, such as `node`.
    pub name: String,
    /// Version or range of versions.
    pub version: OrbVersion,
}

/// The version of a reference, after the `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrbVersion {
    /// `1.2.3`: this release.
    Exact(u64, u64, u64),
    /// `1.2`: the newest patch.
    Minor(u64, u64),
    /// `1`: the newest of this major version.
    Major(u64),
    /// `volatile`: the newest published.
    Volatile,
    /// `dev:label`: a mutable version.
    Dev(String),
}

impl OrbReference {
    /// Reads a reference; the error is a sentence for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fail = |why: &str| {
            Err(format!("`{text}` is not the reference of an orb: {why} (expected `namespace/orb@1.2.3`)"))
        };
        let Some((path, version)) = text.split_once('@') else {
            return fail("there is no version");
        };
        let Some((namespace, name)) = path.split_once('/') else {
            return fail("there is no `/`");
        };
        let is_name = |name: &str| {
            name.len() > 1
                && name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
        };
        if !is_name(namespace) || !is_name(name) {
            return fail(
                "a name has two characters or more, starts with a lower-case letter, and has only those, digits, `_` and `-`",
            );
        }
        let Some(version) = OrbVersion::parse(version) else {
            return fail("a version is `1.2.3`, `1.2`, `1`, `volatile` or `dev:label`");
        };
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), version })
    }
}

impl OrbVersion {
    fn parse(text: &str) -> Option<Self> {
        if text == "volatile" {
            return Some(Self::Volatile);
        }
        if let Some(label) = text.strip_prefix("dev:") {
            let safe = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            let ok = !label.is_empty() && label.len() <= 255 && label.bytes().all(safe) && label != "..";
            return ok.then(|| Self::Dev(label.to_owned()));
        }
        let number = |part: &str| {
            let plain = part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
            part.parse::<u64>().ok().filter(|_| plain)
        };
        let parts: Option<Vec<u64>> = text.split('.').map(number).collect();
        match parts?.as_slice() {
            [major] => Some(Self::Major(*major)),
            [major, minor] => Some(Self::Minor(*major, *minor)),
            [major, minor, patch] => Some(Self::Exact(*major, *minor, *patch)),
            _ => None,
        }
    }

    /// Whether a published version satisfies this one.
    pub fn accepts(&self, (major, minor, patch): (u64, u64, u64)) -> bool {
        match self {
            Self::Exact(a, b, c) => (*a, *b, *c) == (major, minor, patch),
            Self::Minor(a, b) => (*a, *b) == (major, minor),
            Self::Major(a) => *a == major,
            Self::Volatile => true,
            Self::Dev(_) => false,
        }
    }
}

impl fmt::Display for OrbVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(a, b, c) => write!(f, "{a}.{b}.{c}"),
            Self::Minor(a, b) => write!(f, "{a}.{b}"),
            Self::Major(a) => write!(f, "{a}"),
            Self::Volatile => f.write_str("volatile"),
            Self::Dev(label) => write!(f, "dev:{label}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_checked() {
        for good in ["circleci/node@5.1.0", "a1/b-2@1", "ns/orb@volatile", "ns/orb@dev:first", "ns/orb@1.2"] {
            assert!(OrbReference::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "node",
            "ns/orb",
            "ns/orb@",
            "ns/orb@1.2.3.4",
            "ns/orb@01",
            "NS/orb@1",
            "n/o@1",
            "ns/orb@dev:../x",
            "../x@1",
            "ns/orb@dev:..",
        ] {
            assert!(OrbReference::parse(bad).is_err(), "{bad}");
        }
    }
}
