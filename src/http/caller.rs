//! Calls to services that are no control plane: APIs of forges, webhooks of people. One call, bounded answer, no
//! redirects, no retry by itself.

use super::client::MAX_ANSWER_BYTES;
use super::endpoint::{ALLOW_PLAINTEXT, Endpoint};
use super::error::Error;
use super::{connector, explain, proxy, tls, tunnel};
use crate::protocol::limits;
use std::io::Read;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use ureq::http::Uri;
use ureq::http::uri::Authority;

/// Calls services. Cheap to share between threads.
pub struct Caller {
    tls: Arc<rustls::ClientConfig>,
    /// Calls public addresses only.
    is_guarded: bool,
}

/// A caller that is made when it is first needed: reading the trusted authorities takes a while.
#[derive(Default)]
pub struct LazyCaller(OnceLock<Result<Caller, String>>);

impl LazyCaller {
    /// Makes one call, of a guarded caller or not: the first call decides. It blocks.
    pub fn call(&self, is_guarded: bool, call: &Outgoing<'_>) -> Result<AnyAnswer, Error> {
        let made = self.0.get_or_init(|| Caller::new(is_guarded).map_err(|error| error.to_string()));
        made.as_ref().map_err(|why| Error::Transport(why.clone()))?.call(call)
    }
}

/// Call to any server, without the protocol's headers.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    /// `GET`, `POST`, ...
    pub method: &'static str,
    /// The whole address.
    pub url: &'a str,
    /// Headers besides the usual ones.
    pub headers: Vec<(&'static str, String)>,
    /// JSON, or nothing.
    pub body: &'a [u8],
    /// Longest time for the whole call, answer included.
    pub timeout: Duration,
}

/// An answer of any status.
#[derive(Clone, Debug)]
pub struct AnyAnswer {
    /// Status of the answer.
    pub status: u16,
    /// Headers with lower-case names.
    pub headers: Vec<(String, String)>,
    /// The beginning of the body.
    pub body: Vec<u8>,
}

impl AnyAnswer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

/// Bytes of an answer that are read.
const MOST_BYTES: u64 = if MAX_ANSWER_BYTES > 1 << 20 { 1 << 20 } else { MAX_ANSWER_BYTES as u64 };

impl Caller {
    /// Makes one that trusts the system's certificate authorities. A guarded one calls public addresses only.
    pub fn new(is_guarded: bool) -> Result<Self, Error> {
        Ok(Self { tls: tls::config(&Endpoint::default())?, is_guarded })
    }

    /// Makes one call. It blocks.
    pub fn call(&self, call: &Outgoing<'_>) -> Result<AnyAnswer, Error> {
        let shown = call.url.split(['?', '#']).next().unwrap_or_default();
        let wrong = |why: &str| Error::Setup(format!("`{shown}` cannot be called: {why}"));
        let uri: Uri = call.url.parse().map_err(|_| wrong("it is not a URL"))?;
        let host = uri.host().unwrap_or_default().to_owned();
        check_scheme(&uri).map_err(wrong)?;
        let proxy = proxy::choose(&uri, |name| std::env::var(name).ok()).map_err(Error::Setup)?;
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if self.is_guarded && literal.is_ok_and(|address| !is_public(address)) {
            return Err(wrong(
                "its address is not public, and the control plane is not allowed to call such",
            ));
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(limits::HEADER_BYTES)
            .user_agent(concat!("runlet/", env!("CARGO_PKG_VERSION")));
        let tls = Some(Arc::clone(&self.tls));
        let agent = match &proxy {
            Some(choice) => {
                let through = ureq::Proxy::new(&choice.url).map_err(|_| wrong("its proxy is not a URL"))?;
                let config = config.proxy(Some(through)).build();
                ureq::Agent::with_parts(config, tunnel::chain(tls), connector::Later::default())
            }
            None if self.is_guarded => {
                let config = config.proxy(None).build();
                ureq::Agent::with_parts(
                    config,
                    connector::chain_to(tls, is_public),
                    connector::Later::default(),
                )
            }
            None => {
                let config = config.proxy(None).build();
                ureq::Agent::with_parts(config, tunnel::chain(tls), connector::Later::default())
            }
        };
        let mut builder = ureq::http::Request::builder().method(call.method).uri(call.url);
        for (name, value) in &call.headers {
            builder = builder.header(*name, value);
        }
        if !call.body.is_empty() {
            builder = builder.header("content-type", "application/json");
        }
        let request = builder.body(call.body).map_err(|error| wrong(&error.to_string()))?;
        let request = agent
            .configure_request(request)
            .timeout_global(Some(call.timeout))
            .allow_non_standard_methods(true)
            .build();
        let answer = agent.run(request).map_err(|error| {
            // A name with a forbidden address has it the next time as well: no second try.
            if let ureq::Error::Other(inner) = &error
                && let Some(forbidden) = inner.downcast_ref::<connector::Forbidden>()
            {
                return wrong(&forbidden.to_string());
            }
            let way =
                explain::Way { host: &host, proxy: proxy.as_ref(), presents: false, is_other_service: true };
            let why = explain::transport(&error, &way);
            Error::Transport(format!("failed to {} `{shown}`: {why}", call.method))
        })?;
        let status = answer.status().as_u16();
        let headers = answer
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
            .collect();
        let mut body = Vec::new();
        // The status is what counts; a body that is cut is no failure.
        let _ = answer.into_body().into_reader().take(MOST_BYTES).read_to_end(&mut body);
        Ok(AnyAnswer { status, headers, body })
    }
}

/// Checks how an address begins: what is sent is readable on the way to no other host.
fn check_scheme(uri: &Uri) -> Result<(), &'static str> {
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if proxy::is_loopback(uri.host().unwrap_or_default()) => Ok(()),
        Some("http") if std::env::var(ALLOW_PLAINTEXT).is_ok_and(|value| value == "1") => Ok(()),
        Some("http") => Err("what is sent would be readable on the way; use `https://`"),
        _ => Err("it begins neither with `https://` nor with `http://`"),
    }
}

/// Checks the port of an address, if it has one. The URL parser keeps one that is no number to itself.
fn check_port(url: &str, authority: &Authority) -> Result<(), String> {
    let after_host = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, rest)| rest);
    if after_host.len() > authority.host().len() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(format!("the port of `{url}` is not a number from 1 to 65535"));
    }
    Ok(())
}

/// Checks that calls may be made to an address, as far as it shows; the error is a phrase for people.
pub fn check_way(url: &str) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|_| format!("`{url}` is not a URL"))?;
    if let Some(authority) = uri.authority() {
        check_port(url, authority)?;
    }
    check_scheme(&uri).map_err(|why| format!("`{url}`: {why}"))
}

/// Checks the address of a service, to which paths are appended; the error is a phrase for people.
pub fn check_address(url: &str) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|_| format!("`{url}` is not a URL"))?;
    let authority = uri.authority().filter(|authority| !authority.host().is_empty());
    let Some(authority) = authority else { return Err(format!("`{url}` has no host")) };
    if authority.as_str().contains('@') {
        // Not shown: the part before the `@` may be a password.
        return Err("it has a login in it".to_owned());
    }
    check_port(url, authority)?;
    if uri.query().is_some() || url.contains('#') {
        return Err(format!("`{url}` has a query or a fragment"));
    }
    check_scheme(&uri).map_err(|why| format!("`{url}`: {why}"))
}

/// Whether an address is one of the internet: not of this host, of its network or of its provider.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.is_documentation()
                || a == 0
                || a >= 240
                || a == 100 && (64..128).contains(&b)
                || a == 192 && b == 0 && v4.octets()[2] == 0
                // Anycast addresses of 6to4 relays, which once led to version 6.
                || a == 192 && b == 88 && v4.octets()[2] == 99
                || a == 198 && (18..20).contains(&b))
        }
        IpAddr::V6(v6) => {
            if let Some(v4) = v6.to_ipv4_mapped() {
                return is_public(IpAddr::V4(v4));
            }
            let [first, second, ..] = v6.segments();
            // Global unicast, without what stands for addresses of version 4, what belongs to protocols, to measurements
            // (2001::/23), and to documents (2001:db8::/32, 3fff::/20).
            (0x2000..0x4000).contains(&first)
                && first != 0x2002
                && !(first == 0x2001 && (second < 0x200 || second == 0xdb8))
                && !(first == 0x3fff && second < 0x1000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_hosts_and_their_networks_are_not_public() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
            "192.0.2.1",
            "192.88.99.1",
            "2001::1",
            "2001:2::1",
            "2001:20::1",
            "2001:db8::1",
            "2001:db8:ffff::1",
            "3fff:fff::1",
            "5f00::1",
        ] {
            assert!(!address.parse().is_ok_and(is_public), "{address}");
        }
        for address in [
            "1.1.1.1",
            "140.82.112.3",
            "2606:4700::1111",
            "2001:4860::8888",
            "3fff:1000::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(address.parse().is_ok_and(is_public), "{address}");
        }
    }

    #[test]
    fn addresses_are_checked_as_they_will_be_called() {
        for good in ["https://api.example", "https://api.example:8443/api/v3", "http://127.0.0.1:8080/rest"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("http://git.example/api/v4", "readable on the way"),
            ("ftp://git.example", "begins neither"),
            ("git.example/api", "URL"),
            ("https://bot:secret@git.example", "login"),
            ("https://git.example:99999", "port"),
            ("https://git.example:0", "port"),
            ("https://[2606:4700::1]:0/x", "port"),
            ("https://git.example/?a=b", "query"),
            ("https://git.example/#a", "fragment"),
        ] {
            let said = check_address(bad).err().unwrap_or_default();
            assert!(said.contains(why) && !said.contains("secret"), "{bad}: {said}");
        }
        for bad in ["https://git.example:0/?a=b", "https://git.example:99999/x", "https://git.example:/x"] {
            assert!(check_way(bad).is_err_and(|why| why.contains("port")), "{bad}");
        }
        assert_eq!(check_way("https://git.example:65535/?a=b"), Ok(()));
    }

    #[test]
    fn a_service_that_is_not_there_is_no_matter_of_the_settings_of_runners() {
        let call = Outgoing {
            method: "GET",
            url: "https://no-such-name.invalid/x",
            headers: Vec::new(),
            body: b"",
            timeout: Duration::from_secs(30),
        };
        let error = Caller::new(false).ok().and_then(|caller| caller.call(&call).err());
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("no-such-name.invalid") && !error.contains("api.url"), "{error}");
    }

    #[test]
    fn a_guarded_caller_calls_no_host_nearby_by_whatever_name() {
        let caller = Caller::new(true);
        for url in
            ["http://127.0.0.1:1/", "http://localhost:1/", "https://[::1]/", "https://169.254.169.254/x"]
        {
            let call = Outgoing {
                method: "POST",
                url,
                headers: Vec::new(),
                body: b"{}",
                timeout: Duration::from_secs(30),
            };
            let error = caller.as_ref().ok().and_then(|caller| caller.call(&call).err());
            // Trying again cannot help.
            let is_for_good = matches!(error, Some(Error::Setup(_)));
            let error = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("not public") && is_for_good, "{url}: {error}");
        }
    }
}
