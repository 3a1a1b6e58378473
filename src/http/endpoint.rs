//! The address of a control plane and how it is trusted.

use super::error::Error;
use std::path::PathBuf;
use ureq::http::Uri;

/// Address of a control plane, and how it is trusted.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// Base URL without a trailing slash, such as `https://ci.example.com`.
    pub url: String,
    /// Further certificate authorities, PEM; added to those of the system.
    pub ca_file: Option<PathBuf>,
    /// Client certificate and its key, PEM.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

/// Set to `1`, it lets tokens travel to another host over plain HTTP.
pub const ALLOW_PLAINTEXT: &str = "RUNLET_ALLOW_PLAINTEXT";

/// The text with all but unreserved characters as `%XX`, which any part of an address or of a header takes.
pub fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Checks the base URL; the error says what is wrong with it.
pub fn check_url(url: &str) -> Result<Uri, Error> {
    let wrong = |why: &str| {
        Error::Setup(format!(
            "`{url}` is not the address of a control plane: {why} (expected something like `https://ci.example.com`)"
        ))
    };
    let uri: Uri = url.parse().map_err(|_| wrong("it is not a URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("it begins neither with `https://` nor with `http://`"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
    if authority.host().is_empty() {
        return Err(wrong("it has no host"));
    }
    if authority.as_str().contains('@') {
        // Not shown: the part before the `@` may be a password.
        return Err(Error::Setup("the address of the control plane must not contain a login".to_owned()));
    }
    // The URL parser keeps a port that is no number to itself.
    let after_host = &authority.as_str()[authority.host().len().min(authority.as_str().len())..];
    if !after_host.is_empty() && authority.port_u16().is_none() {
        return Err(wrong("its port is not a number up to 65535"));
    }
    if uri.query().is_some() || url.contains('#') {
        return Err(wrong("it must not have a query or a fragment"));
    }
    Ok(uri)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_with_a_reason() {
        for (url, why) in [
            ("ci.example.com", "begins neither"),
            ("ftp://ci.example.com", "begins neither"),
            ("https://", "not a URL"),
            ("https://ci:99999", "port"),
            ("https://ci:", "port"),
            ("https://ci?x=1", "query"),
            ("https://ci/#x", "fragment"),
            ("https://me:secret@ci", "login"),
        ] {
            let error = check_url(url).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{url}: {error}");
        }
        for good in ["https://ci", "http://127.0.0.1:8000", "https://ci/base", "http://[::1]:1"] {
            assert!(check_url(good).is_ok(), "{good}");
        }
    }
}
