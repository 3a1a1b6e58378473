//! The meaning of elements by their names.

use crate::server::store::status::TestResult;

/// Most elements in each other: each takes memory.
pub(super) const DEEPEST: usize = 1000;

/// Elements of a test whose content is output or about earlier tries, and no result.
pub(super) const NO_RESULT: [&str; 7] =
    ["system-out", "system-err", "properties", "rerunFailure", "rerunError", "flakyFailure", "flakyError"];

/// Names of elements that nobody documents, and that can mean nothing else.
pub(super) const MEANS_FAILURE: [&str; 3] = ["fail", "failed", "errored"];

/// Names of elements that sentences tell: those of JUnit XML, roots of other formats, and what text that is no XML may seem
/// to have. What stands elsewhere is text of others, which is masked where it is a value or text, and not in a name.
const TOLD: [&str; 42] = [
    "testsuites",
    "testsuite",
    "testcase",
    "failure",
    "error",
    "skipped",
    "system-out",
    "system-err",
    "properties",
    "property",
    "rerunFailure",
    "rerunError",
    "flakyFailure",
    "flakyError",
    "fail",
    "failed",
    "errored",
    "result",
    "assemblies",
    "assembly",
    "TestRun",
    "test-run",
    "test-results",
    "coverage",
    "report",
    "checkstyle",
    "pmd",
    "html",
    "head",
    "body",
    "br",
    "p",
    "a",
    "b",
    "i",
    "ul",
    "li",
    "svg",
    "project",
    "plist",
    "rss",
    "feed",
];

/// An element in a sentence: by its name where everybody has it.
pub(super) fn named(element: &str) -> String {
    match TOLD.iter().any(|name| name.eq_ignore_ascii_case(element)) {
        true => format!("`{element}`"),
        false => "an element".to_owned(),
    }
}

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

/// Refuses an element below so many others that none is read there.
pub(super) fn check_depth(depth: usize) -> Result<(), String> {
    if depth < DEEPEST {
        return Ok(());
    }
    Err(format!("read up to a place where more than {DEEPEST} elements are in each other"))
}
