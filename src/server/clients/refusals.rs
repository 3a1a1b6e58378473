//! Refused tokens: their answers come late, one after the other for each address, and the log tells of them.
//!
//! Tokens that are accepted are never held up, so that whoever guesses behind a proxy or NAT keeps nobody else out.

use crate::logging::record;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How late the first refusals of an address are.
const FIRST: Duration = Duration::from_millis(200);
/// Refusals in a short time before they come one after the other.
const MOST_FREE: f64 = 10.0;
/// Pause between two refusals of an address that had many.
const PACE: Duration = Duration::from_millis(500);
/// A refusal is never later than this.
const LATEST: Duration = Duration::from_secs(10);
/// Pause between two lines of the log about one address.
const TELL: Duration = Duration::from_secs(60);
/// Most addresses that are remembered.
const MOST_ADDRESSES: usize = 10_000;

/// Memory of an address.
#[derive(Debug)]
struct Address {
    /// Refusals, of which one is forgotten each second.
    heat: f64,
    seen: Instant,
    /// The next refusal is answered then.
    next: Instant,
    /// Refusals since the log told of them.
    untold: u64,
    told: Option<Instant>,
}

/// The refusals of all addresses.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<IpAddr, Address>>);

impl Refusals {
    fn all(&self) -> MutexGuard<'_, HashMap<IpAddr, Address>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a token was refused and waits until the client may be told.
    pub async fn refused(&self, client: IpAddr) {
        let (wait, told) = self.note(client, Instant::now());
        if let Some(count) = told {
            record!(Warn, client = client, count = count; "tokens that nothing here has given out were refused");
        }
        tokio::time::sleep(wait).await;
    }

    /// How long the answer has to wait, and how many refusals the log should tell of.
    fn note(&self, client: IpAddr, now: Instant) -> (Duration, Option<u64>) {
        let mut all = self.all();
        if all.len() >= MOST_ADDRESSES {
            all.retain(|_, address| now.duration_since(address.seen) < LATEST);
            if all.len() >= MOST_ADDRESSES {
                all.clear();
            }
        }
        let new = Address { heat: 0.0, seen: now, next: now, untold: 0, told: None };
        let address = all.entry(network(client)).or_insert(new);
        address.heat = (address.heat - now.duration_since(address.seen).as_secs_f64()).max(0.0) + 1.0;
        address.seen = now;
        address.untold += 1;
        let mut told = None;
        if address.told.is_none_or(|told| now.duration_since(told) >= TELL) {
            address.told = Some(now);
            told = Some(std::mem::take(&mut address.untold));
        }
        if address.heat <= MOST_FREE {
            address.next = now;
            return (FIRST, told);
        }
        address.next = (address.next.max(now) + PACE).min(now + LATEST);
        (address.next.duration_since(now).max(FIRST), told)
    }
}

/// The part of an address that one client has: of IPv6 the first half.
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        IpAddr::V4(_) => client,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its addresses should fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn many_refusals_of_one_address_come_later_and_later_and_cool_down() {
        let refusals = Refusals::default();
        let (start, client) = (Instant::now(), "192.0.2.1".parse().unwrap());
        let waits: Vec<_> = (0..40).map(|_| refusals.note(client, start).0).collect();
        assert_eq!(waits[9], FIRST);
        assert_eq!((waits[10], waits[12]), (PACE, 3 * PACE));
        assert_eq!(waits[39], LATEST);
        assert_eq!(refusals.note("192.0.2.2".parse().unwrap(), start), (FIRST, Some(1)), "somebody else");
        let later = start + Duration::from_secs(120);
        assert_eq!(refusals.note(client, later), (FIRST, Some(40)), "the first of them was told at once");
    }

    #[test]
    fn an_address_of_the_same_network_is_the_same_client() {
        let refusals = Refusals::default();
        let now = Instant::now();
        for n in 0..11 {
            refusals.note(format!("2001:db8::{n}").parse().unwrap(), now);
        }
        assert_eq!(refusals.note("2001:db8::ff".parse().unwrap(), now).0, 2 * PACE);
    }

    #[test]
    fn memory_is_bounded() {
        let refusals = Refusals::default();
        let now = Instant::now();
        for n in 0..(3 * MOST_ADDRESSES as u32) {
            refusals.note(IpAddr::V4(n.into()), now);
        }
        assert!(refusals.all().len() <= MOST_ADDRESSES);
    }
}
