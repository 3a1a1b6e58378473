//! The input of a compilation: text, parameters, pipeline values, and a source of orbs.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Facts and texts that a config is compiled with.
pub struct Input<'a> {
    /// Text of the config.
    pub source: &'a str,
    /// Name of the file, shown in errors, such as `.circleci/config.yml`.
    pub file_name: &'a str,
    /// Pipeline parameters given by the trigger.
    pub parameters: &'a BTreeMap<String, Value>,
    /// Pipeline values by full name (`pipeline.git.branch`); names that do not apply are absent. With
    /// neither a branch nor a tag, lists of branches and tags in `filters` keep every job.
    pub values: &'a BTreeMap<String, Value>,
    /// Values for names that `values` lacks, where a config is compiled without a pipeline (see
    /// [`stand_ins`](super::stand_ins)). Filters do not see them.
    pub stand_ins: &'a BTreeMap<String, Value>,
    /// Source of the orbs that the config imports.
    pub orbs: &'a dyn OrbSource,
    /// Resource class for `machine: true` jobs that name none; `None` makes them an error. Used by
    /// `runlet exec`, which runs everything here.
    pub default_resource_class: Option<&'a str>,
}

/// Reason why there is no text of an orb, as a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrbError {
    /// The source does not have it, or may not get it: so it will be again.
    Missing(String),
    /// The fetch failed this time, which says nothing about the config that imports the orb.
    Unreachable(String),
}

impl From<String> for OrbError {
    fn from(why: String) -> Self {
        OrbError::Missing(why)
    }
}

impl fmt::Display for OrbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OrbError::Missing(why) | OrbError::Unreachable(why) => f.write_str(why),
        }
    }
}

/// Finds the text of a registry orb.
pub trait OrbSource {
    /// Resolves `namespace/orb@version` to the exact reference and the text of the orb.
    fn resolve(&self, reference: &str) -> Result<(String, String), OrbError>;

    /// Whether a config may want orbs that are not here: that is a warning then, and its jobs that want one are jobs
    /// that no runner takes.
    fn may_be_missing(&self) -> bool {
        false
    }

    /// Place of the text of a resolved orb, for messages about it, such as a path; `None` leaves the exact
    /// reference.
    fn place(&self, _exact: &str) -> Option<String> {
        None
    }

    /// Gets the text of an orb given by URL; only a source that has a list of allowed URLs overrides it.
    fn fetch(&self, url: &str) -> Result<String, OrbError> {
        Err(OrbError::Missing(format!(
            "the orb `{url}` is given by URL, which is not allowed here: allow its address (`--allow-orb-url`), or put it into the folder of orbs and refer to it as `namespace/orb@1.2.3`"
        )))
    }
}

/// A source that has no orbs.
pub struct NoOrbs;

impl OrbSource for NoOrbs {
    fn resolve(&self, reference: &str) -> Result<(String, String), OrbError> {
        Err(OrbError::Missing(format!(
            "unknown orb '{reference}': no folder of orbs is configured (put its text into `DIR/{reference}.yml`, as `circleci orb source {reference}` prints it, and say `--orbs DIR`)"
        )))
    }
}
