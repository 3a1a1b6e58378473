//! The meaning of elements by their names.

use crate::server::store::status::TestResult;

/// Elements of a test whose content is output or about earlier tries, and no result.
pub(super) const NO_RESULT: [&str; 7] =
    ["system-out", "system-err", "properties", "rerunFailure", "rerunError", "flakyFailure", "flakyError"];

/// Names of elements that nobody documents, and that can mean nothing else.
pub(super) const MEANS_FAILURE: [&str; 3] = ["fail", "failed", "errored"];

/// Whether an element is a suite, or the root.
pub(super) fn is_suite(element: &str) -> bool {
    matches!(element, "testsuites" | "testsuite")
}

/// The result that an element below a test stands for.
pub(super) fn result_of(element: &str) -> TestResult {
    match element {
        "failure" | "error" => TestResult::Failure,
        "skipped" => TestResult::Skipped,
        _ => TestResult::Success,
    }
}

/// Whether a result counts beside the one that is known: the first of its kind, and a failure more than a skip.
pub(super) fn counts(known: TestResult, result: TestResult) -> bool {
    match known {
        TestResult::Success => result != TestResult::Success,
        TestResult::Skipped => result == TestResult::Failure,
        TestResult::Failure => false,
    }
}
