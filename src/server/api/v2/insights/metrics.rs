//! Sums over many runs: how many ended well, how long they took, how soon a failure was over.

use crate::server::time::Millis;
use serde_json::{Value, json};

/// Run of a workflow or job, as far as metrics need it.
#[derive(Clone, Copy, Debug)]
pub(super) struct MeasuredRun {
    /// Whether it succeeded or failed; one that was cancelled or has not ended did neither.
    pub(super) is_good: Option<bool>,
    /// Time at which it began.
    pub(super) began: Millis,
    /// Time at which it ended.
    pub(super) ended: Option<Millis>,
}

/// The sums over the runs of a window. Durations are in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Metrics {
    /// Runs, also those that have not ended.
    pub(super) total: usize,
    /// Runs that succeeded.
    pub(super) good: usize,
    /// Runs that failed.
    pub(super) bad: usize,
    /// Successful ones among those that succeeded or failed, from 0 to 1.
    pub(super) success_rate: f64,
    /// Runs on a day.
    pub(super) throughput: f64,
    /// Mean time from the end of a failure to the end of the next success.
    pub(super) mttr: u64,
    /// Failures that a success followed.
    pub(super) recoveries: usize,
    /// Durations of those that have ended, the shortest first.
    durations: Vec<u64>,
    /// Beginning of the first run and end of the last.
    window: Option<(Millis, Millis)>,
}

impl Metrics {
    /// Computes the metrics of runs in any order, within this many days.
    pub(super) fn of(runs: &[MeasuredRun], days: f64) -> Self {
        let mut runs = runs.to_vec();
        runs.sort_by_key(|run| run.began);
        let count = |wanted| runs.iter().filter(|run| run.is_good == Some(wanted)).count();
        let (good, bad) = (count(true), count(false));
        let mut durations: Vec<u64> =
            runs.iter().filter_map(|run| Some(run.ended?.since(run.began).as_secs())).collect();
        durations.sort_unstable();
        let recoveries = recoveries(&runs);
        let ends = runs.iter().map(|run| run.ended.unwrap_or(run.began)).max();
        Self {
            total: runs.len(),
            good,
            bad,
            success_rate: if good + bad == 0 { 0.0 } else { good as f64 / (good + bad) as f64 },
            throughput: runs.len() as f64 / days.max(f64::MIN_POSITIVE),
            mttr: recoveries.iter().sum::<u64>() / recoveries.len().max(1) as u64,
            recoveries: recoveries.len(),
            durations,
            window: runs.first().map(|run| run.began).zip(ends),
        }
    }

    /// The duration that this part of the runs did not exceed, from 0 to 1.
    pub(super) fn percentile(&self, part: f64) -> Option<u64> {
        let rank = (part * self.durations.len() as f64).ceil() as usize;
        self.durations.get(rank.saturating_sub(1)).copied()
    }

    /// `duration_metrics`; null where nothing has ended.
    fn duration_metrics(&self) -> Value {
        let count = self.durations.len() as f64;
        let mean = (count > 0.0).then(|| self.durations.iter().sum::<u64>() as f64 / count);
        let deviation = mean.map(|mean| {
            let squares = self.durations.iter().map(|&duration| (duration as f64 - mean).powi(2));
            (squares.sum::<f64>() / count).sqrt()
        });
        json!({
            "min": self.durations.first(), "mean": mean.map(|mean| mean.round() as u64), "median": self.percentile(0.5),
            "p95": self.percentile(0.95), "max": self.durations.last(), "standard_deviation": deviation,
        })
    }

    /// Shows the metrics of a job. Nothing costs credits here.
    pub(super) fn of_job(&self) -> Value {
        json!({
            "total_runs": self.total, "successful_runs": self.good, "failed_runs": self.bad,
            "success_rate": self.success_rate, "throughput": self.throughput, "total_credits_used": 0,
            "median_credits_used": 0, "duration_metrics": self.duration_metrics(),
        })
    }

    /// Shows the metrics of a workflow, which has some beside those of a job.
    pub(super) fn of_workflow(&self) -> Value {
        let mut shown = self.of_job();
        shown["mttr"] = json!(self.mttr);
        shown["total_recoveries"] = json!(self.recoveries);
        shown
    }

    /// Beginning of the first run and end of the last.
    pub(super) fn window(&self) -> [Value; 2] {
        let ends = self.window.map(|(start, end)| [start, end].map(|at| json!(at.to_string())));
        ends.unwrap_or_default()
    }

    /// Each number as a multiple of what it was: 1 is unchanged, and 0 too where there was nothing before.
    pub(super) fn trends(&self, before: &Self) -> Value {
        let ratio = |now: f64, then: f64| if then > 0.0 { now / then } else { 0.0 };
        let count = |now: usize, then: usize| ratio(now as f64, then as f64);
        let seconds = |part: f64| {
            let of = |metrics: &Self| metrics.percentile(part).unwrap_or_default() as f64;
            ratio(of(self), of(before))
        };
        json!({
            "total_runs": count(self.total, before.total), "failed_runs": count(self.bad, before.bad),
            "success_rate": ratio(self.success_rate, before.success_rate),
            "p95_duration_secs": seconds(0.95), "median_duration_secs": seconds(0.5), "total_credits_used": 0,
            "mttr": ratio(self.mttr as f64, before.mttr as f64),
            "throughput": ratio(self.throughput, before.throughput),
        })
    }
}

/// Seconds from the end of each first failure to the end of the success that followed; runs in their order.
fn recoveries(runs: &[MeasuredRun]) -> Vec<u64> {
    let mut broken_at: Option<Millis> = None;
    let mut times = Vec::new();
    for run in runs {
        match (run.is_good, run.ended) {
            (Some(false), Some(ended)) => broken_at = broken_at.or(Some(ended)),
            (Some(true), Some(ended)) => {
                times.extend(broken_at.take().map(|broken| ended.since(broken).as_secs()));
            }
            _ => {}
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(began_s: u64, took_s: u64, is_good: Option<bool>) -> MeasuredRun {
        let began = Millis(began_s * 1000);
        MeasuredRun { is_good, began, ended: Some(Millis((began_s + took_s) * 1000)) }
    }

    #[test]
    fn runs_are_added_up() {
        let running = MeasuredRun { is_good: None, began: Millis(900_000), ended: None };
        let runs = [
            run(500, 40, Some(true)),
            run(0, 10, Some(true)),
            run(100, 20, Some(false)),
            run(200, 20, Some(false)),
            run(300, 30, Some(true)),
            run(400, 10, None),
            running,
        ];
        let metrics = Metrics::of(&runs, 7.0);
        assert_eq!((metrics.total, metrics.good, metrics.bad), (7, 3, 2));
        assert_eq!((metrics.success_rate, metrics.throughput), (0.6, 1.0));
        assert_eq!((metrics.mttr, metrics.recoveries), (330 - 120, 1));
        let shown = metrics.of_workflow();
        let durations = &shown["duration_metrics"];
        let read = |name: &str| durations[name].as_f64().map(|value| value.round() as u64);
        assert_eq!(["min", "mean", "median", "p95", "max"].map(read), [10, 22, 20, 40, 40].map(Some));
        assert_eq!(read("standard_deviation"), Some(11));
        assert_eq!(metrics.window(), [json!("1970-01-01T00:00:00.000Z"), json!("1970-01-01T00:15:00.000Z")]);
    }

    #[test]
    fn nothing_is_no_division() {
        let nothing = Metrics::of(&[], 90.0);
        assert_eq!(nothing.of_job()["duration_metrics"]["median"], Value::Null);
        assert_eq!((nothing.success_rate, nothing.mttr), (0.0, 0));
        let some = Metrics::of(&[run(0, 10, Some(true)), run(50, 30, Some(true))], 1.0);
        assert_eq!(some.trends(&nothing)["total_runs"], 0.0);
        let half = Metrics::of(&[run(0, 10, Some(true))], 1.0);
        assert_eq!(some.trends(&half)["total_runs"], 2.0);
        assert_eq!(some.trends(&half)["p95_duration_secs"], 3.0);
    }
}
