//! The policy of trying again: full jitter in a growing window, `Retry-After` honoured, and a budget
//! of time measured from the first failure.

use super::Error;
use std::time::{Duration, Instant};

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

    /// What to do after a failure at `now`: how long to wait before the next attempt, or `None` when
    /// the failure is final or the budget is spent. `random` is uniform in `0.0..1.0`.
    pub fn after(&mut self, error: &Error, now: Instant, random: f64) -> Option<Duration> {
        if !error.is_retryable() {
            return None;
        }
        let first = *self.first_failure.get_or_insert(now);
        if now.duration_since(first) >= self.budget {
            return None;
        }
        self.last_window =
            if self.last_window.is_zero() { self.window } else { (self.last_window * 2).min(self.cap) };
        let jittered = self.last_window.mul_f64(random.clamp(0.0, 1.0));
        let asked = match error {
            Error::Refused { retry_after: Some(after), .. } => (*after).min(self.cap),
            _ => Duration::ZERO,
        };
        Some(jittered.max(asked))
    }

    /// A call succeeded: the next failure starts a new series.
    pub fn succeeded(&mut self) {
        self.first_failure = None;
        self.last_window = Duration::ZERO;
    }
}

/// A random number, uniform in `0.0..1.0`.
pub fn random() -> f64 {
    let mut bytes = [0u8; 8];
    // A system without a random source only loses its jitter.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    (u64::from_ne_bytes(bytes) >> 11) as f64 / (1u64 << 53) as f64
}
