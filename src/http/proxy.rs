//! Which proxy leads to the control plane: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`,
//! in upper or lower case.
//!
//! Only the choice is made here; the environment is an argument. The way through it is `tunnel`.

use std::net::IpAddr;
use ureq::http::Uri;

/// A proxy and where it was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Address with its login: `http://[user:password@]host:port`.
    pub(super) url: String,
    /// The variable, for messages.
    pub(super) variable: &'static str,
    /// `host:port`, which may be shown.
    pub(super) shown: String,
    /// Whether the URL has a login.
    pub(super) has_login: bool,
}

/// The proxy for `target`, if there is one. The error names the variable that is wrong.
pub(super) fn choose(
    target: &Uri,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<Choice>, String> {
    let names: &[&'static str] = if target.scheme_str() == Some("https") {
        &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
    } else {
        &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
    };
    let get = |name: &str| environment(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
    let Some((variable, value)) = names.iter().find_map(|name| Some((*name, get(name)?))) else {
        return Ok(None);
    };
    let host = bare(target.host().unwrap_or_default());
    let port = target.port_u16().unwrap_or(if target.scheme_str() == Some("https") { 443 } else { 80 });
    let exempt = get("NO_PROXY").or_else(|| get("no_proxy")).unwrap_or_default();
    if is_loopback(&host) || is_exempt(&host, port, &exempt) {
        return Ok(None);
    }
    let url = if value.contains("://") { value } else { format!("http://{value}") };
    let wrong = |why: &str| {
        format!(
            "{variable} is not a proxy that can be used: {why} (write it as `http://host:port` or `http://user:password@host:port`)"
        )
    };
    let uri: Uri = url.parse().map_err(|_| wrong("it is not a URL"))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        Some(scheme) => return Err(wrong(&format!("`{scheme}` proxies are not supported"))),
        None => return Err(wrong("it has no scheme")),
    }
    let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
    if authority.host().is_empty() {
        return Err(wrong("it has no host"));
    }
    let (has_login, shown) = match authority.as_str().rsplit_once('@') {
        Some((_, shown)) => (true, shown.to_owned()),
        None => (false, authority.as_str().to_owned()),
    };
    Ok(Some(Choice { url, variable, shown, has_login }))
}

/// `localhost`, `127.0.0.0/8`, `::1`.
pub(super) fn is_loopback(host: &str) -> bool {
    let host = bare(host);
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Lower case, without the brackets of an IPv6 address or a final dot.
fn bare(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase()
}

/// Entries are `*`, a name (which covers the names below it), `.name` or `*.name` (only those below),
/// an address, or a network in CIDR form; a name or address may carry a port.
fn is_exempt(host: &str, port: u16, list: &str) -> bool {
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        let address: Option<IpAddr> = host.parse().ok();
        if let Some((network, bits)) = entry.split_once('/') {
            return address.is_some_and(|address| in_network(address, network, bits));
        }
        let is_address = entry.parse::<IpAddr>().is_ok();
        let (name, wanted) = match entry.rsplit_once(':') {
            Some((name, digits)) if !is_address && !digits.is_empty() => match digits.parse::<u16>() {
                Ok(port) => (name, Some(port)),
                Err(_) => (entry, None),
            },
            _ => (entry, None),
        };
        if wanted.is_some_and(|wanted| wanted != port) {
            return false;
        }
        let name = bare(name);
        if let Some(suffix) = name.strip_prefix("*.").or_else(|| name.strip_prefix('.')) {
            return host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
        }
        host == name
            || address.is_none() && host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'))
    })
}

fn in_network(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (u128::from(u32::from(a)), u128::from(u32::from(n)), 32),
        (IpAddr::V6(a), IpAddr::V6(n)) => (u128::from(a), u128::from(n), 128),
        _ => return false,
    };
    bits <= width && (bits == 0 || (address ^ network) >> (width - bits) == 0)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn choose_in(target: &str, environment: &[(&str, &str)]) -> Result<Option<Choice>, String> {
        choose(&target.parse().unwrap(), |name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_variable_of_the_scheme_comes_before_the_general_one() {
        let environment = [("ALL_PROXY", "all:1"), ("https_proxy", "s:2"), ("HTTP_PROXY", "p:3")];
        let url = |target| choose_in(target, &environment).unwrap().unwrap().url;
        assert_eq!(url("https://ci.example"), "http://s:2");
        assert_eq!(url("http://ci.example"), "http://p:3");
        assert_eq!(choose_in("https://ci.example", &[("HTTP_PROXY", "p:3")]), Ok(None));
        assert_eq!(choose_in("https://ci.example", &[("HTTPS_PROXY", "")]), Ok(None));
    }

    #[test]
    fn a_login_is_not_shown() {
        let choice = choose_in("https://ci.example", &[("HTTPS_PROXY", "http://me:p%40ss@proxy:3128")])
            .unwrap()
            .unwrap();
        assert_eq!((choice.shown.as_str(), choice.has_login), ("proxy:3128", true));
        let error =
            choose_in("https://ci.example", &[("HTTPS_PROXY", "socks5://me:secret@proxy")]).unwrap_err();
        assert!(error.contains("`socks5` proxies are not supported") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn this_host_never_goes_through_a_proxy() {
        for target in ["http://localhost:8000", "http://127.0.0.1", "http://[::1]:80", "https://a.localhost"]
        {
            assert_eq!(choose_in(target, &[("ALL_PROXY", "proxy:1")]), Ok(None), "{target}");
        }
    }

    #[test]
    fn no_proxy_entries() {
        for (target, list, exempt) in [
            ("https://ci.example", "*", true),
            ("https://ci.example", "other,ci.example", true),
            ("https://CI.Example.", "ci.example", true),
            ("https://a.ci.example", "ci.example", true),
            ("https://notci.example", "ci.example", false),
            ("https://ci.example", ".ci.example", false),
            ("https://a.ci.example", "*.ci.example", true),
            ("https://ci.example:8443", "ci.example:443", false),
            ("https://ci.example", "ci.example:443", true),
            ("https://10.1.2.3", "10.0.0.0/8", true),
            ("https://11.1.2.3", "10.0.0.0/8", false),
            ("https://[fd00::1]", "fd00::/8", true),
            ("https://[fd00::1]", "fd00::1", true),
            ("https://10.1.2.3", "2.3", false),
            ("https://10.1.2.3", "0.0.0.0/0", true),
            ("https://10.1.2.3", "10.0.0.0/99,x/y,:", false),
        ] {
            let environment = [("HTTPS_PROXY", "proxy:1"), ("NO_PROXY", list)];
            assert_eq!(choose_in(target, &environment).unwrap().is_none(), exempt, "{target} {list}");
        }
    }
}
