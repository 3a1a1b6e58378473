//! Figures since the start, for the metrics of operators.

use crate::server::store::EndedTask;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper ends of the classes for calls, in milliseconds.
const CALL_ENDS: &[u64] = &[5, 20, 50, 100, 500, 2000, 10_000, 60_000];
/// Upper ends of the classes for tasks, in milliseconds: these wait and run for seconds or for hours.
const TASK_ENDS: &[u64] =
    &[1000, 5000, 15_000, 30_000, 60_000, 300_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 18_000_000];

/// Figures of one start of the control plane: counters, which begin at 0 with it.
#[derive(Debug)]
pub struct Figures {
    /// Calls of every kind.
    pub requests: AtomicU64,
    /// Bytes of output of steps.
    pub output_bytes: AtomicU64,
    /// How long calls took that were not held.
    pub latencies: Histogram,
    /// How long tasks waited for a runner that took them.
    pub waits: Histogram,
    /// How long tasks ran that had begun and have ended.
    pub runs: Histogram,
    ended: Mutex<BTreeMap<(String, &'static str), u64>>,
    stored: Mutex<BTreeMap<&'static str, u64>>,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            requests: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
            latencies: Histogram::new(CALL_ENDS),
            waits: Histogram::new(TASK_ENDS),
            runs: Histogram::new(TASK_ENDS),
            ended: Mutex::default(),
            stored: Mutex::default(),
        }
    }
}

impl Figures {
    /// A task has ended.
    pub fn ended(&self, task: &EndedTask) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        *ended.entry((task.resource_class.clone(), task.status.as_str())).or_default() += 1;
        if let Some(ran) = task.ran {
            self.runs.note(ran);
        }
    }

    /// Resource class, status, and how many of its tasks have ended so, in order.
    pub fn ended_tasks(&self) -> Vec<(String, &'static str, u64)> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.iter().map(|((class, status), count)| (class.clone(), *status, *count)).collect()
    }

    /// The uploads of a kind have these bytes together.
    pub fn stored(&self, kind: &'static str, bytes: u64) {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, bytes);
    }

    /// Kinds of uploads that were summed up, with the bytes of each.
    pub fn stored_bytes(&self) -> BTreeMap<&'static str, u64> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Times by classes, each of which holds all that were shorter.
#[derive(Debug)]
pub struct Histogram {
    ends: &'static [u64],
    /// Counts by class; one more than `ends`, for times beyond the last.
    counts: Vec<AtomicU64>,
    sum_ms: AtomicU64,
}

impl Histogram {
    /// Makes an empty one. `ends` are upper ends in milliseconds, and grow.
    fn new(ends: &'static [u64]) -> Self {
        let counts = (0..=ends.len()).map(|_| AtomicU64::new(0)).collect();
        Self { ends, counts, sum_ms: AtomicU64::new(0) }
    }

    /// Counts one that took this long.
    pub fn note(&self, took: Duration) {
        let ms = took.as_millis() as u64;
        let class = self.ends.partition_point(|end| *end < ms);
        self.counts[class].fetch_add(1, Ordering::Relaxed);
        self.sum_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Upper ends in seconds as text (the last is `+Inf`), each with the count up to it; and the sum in seconds.
    pub fn read(&self) -> (Vec<(String, u64)>, f64) {
        let ends = self.ends.iter().map(|end| (*end as f64 / 1000.0).to_string());
        let mut all = 0;
        let classes = ends.chain(["+Inf".to_owned()]).zip(&self.counts).map(|(end, count)| {
            all += count.load(Ordering::Relaxed);
            (end, all)
        });
        (classes.collect(), self.sum_ms.load(Ordering::Relaxed) as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::TaskId;
    use crate::server::store::status::TaskState;

    #[test]
    fn classes_hold_all_that_were_faster() {
        let latencies = Histogram::new(CALL_ENDS);
        for ms in [1, 5, 30, 100_000] {
            latencies.note(Duration::from_millis(ms));
        }
        let (classes, sum) = latencies.read();
        assert_eq!(classes[0], ("0.005".to_owned(), 2));
        assert_eq!(classes[1], ("0.02".to_owned(), 2));
        assert_eq!(classes.last(), Some(&("+Inf".to_owned(), 4)));
        assert!((sum - 100.036).abs() < 1e-9);
    }

    #[test]
    fn tasks_are_counted_by_class_and_end_and_only_those_that_had_begun_ran() {
        let figures = Figures::default();
        let ended = |class: &str, status, ran| EndedTask {
            id: TaskId::new("task".to_owned()).unwrap_or_else(|error| unreachable!("{error}")),
            resource_class: class.to_owned(),
            status,
            ran,
        };
        figures.ended(&ended("a/b", TaskState::Canceled, None));
        figures.ended(&ended("a/b", TaskState::Success, Some(Duration::from_secs(2))));
        figures.ended(&ended("a/a", TaskState::Success, Some(Duration::from_secs(3))));
        figures.ended(&ended("a/b", TaskState::Success, Some(Duration::from_secs(4))));
        let all: Vec<_> = figures.ended_tasks();
        let expected = [("a/a", "success", 1), ("a/b", "canceled", 1), ("a/b", "success", 2)];
        assert_eq!(all, expected.map(|(class, status, count)| (class.to_owned(), status, count)));
        assert_eq!(figures.runs.read().1, 9.0);
    }
}
