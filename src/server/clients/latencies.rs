//! How long calls took, for the metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the classes, in milliseconds.
const ENDS: [u64; 8] = [5, 20, 50, 100, 500, 2000, 10_000, 60_000];

/// Calls since the start, by the time they took.
#[derive(Debug, Default)]
pub struct Latencies {
    counts: [AtomicU64; ENDS.len() + 1],
    sum_ms: AtomicU64,
}

impl Latencies {
    /// A call took this long.
    pub fn note(&self, took: Duration) {
        let ms = took.as_millis() as u64;
        let class = ENDS.iter().position(|end| ms <= *end).unwrap_or(ENDS.len());
        self.counts[class].fetch_add(1, Ordering::Relaxed);
        self.sum_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Upper ends in seconds as text (the last is `+Inf`), each with the calls up to it; and the sum in seconds.
    pub fn read(&self) -> (Vec<(String, u64)>, f64) {
        let ends = ENDS.iter().map(|end| (*end as f64 / 1000.0).to_string()).chain(["+Inf".to_owned()]);
        let mut all = 0;
        let classes = ends.zip(&self.counts).map(|(end, count)| {
            all += count.load(Ordering::Relaxed);
            (end, all)
        });
        (classes.collect(), self.sum_ms.load(Ordering::Relaxed) as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_all_that_were_faster() {
        let latencies = Latencies::default();
        for ms in [1, 5, 30, 100_000] {
            latencies.note(Duration::from_millis(ms));
        }
        let (classes, sum) = latencies.read();
        assert_eq!(classes[0], ("0.005".to_owned(), 2));
        assert_eq!(classes.last(), Some(&("+Inf".to_owned(), 4)));
        assert!((sum - 100.036).abs() < 1e-9);
    }
}
