//! The address of a client: that of its connection, or what proxies that are trusted say of it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The header in which proxies tell whom they speak for; each adds its own client at the end.
const FORWARDED: &str = "x-forwarded-for";

/// Addresses of proxies that are believed, by `--trusted-proxy`: one, or all that begin with the same bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    address: IpAddr,
    bits: u32,
}

/// A text is no address of a proxy.
#[derive(Debug, PartialEq, Eq)]
pub struct BadProxy(String);

impl fmt::Display for BadProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not ADDRESS or ADDRESS/BITS, such as 10.0.0.7 or 10.0.0.0/8", self.0)
    }
}

impl FromStr for Proxy {
    type Err = BadProxy;

    fn from_str(text: &str) -> Result<Self, BadProxy> {
        let bad = || BadProxy(text.to_owned());
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, bits)| (a, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| bad())?;
        if bits > most { Err(bad()) } else { Ok(Self { address, bits }) }
    }
}

impl Proxy {
    fn is(&self, address: IpAddr) -> bool {
        let first = |a: u128, b: u128, width: u32| {
            let shift = width - self.bits;
            a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
        };
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => first(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => first(a.to_bits(), b.to_bits(), 128),
            _ => false,
        }
    }
}

/// The proxies that are trusted.
#[derive(Clone, Debug, Default)]
pub struct Proxies(pub Vec<Proxy>);

impl Proxies {
    fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|proxy| proxy.is(address))
    }

    /// The client behind a connection. Of what a trusted proxy says the last address counts that is none of a trusted
    /// proxy: those before it were written by the client, who may write anything.
    pub fn client(&self, peer: SocketAddr, headers: &axum::http::HeaderMap) -> SocketAddr {
        // A socket for both families shows IPv4 addresses in the form of the other.
        let mut client = peer.ip().to_canonical();
        let lines: Vec<&str> =
            headers.get_all(FORWARDED).iter().filter_map(|line| line.to_str().ok()).collect();
        let told = lines.iter().rev().flat_map(|line| line.rsplit(','));
        for address in told {
            if !self.trust(client) {
                break;
            }
            let Some(address) = parse(address.trim()) else { break };
            client = address;
        }
        let port = if client == peer.ip().to_canonical() { peer.port() } else { 0 };
        SocketAddr::new(client, port)
    }
}

/// An address, with or without a port.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its addresses should fail loudly")]
mod tests {
    use super::*;

    fn client(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let proxies = Proxies(trusted.iter().map(|text| text.parse().unwrap()).collect());
        let mut headers = axum::http::HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED, line.parse().unwrap());
        }
        proxies.client(SocketAddr::new(peer.parse().unwrap(), 9), &headers).ip().to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed_and_only_about_their_own_clients() {
        for (trusted, peer, forwarded, expected) in [
            (&[][..], "10.0.0.1", &["1.1.1.1"][..], "10.0.0.1"),
            (&["10.0.0.1"], "10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            (&["10.0.0.1"], "10.0.0.2", &["1.1.1.1"], "10.0.0.2"),
            (&["10.0.0.1"], "10.0.0.1", &[], "10.0.0.1"),
            (&["10.0.0.1"], "10.0.0.1", &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            (&["10.0.0.0/8"], "10.0.0.1", &["6.6.6.6, 1.1.1.1", "10.9.9.9"], "1.1.1.1"),
            (&["10.0.0.0/8"], "10.0.0.1", &["6.6.6.6, nonsense"], "10.0.0.1"),
            (&["10.0.0.0/8"], "10.0.0.1", &["[2001:db8::1]:80"], "2001:db8::1"),
            (&["10.0.0.0/8"], "::ffff:10.0.0.1", &["1.1.1.1:5"], "1.1.1.1"),
            (&["fd00::/8"], "fd12::1", &["1.1.1.1"], "1.1.1.1"),
            (&["0.0.0.0/0"], "9.9.9.9", &["1.1.1.1"], "1.1.1.1"),
        ] {
            assert_eq!(client(trusted, peer, forwarded), expected, "{trusted:?} {peer} {forwarded:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "proxy", "10.0.0.0/33", "10.0.0.0/x", "10.0.0.0/", "::/129"] {
            assert!(text.parse::<Proxy>().unwrap_err().to_string().contains(text), "{text}");
        }
    }
}
