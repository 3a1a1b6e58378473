//! Wrong tokens on the login page.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong tokens that an address may send in [`SPAN`].
const MOST_FAILURES: u32 = 5;
/// Failures are forgotten after this long.
const SPAN: Duration = Duration::from_secs(60);
/// Addresses whose failures are remembered at once.
const MOST_ADDRESSES: usize = 10_000;

/// Wrong tokens by address.
#[derive(Default)]
pub(super) struct Failures(Mutex<HashMap<IpAddr, (Instant, u32)>>);

impl Failures {
    /// Counts one; returns how long the address has to wait when there were too many.
    pub(super) fn add(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST_ADDRESSES {
            all.retain(|_, (since, _)| now.duration_since(*since) < SPAN);
        }
        if all.len() >= MOST_ADDRESSES {
            return Some(SPAN);
        }
        let (since, count) = all.entry(address).or_insert((now, 0));
        if now.duration_since(*since) >= SPAN {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        (*count > MOST_FAILURES).then(|| SPAN.saturating_sub(now.duration_since(*since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_tokens_are_counted_by_address_and_forgotten() {
        let (failures, now) = (Failures::default(), Instant::now());
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for _ in 0..MOST_FAILURES {
            assert_eq!(failures.add(one, now), None);
        }
        assert_eq!(failures.add(one, now), Some(SPAN));
        assert_eq!(failures.add(two, now), None);
        assert_eq!(failures.add(one, now + SPAN), None);
    }
}
