//! Tests of a workflow over its newest runs: how many there are, which fail most, which are slow.

use crate::server::store::read::{FlakyTest, TestOverRuns, TestRun};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::HashSet;

/// Tests of each kind that are named.
const MOST_NAMED: usize = 10;

/// The seconds that 95 of 100 runs of a test did not exceed.
fn p95(test: &TestOverRuns) -> f64 {
    let rank = (0.95 * test.times.len() as f64).ceil() as usize;
    test.times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// The answer of `test-metrics`.
pub(super) fn shown(runs: &[TestRun], tests: &[TestOverRuns], flaky: &[FlakyTest], workflow: &str) -> Value {
    let of_workflow = flaky.iter().filter(|test| test.workflow_name == workflow);
    let flaky: HashSet<[&str; 5]> = of_workflow
        .map(|test| {
            let file = test.file.as_deref().unwrap_or_default();
            [&*test.job_name, &*test.name, &*test.classname, &*test.source, file]
        })
        .collect();
    let item = |test: &&TestOverRuns| {
        let file = test.file.as_deref().unwrap_or_default();
        let key = [&*test.job_name, &*test.name, &*test.classname, &*test.source, file];
        json!({
            "p95_duration": p95(test), "total_runs": test.times.len(), "failed_runs": test.failures,
            "flaky": flaky.contains(&key), "source": test.source, "file": file, "classname": test.classname,
            "job_name": test.job_name, "test_name": test.name,
        })
    };
    let mut failed: Vec<&TestOverRuns> = tests.iter().filter(|test| test.failures > 0).collect();
    failed.sort_by_key(|test| Reverse(test.failures));
    let mut slow: Vec<&TestOverRuns> = tests.iter().filter(|test| !test.times.is_empty()).collect();
    slow.sort_by(|one, other| p95(other).total_cmp(&p95(one)));
    // How many are left out that are no better than the last one that is named.
    let extra = |sorted: &[&TestOverRuns], is_same: fn(&TestOverRuns, &TestOverRuns) -> bool| {
        let last = sorted.get(MOST_NAMED - 1);
        last.map_or(0, |last| sorted[MOST_NAMED..].iter().take_while(|test| is_same(test, last)).count())
    };
    let count = |run: &TestRun| run.successes + run.failures + run.skipped;
    let per_run = |run: &TestRun| {
        let decided = run.successes + run.failures;
        let rate = if decided == 0 { 0.0 } else { run.successes as f64 / decided as f64 };
        json!({
            "pipeline_number": run.pipeline_number, "workflow_id": run.workflow_id, "success_rate": rate,
            "test_counts": {
                "error": 0, "failure": run.failures, "skipped": run.skipped, "success": run.successes,
                "total": count(run),
            },
        })
    };
    json!({
        "average_test_count": runs.iter().map(count).sum::<u64>() / runs.len().max(1) as u64,
        "most_failed_tests": failed.iter().take(MOST_NAMED).map(item).collect::<Vec<_>>(),
        "most_failed_tests_extra": extra(&failed, |one, other| one.failures == other.failures),
        "slowest_tests": slow.iter().take(MOST_NAMED).map(item).collect::<Vec<_>>(),
        "slowest_tests_extra": extra(&slow, |one, other| p95(one) == p95(other)),
        "total_test_runs": runs.len(),
        "test_runs": runs.iter().map(per_run).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_tests_are_named_and_those_like_them_counted() {
        let test = |name: usize, failures, times: &[f64]| TestOverRuns {
            job_name: "unit".to_owned(),
            name: name.to_string(),
            classname: String::new(),
            source: "s".to_owned(),
            file: None,
            failures,
            times: times.to_vec(),
        };
        let mut tests: Vec<TestOverRuns> = (0..13).map(|name| test(name, 1, &[0.5])).collect();
        tests.push(test(13, 2, &[0.1, 0.2, 9.0]));
        tests.push(test(14, 0, &[]));
        let run = |pipeline_number, successes, failures| TestRun {
            workflow_id: "w".into(),
            pipeline_number,
            successes,
            failures,
            skipped: 1,
        };
        let shown = shown(&[run(8, 1, 13), run(7, 3, 1)], &tests, &[], "w");
        assert_eq!(shown["average_test_count"], 10);
        assert_eq!(
            (&shown["most_failed_tests"][0]["test_name"], &shown["most_failed_tests_extra"]),
            (&json!("13"), &json!(4))
        );
        assert_eq!(
            (&shown["slowest_tests"][0]["p95_duration"], &shown["slowest_tests_extra"]),
            (&json!(9.0), &json!(4))
        );
        assert_eq!(shown["test_runs"][1]["success_rate"], 0.75);
        assert_eq!(shown["test_runs"][0]["test_counts"]["total"], 15);
    }
}
