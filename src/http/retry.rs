//! The policy of trying again: full jitter in a growing window, `Retry-After` honoured, and a budget
//! of time measured from the first failure.

use super::error::Error;
use crate::system::clock::unix_time;
use std::time::{Duration, Instant, SystemTime};

/// State of one series of attempts.
#[derive(Debug)]
pub struct Backoff {
    window: Duration,
    cap: Duration,
    budget: Duration,
    first_failure: Option<Instant>,
    last_window: Duration,
}

impl Backoff {
    /// Waits grow from `window` to at most `cap`; a series of failures longer than `budget` ends it.
    pub fn new(window: Duration, cap: Duration, budget: Duration) -> Self {
        Self { window, cap, budget, first_failure: None, last_window: Duration::ZERO }
    }

    /// The wait after a failure at `now`: how long to wait before the next attempt, or `None` when
    /// the failure is final or the budget is spent. `random` is uniform in `0.0..1.0`.
    pub fn after(&mut self, error: &Error, now: Instant, random: f64) -> Option<Duration> {
        if !error.is_retryable() {
            return None;
        }
        let first = *self.first_failure.get_or_insert(now);
        if now.duration_since(first) >= self.budget {
            return None;
        }
        let jittered = self.again(random);
        let asked = match error {
            Error::Refused { retry_after: Some(after), .. } => (*after).min(self.cap),
            _ => Duration::ZERO,
        };
        Some(jittered.max(asked))
    }

    /// How long to wait before an attempt at something that was answered, only not with what is wanted.
    pub fn again(&mut self, random: f64) -> Duration {
        self.last_window =
            if self.last_window.is_zero() { self.window } else { (self.last_window * 2).min(self.cap) };
        self.last_window.mul_f64(random.clamp(0.0, 1.0))
    }

    /// A call succeeded: the next failure starts a new series.
    pub fn succeeded(&mut self) {
        self.first_failure = None;
        self.last_window = Duration::ZERO;
    }
}

/// Reads a `Retry-After` header, given in seconds or as a date (`Sun, 06 Nov 1994 08:49:37 GMT`).
/// A date that has passed is no wait at all.
pub fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let mut words = header.split_once(',')?.1.split_ascii_whitespace();
    let day = words.next()?.parse().ok()?;
    let month = words.next()?;
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == month)? as u64 + 1;
    let year = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':');
    let mut part = || clock.next()?.parse().ok();
    let at = unix_time(year, month, day, part()?, part()?, part()?)?;
    (words.next()? == "GMT").then(|| at.duration_since(now).unwrap_or_default())
}

/// A random number, uniform in `0.0..1.0`.
pub fn random() -> f64 {
    let mut bytes = [0u8; 8];
    // A system without a random source only loses its jitter.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    (u64::from_ne_bytes(bytes) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn lost() -> Error {
        Error::Transport("cut".to_owned())
    }

    fn refused(status: u16, retry_after: Option<Duration>) -> Error {
        Error::Refused { status, retry_after, refusal: None, message: String::new() }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_window_doubles_up_to_its_cap_and_starts_again_after_a_success() {
        let now = Instant::now();
        let mut backoff = Backoff::new(seconds(1), seconds(5), seconds(600));
        let waits: Vec<_> = (0..5).map(|_| backoff.after(&lost(), now, 1.0).unwrap().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        backoff.succeeded();
        assert_eq!(backoff.after(&lost(), now, 0.5), Some(Duration::from_millis(500)));
    }

    #[test]
    fn the_budget_is_measured_from_the_first_failure() {
        let now = Instant::now();
        let mut backoff = Backoff::new(seconds(1), seconds(5), seconds(60));
        assert!(backoff.after(&lost(), now, 0.0).is_some());
        assert!(backoff.after(&lost(), now + seconds(59), 0.0).is_some());
        assert!(backoff.after(&lost(), now + seconds(60), 0.0).is_none());
        backoff.succeeded();
        assert!(backoff.after(&lost(), now + seconds(61), 0.0).is_some());
    }

    #[test]
    fn what_the_control_plane_asks_for_is_honoured_within_the_cap() {
        let now = Instant::now();
        let mut backoff = Backoff::new(seconds(1), seconds(30), seconds(600));
        assert_eq!(backoff.after(&refused(429, Some(seconds(7))), now, 0.0), Some(seconds(7)));
        assert_eq!(backoff.after(&refused(503, Some(seconds(3600))), now, 0.0), Some(seconds(30)));
    }

    #[test]
    fn final_refusals_are_not_tried_again() {
        let now = Instant::now();
        let mut backoff = Backoff::new(seconds(1), seconds(30), seconds(600));
        for status in [400, 401, 403, 404, 409, 422, 301] {
            assert_eq!(backoff.after(&refused(status, None), now, 0.0), None, "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert!(backoff.after(&refused(status, None), now, 0.0).is_some(), "{status}");
        }
        assert!(backoff.after(&Error::Undecodable(String::new()), now, 0.0).is_some());
        assert!(backoff.after(&Error::Setup(String::new()), now, 0.0).is_none());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + seconds(784_111_770);
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(retry_after(" 120 ", now), Some(seconds(120)));
        assert_eq!(retry_after(date, now), Some(seconds(7)));
        assert_eq!(retry_after(date, now + seconds(100)), Some(Duration::ZERO));
        for bad in [
            "",
            "-1",
            "soon",
            "Sun, 06 Nov 1994",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
        ] {
            assert_eq!(retry_after(bad, now), None, "{bad}");
        }
    }

    #[test]
    fn random_numbers_are_in_range_and_differ() {
        let numbers: Vec<f64> = (0..64).map(|_| random()).collect();
        assert!(numbers.iter().all(|n| (0.0..1.0).contains(n)));
        assert!(numbers.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
