//! How long the tests of a job took: what `circleci-agent tests split` weighs its names by.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Answer to `GET .../test-timings`, and the format of `--timings-file`: seconds by name, added up over all
/// test cases of an earlier run. Names with white space are left out, they cannot be split; so are the
/// quickest when there are more than a few MB.
///
/// ```json
/// {"filename": {"spec/a_spec.rb": 1.5}, "classname": {"A": 1.5}, "testname": {"works": 0.5}}
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TestTimings {
    /// Seconds by `testcase@file`, else that of the suite.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub filename: BTreeMap<String, f64>,
    /// Seconds by `testcase@classname`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classname: BTreeMap<String, f64>,
    /// Seconds by `testcase@name`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub testname: BTreeMap<String, f64>,
}
