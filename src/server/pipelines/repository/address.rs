//! Texts that git may be given: addresses of repositories and names of refs. No IO.

/// Longest address, in bytes.
const MOST_ADDRESS_BYTES: usize = 2048;
/// Longest name of a branch or tag, in bytes.
const MOST_REF_BYTES: usize = 250;

/// How a repository is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `https://`, the ordinary one.
    Https,
    /// `http://`, to this host only.
    Http,
    /// `ssh://` and `user@host:path`.
    Ssh,
    /// `git://`: not encrypted.
    Git,
    /// `file://`: a repository on this host.
    File,
}

impl Protocol {
    /// The name of the protocol in git.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Https => "https",
            Protocol::Http => "http",
            Protocol::Ssh => "ssh",
            Protocol::Git => "git",
            Protocol::File => "file",
        }
    }
}

/// Checks the address of a repository; the error is a sentence for people and holds no password.
pub fn check(address: &str) -> Result<Protocol, String> {
    if address.len() > MOST_ADDRESS_BYTES {
        return Err(format!("the address of a repository has at most {MOST_ADDRESS_BYTES} bytes"));
    }
    if address.is_empty() || address.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err(
            "the address of a repository is empty, or has white space or control characters in it".to_owned()
        );
    }
    let Some((scheme, rest)) = address.split_once("://") else { return check_scp(address) };
    let protocol = match scheme {
        "https" => Protocol::Https,
        "http" => Protocol::Http,
        "ssh" => Protocol::Ssh,
        "git" => Protocol::Git,
        "file" => Protocol::File,
        _ => {
            return Err(
                "the address of a repository begins with `https://`, `ssh://`, `git://` or `file://`, or is `user@host:path`"
                    .to_owned(),
            );
        }
    };
    if protocol == Protocol::File {
        let plain = rest.starts_with('/') && !rest.starts_with("//");
        let plain = plain && !rest.split('/').any(|part| part == "..");
        return if plain {
            Ok(protocol)
        } else {
            Err("`file://` is followed by an absolute path without `..`".to_owned())
        };
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, host) = match authority.rsplit_once('@') {
        Some((login, host)) => (Some(login), host),
        None => (None, authority),
    };
    match (protocol, login) {
        (_, None) => {}
        (Protocol::Ssh, Some(user)) if is_user(user) => {}
        _ => {
            return Err(
                "the address of a repository must not contain a login or a password: give the project a token (`runlet admin project access`), or use `ssh://`"
                    .to_owned(),
            );
        }
    }
    check_host(host)?;
    if path.is_empty() {
        return Err("the address of a repository has no path".to_owned());
    }
    if protocol == Protocol::Http && !is_loopback(host) {
        return Err(
            "`http://` is for this host only: anybody on the way could change the config; use `https://`"
                .to_owned(),
        );
    }
    Ok(protocol)
}

/// `user@host:path` or `host:path`.
fn check_scp(address: &str) -> Result<Protocol, String> {
    let Some((before, path)) = address.split_once(':') else {
        return Err(
            "the address of a repository is `https://HOST/PATH`, `ssh://HOST/PATH`, `USER@HOST:PATH` or `file:///PATH`"
                .to_owned(),
        );
    };
    let (user, host) = before.split_once('@').map_or((None, before), |(user, host)| (Some(user), host));
    if user.is_some_and(|user| !is_user(user)) || path.starts_with(':') || path.is_empty() {
        return Err("the address of a repository is not of the form `USER@HOST:PATH`".to_owned());
    }
    check_host(host)?;
    Ok(Protocol::Ssh)
}

fn is_user(user: &str) -> bool {
    !user.is_empty()
        && !user.starts_with('-')
        && user.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn check_host(host: &str) -> Result<(), String> {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, port)) => (name, port.strip_prefix(':')),
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let good = !name.is_empty()
        && !name.starts_with('-')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:".contains(&b));
    if good && port.is_none_or(|port| port.parse::<u16>().is_ok()) {
        Ok(())
    } else {
        Err("the address of a repository has no proper host name".to_owned())
    }
}

fn is_loopback(host: &str) -> bool {
    ["127.0.0.1", "localhost", "[::1]"]
        .iter()
        .any(|own| host.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')))
}

/// Checks the name of a branch or tag by git's own rules; the error is a sentence for people. It may begin with `-`: git
/// is given full names only.
pub fn check_ref(name: &str) -> Result<(), String> {
    let part_is_good = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let good = !name.is_empty()
        && name.len() <= MOST_REF_BYTES
        && name != "@"
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.chars().any(|c| c <= ' ' || c == '\u{7f}' || "~^:?*[\\".contains(c))
        && name.split('/').all(part_is_good);
    if good {
        return Ok(());
    }
    let shown: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
    Err(format!("`{shown}` cannot be the name of a branch or a tag"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_accepted_is_never_an_option_or_a_command(
            address in "(https|http|ssh|git|file|ext)?(:|://|::)?[-a-z@:/.\\[\\] \n]{0,30}",
            name in "[-a-z./@{~ ]{0,20}",
        ) {
            if check(&address).is_ok() {
                prop_assert!(!address.starts_with('-') && !address.starts_with("ext::"));
                prop_assert!(!address.chars().any(|c| c.is_control() || c == ' '));
            }
            if check_ref(&name).is_ok() {
                prop_assert!(!name.contains("..") && !name.contains(' '));
            }
        }
    }

    #[test]
    fn addresses_are_told_apart() {
        for (address, protocol) in [
            ("https://github.com/acme/app.git", Protocol::Https),
            ("https://git.example.com:8443/acme/app", Protocol::Https),
            ("http://127.0.0.1:8000/app", Protocol::Http),
            ("http://[::1]:8000/app", Protocol::Http),
            ("ssh://git@example.com:2222/acme/app", Protocol::Ssh),
            ("git@github.com:acme/app.git", Protocol::Ssh),
            ("git://127.0.0.1/app", Protocol::Git),
            ("file:///srv/git/app.git", Protocol::File),
        ] {
            assert_eq!(check(address), Ok(protocol), "{address}");
        }
    }

    #[test]
    fn whatever_could_run_or_leak_something_is_refused() {
        for address in [
            "",
            "--upload-pack=touch /tmp/x",
            "-oProxyCommand=x:y",
            "ext::sh -c whoami",
            "ext::sh",
            "fd::17",
            "ftp://example.com/x",
            "/srv/git/app.git",
            "file://host/app",
            "file:///srv/../etc",
            "https://example.com",
            "https:///x",
            "https://-x/y",
            "https://example.com:99999/y",
            "ssh://-oProxyCommand=x/y",
            "ssh://git:hunter2@example.com/x",
            "git@-host:x",
            "-user@host:x",
            "https://example.com/a b",
            "https://example.com/a\nb",
            "http://example.com/x",
            "http://127.0.0.1.evil.example/x",
        ] {
            assert!(check(address).is_err(), "{address}");
        }
        let error = check("https://token123@example.com/x").err().unwrap_or_default();
        assert!(error.contains("login") && !error.contains("token123"), "{error}");
    }

    #[test]
    fn ref_names_follow_git() {
        for good in ["main", "feature/x", "v1.2.3", "a-b", "ünï", "release@2", "-x", "-/-"] {
            assert!(check_ref(good).is_ok(), "{good}");
        }
        for bad in [
            "", "a..b", "a b", "a~1", "a^", "a:b", "a?", "a*", "[a", "a\\b", "/a", "a/", "a//b", ".a",
            "a/.b", "a.lock", "a.lock/b", "a.", "@", "a@{1}", "a\u{7f}", "a\nb",
        ] {
            assert!(check_ref(bad).is_err(), "{bad}");
        }
    }
}
